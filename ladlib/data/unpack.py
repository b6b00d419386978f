"""Archives unpacked with nothing outside the folder, nothing half, and no trust in what they name."""

import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from ladlib.data.layout import subfolders
from ladlib.errors import UserError
from ladlib.progress import Progress

MB = 1_000_000
BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, ValueError, struct.error,
    RuntimeError,  # a zip with a password, or packed in a way that this Python lacks
)  # fmt: skip
MEND = "Remove it and fetch it again."


def unpack(archive: Path, folder: Path, recognise: Callable[[Path], bool]) -> None:
    """Unpack ``archive`` (tar in any compression, or zip) as ``folder``, which does not exist yet.

    The content, or that of its only folder, has to pass ``recognise``. It is unpacked beside ``folder``
    and renamed when all of it is there: a killed call leaves no ``folder``, and the next call clears
    what it left. Raises :class:`UserError` for an archive that is broken, holds a path or a link that
    leads outside, or something else than expected, and for a disk that fills up.
    """
    fresh = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        _extract(archive, fresh)
        _top(archive, fresh, recognise).rename(folder)
    except BROKEN as error:
        raise UserError(f"{archive} cannot be unpacked: {str(error).splitlines()[0].rstrip(':')}.", MEND) from error
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked: {error}.", "Make room on the disk, then run again.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _extract(archive: Path, into: Path) -> None:
    progress = Progress(f"unpacking {archive.name}", "MB", archive.stat().st_size // MB)
    members = _unzip if archive.suffix == ".zip" else _untar
    told = 0
    with archive.open("rb") as file:
        for _ in members(file, into):
            if file.tell() // MB > told:
                told = file.tell() // MB
                progress.tell(told)


def _untar(file: BinaryIO, into: Path) -> Iterator[None]:
    if not hasattr(tarfile, "data_filter"):
        raise UserError("This Python's tarfile has no safe extraction.", "Use Python 3.11.4 or newer.")
    with tarfile.open(fileobj=file) as tar:
        for member in tar:
            _refuse_outside(member.name)
            tar.extract(member, into, filter="data")  # links that lead outside and devices are errors
            yield


def _unzip(file: BinaryIO, into: Path) -> Iterator[None]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            _refuse_outside(member.filename)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UserError(f"The archive holds the link {member.filename!r}.", MEND)
            archive.extract(member, into)
            yield


def _refuse_outside(name: str) -> None:
    """Absolute names and "..", which the libraries would bend into names inside."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise UserError(f"The archive holds {name!r}, which leads outside of it; nothing was unpacked.", MEND)


def _top(archive: Path, folder: Path, recognise: Callable[[Path], bool]) -> Path:
    """``folder`` or the only folder in it, whichever is the dataset."""
    for one in (folder, *subfolders(folder)[:1]):
        if recognise(one):
            return one
    raise UserError(f"{archive} does not hold the dataset.", MEND)
