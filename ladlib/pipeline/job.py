"""One run of the pipeline after all checks: which stages are unchanged, and running the others."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from ladlib.config import Profile
from ladlib.errors import UserError
from ladlib.pipeline.inputs import digest, inputs_sha256
from ladlib.pipeline.parameters import Scalar
from ladlib.pipeline.progress import Expected, clock, seconds_of_cells
from ladlib.pipeline.room import check_room
from ladlib.pipeline.stages import PACKAGE, Stage
from ladlib.records import StageRecord
from ladlib.runs import RunFolder, now, write_text


@dataclass(frozen=True)
class Job:
    """What all stages of one call of ``reproduce`` share."""

    settings: Profile
    folder: RunFolder
    data: str
    seed: int
    values: dict[str, dict[str, Scalar]]  # stage -> notebook parameters
    options: dict[str, Scalar]
    files: dict[str, Path]
    console: Console
    verbose: bool
    minutes: float | None = None  # that a notebook may take

    def check_folder(self, earlier: tuple[Stage, ...]) -> None:
        """Raise :class:`UserError` for a folder of another run, or where an earlier stage is missing."""
        if self.folder.run_json.exists():
            self.folder.check(self.settings.name, self.seed)
        for stage in earlier:
            if not self._finished(stage):
                raise UserError(f"{stage.name} has not been run in {self.folder.root}.", "Leave out --from and --only.")

    def check_room(self) -> None:
        """Raise :class:`UserError` where the disk is too small; tell where the memory is."""
        lack = check_room(self.settings.name, self.folder.root, begun=self.folder.run_json.exists())
        if lack:
            self._say(f"warning: {lack}")

    def run_or_skip(self, stage: Stage, upstream: Mapping[str, str], again: bool) -> None:
        inputs = self._inputs(stage, upstream)
        record = self._unchanged(stage, inputs, again)
        if record:
            self._say(f"[{stage.name}] unchanged, skipped (took {clock(record.seconds)})")
            return
        self._prepare(stage, inputs, again)
        self._run(stage, self._parameters(stage), inputs)

    def is_skipped(self, stage: Stage, upstream: Mapping[str, str], again: bool) -> bool:
        """Whether :meth:`run_or_skip` would skip the stage."""
        return self._unchanged(stage, self._inputs(stage, upstream), again) is not None

    def _unchanged(self, stage: Stage, inputs: str, again: bool) -> StageRecord | None:
        """The stage's record, where it was made from these inputs and is not to be made again."""
        record = self._finished(stage)
        return record if record and record.inputs_sha256 == inputs and not again else None

    def outputs_sha256(self, stage: Stage) -> str:
        """Hash of what the stage wrote, its executed notebook left out; of nothing where it has not run."""
        record = self.folder.stage(stage.name)
        paths = [path for path in record.outputs if not path.startswith("notebooks/")] if record else []
        return digest(self.folder.root, [self.folder.root / path for path in paths])

    def _parameters(self, stage: Stage) -> dict[str, Scalar]:
        declared = self.values[stage.name]
        return declared | {name: value for name, value in self.options.items() if name in declared}

    def _inputs(self, stage: Stage, upstream: Mapping[str, str]) -> str:
        return inputs_sha256(self.files[stage.name], self._parameters(stage), self.settings, self.data, upstream)

    def _prepare(self, stage: Stage, inputs: str, again: bool) -> None:
        """Clear what other inputs made. What an interrupted run of the same inputs left is resumed."""
        marker = self._marker(stage)
        resumes = not again and marker.is_file() and marker.read_text(encoding="utf-8") == inputs
        if not resumes:
            for path in stage.paths(self.seed):
                _remove(self.folder.root / path)
        self.folder.open(self.settings.name, self.seed)  # the notebook adds the values in force
        self.folder.drop_stage(stage.name)
        write_text(marker, inputs)

    def _run(self, stage: Stage, parameters: dict[str, Scalar], inputs: str) -> None:
        from ladlib.pipeline.execution import execute  # papermill takes seconds to load

        notebook = self.files[stage.name]
        copy = self.folder.notebooks / notebook.name
        expected = Expected(seconds_of_cells(copy), measured_seconds(self.settings.name, stage.name))
        started, begun = now(), time.monotonic()
        execute(notebook, copy, parameters, expected, self.console, self.verbose, self.minutes)
        seconds = time.monotonic() - begun
        written = [path for path in stage.paths(self.seed) if (self.folder.root / path).exists()]
        self.folder.add_stage(
            StageRecord(
                name=stage.name,
                started=started,
                seconds=round(seconds, 2),
                inputs_sha256=inputs,
                outputs=(*written, copy.relative_to(self.folder.root).as_posix()),
            )
        )
        self._marker(stage).unlink()
        self._say(f"[{stage.name}] done in {clock(seconds)}")

    def _finished(self, stage: Stage) -> StageRecord | None:
        """The stage's record, where all that it wrote is still there."""
        record = self.folder.stage(stage.name)
        whole = record and all((self.folder.root / path).exists() for path in record.outputs)
        return record if whole else None

    def _marker(self, stage: Stage) -> Path:
        """Holds the inputs of a stage from its start until it has finished."""
        return self.folder.notebooks / f".{stage.name}.started"

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def measured_seconds(profile: str, stage: str) -> float | None:
    """Wall time of ``stage`` on the machine named in profiles/cost.yaml; None where not measured."""
    costs = yaml.safe_load((PACKAGE / "profiles" / "cost.yaml").read_text(encoding="utf-8"))
    return costs.get(profile, {}).get("seconds", {}).get(stage)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
