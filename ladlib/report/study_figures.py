"""Figures of the study: three readings of every arm, categories, and what sampling several times could find.

A dot is a seed, a line or bar the mean over seeds.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ladlib.errors import UserError
from ladlib.records import ARMS
from ladlib.report.stored import Stored
from ladlib.report.study_arms import READINGS, seeds_frame
from ladlib.report.style import ARM_COLOURS, ARM_HATCHES, GREY, INK, canvas, styled
from ladlib.report.tables import NAMES
from ladlib.sampling import RULES

TITLES = {"strict": "Strict answer", "lenient": "First yes or no anywhere", "likelihood": "P(anomalous)"}
UNITS = {"strict": "balanced accuracy", "lenient": "balanced accuracy", "likelihood": "AUROC"}
WRAPPED = {
    **NAMES,
    "accuracy_only": "SFT + GRPO,\naccuracy reward only",
    "format_only": "SFT + GRPO,\nformat reward only",
}
SHOWN_BY_CATEGORY = ("base", "sft", "sft_grpo", "large")
BAR_GAP = 0.92


@styled
def readings_figure(stored: Stored) -> Figure:
    """Every arm under the three readings: a dot a seed, a stroke the mean; good + logical images."""
    frame = seeds_frame(stored)
    arms = [arm for arm in ARMS if arm in set(frame["arm"])]
    figure = canvas(9.6, 1.3 + 0.42 * len(arms))
    for axes, (reading, measure) in zip(figure.subplots(1, 3, sharey=True, sharex=True), READINGS.items(), strict=True):
        axes.axvline(50, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        for line, arm in enumerate(arms):
            values = frame.loc[frame["arm"] == arm, measure].dropna().to_numpy()
            if values.size:
                _seed_dots(axes, values, line, ARM_COLOURS[arm])
        axes.set(title=TITLES[reading], xlabel=f"{UNITS[reading]}, × 100 (50: chance)")
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.2 * (high - low))  # room for the values beside the dots
    axes.set_yticks(range(len(arms)), [WRAPPED[arm] for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    return figure


def _seed_dots(axes: Axes, values: np.ndarray, line: float, colour: str) -> None:
    """One arm on a horizontal line: its mean as a short stroke with its value, its seeds as dots."""
    mean = values.mean()
    axes.plot([mean, mean], [line - 0.28, line + 0.28], color=colour, linewidth=2.6, solid_capstyle="butt")
    axes.scatter(values, np.full(values.size, line), s=26, color=colour, edgecolor="white", linewidth=0.7, zorder=3)
    axes.annotate(f"{mean:.1f}", (values.max(), line), (8, 0), textcoords="offset points", va="center", fontsize=8)


@styled
def category_figure(stored: Stored) -> Figure:
    """Balanced accuracy (strict, good + logical) by category: bars from chance, up or down, a dot a seed."""
    frame = by_category(stored)
    if frame.empty:
        raise UserError("No arm of the figure has scores by category.", "Run `ladlib study` first.")
    places, arms = sorted(set(frame["category"])), [arm for arm in SHOWN_BY_CATEGORY if arm in set(frame["arm"])]
    figure = canvas(max(7.5, 1.9 * len(places)), 3.8)
    axes, width = figure.subplots(), 0.8 / max(1, len(arms))
    for number, arm in enumerate(arms):
        shift = (number - (len(arms) - 1) / 2) * width
        _bars_from_chance(axes, frame[frame["arm"] == arm], places, shift, width * BAR_GAP)
    axes.axhline(50, color=INK, linewidth=0.9)
    axes.set_xticks(range(len(places)), [place.replace("_", " ") for place in places])
    axes.set(title="Balanced accuracy by category, good + logical images, × 100 (50: chance)")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def by_category(stored: Stored) -> pd.DataFrame:
    """Columns arm, category, score (x 100): each seed of the arms of ``category_figure``; empty where none is run."""
    rows = [
        (row["arm"], row["category"], 100 * row["balanced_accuracy"])
        for row in stored.metrics
        if row["subset"] == "logical" and row["category"] not in ("pooled", "mean")
        and row["arm"] in SHOWN_BY_CATEGORY and row["balanced_accuracy"] is not None
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "category", "score"])


def _bars_from_chance(axes: Axes, rows: pd.DataFrame, places: list[str], shift: float, width: float) -> None:
    arm = rows["arm"].iloc[0]
    spots = {place: number + shift for number, place in enumerate(places)}
    means = rows.groupby("category")["score"].mean()
    look = {"color": ARM_COLOURS[arm], "label": NAMES[arm], "edgecolor": "white", "linewidth": 0}
    look["hatch"] = ARM_HATCHES.get(arm)
    axes.bar([spots[place] for place in means.index], means - 50, width, bottom=50, **look)
    dots = [spots[place] for place in rows["category"]]
    axes.scatter(dots, rows["score"], s=15, color="white", edgecolor=INK, linewidth=0.8, zorder=3)


@styled
def pass_figure(frame: pd.DataFrame) -> Figure:
    """From pass@1 to pass@k by kind of rule, a line an arm, seeds averaged.

    ``frame`` has the columns arm, rule, k and pass_at, in 0..1. Small dashes are what a coin scores, which is right in
    half of its tries: 1 - 0.5 ** k. Answers have two values only, so what counts is how far pass@1 lies above a half
    and how far pass@k below the coin's: the rest are pairs to which the policy always gives the same, wrong answer.
    """
    rules = [rule for rule in (*RULES, "all") if rule in set(frame["rule"])]
    arms = [arm for arm in ARMS if arm in set(frame["arm"])]
    figure = canvas(1.6 + 1.9 * len(rules), 3.6)
    axes = figure.subplots()
    for number, arm in enumerate(arms):
        _pass_lines(axes, frame[frame["arm"] == arm], rules, (number - (len(arms) - 1) / 2) * 0.26)
    reach = np.arange(len(rules))
    for k in sorted(set(frame["k"])):
        axes.hlines([100 * (1 - 0.5**k)] * len(rules), reach - 0.3, reach + 0.3, color=INK, linestyle=":", linewidth=1)
    axes.set_xticks(reach, rules)
    axes.set(title="Training pairs solved by kind of rule, %", ylim=(None, 103), xlim=(-0.55, len(rules) - 0.45))
    marks = _pass_marks(sorted(set(frame["k"])))
    handles = [*axes.get_legend_handles_labels()[0], *marks, Line2D([], [], color=INK, linestyle=":", label="a coin")]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _pass_lines(axes: Axes, rows: pd.DataFrame, rules: list[str], shift: float) -> None:
    arm = rows["arm"].iloc[0]
    means = 100 * rows.groupby(["rule", "k"])["pass_at"].mean().unstack()
    for place, rule in enumerate(rules):
        if rule in means.index:
            values, spot = means.loc[rule].dropna(), place + shift
            label = NAMES[arm] if place == 0 else None
            axes.plot([spot] * len(values), values, color=ARM_COLOURS[arm], linewidth=3, alpha=0.45, label=label)
            for number, value in enumerate(values):
                fill = "white" if number == 0 else ARM_COLOURS[arm]
                axes.scatter(spot, value, s=44, color=fill, edgecolor=ARM_COLOURS[arm], linewidth=1.8, zorder=3)
                axes.annotate(f"{value:.0f}", (spot, value), (8, -3), textcoords="offset points", fontsize=8)


def _pass_marks(ks: list[int]) -> list[Line2D]:
    look = {"color": GREY, "marker": "o", "linestyle": "", "markersize": 6}
    return [
        Line2D([], [], markerfacecolor="white" if number == 0 else GREY, label=f"pass@{k}", **look)
        for number, k in enumerate(ks)
    ]
