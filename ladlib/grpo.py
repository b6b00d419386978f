"""Stage 2, GRPO: several answers to one pair, rewarded for being right and for keeping the format.

    train(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), seed=0, model="…/sft-seed0")

TRL's ``GRPOTrainer`` with the rewards of :mod:`ladlib.rewards`. Departures from the paper, whose hyper-parameters are
unknown:

1. Group size, clip range, KL weight and rewards after VLM-R1; the profile names a source per value.
2. The objective is DeepSeekMath's (arXiv 2402.03300): advantages divided by the group's standard deviation, token
   losses averaged within a completion, then over completions; one update per batch, so nothing is ever clipped.
3. No top-k or top-p: completions are sampled from the policy at the profile's temperature, without vision tokens.
4. The KL term is multiplied by the policy's ratio to itself: 1 in value, but its gradient is then that of the
   divergence (DeepSeek-V3.2, arXiv 2512.02556; TRL's default).
5. Each step has logical and good pairs in turn, so that its labels are balanced.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

from trl import GRPOConfig, GRPOTrainer

from ladlib import prompts, training
from ladlib.config import Profile
from ladlib.errors import UserError
from ladlib.families import VISION_TOKENS, revision_of
from ladlib.leakage import training_files
from ladlib.models import PairProcessor, decode
from ladlib.parsing import parse_answer
from ladlib.records import Pair
from ladlib.resume import ResumeMixin
from ladlib.rewards import accuracy_reward, format_reward
from ladlib.runs import RunFolder, append_json
from ladlib.sft_data import balanced_pairs

STORED_GROUPS = 4  # groups of a step whose completions are written down
PARITY_PAIRS, PARITY_TOKENS = 4, 8  # later tokens may differ where two are almost equally probable

METRICS = {
    "reward": "reward", "accuracy_reward": "rewards/accuracy/mean", "format_reward": "rewards/format/mean",
    "reward_std": "group_std", "frac_reward_zero_std": "frac_reward_zero_std",
    "completion_length": "completions/mean_length", "clipped_share": "completions/clipped_ratio",
    "yes_rate": "yes_rate", "kl": "kl", "entropy": "entropy", "loss": "loss", "grad_norm": "grad_norm",
    "learning_rate": "learning_rate", "seconds_generate": "seconds_generate", "seconds_reward": "seconds_reward",
}  # fmt: skip
"""Column of the log: the trainer's name of it. ``kl`` is null without a KL term."""


def train(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, model: str, arm: str = "sft_grpo",
    pairs: list[Pair] | None = None,
) -> Path:  # fmt: skip
    """The folder of the checkpoint trained from ``model``, which is also the frozen model of the KL term.

    ``pairs`` (those of :func:`balanced_pairs` where None) are taken in their order. Raises :class:`UserError` for
    missing data or model, an image of the test set, and batch sizes that do not divide.
    """
    training.check_trl_options(profile)
    wanted = 0 if pairs else profile.data.grpo_pairs // 2 * 2
    pairs = balanced_pairs(profile, data_root, seed) if pairs is None else pairs
    if len(pairs) < wanted:
        warnings.warn(f"{arm}: the data give {len(pairs)} pairs, data.grpo_pairs wants {wanted}", stacklevel=2)
    if len(pairs) < (needed := profile.grpo.prompts_per_step):  # the trainer drops an incomplete step
        what = f"{len(pairs)} pairs do not fill one step of {needed} prompts."
        raise UserError(what, "Lower grpo.prompts_per_step, or give data with more logical test images.")
    print(f"{arm}: {len(pairs)} pairs, {sum(pair.test.label == 'yes' for pair in pairs)} of them anomalous")
    files = training_files(pairs, data_root)
    policy, processor = training.load_policy(profile, model)
    trainer = make_trainer(profile, pairs, data_root, policy, processor, run.checkpoint(arm, seed), seed)
    trainer.rollouts = run.rollouts(arm, seed)
    inputs = training.training_fingerprint(profile, profile.grpo, model, seed, files)
    return training.fit_and_save(trainer, profile, run, arm, seed, inputs=inputs, files=files, columns=_columns)


def make_trainer(
    profile: Profile, pairs: list[Pair], data_root: Path | str, policy, processor: PairProcessor, folder: Path,
    seed: int,
) -> "TimedTrainer":  # fmt: skip
    """The trainer, ready to run; ``folder`` is where its checkpoint will be."""
    trainer_class = TimedTrainer
    if profile.model.shared_prefix:
        from ladlib.fast.shared_prefix import SharedPrefix

        if profile.grpo.engine != "transformers":
            message = f"model.shared_prefix samples by itself, and grpo.engine is {profile.grpo.engine}."
            raise UserError(message, "Change one of them in the profile.")
        trainer_class = type("SharedTrainer", (SharedPrefix, TimedTrainer), {})
    messages = [{"prompt": prompts.rlad_messages()}] * len(pairs)
    trainer = trainer_class(
        policy, make_rewards(processor), make_config(profile, policy, folder, seed),
        train_dataset=training.dataset_of(pairs, data_root, profile.data, messages),
        processing_class=processor, peft_config=training.lora_config(profile.model.lora_rank),
    )  # fmt: skip
    # Else generate would stop after this device's answers while the others wait for its share of the weights.
    policy._is_fsdp_managed_module = trainer.accelerator.is_fsdp2
    return trainer


def make_config(profile: Profile, policy, folder: Path, seed: int) -> GRPOConfig:
    """The trainer's configuration: one generation and one update per step.

    A step has ``prompts_per_step * group_size`` completions over all devices, in micro-batches.
    """
    grpo, devices = profile.grpo, training.count_devices()
    if grpo.prompts_per_step % devices:
        message = f"grpo.prompts_per_step {grpo.prompts_per_step} is no multiple of {devices} devices."
        raise UserError(message, "Change it in the profile.")
    completions, micro = grpo.prompts_per_step * grpo.group_size, grpo.micro_batch_size
    if grpo.engine == "transformers":  # TRL itself bans one of the five vision tokens
        engine = dict(use_vllm=False, generation_kwargs={"suppress_tokens": policy.generation_config.suppress_tokens})
    else:
        engine = dict(use_vllm=True, vllm_mode="colocate", generation_kwargs={"bad_words": list(VISION_TOKENS)})
    options = dict(
        **training.common_arguments(profile, grpo, folder, seed, policy),
        gradient_accumulation_steps=training.accumulation(completions, micro, "prompts_per_step * group_size ="),
        num_generations=grpo.group_size, max_completion_length=profile.model.max_new_tokens,
        temperature=grpo.temperature, top_p=1.0, top_k=0,
        beta=grpo.beta, use_bias_correction_kl=True, num_iterations=1,
        loss_type="grpo", scale_rewards="group", reward_weights=list(grpo.reward_weights),
        lr_scheduler_type="linear", disable_dropout=True, shuffle_dataset=False, **engine,
        # Of the reference model: TRL lets every process of FSDP2 spread it over all GPUs, and takes no pinned commit.
        model_init_kwargs={"device_map": None, "revision": revision_of(policy.name_or_path)},
    )  # fmt: skip
    return training.on_one_gpu(GRPOConfig(**options | grpo.trl))


class TimedTrainer(ResumeMixin, GRPOTrainer):
    """The stock trainer, which also logs seconds and the reward spread within groups, and stores rollouts."""

    rollouts: Path | None = None  # where groups are written, if anywhere

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._spent: dict[str, float] = {}  # seconds of the parts of the present step
        self._is_checked = not self.use_vllm

    def _generate(self, prompts: list):
        if not self._is_checked:
            check_parity(self, prompts)
            self._is_checked = True
        with self._timed("generate"):
            return super()._generate(prompts)

    def _calculate_rewards(self, *args, **kwargs):
        with self._timed("reward"):
            self._rewards = super()._calculate_rewards(*args, **kwargs)
        weighted = (self._rewards * self.reward_weights.to(self._rewards.device)).sum(dim=1)
        spread = weighted.view(-1, self.num_generations).std(dim=1).mean().item()
        self._metrics["train"]["group_std"].append(spread)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        output = super()._generate_and_score_completions(inputs)
        size, weights = self.num_generations, self.reward_weights.tolist()
        count = min(len(inputs), STORED_GROUPS * size) if self.rollouts and self.accelerator.is_main_process else 0
        completions = []
        for index in range(count):  # the rows of this process come first in the rewards
            accuracy, form = self._rewards[index].tolist()
            ids = output["completion_ids"][index][output["completion_mask"][index].bool()].tolist()
            completions.append({
                "text": decode(self._tokenizer, ids)[0], "accuracy": accuracy, "format": form,
                "reward": weights[0] * accuracy + weights[1] * form, "advantage": output["advantages"][index].item(),
            })  # fmt: skip
        for start in range(0, count, size):
            about = {key: inputs[start][key] for key in ("id", "category", "label", "reference", "test")}
            group = {"completions": completions[start : start + size]}
            append_json(self.rollouts, {"step": self.state.global_step + 1} | about | group)
        return output

    def log(self, logs: dict, start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {f"seconds_{part}": self._spent.pop(part, 0.0) for part in ("generate", "reward")}
        super().log(logs, start_time)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._spent[part] = self._spent.get(part, 0.0) + time.perf_counter() - start


def make_rewards(processor: PairProcessor) -> list[Callable]:
    """The two rewards as the trainer calls them. They read the tokens: TRL's text omits special ones."""

    def accuracy(completion_ids: list[list[int]], label: list[str], log_metric, **_: object) -> list[float]:
        texts = [decode(processor.tokenizer, ids)[0] for ids in completion_ids]
        log_metric("yes_rate", fmean(parse_answer(text) == "yes" for text in texts))
        return [accuracy_reward(text, truth) for text, truth in zip(texts, label, strict=True)]

    def well_formed(completion_ids: list[list[int]], **_: object) -> list[float]:
        return [format_reward(decode(processor.tokenizer, ids)[0]) for ids in completion_ids]

    well_formed.__name__ = "format"  # the trainer's name for it in its log
    return [accuracy, well_formed]


def _columns(logs: dict) -> dict:
    row = {column: logs.get(name) for column, name in METRICS.items()}
    return row | {"seconds_update": logs["seconds"] - row["seconds_generate"] - row["seconds_reward"]}


def check_parity(trainer: GRPOTrainer, prompts: list) -> None:
    """Raises :class:`UserError` unless vLLM has the prompt tokens and greedy answers of transformers for a few pairs.

    They can differ silently: an image resized again, image tokens inserted twice (TRL issue 6294). Every process must
    call this, since weights are exchanged.
    """
    ids, images, features = trainer._tokenize_prompts(deepcopy(prompts[:: trainer.num_generations][:PARITY_PAIRS]))
    trainer.vllm_generation.sync_weights()
    greedy = deepcopy(trainer.model.generation_config)
    greedy.update(do_sample=False, max_new_tokens=PARITY_TOKENS)
    with patch.multiple(trainer, create=True, use_vllm=False, generation_config=greedy, generation_kwargs=None):
        ours = trainer._generate_single_turn(ids, images, features, 1)[0]
    with patch.multiple(trainer.vllm_generation, temperature=0.0, max_completion_length=PARITY_TOKENS):
        read, theirs, *_ = trainer.vllm_generation.generate(prompts=ids, images=images, num_generations=1)
    for what, expected, got in (("prompt tokens", ids, read), ("first answer tokens", ours, theirs)):
        for number, (row, other) in enumerate(zip(expected, got, strict=True), 1):
            if list(row) != list(other):
                message = f"vLLM and transformers differ in the {what} of pair {number}: {[*other]}, not {[*row]}."
                raise UserError(message, "Use `engine: transformers`, or a version of vLLM that agrees.")
    print(f"vLLM and transformers agree on {len(ids)} pairs: prompt tokens and first answer tokens")
