"""Drawings that explain GRPO in notebook 03: the loop, advantages, groups without spread, the objective.

>>> advantage_bars({"one right of four": [2, 1, 1, 1]})  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ladlib.report.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, RED, SKY, bare, canvas, styled
from ladlib.rewards import group_advantages

EXAMPLE = (2.0, 1.0, 0.0, 2.0)  # rewards in the drawing of the loop


@styled
def loop_drawing() -> Figure:
    """One step of GRPO from the pair of images to the update, with a made-up group of four."""
    figure = canvas(11, 4.3)
    axes = figure.subplots()
    bare(axes)
    axes.axis("off")
    axes.set(xlim=(0, 110), ylim=(0, 43))
    _box(axes, (0, 21), (17, 11), "reference image\n+ test image\n+ question", SKY)
    _box(axes, (24, 21), (17, 11), "policy\nthe model being\ntrained", BLUE)
    _box(axes, (24, 3), (17, 9), "reference model\nits frozen start", GREY)
    _heading(axes, 8.5, "1  ask")
    _heading(axes, 59, "2  sample a group of G completions")
    _heading(axes, 84, "3  reward")
    _heading(axes, 101, "4  compare")
    _group(axes)
    _arrow(axes, (17.5, 26.5), (23.5, 26.5))
    _arrow(axes, (32.5, 12.5), (32.5, 20.5), GREY, "<->")
    axes.text(31.5, 16.3, "KL term: stay near", color=GREY, ha="right", va="center", fontsize=8.5)
    axes.plot([101, 101], [11.5, 7.5], color=INK, linewidth=1.4)
    axes.plot([101, 46], [7.5, 7.5], color=INK, linewidth=1.4)
    _arrow(axes, (46, 7.5), (39, 20.5))
    text = "5  update: what did better than its group becomes likelier, what did worse less likely"
    axes.text(76, 4.6, text, ha="center", va="center", fontsize=9, weight="bold")
    return figure


def _group(axes: Axes) -> None:
    """The made-up completions with their rewards and advantages, one line each."""
    texts = (
        "<think>…</think><answer>yes</answer>", "<think>…</think><answer>no</answer>",
        "a ring is missing, I think", "<think>…</think><answer>yes</answer>",
    )  # fmt: skip
    for row, (text, reward, advantage) in enumerate(zip(texts, EXAMPLE, group_advantages(EXAMPLE), strict=True)):
        height = 32.5 - 5.8 * row
        _box(axes, (43.5, height - 2), (33, 4.2), text, PALE, family="DejaVu Sans Mono", fontsize=7.2)
        _arrow(axes, (41.3, 26.5), (43.2, height))
        _box(axes, (80.5, height - 2), (7, 4.2), f"{reward:g}", ORANGE)
        colour = GREEN if advantage > 0 else RED
        _box(axes, (96, height - 2), (10, 4.2), f"{advantage:+.2f}", colour)
        _arrow(axes, (76.8, height), (80.2, height), GREY)
        _arrow(axes, (87.8, height), (95.7, height), GREY)


def _box(axes: Axes, corner: tuple, size: tuple, text: str, colour: str, fontsize: float = 9, **font: object) -> None:
    look = {"boxstyle": "round,pad=0,rounding_size=1", "linewidth": 1.2, "edgecolor": colour}
    axes.add_patch(FancyBboxPatch(corner, *size, facecolor=(*to_rgb(colour), 0.25), **look))
    middle = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    axes.text(*middle, text, ha="center", va="center", fontsize=fontsize, parse_math=False, **font)


def _heading(axes: Axes, x: float, text: str) -> None:
    axes.text(x, 39.5, text, ha="center", weight="bold", fontsize=10)


def _arrow(axes: Axes, start: tuple, end: tuple, colour: str = INK, style: str = "-|>") -> None:
    look = {"arrowstyle": style, "color": colour, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=look)


@styled
def advantage_bars(groups: Mapping[str, Sequence[float]]) -> Figure:
    """A column per group: its rewards with their mean above, the advantages they turn into below."""
    figure = canvas(2.7 * len(groups), 3.8)
    panels = figure.subplots(2, len(groups), sharey="row", squeeze=False)
    for (upper, lower), (title, rewards) in zip(panels.T, groups.items(), strict=True):
        places, advantages = range(1, len(rewards) + 1), np.array(group_advantages(list(rewards)))
        upper.scatter(places, rewards, color=ORANGE, zorder=3)
        upper.axhline(np.mean(rewards), color=INK, linewidth=1, linestyle="--")
        upper.set_title(title)
        lower.bar(places, advantages, color=[GREEN if one > 0 else RED for one in advantages])
        lower.axhline(0, color=INK, linewidth=0.8)
        lower.set(xlabel="completion", xticks=places)
        upper.set_xticks(places, [""] * len(rewards))
    panels[0, 0].set(ylabel="reward", ylim=(-0.2, max(map(max, groups.values())) + 0.2))
    panels[1, 0].set(ylabel="advantage", ylim=(-2.8, 2.8))
    return figure


@styled
def spread_chance(group_sizes: Sequence[int]) -> Figure:
    """How likely a group holds both right and wrong answers, by the policy's chance p of being right.

    ``1 - p**G - (1 - p)**G`` for each group size G, where only accuracy varies.
    """
    figure = canvas(6.4, 3.2)
    axes, chance = figure.subplots(), np.linspace(0, 1, 201)
    colours = np.array([SKY, BLUE, PURPLE, INK])
    for size, colour in zip(group_sizes, colours, strict=False):
        axes.plot(chance, 1 - chance**size - (1 - chance) ** size, color=colour, label=f"G = {size}")
    axes.set(title="Chance that a group can teach anything", xlabel="policy's chance of a right answer, p")
    axes.set(ylim=(0, 1.03), xlim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="lower center")
    return figure


@styled
def objective_curves(epsilon: float) -> Figure:
    """The two safeguards of the objective: the clipped gain by policy ratio, and the KL estimate of a token."""
    figure = canvas(9, 3.1)
    left, right = figure.subplots(1, 2)
    ratio = np.linspace(0.3, 1.7, 281)
    for advantage, colour in ((1.0, GREEN), (-1.0, RED)):
        gain = np.minimum(ratio * advantage, ratio.clip(1 - epsilon, 1 + epsilon) * advantage)
        left.plot(ratio, gain, color=colour, label=f"advantage {advantage:+.0f}")
    left.axvspan(1 - epsilon, 1 + epsilon, color=PALE, alpha=0.7, linewidth=0)
    left.set(title="Clipped gain of one token", xlabel="policy ratio ρ", ylabel="gain")
    left.legend()
    gap = np.linspace(-1.6, 1.6, 321)
    right.plot(gap, np.exp(gap) - gap - 1, color=PURPLE)
    right.set(title="KL estimate of one token", xlabel="log π_ref − log π", ylabel="penalty, nats", ylim=(0, None))
    return figure
