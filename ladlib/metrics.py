"""Scores of generations: one row for each arm, seed, subset and category. ``yes`` (anomalous) is positive.

Every image counts. An unparsed completion is wrong: a missed anomaly (FN) where the image is anomalous, a
false alarm (FP) where it is good; MMAD's and EMIT's scorers leave such images out and so flatter a model that
rambles. The answer is read from the stored text through :mod:`ladlib.parsing`, so the stored ``answer`` never
decides. Measures named ``lenient_…`` read it through :func:`ladlib.parsing.lenient_answer` instead (the first yes
or no anywhere; none at all is wrong): they tell a gain in judgement from a gain in form, and are no headline.

Values are shares in 0..1, ``mcc`` within -1..1. What is not defined is ``None``, and a dash in every table, never 0:

- ``precision`` where nothing was called anomalous, ``recall`` without an anomalous image, ``specificity`` without
  a good one, ``f1`` where there is neither (no TP, FP or FN), ``mcc`` where a row or column of the confusion
  matrix is empty (0 / 0 in each case; scikit-learn writes 0 there);
- both balanced accuracies, ``auroc``, ``average_precision`` and ``f1_max_tuned_on_test`` without both kinds of image;
- what is read from P(anomalous), these last three and ``ece``, where that is not known (:func:`ranks`);
- a mean over categories where one of them is.

``f1_max_tuned_on_test`` is the best F1 that any threshold on P(anomalous) reaches on the very images it is scored
on: an upper bound that no one could have known beforehand, named so that it is not read as F1.
``ece``: :func:`ladlib.calibration.expected_calibration_error`.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    matthews_corrcoef,
    precision_recall_curve,
    roc_auc_score,
)

from ladlib.calibration import expected_calibration_error
from ladlib.parsing import lenient_answer, parse
from ladlib.records import ARMS, NEIGHBOURS, TRIVIAL_ARMS, Anomaly, Answer, Detection, Generation

SUBSETS: dict[str, tuple[Anomaly, ...]] = {
    "logical": ("good", "logical"),  # the paper's protocol, inferred from its accuracies
    "structural": ("good", "structural"),
    "all": ("good", "logical", "structural"),
}
COUNTS = ("n", "tp", "fp", "tn", "fn", "unparsed")
MEASURES = (
    "accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy", "mcc", "auroc",
    "average_precision", "f1_max_tuned_on_test", "ece", "format_rate", "lenient_accuracy",
    "lenient_balanced_accuracy",
)  # fmt: skip


class Judged(NamedTuple):
    """One image as it is counted."""

    category: str
    anomaly: Anomaly
    anomalous: bool
    called: bool  # the answer is yes; where it is unparsed, the wrong one
    called_leniently: bool  # the same of the first yes or no anywhere
    score: float | None  # P(anomalous)
    unparsed: bool
    well_formed: float | None  # 1 or 0; None for a trivial arm, which writes nothing
    weight: float = 1.0


def score(generations: Iterable[Generation]) -> list[dict]:
    """The rows of ``metrics.json`` for every arm and seed among ``generations``."""
    arms: dict[tuple[str, int], list[Judged]] = {}
    for one in generations:
        arms.setdefault((one.arm, one.seed), []).append(judge(one))
    order = sorted(arms, key=lambda key: (ARMS.index(key[0]) if key[0] in ARMS else len(ARMS), *key))
    return [row for arm, seed in order for row in _arm_rows(arm, seed, arms[arm, seed])]


def score_trivial(generations: Iterable[Generation]) -> list[dict]:
    """Rows of the trivial arms on the test images that ``generations`` (of any arms) were asked about.

    ``base_rate`` says yes as often as the rows it is scored on are anomalous, without looking. Its counts are
    expected values, not one draw: each image is counted as a yes with that weight and as a no with the rest.
    """
    images = list({(one.dataset, one.id): judge(one) for one in generations}.values())
    return [row for arm in TRIVIAL_ARMS for row in _arm_rows(arm, 0, images, trivial=True)] if images else []


def score_detections(detections: Iterable[Detection]) -> list[dict]:
    """Rows of the nearest-neighbour detector, which answers every image and writes nothing.

    It is ranked by distance / (distance + threshold): one half at the threshold of each category, whatever the
    scale there. That is no probability, so there is no ``ece``.
    """
    return [row | {"ece": None} for row in _arm_rows(NEIGHBOURS, 0, [_detected(one) for one in detections])]


def _detected(one: Detection) -> Judged:
    called = one.distance > one.threshold
    return Judged(
        category=one.category,
        anomaly=one.anomaly,
        anomalous=one.label == "yes",
        called=called,
        called_leniently=called,
        score=one.distance / (one.distance + one.threshold) if one.distance else 0.0,
        unparsed=False,
        well_formed=None,
    )


def judge(generation: Generation) -> Judged:
    """What a completion counts as."""
    reading, anomalous = parse(generation.text), generation.label == "yes"
    return Judged(
        category=generation.category,
        anomaly=generation.anomaly,
        anomalous=anomalous,
        called=_called(reading.answer, anomalous),
        called_leniently=_called(lenient_answer(generation.text), anomalous),
        score=generation.p_yes,
        unparsed=reading.answer is None,
        well_formed=float(reading.well_formed),
    )


def _called(answer: Answer | None, anomalous: bool) -> bool:
    """Whether an answer counts as a yes; no answer counts as the wrong one."""
    return answer == "yes" if answer else not anomalous


def ranks(images: Sequence[Judged]) -> list[float] | None:
    """What ``images`` are ranked by: P(anomalous). ``None`` where it was told for none, or not for an answer.

    A completion without an answer may have no place to read it from. Left out, it would flatter the model; so it
    ranks as it counts, wrong: an anomalous image at 0, a good one at 1.
    """
    untold = [one.score is None for one in images]
    if all(untold) or any(missing and not one.unparsed for missing, one in zip(untold, images, strict=True)):
        return None
    return [float(not one.anomalous) if one.score is None else one.score for one in images]


def is_right(generation: Generation) -> bool:
    """Whether the strictly parsed answer is the label."""
    judged = judge(generation)
    return judged.called == judged.anomalous


def is_right_leniently(generation: Generation) -> bool:
    """Whether the first yes or no anywhere is the label."""
    return lenient_answer(generation.text) == generation.label


def _arm_rows(arm: str, seed: int, images: list[Judged], trivial: bool = False) -> list[dict]:
    rows = []
    for subset, anomalies in SUBSETS.items():
        chosen = [image for image in images if image.anomaly in anomalies]
        cells = {name: [one for one in chosen if one.category == name] for name in _categories(chosen)}
        pooled = {"pooled": chosen} if chosen else {}
        answered = {name: _trivial(arm, cell) if trivial else cell for name, cell in (cells | pooled).items()}
        measured = {name: _measured(tuple(cell)) for name, cell in answered.items()}
        if cells:
            measured["mean"] = _mean([measured[name] for name in cells])
        key = {"arm": arm, "seed": seed, "subset": subset}
        rows += [{**key, "category": name, **values} for name, values in measured.items()]
    return rows


def _categories(images: Iterable[Judged]) -> list[str]:
    return sorted({image.category for image in images})


def _trivial(arm: str, images: list[Judged]) -> list[Judged]:
    """The same images as the trivial arm answers them; with two weighted answers each for ``base_rate``."""
    share = {"always_yes": 1.0, "always_no": 0.0}.get(arm, float(np.mean([one.anomalous for one in images])))
    blind = [one._replace(score=share, unparsed=False, well_formed=None) for one in images]
    return [
        one._replace(called=called, called_leniently=called, weight=weight)
        for called, weight in ((True, share), (False, 1.0 - share))
        for one in blind
        if weight
    ]


def measure(images: Sequence[Judged]) -> dict:
    """All counts and measures of one non-empty cell, through scikit-learn where it has them."""
    truth, called = [one.anomalous for one in images], [one.called for one in images]
    weight = [one.weight for one in images]
    tn, fp, fn, tp = _confusion(truth, called, weight)
    lenient = _confusion(truth, [one.called_leniently for one in images], weight)
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    both = recall is not None and specificity is not None
    known, ranked = {"y_true": truth, "sample_weight": weight}, ranks(images)
    ranking = both and ranked is not None
    counts = {"n": _count(sum(weight)), "tp": tp, "fp": fp, "tn": tn, "fn": fn}
    counts["unparsed"] = sum(one.unparsed for one in images)
    measures = {
        "accuracy": _accuracy(tn, fp, fn, tp),
        "precision": _ratio(tp, tp + fp),
        "recall": recall,
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "specificity": specificity,
        "balanced_accuracy": _balanced(tn, fp, fn, tp),
        "mcc": float(matthews_corrcoef(**known, y_pred=called)) if both and tp + fp and tn + fn else None,
        "auroc": float(roc_auc_score(**known, y_score=ranked)) if ranking else None,
        "average_precision": float(average_precision_score(**known, y_score=ranked)) if ranking else None,
        "f1_max_tuned_on_test": best_f1(**known, y_score=ranked) if ranking else None,
        "ece": None if ranked is None else expected_calibration_error(truth, ranked, weight),
        "format_rate": _share(one.well_formed for one in images),
        "lenient_accuracy": _accuracy(*lenient),
        "lenient_balanced_accuracy": _balanced(*lenient),
    }
    return counts | _rounded(measures)


_measured = lru_cache(maxsize=4096)(measure)  # a run is scored for its report, its claims and the terminal alike


def best_f1(y_true: Sequence[bool], y_score: Sequence[float], sample_weight: Sequence[float] | None = None) -> float:
    """The largest F1 = 2 precision recall / (precision + recall) over all thresholds on ``y_score``."""
    precision, recall, _ = precision_recall_curve(y_true, y_score, sample_weight=sample_weight)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)))


def _confusion(truth: list[bool], called: list[bool], weight: list[float]) -> tuple[int | float, ...]:
    """(tn, fp, fn, tp)."""
    matrix = confusion_matrix(truth, called, labels=[False, True], sample_weight=weight)
    return tuple(_count(value) for value in matrix.ravel())


def _accuracy(tn: float, fp: float, fn: float, tp: float) -> float | None:
    return _ratio(tp + tn, tp + tn + fp + fn)


def _balanced(tn: float, fp: float, fn: float, tp: float) -> float | None:
    recall, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return None if recall is None or specificity is None else (recall + specificity) / 2


def _count(value: float) -> int | float:
    """A whole number as int; an expected count of ``base_rate`` rounded to drop the noise of summing."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded.is_integer() else rounded


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _share(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean(rows: Sequence[dict]) -> dict:
    """Counts summed, measures averaged with equal weight for every category."""
    counts = {name: _count(sum(row[name] for row in rows)) for name in COUNTS}
    means = {
        name: None if any(row[name] is None for row in rows) else float(np.mean([row[name] for row in rows]))
        for name in MEASURES
    }
    return counts | _rounded(means)


def _rounded(measures: dict) -> dict:
    """To 12 decimals. What lies below differs between processors, which sum in different orders."""
    return {name: None if value is None else round(value, 12) + 0.0 for name, value in measures.items()}
