"""A model's answers to questions about pairs, and to the task's own prompt."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib.config import Profile
from ladlib.data.pairing import pair_images
from ladlib.evaluate import Completion, answer
from ladlib.models import PairProcessor, decode
from ladlib.prompts import prompt_text
from ladlib.records import Conversation, Pair


def ask(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, conversations: Sequence[Conversation],
    root: Path | str, profile: Profile,
) -> list[str]:  # fmt: skip
    """Greedy answers to the conversations' questions, each up to the end of its turn."""
    size = profile.evaluate.batch_size
    batches = [conversations[start : start + size] for start in range(0, len(conversations), size)]
    return [text for batch in batches for text in _answers(model, processor, batch, root, profile)]


def judge(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, pairs: Sequence[Pair], root: Path | str,
    profile: Profile,
) -> list[Completion]:  # fmt: skip
    """Greedy completions of the task's own prompt on ``pairs`` of any dataset; [] where none are given."""
    if not pairs:
        return []
    images = [pair_images(one, root, profile.data) for one in pairs]
    settings = profile.evaluate
    return answer(model, processor, images, settings.max_new_tokens, shared_prefix=settings.shared_prefix)


@torch.inference_mode()
def _answers(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, batch: Sequence[Conversation],
    root: Path | str, profile: Profile,
) -> list[str]:  # fmt: skip
    texts = [prompt_text(processor, one.question, images=2) for one in batch]
    images = [pair_images(one.pair, root, profile.data) for one in batch]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt").to(model.device)
    tokens = model.generate(**inputs, max_new_tokens=profile.evaluate.max_new_tokens)
    return [decode(processor.tokenizer, row)[0] for row in tokens[:, inputs["input_ids"].shape[1] :].tolist()]
