"""Answers that share what they have in common are those of plain ``generate``, one pair at a time."""

from contextlib import contextmanager

import pytest
import torch
from tiny import tiny_processor, tiny_profile

from ladlib import generate, prompts
from ladlib.config import Toy, load_profile
from ladlib.data import read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.families import VISION_TOKENS
from ladlib.fast import decode
from ladlib.fast.decode import LOOK, distinct, lay_out, read_again
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


def same(answers, expected):
    """Equal in all but the last digits of P(yes), for which the README promises 1e-4."""
    for name in ("text", "finish", "prompt_tokens", "completion_tokens"):
        assert [getattr(answer, name) for answer in answers] == [getattr(answer, name) for answer in expected]
    assert [answer.p_yes for answer in answers] == pytest.approx([answer.p_yes for answer in expected], abs=1e-5)


@contextmanager
def forced(model, *tokens: int):
    """Make ``tokens`` the most likely ones, the first above all, whatever came before."""
    logits = 1e4 - torch.arange(len(tokens))
    hook = model.lm_head.register_forward_hook(
        lambda module, args, output: output.index_copy(-1, torch.tensor(tokens), logits.expand(*output.shape[:-1], -1))
    )
    try:
        yield
    finally:
        hook.remove()


def shapes_of(module, argument: str) -> list[tuple[int, ...]]:
    """The shapes of ``argument`` in all later calls of ``module``."""
    shapes = []
    module.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs[argument].shape)), with_kwargs=True
    )
    return shapes


def test_a_trained_models_answers_are_those_of_one_pair_at_a_time(toy, pairs):
    alone = [generate.answer(*toy, [two], 160)[0] for two in pairs[::3]]
    assert len({one.completion_tokens for one in alone}) > 5, "answers must end at different times"
    same(decode.answer(*toy, pairs[::3], 160), alone)


@pytest.mark.parametrize("question", [prompts.QUESTION, prompts.WORDINGS["short"]], ids=["task", "short"])
@pytest.mark.parametrize("longest", [1, 2, 9])
def test_answers_cut_off_at_the_limit_are_those_of_generate(tiny, pairs, longest, question):
    few = [*pairs[:3], *pairs[-2:]]
    found = decode.answer(*tiny, few, longest, question)
    assert {one.finish for one in found} == {"length"}
    same(found, generate.answer(*tiny, few, longest, question))


def test_the_device_may_be_asked_now_and_then_only_which_rows_have_ended(toy, pairs, monkeypatch):
    at_every_token = decode.answer(*toy, pairs, 64)
    monkeypatch.setitem(LOOK, "cpu", 8)
    assert len({one.completion_tokens for one in at_every_token}) > 8  # not all of them multiples of 8
    same(decode.answer(*toy, pairs, 64), at_every_token)


def test_images_of_unequal_size_are_padded_and_change_nothing(tiny, pairs):
    (reference, test), small = pairs[0], pairs[1][1].resize((84, 112))
    mixed = [[reference, test], [small, test], [reference, small], [small, small]]
    same(decode.answer(*tiny, mixed, 6), [generate.answer(*tiny, [two], 6)[0] for two in mixed])


@pytest.mark.parametrize("word", ["yes", "no"])
def test_p_yes_is_read_where_an_answer_begins_with_its_tag_and_where_it_has_none(tiny, pairs, word):
    model, processor = tiny
    (tag,) = processor.tokenizer("<answer>", add_special_tokens=False)["input_ids"]
    begins = beginnings(processor.tokenizer).after[word][0]
    for tokens in ((tag, begins), (begins,)):
        with forced(model, *tokens):
            same(decode.answer(*tiny, pairs[:2], 3), generate.answer(*tiny, pairs[:2], 3))
            assert decode.answer(*tiny, pairs[:1], 3)[0].p_yes == pytest.approx(float(word == "yes"))


def test_a_model_that_wants_an_image_token_does_not_get_it(tiny, pairs):
    model, processor = tiny
    with forced(model, processor.image_token_id):
        (found,) = decode.answer(*tiny, pairs[:1], 4)
    assert not any(token in found.text for token in VISION_TOKENS)


def test_no_image_and_no_token_of_a_prompt_is_read_twice_and_no_row_long_after_its_end(toy, pairs):
    laid_out = torch.inference_mode()(lay_out)(*toy, pairs, prompts.QUESTION)
    images = shapes_of(toy[0].model.visual, "grid_thw")
    tokens = shapes_of(toy[0].model.language_model, "inputs_embeds")
    answers = decode.answer(*toy, pairs, 160)
    assert [shape[0] for shape in images] == [len(distinct(pairs)[0])] and images[0][0] < 2 * len(pairs)
    firsts = {prompt.first: len(prompt.before[1]) for prompt in laid_out}
    beginning, rest, *steps = (rows * length for rows, length, _ in tokens)
    assert beginning == len(firsts) * max(firsts.values())
    assert rest == len(pairs) * max(len(prompt.after[1]) for prompt in laid_out)
    lengths = [answer.completion_tokens for answer in answers]
    assert sum(lengths) < sum(steps) < 0.9 * len(lengths) * max(lengths)


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
