"""Figures of training, of answers and of the study. Each function returns a matplotlib Figure.

``answers`` is a frame with a row per answered pair and the keys of :class:`ladlib.records.Generation` as columns.
matplotlib and seaborn take seconds to import, so notebooks reach this module through ``lad.figures``.
"""

from collections.abc import Iterable, Mapping, Sequence

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
from ladlib.report import style
from ladlib.report.style import GREY, INK, finish, panels, styled
from ladlib.results import NAMES
from ladlib.statistics import wilson

Log = Sequence[dict] | pd.DataFrame
PANELS = {  # title: {column of the training log: label}
    "Mean reward": {"reward": "sum", "accuracy_reward": "accuracy", "format_reward": "format"},
    "Reward std in a group": {"reward_std": ""},
    "Groups and completions": {"frac_reward_zero_std": "zero-variance groups", "truncated_fraction": "truncated"},
    "Completion length, tokens": {"completion_length": ""},
    'Share of "yes" answers': {"yes_rate": ""},
    "KL to reference, nats": {"kl": ""},
    "Entropy, nats": {"entropy": ""},
    "Seconds per step": {"seconds_generate": "generate", "seconds_update": "update", "seconds_reward": "reward"},
}
READINGS = {
    "balanced_accuracy": "Balanced accuracy, strict answer", "auroc": "AUROC of P(anomalous)",
    "lenient_balanced_accuracy": "Balanced accuracy, first yes or no",
}  # fmt: skip


@styled
def training(log: Log, *more: Log) -> Figure:
    """Training by step, each quantity pale and its running mean bold: the loss of SFT, or rewards, answers and time.

    ``more`` are the logs of other seeds, drawn in the same panels.
    """
    rows, *others = map(read_log, (log, *more))
    chosen = {title: lines for title, lines in PANELS.items() if set(lines) & set(rows)}
    if "reward" not in rows:
        chosen = {"SFT: loss on the assistant's tokens": {"loss": ""}}
    figure, grid = panels(len(chosen), *((7, 3.2) if len(chosen) == 1 else (2.9, 2.7)), sharex=True)
    for axes, (title, lines) in zip(grid, chosen.items(), strict=True):
        known = [key for key in lines if key in rows]
        for key, colour, dashes in zip(known, (style.BLUE, style.GREEN, style.ORANGE), ("-", "--", ":"), strict=False):
            step_line(axes, rows, key, colour, label=lines[key] or None, linestyle=dashes)
            for other in others:
                step_line(axes, other, key, colour, linestyle=dashes)
        axes.set(title=title, xlabel="step")
        if len(lines) > 1 or len(chosen) == 1:
            axes.set_ylim(0, 1.3 * max(0.01, np.nanmax(rows[known].to_numpy())))
        if len(lines) > 1:
            axes.legend(loc="upper left", fontsize=7.5, ncols=3, columnspacing=1, handlelength=1.3)
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
    return NAMES.get(arm, arm).replace(", ", ",\n")


def _curves(answers: pd.DataFrame) -> Iterable[tuple[str, str, pd.Series, pd.Series]]:
    """(name, colour, whether anomalous, P(anomalous) as metrics.ranks has it) of each arm that it is known of."""
    for arm, rows in by_arm(answers):
        unknown, truth = rows["p_yes"].isna(), rows["label"] == "yes"
        if not unknown.all() and not (unknown & rows["parsed"].notna()).any():
            p_yes = rows["p_yes"].where(~unknown, (~truth).astype(float)).astype(float)
            yield _name(arm), style.ARM_COLOURS.get(arm, GREY), truth, p_yes


def _square(title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure, (axes,) = panels(1, 6.6, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    labels = {"title": title, "xlabel": xlabel, "ylabel": ylabel}
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", **labels)
    return figure, axes


@styled
def roc(answers: pd.DataFrame) -> Figure:
    """ROC curves of P(anomalous), one per variant that saw both kinds of image and reports it."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = _square("ROC of P(anomalous)", "good images called anomalous", "anomalous images found")
    for name, colour, truth, p_yes in _curves(answers):
        if truth.nunique() == 2:
            label = f"{name}: {100 * roc_auc_score(truth, p_yes):.1f}"
            axes.plot(*roc_curve(truth, p_yes)[:2], color=colour, linewidth=1.8, label=label)
    finish(axes, legend="AUROC × 100")
    return figure


@styled
def calibration(answers: pd.DataFrame) -> Figure:
    """Reliability diagrams: mean P(anomalous) of a tenth of the scale against the share that is anomalous.

    The area of a dot is the number of images there, ten at least; on the dashed line P(anomalous) is calibrated.
    """
    figure, axes = _square("Calibration of P(anomalous)", "mean P(anomalous)", "share that is anomalous")
    for name, colour, truth, p_yes in _curves(answers):
        points = reliability(truth, p_yes).query("images >= 10")
        label = f"{name}: {100 * expected_calibration_error(truth, p_yes):.1f}"
        axes.plot("predicted", "observed", data=points, color=colour, linewidth=1.2, label=label)
        axes.scatter("predicted", "observed", 150 * points["images"] / len(truth) + 8, colour, data=points)
    finish(axes, legend="ECE × 100")
    return figure


@styled
def certainty(answers: pd.DataFrame) -> Figure:
    """Histograms of P(anomalous), a panel per variant, a colour per kind of image; 0.5 is marked."""
    arms = by_arm(answers)
    figure, grid = panels(len(arms), 4.6 if len(arms) == 1 else 3.3, 2.9, sharey=True)
    for axes, (arm, rows) in zip(grid, arms, strict=True):
        known = rows.dropna(subset="p_yes").astype({"p_yes": float})
        kinds = {kind: colour for kind, colour in style.ANOMALY_COLOURS.items() if kind in set(known["anomaly"])}
        look = {"hue": "anomaly", "hue_order": list(kinds), "palette": kinds, "legend": arm == arms[-1][0]}
        bins = {"stat": "proportion", "common_norm": False, "bins": 20, "binrange": (0, 1), "element": "step"}
        if kinds:
            sns.histplot(known, x="p_yes", alpha=0.18, ax=axes, **bins, **look)
        axes.axvline(0.5, color=INK, linewidth=0.8, linestyle="--")
        axes.set(title=_name(arm), xlabel="P(anomalous)", ylabel="share of that kind's images", xlim=(0, 1))
    return figure


@styled
def confusion(answers: pd.DataFrame) -> Figure:
    """Confusion matrices, one per variant: count and share of the row, right answers green and wrong ones orange."""
    arms = by_arm(answers)
    figure, grid = panels(len(arms), 4.2 if len(arms) == 1 else 2.9, 2.7)
    colours, signs = LinearSegmentedColormap.from_list("", ["#F2B48A", "white", "#8CCFB9"]), [[1, -1, -1], [-1, 1, -1]]
    for axes, (arm, rows) in zip(grid, arms, strict=True):
        cells = pd.crosstab(rows["label"], rows["parsed"].fillna("unparsed"))
        cells = cells.reindex(index=["no", "yes"], columns=["no", "yes", "unparsed"], fill_value=0)
        shares = cells.div(cells.sum(axis=1).clip(lower=1), axis=0)
        look = {"fmt": "", "cbar": False, "cmap": colours, "vmin": -1, "vmax": 1, "annot_kws": {"color": INK}}
        texts = cells.astype(str) + shares.map("\n{:.0%}".format)
        sns.heatmap(shares * np.array(signs), annot=texts, linewidths=1, ax=axes, **look)
        axes.set(title=_name(arm), xlabel="answer", ylabel="")
        axes.set_yticklabels(["good", "anomalous"], rotation=90, va="center")
    return figure


@styled
def categories(answers: pd.DataFrame) -> Figure:
    """Accuracy per category on good and logical images, a dot per variant with its 95 % interval (Wilson).

    Seeds are averaged. Dashes mark what always answering "anomalous" scores.
    """
    both = answers[answers["anomaly"] != "structural"]
    arms = by_arm(pd.concat([both, both.assign(category="pooled")]))
    names = [*sorted(set(both["category"])), "pooled"]
    figure, (axes,) = panels(1, max(7, 1.6 * len(names)), 3.6)
    for number, (arm, rows) in enumerate(arms):
        cells = rows.groupby(["category", "seed"])["right"].agg(["mean", "size"]).groupby("category").mean()
        spots = [names.index(one) + 0.75 * ((number + 0.5) / len(arms) - 0.5) for one in cells.index]
        look = {"color": style.ARM_COLOURS.get(arm, GREY), "markeredgecolor": INK, "markeredgewidth": 0.5}
        intervals(axes, spots, cells["mean"] * cells["size"], cells["size"], label=_name(arm), **look)
    images = pd.concat([rows for _, rows in arms]).drop_duplicates(["category", "dataset", "id"])
    shares, spots = (images["label"] == "yes").groupby(images["category"]).mean(), np.arange(len(names))
    look = {"color": INK, "linewidth": 1.2, "linestyle": "--", "label": NAMES["always_yes"]}
    axes.hlines(shares.reindex(names), spots - 0.42, spots + 0.42, **look)
    axes.set_xticks(spots, [name.replace("_", "\n") for name in names])
    finish(axes, percent=True, title="Accuracy per category, good + logical images; lines: 95 % intervals", ylim=(0, 1))
    return figure


def intervals(axes: Axes, spots: Sequence[float], right: pd.Series, images: pd.Series, **look: object) -> None:
    """Shares as dots with their 95 % intervals (Wilson)."""
    share = (right / images).to_numpy()
    ends = np.array([wilson(round(count), round(n)) for count, n in zip(right, images, strict=True)])
    axes.errorbar(spots, share, np.abs(ends.T - share), fmt="o", **look)


@styled
def defects_found(answers: pd.DataFrame) -> Figure:
    """Share of anomalous images found by each variant, a row per category and defect (number of images)."""
    rows = pd.concat([rows for _, rows in by_arm(answers)])
    rows = rows[rows["anomaly"] != "good"]
    if rows.empty:
        raise UserError("There are no anomalous images among the answers.", "Run notebook 04_evaluation first.")
    names = (rows["category"] + ": " + rows["defect"]).str.replace("_", " ")
    titles = names + " (" + rows.groupby(names)["id"].nunique().astype(str).reindex(names).to_numpy() + ")"
    shares = rows.groupby([titles, "arm"])["right"].mean().unstack()[in_order(rows["arm"])].rename(columns=_name)
    figure, (axes,) = panels(1, 4 + 1.1 * shares.shape[1], 1 + 0.26 * max(4, len(shares)))
    sns.heatmap(shares, annot=True, fmt=".0%", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=0.5, ax=axes)
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
        flips, *ends = rows[["flips", "low", "high"]].to_numpy(dtype=float).T
        axes.errorbar(flips, rows["condition"], xerr=np.abs(ends - flips), fmt="o", color=style.BLUE, ecolor=GREY)
        axes.set(title=f"Changed answers, {method}, seed {seed}", xlim=(-2, 100), xlabel="% of the pairs")
        axes.invert_yaxis()
    return figure


@styled
def readings(seeds: pd.DataFrame) -> Figure:
    """Every variant under the three scoring rules: a dot per seed, a stroke for the mean; good and logical images.

    ``seeds`` has the columns arm, balanced_accuracy, lenient_balanced_accuracy and auroc, x 100.
    """
    return _strips({title: seeds.assign(score=seeds[key]) for key, title in READINGS.items()})


@styled
def study_categories(metrics: pd.DataFrame) -> Figure:
    """Balanced accuracy by category on good and logical images: a dot per seed, a stroke for the mean of a variant."""
    rows = metrics[(metrics["subset"] == "logical") & ~metrics["category"].isin(["pooled", "mean"])]
    rows = rows.assign(score=100 * rows["balanced_accuracy"].astype(float))
    return _strips({name.replace("_", " "): part for name, part in rows.groupby("category")})


def _strips(parts: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel per part, a line per variant; the parts have the columns arm and score, x 100."""
    known = {title: part[part["arm"].isin(ARMS)].dropna(subset="score") for title, part in parts.items()}
    arms = in_order(arm for part in known.values() for arm in part["arm"])
    if not arms:
        raise UserError("No variant of the figure has scores.", "Run `ladlib study` first.")
    figure, grid = panels(len(known), 12 / len(known), 1.4 + 0.42 * len(arms), len(known), sharey=True, sharex=True)
    for axes, (title, rows) in zip(grid, known.items(), strict=True):
        axes.axvline(50, color=INK, linewidth=0.9, linestyle="--")
        look = {"hue": "arm", "order": arms, "palette": style.ARM_COLOURS, "legend": False, "edgecolor": INK}
        sns.stripplot(rows, x="score", y="arm", jitter=False, size=6, linewidth=0.5, ax=axes, **look)
        for arm, mean in rows.groupby("arm")["score"].mean().items():
            axes.vlines(mean, arms.index(arm) - 0.3, arms.index(arm) + 0.3, color=INK, linewidth=2)
        axes.set(title=title, ylabel="", xlabel="× 100 (50: chance)")
    axes.set_yticks(range(len(arms)), [_name(arm) for arm in arms])
    return figure
