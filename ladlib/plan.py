"""What a profile's run will do and need, as lines of text: steps, tokens, memory, hours, and what to change.

    print("\n".join(memory_lines(load_profile("paper"))))

Nothing is loaded for it: no model, no torch. Memory and hours are calculated (:mod:`ladlib.memory`,
:mod:`ladlib.hours`), and every table says so.
"""

from collections.abc import Iterator, Sequence

from ladlib.config import Profile
from ladlib.hours import GPUS, LAUNCH, PRICE, UTILISATION, Gpu, stage_hours
from ladlib.memory import CALCULATED, CONTEXT, GIB, LOSSES, Memory, Sharding, stage_memory
from ladlib.sizes import sizes_of
from ladlib.workload import (
    JUDGED_ARMS,
    answers_again,
    evaluation_batch,
    grpo_steps,
    judged_images,
    rollout_batch,
    sft_batch,
    sft_steps,
    update_batch,
)

DEVICES = (1, 4, 8)
SHARDINGS: dict[Sharding, str] = {"none": "each holds all of it", "full": "divided among them"}


def arrangements(profile: Profile, devices: Sequence[int] = DEVICES) -> Iterator[tuple[int, Sharding]]:
    """Numbers of GPUs that GRPO's prompts can be divided among, and how they hold the model."""
    for count in devices:
        if profile.grpo.prompts_per_step % count == 0:
            yield from ((count, how) for how in SHARDINGS if count > 1 or how == "none")


def most(profile: Profile, devices: int = 1, sharding: Sharding = "none") -> float:
    """GiB of the stage that needs most on a GPU."""
    return max(memory.total for memory in stage_memory(profile, devices, sharding).values()) / GIB


def memory_lines(profile: Profile, devices: Sequence[int] = DEVICES) -> list[str]:
    """GiB on each GPU by stage and arrangement, and the terms on a single one."""
    single = stage_memory(profile)
    lines = [
        f"Memory on each GPU in GiB, {CALCULATED}; includes {CONTEXT / GIB:g} GiB and {LOSSES:.0%} as an allowance:",
        _row("GPUs", *single),
    ]
    for count, how in arrangements(profile, devices):
        cells = (f"{memory.total / GIB:.1f}" for memory in stage_memory(profile, count, how).values())
        lines.append(_row(f"{count}, {SHARDINGS[how]}" if count > 1 else "1", *cells))
    return [*lines, "What it is made of on one GPU:", *(_terms(name, memory) for name, memory in single.items())]


def hours_lines(profile: Profile, gpu: Gpu, devices: Sequence[int] = DEVICES, price: float = PRICE) -> list[str]:
    """Hours by stage and number of GPUs, with what they rest on."""
    counts = sorted({count for count, _ in arrangements(profile, devices)})
    lines = [
        f"Hours on {gpu.name} GPUs, {CALCULATED}, completions as long as allowed. "
        f"Stated: {gpu.tflops:g} TFLOP/s, {gpu.terabytes:g} TB/s ({gpu.source}).",
        f"Assumed: {UTILISATION:.0%} of them in use, {LAUNCH * 1000:g} ms a layer and token to start kernels, "
        f"{price:.2f} USD an hour of a GPU (`ladlib doctor --price`).",
        _row("GPUs", *stage_hours(profile, gpu), "GPU hours", "USD"),
    ]
    for count in counts:
        hours = stage_hours(profile, gpu, count)
        billed = sum(each * (1 if stage == "evaluation" else count) for stage, each in hours.items())
        lines.append(
            _row(str(count), *(f"{each:.2f}" for each in hours.values()), f"{billed:.0f}", f"{billed * price:.0f}")
        )
    return lines


def advice_lines(profile: Profile) -> list[str]:
    """The changes of single fields that lower what the neediest stage needs on one GPU, by their effect."""
    now = most(profile)
    effects = sorted((most(changed), field) for field, changed in _smaller(profile))
    return [
        f"Where it does not fit, change in this order (the neediest stage on one GPU: {now:.1f} GiB):",
        *(f"  {field:<36} {left:.1f} GiB" for left, field in effects if now - left > 0.005 * now),
    ]


def stage_lines(profile: Profile, conversations: int = 0, pairs: int = 0) -> dict[str, str]:
    """What each stage does, by the number of its notebook, with counts as in the profile where 0."""
    sizes = sizes_of(profile.model.base)
    sft, update, judged = sft_batch(profile, sizes), update_batch(profile, sizes), evaluation_batch(profile, sizes)
    completions, stated = rollout_batch(profile, sizes).rows, profile.data
    return {
        "01": "reads the datasets and shows them",
        "02": f"{conversations or stated.sft_samples} conversations, {sft_steps(profile, 1, conversations)} steps of "
        f"{profile.sft.batch_size}, at most {sft.prompt + sft.completion} tokens each",
        "03": f"{pairs or stated.grpo_pairs} pairs, {grpo_steps(profile, pairs)} steps of {completions} completions, "
        f"at most {update.prompt} + {update.completion} tokens each",
        "04": f"{JUDGED_ARMS} models answer to {judged_images(profile)} pairs, at most {judged.prompt} + "
        f"{judged.completion} tokens each; the last one to {sum(answers_again(profile))} under other conditions",
        "05": (f"the large model answers to {judged_images(profile)} pairs; " if profile.evaluate.large else "")
        + "tables, figures and the report from stored answers",
    }  # fmt: skip


def nearest_gpu(profile: Profile, found: str = "") -> Gpu:
    """The known GPU whose name is part of ``found``; else the smallest that holds the profile, else the largest."""
    named = [gpu for gpu in GPUS.values() if gpu.name in found]
    fitting = [gpu for gpu in GPUS.values() if gpu.memory_gib >= most(profile)]
    return (named or fitting or list(GPUS.values())[-1:])[0]


def _smaller(profile: Profile) -> Iterator[tuple[str, Profile]]:
    """(what is changed, the changed profile) for each field that memory depends on."""
    if not profile.model.lora:
        yield "model.lora_rank: 64, as in small.yaml", profile.replace({"model.lora_rank": 64})
    if profile.grpo.beta and not profile.model.lora:
        yield "grpo.beta: 0 (no reference model)", profile.replace({"grpo.beta": 0.0})
    for section, field in HALVED:
        half = getattr(getattr(profile, section), field) // 2
        if half > (1 if field == "group_size" else 0):
            yield f"{section}.{field}: {half}", profile.replace({f"{section}.{field}": half})


HALVED = (
    ("data", "max_pixels"), ("sft", "micro_batch_size"), ("grpo", "micro_batch_size"), ("grpo", "prompts_per_step"),
    ("grpo", "group_size"), ("model", "max_new_tokens"), ("evaluate", "batch_size"),
)  # fmt: skip


def _terms(name: str, memory: Memory) -> str:
    return f"  {name}: " + ", ".join(
        f"{term} {size / GIB:.1f}" for term, size in memory.terms().items() if size > GIB / 20
    )


def _row(first: str, *cells: str) -> str:
    return f"  {first:<24}" + "".join(f"{cell:>15}" for cell in cells)
