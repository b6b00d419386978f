"""What notebook 03 shows of groups of completions: their pairs of images, their rewards, their spread.

A group is a row of ``logs/<arm>-seed<k>-rollouts.jsonl``: several completions of one prompt.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from ladlib.data import find_dataset
from ladlib.data.images import open_image
from ladlib.parsing import parse
from ladlib.records import Answer, Pair
from ladlib.report.shown import as_table
from ladlib.report.style import BLUE, GREY, PALE, RED, RIGHT, WRONG, bare, canvas, frame, strip_control, styled
from ladlib.rewards import accuracy_reward, format_reward

TRENDS = (
    "reward", "accuracy_reward", "format_reward", "frac_reward_zero_std", "completion_length", "clipped_share",
    "yes_rate", "kl", "entropy",
)  # fmt: skip


@styled
def pair_strip(pairs: Sequence[Pair], root: Path | str) -> Figure:
    """A column per pair: the normal reference image above the test image, framed by its label.

    ``root`` is the data root. Raises :class:`UserError` for a dataset or an image that is not there.
    """
    figure = canvas(max(4.0, 1.9 * len(pairs)), 4.1)
    grid = figure.subplots(2, len(pairs), squeeze=False)
    for axes, pair in zip(grid.T, pairs, strict=True):
        folder = find_dataset(root, pair.test.dataset)
        for panel, path, colour in zip(
            axes, (pair.reference, pair.test.image), (GREY, WRONG if pair.test.label == "yes" else RIGHT), strict=True
        ):
            bare(panel)
            picture = open_image(folder / path)
            picture.thumbnail((480, 480))
            panel.imshow(picture)
            frame(panel, colour, 2)
        what = pair.test.defect.replace("_", " ") or "good"
        axes[0].set_title(pair.test.category.replace("_", " "), loc="center", fontsize=9, parse_math=False)
        axes[1].set_xlabel(f"{pair.test.label}: {what}", fontsize=8.5)
    grid[0, 0].set_ylabel("reference image")
    grid[1, 0].set_ylabel("test image")
    return figure


def reward_table(completions: Sequence[str], label: Answer) -> Styler:
    """What the parser reads in each completion and what the two rewards pay for it."""
    rows = [
        {
            "completion": strip_control(text),
            "thinking found": "yes" if parse(text).think else "no",
            "answer read": parse(text).answer or "unparsed",
            "accuracy": f"{accuracy_reward(text, label):.0f}",
            "format": f"{format_reward(text):.0f}",
        }
        for text in completions
    ]
    return as_table(pd.DataFrame(rows), f"The image's label is {label}")


def has_spread(group: dict) -> bool:
    """Whether two completions of the group earned different rewards."""
    return len({one["reward"] for one in group["completions"]}) > 1


def spread_first(groups: Sequence[dict]) -> list[dict]:
    """The same groups in their order, those with spread before those without."""
    return sorted(groups, key=lambda group: not has_spread(group))


@styled
def group_scores(groups: Sequence[dict]) -> Figure:
    """Each kept group as a dot: its share of right answers by step; red where all rewards are equal."""
    steps = np.array([group["step"] for group in groups], dtype=float)
    right = np.array([np.mean([one["accuracy"] for one in group["completions"]]) for group in groups])
    mute = np.array([not has_spread(group) for group in groups])
    shift = np.random.default_rng(0).uniform(-0.012, 0.012, len(groups))  # equal dots would hide each other
    figure = canvas(8, 3.1)
    axes = figure.subplots()
    axes.axhspan(0.02, 0.98, color=PALE, alpha=0.5, linewidth=0)
    for chosen, colour, name in ((~mute, BLUE, "with spread"), (mute, RED, "without: teaches nothing")):
        axes.scatter(steps[chosen], (right + shift)[chosen], s=22, color=colour, alpha=0.7, linewidth=0, label=name)
    axes.set(title="Share of right answers in each kept group", xlabel="step", ylim=(-0.06, 1.06))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def start_and_end(log_rows: Sequence[dict], share: float = 0.2) -> pd.DataFrame:
    """Mean of each quantity over the first and the last ``share`` of the steps, and the change."""
    frame_ = pd.DataFrame(log_rows)[list(TRENDS)].astype(float)
    count = max(1, round(share * len(frame_)))
    first, last = frame_.head(count).mean(), frame_.tail(count).mean()
    table = pd.DataFrame({"start": first, "end": last, "change": last - first}).round(3)
    return table.rename_axis("mean over steps")
