"""The claims of ``results/claims.yml``: what decides each, measured on a run, and whether it holds there.

A claim about real data is not testable on a toy run, one about the toy not on real data; what published figures
decide is the same everywhere. Nothing is left out because it does not hold. Values are points (x 100), or p, of greedy
answers to good + logical images.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml

from ladlib import published
from ladlib.metrics import SUBSETS
from ladlib.parsing import parse
from ladlib.published import BASE, LARGE, TRAINED
from ladlib.results import RunResults
from ladlib.statistics import category_scores, difference, seeds_of
from ladlib.toy.truth import summary

ARM = "sft_grpo"
COLUMNS = ["id", "of", "basis", "claim", "expected", "measured", "low", "high", "over", "status"]
HEADINGS = {"basis": "on", "low": "interval", "over": "interval over"}
UNTESTED = "not testable here"


class Measured(NamedTuple):
    """A value with its interval, and what the interval is over."""

    value: float
    low: float
    high: float
    over: str


def read_claims() -> list[dict[str, str]]:
    """All claims, in the file's order, whose head says what the fields mean."""
    return yaml.safe_load(published.stored_path("claims.yml").read_text(encoding="utf-8"))


def holds(expected: str, measured: Measured) -> bool:
    """Whether each bound of ``expected`` is kept: "at least 5, interval above 0", "at most 0.05", "60.4 ± 2.9"."""
    for bound in expected.split(", "):
        match bound.split():
            case ["at", "least", number]:
                is_kept = measured.value >= float(number)
            case ["at", "most", number]:
                is_kept = measured.value <= float(number)
            case ["interval", "above", number]:
                is_kept = measured.low > float(number)
            case [number, "±", tolerance]:
                is_kept = abs(measured.value - float(number)) <= float(tolerance)
            case _:
                raise ValueError(f"{bound!r} is no bound of a claim.")
        if not is_kept:
            return False
    return True


def table(results: RunResults) -> pd.DataFrame:
    """A row a claim, measured on a run: ``COLUMNS`` and label.

    ``measured`` has its interval in ``low`` and ``high``, over resampled images (95 %) or from the lowest to the
    highest seed, as ``over`` says.
    """
    testable = {"published figures", "toy study" if results.is_toy else "real data"}
    rows = []
    for claim in read_claims():
        row = claim | {"status": UNTESTED}
        measured = QUANTITIES[claim["quantity"]](results) if claim["basis"] in testable else None
        if measured and not np.isnan(measured.value):
            row |= {"measured": measured.value, "low": measured.low, "high": measured.high, "over": measured.over}
            row["status"] = "holds" if holds(claim["expected"], measured) else "does not hold"
        rows.append(row)
    frame = pd.DataFrame(rows, columns=COLUMNS).assign(label=results.profile.label)
    return frame.astype({"measured": float, "low": float, "high": float}).round(4)


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`table` as text, the interval in one cell."""
    shown = frame.drop(columns=["id", "high", "label"]).astype(object)
    for index, row in frame.iterrows():
        known = not pd.isna(row["measured"])
        form = ".2f" if str(row["over"]).startswith("paired tests") else ".1f"  # p, or points
        shown.loc[index, "measured"] = format(row["measured"], form) if known else "–"
        shown.loc[index, "low"] = f"{row['low']:{form}} to {row['high']:{form}}" if known else "–"
    return shown.fillna({"over": "–"}).rename(columns=HEADINGS)


# What claims about a run are measured by; None where it has not what it takes


def _gain_in_each_seed(results: RunResults, rule: str) -> Measured | None:
    """SFT + GRPO minus base: the seed of the least gain, and the lowest end of any seed's interval."""
    base, trained = seeds_of(results.images, "base"), seeds_of(results.images, ARM)
    gains = [difference(rule, base, [seed])[0] for seed in trained] if base else []
    if not gains:
        return None
    least = min(gains, key=lambda gain: gain.value)
    return Measured(least.value, min(gain.low for gain in gains), least.high, f"images, lowest of {_seeds(gains)}")


def _gain_over(results: RunResults, arm: str) -> Measured | None:
    first, trained = seeds_of(results.images, arm), seeds_of(results.images, ARM)
    if not (first and trained):
        return None
    gain, _ = difference("strict", first, trained)
    return Measured(gain.value, gain.low, gain.high, f"images, {_seeds(trained)}")


def _weakest_category(results: RunResults) -> Measured | None:
    """The upper end of the interval of the category where it is lowest, to be compared with chance."""
    trained = seeds_of(results.images, ARM)
    scores = category_scores(trained) if trained else {}
    if not scores:
        return None
    name = min(scores, key=lambda name: scores[name].high)
    value, low, high, _ = scores[name]
    return Measured(high, low, high, f"images, {name.replace('_', ' ')} at {value:.1f}, {_seeds(trained)}")


def _metric(results: RunResults, key: str, minus: str = "") -> Measured | None:
    """A metric of every seed of SFT + GRPO, less that of the arm ``minus``, which has one seed."""
    rows = results.metrics.query("subset == 'logical' and category == 'pooled'")
    values, others = ((100 * rows.loc[rows["arm"] == arm, key].dropna()).round(2).tolist() for arm in (ARM, minus))
    if minus and not others:
        return None
    return _over_seeds([value - (others[0] if minus else 0) for value in values])


def _rationales(results: RunResults, key: str, minus: str = "") -> Measured | None:
    """A share of the checked rationales of every seed of SFT + GRPO, less the mean of that of the arm ``minus``."""
    shares: dict[str, list[float]] = {ARM: [], minus: []}
    for (arm, _), rows in sorted(results.rationales.items()):
        share = summary([row for row in rows if row["anomaly"] in SUBSETS["logical"]]).get(key)
        if arm in shares and share is not None:
            shares[arm].append(100 * share)
    if minus and not shares[minus]:
        return None
    return _over_seeds([share - (np.mean(shares[minus]) if minus else 0) for share in shares[ARM]])


def _words(results: RunResults) -> Measured | None:
    """Mean number of words between the think tags."""
    rows = results.of(ARM)[lambda frame: frame["anomaly"].isin(SUBSETS["logical"])]
    words = rows["text"].map(lambda text: len((parse(text).think or "").split()))
    return _over_seeds(words.groupby(rows["seed"]).mean().tolist())


def _over_seeds(values: Sequence[float]) -> Measured | None:
    """Their mean between the lowest and the highest seed; None without values."""
    if not values:
        return None
    return Measured(float(np.mean(values)), min(values), max(values), f"{_seeds(values)}, range")


def _seeds(values: Sequence) -> str:
    return "1 seed" if len(values) == 1 else f"{len(values)} seeds"


# Published figures: of the confusion tables that rounding leaves possible, the least favourable counts


def _published_gain(_results: RunResults, measure: str, first: str, second: str) -> Measured:
    """``second`` minus ``first`` in points, images resampled for each: nobody published which answers were right."""
    tables, gains = published.recovered_tables(), []
    for before, after in product(tables[first], tables[second]):
        value = published.MEASURES[measure](*after) - published.MEASURES[measure](*before)
        draws = published.resampled(measure, after, seed=1) - published.resampled(measure, before, seed=0)
        gains.append(Measured(100 * value, *(100 * np.quantile(draws, [0.025, 0.975])), "images, unpaired"))
    return min(gains, key=lambda gain: gain.low)


def _published_p(_results: RunResults) -> Measured:
    return Measured(*published.accuracy_p(BASE, TRAINED), "paired tests, bounds")


QUANTITIES: dict[str, Callable[[RunResults], Measured | None]] = {
    "accuracy": partial(_metric, key="accuracy"),
    "F1": partial(_metric, key="f1"),
    "words a rationale": _words,
    "p of the gain in accuracy": _published_p,
    "gain in F1": partial(_published_gain, measure="f1", first=BASE, second=TRAINED),
    "gain in balanced accuracy": partial(_published_gain, measure="balanced_accuracy", first=BASE, second=TRAINED),
    "F1 over always anomalous": partial(_published_gain, measure="f1", first="always anomalous", second=TRAINED),
    "accuracy beside the 72B": partial(_published_gain, measure="accuracy", first=LARGE, second=TRAINED),
    "F1 beside the 72B": partial(_published_gain, measure="f1", first=LARGE, second=TRAINED),
    "gain over base in each seed, strict": partial(_gain_in_each_seed, rule="strict"),
    "gain over base in each seed, lenient": partial(_gain_in_each_seed, rule="lenient"),
    "gain over base in each seed, AUROC": partial(_gain_in_each_seed, rule="likelihood"),
    "gain over SFT": partial(_gain_over, arm="sft"),
    "gain over longer SFT": partial(_gain_over, arm="sft_long"),
    "gain over large": partial(_gain_over, arm="large"),
    "F1 over always yes": partial(_metric, key="f1", minus="always_yes"),
    "well formed": partial(_metric, key="format_rate"),
    "statements true": partial(_rationales, key="statements_true"),
    "statements true, beside SFT": partial(_rationales, key="statements_true", minus="sft"),
    "rationale and answer agree": partial(_rationales, key="agree"),
    "upper end of the weakest category": _weakest_category,
}
