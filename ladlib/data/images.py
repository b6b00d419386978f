"""Images as every stage and every model sees them: opened the same way whatever their format, resized here only.

    view(Path("000.png"), min_pixels=56 * 56, max_pixels=1280 * 28 * 28)

The size that results is one that Qwen2.5-VL's own processor leaves unchanged, so SFT, rollouts, evaluation and any
server see the same pixels.
"""

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from ladlib.errors import UserError

Result = TypeVar("Result")

FACTOR = 28  # Qwen2.5-VL: patches of 14 pixels, merged 2 by 2
MAX_RATIO = 200  # of the sides, the limit of smart_resize

# Pillow knows forty formats more, some of which run other programs (EPS starts Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")

# What Pillow raises for a file that is no image, is cut off, or has broken metadata.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, IndexError, TypeError, OverflowError)


@lru_cache(maxsize=256)  # a group's completions share their images, and many pairs a reference image
def view(path: Path, min_pixels: int, max_pixels: int) -> Image.Image:
    """The image at ``path`` as every stage and every model sees it."""
    return fit(open_image(path), min_pixels, max_pixels)


def view_size(path: Path | str, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (width, height) of :func:`view`, from the file's header alone."""
    return fitted_size(*read_size(path), min_pixels, max_pixels)


def open_image(path: Path | str) -> Image.Image:
    """The image at ``path`` as 8-bit RGB, upright.

    EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bit; the first frame of an
    animation. Colour profiles are ignored, as in Qwen's processor. Raises :class:`UserError` where the file is
    missing, does not decode, or exceeds Pillow's limit against decompression bombs (about 179 million pixels).
    """
    return read_image(path, lambda image: _rgb(ImageOps.exif_transpose(image)))


def read_size(path: Path | str) -> tuple[int, int]:
    """(width, height) from the file's header alone, as stored. Raises as :func:`open_image` does."""
    return read_image(path, lambda image: image.size)


def read_image(path: Path | str, read: Callable[[Image.Image], Result]) -> Result:
    """What ``read`` makes of the image file. Raises as :func:`open_image` does."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"There is no image file {path}.", "Check the path.")
        with Image.open(path, formats=FORMATS) as image:
            if image.mode == "P" and not image.palette:
                raise ValueError("no palette")  # Pillow would show black
            return read(image)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path} is too large: {error}", "Give a smaller image.") from error
    except DAMAGE as error:
        raise UserError(f"{path} does not decode as an image.", "Copy or export it again.") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey divided by 257, so that 65535 becomes 255; Pillow's own convert would clip at 255.
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values outside 16 bit")
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def fit(image: Image.Image, min_pixels: int, max_pixels: int) -> Image.Image:
    """``image`` resized (bicubic, as Qwen's processor) to :func:`fitted_size`; itself where it fits."""
    size = fitted_size(*image.size, min_pixels, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


@lru_cache(maxsize=1024)
def fitted_size(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (width, height) nearest in shape with sides divisible by 28 and an area in the band.

    Qwen2-VL's ``smart_resize`` (transformers, ``models/qwen2_vl``) for factor 28. In a narrow band its result can lie
    outside, so that a second resize would change the image again; then the size in the band with the nearest aspect
    ratio is taken: fitting is idempotent. Raises :class:`UserError` for sides of a ratio above 200 (the limit of
    ``smart_resize``) and for a band that holds no such size.
    """
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UserError(f"An image of {width}x{height} pixels is too narrow.", f"Keep the ratio within {MAX_RATIO}.")
    sides = round(width / FACTOR), round(height / FACTOR)
    if sides[0] * sides[1] * FACTOR**2 > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        sides = tuple(max(1, math.floor(side / scale / FACTOR)) for side in (width, height))
    elif sides[0] * sides[1] * FACTOR**2 < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        sides = tuple(math.ceil(side * scale / FACTOR) for side in (width, height))
    fewest, most = -(-min_pixels // FACTOR**2), max_pixels // FACTOR**2  # patches
    if not fewest <= sides[0] * sides[1] <= most:
        sizes = [
            (columns, rows)
            for rows in range(1, most + 1)
            for columns in range(-(-fewest // rows), most // rows + 1)
            if max(columns, rows) <= MAX_RATIO * min(columns, rows)
        ]
        if not sizes:
            what = f"No size with sides divisible by {FACTOR} has {min_pixels} to {max_pixels} pixels."
            raise UserError(what, "Widen min_pixels and max_pixels.")
        sides = min(sizes, key=lambda size: abs(math.log(size[0] / size[1] / (width / height))))
    return sides[0] * FACTOR, sides[1] * FACTOR


def tokens(size: tuple[int, int]) -> int:
    """Visual tokens of an image of (width, height): one per 28 by 28 pixels."""
    return size[0] // FACTOR * (size[1] // FACTOR)
