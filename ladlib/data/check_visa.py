"""VisA held against its release."""

from collections import Counter
from pathlib import Path

from ladlib.data.counts import published, published_categories
from ladlib.data.finding import Finding, Findings
from ladlib.data.layout import list_images, subfolders
from ladlib.data.visa import Row, read_labels, read_split

DATASET = "visa"
PLACES = {"normal": "Data/Images/Normal", "anomaly": "Data/Images/Anomaly"}


def check_visa(folder: Path, decode: bool) -> list[Finding]:
    """Findings for the split file, for every object it names, and for folders that it does not."""
    whole, rows = Findings(DATASET), []
    if not whole.attempt(lambda: rows.extend(read_split(folder / "split_csv" / "1cls.csv"))):
        return whole.rows
    _check_split(rows, whole)
    findings = whole.rows
    objects = {row.object for row in rows} | {one.name for one in subfolders(folder) if (one / "Data").is_dir()}
    for name in sorted(objects):
        one = Findings(DATASET, name)
        _check_object(folder / name, [row for row in rows if row.object == name], one, decode)
        findings += one.rows
    return findings


def _check_split(rows: list[Row], findings: Findings) -> None:
    kinds = {"normal": "good", "anomaly": "anomalous"}
    found = Counter((row.object, row.split, kinds[row.label]) for row in rows)
    expected = {key: counts[0] for key, counts in published(DATASET).items()}
    differing = sorted(key for key in {*found, *expected} if found.get(key, 0) != expected.get(key, 0))
    for key in differing:
        findings.error(
            f"split_csv/1cls.csv, {' '.join(key)}: {found.get(key, 0)} rows, not {expected.get(key, 0)}.",
            "Copy the file again.",
        )
    if not differing:
        findings.ok(f"split_csv/1cls.csv has the published {len(rows)} rows.")


def _check_object(folder: Path, rows: list[Row], findings: Findings, decode: bool) -> None:
    if folder.name not in published_categories(DATASET):
        findings.warning("is no object of VisA.", "Rename or remove the folder.")
        return
    if not folder.is_dir():
        findings.error("the object is missing.", f"Copy it to {folder}.")
        return
    images = _check_images(folder, rows, findings)
    masks = {Path(row.mask).name for row in rows if row.mask}
    present = {path.name for path in list_images(folder / "Data" / "Masks" / "Anomaly")}
    findings.compare("Data/Masks/Anomaly", present, masks, what="masks")
    findings.other_sizes((folder.parent / row.image, folder.parent / row.mask) for row in rows if row.mask)
    _check_labels(folder, rows, findings)
    findings.unreadable(images, decode)
    if not findings.rows:
        findings.ok(f"{len(images)} images, their masks and image_anno.csv as released.")


def _check_images(folder: Path, rows: list[Row], findings: Findings) -> list[Path]:
    images = []
    for label, place in PLACES.items():
        found = list_images(folder / place)
        expected = {Path(row.image).name: row.split for row in rows if row.label == label}
        extra = {path.name for path in found if path.name not in expected}
        for split in ("train", "test"):
            names = [name for name, one in expected.items() if one == split]
            if names:
                findings.compare(f"{split}, {place}", {path.name for path in found} & set(names), names)
        findings.compare(place, extra, [])
        images += found
    return images


def _check_labels(folder: Path, rows: list[Row], findings: Findings) -> None:
    path = folder / "image_anno.csv"
    if not path.is_file():
        findings.error("image_anno.csv is missing: defects are unknown.", "Copy it from the archive.")
        return
    labels: dict[str, list[str]] = {}
    if findings.attempt(lambda: labels.update(read_labels(path))):
        anomalous = [row.image for row in rows if row.label == "anomaly"]
        named = [image for image, defects in labels.items() if defects]
        missing = sorted(set(anomalous) - set(named))
        if missing:
            findings.error(f"image_anno.csv names no defect for {', '.join(missing)}.", "Copy the file again.")
