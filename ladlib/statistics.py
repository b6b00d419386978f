"""How much of a difference between two arms is chance: on a few hundred images, much of it.

>>> low, high = wilson(686, 1136)  # the paper's 60.4 % of 1,136 images
>>> round(100 * low, 1), round(100 * high, 1)
(57.5, 63.2)
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.multitest import multipletests

Score = Literal["balanced_accuracy", "auroc"]


class Estimate(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


class Shares(NamedTuple):
    """What a value hangs on, as shares of its variance that add up to one."""

    pair: float  # which pair it is
    level: float  # a shift that a level brings to all pairs alike
    both: float  # what a level does to one pair and not to another, chance included


def variance_shares(values: ArrayLike) -> Shares | None:
    """The variance components of ``values``, ``[pairs, levels]``, as shares; None where nothing varies.

    The random-effects model y = mean + pair + level + both with one value a cell. Components are those that make
    the expected mean squares of the two-way analysis of variance equal the observed ones, a negative one counting
    as zero (Searle, Casella and McCulloch, Variance Components, 1992, chapter 4; Brennan, Generalizability Theory,
    2001, p x i design). Unlike shares of sums of squares they do not grow with the number of levels. Raises
    ValueError for fewer than two pairs or levels.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"Two pairs and two levels at least are needed, not {table.shape}.")
    pairs, levels = table.shape
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    left = table - rows - columns + table.mean()
    both = (left**2).sum() / ((pairs - 1) * (levels - 1))
    pair = max(0.0, rows.var(ddof=1) - both / levels)
    level = max(0.0, columns.var(ddof=1) - both / pairs)
    total = pair + level + both
    return Shares(*(float(one / total) for one in (pair, level, both))) if total else None


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion, both ends in 0..1; (0, 1) where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def paired_bootstrap(
    first: Sequence[bool], second: Sequence[bool], draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """Accuracy of ``second`` minus that of ``first`` on the same images, with its percentile interval.

    ``first`` and ``second`` say for each image whether the arm was right; images are drawn with replacement
    and keep their two answers together (Efron and Tibshirani, 1993). Returns (difference, low, high).
    """
    change = _differences(first, second)
    picks = np.random.default_rng(seed).integers(0, change.size, (draws, change.size))
    low, high = np.quantile(change[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(change.mean()), float(low), float(high)


def bootstrap_score(
    score: Score, anomalous: ArrayLike, values: ArrayLike, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """A score of one arm with its percentile interval; drawn as in :func:`bootstrap_difference`."""
    return _bootstrap(_pairs(score, np.asarray(anomalous, dtype=bool), values), draws, seed, level)


def bootstrap_difference(
    score: Score,
    anomalous: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Score of ``second`` minus that of ``first`` on the same images, with its percentile interval.

    ``anomalous`` is (images,); ``first`` and ``second`` are (images,) or (seeds, images), the seeds of the two arms
    as many as they like: for ``balanced_accuracy`` whether each answer was right, for ``auroc`` P(anomalous).
    Scores are averaged over seeds. Images are drawn with replacement among the good and among the anomalous ones
    apart, so that both stay as many as they are; a drawn image brings the answers of both arms and of every seed
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). The interval therefore tells how far other
    images might have moved the difference of these trained models; how far other seeds might is not in it.
    Raises ValueError where good or anomalous images are missing or the answers are not of the same images.
    """
    known = np.asarray(anomalous, dtype=bool)
    return _bootstrap(_pairs(score, known, second) - _pairs(score, known, first), draws, seed, level)


def bootstrap_p(
    score: Score, anomalous: ArrayLike, first: ArrayLike, second: ArrayLike, draws: int = 2000, seed: int = 0
) -> float:
    """Two-sided p-value that the difference of :func:`bootstrap_difference` is 0, by its normal approximation.

    The difference over its standard error, which is the standard deviation of the draws (Efron and Tibshirani,
    1993, chapters 6 and 13). It goes below one in ``draws``, so that a correction over a family leaves something.
    """
    known = np.asarray(anomalous, dtype=bool)
    table = _pairs(score, known, second) - _pairs(score, known, first)
    error = _draws(table, draws, seed).std(ddof=1)
    return float(2 * stats.norm.sf(abs(table.mean()) / error)) if error else float(not table.mean())


def _pairs(score: Score, anomalous: np.ndarray, values: ArrayLike) -> np.ndarray:
    """What each pair of an anomalous image (row) and a good one (column) adds to the score, averaged over seeds.

    Both scores are the mean of such a table: balanced accuracy of the share of the two that is right, the area
    under the ROC curve of whether the anomalous one ranks higher, ties counting half (Mann and Whitney, 1947).
    """
    rows = np.atleast_2d(np.asarray(values, dtype=float))
    if rows.shape[1] != anomalous.size or anomalous.all() or not anomalous.any():
        raise ValueError(f"Answers to good and anomalous images are needed, {anomalous.size} a seed: {rows.shape}.")
    odd, good = rows[:, anomalous, None], rows[:, None, ~anomalous]
    table = (odd + good) / 2 if score == "balanced_accuracy" else (odd > good) + 0.5 * (odd == good)
    return table.mean(axis=0)


def _bootstrap(table: np.ndarray, draws: int, seed: int, level: float) -> Estimate:
    """The mean of ``table`` and its interval."""
    low, high = np.quantile(_draws(table, draws, seed), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(table.mean()), float(low), float(high))


def _draws(table: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The mean of ``table`` in every draw."""
    rows, columns = _drawn(*table.shape, draws, seed)
    return ((rows @ table) * columns).sum(axis=1)


@lru_cache(maxsize=8)  # a study compares many arms on the same images
def _drawn(rows: int, columns: int, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each draw takes each row and each column, as shares: (draws, rows) and (draws, columns)."""
    rng = np.random.default_rng(seed)
    taken, taken_columns = (rng.multinomial(size, np.full(size, 1 / size), draws) / size for size in (rows, columns))
    return taken, taken_columns


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The exact two-sided p-value that both arms are right equally often (McNemar, 1947).

    Only images on which one arm is right and the other wrong count; under the null hypothesis each of the two
    kinds is as likely (a binomial test). 1.0 where there are none.
    """
    change = _differences(first, second)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): below a level, the claim holds among this whole family of claims.

    Sorted upwards, the i-th of m is multiplied by m - i + 1, kept rising and at most 1. [] of an empty family.
    """
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def _differences(first: Sequence[bool], second: Sequence[bool]) -> np.ndarray:
    if len(first) != len(second) or not len(first):
        raise ValueError(f"Paired answers of the same images are needed: {len(first)} and {len(second)} given.")
    return np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
