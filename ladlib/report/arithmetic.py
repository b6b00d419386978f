"""What can be worked out from the published numbers alone: counts behind them, and how sure they are.

>>> recovered_counts(60.4, 63.5, anomalous=561, good=575)[0]
{'tp': 391, 'fn': 170, 'tn': 295, 'fp': 280, 'recall': 69.7, 'specificity': 51.3}
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ladlib import implied
from ladlib.data.layout import published as published_counts
from ladlib.records import Anomaly
from ladlib.report import published
from ladlib.report.style import BLUE, GREY, INK, ORANGE, PALE, canvas, styled
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


@styled
def operating_points(points: Mapping[str, pd.DataFrame]) -> Figure:
    """Recall against specificity, a panel for each block of methods.

    The frames have the columns method, recall and specificity, x 100. On a grey line every point has the same balanced
    accuracy; the black one is that of answering blindly.
    """
    figure = canvas(4.9 * len(points), 4.6)
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, (title, frame) in zip(panels, points.items(), strict=True):
        for balanced in range(10, 100, 10):
            axes.axline((2 * balanced - 100, 100), slope=-1, color=INK if balanced == 50 else PALE, linewidth=1)
        _points(axes, frame.dropna(subset=["recall", "specificity"]))
        axes.set(title=title, xlabel="specificity: good images passed, %", xlim=(-4, 104), ylim=(-4, 104))
        axes.set_aspect("equal")
        axes.grid(False)
    panels[0].set_ylabel("recall: anomalous images found, %")
    return figure


def _points(axes: Axes, frame: pd.DataFrame) -> None:
    for row in frame.itertuples():
        blind = abs(row.recall + row.specificity - 100) < 1e-6
        axes.scatter(row.specificity, row.recall, s=36, color=GREY if blind else BLUE, zorder=3)
        aside = (-6, "right") if row.specificity > 55 else (6, "left")
        look = {"textcoords": "offset points", "ha": aside[1], "fontsize": 8, "parse_math": False}
        look["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
        axes.annotate(row.method, (row.specificity, row.recall), (aside[0], 5), **look)


@styled
def published_categories() -> Figure:
    """The 72B's published accuracy per category with Wilson's intervals, and what a blind answer scores."""
    rows, counts = published.read("lad_reasoner_categories"), released_counts()
    places = np.arange(len(rows))
    kinds = counts.loc[rows["category"]]
    share = (kinds["logical"] / (kinds["good"] + kinds["logical"])).to_numpy()
    values = rows["accuracy"].to_numpy() / 100
    ends = np.array([wilson(one.correct, one.n) for one in rows.itertuples()]).T
    figure = canvas(8.5, 3.4)
    axes = figure.subplots()
    axes.bar(places, values, 0.55, color=INK, alpha=0.8, label="Qwen2.5-VL-72B, published")
    axes.errorbar(places, values, np.abs(ends - values), fmt="none", ecolor=GREY, elinewidth=1.4)
    for heights, colour, name in ((share, ORANGE, "always yes"), (1 - share, BLUE, "always no")):
        axes.hlines(heights, places - 0.4, places + 0.4, color=colour, linewidth=2, label=name)
    axes.set_xticks(places, [name.replace("_", "\n") for name in rows["category"]])
    axes.set(title="Accuracy per category, good + logical images (published, other data)", ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
