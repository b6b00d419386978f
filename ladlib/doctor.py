"""What a profile needs, compared with what this machine has.

    examine("toy").can_run
    gpu_memory(load_profile("paper"), devices=8, sharded=True)    # GiB by term

GPU memory is one sum of what training holds, from the profile and the model's sizes, for the longest images and
completions, under bfloat16 autocast with recomputed activations. It counts sampling and training as if both came at
once, so a run needs somewhat less. Calculated, not measured on a GPU; checked on a CPU (tests/test_doctor.py).

- *weights* 4 bytes per parameter (2 where only adapters are trained, in float32), and autocast's bfloat16 copy of what
  is trained; *gradients* 4 and *Adam* 8 per trained parameter; *reference*, a second model, where GRPO has a KL term
  and no adapters;
- *activations*: per token the inputs of all layers, and ``ACTIVATION`` bytes per hidden unit for the layer that is
  recomputed: 38 of the attention, and 12 per inner unit, of which a Qwen2.5-VL-3B has 5.4;
- *images*: the patches in float32, of all completions of a step; *cache*: their keys and values in all layers;
- *logits*: TRL's head in tiles with a float32 gradient of the embedding, and while sampling five float32 vectors over
  the vocabulary per completion.
"""

import math
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import yaml

from ladlib.config import Profile, load_profile
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.families import LARGE, Sizes, check_family, find_config, is_hub_id, sizes_of
from ladlib.records import Record
from ladlib.runs import hardware
from ladlib.sft_data import read_sft_file

GIB = 2**30
SLACK = 0.9  # a machine sold with 24 GB shows somewhat less than 24 GiB
FLOAT32, BFLOAT16 = 4, 2  # bytes
ACTIVATION = 100  # bytes per token and hidden unit of one recomputed layer
CONTEXT, GAPS = GIB, 0.05  # of CUDA and its workspaces; of the sum, which torch's allocator leaves unused
TILE = 4096 * 32_768  # tokens x words of TRL's head (trl/kernels/chunked_logprob.py)
PROMPT_TEXT = 97  # tokens of the task's prompt beside its images (tests/prompt_tokens.json)
SFT_TEXT = 220  # a question with four options, and a caption of at most 60 words
LESS = "Lower max_pixels, micro_batch_size, prompts_per_step or group_size, grpo.beta 0 and LoRA need less."
TOKEN_PIXELS, PATCHES = 28 * 28, 4  # of an image token


@dataclass(frozen=True)
class Check:
    """One line: ``missing`` keeps the profile from running, ``note`` does not."""

    verdict: Literal["ok", "note", "missing"]
    subject: str
    found: str


@dataclass(frozen=True)
class Diagnosis:
    """All checks of one profile on this machine."""

    profile: str
    checks: tuple[Check, ...]
    plan: tuple[str, ...]  # memory, where it is calculated

    @property
    def can_run(self) -> bool:
        return all(check.verdict != "missing" for check in self.checks)


class Cost(Record):
    """An entry of profiles/cost.yaml."""

    memory_gib: float
    memory_gib_each: float = 0  # of each process, which reads all weights
    disk_gib: float
    measured_on: str = ""  # as were the two that follow
    peak_memory_gib: float = 0
    seconds: dict[str, float] = {}  # by stage


def examine(name: str, data: str = "") -> Diagnosis:
    """The profile ``name`` with the datasets in ``data``, checked on this machine; loads torch, no model."""
    profile = load_profile(name)
    cost = load_cost(profile.name)
    gpus = find_gpus()
    count = profile.parallel.processes or max(1, len(gpus))
    checks = [*_machine(profile, cost, count), *_gpu(profile, gpus, count), *_files(profile, data)]
    return Diagnosis(profile.name, tuple(checks), tuple(memory_lines(profile)))


def load_cost(profile: str) -> Cost | None:
    """The entry of profiles/cost.yaml; None for a profile of the user's own."""
    text = (resources.files("ladlib") / "profiles" / "cost.yaml").read_text(encoding="utf-8")
    entry = yaml.safe_load(text).get(profile)
    return Cost.model_validate(entry) if entry else None


def find_gpus() -> list[tuple[str, float]]:
    """(name, GiB) of each GPU that torch can use."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(number) for number in range(count)]
    return [(device.name, device.total_memory / GIB) for device in devices]


def _machine(profile: Profile, cost: Cost | None, count: int) -> Iterator[Check]:
    import torch

    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU only"
    versions = f"transformers {metadata.version('transformers')}, trl {metadata.version('trl')}"
    yield Check("ok", "Python", f"{platform.python_version()} at {sys.executable}")
    yield Check("ok", "torch", f"{torch.__version__}, {build}; {versions}")
    if profile.grpo.engine != "transformers" and find_spec("vllm") is None:
        yield Check("missing", "vLLM", f"none in this environment, and grpo.engine is {profile.grpo.engine}")
    if profile.parallel.method == "zero3" and find_spec("deepspeed") is None:
        yield Check("missing", "DeepSpeed", "none in this environment, and parallel.method is zero3")
    machine, free = hardware(), shutil.disk_usage(Path.cwd()).free / GIB
    yield Check("ok", "cores", f"{machine['cores']}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}")
    memory = cost.memory_gib + count * cost.memory_gib_each if cost else 0
    needs = {"memory": memory, "free disk here": cost.disk_gib} if cost else {}
    for subject, size in {"memory": machine["memory_gib"], "free disk here": free}.items():
        needed, is_known = needs.get(subject, 0), not isinstance(size, str)
        text = f"{f'{size:.1f} GiB' if is_known else size}, needed {needed:g} GiB"
        yield Check(("ok" if size >= needed * SLACK else "missing") if is_known else "note", subject, text)
    if cost and cost.seconds:
        yield Check("note", "time", f"{sum(cost.seconds.values()) / 60:.0f} minutes on {cost.measured_on}")


def _gpu(profile: Profile, gpus: Sequence[tuple[str, float]], count: int) -> Iterator[Check]:
    names = ", ".join(f"{name} with {size:.1f} GiB" for name, size in gpus) or "none that torch can use"
    try:
        is_sharded = count > 1 and profile.parallel.method != "ddp"
        needed = gpu_memory(profile, count, is_sharded)["total"] if is_calculated(profile) else 0
    except UserError as error:
        yield Check("note", "GPU", f"{names}; what is needed is not known: {error.what}")
        return
    fits = not needed or len([size for _, size in gpus if size >= needed]) >= count
    text = f"{count} with {needed:.1f} GiB needed (calculated, not measured)" if needed else "none needed"
    yield Check("ok" if fits else "missing", "GPU", f"{names}; {text}")
    if needed and len(gpus) > 1 and profile.parallel.processes == 1:
        hint = "this profile uses one; parallel.processes says how many"
        yield Check("note", "several GPUs", hint)


def _files(profile: Profile, data: str) -> Iterator[Check]:
    """Models and datasets."""
    large = {"large model": profile.model.large} if profile.evaluate.large else {}
    for subject, model in ({"base model": profile.model.base} | large).items():
        if file := find_config(model):
            try:
                check_family(file)
                yield Check("ok", subject, model)
            except UserError as error:
                yield Check("missing", subject, str(error))
        elif is_hub_id(model):
            yield Check("note", subject, f"{model}, downloaded on first use unless it is in the cache")
        else:
            found = f"{model} is not shipped with this installation, nor a folder with a config.json"
            yield Check("missing", subject, found)
    if profile.toy and not data:
        yield Check("ok", "datasets", "drawn by the first notebook")
    elif not data:
        yield Check("missing", "datasets", "none given; name their folder with --data")
    datasets = ("mvtec_loco", "mvtec_ad", "visa", "mmad") if data else ()
    checks = {name: partial(find_dataset, Path(data), name) for name in datasets}
    if profile.data.sft_file:
        checks["SFT file"] = partial(read_sft_file, Path(profile.data.sft_file))
    for subject, read in checks.items():
        try:
            found = read()
            yield Check("ok", subject, f"{len(found)} conversations" if isinstance(found, list) else str(found))
        except UserError as error:
            yield Check("missing", subject, str(error))


# What a run does


def plan_lines(profile: Profile) -> dict[str, str]:
    """What stages do, by the number of the notebook, with the profile's counts."""
    data, grpo, limit = profile.data, profile.grpo, profile.evaluate.limit
    tokens = f"at most {prompt_tokens(profile)} + {profile.model.max_new_tokens} tokens each"
    completions = grpo.prompts_per_step * grpo.group_size
    asked = f"{limit} test pairs of each category and kind" if limit else "all test pairs"
    return {
        "01": "shows the datasets",
        "02": f"{data.sft_samples} conversations, {sft_steps(profile, data.sft_samples)} steps of "
        f"{profile.sft.batch_size}",
        "03": f"at most {data.grpo_pairs} pairs, {grpo_steps(profile, data.grpo_pairs)} steps of "
        f"{completions} completions, {tokens}",
        "04": f"three models answer to {asked}, {tokens}",
        "05": "compares with the large model's answers, writes the report",
    }


def sft_steps(profile: Profile, conversations: int) -> int:
    """Optimizer steps of stage 1; an epoch ends with a smaller step."""
    sft = profile.sft
    batches = math.ceil(conversations / sft.micro_batch_size)
    return sft.steps or math.ceil(sft.epochs * math.ceil(batches / (sft.batch_size // sft.micro_batch_size)))


def grpo_steps(profile: Profile, pairs: int) -> int:
    """Optimizer steps of stage 2. TRL drops an epoch's incomplete step."""
    return profile.grpo.steps or math.ceil(profile.grpo.epochs * (pairs // profile.grpo.prompts_per_step))


def prompt_tokens(profile: Profile) -> int:
    """Tokens of the task's prompt with two images of the largest size."""
    return 2 * (profile.data.max_pixels // TOKEN_PIXELS) + PROMPT_TEXT


# Memory


def is_calculated(profile: Profile) -> bool:
    """Whether the sum holds: bfloat16 arithmetic and a model whose activations are recomputed.

    Raises :class:`UserError` where the base model's sizes are not known.
    """
    return profile.model.dtype == "bfloat16" and sizes_of(profile.model.base).parameters > LARGE


def memory_lines(profile: Profile) -> list[str]:
    """GiB on each of 1, 4 and 8 GPUs by term, as a table; [] where it is not calculated."""
    try:
        if not is_calculated(profile):
            return []
    except UserError as error:
        return [f"Memory: not known. {error}"]
    import pandas as pd

    counts = [count for count in (1, 4, 8) if profile.grpo.prompts_per_step % count == 0]
    columns = {f"{count} GPU{'s' if count > 1 else ''}": gpu_memory(profile, count) for count in counts}
    columns |= {f"{count} GPUs, divided": gpu_memory(profile, count, sharded=True) for count in counts if count > 1}
    table = pd.DataFrame(columns)
    lines = table[table.any(axis=1)].map("{:.1f}".format).to_string().splitlines()
    return ["", "Memory on each GPU in GiB, calculated, not measured:", *lines, LESS]


def gpu_memory(profile: Profile, devices: int = 1, sharded: bool = False) -> dict[str, float]:
    """GiB by term and in total (``"total"``) on one of ``devices`` GPUs, which may each hold all or share the model.

    Raises :class:`UserError` where the base model's sizes are not known.
    """
    sizes, grpo, is_lora = sizes_of(profile.model.base), profile.grpo, profile.model.lora_rank > 0
    rows = grpo.prompts_per_step * grpo.group_size // devices
    prompt, number = prompt_tokens(profile), BFLOAT16 if is_lora else FLOAT32  # bytes of a number between layers
    longest = prompt + profile.model.max_new_tokens
    tokens = max(grpo.micro_batch_size * longest, profile.sft.micro_batch_size * (prompt - PROMPT_TEXT + SFT_TEXT))
    kept = number * sizes.layers * sizes.hidden
    if not profile.model.freeze_vision:  # the vision tower has a backward pass, too
        kept += BFLOAT16 * sizes.vision_layers * sizes.vision_hidden * PATCHES
    head = 0 if is_lora else FLOAT32 * sizes.vocabulary * sizes.hidden
    terms = _states(profile, sizes, devices, sharded) | {
        "activations": tokens * (kept + ACTIVATION * sizes.hidden),
        "cache": rows * longest * sizes.layers * 2 * sizes.key_value_width * number,
        "logits": BFLOAT16 * TILE + head + 5 * FLOAT32 * sizes.vocabulary * rows,
        "images": rows * (prompt - PROMPT_TEXT) * PATCHES * sizes.patch_values * FLOAT32,
    }
    terms["context, gaps"] = CONTEXT + GAPS * sum(terms.values())
    terms["total"] = sum(terms.values())
    return {name: size / GIB for name, size in terms.items()}


def _states(profile: Profile, sizes: Sizes, devices: int, sharded: bool) -> dict[str, float]:
    """What lasts from step to step."""
    is_lora, trained = profile.model.lora_rank > 0, trained_parameters(profile, sizes)
    states = {
        "weights": BFLOAT16 * sizes.parameters + FLOAT32 * trained if is_lora else FLOAT32 * sizes.parameters,
        "gradients": FLOAT32 * trained,
        "Adam": 2 * FLOAT32 * trained,
        "reference": FLOAT32 * sizes.parameters if profile.grpo.beta and not is_lora else 0,
    }
    if sharded:
        states = {name: size / devices for name, size in states.items()}
        for name in ("weights", "reference"):  # gathered to sample; to compute the KL term
            states[name] += BFLOAT16 * sizes.parameters if states[name] else 0
        return states
    states["weights"] += BFLOAT16 * trained
    states["gradients"] *= 2 if devices > 1 else 1  # DistributedDataParallel's copy
    return states


def trained_parameters(profile: Profile, sizes: Sizes) -> int:
    """How many parameters are trained."""
    if profile.model.lora_rank:
        return sizes.adapters(profile.model.lora_rank)
    return sizes.language if profile.model.freeze_vision else sizes.parameters
