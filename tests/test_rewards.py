import pytest
from completions import ROWS
from hypothesis import given
from hypothesis import strategies as st

from ladlib.parsing import TAGS, parse_answer
from ladlib.rewards import accuracy_reward, format_reward, group_advantages

PIECES = st.sampled_from([*TAGS, "yes", "no", " ", ".", "a", "<|image_pad|>"])
COMPLETIONS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))
each_row = pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])


@each_row
@pytest.mark.parametrize("label", ["yes", "no"])
def test_accuracy_is_rewarded_only_where_the_parsed_answer_is_the_label(row, label):
    assert accuracy_reward(row.text, label) == (1.0 if row.answer == label else 0.0)


@each_row
def test_format_is_rewarded_only_where_the_text_is_well_formed(row):
    assert format_reward(row.text) == (1.0 if row.well_formed else 0.0)


@given(COMPLETIONS, st.sampled_from(["yes", "no"]))
def test_rewards_are_0_or_1_and_a_rewarded_answer_is_the_label(text, label):
    accuracy, form = accuracy_reward(text, label), format_reward(text)
    assert {accuracy, form} <= {0.0, 1.0}
    assert accuracy == 0.0 or parse_answer(text) == label


@given(COMPLETIONS)
def test_no_completion_is_right_for_both_labels(text):
    assert accuracy_reward(text, "yes") + accuracy_reward(text, "no") <= 1.0


def test_an_answer_without_thinking_earns_accuracy_and_not_format():
    assert (accuracy_reward("<answer>no</answer>", "no"), format_reward("<answer>no</answer>")) == (1.0, 0.0)


def test_advantages_of_a_hand_worked_group():
    # mean 0.5, deviations ±0.5, variance (4 * 0.25) / 3, standard deviation 0.57735
    assert group_advantages([1.0, 0.0, 1.0, 0.0]) == pytest.approx([0.86588, -0.86588] * 2, abs=1e-5)


def test_a_group_without_spread_teaches_nothing():
    assert group_advantages([2.0] * 8) == [0.0] * 8
    assert group_advantages([1.0]) == [0.0]
    assert group_advantages([]) == []


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=2, max_size=16))
def test_advantages_sum_to_zero_and_keep_the_order_of_the_rewards(rewards):
    advantages = group_advantages(rewards)
    assert sum(advantages) == pytest.approx(0.0, abs=1e-6)
    ranked = [advantage for _, advantage in sorted(zip(rewards, advantages, strict=True))]
    assert ranked == sorted(ranked)


@pytest.mark.slow
def test_advantages_are_those_of_trl():
    torch = pytest.importorskip("torch")
    nanstd = pytest.importorskip("trl.trainer.utils").nanstd
    rewards = torch.tensor([2.0, 1.0, 0.0, 1.0, 2.0, 2.0])
    theirs = (rewards - rewards.nanmean()) / (nanstd(rewards) + 1e-4)
    assert group_advantages(rewards.tolist()) == pytest.approx(theirs.tolist(), abs=1e-5)
