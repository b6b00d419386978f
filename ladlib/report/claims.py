"""The claims of ``results/claims.yml``: what decides each, measured on a run, and whether it holds there.

A claim about real data is not testable on a toy run, one about the toy not on real data; what published figures
decide is the same everywhere. Nothing is left out because it does not hold.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml

import ladlib
from ladlib.metrics import SUBSETS
from ladlib.parsing import parse
from ladlib.records import Record
from ladlib.report import published_quantities, study_quantities
from ladlib.report.stored import Key, Stored
from ladlib.report.study_quantities import TRAINED, Measured, over_seeds
from ladlib.report.tables import MISSING

COLUMNS = ["id", "of", "basis", "claim", "expected", "measured", "low", "high", "over", "status", "label"]
HEADINGS = {"basis": "on", "low": "interval", "over": "interval over"}


class Expected(Record):
    """What a measured value is held against; points (x 100), or p."""

    at_least: float | None = None
    at_most: float | None = None
    equals: float | None = None
    tolerance: float = 0.0
    above: float | None = None  # where the interval must begin

    @property
    def text(self) -> str:
        bounds = {
            "at least {:+g}" if (self.at_least or 0) < 0 else "at least {:g}": self.at_least,
            "at most {:g}": self.at_most, f"{{:g}} ± {self.tolerance:g}": self.equals,
            "interval above {:g}": self.above,
        }  # fmt: skip
        return ", ".join(words.format(value) for words, value in bounds.items() if value is not None)

    def holds(self, found: Measured) -> bool:
        return (
            (self.at_least is None or found.value >= self.at_least)
            and (self.at_most is None or found.value <= self.at_most)
            and (self.equals is None or abs(found.value - self.equals) <= self.tolerance)
            and (self.above is None or found.low > self.above)
        )


class Shown(Record):
    """Where to look at it."""

    notebook: str
    cell: str


class Entry(Record):
    """One claim of the file, whose head says what the fields mean."""

    id: str
    of: Literal["paper", "check", "ours"]
    claim: str
    source: str
    basis: Literal["real data", "published figures", "toy study"]
    quantity: str
    expected: Expected
    shown: Shown


def path() -> Path:
    """The file: of the installed package, else that of the checkout."""
    package = Path(ladlib.__file__).parent
    installed = package / "claims.yml"
    return installed if installed.is_file() else package.parent / "results" / "claims.yml"


def read_claims() -> list[Entry]:
    """All claims, in the file's order."""
    return [Entry.model_validate(row) for row in yaml.safe_load(path().read_text(encoding="utf-8"))]


def claims_frame(stored: Stored, rationales: Mapping[Key, Mapping[str, float]], basis: str = "") -> pd.DataFrame:
    """A row a claim (of those of one ``basis``, or all) with the columns ``COLUMNS``, measured on a run.

    ``rationales`` holds a summary of each arm and seed; ``measured`` has its interval in ``low`` and ``high``, and
    ``over`` says over what: resampled images (95 %), or the lowest and the highest seed.
    """
    toy = study_quantities.toy_of(stored, rationales) if stored.is_toy else None
    rows = [_row(one, _measure(one, stored, toy)) for one in read_claims() if one.basis == (basis or one.basis)]
    return pd.DataFrame(rows, columns=COLUMNS[:-1]).assign(label=stored.profile.label)


def claims_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`claims_frame` to be read: the interval in one cell."""
    shown = frame.drop(columns=["id", "high", "label"]).astype(object)
    for place, row in frame.iterrows():
        known = not pd.isna(row["measured"])
        form = ".2f" if str(row["over"]).startswith("paired tests") else ".1f"  # p, or points
        shown.loc[place, "measured"] = format(row["measured"], form) if known else MISSING
        shown.loc[place, "low"] = f"{row['low']:{form}} to {row['high']:{form}}" if known else MISSING
    return shown.fillna({"over": MISSING}).rename(columns=HEADINGS)


def _row(one: Entry, found: Measured | None) -> dict:
    row = {
        "id": one.id,
        "of": one.of,
        "basis": one.basis,
        "claim": one.claim,
        "expected": one.expected.text,
    }
    if found is None:
        return row | {"status": "not testable here"}
    values = {key: round(float(value), 4) for key, value in zip(("measured", "low", "high"), found[:3], strict=True)}
    return row | values | {"over": found.over, "status": "holds" if one.expected.holds(found) else "does not hold"}


def _measure(one: Entry, stored: Stored, toy: study_quantities.Toy | None) -> Measured | None:
    if one.basis == "published figures":
        return published_quantities.QUANTITIES[one.quantity]()
    if one.basis == "toy study":
        return study_quantities.QUANTITIES[one.quantity](toy) if toy else None
    return None if stored.is_toy else REAL[one.quantity](stored)


def _metric(stored: Stored, key: str) -> Measured | None:
    place = (TRAINED, "logical", "pooled")
    rows = [row for row in stored.metrics if (row["arm"], row["subset"], row["category"]) == place]
    return over_seeds([100 * row[key] for row in rows if row[key] is not None])


def _words(stored: Stored) -> Measured | None:
    """Mean number of words between the think tags, over the good + logical images."""
    asked = [one for one in stored.of(TRAINED) if one.anomaly in SUBSETS["logical"]]
    seeds = sorted({one.seed for one in asked})
    counts = {seed: [len((parse(one.text).think or "").split()) for one in asked if one.seed == seed] for seed in seeds}
    return over_seeds([sum(found) / len(found) for found in counts.values()])


REAL = {
    "accuracy": lambda stored: _metric(stored, "accuracy"),
    "F1": lambda stored: _metric(stored, "f1"),
    "words a rationale": _words,
}
