"""What answers under other conditions show: flips, scores, and how the variance of P(anomalous) is shared out.

A flip is another answer than under evaluation's own condition, an answer that cannot be read being one of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ladlib.data.images import open_image
from ladlib.metrics import judge, measure
from ladlib.parsing import parse_answer
from ladlib.records import Factor, Variation
from ladlib.report.pictures import small, verdict, wrap
from ladlib.report.stored import Stored
from ladlib.report.style import BLUE, GREEN, GREY, ORANGE, PALE, RIGHT, WRONG, bare, canvas, frame, styled
from ladlib.report.tables import title_of
from ladlib.statistics import variance_shares, wilson

FACTORS: dict[Factor, str] = {
    "none": "as evaluated", "blind": "blind: reference twice", "swapped": "images exchanged",
    "reference": "reference image", "wording": "wording", "order": "order", "batch": "batch size",
    "dtype": "numeric type",
}  # fmt: skip
CHECKS = ("none", "blind", "swapped")  # the others are choices, whose variance is shared out
SHOWN = ("none", "blind", "swapped", "order", "reference")  # what the picture of a pair shows, the first of each
MEASURES = ("accuracy", "recall", "specificity")
Cell = tuple[str, str]  # factor, level


def sensitivity_frame(stored: Stored) -> pd.DataFrame:
    """One row an arm, seed and condition, x 100: scores, flips with Wilson's 95 % interval, mean |change of P|.

    Columns: method, seed, condition, pairs, accuracy, recall, specificity, unparsed, flips, low, high, change,
    label. On the same good + logical pairs throughout. Empty where nothing is stored.
    """
    rows = [
        {"method": title_of(stored, arm), "seed": seed, **row, "label": stored.profile.label}
        for (arm, seed), cells in _by_arm(stored.variations).items()
        for row in _rows(cells)
    ]
    columns = ["method", "seed", "condition", "pairs", *MEASURES, "unparsed", "flips", "low", "high", "change", "label"]
    return pd.DataFrame(rows, columns=columns)


def sensitivity_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`sensitivity_frame` to be read: numbers with one decimal, headings for keys."""
    interval = [f"{row.low:.1f}–{row.high:.1f}" if pd.notna(row.low) else "–" for row in frame.itertuples()]
    shown = frame.assign(low=interval).drop(columns="high")
    numbers = [*MEASURES, "unparsed", "flips", "change"]
    shown[numbers] = shown[numbers].astype(object).map(lambda one: f"{one:.1f}" if pd.notna(one) else "–")
    headings = {"low": "flips, 95 %", "change": "mean change of P", "accuracy": "Acc"}
    return shown.astype({"seed": str, "pairs": str}).rename(columns=headings)


def variance_frame(stored: Stored) -> pd.DataFrame:
    """One row an arm, seed and factor: shares x 100 of the variance of P(anomalous), and the levels that vary.

    Columns: method, seed, factor, levels, pairs, pair, level, both, label; evaluation's own condition is one of the
    levels. :func:`ladlib.statistics.variance_shares` says what the shares are; a dash where nothing varies.
    """
    rows = [
        {"method": title_of(stored, arm), "seed": seed, **row, "label": stored.profile.label}
        for (arm, seed), cells in _by_arm(stored.variations).items()
        for row in _shares(cells)
    ]
    columns = ["method", "seed", "factor", "levels", "pairs", "pair", "level", "both", "label"]
    return pd.DataFrame(rows, columns=columns)


def variance_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`variance_frame` to be read."""
    shown = frame.astype({"seed": str, "levels": str, "pairs": str})
    parts = ["pair", "level", "both"]
    shown[parts] = frame[parts].astype(object).map(lambda one: f"{one:.1f}" if pd.notna(one) else "–")
    return shown.rename(columns={"pair": "which pair", "level": "shift of all", "both": "pair by pair"})


def _by_arm(variations: Iterable[Variation]) -> dict[tuple[str, int], dict[Cell, dict[str, Variation]]]:
    """(arm, seed) to (factor, level) to pair, each in the order stored; conditions not yet begun are absent."""
    arms: dict[tuple[str, int], dict[Cell, dict[str, Variation]]] = {}
    for one in variations:
        cells = arms.setdefault((one.arm, one.seed), {})
        cells.setdefault((one.factor, one.level), {})[one.id] = one
    return arms


def _rows(cells: dict[Cell, dict[str, Variation]]) -> Iterator[dict]:
    usual = cells.get(("none", ""), {})
    for cell, found in cells.items():
        scores = measure([judge(one) for one in found.values()])
        pairs = [(usual[name], one) for name, one in found.items() if name in usual]
        yield {
            "condition": condition_name(cell),
            "pairs": len(found),
            **{name: _percent(scores[name]) for name in MEASURES},
            "unparsed": _percent(scores["unparsed"] / len(found)),
            **(_changes(pairs) if cell[0] != "none" and pairs else {}),
        }


def _changes(pairs: Sequence[tuple[Variation, Variation]]) -> dict:
    flips = sum(parse_answer(first.text) != parse_answer(other.text) for first, other in pairs)
    low, high = wilson(flips, len(pairs))
    change = float(np.mean([abs(other.p_yes - first.p_yes) for first, other in pairs]))
    return {
        "flips": _percent(flips / len(pairs)), "low": _percent(low), "high": _percent(high),
        "change": _percent(change),
    }  # fmt: skip


def _shares(cells: dict[Cell, dict[str, Variation]]) -> Iterator[dict]:
    for factor, title in FACTORS.items():
        levels = [cell for cell in cells if cell[0] == factor]
        if factor in CHECKS or not levels or ("none", "") not in cells:
            continue
        columns = [cells[cell] for cell in [("none", ""), *levels]]
        pairs = [name for name in columns[0] if all(name in column for column in columns)]
        if len(pairs) < 2:
            continue
        found = variance_shares([[column[name].p_yes for column in columns] for name in pairs])
        shares = {name: _percent(value) for name, value in found._asdict().items()} if found else {}
        yield {"factor": title, "levels": len(columns), "pairs": len(pairs), **shares}


def condition_name(cell: Cell) -> str:
    factor, level = cell
    return f"{FACTORS[factor]}: {level}" if level else FACTORS[factor]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


@styled
def sensitivity_figure(stored: Stored) -> Figure:
    """Flips of each condition with their intervals, and beside them the variance shares of each choice, by arm."""
    flips, shares = sensitivity_frame(stored).dropna(subset="flips"), variance_frame(stored)
    keys = list(flips.groupby(["method", "seed"], sort=False).groups)
    figure = canvas(10.2, 0.9 + 0.27 * max(8, len(flips) // max(1, len(keys))) * len(keys))
    grid = figure.subplots(len(keys), 2, squeeze=False, width_ratios=[1.25, 1])
    for (method, seed), (left, right) in zip(keys, grid, strict=True):
        _flip_dots(left, flips[(flips["method"] == method) & (flips["seed"] == seed)])
        left.set_title(f"Answers that flip, {method}, seed {seed}", parse_math=False)
        _share_bars(right, shares[(shares["method"] == method) & (shares["seed"] == seed)])
    return figure


def _flip_dots(axes: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    values = rows[["flips", "low", "high"]].to_numpy(dtype=float)
    reach = np.abs(values[:, 1:].T - values[:, 0])
    axes.errorbar(values[:, 0], places, xerr=reach, fmt="o", color=BLUE, ecolor=GREY, markersize=4, elinewidth=1.2)
    axes.set_yticks(places, rows["condition"], parse_math=False)
    axes.set(xlim=(0, 100), xlabel="% of the pairs, 95 % interval")
    _lie_flat(axes)


def _share_bars(axes: Axes, rows: pd.DataFrame) -> None:
    left = np.zeros(len(rows))
    looks = {"pair": (PALE, "which pair"), "level": (ORANGE, "shift of all pairs"), "both": (GREEN, "pair by pair")}
    for part, (colour, title) in looks.items():
        values = rows[part].to_numpy(dtype=float)
        axes.barh(np.arange(len(rows)), np.nan_to_num(values), left=left, color=colour, label=title, height=0.6)
        left += np.nan_to_num(values)
    axes.set_yticks(range(len(rows)), rows["factor"])
    axes.set(title="Variance of P(anomalous)", xlim=(0, 100), xlabel="% of the variance")
    _lie_flat(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, handlelength=1.2, columnspacing=1)


def _lie_flat(axes: Axes) -> None:
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")


@styled
def conditions_figure(variations: Sequence[Variation], root: Path | str) -> Figure:
    """One pair as the model sees it under several conditions, a column each: first image, second image, what it said.

    The conditions are ``SHOWN``. The pair is the first whose answers differ most; frames are green where the answer is
    the label. ``root`` is the dataset folder that the image paths are relative to.
    """
    cells = next(iter(_by_arm(variations).values()))
    chosen = [next(cell for cell in cells if cell[0] == factor) for factor in SHOWN if _has(cells, factor)]
    pair = max(cells[chosen[0]], key=lambda name: len({parse_answer(cells[cell][name].text) for cell in chosen}))
    figure = canvas(2.1 * len(chosen), 5.2)
    figure.set_dpi(72)  # as in a gallery: photographs compress badly
    grid = figure.subplots(2, len(chosen), squeeze=False)
    for column, cell in zip(grid.T, chosen, strict=True):
        one = cells[cell][pair]
        _shown(column, one, Path(root), wrap(condition_name(cell), 22, lines=3))
    return figure


def _has(cells: dict[Cell, dict], factor: Factor) -> bool:
    return any(cell[0] == factor for cell in cells)


def _shown(column: Sequence[Axes], one: Variation, root: Path, title: str) -> None:
    paths = {"reference": one.reference, "test": one.test}
    colour = RIGHT if parse_answer(one.text) == one.label else WRONG
    for place, axes, name in zip(("first", "second"), column, one.shown, strict=True):
        bare(axes)
        axes.imshow(small(open_image(root / paths[name])))
        axes.set_xlabel(f"{place}: {name} image", fontsize=8)
        frame(axes, colour, 2.5)
    column[0].set_title(title, loc="center", fontsize=9, parse_math=False)
    said = verdict(one).split(", image")[0]
    below = {"xycoords": "axes fraction", "xytext": (0, -24), "textcoords": "offset points"}
    column[1].annotate(wrap(said, 22, lines=4), (0.5, 0), **below, ha="center", va="top", fontsize=8, parse_math=False)
