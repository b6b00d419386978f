"""What a run has stored, read once: its record, its profile, generations and training logs."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ladlib.errors import UserError
from ladlib.metrics import score, score_trivial
from ladlib.runs import RunFolder, read_jsonl
from ladlib.schema import ARMS, Generation, RunRecord
from ladlib.settings import Profile, load_profile

Key = tuple[str, int]  # arm, seed
_NAME = re.compile(r"(.+)-seed(\d+)(-rollouts)?")


@dataclass(frozen=True)
class Stored:
    """Everything that tables, figures and the page are made from."""

    record: RunRecord
    profile: Profile
    generations: list[Generation]
    logs: dict[Key, list[dict]]
    rollouts: dict[Key, list[dict]]
    metrics: list[dict]

    @property
    def is_toy(self) -> bool:
        """Whether the images were drawn: such numbers never say what a real model scores."""
        return self.profile.data.toy is not None

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
    metrics = score(generations) + score_trivial(generations)
    # Notebooks keep the values in force of what they let one override, by their dotted names.
    overrides = {name: value for name, value in record.parameters.items() if "." in name}
    profile = load_profile(record.profile, **overrides)
    return Stored(record, profile, generations, logs, rollouts, metrics)


def read_generations(run: RunFolder) -> list[Generation]:
    """All generations of a run, arms in their usual order. Raises as :func:`read_run` does."""
    files = _files(run.root / "generations", rollouts=False)
    found = [one for key in sorted(files, key=_order) for one in read_records(files[key])]
    if not found:
        raise UserError(f"{run.root} holds no generations to report on.", "Run notebook 04_evaluation first.")
    return found


def read_records(file: Path) -> list[Generation]:
    """The generations of one file. Raises :class:`UserError` for a line of another kind."""
    try:
        return [Generation.model_validate(row) for row in _rows(file)]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {field}: {first['msg']}.", "Move the file away and evaluate again.") from error


def _rows(file: Path) -> list[dict]:
    try:
        return read_jsonl(file)
    except ValueError as error:
        raise UserError(f"{file} has a line that is not JSON.", "Move it away and run its stage again.") from error


def _by_key(folder: Path, rollouts: bool) -> dict[Key, list[dict]]:
    files = _files(folder, rollouts)
    return {key: _rows(files[key]) for key in sorted(files, key=_order)}


def _files(folder: Path, rollouts: bool) -> dict[Key, Path]:
    named = [(_NAME.fullmatch(file.stem), file) for file in folder.glob("*.jsonl")]
    return {(name[1], int(name[2])): file for name, file in named if name and bool(name[3]) == rollouts}


def _order(key: Key) -> tuple:
    arm, seed = key
    return (ARMS.index(arm) if arm in ARMS else len(ARMS), arm, seed)
