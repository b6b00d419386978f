"""General scenes: random parts at random places, for pretraining. No product, no rule, no task.

They share the alphabet of parts and colours with the products and nothing else: neither their
layouts nor their backdrops nor the question that the two training stages ask.
"""

import random

from PIL import Image

from ladlib.toy.alphabet import BLEMISHES, COLOURS, SHAPES
from ladlib.toy.backdrops import GENERAL
from ladlib.toy.scenes import Part, Scene, render

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
