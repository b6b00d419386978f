"""Reader of MVTec LOCO AD's layout.

::

    <category>/defects_config.json
    <category>/{train,validation,test}/good/000.png
    <category>/test/{logical,structural}_anomalies/000.png
    <category>/ground_truth/{logical,structural}_anomalies/000/000.png [001.png ...]

The test folders tell only logical from structural. What is wrong is in the masks: one mask for
each defect, whose pixel value is looked up in the category's ``defects_config.json``.

A flattened copy is in circulation with one ``ground_truth/<kind>/000.png`` an image in which all
defects were set to 255. Since 255 is also a genuine value (``missing_top_label``), such masks are
never looked up: their images get the defect "unknown" and a warning is given.
"""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from ladlib.data.images import DAMAGE, FORMATS
from ladlib.data.layout import UNKNOWN, categories, list_images, relative, subfolders, without_ending
from ladlib.errors import UserError, read_json
from ladlib.records import Anomaly, Record, Sample, Split

ANOMALIES: dict[str, Anomaly] = {"logical_anomalies": "logical", "structural_anomalies": "structural"}
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Defect(Record):
    """One entry of ``defects_config.json``, with exactly its keys."""

    model_config = Record.model_config | {"strict": True}

    defect_name: str = Field(min_length=1)
    pixel_value: int = Field(ge=1, le=255)  # in the masks; 0 is background
    saturation_threshold: int | float = Field(gt=0)  # pixels, or a share of the area where relative
    relative_saturation: bool

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        if self.relative_saturation and self.saturation_threshold > 1:
            raise ValueError("a relative saturation_threshold is a share, at most 1")
        if not self.relative_saturation and not isinstance(self.saturation_threshold, int):
            raise ValueError("an absolute saturation_threshold is a number of pixels")
        return self


def read(folder: Path) -> list[Sample]:
    """The samples of the dataset ``folder``; paths relative to it. Decodes each mask once."""
    return [sample for category in categories(folder) for sample in _category(category, folder)]


def read_defects(category: Path) -> dict[int, str]:
    """The defect names of a category folder by pixel value.

    Raises :class:`UserError` where ``defects_config.json`` is missing or not as published.
    """
    path = category / "defects_config.json"
    entries = read_json(path, "Copy it from the dataset's archive.", once=True)
    try:
        defects = TypeAdapter(list[Defect]).validate_python(entries)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise UserError(f"{path}: {place}: {first['msg']}.", "Copy it from the dataset's archive.") from error
    names = {defect.pixel_value: defect.defect_name for defect in defects}
    if len(names) != len(defects) or len(set(names.values())) != len(defects):
        raise UserError(f"{path} names a defect or a pixel value twice.", "Copy it from the dataset's archive.")
    return names


def _category(category: Path, folder: Path) -> Iterator[Sample]:
    for split in SPLITS:
        for path in list_images(category / split / "good"):
            yield _sample(path, folder, split=split, anomaly="good")
    names = read_defects(category) if _has_masks(category) else {}
    flattened = 0
    for kind in subfolders(category / "test"):
        if kind.name in ANOMALIES:
            for path in list_images(kind):
                flattened += flattened_mask_of(path).is_file()
                yield _anomalous(path, folder, names)
        elif kind.name != "good":
            raise UserError(f"{kind} is no folder of MVTec LOCO AD.", f"Use good, {', '.join(ANOMALIES)}.")
    if flattened:
        warnings.warn(
            f"{category}: {flattened} flattened masks (one file an image, every defect 255): "
            f"their defects are {UNKNOWN!r}",
            stacklevel=2,
        )


def _has_masks(category: Path) -> bool:
    return any(subfolders(category / "ground_truth" / kind) for kind in ANOMALIES)


def _anomalous(image: Path, folder: Path, names: dict[int, str]) -> Sample:
    masks = masks_of(image)
    defect = " + ".join(defects_of(masks, names)) or UNKNOWN
    if not masks and flattened_mask_of(image).is_file():
        masks = [flattened_mask_of(image)]
    anomaly = ANOMALIES[image.parent.name]
    return _sample(image, folder, split="test", anomaly=anomaly, defect=defect, masks=masks)


def _sample(
    path: Path, folder: Path, split: Split, anomaly: Anomaly, defect: str = "", masks: Iterable[Path] = ()
) -> Sample:
    image = relative(path, folder)
    return Sample(
        id=without_ending(image),
        dataset="mvtec_loco",
        category=path.parents[2].name,
        split=split,
        anomaly=anomaly,
        defect=defect,
        image=image,
        masks=tuple(relative(mask, folder) for mask in masks),
    )


def masks_of(image: Path) -> list[Path]:
    """The official masks of a test image, one for each defect; [] where there are none."""
    return list_images(image.parents[2] / "ground_truth" / image.parent.name / image.stem)


def flattened_mask_of(image: Path) -> Path:
    """Where the flattened copy keeps the one mask of a test image."""
    return image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}.png"


def defects_of(masks: Iterable[Path], names: dict[int, str]) -> list[str]:
    """The defects in the official masks of one image by name, each once, in alphabetical order.

    Raises :class:`UserError` for a mask that does not decode or has a value that ``names`` lacks.
    """
    found = set()
    for mask in masks:
        for value in mask_values(mask):
            if value not in names:
                raise UserError(
                    f"{mask} has the pixel value {value}, which its defects_config.json does not name.",
                    "Copy both from the dataset's archive.",
                )
            found.add(names[value])
    return sorted(found)


def mask_values(mask: Path) -> list[int]:
    """The pixel values other than 0 in a mask, ascending. Raises :class:`UserError` for no grey image."""
    try:
        with Image.open(mask, formats=FORMATS) as image:
            if image.mode not in ("L", "1"):
                raise UserError(f"{mask} is of mode {image.mode}, not 8-bit grey.", "Copy it from the archive.")
            histogram = image.histogram()
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise UserError(f"{mask} does not decode.", "Copy it from the dataset's archive again.") from error
    return [value for value, count in enumerate(histogram) if count and value]
