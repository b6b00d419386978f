"""pass@k against counting it out."""

from itertools import combinations

import pytest

from ladlib.metrics import pass_at, pass_frame


def row(rule, right, arm="base", seed=0):
    return {"arm": arm, "seed": seed, "rule": rule, "right": right}


@pytest.mark.parametrize("drawn", range(1, 7))
def test_pass_at_k_is_the_share_of_choices_of_k_answers_with_a_right_one(drawn):
    for correct in range(drawn + 1):
        for k in range(1, drawn + 1):
            choices = list(combinations([True] * correct + [False] * (drawn - correct), k))
            assert pass_at(correct, drawn, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_the_frame_holds_each_kind_of_rule_and_all_of_them_and_no_k_above_the_number_drawn():
    half, never = [True, False] * 4, [False] * 8
    frame = pass_frame([row("place", half), row("place", never), row("count", never), row("count", half, "sft", 1)])
    found = {(one.arm, one.seed, one.rule, one.k): one.pass_at for one in frame.itertuples()}
    assert found[("base", 0, "place", 1)] == 0.25 and found[("base", 0, "all", 1)] == pytest.approx(0.5 / 3)
    assert found[("base", 0, "place", 8)] == 0.5 and found[("base", 0, "count", 8)] == 0
    assert found[("sft", 1, "all", 8)] == 1 and len(found) == 10
    assert set(pass_frame([row("place", [True, False])])["k"]) == {1}
