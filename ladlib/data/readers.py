"""Samples of MVTec AD, VisA and MVTec LOCO AD, read from their published layouts. No torch.

::

    MVTec AD       <category>/train/good/000.png
                   <category>/test/{good,<defect>}/000.png
                   <category>/ground_truth/<defect>/000_mask.png
    VisA           split_csv/1cls.csv               object,split,label,image,mask
                   <object>/image_anno.csv          image,label,mask; label "normal" or "scratch,missing"
                   <object>/Data/Images/{Normal,Anomaly}/*.JPG
                   <object>/Data/Masks/Anomaly/*.png
    MVTec LOCO AD  <category>/defects_config.json
                   <category>/{train,validation,test}/good/000.png
                   <category>/test/{logical,structural}_anomalies/000.png
                   <category>/ground_truth/{logical,structural}_anomalies/000/000.png [001.png ...]

MVTec LOCO AD's folders say only logical or structural; its defects are in the masks, one per defect, whose pixel value
is looked up in ``defects_config.json``. In a flattened copy that is in circulation, one ``ground_truth/<kind>/000.png``
per image, every defect is 255, which is also a genuine value: the defects of such images are "unknown", as where all
masks of a category are 255.

Which defects of MVTec AD and VisA count as logical is not published: ``logical.csv`` is this project's choice, parts
that are missing, extra, misplaced or out of function, and not just damaged.
"""

import csv
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from ladlib.data.images import read_image
from ladlib.data.layout import LOCO_FOLDERS, category_folders, find_dataset, list_images, read_table, subfolders
from ladlib.errors import UserError, first_problem, read_json, read_text
from ladlib.records import Anomaly, Dataset, Inside, Record, Sample

Row = TypeVar("Row", bound=Record)

UNKNOWN = "unknown"  # the defect of an anomalous image without a usable annotation
HINT = "Copy it from the dataset's archive."


def read_dataset(root: Path | str, dataset: Dataset) -> list[Sample]:
    """All samples of ``dataset`` below ``root``, sorted by image path.

    Raises :class:`UserError` for what is missing, half copied or unlike the published files;
    :func:`ladlib.data.check.check` lists every fault.
    """
    folder = find_dataset(root, dataset)
    samples = sorted(READERS[dataset](folder, category_folders(folder)), key=lambda sample: sample.image)
    if not samples:
        raise UserError(f"{folder} holds no images of {dataset}.", "Run `ladlib data check` on it.")
    by_id: dict[str, Sample] = {}
    for sample in samples:
        if (other := by_id.setdefault(sample.id, sample)) is not sample:
            what = f"{folder} holds {other.image} and {sample.image}: two images of one name."
            raise UserError(what, "Take one of them out.")
    present = {(sample.category, sample.split) for sample in samples}
    for category in sorted({sample.category for sample in samples}):
        # Without normals there is nothing to pair with; without a test split, no answer.
        for split in ("train", "test"):
            if (category, split) not in present:
                what = f"{folder / category} is half copied: it has no {split} images."
                raise UserError(what, f"Copy its {split} images too, or remove the folder.")
    return samples


def _sample(folder: Path, dataset: Dataset, split: str, image: Path, masks: Iterable[Path] = (), **kind: str) -> Sample:
    """``kind`` holds ``anomaly`` and ``defect`` of an anomalous image."""
    name, *mask_names = (path.relative_to(folder).as_posix() for path in (image, *masks))
    paths = {"id": name.rsplit(".", 1)[0], "category": name.split("/")[0], "image": name, "masks": tuple(mask_names)}
    return Sample(dataset=dataset, split=split, **paths, **{"anomaly": "good"} | kind)


@cache
def logical_defects() -> frozenset[tuple[str, str, str]]:
    """The rows of ``logical.csv`` as (dataset, category, defect)."""
    return frozenset((row["dataset"], row["category"], row["defect"]) for row in read_table("logical.csv"))


def _anomaly(dataset: Dataset, category: str, defects: Iterable[str]) -> Anomaly:
    """``logical`` where at least one of an image's defects is listed."""
    return "logical" if any((dataset, category, name) in logical_defects() for name in defects) else "structural"


# MVTec AD and MVTec LOCO AD


def _read_mvtec_ad(folder: Path, categories: Iterable[Path]) -> Iterator[Sample]:
    for category in categories:
        yield from _read_normals(folder, "mvtec_ad", category)
        for image in _anomalous_images(category):
            defect = image.parent.name
            anomaly = _anomaly("mvtec_ad", category.name, [defect])
            yield _sample(folder, "mvtec_ad", "test", image, masks_of(image), anomaly=anomaly, defect=defect)


def _read_mvtec_loco(folder: Path, categories: Iterable[Path]) -> Iterator[Sample]:
    """Decodes each mask once. Warns of flattened masks."""
    anomalies = {name: anomaly for anomaly, name in LOCO_FOLDERS.items()}
    for category in categories:
        yield from _read_normals(folder, "mvtec_loco", category)
        names, rows = read_defects(category), []
        for image in _anomalous_images(category):
            kind, masks = image.parent, masks_of(image)
            if kind.name not in anomalies:
                raise UserError(f"{kind} is no folder of MVTec LOCO AD.", f"Use {', '.join(anomalies)}.")
            is_flattened = bool(masks) and masks[0].parent.name == kind.name
            found = [] if is_flattened else [(mask, value) for mask in masks for value in mask_values(mask)]
            for mask, value in found:
                if value not in names:
                    what = f"{mask} has the pixel value {value}, which defects_config.json does not name."
                    raise UserError(what, HINT)
            rows.append((image, masks, anomalies[kind.name], {value for _, value in found}, is_flattened))
        # A defect is of one kind: a value of both says nothing.
        used = {(anomaly, *values) for *_, anomaly, values, _ in rows if values}
        alike = used == {("logical", 255), ("structural", 255)}
        for image, masks, anomaly, values, _ in rows:
            defect = (not alike and " + ".join(sorted(names[value] for value in values))) or UNKNOWN
            yield _sample(folder, "mvtec_loco", "test", image, masks, anomaly=anomaly, defect=defect)
        if flattened := sum(is_flattened or (alike and bool(values)) for *_, values, is_flattened in rows):
            form = f"{flattened} flattened masks (every defect 255)"
            warnings.warn(f"{category}: {form}: their defects are {UNKNOWN!r}", stacklevel=2)


def _read_normals(folder: Path, dataset: Dataset, category: Path) -> Iterator[Sample]:
    for split in ("train", "validation", "test"):
        for image in _images_in(category / split / "good"):
            yield _sample(folder, dataset, split, image)


def _anomalous_images(category: Path) -> list[Path]:
    """Raises :class:`UserError` where there is no folder good, since the normal images would count as anomalous."""
    kinds = subfolders(category / "test")
    if kinds and "good" not in (names := [kind.name for kind in kinds]):
        what = f"{category / 'test'} has no folder good but {', '.join(names)}."
        raise UserError(what, "Name the folder of its normal images good.")
    return [image for kind in kinds if kind.name != "good" for image in _images_in(kind)]


def _images_in(kind: Path) -> list[Path]:
    """The images in a folder, without any in folders of it; UserError where all are there."""
    images, deeper = list_images(kind), sum(len(list_images(inner)) for inner in subfolders(kind))
    _report_absent(kind, len(images), len(images) + deeper, "images are in folders of it", "Move them one folder up.")
    return images


def _report_absent(place: Path, present: int, whole: int, what: str, hint: str) -> None:
    """Warns where some images are left out; UserError where all are."""
    if whole and not present:
        raise UserError(f"{place}: all {whole} {what}.", hint)
    if present < whole:
        warnings.warn(f"{place}: {whole - present} of {whole} {what}; they are left out", stacklevel=2)


def masks_of(image: Path) -> list[Path]:
    """The masks of a test image: MVTec LOCO AD's, one per defect, or the only one of MVTec AD or a flattened copy."""
    truth = image.parents[2] / "ground_truth" / image.parent.name
    single = (truth / f"{image.stem}_mask.png", truth / f"{image.stem}.png")
    return list_images(truth / image.stem) or [path for path in single if path.is_file()]


class Defect(Record):
    """What is used of an entry of ``defects_config.json``; its thresholds are for MVTec's own metric."""

    model_config = Record.model_config | {"strict": True, "extra": "ignore"}

    defect_name: str = Field(min_length=1)
    pixel_value: int = Field(ge=1, le=255)  # in the masks; 0 is background


def read_defects(category: Path) -> dict[int, str]:
    """The defect names of a category folder by pixel value. UserError where the file is not as published."""
    path = category / "defects_config.json"
    entries = read_json(path, HINT, once=True)
    try:
        defects = TypeAdapter(list[Defect]).validate_python(entries)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}.", HINT) from error
    names = {defect.pixel_value: defect.defect_name for defect in defects}
    if len(names) != len(defects) or len(set(names.values())) != len(defects):
        raise UserError(f"{path} names a defect or a pixel value twice.", HINT)
    return names


def mask_values(mask: Path) -> list[int]:
    """The pixel values other than 0 in a mask, ascending. Raises :class:`UserError` for no grey image."""
    mode, histogram = read_image(mask, lambda image: (image.mode, image.convert("L").histogram()))
    if mode not in ("L", "1"):
        raise UserError(f"{mask} is of mode {mode}, not 8-bit grey.", HINT)
    return [value for value, count in enumerate(histogram) if count and value]


# VisA


class VisaRow(Record):
    """A row of ``1cls.csv``; paths relative to the dataset folder."""

    object: Inside
    split: Literal["train", "test"]
    label: Literal["normal", "anomaly"]
    image: Inside
    mask: Inside  # "" for a normal


class VisaLabel(Record):
    """A row of ``image_anno.csv``."""

    image: str
    label: str  # "normal", or defects with commas between
    mask: str


def _read_visa(folder: Path, categories: Iterable[Path]) -> Iterator[Sample]:
    """The samples whose image files exist."""
    rows = read_split(folder / "split_csv" / "1cls.csv")
    for category in categories:
        file = category / "image_anno.csv"
        labels = {row.image: row.label for row in (read_rows(file, VisaLabel, HINT) if file.is_file() else ())}
        listed = [row for row in rows if row.object == category.name]
        present = [row for row in listed if (folder / row.image).is_file()]
        whole, there = (Counter(f"{row.label} {row.split}" for row in some) for some in (listed, present))
        for name, number in whole.items():
            what = f"{name} images of 1cls.csv are not there"
            _report_absent(category, there[name], number, what, "Copy them under the names that it has.")
        for row in present:
            image, mask = folder / row.image, folder / row.mask
            if row.label == "normal":
                yield _sample(folder, "visa", row.split, image)
                continue
            defects = sorted({name.strip() for name in labels.get(row.image, "").split(",")} - {"", "normal"})
            kind = {"anomaly": _anomaly("visa", row.object, defects), "defect": " + ".join(defects) or UNKNOWN}
            yield _sample(folder, "visa", row.split, image, [mask] * mask.is_file(), **kind)


def read_split(path: Path) -> list[VisaRow]:
    """The rows of ``1cls.csv`` in file order, 10,821 in the published one."""
    return read_rows(path, VisaRow, HINT)


def read_rows(path: Path, kind: type[Row], hint: str) -> list[Row]:
    """The rows of a CSV file; any line ends. UserError names the line."""
    table = csv.DictReader(io.StringIO(read_text(path, hint)))
    try:
        if table.fieldnames != list(kind.model_fields):
            raise UserError(f"{path} has other columns than {','.join(kind.model_fields)}.", hint)
        return [kind.model_validate(row) for row in table if any(row.values())]
    except ValidationError as error:
        raise UserError(f"{path}, line {table.line_num}: {first_problem(error)}.", hint) from error
    except csv.Error as error:
        raise UserError(f"{path} is not a csv file.", hint) from error


READERS: dict[Dataset, Callable[[Path, Iterable[Path]], Iterator[Sample]]] = {
    "mvtec_ad": _read_mvtec_ad,
    "visa": _read_visa,
    "mvtec_loco": _read_mvtec_loco,
}
