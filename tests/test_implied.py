"""What published percentages imply, against enumeration, simulation and statsmodels."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_metrics_tables import judged

from ladlib import implied
from ladlib.implied import Table, consistent, discordant, paired_p
from ladlib.metrics import measure
from ladlib.report import arithmetic

BASE, TRAINED = Table(284, 277, 191, 384), Table(391, 170, 280, 295)


@pytest.fixture(scope="module")
def mmad():
    """The 85 confusion tables of MMAD's models on four datasets, with the percentages published there."""
    file = Path(os.environ.get("LADLIB_REAL_DATA", "")) / "mmad" / "recovered_confusions.csv"
    if not os.environ.get("LADLIB_REAL_DATA") or not file.is_file():
        pytest.skip("LADLIB_REAL_DATA has no mmad/recovered_confusions.csv")
    return pd.read_csv(file)


def test_mmads_85_published_rows_are_our_metrics_of_their_counts(mmad):
    assert len(mmad) == 85
    for row in mmad.itertuples():
        ours = measure(judged(row.TP, row.FN, row.FP, row.TN))
        theirs = {
            "recall": row.recall, "precision": row.precision, "f1": row.F1,
            "balanced_accuracy": row.balanced_accuracy_col_AnomalyDetection,
        }  # fmt: skip
        assert {name: 100 * ours[name] for name in theirs} == pytest.approx(theirs), row.file


def test_mmads_85_rows_of_counts_come_back_from_its_f1_and_balanced_accuracy(mmad):
    for row in mmad.itertuples():
        published = {"f1": row.F1, "balanced_accuracy": row.balanced_accuracy_col_AnomalyDetection}
        found = consistent(row.n_anomalous, row.n_normal, decimals=6, **published)
        assert found == [Table(row.TP, row.FN, row.FP, row.TN)], row.file


def test_mmads_counts_are_among_those_that_one_decimal_leaves_open(mmad):
    for row in mmad.itertuples():
        published = {"f1": round(row.F1, 1), "recall": round(row.recall, 1)}
        assert Table(row.TP, row.FN, row.FP, row.TN) in consistent(row.n_anomalous, row.n_normal, **published)


def test_the_papers_two_values_leave_one_or_two_tables_and_the_published_pair_is_among_them():
    tables = arithmetic.recovered_tables()
    assert tables["Qwen2.5-VL-3B (base)"] == [BASE] and tables["LAD-Reasoner 3B"][0] == TRAINED
    assert all(1 <= len(found) <= 2 for found in tables.values())
    assert tables["always anomalous"][-1] == Table(561, 0, 575, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_table_is_always_among_those_its_rounded_percentages_leave_open(seed):
    rng = np.random.default_rng(seed)
    tp, fn, fp, tn = (int(one) for one in rng.integers(1, 60, 4))
    accuracy, f1 = 100 * (tp + tn) / (tp + fn + fp + tn), 200 * tp / (2 * tp + fp + fn)
    assert Table(tp, fn, fp, tn) in consistent(tp + fn, fp + tn, accuracy=round(accuracy, 1), f1=round(f1, 1))


def test_values_that_no_table_has_give_none():
    assert consistent(10, 10, accuracy=50.0, f1=99.0) == []
    assert consistent(3, 2, precision=100.0, accuracy=40.0) == []  # nothing called anomalous: not defined


def test_the_interval_of_an_accuracy_is_close_to_wilsons_and_holds_the_value():
    found = implied.interval("accuracy", TRAINED)
    assert found.low < found.value < found.high
    assert (found.low, found.high) == pytest.approx((0.575, 0.632), abs=0.004)
    assert implied.interval("f1", TRAINED) == implied.interval("f1", TRAINED)


def all_pairings(first, second):
    """(mended, broken) of every way in which the right answers of one kind can overlap with the other's."""
    kinds = [(first.tp, second.tp, first.tp + first.fn), (first.tn, second.tn, first.tn + first.fp)]
    both = [range(max(0, one + other - n), min(one, other) + 1) for one, other, n in kinds]
    for shared in product(*both):
        mended = sum(other - one for (_, other, _), one in zip(kinds, shared, strict=True))
        yield mended, sum(first_right - one for (first_right, *_), one in zip(kinds, shared, strict=True))


@pytest.mark.parametrize(
    ("first", "second"),
    [(Table(3, 4, 2, 5), Table(5, 2, 4, 3)), (Table(1, 6, 6, 1), Table(7, 0, 2, 5)), (Table(2, 1, 1, 2),) * 2],
)
def test_the_paired_p_lies_between_the_two_ends_and_reaches_both(first, second):
    pairings = set(all_pairings(first, second))
    p = [stats.binomtest(up, up + down).pvalue if up + down else 1.0 for up, down in pairings]
    assert (paired_p(first, second), paired_p(first, second, most=True)) == pytest.approx((min(p), max(p)))
    assert {discordant(first, second), discordant(first, second, most=True)} <= pairings


def test_no_answers_to_the_papers_images_make_its_gain_over_the_base_significant():
    assert discordant(BASE, TRAINED) == (107, 89)
    assert paired_p(BASE, TRAINED) == pytest.approx(0.2245, abs=5e-4)
    assert implied.unpaired_p(BASE, TRAINED) == pytest.approx(0.4416, abs=5e-4)


def test_the_unpaired_p_is_that_of_the_chi_squared_test_without_correction():
    counts = [[one.right, one.images - one.right] for one in (BASE, TRAINED)]
    assert implied.unpaired_p(BASE, TRAINED) == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)


BETTER = Table(331, 230, 170, 405)  # 4.8 points above BASE, 68 mended and broken


def test_the_power_of_the_unpaired_test_is_that_of_simulated_ones():
    rng, n = np.random.default_rng(0), 1136
    right = rng.binomial(n, [[one.right / n] for one in (BASE, BETTER)], (2, 40_000))
    pooled = right.sum(axis=0) / (2 * n)
    z = np.abs(right[1] - right[0]) / n / np.sqrt(pooled * (1 - pooled) * 2 / n)
    assert implied.unpaired_power(BASE, BETTER) == pytest.approx(np.mean(z > stats.norm.isf(0.025)), abs=0.01)


def test_the_power_of_the_paired_test_is_that_of_simulated_ones():
    rng, n = np.random.default_rng(0), 1136
    mended, broken = discordant(BASE, TRAINED)
    up, down, _ = rng.multinomial(n, [mended / n, broken / n, 1 - (mended + broken) / n], 40_000).T
    z = np.abs(up - down) / np.sqrt(up + down)
    assert implied.paired_power(BASE, TRAINED) == pytest.approx(np.mean(z > stats.norm.isf(0.025)), abs=0.01)


def test_so_many_images_give_80_percent_power_and_fewer_do_not():
    for power, needed in (
        (implied.unpaired_power, implied.unpaired_images(BASE, TRAINED)),
        (implied.paired_power, implied.paired_images(BASE, TRAINED)),
    ):
        assert power(BASE, TRAINED, needed) == pytest.approx(0.8, abs=2e-3)
        assert power(BASE, TRAINED, needed // 2) < 0.6


def test_seeds_needed_are_the_textbooks_for_a_t_test():
    # Cohen (1988), table 2.4.1: d = 0.8 needs 26 a group, d = 0.5 needs 64, at 5 % two-sided and 80 % power
    assert (implied.seeds_needed(0.8, 1), implied.seeds_needed(1, 2), implied.seeds_needed(50, 1)) == (26, 64, 2)


def test_the_table_of_the_notebook_says_what_it_would_take():
    row = arithmetic.power_frame().set_index("difference").loc["LAD-Reasoner 3B minus Qwen2.5-VL-3B (base)"]
    assert (row["points"], row["p, unpaired"], row["p, paired"]) == ("+1.6", "0.442", "0.225 to 0.575")
    assert (row["power, unpaired"], row["images for 80 %, unpaired"]) == ("12 %", "15,055")
