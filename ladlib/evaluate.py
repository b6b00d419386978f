"""Evaluation: one greedy answer to every pair of MVTec LOCO AD, one record a pair, kept as it is made.

    evaluate(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), seed=0, arm="base", model="toy-base")

The paper does not say how it decodes or which normal image stands beside a test image. Here decoding is
greedy, the pairing is fixed and committed, and P(yes) is read after the model's own rationale: the two
answers' probabilities after ``<answer>`` (:mod:`ladlib.likelihood`).
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from ladlib import prompts
from ladlib.conversations import view
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import fitted_size, read_size, sha256
from ladlib.data.pairing import pair
from ladlib.likelihood import probabilities_of_yes
from ladlib.models import STOP_TOKENS, PairProcessor, decode, fingerprint, load_model, load_processor
from ladlib.parsing import parse_answer
from ladlib.progress import Progress
from ladlib.runs import RunFolder, append_json, read_jsonl, write_text
from ladlib.schema import Answer, Finish, Generation, Pair
from ladlib.settings import Data, Profile, load_profile


@dataclass(frozen=True)
class Completion:
    """What a model answered to one pair."""

    text: str
    finish: Finish
    p_yes: float
    prompt_tokens: int
    completion_tokens: int  # the end of the turn included


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
    (found,) = answer(judge, processor, [images], profile.evaluate.max_new_tokens)
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
    folder = find_dataset(data_root, "mvtec_loco")
    pairs = pair(read_dataset(data_root, "mvtec_loco"), profile.data.reference_seed)
    pairs = select(pairs, profile.evaluate.limit if limit is None else limit)
    path = run.generations(arm, seed)
    done = _resume(path, _inputs(profile, model), folder, pairs)
    left = [one for one in pairs if one.id not in done]
    if done:
        print(f"{arm}: {len(done)} of {len(pairs)} pairs were judged before")
    if left:
        judge, processor = load(profile, model)
        batches = make_batches(left, folder, profile.data, profile.evaluate.batch_size)
        progress = Progress(arm, "batch", len(batches))
        for number, batch in enumerate(batches, 1):
            for record in _judge(profile, folder, arm, seed, judge, processor, batch):
                append_json(path, record.model_dump(mode="json"))
            progress.tell(number, f"{len(done) + sum(map(len, batches[:number]))} of {len(pairs)} pairs")
    return path


def load(profile: Profile, model: str = "") -> tuple[Qwen2_5_VLForConditionalGeneration, PairProcessor]:
    """The model (the profile's base where "") ready to answer, and its processor."""
    name = model or profile.model.base
    return load_model(name, profile.model).eval(), load_processor(name, profile.data, profile.model.revision)


def select(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most ``limit`` pairs of each category and kind of anomaly, always the same ones; all where 0.

    Chosen by the hash of the test image's id, since the first files of a folder often share a defect.
    """
    if not limit:
        return list(pairs)
    ranked = sorted(pairs, key=lambda one: hashlib.sha256(one.id.encode()).digest())
    taken: dict[tuple[str, str], list[str]] = {}
    for one in ranked:
        ids = taken.setdefault((one.test.category, one.test.anomaly), [])
        if len(ids) < limit:
            ids.append(one.id)
    chosen = {identifier for ids in taken.values() for identifier in ids}
    return [one for one in pairs if one.id in chosen]


def make_batches(pairs: Sequence[Pair], folder: Path, data: Data, size: int) -> list[list[Pair]]:
    """Batches of ``size`` pairs whose images are of like size, so that little is padded."""

    def sizes(one: Pair) -> tuple:
        paths = (folder / one.reference, folder / one.test.image)
        return *(fitted_size(*read_size(path), data.min_pixels, data.max_pixels) for path in paths), one.id

    ordered = sorted(pairs, key=sizes)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def render_prompt(processor: PairProcessor) -> str:
    """The task's prompt in the chat template, each image one placeholder."""
    return prompts.prompt_text(processor, prompts.QUESTION, images=2)


@torch.inference_mode()
def answer(
    model: Qwen2_5_VLForConditionalGeneration, processor: PairProcessor, images: Sequence[Sequence[Image.Image]],
    max_new_tokens: int,
) -> list[Completion]:  # fmt: skip
    """Greedy answers to a batch of (reference image, test image), already resized."""
    texts = [render_prompt(processor)] * len(images)
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
    profile: Profile, folder: Path, arm: str, seed: int, model: Qwen2_5_VLForConditionalGeneration,
    processor: PairProcessor, batch: Sequence[Pair],
) -> Iterator[Generation]:  # fmt: skip
    start, data = time.perf_counter(), profile.data
    files = [[folder / one.reference, folder / one.test.image] for one in batch]
    images = [[view(file, data.min_pixels, data.max_pixels) for file in two] for two in files]
    completions = answer(model, processor, images, profile.evaluate.max_new_tokens)
    seconds = (time.perf_counter() - start) / len(batch)
    prompt_sha256 = hashlib.sha256(render_prompt(processor).encode()).hexdigest()
    for one, two, seen, found in zip(batch, files, images, completions, strict=True):
        yield Generation(
            **one.test.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}), label=one.test.label,
            arm=arm, seed=seed, reference=one.reference, test=one.test.image, text=found.text,
            answer=parse_answer(found.text), p_yes=found.p_yes, prompt_sha256=prompt_sha256,
            images_sha256=tuple(sha256(file) for file in two), pixels=tuple(image.size for image in seen),
            finish=found.finish, prompt_tokens=found.prompt_tokens, completion_tokens=found.completion_tokens,
            seconds=seconds,
        )  # fmt: skip


def _inputs(profile: Profile, model: str) -> dict:
    """All that an answer depends on beside the images."""
    name = model or profile.model.base
    values = {"model": fingerprint(name, profile.model.revision), "question": prompts.QUESTION,
              "max_new_tokens": profile.evaluate.max_new_tokens, "dtype": profile.model.dtype}  # fmt: skip
    return values | profile.data.model_dump(include={"min_pixels", "max_pixels"})


def _resume(path: Path, inputs: dict, folder: Path, pairs: Sequence[Pair]) -> set[str]:
    """The ids of ``pairs`` whose records in ``path`` still hold; ``path`` is left with records that hold.

    Records of another model, prompt or image are removed, and so is a line cut off while being written.
    """
    note = path.with_suffix(".inputs.json")
    if not note.is_file() or json.loads(note.read_text(encoding="utf-8")) != inputs:
        path.unlink(missing_ok=True)
        write_text(note, json.dumps(inputs, indent=2) + "\n")
    rows, known = read_jsonl(path), {one.id: one for one in pairs}
    kept = [row for row in rows if row["id"] not in known or _holds(row, known[row["id"]], folder)]
    if path.is_file():
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return {row["id"] for row in kept} & set(known)


def _holds(row: dict, one: Pair, folder: Path) -> bool:
    if (row["reference"], row["label"]) != (one.reference, one.test.label):
        return False
    return row["images_sha256"] == [sha256(folder / image) for image in (one.reference, one.test.image)]
