"""The benchmarks, in small: the same work in each variant, and a last line that programs can read."""

import json

import pytest
from tiny import tiny_profile, write_data

from ladlib import bench
from ladlib.bench import ALONE, OURS, PADDED, STOCK
from ladlib.records import Completion


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_variants_take_turns_after_a_first_call_and_each_has_its_own_seconds():
    turns = []
    variants = {OURS: lambda: turns.append("o"), "stock": lambda: turns.append("s")}
    result = bench.compare(variants, 3, "stock", units=2)
    assert turns == ["o", "s"] * 4 and [len(values) for values in result["seconds"].values()] == [3, 3]


def test_a_text_that_differs_is_counted_and_not_hidden_in_p_yes():
    one, near, other = (Completion(text, "stop", p, 5, 2) for text, p in (("a", 0.5), ("a", 0.25), ("b", 0.9)))
    assert bench.differences([one, one], [near, other]) == {"texts": 1, "p_yes": 0.25}


def test_the_variants_of_evaluation_answer_alike_and_the_last_line_says_how_they_compare(data, capsys):
    profile = tiny_profile(model__max_new_tokens=6, evaluate__batch_size=4, evaluate__limit=0)
    result = bench.evaluation(profile, data, repeats=2)
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == result and (printed["what"], printed["profile"]) == ("eval", profile.name)
    ours, padded, alone = (sorted(printed["seconds"][name]) for name in (OURS, PADDED, ALONE))
    assert printed["ratio"] == pytest.approx(sum(padded) / sum(ours))
    assert printed["ratio_one_by_one"] == pytest.approx(sum(alone) / sum(ours))
    assert {one["texts"] for one in printed["apart_from_one_by_one"].values()} == {0}


@pytest.mark.slow
def test_both_variants_of_stage_two_take_the_same_steps(data, capsys):
    result = bench.grpo(tiny_profile(model__max_new_tokens=8), data, repeats=1, steps=1)
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == result and printed["what"] == "grpo"
    assert printed["ratio"] == pytest.approx(printed["seconds"][STOCK][0] / printed["seconds"][OURS][0])
