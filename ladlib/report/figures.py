"""Figures of answers, of training and of the study. Each function returns a matplotlib Figure.

``answers`` is a frame with a row per answered pair and the keys of :class:`ladlib.records.Generation` as columns.
matplotlib and seaborn take seconds to import, so notebooks reach this module through ``lad.figures``.

>>> save(training([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]), RunFolder("run"), "sft")  # doctest: +SKIP
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ladlib.errors import UserError
from ladlib.metrics import expected_calibration_error, reliability
from ladlib.parsing import parse_answer
from ladlib.records import ARMS
from ladlib.report.style import (
    ANOMALY_COLOURS,
    ARM_COLOURS,
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    finish,
    panels,
    single,
    styled,
)
from ladlib.report.style import save as save
from ladlib.results import NAMES
from ladlib.statistics import wilson

Log = Sequence[dict] | pd.DataFrame
PANELS = {  # title: {column of the training log: (label, colour)}
    "Mean reward": {
        "reward": ("sum", BLUE), "accuracy_reward": ("accuracy", GREEN), "format_reward": ("format", ORANGE),
    },
    "Reward std in a group": {"reward_std": ("", PURPLE)},
    "Groups and completions": {
        "frac_reward_zero_std": ("zero-variance groups", RED), "truncated_fraction": ("truncated", ORANGE),
    },
    "Completion length, tokens": {"completion_length": ("", BLUE)},
    'Share of "yes" answers': {"yes_rate": ("", BLUE)},
    "KL to reference, nats": {"kl": ("", GREEN)},
    "Entropy, nats": {"entropy": ("", PURPLE)},
    "Seconds per step": {
        "seconds_generate": ("generate", BLUE), "seconds_reward": ("reward", ORANGE),
        "seconds_update": ("update", GREEN),
    },
}  # fmt: skip
SHARES = ("Groups and completions", 'Share of "yes" answers')


# Training


@styled
def training(log: Log) -> Figure:
    """Training by step, each quantity pale and its running mean bold: the loss of SFT, or rewards, answers and time."""
    rows = read_log(log)
    chosen = {title: lines for title, lines in PANELS.items() if set(lines) & set(rows)}
    if "loss" in rows and "reward" not in rows:
        chosen = {"SFT: loss on the assistant's tokens": {"loss": ("", BLUE)}}
    size = (7, 3.2) if len(chosen) == 1 else (2.9, 2.7)
    figure, grid = panels(len(chosen), *size, sharex=True)
    for axes, (title, lines) in zip(grid, chosen.items(), strict=True):
        known = [key for key in lines if key in rows]
        for key, dashes in zip(known, ("-", "--", ":"), strict=False):
            step_line(axes, rows, key, lines[key][1], label=lines[key][0] or None, linestyle=dashes)
        axes.set(title=title, xlabel="step")
        if title in SHARES:
            axes.set_ylim(-0.03, 1.03)
        elif len(lines) > 1 or len(chosen) == 1:
            axes.set_ylim(0, 1.25 * max(1e-9, np.nanmax(rows[known].to_numpy())))
        if len(lines) > 1:
            axes.legend(loc="upper left", fontsize=8, ncols=3 if title == "Mean reward" else 1)
    return figure


def read_log(log: Log) -> pd.DataFrame:
    """A training log as numbers, NaN where a step did not log one. Raises :class:`UserError` for an empty one."""
    rows = pd.DataFrame(log).rename(columns={"clipped_share": "truncated_fraction"})
    if rows.empty:
        raise UserError("The training log has no rows.", "Run the training notebook first.")
    return rows.drop(columns="alarms", errors="ignore").apply(pd.to_numeric, errors="coerce")


def running_mean(values: pd.Series, steps: int) -> pd.Series:
    """The mean of each value and its neighbours up to ``steps // 2`` away; gaps are left out of it."""
    return values.rolling(2 * (max(1, steps) // 2) + 1, center=True, min_periods=1).mean()


def step_line(axes: Axes, rows: pd.DataFrame, key: str, colour: str, **look: object) -> None:
    """One quantity by step, pale, under its running mean."""
    axes.plot(rows["step"], rows[key], color=colour, alpha=0.28, linewidth=1)
    axes.plot(rows["step"], running_mean(rows[key], len(rows) // 12), color=colour, **look)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


# Answers


def by_arm(answers: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(arm, its answers with columns ``parsed`` and ``right``), arms in their usual order."""
    if answers.empty:
        raise UserError("There are no answers to draw.", "Run notebook 04_evaluation first.")
    parsed = answers["text"].map(parse_answer)
    rows = answers.assign(parsed=parsed, right=parsed == answers["label"])
    return [(arm, rows[rows["arm"] == arm]) for arm in in_order(rows["arm"])]


def in_order(arms: Iterable[str]) -> list[str]:
    """``arms`` once each: those of the study in their order, then others."""
    present = list(dict.fromkeys(arms))
    return [arm for arm in ARMS if arm in present] + [arm for arm in present if arm not in ARMS]


def _name(arm: str) -> str:
    return NAMES.get(arm, arm)


def _scores(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series] | None:
    """(whether anomalous, P(anomalous)) as :func:`ladlib.metrics.ranks` has it; None where it is not known."""
    unknown, truth = rows["p_yes"].isna(), rows["label"] == "yes"
    if unknown.all() or (unknown & rows["parsed"].notna()).any():
        return None
    return truth, rows["p_yes"].where(~unknown, (~truth).astype(float)).astype(float)


@styled
def confusion(answers: pd.DataFrame) -> Figure:
    """Confusion matrices, one per variant: count and share of the row, right answers green and wrong ones orange.

    Unparsed answers, which are wrong, have their own column.
    """
    arms = by_arm(answers)
    figure, grid = panels(len(arms), 4.2 if len(arms) == 1 else 2.9, 2.7)
    colours = LinearSegmentedColormap.from_list("", ["#F2B48A", "white", "#8CCFB9"])
    signs = np.array([[1, -1, -1], [-1, 1, -1]])
    for axes, (arm, rows) in zip(grid, arms, strict=True):
        cells = pd.crosstab(rows["label"], rows["parsed"].fillna("unparsed"))
        cells = cells.reindex(index=["no", "yes"], columns=["no", "yes", "unparsed"], fill_value=0)
        shares = cells.div(cells.sum(axis=1).clip(lower=1), axis=0)
        texts = cells.astype(str) + shares.map("\n{:.0%}".format)
        look = {"fmt": "", "cbar": False, "cmap": colours, "vmin": -1, "vmax": 1, "annot_kws": {"color": INK}}
        sns.heatmap(shares * signs, annot=texts, linewidths=1, ax=axes, **look)
        axes.set(title=_name(arm).replace(", ", ",\n"), xlabel="answer", ylabel="")
        axes.set_yticklabels(["good", "anomalous"], rotation=90, va="center")
    return figure


@styled
def categories(answers: pd.DataFrame) -> Figure:
    """Accuracy per category on good and logical images, a dot per variant with its 95 % interval (Wilson).

    Seeds are averaged. Dashes mark what always answering "anomalous" scores.
    """
    arms = by_arm(answers[answers["anomaly"] != "structural"])
    names = [*sorted(set(answers["category"])), "pooled"]
    figure, axes = single(max(7, 1.6 * len(names)), 3.6)
    for number, (arm, rows) in enumerate(arms):
        both = pd.concat([rows, rows.assign(category="pooled")])
        cells = both.groupby(["category", "seed"])["right"].agg(["mean", "size"]).groupby("category").mean()
        spots = [names.index(one) + 0.75 * ((number + 0.5) / len(arms) - 0.5) for one in cells.index]
        ends = np.array([wilson(round(share * n), round(n)) for share, n in cells.itertuples(index=False)]).T
        look = {"fmt": "o", "color": ARM_COLOURS.get(arm, GREY), "markeredgecolor": INK, "markeredgewidth": 0.5}
        axes.errorbar(spots, cells["mean"], np.abs(ends - cells["mean"].to_numpy()), label=_name(arm), **look)
    images = pd.concat([rows for _, rows in arms]).drop_duplicates(["dataset", "id"])
    is_anomalous = pd.concat([images, images.assign(category="pooled")]).set_index("category")["label"] == "yes"
    spots, look = np.arange(len(names)), {"color": INK, "linewidth": 1.2, "linestyle": "--"}
    shares = is_anomalous.groupby(level=0).mean().reindex(names)
    axes.hlines(shares, spots - 0.42, spots + 0.42, label=NAMES["always_yes"], **look)
    axes.set_xticks(spots, [name.replace("_", "\n") for name in names])
    finish(axes, percent=True, title="Accuracy per category, good + logical images; lines: 95 % intervals", ylim=(0, 1))
    return figure


@styled
def roc(answers: pd.DataFrame) -> Figure:
    """ROC curves of P(anomalous), one per variant that saw both kinds of image and reports it."""
    from sklearn.metrics import RocCurveDisplay, roc_auc_score

    figure, axes = single(6.6, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for arm, rows in by_arm(answers):
        known = _scores(rows)
        if known and known[0].nunique() == 2:
            look = {"color": ARM_COLOURS.get(arm, GREY), "linewidth": 1.8}
            RocCurveDisplay.from_predictions(*known, ax=axes, curve_kwargs=look)
            axes.lines[-1].set_label(f"{_name(arm)}: {100 * roc_auc_score(*known):.1f}")
    labels = {"xlabel": "good images called anomalous", "ylabel": "anomalous images found", "aspect": "equal"}
    finish(axes, legend="AUROC × 100", title="ROC of P(anomalous)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), **labels)
    return figure


@styled
def calibration(answers: pd.DataFrame) -> Figure:
    """Reliability diagrams: mean P(anomalous) of a tenth of the scale against the share that is anomalous.

    The area of a dot is the number of images there, ten at least; on the dashed line P(anomalous) is calibrated.
    """
    figure, axes = single(6.6, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for arm, rows in by_arm(answers):
        if known := _scores(rows):
            points = reliability(*known).query("images >= 10")
            name = f"{_name(arm)}: {100 * expected_calibration_error(*known):.1f}"
            line, colour = (points["predicted"], points["observed"]), ARM_COLOURS.get(arm, GREY)
            axes.plot(*line, color=colour, linewidth=1.2, label=name)
            axes.scatter(*line, 150 * points["images"] / len(rows) + 8, colour)
    labels = {"xlabel": "mean P(anomalous)", "ylabel": "share that is anomalous", "aspect": "equal"}
    limits = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.02)}
    finish(axes, legend="ECE × 100", title="Calibration of P(anomalous)", **limits, **labels)
    return figure


@styled
def certainty(answers: pd.DataFrame) -> Figure:
    """Histograms of P(anomalous), a panel per variant, a colour per kind of image; 0.5 is marked."""
    arms = by_arm(answers)
    figure, grid = panels(len(arms), 4.6 if len(arms) == 1 else 3.3, 2.9, sharey=True)
    for axes, (arm, rows) in zip(grid, arms, strict=True):
        known = rows.dropna(subset="p_yes").astype({"p_yes": float})
        kinds = {kind: colour for kind, colour in ANOMALY_COLOURS.items() if kind in set(known["anomaly"])}
        look = {"hue": "anomaly", "hue_order": list(kinds), "palette": kinds, "legend": arm == arms[-1][0]}
        bins = {"stat": "proportion", "common_norm": False, "bins": 20, "binrange": (0, 1), "element": "step"}
        if kinds:
            sns.histplot(known, x="p_yes", alpha=0.18, ax=axes, **bins, **look)
        axes.axvline(0.5, color=INK, linewidth=0.8, linestyle="--")
        axes.set(title=_name(arm), xlabel="P(anomalous)", ylabel="share of that kind's images", xlim=(0, 1))
    return figure


@styled
def defects_found(answers: pd.DataFrame) -> Figure:
    """Share of anomalous images found by each variant, a row per category and defect (number of images)."""
    rows = pd.concat([rows for _, rows in by_arm(answers)])
    rows = rows[rows["anomaly"] != "good"]
    if rows.empty:
        raise UserError("There are no anomalous images among the answers.", "Run notebook 04_evaluation first.")
    names = (rows["category"] + ": " + rows["defect"]).str.replace("_", " ")
    titles = names + " (" + rows.groupby(names)["id"].nunique().astype(str).reindex(names).to_numpy() + ")"
    shares = rows.groupby([titles, "arm"])["right"].mean().unstack()[in_order(rows["arm"])]
    figure, axes = single(4 + 1.1 * shares.shape[1], 1 + 0.26 * max(4, len(shares)))
    sns.heatmap(shares, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=0.5, ax=axes)
    axes.set_xticklabels([_name(arm).replace(", ", ",\n") for arm in shares.columns], rotation=0)
    axes.set(title="Anomalies found, by defect (images)", xlabel="", ylabel="")
    return figure


@styled
def sensitivity(frame: pd.DataFrame) -> Figure:
    """Changed answers under each condition, % of the same pairs, with 95 % intervals (Wilson); a panel per variant.

    ``frame`` has the columns method, seed, condition, flips, low and high.
    """
    parts = list(frame.dropna(subset="flips").groupby(["method", "seed"], sort=False))
    figure, grid = panels(len(parts), 8, 1 + 0.3 * max(len(rows) for _, rows in parts), across=1)
    for axes, ((method, seed), rows) in zip(grid, parts, strict=True):
        values = rows[["flips", "low", "high"]].to_numpy(dtype=float).T
        reach = np.abs(values[1:] - values[0])
        axes.errorbar(values[0], rows["condition"], xerr=reach, fmt="o", color=BLUE, ecolor=GREY)
        axes.set(title=f"Changed answers, {method}, seed {seed}", xlim=(-2, 100), xlabel="% of the pairs")
        axes.invert_yaxis()
        axes.grid(axis="x")
    return figure
