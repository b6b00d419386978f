"""A folder of datasets checked against the published layouts and counts: what is missing, extra or damaged.

[finding for finding in check(Path("/data/anomaly")) if finding.severity == "error"]
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from ladlib.data import layout, mmad
from ladlib.data.download import read_sources
from ladlib.data.images import open_image, read_size, sha256
from ladlib.data.readers import READERS, UNKNOWN, read_split
from ladlib.errors import UserError
from ladlib.records import Record

Severity = Literal["error", "warning", "ok"]  # unusable or incomplete; usable, not as published; as published
Row = tuple[Severity, str, str, str]  # severity, category, message, hint

MOST_NAMES = 20  # of files, in one message
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")  # the last bytes of a PNG and of a JPEG file
AGAIN = "Copy them again."


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
    rows: dict[str, Iterable[Row]] = {}
    if any((folder / layout.TOY_MARKER).is_file() for folder in (root, root.parent)):
        message = "these are synthetic toy datasets: in their layouts as published, and smaller on purpose."
        rows["toy"] = [("warning", "", message, "Every difference from the published ones is in --json.")]
    for name, folder in folders.items():
        rows[name] = _check_mmad(folder) if name == "mmad" else _check_images(name, folder, decode)
    for name in layout.FOLDERS.keys() - folders if inside else ():
        rows[name] = [("warning", "", "the dataset is missing.", "Copy it, or run ladlib data download.")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the readers: what they warn of is a finding
        return [
            Finding(severity=severity, dataset=name, category=category, message=message, hint=hint)
            for name, lines in rows.items()
            for severity, category, message, hint in lines
        ]


def _check_images(dataset: str, folder: Path, decode: bool) -> Iterator[Row]:
    """Expected are the files of the release or of the journal article, in VisA those that its own table names."""
    categories = layout.published_categories(dataset)
    editions: dict[str, list[set[str]]] = {}
    if dataset == "visa":
        try:
            table = read_split(folder / "split_csv" / "1cls.csv")
        except UserError as error:
            yield "error", "", error.what, error.hint
            return
        counts = Counter((row.object, row.split, "good" if row.label == "normal" else "anomalous") for row in table)
        published = {key: numbers[0] for key, numbers in layout.published(dataset).items()}
        if differing := [" ".join(key) for key in {*counts, *published} if counts[key] != published.get(key)]:
            yield "error", "", f"split_csv/1cls.csv has other numbers of rows for {_listed(differing)}.", AGAIN
        for name in categories:
            images = {row.image for row in table if row.object == name}
            editions[name] = [images | {f"{name}/image_anno.csv"}]
    else:
        for edition in (0, -1):
            images = layout.published_images(dataset, edition)
            for name in categories:
                files = {file for key, files in images.items() if key[0] == name for file in files}
                editions.setdefault(name, []).append(files)
    present = {path.name for path in layout.category_folders(folder)}
    for name in sorted({*categories, *present}):
        if name not in categories:
            yield "warning", name, f"is no category of {dataset}.", "Rename or remove the folder."
        elif not (folder / name).is_dir():
            yield "error", name, "the category is missing.", f"Copy it to {folder / name}."
        else:
            try:
                for severity, message, hint in _check_category(dataset, folder, name, editions[name], decode):
                    yield severity, name, message, hint
            except UserError as error:
                yield "error", name, error.what, error.hint


def _check_category(
    dataset: str, folder: Path, category: str, editions: list[set[str]], decode: bool
) -> Iterator[tuple[Severity, str, str]]:
    images = layout.category_images(folder / category)
    names = {image.relative_to(folder).as_posix() for image in images}
    expected = names if names in editions else editions[0]
    missing = [name for name in expected if not (folder / name).is_file()]
    if missing:
        yield "error", f"{len(missing)} of {len(expected)} files are missing: {_listed(missing)}.", "Copy them."
    if extra := names - expected:
        yield "warning", f"{len(extra)} images were not published: {_listed(extra)}.", "Remove them."
    broken = [image.relative_to(folder).as_posix() for image in images if not _opens(image, decode)]
    if broken:
        yield "error", f"{len(broken)} images do not open: {_listed(broken)}.", AGAIN
    samples = [sample for sample in READERS[dataset](folder, [folder / category]) if sample.anomaly != "good"]
    if bare := [sample.image for sample in samples if not sample.masks]:
        yield "error", f"{len(bare)} images have no masks: {_listed(bare)}.", AGAIN
    if unknown := [sample.image for sample in samples if sample.masks and sample.defect == UNKNOWN]:
        yield "warning", f"The defects of {len(unknown)} images are unknown: {_listed(unknown)}.", AGAIN
    masks = [mask for sample in samples for mask in sample.masks if not _fits(folder / sample.image, folder / mask)]
    if masks:
        yield "error", f"{len(masks)} masks are of another size than their images: {_listed(masks)}.", AGAIN
    if not (missing or extra or broken or bare or unknown or masks):
        yield "ok", f"{len(expected)} files as released.", ""


def _check_mmad(folder: Path) -> Iterator[Row]:
    released = {file.name: file.sha256 for file in read_sources()["mmad"].files}
    for name, read in (("mmad.json", mmad.read_questions), ("domain_knowledge.json", mmad.read_knowledge)):
        try:
            read(folder)
        except UserError as error:
            yield "error", "", error.what, error.hint
        else:
            if sha256(folder / name) == released[name]:
                yield "ok", "", f"{name} is the released file.", ""
            else:
                yield "warning", "", f"{name} is not the released file.", "Compare it with the release."


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _opens(path: Path, decode: bool) -> bool:
    """A truncated file lacks the end of its format; to a whole one, bytes may be added."""
    try:
        read_size(path)
        if decode or not path.read_bytes().endswith(ENDS):
            open_image(path)
    except UserError:
        return False
    return True


def _fits(image: Path, mask: Path) -> bool:
    """Whether the sizes are equal; what does not open has its own line."""
    try:
        return read_size(image) == read_size(mask)
    except UserError:
        return True
