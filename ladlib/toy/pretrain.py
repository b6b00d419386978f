"""The training loop: resumable, logged, and at its end a model as it is shipped."""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from ladlib.config import load_profile
from ladlib.models import PairProcessor, count_parameters, load_model, load_processor, make_processor
from ladlib.runs import append_json, read_jsonl, write_text
from ladlib.toy.pretrain_data import Batch, LessonBatches, score_sheet, shown_tokens
from ladlib.toy.pretrain_model import RECIPES, Recipe, grow, make_model, make_toy_processor

SCORED = 96  # held-out lessons of each kind on the score sheet
SAVE_EVERY = 250
SETTLED = 0.1
LOG_EVERY = 25


def schedule(recipe: Recipe, step: int) -> float:
    """Share of the learning rates: warm-up, a plateau, a linear fall to zero (WSD, arXiv 2404.06395)."""
    return min(1.0, (step + 1) / recipe.warmup, (recipe.steps - step) / recipe.decay)


def tower_share(recipe: Recipe, step: int) -> float:
    """Share of those learning rates for the vision tower: what it has learned alone is to stay."""
    phase = recipe.phase(step)
    return SETTLED if phase.lessons else min(1.0, max(SETTLED, (phase.until - step) / recipe.settle))


def pretrain(name: str, out: Path, device: str = "cpu") -> Path:
    """Train the toy model ``name`` ("base" or "large") into ``out``, going on from where an earlier call stopped.

    Writes config, tokenizer, ``model.safetensors`` (bf16), ``recipe.json`` and ``log.jsonl``.
    """
    recipe = RECIPES[name]
    processor = _processor(recipe, out)
    model = make_model(recipe, processor)
    if recipe.grown_from:
        grow(load_model(recipe.grown_from, load_profile("toy").model), model)
    model.to(device)
    optimizers = _optimizers(model, recipe)
    start = _resume(out, model, optimizers)
    print(f"toy-{name}: {count_parameters(model) / 1e6:.2f} M parameters, step {start} of {recipe.steps}", flush=True)
    for step, losses, seconds in _steps(recipe, processor, model, optimizers, start, device):
        if (step + 1) % LOG_EVERY == 0:
            rate = recipe.learning_rate * schedule(recipe, step)
            append_json(out / "log.jsonl", {"step": step + 1} | losses | {"learning_rate": rate, "seconds": seconds})
            left = (recipe.steps - step - 1) * seconds / 60
            told = " · ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"step {step + 1}/{recipe.steps} · {told} · about {left:.0f} min left", flush=True)
        if (step + 1) % SAVE_EVERY == 0:
            _checkpoint(out, model, optimizers, step + 1)
    _ship(out, recipe, processor, model)
    return out


def _processor(recipe: Recipe, out: Path) -> PairProcessor:
    """The processor with the tokenizer that the weights know: of the model grown from, of this run, or a new one.

    A tokenizer trained again from lessons that have changed since would number the words otherwise.
    """
    data = load_profile("toy").data
    if recipe.grown_from:
        return load_processor(recipe.grown_from, data)
    if (out / "tokenizer.json").exists():
        return make_processor(PreTrainedTokenizerFast.from_pretrained(out), data.min_pixels, data.max_pixels)
    processor = make_toy_processor()
    processor.tokenizer.save_pretrained(out)
    return processor


def _steps(
    recipe: Recipe, processor: PairProcessor, model, optimizers, start: int, device: str
) -> Iterator[tuple[int, dict[str, float], float]]:
    """Train step by step: (step, mean losses of the last steps by name, mean seconds)."""
    loader = DataLoader(
        LessonBatches(recipe, processor), batch_size=None, sampler=range(start, recipe.steps),
        num_workers=1, prefetch_factor=4,
    )  # fmt: skip
    words = shown_tokens(processor, device)
    model.train()
    recent, clock = deque(maxlen=LOG_EVERY), time.perf_counter()
    for step, batch in enumerate(loader, start):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                share = tower_share(recipe, step) if group["tower"] else 1.0
                group["lr"] = group["initial_lr"] * schedule(recipe, step) * share
        losses = _train_step(model, optimizers, batch.to(device), recipe.phase(step).shown, words)
        recent.append((losses, time.perf_counter() - clock))
        clock = time.perf_counter()
        means = {name: fmean(row[name] for row, _ in recent if name in row) for name in losses}
        yield step, means, fmean(seconds for _, seconds in recent)


def _train_step(model, optimizers, batch: Batch, weight: float, words: list[torch.Tensor]) -> dict[str, float]:
    """One step; returns the weighted loss on the answers, if there are any, and those on what image tokens show."""
    losses = _losses(model, batch, words)
    (losses.get("loss", 0.0) + weight * (losses["shown"] + losses.get("last", 0.0))).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {name: loss.item() for name, loss in losses.items()}


def _losses(model, batch: Batch, words: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The losses of a batch by name; on images alone only the vision tower runs.

    Each image token names what its cell shows, in the language model's own words: kind and blemish as it leaves
    the vision tower; where the last such part lay halfway through the language model, so that what follows can go
    from part to part; its own place at the end.
    """
    tower, language = model.model.visual, model.model.language_model
    halfway = language.layers[len(language.layers) // 2 - 1]
    device = batch.shown.device.type
    with torch.autocast(device, torch.bfloat16, enabled=is_bfloat16_fast(device)), _outputs(tower, halfway) as seen:
        if batch.labels is None:
            tower(batch.inputs["pixel_values"], grid_thw=batch.inputs["image_grid_thw"])
        else:
            logits = model(**batch.inputs, use_cache=False).logits
    embeddings = model.get_input_embeddings().weight
    if batch.labels is None:
        embeddings = embeddings.detach()  # the tower learns the words as they are
    shown = _named(seen[0].float() @ embeddings.T, words[1:3], batch.shown[:, 1:3])
    if batch.labels is None:
        return {"shown": shown}
    images = batch.inputs["mm_token_type_ids"] == 1
    last = _named(language.norm(seen[1][images].float()) @ embeddings.T, words[3:], batch.shown[:, 3:])
    place = _named(logits[images].float(), words[:1], batch.shown[:, :1])
    labels, weights = batch.labels[:, 1:], batch.weights[:, 1:]
    keep = labels != -100
    losses = cross_entropy(logits[:, :-1][keep].float(), labels[keep], reduction="none")
    return {"loss": (losses * weights[keep]).sum() / weights[keep].sum(), "shown": shown + place, "last": last}


@contextmanager
def _outputs(*modules: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """What ``modules`` put out while the block runs, in the order in which they run: a vector for each token."""
    seen: list[torch.Tensor] = []
    hooks = [
        one.register_forward_hook(lambda module, given, output: seen.append(getattr(output, "pooler_output", output)))
        for one in modules
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def _named(scores: torch.Tensor, words: list[torch.Tensor], right: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the right word of each group, summed over groups: scores (n, vocabulary), right (n, groups)."""
    return sum(cross_entropy(scores[:, tokens], right[:, group]) for group, tokens in enumerate(words))


def is_bfloat16_fast(device: str) -> bool:
    """Whether ``device`` has instructions for bfloat16; a CPU without them takes thirty times as long as in float32."""
    return device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., https://kellerjordan.github.io/posts/muon/) in float32.

    PyTorch's own computes in bfloat16, which takes thirty times as long on a CPU without instructions for it.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One step; matrices of one shape are orthogonalised together. A matrix without a gradient stays."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.Tensor]] = {}
            for one in group["params"]:
                if one.grad is not None:
                    shapes.setdefault(one.shape, []).append(one)
            for shape, matrices in shapes.items():
                updates = orthogonalised(torch.stack([self._averaged(one, group["momentum"]) for one in matrices]))
                rate = 0.2 * max(shape) ** 0.5 * group["lr"]  # an update as large as AdamW's (arXiv 2502.16982)
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(matrices, list(updates), alpha=-rate)

    def _averaged(self, matrix: torch.Tensor, momentum: float) -> torch.Tensor:
        """The gradient with Nesterov's momentum."""
        state = self.state[matrix]
        average = state.setdefault("momentum_buffer", torch.zeros_like(matrix)).lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(average, momentum)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices (n, rows, columns) whose singular values are about 1: five steps of Newton and Schulz."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if is_tall else x


def _optimizers(model, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for all else.

    On the first 300 steps of looking Muon reached AdamW's loss in two thirds of the steps.
    """
    embeddings = model.get_input_embeddings().weight
    groups = {True: {True: [], False: []}, False: {True: [], False: []}}
    for name, one in model.named_parameters():
        groups[one.ndim == 2 and one is not embeddings][".visual." in name].append(one)
    matrices, others = ([{"params": ones, "tower": tower} for tower, ones in both.items()] for both in groups.values())
    optimizers = [
        Muon(matrices, lr=recipe.learning_rate),
        torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _checkpoint(out: Path, model, optimizers, step: int) -> None:
    """Keep weights and optimizer state; the step is written last and names what is whole."""
    folder = out / "resume"
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        f"model.{key}": value.contiguous().clone()
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"
    }
    for number, optimizer in enumerate(optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{number}.{index}.{key}": value.clone() for key, value in slots.items()}
    save_file(state, folder / f"step{step}.safetensors")
    write_text(folder / "step.json", json.dumps({"step": step}))
    for old in folder.glob("step*.safetensors"):
        if old.stem != f"step{step}":
            old.unlink()


def _resume(out: Path, model, optimizers) -> int:
    """Load the last whole checkpoint below ``out``; the step to go on with."""
    marker = out / "resume" / "step.json"
    if not marker.exists():
        return 0
    step = json.loads(marker.read_text(encoding="utf-8"))["step"]
    state = load_file(out / "resume" / f"step{step}.safetensors")
    weights = {key[6:]: value for key, value in state.items() if key.startswith("model.")}
    weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]  # tied, so kept once
    model.load_state_dict(weights)
    slots: list[dict[int, dict]] = [{} for _ in optimizers]
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, number, index, name = key.split(".")
            slots[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, kept in zip(optimizers, slots, strict=True):
        optimizer.load_state_dict(optimizer.state_dict() | {"state": kept})
    rows = [row for row in read_jsonl(out / "log.jsonl") if row["step"] <= step]
    write_text(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return step


def _ship(out: Path, recipe: Recipe, processor: PairProcessor, model) -> None:
    """Write the finished model as it is shipped: bf16 safetensors, tokenizer, recipe, score sheet."""
    model.eval()
    write_text(out / "score_sheet.json", json.dumps(score_sheet(model, processor, SCORED), indent=2) + "\n")
    processor.tokenizer.save_pretrained(out)  # of a grown model not there yet
    model.to(torch.bfloat16).save_pretrained(out)
    write_text(out / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n")
