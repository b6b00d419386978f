"""The SHA-256 of each stored file of a run, in its ``SHA256SUMS``, which ``sha256sum -c`` reads too.

Written when a stage has ended, last of all: a file without a line is still in the making. ``run.json``, which changes
with each stage, carries its own hash. A trained model carries the hashes of its files with it, in ``origin.json``.
Checksums detect what was edited, lost or mixed up; they are not a signature.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ladlib.errors import UserError, read_json, read_text
from ladlib.records import leads_outside
from ladlib.runs import EDITED, RunFolder, write_text

FILE = "SHA256SUMS"
ORIGIN = "origin.json"
APART = ("run.json", FILE, "images")  # images: drawn again for a copy of a release


def sha256(path: Path | str) -> str:
    """The SHA-256 of the file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(root: Path, *paths: Path) -> dict[str, str]:
    """The SHA-256 of the stored files at and below ``paths`` by their names below ``root``, sorted."""
    return {name: sha256(root / name) for name in _stored(root, *paths)}


def write(run: RunFolder, *paths: Path) -> None:
    """Record the stored files at and below ``paths``, replacing older checksums; all files if none is given."""
    paths = paths or (run.root,)
    _store(run, _without(run, paths) | hashes(run.root, *paths))


def forget(run: RunFolder, *paths: Path) -> None:
    """Remove the checksums of the files at and below ``paths``, which are about to be made again."""
    kept = _without(run, paths)
    if kept != read(run):
        _store(run, kept)


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


def verify(run: RunFolder, *paths: Path) -> list[str]:
    """What was changed since its checksum was written, one line per file; where given, at and below ``paths`` alone."""
    known = read(run)
    chosen = {name: known[name] for name in known if not paths or is_below(run.root / name, paths)}
    found = {name: sha256(run.root / name) for name in chosen if (run.root / name).is_file()}
    return ["run.json was edited"] * (not paths and run.read().sha256 == EDITED) + compare(chosen, found)


def compare(known: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """A line for each file whose checksum in ``known`` is not the one in ``found``."""
    changed = [name for name in known if found.get(name) != known[name]]
    verbs = {name: "was changed after it was made" if name in found else "is missing" for name in changed}
    return [f"{name} {verb}, or its line in {FILE} was changed" for name, verb in verbs.items()]


def missing(run: RunFolder) -> list[str]:
    """The stored files without a checksum, relative to the run folder."""
    sums = read(run)
    return [name for name in _stored(run.root, run.root) if name not in sums]


def seal(folder: Path, inputs: dict) -> None:
    """Have the files of ``folder`` on disk, and then their hashes with the ``inputs`` that they were made from."""
    (folder / ORIGIN).unlink(missing_ok=True)
    for name in _stored(folder, folder):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())
    write_text(folder / ORIGIN, json.dumps(inputs | {"files": hashes(folder, folder)}, indent=2) + "\n")


def unseal(folder: Path) -> dict:
    """The inputs that ``folder`` was sealed with. Raises :class:`UserError` where a file is not as it was then."""
    hint = "Copy it again, or move it away and train again."
    note = read_json(folder / ORIGIN, hint)
    known = note.pop("files", None) if isinstance(note, dict) else None
    if not isinstance(known, dict):
        raise UserError(f"{folder / ORIGIN} is damaged.", hint)
    found = hashes(folder, *(folder / name for name in known if not leads_outside(name)))
    if changed := [name for name in known if found.get(name) != known[name]]:
        raise UserError(f"{folder / changed[0]} is not the file that the training wrote.", hint)
    return note


def is_below(file: Path, paths: Iterable[Path]) -> bool:
    """Whether ``file`` is one of ``paths``, the note of one, or in a folder of ``paths``."""
    return any(file.is_relative_to(path) or file == note_of(path) for path in paths)


def note_of(answers: Path) -> Path:
    """Beside a file of answers, what they were made from; a released copy has none."""
    return answers.parent / f"{answers.stem}.inputs.json"


def _stored(root: Path, *paths: Path) -> list[str]:
    """The names of the files at and below ``paths`` that have checksums, sorted; with answers, their note."""
    below = (file for path in paths for file in (path, note_of(path), *path.rglob("*")))
    names = {file.relative_to(root).as_posix() for file in below if file.is_file()}
    return sorted(name for name in names if name.split("/")[0] not in APART and f"/{name}".find("/.") < 0)


def _without(run: RunFolder, paths: Iterable[Path]) -> dict[str, str]:
    """The checksums but those at and below ``paths``."""
    return {name: digest for name, digest in read(run).items() if not is_below(run.root / name, paths)}


def _store(run: RunFolder, sums: Mapping[str, str]) -> None:
    write_text(run.root / FILE, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
