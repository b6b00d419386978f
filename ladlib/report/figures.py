"""Figures of training, of answers and of the study, in one look: colour-blind-safe, with alt text.

``answers`` is a frame with a row per answered pair and the keys of :class:`ladlib.records.Generation` as columns.
matplotlib and seaborn take seconds to import, so notebooks reach this module through ``lad.figures``.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from io import BytesIO
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ladlib
from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.report.cards import image_tag
from ladlib.results import NAMES
from ladlib.runs import RunFolder, write_bytes
from ladlib.statistics import wilson

Log = Sequence[dict] | pd.DataFrame
# Okabe and Ito's palette (2008), with greys.
SKY, BLUE, GREEN, ORANGE, RED, PURPLE = "#56B4E9", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE, YELLOW = "#26323D", "#8A96A3", "#E3E8ED", "#F0E442"
ARM_COLOURS = {
    "base": GREY, "sft": SKY, "grpo_only": ORANGE, "sft_grpo": BLUE, "sft_long": GREEN, "accuracy_only": PURPLE,
    "format_only": YELLOW, "large": INK,
}  # fmt: skip
ASSETS = Path(ladlib.__file__).parent / "assets"
STYLE = ASSETS / "figures.mplstyle"
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
COLLAPSE = {
    "reward": "mean reward", "reward_std": "reward std\nwithin a group", "yes_rate": 'share of "yes"',
    "completion_length": "length, tokens",
}  # fmt: skip


class Drawing(Figure):
    """A figure that a notebook shows with ``alt``, as HTML: JupyterLab drops the alt text of image outputs."""

    alt = ""

    def _ipython_display_(self) -> None:  # a mime bundle would be joined by matplotlib's own image/png
        file = BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        display({"text/html": image_tag(file.getvalue(), self.alt), "text/plain": self.alt}, raw=True)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """``draw`` in this style; its docstring's first paragraph and ``note``, a line below, are the alt text."""

    @wraps(draw)
    def inside(*args: object, note: str = "", **kwargs: object) -> Figure:
        with plt.style.context(STYLE):
            figure = draw(*args, **kwargs)
            if note:
                figure.supxlabel(note, x=0.99, ha="right", fontsize=8, color=GREY)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, not again for every file
        plt.close(figure)  # a notebook shows it once
        titles = [" ".join((axes.get_title("left") or axes.get_title("center")).split()) for axes in figure.axes]
        what = " ".join([*inspect.getdoc(draw).split("\n\n")[0].split(), *note.split()])
        figure.alt = f"{what} Panels: {'; '.join(filter(None, titles))}"
        return figure

    return inside


def panels(count: int, width: float, height: float, across: int = 4, **grid: object) -> tuple[Figure, list[Axes]]:
    """A figure and its ``count`` panels of that size in inches, at most ``across`` in a line."""
    across, down = min(across, count), -(-count // across)
    figure = plt.figure(figsize=(width * across, height * down), FigureClass=Drawing)
    axes = list(figure.subplots(down, across, squeeze=False, **grid).ravel())
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def legend_at_right(axes: Axes, title: str | None = None) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title=title, alignment="left")


def save(figure: Figure, run: RunFolder, name: str) -> None:
    """Write ``figures/<name>.png`` (120 dots per inch) and ``.pdf``; the same figure gives the same bytes."""
    undated = {"Creator": None, "Producer": None, "CreationDate": None}
    for form, metadata in (("png", {"Software": None}), ("pdf", undated)):
        file = BytesIO()
        with plt.style.context(STYLE):
            figure.savefig(file, dpi=120, format=form, metadata=metadata)
        write_bytes(run.figures / f"{name}.{form}", file.getvalue())


def drawing(name: str) -> HTML:
    """An SVG of ``ladlib/assets`` (grpo-loop, grpo-spread, grpo-objective) with its description as alt text."""
    file = ASSETS / f"{name}.svg"
    description = ElementTree.parse(file).findtext("{http://www.w3.org/2000/svg}desc")
    return HTML(image_tag(file.read_bytes(), description, mime="svg+xml"))


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
        for key, colour, dashes in zip(known, (BLUE, GREEN, ORANGE), ("-", "--", ":"), strict=False):
            step_line(axes, rows, key, colour, label=lines[key] or None, linestyle=dashes)
            for other in others:
                step_line(axes, other, key, colour, linestyle=dashes)
        axes.set(title=title, xlabel="step")
        if len(lines) > 1:
            axes.legend(fontsize=7.5)
    return figure


def read_log(log: Log) -> pd.DataFrame:
    """A training log as numbers, NaN where a step did not log one. Raises :class:`UserError` for an empty one."""
    rows = pd.DataFrame(log).rename(columns={"clipped_share": "truncated_fraction"})
    if rows.empty:
        raise UserError("The training log has no rows.", "Run the training notebook first.")
    return rows.drop(columns="alarms", errors="ignore").apply(pd.to_numeric, errors="coerce")


def step_line(axes: Axes, rows: pd.DataFrame, key: str, colour: str, **look: object) -> None:
    """One quantity by step, pale, under its running mean over a twelfth of the steps; gaps are left out of it."""
    axes.plot(rows["step"], rows[key], color=colour, alpha=0.28, linewidth=1)
    means = rows[key].rolling(2 * (max(1, len(rows) // 12) // 2) + 1, center=True, min_periods=1).mean()
    axes.plot(rows["step"], means, color=colour, **look)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


@styled
def collapse(runs: Mapping[str, Sequence[dict]]) -> Figure:
    """Reward, its spread, share of "yes" and length by step; a column per run, the first one dashed in the others."""
    logs = {title: read_log(log) for title, log in runs.items()}
    first = next(iter(logs))
    figure, grid = panels(4 * len(logs), 2.5, 1.5, len(logs), sharex="col", sharey="row")
    for axes, (key, title) in zip(grid, product(COLLAPSE, logs), strict=True):
        if title != first:
            step_line(axes, logs[first], key, GREY, linestyle="--", linewidth=1.2, label=first)
        step_line(axes, logs[title], key, BLUE)
        axes.set(xlabel="step", ylabel=COLLAPSE[key], title=title if key == "reward" else "")
        axes.label_outer()
    grid[len(logs) - 1].legend()
    return figure


@styled
def strategy(models: pd.DataFrame) -> Figure:
    """How the models of the study compare two images, and how well: share of rationales by part type, and accuracy.

    ``models`` is :func:`ladlib.report.analysis.strategies`; a point is one trained model.
    """
    figure, (shares, scores) = panels(2, 5.4, 3.4)
    palette = {NAMES[arm]: ARM_COLOURS[arm] for arm in models["arm"].unique()}
    look = {"data": models, "x": "by_type", "hue": "method", "palette": palette, "edgecolor": INK, "legend": False}
    sns.stripplot(y="method", size=8, linewidth=0.5, jitter=False, ax=shares, **look)
    sns.scatterplot(y="balanced_accuracy", s=55, linewidth=0.5, ax=scores, **look)
    shares.set(title="How each model compares", ylabel="")
    scores.set(title="… and how well it does", ylabel="balanced accuracy, %")
    for axes in (shares, scores):
        axes.set(xlabel="rationales that match parts by type, %", xlim=(-4, 104))
    if models["by_type"].nunique() > 2:
        r = models["by_type"].corr(models["balanced_accuracy"])
        scores.annotate(f"r = {r:.2f}, {len(models)} models", (0.03, 0.93), xycoords="axes fraction", color=INK)
    return figure


def by_arm(answers: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(arm, its answers with columns ``parsed`` and ``right``), arms in the order of the answers."""
    if answers.empty:
        raise UserError("There are no answers to draw.", "Run notebook 04_evaluation first.")
    parsed = answers["text"].map(parse_answer)
    return list(answers.assign(parsed=parsed, right=parsed == answers["label"]).groupby("arm", sort=False))


def _name(arm: str) -> str:
    return NAMES.get(arm, arm).replace(", ", ",\n")


@styled
def roc(answers: pd.DataFrame) -> Figure:
    """ROC curves of P(anomalous), one per variant that saw both kinds of image and reports it."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, (axes,) = panels(1, 6.6, 4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for arm, rows in by_arm(answers):
        truth, unknown = rows["label"] == "yes", rows["p_yes"].isna()
        if truth.nunique() == 2 and not unknown.all() and rows.loc[unknown, "parsed"].isna().all():
            p_yes = rows["p_yes"].where(~unknown, (~truth).astype(float)).astype(float)  # as metrics.ranks has it
            label = f"{_name(arm)}: {100 * roc_auc_score(truth, p_yes):.1f}"
            axes.plot(*roc_curve(truth, p_yes)[:2], color=ARM_COLOURS.get(arm, GREY), linewidth=1.8, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", title="ROC of P(anomalous)")
    axes.set(xlabel="good images called anomalous", ylabel="anomalous images found")
    legend_at_right(axes, "AUROC × 100")
    return figure


@styled
def confusion(answers: pd.DataFrame) -> Figure:
    """Confusion matrices, one per variant: count and share of the row, darker where the share is higher."""
    arms = by_arm(answers)
    figure, grid = panels(len(arms), 4.2 if len(arms) == 1 else 2.9, 2.7)
    for axes, (arm, rows) in zip(grid, arms, strict=True):
        cells = pd.crosstab(rows["label"], rows["parsed"].fillna("unparsed"))
        cells = cells.reindex(index=["no", "yes"], columns=["no", "yes", "unparsed"], fill_value=0)
        shares = cells.div(cells.sum(axis=1).clip(lower=1), axis=0)
        texts = cells.astype(str) + shares.map("\n{:.0%}".format)
        sns.heatmap(shares, annot=texts, fmt="", cmap="Blues", vmin=0, vmax=1, cbar=False, linewidths=1, ax=axes)
        axes.set(title=_name(arm), xlabel="answer", ylabel="")
        axes.set_yticklabels(["good", "anomalous"], rotation=90, va="center")
    return figure


@styled
def categories(answers: pd.DataFrame) -> Figure:
    """Accuracy per category on good and logical images, a dot per variant with its 95 % interval (Wilson).

    Seeds are averaged. Dashes mark what always answering "anomalous" scores.
    """
    both = answers[answers["anomaly"] != "structural"]
    both = pd.concat([both, both.assign(category="pooled")])
    arms, names = by_arm(both), [*sorted(set(both["category"]) - {"pooled"}), "pooled"]
    figure, (axes,) = panels(1, max(7, 1.6 * len(names)), 3.6)
    for number, (arm, rows) in enumerate(arms):
        cells = rows.groupby(["category", "seed"])["right"].agg(["mean", "size"]).groupby("category").mean()
        spots = [names.index(name) + 0.75 * ((number + 0.5) / len(arms) - 0.5) for name in cells.index]
        ends = [wilson(round(mean * size), round(size)) for mean, size in cells.itertuples(index=False, name=None)]
        look = {"color": ARM_COLOURS.get(arm, GREY), "markeredgecolor": INK, "markeredgewidth": 0.5}
        share = cells["mean"].to_numpy()
        axes.errorbar(spots, share, np.abs(np.transpose(ends) - share), fmt="o", label=_name(arm), **look)
    images = both.drop_duplicates(["category", "dataset", "id"])
    shares, spots = (images["label"] == "yes").groupby(images["category"]).mean(), np.arange(len(names))
    look = {"color": INK, "linewidth": 1.2, "linestyle": "--", "label": NAMES["always_yes"]}
    axes.hlines(shares.reindex(names), spots - 0.42, spots + 0.42, **look)
    axes.set_xticks(spots, [name.replace("_", "\n") for name in names])
    axes.set(title="Accuracy per category, good + logical images; lines: 95 % intervals", ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    legend_at_right(axes)
    return figure


@styled
def operating_points(points: Mapping[str, pd.DataFrame]) -> Figure:
    """Recall against specificity, a panel per block of methods, numbered as in the legend.

    The frames have the columns method, recall and specificity, x 100. Along a grey line the balanced accuracy is the
    same; the black one is that of answers which do not depend on the image.
    """
    figure, grid = panels(len(points), 6.6, 4.2)
    for axes, (title, frame) in zip(grid, points.items(), strict=True):
        for balanced in range(10, 100, 10):
            axes.axline((2 * balanced - 100, 100), slope=-1, color=INK if balanced == 50 else PALE, linewidth=1)
        for number, row in enumerate(frame.dropna(subset=["recall", "specificity"]).itertuples(), 1):
            axes.scatter(row.specificity, row.recall, s=36, color=BLUE, label=f"{number}  {row.method}", zorder=3)
            axes.annotate(str(number), (row.specificity, row.recall), (5, 4), textcoords="offset points", fontsize=8)
        axes.set(title=title, xlim=(-4, 108), ylim=(-4, 108), aspect="equal")
        axes.set(xlabel="specificity: good images passed, %", ylabel="recall: anomalous images found, %")
        legend_at_right(axes)
    return figure
