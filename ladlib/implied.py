"""What published percentages imply: the confusion tables behind them, and what a test on them can show.

This is analysis of published figures, not a result of anybody's model. It needs the numbers of anomalous and of
good images, and trusts the printed values to their last digit.

>>> consistent(561, 575, accuracy=60.4, f1=63.5)
[Table(tp=391, fn=170, fp=280, tn=295), Table(tp=392, fn=169, fp=281, tn=294)]
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import (
    power_proportions_2indep,
    proportions_ztest,
    samplesize_proportions_2indep_onetail,
)

from ladlib.statistics import Estimate

LEVEL, POWER = 0.05, 0.8


class Table(NamedTuple):
    """A confusion table; positive is anomalous."""

    tp: int
    fn: int
    fp: int
    tn: int

    @property
    def right(self) -> int:
        return self.tp + self.tn

    @property
    def images(self) -> int:
        return sum(self)


# Shares from TP, FN, FP, TN, whole numbers or arrays of them; nan where a value is not defined.
MEASURES: dict[str, Callable] = {
    "accuracy": lambda tp, fn, fp, tn: (tp + tn) / (tp + fn + fp + tn),
    "f1": lambda tp, fn, fp, tn: 2 * tp / (2 * tp + fp + fn),
    "precision": lambda tp, fn, fp, tn: tp / (tp + fp),
    "recall": lambda tp, fn, fp, tn: tp / (tp + fn),
    "specificity": lambda tp, fn, fp, tn: tn / (tn + fp),
    "balanced_accuracy": lambda tp, fn, fp, tn: (tp / (tp + fn) + tn / (tn + fp)) / 2,
}


def consistent(anomalous: int, good: int, decimals: int = 1, **published: float) -> list[Table]:
    """Every table of so many images on which all ``published`` measures (x 100) round to the values printed.

    All pairs (TP, TN) are tried; half a unit of the last decimal is allowed, whichever way ties were rounded.
    """
    tp, tn = np.arange(anomalous + 1.0)[:, None], np.arange(good + 1.0)[None, :]
    allowed, fits = 0.5 * 10.0**-decimals + 1e-9, np.ones((anomalous + 1, good + 1), dtype=bool)
    with np.errstate(invalid="ignore"):
        for name, value in published.items():
            fits &= np.abs(100 * MEASURES[name](tp, anomalous - tp, good - tn, tn) - value) <= allowed
    return [Table(int(a), anomalous - int(a), good - int(b), int(b)) for a, b in np.argwhere(fits)]


def interval(measure: str, table: Table, draws: int = 10_000, seed: int = 0, level: float = 0.95) -> Estimate:
    """A measure with its stratified percentile bootstrap interval, from the counts alone.

    Drawing the images of each kind with replacement makes TP and TN binomial, so no image is needed
    (Efron and Tibshirani, 1993).
    """
    low, high = np.quantile(drawn(measure, table, draws, seed), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(MEASURES[measure](*table)), float(low), float(high))


def drawn(measure: str, table: Table, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """A measure of ``draws`` tables whose images are drawn from ``table`` with replacement, kind by kind."""
    anomalous, good, rng = table.tp + table.fn, table.tn + table.fp, np.random.default_rng(seed)
    tp = rng.binomial(anomalous, table.tp / anomalous, draws)
    tn = rng.binomial(good, table.tn / good, draws)
    return MEASURES[measure](tp, anomalous - tp, good - tn, tn)


def unpaired_p(first: Table, second: Table) -> float:
    """Two-sided p that two accuracies on different images are equal (pooled z test of two proportions)."""
    return float(proportions_ztest([first.right, second.right], [first.images, second.images])[1])


def discordant(first: Table, second: Table, most: bool = False) -> tuple[int, int]:
    """The fewest or ``most`` images that ``second`` can have mended and broken, whatever the single answers were.

    Among the anomalous images |difference of TP| answers differ in correctness at least; at most as many are
    mended as one arm missed and the other found. The same holds of TN among the good ones. Mended less broken is
    fixed by the tables.
    """
    kinds = [(first.fn, second.tp, second.tp - first.tp), (first.fp, second.tn, second.tn - first.tn)]
    mended = [min(missed, found) if most else max(change, 0) for missed, found, change in kinds]
    return sum(mended), sum(mended) - sum(change for *_, change in kinds)


def paired_p(first: Table, second: Table, most: bool = False) -> float:
    """McNemar's exact p if the two tables are of the same images, with the fewest or ``most`` discordant answers.

    Mended less broken being fixed, every further discordant pair raises p: the true p lies between the two.
    """
    mended, broken = discordant(first, second, most)
    return float(stats.binomtest(mended, mended + broken).pvalue) if mended + broken else 1.0


def over_tables(value: Callable[[Table, Table], float], first: Sequence[Table], second: Sequence[Table]) -> list[float]:
    """``value`` of every pair of tables that the rounding leaves open, sorted."""
    return sorted(value(one, other) for one, other in product(first, second))


def unpaired_power(first: Table, second: Table, images: int | None = None) -> float:
    """Chance of p < 0.05 on ``images`` for each arm, other images for each, if the two accuracies were true."""
    shares = _shares(first, second)
    found = power_proportions_2indep(shares[1] - shares[0], shares[0], images or first.images, alpha=LEVEL)
    return float(found.power)


def unpaired_images(first: Table, second: Table) -> int:
    """Images for each arm that give such a test 80 % power."""
    shares = _shares(first, second)
    difference, lower = abs(shares[1] - shares[0]), min(shares)
    found = samplesize_proportions_2indep_onetail(difference, lower, POWER, alpha=LEVEL, alternative="two-sided")
    return math.ceil(found)


def paired_power(first: Table, second: Table, images: int | None = None) -> float:
    """Chance of p < 0.05 of McNemar's test on ``images``, with the fewest discordant answers there can be.

    With the share of discordant images s and the difference d: Phi((|d| sqrt(n) - z sqrt(s)) / sqrt(s - d^2))
    (Connor, Biometrics 43, 1987). More discordant answers give less power, so this is the most there can be.
    """
    difference, discordant = _change(first, second)
    reach = difference * math.sqrt(images or first.images) - stats.norm.isf(LEVEL / 2) * math.sqrt(discordant)
    return float(stats.norm.cdf(reach / math.sqrt(discordant - difference**2)))


def paired_images(first: Table, second: Table) -> int:
    """The fewest images that can give McNemar's test 80 % power; the inverse of :func:`paired_power`."""
    difference, discordant = _change(first, second)
    level, power = stats.norm.isf(LEVEL / 2), stats.norm.ppf(POWER)
    needed = level * math.sqrt(discordant) + power * math.sqrt(discordant - difference**2)
    return math.ceil((needed / difference) ** 2)


def seeds_needed(difference: float, deviation: float) -> int:
    """Training runs of each arm for 80 % power of a two-sided t test, from the standard deviation over seeds."""
    # Where the noncentral t distribution is not computed (nan), power is 1 within rounding, and bisecting takes it so.
    effect, test, sizes = abs(difference) / deviation, TTestIndPower(), range(2, 10**6)
    return sizes[bisect_left(sizes, POWER, key=lambda runs: test.power(effect, runs, LEVEL))]


def _shares(first: Table, second: Table) -> tuple[float, float]:
    return first.right / first.images, second.right / second.images


def _change(first: Table, second: Table) -> tuple[float, float]:
    """The size of the difference in accuracy and the least share of discordant images."""
    mended, broken = discordant(first, second)
    return abs(mended - broken) / first.images, (mended + broken) / first.images
