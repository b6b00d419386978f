"""The published numbers (``results/published``, values x 100, a source per row) and what they imply.

Column ``tag``: P the paper's own text, S a third-party summary, I inferred, R read in a public repository, N a
second-hand note. What is inferred here is analysis of printed figures, trusted to their last digit.

>>> confusion_tables_matching(561, 575, accuracy=60.4, f1=63.5)[0]
ConfusionTable(tp=391, fn=170, fp=280, tn=295)
"""

from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import ladlib
from ladlib.data.layout import published as published_counts
from ladlib.errors import UserError
from ladlib.statistics import sign_p

LABEL = "published, other data"
BASE, TRAINED, LARGE = "Qwen2.5-VL-3B (base)", "LAD-Reasoner 3B", "Qwen2.5-VL-72B"
ROUNDING = 0.05 + 1e-9  # published values have one decimal of a percentage; ties were rounded either way


class ConfusionTable(NamedTuple):
    """Counts; positive is anomalous."""

    tp: int
    fn: int
    fp: int
    tn: int


# Shares from TP, FN, FP, TN, whole numbers or arrays of them; nan where a value is undefined.
MEASURES: dict[str, Callable] = {
    "accuracy": lambda tp, fn, fp, tn: (tp + tn) / (tp + fn + fp + tn),
    "f1": lambda tp, fn, fp, tn: 2 * tp / (2 * tp + fp + fn),
    "recall": lambda tp, fn, fp, tn: tp / (tp + fn),
    "specificity": lambda tp, fn, fp, tn: tn / (tn + fp),
    "balanced_accuracy": lambda tp, fn, fp, tn: (tp / (tp + fn) + tn / (tn + fp)) / 2,
}


def stored_path(name: str) -> Path:
    """A file or folder of ``results/`` that is part of the package: as installed, else in the checkout."""
    package = Path(ladlib.__file__).parent
    return package / name if (package / name).exists() else package.parent / "results" / name


def read(name: str) -> pd.DataFrame:
    """The table ``name``, without its ending. Raises :class:`UserError` where there is none."""
    folder = stored_path("published")
    file = folder / f"{name}.csv"
    if not file.is_file():
        names = ", ".join(sorted(other.stem for other in folder.glob("*.csv")))
        raise UserError(f"There is no published table {file}.", f"Use one of {names}.")
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def released_counts() -> pd.DataFrame:
    """Test images of MVTec LOCO AD as released, a row a category: good, logical, structural."""
    keys = published_counts("mvtec_loco").items()
    counts = {(category, kind): n[0] for (category, split, kind), n in keys if split == "test"}
    frame = pd.Series(counts).unstack()[["good", "logical", "structural"]]
    return frame.rename_axis("category").astype(int)


def confusion_tables_matching(anomalous: int, good: int, **published: float) -> list[ConfusionTable]:
    """Every table of so many images on which all ``published`` measures (x 100) round to the printed values."""
    tp, tn = np.arange(anomalous + 1.0)[:, None], np.arange(good + 1.0)[None, :]
    fits = np.ones((anomalous + 1, good + 1), dtype=bool)
    with np.errstate(invalid="ignore"):
        for name, value in published.items():
            fits &= np.abs(100 * MEASURES[name](tp, anomalous - tp, good - tn, tn) - value) <= ROUNDING
    return [ConfusionTable(int(a), anomalous - int(a), good - int(b), int(b)) for a, b in np.argwhere(fits)]


@cache
def recovered_tables() -> dict[str, tuple[ConfusionTable, ...]]:
    """Every confusion table that the paper's accuracy and F1 leave possible, by method."""
    good, anomalous = (int(n) for n in released_counts()[["good", "logical"]].sum())
    rows = read("lad_reasoner").itertuples()
    return {
        row.method: tuple(confusion_tables_matching(anomalous, good, accuracy=row.accuracy, f1=row.f1)) for row in rows
    }


def recovered() -> pd.DataFrame:
    """:func:`recovered_tables`, a row each: method, tp, fn, fp, tn, recall, specificity (x 100)."""
    rows = [(method, *table) for method, tables in recovered_tables().items() for table in tables]
    frame = pd.DataFrame(rows, columns=["method", *ConfusionTable._fields])
    counts = [frame[name] for name in ConfusionTable._fields]
    shares = {name: (100 * MEASURES[name](*counts)).round(1) for name in ("recall", "specificity")}
    return frame.assign(**shares)


def resampled(measure: str, table: ConfusionTable, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """A measure of ``draws`` tables resampled within each kind of image: TP and TN are then binomial."""
    anomalous, good, rng = table.tp + table.fn, table.tn + table.fp, np.random.default_rng(seed)
    tp = rng.binomial(anomalous, table.tp / anomalous, draws)
    tn = rng.binomial(good, table.tn / good, draws)
    return MEASURES[measure](tp, anomalous - tp, good - tn, tn)


def accuracy_p(first: str, second: str) -> tuple[float, float, float]:
    """Two-sided p of equal accuracies of two methods: unpaired, and the least and the most of a paired test.

    Unpaired is the pooled z test of two proportions. Nobody published which answers were right, so McNemar's exact
    test is bounded by the fewest and the most discordant answers. All tables that the rounding allows are tried.
    """
    from statsmodels.stats.proportion import proportions_ztest

    pairs = list(product(recovered_tables()[first], recovered_tables()[second]))
    unpaired = [proportions_ztest([one.tp + one.tn for one in pair], [sum(one) for one in pair])[1] for pair in pairs]
    paired = [sign_p(*discordant(*pair, most)) for pair in pairs for most in (False, True)]
    return float(max(unpaired)), min(paired), max(paired)


def discordant(first: ConfusionTable, second: ConfusionTable, most: bool = False) -> tuple[int, int]:
    """The fewest or ``most`` images that ``second`` can have corrected and lost, whatever the answers were.

    Among the anomalous images at least |difference of TP| answers differ in correctness; at most as many are
    corrected as one method missed and the other found. The same holds of TN among the good ones.
    """
    kinds = [(first.fn, second.tp, second.tp - first.tp), (first.fp, second.tn, second.tn - first.tn)]
    corrected = sum(min(missed, hits) if most else max(change, 0) for missed, hits, change in kinds)
    return corrected, corrected - sum(change for *_, change in kinds)
