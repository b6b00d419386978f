"""What a run has stored, read once: its record, its profile, generations and training logs."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from ladlib.config import RENAMED, Profile, load_profile
from ladlib.errors import UserError
from ladlib.metrics import score, score_detections, score_trivial
from ladlib.records import ARMS, Detection, Generation, RunRecord, Variation
from ladlib.runs import DAMAGED, RunFolder, read_jsonl

Key = tuple[str, int]  # arm, seed
Kept = TypeVar("Kept", Generation, Variation, Detection)
_NAME = re.compile(r"(.+)-seed(\d+)(-rollouts)?")


AGAIN = "Move the file away and evaluate again."


class _Step(BaseModel):
    """What tables and figures need of a row of a training log; its other columns are numbers."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float | int | list[str] | None]

    step: int


class _Try(BaseModel):
    model_config = ConfigDict(strict=True)

    text: str
    accuracy: float
    format: float
    reward: float
    advantage: float


class _Rollout(BaseModel):
    """What they need of a row of a file of rollouts."""

    step: int
    id: str
    category: str
    label: str
    completions: list[_Try]


@dataclass(frozen=True)
class Stored:
    """Everything that tables, figures and the page are made from."""

    record: RunRecord
    profile: Profile
    generations: list[Generation]
    logs: dict[Key, list[dict]]
    rollouts: dict[Key, list[dict]]
    metrics: list[dict]
    detections: list[Detection]  # of the nearest-neighbour detector; [] where it was not asked
    variations: list[Variation]  # answers under other conditions; [] where sensitivity was not looked at

    @property
    def is_toy(self) -> bool:
        """Whether the images were drawn: such numbers never say what a real model scores."""
        return self.profile.toy is not None

    def of(self, arm: str) -> list[Generation]:
        """The generations of one arm, of all its seeds."""
        return [one for one in self.generations if one.arm == arm]


def read_run(run: RunFolder) -> Stored:
    """Read a run folder and score it.

    Raises :class:`UserError` where there is no ``run.json``, no generation, or a line of another kind.
    """
    record = run.read()
    generations = read_generations(run)
    logs = _by_key(run.root / "logs", rollouts=False)
    rollouts = _by_key(run.root / "logs", rollouts=True)
    detections = read_records(run.neighbours, Detection)
    metrics = score(generations) + score_trivial(generations) + score_detections(detections)
    return Stored(record, profile_of(record), generations, logs, rollouts, metrics, detections, read_variations(run))


def profile_of(record: RunRecord) -> Profile:
    """The profile of a run with the values that were in force."""
    # Notebooks keep the values in force of what they let one override, by their dotted names.
    overrides = {RENAMED.get(name, name): value for name, value in record.parameters.items() if "." in name}
    return load_profile(record.profile, **overrides)


def read_generations(run: RunFolder) -> list[Generation]:
    """All generations of a run, arms in their usual order. Raises as :func:`read_run` does."""
    files = _files(run.root / "generations", rollouts=False)
    found = [one for key in sorted(files, key=_order) for one in read_records(files[key])]
    if not found:
        raise UserError(f"{run.root} holds no generations to report on.", "Run notebook 04_evaluation first.")
    return found


def read_variations(run: RunFolder) -> list[Variation]:
    """All answers of a run under other conditions, [] where there are none. Raises as :func:`read_run` does."""
    files = _files(run.root / "sensitivity", rollouts=False)
    return [one for key in sorted(files, key=_order) for one in read_records(files[key], Variation)]


def refuse_doubles(generations: Iterable[Generation]) -> None:
    """Raises :class:`UserError` where one image has two answers of one arm and seed: it would be counted twice."""
    times = Counter((one.arm, one.seed, one.id) for one in generations)
    twice = [key for key, count in times.items() if count > 1]
    if twice:
        arm, seed, image = twice[0]
        raise UserError(f"The answers of {arm}, seed {seed}, have {image} twice.", "Keep one line of the two.")


def read_records(file: Path, kind: type[Kept] = Generation) -> list[Kept]:
    """The records of one file, [] where it does not exist. Raises :class:`UserError` for a line of another kind."""
    try:
        return [kind.model_validate(row) for row in read_jsonl(file)]
    except ValidationError as error:
        raise UserError(f"{file}: {_first(error)}.", AGAIN) from error


def _by_key(folder: Path, rollouts: bool) -> dict[Key, list[dict]]:
    files = _files(folder, rollouts)
    kind = _Rollout if rollouts else _Step
    return {key: _rows(files[key], kind) for key in sorted(files, key=_order)}


def _rows(file: Path, kind: type[BaseModel]) -> list[dict]:
    rows = read_jsonl(file)
    try:
        TypeAdapter(list[kind]).validate_python(rows)
    except ValidationError as error:
        raise UserError(f"{file}: {_first(error)}.", DAMAGED) from error
    return rows


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _files(folder: Path, rollouts: bool) -> dict[Key, Path]:
    named = [(_NAME.fullmatch(file.stem), file) for file in folder.glob("*.jsonl")]
    return {(name[1], int(name[2])): file for name, file in named if name and bool(name[3]) == rollouts}


def _order(key: Key) -> tuple:
    arm, seed = key
    return (ARMS.index(arm) if arm in ARMS else len(ARMS), arm, seed)
