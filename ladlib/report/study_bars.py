"""What the study has to show, one row a claim: the bar, what was measured, and whether it is reached.

All on good + logical images of toy MVTec LOCO AD, greedy, x 100. The bars were set before the runs. ``held`` is
``None`` where an arm has not been run; nothing is left out because it failed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ladlib.report.stored import Key, Stored
from ladlib.report.study_arms import seeds_frame
from ladlib.report.study_paired import READINGS, TRAINED, category_scores, difference, read_answers, seeds_of
from ladlib.report.tables import MISSING, NAMES, readable

OVER_BASE = {"strict": 10, "lenient": 10, "likelihood": 5}  # points in every seed
OVER_SFT, BELOW_LARGE, CHANCE = 5, 3, 50
FORMAT, STATEMENTS, AGREEMENT = 99, 85, 95
SCORES = {"strict": "strict answer", "lenient": "first yes or no", "likelihood": "AUROC"}
COLUMNS = ["claim", "bar", "measured", "low", "high", "over", "held", "outcome", "label"]
OUTCOMES = {True: "reached", False: "missed", None: "not run"}


def bars_frame(stored: Stored, rationales: Mapping[Key, Mapping[str, float]]) -> pd.DataFrame:
    """One row a bar with the columns ``COLUMNS``; ``rationales`` holds a summary of each arm and seed.

    ``measured`` has its interval in ``low`` and ``high``; ``over`` says over what: resampled images (95 %) or the
    lowest and the highest seed.
    """
    answers, scores = read_answers(stored.generations), seeds_frame(stored)
    arms = {arm: seeds_of(answers, arm) for arm in NAMES}
    spoken = {arm: [rationales[key] for key in sorted(rationales) if key[0] == arm] for arm in (TRAINED, "sft")}
    rows = [
        *(_over_base(arms["base"], arms[TRAINED], reading) for reading in READINGS),
        _over(arms, "sft", "SFT"),
        _over(arms, "sft_long", "SFT for as long again"),
        _near_large(arms),
        _above_always_yes(scores),
        _share("completions are well formed", _column(scores, TRAINED, "format_rate"), FORMAT),
        _share("statements in rationales are true", _spoken(spoken[TRAINED], "statements_true"), STATEMENTS),
        _not_below_sft(*(_spoken(spoken[arm], "statements_true") for arm in ("sft", TRAINED))),
        _share("rationale and answer agree", _spoken(spoken[TRAINED], "agree"), AGREEMENT),
        _no_category_below_chance(arms[TRAINED]),
    ]
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS).assign(label=stored.profile.label)
    frame["held"] = pd.Series([row.get("held") for row in rows], dtype=object)
    return frame.assign(outcome=[OUTCOMES[held] for held in frame["held"]])


def _over_base(base: list, trained: list, reading: str) -> dict:
    bar = OVER_BASE[reading]
    row = {
        "claim": f"SFT + GRPO above base in each seed ({SCORES[reading]})",
        "bar": f"at least +{bar}, interval above 0",
    }
    found = [difference(reading, base, [seed])[0] for seed in trained] if base else []
    if not found:
        return row
    lowest = min(found, key=lambda one: one.value)
    held = all(one.value >= bar and one.low > 0 for one in found)
    return row | _measured(*lowest, f"images, lowest of {_seeds(found)}", held)


def _over(arms: Mapping[str, list], arm: str, title: str) -> dict:
    row = {"claim": f"SFT + GRPO above {title}", "bar": f"at least +{OVER_SFT}, interval above 0"}
    if not (arms[arm] and arms[TRAINED]):
        return row
    found, _ = difference("strict", arms[arm], arms[TRAINED])
    return row | _measured(*found, f"images, {_seeds(arms[TRAINED])}", found.value >= OVER_SFT and found.low > 0)


def _near_large(arms: Mapping[str, list]) -> dict:
    row = {"claim": f"SFT + GRPO within {BELOW_LARGE} points of large, or above", "bar": f"at least -{BELOW_LARGE}"}
    if not (arms["large"] and arms[TRAINED]):
        return row
    found, _ = difference("strict", arms["large"], arms[TRAINED])
    return row | _measured(*found, f"images, {_seeds(arms[TRAINED])}", found.value >= -BELOW_LARGE)


def _above_always_yes(scores: pd.DataFrame) -> dict:
    blind = _column(scores, "always_yes", "f1")
    bar = f"above {blind[0]:.1f}" if blind else MISSING
    row = {"claim": "F1 of SFT + GRPO above that of always yes", "bar": bar}
    found = _column(scores, TRAINED, "f1")
    return row | _over_seeds(found, bool(blind and found and np.mean(found) > blind[0]))


def _share(claim: str, found: Sequence[float], bar: float) -> dict:
    row = {"claim": f"After SFT + GRPO, {claim}", "bar": f"at least {bar}"}
    return row | _over_seeds(found, bool(found and np.mean(found) >= bar))


def _not_below_sft(sft: Sequence[float], trained: Sequence[float]) -> dict:
    row = {"claim": "Statements true, SFT + GRPO minus SFT", "bar": "at least 0"}
    if not (sft and trained):
        return row
    gains = [one - np.mean(sft) for one in trained]
    return row | _over_seeds(gains, bool(np.mean(gains) >= 0))


def _no_category_below_chance(trained: list) -> dict:
    row = {"claim": "No category below chance by more than its interval", "bar": f"upper end at least {CHANCE}"}
    by_category = category_scores(trained) if trained else {}
    found = {name: one for name, one in by_category.items() if not np.isnan(one.value)}
    if not found:
        return row
    lowest = min(found, key=lambda name: found[name].high)
    held = all(one.high >= CHANCE for one in found.values())
    return row | _measured(*found[lowest], f"images, {lowest.replace('_', ' ')}, {_seeds(trained)}", held)


def _column(scores: pd.DataFrame, arm: str, key: str) -> list[float]:
    return scores.loc[scores["arm"] == arm, key].dropna().tolist()


def _spoken(summaries: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [100 * one[key] for one in summaries if one.get(key) is not None]


def _over_seeds(found: Sequence[float], held: bool) -> dict:
    return _measured(np.mean(found), min(found), max(found), f"{_seeds(found)}, range", held) if found else {}


def _measured(value: float, low: float, high: float, over: str, held: bool) -> dict:
    if np.isnan(value):
        return {}
    points = {
        key: round(float(one), 2) for key, one in zip(("measured", "low", "high"), (value, low, high), strict=True)
    }
    return points | {"over": over, "held": bool(held)}


def _seeds(found: Sequence) -> str:
    return "1 seed" if len(found) == 1 else f"{len(found)} seeds"


def bars_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`bars_frame` to be read: the interval in one cell, ``held`` in words."""
    spans = [MISSING if pd.isna(row.low) else f"{row.low:.1f} to {row.high:.1f}" for row in frame.itertuples()]
    shown = readable(frame.assign(low=spans).drop(columns=["high", "held"]))
    return shown.rename(columns={"low": "interval", "over": "interval over"})
