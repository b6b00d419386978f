"""Pictures and tables of a dataset as it is, before any model: pairs with masks, counts, what the model sees.

>>> pair_gallery(pairs[:5], find_dataset("data", "mvtec_loco"))  # doctest: +SKIP
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ladlib.config import Data
from ladlib.data.images import FACTOR, fit, fitted_size, open_image, read_size, tokens
from ladlib.data.layout import published
from ladlib.records import Anomaly, Pair, Sample
from ladlib.report.pictures import gallery
from ladlib.report.style import SKY, bare, canvas, frame, styled

KINDS = {
    "train": ("train", "good"), "validation": ("validation", "good"), "test good": ("test", "good"),
    "test logical": ("test", "logical"), "test structural": ("test", "structural"),
}  # fmt: skip


def pair_gallery(pairs: Sequence[Pair], folder: Path, per_line: int = 5) -> Figure:
    """Columns of reference image, test image and defect; ``folder`` is the dataset's own."""
    rows = [
        (title(one.test), open_image(folder / one.reference), open_image(folder / one.test.image), mask(one, folder))
        for one in pairs
    ]
    return gallery(rows, per_line=min(per_line, max(1, len(rows))))


def title(sample: Sample) -> str:
    """The category and, of an anomalous image, its defect and kind."""
    what = f"{sample.defect} ({sample.anomaly})" if sample.defect else "good"
    return f"{sample.category}: {what}".replace("_", " ")


def mask(pair: Pair, folder: Path) -> np.ndarray | str | None:
    """All masks of the test image in one, (height, width); None for a good image, a text where there is none."""
    if pair.test.anomaly == "good":
        return None
    if not pair.test.masks:
        return "no mask"
    return np.maximum.reduce([np.asarray(Image.open(folder / path).convert("L")) for path in pair.test.masks])


def one_a_defect(pairs: Iterable[Pair], kinds: Sequence[Anomaly] = ("logical", "structural")) -> list[Pair]:
    """The first pair of every defect of each category; all images of unknown defects are kept."""
    found: dict[tuple[str, str], Pair] = {}
    for one in pairs:
        if one.test.anomaly in kinds:
            name = one.test.id if one.test.defect == "unknown" else one.test.defect
            found.setdefault((one.test.category, name), one)
    return list(found.values())


def counts_frame(samples: Iterable[Sample]) -> pd.DataFrame:
    """A row a category: images found of each split and kind, and how many MVTec LOCO AD's release has."""
    samples = list(samples)
    counts = published("mvtec_loco")
    places = [(one.category, (one.split, one.anomaly)) for one in samples]
    categories = sorted({category for category, split, _ in counts if split == "test"})
    columns = {
        name: [f"{places.count((one, kind))} (released: {counts[one, *kind][0]})" for one in categories]
        for name, kind in KINDS.items()
    }
    return pd.DataFrame({"category": categories} | columns)


def view_frame(samples: Iterable[Sample], folder: Path, data: Data) -> pd.DataFrame:
    """What the model gets of each category's images: the size on disk, the size it sees, and its visual tokens."""
    rows = {}
    for one in samples:
        size = read_size(folder / one.image)
        seen = fitted_size(*size, data.min_pixels, data.max_pixels)
        shown = {"category": one.category, "on disk": _by(size), "as the model sees it": _by(seen)}
        rows.setdefault(tuple(shown.values()), shown | {"visual tokens": tokens(seen), "images": 0})["images"] += 1
    return pd.DataFrame(rows.values())


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


@styled
def token_grid(paths: Sequence[Path], data: Data) -> Figure:
    """Images at the size the model sees them, cut into the squares that become one visual token each."""
    figure = canvas(2.6 * len(paths), 3.2)
    for axes, path in zip(figure.subplots(1, len(paths), squeeze=False)[0], paths, strict=True):
        image = fit(open_image(path), data.min_pixels, data.max_pixels)
        bare(axes)
        axes.imshow(image, interpolation="nearest")
        axes.hlines(np.arange(FACTOR, image.height, FACTOR) - 0.5, -0.5, image.width - 0.5, color=SKY, linewidth=0.8)
        axes.vlines(np.arange(FACTOR, image.width, FACTOR) - 0.5, -0.5, image.height - 0.5, color=SKY, linewidth=0.8)
        axes.set_title(f"{_by(image.size)}: {tokens(image.size)} tokens", fontsize=9)
        frame(axes, SKY, 1.2)
    return figure
