"""Pictures inside a page: data URLs of small WebP and PNG files, each picture once, within a given room."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ladlib.data.images import open_image

SIDES = (320, 224, 160, 112, 80)  # longest side in pixels: the first at which all pictures fit is taken
QUALITY = 70  # of WebP
TRIED = 24  # pictures that the size of all is estimated from


class Source(NamedTuple):
    """A photograph (one path), or a mask: anything above 0 in one of its files is the defect."""

    paths: tuple[Path, ...]
    is_mask: bool = False


def embed(sources: Sequence[Source], room: int) -> dict[Source, str]:
    """The data URL of each of ``sources``, in their order, as far as ``room`` characters go."""
    every = list(dict.fromkeys(sources))
    side = next((side for side in SIDES if _estimate(every, side) <= room), SIDES[-1])
    embedded: dict[Source, str] = {}
    for source in every:
        url = _url(source, side)
        room -= len(url) + len('"",')
        if room < 0:
            break
        embedded[source] = url
    return embedded


def _estimate(sources: Sequence[Source], side: int) -> float:
    tried = sources[:: max(1, len(sources) // TRIED)]
    return 1.1 * len(sources) * sum(len(_url(one, side)) for one in tried) / max(1, len(tried))


def _url(source: Source, side: int) -> str:
    file = BytesIO()
    if source.is_mask:
        _mask(source.paths, side).save(file, "PNG", optimize=True)
    else:
        image = open_image(source.paths[0])
        image.thumbnail((side, side))
        image.save(file, "WEBP", quality=QUALITY)
    kind = "png" if source.is_mask else "webp"
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _mask(paths: Sequence[Path], side: int) -> Image.Image:
    """All masks of one image in one, black and white; a defect of a few pixels stays visible."""
    marked = np.maximum.reduce([np.asarray(Image.open(path).convert("L")) for path in paths]) > 0
    image = Image.fromarray(marked.astype(np.uint8) * 255)
    image.thumbnail((side, side), Image.Resampling.BOX)
    return image.point(lambda value: 255 * (value > 0)).convert("1")
