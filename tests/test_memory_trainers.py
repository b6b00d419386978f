"""The memory calculator against the real trainers: bytes of tensors alive in TRL's own steps of a small model.

The model is of Qwen2.5-VL's class with 4 M parameters, on a CPU, under bfloat16 autocast and with recomputed
activations as the 3B would be. Sums are held within 10 %, since masks and tables weigh
more at its widths than at the 3B's; what must be exact is held exactly.
"""

from dataclasses import dataclass, field, replace

import pytest
from tiny import TINY, tiny_processor, tiny_profile, write_data
from trl.trainer import utils as trl_utils

from ladlib import activations, grpo, memory, sft, training
from ladlib.bench import LiveBytes
from ladlib.sft_data import balanced_pairs, make_conversations
from ladlib.sizes import sizes_of
from ladlib.toy.pretrain_model import make_model
from ladlib.training import load_policy
from ladlib.workload import Batch

pytestmark = pytest.mark.slow
CLOSE = 0.1
TILE = 128  # words: TRL's buffer of 32768 would be larger than all else here
KINDS = {
    "all but the tower": {"model__lora_rank": 0, "model__freeze_vision": True},
    "all of the model": {"model__lora_rank": 0, "model__freeze_vision": False},
    "adapters": {"model__lora_rank": 8, "model__freeze_vision": True},
}


@dataclass
class Seen:
    """What a training run held: at its start, at its end, at most in generation and at most in all else."""

    start: int = 0
    end: int = 0
    update: int = 0
    generation: int = 0
    shapes: list[dict] = field(default_factory=list)  # of each micro-batch


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    wide = replace(TINY, hidden=256, layers=4, heads=4, vision_hidden=128)
    make_model(wide, tiny_processor()).save_pretrained(folder)
    tiny_processor().tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(params=KINDS)
def profile(request, model, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 0)
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", TILE)
    monkeypatch.setattr(memory, "HEAD_TILE", (4096, TILE))
    return tiny_profile(
        model__base=model, model__dtype="bfloat16", data__min_pixels=60 * 784, data__max_pixels=80 * 784,
        data__sft_samples=8, sft__micro_batch_size=4, sft__batch_size=8,
        grpo__micro_batch_size=4, grpo__prompts_per_step=2, grpo__group_size=4, grpo__beta=0.04,
        model__max_new_tokens=48, model__shared_prefix=False, **KINDS[request.param],
    )  # fmt: skip


def watch(trainer) -> Seen:
    """Train and look on: from each loss to the end of its backward pass, and while completions are generated."""
    seen, live = Seen(), LiveBytes()
    live.known(trainer.model, *([trainer.ref_model] if getattr(trainer, "ref_model", None) else []))
    compute_loss, training_step, seen.start = trainer.compute_loss, trainer.training_step, live.now

    def looked_on(model, inputs, *args, **kwargs):
        seen.shapes.append({name: value.shape for name, value in inputs.items() if hasattr(value, "shape")})
        live.reset_peak()
        return compute_loss(model, inputs, *args, **kwargs)

    def stepped(*args, **kwargs):
        loss = training_step(*args, **kwargs)
        seen.update = max(seen.update, live.peak)
        return loss

    trainer.compute_loss, trainer.training_step = looked_on, stepped
    if hasattr(trainer, "_generate"):
        trainer._generate = _generation_apart(trainer._generate, seen, live)
    with live:
        trainer.train()
    seen.end = live.now
    return seen


def _generation_apart(generate, seen: Seen, live: LiveBytes):
    def generated(*args, **kwargs):
        live.reset_peak()
        output = generate(*args, **kwargs)
        seen.generation = live.peak
        return output

    return generated


def test_sft_needs_what_is_calculated(profile, data, tmp_path):
    policy, processor = load_policy(profile, profile.model.base)
    trainer = sft.make_trainer(
        profile, make_conversations(profile, data, 0), data, policy, processor, tmp_path / "x", 0
    )
    seen, sizes = watch(trainer), sizes_of(profile.model.base)
    states = memory.training_states(profile, sizes, 1, "none", reference=False)
    assert seen.start == states["weights"]
    assert seen.end == pytest.approx(states["weights"] + states["optimizer"], rel=1e-3)
    shapes = max(seen.shapes, key=lambda one: one["pixel_values"][0])
    rows, tokens = shapes["input_ids"]
    batch = Batch(rows, 0, tokens, shapes["pixel_values"][0] // rows)  # on a CPU TRL's head scores the prompt too
    calculated = memory.backward_memory(profile, sizes, batch, batch.all_patches)
    assert seen.update == pytest.approx(calculated.tensors, rel=CLOSE)


def test_grpo_needs_what_is_calculated(profile, data, tmp_path):
    policy, processor = load_policy(profile, profile.model.base)
    trainer = grpo.make_trainer(profile, balanced_pairs(profile, data, 0), data, policy, processor, tmp_path / "x", 0)
    seen, sizes = watch(trainer), sizes_of(profile.model.base)
    states = memory.training_states(profile, sizes, 1, "none", reference=True)
    assert seen.start == states["weights"] + states["reference"]
    assert (states["reference"] == 0) == bool(profile.model.lora)
    shapes = max(seen.shapes, key=lambda one: one["pixel_values"][0])
    (rows, prompt), completion = shapes["prompt_ids"], shapes["completion_ids"][1]
    batch = Batch(rows, prompt, completion, shapes["pixel_values"][0] // rows)
    update = memory.backward_memory(profile, sizes, batch, 2 * batch.all_patches, reference=True)
    step = replace(batch, rows=2 * rows)
    states |= {"gradients": 0, "copies": memory.autocast_copies(profile, sizes)}
    assert seen.update == pytest.approx(update.tensors, rel=CLOSE)
    rate, item = activations.rates(profile, sizes), 2 if profile.model.lora else 4
    rollouts = memory.generation_memory(states, sizes, rate, step, item, patches=2 * step.all_patches)
    assert seen.generation == pytest.approx(rollouts.tensors, rel=CLOSE)
