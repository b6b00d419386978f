"""Where the datasets come from: ``sources.yaml`` beside this file, with licences, links and checksums."""

from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from ladlib.data.layout import FOLDERS
from ladlib.records import Record

GB = 1e9


class SourceFile(Record):
    """One file that a dataset is made of. Sizes in bytes."""

    name: str
    size: int
    unpacked: int = 0  # what an archive holds; 0 where the file itself is wanted
    sha256: str
    urls: tuple[str, ...]  # tried in this order


class Source(Record):
    """Where a dataset comes from, and on which terms."""

    title: str
    licence: str
    licence_url: str
    terms: str
    page: str  # of the publisher
    remark: str
    layout: tuple[str, ...]  # what the dataset's folder holds, as ``ladlib data check`` wants it
    files: tuple[SourceFile, ...]


@cache
def read_sources() -> dict[str, Source]:
    """The committed sources by dataset, in the order of ``FOLDERS``."""
    values = yaml.safe_load((resources.files("ladlib.data") / "sources.yaml").read_text(encoding="utf-8"))
    return {name: Source.model_validate(values[name]) for name in FOLDERS}


def place(file: SourceFile, dataset: str, out: Path) -> Path:
    """Where ``file`` is kept: an archive in ``out``, a plain file in the dataset's folder there."""
    return out / file.name if file.unpacked else out / FOLDERS[dataset] / file.name


def licence_text(source: Source) -> str:
    """The licence in three lines, to be shown before anything is fetched."""
    return f"{source.title} is under {source.licence}, {source.licence_url}\n{source.terms}\nPublisher: {source.page}"


def by_hand(dataset: str, source: Source, out: Path) -> str:
    """What to fetch by hand and where to put it; the folder that comes of it is one ``data check`` accepts."""
    folder = out / FOLDERS[dataset]
    puts = [f"     {file.name} ({size(file.size)}) as {place(file, dataset, out)}" for file in source.files]
    lines = [
        f"{source.title} by hand:",
        f"  1. Open {source.page}. {source.remark}",
        "  2. Download and put",
        *puts,
        "  3. Run the same command again: it checks the SHA-256 and does the rest.",
        f"What comes of it, for those who have a copy already, is {folder} with",
        *(f"     {line}" for line in source.layout),
    ]
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes for people, decimal as disks are sold.

    >>> size(5264982680), size(144260)
    ('5.3 GB', '0.1 MB')
    """
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 1e6:.1f} MB"
