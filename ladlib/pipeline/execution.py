"""One notebook through papermill, in the Python that runs this code. Imported only when one has to run."""

import math
import os
import re
import sys
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
from ladlib.pipeline.parameters import Scalar, cells
from ladlib.pipeline.progress import COLOUR, CellProgress, Expected
from ladlib.pipeline.room import check_disk
from ladlib.pipeline.stages import StageFailed
from ladlib.runs import BATCH

KILLED = (
    "The kernel died. Most often the system ended it for want of memory: close other programs, or use a profile with "
    "smaller batches (micro_batch_size, evaluate.batch_size). What is done is kept."
)
SHOWN_LINES = 12  # of a failing cell and of its message


class ThisPython(AsyncKernelManager):
    """Starts the kernel in the running interpreter, whatever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        # The kernel's own log, such as of being interrupted at its end, says nothing about the notebook.
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
        return KernelSpec(**get_kernel_dict() | {"argv": argv, "env": {BATCH: "1"}})


def execute(
    notebook: Path,
    copy: Path,
    parameters: Mapping[str, Scalar],
    expected: Expected,
    console: Console,
    verbose: bool = False,
    minutes: float | None = None,
) -> None:
    """Run ``notebook`` with ``parameters``; ``copy`` is saved after every cell, and kept on failure.

    Raises :class:`StageFailed`, also where it takes more than ``minutes``, or :class:`UserError` where a cell
    raised one or the disk is full.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code" and cell["source"].strip()]
    total = len(code) + 1  # papermill adds a cell with the parameters
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel
    progress = CellProgress(console, notebook.stem, total, expected, verbose)
    try:
        with progress:
            _execute(notebook, copy, parameters, progress, minutes)
    except CellTimeoutError as error:
        told = f"It took longer than the limit of {minutes:g} minutes. Give it more with --time-limit."
        raise StageFailed(_screen(notebook.stem, copy, progress, "", told)) from error
    except (PapermillExecutionError, OSError) as error:
        check_disk(copy, error)
        if isinstance(error, OSError):
            raise
        raise _failure(notebook.stem, copy, progress, error) from error
    except DeadKernelError as error:
        check_disk(copy, error)
        raise StageFailed(_screen(notebook.stem, copy, progress, "", KILLED)) from error


def _execute(
    notebook: Path, copy: Path, parameters: Mapping[str, Scalar], progress: CellProgress, minutes: float | None
) -> None:
    end = time.monotonic() + 60 * minutes if minutes else None

    papermill.execute_notebook(
        str(notebook),
        str(copy),
        parameters=dict(parameters),
        kernel_name="python3",
        language="python",
        progress_bar=False,
        stdout_file=progress,
        stderr_file=progress,
        kernel_manager_class=ThisPython,
        on_cell_start=progress.cell_start,
        timeout_func=(lambda _: max(1, math.ceil(end - time.monotonic()))) if end else None,
    )


def _failure(stage: str, copy: Path, progress: CellProgress, error: PapermillExecutionError) -> UserError | StageFailed:
    if error.ename == "UserError":
        return UserError(error.evalue, f"[{stage}, cell {progress.cell}]")
    told = "\n".join(f"{error.ename}: {error.evalue}".splitlines()[:SHOWN_LINES])
    return StageFailed(_screen(stage, copy, progress, error.source, f"{told}\n{_place(error.traceback)}".rstrip()))


def _screen(stage: str, copy: Path, progress: CellProgress, source: str, told: str) -> str:
    shown = [f"    {line}" for line in source.strip().splitlines()[:SHOWN_LINES]]
    return "\n".join(
        [
            f"{stage} failed in cell {progress.cell} of {progress.total}.",
            *(["", *shown] if shown else []),
            *["", told, ""],
            f"Executed copy with the whole traceback: {copy}",
            "Once mended, run the same command again: finished stages are skipped.",
        ]
    )


def _place(traceback: list[str]) -> str:
    """The innermost file and line of a traceback that IPython printed; "" where it names none."""
    plain = COLOUR.sub("", "\n".join(traceback))
    places = re.findall(r"^File (\S.*?:\d+)", plain, flags=re.MULTILINE)
    return f"  at {places[-1]}" if places else ""
