"""Evaluation: one greedy answer to every pair of MVTec LOCO AD, one record a pair, kept as it is made.

    evaluate(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), seed=0, arm="base", model="toy-base")

The paper does not say how it decodes or which normal image stands beside a test image. Here decoding is
greedy, the pairing is fixed and committed, and P(yes) is read after the model's own rationale: the two
answers' probabilities after ``<answer>`` (:mod:`ladlib.likelihood`).

Where the profile names several processes (``parallel.processes``), each has a copy of the model on a device of its own
and judges batches as they come; this process alone writes, in the order of the batches, so that the file is the same.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ladlib import decoding, prompts
from ladlib.config import Data, Profile, load_profile
from ladlib.data.images import view, view_size
from ladlib.generations import Completion, Generations
from ladlib.likelihood import probabilities_of_yes
from ladlib.models import STOP_TOKENS, PairProcessor, decode, fingerprint, load_model, load_processor
from ladlib.parsing import parse_answer
from ladlib.processes import count_processes, divided
from ladlib.progress import Progress
from ladlib.records import Answer, Generation, Pair
from ladlib.runs import RunFolder


@dataclass(frozen=True)
class Verdict:
    """What ``ladlib inspect`` says of one pair."""

    answer: Answer | None
    p_yes: float
    text: str
    seconds: float  # loading the model included


def inspect(reference: Path, test: Path, model: str = "", profile: str | Profile = "toy") -> Verdict:
    """Judge one image of any size and format against a normal one. Raises :class:`UserError` for a bad image."""
    start = time.perf_counter()
    profile = load_profile(profile) if isinstance(profile, str) else profile
    images = [view(Path(path), profile.data.min_pixels, profile.data.max_pixels) for path in (reference, test)]
    judge, processor = load(profile, model)
    (found,) = answer(
        judge, processor, [images], profile.evaluate.max_new_tokens, shared_prefix=profile.evaluate.shared_prefix
    )
    return Verdict(parse_answer(found.text), found.p_yes, found.text, time.perf_counter() - start)


def evaluate(
    profile: Profile,
    data_root: Path | str,
    run: RunFolder,
    seed: int,
    *,
    arm: str,
    model: str,
    limit: int | None = None,
) -> Path:
    """Let ``model`` judge the test pairs of MVTec LOCO AD below ``data_root``; the file of its generations.

    ``limit`` test images per category and kind of anomaly (the profile's where None; 0 = all). Records that
    the same model made of the same images before are kept. Raises :class:`UserError` for data or a model
    that is not there.
    """
    inputs, model = model_inputs(profile, model), model or profile.model.base
    kept = Generations.open(profile, data_root, run, seed, arm=arm, inputs=inputs, limit=limit)
    if kept.left:
        left = {one.id for one in kept.left}
        batches = make_batches(kept.pairs, left, kept.folder, profile.data, profile.evaluate.batch_size)
        progress, done = Progress(arm, "batch", len(batches)), len(kept.pairs) - len(left)
        count = count_processes(profile.parallel)
        judged = divided(partial(_make_judge, kept, model), batches, count, ahead=partial(_open, kept))
        for number, records in enumerate(judged, 1):
            for record in records:
                if record.id in left:
                    kept.keep(record)
                    done += 1
            progress.tell(number, f"{done} of {len(kept.pairs)} pairs")
    return kept.path


def load(profile: Profile, model: str = "") -> tuple[Qwen2_5_VLForConditionalGeneration, PairProcessor]:
    """The model (the profile's base where "") ready to answer, and its processor."""
    name = model or profile.model.base
    return load_model(name, profile.model).eval(), load_processor(name, profile.data, profile.model.revision)


def make_batches(pairs: Sequence[Pair], left: Collection[str], folder: Path, data: Data, size: int) -> list[list[Pair]]:
    """Batches of ``size`` pairs whose images are of like size, so that little is padded: those with a pair ``left``.

    Pairs with the same reference image stand together, so that :mod:`ladlib.decoding` reads it once.
    A batch is judged whole, whatever of it is left: a numeric type with few digits lets an answer hang on its
    neighbours in the batch, and it shall not hang on when a run was killed.
    """

    def sizes(one: Pair) -> tuple:
        paths = (folder / one.reference, folder / one.test.image)
        return *(view_size(path, data.min_pixels, data.max_pixels) for path in paths), one.reference, one.id

    ordered = sorted(pairs, key=sizes)
    batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [batch for batch in batches if any(one.id in left for one in batch)]


def render_prompt(processor: PairProcessor, question: str = prompts.QUESTION) -> str:
    """The task's prompt in the chat template, each image one placeholder."""
    return prompts.prompt_text(processor, question, images=2)


@torch.inference_mode()
def answer(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int, question: str = prompts.QUESTION, *, shared_prefix: bool = False,
) -> list[Completion]:  # fmt: skip
    """Greedy answers to a batch of (reference image, test image), already resized.

    By plain ``generate``, or, with the same texts, by :mod:`ladlib.decoding` where ``shared_prefix``.
    """
    if shared_prefix:
        return decoding.answer(model, processor, images, max_new_tokens, question)
    texts = [render_prompt(processor, question)] * len(images)
    inputs = processor(text=texts, images=[list(two) for two in images], padding=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    output = model.generate(**inputs, max_new_tokens=max_new_tokens)
    rows = [_own_tokens(processor.tokenizer, ids) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]
    decoded = [decode(processor.tokenizer, row) for row in rows]
    yes = probabilities_of_yes(model, processor, inputs, rows)
    prompts_ = inputs["attention_mask"].sum(dim=1).tolist()
    return [
        Completion(text, finish, p, prompt, len(row))
        for (text, finish), p, prompt, row in zip(decoded, yes, prompts_, rows, strict=True)
    ]


def _own_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """A row of the batch without the padding after its end of turn."""
    stops = tokenizer.convert_tokens_to_ids(list(STOP_TOKENS))
    end = next((place for place, token in enumerate(ids) if token in stops), len(ids) - 1)
    return ids[: end + 1]


def _judge(
    kept: Generations, model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, batch: Sequence[Pair]
) -> list[Generation]:
    start, prompt = time.perf_counter(), render_prompt(processor)
    images = _open(kept, batch)
    settings = kept.profile.evaluate
    completions = answer(model, processor, images, settings.max_new_tokens, shared_prefix=settings.shared_prefix)
    seconds = (time.perf_counter() - start) / len(batch)
    return [
        kept.record(one, seen, prompt, found, seconds)
        for one, seen, found in zip(batch, images, completions, strict=True)
    ]


def _open(kept: Generations, batch: Sequence[Pair]) -> list[list[Image.Image]]:
    """What a batch shows; opened once, it lies ready (:func:`ladlib.data.images.view`)."""
    return [kept.views(one) for one in batch]


def _make_judge(kept: Generations, model: str) -> Callable[[Sequence[Pair]], list[Generation]]:
    """What makes the records of a batch, with the model loaded."""
    return partial(_judge, kept, *load(kept.profile, model))


def model_inputs(profile: Profile, model: str) -> dict:
    """What an answer depends on beside the prompt and the images."""
    name = model or profile.model.base
    return {"model": fingerprint(name, profile.model.revision), "dtype": profile.model.dtype}
