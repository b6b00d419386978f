"""Readers of the datasets' real on-disk layouts: one :class:`Sample` record for all. No torch.

>>> samples = read_dataset(Path("data"), "mvtec_loco")  # doctest: +SKIP
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from ladlib.data import mvtec_ad, mvtec_loco, visa
from ladlib.data.layout import FOLDERS, find_dataset
from ladlib.errors import UserError
from ladlib.records import Dataset, Sample

__all__ = ["FOLDERS", "find_dataset", "read_dataset"]

READERS: dict[Dataset, Callable[[Path], list[Sample]]] = {
    "mvtec_ad": mvtec_ad.read,
    "visa": visa.read,
    "mvtec_loco": mvtec_loco.read,
}


def read_dataset(root: Path | str, dataset: Dataset, categories: Sequence[str] = ()) -> list[Sample]:
    """All samples of ``dataset`` below ``root``, sorted by image path; same folder, same list.

    ``categories`` keeps only those. Categories without a single image are left out. Raises
    :class:`UserError` for an unknown dataset or category, a missing folder, a folder without
    images, two images that differ in their endings alone, and a half-copied category: one with test
    images but no training normals, or the reverse. :func:`ladlib.data.check.check` says which files are missing.
    """
    if dataset not in READERS:
        raise UserError(f"There is no reader for {dataset!r}.", f"Use one of {', '.join(get_args(Dataset))}.")
    folder = find_dataset(root, dataset)
    samples = READERS[dataset](folder)
    if not samples:
        raise UserError(f"{folder} holds no images of {dataset}.", "Run `ladlib data check` on it.")
    if categories:
        samples = _select(samples, categories, folder)
    _refuse_half_copied(samples, folder)
    _refuse_doubles(samples, folder)
    return sorted(samples, key=lambda sample: sample.image)


def _select(samples: list[Sample], categories: Sequence[str], folder: Path) -> list[Sample]:
    known = sorted({sample.category for sample in samples})
    for category in categories:
        if category not in known:
            raise UserError(f"{folder} has no category {category!r}.", f"Use one of {', '.join(known)}.")
    return [sample for sample in samples if sample.category in categories]


def _refuse_half_copied(samples: list[Sample], folder: Path) -> None:
    """Without normals there is nothing to pair with; without a test split nothing to judge."""
    splits: dict[str, set[str]] = {}
    for sample in samples:
        splits.setdefault(sample.category, set()).add(sample.split)
    for category, found in sorted(splits.items()):
        for split in ("train", "test"):
            if split not in found:
                raise UserError(
                    f"{folder / category} is half copied: it has no {split} images.",
                    f"Copy its {split} images too, or remove the folder.",
                )


def _refuse_doubles(samples: list[Sample], folder: Path) -> None:
    """A record is found by its sample's id: of two images of one id, one would be lost."""
    images: dict[str, str] = {}
    for sample in samples:
        if sample.id in images:
            both = f"{images[sample.id]} and {sample.image}"
            raise UserError(f"{folder} holds {both}: two images of one name.", "Take one of them out.")
        images[sample.id] = sample.image
