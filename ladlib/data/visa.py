"""Reader of VisA's raw layout.

::

    split_csv/1cls.csv                              object,split,label,image,mask
    <object>/Data/Images/{Normal,Anomaly}/*.JPG
    <object>/Data/Masks/Anomaly/*.png               no masks for normals
    <object>/image_anno.csv                         image,label,mask

The split comes from ``1cls.csv``; the defect from ``image_anno.csv``, whose label is "normal" or the
defect names with commas between them ("scratch,missing"). ``logical.csv`` says which count as
logical: one such name among an image's defects is enough.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ladlib.data.layout import UNKNOWN, without_ending
from ladlib.data.logical import kind
from ladlib.errors import UserError
from ladlib.records import Inside, Record, Sample


class Row(Record):
    """A row of ``1cls.csv``; paths relative to the dataset folder."""

    object: Inside
    split: Literal["train", "test"]
    label: Literal["normal", "anomaly"]
    image: Inside
    mask: Inside  # "" for a normal


def read(folder: Path) -> list[Sample]:
    """The samples of the dataset ``folder`` whose image files are there; paths relative to it."""
    rows = [row for row in read_split(folder / "split_csv" / "1cls.csv") if (folder / row.image).is_file()]
    labels: dict[str, dict[str, list[str]]] = {
        name: read_labels(folder / name / "image_anno.csv") for name in {row.object for row in rows}
    }
    samples = [_sample(row, labels[row.object].get(row.image, []), folder) for row in rows]
    return sorted(samples, key=lambda sample: sample.image)


def read_split(path: Path) -> list[Row]:
    """The rows of ``1cls.csv`` in file order, 10,821 in the published one.

    Raises :class:`UserError` where the file is missing or a row is not as published.
    """
    rows = []
    for number, values in _table(path, list(Row.model_fields)):
        try:
            rows.append(Row.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(
                f"{path}, line {number}: {first['loc'][0]}: {first['msg']}.", "Copy it from the archive."
            ) from error
    return rows


def read_labels(path: Path) -> dict[str, list[str]]:
    """The defect names of each anomalous image in ``image_anno.csv``, sorted; {} where there is no file."""
    if not path.is_file():
        return {}
    rows = [values for _, values in _table(path, ["image", "label", "mask"])]
    return {row["image"]: _defects(row["label"]) for row in rows if row["label"] != "normal"}


def _defects(label: str) -> list[str]:
    return sorted({name.strip() for name in label.split(",")} - {""})


def _table(path: Path, columns: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a csv file with their line numbers; any line ends, with or without a byte order mark."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            if next(reader, None) != columns:
                raise UserError(f"{path} has other columns than {','.join(columns)}.", "Copy it from the archive.")
            for row in reader:
                if len(row) != len(columns):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(row)} values, not {len(columns)}.",
                        "Copy it from the archive.",
                    )
                yield reader.line_num, dict(zip(columns, row, strict=True))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.", "Copy it from the dataset's archive.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.", "Copy it from the dataset's archive.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a csv file.", "Copy it from the dataset's archive.") from error


def _sample(row: Row, defects: list[str], folder: Path) -> Sample:
    anomalous = row.label == "anomaly"
    return Sample(
        id=without_ending(row.image),
        dataset="visa",
        category=row.object,
        split=row.split,
        anomaly=kind("visa", row.object, defects) if anomalous else "good",
        defect=(" + ".join(defects) or UNKNOWN) if anomalous else "",
        image=row.image,
        masks=(row.mask,) if row.mask and (folder / row.mask).is_file() else (),
    )
