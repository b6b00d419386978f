"""P(yes): how likely a model holds the two answers, read after its own rationale and ``<answer>``.

    probabilities_of_yes(model, processor, inputs, rows)    # [0.83, 0.12]

A tokenizer may end the tag and begin the word with one token: Qwen2.5's writes "<answer>No" as "<", "answer",
">No", but "<answer>Yes" as "<", "answer", ">", "Yes". Read only after a lone ">", a capital "No" would never
be seen, and once the model has written it the words would be read behind its own answer. So both ways of
writing a word count: in the token that ends the tag, and in the token after it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ladlib.models import STOP_TOKENS, PairProcessor, decode
from ladlib.prompts import ANSWER_OPENING, QUESTION, prompt_text
from ladlib.records import Answer

FORMS: dict[Answer, tuple[str, ...]] = {"yes": ("yes", " yes", "Yes", " Yes"), "no": ("no", " no", "No", " No")}


class Beginnings(NamedTuple):
    """The tokens that an answer can begin with, those left out that begin both (a lone space)."""

    joined: dict[Answer, list[int]]  # these also end the tag
    after: dict[Answer, list[int]]  # these follow a tag that has ended


@torch.inference_mode()
def probabilities_of_yes(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, inputs: BatchFeature, rows: Sequence[list[int]]
) -> list[float]:
    """P(yes) / (P(yes) + P(no)) for the word that follows each completion's first ``<answer>``, 0..1.

    ``inputs`` are the processor's, one prompt a row; ``rows`` the completions' tokens. Where a completion has
    no ``<answer>``, it is put after all of it.
    """
    tokenizer = processor.tokenizer
    openings = [up_to_answer(tokenizer, row) for row in rows]
    logits, ids = _read_on(model, processor, inputs, openings, keep=2)
    return shares_of_yes(logits, ids[:, -1], beginnings(tokenizer)).tolist()


@torch.inference_mode()
def token_log_probabilities(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, images: Sequence[Image.Image],
    texts: Sequence[str],
) -> list[list[tuple[str, float]]]:  # fmt: skip
    """The tokens of completions to one pair of ``images``, each with log pi(token | all before it), in nats.

    The task's own prompt. A text is cut into tokens anew, which need not be those it was sampled as; the end of the
    turn is left out.
    """
    prompt = prompt_text(processor, QUESTION, images=len(images))
    inputs = processor(text=[prompt] * len(texts), images=[list(images)] * len(texts), return_tensors="pt")
    rows = [_ids(processor.tokenizer, text) for text in texts]
    longest = max(map(len, rows), default=0)
    logits, ids = _read_on(model, processor, inputs.to(model.device), rows, keep=longest + 1)
    logs = logits[:, :-1].float().log_softmax(dim=-1).gather(2, ids[:, ids.shape[1] - longest :, None]).squeeze(2)
    return [
        [
            (processor.tokenizer.decode([token]), value)
            for token, value in zip(row, line[longest - len(row) :], strict=True)
        ]
        for row, line in zip(rows, logs.tolist(), strict=True)
    ]


def _read_on(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, inputs: BatchFeature,
    rows: Sequence[list[int]], keep: int,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The last ``keep`` places' logits of each prompt with its row of tokens behind it, and the padded tokens."""
    prompts = zip(inputs["input_ids"], inputs["attention_mask"], rows, strict=True)
    sequences = [ids[mask.bool()].tolist() + row for ids, mask, row in prompts]
    padded = processor.tokenizer.pad({"input_ids": sequences}, padding_side="left", return_tensors="pt").to(
        model.device
    )
    kinds = (padded["input_ids"] == processor.image_token_id).int()
    pictures = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    found = model(**padded, **pictures, mm_token_type_ids=kinds, use_cache=False, logits_to_keep=keep)
    return found.logits, padded["input_ids"]


def shares_of_yes(logits: torch.Tensor, endings: torch.Tensor, words: Beginnings) -> torch.Tensor:
    """P(yes) / (P(yes) + P(no)) of a batch, ``[batch]``.

    ``logits`` are ``[batch, 2, vocabulary]``: for the token that ends the tag, and for the one after it.
    ``endings``, ``[batch]``, are the tokens that do end it. Computed in logarithms, since both words may be
    too unlikely for a float.
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
    tag = _ids(tokenizer, ANSWER_OPENING)
    after = {word: {_ids(tokenizer, form)[0] for form in forms} for word, forms in FORMS.items()}
    joined = {word: _joined(tokenizer, tag, forms) for word, forms in FORMS.items()}
    return Beginnings(_own(joined), _own(after))


def up_to_answer(tokenizer: PreTrainedTokenizerBase, row: list[int]) -> list[int]:
    """The tokens of a completion up to the end of its first ``<answer>``, found by decoding.

    A tag may be one token or several. White space in the token that ends it stays, a word in that token goes.
    """
    if ANSWER_OPENING not in decode(tokenizer, row)[0]:
        stops = tokenizer.convert_tokens_to_ids(list(STOP_TOKENS))
        return [token for token in row if token not in stops] + _ids(tokenizer, ANSWER_OPENING)
    last = bisect_left(range(len(row)), True, key=lambda end: ANSWER_OPENING in decode(tokenizer, row[: end + 1])[0])
    count = last + 1
    text = decode(tokenizer, row[:count])[0]
    head, _, rest = text.partition(ANSWER_OPENING)
    if not rest.strip():
        return row[:count]
    before = len(decode(tokenizer, row[: count - 1])[0])
    return row[: count - 1] + _ids(tokenizer, (head + ANSWER_OPENING)[before:])


def _joined(tokenizer: PreTrainedTokenizerBase, tag: list[int], forms: Sequence[str]) -> set[int]:
    """The tokens in place of the tag's last one where a form follows it directly."""
    written = [_ids(tokenizer, ANSWER_OPENING + form)[len(tag) - 1] for form in forms]
    return set(written) - {tag[-1]}


def _own(found: dict[Answer, set[int]]) -> dict[Answer, list[int]]:
    shared = found["yes"] & found["no"]
    return {word: sorted(tokens - shared) for word, tokens in found.items()}


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
