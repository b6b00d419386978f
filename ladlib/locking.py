"""One process at a time in a run folder. A lock ends with the process that holds it, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ladlib.errors import UserError

RUN, KERNEL = ".lock", ".kernel.lock"  # below the run folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of the run ``folder``. Raises :class:`UserError` where one is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / RUN)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"Another ladlib process is at work in {folder}.", "Wait for it or stop it, or give another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
