"""What notebooks 03 to 05 show beyond the report: groups, answers, the arithmetic of the published table."""

import pandas as pd
import pytest
from made_up import grpo_rows, made_up_arm, made_up_run

from ladlib.report import published
from ladlib.report.answers import changes_frame, form_frame, unparsed_frame
from ladlib.report.arithmetic import attainable, attainable_frame, recovered_counts, released_counts
from ladlib.report.groups import start_and_end
from ladlib.report.shown import as_table, comparison_blocks
from ladlib.report.stored import read_run
from ladlib.report.tables import comparison, departures

# Groups


def test_start_and_end_are_means_over_a_fifth_of_the_steps():
    table = start_and_end([row | {"kl": None} for row in grpo_rows(10)])
    assert table.loc["reward"].tolist() == [0.15, 0.95, 0.8]
    assert table.loc["kl"].isna().all()


# Answers


def test_unparsed_answers_are_listed_with_their_text():
    rows = made_up_arm("base", ["yes", "no"])
    broken = [rows[0].model_copy(update={"text": "<script>", "answer": None})]
    assert unparsed_frame(broken)["completion"].tolist() == ["<script>"]
    assert form_frame(broken)["unparsed"].tolist() == [1.0]


def test_changes_count_mended_and_broken_answers_of_the_same_images():
    before = made_up_arm("base", ["yes", "no"])[:3]
    right = {"yes": "<think>a</think><answer>yes</answer>", "no": "<think>a</think><answer>no</answer>"}
    other = {"yes": "no", "no": "yes"}
    first = [one.model_copy(update={"text": right[other[one.label]]}) for one in before]
    second = [one.model_copy(update={"text": right[one.label], "arm": "sft"}) for one in before]
    (row,) = changes_frame([*first, *second], [("base", "sft")]).to_dict("records")
    assert (row["images"], row["mended"], row["broken"]) == (3, 3, 0)
    assert row["accuracy, points"] == "+100.0"


# Arithmetic


def test_the_released_test_set_has_the_published_numbers_of_images():
    assert released_counts().sum().to_dict() == {"good": 575, "logical": 561, "structural": 432}


def test_recovered_counts_round_to_what_was_published():
    for row in published.read("lad_reasoner").itertuples():
        found = recovered_counts(row.accuracy, row.f1, anomalous=561, good=575)
        assert 1 <= len(found) <= 2
        for one in found:
            assert round(100 * (one["tp"] + one["tn"]) / 1136, 1) == row.accuracy
            assert abs(one["recall"] - row.recall) <= 0.3


def test_impossible_accuracies_have_no_count():
    assert attainable(74.6, 185) == [138]
    assert attainable(74.6, 275) == []
    assert attainable_frame()["full test set"].str.startswith("no count").sum() == 3


# Tables


def test_a_table_shows_markup_as_text_and_no_index():
    page = as_table(pd.DataFrame({"a": ["<script>"]}, index=[77]), "<i>").to_html()
    assert "<script>" not in page and "<i>" not in page and "77" not in page


def test_blocks_can_be_shown_alone(stored):
    page = comparison_blocks(comparison(stored), ["published"]).to_html()
    assert "LAD-Reasoner 3B" in page and "always yes" not in page


def test_departures_tell_the_values_that_a_run_was_made_with(tmp_path):
    run = made_up_run(tmp_path / "run")
    run.write(run.read().model_copy(update={"parameters": {"grpo.steps": 7, "data": ""}}))
    rows = departures(read_run(run).profile).set_index("item")
    assert rows.loc["GRPO length", "ours"] == "7 steps"


@pytest.fixture
def stored(tmp_path):
    return read_run(made_up_run(tmp_path / "run"))
