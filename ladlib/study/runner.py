"""Runs stages side by side, each in a fresh process, and keeps in ``run.json`` what each was made from.

What a stage prints goes to ``logs/<stage>.txt`` below the run folder. A stage that is done is skipped; a
stage that fails holds up only those that need it.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import fmean

from ladlib import checksums
from ladlib.machine import hardware
from ladlib.pipeline.inputs import digest
from ladlib.pipeline.progress import clock
from ladlib.records import StageRecord
from ladlib.runs import RunFolder, now, write_text
from ladlib.study.plan import Stage


@dataclass(frozen=True)
class Running:
    """A stage in its process."""

    stage: Stage
    process: BaseProcess
    inputs: str
    started: str  # ISO 8601
    begun: float = field(default_factory=time.monotonic)


class Runner:
    """One call of the study; ``run`` has its ``run.json`` already.

    >>> Runner(stages, run, jobs=2).finish()  # doctest: +SKIP
    ()
    """

    def __init__(self, stages: Sequence[Stage], run: RunFolder, jobs: int, say: Callable[[str], None] = print) -> None:
        self.stages, self.folder, self.jobs, self.say = stages, run, jobs, say
        self.waiting = list(stages)
        self.running: list[Running] = []
        self.seconds: dict[str, float] = {}  # of each stage that is done
        self.lost: dict[str, str] = {}  # stage -> the failed stage that is to blame
        self.begun = time.monotonic()
        self._known: dict[Path, str] = {}  # contents of files and folders, while nothing writes them

    def finish(self) -> tuple[str, ...]:
        """Run what is left; the names of the stages that failed or could not begin."""
        try:
            self._start_some()
            while self.running:
                for sentinel in wait([one.process.sentinel for one in self.running]):
                    self._end(next(one for one in self.running if one.process.sentinel == sentinel))
                self._start_some()
        finally:
            for one in self.running:  # interrupted
                one.process.terminate()
                one.process.join()
        return tuple(self.lost)

    def _start_some(self) -> None:
        """Start or skip each stage whose turn it is; a stage stands below those it needs, so once is enough."""
        for stage in list(self.waiting):
            blame = next((self.lost[name] for name in stage.after if name in self.lost), "")
            if blame:
                self.waiting.remove(stage)
                self.lost[stage.name] = blame
                self.say(f"[{stage.name}] left out, since {blame} failed")
            elif len(self.running) < self.jobs and all(name in self.seconds for name in stage.after):
                self.waiting.remove(stage)
                self._start_or_skip(stage)

    def _start_or_skip(self, stage: Stage) -> None:
        inputs, record = self._inputs(stage), self.folder.stage(stage.name)
        if record and record.inputs_sha256 == inputs and all(path.exists() for path in stage.outputs):
            self.seconds[stage.name] = record.seconds
            self.say(f"[{stage.name}] unchanged, skipped (took {clock(record.seconds)})")
            return
        if record:  # of other inputs, or not whole; what an interrupted stage left has no record and is resumed
            self._forget(stage)
        write_text(self.log(stage), "")
        threads = max(1, hardware()["cores"] // self.jobs)
        process = multiprocessing.get_context("spawn").Process(
            target=perform, args=(stage.work, dict(stage.options), self.log(stage), threads), name=stage.name
        )
        process.start()
        self.say(f"[{stage.name}] started")
        self.running.append(Running(stage, process, inputs, now()))

    def _end(self, one: Running) -> None:
        one.process.join()
        self.running.remove(one)
        for path in one.stage.outputs:
            self._known.pop(path, None)
        missing = [path.name for path in one.stage.outputs if not path.exists()]
        if one.process.exitcode or missing:
            self.lost[one.stage.name] = one.stage.name
            self.say(f"[{one.stage.name}] failed: {self._reason(one, missing)} ({self.log(one.stage)})")
            return
        seconds = time.monotonic() - one.begun
        self.seconds[one.stage.name] = seconds
        outputs = tuple(path.relative_to(self.folder.root).as_posix() for path in one.stage.outputs)
        self.folder.add_stage(
            StageRecord(
                name=one.stage.name, started=one.started, seconds=round(seconds, 2), inputs_sha256=one.inputs,
                outputs=outputs,
            )
        )  # fmt: skip
        checksums.write(self.folder, *one.stage.outputs)
        self.say(f"[{one.stage.name}] done in {clock(seconds)} · {self._progress()}")

    def _reason(self, one: Running, missing: list[str]) -> str:
        code = one.process.exitcode
        if code < 0:
            return f"its process was ended by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
        printed = self.log(one.stage).read_text(encoding="utf-8", errors="replace").strip()
        last = printed.splitlines()[-1] if printed else f"exit code {code}"
        return last if code else f"it did not write {', '.join(missing)}"

    def _progress(self) -> str:
        done, elapsed = len(self.seconds), clock(time.monotonic() - self.begun)
        left = clock(self._seconds_left()) if done < len(self.stages) else "0:00"
        return f"{done} of {len(self.stages)} stages · {elapsed} elapsed · about {left} left"

    def _seconds_left(self) -> float:
        """The mean of what stages of the same kind took, else of all, for each that is not done."""
        taken: dict[Callable, list[float]] = {}
        for stage in self.stages:
            if stage.name in self.seconds:
                taken.setdefault(stage.work, []).append(self.seconds[stage.name])
        spent = {one.stage.name: time.monotonic() - one.begun for one in self.running}
        left = 0.0
        for stage in (*self.waiting, *(one.stage for one in self.running)):
            expected = fmean(taken.get(stage.work) or self.seconds.values())
            left += max(expected - spent.get(stage.name, 0.0), 0.0)
        return left / self.jobs

    def log(self, stage: Stage) -> Path:
        """Where the stage prints to."""
        return self.folder.root / "logs" / f"{stage.name}.txt"

    def _inputs(self, stage: Stage) -> str:
        files = {f"{number} {path.name}": self._digest(path) for number, path in enumerate(stage.files)}
        return hashlib.sha256(json.dumps([stage.values, files], sort_keys=True).encode()).hexdigest()

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = digest(path.parent, [path])
        return self._known[path]

    def _forget(self, stage: Stage) -> None:
        for path in stage.outputs:
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
        self.folder.drop_stage(stage.name)


def perform(work: Callable[..., None], options: Mapping[str, object], log: Path, threads: int) -> None:
    """The life of a stage's process: prints to ``log``, takes ``threads`` cores, ends with the study's process."""
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # a log can be followed
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torch, not yet loaded, takes its number from here
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(**options)


def _end_with_parent() -> None:
    """A killed study must not leave stages behind that still write when it is started again."""
    multiprocessing.parent_process().join()
    os._exit(1)
