"""The claims of ``results/claims.yml``: what decides each, measured on a run, and whether it holds there.

A claim about real data is not testable on a toy run, one about the toy not on real data; what published figures
decide is the same everywhere. Nothing is left out because it does not hold. Values are points (x 100), or p.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml

import ladlib
from ladlib import published
from ladlib.metrics import SUBSETS
from ladlib.parsing import parse
from ladlib.published import BASE, LARGE, TRAINED
from ladlib.records import Record
from ladlib.results import RunResults
from ladlib.statistics import by_image, category_scores, difference, seeds_of
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


class Expected(Record):
    """The bounds of a measured value; points (x 100), or p."""

    at_least: float | None = None
    at_most: float | None = None
    equals: float | None = None
    tolerance: float = 0.0
    above: float | None = None  # where the interval must begin

    @property
    def text(self) -> str:
        bounds = {
            "at least {:+g}" if (self.at_least or 0) < 0 else "at least {:g}": self.at_least,
            "at most {:g}": self.at_most, f"{{:g}} ± {self.tolerance:g}": self.equals,
            "interval above {:g}": self.above,
        }  # fmt: skip
        return ", ".join(words.format(value) for words, value in bounds.items() if value is not None)

    def holds(self, measured: Measured) -> bool:
        return (
            (self.at_least is None or measured.value >= self.at_least)
            and (self.at_most is None or measured.value <= self.at_most)
            and (self.equals is None or abs(measured.value - self.equals) <= self.tolerance)
            and (self.above is None or measured.low > self.above)
        )


class Claim(Record):
    """One entry of the file, whose head says what the fields mean."""

    id: str
    of: Literal["paper", "check", "ours"]
    claim: str
    source: str
    basis: Literal["real data", "published figures", "toy study"]
    quantity: str
    expected: Expected
    shown: dict[str, str]  # the notebook and the cell to look at


def path() -> Path:
    """The file: of the installed package, else that of the checkout."""
    package = Path(ladlib.__file__).parent
    installed = package / "claims.yml"
    return installed if installed.is_file() else package.parent / "results" / "claims.yml"


def read_claims() -> list[Claim]:
    """All claims, in the file's order."""
    return [Claim.model_validate(row) for row in yaml.safe_load(path().read_text(encoding="utf-8"))]


def table(results: RunResults) -> pd.DataFrame:
    """A row a claim, measured on a run: ``COLUMNS`` and label.

    ``measured`` has its interval in ``low`` and ``high``, over resampled images (95 %) or from the lowest to the
    highest seed, as ``over`` says.
    """
    of_basis = {"published figures": lambda quantity: PUBLISHED[quantity]()}
    if results.is_toy:
        toy = Toy(results)
        of_basis["toy study"] = lambda quantity: TOY[quantity](toy)
    else:
        of_basis["real data"] = lambda quantity: REAL[quantity](results)
    rows = [_row(claim, of_basis.get(claim.basis, lambda quantity: None)(claim.quantity)) for claim in read_claims()]
    return pd.DataFrame(rows, columns=COLUMNS).assign(label=results.profile.label)


def _row(claim: Claim, measured: Measured | None) -> dict:
    row = {"id": claim.id, "of": claim.of, "basis": claim.basis, "claim": claim.claim, "expected": claim.expected.text}
    if measured is None:
        return row | {"status": UNTESTED}
    values = {key: round(float(value), 4) for key, value in zip(("measured", "low", "high"), measured[:3], strict=True)}
    status = "holds" if claim.expected.holds(measured) else "does not hold"
    return row | values | {"over": measured.over, "status": status}


def readable(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`table` as text, the interval in one cell."""
    shown = frame.drop(columns=["id", "high", "label"]).astype(object)
    for index, row in frame.iterrows():
        known = not pd.isna(row["measured"])
        form = ".2f" if str(row["over"]).startswith("paired tests") else ".1f"  # p, or points
        shown.loc[index, "measured"] = format(row["measured"], form) if known else "–"
        shown.loc[index, "low"] = f"{row['low']:{form}} to {row['high']:{form}}" if known else "–"
    return shown.fillna({"over": "–"}).rename(columns=HEADINGS)


# What claims about the toy are measured by, greedy, on good + logical images of toy MVTec LOCO AD


class Toy:
    """What a toy run has stored, arranged for these quantities."""

    def __init__(self, results: RunResults) -> None:
        self.answers = by_image(results.answers)
        self.scores = results.metrics.query("subset == 'logical' and category == 'pooled'")
        self.rationales = {
            key: summary([row for row in rows if row["anomaly"] in SUBSETS["logical"]])
            for key, rows in results.rationales.items()
        }

    def arm(self, name: str) -> list[pd.DataFrame]:
        return seeds_of(self.answers, name)

    def column(self, arm: str, key: str) -> list[float]:
        """A metric of every seed, x 100."""
        values = self.scores.loc[self.scores["arm"] == arm, key].dropna()
        return [round(100 * value, 2) for value in values]

    def shares(self, arm: str, key: str) -> list[float]:
        """A share of the summary of the rationales of every seed, x 100."""
        seeds = [self.rationales[of] for of in sorted(self.rationales) if of[0] == arm]
        return [100 * seed[key] for seed in seeds if seed.get(key) is not None]


def _gain_in_each_seed(toy: Toy, rule: str) -> Measured | None:
    """SFT + GRPO minus base: the seed of the least gain, and the lowest end of any seed's interval."""
    base, trained = toy.arm("base"), toy.arm(ARM)
    gains = [difference(rule, base, [seed])[0] for seed in trained] if base else []
    if not gains:
        return None
    least = min(gains, key=lambda gain: gain.value)
    low = min(gain.low for gain in gains)
    return _known(least.value, low, least.high, f"images, lowest of {_seeds(gains)}")


def _gain_over(toy: Toy, arm: str) -> Measured | None:
    first, trained = toy.arm(arm), toy.arm(ARM)
    return _known(*difference("strict", first, trained)[0], f"images, {_seeds(trained)}") if first and trained else None


def _f1_over_always_yes(toy: Toy) -> Measured | None:
    always = toy.column("always_yes", "f1")
    return over_seeds([value - always[0] for value in toy.column(ARM, "f1")]) if always else None


def _statements_true_over_sft(toy: Toy) -> Measured | None:
    sft = toy.shares("sft", "statements_true")
    return over_seeds([share - np.mean(sft) for share in toy.shares(ARM, "statements_true")]) if sft else None


def _weakest_category(toy: Toy) -> Measured | None:
    """The upper end of the interval of the category where it is lowest, to be compared with chance."""
    trained = toy.arm(ARM)
    scores = category_scores(trained) if trained else {}
    if not scores:
        return None
    name = min(scores, key=lambda name: scores[name].high)
    value, low, high = scores[name]
    return _known(high, low, high, f"images, {name.replace('_', ' ')} at {value:.1f}, {_seeds(trained)}")


TOY: dict[str, Callable[[Toy], Measured | None]] = {
    "gain over base in each seed, strict": partial(_gain_in_each_seed, rule="strict"),
    "gain over base in each seed, lenient": partial(_gain_in_each_seed, rule="lenient"),
    "gain over base in each seed, AUROC": partial(_gain_in_each_seed, rule="likelihood"),
    "gain over SFT": partial(_gain_over, arm="sft"),
    "gain over longer SFT": partial(_gain_over, arm="sft_long"),
    "gain over large": partial(_gain_over, arm="large"),
    "F1 over always yes": _f1_over_always_yes,
    "well formed": lambda toy: over_seeds(toy.column(ARM, "format_rate")),
    "statements true": lambda toy: over_seeds(toy.shares(ARM, "statements_true")),
    "statements true, beside SFT": _statements_true_over_sft,
    "rationale and answer agree": lambda toy: over_seeds(toy.shares(ARM, "agree")),
    "upper end of the weakest category": _weakest_category,
}


def over_seeds(values: Sequence[float]) -> Measured | None:
    """Their mean between the lowest and the highest seed; None without values."""
    return _known(float(np.mean(values)), min(values), max(values), f"{_seeds(values)}, range") if values else None


def _known(value: float, low: float, high: float, over: str) -> Measured | None:
    return None if np.isnan(value) else Measured(value, low, high, over)


def _seeds(values: Sequence) -> str:
    return "1 seed" if len(values) == 1 else f"{len(values)} seeds"


# Published figures: of the confusion tables that rounding leaves possible, the least favourable counts


@cache
def _published_gain(measure: str, first: str, second: str) -> Measured:
    """``second`` minus ``first`` in points, images resampled for each: nobody published which answers were right."""
    tables = published.recovered_tables()
    return min((_resampled(measure, *two) for two in product(tables[first], tables[second])), key=lambda gain: gain.low)


def _resampled(measure: str, first: published.ConfusionTable, second: published.ConfusionTable) -> Measured:
    gains = published.resampled(measure, second, seed=1) - published.resampled(measure, first, seed=0)
    value = published.MEASURES[measure](*second) - published.MEASURES[measure](*first)
    low, high = np.quantile(gains, [0.025, 0.975])
    return Measured(100 * value, 100 * low, 100 * high, "images, unpaired")


@cache
def _published_p(first: str, second: str) -> Measured:
    """Two-sided p of equal accuracies, unpaired; the interval is what a paired test could have given."""
    tables = published.recovered_tables()[first], published.recovered_tables()[second]
    fewest = published.over_tables(published.paired_p, *tables)
    most = published.over_tables(partial(published.paired_p, most=True), *tables)
    unpaired = max(published.over_tables(published.unpaired_p, *tables))
    return Measured(unpaired, fewest[0], most[-1], "paired tests, bounds")


PUBLISHED: dict[str, Callable[[], Measured]] = {
    "p of the gain in accuracy": partial(_published_p, BASE, TRAINED),
    "gain in F1": partial(_published_gain, "f1", BASE, TRAINED),
    "gain in balanced accuracy": partial(_published_gain, "balanced_accuracy", BASE, TRAINED),
    "F1 over always anomalous": partial(_published_gain, "f1", "always anomalous", TRAINED),
    "accuracy beside the 72B": partial(_published_gain, "accuracy", LARGE, TRAINED),
    "F1 beside the 72B": partial(_published_gain, "f1", LARGE, TRAINED),
}


# A run on real data


def _metric(results: RunResults, key: str) -> Measured | None:
    rows = results.metrics.query("arm == @ARM and subset == 'logical' and category == 'pooled'")
    return over_seeds([100 * value for value in rows[key].dropna()])


def _words(results: RunResults) -> Measured | None:
    """Mean number of words between the think tags, over the good + logical images."""
    rows = results.of(ARM)[lambda frame: frame["anomaly"].isin(SUBSETS["logical"])]
    words = rows["text"].map(lambda text: len((parse(text).think or "").split()))
    return over_seeds(words.groupby(rows["seed"]).mean().tolist())


REAL: dict[str, Callable[[RunResults], Measured | None]] = {
    "accuracy": partial(_metric, key="accuracy"), "F1": partial(_metric, key="f1"), "words a rationale": _words,
}  # fmt: skip
