"""What the report and `ladlib verify` make of answers under other conditions and of the detector's, by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from made_up import made_up, made_up_run, write_rows
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ladlib.errors import UserError
from ladlib.parsing import parse_answer
from ladlib.records import Detection, Variation
from ladlib.report.page import write_report
from ladlib.report.stored import read_run
from ladlib.report.tables import comparison
from ladlib.report.varied import (
    sensitivity_frame,
    sensitivity_text,
    variance_frame,
    variance_text,
)
from ladlib.statistics import variance_shares, wilson
from ladlib.verify import beside, verify

# Answers and P(anomalous) to two good and two logical pairs, by condition.
SAID = {
    ("none", ""): [("no", 0.1), ("yes", 0.9), ("yes", 0.8), ("no", 0.2)],
    ("blind", ""): [("no", 0.1), ("no", 0.1), ("no", 0.1), ("no", 0.1)],
    ("swapped", ""): [("no", 0.1), ("yes", 0.9), ("yes", 0.8), ("yes", 0.6)],
    ("wording", "short"): [("no", 0.3), ("yes", 0.9), ("", 0.4), ("no", 0.2)],
    ("dtype", "bfloat16"): [("no", 0.1), ("yes", 0.9), ("yes", 0.8), ("no", 0.2)],
}
SHOWN = {"blind": ("reference", "reference"), "swapped": ("test", "reference")}


def variations(arm="sft_grpo", seed=0):
    rows = []
    for (factor, level), answers in SAID.items():
        for place, (answer, p) in enumerate(answers):
            kind = "good" if place < 2 else "logical"
            one = made_up(arm, "pushpins", kind, place, answer, text=None if answer else "no answer", seed=seed)
            known = one.model_dump() | {"answer": parse_answer(one.text), "p_yes": p}
            shown = SHOWN.get(factor, ("reference", "test"))
            rows.append(Variation(**known, factor=factor, level=level, shown=shown))
    return rows


def detections(run):
    seen = {one.id: one for one in read_run(run).generations}.values()
    return [
        Detection(
            **one.model_dump(include={"id", "dataset", "category", "anomaly", "defect", "label", "test"}),
            image_sha256=one.images_sha256[1], nearest="n.png", distance=float(place % 3), threshold=1.0,
            trained_on=40, answer="yes" if place % 3 > 1 else "no",
        )
        for place, one in enumerate(seen)
    ]  # fmt: skip


def write_varied(run, rows, arm="sft_grpo", seed=0):
    write_rows(run.sensitivity(arm, seed), [one.model_dump(mode="json") for one in rows])


@pytest.fixture
def run(tmp_path):
    made = made_up_run(tmp_path / "run")
    write_varied(made, variations())
    write_rows(made.neighbours, [one.model_dump(mode="json") for one in detections(made)])
    return made


def rows_of(frame, column):
    return frame.set_index(column).to_dict("index")


# The tables


def test_scores_flips_and_changes_are_as_worked_by_hand(run):
    rows = rows_of(sensitivity_frame(read_run(run)), "condition")
    usual, blind, short = rows["as evaluated"], rows["blind: reference twice"], rows["wording: short"]
    assert [usual[name] for name in ("pairs", "accuracy", "recall", "specificity")] == [4, 50.0, 50.0, 50.0]
    assert np.isnan(usual["flips"]) and np.isnan(usual["change"])
    assert [blind[name] for name in ("accuracy", "recall", "specificity", "flips")] == [50.0, 0.0, 100.0, 50.0]
    assert blind["change"] == pytest.approx(100 * (0.8 + 0.7 + 0.1) / 4)
    assert (blind["low"], blind["high"]) == tuple(round(100 * end, 1) for end in wilson(2, 4))
    assert (short["flips"], short["unparsed"], short["accuracy"]) == (25.0, 25.0, 25.0)  # unreadable is wrong, a flip
    assert rows["numeric type: bfloat16"]["flips"] == 0.0
    assert rows["images exchanged"]["accuracy"] == 75.0  # better, and a flip all the same
    assert rows["images exchanged"]["flips"] == 25.0


def test_variance_is_shared_out_for_choices_and_not_for_baselines(run):
    rows = rows_of(variance_frame(read_run(run)), "factor")
    assert set(rows) == {"wording", "numeric type"}
    assert [rows["numeric type"][name] for name in ("levels", "pairs", "pair", "level", "both")] == [2, 4, 100, 0, 0]
    shares = variance_shares([[0.1, 0.3], [0.9, 0.9], [0.8, 0.4], [0.2, 0.2]])
    assert rows["wording"]["pair"] == round(100 * shares.pair, 1)


def test_a_seed_has_rows_of_its_own(run):
    write_varied(run, variations(seed=1), seed=1)
    frame = sensitivity_frame(read_run(run))
    assert frame.groupby("seed")["condition"].nunique().to_dict() == {0: 5, 1: 5}


def test_where_nothing_was_judged_again_the_tables_are_empty(tmp_path):
    stored = read_run(made_up_run(tmp_path))
    assert stored.variations == [] and stored.detections == []
    assert sensitivity_text(sensitivity_frame(stored)).empty and variance_text(variance_frame(stored)).empty
    assert set(comparison(stored).query("block == 'trivial'")["method"]) == {
        "always yes", "always no", "yes at the base rate"
    }  # fmt: skip


def test_a_run_still_under_way_is_shown_as_far_as_it_is(run):
    write_varied(run, variations()[:6])  # evaluation's condition and half of the blind one
    rows = rows_of(sensitivity_frame(read_run(run)), "condition")
    assert rows["blind: reference twice"]["pairs"] == 2 and rows["blind: reference twice"]["flips"] == 50.0
    assert variance_frame(read_run(run)).empty


def test_the_comparison_has_a_row_for_the_detector_and_the_blinded_model_with_what_they_saw(run):
    frame = rows_of(comparison(read_run(run)), "method")
    detector = frame["nearest neighbour"]
    assert detector["block"] == "trivial" and "no language model, sees 40 good training images" in detector["label"]
    blind = frame["SFT + GRPO, blind"]
    assert (blind["accuracy"], blind["images"], blind["recall"]) == (50.0, 4, 0.0)
    assert blind["label"].endswith("; shown the reference image twice, 4 of the test pairs") and pd.isna(
        blind["accuracy_all"]
    )
    assert list(comparison(read_run(run))["block"]).index("published") > list(frame).index("nearest neighbour")


# The shares of variance


def test_shares_of_a_table_worked_by_hand():
    # Row means 0.5, 3.5; column means 1, 3; what is left is +-0.5 in each cell, so its mean square is 1.
    found = variance_shares([[0, 1], [2, 5]])
    assert found == pytest.approx((4 / 6.5, 1.5 / 6.5, 1 / 6.5))


def test_shares_are_the_components_of_statsmodels_mean_squares():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pairs, levels = rng.integers(2, 8, 2)
        table = rng.normal(size=(pairs, levels)) + rng.normal(size=(pairs, 1)) + rng.normal(size=levels)
        frame = pd.DataFrame([(p, k, table[p, k]) for p in range(pairs) for k in range(levels)], columns=list("pky"))
        squares = anova_lm(ols("y ~ C(p) + C(k)", frame).fit())["mean_sq"]
        both = squares["Residual"]
        raw = [max(0, (squares["C(p)"] - both) / levels), max(0, (squares["C(k)"] - both) / pairs), both]
        assert variance_shares(table) == pytest.approx([one / sum(raw) for one in raw])


def test_a_table_that_varies_in_nothing_has_no_shares_and_one_row_is_refused():
    assert variance_shares([[0.5, 0.5], [0.5, 0.5]]) is None
    assert variance_shares([[0.1, 0.1], [0.9, 0.9]]) == (1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="Two pairs"):
        variance_shares([[0.1, 0.2]])


# The report


def test_the_report_has_tables_figure_and_sections_where_the_files_are_there(run):
    page = write_report(run).read_text(encoding="utf-8")
    for name in ("sensitivity",):
        assert {path.suffix for path in run.tables.glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    assert (run.figures / "sensitivity.pdf").is_file()
    assert 'id="sensitivity"' in page and "blind: reference twice" in page
    arms = {row["arm"] for row in json.loads(run.metrics_json.read_text())}
    assert "neighbours" in arms
    first = {path: path.read_bytes() for path in run.tables.iterdir()}
    write_report(run)
    assert first == {path: path.read_bytes() for path in run.tables.iterdir()}


def test_the_report_has_nothing_of_them_where_they_are_not(tmp_path):
    made = made_up_run(tmp_path)
    page = write_report(made).read_text(encoding="utf-8")
    assert 'id="sensitivity"' not in page and not list(made.root.rglob("sensitivity*"))


# ladlib verify


def told(run):
    return {claim.subject: (claim.verdict, claim.found) for claim in beside.claims(read_run(run))}


def change(path, place, **values):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[place] |= values
    write_rows(path, rows)


def test_what_is_whole_holds_and_what_is_not_there_is_not_claimed(run, tmp_path):
    assert {verdict for verdict, _ in told(run).values()} == {"held"} and len(told(run)) == 2
    assert told(made_up_run(tmp_path / "bare")) == {}
    assert {"sensitivity", "nearest neighbour"} <= {claim.subject for claim in verify(run)}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"answer": "yes"}, "its text says no"),
        ({"text": "<think>x</think><answer>yes</answer>"}, "its text says yes"),
        ({"label": "yes"}, "labelled yes"),
        ({"level": "other"}, "lacks"),
        ({"id": "pushpins/test/good/001"}, "judged 2 times"),
    ],
)
def test_a_changed_answer_under_another_condition_fails_by_name(run, values, fault):
    change(run.sensitivity("sft_grpo", 0), 4, **values)
    verdict, found = told(run)["sensitivity"]
    assert verdict == "failed" and ("blind" in found or "lacks" in found)
    assert any(fault in one for one in [*beside._variations(read_run(run).variations),
                                        *beside._gaps(read_run(run).variations)])  # fmt: skip


def test_what_is_no_probability_is_refused_by_name(run):
    change(run.sensitivity("sft_grpo", 0), 4, p_yes=1.5)
    with pytest.raises(UserError, match="sft_grpo-seed0.jsonl: p_yes"):
        read_run(run)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"answer": "yes"}, "says no"),
        ({"distance": 1.5}, "says yes"),
        ({"threshold": 2.0}, "another threshold"),
        ({"label": "yes"}, "labelled yes"),
        ({"image_sha256": "other"}, "another image"),
        ({"id": "pushpins/test/good/900"}, "judged 0 times"),
    ],
)
def test_a_changed_answer_of_the_detector_fails_by_name(run, values, fault):
    change(run.neighbours, 0, **values)
    verdict, found = told(run)["nearest neighbour"]
    assert verdict == "failed"
    stored = read_run(run)
    assert any(fault in one for one in [*beside._detections(stored.detections), *beside._images(stored)]), found


def test_the_arms_own_claims_are_untouched_by_what_lies_beside_them(run):
    with_files = [claim for claim in verify(run) if claim.subject not in ("sensitivity", "nearest neighbour")]
    for path in (run.sensitivity("sft_grpo", 0), run.neighbours):
        path.unlink()
    assert [claim.line for claim in verify(run)] == [claim.line for claim in with_files]
