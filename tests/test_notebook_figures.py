"""What notebooks 03 to 05 show beyond the report: groups, answers, the arithmetic of the published table."""

import numpy as np
import pandas as pd
import pytest
from made_up import grpo_rows, made_up_arm, made_up_group, made_up_run

from ladlib.errors import UserError
from ladlib.report import lesson, published
from ladlib.report.answers import certainty, changes_frame, form_frame, found_by_defect, unparsed_frame
from ladlib.report.arithmetic import attainable, attainable_frame, operating_points, recovered_counts, released_counts
from ladlib.report.groups import group_scores, has_spread, reward_table, spread_first, start_and_end
from ladlib.report.shown import as_table, comparison_blocks
from ladlib.report.stored import read_run
from ladlib.report.tables import comparison, departures


def group(step, rewards):
    return made_up_group(tuple(float(one) for one in rewards), step)


# Groups


def test_a_group_of_equal_rewards_has_no_spread():
    assert not has_spread(group(1, [2.0, 2.0]))
    assert has_spread(group(1, [2.0, 1.0]))


def test_groups_with_spread_come_first_and_keep_their_order():
    mixed = [group(1, [1, 1]), group(2, [1, 2]), group(3, [0, 0]), group(4, [0, 1])]
    assert [one["step"] for one in spread_first(mixed)] == [2, 4, 1, 3]


def test_group_scores_draw_every_kept_group_once():
    axes = group_scores([group(1, [1, 1]), group(2, [0, 2]), group(3, [0, 0])]).axes[0]
    assert sorted(len(dots.get_offsets()) for dots in axes.collections if len(dots.get_offsets())) == [1, 2]


def test_start_and_end_are_means_over_a_fifth_of_the_steps():
    table = start_and_end([row | {"kl": None} for row in grpo_rows(10)])
    assert table.loc["reward"].tolist() == [0.15, 0.95, 0.8]
    assert table.loc["kl"].isna().all()


def test_the_reward_table_shows_markup_as_text():
    page = reward_table(["<think>a</think><answer>yes</answer>", "<b>no</b>"], "yes").to_html()
    assert "&lt;think&gt;" in page and "<b>" not in page
    assert "unparsed" in page


def test_the_advantage_bars_are_the_advantages():
    figure = lesson.advantage_bars({"one of four": [2, 1, 1, 1]})
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert np.allclose(heights, [1.5, -0.5, -0.5, -0.5], atol=1e-3)


def test_half_the_groups_of_two_have_spread_at_even_odds():
    line = lesson.spread_chance([2]).axes[0].lines[0]
    assert max(line.get_ydata()) == pytest.approx(0.5)


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


def test_figures_of_answers_name_every_arm_and_refuse_nothing_at_all():
    rows = made_up_arm("base", ["yes", "no"])
    assert [axes.get_title("left") for axes in certainty(rows).axes] == ["base"]
    assert found_by_defect(rows).axes[0].get_images()
    with pytest.raises(UserError):
        certainty([])
    with pytest.raises(UserError):
        found_by_defect([one for one in rows if one.anomaly == "good"])


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


def test_operating_points_leave_out_methods_without_both_values():
    frame = pd.DataFrame({"method": ["a", "b"], "recall": [50.0, None], "specificity": [50.0, 10.0]})
    axes = operating_points({"x": frame}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["a"]


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
