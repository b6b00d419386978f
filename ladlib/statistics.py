"""How much of a difference between two arms is chance: on a few hundred images, much of it.

>>> low, high = wilson(686, 1136)  # the paper's 60.4 % of 1,136 images
>>> round(100 * low, 1), round(100 * high, 1)
(57.5, 63.2)
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ladlib.metrics import SUBSETS, is_right, is_right_leniently

Score = Literal["balanced_accuracy", "auroc"]
RULES: dict[str, Score] = {"strict": "balanced_accuracy", "lenient": "balanced_accuracy", "likelihood": "auroc"}


class Estimate(NamedTuple):
    """A value with its 95 % interval and its standard error."""

    value: float
    low: float
    high: float
    error: float

    @property
    def p(self) -> float:
        """Two-sided p-value that the value is 0, by its normal approximation.

        The value over its standard error (Efron and Tibshirani, 1993, chapters 6 and 13). It can be smaller than one
        over the number of draws, so that a correction over a family leaves something.
        """
        from scipy import stats

        return float(2 * stats.norm.sf(abs(self.value) / self.error)) if self.error else float(not self.value)


UNKNOWN = Estimate(np.nan, np.nan, np.nan, np.nan)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval (1927) of a proportion, both ends in 0..1; (0, 1) without trials."""
    from scipy import stats

    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(
    score: Score, anomalous: ArrayLike, values: ArrayLike, baseline: ArrayLike | None = None, draws: int = 2000
) -> Estimate:
    """A score of one arm, or with ``baseline`` its difference from another arm's on the same images.

    ``anomalous`` is (images,); ``values`` and ``baseline`` are (images,) or (seeds, images): for ``balanced_accuracy``
    whether each answer is right, for ``auroc`` P(anomalous). Scores are averaged over seeds. Images are drawn with
    replacement within the good and within the anomalous ones, and a drawn image brings the answers of both arms and
    all seeds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). The percentile interval covers the choice
    of images, not that of seeds. Raises ValueError where one kind of image is missing or the images differ.
    """
    known = np.asarray(anomalous, dtype=bool)
    table = _pairs(score, known, values) - (0 if baseline is None else _pairs(score, known, baseline))
    rows, columns = _resampled(*table.shape, draws)
    means = ((rows @ table) * columns).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(table.mean()), float(low), float(high), float(means.std(ddof=1)))


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


@lru_cache(maxsize=8)  # a study compares many arms on the same images
def _resampled(rows: int, columns: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each draw takes each row and each column, as shares: (draws, rows) and (draws, columns)."""
    rng = np.random.default_rng(0)
    of_rows, of_columns = (rng.multinomial(size, np.full(size, 1 / size), draws) / size for size in (rows, columns))
    return of_rows, of_columns


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The exact two-sided p-value that both arms are right equally often (McNemar, 1947), 1.0 where none differs."""
    if len(first) != len(second) or not len(first):
        raise ValueError(f"Paired answers of the same images are needed: {len(first)} and {len(second)} given.")
    change = np.asarray(second, dtype=int) - np.asarray(first, dtype=int)
    return sign_p(int((change > 0).sum()), int((change < 0).sum()))


def sign_p(gained: int, lost: int) -> float:
    """The binomial test of McNemar's: of the discordant pairs, as many corrected as lost."""
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): below a level, the claim holds among this whole family. [] of none."""
    from statsmodels.stats.multitest import multipletests

    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


def p_text(value: float) -> str:
    """A p-value as text."""
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


# Arms on the same good + logical images


def by_image(answers: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """The good + logical answers of every arm and seed, a row an image.

    Columns: category, anomalous, images_sha256, and by rule whether the answer is right, or P(anomalous).
    """
    rows = answers[answers["anomaly"].isin(SUBSETS["logical"])]
    frame = pd.DataFrame(
        {
            "arm": rows["arm"], "seed": rows["seed"], "image": rows["dataset"] + "/" + rows["id"],
            "category": rows["category"], "anomalous": rows["label"] == "yes", "images_sha256": rows["images_sha256"],
            "strict": is_right(rows), "lenient": is_right_leniently(rows), "likelihood": rows["p_yes"],
        }
    )  # fmt: skip
    groups = frame.drop_duplicates(["arm", "seed", "image"], keep="last").groupby(["arm", "seed"], sort=False)
    return {(arm, int(seed)): group.set_index("image").sort_index() for (arm, seed), group in groups}


def seeds_of(answers: Mapping[tuple[str, int], pd.DataFrame], arm: str) -> list[pd.DataFrame]:
    """The answers of an arm, a frame per seed; [] where it has not been run."""
    return [answers[key] for key in sorted(answers) if key[0] == arm]


def difference(rule: str, first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame]) -> tuple[Estimate, int]:
    """``second`` minus ``first`` in points, averaged over the seeds of each, and the number of common images.

    NaN where these are all good or all anomalous, or P(anomalous) of one is unknown.
    """
    images = _common([*first, *second])
    anomalous = first[0].loc[images, "anomalous"].to_numpy()
    values = [np.array([seed.loc[images, rule] for seed in arm], dtype=float) for arm in (second, first)]
    if len(set(anomalous)) < 2 or any(np.isnan(of).any() for of in values):
        return UNKNOWN, len(images)
    return _points(bootstrap(RULES[rule], anomalous, *values)), len(images)


def category_scores(seeds: Sequence[pd.DataFrame]) -> dict[str, Estimate]:
    """Balanced accuracy by category under the strict rule, in points, averaged over seeds; those with both kinds."""
    first, scores = seeds[0].loc[_common(seeds)], {}
    for category, rows in first.groupby("category"):
        if rows["anomalous"].nunique() == 2:
            right = [seed.loc[rows.index, "strict"] for seed in seeds]
            scores[category] = _points(bootstrap("balanced_accuracy", rows["anomalous"], right))
    return scores


def _common(seeds: Sequence[pd.DataFrame]) -> list[str]:
    """The images that all of them have, sorted."""
    return sorted(set.intersection(*(set(seed.index) for seed in seeds)))


def _points(estimate: Estimate) -> Estimate:
    return Estimate(*(100 * value for value in estimate))
