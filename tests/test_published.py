"""The published numbers agree with each other, and what they imply is checked by enumeration and by statsmodels."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from ladlib import published
from ladlib.errors import UserError
from ladlib.published import ConfusionTable, confusion_tables_matching, discordant, paired_p

BASE, TRAINED = ConfusionTable(284, 277, 191, 384), ConfusionTable(391, 170, 280, 295)


def test_every_published_row_has_a_source_and_a_tag():
    for name in set(published.names()) - {"departures"}:
        frame = published.read(name)
        assert frame["source"].str.len().min() > 5, name
        assert set(frame["tag"]) <= {"P", "S", "I", "R", "N"}, name


def test_recovered_values_agree_with_the_published_accuracy_and_f1():
    for row in published.read("lad_reasoner").to_dict("records"):
        found, right = row["recall"] * 5.61, row["specificity"] * 5.75
        assert (found + right) / 11.36 == pytest.approx(row["accuracy"], abs=0.15)
        assert 200 * found / (found + 561 + 575 - right) == pytest.approx(row["f1"], abs=0.15)
        assert (row["recall"] + row["specificity"]) / 2 == pytest.approx(row["balanced_accuracy"], abs=0.1)


def test_the_72bs_categories_pool_to_its_published_accuracy():
    frame = published.read("lad_reasoner_categories")
    assert (100 * frame["correct"] / frame["n"]).round(1).tolist() == frame["accuracy"].tolist()
    assert 100 * frame["correct"].sum() / frame["n"].sum() == pytest.approx(62.1, abs=0.06)


def test_an_unknown_published_table_is_refused_and_those_of_an_installed_package_come_first(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="loco_logical"):
        published.read("loco_logic")
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "only_here.csv").write_text("a,source\n1,b\n")
    monkeypatch.setattr(published.ladlib, "__file__", str(tmp_path / "__init__.py"))
    assert published.names() == ["only_here"]


def test_the_released_test_set_has_the_published_numbers_of_images():
    assert published.released_counts().sum().to_dict() == {"good": 575, "logical": 561, "structural": 432}


def test_the_papers_two_values_leave_one_or_two_tables_and_the_published_pair_is_among_them():
    tables = published.recovered_tables()
    assert tables["Qwen2.5-VL-3B (base)"] == (BASE,) and tables["LAD-Reasoner 3B"][0] == TRAINED
    assert all(1 <= len(found) <= 2 for found in tables.values())
    assert tables["always anomalous"][-1] == ConfusionTable(561, 0, 575, 0)
    rows = published.recovered().merge(published.read("lad_reasoner"), on="method", suffixes=("", "_printed"))
    assert (rows["recall"] - rows["recall_printed"]).abs().max() <= 0.3


def test_a_table_is_always_among_those_its_rounded_percentages_leave_open():
    rng = np.random.default_rng(0)
    for _ in range(20):
        tp, fn, fp, tn = (int(one) for one in rng.integers(1, 60, 4))
        accuracy, f1 = 100 * (tp + tn) / (tp + fn + fp + tn), 200 * tp / (2 * tp + fp + fn)
        found = confusion_tables_matching(tp + fn, fp + tn, accuracy=round(accuracy, 1), f1=round(f1, 1))
        assert ConfusionTable(tp, fn, fp, tn) in found
    assert confusion_tables_matching(10, 10, accuracy=50.0, f1=99.0) == []
    assert confusion_tables_matching(3, 2, precision=100.0, accuracy=40.0) == []  # no yes: undefined


def test_impossible_accuracies_have_no_count():
    assert published.integer_counts(74.6, 185) == [138] and published.integer_counts(74.6, 275) == []
    assert published.attainable()["full test set"].str.startswith("no count").sum() == 3


def test_intervals_of_the_published_values_hold_them():
    rows = published.certainty().set_index("method")
    assert rows.loc["LAD-Reasoner 3B", "accuracy, 95 %"] == "57.5 to 63.2"
    low, high = map(float, rows.loc["LAD-Reasoner 3B", "F1, 95 %"].split(" to "))
    assert low < 63.5 < high


def all_pairings(first, second):
    """(corrected, lost) of every way in which the right answers of one kind can overlap with the other's."""
    kinds = [(first.tp, second.tp, first.tp + first.fn), (first.tn, second.tn, first.tn + first.fp)]
    both = [range(max(0, one + other - n), min(one, other) + 1) for one, other, n in kinds]
    for shared in product(*both):
        corrected = sum(other - one for (_, other, _), one in zip(kinds, shared, strict=True))
        yield corrected, sum(first_right - one for (first_right, *_), one in zip(kinds, shared, strict=True))


@pytest.mark.parametrize("tables", [((3, 4, 2, 5), (5, 2, 4, 3)), ((1, 6, 6, 1), (7, 0, 2, 5)), ((2, 1, 1, 2),) * 2])
def test_the_paired_p_lies_between_the_two_ends_and_reaches_both(tables):
    first, second = (ConfusionTable(*table) for table in tables)
    pairings = set(all_pairings(first, second))
    p = [stats.binomtest(up, up + down).pvalue if up + down else 1.0 for up, down in pairings]
    assert (paired_p(first, second), paired_p(first, second, most=True)) == pytest.approx((min(p), max(p)))
    assert {discordant(first, second), discordant(first, second, most=True)} <= pairings


def test_no_answers_to_the_papers_images_make_its_gain_over_the_base_significant():
    assert discordant(BASE, TRAINED) == (107, 89)
    assert paired_p(BASE, TRAINED) == pytest.approx(0.2245, abs=5e-4)
    counts = [[one.tp + one.tn, one.fn + one.fp] for one in (BASE, TRAINED)]
    assert published.unpaired_p(BASE, TRAINED) == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)
    row = published.power().set_index("difference").loc["LAD-Reasoner 3B minus Qwen2.5-VL-3B (base)"]
    assert row.tolist() == ["+1.6", "0.442", "0.225 to 0.575", "15,055"]


def test_so_many_images_give_80_percent_power_by_simulation():
    n, shares = published.images_needed(0.6, 0.65), (0.6, 0.65)
    right = np.random.default_rng(0).binomial(n, [[share] for share in shares], (2, 40_000))
    pooled = right.sum(axis=0) / (2 * n)
    z = np.abs(right[1] - right[0]) / n / np.sqrt(pooled * (1 - pooled) * 2 / n)
    assert np.mean(z > stats.norm.isf(0.025)) == pytest.approx(0.8, abs=0.01)
