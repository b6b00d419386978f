import json
import math
import random
import warnings
from fractions import Fraction
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

MEASURES = (
    "accuracy", "precision", "recall", "f1", "specificity", "balanced_accuracy", "mcc", "auroc", "average_precision",
    "f1_max_tuned_on_test", "ece", "format_rate", "lenient_accuracy", "lenient_balanced_accuracy",
)  # fmt: skip
TEXTS = {
    "yes": "<think>a</think><answer>yes</answer>",
    "no": "<think>a</think><answer>no</answer>",
    None: "?",
}


def made_up(number, anomaly, answer, category="pushpins", arm="sft", p_yes=None, seed=0, text=None):
    """A generation that no model wrote."""
    label = "no" if anomaly == "good" else "yes"
    p_yes = {"yes": 0.9, "no": 0.1, None: 0.5}[answer] if p_yes is None else p_yes
    return Generation(
        id=f"{category}/test/{anomaly}/{number:03d}", arm=arm, seed=seed, dataset="mvtec_loco",
        category=category, anomaly=anomaly, defect="", label=label, reference="r.png", test="t.png",
        text=TEXTS[answer] if text is None else text, answer=answer, p_yes=p_yes, prompt_sha256="",
        images_sha256=("", ""), pixels=((28, 28), (28, 28)), finish="stop", prompt_tokens=1,
        completion_tokens=1, seconds=0.1,
    )  # fmt: skip


def batch(anomaly, answers, **fields):
    return [made_up(number, anomaly, answer, **fields) for number, answer in enumerate(answers)]


def score(generations):
    return metrics.score(to_frame(generations))


def score_trivial(generations):
    return metrics.score_trivial(to_frame(generations))


def row(rows, **key):
    found = [one for one in rows if all(one[name] == value for name, value in key.items())]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def hand_worked():
    """Ten images: 4 logical, 2 structural and 4 good ones, each kind with right and wrong answers."""
    return [
        *batch("logical", ["yes", "yes", "no", None]),
        *batch("structural", ["yes", "no"]),
        *batch("good", ["no", "no", "yes", None]),
    ]


def test_the_hand_worked_table(hand_worked):
    rows = score(hand_worked)
    logical = row(rows, subset="logical", category="pooled")
    assert [logical[name] for name in ("n", "tp", "fp", "tn", "fn", "unparsed")] == [8, 2, 2, 2, 2, 2]
    assert [logical[name] for name in ("accuracy", "precision", "recall", "f1")] == [0.5, 0.5, 0.5, 0.5]
    assert (logical["specificity"], logical["balanced_accuracy"], logical["mcc"]) == (0.5, 0.5, 0.0)
    assert logical["format_rate"] == 0.75
    everything = row(rows, subset="all", category="pooled")
    assert [everything[name] for name in ("n", "tp", "fp", "tn", "fn", "unparsed")] == [10, 3, 2, 2, 3, 2]
    assert everything["accuracy"] == 0.5
    assert everything["precision"] == pytest.approx(3 / 5)
    assert everything["f1"] == pytest.approx(6 / 11)
    structural = row(rows, subset="structural", category="pooled")
    assert [structural[name] for name in ("n", "tp", "fp", "tn", "fn", "unparsed")] == [6, 1, 2, 2, 1, 1]


def test_the_hand_worked_ranking():
    # anomalous 0.9, 0.4; good 0.6, 0.1: of four pairs three are in order; precision 1 at 0.9 and 2/3 at 0.4
    rows = score(
        [made_up(0, "logical", "yes", p_yes=0.9), made_up(1, "logical", "no", p_yes=0.4)]
        + [made_up(0, "good", "yes", p_yes=0.6), made_up(1, "good", "no", p_yes=0.1)]
    )
    pooled = row(rows, subset="logical", category="pooled")
    assert pooled["auroc"] == pytest.approx(0.75)
    assert pooled["average_precision"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_an_unparsed_answer_is_a_miss_on_an_anomaly_and_a_false_alarm_on_a_good_image():
    rows = score([made_up(0, "logical", None), made_up(0, "good", None)])
    pooled = row(rows, subset="logical", category="pooled")
    assert (pooled["fn"], pooled["fp"], pooled["unparsed"], pooled["accuracy"]) == (1, 1, 2, 0.0)


def test_the_text_decides_and_not_the_stored_answer():
    stale = made_up(0, "logical", "yes", text="<answer>yes or no</answer>")
    assert not metrics.is_right(to_frame([stale])).any()
    assert score([stale])[0]["unparsed"] == 1


def test_a_lenient_reading_stands_beside_the_strict_one_and_changes_nothing_in_it():
    rows = score(
        [made_up(0, "logical", None, text="The part is gone: Yes."), made_up(1, "logical", "no")]
        + [made_up(0, "good", None, text="nothing to say"), made_up(1, "good", "no")]
    )
    pooled = row(rows, subset="logical", category="pooled")
    assert (pooled["recall"], pooled["specificity"], pooled["balanced_accuracy"]) == (0.0, 0.5, 0.25)
    assert (pooled["lenient_accuracy"], pooled["lenient_balanced_accuracy"]) == (0.5, 0.5)
    assert pooled["unparsed"] == 2


def test_an_answer_that_even_the_lenient_reading_misses_is_wrong():
    rows = [made_up(0, "good", None, text=text) for text in ("nothing", "no, it is not: yes")]
    rows.append(made_up(0, "logical", None, text="nothing"))
    assert metrics.is_right_leniently(to_frame(rows)).tolist() == [False, True, False]


def random_generations(seed, count=60):
    draw = random.Random(seed)
    return [
        made_up(
            number,
            anomaly=draw.choice(["good", "logical", "structural"]),
            answer=draw.choice(["yes", "no", "no", None]),
            category=draw.choice(["a", "b"]),
            p_yes=draw.random(),
        )
        for number in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_every_measure_is_scikit_learns(seed):
    generations = random_generations(seed)
    ours = row(score(generations), subset="all", category="pooled")
    truth = [one.label == "yes" for one in generations]
    called = [one.answer == "yes" if one.answer else one.label == "no" for one in generations]
    p_yes = [one.p_yes for one in generations]
    theirs = {
        "accuracy": sk.accuracy_score(truth, called),
        "precision": sk.precision_score(truth, called),
        "recall": sk.recall_score(truth, called),
        "f1": sk.f1_score(truth, called),
        "specificity": sk.recall_score(truth, called, pos_label=False),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "mcc": sk.matthews_corrcoef(truth, called),
        "auroc": sk.roc_auc_score(truth, p_yes),
        "average_precision": sk.average_precision_score(truth, p_yes),
        "f1_max_tuned_on_test": max(sk.f1_score(truth, np.array(p_yes) >= cut) for cut in p_yes),
    }
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs)


def test_pooled_counts_images_and_mean_counts_categories():
    generations = [
        *batch("logical", ["yes"] * 3, category="a"),
        *batch("good", ["no"], category="a"),
        *batch("logical", ["no"], category="b"),
        *batch("good", ["yes"], category="b"),
    ]
    rows = score(generations)
    assert row(rows, subset="logical", category="pooled")["accuracy"] == pytest.approx(4 / 6)
    mean = row(rows, subset="logical", category="mean")
    assert (mean["accuracy"], mean["n"], mean["tp"]) == (0.5, 6, 3)


def test_the_pooled_72b_of_the_paper_comes_out_of_its_counts():
    # The published accuracies per category as counts on good + logical images; 317 found anomalies recovered.
    generations = batch("logical", ["yes"] * 317 + ["no"] * 244) + batch("good", ["no"] * 389 + ["yes"] * 186)
    pooled = row(score(generations), subset="logical", category="pooled")
    assert (round(100 * pooled["accuracy"], 1), round(100 * pooled["f1"], 1)) == (62.1, 59.6)


def test_what_is_not_defined_is_none():
    only_good = row(score(batch("good", ["no", "no"])), subset="all", category="pooled")
    undefined = (
        "precision", "recall", "f1", "mcc", "balanced_accuracy", "lenient_balanced_accuracy", "auroc",
        "average_precision", "f1_max_tuned_on_test",
    )  # fmt: skip
    assert [only_good[name] for name in undefined] == [None] * len(undefined)
    only_bad = row(score(batch("logical", ["no"])), subset="all", category="mean")
    assert (only_bad["specificity"], only_bad["recall"], only_bad["f1"]) == (None, 0.0, 0.0)


def test_no_generations_give_no_rows():
    assert score([]) == [] and score_trivial([]) == []


def test_an_absent_subset_has_no_rows():
    assert {one["subset"] for one in score(batch("structural", ["yes"]))} == {"structural", "all"}


def test_rows_come_in_the_same_order_whatever_the_order_of_the_generations():
    generations = random_generations(1) + batch("good", ["no"], arm="base") + batch("good", ["no"], seed=1)
    shuffled = random.Random(0).sample(generations, len(generations))
    keys = [(one["arm"], one["seed"]) for one in score(generations)]
    assert keys == [(one["arm"], one["seed"]) for one in score(shuffled)]
    assert keys[0] == ("base", 0) and keys[-1] == ("sft", 1)


ANSWERED = st.tuples(st.sampled_from(["good", "logical"]), st.sampled_from(["yes", "no", None]))


@settings(max_examples=40, deadline=None)
@given(st.lists(ANSWERED, min_size=1, max_size=8))
def test_counts_add_up_and_measures_stay_in_range(pairs):
    for one in score([made_up(number, *pair) for number, pair in enumerate(pairs)]):
        assert one["tp"] + one["fp"] + one["tn"] + one["fn"] == one["n"]
        assert all(one[name] is None or -1 <= one[name] <= 1 + 1e-12 for name in MEASURES)
        assert not any(isinstance(value, float) and math.isnan(value) for value in one.values())
        json.dumps(one)


def test_the_trivial_rows_of_the_paper(hand_worked):
    generations = batch("logical", ["yes"] * 561) + batch("good", ["no"] * 575)
    rows = {one["arm"]: one for one in score_trivial(generations) if one["category"] == "pooled"
            and one["subset"] == "logical"}  # fmt: skip
    assert [round(100 * rows["always_yes"][name], 1) for name in ("accuracy", "f1")] == [49.4, 66.1]
    assert [round(100 * rows["always_no"][name], 1) for name in ("accuracy", "f1")] == [50.6, 0.0]
    assert [rows["always_yes"][name] for name in ("tp", "fp", "auroc")] == [561, 575, 0.5]
    assert rows["base_rate"]["n"] == 1136 and rows["base_rate"]["format_rate"] is None


def test_base_rate_is_the_expectation_over_all_its_answers():
    # One anomalous and two good images: yes with probability 1/3 each, averaged over all eight outcomes.
    generations = batch("logical", ["no"]) + batch("good", ["no", "no"])
    ours = row(score_trivial(generations), arm="base_rate", subset="logical", category="pooled")
    expected = {"tp": 0.0, "fp": 0.0, "fn": 0.0, "tn": 0.0}
    for outcome in product([True, False], repeat=3):
        chance = math.prod(1 / 3 if called else 2 / 3 for called in outcome)
        for anomalous, called in zip([True, False, False], outcome, strict=True):
            cell = ("tp" if anomalous else "fp") if called else ("fn" if anomalous else "tn")
            expected[cell] += chance
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert ours["balanced_accuracy"] == pytest.approx(0.5)
    assert ours["lenient_balanced_accuracy"] == pytest.approx(0.5)
    assert (ours["mcc"], ours["auroc"]) == pytest.approx((0.0, 0.5), abs=1e-6)


def test_trivial_rows_count_an_image_once_however_many_arms_saw_it():
    generations = batch("good", ["no"] * 3) + batch("good", ["yes"] * 3, arm="base")
    assert row(score_trivial(generations), arm="always_no", subset="all", category="pooled")["n"] == 3


# P(anomalous) that an endpoint does not report


def ranking(rows):
    return row(score(rows), subset="logical", category="pooled")["auroc"]


def unknown(*generations):
    return [one.model_copy(update={"p_yes": None}) for one in generations]


def test_an_arm_without_probabilities_has_no_ranking_and_all_other_scores():
    right, wrong = made_up(0, "logical", "yes"), made_up(0, "good", "yes")
    assert ranking([right, wrong]) == 0.5 and ranking(unknown(right, wrong)) is None
    assert row(score(unknown(right, wrong)), subset="logical", category="pooled")["balanced_accuracy"] == 0.5
    assert ranking([right, *unknown(wrong)]) is None  # one answer without it takes the ranking away


def test_a_completion_without_an_answer_or_a_probability_ranks_wrong_and_is_not_left_out():
    rows = [made_up(0, "logical", "yes"), made_up(0, "good", "no")]
    assert ranking(rows) == 1.0
    assert ranking([*rows, *unknown(made_up(1, "logical", None))]) == 0.5  # of two pairs one is in order
    assert ranking(unknown(*batch("logical", [None]), *batch("good", [None]))) is None


# Random confusion tables, empty classes among them, against independent computations


RNG = np.random.default_rng(20250417)
# A third of the cells is empty: classes without an image and answers never given are among the tables.
TABLES = (RNG.integers(0, 40, (300, 4)) * (RNG.random((300, 4)) > 1 / 3)).tolist()
TABLES = [tuple(one) for one in TABLES if sum(one)]


def judged(tp, fn, fp, tn, scores=None):
    """Images that make such a table; ``scores`` are P(anomalous), by default not known."""
    cells = [(True, True)] * tp + [(True, False)] * fn + [(False, True)] * fp + [(False, False)] * tn
    scores = [None] * len(cells) if scores is None else scores
    truth, called = [anomalous for anomalous, _ in cells], [yes for _, yes in cells]
    columns = {"anomalous": truth, "called": called, "called_leniently": called, "unparsed": False, "well_formed": 1.0}
    return pd.DataFrame(columns | {"weight": 1.0}).assign(score=np.array(scores, dtype=float))


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
    truth, called = images["anomalous"], images["called"]
    known = {"labels": [False, True], "zero_division": np.nan}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, called, **known)
    values = {"precision": precision[1], "recall": recall[1], "f1": f1[1], "specificity": recall[0]}
    return {name: None if np.isnan(value) else pytest.approx(value) for name, value in values.items()}


def test_there_are_tables_with_every_kind_of_emptiness():
    assert len(TABLES) > 280
    for empty in ((0, 1), (2, 3), (0, 2), (1, 3), (0, 1, 2), (1, 2, 3)):
        assert any(not any(table[cell] for cell in empty) for table in TABLES)


def test_every_measure_of_the_tables_is_the_textbooks_and_undefined_ones_are_none():
    for table in TABLES:
        ours, theirs = metrics.measure(judged(*table)), by_hand(*table)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs), table
        assert (ours["tp"], ours["fn"], ours["fp"], ours["tn"]) == table


def test_every_measure_of_the_tables_is_scikit_learns_where_that_defines_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in TABLES:
            images = judged(*table)
            ours, theirs = metrics.measure(images), by_scikit_learn(images)
            assert {name: ours[name] for name in theirs} == theirs, table


def test_what_is_read_from_probabilities_is_scikit_learns_on_the_same_tables():
    rng = np.random.default_rng(1)
    for table in TABLES[:60]:
        scores = np.round(rng.random(sum(table)), 2).tolist()  # rounded: ties
        images, truth = judged(*table, scores), [True] * (table[0] + table[1]) + [False] * (table[2] + table[3])
        ours = metrics.measure(images)
        if len(set(truth)) < 2:
            names = ("auroc", "average_precision", "f1_max_tuned_on_test")
            assert [ours[name] for name in names] == [None] * 3
            continue
        assert ours["auroc"] == pytest.approx(sk.roc_auc_score(truth, scores))
        assert ours["average_precision"] == pytest.approx(sk.average_precision_score(truth, scores))


def test_the_calibration_error_is_that_of_scikit_learns_diagram():
    rng = np.random.default_rng(3)
    p = np.round(rng.random(200), 2)
    truth = rng.random(200) < p**2
    observed, predicted = calibration_curve(truth, p, n_bins=metrics.BINS)
    images = np.histogram(p, np.linspace(0, 1, metrics.BINS + 1))[0]
    images = np.bincount(np.searchsorted(np.linspace(0, 1, metrics.BINS + 1)[1:-1], p))
    error = (images / 200 * np.abs(observed - predicted)).sum()
    assert metrics.expected_calibration_error(truth, p, np.ones(200)) == pytest.approx(error)


def test_a_weight_counts_as_so_many_images():
    # Four images given 0.8, three of them anomalous: off by 0.05. Two given 0.3, none anomalous: off by 0.3.
    truth, p, weight = np.array([True, False, False]), np.array([0.8, 0.8, 0.3]), np.array([3, 1, 2])
    error = metrics.expected_calibration_error(truth, p, weight)
    assert error == pytest.approx(4 / 6 * 0.05 + 2 / 6 * 0.3)
