"""The published numbers (``results/published``, values x 100, a source per row) and what they imply.

Column ``tag``: P the paper's own text, S a third-party summary, I inferred, R read in a public repository, N a
second-hand note, ? unknown. What is inferred here is analysis of printed figures, trusted to their last digit.

>>> confusion_tables_matching(561, 575, accuracy=60.4, f1=63.5)[0]
ConfusionTable(tp=391, fn=170, fp=280, tn=295)
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import ladlib
from ladlib.data.layout import published as published_counts
from ladlib.errors import UserError
from ladlib.statistics import p_text, sign_p, wilson

LABEL = "published, other data"
DRAWS = 10_000
BASE, TRAINED, LARGE = "Qwen2.5-VL-3B (base)", "LAD-Reasoner 3B", "Qwen2.5-VL-72B"
COMPARED = (BASE, TRAINED), (TRAINED, LARGE), (BASE, LARGE), ("APRIL-GAN", TRAINED)
ROUNDING = 0.05 + 1e-9  # published values have one decimal of a percentage


class ConfusionTable(NamedTuple):
    """Counts; positive is anomalous."""

    tp: int
    fn: int
    fp: int
    tn: int

    @property
    def accuracy(self) -> float:
        return (self.tp + self.tn) / sum(self)


# Shares from TP, FN, FP, TN, whole numbers or arrays of them; nan where a value is undefined.
MEASURES: dict[str, Callable] = {
    "accuracy": lambda tp, fn, fp, tn: (tp + tn) / (tp + fn + fp + tn),
    "f1": lambda tp, fn, fp, tn: 2 * tp / (2 * tp + fp + fn),
    "precision": lambda tp, fn, fp, tn: tp / (tp + fp),
    "recall": lambda tp, fn, fp, tn: tp / (tp + fn),
    "specificity": lambda tp, fn, fp, tn: tn / (tn + fp),
    "balanced_accuracy": lambda tp, fn, fp, tn: (tp / (tp + fn) + tn / (tn + fp)) / 2,
}


def path() -> Path:
    """The folder of the csv files: of the installed package, else ``results/published`` of the checkout."""
    package = Path(ladlib.__file__).parent
    installed = package / "published"
    return installed if installed.is_dir() else package.parent / "results" / "published"


def read(name: str) -> pd.DataFrame:
    """The table ``name``, without its ending. Raises :class:`UserError` where there is none."""
    file = path() / f"{name}.csv"
    if not file.is_file():
        raise UserError(f"There is no published table {file}.", f"Use one of {', '.join(names())}.")
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def names() -> list[str]:
    """The names of the tables."""
    return sorted(file.stem for file in path().glob("*.csv"))


def released_counts() -> pd.DataFrame:
    """Test images of MVTec LOCO AD as released, a row a category: good, logical, structural."""
    keys = published_counts("mvtec_loco").items()
    counts = {(category, kind): n[0] for (category, split, kind), n in keys if split == "test"}
    frame = pd.Series(counts).unstack()[["good", "logical", "structural"]]
    return frame.rename_axis("category").astype(int)


def confusion_tables_matching(anomalous: int, good: int, decimals: int = 1, **published: float) -> list[ConfusionTable]:
    """Every table of so many images on which all ``published`` measures (x 100) round to the printed values.

    All pairs (TP, TN) are tried; half a unit of the last decimal is allowed, whichever way ties were rounded.
    """
    tp, tn = np.arange(anomalous + 1.0)[:, None], np.arange(good + 1.0)[None, :]
    allowed, fits = 0.5 * 10.0**-decimals + 1e-9, np.ones((anomalous + 1, good + 1), dtype=bool)
    with np.errstate(invalid="ignore"):
        for name, value in published.items():
            fits &= np.abs(100 * MEASURES[name](tp, anomalous - tp, good - tn, tn) - value) <= allowed
    return [ConfusionTable(int(a), anomalous - int(a), good - int(b), int(b)) for a, b in np.argwhere(fits)]


def integer_counts(accuracy: float, images: int) -> list[int]:
    """The numbers of right answers among ``images`` that round to ``accuracy`` (x 100, one decimal)."""
    right = np.arange(images + 1)
    return right[np.abs(100 * right / images - accuracy) <= ROUNDING].tolist()


@cache
def recovered_tables() -> dict[str, tuple[ConfusionTable, ...]]:
    """Every confusion table that the paper's accuracy and F1 leave possible, by method."""
    good, anomalous = (int(n) for n in released_counts()[["good", "logical"]].sum())
    rows = read("lad_reasoner").itertuples()
    return {
        row.method: tuple(confusion_tables_matching(anomalous, good, accuracy=row.accuracy, f1=row.f1)) for row in rows
    }


def recovered() -> pd.DataFrame:
    """:func:`recovered_tables`, a row each: method, tp, fn, tn, fp, recall, specificity (x 100)."""
    rows = [(method, *one) for method, tables in recovered_tables().items() for one in tables]
    frame = pd.DataFrame(rows, columns=["method", "tp", "fn", "fp", "tn"])[["method", "tp", "fn", "tn", "fp"]]
    recall, specificity = frame["tp"] / (frame["tp"] + frame["fn"]), frame["tn"] / (frame["tn"] + frame["fp"])
    return frame.assign(recall=(100 * recall).round(1), specificity=(100 * specificity).round(1))


def attainable() -> pd.DataFrame:
    """The 72B's accuracy per category, and on which test set a whole number of right answers gives it."""
    counts, rows = released_counts(), read("lad_reasoner_categories")
    sets = {"good + logical": ["good", "logical"], "full test set": ["good", "logical", "structural"]}
    columns = {
        name: [_fraction(row.accuracy, int(counts.loc[row.category, kinds].sum())) for row in rows.itertuples()]
        for name, kinds in sets.items()
    }
    return pd.DataFrame({"category": rows["category"], "published": rows["accuracy"].map("{:.1f}".format)} | columns)


def _fraction(accuracy: float, images: int) -> str:
    return " or ".join(f"{right} / {images}" for right in integer_counts(accuracy, images)) or f"no count of {images}"


def certainty() -> pd.DataFrame:
    """The paper's accuracies with Wilson's 95 % intervals, and F1 with a bootstrap's on the first recovered table."""
    images, rows = int(released_counts()[["good", "logical"]].to_numpy().sum()), read("lad_reasoner")
    f1 = [resampled("f1", recovered_tables()[name][0]) for name in rows["method"]]
    spans = {
        "accuracy, 95 %": [wilson(round(value * images / 100), images) for value in rows["accuracy"]],
        "F1, 95 %": [np.quantile(values, [0.025, 0.975]) for values in f1],
    }
    texts = {name: [f"{100 * low:.1f} to {100 * high:.1f}" for low, high in ends] for name, ends in spans.items()}
    return rows[["method", "accuracy", "f1", "balanced_accuracy"]].assign(**texts)


def resampled(measure: str, table: ConfusionTable, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """A measure of ``draws`` tables resampled within each kind of image: TP and TN are then binomial."""
    anomalous, good, rng = table.tp + table.fn, table.tn + table.fp, np.random.default_rng(seed)
    tp = rng.binomial(anomalous, table.tp / anomalous, draws)
    tn = rng.binomial(good, table.tn / good, draws)
    return MEASURES[measure](tp, anomalous - tp, good - tn, tn)


def unpaired_p(first: ConfusionTable, second: ConfusionTable) -> float:
    """Two-sided p that two accuracies on different images are equal (pooled z test of two proportions)."""
    from statsmodels.stats.proportion import proportions_ztest

    return float(proportions_ztest([one.tp + one.tn for one in (first, second)], [sum(first), sum(second)])[1])


def discordant(first: ConfusionTable, second: ConfusionTable, most: bool = False) -> tuple[int, int]:
    """The fewest or ``most`` images that ``second`` can have corrected and lost, whatever the answers were.

    Among the anomalous images at least |difference of TP| answers differ in correctness; at most as many are
    corrected as one method missed and the other found. The same holds of TN among the good ones.
    """
    kinds = [(first.fn, second.tp, second.tp - first.tp), (first.fp, second.tn, second.tn - first.tn)]
    corrected = sum(min(missed, hits) if most else max(change, 0) for missed, hits, change in kinds)
    return corrected, corrected - sum(change for *_, change in kinds)


def paired_p(first: ConfusionTable, second: ConfusionTable, most: bool = False) -> float:
    """McNemar's exact p on the same images with the fewest or ``most`` discordant answers; the true p lies between."""
    return sign_p(*discordant(first, second, most))


def over_tables(value: Callable, first: Sequence[ConfusionTable], second: Sequence[ConfusionTable]) -> list[float]:
    """``value`` of every pair of tables that the rounding leaves possible, sorted."""
    return sorted(value(one, other) for one, other in product(first, second))


def power() -> pd.DataFrame:
    """What tests of the paper's differences in accuracy show, and the images that would be needed, as text.

    p-values are the least that the rounding allows, the second of the paired ones the largest.
    """
    return pd.DataFrame([_compared(before, after) for before, after in COMPARED])


def _compared(before: str, after: str) -> dict[str, str]:
    tables = recovered_tables()[before], recovered_tables()[after]
    shares = [group[0].accuracy for group in tables]
    least, most = over_tables(paired_p, *tables)[0], over_tables(partial(paired_p, most=True), *tables)[-1]
    return {
        "difference": f"{after} minus {before}",
        "points": f"{100 * (shares[1] - shares[0]):+.1f}",
        "p, unpaired": p_text(over_tables(unpaired_p, *tables)[0]),
        "p, paired": f"{p_text(least)} to {p_text(most)}",
        "images for 80 % power, unpaired": f"{images_needed(*shares):,}",
    }


def images_needed(first: float, second: float) -> int:
    """Images per method that give a test of two accuracies (shares, other images for each) 80 % power at 5 %."""
    from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail as size

    return math.ceil(size(abs(second - first), min(first, second), 0.8, alpha=0.05, alternative="two-sided"))
