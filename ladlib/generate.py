"""Greedy answers and P(yes) for a batch of pairs, by plain ``generate``.

    model, processor = load(load_profile("toy"))
    answer(model, processor, [[reference, test]], max_new_tokens=160)[0].p_yes

P(yes) is read after the model's own rationale and ``<answer>`` (:mod:`ladlib.likelihood`).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import BatchFeature, Qwen2_5_VLForConditionalGeneration

from ladlib.config import Profile
from ladlib.data.pairing import pair_images
from ladlib.families import STOP_TOKENS
from ladlib.likelihood import beginnings, shares_of_yes, token_ids, up_to_answer, up_to_stop
from ladlib.models import PairProcessor, decode, load_model, load_processor
from ladlib.prompts import QUESTION, prompt_text
from ladlib.records import Completion, Conversation, Pair

Model = Qwen2_5_VLForConditionalGeneration
Images = Sequence[Image.Image]  # reference and test image, already resized


def load(profile: Profile, model: str = "") -> tuple[Model, PairProcessor]:
    """The model (the profile's base where "") ready to answer, and its processor."""
    name = model or profile.model.base
    return load_model(name, profile.model).eval(), load_processor(name, profile.data)


def render_prompt(processor: PairProcessor, question: str = QUESTION) -> str:
    """The task's prompt in the chat template, each image one placeholder."""
    return prompt_text(processor, question, images=2)


@torch.inference_mode()
def answer(
    model: Model, processor: PairProcessor, images: Sequence[Images], max_new_tokens: int, question: str = QUESTION, *,
    shared_prefix: bool = False,
) -> list[Completion]:  # fmt: skip
    """Greedy answers to a batch; by :mod:`ladlib.fast.decode`, with the same texts, where ``shared_prefix``."""
    if shared_prefix:
        from ladlib.fast import decode as fast

        return fast.answer(model, processor, images, max_new_tokens, question)
    questions = [question] * len(images)
    inputs, rows = _generate(model, processor, questions, images, max_new_tokens=max_new_tokens)
    stops = processor.tokenizer.convert_tokens_to_ids(list(STOP_TOKENS))
    rows = [up_to_stop(row, stops) for row in rows]
    shares = probabilities_of_yes(model, processor, inputs, rows)
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
        images = [pair_images(one.pair, root, profile.data) for one in batch]
        questions = [one.question for one in batch]
        _, rows = _generate(model, processor, questions, images, max_new_tokens=profile.model.max_new_tokens)
        texts += [decode(processor.tokenizer, row)[0] for row in rows]
    return texts


def answer_pairs(
    model: Model, processor: PairProcessor, pairs: Sequence[Pair], root: Path | str, profile: Profile
) -> list[Completion]:
    """Greedy answers to the question of the task about ``pairs`` of any dataset, in one batch."""
    images, settings = [pair_images(pair, root, profile.data) for pair in pairs], profile.model
    return (
        answer(model, processor, images, settings.max_new_tokens, shared_prefix=settings.shared_prefix) if pairs else []
    )


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


def probabilities_of_yes(
    model: Model, processor: PairProcessor, inputs: BatchFeature, rows: Sequence[list[int]]
) -> list[float]:
    """P(yes) / (P(yes) + P(no)) for the word that follows each completion's first ``<answer>``, 0..1.

    ``inputs`` are the processor's, one prompt a row; ``rows`` the completions' tokens. Where a completion has
    no ``<answer>``, it is put after all of it.
    """
    openings = [up_to_answer(processor.tokenizer, row) for row in rows]
    logits, ids = _read_on(model, processor, inputs, openings, keep=2)
    return shares_of_yes(logits, ids[:, -1], beginnings(processor.tokenizer)).tolist()


@torch.inference_mode()
def token_log_probabilities(
    model: Model, processor: PairProcessor, images: Images, texts: Sequence[str]
) -> list[list[tuple[str, float]]]:
    """The tokens of completions to one pair of ``images``, each with log pi(token | all before it), in nats.

    A text is cut into tokens anew, which need not be those it was sampled as; the end of the turn is left out.
    """
    prompts = [render_prompt(processor)] * len(texts)
    inputs = processor(text=prompts, images=[list(images)] * len(texts), return_tensors="pt").to(model.device)
    rows = [token_ids(processor.tokenizer, text) for text in texts]
    longest = max(map(len, rows), default=0)
    logits, ids = _read_on(model, processor, inputs, rows, keep=longest + 1)
    logs = logits[:, :-1].float().log_softmax(dim=-1).gather(2, ids[:, ids.shape[1] - longest :, None]).squeeze(2)
    names = [[processor.tokenizer.decode([token]) for token in row] for row in rows]
    return [
        list(zip(row, line[longest - len(row) :], strict=True)) for row, line in zip(names, logs.tolist(), strict=True)
    ]


def _read_on(
    model: Model, processor: PairProcessor, inputs: BatchFeature, rows: Sequence[list[int]], keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last ``keep`` positions' logits of each prompt with its row of tokens behind it, and the padded tokens."""
    prompts = zip(inputs["input_ids"], inputs["attention_mask"], rows, strict=True)
    sequences = [ids[mask.bool()].tolist() + row for ids, mask, row in prompts]
    padded = processor.tokenizer.pad({"input_ids": sequences}, padding_side="left", return_tensors="pt")
    padded = padded.to(model.device)
    kinds = (padded["input_ids"] == processor.image_token_id).int()
    pixels = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    output = model(**padded, **pixels, mm_token_type_ids=kinds, use_cache=False, logits_to_keep=keep)
    return output.logits, padded["input_ids"]
