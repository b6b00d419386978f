"""Figures of the study: scoring rules, categories, pass@k and collapsed runs. A dot is a seed, a stroke a mean.

>>> collapse({"healthy": log, "learning rate too high": other_log})  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from ladlib.errors import UserError
from ladlib.records import ARMS
from ladlib.report.figures import in_order, read_log, running_mean, step_line
from ladlib.report.style import ARM_COLOURS, BLUE, GREY, INK, ORANGE, PURPLE, RED, canvas, finish, panels, styled
from ladlib.results import NAMES

READINGS = {
    "balanced_accuracy": "Balanced accuracy, strict answer", "auroc": "AUROC of P(anomalous)",
    "lenient_balanced_accuracy": "Balanced accuracy, first yes or no",
}  # fmt: skip  # fmt: skip


@styled
def readings(seeds: pd.DataFrame) -> Figure:
    """Every variant under the three scoring rules: a dot per seed, a stroke for the mean; good and logical images.

    ``seeds`` has the columns arm, balanced_accuracy, lenient_balanced_accuracy and auroc, x 100.
    """
    return _strips({title: seeds.assign(score=seeds[key]) for key, title in READINGS.items()}, across=3)


@styled
def categories(metrics: pd.DataFrame) -> Figure:
    """Balanced accuracy by category on good and logical images: a dot per seed, a stroke for the mean of a variant."""
    rows = metrics[(metrics["subset"] == "logical") & ~metrics["category"].isin(["pooled", "mean"])]
    rows = rows[rows["arm"].isin(["base", "sft", "grpo_only", "sft_grpo", "large"])]
    rows = rows.assign(score=100 * rows["balanced_accuracy"].astype(float))
    return _strips({name.replace("_", " "): part for name, part in rows.groupby("category")}, across=5)


def _strips(parts: Mapping[str, pd.DataFrame], across: int) -> Figure:
    """A panel per part, a line per variant; the parts have the columns arm and score, x 100."""
    known = {title: part.dropna(subset="score") for title, part in parts.items()}
    arms = [arm for arm in ARMS if any(arm in set(part["arm"]) for part in known.values())]
    if not arms:
        raise UserError("No variant of the figure has scores.", "Run `ladlib study` first.")
    figure, grid = panels(len(known), 11 / across, 1.4 + 0.42 * len(arms), across, sharey=True, sharex=True)
    for axes, (title, rows) in zip(grid, known.items(), strict=True):
        axes.axvline(50, color=INK, linewidth=0.9, linestyle="--")
        look = {"x": "score", "y": "arm", "hue": "arm", "order": arms, "palette": ARM_COLOURS, "legend": False}
        sns.stripplot(rows[rows["arm"].isin(arms)], jitter=False, size=6, edgecolor=INK, linewidth=0.5, ax=axes, **look)
        for arm, values in rows[rows["arm"].isin(arms)].groupby("arm")["score"]:
            line, where = arms.index(arm), {"textcoords": "offset points", "va": "center", "fontsize": 8.5}
            axes.vlines(values.mean(), line - 0.28, line + 0.28, color=INK, linewidth=2)
            axes.annotate(f"{values.mean():.1f}", (values.max(), line), (8, 0), **where)
        axes.set(title=title, ylabel="", xlabel="× 100 (50: chance)")
        axes.margins(x=0.25)
        axes.grid(axis="x")
    axes.set_yticks(range(len(arms)), [NAMES[arm].replace(", ", ",\n") for arm in arms])
    return figure


@styled
def passes(frame: pd.DataFrame) -> Figure:
    """From pass@1 (left) to pass@k (right) by rule type, a line per variant, the mean over seeds; dashed: a coin.

    ``frame`` has the columns arm, rule, k and pass_at, in 0..1. A coin is right in half of its tries: 1 - 0.5 ** k.
    """
    rules = [rule for rule in ("place", "count", "relation", "all") if rule in set(frame["rule"])]
    means = frame.groupby(["arm", "rule", "k"])["pass_at"].mean()
    figure, grid = panels(len(rules), 2.2, 3.2, sharey=True)
    for axes, rule in zip(grid, rules, strict=True):
        for arm in in_order(frame.loc[frame["rule"] == rule, "arm"]):
            values = 100 * means[arm, rule]
            points = range(len(values))
            axes.plot(points, values, marker="o", color=ARM_COLOURS[arm], markeredgecolor=INK, label=NAMES[arm])
        coin = [100 * (1 - 0.5**k) for k in values.index]
        axes.plot(points, coin, color=INK, linestyle="--", linewidth=1, label="a coin")
        axes.set_xticks(points, [f"pass@{k}" for k in values.index])
        axes.set(title=rule, xlim=(-0.3, len(values) - 0.4), ylim=(None, 104))
    finish(axes)
    grid[0].set_ylabel("training pairs solved, %")
    return figure


@styled
def collapse(runs: Mapping[str, Sequence[dict]]) -> Figure:
    """Reward, its spread, share of "yes" and length by step; a column per run, the healthy one first.

    Raises :class:`UserError` where there is no log, or an empty one.
    """
    quantities = {"reward": "mean reward", "reward_std": "reward std\nwithin a group", "yes_rate": 'share of "yes"'}
    quantities["completion_length"] = "length, tokens"
    logs = {title: read_log(log) for title, log in runs.items()}
    if not logs:
        raise UserError("A training log to draw is missing.", "Run `ladlib study` first.")
    figure = canvas(1 + 2.4 * len(logs), 5.6)
    grid = figure.subplots(4, len(logs), sharex="col", sharey="row", squeeze=False)
    colours, healthy = (BLUE, PURPLE, ORANGE, RED), next(iter(logs.values()))
    for number, (column, (title, rows)) in enumerate(zip(grid.T, logs.items(), strict=True)):
        for axes, key in zip(column, quantities, strict=True):
            if number:
                means = running_mean(healthy[key], len(healthy) // 10)
                axes.plot(healthy["step"], means, color=GREY, linestyle="--", linewidth=1.2, label="healthy run")
            step_line(axes, rows, key, colours[number % 4])
        column[0].set_title(title)
        column[-1].set_xlabel("step")
    for axes, label in zip(grid[:, 0], quantities.values(), strict=True):
        axes.set_ylabel(label)
    grid[2, 0].set_ylim(-0.05, 1.05)
    if len(logs) > 1:
        grid[0, 1].legend()
    return figure
