"""Whether a machine has room for a run: before it starts, and when something has failed."""

import shutil
from pathlib import Path

from ladlib.doctor import load_cost
from ladlib.errors import UserError
from ladlib.machine import hardware

GIB, MIB = 2**30, 2**20
FULL = 8 * MIB  # a disk with less than this left is taken to be the cause of a failure
NO_SPACE = ("No space left on device", "[Errno 28]", "os error 28", "Disk quota exceeded", "File too large")


def check_room(profile: str, folder: Path, begun: bool) -> str:
    """What the machine lacks beside the needs of ``profile`` in profiles/cost.yaml; "" where it lacks nothing.

    Raises :class:`UserError` where a run that has not ``begun`` would not fit on the disk of ``folder``.
    """
    cost = load_cost(profile)
    if cost is None:
        return ""
    free, needed = shutil.disk_usage(_existing(folder)).free / GIB, cost.needs.disk_gib
    if free < needed and not begun:
        raise UserError(
            f"A run of profile {profile} takes {needed:g} GiB, and the disk of {folder} has {free:.1f} GiB left.",
            "Make room, or give a folder on another disk with --run.",
        )
    memory = float(hardware()["memory_gib"])
    if memory < cost.needs.memory_gib * 0.9:  # part of a machine's memory is never told
        return f"profile {profile} needs {cost.needs.memory_gib:g} GiB of memory, this machine has {memory:g}"
    return ""


def check_disk(path: Path, error: BaseException) -> None:
    """Raise :class:`UserError` where ``error`` came of a full disk, as its words or the disk of ``path`` tell."""
    told = any(words in str(error) for words in NO_SPACE)
    if told or shutil.disk_usage(_existing(path)).free < FULL:
        raise UserError(
            f"The disk of {_existing(path)} is full.", "Make room and run the same command again: what is done is kept."
        ) from error


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())
