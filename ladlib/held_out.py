"""What stage 1 changes: questions that it was not trained on, asked before and after.

asked = held_out(profile, Path("data"), seed=0, per_kind=4)
model, processor = evaluate.load(profile)
texts = ask(model, processor, asked, Path("data"), profile)
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib.config import Profile
from ladlib.conversations import make_conversations, pair_images
from ladlib.evaluate import Completion, answer
from ladlib.models import PairProcessor, decode
from ladlib.prompts import prompt_text
from ladlib.records import Conversation, Pair

EVERYTHING = 10**9  # conversations: more than can be made


def held_out(profile: Profile, root: Path | str, seed: int, per_kind: int) -> list[Conversation]:
    """At most ``per_kind`` conversations of each type about test images that stage 1 with ``seed`` never sees.

    They are the template's, whatever stage 1 is trained on. Empty where its data hold a conversation about every
    image.
    """
    data = profile.data.model_copy(update={"sft_samples": EVERYTHING, "sft_file": None})
    everything = make_conversations(profile.model_copy(update={"data": data}), root, seed)
    trained = {one.pair.id for one in make_conversations(profile, root, seed)}
    kinds: dict[str, list[Conversation]] = {}
    for one in everything:
        if one.pair.id not in trained:
            kinds.setdefault(one.kind, []).append(one)
    return [one for kind in sorted(kinds) for one in kinds[kind][:per_kind]]


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
