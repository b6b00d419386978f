"""A scene is parts in the cells of a grid; ``render`` photographs it.

The scene is the truth about the picture and is kept beside it, so that what a model says can be
checked. Everything that the scene does not say (exact place, size, turn, light, tint, noise) is
drawn from ``rng`` when the picture is taken: two pictures of one scene never share their pixels.

>>> scene = Scene(rows=4, cols=5, parts=(Part(shape="nut", colour="grey", row=0, col=2),))
>>> describe(scene)
'a3 grey nut .'
"""

import random

import numpy as np
from PIL import Image

from ladlib.records import Record
from ladlib.toy.alphabet import CELL, TURNING, sprite
from ladlib.toy.backdrops import paint_backdrop


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
