"""Tables that look behind the scores: certainty, defects, changed inputs, changed answers, and the arms of a study.

Shares are x 100, on good + logical images where nothing else is said. Unparsed answers are wrong, as everywhere.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ladlib.claims import ARM
from ladlib.metrics import RULES as RULE_TYPES
from ladlib.metrics import SUBSETS, is_right, measure, outcomes
from ladlib.parsing import parse, parse_answer
from ladlib.records import ARMS, TRIVIAL_ARMS
from ladlib.report.formats import MISSING, banded, cell_text
from ladlib.results import NAMES, RunResults, name
from ladlib.statistics import RULES, difference, holm, p_text, seeds_of, wilson
from ladlib.toy.truth import summary

CALIBRATION = ["auroc", "average_precision", "f1", "f1_max_tuned_on_test", "ece", "mcc"]
CELL = ["category", "kind", "defect"]
CONDITIONS = {
    "none": "as evaluated", "blind": "blind: reference twice", "swapped": "images exchanged",
    "reference": "reference image", "wording": "wording", "order": "order", "batch": "batch size",
    "dtype": "numeric type",
}  # fmt: skip  # the last three are of older runs
SCORES = ["accuracy", "recall", "specificity"]
ARM_SCORES = {
    "accuracy": "Acc", "balanced_accuracy": "bal. acc, strict", "lenient_balanced_accuracy": "bal. acc, lenient",
    "auroc": "AUROC", "f1": "F1", "recall": "recall", "specificity": "specificity", "format_rate": "well formed",
    "unparsed": "unparsed",
}  # fmt: skip
COLLAPSES = {
    "accuracy_only": "accuracy reward only", "unbalanced": "unbalanced labels", "high_rate": "learning rate too high",
}  # fmt: skip
RATIONALE_SHARES = {
    "statements_true": "statements true", "difference_named": "difference named", "agree": "answer agrees",
    "compared": "images compared", "empty": "nothing stated",
}  # fmt: skip
RATIONALES = RATIONALE_SHARES | {"statements_mean": "statements", "words_mean": "words"}
AGAINST = ("base", "sft", "sft_long", "accuracy_only", "format_only", "grpo_only", "large")


def calibration(results: RunResults) -> pd.DataFrame:
    """A row an arm, seeds averaged: method, what P(anomalous) is worth (``CALIBRATION``), images, seeds, label.

    F1-max is tuned on the very images it is scored on. A measure that one seed lacks is NaN.
    """
    arms = _pooled(results).groupby("arm", sort=False)
    means = (100 * arms[CALIBRATION].mean(skipna=False)).round(1) + 0.0  # no -0.0
    frame = means.assign(images=arms["n"].mean().round().astype(int), seeds=arms.size(), label=results.profile.label)
    frame.insert(0, "method", [results.title(arm) for arm in frame.index])
    return frame.reset_index(drop=True)


def _pooled(results: RunResults) -> pd.DataFrame:
    rows = results.metrics.query("subset == 'logical' and category == 'pooled'")
    numbers = rows.columns.difference(["arm", "seed", "subset", "category"])
    return rows.astype(dict.fromkeys(numbers, float))


def defects(results: RunResults) -> pd.DataFrame:
    """A row an arm, category, kind and defect of all images, seeds averaged, with Wilson's 95 % interval.

    Columns: method, category, kind, defect, images, right, low, high, unparsed, seeds, label. On good images right is
    specificity, elsewhere recall. Images with several defects count once, under all their names.
    """
    rows = results.answers.rename(columns={"anomaly": "kind"})
    rows = rows.assign(right=is_right(rows), unparsed=[parse_answer(text) is None for text in rows["text"]])
    seeds = rows.groupby(["arm", "seed", *CELL], sort=False)[["right", "unparsed"]].mean()
    seeds["images"] = rows.groupby(["arm", "seed", *CELL], sort=False).size()
    cells = seeds.groupby(["arm", *CELL], sort=False)
    frame = cells.mean().assign(seeds=cells.size()).reset_index().sort_values(CELL, kind="stable")
    ends = [wilson(round(row.right * row.images), round(row.images)) for row in frame.itertuples()]
    frame[["low", "high"]] = ends
    shares = ["right", "low", "high", "unparsed"]
    frame[shares] = frame[shares].mul(100).round(1)
    frame["images"] = frame["images"].round().astype(int)
    methods = frame["arm"].map({arm: results.title(arm) for arm in frame["arm"].unique()})
    columns = ["method", *CELL, "images", *shares[:3], "unparsed", "seeds", "label"]
    return frame.assign(method=methods, label=results.profile.label)[columns]


def sensitivity(results: RunResults) -> pd.DataFrame:
    """A row an arm, seed and changed input: scores, flips with Wilson's 95 % interval, mean |change of P|.

    Columns: method, seed, condition, pairs, accuracy, recall, specificity, unparsed, flips, low, high, change, label.
    A flip is another answer than to the unchanged input, an unparsed one counting as an answer of its own.
    """
    shares = [*SCORES, "unparsed", "flips", "low", "high", "change"]
    rows = []
    for (arm, seed), answers in results.variations.groupby(["arm", "seed"], sort=False):
        cells = {cell: rows.set_index("id") for cell, rows in answers.groupby(["factor", "level"], sort=False)}
        for (factor, level), cell in cells.items():
            scores, usual = measure(outcomes(cell)), cells.get(("none", ""))
            row = {"method": results.title(arm), "seed": seed, "pairs": len(cell), "label": results.profile.label}
            row["condition"] = CONDITIONS[factor] + (f": {level}" if level else "")
            row |= {key: scores[key] for key in SCORES} | {"unparsed": scores["unparsed"] / len(cell)}
            rows.append(row | (_flips(usual, cell) if factor != "none" and usual is not None else {}))
    frame = pd.DataFrame(rows, columns=["method", "seed", "condition", "pairs", *shares, "label"])
    frame[shares] = frame[shares].astype(float).mul(100).round(1)
    return frame


def _flips(usual: pd.DataFrame, cell: pd.DataFrame) -> dict[str, float]:
    both = usual.index.intersection(cell.index, sort=False)
    if both.empty:
        return {}
    first, second = (rows.loc[both].assign(parsed=rows["text"].map(parse_answer).fillna("")) for rows in (usual, cell))
    flips = int((first["parsed"] != second["parsed"]).sum())
    low, high = wilson(flips, len(both))
    change = float((second["p_yes"] - first["p_yes"]).abs().mean(skipna=False))
    return {"flips": flips / len(both), "low": low, "high": high, "change": change}


def sensitivity_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`sensitivity` as text."""
    spans = [f"{row.low:.1f}–{row.high:.1f}" if pd.notna(row.low) else MISSING for row in frame.itertuples()]
    titles = {"low": "flips, 95 %", "change": "mean change of P", "accuracy": "Acc"}
    return frame.assign(low=spans).drop(columns="high").map(cell_text).rename(columns=titles)


def arms(results: RunResults) -> pd.DataFrame:
    """A row an arm: the mean over seeds of each key of ``ARM_SCORES``, with ``<key>_low`` and ``<key>_high``.

    All arms of the study have a row, those not run yet one without values; then other arms, then the trivial ones.
    """
    rows, keys = _pooled(results), list(ARM_SCORES)
    rows[keys] = rows.assign(unparsed=rows["unparsed"] / rows["n"])[keys].mul(100).round(2)
    by_seed = rows.groupby("arm", sort=False)
    bands = _bands(by_seed, keys).assign(images=by_seed["n"].min().round(), seeds=by_seed.size())
    others = [arm for arm in bands.index if arm not in ARMS + TRIVIAL_ARMS]
    frame = bands.reindex([*ARMS, *others, *TRIVIAL_ARMS]).round(2).astype({"images": "Int64"})
    frame = frame.assign(seeds=frame["seeds"].fillna(0).astype("Int64"), label=results.profile.label).reset_index()
    frame.insert(1, "method", [name(arm, results.profile) for arm in frame["arm"]])
    return frame


def _bands(by_seed, keys: Iterable[str]) -> pd.DataFrame:
    """Mean, lowest and highest seed of each key; NaN where one seed is."""
    seeds = by_seed[list(keys)]
    ends = {"": seeds.mean(skipna=False), "_low": seeds.min(skipna=False), "_high": seeds.max(skipna=False)}
    return pd.DataFrame({f"{key}{end}": frame[key] for key in keys for end, frame in ends.items()})


def rationales(results: RunResults) -> pd.DataFrame:
    """A row an arm: the mean over seeds of what the scenes say about its rationales (``RATIONALES``), with its band."""
    rows = [
        {"arm": arm} | summary([row for row in checked if row["anomaly"] in SUBSETS["logical"]])
        for (arm, _), checked in results.rationales.items()
    ]
    frame = pd.DataFrame(rows, columns=["arm", *RATIONALES]).astype(dict.fromkeys(RATIONALES, float))
    frame[list(RATIONALE_SHARES)] *= 100
    by_seed = frame.groupby("arm", sort=False)
    bands = _bands(by_seed, RATIONALES).assign(seeds=by_seed.size(), label=results.profile.label)
    bands = bands.reindex([arm for arm in ARMS if arm in bands.index]).round(2).rename_axis("arm").reset_index()
    bands.insert(1, "method", bands["arm"].map(NAMES))
    return bands


def bands_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`arms` or :func:`rationales` as text: mean and band in one cell; an arm without answers says so."""
    titles = RATIONALES if "words_mean" in frame else ARM_SCORES
    ends = {key: (frame[key], frame[f"{key}_low"], frame[f"{key}_high"]) for key in titles}
    shown = {title: list(map(banded, *ends[key])) for key, title in titles.items()}
    methods = frame["method"].where(frame["seeds"] > 0, frame["method"] + ": not run")
    rest = frame[[key for key in ("images", "seeds", "label") if key in frame]].map(cell_text)
    return pd.DataFrame({"method": methods} | shown).join(rest)


def differences(results: RunResults) -> pd.DataFrame:
    """SFT + GRPO minus each other arm over all seeds, and minus base for every seed, by three scoring rules.

    ``arm`` is the one subtracted, ``against`` its name; points. Images that one seed has not answered are left out of
    that comparison. ``p_holm`` is Holm's correction over all rows, which are the family of claims.
    """
    answers = results.images
    trained = {seed: rows for (arm, seed), rows in sorted(answers.items()) if arm == ARM}
    base = seeds_of(answers, "base")
    compared = [("base", str(seed), base, [rows]) for seed, rows in trained.items() if base]
    compared += [(arm, "all", seeds_of(answers, arm), list(trained.values())) for arm in AGAINST if trained]
    rows = []
    for arm, over, first, second in compared:
        for rule in RULES if first else ():
            estimate, images = difference(rule, first, second)
            ends = [round(end, 2) for end in estimate[:3]]
            rows.append((arm, NAMES[arm], over, rule, *ends, estimate.p, np.nan, images, results.profile.label))
    columns = ["arm", "against", "seeds", "reading", "difference", "low", "high", "p", "p_holm", "images", "label"]
    frame = pd.DataFrame(rows, columns=columns)
    known = frame["p"].notna()
    frame.loc[known, "p_holm"] = holm(frame.loc[known, "p"].tolist())
    return frame.astype({"p_holm": float}).round({"p": 6, "p_holm": 6})


def differences_text(frame: pd.DataFrame) -> pd.DataFrame:
    """:func:`differences` as text."""
    spans = [MISSING if pd.isna(row.low) else f"{row.low:+.1f} to {row.high:+.1f}" for row in frame.itertuples()]
    signed = [MISSING if pd.isna(value) else f"{value:+.1f}" for value in frame["difference"]]
    p = {key: [MISSING if pd.isna(value) else p_text(value) for value in frame[key]] for key in ("p", "p_holm")}
    titles = {"against": "SFT + GRPO minus", "difference": "points", "low": "95 % interval", "p_holm": "p, Holm"}
    shown = frame.assign(difference=signed, low=spans, **p).drop(columns=["arm", "high"])
    return shown.map(cell_text).rename(columns=titles)


def strategies(results: RunResults) -> pd.DataFrame:
    """A row a variant and seed: ``by_type``, the share of rationales that match parts by type, and balanced accuracy.

    Both x 100. A rationale of the toy language matches by type where it begins with "kind", else by position.
    """
    answers = results.answers.query("anomaly != 'structural' and arm in @ARMS")
    by_type = answers["text"].map(lambda text: (parse(text).think or "").split()[:1] == ["kind"])
    shares = by_type.groupby([answers["arm"], answers["seed"]]).mean().rename("by_type")
    scores = _pooled(results).set_index(["arm", "seed"])["balanced_accuracy"]
    frame = (100 * pd.concat([shares, scores], axis=1, join="inner")).reset_index()
    frame.insert(0, "method", frame["arm"].map(lambda arm: NAMES.get(arm, arm)))
    return frame.iloc[frame["arm"].map(ARMS.index).argsort(kind="stable")].reset_index(drop=True)


def passes(results: RunResults) -> pd.DataFrame:
    """A row an arm and type of rule of the sampled answers, seeds averaged; a column per k."""
    frame, keys = results.passes, ["arm", "rule"]
    wide = frame.groupby([*keys, "k"], sort=False)["pass_at"].mean().mul(100).round(2).unstack()
    wide.columns = [f"pass@{k}" for k in wide.columns]
    wide["seeds"] = frame.groupby(keys)["seed"].nunique()
    order = pd.MultiIndex.from_product([ARMS, (*RULE_TYPES, "all")], names=keys)
    wide = wide.loc[[key for key in order if key in wide.index]].reset_index().assign(label=results.profile.label)
    wide.insert(1, "method", wide["arm"].map(NAMES))
    return wide


def collapsed_runs(results: RunResults) -> dict[str, list[dict]]:
    """Title to log rows of one seed: SFT + GRPO first, then the runs that were set up to go wrong; {} without it."""
    logs = {arm: rows for (arm, _), rows in sorted(results.logs.items(), reverse=True) if rows}
    titles = {ARM: NAMES[ARM]} | COLLAPSES
    return {title: logs[arm] for arm, title in titles.items() if arm in logs} if ARM in logs else {}
