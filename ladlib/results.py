"""What a run has stored, as tidy frames. Needs no model and no torch.

>>> load_run("results/released/study").answers.groupby("arm").size()  # doctest: +SKIP
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from ladlib import metrics
from ladlib.config import PROFILES, RENAMED, Profile, load_profile
from ladlib.errors import UserError, first_problem, read_json
from ladlib.metrics import arm_order
from ladlib.records import Detection, Generation, RunRecord, Variation
from ladlib.runs import DAMAGED, STUDY, RunFolder, read_jsonl, stored
from ladlib.statistics import by_image

Key = tuple[str, int]  # arm, seed
READ = ("generations", "sensitivity", "baselines", "logs", "rationales", "samples")  # folders that a report reads
Kind = TypeVar("Kind", Generation, Variation, Detection)
NAMES = {
    "base": "base", "sft": "SFT", "grpo_only": "GRPO only", "sft_grpo": "SFT + GRPO",
    "sft_long": "SFT, longer", "accuracy_only": "SFT + GRPO, accuracy reward only",
    "format_only": "SFT + GRPO, format reward only", "large": "large",
    "always_yes": "always yes", "always_no": "always no", "base_rate": "yes at the base rate",
    "neighbours": "nearest neighbour",
}  # fmt: skip


class _Step(BaseModel, extra="allow"):
    """What figures need of a row of a training log; its other columns are numbers."""

    __pydantic_extra__: dict[str, float | list[str] | None]

    step: int


@dataclass(frozen=True)
class RunResults:
    """Everything that tables, figures and the page are made from. A frame without rows has all its columns."""

    run: RunFolder
    record: RunRecord
    profile: Profile
    answers: pd.DataFrame  # a row a Generation, arms in their usual order
    logs: dict[Key, list[dict]]
    detections: pd.DataFrame  # of the nearest-neighbour detector
    variations: pd.DataFrame  # answers to changed inputs

    @property
    def is_toy(self) -> bool:
        """Whether the images are synthetic: such numbers never say what a real model scores."""
        return self.profile.toy is not None

    @property
    def keys(self) -> list[Key]:
        """The arms and seeds that have answered."""
        return list(self.answers[["arm", "seed"]].drop_duplicates().itertuples(index=False, name=None))

    @cached_property
    def scores(self) -> list[dict]:
        """The rows of metrics.json, computed from the answers when they are first asked for."""
        rows = metrics.score(self.answers) + metrics.score_trivial(self.answers)
        return rows + metrics.score_detections(self.detections)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """``scores`` as a frame; what is undefined is NaN."""
        return pd.DataFrame(self.scores)

    @cached_property
    def images(self) -> dict[Key, pd.DataFrame]:
        """The answers to good + logical images by arm and seed: :func:`ladlib.statistics.by_image`."""
        return by_image(self.answers)

    @cached_property
    def rationales(self) -> dict[Key, list[dict]]:
        """The checked rationales of each arm and seed that has any."""
        rows = {key: read_jsonl(self.run.rationales(*key)) for key in self.keys}
        return {key: checked for key, checked in rows.items() if checked}

    @cached_property
    def passes(self) -> pd.DataFrame:
        """pass@k of the sampled answers: :func:`ladlib.metrics.pass_frame`."""
        return metrics.pass_frame([row for key in self.keys for row in read_jsonl(self.run.samples(*key))])

    def title(self, arm: str) -> str:
        """The :func:`name` of an arm; what an endpoint answered is called by its model, quantisation and engine."""
        served = sorted(set(self.of(arm)["served"]) - {""})
        return f"{NAMES.get(arm, arm)} ({'; '.join(served)})" if served else name(arm, self.profile)

    def of(self, arm: str) -> pd.DataFrame:
        """The answers of one arm, all seeds."""
        return self.answers[self.answers["arm"] == arm]


def load_run(folder: RunFolder | Path | str) -> RunResults:
    """Read a run folder; the same object as long as its files are the same, so change none of its frames.

    Raises :class:`UserError` where there is no ``run.json``, no answer, or a line of another kind.
    """
    root = Path(folder.root if isinstance(folder, RunFolder) else folder)
    files = [root / "run.json", *(file for name in READ for file in sorted((root / name).glob("*")))]
    return _load(root, tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()))


@lru_cache(maxsize=2)
def _load(root: Path, _stamp: tuple) -> RunResults:
    run = RunFolder(root)
    record, answers = run.read(), load_answers(run)
    detections = to_frame(read_records(run.neighbours, Detection), Detection)
    variations = to_frame(_all_records(run.root / "sensitivity", Variation), Variation)
    return RunResults(run, record, profile_of(run, record), answers, _logs(run), detections, variations)


def load_study() -> RunResults | None:
    """The released study; None with a printed reason where this installation has none."""
    if STUDY.run_json.exists():
        return load_run(STUDY)
    print(f"The released study is not installed: {STUDY.root} is missing. Clone the repository to have it.")
    return None


def load_answers(run: RunFolder) -> pd.DataFrame:
    """All answers of a run. Raises as :func:`load_run` does."""
    records = _all_records(run.root / "generations", Generation)
    if not records:
        raise UserError(f"{run.root} holds no generations to report on.", "Run notebook 04_evaluation first.")
    return to_frame(records)


def _all_records(folder: Path, kind: type[Kind]) -> list[Kind]:
    return [record for file in _files(folder).values() for record in read_records(file, kind)]


def profile_of(run: RunFolder, record: RunRecord) -> Profile:
    """The profile of a run with the values it used, which its record has by their dotted names."""
    given = {RENAMED.get(name, name): value for name, value in record.parameters.items() if "." in name}
    is_stored = record.profile not in PROFILES and run.profile.is_file()
    return load_profile(str(run.profile) if is_stored else record.profile, **given)


def to_frame(records: Sequence[Kind], kind: type[Kind] = Generation) -> pd.DataFrame:
    """A row a record, columns in the order of its keys; ``p_yes`` is NaN and ``answer`` None where unknown."""
    columns = list(kind.model_fields)
    rows = [[getattr(record, name) for name in columns] for record in records]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    numbers = {"seed": int, "p_yes": float, "prompt_tokens": int, "completion_tokens": int, "seconds": float,
               "refused": bool, "distance": float, "threshold": float, "trained_on": int}  # fmt: skip
    return frame.astype({name: dtype for name, dtype in numbers.items() if name in frame})


def refuse_doubles(answers: pd.DataFrame) -> None:
    """Raises :class:`UserError` where one image has two answers of one arm and seed: it would be counted twice."""
    twice = answers[answers.duplicated(["arm", "seed", "id"])]
    if len(twice):
        arm, seed, image = twice.iloc[0][["arm", "seed", "id"]]
        raise UserError(f"The answers of {arm}, seed {seed}, have {image} twice.", "Keep one line of the two.")


def read_records(file: Path, kind: type[Kind] = Generation) -> list[Kind]:
    """The records of one file, [] where it does not exist. Raises :class:`UserError` for a line of another kind."""
    return _validated(file, read_jsonl(file), kind)


def _validated(file: Path, rows: list[dict], kind: type[Kind]) -> list[Kind]:
    try:
        return TypeAdapter(list[kind]).validate_python(rows)
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}.", DAMAGED) from error


def read_metrics(run: RunFolder) -> list[dict]:
    """The rows of metrics.json. Raises :class:`UserError` where it is damaged."""
    hint = f"Write it again: ladlib report --run {run.root}."
    rows = read_json(run.metrics_json, hint)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{run.metrics_json} is damaged.", hint)
    return rows


def _logs(run: RunFolder) -> dict[Key, list[dict]]:
    files = _files(run.root / "logs")
    logs = {key: read_jsonl(file) for key, file in files.items()}
    for key, rows in logs.items():
        _validated(files[key], rows, _Step)
    return logs


def _files(folder: Path) -> dict[Key, Path]:
    """The files named ``<arm>-seed<k>``, gzipped or not, arms in their usual order."""
    named = [(re.fullmatch(r"(.+)-seed(\d+)\.jsonl", name), file) for name, file in stored(folder).items()]
    files = {(match[1], int(match[2])): file for match, file in named if match}
    return {key: files[key] for key in sorted(files, key=arm_order)}


def name(arm: str, profile: Profile) -> str:
    """The name of an arm in tables and figures; the two untrained models with their weights."""
    weights = {"base": profile.model.base, "large": profile.model.large}
    return f"{NAMES.get(arm, arm)} ({weights[arm]})" if arm in weights else NAMES.get(arm, arm)
