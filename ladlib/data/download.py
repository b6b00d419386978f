"""A dataset brought to a folder: room, files, checksums, unpacking. Every step goes on where it was stopped."""

import shutil
from pathlib import Path

from ladlib.data.fetch import Unavailable, arrived, fetch
from ladlib.data.images import sha256
from ladlib.data.layout import FOLDERS, RECOGNISE
from ladlib.data.sources import Source, SourceFile, by_hand, place, size
from ladlib.data.unpack import unpack
from ladlib.errors import UserError


def download(dataset: str, source: Source, out: Path) -> Path:
    """Bring ``dataset`` from ``source`` to ``out / FOLDERS[dataset]``, the folder that is returned.

    An archive that already lies in ``out``, whole or in part, is used; one that was unpacked stays
    there. Raises :class:`UserError` where the disk is too small, no link gives the file (after saying
    what to fetch by hand), or a checksum is wrong.
    """
    for file in source.files:
        if _present(file, dataset, out):
            continue
        _require_space(out, source, _still_to_come(file, dataset, out), file.unpacked)
        path = place(file, dataset, out)
        _bring(file, path, dataset, source, out)
        if file.unpacked:
            unpack(path, out / FOLDERS[dataset], RECOGNISE[dataset])
            print(f"{path} ({size(path.stat().st_size)}) is no longer needed.")
    return out / FOLDERS[dataset]


def _present(file: SourceFile, dataset: str, out: Path) -> bool:
    """Whether what ``file`` gives is there: the unpacked folder, or the file itself."""
    wanted = out / FOLDERS[dataset] if file.unpacked else place(file, dataset, out)
    if wanted.exists():
        print(f"{wanted} is there already.")
    return wanted.exists()


def _still_to_come(file: SourceFile, dataset: str, out: Path) -> int:
    return max(0, file.size - arrived(place(file, dataset, out)))


def _require_space(out: Path, source: Source, fetched: int, unpacked: int) -> None:
    """Refuse before the first byte where the disk of ``out`` cannot hold the download and its content."""
    there = next(one for one in (out.absolute(), *out.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < fetched + unpacked:
        raise UserError(
            f"{source.title} needs {size(fetched + unpacked)} ({size(fetched)} to download and {size(unpacked)} "
            f"unpacked), and {out} has {size(free)} free.",
            "Make room, or give a folder on another disk with --out.",
        )


def _bring(file: SourceFile, path: Path, dataset: str, source: Source, out: Path) -> None:
    if path.is_file():
        return _require_checksum(path, file.sha256)
    try:
        fetch(file.urls, path, file.sha256)
    except Unavailable as error:
        print(by_hand(dataset, source, out))
        stays = f"Run again later ({size(arrived(path))} stay), or fetch" if arrived(path) else "Fetch"
        raise UserError(f"No link gives {file.name} ({error}).", f"{stays} it by hand as said above.") from error


def _require_checksum(path: Path, expected: str) -> None:
    """A file that lies there already, put by hand or by an earlier call."""
    print(f"{path.name}: checking the SHA-256")
    found = sha256(path)
    if found != expected:
        raise UserError(f"{path} has the SHA-256 {found}, not the published {expected}.", "Remove it, then run again.")
