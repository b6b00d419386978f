"""What a GRPO step costs in operations, on paper: what is computed by stock TRL, and what is new in it.

    step_operations(sizes_of("toy-base"), Step(prompts=8, group=8, prompt=124, completion=35, patches=128))["here"]

A product of matrices is two operations for each weight and token, and a backward pass two forward passes; attention
between a token and each of those in its block is four operations for each number of its width. Norms, rotations,
softmax and sampling are left out. ``tests/test_bench.py`` holds the sums against what PyTorch counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from ladlib.report.style import BLUE, GREY, canvas, styled
from ladlib.settings import Profile
from ladlib.sizes import Sizes
from ladlib.workload import rollout_batch

FORWARD, WITH_BACKWARD = 1, 3  # forward passes that a pass is worth


@dataclass(frozen=True)
class Step:
    """What a step sees: prompts, completions of each, tokens of one of either, and patches of a prompt's images."""

    prompts: int
    group: int
    prompt: int
    completion: float
    patches: int
    kl: bool = True  # whether the frozen model reads the completions too


def step_of(profile: Profile, sizes: Sizes, completion: float) -> Step:
    """A step of stage 2 with images at their largest and completions of so many tokens."""
    batch, stage = rollout_batch(profile, sizes), profile.grpo
    return Step(
        stage.prompts_per_step, stage.group_size, batch.prompt, completion, batch.patches, stage.beta > 0
    )  # fmt: skip


def step_operations(sizes: Sizes, step: Step) -> dict[str, dict[str, float]]:
    """Operations of each part of ``step``, by stock TRL (``stock``) and with shared prefixes (``here``)."""
    rows = step.prompts * step.group
    passes = (FORWARD if step.kl else 0) + WITH_BACKWARD
    alone = rows * _read(sizes, step.prompt + step.completion, step.prompt + step.completion)
    trunks = step.prompts * _read(sizes, step.prompt - 1, step.prompt - 1)
    branches = rows * _read(sizes, step.completion, step.prompt - 1 + step.completion)
    decode = rows * _read(sizes, step.completion - 1, step.prompt + step.completion / 2)
    tower = _encode(sizes, step.patches)
    return {
        "stock": {
            "vision": (FORWARD + passes) * rows * tower,
            "prefill": rows * _prefill(sizes, step.prompt),
            "decode": decode,
            "log-probabilities and backward": passes * alone,
        },
        "here": {
            "vision": (FORWARD + passes) * step.prompts * tower,
            "prefill": step.prompts * _prefill(sizes, step.prompt),
            "decode": decode,
            "log-probabilities and backward": passes * (trunks + branches),
        },
    }


def _read(sizes: Sizes, tokens: float, seen: float) -> float:
    """The language model and its output layer on ``tokens`` of a row, each of which is held against ``seen`` ones."""
    return tokens * (2 * sizes.layers * sizes.layer_linears + 4 * sizes.layers * sizes.hidden * seen) + (
        tokens * 2 * sizes.embedding
    )


def _prefill(sizes: Sizes, tokens: int) -> float:
    """The same where only the last token's logits are wanted."""
    return _read(sizes, tokens, tokens) - (tokens - 1) * 2 * sizes.embedding


def _encode(sizes: Sizes, patches: int) -> float:
    """The vision tower on ``patches``; its projector sees each ``merge`` x ``merge`` of them as one."""
    joined = sizes.vision_hidden * sizes.merge**2
    projector = joined * (joined + sizes.hidden)
    block = 4 * sizes.vision_hidden**2 + 3 * sizes.vision_hidden * sizes.vision_intermediate
    weights = sizes.patch_values * sizes.vision_hidden + sizes.vision_layers * block + projector / sizes.merge**2
    return 2 * patches * weights + 2 * sizes.vision_layers * sizes.vision_hidden * patches**2  # two images of a half


def growth(sizes: Sizes, step: Step, groups: Iterable[int] = (2, 4, 8, 16, 32)) -> pd.DataFrame:
    """Billions of operations for each completion as the group grows: columns ``group``, ``stock``, ``here``."""
    rows = []
    for group in groups:
        costs = step_operations(sizes, replace(step, group=group))
        each = {name: sum(parts.values()) / step.prompts / group / 1e9 for name, parts in costs.items()}
        rows.append({"group": group} | each)
    return pd.DataFrame(rows)


@styled
def growth_curves(sizes: Sizes, step: Step) -> Figure:
    """What a completion costs as its group grows: stock TRL reads the prompt each time anew."""
    frame, figure = growth(sizes, step), canvas(6.5, 3)
    axes = figure.subplots()
    axes.plot(frame["group"], frame["stock"], color=GREY, marker="o", linestyle="--", label="stock TRL")
    axes.plot(frame["group"], frame["here"], color=BLUE, marker="s", label="one reading of the prompt")
    axes.set(title="Arithmetic of one completion", xlabel="completions of a prompt, G", ylabel="GFLOP", ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.set_xticks(frame["group"], frame["group"].astype(str))
    axes.legend()
    return figure
