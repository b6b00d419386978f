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

MVTec LOCO AD's folders say only logical or structural. The defects are in the masks: one mask per defect, whose pixel
value is looked up in ``defects_config.json``. A flattened copy is in circulation, one ``ground_truth/<kind>/000.png``
per image and every defect set to 255, which is also a genuine value: the defects of such images are "unknown".

Which defects of MVTec AD and VisA count as logical is not published. ``logical.csv``, keyed by dataset, category and
defect, is this project's choice: parts that are missing, extra, misplaced or out of function, and not just damaged.
"""

import csv
import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Self, get_args

from PIL import Image
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from ladlib.data.images import DAMAGE, FORMATS
from ladlib.data.layout import LOCO_FOLDERS, category_folders, find_dataset, list_images, read_table, subfolders
from ladlib.errors import UserError, first_problem, read_json, read_text
from ladlib.records import Anomaly, Dataset, Inside, Record, Sample

UNKNOWN = "unknown"  # the defect of an anomalous image without a usable annotation
KINDS: dict[str, Anomaly] = {"logical_anomalies": "logical", "structural_anomalies": "structural"}
HINT = "Copy it from the dataset's archive."


def read_dataset(root: Path | str, dataset: Dataset, categories: Sequence[str] = ()) -> list[Sample]:
    """All samples of ``dataset`` below ``root``, or those of ``categories``, sorted by image path.

    Categories without a single image are left out. Raises :class:`UserError` for an unknown dataset or category, a
    missing folder, a folder without images, two images that differ in their endings alone, and a category with test
    images but no training normals, or the reverse. :func:`ladlib.data.check.check` lists the missing files.
    """
    if dataset not in READERS:
        raise UserError(f"There is no reader for {dataset!r}.", f"Use one of {', '.join(get_args(Dataset))}.")
    folder = find_dataset(root, dataset)
    samples = list(READERS[dataset](folder))
    if not samples:
        raise UserError(f"{folder} holds no images of {dataset}.", "Run `ladlib data check` on it.")
    known = sorted({sample.category for sample in samples})
    for category in categories:
        if category not in known:
            raise UserError(f"{folder} has no category {category!r}.", f"Use one of {', '.join(known)}.")
    samples = [sample for sample in samples if sample.category in (categories or known)]
    _refuse_incomplete(samples, folder)
    return sorted(samples, key=lambda sample: sample.image)


def _refuse_incomplete(samples: list[Sample], folder: Path) -> None:
    """Without normals there is nothing to pair with; without a test split, or with two images of one id, no answer."""
    splits, images = defaultdict(set), {}
    for sample in samples:
        splits[sample.category].add(sample.split)
        if sample.id in images:
            both = f"{images[sample.id]} and {sample.image}"
            raise UserError(f"{folder} holds {both}: two images of one name.", "Take one of them out.")
        images[sample.id] = sample.image
    for category, present in sorted(splits.items()):
        for split in {"train", "test"} - present:
            what = f"{folder / category} is half copied: it has no {split} images."
            raise UserError(what, f"Copy its {split} images too, or remove the folder.")


def _sample(
    folder: Path, dataset: Dataset, split: str, image: Path, anomaly: Anomaly = "good", defect: str = "",
    masks: Iterable[Path] = (),
) -> Sample:  # fmt: skip
    name, *mask_names = (path.relative_to(folder).as_posix() for path in (image, *masks))
    return Sample(
        id=name.rsplit(".", 1)[0], dataset=dataset, category=name.split("/")[0], split=split, anomaly=anomaly,
        defect=defect, image=name, masks=tuple(mask_names),
    )  # fmt: skip


@cache
def logical_defects() -> frozenset[tuple[str, str, str]]:
    """The rows of ``logical.csv`` as (dataset, category, defect)."""
    return frozenset((row["dataset"], row["category"], row["defect"]) for row in read_table("logical.csv"))


def _anomaly(dataset: Dataset, category: str, defects: Iterable[str]) -> Anomaly:
    """``logical`` where at least one of an image's defects is listed."""
    return "logical" if any((dataset, category, name) in logical_defects() for name in defects) else "structural"


# MVTec AD


def _read_mvtec_ad(folder: Path) -> Iterator[Sample]:
    for category in category_folders(folder):
        for split in ("train", "test"):
            for image in list_images(category / split / "good"):
                yield _sample(folder, "mvtec_ad", split, image)
        for defect in subfolders(category / "test"):
            anomaly = _anomaly("mvtec_ad", category.name, [defect.name])
            for image in list_images(defect) if defect.name != "good" else []:
                masks = [path for path in [mvtec_ad_mask(image)] if path.is_file()]
                yield _sample(folder, "mvtec_ad", "test", image, anomaly, defect.name, masks)


def mvtec_ad_mask(image: Path) -> Path:
    """Where the mask of the test image ``<category>/test/<defect>/<number>.png`` belongs."""
    return image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"


# VisA


class VisaRow(Record):
    """A row of ``1cls.csv``; paths relative to the dataset folder."""

    object: Inside
    split: Literal["train", "test"]
    label: Literal["normal", "anomaly"]
    image: Inside
    mask: Inside  # "" for a normal


def _read_visa(folder: Path) -> Iterator[Sample]:
    """The samples whose image files exist."""
    rows = [row for row in read_split(folder / "split_csv" / "1cls.csv") if (folder / row.image).is_file()]
    labels = {name: read_labels(folder / name / "image_anno.csv") for name in {row.object for row in rows}}
    for row in rows:
        defects = labels[row.object].get(row.image, [])
        anomaly = "good" if row.label == "normal" else _anomaly("visa", row.object, defects)
        defect = "" if row.label == "normal" else " + ".join(defects) or UNKNOWN
        masks = [folder / row.mask] if row.mask and (folder / row.mask).is_file() else []
        yield _sample(folder, "visa", row.split, folder / row.image, anomaly, defect, masks)


def read_split(path: Path) -> list[VisaRow]:
    """The rows of ``1cls.csv`` in file order, 10,821 in the published one.

    Raises :class:`UserError` where the file is missing or a row is not as published.
    """
    rows = []
    for number, values in _csv_rows(path, list(VisaRow.model_fields)):
        try:
            rows.append(VisaRow.model_validate(values))
        except ValidationError as error:
            raise UserError(f"{path}, line {number}: {first_problem(error)}.", HINT) from error
    return rows


def read_labels(path: Path) -> dict[str, list[str]]:
    """The sorted defect names of each anomalous image in ``image_anno.csv``; {} where there is no file."""
    if not path.is_file():
        return {}
    rows = [values for _, values in _csv_rows(path, ["image", "label", "mask"])]
    return {
        row["image"]: sorted({name.strip() for name in row["label"].split(",")} - {""})
        for row in rows
        if row["label"] != "normal"
    }


def _csv_rows(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers; any line ends, with or without a byte order mark."""
    table = csv.reader(io.StringIO(read_text(path, HINT).removeprefix("\ufeff")))
    try:
        if next(table, None) != columns:
            raise UserError(f"{path} has other columns than {','.join(columns)}.", HINT)
        for row in table:
            if len(row) != len(columns):
                raise UserError(f"{path}, line {table.line_num}: {len(row)} values, not {len(columns)}.", HINT)
            yield table.line_num, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not a csv file.", HINT) from error


# MVTec LOCO AD


class Defect(Record):
    """One entry of ``defects_config.json``, with exactly its keys."""

    model_config = Record.model_config | {"strict": True}

    defect_name: str = Field(min_length=1)
    pixel_value: int = Field(ge=1, le=255)  # in the masks; 0 is background
    saturation_threshold: int | float = Field(gt=0)
    relative_saturation: bool

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        value = self.saturation_threshold
        if value > 1 if self.relative_saturation else not isinstance(value, int):
            raise ValueError("saturation_threshold must be a share, at most 1, or a whole number of pixels")
        return self


def _read_mvtec_loco(folder: Path) -> Iterator[Sample]:
    """Decodes each mask once. Warns of flattened masks."""
    for category in category_folders(folder):
        for split in ("train", "validation", "test"):
            for image in list_images(category / split / "good"):
                yield _sample(folder, "mvtec_loco", split, image)
        for kind in subfolders(category / "test"):
            if kind.name not in LOCO_FOLDERS.values():
                raise UserError(f"{kind} is no folder of MVTec LOCO AD.", f"Use {', '.join(LOCO_FOLDERS.values())}.")
        has_masks = any(subfolders(category / "ground_truth" / kind) for kind in KINDS)
        names = read_defects(category) if has_masks else {}
        images = [image for kind in KINDS for image in list_images(category / "test" / kind)]
        flattened = [image for image in images if flattened_mask(image).is_file()]
        for image in images:
            masks = loco_masks(image)
            defect = " + ".join(defects_of(masks, names)) or UNKNOWN
            masks = masks or [flattened_mask(image)] * (image in flattened)
            yield _sample(folder, "mvtec_loco", "test", image, KINDS[image.parent.name], defect, masks)
        if flattened:
            warnings.warn(
                f"{category}: {len(flattened)} flattened masks (one file per image, every defect 255): "
                f"their defects are {UNKNOWN!r}",
                stacklevel=2,
            )


def read_defects(category: Path) -> dict[int, str]:
    """The defect names of a category folder by pixel value.

    Raises :class:`UserError` where ``defects_config.json`` is missing or not as published.
    """
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


def loco_masks(image: Path) -> list[Path]:
    """The official masks of a test image, one per defect; [] where there are none."""
    return list_images(image.parents[2] / "ground_truth" / image.parent.name / image.stem)


def flattened_mask(image: Path) -> Path:
    """Where the flattened copy keeps the only mask of a test image."""
    return image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}.png"


def defects_of(masks: Iterable[Path], names: dict[int, str]) -> list[str]:
    """The defects in the official masks of one image, each once, in alphabetical order.

    Raises :class:`UserError` for a mask that does not decode or has a value that ``names`` lacks.
    """
    values = {value: mask for mask in masks for value in mask_values(mask)}
    for value in values.keys() - names.keys():
        raise UserError(f"{values[value]} has the pixel value {value}, which defects_config.json does not name.", HINT)
    return sorted(names[value] for value in values)


def mask_values(mask: Path) -> list[int]:
    """The pixel values other than 0 in a mask, ascending. Raises :class:`UserError` for no grey image."""
    try:
        with Image.open(mask, formats=FORMATS) as image:
            if image.mode not in ("L", "1"):
                raise UserError(f"{mask} is of mode {image.mode}, not 8-bit grey.", HINT)
            histogram = image.histogram()
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise UserError(f"{mask} does not decode.", HINT) from error
    return [value for value, count in enumerate(histogram) if count and value]


READERS: dict[Dataset, Callable[[Path], Iterator[Sample]]] = {
    "mvtec_ad": _read_mvtec_ad,
    "visa": _read_visa,
    "mvtec_loco": _read_mvtec_loco,
}
