"""Progress of one notebook: a bar on a terminal, plain lines otherwise, both with the time left.

The time left comes from what the running cell prints (``step 12/60``), else from the cells of the last
executed copy, else from the stage's measured time.
"""

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ladlib.sanitize import strip_control

COUNTED = re.compile(r"(?:\b(?:step|batch|pair|image)s? |\| *)(\d+)/(\d+)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PLAIN_EVERY = 30.0  # seconds between two plain lines about the same cell


@dataclass(frozen=True)
class Expected:
    """What is known beforehand: seconds of each code cell ([] if unknown), or of the stage."""

    cells: Sequence[float] = ()
    stage: float | None = None


class CellProgress:
    """Shows the running cell of ``stage``, which has ``total`` code cells; use it as a context manager.

    ``cell_start`` fits nbclient's hook ``on_cell_start``; ``write`` takes what the cell prints.
    """

    def __init__(self, console: Console, stage: str, total: int, expected: Expected, verbose: bool = False) -> None:
        self.console, self.stage, self.total = console, stage, total
        self.expected, self.verbose = expected, verbose
        self.cell, self.counted = 0, (0, 0)
        self.started = self.cell_started = time.monotonic()
        self._done = threading.Event()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total, note="")

    def __enter__(self) -> "CellProgress":
        if self.console.is_terminal:
            self._bar.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._ticker.join()
        if self.console.is_terminal:
            self._bar.stop()

    def cell_start(self, cell: dict, cell_index: int) -> None:
        if cell["cell_type"] != "code" or not cell["source"].strip():
            return
        self.cell, self.counted, self.cell_started = self.cell + 1, (0, 0), time.monotonic()
        self._show()

    def write(self, text: str) -> None:
        found = COUNTED.findall(text)
        if found:
            self.counted = int(found[-1][0]), int(found[-1][1])
        if self.verbose and text.strip():
            plain = COLOUR.sub("", text.rstrip()).replace("\r", "\n").expandtabs(4)
            self.console.print(strip_control(plain), markup=False, highlight=False)

    def flush(self) -> None:
        """Part of what a file offers; nothing is held back here."""

    def seconds_left(self) -> float | None:
        """Seconds until the notebook ends, as far as anything is known."""
        in_cell, (k, n) = time.monotonic() - self.cell_started, self.counted
        later = sum(self.expected.cells[self.cell :])
        if 0 < k <= n:
            return in_cell * (n - k) / k + later
        if self.expected.cells and self.cell:
            return max(self.expected.cells[self.cell - 1] - in_cell, 0) + later
        if self.expected.stage is not None:
            return max(self.expected.stage - (time.monotonic() - self.started), 0)
        return None

    def _tick(self) -> None:
        while not self._done.wait(1.0 if self.console.is_terminal else PLAIN_EVERY):
            self._show()

    def _show(self) -> None:
        where = f"[{self.stage}] cell {self.cell}/{self.total}"
        left = self.seconds_left()
        note = clock(time.monotonic() - self.started) + (f" · about {clock(left)} left" if left else "")
        if self.console.is_terminal:
            done = max(self.cell - 1, 0)
            self._bar.update(self._task, description=where.replace("[", r"\["), completed=done, note=note)
        else:
            self.console.print(f"{where} · {note}", markup=False, highlight=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """``0:41``, ``12:05`` or ``3:00:10``.

    >>> clock(41.3), clock(3661)
    ('0:41', '1:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def seconds_of_cells(copy: Path) -> list[float]:
    """How long each code cell of an executed copy took; [] where it is absent, damaged or did not finish."""
    try:
        cells = [cell for cell in json.loads(copy.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    records = [cell["metadata"].get("papermill", {}) for cell in cells if "".join(cell["source"]).strip()]
    finished = all(record.get("status") == "completed" and record.get("duration") for record in records)
    return [record["duration"] for record in records] if finished else []
