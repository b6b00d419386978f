"""Figures of what was counted: confusion matrices, bars per category, ROC curves, images per split."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from ladlib.errors import UserError
from ladlib.metrics import judge, ranks
from ladlib.parsing import parse_answer
from ladlib.records import ARMS, Generation, Sample
from ladlib.report.style import (
    ANOMALY_COLOURS,
    ARM_COLOURS,
    ARM_DASHES,
    ARM_HATCHES,
    GREY,
    INK,
    PALE,
    RIGHT,
    WRONG,
    canvas,
    styled,
)
from ladlib.report.tables import NAMES
from ladlib.statistics import wilson

ANSWERS = ("no", "yes", None)


@styled
def confusion(generations: Iterable[Generation]) -> Figure:
    """One confusion matrix an arm: count and share of the row, right answers green, wrong ones red.

    Unparsed answers, which are wrong, have their own column.
    """
    arms = _by_arm(generations)
    figure = canvas(max(4.2, 3.1 * len(arms)), 2.9)
    for axes, (arm, rows) in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms.items(), strict=True):
        _matrix(axes, rows)
        axes.set_title(NAMES.get(arm, arm))
    return figure


def _matrix(axes: Axes, rows: Sequence[Generation]) -> None:
    answered = [(one.label, parse_answer(one.text)) for one in rows]
    counts = np.array([[answered.count((label, answer)) for answer in ANSWERS] for label in ("no", "yes")])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    full = np.array([[to_rgb(RIGHT if line == column else WRONG) for column in range(3)] for line in range(2)])
    axes.imshow(1 - 0.75 * shares[..., None] * (1 - full), aspect="auto")
    for (line, column), count in np.ndenumerate(counts):
        axes.text(column, line, f"{count}\n{shares[line, column]:.0%}", ha="center", va="center")
    axes.set_xticks(range(3), ["no", "yes", "unparsed"])
    axes.set_yticks(range(2), ["good", "anomalous"], rotation=90, va="center")
    axes.set_xlabel("answer")
    axes.grid(False)
    axes.spines[:].set_visible(False)


@styled
def category_bars(metric_rows: Sequence[dict], subset: str = "logical", measure: str = "accuracy") -> Figure:
    """One group of bars a category, a bar an arm (seeds averaged), with Wilson's 95 % intervals for accuracy.

    Short dashes mark what always answering yes scores.
    """
    frame = pd.DataFrame([row for row in metric_rows if row["subset"] == subset and row["category"] != "mean"])
    if frame.empty:
        raise UserError(f"There are no scores of subset {subset!r}.", "Evaluate first.")
    places = list(dict.fromkeys(frame["category"]))
    arms = [arm for arm in ARMS if arm in set(frame["arm"])]
    figure = canvas(max(7, 1.5 * len(places)), 3.6)
    axes = figure.subplots()
    width = 0.8 / max(1, len(arms))
    for place, arm in enumerate(arms):
        shift = (place - (len(arms) - 1) / 2) * width
        _bars(axes, frame[frame["arm"] == arm], places, shift, width, measure)
    _trivial_dashes(axes, frame[frame["arm"] == "always_yes"], places, measure)
    axes.set_xticks(range(len(places)), [place.replace("_", "\n") for place in places])
    axes.set(title=f"{measure.replace('_', ' ').capitalize()} per category, good + {subset} images", ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _bars(axes: Axes, rows: pd.DataFrame, places: list[str], shift: float, width: float, measure: str) -> None:
    arm = rows["arm"].iloc[0]
    means = rows.groupby("category")[[measure, "n"]].mean().reindex(places)
    values = means[measure].to_numpy(dtype=float)
    spots = np.arange(len(places)) + shift
    look = {"color": ARM_COLOURS[arm], "edgecolor": "white", "linewidth": 0, "hatch": ARM_HATCHES.get(arm)}
    axes.bar(spots, values, width * 0.92, label=NAMES[arm], **look)
    if measure == "accuracy":
        known = means.notna().all(axis=1).to_numpy()  # an arm still under way has no answers in some categories
        ends = [wilson(round(value * n), round(n)) for value, n in means[known].itertuples(index=False)]
        reach = np.abs(np.array(ends).T - values[known])
        axes.errorbar(spots[known], values[known], reach, fmt="none", ecolor=INK, elinewidth=0.9, alpha=0.7)


def _trivial_dashes(axes: Axes, rows: pd.DataFrame, places: list[str], measure: str) -> None:
    values = rows.set_index("category")[measure].reindex(places)
    spots = np.arange(len(places))
    axes.hlines(
        values,
        spots - 0.45,
        spots + 0.45,
        color=INK,
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        label="always yes",
    )


@styled
def roc(generations: Iterable[Generation]) -> Figure:
    """The ROC curve of P(anomalous) of every arm that saw both kinds of image and tells it."""
    figure = canvas(4.6, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for arm, rows in _by_arm(generations).items():
        truth, scores = [one.label == "yes" for one in rows], ranks([judge(one) for one in rows])
        if len(set(truth)) == 2 and scores:
            wrong, found, _ = roc_curve(truth, scores)
            label = f"{NAMES.get(arm, arm)}  {100 * roc_auc_score(truth, scores):.1f}"
            axes.plot(wrong, found, color=ARM_COLOURS.get(arm, GREY), linestyle=ARM_DASHES.get(arm, "-"), label=label)
    axes.set(title="ROC of P(anomalous)", xlabel="good images called anomalous", ylabel="anomalous images found")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", title="AUROC x 100")
    return figure


def _by_arm(generations: Iterable[Generation]) -> dict[str, list[Generation]]:
    arms: dict[str, list[Generation]] = {}
    for one in generations:
        arms.setdefault(one.arm, []).append(one)
    if not arms:
        raise UserError("There are no generations to draw.", "Run notebook 04_evaluation first.")
    return arms


@styled
def counts_bars(samples: Iterable[Sample]) -> Figure:
    """Images a category, stacked by split and kind of anomaly."""
    kinds = {("train", "good"): ("train", PALE), ("validation", "good"): ("validation", GREY)} | {
        ("test", anomaly): (f"test, {anomaly}", colour) for anomaly, colour in ANOMALY_COLOURS.items()
    }
    cells = [(one.category, (one.split, one.anomaly)) for one in samples]
    places = sorted({category for category, _ in cells})
    figure = canvas(8, 0.8 + 0.42 * max(3, len(places)))
    axes = figure.subplots()
    left, names = np.zeros(len(places)), [place.replace("_", " ") for place in places]
    for kind, (label, colour) in kinds.items():
        counts = np.array([cells.count((category, kind)) for category in places])
        if counts.any():
            bars = axes.barh(names, counts, left=left, color=colour, label=label, height=0.68)
            axes.bar_label(bars, [str(count or "") for count in counts], label_type="center", fontsize=8)
        left += counts
    _lay_flat(axes, "Images by split and kind")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


@styled
def defect_bars(samples: Iterable[Sample]) -> Figure:
    """Anomalous test images by defect name, coloured by kind; an image with several defects counts once."""
    rows = [(one.category, one.defect, one.anomaly) for one in samples if one.anomaly != "good"]
    kinds = pd.Series(rows, dtype=object).value_counts().sort_index()
    labels = [f"{category.replace('_', ' ')}: {defect.replace('_', ' ')}" for category, defect, _ in kinds.index]
    figure = canvas(8, 0.8 + 0.2 * max(4, len(kinds)))
    axes = figure.subplots()
    colours = [ANOMALY_COLOURS[anomaly] for *_, anomaly in kinds.index]
    axes.barh(range(len(kinds)), kinds.to_numpy(), color=colours, height=0.7)
    axes.set_yticks(range(len(kinds)), labels)
    axes.set_ylim(-0.6, len(kinds) - 0.4)
    _lay_flat(axes, "Anomalous images by defect (red: logical, orange: structural)")
    return figure


def _lay_flat(axes: Axes, title: str) -> None:
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set(title=title, xlabel="images")
    axes.xaxis.get_major_locator().set_params(integer=True)
