"""A scene is parts in the cells of a grid; ``render`` photographs it.

The scene is the truth about the picture and is kept beside it, so that what a model says can be
checked. Everything that the scene does not say (exact place, size, turn, light, tint, noise) is
drawn from ``rng`` when the picture is taken: two pictures of one scene never share their pixels.

>>> scene = Scene(rows=4, cols=5, parts=(Part(shape="nut", colour="grey", row=0, col=2),))
>>> describe(scene)
'a3 grey nut .'

General scenes: random parts at random places, for pretraining. No product, no rule, no task.

They share the alphabet of parts and colours with the products and nothing else: neither their
layouts nor their backdrops nor the question that the two training stages ask.
"""

import random

import numpy as np
from PIL import Image

from ladlib.records import Record
from ladlib.toy.backdrops import GENERAL, paint_backdrop
from ladlib.toy.parts import BLEMISHES, CELL, COLOURS, SHAPES, TURNING, sprite


def place_of(row: int, col: int) -> str:
    """``a1`` is the cell at the top left; letters count rows, digits columns."""
    return f"{'abcdefgh'[row]}{col + 1}"


class Part(Record):
    """One part in one cell (row and column from 0)."""

    shape: str
    colour: str
    row: int
    col: int
    blemish: str = ""

    @property
    def place(self) -> str:
        return place_of(self.row, self.col)

    @property
    def kind(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def name(self) -> str:
        return f"{self.kind} {self.blemish}" if self.blemish else self.kind


class Scene(Record):
    """Parts on a grid before a backdrop."""

    rows: int
    cols: int
    parts: tuple[Part, ...]
    backdrop: str = "plain"
    under: tuple[Part, ...] = ()  # lies beneath the parts and is not spoken of: the juice behind a label
    defect: str = ""  # what was done to a normal scene, "" for a normal one

    def at(self) -> dict[str, Part]:
        """The parts by place, in reading order."""
        return {part.place: part for part in sorted(self.parts, key=lambda part: (part.row, part.col))}

    def places(self) -> list[str]:
        """The name of every cell, row by row."""
        return [place_of(row, col) for row in range(self.rows) for col in range(self.cols)]


def describe(scene: Scene) -> str:
    """The parts in reading order, as the toy language puts it."""
    return " ".join(f"{place} {part.name} ." for place, part in scene.at().items())


def render(scene: Scene, rng: random.Random, looseness: int = 3) -> Image.Image:
    """Photograph ``scene``: an RGB image of ``cols * 28`` by ``rows * 28`` pixels.

    ``looseness`` is how many pixels a part may lie off the middle of its cell; none is cut off by the picture's edge.
    """
    image = paint_backdrop(scene.backdrop, scene.cols * CELL, scene.rows * CELL, rng)
    for part in (*scene.under, *scene.parts):
        stamp, left, top = placed(part, image.size, rng, looseness)
        image.paste(stamp, (left, top), stamp)
    return _photographed(image, rng)


def placed(part: Part, size: tuple[int, int], rng: random.Random, looseness: int) -> tuple[Image.Image, int, int]:
    """The part's sprite with its left and top pixel: off the middle, turned, scaled; inside a picture of ``size``."""
    whole = part.shape in {"juice", "wire"}
    angle = rng.randrange(0, 360, 30) if part.shape in TURNING else (0 if whole else rng.choice((-8, -4, 0, 4, 8)))
    stamp = sprite(part.shape, part.colour, part.blemish, angle, 100 if whole else rng.choice((84, 91, 98, 105)))
    slack = 0 if whole else looseness
    margin = (CELL - stamp.width) // 2
    left = part.col * CELL + margin + rng.randint(-slack, slack)
    top = part.row * CELL + margin + rng.randint(-slack, slack)
    return stamp, min(max(left, 0), size[0] - stamp.width), min(max(top, 0), size[1] - stamp.height)


def _photographed(image: Image.Image, rng: random.Random) -> Image.Image:
    """``image`` under some light: brightness, tint, a slope of light, and sensor noise."""
    pixels = np.asarray(image, dtype=np.float32)
    height, width, _ = pixels.shape
    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    tint = np.array([rng.uniform(0.94, 1.06) for _ in range(3)], dtype=np.float32) * rng.uniform(0.82, 1.12)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] * rng.uniform(-0.1, 0.1)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] * rng.uniform(-0.1, 0.1)
    grain = noise.integers(-9, 10, pixels.shape, dtype=np.int8).astype(np.float32) * rng.uniform(0.3, 1.2)
    lit = pixels * tint * (1 + across + down) + grain
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


GRIDS = ((4, 4), (4, 5), (3, 5), (5, 3), (6, 3), (3, 6), (5, 4), (3, 4), (4, 3))  # rows, columns; 12 to 20 cells
ALIKE = 0.4  # share of the scenes whose parts are of one or two colours, or of one or two shapes
BLEMISHED = 0.06  # share of the parts that carry a blemish
ON_COLOUR = 0.1  # share of the parts that lie on a cell of one colour
LOOSENESS = (1, 3, 4, 5, 6)  # pixels that the parts of a general scene may lie off the middle of their cells


def random_scene(rng: random.Random, most: int) -> Scene:
    """A scene of 1 to ``most`` parts, somewhat more often few than many, often several of one kind."""
    rows, cols = rng.choice(GRIDS)
    count = min(rng.randint(1, most), rng.randint(1, most) if rng.random() < 0.5 else most, rows * cols)
    palette = _palette(rng)
    kinds = [random_kind(rng, *palette) for _ in range(rng.randint(1, 5))]
    cells = rng.sample([(row, col) for row in range(rows) for col in range(cols)], count)
    parts = tuple(_part(rng, rng.choice(kinds), cell) for cell in sorted(cells))
    return Scene(rows=rows, cols=cols, parts=parts, backdrop=rng.choice(GENERAL))


def crowded_scene(rng: random.Random) -> Scene:
    """A scene with a part of any kind in four of five cells: much to look at in one picture."""
    rows, cols = rng.choice(GRIDS)
    cells = [(row, col) for row in range(rows) for col in range(cols) if rng.random() < 0.8]
    parts = tuple(_part(rng, random_kind(rng), cell) for cell in cells)
    return Scene(rows=rows, cols=cols, parts=parts, backdrop=rng.choice(GENERAL))


def one_coloured_scene(rng: random.Random, most: int) -> Scene:
    """A scene of 1 to ``most`` parts of any shape, all of one colour."""
    rows, cols = rng.choice(GRIDS)
    colour = rng.choice(tuple(COLOURS))
    cells = [(row, col) for row in range(rows) for col in range(cols)]
    cells = rng.sample(cells, rng.randint(1, min(most, len(cells))))
    parts = tuple(_part(rng, random_kind(rng, (colour,)), cell) for cell in sorted(cells))
    return Scene(rows=rows, cols=cols, parts=parts, backdrop=rng.choice(GENERAL))


def photograph(scene: Scene, rng: random.Random) -> Image.Image:
    """``scene`` photographed, its parts more or less loose in their cells and some of them on a coloured ground."""
    scene = scene.model_copy(update={"under": _under(rng, scene.parts)})
    return render(scene, rng, rng.choice(LOOSENESS))


def changed(scene: Scene, rng: random.Random, changes: int) -> Scene:
    """``scene`` with ``changes`` cells altered: a part gone, added, or another in its place."""
    cells = {(part.row, part.col): part for part in scene.parts}
    every = [(row, col) for row in range(scene.rows) for col in range(scene.cols)]
    occupied = rng.random() < 0.7
    wanted = [cell for cell in every if (cell in cells) == occupied]
    pool = wanted if len(wanted) >= changes else every
    for cell in rng.sample(pool, min(changes, len(pool))):
        old = cells.pop(cell, None)
        if old is None or rng.random() < 0.55:
            cells[cell] = _other(rng, scene, old, cell)
    return scene.model_copy(update={"parts": tuple(cells[cell] for cell in sorted(cells))})


def shuffled(scene: Scene, rng: random.Random) -> Scene:
    """``scene`` with every part in another place."""
    every = [(row, col) for row in range(scene.rows) for col in range(scene.cols)]
    cells = rng.sample(every, len(scene.parts))
    moved = [
        part.model_copy(update={"row": row, "col": col}) for part, (row, col) in zip(scene.parts, cells, strict=True)
    ]
    return scene.model_copy(update={"parts": tuple(sorted(moved, key=lambda part: (part.row, part.col)))})


def random_kind(
    rng: random.Random, colours: tuple[str, ...] = tuple(COLOURS), shapes: tuple[str, ...] = tuple(SHAPES)
) -> tuple[str, str]:
    """One of ``colours`` and of ``shapes`` that can be told apart (white print on a white label cannot)."""
    while True:
        colour, shape = rng.choice(colours), rng.choice(shapes)
        if not (colour == "white" and shape in {"tag", "band", "juice", "wire"}):
            return colour, shape


def _palette(rng: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The colours and the shapes of a scene's kinds: often alike, so that neither half of a name is enough."""
    colours, shapes = tuple(COLOURS), tuple(SHAPES)
    if rng.random() >= ALIKE:
        return colours, shapes
    if rng.random() < 0.7:
        return tuple(rng.sample(colours, rng.randint(1, 2))), shapes
    return colours, tuple(rng.sample(shapes, rng.randint(1, 2)))


def _under(rng: random.Random, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Cells filled with one colour beneath some of the parts, as liquid lies behind a label."""
    chosen = [part for part in parts if rng.random() < ON_COLOUR]
    return tuple(
        Part(
            shape="juice", colour=rng.choice([one for one in COLOURS if one != part.colour]), row=part.row, col=part.col
        )
        for part in chosen
    )


def _part(rng: random.Random, kind: tuple[str, str], cell: tuple[int, int]) -> Part:
    blemish = rng.choice(BLEMISHES) if rng.random() < BLEMISHED else ""
    return Part(colour=kind[0], shape=kind[1], row=cell[0], col=cell[1], blemish=blemish)


def _other(rng: random.Random, scene: Scene, old: Part | None, cell: tuple[int, int]) -> Part:
    """A part for ``cell`` that is not ``old``: of a kind in the scene, one much like ``old``, or a quite new one."""
    if old is not None and not old.blemish and rng.random() < 0.2:
        return old.model_copy(update={"blemish": rng.choice(BLEMISHES)})
    known = [(part.colour, part.shape) for part in scene.parts]
    while True:
        drawn = rng.random()
        if known and drawn < 0.4:
            kind = rng.choice(known)
        elif old is not None and drawn < 0.8:
            kind = random_kind(rng, *rng.choice(((tuple(COLOURS), (old.shape,)), ((old.colour,), tuple(SHAPES)))))
        else:
            kind = random_kind(rng)
        if old is None or kind != (old.colour, old.shape):
            return _part(rng, kind, cell)
        known = []
