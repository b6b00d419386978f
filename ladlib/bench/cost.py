"""What a GRPO step and a judgement cost, on paper: what the stock library computes, and what is new in it.

    step_operations(sizes_of("toy-base"), Step(prompts=8, group=8, prompt=124, completion=35, patches=128))["here"]

A product of matrices is two operations for each weight and token, and a backward pass two forward passes; attention
between a token and each of those in its block is four operations for each number of its width. Norms, rotations,
softmax and sampling are left out. ``tests/test_bench.py`` holds the sums against what PyTorch counts.
"""

from dataclasses import dataclass

from ladlib.config import Profile
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
    frozen_tower: bool = False  # whether the vision tower stays as it is


def step_of(profile: Profile, sizes: Sizes, completion: float) -> Step:
    """A step of stage 2 with images at their largest and completions of so many tokens."""
    batch, stage = rollout_batch(profile, sizes), profile.grpo
    return Step(
        stage.prompts_per_step, stage.group_size, batch.prompt, completion, batch.patches, stage.beta > 0,
        profile.model.freeze_vision,
    )  # fmt: skip


def step_operations(sizes: Sizes, step: Step) -> dict[str, dict[str, float]]:
    """Operations of each part of ``step``, by stock TRL (``stock``) and with shared prefixes (``here``)."""
    rows = step.prompts * step.group
    frozen_model = FORWARD if step.kl else 0
    passes = frozen_model + WITH_BACKWARD
    seen = FORWARD + frozen_model + (FORWARD if step.frozen_tower else WITH_BACKWARD)
    alone = rows * _read(sizes, step.prompt + step.completion, step.prompt + step.completion)
    trunks = step.prompts * _read(sizes, step.prompt - 1, step.prompt - 1)
    branches = rows * _read(sizes, step.completion, step.prompt - 1 + step.completion)
    decode = rows * _read(sizes, step.completion - 1, step.prompt + step.completion / 2)
    tower = _encode(sizes, step.patches)
    return {
        "stock": {
            "vision": seen * rows * tower,
            "prefill": rows * _read(sizes, step.prompt, step.prompt, words=1),
            "decode": decode,
            "log-probabilities and backward": passes * alone,
        },
        "here": {
            "vision": (FORWARD if step.frozen_tower else seen) * step.prompts * tower,
            "prefill": step.prompts * _read(sizes, step.prompt, step.prompt, words=1),
            "decode": decode,
            "log-probabilities and backward": passes * (trunks + branches),
        },
    }


def judging_operations(sizes: Sizes, step: Step, pairs: int) -> dict[str, float]:
    """Operations of one judgement, P(yes) included, in a batch where so many ``pairs`` share a reference image.

    By plain ``generate`` and a second pass for P(yes) (``stock``), and by :mod:`ladlib.decoding` (``here``). Of
    ``step`` its lengths count. The few words before the reference image, and the two tokens that P(yes) is read at
    from the keys and values that are there, are left out.
    """
    one = step.patches // 2 // sizes.merge**2  # tokens of an image
    decode = _read(sizes, step.completion - 1, step.prompt + step.completion / 2)
    again = _read(sizes, step.prompt + step.completion, step.prompt + step.completion, words=2)
    rest = _read(sizes, step.prompt - one, step.prompt, words=1)
    shared = _encode(sizes, step.patches) / 2 + _read(sizes, one, one, words=0)
    return {
        "stock": 2 * _encode(sizes, step.patches) + _read(sizes, step.prompt, step.prompt, words=1) + decode + again,
        "here": shared / pairs + _encode(sizes, step.patches) / 2 + rest + decode,
    }


def _read(sizes: Sizes, tokens: float, seen: float, words: float | None = None) -> float:
    """The language model on ``tokens`` of a row, each held against ``seen`` ones, and its output layer on all of them,
    or on as many as there are ``words`` to predict."""
    linears, attention = 2 * sizes.layers * sizes.layer_linears, 4 * sizes.layers * sizes.hidden * seen
    return tokens * (linears + attention) + (tokens if words is None else words) * 2 * sizes.embedding


def _encode(sizes: Sizes, patches: int) -> float:
    """The vision tower on ``patches``; its projector sees each ``merge`` x ``merge`` of them as one."""
    joined = sizes.vision_hidden * sizes.merge**2
    projector = joined * (joined + sizes.hidden)
    block = 4 * sizes.vision_hidden**2 + 3 * sizes.vision_hidden * sizes.vision_intermediate
    weights = sizes.patch_values * sizes.vision_hidden + sizes.vision_layers * block + projector / sizes.merge**2
    return 2 * patches * weights + 2 * sizes.vision_layers * sizes.vision_hidden * patches**2  # two images of a half
