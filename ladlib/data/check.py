"""A folder of datasets checked against the published layouts and counts: what is missing, extra or damaged.

[finding for finding in check(Path("/data/anomaly")) if finding.severity == "error"]
"""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ladlib.checksums import sha256
from ladlib.data import layout, mmad
from ladlib.data.download import read_sources
from ladlib.data.images import open_image, read_image, read_size
from ladlib.data.readers import READERS, UNKNOWN, VisaRow, read_dataset, read_split
from ladlib.errors import UserError
from ladlib.records import Record

Severity = Literal["error", "warning", "ok"]  # unusable or incomplete; usable, not as published; as published
Line = tuple[Severity, str, str, str]  # severity, category, message, hint

KEYS = ("severity", "category", "message", "hint")
MOST_NAMES = 20  # of files, in one message
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")  # the last bytes of a PNG and of a JPEG file
TOY = "these are synthetic toy datasets: in their layouts as published, and smaller on purpose."


class Finding(Record):
    """One line of a check."""

    severity: Severity
    dataset: str
    category: str  # "" for the dataset as a whole
    message: str
    hint: str


def check(root: Path | str) -> list[Finding]:
    """Findings about every dataset in ``root``, or about ``root`` where it is a dataset itself.

    Raises :class:`UserError` where ``root`` holds nothing that can be recognised.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.", "Give the folder that holds the datasets.")
    inside = {name: root / folder for name, folder in layout.FOLDERS.items() if (root / folder).is_dir()}
    folders = inside or {name: root for name in layout.FOLDERS if layout.is_dataset(root, name)}
    if not folders:
        names = ", ".join(layout.FOLDERS.values())
        raise UserError(f"{root} holds none of {names}.", "Give the folder that holds them, or one of them.")
    findings = []
    if layout.is_drawn(root):
        hint = "Every difference from the published ones is in --json."
        findings.append(Finding(severity="warning", dataset="toy", category="", message=TOY, hint=hint))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the readers: what they warn of is a finding
        for dataset, folder in folders.items():
            lines = _mmad_lines(folder, folders) if dataset == "mmad" else _dataset_lines(dataset, folder)
            findings += [Finding(dataset=dataset, **dict(zip(KEYS, line, strict=True))) for line in lines]
    for dataset in layout.FOLDERS:
        if inside and dataset not in inside:
            line = {"message": "the dataset is missing.", "hint": "Copy it, or run ladlib data download."}
            findings.append(Finding(severity="warning", dataset=dataset, category="", **line))
    return findings


def _dataset_lines(dataset: str, folder: Path) -> Iterator[Line]:
    try:
        rows = read_split(folder / "split_csv" / "1cls.csv") if dataset == "visa" else []
    except UserError as error:
        yield "error", "", error.what, error.hint
        return
    published = layout.published_categories(dataset)
    present = {path.name for path in layout.category_folders(folder)}
    for category in sorted({*published, *present}):
        if category not in published:
            yield "warning", category, f"is no category of {dataset}.", "Rename or remove the folder."
        elif category not in present:
            yield "error", category, "the category is missing.", f"Copy it to {folder / category}."
        else:
            yield from _category_lines(dataset, folder, category, rows)


def _category_lines(dataset: str, folder: Path, category: str, rows: Sequence[VisaRow]) -> list[Line]:
    lines = []
    try:
        for severity, what, names in _problems(dataset, folder, category, rows):
            if names:
                more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
                message = f"{len(names)} {what}: {', '.join(sorted(names)[:MOST_NAMES])}{more}."
                lines.append((severity, category, message, "Copy the dataset again."))
    except UserError as error:
        lines.append(("error", category, error.what, error.hint))
    return lines or [("ok", category, "all images and their annotations as released.", "")]


def _problems(
    dataset: str, folder: Path, category: str, rows: Sequence[VisaRow]
) -> Iterator[tuple[Severity, str, Collection[str]]]:
    """Each possible problem with the names of the files that have it."""
    kinds = [kind for split in layout.SPLITS for kind in layout.subfolders(folder / category / split)]
    names = {image.relative_to(folder).as_posix() for kind in kinds for image in layout.list_images(kind)}
    expected = {row.image for row in rows if row.object == category}
    if dataset != "visa":
        article, release = (_published_images(dataset, category, edition) for edition in (-1, 0))
        expected = article if names == article else release
    yield "error", f"of {len(expected)} images are missing", expected - names
    yield "warning", "images were not published", names - expected
    yield "error", "images do not open", [name for name in names if not _opens(folder / name)]
    samples = [sample for sample in READERS[dataset](folder, [folder / category]) if sample.anomaly != "good"]
    yield "error", "images have no masks", [sample.image for sample in samples if not sample.masks]
    unknown = [sample.image for sample in samples if sample.masks and sample.defect == UNKNOWN]
    yield "warning" if dataset == "visa" else "error", "images have unknown defects", unknown
    pairs = [(mask, sample.image) for sample in samples for mask in sample.masks]
    unequal = [mask for mask, image in pairs if read_size(folder / mask) != read_size(folder / image)]
    yield "error", "masks are of another size than their images", unequal


def _published_images(dataset: str, category: str, edition: int) -> set[str]:
    by_key = layout.published_images(dataset, edition)
    return {name for key, names in by_key.items() if key[0] == category for name in names}


def _opens(path: Path) -> bool:
    """Whether a PNG's checksums hold and another image ends as its format does, or else decodes."""
    try:
        read_image(path, lambda image: image.verify())
        if not path.read_bytes().endswith(ENDS):
            open_image(path)
    except UserError:
        return False
    return True


def _mmad_lines(folder: Path, folders: Mapping[str, Path]) -> Iterator[Line]:
    released = {source["sha256"] for source in read_sources()["mmad"]["files"]}
    for name, read in (("mmad.json", mmad.read_questions), ("domain_knowledge.json", mmad.read_knowledge)):
        try:
            read(folder)
            if sha256(folder / name) in released:
                yield "ok", "", f"{name} is the released file.", ""
            else:
                yield "warning", "", f"{name} is not the released file.", "Compare it with the release."
        except UserError as error:
            yield "error", "", error.what, error.hint
    with suppress(UserError):  # which is a line already
        samples = [sample for name, root in folders.items() if name != "mmad" for sample in read_dataset(root, name)]
        doubts = Counter(doubt for _, _, doubt in mmad.compare(mmad.read_questions(folder), samples, folder) if doubt)
        if doubts:
            yield "warning", "", f"{doubts.total()} questions {mmad.named(doubts)}.", "Training leaves them out."
