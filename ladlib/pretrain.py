"""Make a toy model from nothing: a small Qwen2.5-VL that can describe, count, compare and keep a format.

    ladlib pretrain base

Everything is drawn from seeds, step by step, so a run that was stopped goes on as if it had not been.
Departures from how a real base model comes about: no web text, no natural images; a curriculum from
single images to pairs; and the loss on the tokens that carry a judgement weighs more, since a mean
over all tokens hides them (a verdict is one token in sixty). And each image token is also asked to name
what it shows, which lets the vision tower learn from every cell of every image.
"""

import json
import math
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ladlib.models import PairProcessor, count_parameters, generation_config, make_processor
from ladlib.prompts import prompt_text
from ladlib.runs import append_json, read_jsonl, write_text
from ladlib.score_sheet import score_sheet
from ladlib.toy.lessons import Lesson, draw_lesson
from ladlib.toy.scenes import Scene, render
from ladlib.toy.tokens import CHAT_TEMPLATE, train_tokenizer

PIXELS = (12 * 784, 20 * 784)  # the band of the toy profile: 12 to 20 visual tokens an image
DECISIVE = 5.0  # weight of the tokens that carry a judgement
SORTED = 4  # batches drawn together and sorted by length
SCORED = 96  # held-out lessons of each kind on the score sheet
SAVE_EVERY = 250
LOG_EVERY = 25


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum: until which step, how many parts at most, which lessons how often.

    ``shown`` is the weight of naming what each image token shows, beside the loss on the answers.
    """

    until: int
    most: int
    shown: float
    lessons: dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """All that makes a toy model, beside the code."""

    hidden: int
    layers: int
    heads: int
    vision_hidden: int
    vision_layers: int
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    decay: int  # the last steps, over which the learning rate falls to zero
    phases: tuple[Phase, ...]
    seed: int = 0

    def phase(self, step: int) -> Phase:
        """The part of the curriculum that ``step`` belongs to."""
        return next(phase for phase in self.phases if step < phase.until)


SINGLE = {"at": 4, "list": 5, "count": 1}
PAIRS = {
    "at": 1,
    "list": 3,
    "list_of_pair": 2,
    "count": 1,
    "tally": 2,
    "compare_at": 4,
    "compare_places": 2,
    "compare_kinds": 1,
}
ALL = {
    "list": 2, "list_of_pair": 1, "at": 1, "compare_at": 1, "count": 1, "tally": 2, "compare_places": 2,
    "compare_kinds": 3, "present": 2, "judge_places": 4, "judge_kinds": 4, "judge_open": 5,
}  # fmt: skip

BASE = Recipe(
    hidden=192, layers=4, heads=4, vision_hidden=128, vision_layers=2, steps=4000, batch=32, learning_rate=1.2e-3,
    warmup=200, decay=800,
phases=(Phase(1000, 7, 5.0, SINGLE), Phase(2000, 9, 2.0, PAIRS), Phase(4000, 12, 1.0, ALL)),
)  # fmt: skip
RECIPES = {"base": BASE}


def make_config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's architecture in small: patch 14, merge 2, M-RoPE, full attention in the vision tower.

    M-RoPE hands the highest frequencies to time, then height, and the lowest to width. In a head of 48 an
    even division leaves width with none that turns by 0.01 rad from one cell to the next, and a model that
    small never learned which column it looks at; so time gets one, height three, and width the rest.
    """
    token = tokenizer.convert_tokens_to_ids
    head = recipe.hidden // recipe.heads
    text = dict(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64, hidden_size=recipe.hidden, intermediate_size=recipe.hidden * 3,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads // 2,
        max_position_embeddings=4096, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 3, head // 2 - 4]},
        bos_token_id=token("<|endoftext|>"), eos_token_id=token("<|im_end|>"), pad_token_id=token("<|endoftext|>"),
    )  # fmt: skip
    vision = dict(
        depth=recipe.vision_layers, hidden_size=recipe.vision_hidden, intermediate_size=recipe.vision_hidden * 3,
        num_heads=4, out_hidden_size=recipe.hidden, patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
        window_size=112, fullatt_block_indexes=list(range(recipe.vision_layers)),
    )  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True,
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"), vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip


def make_toy_processor(seed: int = 0) -> PairProcessor:
    """The toy tokenizer, trained anew (seconds), in the processor of the toy profile."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(seed=seed), eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    return make_processor(tokenizer, *PIXELS)


def make_model(recipe: Recipe, processor: PairProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """A model with random weights drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    model = Qwen2_5_VLForConditionalGeneration(make_config(recipe, processor.tokenizer))
    model.generation_config = generation_config(model, processor.tokenizer)
    return model


class LessonBatches(Dataset):
    """Batch number ``step``, the same whenever it is asked for.

    Lessons are drawn for ``SORTED`` batches at once and sorted by length, so that little is padded.
    """

    def __init__(self, recipe: Recipe, processor: PairProcessor) -> None:
        self.recipe, self.processor = recipe, processor

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> "Batch":
        first = step - step % SORTED
        rng = random.Random(f"{self.recipe.seed}:{first}")
        phase = self.recipe.phase(first)
        kinds = rng.choices(list(phase.lessons), list(phase.lessons.values()), k=self.recipe.batch * SORTED)
        lessons = sorted((draw_lesson(kind, rng, phase.most) for kind in kinds), key=_length)
        turns = rng.sample(range(SORTED), SORTED)  # short and long batches in random order
        begin = turns[step - first] * self.recipe.batch
        return collate(self.processor, lessons[begin : begin + self.recipe.batch], random.Random(f"{step}"))


@dataclass(frozen=True)
class Batch:
    """Lessons as tensors: model inputs; labels and weights (batch, length); what each image token shows.

    ``shown`` is (image tokens of the batch in order, 3): the tokens of place, colour and shape.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor  # -100 outside the answers
    weights: torch.Tensor
    shown: torch.Tensor

    def to(self, device: str) -> "Batch":
        inputs = {key: value.to(device) for key, value in self.inputs.items()}
        return Batch(inputs, self.labels.to(device), self.weights.to(device), self.shown.to(device))


def _length(lesson: Lesson) -> int:
    cells = sum(scene.rows * scene.cols for scene in lesson.scenes)
    return cells + len(lesson.question.split()) + sum(len(text.split()) for text, _ in lesson.answer)


def collate(processor: PairProcessor, lessons: list[Lesson], rng: random.Random) -> Batch:
    """Photograph the lessons' scenes and lay questions and answers out as one padded batch."""
    images = [[render(scene, rng) for scene in lesson.scenes] for lesson in lessons]
    texts = [prompt_text(processor, lesson.question, len(lesson.scenes)) for lesson in lessons]
    inputs = processor(text=texts, images=images, return_tensors=None)
    answers = [_answer_tokens(processor, lesson) for lesson in lessons]
    rows = list(zip(inputs["input_ids"], answers, strict=True))
    longest = max(len(prompt) + len(tokens) for prompt, (tokens, _) in rows)
    length = math.ceil(longest / 16) * 16  # few different shapes: each new one costs a kernel its set-up
    ids = torch.full((len(rows), length), processor.tokenizer.pad_token_id)
    labels, weights, attention = torch.full_like(ids, -100), torch.zeros(len(rows), length), torch.zeros_like(ids)
    for row, (prompt, (tokens, weight)) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(tokens)
        ids[row, :end] = torch.tensor(prompt + tokens)
        attention[row, :end] = 1
        labels[row, start:end], weights[row, start:end] = torch.tensor(tokens), torch.tensor(weight)
    batch = {
        "input_ids": ids,
        "attention_mask": attention,
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
        "pixel_values": torch.as_tensor(inputs["pixel_values"]),
        "image_grid_thw": torch.as_tensor(inputs["image_grid_thw"]),
    }
    shown = [row for lesson in lessons for scene in lesson.scenes for row in _shown(processor, scene)]
    return Batch(batch, labels, weights, torch.tensor(shown))


def _shown(processor: PairProcessor, scene: Scene) -> list[list[int]]:
    """The tokens of place, colour and shape for each cell of ``scene``, which is one image token each."""
    at = scene.at()
    words = []
    for place in scene.places():
        part = at.get(place)
        words.append([place, part.colour if part else "none", part.shape if part else "none"])
    return [processor.tokenizer.convert_tokens_to_ids([f"\u0120{word}" for word in row]) for row in words]


def _answer_tokens(processor: PairProcessor, lesson: Lesson) -> tuple[list[int], list[float]]:
    tokens, weights = [], []
    for text, decisive in [*lesson.answer, ("<|im_end|>", False)]:
        piece = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += piece
        weights += [DECISIVE if decisive else 1.0] * len(piece)
    return tokens, weights


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm-up, a plateau, and a linear fall to zero (warmup-stable-decay, arXiv 2404.06395)."""
    rising = (step + 1) / recipe.warmup
    falling = (recipe.steps - step) / recipe.decay
    return recipe.learning_rate * min(1.0, rising, falling)


def pretrain(name: str, out: Path, device: str = "cpu") -> Path:
    """Train the toy model ``name`` ("base") into ``out``, going on from where an earlier call stopped.

    Writes config, tokenizer, ``model.safetensors`` (bf16), ``recipe.json`` and ``log.jsonl``.
    """
    recipe = RECIPES[name]
    processor = make_toy_processor()
    model = make_model(recipe, processor).to(device)
    optimizer = _optimizer(model, recipe)
    start = _resume(out, model, optimizer, recipe)
    print(f"toy-{name}: {count_parameters(model) / 1e6:.2f} M parameters, step {start} of {recipe.steps}", flush=True)
    for step, loss, shown, seconds in _steps(recipe, processor, model, optimizer, start, device):
        if (step + 1) % LOG_EVERY == 0:
            row = {"step": step + 1, "loss": loss, "shown": shown, "learning_rate": learning_rate(recipe, step)}
            append_json(out / "log.jsonl", row | {"seconds": seconds})
            left = (recipe.steps - step - 1) * seconds / 60
            print(f"step {step + 1}/{recipe.steps} · loss {loss:.3f} · about {left:.0f} min left", flush=True)
        if (step + 1) % SAVE_EVERY == 0:
            _checkpoint(out, model, optimizer, step + 1)
    _ship(out, recipe, processor, model)
    return out


def _steps(recipe, processor, model, optimizer, start: int, device: str) -> Iterator[tuple[int, float, float, float]]:
    """Train step by step: (step, and of the last steps the mean of loss, shown loss and seconds)."""
    loader = DataLoader(
        LessonBatches(recipe, processor), batch_size=None, sampler=range(start, recipe.steps),
        num_workers=1, prefetch_factor=4,
    )  # fmt: skip
    model.train()
    recent, clock = deque(maxlen=LOG_EVERY), time.perf_counter()
    for step, batch in enumerate(loader, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        losses = _train_step(model, optimizer, batch, recipe.phase(step).shown, device)
        recent.append((*losses, time.perf_counter() - clock))
        clock = time.perf_counter()
        yield step, *(sum(column) / len(recent) for column in zip(*recent, strict=True))


def _train_step(model, optimizer, batch: Batch, weight: float, device: str) -> tuple[float, float]:
    """One step; returns the weighted loss on the answers and that on what the image tokens show."""
    batch = batch.to(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        logits = model(**batch.inputs, use_cache=False).logits
    labels, weights = batch.labels[:, 1:], batch.weights[:, 1:]
    keep = labels != -100
    losses = cross_entropy(logits[:, :-1][keep].float(), labels[keep], reduction="none")
    loss = (losses * weights[keep]).sum() / weights[keep].sum()
    shown = _shown_loss(logits, batch)
    (loss + weight * shown).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), shown.item()


def _shown_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Cross-entropy of place, colour and shape, read off each image token."""
    seen = logits[batch.inputs["mm_token_type_ids"] == 1].float().log_softmax(-1)
    return -seen.gather(1, batch.shown).mean()


def _optimizer(model, recipe: Recipe) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _checkpoint(out: Path, model, optimizer, step: int) -> None:
    """Keep weights and optimizer state; the step is written last and names what is whole."""
    folder = out / "resume"
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        f"model.{key}": value.contiguous().clone()
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"
    }
    for index, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{key}": value.clone() for key, value in slots.items()}
    save_file(state, folder / f"step{step}.safetensors")
    write_text(folder / "step.json", json.dumps({"step": step}))
    for old in folder.glob("step*.safetensors"):
        if old.stem != f"step{step}":
            old.unlink()


def _resume(out: Path, model, optimizer, recipe: Recipe) -> int:
    """Load the last whole checkpoint below ``out``; the step to go on with."""
    marker = out / "resume" / "step.json"
    if not marker.exists():
        return 0
    step = json.loads(marker.read_text(encoding="utf-8"))["step"]
    state = load_file(out / "resume" / f"step{step}.safetensors")
    model.load_state_dict({key[6:]: value for key, value in state.items() if key.startswith("model.")}, strict=False)
    slots: dict[int, dict] = {}
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    rows = [row for row in read_jsonl(out / "log.jsonl") if row["step"] <= step]
    write_text(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return step


def _ship(out: Path, recipe: Recipe, processor: PairProcessor, model) -> None:
    """Write the finished model as it is shipped: bf16 safetensors, tokenizer, recipe, score sheet."""
    model.eval()
    write_text(out / "score_sheet.json", json.dumps(score_sheet(model, processor, SCORED), indent=2) + "\n")
    processor.tokenizer.save_pretrained(out)
    model.to(torch.bfloat16).save_pretrained(out)
    write_text(out / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n")
