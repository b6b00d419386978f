"""Answers of a batch are those of one pair at a time; P(yes): where it is read, and which tokens count."""

import math

import pytest
import torch
from tiny import tiny_processor, tiny_profile, write_data
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ladlib import generate
from ladlib.data import read_dataset
from ladlib.data.pairing import pair, pair_images
from ladlib.families import STOP_TOKENS, VISION_TOKENS
from ladlib.generate import Beginnings, beginnings, shares_of_yes, up_to_answer


def joining_tokenizer() -> PreTrainedTokenizerFast:
    """A token a letter, but one of ">No" as Qwen2.5's tokenizer has it, and one of ">" with a new line."""
    merges = [("N", "o"), (">", "No"), (">", "Ċ")]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(two) for two in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(STOP_TOKENS))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {"tags are one token": tiny_processor().tokenizer, "the tag's end joins the word": joining_tokenizer()}


@pytest.fixture(params=TOKENIZERS, ids=str)
def tokenizer(request):
    return TOKENIZERS[request.param]


@pytest.mark.parametrize(("name", "joined"), list(zip(TOKENIZERS, ([], [">No"]), strict=True)))
def test_yes_and_no_begin_with_tokens_of_their_own_which_may_also_end_the_tag(name, joined):
    words = beginnings(TOKENIZERS[name])
    assert words.after["yes"] and words.after["no"] and not set(words.after["yes"]) & set(words.after["no"])
    assert words.joined == {"yes": [], "no": TOKENIZERS[name].convert_tokens_to_ids(joined)}


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("<think>b</think><answer> yes</answer><|im_end|>", "<think>b</think><answer>"),
        ("<answer> no</answer><answer> yes", "<answer>"),
        ("no tag at all<|im_end|>", "no tag at all<answer>"),
        ("<think>b</think><answer>No</answer>", "<think>b</think><answer>"),
        ("<answer>No", "<answer>"),
        ("é<answer>Yes", "é<answer>"),
        ("", "<answer>"),
    ],
)
def test_p_yes_is_read_after_the_first_answer_tag_of_the_models_own_text(tokenizer, completion, kept):
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"] if completion else []
    assert tokenizer.decode(up_to_answer(tokenizer, ids)) == kept


def test_a_line_broken_in_the_token_that_ends_the_tag_stays_broken():
    ids = joining_tokenizer()("<answer>\nyes</answer>", add_special_tokens=False)["input_ids"]
    assert joining_tokenizer().decode(up_to_answer(joining_tokenizer(), ids)) == "<answer>\n"


# Four tokens: 0 ends the tag, 1 ends it and begins "no", 2 begins "yes", 3 begins "no".
WORDS = Beginnings(joined={"yes": [], "no": [1]}, after={"yes": [2], "no": [3]})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [0.2, 0.0, 0.6, 0.2], 0.75),  # nothing is joined: what follows the tag decides
        ([0.2, 0.8, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], 0.2),  # "no" was mostly in the token that ends the tag
        ([0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5], 0.25),
        ([0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], 0.0),
    ],
)
def test_both_ways_of_writing_a_word_count(before, after, expected):
    logits = torch.tensor([[before, after]]).log()
    assert shares_of_yes(logits, torch.tensor([0]), WORDS).item() == pytest.approx(expected)


def test_words_too_unlikely_for_a_float_still_have_a_share():
    logits = torch.zeros(1, 2, 4)
    logits[0, 1] = torch.tensor([0.0, 0.0, -2000.0, -2000.0 - math.log(3)])
    nothing_joined = WORDS._replace(joined={"yes": [], "no": []})
    assert shares_of_yes(logits, torch.tensor([0]), nothing_joined).item() == pytest.approx(0.75, abs=1e-4)


# Answers of a tiny random model


@pytest.fixture(scope="module")
def loaded():
    return generate.load(tiny_profile())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    data, profile = write_data(tmp_path_factory.mktemp("data")), tiny_profile()
    return [pair_images(one, data, profile.data) for one in pair(read_dataset(data, "mvtec_loco"), 0)[:4]]


def forced(loaded, images, token, length):
    """The answer where ``token`` is the most likely next one, whatever came before."""
    hook = loaded[0].lm_head.register_forward_hook(
        lambda module, args, output: output.index_fill(-1, torch.tensor([token]), 1e4)
    )
    try:
        return generate.answer(*loaded, images[:1], length)[0]
    finally:
        hook.remove()


def test_the_size_of_the_batch_changes_nothing(loaded, images):
    assert len({tuple(image.size for image in two) for two in images}) > 1, "prompts must differ in length"
    together = generate.answer(*loaded, images, 12)
    alone = [generate.answer(*loaded, [two], 12)[0] for two in images]
    for name in ("text", "finish", "prompt_tokens", "completion_tokens"):
        assert [getattr(one, name) for one in together] == [getattr(one, name) for one in alone]
    assert [one.p_yes for one in together] == pytest.approx([one.p_yes for one in alone], abs=1e-4)


def test_a_model_that_wants_an_image_token_does_not_get_it(loaded, images):
    text = forced(loaded, images, loaded[1].image_token_id, 8).text
    assert not any(token in text for token in VISION_TOKENS)


@pytest.mark.parametrize(("word", "expected"), [("yes", 1.0), ("no", 0.0)])
def test_p_yes_follows_the_logits_after_the_answer_tag(loaded, images, word, expected):
    completion = forced(loaded, images, beginnings(loaded[1].tokenizer).after[word][0], 2)
    assert completion.p_yes == pytest.approx(expected) and completion.finish == "length"
