"""Scores against hand-worked tables, textbook fractions and scikit-learn."""

import json
import math
import random
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from ladlib import metrics
from ladlib.records import Generation
from ladlib.results import to_frame

TEXTS = {"yes": "<think>a</think><answer>yes</answer>", "no": "<think>a</think><answer>no</answer>", None: "?"}
COUNTS = ("n", "tp", "fp", "tn", "fn", "unparsed")


def made_up(number, anomaly, answer, category="pushpins", arm="sft", p_yes=None, seed=0, text=None):
    """A generation that no model wrote."""
    p_yes = {"yes": 0.9, "no": 0.1, None: 0.5}[answer] if p_yes is None else p_yes
    return Generation(
        id=f"{category}/test/{anomaly}/{number:03d}", arm=arm, seed=seed, dataset="mvtec_loco", category=category,
        anomaly=anomaly, defect="", label="no" if anomaly == "good" else "yes", reference="r.png", test="t.png",
        text=TEXTS[answer] if text is None else text, answer=answer, p_yes=p_yes, prompt_sha256="",
        images_sha256=("", ""), pixels=((28, 28), (28, 28)), finish="stop", prompt_tokens=1, completion_tokens=1,
        seconds=0.1,
    )  # fmt: skip


def batch(anomaly, answers, **fields):
    return [made_up(number, anomaly, answer, **fields) for number, answer in enumerate(answers)]


def score(generations):
    return metrics.score(to_frame(generations))


def pooled(generations, subset="logical", category="pooled"):
    (row,) = [row for row in score(generations) if (row["subset"], row["category"]) == (subset, category)]
    return row


def trivial(generations, subset="logical"):
    rows = metrics.score_trivial(to_frame(generations))
    return {row["arm"]: row for row in rows if (row["subset"], row["category"]) == (subset, "pooled")}


def unknown(*generations):
    return [generation.model_copy(update={"p_yes": None}) for generation in generations]


@pytest.mark.parametrize(
    ("subset", "counts", "shares"),
    [
        ("logical", [8, 2, 2, 2, 2, 2], [0.5, 0.5, 0.5, 0.5]),
        ("structural", [6, 1, 2, 2, 1, 1], [0.5, 1 / 3, 0.5, 0.4]),
        ("all", [10, 3, 2, 2, 3, 2], [0.5, 3 / 5, 0.5, 6 / 11]),
    ],
)
def test_the_hand_worked_table(subset, counts, shares):
    answers = [*batch("logical", ["yes", "yes", "no", None]), *batch("structural", ["yes", "no"]),
               *batch("good", ["no", "no", "yes", None])]  # fmt: skip
    row = pooled(answers, subset)
    assert [row[name] for name in COUNTS] == counts
    assert [row[name] for name in ("accuracy", "precision", "recall", "f1")] == pytest.approx(shares)


def test_the_hand_worked_ranking():
    # anomalous 0.9, 0.4; good 0.6, 0.1: of four pairs three are in order; precision 1 at 0.9 and 2/3 at 0.4
    row = pooled(
        [made_up(0, "logical", "yes", p_yes=0.9), made_up(1, "logical", "no", p_yes=0.4)]
        + [made_up(0, "good", "yes", p_yes=0.6), made_up(1, "good", "no", p_yes=0.1)]
    )
    assert row["auroc"] == pytest.approx(0.75)
    assert row["average_precision"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_an_unparsed_answer_is_a_miss_on_an_anomaly_and_a_false_alarm_on_a_good_image():
    row = pooled([made_up(0, "logical", None), made_up(0, "good", None)])
    assert (row["fn"], row["fp"], row["unparsed"], row["accuracy"]) == (1, 1, 2, 0.0)


def test_the_text_decides_and_not_the_stored_answer():
    stale = made_up(0, "logical", "yes", text="<answer>yes or no</answer>")
    assert not metrics.is_right(to_frame([stale])).any()
    assert pooled([stale])["unparsed"] == 1


def test_a_lenient_reading_stands_beside_the_strict_one_and_changes_nothing_in_it():
    answers = [made_up(0, "logical", None, text="The part is gone: Yes."), made_up(1, "logical", "no"),
               made_up(0, "good", None, text="nothing to say"), made_up(1, "good", "no")]  # fmt: skip
    row = pooled(answers)
    assert (row["recall"], row["specificity"], row["balanced_accuracy"], row["unparsed"]) == (0.0, 0.5, 0.25, 2)
    assert (row["lenient_accuracy"], row["lenient_balanced_accuracy"]) == (0.5, 0.5)
    assert metrics.is_right_leniently(to_frame(answers)).tolist() == [True, False, False, True]


def test_pooled_counts_images_and_mean_counts_categories():
    generations = [
        *batch("logical", ["yes"] * 3, category="a"), *batch("good", ["no"], category="a"),
        *batch("logical", ["no"], category="b"), *batch("good", ["yes"], category="b"),
    ]  # fmt: skip
    assert pooled(generations)["accuracy"] == pytest.approx(4 / 6)
    mean = pooled(generations, category="mean")
    assert (mean["accuracy"], mean["n"], mean["tp"]) == (0.5, 6, 3)


def test_the_pooled_72b_of_the_paper_comes_out_of_its_counts():
    # The published accuracies per category as counts on good + logical images; 317 found anomalies recovered.
    row = pooled(batch("logical", ["yes"] * 317 + ["no"] * 244) + batch("good", ["no"] * 389 + ["yes"] * 186))
    assert (round(100 * row["accuracy"], 1), round(100 * row["f1"], 1)) == (62.1, 59.6)


def test_what_is_not_defined_is_none_or_has_no_row():
    only_good = pooled(batch("good", ["no", "no"]), "all")
    undefined = (
        "precision", "recall", "f1", "mcc", "balanced_accuracy", "lenient_balanced_accuracy", "auroc",
        "average_precision", "f1_max_tuned_on_test",
    )  # fmt: skip
    assert [only_good[name] for name in undefined] == [None] * len(undefined)
    only_bad = pooled(batch("logical", ["no"]), "all", "mean")
    assert (only_bad["specificity"], only_bad["recall"], only_bad["f1"]) == (None, 0.0, 0.0)
    assert {row["subset"] for row in score(batch("structural", ["yes"]))} == {"structural", "all"}
    assert score([]) == [] and metrics.score_trivial(to_frame([])) == []


def test_rows_come_in_the_same_order_whatever_the_order_of_the_generations():
    generations = [*batch("good", ["no"] * 3), *batch("good", ["no"], arm="base"), *batch("good", ["no"], seed=1)]
    shuffled = random.Random(0).sample(generations, len(generations))
    assert score(generations) == score(shuffled)
    keys = [(row["arm"], row["seed"]) for row in score(generations)]
    assert keys[0] == ("base", 0) and keys[-1] == ("sft", 1)


ANSWERED = st.tuples(st.sampled_from(["good", "logical"]), st.sampled_from(["yes", "no", None]))


@settings(max_examples=40, deadline=None)
@given(st.lists(ANSWERED, min_size=1, max_size=8))
def test_counts_add_up_and_measures_stay_in_range(pairs):
    for row in score([made_up(number, *pair) for number, pair in enumerate(pairs)]):
        assert row["tp"] + row["fp"] + row["tn"] + row["fn"] == row["n"]
        shares = [value for name, value in row.items() if name not in (*COUNTS, "arm", "seed", "subset", "category")]
        assert all(value is None or -1 <= value <= 1 + 1e-12 for value in shares)
        json.dumps(row, allow_nan=False)


# Trivial arms


def test_the_trivial_rows_of_the_paper():
    rows = trivial(batch("logical", ["yes"] * 561) + batch("good", ["no"] * 575))
    assert [round(100 * rows["always_yes"][name], 1) for name in ("accuracy", "f1")] == [49.4, 66.1]
    assert [round(100 * rows["always_no"][name], 1) for name in ("accuracy", "f1")] == [50.6, 0.0]
    assert [rows["always_yes"][name] for name in ("tp", "fp", "auroc")] == [561, 575, 0.5]
    assert rows["base_rate"]["n"] == 1136 and rows["base_rate"]["format_rate"] is None


def test_base_rate_is_the_expectation_over_all_its_answers():
    # One anomalous and two good images: yes with probability 1/3 each, averaged over all eight outcomes.
    ours = trivial(batch("logical", ["no"]) + batch("good", ["no", "no"]))["base_rate"]
    expected = {"tp": 0.0, "fp": 0.0, "fn": 0.0, "tn": 0.0}
    for outcome in product([True, False], repeat=3):
        chance = math.prod(1 / 3 if called else 2 / 3 for called in outcome)
        for anomalous, called in zip([True, False, False], outcome, strict=True):
            cell = ("tp" if anomalous else "fp") if called else ("fn" if anomalous else "tn")
            expected[cell] += chance
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    names = ("balanced_accuracy", "lenient_balanced_accuracy", "mcc", "auroc")
    assert [ours[name] for name in names] == pytest.approx([0.5, 0.5, 0, 0.5], abs=1e-6)


def test_trivial_rows_count_an_image_once_however_many_arms_saw_it():
    generations = batch("good", ["no"] * 3) + batch("good", ["yes"] * 3, arm="base")
    assert trivial(generations, "all")["always_no"]["n"] == 3


# P(anomalous) that an endpoint does not report


def test_an_arm_without_probabilities_has_no_ranking_and_all_other_scores():
    right, wrong = made_up(0, "logical", "yes"), made_up(0, "good", "yes")
    assert pooled([right, wrong])["auroc"] == 0.5 and pooled(unknown(right, wrong))["auroc"] is None
    assert pooled(unknown(right, wrong))["balanced_accuracy"] == 0.5
    assert pooled([right, *unknown(wrong)])["auroc"] is None  # one answer without it takes the ranking away


def test_a_completion_without_an_answer_or_a_probability_ranks_wrong_and_is_not_left_out():
    rows = [made_up(0, "logical", "yes"), made_up(0, "good", "no")]
    assert pooled(rows)["auroc"] == 1.0
    assert pooled([*rows, *unknown(made_up(1, "logical", None))])["auroc"] == 0.5  # of two pairs one is in order
    assert pooled(unknown(*batch("logical", [None]), *batch("good", [None])))["auroc"] is None


# Random confusion tables, empty classes among them, against independent computations

RNG = np.random.default_rng(20250417)
# A third of the cells is empty: classes without an image and answers never given are among the tables.
TABLES = (RNG.integers(0, 40, (300, 4)) * (RNG.random((300, 4)) > 1 / 3)).tolist()
TABLES = [tuple(table) for table in TABLES if sum(table)]


def judged(tp, fn, fp, tn):
    """Images that make such a table, with P(anomalous) of two decimals, so that there are ties."""
    cells = [(True, True)] * tp + [(True, False)] * fn + [(False, True)] * fp + [(False, False)] * tn
    frame = pd.DataFrame(cells, columns=["anomalous", "called"])
    scores = np.random.default_rng(tp).random(len(cells)).round(2)
    return frame.assign(called_leniently=frame["called"], unparsed=False, well_formed=1.0, weight=1.0, score=scores)


def by_hand(tp, fn, fp, tn):
    """The textbook fractions; None where the denominator is 0."""

    def share(part, whole):
        return part / whole if whole else None

    recall, specificity = share(tp, tp + fn), share(tn, tn + fp)
    root = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {
        "tp": tp, "fn": fn, "fp": fp, "tn": tn, "accuracy": share(tp + tn, tp + fn + fp + tn),
        "precision": share(tp, tp + fp), "recall": recall, "f1": share(2 * tp, 2 * tp + fp + fn),
        "specificity": specificity, "mcc": share(tp * tn - fp * fn, root),
        "balanced_accuracy": None if None in (recall, specificity) else (recall + specificity) / 2,
    }  # fmt: skip


def test_every_measure_of_the_tables_is_the_textbooks_and_undefined_ones_are_none():
    assert all(any(not any(table[cell] for cell in empty) for table in TABLES) for empty in ((0, 1), (2, 3), (1, 2, 3)))
    for table in TABLES:
        ours, theirs = metrics.measure(judged(*table)), by_hand(*table)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs), table


def test_every_measure_of_the_tables_is_scikit_learns_where_that_defines_it():
    for table in [table for table in TABLES if all(table)][:15]:
        images = judged(*table)
        truth, called, p = (images[name].to_numpy() for name in ("anomalous", "called", "score"))
        theirs = {
            "accuracy": sk.accuracy_score(truth, called), "precision": sk.precision_score(truth, called),
            "recall": sk.recall_score(truth, called), "f1": sk.f1_score(truth, called),
            "specificity": sk.recall_score(truth, called, pos_label=False),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
            "mcc": sk.matthews_corrcoef(truth, called), "auroc": sk.roc_auc_score(truth, p),
            "average_precision": sk.average_precision_score(truth, p),
            "f1_max_tuned_on_test": max(sk.f1_score(truth, p >= cut) for cut in set(p)),
        }  # fmt: skip
        ours = metrics.measure(images)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs), table


def test_the_calibration_error_is_that_of_scikit_learns_diagram():
    rng = np.random.default_rng(3)
    p = rng.random(200)
    truth = rng.random(200) < p**2
    observed, predicted = calibration_curve(truth, p, n_bins=metrics.BINS)
    images, _ = np.histogram(p, metrics.BINS, (0, 1))
    error = (images / 200 * np.abs(observed - predicted)).sum()
    assert metrics.expected_calibration_error(truth, p, np.ones(200)) == pytest.approx(error)


def test_a_weight_counts_as_so_many_images():
    # Four images given 0.8, three of them anomalous: off by 0.05. Two given 0.3, none anomalous: off by 0.3.
    truth, p, weight = np.array([True, False, False]), np.array([0.8, 0.8, 0.3]), np.array([3, 1, 2])
    error = metrics.expected_calibration_error(truth, p, weight)
    assert error == pytest.approx(4 / 6 * 0.05 + 2 / 6 * 0.3)
