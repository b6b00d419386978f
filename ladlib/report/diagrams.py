"""Figures of data, of GRPO and of published numbers: what notebooks 01, 03 and 05 teach with."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ladlib
from ladlib.config import Data
from ladlib.data.images import FACTOR, fit, open_image, tokens
from ladlib.records import Sample
from ladlib.report import style
from ladlib.report.figures import in_order, intervals, read_log, running_mean, step_line
from ladlib.report.style import GREY, INK, finish, panels, styled
from ladlib.results import NAMES
from ladlib.rewards import group_advantages

DRAWINGS = {  # name in ladlib/assets: alt text
    "grpo-loop": "One step of GRPO: the policy answers one prompt several times, two rewards score each completion,"
    " each reward is compared with the group's mean, and the policy is updated, held near the reference model by KL.",
    "grpo-spread": "Chance that a group of 2, 4, 8 or 16 holds both right and wrong answers, by the policy's accuracy"
    " p: 1 - p^G - (1 - p)^G. It is 0 at both ends, and wider the larger the group.",
    "grpo-objective": "Left: the gain of one token by policy ratio, clipped at 0.8 and 1.2. Right: the KL estimate of"
    " one token, 0 where both policies agree.",
}
COLLAPSE = {"reward": "mean reward", "reward_std": "reward std\nwithin a group", "yes_rate": 'share of "yes"',
            "completion_length": "length, tokens"}  # fmt: skip  # fmt: skip


def drawing(name: str) -> HTML:
    """One of :data:`DRAWINGS` as an image with alt text."""
    svg = Path(ladlib.__file__).parent / "assets" / f"{name}.svg"
    return HTML(style.image_tag(svg.read_bytes(), DRAWINGS[name], mime="svg+xml"))


@styled
def counts(samples: Iterable[Sample]) -> Figure:
    """Images per category, stacked by split and kind of anomaly."""
    colours = {"train": style.PALE, "validation": GREY}
    colours |= {f"test, {kind}": colour for kind, colour in style.ANOMALY_COLOURS.items()}
    names = [(one.category, f"test, {one.anomaly}" if one.split == "test" else one.split) for one in samples]
    return _bars(names, colours, "Images by split and kind")


@styled
def defects(samples: Iterable[Sample]) -> Figure:
    """Anomalous test images by defect, coloured by kind; an image with several defects counts once."""
    names = [(f"{one.category}: {one.defect}", one.anomaly) for one in samples if one.anomaly != "good"]
    return _bars(names, style.ANOMALY_COLOURS, "Anomalous images by defect")


def _bars(names: Sequence[tuple[str, str]], colours: Mapping[str, str], title: str) -> Figure:
    """Horizontal stacked bars with their counts; a name is that of the line and that of the colour."""
    frame = pd.DataFrame(names).value_counts().unstack(fill_value=0).sort_index()
    frame = frame[[kind for kind in colours if kind in frame]].rename(index=lambda name: name.replace("_", " "))
    figure, (axes,) = panels(1, 8.5, 1 + 0.3 * max(4, len(frame)))
    frame.plot.barh(stacked=True, ax=axes, color=colours, width=0.7, legend=False)
    for bars in axes.containers:
        axes.bar_label(bars, [f"{value:.0f}" if value else "" for value in bars.datavalues], label_type="center")
    finish(axes, title=title, xlabel="images", ylabel="", ylim=(len(frame) - 0.4, -0.6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def token_grid(paths: Sequence[Path], data: Data) -> Figure:
    """Images at the size the model sees them, cut into the squares that become one visual token each."""
    figure, grid = panels(len(paths), 2.6, 3.2, len(paths))
    for axes, path in zip(grid, paths, strict=True):
        image = fit(open_image(path), data.min_pixels, data.max_pixels)
        style.show_image(axes, image, style.SKY)
        for step in range(FACTOR, image.height, FACTOR):
            axes.axhline(step - 0.5, color=style.SKY, linewidth=0.8)
        for step in range(FACTOR, image.width, FACTOR):
            axes.axvline(step - 0.5, color=style.SKY, linewidth=0.8)
        axes.set_title(f"{image.width} × {image.height}: {tokens(image.size)} tokens", fontsize=9)
    return figure


@styled
def advantages(groups: Mapping[str, Sequence[float]]) -> Figure:
    """A column per group: its rewards with their mean above, the advantages they turn into below."""
    figure, grid = panels(2 * len(groups), 2.7, 1.9, len(groups), sharex="col", sharey="row")
    for upper, lower, (title, rewards) in zip(grid, grid[len(groups) :], groups.items(), strict=False):
        numbers, values = range(1, len(rewards) + 1), group_advantages(list(rewards))
        upper.scatter(numbers, rewards, color=style.ORANGE, zorder=3)
        upper.axhline(np.mean(rewards), color=INK, linewidth=1, linestyle="--")
        lower.bar(numbers, values, color=[style.GREEN if value > 0 else style.RED for value in values])
        upper.set(title=title, ylim=(-0.2, 2.2))
        lower.set(xlabel="completion", xticks=numbers, ylim=(-2.8, 2.8))
    grid[0].set_ylabel("reward")
    grid[len(groups)].set_ylabel("advantage")
    return figure


@styled
def groups(rollouts: Sequence[dict]) -> Figure:
    """Each stored group as a dot: its share of right answers by step; red where all rewards are equal."""
    colours = {"rewards differ": style.BLUE, "zero variance: no gradient": style.RED}
    frame = pd.DataFrame(rollouts)
    frame["right"] = [np.mean([one["accuracy"] for one in group]) for group in frame["completions"]]
    frame["group"] = [list(colours)[len({one["reward"] for one in group}) == 1] for group in frame["completions"]]
    frame["right"] += np.random.default_rng(0).uniform(-0.012, 0.012, len(frame))  # equal dots would hide each other
    figure, (axes,) = panels(1, 8, 3.1)
    sns.scatterplot(frame, x="step", y="right", hue="group", palette=colours, alpha=0.7, ax=axes)
    title = "Share of right answers in each stored group"
    finish(axes, percent=True, title=title, ylabel="", ylim=(-0.06, 1.06))
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
            ks = [str(k) for k in means[arm, rule].index]
            axes.plot(
                ks, 100 * means[arm, rule], "o-", color=style.ARM_COLOURS[arm], markeredgecolor=INK, label=NAMES[arm]
            )
        axes.plot(ks, [100 * (1 - 0.5 ** int(k)) for k in ks], color=INK, linestyle="--", linewidth=1, label="a coin")
        axes.set(title=rule, xlabel="tries k", xlim=(-0.3, len(ks) - 0.7))
    finish(axes)
    grid[0].set_ylabel("training pairs solved, pass@k, %")
    return figure


@styled
def collapse(runs: Mapping[str, Sequence[dict]]) -> Figure:
    """Reward, its spread, share of "yes" and length by step; a column per run, the healthy one first."""
    logs = [read_log(log) for log in runs.values()]
    figure, grid = panels(4 * len(logs), 2.5, 1.5, len(logs), sharex="col", sharey="row")
    for number, axes in enumerate(grid):
        key, rows = list(COLLAPSE)[number // len(logs)], logs[number % len(logs)]
        if rows is not logs[0]:
            means = running_mean(logs[0][key], len(logs[0]) // 10)
            axes.plot(logs[0]["step"], means, color=GREY, linestyle="--", linewidth=1.2, label="healthy run")
        step_line(axes, rows, key, (style.BLUE, style.PURPLE, style.ORANGE, style.RED)[number % len(logs) % 4])
        if rows is logs[0]:
            axes.set_ylabel(COLLAPSE[key])
    for axes, below, title in zip(grid, grid[-len(logs) :], runs, strict=False):
        axes.set_title(title)
        below.set_xlabel("step")
    grid[len(logs) - 1].legend()
    return figure


@styled
def operating_points(points: Mapping[str, pd.DataFrame]) -> Figure:
    """Recall against specificity, a panel per block of methods, the methods numbered as in the list beside it.

    The frames have the columns method, recall and specificity, x 100. Along a grey line the balanced accuracy is the
    same; the black one is that of answers which do not depend on the image.
    """
    figure, grid = panels(len(points), 6.6, 4.2)
    for axes, (title, frame) in zip(grid, points.items(), strict=True):
        for balanced in range(10, 100, 10):
            colour = INK if balanced == 50 else style.PALE
            axes.axline((2 * balanced - 100, 100), slope=-1, color=colour, linewidth=1)
        for number, row in enumerate(frame.dropna(subset=["recall", "specificity"]).itertuples(), 1):
            at = (row.specificity, row.recall)
            axes.scatter(*at, s=36, color=style.BLUE, label=f"{number}  {row.method}", zorder=3)
            axes.annotate(str(number), at, (5, 4), textcoords="offset points", fontsize=8)
        labels = {"xlabel": "specificity: good images passed, %", "ylabel": "recall: anomalous images found, %"}
        finish(axes, title=title, xlim=(-4, 108), ylim=(-4, 108), aspect="equal", **labels)
    return figure


@styled
def published_categories(frame: pd.DataFrame) -> Figure:
    """The 72B's published accuracy per category with 95 % intervals (Wilson), and what constant answers score.

    ``frame`` has the columns category, correct, n and share_anomalous (0..1): good and logical images.
    """
    figure, (axes,) = panels(1, 9, 3.4)
    spots, share = np.arange(len(frame)), frame["share_anomalous"].to_numpy()
    intervals(axes, spots, frame["correct"], frame["n"], color=INK, label="Qwen2.5-VL-72B, published")
    for heights, colour, name in ((share, style.ORANGE, "always anomalous"), (1 - share, style.BLUE, "always normal")):
        axes.hlines(heights, spots - 0.4, spots + 0.4, color=colour, linewidth=2, label=name)
    axes.set_xticks(spots, [name.replace("_", "\n") for name in frame["category"]])
    title = "Accuracy per category, good + logical images (published, other data)"
    finish(axes, percent=True, title=title, ylim=(0, 1))
    return figure
