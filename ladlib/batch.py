"""A notebook in batch: its parameters, checked by name and type before anything runs, and papermill.

papermill only warns about a misspelt name and passes any type on, so both are checked here against the literals of
the cell tagged ``parameters``. The kernel is the Python that runs this code.
"""

import ast
import difflib
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

from ladlib.errors import UserError, read_json
from ladlib.progress import EVERY, clock
from ladlib.runner import StageFailed
from ladlib.runs import BATCH
from ladlib.sanitize import strip_control

RESTORE = "Restore it from the repository."
Scalar = str | int | float | bool
OPTIONS = ("profile", "data", "run", "seed")  # given as options of the command line, not with -p
TYPES = {  # of a parameter: what its values are called, and how one is read
    str: ("text", str),
    int: ("a whole number", int),
    float: ("a number", float),
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
}
COUNT = re.compile(r"^.* \d+/\d+ .*left$", re.MULTILINE)  # a line of ladlib.progress in what a cell prints
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ERASE = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))  # the line that is rewritten
MAX_LINES = 12  # of a failing cell and of its message
FULL = 8 * 2**20  # bytes; a disk with less than this left is taken to be the cause of a failure
NO_SPACE = ("No space left on device", "[Errno 28]", "os error 28", "Disk quota exceeded", "File too large")
KILLED = (
    "The kernel died. Most often the system ended it for want of memory: close other programs, or use a profile with "
    "smaller batches (micro_batch_size, evaluate.batch_size). What is done is kept."
)


def cells(notebook: Path) -> list[dict]:
    """The cells of ``notebook`` as stored, each with ``source`` as one string."""
    if not notebook.exists():
        raise UserError(f"There is no notebook {notebook}.", RESTORE)
    try:
        return [cell | {"source": "".join(cell["source"])} for cell in read_json(notebook, RESTORE)["cells"]]
    except (TypeError, KeyError) as error:
        raise UserError(f"{notebook} is not a notebook.", RESTORE) from error


def declared(notebook: Path) -> dict[str, Scalar]:
    """Names and default values of the cell tagged ``parameters``, in its order.

    Raises :class:`UserError` where the cell is missing or holds anything but ``name = literal``.
    """
    tagged = [cell["source"] for cell in cells(notebook) if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if not tagged:
        raise UserError(f"{notebook} has no cell tagged 'parameters'.", "Tag its first code cell so.")
    try:
        return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(tagged[0]).body}
    except (SyntaxError, ValueError, AttributeError, RecursionError) as error:
        hint = "Only `name = literal` may stand there."
        raise UserError(f"{notebook}: the parameters cell is wrong: {error}.", hint) from error


def check(given: Iterable[str], notebooks: Mapping[str, Path]) -> dict[str, dict[str, Scalar]]:
    """Each notebook's parameters: its defaults, replaced by those of ``given`` (``name=value``) that it declares.

    Values must be of the default's type; an int passes for a float. Raises :class:`UserError` for a name that no
    notebook declares, and for a wrong type.
    """
    values = {stage: declared(path) for stage, path in notebooks.items()}
    known = sorted({name for parameters in values.values() for name in parameters if name not in OPTIONS})
    for pair in given:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise UserError(f"-p {pair!r} is not of the form name=value.", "For example: -p grpo_steps=20")
        if name in OPTIONS:
            raise UserError(f"-p {name}=… is an option of its own.", f"Give --{name} instead.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or known
            raise UserError(f"No notebook has a parameter {name!r}.", f"Did you mean {' or '.join(close)}?")
        for parameters in values.values():
            if name in parameters:
                parameters[name] = convert(name, text, parameters[name])
    return values


def convert(name: str, text: str, default: Scalar) -> Scalar:
    """``text`` as a value of the type of ``default``. Raises :class:`UserError` where it is none."""
    noun, read = TYPES[type(default)]
    try:
        value = read(text)
        if not isinstance(value, float) or math.isfinite(value):
            return value
    except (ValueError, KeyError):
        pass
    raise UserError(f"Parameter {name}={text!r} is not {noun}.", f"Its default is {default!r}.")


class Progress:
    """Shows which of ``total`` code cells runs and how far it has counted: one line, which a terminal rewrites.

    ``start_cell`` fits nbclient's hook ``on_cell_start``; ``write`` takes what the cell prints, all of it if verbose.
    """

    def __init__(self, console: Console, stage: str, total: int, verbose: bool = False) -> None:
        self.console, self.stage, self.total, self.verbose = console, stage, total, verbose
        self.is_rewritten, self.cell = console.is_terminal and not verbose, 0
        self.started, self.printed = time.monotonic(), -EVERY

    def start_cell(self, cell: dict, cell_index: int) -> None:
        if cell["cell_type"] == "code" and cell["source"].strip():
            self.cell += 1
            self._show("")

    def write(self, text: str) -> None:
        plain = strip_control(COLOUR.sub("", text.rstrip()).replace("\r", "\n").expandtabs(4))
        if self.verbose and plain.strip():
            self._print(plain)
        elif counts := COUNT.findall(plain):
            self._show(f" · {counts[-1]}")

    def flush(self) -> None:
        """Part of what a file offers; nothing is held back here."""

    def close(self) -> None:
        """End the line that is rewritten."""
        if self.is_rewritten:
            self._print("")

    def _show(self, count: str) -> None:
        line = f"[{self.stage}] cell {self.cell}/{self.total} · {clock(time.monotonic() - self.started)}{count}"
        if self.is_rewritten:
            self.console.control(ERASE)
            self._print(line[: self.console.width - 1], end="")
        elif self.cell == self.total or time.monotonic() - self.printed > EVERY:
            self._print(line)

    def _print(self, text: str, end: str = "\n") -> None:
        self.printed = time.monotonic()
        self.console.print(text, end=end, markup=False, highlight=False, soft_wrap=True)


def execute(
    notebook: Path, copy: Path, parameters: Mapping[str, Scalar], console: Console, verbose: bool = False,
    minutes: float | None = None,
) -> None:  # fmt: skip
    """Run ``notebook`` with ``parameters``; ``copy`` is saved after every cell, and kept on failure.

    Raises :class:`StageFailed`, also where it takes more than ``minutes``, or :class:`UserError` where a cell raised
    one or the disk is full.
    """
    import papermill  # takes seconds to load
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    copy.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # a debugger's warning in every kernel
    total = sum(cell["cell_type"] == "code" and bool(cell["source"].strip()) for cell in cells(notebook))
    progress = Progress(console, notebook.stem, total + 1, verbose)  # papermill adds a cell: the parameters
    end = time.monotonic() + 60 * minutes if minutes else None
    try:
        papermill.execute_notebook(
            str(notebook), str(copy), parameters=dict(parameters), kernel_name="python3", language="python",
            progress_bar=False, stdout_file=progress, stderr_file=progress, kernel_manager_class=_kernel_manager(),
            on_cell_start=progress.start_cell,
            timeout_func=(lambda _: max(1, math.ceil(end - time.monotonic()))) if end else None,
        )  # fmt: skip
    except CellTimeoutError as error:
        reason = f"It took longer than the limit of {minutes:g} minutes. Give it more with --time-limit."
        raise _failed(copy, progress, reason) from error
    except (PapermillExecutionError, DeadKernelError, OSError) as error:
        if any(words in str(error) for words in NO_SPACE) or shutil.disk_usage(copy.parent).free < FULL:
            hint = "Make room and run the same command again: what is done is kept."
            raise UserError(f"The disk of {copy.parent} is full.", hint) from error
        if isinstance(error, OSError):
            raise
        if isinstance(error, DeadKernelError):
            raise _failed(copy, progress, KILLED) from error
        if error.ename == "UserError":
            raise UserError(error.evalue, f"[{progress.stage}, cell {progress.cell}]") from error
        raise _failed(copy, progress, _reason(error), error.source) from error
    finally:
        progress.close()


def _kernel_manager() -> type:
    """Starts the kernel in the running interpreter, whatever kernels are installed on the machine."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    # The kernel's own log, such as of being interrupted at its end, says nothing about the notebook.
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    spec = KernelSpec(**get_kernel_dict() | {"argv": argv, "env": {BATCH: "1"}})
    return type("ThisPython", (AsyncKernelManager,), {"kernel_spec": property(lambda self: spec)})


def _reason(error: Exception) -> str:
    """The message of papermill's ``error`` and the innermost place in its traceback."""
    message = "\n".join(f"{error.ename}: {error.evalue}".splitlines()[:MAX_LINES])
    places = re.findall(r"^File (\S.*?:\d+)", COLOUR.sub("", "\n".join(error.traceback)), flags=re.MULTILINE)
    return message + (f"\n  at {places[-1]}" if places else "")


def _failed(copy: Path, progress: Progress, reason: str, source: str = "") -> StageFailed:
    code = "".join(f"    {line}\n" for line in source.strip().splitlines()[:MAX_LINES])
    return StageFailed(
        f"{progress.stage} failed in cell {progress.cell} of {progress.total}.\n\n{code}{reason}\n\n"
        f"Executed copy with the whole traceback: {copy}\n"
        "Once corrected, run the same command again: finished stages are skipped."
    )
