"""GPU memory of each stage: one sum from the profile and the model's sizes. Calculated; never measured on a GPU.

    stage_memory(load_profile("paper"), devices=8, sharded=True)["GRPO update"].total / GIB

A stage's sum takes each term at its largest, as if all were held at once, for the longest images and completions, under
bfloat16 autocast with recomputed activations:

- *weights* 4 bytes per parameter (2 where only adapters are trained, in float32), and autocast's bfloat16 copy of what
  is trained; *gradients* 4 and *Adam* 8 per trained parameter; *reference*, a second model, where GRPO has a KL term
  and no adapters;
- *activations*: per token the float32 inputs of all layers, and ``ACTIVATION`` bytes per hidden unit for the
  layer that is recomputed: 38 of the attention, and 12 per inner unit, of which a Qwen2.5-VL-3B has 5.4;
- *logits*: TRL's head in tiles with a float32 gradient of the embedding; five float32 vectors over the vocabulary per
  completion while sampling;
- *cache*: keys and values of prompts and completions in all layers;
- *images*: the patches in float32, kept for all completions of a step.

Divided among devices are weights, gradients, Adam and reference; what is gathered at a time is counted. On a
CPU the sum is within ``TOLERANCE`` of what TRL's trainers hold (tests/test_memory.py).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ladlib.config import Profile
from ladlib.data.layout import published
from ladlib.errors import UserError
from ladlib.families import LARGE, Sizes, sizes_of
from ladlib.generations import variants

GIB = 2**30
CALCULATED = "calculated, not measured"
FLOAT32, BFLOAT16 = 4, 2  # bytes
ACTIVATION = 100  # bytes per token and hidden unit of one recomputed layer
TOLERANCE = 0.25
CONTEXT = GIB  # CUDA's context and workspaces
LOSSES = 0.05  # of the sum: torch's allocator rounds up and leaves gaps
TILE = 4096 * 32_768  # tokens x words of TRL's head (trl/kernels/chunked_logprob.py)
PROMPT_TEXT = 97  # tokens of the task's prompt beside its images (tests/prompt_tokens.json)
SFT_TEXT = 220  # a question with four options, and a caption of at most 60 words
LOCO_CATEGORIES, EVALUATED_MODELS = 5, 3  # base, SFT, SFT + GRPO
DEVICES = (1, 4, 8)  # for which memory is listed
SHARDING = {False: "each holds all of it", True: "divided among them"}
TOKEN_PIXELS, PATCHES = 28 * 28, 4  # of an image token


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    weights: float = 0
    gradients: float = 0
    adam: float = 0
    reference: float = 0
    activations: float = 0
    logits: float = 0
    cache: float = 0
    images: float = 0

    @property
    def tensors(self) -> float:
        """All but the allowance."""
        return sum(asdict(self).values())

    @property
    def total(self) -> float:
        return CONTEXT + (1 + LOSSES) * self.tensors


def is_calculated(profile: Profile) -> bool:
    """Whether the sum holds: bfloat16 arithmetic and a model whose activations are recomputed."""
    return profile.model.dtype == "bfloat16" and sizes_of(profile.model.base).parameters > LARGE


def prompt_tokens(profile: Profile) -> int:
    """Tokens of the task's prompt with two images of the largest size."""
    return 2 * image_tokens(profile) + PROMPT_TEXT


def image_tokens(profile: Profile) -> int:
    return profile.data.max_pixels // TOKEN_PIXELS


def sft_steps(profile: Profile, devices: int = 1, samples: int = 0) -> int:
    """Optimizer steps of stage 1 on ``samples`` conversations, the profile's number where 0."""
    sft, micro = profile.sft, profile.sft.micro_batch_size * devices
    batches = math.ceil((samples or profile.data.sft_samples) / micro)
    return sft.steps or math.ceil(sft.epochs * math.ceil(batches / (sft.batch_size // micro)))


def grpo_steps(profile: Profile, pairs: int = 0) -> int:
    """Optimizer steps of stage 2 on ``pairs``, the profile's number where 0. TRL drops an epoch's incomplete step."""
    grpo = profile.grpo
    return grpo.steps or math.ceil(grpo.epochs * ((pairs or profile.data.grpo_pairs) // grpo.prompts_per_step))


def stage_memory(profile: Profile, devices: int = 1, sharded: bool = False) -> dict[str, Memory]:
    """The memory of SFT, of GRPO's update and rollouts, and of evaluation, on one of ``devices`` GPUs.

    Evaluation has a whole model on each GPU. Raises :class:`UserError` where the base model's sizes are not known.
    """
    sizes, grpo = sizes_of(profile.model.base), profile.grpo
    prompt, completion = prompt_tokens(profile), profile.model.max_new_tokens
    images = 2 * image_tokens(profile) * PATCHES * sizes.patch_values * FLOAT32  # bytes of a row
    rows = grpo.prompts_per_step * grpo.group_size // devices
    states = _states(profile, sizes, devices, sharded)
    sft = states | {"reference": 0}
    sft_tokens = profile.sft.micro_batch_size * (prompt - PROMPT_TEXT + SFT_TEXT)
    update = grpo.micro_batch_size * (prompt + completion)
    whole = BFLOAT16 * sizes.parameters if sharded else 0  # gathered for generation
    buckets = FLOAT32 * trained_parameters(profile, sizes) if devices > 1 and not sharded else 0
    rollouts = states | {"gradients": buckets, "weights": states["weights"] + whole}
    return {
        "SFT": Memory(**sft, **_pass(profile, sizes, sft_tokens), images=profile.sft.micro_batch_size * images),
        "GRPO update": Memory(**states, **_pass(profile, sizes, update), images=rows * images),
        "GRPO rollouts": Memory(**rollouts, **_answers(profile, sizes, rows, FLOAT32), images=2 * rows * images),
        "evaluation": Memory(
            weights=BFLOAT16 * sizes.parameters, **_answers(profile, sizes, profile.evaluate.batch_size, BFLOAT16),
            images=profile.evaluate.batch_size * images,
        ),
    }  # fmt: skip


def largest(profile: Profile, devices: int = 1, sharded: bool = False) -> float:
    """GiB of the stage that needs most."""
    return max(memory.total for memory in stage_memory(profile, devices, sharded).values()) / GIB


def memory_lines(profile: Profile, devices: Sequence[int] = DEVICES) -> list[str]:
    """GiB on each GPU by stage and number of GPUs, and the terms on one; [] where it is not calculated."""
    try:
        if not is_calculated(profile):
            return []
    except UserError as error:
        return [f"Memory: not known. {error}"]
    single = stage_memory(profile)
    lines = [f"Memory on each GPU in GiB, {CALCULATED}:", _row("GPUs", *single)]
    for count in (count for count in devices if profile.grpo.prompts_per_step % count == 0):
        for sharded in (False, True) if count > 1 else (False,):
            label = f"{count}, {SHARDING[sharded]}" if count > 1 else "1"
            totals = (memory.total / GIB for memory in stage_memory(profile, count, sharded).values())
            lines.append(_row(label, *(f"{total:.1f}" for total in totals)))
    lines.append("What it is made of on one GPU:")
    for stage, memory in single.items():
        terms = {name: size / GIB for name, size in vars(memory).items() if size > GIB / 20}
        lines.append(f"  {stage}: " + ", ".join(f"{name} {size:.1f}" for name, size in terms.items()))
    return [*lines, "Less is needed with lower data.max_pixels, micro_batch_size, grpo.prompts_per_step or group_size,"
            " with grpo.beta 0, or with model.lora_rank 64."]  # fmt: skip


def plan_lines(profile: Profile) -> dict[str, str]:
    """What each stage does, by the number of its notebook."""
    sft, grpo, count = profile.sft, profile.grpo, evaluated_images(profile)
    tokens = f"at most {prompt_tokens(profile)} + {profile.model.max_new_tokens} tokens each"
    again = len(variants()) * profile.evaluate.variants
    return {
        "01": "reads the datasets and shows them",
        "02": f"{profile.data.sft_samples} conversations, {sft_steps(profile)} steps of {sft.batch_size}",
        "03": f"{profile.data.grpo_pairs} pairs, {grpo_steps(profile)} steps of "
        f"{grpo.prompts_per_step * grpo.group_size} completions, {tokens}",
        "04": f"{EVALUATED_MODELS} models answer to {count} pairs, {tokens}; the last one to {again} with a change",
        "05": (f"the large model answers to {count} pairs; " if profile.evaluate.large else "")
        + "tables, figures and the report from stored answers",
    }  # fmt: skip


def evaluated_images(profile: Profile) -> int:
    """How many images of MVTec LOCO AD, real or synthetic, are evaluated with the profile's limit."""
    toy, limit = profile.toy, profile.evaluate.limit
    drawn = [toy.good, toy.logical, toy.structural] * LOCO_CATEGORIES if toy else []
    counts = drawn or [count[0] for key, count in published("mvtec_loco").items() if key[1] == "test"]
    return sum(min(count, limit or count) for count in counts)


def trained_parameters(profile: Profile, sizes: Sizes) -> int:
    """How many parameters are trained."""
    if profile.model.lora_rank:
        return sizes.adapters(profile.model.lora_rank)
    return sizes.language if profile.model.freeze_vision else sizes.parameters


def _states(profile: Profile, sizes: Sizes, devices: int, sharded: bool) -> dict[str, float]:
    """What lasts from step to step."""
    lora, trained = profile.model.lora_rank > 0, trained_parameters(profile, sizes)
    weights = BFLOAT16 * sizes.parameters + FLOAT32 * trained if lora else FLOAT32 * sizes.parameters
    reference = FLOAT32 * sizes.parameters if profile.grpo.beta and not lora else 0
    states = {"weights": weights, "gradients": FLOAT32 * trained, "adam": 2 * FLOAT32 * trained, "reference": reference}
    embedding = sizes.vocabulary * sizes.hidden
    if sharded:
        gathered = 2 * BFLOAT16 * sizes.layer_linears + (BFLOAT16 + FLOAT32) * embedding
        states = {name: size / devices for name, size in states.items()}
        return states | {"weights": states["weights"] + gathered}
    copies = BFLOAT16 * (trained if lora else trained - embedding)  # autocast casts linear layers, not the embedding
    buckets = FLOAT32 * trained if devices > 1 else 0  # DistributedDataParallel's copy of the gradients
    return states | {"weights": weights + copies, "gradients": states["gradients"] + buckets}


def _pass(profile: Profile, sizes: Sizes, tokens: int) -> dict[str, float]:
    """A forward and backward pass of ``tokens``; the vision tower's layers count where it has a backward pass."""
    stream = BFLOAT16 if profile.model.lora_rank else FLOAT32
    kept = stream * sizes.layers * tokens * sizes.hidden
    if profile.model.lora_rank or not profile.model.freeze_vision:
        kept += BFLOAT16 * sizes.vision_layers * sizes.vision_hidden * tokens * PATCHES
    head = 0 if profile.model.lora_rank else FLOAT32 * sizes.vocabulary * sizes.hidden
    return {"activations": kept + ACTIVATION * tokens * sizes.hidden, "logits": BFLOAT16 * TILE + head}


def _answers(profile: Profile, sizes: Sizes, rows: int, item: int) -> dict[str, float]:
    """``rows`` answers at once; ``item`` is the bytes of a cached number."""
    tokens = rows * (prompt_tokens(profile) + profile.model.max_new_tokens)
    item = BFLOAT16 if profile.model.lora_rank else item
    forward = rows * prompt_tokens(profile) * (8 * sizes.hidden + 6 * sizes.intermediate)
    cache = tokens * sizes.layers * 2 * sizes.key_value_width * item
    return {"activations": forward, "cache": cache, "logits": 5 * FLOAT32 * sizes.vocabulary * rows}


def _row(first: str, *cells: str) -> str:
    return f"  {first:<24}" + "".join(f"{cell:>15}" for cell in cells)
