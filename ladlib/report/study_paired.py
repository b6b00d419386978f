"""Two arms of a study on the same good + logical images: how far apart, and how surely.

Values are points (x 100). Images that one of the compared arms or seeds has not answered are left out of that
comparison; the column ``images`` tells how many were compared, and a value is nan where these are all good or
all anomalous, or P(anomalous) of one is not known. Intervals: :func:`ladlib.statistics.bootstrap_difference`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ladlib.metrics import SUBSETS, is_right, is_right_leniently
from ladlib.records import Generation
from ladlib.report.arithmetic import p_text
from ladlib.report.stored import Key, Stored
from ladlib.report.tables import MISSING, NAMES, readable
from ladlib.statistics import Estimate, Score, bootstrap_difference, bootstrap_p, bootstrap_score, holm

READINGS: dict[str, Score] = {"strict": "balanced_accuracy", "lenient": "balanced_accuracy", "likelihood": "auroc"}
UNKNOWN = Estimate(np.nan, np.nan, np.nan)
TRAINED = "sft_grpo"
AGAINST = ("base", "sft", "sft_long", "accuracy_only", "format_only", "grpo_only", "large")


class Read(NamedTuple):
    """One completion in its three readings."""

    category: str
    anomalous: bool
    strict: bool  # right
    lenient: bool  # right
    likelihood: float | None  # P(anomalous)


Answers = Mapping[str, Read]  # by image


def read_answers(generations: Iterable[Generation]) -> dict[Key, Answers]:
    """The good + logical images of every arm and seed."""
    found: dict[Key, dict[str, Read]] = {}
    for one in generations:
        if one.anomaly in SUBSETS["logical"]:
            read = Read(one.category, one.label == "yes", is_right(one), is_right_leniently(one), one.p_yes)
            found.setdefault((one.arm, one.seed), {})[f"{one.dataset}/{one.id}"] = read
    return found


def seeds_of(answers: Mapping[Key, Answers], arm: str) -> list[Answers]:
    """The answers of an arm, a mapping a seed; [] where it has not been run."""
    return [answers[key] for key in sorted(answers) if key[0] == arm]


def difference(reading: str, first: Sequence[Answers], second: Sequence[Answers]) -> tuple[Estimate, int]:
    """``second`` minus ``first`` in points, averaged over the seeds of each, and the images compared."""
    compared = _compared(reading, first, second)
    found = bootstrap_difference(READINGS[reading], *compared) if compared else UNKNOWN
    return _points(found), len(_common([*first, *second]))


def p_value(reading: str, first: Sequence[Answers], second: Sequence[Answers]) -> float:
    """How likely a difference as large is where there is none (:func:`ladlib.statistics.bootstrap_p`); nan as there."""
    compared = _compared(reading, first, second)
    return bootstrap_p(READINGS[reading], *compared) if compared else np.nan


def _compared(reading: str, first: Sequence[Answers], second: Sequence[Answers]) -> tuple[list, list, list] | None:
    """Which of the common images are anomalous, and the values of both arms; ``None`` where they cannot be compared."""
    images = _common([*first, *second])
    known = [first[0][image].anomalous for image in images]
    values = [[[getattr(seed[image], reading) for image in images] for seed in arm] for arm in (first, second)]
    told = not any(None in seed for arm in values for seed in arm)
    return (known, *values) if told and len(set(known)) == 2 else None


def category_scores(seeds: Sequence[Answers]) -> dict[str, Estimate]:
    """Balanced accuracy by category under the strict reading, in points, averaged over seeds."""
    images = _common(seeds)
    categories = sorted({seeds[0][image].category for image in images})
    return {one: _score(seeds, [image for image in images if seeds[0][image].category == one]) for one in categories}


def _score(seeds: Sequence[Answers], images: Sequence[str]) -> Estimate:
    known = [seeds[0][image].anomalous for image in images]
    right = [[seed[image].strict for image in images] for seed in seeds]
    return _points(bootstrap_score("balanced_accuracy", known, right) if len(set(known)) == 2 else UNKNOWN)


def _common(seeds: Sequence[Answers]) -> list[str]:
    return sorted(set.intersection(*(set(one) for one in seeds)))


def _points(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * value for value in estimate))


def differences_frame(stored: Stored) -> pd.DataFrame:
    """SFT + GRPO minus each other arm over all seeds, and minus base for every seed, in three readings.

    Columns: arm (the one subtracted), against (its name), seeds, reading, difference, low, high, p, p_holm, images,
    label. ``p_holm`` is Holm's correction of ``p`` over all rows of the table, which are the family of claims.
    """
    answers = read_answers(stored.generations)
    rows = [
        {"arm": arm, "against": NAMES[arm], "seeds": seeds, "reading": reading}
        | _row(*difference(reading, first, second), p_value(reading, first, second))
        for arm, seeds, first, second in _comparisons(answers)
        for reading in READINGS
    ]  # fmt: skip
    columns = ["arm", "against", "seeds", "reading", "difference", "low", "high", "p", "p_holm", "images", "label"]
    frame = pd.DataFrame(rows, columns=columns).assign(label=stored.profile.label)
    known = frame["p"].notna()
    frame.loc[known, "p_holm"] = holm(frame.loc[known, "p"].tolist())
    return frame.astype({"p_holm": float}).round({"p": 6, "p_holm": 6})


def _comparisons(answers: Mapping[Key, Answers]) -> list[tuple[str, str, list[Answers], list[Answers]]]:
    trained = {seed: answers[arm, seed] for arm, seed in sorted(answers) if arm == TRAINED}
    base = seeds_of(answers, "base")
    single = [("base", str(seed), base, [one]) for seed, one in trained.items() if base]
    pooled = [(arm, "all", seeds_of(answers, arm), list(trained.values())) for arm in AGAINST]
    return [*single, *(one for one in pooled if one[2] and trained)]


def _row(found: Estimate, images: int, p: float) -> dict:
    ends = zip(("difference", "low", "high"), found, strict=True)
    return {key: round(value, 2) for key, value in ends} | {"p": p, "images": images}


def differences_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`differences_frame` to be read."""
    spans = [interval(row.low, row.high) for row in frame.itertuples()]
    signed = [signed_points(value) for value in frame["difference"]]
    likely = {key: [MISSING if pd.isna(one) else p_text(one) for one in frame[key]] for key in ("p", "p_holm")}
    shown = frame.assign(difference=signed, low=spans, **likely).drop(columns=["arm", "high"])
    titles = {"against": "SFT + GRPO minus", "difference": "points", "low": "95 % interval", "p_holm": "p, Holm"}
    return readable(shown).rename(columns=titles)


def interval(low: float, high: float) -> str:
    """``+3.1 to +9.4``; a dash where it is not known."""
    return MISSING if pd.isna(low) else f"{low:+.1f} to {high:+.1f}"


def signed_points(value: float) -> str:
    """``+3.1``; a dash where it is not known."""
    return MISSING if pd.isna(value) else f"{value:+.1f}"
