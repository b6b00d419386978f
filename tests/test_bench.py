"""The benchmarks, in small: the same work in each way, and a last line that programs can read."""

import json
from types import SimpleNamespace

import pytest
import torch
from ladlib.bench import clock as clocks
from ladlib.bench import evaluation, growth, supervised
from ladlib.bench import grpo as policy
from ladlib.bench.clock import Clock
from ladlib.bench.cost import judging_operations, step_of
from ladlib.bench.evaluation import ALONE, OURS, PADDED, apart
from ladlib.bench.timing import alternate, show
from PIL import Image
from tiny import narrow_3b, tiny_profile, write_data
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ladlib import evaluate
from ladlib.config import load_profile
from ladlib.records import Completion
from ladlib.sizes import sizes_of


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_ways_take_turns_and_each_has_its_own_seconds():
    turns = []
    seconds = alternate({"ours": lambda: turns.append("o"), "stock": lambda: turns.append("s")}, repeats=3)
    assert turns == ["o", "s"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 3, "stock": 3}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_a_line_tells_the_median_and_the_spread(capsys):
    show({"ours": [3.0, 1.0, 2.0], "stock library": [4.0]}, {"ours": {"tokens read": 7}})
    assert capsys.readouterr().out.splitlines() == [
        "ours           2.00 s (1.00 to 3.00)  7 tokens read",
        "stock library  4.00 s (4.00 to 4.00)",
    ]


def test_a_second_is_told_once_by_the_innermost_part_that_had_it(monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: next(now))
    owner = SimpleNamespace(see=lambda: None, draw=lambda: [owner.see(), owner.see()], hide=lambda: owner.see())
    clock = Clock()
    with clock.on([(owner, "see", "vision"), (owner, "draw", lambda: "generate"), (owner, "hide", "")]):
        owner.draw()  # looked at the clock at 0; see from 1 to 2 and from 3 to 4; done at 5
        owner.hide()
    assert clock.spent == {"generate": 3, "vision": 3} and clock.part == ""


def test_what_was_timed_is_put_back_even_where_it_failed():
    owner = SimpleNamespace(fail=lambda: 1 / 0)
    function, clock = owner.fail, Clock()
    with pytest.raises(ZeroDivisionError), clock.on([(owner, "fail", "loss")]):
        owner.fail()
    assert owner.fail is function and list(clock.spent) == ["loss"] and clock.part == ""


def test_the_three_ways_of_evaluation_answer_alike_and_the_last_line_says_how_they_compare(data, capsys):
    profile = tiny_profile(evaluate__max_new_tokens=6, evaluate__batch_size=4, evaluate__limit=0)
    result = evaluation.bench(profile, data, repeats=2)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == result and (told["what"], told["profile"]) == ("eval", profile.name)
    ours, padded, alone = (sorted(told["seconds"][name]) for name in (OURS, PADDED, ALONE))
    assert told["ratio"] == pytest.approx(sum(padded) / sum(ours))
    assert told["ratio_one_by_one"] == pytest.approx(sum(alone) / sum(ours))
    assert {found["texts"] for found in told["apart_from_one_by_one"].values()} == {0}
    assert told["images_needed"] <= told["images_encoded"][OURS] < told["images_encoded"][PADDED]
    assert told["tokens_needed"] <= told["tokens_read"][OURS] < told["tokens_read"][ALONE]
    assert all(peak > 0 for peak in told["peak_mib"].values())
    assert told["threads"] == torch.get_num_threads()


def test_a_text_that_differs_is_counted_and_not_hidden_in_p_yes():
    one, near, other = (Completion(text, "stop", p, 5, 2) for text, p in (("a", 0.5), ("a", 0.25), ("b", 0.9)))
    assert apart([one, one], [near, other]) == {"texts": 1, "p_yes": 0.25}


@pytest.mark.slow
def test_both_ways_of_stage_two_take_the_same_steps_and_every_part_is_told(data, capsys):
    result = policy.bench(tiny_profile(grpo__max_completion_tokens=8), data, repeats=1, steps=1, group=4)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == result and (told["what"], told["group"]) == ("grpo", 4)
    seconds = told["seconds_a_step"]
    assert told["ratio"] == pytest.approx(seconds[policy.STOCK][0] / seconds[policy.OURS][0])
    assert told["ratio_flops"] > 1 and told["peak_mib"][policy.OURS] < told["peak_mib"][policy.STOCK]
    for name, parts in told["parts"].items():
        assert set(parts) == set(policy.PARTS) and 0 < sum(parts.values()) <= seconds[name][0]
        assert all(parts[part] > 0 for part in policy.PARTS)
        assert 0 < told["share_of_peak"][name] < 1
        assert told["times_on_paper"][name] > 1, "nothing is faster than its arithmetic"


def test_on_paper_a_larger_group_makes_a_completion_cheaper_here_and_no_cheaper_in_stock():
    sizes, profile = sizes_of("toy-base"), load_profile("toy")
    frame = growth.by_group(sizes, step_of(profile, sizes, completion=40))
    assert frame["here"].is_monotonic_decreasing and frame["stock"].nunique() == 1
    assert (frame["here"] < frame["stock"]).all()


def test_on_paper_larger_images_longer_completions_and_larger_models_cost_more_but_always_less_than_in_stock():
    sizes, profile = sizes_of("toy-base"), load_profile("toy")
    step = step_of(profile, sizes, completion=40)
    frames = [growth.by_images(sizes, step), growth.by_completion(sizes, step), growth.by_model(profile, 40)]
    for frame in frames:
        assert frame.apply(lambda one: one.is_monotonic_increasing).all()
        assert (frame["here"] < frame["stock"]).all()


def test_on_paper_a_judgement_grows_cheaper_with_the_pairs_that_share_its_reference_image():
    sizes, profile = sizes_of("toy-base"), load_profile("toy")
    frame = growth.by_pairs(sizes, step_of(profile, sizes, completion=40))
    assert frame["here"].is_monotonic_decreasing and frame["stock"].nunique() == 1
    assert frame["here"].iloc[0] < frame["stock"].iloc[0]  # nothing is read again for P(yes)


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [1, 4])
def test_on_paper_a_judgement_costs_what_pytorch_counts(tmp_path, pairs):
    """Two images of 300 tokens each and answers of 60 tokens, beside one reference image."""
    model = narrow_3b(tmp_path)
    profile = tiny_profile(model__base=model, data__max_pixels=300 * 28**2)
    judge, processor = evaluate.load(profile)
    judge.generation_config.eos_token_id = [0]  # nothing ends an answer early
    shown = [
        [Image.new("RGB", (20 * 28, 15 * 28), colour) for colour in ((9, 9, 9), (9 * n, 99, 9))] for n in range(pairs)
    ]
    counted = {}
    for name, shared in (("stock", False), ("here", True)):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            evaluate.answer(judge, processor, shown, 60, shared_prefix=shared)
        counted[name] = counter.get_total_flops() / pairs
    sizes = sizes_of(model)
    assert judging_operations(sizes, step_of(profile, sizes, completion=60), pairs) == pytest.approx(counted, rel=0.1)


@pytest.mark.slow
def test_both_ways_of_stage_one_take_the_same_steps_and_padding_is_told(data, capsys):
    profile = tiny_profile(data__sft_samples=8, sft__batch_size=8, sft__micro_batch_size=2)
    result = supervised.bench(profile, data, repeats=1, steps=1)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == result and (told["what"], told["steps"]) == ("sft", 1)
    assert told["ratio"] == told["seconds"][supervised.STOCK][0] / told["seconds"][supervised.OURS][0]
    read = told["tokens_read"]
    assert 0 < told["tokens_needed"] <= read[supervised.OURS] <= read[supervised.STOCK]
