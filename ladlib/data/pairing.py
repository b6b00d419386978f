"""Which training normal is the reference image of which test image.

Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998): each test image
ranks the training normals of its category by ``sha256("<seed>|<test image>|<reference>")`` and takes the smallest.
The choice depends on names alone, so every machine makes the same one; where the best normal is missing, the next
one is taken and all other pairs stay.

``pairs/mvtec_loco-seed0.csv`` holds the pairs of the published MVTec LOCO AD with seed 0.
"""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from ladlib.config import Data
from ladlib.data.images import view
from ladlib.data.layout import find_dataset, read_table
from ladlib.records import Pair, Sample


def pair(samples: Sequence[Sample], seed: int) -> list[Pair]:
    """Every test image of ``samples`` with one training normal of its category, in the order given."""
    normals = training_normals(samples)
    return [
        Pair(test=sample, reference=ranked(sample.image, normals[sample.dataset, sample.category], seed, 1)[0])
        for sample in samples
        if sample.split == "test"
    ]


def training_normals(samples: Iterable[Sample]) -> dict[tuple[str, str], list[str]]:
    """The good training images of each (dataset, category), in the order given."""
    normals: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        if sample.split == "train" and sample.anomaly == "good":
            normals.setdefault((sample.dataset, sample.category), []).append(sample.image)
    return normals


def ranked(test: str, candidates: Iterable[str], seed: int, count: int) -> list[str]:
    """The ``count`` candidates with the smallest hashes, smallest first: the reference image, then the next ones."""
    key = lambda name: hashlib.sha256(f"{seed}|{test}|{name}".encode()).digest()  # noqa: E731
    return heapq.nsmallest(count, candidates, key=key)


def pair_images(pair: Pair, root: Path | str, data: Data) -> list[Image.Image]:
    """[reference image, test image] as every model sees them."""
    folder = find_dataset(root, pair.test.dataset)
    return [view(folder / path, data.min_pixels, data.max_pixels) for path in (pair.reference, pair.test.image)]


def committed_pairs() -> list[tuple[str, str]]:
    """The rows of ``pairs/mvtec_loco-seed0.csv`` as (test, reference)."""
    return [(row["test"], row["reference"]) for row in read_table("pairs/mvtec_loco-seed0.csv")]
