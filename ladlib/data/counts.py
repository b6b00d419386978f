"""The published numbers of images, from ``counts.csv`` beside this file (a source in every row).

Where two numbers are in circulation the file has two rows for one key; the first is the release's.
"""

import csv
from functools import cache
from importlib import resources

Key = tuple[str, str, str]  # category, split, kind

LOCO_FOLDERS = {"good": "good", "logical": "logical_anomalies", "structural": "structural_anomalies"}


@cache
def published(dataset: str) -> dict[Key, tuple[int, ...]]:
    """The published counts of ``dataset`` by (category, split, kind), the release's first."""
    text = (resources.files("ladlib.data") / "counts.csv").read_text(encoding="utf-8")
    counts: dict[Key, tuple[int, ...]] = {}
    for row in csv.DictReader(text.splitlines()):
        if row["dataset"] == dataset:
            key = row["category"], row["split"], row["kind"]
            counts[key] = (*counts.get(key, ()), int(row["count"]))
    return counts


def published_categories(dataset: str) -> list[str]:
    """The categories of ``dataset``, sorted."""
    return sorted({category for category, _, _ in published(dataset)})


def published_images(dataset: str) -> dict[Key, list[str]]:
    """The image paths of the folders of MVTec LOCO AD or MVTec AD whose count is published.

    Keys (category, split, kind) of those folders only; files are numbered from 000.png.
    """
    return {
        (category, split, kind): [
            f"{category}/{split}/{LOCO_FOLDERS.get(kind, kind)}/{number:03d}.png" for number in range(counts[0])
        ]
        for (category, split, kind), counts in published(dataset).items()
        if split in ("train", "validation", "test") and kind != "anomalous"
    }
