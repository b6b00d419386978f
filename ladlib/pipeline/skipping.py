"""``--skip-bad``: a run on the images that decode, which says in every table how many were left out."""

import hashlib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ladlib.data.readable import Skipped, datasets, files, link_readable
from ladlib.errors import UserError
from ladlib.records import Record
from ladlib.runs import RunFolder, write_text


class Left(Record):
    """``skipped.json`` of a run."""

    data: str
    made_from: str  # names, sizes and times of all files
    skipped: tuple[Skipped, ...]


def leave_out(folder: RunFolder, data: str) -> tuple[str, int]:
    """The datasets for ``folder`` to run on, and the number of images left out of those in ``data``.

    They are listed in ``skipped.json``. Where nothing changed since, it is read and no image is decoded again.
    """
    if not data:
        raise UserError("--skip-bad is for datasets of your own.", "Name their folder with --data, or leave it out.")
    root, out, note = Path(data).resolve(), folder.root / "readable", folder.root / "skipped.json"
    before, made_from = _read(note), _made_from(root)
    if before is None or (before.data, before.made_from) != (str(root), made_from) or not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        before = Left(data=str(root), made_from=made_from, skipped=tuple(link_readable(root, out)))
        write_text(note, before.model_dump_json(indent=2) + "\n")
    return str(out), len(before.skipped)


def refuse_mixed(folder: RunFolder) -> None:
    """Raise :class:`UserError` where ``folder`` was begun with images left out: its tables would mix both."""
    count = folder.read().parameters.get("skipped") if folder.run_json.exists() else 0
    if count:
        raise UserError(
            f"{folder.root} was begun without {count} images that do not decode.",
            "Add --skip-bad, or give another folder with --run.",
        )


def _read(note: Path) -> Left | None:
    try:
        return TypeAdapter(Left).validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None


def _made_from(root: Path) -> str:
    total = hashlib.sha256()
    for _, folder in datasets(root):
        for path in files(folder):
            found = path.stat()
            total.update(f"{path.relative_to(root)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode(errors="replace"))
    return total.hexdigest()
