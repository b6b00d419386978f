"""Scores of answers: a row per arm, seed, subset and category. ``yes`` (anomalous) is positive.

Every image counts. An unparsed completion is wrong: FN where the image is anomalous, FP where it is good (MMAD's and
EMIT's scorers leave such images out, which flatters a model that rambles). Answers are parsed from the stored texts
by :mod:`ladlib.parsing`; the stored ``answer`` never decides. ``lenient_…`` take the last yes or no after the
thinking where the form is another: they separate a gain in content from a gain in form, and are no headline metric.

Values are shares in 0..1, ``mcc`` in -1..1. What is undefined is ``None`` in metrics.json, never 0 (as scikit-learn has
it): a share of nothing, ``mcc`` where a margin of the confusion matrix is empty, what needs both kinds of images where
one is missing, what ranks images where P(anomalous) is unknown (:func:`ranks`), and a mean of categories where one of
them is. ``f1_max_tuned_on_test`` is the best F1 of any threshold on the images it is scored on: an upper bound.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from ladlib.parsing import lenient_answer, parse, parse_answer
from ladlib.records import ARMS, NEIGHBOURS, TRIVIAL_ARMS, Anomaly

SUBSETS: dict[str, tuple[Anomaly, ...]] = {
    "logical": ("good", "logical"),  # the paper's protocol, inferred from its accuracies
    "structural": ("good", "structural"),
    "all": ("good", "logical", "structural"),
}
COUNTS = ("n", "tp", "fp", "tn", "fn", "unparsed")
BINS = 10
RULES = ("place", "count", "relation")
KS = (1, 8)


def score(answers: pd.DataFrame) -> list[dict]:
    """The rows of ``metrics.json`` for every arm and seed of ``answers``."""
    counted = outcomes(answers)
    groups = {key: counted.loc[rows.index] for key, rows in answers.groupby(["arm", "seed"], sort=False)}
    return [row for arm, seed in sorted(groups, key=arm_order) for row in _arm_rows(arm, int(seed), groups[arm, seed])]


def arm_order(key: tuple[str, int]) -> tuple:
    """What sorts (arm, seed): the arms in their usual order, then others by name."""
    return ARMS.index(key[0]) if key[0] in ARMS else len(ARMS), *key


def score_trivial(answers: pd.DataFrame) -> list[dict]:
    """Rows of the trivial arms on the test images of ``answers``.

    ``base_rate`` answers yes as often as the scored images are anomalous; its counts are expected values.
    """
    images = outcomes(answers.drop_duplicates(["dataset", "id"], keep="last"))
    return [row for arm in TRIVIAL_ARMS for row in _arm_rows(arm, 0, images, trivial=True)]


def score_detections(detections: pd.DataFrame) -> list[dict]:
    """Rows of the nearest-neighbour detector, ranked by distance / (distance + threshold), which is no probability."""
    called = detections["distance"] > detections["threshold"]
    scale = (detections["distance"] + detections["threshold"]).where(detections["distance"] != 0, 1.0)
    counted = detections[["category", "anomaly"]].assign(
        anomalous=detections["label"] == "yes", called=called, called_leniently=called,
        score=detections["distance"] / scale, unparsed=False, well_formed=np.nan, weight=1.0,
    )  # fmt: skip
    return [row | {"ece": None} for row in _arm_rows(NEIGHBOURS, 0, counted)]


def outcomes(answers: pd.DataFrame) -> pd.DataFrame:
    """How each answer counts, on the index of ``answers``.

    Columns: category, anomaly, anomalous, called (yes; the wrong answer where unparsed), called_leniently, score
    (P(anomalous), NaN = unknown), unparsed, well_formed (1, 0 or NaN), weight.
    """
    readings = answers["text"].map(parse)
    strict = readings.map(lambda reading: reading.answer)
    anomalous = answers["label"] == "yes"
    return answers[["category", "anomaly"]].assign(
        anomalous=anomalous,
        called=_called(strict, anomalous),
        called_leniently=_called(answers["text"].map(lenient_answer), anomalous),
        score=answers["p_yes"].astype(float),
        unparsed=strict.isna(),
        well_formed=readings.map(lambda reading: reading.well_formed).astype(float),
        weight=1.0,
    )


def _called(parsed: pd.Series, anomalous: pd.Series) -> pd.Series:
    """Whether each answer counts as yes: where nothing was parsed, the wrong answer does."""
    return (parsed == "yes").where(parsed.notna(), ~anomalous).astype(bool)


def is_right(answers: pd.DataFrame) -> pd.Series:
    """Whether each strictly parsed answer is the label."""
    return answers["text"].map(parse_answer) == answers["label"]


def is_right_leniently(answers: pd.DataFrame) -> pd.Series:
    """Whether the first yes or no anywhere is the label."""
    return answers["text"].map(lenient_answer) == answers["label"]


def ranks(counted: pd.DataFrame) -> np.ndarray | None:
    """P(anomalous) of each of the :func:`outcomes`; None where it is known for none, or unknown for a parsed answer.

    An unparsed answer without P(anomalous) ranks as it counts, wrong: an anomalous image at 0, a good one at 1.
    """
    unknown = counted["score"].isna()
    if unknown.all() or (unknown & ~counted["unparsed"]).any():
        return None
    return counted["score"].where(~unknown, (~counted["anomalous"]).astype(float)).to_numpy()


def _arm_rows(arm: str, seed: int, images: pd.DataFrame, trivial: bool = False) -> list[dict]:
    rows = []
    for subset, anomalies in SUBSETS.items():
        chosen = images[images["anomaly"].isin(anomalies)]
        if chosen.empty:
            continue
        cells = [*chosen.groupby("category"), ("pooled", chosen)]
        measured = {name: measure(_trivial(arm, cell) if trivial else cell) for name, cell in cells}
        measured["mean"] = _mean([row for name, row in measured.items() if name != "pooled"])
        key = {"arm": arm, "seed": seed, "subset": subset}
        rows += [{**key, "category": name, **values} for name, values in measured.items()]
    return rows


def _trivial(arm: str, images: pd.DataFrame) -> pd.DataFrame:
    """``images`` as the trivial arm answers them, in two weighted rows each for ``base_rate``."""
    share = {"always_yes": 1.0, "always_no": 0.0}.get(arm, float(images["anomalous"].mean()))
    constant = images.assign(score=share, unparsed=False, well_formed=np.nan)
    answered = ((True, share), (False, 1.0 - share))
    return pd.concat([constant.assign(called=yes, called_leniently=yes, weight=part) for yes, part in answered if part])


def measure(counted: pd.DataFrame) -> dict:
    """All counts and measures of one non-empty frame of :func:`outcomes`."""
    truth, weight, ranked = counted["anomalous"].to_numpy(), counted["weight"].to_numpy(), ranks(counted)
    exact = _confusion(truth, counted["called"].to_numpy(), weight)
    tn, fp, fn, tp = map(_count, exact)
    lenient = [_count(n) for n in _confusion(truth, counted["called_leniently"].to_numpy(), weight)]
    formed = counted["well_formed"].dropna()
    counts = {"n": _count(weight.sum()), "tp": tp, "fp": fp, "tn": tn, "fn": fn}
    measures = {
        "accuracy": _ratio(tp + tn, tp + tn + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "specificity": _ratio(tn, tn + fp),
        "balanced_accuracy": _balanced(tn, fp, fn, tp),
        "mcc": _mcc(*exact),
        **_ranking(truth, ranked if (tp + fn) * (tn + fp) else None, weight),
        "ece": None if ranked is None else expected_calibration_error(truth, ranked, weight),
        "format_rate": float(formed.mean()) if len(formed) else None,
        "lenient_accuracy": _ratio(lenient[0] + lenient[3], sum(lenient)),
        "lenient_balanced_accuracy": _balanced(*lenient),
    }
    return counts | {"unparsed": int(counted["unparsed"].sum())} | _rounded(measures)


def _ranking(truth: np.ndarray, ranked: np.ndarray | None, weight: np.ndarray) -> dict[str, float | None]:
    if ranked is None:
        return dict.fromkeys(("auroc", "average_precision", "f1_max_tuned_on_test"))
    from sklearn import config_context
    from sklearn.metrics import precision_recall_curve, roc_auc_score

    with config_context(assume_finite=True, skip_parameter_validation=True):  # most of the time of small samples
        precision, recall, _ = precision_recall_curve(truth, ranked, sample_weight=weight)
        auroc = float(roc_auc_score(truth, ranked, sample_weight=weight))
    average = float(-np.sum(np.diff(recall) * precision[:-1]))
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return {"auroc": auroc, "average_precision": average, "f1_max_tuned_on_test": float(f1.max())}


def _confusion(truth: np.ndarray, called: np.ndarray, weight: np.ndarray) -> list[float]:
    """[tn, fp, fn, tp]."""
    cells = ((False, False), (False, True), (True, False), (True, True))
    return [float(weight[(truth == yes) & (called == answer)].sum()) for yes, answer in cells]


def _mcc(tn: float, fp: float, fn: float, tp: float) -> float | None:
    margins = (tp + fn) * (tn + fp) * (tp + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(margins) if margins else None


def _balanced(tn: float, fp: float, fn: float, tp: float) -> float | None:
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return None if recall is None or specificity is None else (recall + specificity) / 2


def _count(value: float) -> int | float:
    """A whole number as int; an expected count is rounded, which drops the noise of summing."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded.is_integer() else rounded


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(rows: Sequence[dict]) -> dict:
    """Counts summed, measures averaged with equal weight per category."""
    counts = {name: _count(sum(row[name] for row in rows)) for name in COUNTS}
    values = {name: [row[name] for row in rows] for name in rows[0] if name not in COUNTS}
    return counts | _rounded({name: None if None in of else float(np.mean(of)) for name, of in values.items()})


def _rounded(measures: dict) -> dict:
    """To 12 decimals: what lies below differs between processors, which sum in different orders."""
    return {name: None if value is None else round(value, 12) + 0.0 for name, value in measures.items()}


def expected_calibration_error(anomalous: np.ndarray, p: np.ndarray, weight: np.ndarray) -> float:
    """ECE = sum over bins of (images in the bin / images) |share that is anomalous - mean p|.

    Naeini, Cooper and Hauskrecht, AAAI 2015, for the positive class. ``BINS`` bins have equal width on 0..1; an inner
    edge belongs to the lower one. It grows with the number of bins and, on few images, by chance alone.
    """
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], p)
    return float(np.abs(np.bincount(bins, weight * (anomalous - p))).sum() / weight.sum())


def pass_at(correct: int, drawn: int, k: int) -> float:
    """Unbiased pass@k = 1 - C(n - c, k) / C(n, k), ``correct`` of ``drawn`` answers being right.

    Chen et al. 2021, arXiv 2107.03374, equation 1.

    >>> pass_at(correct=2, drawn=8, k=1)
    0.25
    """
    return 1 - math.comb(drawn - correct, k) / math.comb(drawn, k)


def pass_frame(rows: Iterable[dict]) -> pd.DataFrame:
    """Mean pass@k of sampled answers: columns arm, seed, rule ("all" included), k (of :data:`KS`), pass_at."""
    values = [
        (row["arm"], row["seed"], rule, k, pass_at(sum(row["right"]), len(row["right"]), k))
        for row in rows for rule in (row["rule"], "all") for k in KS if k <= len(row["right"])
    ]  # fmt: skip
    frame = pd.DataFrame(values, columns=["arm", "seed", "rule", "k", "pass_at"])
    return frame.groupby(["arm", "seed", "rule", "k"], sort=False, as_index=False)["pass_at"].mean()
