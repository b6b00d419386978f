"""The published numbers agree with each other, and what they imply is checked by enumeration."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from ladlib import published
from ladlib.errors import UserError
from ladlib.published import ConfusionTable, accuracy_p, confusion_tables_matching, discordant
from ladlib.statistics import sign_p

BASE, TRAINED = ConfusionTable(284, 277, 191, 384), ConfusionTable(391, 170, 280, 295)
NAMES = sorted(file.stem for file in published.stored_path("published").glob("*.csv"))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"departures"}))
def test_every_published_row_has_a_source_and_a_tag(name):
    frame = published.read(name)
    assert frame["source"].str.len().min() > 5
    assert set(frame["tag"]) <= {"P", "S", "I", "R", "N"}


def test_an_unknown_published_table_is_refused():
    with pytest.raises(UserError, match="loco_logical"):
        published.read("loco_logic")


def test_the_72bs_categories_pool_to_its_published_accuracy():
    frame = published.read("lad_reasoner_categories")
    assert (100 * frame["correct"] / frame["n"]).round(1).tolist() == frame["accuracy"].tolist()
    assert 100 * frame["correct"].sum() / frame["n"].sum() == pytest.approx(62.1, abs=0.06)


def test_the_papers_two_values_leave_one_or_two_tables_and_the_published_pair_is_among_them():
    tables = published.recovered_tables()
    assert tables["Qwen2.5-VL-3B (base)"] == (BASE,) and tables["LAD-Reasoner 3B"][0] == TRAINED
    assert all(1 <= len(matching) <= 2 for matching in tables.values())
    assert tables["always anomalous"][-1] == ConfusionTable(561, 0, 575, 0)
    rows = published.recovered().merge(published.read("lad_reasoner"), on="method", suffixes=("", "_printed"))
    for name in ("recall", "specificity"):
        assert (rows[name] - rows[f"{name}_printed"]).abs().max() <= 0.3


def test_a_table_is_always_among_those_its_rounded_percentages_leave_open():
    rng = np.random.default_rng(0)
    for tp, fn, fp, tn in rng.integers(1, 60, (20, 4)).tolist():
        accuracy, f1 = 100 * (tp + tn) / (tp + fn + fp + tn), 200 * tp / (2 * tp + fp + fn)
        matching = confusion_tables_matching(tp + fn, fp + tn, accuracy=round(accuracy, 1), f1=round(f1, 1))
        assert ConfusionTable(tp, fn, fp, tn) in matching
    assert confusion_tables_matching(10, 10, accuracy=50.0, f1=99.0) == []


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
    p = [sign_p(*pairing) for pairing in pairings]
    ends = discordant(first, second), discordant(first, second, most=True)
    assert set(ends) <= pairings
    assert [sign_p(*end) for end in ends] == pytest.approx([min(p), max(p)])


def test_no_answers_to_the_papers_images_make_its_gain_over_the_base_significant():
    assert discordant(BASE, TRAINED) == (107, 89)
    unpaired, least, most = accuracy_p("Qwen2.5-VL-3B (base)", "LAD-Reasoner 3B")
    counts = [[one.tp + one.tn, one.fn + one.fp] for one in (BASE, TRAINED)]
    assert unpaired == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)
    assert (least, most) == pytest.approx((0.2245, 0.575), abs=5e-4)
