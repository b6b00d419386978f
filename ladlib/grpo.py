"""Stage 2, GRPO: several answers to one pair, rewarded for being right and for keeping the format.

    train(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), seed=0, model="…/sft-seed0")

TRL's ``GRPOTrainer`` with a clock added; the rewards are :mod:`ladlib.rewards`, which meet the text in
the parser and nowhere else. Departures from the paper, whose hyper-parameters are unknown:

1. Group size, clip range, KL weight and rewards after VLM-R1; the profile names a source per value.
2. The objective is DeepSeekMath's (arXiv 2402.03300): advantages divided by the group's standard
   deviation (``scale_rewards="group"``), token losses averaged within a completion, then over
   completions (``loss_type="grpo"``); one update per batch of completions, so nothing is ever clipped.
3. No top-k or top-p: completions are drawn from the policy itself at the profile's temperature, except
   that vision tokens cannot be drawn.
4. The KL term is multiplied by the policy's ratio to itself: 1 in value, but its gradient is then that of the
   divergence (DeepSeek-V3.2, arXiv 2512.02556; TRL's default).
5. Each step sees logical and good pairs in turn, so that a step's labels are balanced.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from trl import GRPOConfig, GRPOTrainer

from ladlib import prompts
from ladlib.alarms import Alarms
from ladlib.config import Grpo, Profile
from ladlib.conversations import balanced_pairs
from ladlib.engine.rollouts import hold_against_transformers
from ladlib.errors import UserError
from ladlib.manifest import shown_files, write_manifest
from ladlib.models import VISION_TOKENS, PairProcessor, decode
from ladlib.parsing import parse_answer
from ladlib.records import Pair
from ladlib.rewards import accuracy_reward, format_reward
from ladlib.runs import RunFolder, append_json
from ladlib.shared_prefix.trainer import SharedPrefix
from ladlib.training import (
    Resuming,
    StepLog,
    accumulation,
    common_arguments,
    count_devices,
    fit_and_save,
    lazy_rows,
    load_policy,
    lora_config,
    origin,
    rows_of,
)

KEPT_GROUPS = 4  # groups of a step whose completions are written down

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
    """Train ``model`` and return the folder of its checkpoint; the KL term holds it near where it starts.

    ``pairs`` are seen in their order; those of :func:`balanced_pairs` where None. Writes
    ``run.manifest(arm, seed)`` first, ``run.log(arm, seed)`` and ``run.rollouts(arm, seed)`` as it goes and the
    checkpoint at the end. Raises :class:`UserError` for data or a model that is not there, for an image of the
    test set, and for batches that do not divide.
    """
    if not profile.model.lora and (Path(model) / "adapter_config.json").is_file():
        # The trainer would load the adapter's base as the frozen model of the KL term.
        raise UserError(f"{model} is an adapter, the profile trains whole models.", "Use its own profile.")
    pairs = balanced_pairs(profile, data_root, seed) if pairs is None else pairs
    print(f"{arm}: {len(pairs)} pairs, {sum(one.test.label == 'yes' for one in pairs)} of them anomalous")
    shown = shown_files(pairs, data_root)
    policy, processor = load_policy(profile, model)
    trainer = make_trainer(profile, pairs, data_root, policy, processor, run.checkpoint(arm, seed), seed)
    if trainer.is_world_process_zero():
        write_manifest(run.manifest(arm, seed), shown)
    trainer.rollouts = run.rollouts(arm, seed)
    trainer.add_callback(
        StepLog(run.log(arm, seed), arm, _row, Alarms("GRPO", profile.grpo.stop_on_alarm), beside=trainer.rollouts)
    )
    return fit_and_save(trainer, run.checkpoint(arm, seed), origin(profile, profile.grpo, model, seed, shown))


def make_trainer(
    profile: Profile,
    pairs: list[Pair],
    data_root: Path | str,
    policy,
    processor: PairProcessor,
    folder: Path,
    seed: int,
) -> "TimedTrainer":
    """The trainer, set up; ``folder`` is where its checkpoint will be."""
    if profile.grpo.redraws and not profile.grpo.shared_prefix:
        raise UserError("grpo.redraws needs grpo.shared_prefix.", "Set grpo.shared_prefix to true, or redraws to 0.")
    if profile.grpo.shared_prefix and profile.grpo.engine != "transformers":
        told = f"grpo.shared_prefix draws completions itself, and grpo.engine is {profile.grpo.engine}."
        raise UserError(told, "Change one of them in the profile.")
    dataset = lazy_rows(rows_of(pairs, data_root), profile.data, lambda row: {"prompt": prompts.rlad_messages()})
    trainer = (SharedTrainer if profile.grpo.shared_prefix else TimedTrainer)(
        policy, [_accuracy(processor), _format(processor)], make_config(profile, policy, folder, seed),
        train_dataset=dataset, processing_class=processor, peft_config=lora_config(policy, profile.model.lora),
    )  # fmt: skip
    if profile.grpo.shared_prefix and trainer.accelerator.is_fsdp2:
        told = "grpo.shared_prefix needs a whole model on each device, and FSDP2 divides it."
        raise UserError(told, "Set grpo.shared_prefix to false, or parallel.method to ddp or zero3.")
    trainer.redraws = profile.grpo.redraws
    # Divided by accelerate, a model does not know of it. Its generate would stop at the end of this device's answers
    # and leave the others waiting for its share of the weights.
    policy._is_fsdp_managed_module = trainer.accelerator.is_fsdp2
    return trainer


def make_config(profile: Profile, policy, folder: Path, seed: int) -> GRPOConfig:
    """The trainer's configuration: one generation and one update a step.

    A step sees ``prompts_per_step * group_size`` completions over all devices, in micro-batches.
    """
    grpo, common = profile.grpo, common_arguments(profile, profile.grpo, folder, seed, policy)
    if grpo.prompts_per_step % count_devices():
        told = f"grpo.prompts_per_step {grpo.prompts_per_step} is no multiple of {count_devices()} devices."
        raise UserError(told, "Change it in the profile.")
    completions = grpo.prompts_per_step * grpo.group_size
    return GRPOConfig(
        **common,
        gradient_accumulation_steps=accumulation(completions, grpo.micro_batch_size, "prompts_per_step * group_size ="),
        num_generations=grpo.group_size, max_completion_length=grpo.max_completion_tokens,
        temperature=grpo.temperature, top_p=1.0, top_k=0,
        beta=grpo.beta, use_bias_correction_kl=True, epsilon=grpo.epsilon, num_iterations=1,
        loss_type="grpo", scale_rewards="group",
        reward_weights=[grpo.accuracy_weight, grpo.format_weight],
        lr_scheduler_type="linear", disable_dropout=True, shuffle_dataset=False, **_engine(grpo, policy),
    )  # fmt: skip


def _engine(grpo: Grpo, policy) -> dict:
    """What draws the completions, and that it draws no vision token: TRL bans one of the five."""
    if grpo.engine == "transformers":
        return dict(use_vllm=False, generation_kwargs={"suppress_tokens": policy.generation_config.suppress_tokens})
    mode = grpo.engine.removeprefix("vllm_")
    server = {"vllm_server_base_url": grpo.vllm_url} if grpo.vllm_url else {}
    return dict(use_vllm=True, vllm_mode=mode, generation_kwargs={"bad_words": list(VISION_TOKENS)}, **server)


class TimedTrainer(Resuming, GRPOTrainer):
    """The stock trainer, which also tells the time split and the spread of each group, and keeps rollouts.

    ``update`` is all of a step that is neither generation nor reward: both passes for log-probabilities,
    the backward pass, the optimizer.
    """

    def __init__(self, *args, rollouts: Path | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.rollouts = rollouts  # where groups are written, if anywhere
        self._spent: dict[str, float] = {}  # seconds of the parts of the present step
        self._is_believed = not self.use_vllm

    def _generate(self, prompts: list):
        if not self._is_believed:
            hold_against_transformers(self, prompts)
            self._is_believed = True
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
        if self.rollouts and self.accelerator.is_main_process:
            self._keep(inputs, output)
        return output

    def _keep(self, inputs: list[dict], output: dict) -> None:
        """Write the first groups of the step. The main process holds the first rows of all rewards."""
        size = self.num_generations
        drawn = zip(output["completion_ids"], output["completion_mask"], strict=True)
        texts = [decode(self._tokenizer, ids[mask.bool()].tolist())[0] for ids, mask in drawn]
        weights = self.reward_weights.tolist()
        for start in range(0, min(len(inputs), KEPT_GROUPS * size), size):
            completions = [
                {"text": texts[i], "accuracy": accuracy, "format": form,
                 "reward": weights[0] * accuracy + weights[1] * form, "advantage": output["advantages"][i].item()}
                for i, (accuracy, form) in enumerate(self._rewards[start : start + size].tolist(), start)
            ]  # fmt: skip
            about = {key: inputs[start][key] for key in ("id", "category", "label", "reference", "test")}
            append_json(self.rollouts, {"step": self.state.global_step + 1} | about | {"completions": completions})

    def log(self, logs: dict, start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= {f"seconds_{part}": self._spent.pop(part, 0.0) for part in ("generate", "reward")}
        super().log(logs, start_time)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._spent[part] = self._spent.get(part, 0.0) + time.perf_counter() - start


class SharedTrainer(SharedPrefix, TimedTrainer):
    """The same, with one reading of what a group's completions have in common (:mod:`ladlib.shared_prefix`)."""

    def _generate_and_score_completions(self, inputs: list[dict]) -> dict:
        self._asked = inputs[:: self.num_generations]
        return super()._generate_and_score_completions(inputs)

    def _teaches(self, number: int, completions: Sequence[Sequence[int]]) -> bool:
        label, weights = self._asked[number]["label"], self.reward_weights.tolist()
        texts = [decode(self._tokenizer, ids)[0] for ids in completions]
        return len({weights[0] * accuracy_reward(one, label) + weights[1] * format_reward(one) for one in texts}) > 1


def _accuracy(processor: PairProcessor):
    """The accuracy reward as the trainer calls it. It reads the raw tokens: TRL's text leaves special ones out."""

    def accuracy(completion_ids: list[list[int]], label: list[str], log_metric, **_: object) -> list[float]:
        texts = [decode(processor.tokenizer, ids)[0] for ids in completion_ids]
        log_metric("yes_rate", fmean(parse_answer(text) == "yes" for text in texts))
        return [accuracy_reward(text, one) for text, one in zip(texts, label, strict=True)]

    return accuracy


def _format(processor: PairProcessor):
    def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
        return [format_reward(decode(processor.tokenizer, ids)[0]) for ids in completion_ids]

    reward.__name__ = "format"  # the trainer's name for it in its log
    return reward


def _row(logs: dict) -> dict:
    row = {column: logs.get(name) for column, name in METRICS.items()}
    return row | {"seconds_update": logs["seconds"] - row["seconds_generate"] - row["seconds_reward"]}
