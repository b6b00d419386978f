"""Greedy answers and P(yes) for a batch of pairs, by plain ``generate``.

    model, processor = load(load_profile("toy"))
    answer(model, processor, [[reference, test]], max_new_tokens=160)[0].p_yes

P(yes) is read after the model's own rationale and ``<answer>``. A tokenizer may end the tag and begin the word with
one token: Qwen2.5's writes "<answer>No" as "<", "answer", ">No", but "<answer>Yes" as "<", "answer", ">", "Yes". So
both ways of writing a word count: in the token that ends the tag, and in the token after it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ladlib.config import Profile
from ladlib.data.pairing import pair_images
from ladlib.families import STOP_TOKENS
from ladlib.models import PairProcessor, decode, load_model, load_processor
from ladlib.prompts import ANSWER_OPENING, QUESTION, prompt_text
from ladlib.records import Answer, Completion, Conversation

Model = Qwen2_5_VLForConditionalGeneration
Images = Sequence[Image.Image]  # reference and test image, already resized
FORMS: dict[Answer, tuple[str, ...]] = {"yes": ("yes", " yes", "Yes", " Yes"), "no": ("no", " no", "No", " No")}


def load(profile: Profile, model: str = "") -> tuple[Model, PairProcessor]:
    """The model (the profile's base where "") ready to answer, and its processor."""
    name = model or profile.model.base
    return load_model(name, profile.model).eval(), load_processor(name, profile.data)


def render_prompt(processor: PairProcessor, question: str = QUESTION) -> str:
    """The task's prompt in the chat template, each image one placeholder."""
    return prompt_text(processor, question, images=2)


@torch.inference_mode()
def answer(
    model: Model, processor: PairProcessor, images: Sequence[Images], max_new_tokens: int, question: str = QUESTION
) -> list[Completion]:
    """Greedy answers to a batch. :func:`ladlib.fast.decode.answer` gives the same texts faster."""
    questions = [question] * len(images)
    inputs, rows = _generate(model, processor, questions, images, max_new_tokens=max_new_tokens)
    stops = processor.tokenizer.convert_tokens_to_ids(list(STOP_TOKENS))
    rows = [up_to_stop(row, stops) for row in rows]
    shares = _probabilities_of_yes(model, processor, inputs, rows)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    return [
        Completion(*decode(processor.tokenizer, row), p_yes, length, len(row))
        for row, p_yes, length in zip(rows, shares, lengths, strict=True)
    ]


def answer_questions(
    model: Model, processor: PairProcessor, conversations: Sequence[Conversation], root: Path | str, profile: Profile
) -> list[str]:
    """Greedy answers to the conversations' own questions, each up to the end of its turn."""
    texts, size = [], profile.evaluate.batch_size
    for start in range(0, len(conversations), size):
        batch = conversations[start : start + size]
        images = [pair_images(conversation.pair, root, profile.data) for conversation in batch]
        questions = [conversation.question for conversation in batch]
        _, rows = _generate(model, processor, questions, images, max_new_tokens=profile.model.max_new_tokens)
        texts += [decode(processor.tokenizer, row)[0] for row in rows]
    return texts


def sample_texts(model: Model, processor: PairProcessor, images: Sequence[Images], profile: Profile) -> list[list[str]]:
    """``grpo.group_size`` texts for each pair, drawn as GRPO draws them: same temperature, length, banned tokens."""
    size = profile.grpo.group_size
    _, rows = _generate(
        model, processor, [QUESTION] * len(images), images, do_sample=True, top_p=1.0, top_k=0,
        num_return_sequences=size, temperature=profile.grpo.temperature, max_new_tokens=profile.model.max_new_tokens,
    )  # fmt: skip
    texts = [decode(processor.tokenizer, row)[0] for row in rows]
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def _generate(
    model: Model, processor: PairProcessor, questions: Sequence[str], images: Sequence[Images], **settings: object
) -> tuple[BatchFeature, list[list[int]]]:
    """The processor's inputs, and the tokens written after each, with what pads them."""
    texts = [render_prompt(processor, question) for question in questions]
    inputs = processor(text=texts, images=[list(two) for two in images], padding=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    return inputs, model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :].tolist()


# P(yes)


def _probabilities_of_yes(
    model: Model, processor: PairProcessor, inputs: BatchFeature, rows: Sequence[list[int]]
) -> list[float]:
    """P(yes) after each prompt of ``inputs`` with its row of written tokens behind it, up to its ``<answer>``."""
    openings = [up_to_answer(processor.tokenizer, row) for row in rows]
    prompts = zip(inputs["input_ids"], inputs["attention_mask"], openings, strict=True)
    sequences = [ids[mask.bool()].tolist() + opening for ids, mask, opening in prompts]
    padded = processor.tokenizer.pad({"input_ids": sequences}, padding_side="left", return_tensors="pt")
    padded = padded.to(model.device)
    ids, pixels = padded["input_ids"], {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    kinds = (ids == processor.image_token_id).int()
    output = model(**padded, **pixels, mm_token_type_ids=kinds, use_cache=False, logits_to_keep=2)
    return shares_of_yes(output.logits, ids[:, -1], beginnings(processor.tokenizer)).tolist()


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
        torch.logaddexp(ended + word[:, words.after[name]].logsumexp(-1), tag[:, words.joined[name]].logsumexp(-1))
        for name in ("yes", "no")
    )
    return (yes - no).sigmoid()


def beginnings(tokenizer: PreTrainedTokenizerBase) -> Beginnings:
    """What ``yes`` and ``no`` begin with in this tokenizer, found by writing them."""
    tag, joined, after = token_ids(tokenizer, ANSWER_OPENING), {}, {}
    for word, forms in FORMS.items():
        joined[word] = {token_ids(tokenizer, ANSWER_OPENING + form)[len(tag) - 1] for form in forms} - {tag[-1]}
        after[word] = {token_ids(tokenizer, form)[0] for form in forms}
    return Beginnings(_distinct(joined), _distinct(after))


def _distinct(ids: dict[Answer, set[int]]) -> dict[Answer, list[int]]:
    both = ids["yes"] & ids["no"]
    return {word: sorted(ids[word] - both) for word in ids}


def up_to_answer(tokenizer: PreTrainedTokenizerBase, row: list[int]) -> list[int]:
    """The tokens of a completion up to the end of its first ``<answer>``, which is added where there is none.

    White space in the token that ends the tag stays, a word in that token goes.
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
