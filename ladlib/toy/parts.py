"""The alphabet of the toy world: a few kinds of parts in a few colours, each drawn in one cell.

A part fills a cell of 28 x 28 pixels, the area of one visual token of Qwen2.5-VL (patch 14, merged
2 x 2). Scenes of every kind are written in this alphabet; what differs is the layout and the rules.

>>> sprite("nut", "grey").size
(28, 28)
"""

import math
import random
from functools import lru_cache

from PIL import Image, ImageDraw

CELL = 28  # pixels; Qwen2.5-VL's patch size times its merge size
SCALE = 4  # sprites are drawn this much larger and reduced, for smooth edges

COLOURS = {
    "red": (202, 48, 46),
    "orange": (242, 140, 34),
    "yellow": (246, 214, 66),
    "green": (72, 156, 84),
    "blue": (52, 104, 190),
    "brown": (126, 80, 44),
    "grey": (118, 124, 132),
    "white": (240, 240, 236),
}
BLEMISHES = ("scratched", "stained", "broken")

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]


def shade(rgb: Rgb, factor: float) -> Rgb:
    """``rgb`` made darker (factor < 1) or lighter (factor > 1)."""
    if factor <= 1:
        return tuple(round(value * factor) for value in rgb)
    return tuple(round(255 - (255 - value) / factor) for value in rgb)


def _box(x: float, y: float, rx: float, ry: float | None = None) -> Box:
    """A box around a centre, all in cells."""
    ry = rx if ry is None else ry
    unit = CELL * SCALE
    return ((x - rx) * unit, (y - ry) * unit, (x + rx) * unit, (y + ry) * unit)


def _points(*points: tuple[float, float]) -> list[tuple[float, float]]:
    return [(x * CELL * SCALE, y * CELL * SCALE) for x, y in points]


def _disc(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.ellipse(_box(0.5, 0.5, 0.41), fill=shade(rgb, 0.72))
    draw.ellipse(_box(0.49, 0.48, 0.38), fill=rgb)
    draw.ellipse(_box(0.38, 0.36, 0.11, 0.08), fill=shade(rgb, 1.9))


def _ring(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.ellipse(_box(0.5, 0.5, 0.37), outline=shade(rgb, 0.6), width=18)
    draw.ellipse(_box(0.5, 0.5, 0.34), outline=rgb, width=12)


def _hexagon(radius: float) -> list[tuple[float, float]]:
    turns = [math.pi / 3 * k for k in range(6)]
    return _points(*((0.5 + radius * math.cos(t), 0.5 + radius * math.sin(t)) for t in turns))


def _nut(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.polygon(_hexagon(0.42), fill=shade(rgb, 0.55))
    draw.polygon(_hexagon(0.36), fill=rgb)
    draw.ellipse(_box(0.5, 0.5, 0.16), fill=shade(rgb, 0.35))


def _threaded(draw: ImageDraw.ImageDraw, rgb: Rgb, start: float, end: float) -> None:
    draw.rectangle(_box((start + end) / 2, 0.5, (end - start) / 2, 0.085), fill=rgb)
    for k in range(int((end - start) / 0.075)):
        x = start + 0.05 + 0.075 * k
        draw.line(_points((x, 0.415), (x - 0.03, 0.585)), fill=shade(rgb, 0.55), width=3)
    draw.rounded_rectangle(_box(start, 0.5, 0.07, 0.2), radius=8, fill=shade(rgb, 0.62))


def _screw(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    _threaded(draw, rgb, 0.08, 0.97)


def _bolt(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    _threaded(draw, rgb, 0.3, 0.7)


def _pin(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.line(_points((0.5, 0.5), (0.86, 0.88)), fill=(120, 122, 126), width=6)
    draw.ellipse(_box(0.47, 0.47, 0.27), fill=shade(rgb, 0.7))
    draw.ellipse(_box(0.4, 0.4, 0.2), fill=rgb)
    draw.ellipse(_box(0.34, 0.34, 0.07), fill=shade(rgb, 2.2))


def _scatter(draw: ImageDraw.ImageDraw, rgb: Rgb, count: int, rx: float, ry: float) -> None:
    grain = random.Random(count)  # the pile is a fixed pattern; turning it gives the variety
    for _ in range(count):
        x, y = grain.uniform(0.12, 0.88), grain.uniform(0.12, 0.88)
        draw.ellipse(_box(x, y, rx, ry), fill=shade(rgb, grain.choice((0.62, 0.8, 1.0, 1.25))))


def _flakes(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    _scatter(draw, rgb, 90, 0.055, 0.04)


def _chips(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    for x, y in ((0.3, 0.32), (0.68, 0.28), (0.5, 0.62), (0.22, 0.74), (0.78, 0.74)):
        draw.ellipse(_box(x, y, 0.19), fill=shade(rgb, 0.66))
        draw.ellipse(_box(x, y, 0.16), fill=rgb)
        draw.ellipse(_box(x, y, 0.05), fill=shade(rgb, 0.75))


def _almonds(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    for x, y in ((0.3, 0.26), (0.7, 0.38), (0.34, 0.58), (0.68, 0.76), (0.24, 0.86)):
        draw.polygon(_points((x - 0.2, y + 0.08), (x, y - 0.13), (x + 0.2, y - 0.06), (x, y + 0.13)), fill=rgb)
        draw.line(_points((x - 0.13, y + 0.04), (x + 0.13, y - 0.03)), fill=shade(rgb, 0.5), width=4)


def _tag(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.rounded_rectangle(_box(0.5, 0.5, 0.42, 0.4), radius=8, fill=(248, 246, 238), outline=(120, 116, 108), width=4)
    draw.ellipse(_box(0.5, 0.54, 0.23), fill=rgb)
    draw.polygon(_points((0.5, 0.34), (0.68, 0.2), (0.6, 0.38)), fill=(58, 122, 58))


def _band(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.rectangle(_box(0.5, 0.5, 0.45, 0.3), fill=(248, 246, 238), outline=(120, 116, 108), width=4)
    for y, half in ((0.36, 0.34), (0.5, 0.22), (0.64, 0.3)):
        draw.rectangle(_box(0.5, y, half, 0.035), fill=rgb)


def _juice(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.rectangle(_box(0.5, 0.5, 0.5), fill=rgb)
    draw.rectangle(_box(0.16, 0.5, 0.06, 0.5), fill=shade(rgb, 1.3))


def _connector(draw: ImageDraw.ImageDraw, rgb: Rgb, clamps: int) -> None:
    draw.rounded_rectangle(_box(0.5, 0.5, 0.44, 0.42), radius=10, fill=shade(rgb, 0.75))
    draw.rounded_rectangle(_box(0.5, 0.5, 0.4, 0.38), radius=8, fill=rgb)
    step = 0.76 / clamps
    for k in range(clamps):
        y = 0.12 + step * (k + 0.5)
        draw.rectangle(_box(0.46, y, 0.26, step * 0.3), fill=(238, 120, 30))
        draw.rectangle(_box(0.66, y, 0.06, step * 0.3), fill=(150, 66, 14))


def _duo(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    _connector(draw, rgb, 2)


def _trio(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    _connector(draw, rgb, 3)


def _quint(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    _connector(draw, rgb, 5)


def _wire(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.rectangle(_box(0.5, 0.5, 0.5, 0.12), fill=shade(rgb, 0.6))
    draw.rectangle(_box(0.5, 0.48, 0.5, 0.08), fill=rgb)


def _pill(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.rounded_rectangle(_box(0.5, 0.5, 0.44, 0.22), radius=24, fill=shade(rgb, 0.7))
    draw.rounded_rectangle(_box(0.5, 0.49, 0.42, 0.19), radius=21, fill=rgb)
    draw.rectangle(_box(0.5, 0.49, 0.02, 0.19), fill=shade(rgb, 0.6))


def _chip(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    for k in range(4):
        x = 0.2 + 0.2 * k
        draw.line(_points((x, 0.08), (x, 0.92)), fill=(180, 180, 176), width=8)
    draw.rectangle(_box(0.5, 0.5, 0.42, 0.3), fill=shade(rgb, 0.6))
    draw.rectangle(_box(0.5, 0.5, 0.38, 0.26), fill=rgb)
    draw.ellipse(_box(0.24, 0.36, 0.05), fill=shade(rgb, 0.45))


def _candle(draw: ImageDraw.ImageDraw, rgb: Rgb) -> None:
    draw.ellipse(_box(0.5, 0.5, 0.43), fill=(176, 178, 182))
    draw.ellipse(_box(0.5, 0.5, 0.37), fill=rgb)
    draw.line(_points((0.5, 0.5), (0.58, 0.4)), fill=(40, 36, 32), width=10)


SHAPES = {
    "disc": _disc, "ring": _ring, "nut": _nut, "screw": _screw, "bolt": _bolt, "pin": _pin, "flakes": _flakes,
    "chips": _chips, "almonds": _almonds, "tag": _tag, "band": _band, "juice": _juice, "duo": _duo,
    "trio": _trio, "quint": _quint, "wire": _wire, "pill": _pill, "chip": _chip, "candle": _candle,
}  # fmt: skip

TURNING = {"screw", "bolt", "nut", "ring", "flakes", "almonds", "chips", "pin", "disc", "pill"}


@lru_cache(maxsize=60_000)
def sprite(shape: str, colour: str, blemish: str = "", angle: int = 0, percent: int = 100) -> Image.Image:
    """The part as an RGBA image of about one cell.

    ``angle`` is in degrees, ``percent`` the size. Do not draw on it: sprites are kept and shared.
    """
    side = CELL * SCALE
    image = Image.new("RGBA", (side, side), (*COLOURS[colour], 0))
    SHAPES[shape](ImageDraw.Draw(image), COLOURS[colour])
    if blemish:
        image = _blemished(image, blemish)
    if angle:
        image = image.rotate(angle, Image.Resampling.BILINEAR)
    reduced = round(CELL * percent / 100)
    return image.resize((reduced, reduced), Image.Resampling.BOX)


def _blemished(image: Image.Image, blemish: str) -> Image.Image:
    """``image`` with the blemish drawn where the part is, and nowhere else."""
    alpha = image.getchannel("A")
    marked = image.copy()
    draw = ImageDraw.Draw(marked)
    if blemish == "scratched":
        for start, end in (((0.15, 0.3), (0.85, 0.72)), ((0.25, 0.18), (0.9, 0.55))):
            draw.line(_points(start, end), fill=(24, 20, 20, 255), width=7)
    elif blemish == "stained":
        for x, y, radius in ((0.42, 0.55, 0.2), (0.6, 0.42, 0.14), (0.55, 0.66, 0.1)):
            draw.ellipse(_box(x, y, radius), fill=(58, 92, 46, 255))
    else:
        hole = Image.new("L", image.size, 255)
        ImageDraw.Draw(hole).polygon(_points((0.5, 0.5), (1.05, 0.05), (1.05, 0.9), (0.62, 1.05)), fill=0)
        alpha = Image.composite(alpha, Image.new("L", image.size, 0), hole)
    marked.putalpha(alpha)
    return marked
