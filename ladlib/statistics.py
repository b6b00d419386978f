"""How much of a difference between two arms is chance: on a few hundred images, much of it.

>>> low, high = wilson(686, 1136)  # the paper's 60.4 % of 1,136 images
>>> round(100 * low, 1), round(100 * high, 1)
(57.5, 63.2)
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats


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


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The exact two-sided p-value that both arms are right equally often (McNemar, 1947).

    Only images on which one arm is right and the other wrong count; under the null hypothesis each of the two
    kinds is as likely (a binomial test). 1.0 where there are none.
    """
    change = _differences(first, second)
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _differences(first: Sequence[bool], second: Sequence[bool]) -> np.ndarray:
    if len(first) != len(second) or not len(first):
        raise ValueError(f"Paired answers of the same images are needed: {len(first)} and {len(second)} given.")
    return np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
