"""How GRPO goes wrong, and how that looks in four numbers: a healthy run beside runs that collapsed.

>>> figure = collapse_figure({"healthy": rows_of_one_log, "learning rate too high": rows_of_another})  # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ladlib.errors import UserError
from ladlib.report.curves import running_mean
from ladlib.report.style import BLUE, GREY, ORANGE, PURPLE, RED, canvas, styled

ROWS = {
    "reward": "reward",
    "reward_std": "spread within\na group",
    "yes_rate": 'share of "yes"',
    "completion_length": "length, tokens",
}
COLOURS = (BLUE, PURPLE, ORANGE, RED)
SPAN = 10  # a running mean is over a tenth of the run


@styled
def collapse_figure(runs: Mapping[str, Sequence[dict]]) -> Figure:
    """Reward, its spread, yes-rate and length by step; a column a run, titled by its key; for a slide.

    ``runs`` maps a title to the rows of a training log. The first run is the healthy one; its running means are
    repeated in grey beside the others, along its own steps. Scales are shared along a row. Raises
    :class:`UserError` where there is no log or an empty one.
    """
    if not runs or not all(runs.values()):
        raise UserError("A training log to draw is empty or missing.", "Run `ladlib study` first.")
    figure = canvas(1.0 + 2.35 * len(runs), 5.6)
    panels = figure.subplots(len(ROWS), len(runs), sharex="col", sharey="row", squeeze=False)
    (_, healthy), *_ = runs.items()
    for column, (title, rows) in enumerate(runs.items()):
        _run(panels[:, column], rows, healthy if column else [], COLOURS[column % len(COLOURS)])
        panels[0, column].set_title(title, color=COLOURS[column % len(COLOURS)], fontsize=11.5)
    for axes, (key, label) in zip(panels[:, 0], ROWS.items(), strict=True):
        axes.set_ylabel(label, fontsize=10)
        top = 1 if key == "yes_rate" else axes.get_ylim()[1]
        axes.set_ylim(-0.05 * top, 1.05 * top)
    if len(runs) > 1:
        panels[0, 1].legend(loc="best")
    figure.align_ylabels()
    return figure


def _run(panels: Sequence[Axes], rows: Sequence[dict], healthy: Sequence[dict], colour: str) -> None:
    """One column: each quantity by step, pale, under its running mean, over that of the healthy run."""
    for axes, key in zip(panels, ROWS, strict=True):
        if healthy:
            _mean_line(axes, healthy, key, GREY, linewidth=1.2, linestyle=(0, (3, 1.5)), label="healthy")
        axes.plot(_column(rows, "step"), _column(rows, key), color=colour, alpha=0.28, linewidth=0.9)
        _mean_line(axes, rows, key, colour, linewidth=2.2)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panels[-1].set_xlabel("step")


def _mean_line(axes: Axes, rows: Sequence[dict], key: str, colour: str, **look: object) -> None:
    values = running_mean(_column(rows, key), window=max(1, len(rows) // SPAN))
    axes.plot(_column(rows, "step"), values, color=colour, **look)


def _column(rows: Sequence[dict], key: str) -> np.ndarray:
    return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])
