"""Intervals and tests against hand-worked and textbook cases, and against slower ways to the same values."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from ladlib.published import ConfusionTable, resampled
from ladlib.statistics import (
    bootstrap_difference,
    bootstrap_score,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_error,
    wilson,
)  # fmt: skip


def test_wilsons_interval_of_a_textbook_case():
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263, score method
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_of_a_hand_worked_case():
    # 5 gained, 1 lost: 2 * (C(6,0) + C(6,1)) / 2**6
    first, second = [False] * 5 + [True] + [True] * 4, [True] * 5 + [False] + [True] * 4
    assert mcnemar(first, second) == pytest.approx(14 / 64)
    assert mcnemar([True], [True]) == 1.0


def test_the_bootstrap_brackets_the_difference_and_repeats():
    first, second = [True, False] * 50, [True, True, False, True] * 25
    difference, low, high = paired_bootstrap(first, second)
    assert difference == pytest.approx(0.25)
    assert 0.05 < low < difference < high < 0.45
    assert paired_bootstrap(first, second) == (difference, low, high)
    assert paired_bootstrap(first, first) == (0.0, 0.0, 0.0)


def test_answers_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="2 and 1"):
        mcnemar([True, True], [True])


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
    said = [np.where(one, anomalous, ~anomalous) for one in right]
    balanced = [np.mean([balanced_accuracy_score(anomalous, seed) for seed in arm]) for arm in said]
    ranked = [np.mean([roc_auc_score(anomalous, seed) for seed in arm]) for arm in scores]
    assert bootstrap_difference("balanced_accuracy", anomalous, *right).value == pytest.approx(
        balanced[1] - balanced[0]
    )
    assert bootstrap_difference("auroc", anomalous, *scores).value == pytest.approx(ranked[1] - ranked[0])
    assert bootstrap_score("auroc", anomalous, scores[1]).value == pytest.approx(ranked[1])


@pytest.mark.parametrize("score", ["balanced_accuracy", "auroc"])
def test_the_interval_is_that_of_drawing_images_one_by_one(answered, score):
    anomalous, right, scores = answered
    first, second = right if score == "balanced_accuracy" else scores
    measure = roc_auc_score if score == "auroc" else lambda truth, ok: (ok[truth].mean() + ok[~truth].mean()) / 2
    rng, found = np.random.default_rng(2), []
    kinds = [np.flatnonzero(anomalous), np.flatnonzero(~anomalous)]
    for _ in range(600):
        picks = np.concatenate([rng.choice(kind, kind.size) for kind in kinds])
        means = [np.mean([measure(anomalous[picks], seed[picks]) for seed in arm]) for arm in (first, second)]
        found.append(means[1] - means[0])
    ours = bootstrap_difference(score, anomalous, first, second)
    assert (ours.low, ours.high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=0.02)


def test_an_arm_against_itself_differs_by_nothing_in_every_draw(answered):
    anomalous, (first, _), (scores, _) = answered
    assert bootstrap_difference("balanced_accuracy", anomalous, first, first) == (0.0, 0.0, 0.0)
    assert bootstrap_difference("auroc", anomalous, scores, scores) == (0.0, 0.0, 0.0)


def test_answers_to_the_same_images_tell_more_than_the_two_intervals_apart(answered):
    anomalous, (first, _), _ = answered
    mended = first.copy()
    mended[0, np.flatnonzero(~first[0])[:6]] = True
    value, low, high = bootstrap_difference("balanced_accuracy", anomalous, first, mended)
    alone = bootstrap_score("balanced_accuracy", anomalous, first)
    assert 0 < low < value < high
    assert high - low < 0.6 * (alone.high - alone.low)


def test_the_same_seed_draws_the_same_images_and_another_one_others(answered):
    anomalous, right, _ = answered
    once = bootstrap_difference("balanced_accuracy", anomalous, *right)
    assert bootstrap_difference("balanced_accuracy", anomalous, *right) == once
    assert bootstrap_difference("balanced_accuracy", anomalous, *right, seed=1) != once


def test_a_lower_level_gives_a_narrower_interval(answered):
    anomalous, right, _ = answered
    wide, narrow = (bootstrap_difference("balanced_accuracy", anomalous, *right, level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("anomalous", [[True, True], [False, False], [True, False, True], []])
def test_one_kind_of_image_or_answers_to_others_are_refused(anomalous):
    with pytest.raises(ValueError, match="good and anomalous"):
        bootstrap_score("auroc", anomalous, [0.1, 0.2])


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


@pytest.mark.parametrize("images", [60, 227, 1136])
def test_wilsons_interval_covers_95_percent(images):
    rng = np.random.default_rng(0)
    ends = np.array([wilson(right, images) for right in range(images + 1)])
    truth = rng.uniform(0.05, 0.95, 20_000)
    low, high = ends[rng.binomial(images, truth)].T
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(NOMINAL, abs=ALLOWED)


def test_the_stratified_bootstrap_of_one_arm_covers_95_percent():
    balanced, ranked = [], []
    for anomalous, right, _, scores in simulated(np.random.default_rng(1)):
        balanced.append(bootstrap_score("balanced_accuracy", anomalous, right, draws=600)[1:])
        ranked.append(bootstrap_score("auroc", anomalous, scores, draws=600)[1:])
    assert coverage(balanced, 0.65) == pytest.approx(NOMINAL, abs=ALLOWED)
    assert coverage(ranked, norm.cdf(1 / np.sqrt(2))) == pytest.approx(NOMINAL, abs=ALLOWED)


def test_the_paired_bootstrap_of_two_arms_covers_95_percent():
    stratified, plain = [], []
    for anomalous, first, second, _ in simulated(np.random.default_rng(2)):
        stratified.append(bootstrap_difference("balanced_accuracy", anomalous, first, second, draws=600)[1:])
        plain.append(paired_bootstrap(first, second, draws=600)[1:])
    assert coverage(stratified, GAIN) == pytest.approx(NOMINAL, abs=ALLOWED)
    assert coverage(plain, GAIN) == pytest.approx(NOMINAL, abs=ALLOWED)


def test_the_interval_from_counts_alone_covers_95_percent():
    rng = np.random.default_rng(3)
    cells = zip(rng.binomial(561, 0.7, 1200).tolist(), rng.binomial(575, 0.5, 1200).tolist(), strict=True)
    tables = [ConfusionTable(tp, 561 - tp, 575 - tn, tn) for tp, tn in cells]
    truth = 2 * 0.7 * 561 / (2 * 0.7 * 561 + 0.5 * 575 + 0.3 * 561)
    found = [np.quantile(resampled("f1", table, draws=1000), [0.025, 0.975]) for table in tables]
    assert coverage(found, truth) == pytest.approx(NOMINAL, abs=ALLOWED)


def test_mcnemars_exact_p_is_statsmodels_on_random_pairs_of_arms():
    rng = np.random.default_rng(4)
    for _ in range(100):
        size = int(rng.integers(1, 80))
        first, second = rng.random(size) < rng.random(), rng.random(size) < rng.random()
        table = [[np.sum(first & second), np.sum(first & ~second)], [np.sum(~first & second), np.sum(~first & ~second)]]
        expected = statsmodels_mcnemar(table, exact=True).pvalue
        assert mcnemar(first, second) == pytest.approx(min(1.0, expected))


# The tolerance of the study's bands


def images(right, scores):
    anomalous = np.arange(len(right)) % 2 == 0
    frame = pd.DataFrame({"anomalous": anomalous, "called": right == anomalous, "score": scores})
    return frame.assign(well_formed=1.0)


@pytest.mark.parametrize("measure", ["balanced_accuracy", "auroc"])
def test_the_standard_error_of_a_difference_is_the_deviation_over_fresh_images(measure):
    values, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        first, second = (
            images(rng.random(400) < share, rng.normal(size=400) - np.arange(400) % 2 * share) for share in (0.6, 0.7)
        )
        score = roc_auc_score if measure == "auroc" else balanced_accuracy_score
        column = "score" if measure == "auroc" else "called"
        values.append(score(first["anomalous"], first[column]) - score(second["anomalous"], second[column]))
        errors.append(paired_error(measure, first, second))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)
    assert paired_error(measure, first, first) == 0


# A family of tests


def test_holms_correction_of_a_hand_worked_family():
    # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 raised to the 0.06 before it, 0.5 x 1
    assert holm([0.5, 0.02, 0.01, 0.03]) == pytest.approx([0.5, 0.06, 0.04, 0.06])
    assert holm([0.7, 0.8]) == [1.0, 1.0] and holm([0.04]) == [0.04] and holm([]) == []


def test_holms_correction_rejects_what_holms_steps_reject():
    rng = np.random.default_rng(5)
    for _ in range(4):  # statsmodels collects garbage at every call
        p = rng.random(rng.integers(1, 9)) ** 3
        steps = np.sort(p) <= 0.05 / np.arange(p.size, 0, -1)
        kept = p.size if steps.all() else int(np.argmin(steps))  # the first step that fails ends them all
        assert sum(np.array(holm(p)) <= 0.05) == kept
