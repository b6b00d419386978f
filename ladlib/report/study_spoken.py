"""What the arms of a study say: rationales held against the scenes, and several tries at the same pair.

Shares are x 100; means and bands are over seeds, and single values where there is one seed.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from ladlib.metrics import SUBSETS
from ladlib.records import ARMS
from ladlib.report.stored import Key
from ladlib.report.study_arms import banded
from ladlib.report.tables import NAMES, readable
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sampling import RULES, pass_frame
from ladlib.toy.truth import summary

SHARES = {
    "statements_true": "statements true", "difference_named": "difference named", "agree": "answer agrees",
    "compared": "images compared", "empty": "nothing stated",
}  # fmt: skip
MEANS = {"statements_mean": "statements", "words_mean": "words"}
TITLES = SHARES | MEANS


def read_summaries(run: RunFolder, keys: Iterable[Key]) -> dict[Key, dict]:
    """The summary of the rationales on good + logical images, of each of ``keys`` that has been checked."""
    rows = {key: read_jsonl(run.rationales(*key)) for key in keys}
    asked = {key: [row for row in found if row["anomaly"] in SUBSETS["logical"]] for key, found in rows.items()}
    return {key: summary(found) for key, found in asked.items() if found}


def rationale_frame(summaries: Mapping[Key, Mapping[str, float | None]], label: str) -> pd.DataFrame:
    """One row an arm: the mean over seeds of each key of ``TITLES``, with ``<key>_low`` and ``<key>_high``."""
    arms = [arm for arm in ARMS if arm in {arm for arm, _ in summaries}]
    rows = []
    for arm in arms:
        seeds = pd.DataFrame([one for key, one in summaries.items() if key[0] == arm])[list(TITLES)].astype(float)
        seeds[list(SHARES)] *= 100
        ends = {"": seeds.mean(), "_low": seeds.min(), "_high": seeds.max()}
        values = {f"{key}{end}": found[key] for key in TITLES for end, found in ends.items()}
        rows.append({"arm": arm, "method": NAMES[arm]} | values | {"seeds": len(seeds), "label": label})
    return pd.DataFrame(rows).round(2)


def rationale_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`rationale_frame` to be read: mean and band in one cell."""
    shown = {
        title: [banded(row[key], row[f"{key}_low"], row[f"{key}_high"]) for _, row in frame.iterrows()]
        for key, title in TITLES.items()
    }
    return pd.DataFrame({"method": frame["method"]} | shown).join(readable(frame[["seeds", "label"]]))


def read_passes(run: RunFolder, keys: Iterable[Key]) -> pd.DataFrame:
    """pass@k of the sampled answers by arm, seed and rule: columns arm, seed, rule, k, pass_at (0..1)."""
    return pass_frame([row for key in keys for row in read_jsonl(run.samples(*key))])


def passes_frame(passes: pd.DataFrame, label: str) -> pd.DataFrame:
    """One row an arm and kind of rule, seeds averaged; a column each k, x 100."""
    keys = ["arm", "rule"]
    wide = passes.groupby([*keys, "k"], sort=False)["pass_at"].mean().mul(100).round(2).unstack()
    wide.columns = [f"pass@{k}" for k in wide.columns]
    wide["seeds"] = passes.groupby(keys)["seed"].nunique()
    rules = pd.Index((*RULES, "all"))
    frame = wide.reset_index().sort_values(keys, key=lambda column: _places(column, rules)).assign(label=label)
    frame.insert(1, "method", frame["arm"].map(NAMES))
    return frame.reset_index(drop=True)


def _places(column: pd.Series, rules: pd.Index) -> list[int]:
    """Arms and kinds of rule in their usual order."""
    return (rules if column.name == "rule" else pd.Index(ARMS)).get_indexer(column).tolist()


def passes_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`passes_frame` to be read."""
    return readable(frame.drop(columns="arm")).rename(columns={"rule": "kind of rule"})
