"""Every measure of 1,000 random confusion tables, empty classes among them, against independent computations."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from ladlib.calibration import expected_calibration_error, reliability
from ladlib.metrics import Judged, best_f1, measure
from ladlib.statistics import mcnemar

RNG = np.random.default_rng(20250417)
# A third of the cells is empty: classes without an image and answers never given are among the tables.
TABLES = (RNG.integers(0, 40, (1000, 4)) * (RNG.random((1000, 4)) > 1 / 3)).tolist()
TABLES = [tuple(one) for one in TABLES if sum(one)]


def judged(tp, fn, fp, tn, scores=None):
    """Images that make such a table; ``scores`` are P(anomalous), by default not known."""
    cells = [(True, True)] * tp + [(True, False)] * fn + [(False, True)] * fp + [(False, False)] * tn
    scores = [None] * len(cells) if scores is None else scores
    return [
        Judged("a", "logical" if anomalous else "good", anomalous, called, called, p, False, 1.0)
        for (anomalous, called), p in zip(cells, scores, strict=True)
    ]


def by_hand(tp, fn, fp, tn):
    """The textbook fractions; None where the denominator is 0."""

    def share(part, whole):
        return float(Fraction(part, whole)) if whole else None

    recall, specificity = share(tp, tp + fn), share(tn, tn + fp)
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "accuracy": share(tp + tn, tp + fn + fp + tn),
        "precision": share(tp, tp + fp),
        "recall": recall,
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "specificity": specificity,
        "balanced_accuracy": None if None in (recall, specificity) else (recall + specificity) / 2,
        "mcc": (tp * tn - fp * fn) / root if root else None,
    }


def by_scikit_learn(images):
    truth, called = [one.anomalous for one in images], [one.called for one in images]
    known = {"labels": [False, True], "zero_division": np.nan}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, called, **known)
    values = {"precision": precision[1], "recall": recall[1], "f1": f1[1], "specificity": recall[0]}
    return {name: None if np.isnan(value) else pytest.approx(value) for name, value in values.items()}


def test_there_are_tables_with_every_kind_of_emptiness():
    assert len(TABLES) > 980
    for empty in ((0, 1), (2, 3), (0, 2), (1, 3), (0, 1, 2), (1, 2, 3)):
        assert any(not any(table[cell] for cell in empty) for table in TABLES)


def test_every_measure_of_the_tables_is_the_textbooks_and_undefined_ones_are_none():
    for table in TABLES:
        ours, theirs = measure(judged(*table)), by_hand(*table)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs), table
        assert (ours["tp"], ours["fn"], ours["fp"], ours["tn"]) == table


def test_every_measure_of_the_tables_is_scikit_learns_where_that_defines_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in TABLES:
            images = judged(*table)
            ours, theirs = measure(images), by_scikit_learn(images)
            assert {name: ours[name] for name in theirs} == theirs, table


def test_what_is_read_from_probabilities_is_scikit_learns_on_the_same_tables():
    rng = np.random.default_rng(1)
    for table in TABLES[:150]:
        scores = np.round(rng.random(sum(table)), 2).tolist()  # rounded: ties
        images, truth = judged(*table, scores), [True] * (table[0] + table[1]) + [False] * (table[2] + table[3])
        ours = measure(images)
        if len(set(truth)) < 2:
            names = ("auroc", "average_precision", "f1_max_tuned_on_test")
            assert [ours[name] for name in names] == [None] * 3
            continue
        assert ours["auroc"] == pytest.approx(sk.roc_auc_score(truth, scores))
        assert ours["average_precision"] == pytest.approx(sk.average_precision_score(truth, scores))


def test_f1_max_is_the_best_f1_over_every_threshold():
    rng = np.random.default_rng(2)
    for _ in range(40):
        truth, scores = rng.random(30) < 0.4, np.round(rng.random(30), 1)
        if truth.any():
            called = [scores >= cut for cut in set(scores)]
            cuts = [2 * (truth & yes).sum() / (truth.sum() + yes.sum()) for yes in called]
            assert best_f1(truth, scores) == pytest.approx(max(cuts))


def test_the_reliability_diagram_is_scikit_learns_and_its_error_the_sum_by_hand():
    rng = np.random.default_rng(3)
    for bins in (2, 5, 10):
        said = np.round(rng.random(200), 2)
        truth = rng.random(200) < said**2
        points = reliability(truth, said, bins=bins)
        true, mean = calibration_curve(truth, said, n_bins=bins)
        assert [one.true for one in points] == pytest.approx(true.tolist())
        assert [one.said for one in points] == pytest.approx(mean.tolist())
        assert sum(one.images for one in points) == 200
        error = sum(one.images / 200 * abs(one.true - one.said) for one in points)
        assert expected_calibration_error(truth, said, bins=bins) == pytest.approx(error)


def test_calibration_of_hand_worked_cases():
    # Four images given 0.8, three of them anomalous: off by 0.05. Two given 0.3, none anomalous: off by 0.3.
    truth, said = [True, True, True, False, False, False], [0.8] * 4 + [0.3] * 2
    assert expected_calibration_error(truth, said) == pytest.approx(4 / 6 * 0.05 + 2 / 6 * 0.3)
    assert expected_calibration_error([], []) is None and reliability([], []) == []


def test_a_weight_counts_as_so_many_images():
    assert reliability([True, False], [0.8, 0.8], weight=[3, 1]) == reliability([True] * 3 + [False], [0.8] * 4)


def test_mcnemars_exact_p_is_statsmodels_on_random_pairs_of_arms():
    rng = np.random.default_rng(4)
    for _ in range(300):
        size = int(rng.integers(1, 80))
        first, second = rng.random(size) < rng.random(), rng.random(size) < rng.random()
        table = [[np.sum(first & second), np.sum(first & ~second)], [np.sum(~first & second), np.sum(~first & ~second)]]
        expected = statsmodels_mcnemar(table, exact=True).pvalue
        assert mcnemar(first, second) == pytest.approx(min(1.0, expected))
