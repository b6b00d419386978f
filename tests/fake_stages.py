"""Stages that take no model, importable by the processes that run them."""

import os
import signal
import time
from pathlib import Path

from ladlib.runner import Stage


def write(path: Path, text: str = "written", seconds: float = 0.0) -> None:
    print(f"writing {path.name}")
    time.sleep(seconds)
    path.write_text(f"{text} by {os.getpid()}", encoding="utf-8")


def fail(path: Path) -> None:
    raise ValueError("the oven is cold")


def forget(path: Path) -> None:
    """Ends well without its output."""


def die(path: Path) -> None:
    """Ends as a process does that the system kills for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(path: Path, text: str) -> None:
    """Fails after it has written something."""
    path.write_text("second" if path.exists() else "first", encoding="utf-8")
    raise ValueError("stumbled")


def threads(path: Path) -> None:
    path.write_text(os.environ["OMP_NUM_THREADS"], encoding="utf-8")


def stage(folder: Path, name: str, work=write, after: str = "", **options) -> Stage:
    """A stage that writes the file ``name`` below ``folder``, after those in ``after``."""
    return Stage(name, (name,), work, {"path": folder / name, **options}, tuple(after.split()), options)
