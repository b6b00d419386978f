"""Intervals and tests against hand-worked and textbook cases, and against slower ways to the same values."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from ladlib.statistics import bootstrap_difference, bootstrap_score, mcnemar, paired_bootstrap, wilson


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
