"""Hours and GPU hours of each stage, calculated from operations and bytes moved. Never measured on a GPU.

    stage_hours(load_profile("paper"), GPUS["A100"], devices=8)

Operations: 2 a weight and token for a forward pass, as many again where a layer is recomputed for the backward
pass, and 2 or 4 for that one (inputs; weights too where they are trained): the usual 6 become 8, and 6 with adapters.
Weights are those of the layers; attention between tokens (5 to 10 % here), the output layer and padding are part of
:data:`UTILISATION`. A decoded token costs what its step moves through memory, weights and half of a full cache, or
what starting its kernels takes, whichever is more. Under autocast the weights are read as float32, written as
bfloat16 and read again at every token. Completions run to their limit: the longest of a batch decides.
"""

from dataclasses import replace

from ladlib.activations import BFLOAT16, FLOAT32
from ladlib.config import Profile
from ladlib.memory import cache_bytes
from ladlib.records import Record
from ladlib.sizes import Sizes, sizes_of
from ladlib.workload import Batch, all_answers, evaluation_batch, grpo_steps, rollout_batch, sft_batch, sft_steps

UTILISATION = 0.35  # of the peak; assumed: PaLM (arXiv 2204.02311, table 3) reaches 46 % with tuned kernels
LAUNCH = 0.0007  # seconds a layer and decoded token; assumed: some 40 kernels and their Python, not compiled
PRICE = 2.50  # US dollars an hour of one GPU; assumed, see `ladlib doctor --price`


class Gpu(Record):
    """A GPU by what NVIDIA states for it."""

    name: str
    memory_gib: float  # as torch reports it
    tflops: float  # bfloat16, dense
    terabytes: float  # a second
    source: str


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="RTX 4090", memory_gib=23.5, tflops=165, terabytes=1.01, source="NVIDIA Ada architecture, appendix A"),
        Gpu(name="A100", memory_gib=79.1, tflops=312, terabytes=2.04, source="NVIDIA A100 80 GB SXM data sheet"),
        Gpu(name="H100", memory_gib=79.1, tflops=989, terabytes=3.35, source="NVIDIA H100 SXM data sheet"),
        Gpu(name="H200", memory_gib=139.7, tflops=989, terabytes=4.8, source="NVIDIA H200 SXM data sheet"),
    )
}
"""By a part of the name that torch tells, the smallest first."""


def stage_hours(
    profile: Profile, gpu: Gpu, devices: int = 1, conversations: int = 0, pairs: int = 0
) -> dict[str, float]:
    """Wall hours of SFT, GRPO's updates and rollouts, and the evaluation (on one GPU), with counts as in the profile
    where 0. Saving, loading and the exchange between GPUs are left out."""
    sizes, steps = sizes_of(profile.model.base), grpo_steps(profile, pairs)
    sft, step = sft_batch(profile, sizes), rollout_batch(profile, sizes, devices)
    rows = profile.sft.batch_size / sft.rows / devices
    training = sft_steps(profile, devices, conversations) * rows * _training_work(profile, sizes, sft)
    kl = _forward_work(sizes, step, step.tokens) if profile.grpo.beta else 0
    update = steps * (_training_work(profile, sizes, step) + kl)
    item = BFLOAT16 if profile.model.lora else FLOAT32
    seconds = {
        "SFT": _seconds(training, gpu),
        "GRPO update": _seconds(update, gpu),
        "GRPO rollouts": steps * _generation_seconds(sizes, step, gpu, item),
        "evaluation": _evaluation_seconds(profile, sizes, gpu),
    }
    return {stage: each / 3600 for stage, each in seconds.items()}


def _training_work(profile: Profile, sizes: Sizes, batch: Batch) -> float:
    """Operations of a forward and a backward pass with recomputed activations."""
    lora, frozen = profile.model.lora is not None, profile.model.freeze_vision
    language = 6 if lora else 8
    tower = 6 if lora else 2 if frozen else 8
    return language * _layers(sizes) * batch.tokens + tower * sizes.vision * batch.all_patches


def _forward_work(sizes: Sizes, batch: Batch, tokens: int) -> float:
    return 2 * _layers(sizes) * tokens + 2 * sizes.vision * batch.all_patches


def _evaluation_seconds(profile: Profile, sizes: Sizes, gpu: Gpu) -> float:
    """All answers of notebook 04, those under other conditions with them; their other numeric type is not counted."""
    batch, (together, alone) = evaluation_batch(profile, sizes), all_answers(profile)
    single = replace(batch, rows=1)
    return together / batch.rows * _answer_seconds(sizes, batch, gpu) + alone * _answer_seconds(sizes, single, gpu)


def _answer_seconds(sizes: Sizes, batch: Batch, gpu: Gpu) -> float:
    """A batch of answers, and the second pass that reads P(yes)."""
    second = _seconds(_forward_work(sizes, batch, batch.tokens), gpu)
    return _generation_seconds(sizes, batch, gpu, BFLOAT16) + second


def _generation_seconds(sizes: Sizes, batch: Batch, gpu: Gpu, item: int) -> float:
    """A batch of completions; ``item`` is the bytes of a weight as it lies in memory."""
    prompt = _seconds(_forward_work(sizes, batch, batch.rows * batch.prompt), gpu)
    a_weight = item if item == BFLOAT16 else item + 2 * BFLOAT16
    cached = batch.rows * (batch.prompt + batch.completion // 2)
    moved = a_weight * sizes.language + cache_bytes(sizes, cached, item)
    step = max(moved / (gpu.terabytes * 1e12), LAUNCH * sizes.layers)
    return prompt + batch.completion * step


def _seconds(operations: float, gpu: Gpu) -> float:
    return operations / (gpu.tflops * 1e12 * UTILISATION)


def _layers(sizes: Sizes) -> int:
    return sizes.layers * sizes.layer_linears
