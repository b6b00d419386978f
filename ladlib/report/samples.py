"""Pictures and tables of a dataset as it is, before any model: pairs with masks, counts, what the model sees.

>>> pair_gallery(pairs[:5], find_dataset("data", "mvtec_loco"))  # doctest: +SKIP
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ladlib.config import Data
from ladlib.data.images import fitted_size, read_size, tokens
from ladlib.data.layout import published
from ladlib.records import Sample

KINDS = {
    "train": ("train", "good"), "validation": ("validation", "good"), "test good": ("test", "good"),
    "test logical": ("test", "logical"), "test structural": ("test", "structural"),
}  # fmt: skip


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
