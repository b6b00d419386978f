"""Intervals and tests against hand-worked and textbook cases, and against slower ways to the same values."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from ladlib.statistics import bootstrap, holm, mcnemar, wilson


def test_wilsons_interval_of_a_textbook_case():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, score method
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_of_a_hand_worked_case():
    # 5 gained, 1 lost: 2 * (C(6,0) + C(6,1)) / 2**6
    first, second = [False] * 5 + [True] + [True] * 4, [True] * 5 + [False] + [True] * 4
    assert mcnemar(first, second) == pytest.approx(14 / 64)
    assert mcnemar([True], [True]) == 1.0
    with pytest.raises(ValueError, match="2 and 1"):
        mcnemar([True, True], [True])


def test_holms_correction_of_a_hand_worked_family():
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the 0.06 before it, 0.5 x 1
    assert holm([0.5, 0.02, 0.01, 0.03]) == pytest.approx([0.5, 0.06, 0.04, 0.06])
    assert holm([]) == []


# Scores on the same images, several seeds


@pytest.fixture
def answered():
    """120 images, one arm with one seed and a better one with three: (anomalous, right, p) of each."""
    rng = np.random.default_rng(1)
    anomalous = rng.random(120) < 0.4
    first, second = rng.random((1, 120)) < 0.6, rng.random((3, 120)) < 0.8
    scores = [np.round(0.5 + np.where(right == anomalous, 0.2, -0.2) * rng.random(right.shape), 1) for right in
              (first, second)]  # rounded: ties  # fmt: skip
    return anomalous, (first, second), scores


def test_the_difference_is_that_of_scikit_learns_scores_averaged_over_seeds(answered):
    anomalous, right, scores = answered
    calls = [np.where(one, anomalous, ~anomalous) for one in right]
    balanced = [np.mean([balanced_accuracy_score(anomalous, seed) for seed in arm]) for arm in calls]
    ranked = [np.mean([roc_auc_score(anomalous, seed) for seed in arm]) for arm in scores]
    gain = bootstrap("balanced_accuracy", anomalous, right[1], baseline=right[0])
    assert gain.value == pytest.approx(balanced[1] - balanced[0])
    assert bootstrap("auroc", anomalous, scores[1], baseline=scores[0]).value == pytest.approx(ranked[1] - ranked[0])
    assert bootstrap("auroc", anomalous, scores[1]).value == pytest.approx(ranked[1])


@pytest.mark.parametrize("score", ["balanced_accuracy", "auroc"])
def test_the_interval_is_that_of_drawing_images_one_by_one(answered, score):
    anomalous, right, scores = answered
    first, second = right if score == "balanced_accuracy" else scores
    measure = roc_auc_score if score == "auroc" else lambda truth, ok: (ok[truth].mean() + ok[~truth].mean()) / 2
    rng, gains = np.random.default_rng(2), []
    kinds = [np.flatnonzero(anomalous), np.flatnonzero(~anomalous)]
    for _ in range(600):
        picks = np.concatenate([rng.choice(kind, kind.size) for kind in kinds])
        means = [np.mean([measure(anomalous[picks], seed[picks]) for seed in arm]) for arm in (first, second)]
        gains.append(means[1] - means[0])
    ours = bootstrap(score, anomalous, second, baseline=first)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(gains, [0.025, 0.975])), abs=0.02)
    assert ours.error == pytest.approx(np.std(gains), rel=0.1)


def test_an_arm_against_itself_differs_by_nothing_in_every_draw(answered):
    anomalous, (first, _), (scores, _) = answered
    for estimate in (
        bootstrap("balanced_accuracy", anomalous, first, baseline=first),
        bootstrap("auroc", anomalous, scores, baseline=scores),
    ):
        assert estimate == (0.0, 0.0, 0.0, 0.0) and estimate.p == 1.0


def test_answers_to_the_same_images_tell_more_than_the_two_intervals_apart(answered):
    anomalous, (first, _), _ = answered
    mended = first.copy()
    mended[0, np.flatnonzero(~first[0])[:6]] = True
    gain = bootstrap("balanced_accuracy", anomalous, mended, baseline=first)
    alone = bootstrap("balanced_accuracy", anomalous, first)
    assert 0 < gain.low < gain.value < gain.high and gain.p < 0.05
    assert gain.high - gain.low < 0.6 * (alone.high - alone.low)
    assert bootstrap("balanced_accuracy", anomalous, mended, baseline=first) == gain


@pytest.mark.parametrize("anomalous", [[True, True], [False, False], [True, False, True], []])
def test_one_kind_of_image_or_answers_to_others_are_refused(anomalous):
    with pytest.raises(ValueError, match="good and anomalous"):
        bootstrap("auroc", anomalous, [0.1, 0.2])


# Coverage: of many simulated experiments with known truth, the share whose interval holds it

NOMINAL, ALLOWED = 0.95, 0.015


def coverage(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def simulated(rng, experiments=1200, images=240):
    """(anomalous, right of a first arm, right of a second one, P(anomalous)) of each experiment.

    Recall and specificity are 0.6 and 0.7 of the first arm; the second is right on 95 % of what the first is right
    on, and on fewer of the others. P(anomalous) is normal, one deviation apart.
    """
    anomalous = np.arange(images) < images // 2
    for _ in range(experiments):
        first = rng.random(images) < np.where(anomalous, 0.6, 0.7)
        second = rng.random(images) < np.where(first, 0.95, np.where(anomalous, 0.325, 0.45))
        yield anomalous, first, second, rng.normal(size=images) + anomalous


SECOND = {"recall": 0.6 * 0.95 + 0.4 * 0.325, "specificity": 0.7 * 0.95 + 0.3 * 0.45}
GAIN = (SECOND["recall"] + SECOND["specificity"]) / 2 - 0.65


def test_the_stratified_bootstrap_of_one_arm_and_of_two_covers_95_percent():
    balanced, ranked, paired = [], [], []
    for anomalous, first, second, scores in simulated(np.random.default_rng(1)):
        balanced.append(bootstrap("balanced_accuracy", anomalous, first, draws=600)[1:3])
        ranked.append(bootstrap("auroc", anomalous, scores, draws=600)[1:3])
        paired.append(bootstrap("balanced_accuracy", anomalous, second, first, draws=600)[1:3])
    assert coverage(balanced, 0.65) == pytest.approx(NOMINAL, abs=ALLOWED)
    assert coverage(ranked, norm.cdf(1 / np.sqrt(2))) == pytest.approx(NOMINAL, abs=ALLOWED)
    assert coverage(paired, GAIN) == pytest.approx(NOMINAL, abs=ALLOWED)
