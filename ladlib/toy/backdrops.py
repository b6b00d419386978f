"""What lies behind the parts: a plain ground, trays and panels of the general scenes, and the products' own.

A backdrop is painted at twice the size and reduced, in whole numbers, so that it is the same
everywhere. The general scenes use only ``GENERAL``; the products' backdrops belong to them alone.
"""

import random

from PIL import Image, ImageDraw

from ladlib.toy.parts import CELL, Rgb, shade

GENERAL = ("plain", "tray", "panels", "stripes", "lattice", "wells", "clutter")
GROUNDS: tuple[Rgb, ...] = (
    (206, 204, 198), (188, 192, 198), (222, 212, 192), (90, 92, 98), (54, 58, 66), (170, 184, 176), (196, 180, 186),
)  # fmt: skip
DOUBLE = 2  # drawn at twice the size


def paint_backdrop(name: str, width: int, height: int, rng: random.Random) -> Image.Image:
    """The backdrop ``name`` as an RGB image of ``width`` by ``height`` pixels."""
    ground = rng.choice(GROUNDS[:3]) if name in PRODUCTS else _any_ground(rng)
    image = Image.new("RGB", (width * DOUBLE, height * DOUBLE), ground)
    painter = _Painter(ImageDraw.Draw(image), width, height, ground, rng)
    (PRODUCTS | _GENERAL_PAINTERS)[name](painter)
    return image.resize((width, height), Image.Resampling.BOX)


def _any_ground(rng: random.Random) -> Rgb:
    """One of the usual grounds or, as often, any dull colour: parts should be known on whatever they lie."""
    if rng.random() < 0.5:
        return rng.choice(GROUNDS)
    grey = rng.randint(40, 220)
    return tuple((grey + rng.randint(20, 235)) // 2 for _ in range(3))


class _Painter:
    """Draws in pixels of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, width: int, height: int, ground: Rgb, rng: random.Random) -> None:
        self.draw, self.width, self.height, self.ground, self.rng = draw, width, height, ground, rng

    def box(self, left: float, top: float, right: float, bottom: float, radius: int = 0, **style) -> None:
        corners = [round(value * DOUBLE) for value in (left, top, right, bottom)]
        self.draw.rounded_rectangle(corners, radius=radius * DOUBLE, **style)

    def line(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb, width: int = 1) -> None:
        self.draw.line([round(value * DOUBLE) for value in (x0, y0, x1, y1)], fill=fill, width=width * DOUBLE)


def _plain(p: _Painter) -> None:
    """Nothing but the ground."""


def _tray(p: _Painter) -> None:
    edge, radius = p.rng.randint(1, 4), p.rng.choice((4, 8, 20, 50))
    fill = p.rng.choice((shade(p.ground, 0.8), shade(p.ground, 1.3), _any_ground(p.rng)))
    p.box(edge, edge, p.width - 1 - edge, p.height - 1 - edge, radius=radius, fill=fill,
          outline=shade(p.ground, p.rng.choice((0.5, 0.7, 1.3))), width=p.rng.randint(1, 6))  # fmt: skip


def _panels(p: _Painter) -> None:
    cut = p.rng.randint(1, p.width // CELL - 1) * CELL
    p.box(0, 0, cut, p.height, fill=shade(p.ground, 0.8))
    p.line(cut, 0, cut, p.height, shade(p.ground, 0.5), p.rng.choice((1, 2)))


def _stripes(p: _Painter) -> None:
    for y in range(p.rng.randint(3, 9), p.height, p.rng.choice((7, 9, 14))):
        p.line(0, y, p.width, y, shade(p.ground, 0.9))


def _lattice(p: _Painter) -> None:
    for x in range(0, p.width + 1, CELL):
        p.line(x, 0, x, p.height, shade(p.ground, 0.72))
    for y in range(0, p.height + 1, CELL):
        p.line(0, y, p.width, y, shade(p.ground, 0.72))


def _wells(p: _Painter) -> None:
    """A hollow in every cell, empty or not: all of one form, from sharp boxes to rounds."""
    inset, radius, width = p.rng.randint(0, 7), p.rng.choice((0, 3, 6, 9, 14)), p.rng.randint(0, 4)
    fill = shade(p.ground, p.rng.choice((0.7, 0.85, 1.0, 1.15, 1.3, 1.6)))
    style = {"fill": fill, "outline": p.rng.choice((fill, _any_ground(p.rng)))}
    for x in range(0, p.width, CELL):
        for y in range(0, p.height, CELL):
            p.box(x + inset, y + inset, x + CELL - 1 - inset, y + CELL - 1 - inset, radius=radius, width=width, **style)


def _clutter(p: _Painter) -> None:
    """Patches and lines of other dull colours anywhere."""
    for _ in range(p.rng.randint(2, 6)):
        x, y = p.rng.randint(-8, p.width - 8), p.rng.randint(-8, p.height - 8)
        width, height = p.rng.randint(8, p.width), p.rng.randint(8, p.height)
        p.box(x, y, x + width, y + height, radius=p.rng.choice((0, 4, 9)), fill=_any_ground(p.rng),
              outline=_any_ground(p.rng), width=p.rng.randint(0, 4))  # fmt: skip
    for _ in range(p.rng.randint(0, 4)):
        ends = [p.rng.randint(0, side) for side in (p.width, p.height, p.width, p.height)]
        p.line(*ends, _any_ground(p.rng), p.rng.randint(1, 2))


_GENERAL_PAINTERS = dict(zip(GENERAL, (_plain, _tray, _panels, _stripes, _lattice, _wells, _clutter), strict=True))


def _breakfast_box(p: _Painter) -> None:
    p.box(1, 1, p.width - 2, p.height - 2, radius=9, fill=(246, 246, 244), outline=(196, 196, 196), width=5)
    p.box(2 * CELL - 1, 4, 2 * CELL + 1, p.height - 5, fill=(206, 206, 204))


def _juice_bottle(p: _Painter) -> None:
    glass, rim = (226, 234, 236), (128, 140, 146)
    middle = p.width / 2
    p.box(middle - 9, 5, middle + 9, CELL + 6, radius=3, fill=glass, outline=rim, width=3)
    p.box(middle - 11, 1, middle + 11, 8, radius=2, fill=(188, 64, 52))
    p.box(middle - 19, CELL - 4, middle + 19, p.height - 2, radius=8, fill=glass, outline=rim, width=4)


def _pushpins(p: _Painter) -> None:
    _compartments(p, p.height)


def _pushpins_open(p: _Painter) -> None:
    """One wall of the last row is missing."""
    _compartments(p, p.height - CELL)


def _compartments(p: _Painter, end_of_third_wall: int) -> None:
    wall = (104, 110, 120)
    p.box(0, 0, p.width - 1, p.height - 1, radius=4, fill=(222, 224, 226), outline=wall, width=4)
    for y in range(CELL, p.height, CELL):
        p.line(0, y, p.width, y, wall, 2)
    for x in range(CELL, p.width, CELL):
        p.line(x, 0, x, end_of_third_wall if x == 3 * CELL else p.height, wall, 2)


def _screw_bag(p: _Painter) -> None:
    p.box(3, 3, p.width - 4, p.height - 4, radius=5, fill=(212, 220, 226), outline=(150, 162, 172), width=3)
    p.box(3, 3, p.width - 4, 8, fill=(190, 201, 212))
    for _ in range(5):
        x, y = p.rng.randint(6, p.width - 30), p.rng.randint(12, p.height - 16)
        p.line(x, y, x + p.rng.randint(10, 26), y + p.rng.randint(-9, 9), (220, 227, 232), 1)


def _splicing(p: _Painter) -> None:
    for x in range(p.rng.randint(2, 8), p.width, 11):
        p.line(x, 0, x, p.height, shade(p.ground, 0.94))


def _cable(p: _Painter) -> None:
    p.box(
        4,
        4,
        p.width - 5,
        p.height - 5,
        radius=min(p.width, p.height) // 2,
        fill=(64, 64, 70),
        outline=(34, 34, 38),
        width=6,
    )


def _board(p: _Painter) -> None:
    p.box(2, 2, p.width - 3, p.height - 3, radius=4, fill=(40, 92, 66), outline=(24, 58, 42), width=4)
    for _ in range(6):
        y = p.rng.randint(6, p.height - 7)
        p.line(p.rng.randint(4, p.width // 2), y, p.rng.randint(p.width // 2, p.width - 5), y, (66, 122, 92))


def _velvet(p: _Painter) -> None:
    p.box(0, 0, p.width, p.height, fill=(40, 42, 54))


def _blister(p: _Painter) -> None:
    p.box(3, 3, p.width - 4, p.height - 4, radius=6, fill=(194, 198, 204), outline=(140, 146, 154), width=4)
    for x in range(0, p.width, CELL):
        for y in range(0, p.height, CELL):
            p.box(x + 3, y + 3, x + CELL - 4, y + CELL - 4, radius=3, fill=(206, 210, 215))


PRODUCTS = {
    "breakfast_box": _breakfast_box,
    "juice_bottle": _juice_bottle,
    "pushpins": _pushpins,
    "pushpins_open": _pushpins_open,
    "screw_bag": _screw_bag,
    "splicing_connectors": _splicing,
    "cable": _cable,
    "board": _board,
    "velvet": _velvet,
    "blister": _blister,
}
