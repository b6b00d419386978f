"""A folder of datasets checked against the published layouts and counts: what is missing, extra or damaged.

[finding for finding in check(Path("/data/anomaly")) if finding.severity == "error"]
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeVar

from ladlib.data import layout, mmad, readers
from ladlib.data.download import read_sources
from ladlib.data.images import has_end, open_image, read_size, sha256
from ladlib.errors import UserError
from ladlib.records import Record

Result = TypeVar("Result")

MOST_NAMES = 20  # of missing or extra files, in one message
AGAIN = "Copy it again."


class Finding(Record):
    """One line of a check. ``error``: unusable or incomplete; ``warning``: usable, not as published."""

    severity: Literal["error", "warning", "ok"]
    dataset: str
    category: str  # "" for the dataset as a whole
    message: str
    hint: str = ""


class Findings(list[Finding]):
    """The findings about one category."""

    def __init__(self, dataset: str, category: str = "") -> None:
        super().__init__()
        self.dataset, self.category = dataset, category

    def add(self, severity: Literal["error", "warning", "ok"], message: str, hint: str = "") -> None:
        names = {"dataset": self.dataset, "category": self.category}
        self.append(Finding(severity=severity, message=message, hint=hint, **names))

    def attempt(self, read: Callable[[], Result]) -> Result | None:
        """What ``read`` returns; its :class:`UserError` becomes an error finding, and None is returned."""
        try:
            return read()
        except UserError as error:
            return self.add("error", error.what, error.hint)

    def compare(self, place: str, present: Iterable[str], expected: Iterable[str]) -> None:
        """Add which of the image names ``expected`` in ``place`` are missing and which are extra."""
        present, expected = set(present), set(expected)
        if missing := expected - present:
            names = f"missing {_listed(missing)}" if present else "all missing"
            counts = f"{len(present & expected)} of {len(expected)} images"
            self.add("error", f"{place}: {counts}, {names}.", "Copy the missing ones.")
        if extra := present - expected:
            message = f"{place}: {len(extra)} images that were not published: {_listed(extra)}."
            self.add("warning", message, "Remove them.")

    def look_at(self, folder: Path, images: list[Path], masks: dict[Path, list[Path]], decode: bool) -> None:
        """Add the ``images`` that do not decode, and what is wrong with the ``masks`` of the anomalous ones."""
        sizes = [(image, mask) for image, present in masks.items() for mask in present]
        for what, paths in {
            "images do not decode": [image for image in images if not _opens(image, decode)],
            "images have no masks": [image for image, present in masks.items() if not present],
            "masks are of another size than their images": [mask for image, mask in sizes if not _fits(image, mask)],
        }.items():
            if paths:
                names = ", ".join(path.relative_to(folder).as_posix() for path in paths)
                self.add("error", f"{len(paths)} {what}: {names}.", "Copy them again.")
        if not self:
            self.add("ok", f"{len(images)} images and their annotations as released.")


def check(root: Path | str, decode: bool = False) -> list[Finding]:
    """Findings about every dataset in ``root``, or about ``root`` where it is a dataset itself.

    Opens the header of every image and looks at its end; with ``decode`` all of every image and mask (slow). Raises
    :class:`UserError` where ``root`` holds nothing that can be recognised.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.", "Give the folder that holds the datasets.")
    inside = {name: root / folder for name, folder in layout.FOLDERS.items() if (root / folder).is_dir()}
    folders = inside or {name: root for name in layout.FOLDERS if layout.is_dataset(root, name)}
    if not folders:
        names = ", ".join(layout.FOLDERS.values())
        raise UserError(f"{root} holds none of {names}.", "Give the folder that holds them, or one of them.")
    findings = Findings("toy")
    if any((folder / layout.TOY_MARKER).is_file() for folder in (root, root.parent)):
        message = "these are synthetic toy datasets: in their layouts as published, and smaller on purpose."
        findings.add("warning", message, "Every difference from the published ones is in --json.")
    for name, folder in folders.items():
        findings += CHECKS[name](name, folder, decode)
    for name in layout.FOLDERS:
        if inside and name not in inside:
            findings.dataset = name
            findings.add("warning", "the dataset is missing.", "Copy it, or run ladlib data download.")
    return list(findings)


def _check_mvtec(dataset: str, folder: Path, decode: bool) -> list[Finding]:
    present = [path.name for path in layout.category_folders(folder)]
    return _check_each(dataset, folder, present, lambda path, findings: _check_category(path, findings, decode))


def _check_each(
    dataset: str, folder: Path, present: list[str], check_one: Callable[[Path, Findings], None]
) -> list[Finding]:
    """Findings about every published category, and about those of ``present`` that were not published."""
    rows, known = [], layout.published_categories(dataset)
    for name in sorted({*known, *present}):
        findings = Findings(dataset, name)
        if name not in known:
            findings.add("warning", f"is no category of {dataset}.", "Rename or remove the folder.")
        elif not (folder / name).is_dir():
            findings.add("error", "the category is missing.", f"Copy it to {folder / name}.")
        else:
            check_one(folder / name, findings)
        rows += findings
    return rows


def _check_category(folder: Path, findings: Findings, decode: bool) -> None:
    kinds = [path for split in ("train", "validation", "test") for path in layout.subfolders(folder / split)]
    present = {f"{kind.parent.name}/{kind.name}": [path.name for path in layout.list_images(kind)] for kind in kinds}
    expected = _expected(findings.dataset, folder.name, present)
    for place in sorted({*present, *expected}):
        findings.compare(place, present.get(place, []), expected.get(place, []))
    images = [folder / place / name for place, names in present.items() for name in names]
    anomalous = [path for path in images if f"test/{path.parent.name}" in expected and path.parent.name != "good"]
    masks = {image: [path for path in [readers.mvtec_ad_mask(image)] if path.is_file()] for image in anomalous}
    if findings.dataset == "mvtec_loco":
        masks = _check_loco_masks(folder, anomalous, findings, decode)
    findings.look_at(folder, images, masks, decode)


def _expected(dataset: str, category: str, present: dict[str, list[str]]) -> dict[str, list[str]]:
    """The released image names by place; where ``present`` is what the journal article prints, the names of that."""
    expected, printed = {}, {}
    for key, images in layout.published_images(dataset).items():
        if key[0] == category:
            place = images[0].split("/", 1)[1].rsplit("/", 1)[0]
            expected[place] = [Path(image).name for image in images]
            # Of splicing_connectors two pairs of numbers are in use, which never mix in one copy.
            for count in layout.published(dataset)[key][1:]:
                printed[place] = expected[place][:count]
    return expected | (printed if all(present.get(place) == names for place, names in printed.items()) else {})


def _check_loco_masks(folder: Path, anomalous: list[Path], findings: Findings, decode: bool) -> dict[Path, list[Path]]:
    """The masks of each anomalous image, after a look at their values and at defects_config.json."""
    names = findings.attempt(lambda: readers.read_defects(folder))
    expected = layout.published("mvtec_loco")[folder.name, "config", "defects"][0]
    if names and len(names) != expected:
        findings.add("error", f"defects_config.json names {len(names)} defects, not {expected}.", AGAIN)
    masks = {image: readers.loco_masks(image) for image in anomalous}
    flattened = [image for image, present in masks.items() if not present and readers.flattened_mask(image).is_file()]
    if flattened:
        message = f"{len(flattened)} of {len(masks)} masks are flattened (one file per image, all defects 255)"
        findings.add("warning", f"{message}: their defects are unknown.", "Copy the masks of the official archive.")
    for paths in masks.values() if decode and names else ():
        findings.attempt(lambda paths=paths: readers.defects_of(paths, names))
    return masks | {image: [readers.flattened_mask(image)] for image in flattened}


def _check_visa(dataset: str, folder: Path, decode: bool) -> list[Finding]:
    findings = Findings(dataset)
    rows = findings.attempt(lambda: readers.read_split(folder / "split_csv" / "1cls.csv"))
    if rows is None:
        return findings
    counts = Counter((row.object, row.split, "good" if row.label == "normal" else "anomalous") for row in rows)
    expected = Counter({key: numbers[0] for key, numbers in layout.published(dataset).items()})
    for key in sorted(key for key in {*counts, *expected} if counts[key] != expected[key]):
        message = f"split_csv/1cls.csv, {' '.join(key)}: {counts[key]} rows, not {expected[key]}."
        findings.add("error", message, AGAIN)
    if not findings:
        findings.add("ok", f"split_csv/1cls.csv has the published {len(rows)} rows.")
    present = [path.name for path in layout.subfolders(folder) if (path / "Data").is_dir()]
    check_one = lambda path, findings: _check_object(path, rows, findings, decode)  # noqa: E731
    return findings + _check_each(dataset, folder, present, check_one)


def _check_object(folder: Path, rows: list[readers.VisaRow], findings: Findings, decode: bool) -> None:
    rows, images = [row for row in rows if row.object == folder.name], []
    for kind, label in (("Normal", "normal"), ("Anomaly", "anomaly")):
        present = layout.list_images(folder / "Data" / "Images" / kind)
        names = [Path(row.image).name for row in rows if row.label == label]
        findings.compare(f"Data/Images/{kind}", [path.name for path in present], names)
        images += present
    anomalous = {row.image: row.mask for row in rows if row.label == "anomaly"}
    labels = findings.attempt(lambda: readers.read_labels(folder / "image_anno.csv"))
    if unnamed := [] if labels is None else [image for image in anomalous if not labels.get(image)]:
        findings.add("error", f"image_anno.csv is missing or names no defect for {_listed(unnamed)}.", AGAIN)
    files = {folder.parent / image: folder.parent / mask for image, mask in anomalous.items()}
    masks = {image: [mask] if mask.is_file() else [] for image, mask in files.items() if image.is_file()}
    findings.look_at(folder, images, masks, decode)


def _check_mmad(dataset: str, folder: Path, decode: bool) -> list[Finding]:
    findings, expected = Findings(dataset), layout.published(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the count below says the same
        questions = findings.attempt(lambda: mmad.read_questions(folder))
    if questions:
        counts = f"mmad.json: {len(questions)} questions about {len({question.image for question in questions})} images"
        numbers = expected["all", "json", "questions"]
        if sha256(folder / "mmad.json") in {file.sha256 for file in read_sources()["mmad"].files}:
            findings.add("ok", f"{counts}, the released file.")
        elif len(questions) in numbers:
            findings.add("warning", f"{counts}, but not the released file.", "Compare it with the release.")
        else:
            findings.add("error", f"{counts}, not {' or '.join(map(str, numbers))} questions.", mmad.HINT)
    knowledge, number = (
        findings.attempt(lambda: mmad.read_knowledge(folder)),
        expected["all", "knowledge", "categories"],
    )
    if knowledge is not None:
        count = sum(map(len, knowledge.values()))
        message = f"domain_knowledge.json: {count} categories, {number[0]} in the release."
        findings.add("ok" if count == number[0] else "error", message, "" if count == number[0] else mmad.HINT)
    return findings


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _opens(path: Path, decode: bool) -> bool:
    try:
        read_size(path)
        if decode or not has_end(path):
            open_image(path)
    except UserError:
        return False
    return True


def _fits(image: Path, mask: Path) -> bool:
    """Whether the sizes are equal; what cannot be opened is reported elsewhere."""
    try:
        return read_size(image) == read_size(mask)
    except UserError:
        return True


CHECKS = {"mvtec_ad": _check_mvtec, "visa": _check_visa, "mvtec_loco": _check_mvtec, "mmad": _check_mmad}
