"""P(yes) against P(no) after a completion's ``<answer>``, from logits.

A tokenizer may end the tag and begin the word with one token: Qwen2.5's writes "<answer>No" as "<", "answer", ">No",
but "<answer>Yes" as "<", "answer", ">", "Yes". So both ways of writing a word count: in the token that ends the tag,
and in the token after it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from ladlib.families import STOP_TOKENS
from ladlib.models import decode
from ladlib.prompts import ANSWER_OPENING
from ladlib.records import Answer

FORMS: dict[Answer, tuple[str, ...]] = {"yes": ("yes", " yes", "Yes", " Yes"), "no": ("no", " no", "No", " No")}


class Beginnings(NamedTuple):
    """The tokens that an answer can begin with, without those that begin both answers (a lone space)."""

    joined: dict[Answer, list[int]]  # these also end the tag
    after: dict[Answer, list[int]]  # these follow a tag that has ended


def shares_of_yes(logits: torch.Tensor, endings: torch.Tensor, words: Beginnings) -> torch.Tensor:
    """P(yes) / (P(yes) + P(no)) of a batch, ``[batch]``.

    ``logits`` are ``[batch, 2, vocabulary]``: for the token that ends the tag, and for the one after it. ``endings``,
    ``[batch]``, are the tokens that do end it. In logarithms, since both words may be too unlikely for a float.
    """
    tag, word = logits.double().log_softmax(dim=-1).unbind(dim=1)
    ended = tag.gather(1, endings[:, None]).squeeze(1)
    yes, no = (
        torch.logaddexp(ended + word[:, words.after[one]].logsumexp(-1), tag[:, words.joined[one]].logsumexp(-1))
        for one in ("yes", "no")
    )
    return (yes - no).sigmoid()


def beginnings(tokenizer: PreTrainedTokenizerBase) -> Beginnings:
    """What ``yes`` and ``no`` begin with in this tokenizer, found by writing them."""
    tag, joined, after = token_ids(tokenizer, ANSWER_OPENING), {}, {}
    for word, forms in FORMS.items():
        joined[word] = {token_ids(tokenizer, ANSWER_OPENING + form)[len(tag) - 1] for form in forms} - {tag[-1]}
        after[word] = {token_ids(tokenizer, form)[0] for form in forms}
    return Beginnings(
        *({word: sorted(ids[word] - (ids["yes"] & ids["no"])) for word in FORMS} for ids in (joined, after))
    )


def up_to_answer(tokenizer: PreTrainedTokenizerBase, row: list[int]) -> list[int]:
    """The tokens of a completion up to the end of its first ``<answer>``, found by decoding.

    A tag may be one token or several. White space in the token that ends it stays, a word in that token goes.
    """
    if ANSWER_OPENING not in decode(tokenizer, row)[0]:
        stops = tokenizer.convert_tokens_to_ids(list(STOP_TOKENS))
        return [token for token in row if token not in stops] + token_ids(tokenizer, ANSWER_OPENING)
    last = bisect_left(range(len(row)), True, key=lambda end: ANSWER_OPENING in decode(tokenizer, row[: end + 1])[0])
    head, _, rest = decode(tokenizer, row[: last + 1])[0].partition(ANSWER_OPENING)
    if not rest.strip():
        return row[: last + 1]
    before = len(decode(tokenizer, row[:last])[0])
    return row[:last] + token_ids(tokenizer, (head + ANSWER_OPENING)[before:])


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of ``text`` alone."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def up_to_stop(row: Sequence[int], stops: Sequence[int]) -> list[int]:
    """A row without what was written after its end of turn."""
    end = next((index for index, token in enumerate(row) if token in stops), len(row) - 1)
    return list(row[: end + 1])
