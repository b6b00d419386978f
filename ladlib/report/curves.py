"""Training curves: every step as a pale line, its running mean as a bold one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladlib.errors import UserError
from ladlib.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, canvas, styled

Rows = Sequence[dict]
TIMES = {
    "seconds_generate": ("generate", BLUE),
    "seconds_reward": ("reward", ORANGE),
    "seconds_update": ("update", GREEN),
}


@styled
def loss_curve(log_rows: Rows) -> Figure:
    """The loss of stage 1 by step."""
    figure = canvas(7, 3.2)
    axes = figure.subplots()
    _line(axes, log_rows, "loss", BLUE, "loss")
    axes.set(title="SFT: loss on the assistant's tokens", xlabel="step", ylim=(0, None))
    return figure


@styled
def reward_curve(log_rows: Rows) -> Figure:
    """The mean reward by step."""
    figure = canvas(7, 3.2)
    axes = figure.subplots()
    _line(axes, log_rows, "reward", BLUE)
    axes.set(title="Mean reward of a step", xlabel="step", ylim=(0, None))
    return figure


@styled
def grpo_curves(log_rows: Rows) -> Figure:
    """Stage 2 by step: rewards, their spread, lengths, yes-rate, KL, entropy and where the time goes."""
    figure = canvas(11, 6.4)
    panels = figure.subplots(3, 3).ravel()
    _rewards(panels[0], log_rows)
    shares = {
        "frac_reward_zero_std": ("groups without spread", RED, "-"),
        "clipped_share": ("cut off by length", ORANGE, "--"),
    }
    single = {
        "reward_std": ("Reward spread within a group", PURPLE),
        "completion_length": ("Completion length, tokens", BLUE),
        "kl": ("KL to the reference model, nats", GREEN),
        "entropy": ("Entropy, nats", PURPLE),
        "grad_norm": ("Gradient norm", GREY),
    }
    for axes, (key, (title, colour)) in zip(panels[[1, 3, 5, 6, 7]], single.items(), strict=True):
        _line(axes, log_rows, key, colour)
        axes.set_title(title)
    for key, (label, colour, dashes) in shares.items():
        _line(panels[2], log_rows, key, colour, label, dashes)
    _line(panels[4], log_rows, "yes_rate", BLUE)
    panels[2].set(title="Shares that teach nothing", ylim=(-0.03, 1.03))
    panels[2].legend()
    panels[4].set(title='Share of "yes" answers', ylim=(-0.03, 1.03))
    _time_split(panels[8], log_rows)
    for axes in panels[6:]:
        axes.set_xlabel("step")
    return figure


def _rewards(axes: Axes, rows: Rows) -> None:
    _line(axes, rows, "reward", BLUE, "sum")
    _line(axes, rows, "accuracy_reward", GREEN, "accuracy", "--")
    _line(axes, rows, "format_reward", ORANGE, "format", ":")
    axes.set(title="Mean reward", ylim=(0, None))
    axes.legend(ncols=3)


def _line(axes: Axes, rows: Rows, key: str, colour: str, label: str = "", dashes: str = "-") -> None:
    """One quantity by step; steps that did not log it leave a gap."""
    steps, values = _column(rows, "step"), _column(rows, key)
    axes.plot(steps, values, color=colour, alpha=0.28, linewidth=1)
    axes.plot(
        steps, running_mean(values, window=max(1, len(values) // 12)), color=colour, label=label, linestyle=dashes
    )


def _column(rows: Rows, key: str) -> np.ndarray:
    if not rows:
        raise UserError("The training log has no rows.", "Run the training notebook first.")
    return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of each value and its neighbours up to ``window // 2`` away; gaps are left out of it."""
    half = window // 2
    parts = [values[max(0, place - half) : place + half + 1] for place in range(len(values))]
    return np.array([np.mean(part[~np.isnan(part)]) if (~np.isnan(part)).any() else np.nan for part in parts])


def _time_split(axes: Axes, rows: Rows) -> None:
    parts = [np.nan_to_num(_column(rows, key)) for key in TIMES]
    labels, colours = zip(*TIMES.values(), strict=True)
    look = {"colors": colours, "hatch": ["", "....", "////"], "edgecolor": "white", "linewidth": 0}
    axes.stackplot(_column(rows, "step"), parts, labels=labels, alpha=0.85, **look)
    axes.set(title="Seconds a step", ylim=(0, 1.25 * max(sum(parts).max(), 1e-9)))
    axes.legend(ncols=3, loc="upper left")
