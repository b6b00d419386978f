"""One notebook through papermill, in the Python that runs this code. Imported only when one has to run."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from ladlib.errors import UserError
from ladlib.pipeline.parameters import Scalar, cells
from ladlib.pipeline.progress import CellProgress, Expected
from ladlib.pipeline.stages import StageFailed

SHOWN_LINES = 12  # of a failing cell and of its message
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ThisPython(AsyncKernelManager):
    """Starts the kernel in the running interpreter, whatever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        kernel = get_kernel_dict()
        # The kernel's own log, such as of being interrupted at its end, says nothing about the notebook.
        return KernelSpec(**kernel | {"argv": [*kernel["argv"], "--log-level=CRITICAL"]})


def execute(
    notebook: Path,
    copy: Path,
    parameters: Mapping[str, Scalar],
    expected: Expected,
    console: Console,
    verbose: bool = False,
) -> None:
    """Run ``notebook`` with ``parameters``; ``copy`` is saved after every cell, and kept on failure.

    Raises :class:`StageFailed`, or :class:`UserError` where a cell raised one.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code" and cell["source"].strip()]
    total = len(code) + 1  # papermill adds a cell with the parameters
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel
    progress = CellProgress(console, notebook.stem, total, expected, verbose)
    try:
        with progress:
            _execute(notebook, copy, parameters, progress)
    except PapermillExecutionError as error:
        raise _failure(notebook.stem, copy, progress, error) from error
    except DeadKernelError as error:
        told = "The kernel died. Most often the system ended it for want of memory."
        raise StageFailed(_screen(notebook.stem, copy, progress, "", told)) from error


def _execute(notebook: Path, copy: Path, parameters: Mapping[str, Scalar], progress: CellProgress) -> None:
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
