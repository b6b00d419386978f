"""What can be worked out from the published numbers alone: counts behind them, and how sure they are.

>>> recovered_counts(60.4, 63.5, anomalous=561, good=575)[0]
{'tp': 391, 'fn': 170, 'tn': 295, 'fp': 280, 'recall': 69.7, 'specificity': 51.3}
"""

from functools import partial

import numpy as np
import pandas as pd

from ladlib import implied
from ladlib.data.layout import published as published_counts
from ladlib.records import Anomaly
from ladlib.report import published
from ladlib.statistics import wilson

COMPARED = (
    ("Qwen2.5-VL-3B (base)", "LAD-Reasoner 3B"),
    ("LAD-Reasoner 3B", "Qwen2.5-VL-72B"),
    ("Qwen2.5-VL-3B (base)", "Qwen2.5-VL-72B"),
    ("APRIL-GAN", "LAD-Reasoner 3B"),
)
ROUNDING = 0.05 + 1e-9  # published values have one decimal of a percentage


def released_counts() -> pd.DataFrame:
    """Test images of MVTec LOCO AD as released, a row a category: good, logical, structural."""
    counts = {
        (category, kind): n[0]
        for (category, split, kind), n in published_counts("mvtec_loco").items()
        if split == "test"
    }
    kinds: tuple[Anomaly, ...] = ("good", "logical", "structural")
    frame = pd.Series(counts).unstack()[list(kinds)].rename_axis("category")
    return frame.astype(int)


def recovered_counts(accuracy: float, f1: float, anomalous: int, good: int) -> list[dict]:
    """Every confusion matrix on so many images that rounds to both values (x 100, one decimal).

    Positive is anomalous: F1 = 2 TP / (2 TP + FP + FN) and TP + TN = accuracy x n, so the two values leave few
    pairs (TP, TN) of whole numbers. Recall and specificity are x 100.
    """
    return [
        {
            "tp": one.tp, "fn": one.fn, "tn": one.tn, "fp": one.fp,
            "recall": round(100 * one.tp / anomalous, 1), "specificity": round(100 * one.tn / good, 1),
        }
        for one in implied.consistent(anomalous, good, accuracy=accuracy, f1=f1)
    ]  # fmt: skip


def attainable(accuracy: float, images: int) -> list[int]:
    """The counts of right answers among ``images`` that round to ``accuracy`` (x 100, one decimal)."""
    right = np.arange(images + 1)
    return right[np.abs(100 * right / images - accuracy) <= ROUNDING].tolist()


def attainable_frame() -> pd.DataFrame:
    """The 72B's accuracy per category, and on which test set a whole number of right answers gives it."""
    counts = released_counts()
    sets = {"good + logical": ["good", "logical"], "full test set": ["good", "logical", "structural"]}
    rows = [
        {"category": row.category, "published": f"{row.accuracy:.1f}"}
        | {name: _fraction(row.accuracy, int(counts.loc[row.category, kinds].sum())) for name, kinds in sets.items()}
        for row in published.read("lad_reasoner_categories").itertuples()
    ]
    return pd.DataFrame(rows)


def _fraction(accuracy: float, images: int) -> str:
    found = attainable(accuracy, images)
    return " or ".join(f"{right} / {images}" for right in found) or f"no count of {images}"


def certainty_frame() -> pd.DataFrame:
    """The paper's accuracies with Wilson's 95 % intervals on the good + logical images, x 100.

    The interval of F1 is a stratified bootstrap's on the first of the recovered tables.
    """
    images = int(released_counts()[["good", "logical"]].to_numpy().sum())
    rows = published.read("lad_reasoner")
    ends = [wilson(round(value * images / 100), images) for value in rows["accuracy"]]
    f1 = [implied.interval("f1", tables[0]) for tables in recovered_tables().values()]
    spans = {"accuracy, 95 %": ends, "F1, 95 %": [one[1:] for one in f1]}
    texts = {name: [f"{100 * low:.1f} to {100 * high:.1f}" for low, high in pairs] for name, pairs in spans.items()}
    return rows[["method", "accuracy", "f1", "balanced_accuracy"]].assign(**texts)


def recovered_tables() -> dict[str, list[implied.Table]]:
    """Every confusion table that the paper's accuracy and F1 leave open, by method."""
    kinds = released_counts().sum()
    return {
        row.method: implied.consistent(int(kinds["logical"]), int(kinds["good"]), accuracy=row.accuracy, f1=row.f1)
        for row in published.read("lad_reasoner").itertuples()
    }


def power_frame(deviation: float = 1.0) -> pd.DataFrame:
    """What tests of the paper's differences in accuracy could show; our analysis of published figures, as text.

    ``deviation`` is an assumption, in points: the paper has one run a method, so its spread over seeds is unknown.
    """
    tables = recovered_tables()
    return pd.DataFrame([_compared(tables, *pair, deviation) for pair in COMPARED])


def _compared(tables: dict[str, list[implied.Table]], before: str, after: str, deviation: float) -> dict:
    """One row; p over all tables that the rounding leaves open, power and sizes of the first of them."""
    first, second = tables[before], tables[after]
    one, other = first[0], second[0]
    apart = implied.over_tables(implied.unpaired_p, first, second)
    least = implied.over_tables(implied.paired_p, first, second)[0]
    most = implied.over_tables(partial(implied.paired_p, most=True), first, second)[-1]
    points = 100 * (other.right / other.images - one.right / one.images)
    return {
        "difference": f"{after} minus {before}",
        "points": f"{points:+.1f}",
        "p, unpaired": p_text(apart[0]),
        "p, paired": f"{p_text(least)} to {p_text(most)}",
        "power, unpaired": f"{100 * implied.unpaired_power(one, other):.0f} %",
        "images for 80 %, unpaired": f"{implied.unpaired_images(one, other):,}",
        "images for 80 %, paired, at least": f"{implied.paired_images(one, other):,}",
        f"seeds for 80 %, if they spread by {deviation:g}": str(implied.seeds_needed(points, deviation)),
    }


def p_text(value: float) -> str:
    """A p-value to be read."""
    return "below 0.001" if value < 0.001 else f"{value:.3f}"
