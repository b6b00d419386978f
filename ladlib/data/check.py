"""A folder of datasets checked against the published layouts and counts: what is missing, extra or damaged.

[finding for finding in check(Path("/data/anomaly")) if finding.severity == "error"]
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from ladlib.checksums import sha256
from ladlib.data import layout, mmad
from ladlib.data.download import read_sources
from ladlib.data.images import open_image, read_size
from ladlib.data.readers import READERS, UNKNOWN, read_split
from ladlib.errors import UserError
from ladlib.records import Record

Severity = Literal["error", "warning", "ok"]  # unusable or incomplete; usable, not as published; as published
Line = tuple[Severity, str, str]  # severity, message, hint

MOST_NAMES = 20  # of files, in one message
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")  # the last bytes of a PNG and of a JPEG file


class Finding(Record):
    """One line of a check."""

    severity: Severity
    dataset: str
    category: str  # "" for the dataset as a whole
    message: str
    hint: str = ""


def check(root: Path | str, decode: bool = False) -> list[Finding]:
    """Findings about every dataset in ``root``, or about ``root`` where it is a dataset itself.

    Opens the header of every image and looks at its end; with ``decode`` all of it (slow). Raises
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
    checks: list[tuple[str, str, Iterable[Line]]] = []  # dataset, category
    if any((folder / layout.TOY_MARKER).is_file() for folder in (root, root.parent)):
        message = "these are synthetic toy datasets: in their layouts as published, and smaller on purpose."
        checks.append(("toy", "", [("warning", message, "Every difference from the published ones is in --json.")]))
    for name, folder in folders.items():
        if name == "mmad":
            checks.append((name, "", _check_mmad(folder / "mmad.json", mmad.read_questions)))
            checks.append((name, "", _check_mmad(folder / "domain_knowledge.json", mmad.read_knowledge)))
        else:
            present = {path.name for path in layout.category_folders(folder)}
            for category in sorted({*layout.published_categories(name), *present}):
                checks.append((name, category, _check_category(name, folder, category, decode)))
    for name in [name for name in layout.FOLDERS if inside and name not in inside]:
        checks.append((name, "", [("warning", "the dataset is missing.", "Copy it, or run ladlib data download.")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the readers: what they warn of is a finding
        return [
            Finding(severity=severity, dataset=dataset, category=category, message=message, hint=hint)
            for dataset, category, lines in checks
            for severity, message, hint in _with_error(lines)
        ]


def _with_error(lines: Iterable[Line]) -> Iterator[Line]:
    """``lines``, and the :class:`UserError` that ends them as their last."""
    try:
        yield from lines
    except UserError as error:
        yield "error", error.what, error.hint


def _check_category(dataset: str, folder: Path, category: str, decode: bool) -> Iterator[Line]:
    if category not in layout.published_categories(dataset):
        yield "warning", f"is no category of {dataset}.", "Rename or remove the folder."
        return
    if not (folder / category).is_dir():
        yield "error", "the category is missing.", f"Copy it to {folder / category}."
        return
    names = {image.relative_to(folder).as_posix() for image in layout.category_images(folder / category)}
    expected = _expected(dataset, folder, category, names)
    problems: list[tuple[Severity, str, Iterable[str]]] = [
        ("error", f"of {len(expected)} images are missing", expected - names),
        ("warning", "images were not published", names - expected),
        ("error", "images do not open", [name for name in names if not _opens(folder / name, decode)]),
    ]
    yield from _listed(problems)
    samples = [sample for sample in READERS[dataset](folder, [folder / category]) if sample.anomaly != "good"]
    sizes = [
        (mask, read_size(folder / mask), read_size(folder / sample.image))
        for sample in samples
        for mask in sample.masks
    ]
    annotations: list[tuple[Severity, str, Iterable[str]]] = [
        ("error", "images have no masks", [sample.image for sample in samples if not sample.masks]),
        (
            "warning",
            "images have unknown defects",
            [one.image for one in samples if one.masks and one.defect == UNKNOWN],
        ),
        (
            "error",
            "masks are of another size than their images",
            [mask for mask, size, right in sizes if size != right],
        ),
    ]
    yield from _listed(annotations)
    if not any(names for _, _, names in problems + annotations):
        yield "ok", f"{len(expected)} images and their annotations as released.", ""


def _expected(dataset: str, folder: Path, category: str, present: set[str]) -> set[str]:
    """The image names of the release, or the journal article's where ``present`` is exactly those."""
    if dataset == "visa":  # has a table of its images
        return {row.image for row in read_split(folder / "split_csv" / "1cls.csv") if row.object == category}
    article, release = (
        {
            name
            for key, names in layout.published_images(dataset, edition).items()
            if key[0] == category
            for name in names
        }
        for edition in (-1, 0)
    )
    return article if present == article else release


def _listed(problems: Iterable[tuple[Severity, str, Iterable[str]]]) -> Iterator[Line]:
    for severity, what, names in problems:
        if names := sorted(names):
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            yield severity, f"{len(names)} {what}: {', '.join(names[:MOST_NAMES])}{more}.", "Copy the dataset again."


def _opens(path: Path, decode: bool) -> bool:
    """A truncated file lacks the end of its format; to a whole one, bytes may be added."""
    try:
        read_size(path)
        if decode or not path.read_bytes().endswith(ENDS):
            open_image(path)
    except UserError:
        return False
    return True


def _check_mmad(file: Path, read: Callable[[Path], object]) -> Iterator[Line]:
    read(file.parent)
    if sha256(file) in {source["sha256"] for source in read_sources()["mmad"]["files"]}:
        yield "ok", f"{file.name} is the released file.", ""
    else:
        yield "warning", f"{file.name} is not the released file.", "Compare it with the release."
