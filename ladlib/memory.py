"""GPU memory of each stage, calculated from the profile and the model's sizes. Never measured on a GPU.

    needs = stage_memory(load_profile("paper"), devices=8, sharding="full")
    needs["GRPO update"].total / GIB

A stage needs most at one of a few moments; each is a sum of terms, and the largest sum is the stage's. What
the terms are follows from the code at this project's pins (torch 2.13, transformers 5.23, trl 1.16), for
bfloat16 arithmetic with recomputed activations, that is for models above :data:`ladlib.sizes.LARGE`:

- *weights*: 4 bytes a parameter where all of the model is trained (:func:`ladlib.training.load_policy`), else 2,
  and 4 a parameter of the adapters, which PEFT keeps in float32. *gradients* 4 and *optimizer* (AdamW's two
  moments) 8 bytes a trained parameter. TRL frees the gradients before it generates.
- *reference*: a second model of the policy's dtype, only where GRPO has a KL term and no adapters.
- *buckets*: DistributedDataParallel keeps a second copy of the gradients (``gradient_as_bucket_view`` is off).
- *copies*: autocast keeps a bfloat16 copy of each trained linear layer until the forward pass ends, in
  inference too. Fully sharded, in its place, what is gathered at a time: two layers, and the embedding in
  bfloat16 and, for the head, in float32; all of the model for generation (TRL's ``ds3_gather_for_generation``).
- *activations*: the inputs of all layers, and one layer recomputed; bytes a token in :mod:`ladlib.activations`.
  The tower has no backward pass while it is frozen and all of the language model is trained; with adapters it has
  one, since transformers' ``enable_input_require_grads`` reaches the tower's patches too.
- *logits*: TRL's fused head makes tiles of 4096 tokens by 32768 words and never all logits; its backward pass
  holds a float32 gradient of the whole embedding, where that is trained. Sampling holds five float32 vectors
  over the vocabulary for each completion.
- *cache*: keys and values of all layers for prompts and completions. Under autocast from float32 weights, keys
  leave the rotary embedding as float32, and the cache keeps values in the keys' dtype; else both are bfloat16.
- *inputs*: the patches in float32, kept for all completions of a step, the same images once for each of them;
  those of the step before are still there while the next completions are generated.
- *allowance*: see :data:`CONTEXT` and :data:`LOSSES`.

GRPO is stock TRL's; with ``grpo.shared_prefix`` it needs less. Images and completions are taken at their longest.
Left to the allowance, each below 1 % or 2 % of the sum: attention masks, rotary tables, activations of dropout and of
adapters' inner width.
"""

from dataclasses import dataclass, fields
from typing import Literal

from ladlib.activations import BFLOAT16, FLOAT32, Rates, inference_rates, rates
from ladlib.config import Profile
from ladlib.sizes import LARGE, Sizes, sizes_of
from ladlib.workload import Batch, evaluation_batch, rollout_batch, sft_batch, update_batch

GIB = 2**30
CALCULATED = "calculated, not measured"  # beside every number from here

MOMENTS = 2 * FLOAT32  # AdamW
HEAD_TILE = 4096, 32_768  # tokens, words: TOKEN_CHUNK_SIZE and chunk_size of trl/kernels/chunked_logprob.py
SAMPLING_VECTORS = 5  # logits, their copy, banned tokens out, divided by the temperature, probabilities
CONTEXT = GIB  # CUDA's context, cuBLAS's workspaces, NCCL's buffers: 0.5 to 1 GiB on cards of these kinds
LOSSES = 0.05  # of the sum: torch's allocator rounds up and leaves gaps, and small terms are left out above

Sharding = Literal["none", "full"]
"""``none``: every GPU holds all of the model (one GPU, or DistributedDataParallel). ``full``: parameters,
gradients and moments are divided among the GPUs (DeepSpeed ZeRO-3 or FSDP2)."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the moment a stage needs most."""

    weights: float = 0
    gradients: float = 0
    optimizer: float = 0
    reference: float = 0
    buckets: float = 0
    copies: float = 0
    activations: float = 0
    logits: float = 0
    cache: float = 0
    inputs: float = 0

    @property
    def tensors(self) -> float:
        """All but the allowance."""
        return sum(getattr(self, one.name) for one in fields(self))

    @property
    def allowance(self) -> float:
        return CONTEXT + LOSSES * self.tensors

    @property
    def total(self) -> float:
        return self.tensors + self.allowance

    def terms(self) -> dict[str, float]:
        """Bytes by name, those that are not 0, the allowance last."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: size for name, size in named.items() if size} | {"allowance": self.allowance}


def is_calculated(profile: Profile) -> bool:
    """Whether the formulas hold: bfloat16 arithmetic and a model whose activations are recomputed."""
    return profile.model.dtype == "bfloat16" and sizes_of(profile.model.base).parameters > LARGE


def stage_memory(profile: Profile, devices: int = 1, sharding: Sharding = "none") -> dict[str, Memory]:
    """The memory of SFT, of GRPO's update and rollouts, and of evaluation, on one of ``devices`` GPUs.

    Evaluation runs on one GPU whatever ``devices`` is. Raises :class:`UserError` where the base model's
    sizes are not known.
    """
    sizes = sizes_of(profile.model.base)
    return {
        "SFT": sft_memory(profile, sizes, devices, sharding),
        "GRPO update": update_memory(profile, sizes, devices, sharding),
        "GRPO rollouts": rollout_memory(profile, sizes, devices, sharding),
        "evaluation": evaluation_memory(profile, sizes),
    }


def sft_memory(profile: Profile, sizes: Sizes, devices: int, sharding: Sharding) -> Memory:
    batch = sft_batch(profile, sizes)
    return backward_memory(profile, sizes, batch, batch.all_patches, devices, sharding)


def update_memory(profile: Profile, sizes: Sizes, devices: int, sharding: Sharding) -> Memory:
    """GRPO's forward and backward pass of one micro-batch, with the inputs of the whole step beside it."""
    batch, step = update_batch(profile, sizes), rollout_batch(profile, sizes, devices)
    return backward_memory(profile, sizes, batch, step.all_patches, devices, sharding, reference=True)


def rollout_memory(profile: Profile, sizes: Sizes, devices: int, sharding: Sharding) -> Memory:
    """GRPO's generation of all completions of a step at once."""
    gathered = sharding == "full" and devices > 1
    states = training_states(profile, sizes, devices, sharding, reference=True) | {
        "gradients": 0, "copies": BFLOAT16 * sizes.parameters if gathered else autocast_copies(profile, sizes),
    }  # fmt: skip
    item = BFLOAT16 if profile.model.lora else FLOAT32
    batch, rate = rollout_batch(profile, sizes, devices), rates(profile, sizes)
    return generation_memory(states, sizes, rate, batch, item, patches=2 * batch.all_patches)


def evaluation_memory(profile: Profile, sizes: Sizes) -> Memory:
    """Greedy answers of a model in bfloat16, without autocast."""
    states = {"weights": BFLOAT16 * sizes.parameters}
    batch = evaluation_batch(profile, sizes)
    return generation_memory(states, sizes, inference_rates(sizes), batch, BFLOAT16, batch.all_patches)


def trained(profile: Profile, sizes: Sizes) -> int:
    """How many parameters are trained."""
    if profile.model.lora:
        return sizes.adapters(profile.model.lora.rank)
    return sizes.language if profile.model.freeze_vision else sizes.parameters


def cache_bytes(sizes: Sizes, tokens: int, item: int) -> int:
    """The cache of so many tokens in all layers; ``item`` is the bytes of one number."""
    return tokens * sizes.layers * 2 * sizes.key_value_width * item


def training_states(
    profile: Profile, sizes: Sizes, devices: int, sharding: Sharding, reference: bool
) -> dict[str, float]:
    """What lasts from step to step, on one GPU."""
    lora, updated = profile.model.lora, trained(profile, sizes)
    weights = BFLOAT16 * sizes.parameters + FLOAT32 * updated if lora else FLOAT32 * sizes.parameters
    has_reference = reference and profile.grpo.beta > 0 and not lora
    states = {
        "weights": weights, "gradients": FLOAT32 * updated, "optimizer": MOMENTS * updated,
        "reference": FLOAT32 * sizes.parameters if has_reference else 0,
    }  # fmt: skip
    if sharding == "full":
        return {name: size / devices for name, size in states.items()}
    return states | {"buckets": FLOAT32 * updated if devices > 1 else 0}


def autocast_copies(profile: Profile, sizes: Sizes) -> float:
    """What autocast keeps until a forward pass ends."""
    if profile.model.lora:
        return BFLOAT16 * trained(profile, sizes)
    tower = 0 if profile.model.freeze_vision else sizes.vision
    return BFLOAT16 * (sizes.layers * sizes.layer_linears + tower)


def backward_memory(
    profile: Profile, sizes: Sizes, batch: Batch, patches: int, devices: int = 1, sharding: Sharding = "none",
    reference: bool = False,
) -> Memory:  # fmt: skip
    """One forward and backward pass of ``batch``, with the inputs of so many ``patches`` kept beside it."""
    rate, lora = rates(profile, sizes), profile.model.lora is not None
    with_tower = lora or not profile.model.freeze_vision  # the tower has a backward pass
    kept = batch.tokens * rate.boundary * sizes.layers
    if with_tower:
        kept += batch.all_patches * (rate.vision_boundary * sizes.vision_layers + rate.projector)
    copies = layer_copies = _gathered(sizes)
    if sharding == "none" or devices == 1:
        copies = autocast_copies(profile, sizes)
        layer_copies = copies / sizes.layers
    tile = BFLOAT16 * min(batch.rows * batch.completion, HEAD_TILE[0]) * HEAD_TILE[1]
    head_gradient = 0 if lora else FLOAT32 * sizes.embedding
    layer = batch.tokens * rate.backward
    tower = batch.all_patches * (rate.vision_backward if with_tower else 0)
    same = training_states(profile, sizes, devices, sharding, reference) | {"inputs": _pixels(sizes, patches)}
    return _largest(
        Memory(
            **same, activations=batch.all_patches * (rate.vision_forward + rate.vision_input)
        ),  # the tower's forward pass
        Memory(**same, activations=kept, copies=copies, logits=tile),  # the forward pass ends
        Memory(**same, activations=kept, copies=layer_copies, logits=tile + head_gradient),  # the loss's gradient
        Memory(**same, activations=kept + max(layer, tower), copies=layer_copies),  # a layer's
    )


def generation_memory(
    states: dict[str, float], sizes: Sizes, rate: Rates, batch: Batch, item: int, patches: int
) -> Memory:
    """Answers to ``batch`` at once, beside the bytes in ``states`` and the inputs of so many ``patches``."""
    same = states | {"inputs": _pixels(sizes, patches)}
    prompts = batch.rows * batch.prompt
    sampled = SAMPLING_VECTORS * FLOAT32 * sizes.vocabulary * batch.rows
    return _largest(
        Memory(**same, activations=batch.all_patches * (rate.vision_forward + rate.vision_input)),  # the tower
        Memory(**same, activations=prompts * rate.forward, cache=cache_bytes(sizes, prompts, item)),
        Memory(**same, cache=cache_bytes(sizes, batch.tokens, item), logits=sampled),  # the last token
    )


def _gathered(sizes: Sizes) -> float:
    """What full sharding gathers at a time."""
    return 2 * BFLOAT16 * sizes.layer_linears + (BFLOAT16 + FLOAT32) * sizes.embedding


def _pixels(sizes: Sizes, patches: int) -> float:
    return FLOAT32 * patches * sizes.patch_values


def _largest(*moments: Memory) -> Memory:
    return max(moments, key=lambda one: one.tensors)
