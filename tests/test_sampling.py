"""pass@k against counting it out, and samples of the tiny model."""

from itertools import combinations

import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib.errors import UserError
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sampling import pairs_by_rule, pass_at, pass_frame, sample
from ladlib.toy import loco
from ladlib.toy import products as training


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def row(rule, right, arm="base", seed=0):
    return {"arm": arm, "seed": seed, "rule": rule, "right": right}


@pytest.mark.parametrize("drawn", range(1, 7))
def test_pass_at_k_is_the_share_of_choices_of_k_answers_with_a_right_one(drawn):
    for correct in range(drawn + 1):
        for k in range(1, drawn + 1):
            choices = list(combinations([True] * correct + [False] * (drawn - correct), k))
            assert pass_at(correct, drawn, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize(("correct", "drawn", "k"), [(9, 8, 1), (-1, 8, 1), (3, 8, 9), (3, 8, 0)])
def test_pass_at_refuses_what_cannot_be(correct, drawn, k):
    with pytest.raises(ValueError, match="not defined"):
        pass_at(correct, drawn, k)


def test_the_frame_holds_each_kind_of_rule_and_all_of_them():
    half, never = [True, False] * 4, [False] * 8
    frame = pass_frame([row("place", half), row("place", never), row("count", never), row("count", half, "sft", 1)])
    found = {(one.arm, one.seed, one.rule, one.k): one.pass_at for one in frame.itertuples()}
    assert found[("base", 0, "place", 1)] == 0.25 and found[("base", 0, "all", 1)] == pytest.approx(0.5 / 3)
    assert found[("base", 0, "place", 8)] == 0.5 and found[("base", 0, "count", 8)] == 0
    assert found[("sft", 1, "all", 8)] == 1 and len(found) == 10


def test_where_fewer_than_k_were_drawn_pass_at_k_is_left_out():
    assert set(pass_frame([row("place", [True, False])])["k"]) == {1}


def test_every_toy_product_says_what_kind_of_rule_it_has():
    for products in (training.PRODUCTS, loco.PRODUCTS):
        assert {product.rule_kind for product in products} == {"place", "count", "relation"} - (
            {"place"} if products is loco.PRODUCTS else set()
        )


def test_sampled_pairs_are_balanced_in_number_and_label(data):
    pairs = pairs_by_rule(tiny_profile(), data, per_rule=4)
    place = [one.test.label for rule, one in pairs if rule == "place"]
    assert place == ["yes", "no"] * 2
    assert len({one.id for _, one in pairs}) == len(pairs)
    assert len(pairs_by_rule(tiny_profile(), data, per_rule=3)) < len(pairs)


def test_a_sample_holds_a_group_of_answers_to_each_pair_and_follows_its_seed(data, tmp_path):
    profile, runs = tiny_profile(grpo__group_size=3, model__max_new_tokens=6), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = RunFolder(tmp_path / name)
        sample(profile, data, run, seed, "base", tiny_base(), per_rule=2)
        runs.append([one["texts"] for one in read_jsonl(run.samples("base", seed))])
    assert runs[0] == runs[1] != runs[2]
    for one in read_jsonl(RunFolder(tmp_path / "a").samples("base", 0)):
        assert len(one["texts"]) == len(one["answers"]) == len(one["right"]) == 3
        assert one["right"] == [answer == one["label"] for answer in one["answers"]]
        assert len(set(one["texts"])) > 1, "answers are drawn, not the likeliest"


def test_no_pairs_of_toy_products_is_told(data, tmp_path, monkeypatch):
    monkeypatch.setattr("ladlib.sampling._RULE_OF", {})
    with pytest.raises(UserError, match="no pairs of toy products"):
        pairs_by_rule(tiny_profile(), data, per_rule=4)
