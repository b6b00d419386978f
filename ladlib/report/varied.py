"""What answers under other conditions show: flips, scores, and how the variance of P(anomalous) is shared out.

A flip is another answer than under evaluation's own condition, an answer that cannot be read being one of its own.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from ladlib.metrics import judge, measure
from ladlib.parsing import parse_answer
from ladlib.records import Factor, Variation
from ladlib.report.stored import Stored
from ladlib.report.tables import title_of
from ladlib.statistics import variance_shares, wilson

FACTORS: dict[Factor, str] = {
    "none": "as evaluated", "blind": "blind: reference twice", "swapped": "images exchanged",
    "reference": "reference image", "wording": "wording", "order": "order", "batch": "batch size",
    "dtype": "numeric type",
}  # fmt: skip
CHECKS = ("none", "blind", "swapped")  # the others are choices, whose variance is shared out
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
