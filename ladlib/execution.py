"""One notebook through papermill, in the Python that runs this code, with its progress on the console.

A notebook's cells, the time passed and about what is left stand in one line: rewritten on a terminal, printed now and
then elsewhere. Imported only when a notebook has to run: papermill takes seconds to load.
"""

import math
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from ladlib.errors import UserError
from ladlib.parameters import Scalar, cells
from ladlib.runner import StageFailed, clock
from ladlib.runs import BATCH
from ladlib.sanitize import strip_control

COUNTED = re.compile(r"(?:\b(?:step|batch|pair|image)s? |\| *)(\d+)/(\d+)")  # "step 12/60" in what a cell prints
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PLAIN_EVERY = 30.0  # seconds between two lines about the same cell
MAX_LINES = 12  # of a failing cell and of its message
FULL = 8 * 2**20  # bytes; a disk with less than this left is taken to be the cause of a failure
NO_SPACE = ("No space left on device", "[Errno 28]", "os error 28", "Disk quota exceeded", "File too large")
KILLED = (
    "The kernel died. Most often the system ended it for want of memory: close other programs, or use a profile with "
    "smaller batches (micro_batch_size, evaluate.batch_size). What is done is kept."
)


class ThisPython(AsyncKernelManager):
    """Starts the kernel in the running interpreter, whatever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # The kernel's own log, such as of being interrupted at its end, says nothing about the notebook.
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
        return KernelSpec(**get_kernel_dict() | {"argv": argv, "env": {BATCH: "1"}})


class Progress:
    """Reports the running cell of a stage with ``total`` code cells; ``expected`` is its usual time in seconds.

    ``start_cell`` fits nbclient's hook ``on_cell_start``; ``write`` takes what the cell prints.
    """

    def __init__(self, console: Console, stage: str, total: int, expected: float | None, verbose: bool = False) -> None:
        self.console, self.stage, self.total, self.expected, self.verbose = console, stage, total, expected, verbose
        self.cell, self.counted = 0, (0, 0)
        self.started = self.cell_started = time.monotonic()
        self._done = threading.Event()
        self._status = console.status("")

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._status.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._ticker.join()
        self._status.stop()

    def start_cell(self, cell: dict, cell_index: int) -> None:
        if cell["cell_type"] == "code" and cell["source"].strip():
            self.cell, self.counted, self.cell_started = self.cell + 1, (0, 0), time.monotonic()
            self._report()

    def write(self, text: str) -> None:
        if counts := COUNTED.findall(text):
            self.counted = int(counts[-1][0]), int(counts[-1][1])
        if self.verbose and text.strip():
            plain = COLOUR.sub("", text.rstrip()).replace("\r", "\n").expandtabs(4)
            self.console.print(strip_control(plain), markup=False, highlight=False)

    def flush(self) -> None:
        """Part of what a file offers; nothing is held back here."""

    def seconds_left(self) -> float | None:
        """Of the counted work of the running cell, and at least until the stage's usual end; None where unknown."""
        now, (done, total) = time.monotonic(), self.counted
        counted = (now - self.cell_started) * (total - done) / done if 0 < done <= total else 0.0
        usual = self.expected - (now - self.started) if self.expected else 0.0
        return max(counted, usual, 0.0) or None

    def _tick(self) -> None:
        while not self._done.wait(1.0 if self.console.is_terminal else PLAIN_EVERY):
            self._report()

    def _report(self) -> None:
        left = self.seconds_left()
        line = f"[{self.stage}] cell {self.cell}/{self.total} · {clock(time.monotonic() - self.started)}"
        line += f" · about {clock(left)} left" if left else ""
        if self.console.is_terminal:
            self._status.update(line.replace("[", r"\["))
        else:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def execute(
    notebook: Path, copy: Path, parameters: Mapping[str, Scalar], console: Console, expected: float | None = None,
    verbose: bool = False, minutes: float | None = None,
) -> None:  # fmt: skip
    """Run ``notebook`` with ``parameters``; ``copy`` is saved after every cell, and kept on failure.

    Raises :class:`StageFailed`, also where it takes more than ``minutes``, or :class:`UserError` where a cell raised
    one or the disk is full.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel
    total = sum(cell["cell_type"] == "code" and bool(cell["source"].strip()) for cell in cells(notebook))
    progress = Progress(console, notebook.stem, total + 1, expected, verbose)  # papermill adds a cell: the parameters
    end = time.monotonic() + 60 * minutes if minutes else None
    try:
        with progress:
            papermill.execute_notebook(
                str(notebook), str(copy), parameters=dict(parameters), kernel_name="python3", language="python",
                progress_bar=False, stdout_file=progress, stderr_file=progress, kernel_manager_class=ThisPython,
                on_cell_start=progress.start_cell,
                timeout_func=(lambda _: max(1, math.ceil(end - time.monotonic()))) if end else None,
            )  # fmt: skip
    except CellTimeoutError as error:
        reason = f"It took longer than the limit of {minutes:g} minutes. Give it more with --time-limit."
        raise StageFailed(_screen(copy, progress, "", reason)) from error
    except (PapermillExecutionError, DeadKernelError, OSError) as error:
        _check_disk(copy, error)
        if isinstance(error, OSError):
            raise
        raise _failure(copy, progress, error) from error


def _failure(copy: Path, progress: Progress, error: PapermillExecutionError | DeadKernelError) -> Exception:
    if isinstance(error, DeadKernelError):
        return StageFailed(_screen(copy, progress, "", KILLED))
    if error.ename == "UserError":
        return UserError(error.evalue, f"[{progress.stage}, cell {progress.cell}]")
    message = "\n".join(f"{error.ename}: {error.evalue}".splitlines()[:MAX_LINES])
    places = re.findall(r"^File (\S.*?:\d+)", COLOUR.sub("", "\n".join(error.traceback)), flags=re.MULTILINE)
    innermost = f"\n  at {places[-1]}" if places else ""
    return StageFailed(_screen(copy, progress, error.source, message + innermost))


def _screen(copy: Path, progress: Progress, source: str, reason: str) -> str:
    code = "".join(f"    {line}\n" for line in source.strip().splitlines()[:MAX_LINES])
    return (
        f"{progress.stage} failed in cell {progress.cell} of {progress.total}.\n\n{code}{reason}\n\n"
        f"Executed copy with the whole traceback: {copy}\n"
        "Once corrected, run the same command again: finished stages are skipped."
    )


def _check_disk(path: Path, error: BaseException) -> None:
    """Raise :class:`UserError` where ``error`` came of a full disk, as its words or the disk of ``path`` say."""
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if any(words in str(error) for words in NO_SPACE) or shutil.disk_usage(folder).free < FULL:
        hint = "Make room and run the same command again: what is done is kept."
        raise UserError(f"The disk of {folder} is full.", hint) from error
