"""Reader of MVTec AD's layout.

::

    <category>/train/good/000.png
    <category>/test/{good,<defect>}/000.png
    <category>/ground_truth/<defect>/000_mask.png

The defect is the name of the test folder; ``logical.csv`` says which count as logical.
"""

from collections.abc import Iterator
from pathlib import Path

from ladlib.data.layout import categories, list_images, relative, subfolders, without_ending
from ladlib.data.logical import kind
from ladlib.records import Sample, Split


def read(folder: Path) -> list[Sample]:
    """The samples of the dataset ``folder``; paths relative to it."""
    return [sample for category in categories(folder) for sample in _category(category, folder)]


def _category(category: Path, folder: Path) -> Iterator[Sample]:
    yield from _normals(category, "train", folder)
    yield from _normals(category, "test", folder)
    for defect in subfolders(category / "test"):
        if defect.name != "good":
            yield from _anomalous(category, defect, folder)


def _normals(category: Path, split: Split, folder: Path) -> Iterator[Sample]:
    for path in list_images(category / split / "good"):
        image = relative(path, folder)
        yield Sample(
            id=without_ending(image),
            dataset="mvtec_ad",
            category=category.name,
            split=split,
            anomaly="good",
            image=image,
        )


def _anomalous(category: Path, defect: Path, folder: Path) -> Iterator[Sample]:
    anomaly = kind("mvtec_ad", category.name, [defect.name])
    for path in list_images(defect):
        image, mask = relative(path, folder), mask_of(path)
        yield Sample(
            id=without_ending(image),
            dataset="mvtec_ad",
            category=category.name,
            split="test",
            anomaly=anomaly,
            defect=defect.name,
            image=image,
            masks=(relative(mask, folder),) if mask.is_file() else (),
        )


def mask_of(image: Path) -> Path:
    """Where the mask of the test image ``<category>/test/<defect>/<number>.png`` belongs."""
    category, defect = image.parents[2], image.parent.name
    return category / "ground_truth" / defect / f"{image.stem}_mask.png"
