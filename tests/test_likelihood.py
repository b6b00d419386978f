"""P(yes): where it is read, and which tokens count as an answer's beginning."""

import math

import pytest
import torch
from tiny import tiny_processor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ladlib import prompts
from ladlib.families import STOP_TOKENS
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


def shares(before: list[float], after: list[float], ending: int, words: Beginnings) -> float:
    """P(yes) of one row, from the chances of the token that ends the tag and of the one after it."""
    logits = torch.tensor([[before, after]]).log()
    return shares_of_yes(logits, torch.tensor([ending]), words).item()


def test_yes_and_no_are_told_apart_by_the_tokens_they_begin_with(tokenizer):
    words = beginnings(tokenizer)
    assert words.after["yes"] and words.after["no"]
    assert not set(words.after["yes"]) & set(words.after["no"])


def test_a_word_may_begin_in_the_token_that_ends_the_tag():
    tokenizer = joining_tokenizer()
    assert beginnings(tokenizer).joined == {"yes": [], "no": [tokenizer.convert_tokens_to_ids(">No")]}
    assert beginnings(tiny_processor().tokenizer).joined == {"yes": [], "no": []}


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
    assert prompts.ANSWER_OPENING == "<answer>"


def test_a_line_broken_in_the_token_that_ends_the_tag_stays_broken():
    tokenizer = joining_tokenizer()
    ids = tokenizer("<answer>\nyes</answer>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(up_to_answer(tokenizer, ids)) == "<answer>\n"


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
    assert shares(before, after, 0, WORDS) == pytest.approx(expected)


def test_words_too_unlikely_for_a_float_still_have_a_share():
    logits = torch.zeros(1, 2, 4)
    logits[0, 1] = torch.tensor([0.0, 0.0, -2000.0, -2000.0 - math.log(3)])
    nothing_joined = WORDS._replace(joined={"yes": [], "no": []})
    assert shares_of_yes(logits, torch.tensor([0]), nothing_joined).item() == pytest.approx(0.75, abs=1e-4)
