"""Which training normal stands beside which test image.

Rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998):
each test image ranks the training normals of its category by
``sha256("<seed>|<test image>|<reference>")`` and takes the smallest. The choice depends on nothing
but names, so every machine makes the same one; in a half-copied folder an image whose best normal
is missing takes the next best, and all other pairs stay.

``pairs/mvtec_loco-seed0.csv`` holds the pairs of the published MVTec LOCO AD with seed 0.
"""

import csv
import hashlib
import heapq
from collections.abc import Iterable, Sequence
from importlib import resources

from ladlib.data.counts import published_images
from ladlib.errors import UserError
from ladlib.records import Pair, Sample


def pair(samples: Sequence[Sample], seed: int) -> list[Pair]:
    """Every test image of ``samples`` with one training normal of its category, in the order given.

    Raises :class:`UserError` where a category with test images has no training normals.
    """
    normals = training_normals(samples)
    return [_pair(sample, normals, seed) for sample in samples if sample.split == "test"]


def training_normals(samples: Iterable[Sample]) -> dict[tuple[str, str], list[str]]:
    """The good training images of each (dataset, category), in the order given."""
    normals: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        if sample.split == "train" and sample.anomaly == "good":
            normals.setdefault((sample.dataset, sample.category), []).append(sample.image)
    return normals


def _pair(test: Sample, normals: dict[tuple[str, str], list[str]], seed: int) -> Pair:
    candidates = normals.get((test.dataset, test.category))
    if not candidates:
        raise UserError(
            f"{test.category} of {test.dataset} has test images and no training normals.",
            "Copy its training images too.",
        )
    return Pair(test=test, reference=choose(test.image, candidates, seed))


def choose(test: str, candidates: Iterable[str], seed: int) -> str:
    """The candidate (an image path) of the smallest hash with the test image's path."""
    return ranked(test, candidates, seed, 1)[0]


def ranked(test: str, candidates: Iterable[str], seed: int, count: int) -> list[str]:
    """The ``count`` candidates of the smallest hashes, smallest first: the reference image, then those next in line."""
    return heapq.nsmallest(count, candidates, key=lambda one: hashlib.sha256(f"{seed}|{test}|{one}".encode()).digest())


def published_pairs(seed: int) -> list[tuple[str, str]]:
    """(test, reference) for the 1,568 test images of MVTec LOCO AD as released.

    Made from the published counts: the files of each folder are 000.png, 001.png and so on.
    """
    images = published_images("mvtec_loco")
    normals = {category: names for (category, split, _), names in images.items() if split == "train"}
    return [
        (test, choose(test, normals[category], seed))
        for (category, split, _), names in sorted(images.items())
        if split == "test"
        for test in names
    ]


def committed_pairs() -> list[tuple[str, str]]:
    """The rows of ``pairs/mvtec_loco-seed0.csv`` as (test, reference)."""
    file = resources.files("ladlib.data") / "pairs" / "mvtec_loco-seed0.csv"
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [(row["test"], row["reference"]) for row in rows]
