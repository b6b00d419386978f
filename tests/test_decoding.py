"""Answers that share what they have in common are those of plain ``generate``, one pair at a time."""

from contextlib import contextmanager

import pytest
import torch
from tiny import tiny_processor, tiny_profile
from transformers.cache_utils import DynamicCache

from ladlib import generate, prompts
from ladlib.config import Toy, load_profile
from ladlib.data import read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.families import VISION_TOKENS
from ladlib.fast import decode
from ladlib.fast.decode import LOOK, distinct, lay_out, padded, read_again, with_room
from ladlib.generate import beginnings
from ladlib.toy.datasets import write_datasets

FEW = Toy(train=2, good=4, logical=4, structural=1)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """45 pairs of the toy LOCO's five categories as (reference image, test image), two reference images a category."""
    data, profile = tmp_path_factory.mktemp("data"), load_profile("toy").data
    write_datasets(data, FEW)
    folder = data / "mvtec_loco_anomaly_detection"
    return [
        [view(folder / path, profile.min_pixels, profile.max_pixels) for path in (one.reference, one.test.image)]
        for one in pair(read_dataset(data, "mvtec_loco"), 0)
    ]


@pytest.fixture(scope="module")
def tiny():
    return generate.load(tiny_profile())


@pytest.fixture(scope="module")
def toy():
    return generate.load(load_profile("toy"))


def same(found, expected):
    """Equal in all but the last digits of P(yes), for which the README promises 1e-4."""
    kept = ("text", "finish", "prompt_tokens", "completion_tokens")
    assert [[getattr(one, name) for name in kept] for one in found] == [
        [getattr(one, name) for name in kept] for one in expected
    ]
    assert [one.p_yes for one in found] == pytest.approx([one.p_yes for one in expected], abs=1e-5)


@contextmanager
def forced(model, *tokens: int):
    """Make ``tokens`` the most likely ones, the first above all, whatever came before."""
    raised = torch.tensor([1e4 - place for place in range(len(tokens))])

    def raise_them(module, args, output):
        return output.index_copy(-1, torch.tensor(tokens), raised.expand(*output.shape[:-1], -1))

    hook = model.lm_head.register_forward_hook(raise_them)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def counted(module, argument: str):
    """The shapes of ``argument`` in all calls of ``module``."""
    shapes = []
    hook = module.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs[argument].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


@pytest.mark.slow
def test_a_trained_models_answers_are_those_of_one_pair_at_a_time(toy, pairs):
    alone = [generate.answer(*toy, [two], 160)[0] for two in pairs]
    assert len({one.completion_tokens for one in alone}) > 5, "answers must end at different times"
    same(decode.answer(*toy, pairs, 160), alone)


def test_a_batch_is_answered_as_generate_answers_it(toy, pairs):
    few = pairs[::5]
    found = decode.answer(*toy, few, 160)
    assert {one.finish for one in found} == {"stop"}
    same(found, generate.answer(*toy, few, 160))


@pytest.mark.parametrize("question", [prompts.QUESTION, prompts.WORDINGS["short"]], ids=["task", "short"])
@pytest.mark.parametrize("longest", [1, 2, 9])
def test_answers_cut_off_at_the_limit_are_those_of_generate(tiny, pairs, longest, question):
    few = [*pairs[:3], *pairs[-2:]]
    found = decode.answer(*tiny, few, longest, question)
    assert {one.finish for one in found} == {"length"}
    same(found, generate.answer(*tiny, few, longest, question))


def test_the_device_may_be_asked_now_and_then_only_which_rows_have_ended(toy, pairs, monkeypatch):
    found = decode.answer(*toy, pairs, 64)
    monkeypatch.setitem(LOOK, "cpu", 8)
    seldom = decode.answer(*toy, pairs, 64)
    assert len({one.completion_tokens for one in found}) > 8  # of many lengths, not all of them multiples of 8
    same(seldom, found)


def test_images_of_unequal_size_are_padded_and_change_nothing(tiny, pairs):
    (reference, test), small = pairs[0], pairs[1][1].resize((84, 112))
    mixed = [[reference, test], [small, test], [reference, small], [small, small]]
    same(decode.answer(*tiny, mixed, 6), [generate.answer(*tiny, [two], 6)[0] for two in mixed])


@pytest.mark.parametrize("word", ["yes", "no"])
def test_p_yes_is_read_where_an_answer_begins_with_its_tag_and_where_it_has_none(tiny, pairs, word):
    model, processor = tiny
    (tag,) = processor.tokenizer("<answer>", add_special_tokens=False)["input_ids"]
    for tokens in (
        (tag, beginnings(processor.tokenizer).after[word][0]),
        (beginnings(processor.tokenizer).after[word][0],),
    ):
        with forced(model, *tokens):
            same(decode.answer(*tiny, pairs[:2], 3), generate.answer(*tiny, pairs[:2], 3))
            assert decode.answer(*tiny, pairs[:1], 3)[0].p_yes == pytest.approx(float(word == "yes"))


def test_a_model_that_wants_an_image_token_does_not_get_it(tiny, pairs):
    model, processor = tiny
    with forced(model, processor.image_token_id):
        (found,) = decode.answer(*tiny, pairs[:1], 4)
    assert not any(token in found.text for token in VISION_TOKENS)


def test_each_image_is_encoded_once(toy, pairs):
    assert len(distinct(pairs)[0]) < 2 * len(pairs)
    with counted(toy[0].model.visual, "grid_thw") as grids, torch.inference_mode():
        lay_out(*toy, pairs, prompts.QUESTION)
    assert [shape[0] for shape in grids] == [len(distinct(pairs)[0])]


def test_no_token_of_a_prompt_is_read_twice_and_no_row_long_after_its_end(toy, pairs):
    laid_out = torch.inference_mode()(lay_out)(*toy, pairs, prompts.QUESTION)
    firsts = {one.first: len(one.before[1]) for one in laid_out}
    with counted(toy[0].model.language_model, "inputs_embeds") as read:
        found = decode.answer(*toy, pairs, 160)
    beginning, rest, *steps = (rows * tokens for rows, tokens, _ in read)
    assert beginning == len(firsts) * max(firsts.values())
    assert rest == len(pairs) * max(len(one.after[1]) for one in laid_out)
    lengths = [one.completion_tokens for one in found]
    assert sum(lengths) < sum(steps) < 0.9 * len(lengths) * max(lengths)


def test_rows_that_leave_take_nothing_of_the_others_with_them():
    torch.manual_seed(0)
    stock, before = DynamicCache(), torch.randn(2, 3, 2, 5, 4)
    for layer in range(2):
        stock.update(before[0], before[1], layer)
    roomy = with_room(stock, torch.tensor([0, 0, 2]), room=2)
    stock.batch_select_indices(torch.tensor([0, 0, 2]))
    for rows in (torch.tensor([0, 2]), torch.tensor([1])):
        new = torch.randn(len(stock.layers[0].keys), 2, 1, 4)
        for cache in (stock, roomy):
            for layer in range(2):
                cache.update(new, -new, layer)
        for layer in roomy.layers:
            layer.batch_select_indices(rows)
        stock.batch_select_indices(rows)
        for ours, theirs in zip(roomy.layers, stock.layers, strict=True):
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize(
    ("completion", "held", "tail"),
    [
        ("a b<answer>no</answer><|im_end|>", 2, " b<answer>"),  # P(yes) hangs on what follows each of the two
        ("<answer>yes", 0, "@<answer>"),  # where the tag comes first, the prompt's last token is one of them
        ("a b", 2, " b<answer>"),  # cut off: the tag is put after it
        ("a<|im_end|>", 1, "a<answer>"),
        ("<|im_end|>", 0, "@<answer>"),
    ],
)
def test_only_the_last_tokens_up_to_the_answer_are_read_again(completion, held, tail):
    tokenizer = tiny_processor().tokenizer
    last, *row = tokenizer("@" + completion, add_special_tokens=False)["input_ids"]
    count, again = read_again(tokenizer, last, row)
    assert (count, tokenizer.decode(again)) == (held, tail)


def test_padding_stands_on_the_left():
    assert padded([torch.tensor([1]), torch.tensor([2, 3])]).tolist() == [[0, 1], [2, 3]]
