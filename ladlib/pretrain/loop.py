"""The training loop: resumable, logged, and at its end a model as it is shipped."""

import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from ladlib.models import PairProcessor, count_parameters
from ladlib.pretrain.architecture import make_model, make_toy_processor
from ladlib.pretrain.batches import Batch, LessonBatches
from ladlib.pretrain.recipes import RECIPES, Recipe
from ladlib.pretrain.score_sheet import score_sheet
from ladlib.runs import append_json, read_jsonl, write_text

SCORED = 96  # held-out lessons of each kind on the score sheet
SAVE_EVERY = 250
LOG_EVERY = 25


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
    start = _resume(out, model, optimizer)
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


def _resume(out: Path, model, optimizer) -> int:
    """Load the last whole checkpoint below ``out``; the step to go on with."""
    marker = out / "resume" / "step.json"
    if not marker.exists():
        return 0
    step = json.loads(marker.read_text(encoding="utf-8"))["step"]
    state = load_file(out / "resume" / f"step{step}.safetensors")
    weights = {key[6:]: value for key, value in state.items() if key.startswith("model.")}
    weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]  # tied, so kept once
    model.load_state_dict(weights)
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
