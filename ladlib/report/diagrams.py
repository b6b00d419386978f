"""Figures of data, of GRPO and of published numbers: what notebooks 01, 03 and 05 teach with.

>>> advantages({"one right of four": [2, 1, 1, 1]})  # doctest: +SKIP
"""

import base64
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
from ladlib.report.style import (
    ANOMALY_COLOURS,
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    SKY,
    canvas,
    finish,
    panels,
    show_image,
    single,
    styled,
)
from ladlib.rewards import group_advantages
from ladlib.statistics import wilson

LOOP = (
    "One step of GRPO: the policy answers one prompt several times, two rewards score each completion, each reward is"
    " compared with the group's mean, and the policy is updated, held near the reference model by the KL term."
)


def loop() -> HTML:
    """The drawing of one GRPO step, ``ladlib/assets/grpo-loop.svg``, as an image with alt text."""
    svg = Path(ladlib.__file__).parent / "assets" / "grpo-loop.svg"
    data = base64.b64encode(svg.read_bytes()).decode("ascii")
    return HTML(f'<img style="max-width:100%" alt="{LOOP}" src="data:image/svg+xml;base64,{data}">')


@styled
def counts(samples: Iterable[Sample]) -> Figure:
    """Images per category, stacked by split and kind of anomaly."""
    kinds = {"train": PALE, "validation": GREY} | {f"test, {kind}": ANOMALY_COLOURS[kind] for kind in ANOMALY_COLOURS}
    names = [(one.category, f"test, {one.anomaly}" if one.split == "test" else one.split) for one in samples]
    frame = pd.DataFrame(names, columns=["category", "kind"]).value_counts().unstack(fill_value=0).sort_index()
    return _bars(frame[[kind for kind in kinds if kind in frame]], kinds, "Images by split and kind")


@styled
def defects(samples: Iterable[Sample]) -> Figure:
    """Anomalous test images by defect, coloured by kind; an image with several defects counts once."""
    names = [(f"{one.category}: {one.defect}", one.anomaly) for one in samples if one.anomaly != "good"]
    frame = pd.DataFrame(names, columns=["defect", "kind"]).value_counts().unstack(fill_value=0).sort_index()
    return _bars(frame, ANOMALY_COLOURS, "Anomalous images by defect")


def _bars(frame: pd.DataFrame, colours: Mapping[str, str], title: str) -> Figure:
    """Horizontal stacked bars with their counts: a row per index, a colour per column."""
    figure, axes = single(8.5, 1 + 0.3 * max(4, len(frame)))
    lines = [name.replace("_", " ") for name in frame.index]
    for column, start in zip(frame, (frame.cumsum(axis=1) - frame).to_numpy().T, strict=True):
        bars = axes.barh(lines, frame[column], left=start, color=colours[column], label=column, height=0.7)
        axes.bar_label(bars, [str(count or "") for count in frame[column]], label_type="center", fontsize=8)
    axes.set(title=title, xlabel="images", ylim=(len(frame) - 0.4, -0.6))
    axes.grid(axis="x")
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(axes)
    return figure


@styled
def token_grid(paths: Sequence[Path], data: Data) -> Figure:
    """Images at the size the model sees them, cut into the squares that become one visual token each."""
    figure, grid = panels(len(paths), 2.6, 3.2, across=len(paths))
    for axes, path in zip(grid, paths, strict=True):
        image = fit(open_image(path), data.min_pixels, data.max_pixels)
        show_image(axes, image, SKY)
        axes.hlines(np.arange(FACTOR, image.height, FACTOR) - 0.5, -0.5, image.width - 0.5, color=SKY, linewidth=0.8)
        axes.vlines(np.arange(FACTOR, image.width, FACTOR) - 0.5, -0.5, image.height - 0.5, color=SKY, linewidth=0.8)
        axes.set_title(f"{image.width} × {image.height}: {tokens(image.size)} tokens", fontsize=9)
    return figure


@styled
def advantages(groups: Mapping[str, Sequence[float]]) -> Figure:
    """A column per group: its rewards with their mean above, the advantages they turn into below."""
    figure = canvas(2.7 * len(groups), 3.8)
    grid = figure.subplots(2, len(groups), sharex="col", sharey="row", squeeze=False)
    for (upper, lower), (title, rewards) in zip(grid.T, groups.items(), strict=True):
        numbers, values = range(1, len(rewards) + 1), group_advantages(list(rewards))
        upper.scatter(numbers, rewards, color=ORANGE, zorder=3)
        upper.axhline(np.mean(rewards), color=INK, linewidth=1, linestyle="--")
        upper.set_title(title)
        lower.bar(numbers, values, color=[GREEN if value > 0 else RED for value in values])
        lower.axhline(0, color=INK, linewidth=0.8)
        lower.set(xlabel="completion", xticks=numbers)
    grid[0, 0].set(ylabel="reward", ylim=(-0.2, max(map(max, groups.values())) + 0.2))
    grid[1, 0].set(ylabel="advantage", ylim=(-2.8, 2.8))
    return figure


@styled
def spread_chance(group_sizes: Sequence[int]) -> Figure:
    """Chance that a group holds both right and wrong answers, by the policy's accuracy p: 1 - p**G - (1 - p)**G."""
    figure, axes = single(7, 3.2)
    p = np.linspace(0, 1, 201)
    for size, colour in zip(group_sizes, (SKY, BLUE, PURPLE, INK), strict=False):
        axes.plot(p, 1 - p**size - (1 - p) ** size, color=colour, label=f"G = {size}")
    labels = {"title": "Chance that a group gives a gradient", "xlabel": "chance of a right answer, p"}
    finish(axes, percent=True, xlim=(0, 1), ylim=(0, 1.03), **labels)
    return figure


@styled
def objective(epsilon: float) -> Figure:
    """The two safeguards of the objective: the clipped gain by policy ratio, and the KL estimate of a token."""
    figure, (left, right) = panels(2, 4.5, 3.1)
    ratio, gap = np.linspace(0.3, 1.7, 281), np.linspace(-1.6, 1.6, 321)
    for advantage, colour in ((1.0, GREEN), (-1.0, RED)):
        gain = np.minimum(ratio * advantage, ratio.clip(1 - epsilon, 1 + epsilon) * advantage)
        left.plot(ratio, gain, color=colour, label=f"advantage {advantage:+.0f}")
    left.axvspan(1 - epsilon, 1 + epsilon, color=PALE, alpha=0.7, linewidth=0)
    left.set(title="Clipped gain of one token", xlabel="policy ratio ρ", ylabel="gain")
    left.legend(loc="center left")
    right.plot(gap, np.exp(gap) - gap - 1, color=PURPLE)
    right.set(title="KL estimate of one token", xlabel="log π_ref − log π", ylabel="penalty, nats", ylim=(0, None))
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
            axes.axline((2 * balanced - 100, 100), slope=-1, color=INK if balanced == 50 else PALE, linewidth=1)
        known = frame.dropna(subset=["recall", "specificity"])
        for number, row in enumerate(known.itertuples(), 1):
            trivial = abs(row.recall + row.specificity - 100) < 1e-6
            look = {"color": GREY if trivial else BLUE, "label": f"{number}  {row.method}", "zorder": 3}
            axes.scatter(row.specificity, row.recall, s=36, **look)
            axes.annotate(str(number), (row.specificity, row.recall), (5, 4), textcoords="offset points", fontsize=8)
        axes.set(title=title, xlabel="specificity: good images passed, %", ylabel="recall: anomalous images found, %")
        axes.set(xlim=(-4, 108), ylim=(-4, 108), aspect="equal")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), handlelength=0.5)
    return figure


@styled
def published_categories(frame: pd.DataFrame) -> Figure:
    """The 72B's published accuracy per category with 95 % intervals (Wilson), and what constant answers score.

    ``frame`` has the columns category, correct, n and share_anomalous (0..1): good and logical images.
    """
    spots, values = np.arange(len(frame)), (frame["correct"] / frame["n"]).to_numpy()
    ends = np.array([wilson(row.correct, row.n) for row in frame.itertuples()]).T
    figure, axes = single(9, 3.4)
    axes.errorbar(spots, values, np.abs(ends - values), fmt="o", color=INK, label="Qwen2.5-VL-72B, published")
    share = frame["share_anomalous"].to_numpy()
    for heights, colour, name in ((share, ORANGE, "always anomalous"), (1 - share, BLUE, "always normal")):
        axes.hlines(heights, spots - 0.4, spots + 0.4, color=colour, linewidth=2, label=name)
    axes.set_xticks(spots, [name.replace("_", "\n") for name in frame["category"]])
    title = "Accuracy per category, good + logical images (published, other data)"
    finish(axes, percent=True, title=title, ylim=(0, 1))
    return figure


@styled
def groups(rollouts: Sequence[dict]) -> Figure:
    """Each stored group as a dot: its share of right answers by step; red where all rewards are equal."""
    rows = [
        (group["step"], np.mean([one["accuracy"] for one in group["completions"]]),
         "rewards differ" if len({one["reward"] for one in group["completions"]}) > 1 else "zero variance: no gradient")
        for group in rollouts
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["step", "right", "group"])
    frame["right"] += np.random.default_rng(0).uniform(-0.012, 0.012, len(frame))  # equal dots would hide each other
    figure, axes = single(8, 3.1)
    colours = {"rewards differ": BLUE, "zero variance: no gradient": RED}
    sns.scatterplot(frame, x="step", y="right", hue="group", palette=colours, alpha=0.7, ax=axes)
    title = "Share of right answers in each stored group"
    finish(axes, percent=True, title=title, ylabel="", ylim=(-0.06, 1.06))
    return figure
