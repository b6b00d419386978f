"""The SHA-256 of each stored file of a run, in its ``SHA256SUMS``, which ``sha256sum -c`` reads too.

``run.json``, which changes with each stage, carries its own hash. Checksums detect what was edited, lost or mixed up;
they are not a signature. Checkpoints and datasets have hashes of their own (:func:`ladlib.models.fingerprint`,
``images_sha256``), and ``report.html`` can be made again at any time.
"""

import hashlib
import re
from pathlib import Path

from ladlib.errors import UserError, read_text
from ladlib.records import leads_outside
from ladlib.runs import EDITED, RunFolder, write_text

FILE = "SHA256SUMS"
FOLDERS = ("generations", "sensitivity", "baselines", "logs", "manifests", "rationales", "samples", "tables", "figures")
SUFFIXES = (".jsonl", ".json", ".csv", ".md", ".tex", ".png", ".pdf", ".gz")
NOTES = ".inputs.json"  # what a file of generations was made from; a released copy has none


def sha256(path: Path | str) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(run: RunFolder, *paths: Path) -> None:
    """Record the stored files at and below ``paths``, replacing older checksums; all files if none is given."""

    def is_chosen(name: str) -> bool:
        return not paths or any((run.root / name).is_relative_to(path) for path in paths)

    sums = {name: digest for name, digest in read(run).items() if not is_chosen(name)}
    sums |= {name: sha256(run.root / name) for name in _stored(run) if is_chosen(name)}
    write_text(run.root / FILE, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def read(run: RunFolder) -> dict[str, str]:
    """SHA-256 by path below the run folder; {} where none were written. Raises :class:`UserError` where damaged."""
    file = run.root / FILE
    text = read_text(file, "Restore the file.") if file.exists() else ""
    sums = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if match is None or leads_outside(match[2]):
            raise UserError(f"{file}, line {number} is not a checksum.", "Restore the file.")
        sums[match[2]] = match[1]
    return sums


def verify(run: RunFolder) -> list[str]:
    """What was changed since its checksum was written, one line per file."""
    faults = ["run.json was edited"] if run.read().sha256 == EDITED else []
    for name, digest in read(run).items():
        if not (run.root / name).is_file():
            faults.append(f"{name} is missing")
        elif sha256(run.root / name) != digest:
            faults.append(f"{name} was changed after it was made")
    return faults


def missing(run: RunFolder) -> list[str]:
    """The stored files without a checksum, relative to the run folder."""
    sums = read(run)
    return [name for name in _stored(run) if name not in sums]


def _stored(run: RunFolder) -> list[str]:
    """The names of the files that have checksums, sorted."""
    files = [run.metrics_json, *(file for folder in FOLDERS for file in (run.root / folder).rglob("*"))]
    files = [file for file in files if file.is_file() and file.suffix in SUFFIXES and not file.name.endswith(NOTES)]
    return sorted(file.relative_to(run.root).as_posix() for file in files if not file.name.startswith("."))
