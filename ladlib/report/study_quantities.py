"""What the claims about the toy are measured by, on good + logical images of toy MVTec LOCO AD, greedy, x 100.

Each quantity of ``QUANTITIES`` takes the run as a :class:`Toy` and returns a :class:`Measured`, or None where an arm
that it needs has not been run. Which value a claim expects stands in ``results/claims.yml``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from ladlib.report.stored import Key, Stored
from ladlib.report.study_arms import seeds_frame
from ladlib.report.study_paired import TRAINED, category_scores, difference, read_answers, seeds_of
from ladlib.report.tables import NAMES


class Measured(NamedTuple):
    """A value with its interval, and over what the interval is."""

    value: float
    low: float
    high: float
    over: str


class Toy(NamedTuple):
    """What a toy run has stored, arranged for these quantities."""

    arms: Mapping[str, list]  # arm -> the answers of each seed
    scores: pd.DataFrame  # a row an arm and seed
    spoken: Mapping[str, list[Mapping[str, float]]]  # arm -> the summary of the rationales of each seed


Quantity = Callable[[Toy], Measured | None]


def toy_of(stored: Stored, rationales: Mapping[Key, Mapping[str, float]]) -> Toy:
    """``rationales`` holds a summary (:func:`ladlib.rationales.summary`) of each arm and seed that was checked."""
    answers = read_answers(stored.generations)
    spoken = {arm: [rationales[key] for key in sorted(rationales) if key[0] == arm] for arm in (TRAINED, "sft")}
    return Toy({arm: seeds_of(answers, arm) for arm in NAMES}, seeds_frame(stored), spoken)


def _gain_in_each_seed(toy: Toy, reading: str) -> Measured | None:
    """SFT + GRPO minus base: the seed of the least gain, and the lowest end of any seed's interval."""
    base, trained = toy.arms["base"], toy.arms[TRAINED]
    found = [difference(reading, base, [seed])[0] for seed in trained] if base else []
    if not found:
        return None
    least = min(found, key=lambda one: one.value)
    low = min(one.low for one in found)
    return _known(least.value, low, least.high, f"images, lowest of {_seeds(found)}")


def _gain_over(toy: Toy, arm: str) -> Measured | None:
    first, trained = toy.arms[arm], toy.arms[TRAINED]
    if not (first and trained):
        return None
    return _known(*difference("strict", first, trained)[0], f"images, {_seeds(trained)}")


def _over_always_yes(toy: Toy) -> Measured | None:
    blind, found = _column(toy, "always_yes", "f1"), _column(toy, TRAINED, "f1")
    return over_seeds([value - blind[0] for value in found]) if blind else None


def _well_formed(toy: Toy) -> Measured | None:
    return over_seeds(_column(toy, TRAINED, "format_rate"))


def _said(toy: Toy, key: str) -> Measured | None:
    return over_seeds(_shares(toy.spoken[TRAINED], key))


def _true_beside_sft(toy: Toy) -> Measured | None:
    sft, trained = (_shares(toy.spoken[arm], "statements_true") for arm in ("sft", TRAINED))
    return over_seeds([one - np.mean(sft) for one in trained]) if sft else None


def _weakest_category(toy: Toy) -> Measured | None:
    """The upper end of the interval of the category where it is lowest: what chance is held against."""
    trained = toy.arms[TRAINED]
    by_category = category_scores(trained) if trained else {}
    found = {name: one for name, one in by_category.items() if not np.isnan(one.value)}
    if not found:
        return None
    name = min(found, key=lambda name: found[name].high)
    value, low, high = found[name]
    return _known(high, low, high, f"images, {name.replace('_', ' ')} at {value:.1f}, {_seeds(trained)}")


QUANTITIES: dict[str, Quantity] = {
    "gain over base in each seed, strict": partial(_gain_in_each_seed, reading="strict"),
    "gain over base in each seed, lenient": partial(_gain_in_each_seed, reading="lenient"),
    "gain over base in each seed, AUROC": partial(_gain_in_each_seed, reading="likelihood"),
    "gain over SFT": partial(_gain_over, arm="sft"),
    "gain over longer SFT": partial(_gain_over, arm="sft_long"),
    "gain over large": partial(_gain_over, arm="large"),
    "F1 over always yes": _over_always_yes,
    "well formed": _well_formed,
    "statements true": partial(_said, key="statements_true"),
    "statements true, beside SFT": _true_beside_sft,
    "rationale and answer agree": partial(_said, key="agree"),
    "upper end of the weakest category": _weakest_category,
}


def _column(toy: Toy, arm: str, key: str) -> list[float]:
    return toy.scores.loc[toy.scores["arm"] == arm, key].dropna().tolist()


def _shares(summaries: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [100 * one[key] for one in summaries if one.get(key) is not None]


def over_seeds(found: Sequence[float]) -> Measured | None:
    """Their mean between the lowest and the highest seed; None where there is none."""
    return _known(float(np.mean(found)), min(found), max(found), f"{_seeds(found)}, range") if found else None


def _known(value: float, low: float, high: float, over: str) -> Measured | None:
    return None if np.isnan(value) else Measured(value, low, high, over)


def _seeds(found: Sequence) -> str:
    return "1 seed" if len(found) == 1 else f"{len(found)} seeds"
