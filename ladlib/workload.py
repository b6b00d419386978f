"""What a run has to do: rows, tokens and patches of a pass, steps of a stage.

    sft_steps(load_profile("paper"), devices=8)    # 564

Images and completions are taken at their longest.
"""

import math
from dataclasses import dataclass

from ladlib.config import Profile, Toy
from ladlib.data.layout import published
from ladlib.generations import variants
from ladlib.sizes import Sizes

IMAGES = 2  # a pair
LOCO_CATEGORIES = 5
JUDGED_ARMS = 3  # base, SFT, SFT + GRPO

PROMPT_TEXT = 97  # tokens of the task's prompt beside its images (tests/prompt_tokens.json)
SFT_QUESTION, SFT_ANSWER = 120, 100  # tokens: a question with four options; a caption of at most 60 words


@dataclass(frozen=True)
class Batch:
    """What one pass sees on one GPU."""

    rows: int
    prompt: int  # tokens of a row, image tokens included
    completion: int  # tokens of a row
    patches: int  # of all images of a row

    @property
    def tokens(self) -> int:
        return self.rows * (self.prompt + self.completion)

    @property
    def all_patches(self) -> int:
        return self.rows * self.patches


def sft_batch(profile: Profile, sizes: Sizes) -> Batch:
    """One micro-batch of stage 1."""
    return _batch(profile, sizes, profile.sft.micro_batch_size, SFT_QUESTION, SFT_ANSWER)


def update_batch(profile: Profile, sizes: Sizes) -> Batch:
    """One micro-batch of stage 2."""
    return _batch(profile, sizes, profile.grpo.micro_batch_size, PROMPT_TEXT, profile.model.max_new_tokens)


def rollout_batch(profile: Profile, sizes: Sizes, devices: int = 1) -> Batch:
    """All completions that one GPU generates in a step of stage 2."""
    rows = profile.grpo.prompts_per_step * profile.grpo.group_size // devices
    return _batch(profile, sizes, rows, PROMPT_TEXT, profile.model.max_new_tokens)


def evaluation_batch(profile: Profile, sizes: Sizes) -> Batch:
    """One batch of the evaluation."""
    return _batch(profile, sizes, profile.evaluate.batch_size, PROMPT_TEXT, profile.model.max_new_tokens)


def _batch(profile: Profile, sizes: Sizes, rows: int, text: int, completion: int) -> Batch:
    image = sizes.image_tokens(profile.data.max_pixels)
    return Batch(rows, text + IMAGES * image, completion, IMAGES * image * sizes.merge**2)


def sft_steps(profile: Profile, devices: int = 1, samples: int = 0) -> int:
    """Optimizer steps of stage 1 on ``samples`` conversations, the profile's number where 0."""
    sft, samples = profile.sft, samples or profile.data.sft_samples
    at_once = sft.micro_batch_size * devices
    an_epoch = math.ceil(math.ceil(samples / at_once) / (sft.batch_size // at_once))
    return sft.steps or math.ceil(sft.epochs * an_epoch)


def grpo_steps(profile: Profile, pairs: int = 0) -> int:
    """Optimizer steps of stage 2 on ``pairs``, the profile's number where 0. TRL drops an epoch's incomplete step."""
    grpo, pairs = profile.grpo, pairs or profile.data.grpo_pairs
    return grpo.steps or math.ceil(grpo.epochs * (pairs // grpo.prompts_per_step))


def judged_images(profile: Profile) -> int:
    """How many images of MVTec LOCO AD, real or drawn, are judged with the profile's limit."""
    toy, limit = profile.toy, profile.evaluate.limit
    counts = _drawn(toy) if toy else [count[0] for key, count in published("mvtec_loco").items() if key[1] == "test"]
    return sum(min(count, limit or count) for count in counts)


def all_answers(profile: Profile) -> tuple[int, int]:
    """All answers of notebook 04: those given in batches, and those given one at a time."""
    together, alone = answers_again(profile)
    return JUDGED_ARMS * judged_images(profile) + together, alone


def answers_again(profile: Profile) -> tuple[int, int]:
    """Answers under other conditions: those given in batches as evaluation's are, and those given one at a time."""
    pairs = profile.evaluate.variants
    return len(variants()) * pairs, 0


def _drawn(toy: Toy) -> list[int]:
    return [count for _ in range(LOCO_CATEGORIES) for count in (toy.good, toy.logical, toy.structural)]
