"""The seals of a run: ``run.json`` holds the SHA-256 of each stored file, and last that of itself.

    seal(run, run.generations("sft", 0))      # by whoever has just made the file
    broken(run)                               # [] as long as nobody has changed anything since

So a changed answer, number or figure is found by name, and so is a change of ``run.json`` that would hide it. It is
no signature: whoever means to deceive can seal anew. It finds what was edited, lost or mixed up later.

A notebook seals what it made in its last cell, a study each stage as it ends, a report its own tables and figures.
Checkpoints and datasets have hashes of their own (:func:`ladlib.models.fingerprint`, ``images_sha256``), and
``report.html`` can be made from the stored files at any time.
"""

from collections.abc import Iterable
from pathlib import Path

from ladlib.data.images import sha256
from ladlib.records import Seal
from ladlib.runs import CHANGED, RunFolder

FOLDERS = ("generations", "sensitivity", "baselines", "logs", "manifests", "rationales", "samples", "tables", "figures")
FILES = ("metrics.json",)
SUFFIXES = (".jsonl", ".json", ".csv", ".md", ".tex", ".png", ".pdf")
NOTES = ".inputs.json"  # what a file of generations was made from; a released copy has none


def seal(run: RunFolder, *paths: Path) -> None:
    """Put the stored files at and below ``paths`` into ``run.json``, in place of their older seals."""
    names = {path.relative_to(run.root).as_posix() for path in paths if path.is_relative_to(run.root)}
    record = run.read()
    kept = [one for one in record.files if not names & _above(one.path)]
    made = [Seal(path=name, sha256=sha256(run.root / name)) for name in _stored(run) if names & _above(name)]
    ordered = sorted([*kept, *made], key=lambda one: one.path)
    run.write(record.model_copy(update={"files": tuple(ordered)}))


def seal_all(run: RunFolder) -> None:
    """Seal everything that is stored, and forget what is not there."""
    run.write(run.read().model_copy(update={"files": ()}))
    seal(run, *(run.root / name for name in (*FOLDERS, *FILES)))


def broken(run: RunFolder) -> list[str]:
    """What is no longer as it was sealed, a line each."""
    record = run.read()
    edited = ["run.json was edited"] if record.sha256 == CHANGED else []
    return edited + [fault for one in record.files if (fault := _fault(run, one))]


def unsealed(run: RunFolder) -> list[str]:
    """The stored files that have no seal, relative to the run folder."""
    known = {one.path for one in run.read().files}
    return [name for name in _stored(run) if name not in known]


def _fault(run: RunFolder, one: Seal) -> str:
    path = run.root / one.path
    if not path.is_file():
        return f"{one.path} is missing"
    return "" if sha256(path) == one.sha256 else f"{one.path} was changed after it was made"


def _stored(run: RunFolder) -> list[str]:
    """The names of the files that seals are for, sorted."""
    files: Iterable[Path] = [run.root / name for name in FILES]
    files = [*files, *(file for name in FOLDERS for file in (run.root / name).rglob("*"))]
    stored = [file for file in files if file.is_file() and file.suffix in SUFFIXES and not file.name.endswith(NOTES)]
    return sorted(file.relative_to(run.root).as_posix() for file in stored if not file.name.startswith("."))


def _above(name: str) -> set[str]:
    """``a/b/c`` and the folders it lies in: a, a/b."""
    parts = name.split("/")
    return {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
