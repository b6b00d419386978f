"""Runs stages: the notebooks of a run, the functions of a study.

A stage has a key: the SHA-256 of what it depends on. It is skipped while its key is the recorded one and its outputs
have their checksums; those that do not are made again. One that was interrupted resumes where its key is the same, and
starts from nothing otherwise; what no stage made, such as a training by hand, its work keeps or not. Parts of the key:
the stage's own values, the code of the package, and the outputs of the stages before. Code that only reads what a run
stored, or puts things together, counts for a stage that reports. Versions of other packages do not count.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ladlib import checksums
from ladlib.progress import clock
from ladlib.records import StageRecord
from ladlib.runs import RunFolder, hardware, write_text

PACKAGE = Path(__file__).parent
NO_CODE = ("assets", "profiles", "notebooks")
TOP_FLOOR = (
    "report", "verify", "doctor", "bench", "exercises", "batch", "runner", "pipeline", "study", "notebook",
    "cli", "cli_data", "__init__", "__main__",
)  # fmt: skip  # imported by no module below: without effect on what a stage trains or answers


class StageFailed(Exception):
    """A notebook stopped in a cell. ``str`` of it fits on one screen and says where and why."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One step. A notebook has no ``work`` until a run plans it; a function is called in a process of its own."""

    name: str
    outputs: tuple[str, ...]  # files and folders below the run folder; ``{seed}`` is filled in for a notebook
    work: Callable[..., None] | None = None  # of a module, so that another process can import it
    options: Mapping[str, object] = field(default_factory=dict)  # its arguments
    after: tuple[str, ...] = ()  # names of the stages whose outputs it needs
    values: object = None  # JSON: what it depends on beside code and the outputs of earlier stages
    reports: bool = False  # the code of TOP_FLOOR counts
    is_notebook: bool = False
    kept: tuple[str, ...] = ()  # outputs that are never removed, since they may be paid for


class Runner:
    """Runs ``stages`` into ``folder``, functions ``jobs`` side by side, and records each in ``run.json``.

    What a function prints goes to ``logs/<stage>.txt``. One that fails holds up only the stages that need it; a
    notebook that fails raises. With ``again`` stages run even where nothing changed.
    """

    def __init__(
        self, stages: Sequence[Stage], folder: RunFolder, profile: str, seed: int, say: Callable[[str], None] = print,
        jobs: int = 1, again: bool = False,
    ) -> None:  # fmt: skip
        self.stages, self.folder, self.profile, self.seed = tuple(stages), folder, profile, seed
        self.say, self.jobs, self.again, self.done = say, jobs, again, 0
        self.pending: list[Stage] = []
        self.running: dict[Stage, tuple[BaseProcess, str, float]] = {}  # process, its start as text and as clock
        self.failed: dict[str, str] = {}  # stage -> the failed stage that is to blame
        self._hashes: dict[str, dict[str, str]] = {}  # of a finished stage: SHA-256 by file

    def finish(self, chosen: Sequence[Stage] = ()) -> tuple[str, ...]:
        """Run or skip all stages, or those ``chosen``; the names of those that failed or could not begin."""
        self.pending = list(chosen or self.stages)
        try:
            while self.pending or self.running:
                for stage in list(self.pending):
                    self._start_if_ready(stage)
                if self.running:
                    ended = wait([process.sentinel for process, *_ in self.running.values()])
                    for stage in [stage for stage, (process, *_) in self.running.items() if process.sentinel in ended]:
                        self._end(stage)
        finally:
            for process, *_ in self.running.values():  # interrupted
                process.terminate()
                process.join()
        return tuple(self.failed)

    def unchanged(self, stage: Stage) -> StageRecord | None:
        """The stage's record, where it was made from the same key, is whole, and is not to be made again."""
        record = None if self.again else self.finished(stage)
        return record if record and record.inputs_sha256 == self.key(stage) else None

    def finished(self, stage: Stage) -> StageRecord | None:
        """The stage's record, where all that it wrote is as it was then."""
        record = self.folder.stage(stage.name)
        return record if record and not self.broken(stage) else None

    def broken(self, stage: Stage) -> dict[str, str]:
        """By output of a finished stage, the first of its files that is not as it was made, as a line."""
        record, known, lines = self.folder.stage(stage.name), checksums.read(self.folder), {}
        for output in record.outputs if record else ():
            own = {name: known[name] for name in known if checksums.is_below(Path(name), [Path(output)])}
            faults = checksums.compare(own, self._found(stage.name)) if own else [f"{output} has no checksum"]
            lines |= {output: faults[0]} if faults else {}
        return lines

    def key(self, stage: Stage) -> str:
        """What the stage depends on, as one hash."""
        parts = stage.values, code_sha256(stage.reports), {name: self._digest(name) for name in stage.after}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _digest(self, name: str) -> str:
        """Of what a stage wrote but its executed notebook; of nothing where it has not run."""
        found = [(path, digest) for path, digest in self._found(name).items() if not path.startswith("notebooks/")]
        return hashlib.sha256(json.dumps(found).encode()).hexdigest()

    def _found(self, name: str) -> dict[str, str]:
        """The hashes of the files that a stage wrote, as they are now."""
        if name not in self._hashes:
            record, root = self.folder.stage(name), self.folder.root
            self._hashes[name] = checksums.hashes(root, *(root / path for path in record.outputs)) if record else {}
        return self._hashes[name]

    def _start_if_ready(self, stage: Stage) -> None:
        blame = next((self.failed[name] for name in stage.after if name in self.failed), "")
        busy = {each.name for each in (*self.pending, *self.running)}
        if blame:
            self.pending.remove(stage)
            self.failed[stage.name] = blame
            self.say(f"[{stage.name}] left out, since {blame} failed")
        elif len(self.running) < self.jobs and not busy & set(stage.after):
            self.pending.remove(stage)
            if record := self.unchanged(stage):
                self.done += 1
                self.say(f"[{stage.name}] unchanged, skipped (took {clock(record.seconds)})")
            else:
                self._start(stage)

    def _start(self, stage: Stage) -> None:
        begun = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        self._prepare(stage)
        if stage.is_notebook:
            stage.work(**stage.options)
            self._record(stage, *begun)
            return
        log = self._log(stage)
        write_text(log, "")
        arguments = stage.work, dict(stage.options), log, max(1, hardware()["cores"] // self.jobs)
        process = multiprocessing.get_context("spawn").Process(target=perform, args=arguments, name=stage.name)
        process.start()
        self.running[stage] = process, *begun
        self.say(f"[{stage.name}] started")

    def _prepare(self, stage: Stage) -> None:
        """Clear what another key made, and what is broken. What an interrupted run of the same key left is resumed."""
        marker, key, record = self._marker(stage), self.key(stage), self.folder.stage(stage.name)
        begun = marker.read_text(encoding="utf-8") if marker.is_file() else record.inputs_sha256 if record else ""
        broken = self.broken(stage)
        for line in broken.values():
            self.say(f"[{stage.name}] {line}")
        cleared = stage.outputs if begun and (self.again or begun != key) else set(stage.outputs) & set(broken)
        for path in (self.folder.root / output for output in cleared):
            checksums.note_of(path).unlink(missing_ok=True)
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        self.folder.open(self.profile, self.seed)  # a notebook adds the values in force
        checksums.forget(self.folder, *(self.folder.root / output for output in stage.outputs), self._log(stage))
        self.folder.set_stage(stage.name, None)
        self._hashes.pop(stage.name, None)
        write_text(marker, key)

    def _end(self, stage: Stage) -> None:
        process, *begun = self.running.pop(stage)
        process.join()
        outputs = [self.folder.root / path for path in stage.outputs]
        missing = ", ".join(path.name for path in outputs if not path.exists())
        if process.exitcode or missing:
            self.failed[stage.name] = stage.name
            reason = self._reason(stage, process.exitcode) if process.exitcode else f"it did not write {missing}"
            self.say(f"[{stage.name}] failed: {reason} ({self._log(stage)})")
        else:
            self._record(stage, *begun)

    def _record(self, stage: Stage, started: str, begun: float) -> None:
        seconds = round(time.monotonic() - begun, 2)
        outputs = tuple(path for path in (*stage.outputs, *stage.kept) if (self.folder.root / path).exists())
        checksums.write(self.folder, *(self.folder.root / path for path in outputs), self._log(stage))
        self._hashes.pop(stage.name, None)
        fields = {"started": started, "seconds": seconds, "inputs_sha256": self.key(stage), "outputs": outputs}
        self.folder.set_stage(stage.name, StageRecord(name=stage.name, **fields))
        self._marker(stage).unlink()
        self.done += 1
        self.say(f"[{stage.name}] done in {clock(seconds)} · {self.done} of {len(self.stages)} stages")

    def _reason(self, stage: Stage, code: int) -> str:
        if code < 0:
            return f"its process was ended by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
        printed = self._log(stage).read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(printed) if line.strip()), f"exit code {code}")

    def _log(self, stage: Stage) -> Path:
        """Where a function prints to."""
        return self.folder.root / "logs" / f"{stage.name}.txt"

    def _marker(self, stage: Stage) -> Path:
        """Holds the key of a stage from its start until it has finished."""
        return self.folder.root / ".started" / stage.name


def perform(work: Callable[..., None], options: Mapping[str, object], log: Path, threads: int) -> None:
    """The life of a function's process: prints to ``log``, takes ``threads`` cores, ends with the runner's process."""
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # a log can be followed
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torch, not yet loaded, takes its number from here
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(**options)


def _end_with_parent() -> None:
    """A killed runner must not leave functions behind that still write when it is started again."""
    multiprocessing.parent_process().join()
    os._exit(1)


def digest(root: Path, paths: Iterable[Path]) -> str:
    """Hash of the contents of ``paths`` (files, or folders with all below them) under names relative to ``root``."""
    files = {file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()}
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file.relative_to(root).as_posix()}\0{checksums.sha256(file)}".encode())
    return total.hexdigest()


@lru_cache
def code_sha256(reports: bool) -> str:
    """Hash of the modules with the tables and templates beside them, of the top floor only if ``reports``."""
    parts = {path: path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.*")}
    omitted = NO_CODE if reports else (*NO_CODE, *TOP_FLOOR)
    return digest(PACKAGE, [path for path, part in parts.items() if part not in omitted and path.suffix != ".pyc"])
