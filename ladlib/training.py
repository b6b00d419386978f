"""What SFT and GRPO share: loading a policy, its adapters, the rows, the step log, resuming, the checkpoint."""

import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_type_hints

import torch
from datasets import Dataset
from peft import LoraConfig
from pydantic import ConfigDict, TypeAdapter, ValidationError
from transformers import PrinterCallback, Qwen2_5_VLForConditionalGeneration, Trainer, TrainerCallback
from trl import GRPOConfig, SFTConfig

from ladlib import models
from ladlib.checksums import seal
from ladlib.config import Data, Grpo, Model, Profile, Sft
from ladlib.data.pairing import pair_images
from ladlib.errors import UserError
from ladlib.families import LARGE, LORA_TARGETS
from ladlib.leakage import TrainingFile, write_manifest
from ladlib.models import PairProcessor, best_device
from ladlib.progress import Progress
from ladlib.records import Pair, Record
from ladlib.resume import last_state, origin_of, state_dir
from ladlib.runs import RunFolder, append_json, read_jsonl, write_text

# TRL and PEFT still use transformers' old name of it.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing`? is deprecated", category=FutureWarning)

SAVE_STEPS = 20  # after so many, all is kept that a killed training needs to resume
LARGE_SFT_SAVE_STEPS = 200  # SFT of a large model takes less time than to write that so often


def load_policy(profile: Profile, name: str) -> tuple[Qwen2_5_VLForConditionalGeneration, PairProcessor]:
    """The model to train and its processor.

    Weights that are trained themselves are float32, since an update of 1e-6 vanishes in bfloat16's eight bits;
    autocast computes in the profile's dtype.
    """
    settings = profile.model if profile.model.lora_rank else profile.model.model_copy(update={"dtype": "float32"})
    policy = models.load_model(name := models.whole_model(name), settings)
    policy.name_or_path = name  # the base that an adapter trained on it names
    if profile.parallel.method != "zero3":  # which needs it; else it makes a backward pass of the frozen vision tower
        policy.enable_input_require_grads = lambda: None
    freeze(policy, profile.model)
    return policy, models.load_processor(name, profile.data)


def freeze(policy: Qwen2_5_VLForConditionalGeneration, settings: Model) -> None:
    """Exclude the vision tower and its projector from training if the profile says so."""
    if settings.freeze_vision:
        policy.model.visual.requires_grad_(False)


def lora_config(rank: int) -> LoraConfig | None:
    """The adapters on the language model's linear layers; None for rank 0."""
    if not rank:
        return None
    return LoraConfig(  # alpha and dropout of VLM-R1's LoRA script
        r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=LORA_TARGETS, task_type="CAUSAL_LM",
    )  # fmt: skip


def common_arguments(profile: Profile, stage: Sft | Grpo, folder: Path, seed: int, policy: torch.nn.Module) -> dict:
    """The arguments that TRL's configurations of both stages take alike."""
    cpu, is_large = best_device() == "cpu", models.count_parameters(policy) > LARGE
    return dict(
        output_dir=str(state_dir(folder)), seed=seed, data_seed=seed, use_cpu=cpu, dataloader_pin_memory=not cpu,
        learning_rate=stage.learning_rate, warmup_steps=stage.warmup, max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs, per_device_train_batch_size=stage.micro_batch_size,
        bf16=profile.model.dtype == "bfloat16", gradient_checkpointing=is_large,
        save_strategy="steps", save_steps=LARGE_SFT_SAVE_STEPS if is_large and isinstance(stage, Sft) else SAVE_STEPS,
        save_total_limit=None,  # ResumeMixin
        dataloader_num_workers=0 if cpu else 4,  # they open images while the GPU works
        logging_nan_inf_filter=False,  # else a loss that is NaN is logged as the mean of those before
        logging_steps=1, logging_first_step=True, report_to="none", disable_tqdm=True,
        ddp_find_unused_parameters=False,  # every trained weight is used in each pass
        remove_unused_columns=False,  # the transform and the rewards read the columns
    )  # fmt: skip


SET_BY_LADLIB = (  # from the profile's own values
    "learning_rate", "warmup_steps", "max_steps", "num_train_epochs", "per_device_train_batch_size",
    "gradient_accumulation_steps", "bf16", "seed", "data_seed", "num_generations", "max_completion_length",
    "temperature", "beta", "reward_weights", "use_vllm", "vllm_mode",
    # fixed, since logs, resuming, images and completions depend on them
    "output_dir", "use_cpu", "dataloader_pin_memory", "save_strategy", "save_total_limit", "logging_nan_inf_filter",
    "logging_steps", "logging_first_step", "report_to", "disable_tqdm", "remove_unused_columns", "max_length",
    "completion_only_loss", "generation_kwargs", "shuffle_dataset", "model_init_kwargs",
)  # fmt: skip


def check_trl_options(profile: Profile) -> None:
    """Raises :class:`UserError` for an option of ``sft.trl`` or ``grpo.trl`` that is unknown, mistyped or ours."""
    for stage, config in (("sft", SFTConfig), ("grpo", GRPOConfig)):
        types = get_type_hints(config)
        for name, value in getattr(profile, stage).trl.items():
            option = f"{stage}.trl.{name}"
            if name in SET_BY_LADLIB:
                raise UserError(f"{option} is set by ladlib.", "Remove it; most are values of a profile themselves.")
            if name not in types:
                raise UserError(f"{option} is no option of TRL.", f"Check its spelling in {config.__name__}.")
            try:
                adapter = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
                adapter.validate_python(value, strict=True)
            except ValidationError as error:
                message = f"{option}: {error.errors()[0]['msg']}, got {value!r}."
                raise UserError(message, "Correct that value.") from error


def count_devices() -> int:
    """The number of processes that train together, as ``accelerate launch`` and torchrun set it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def on_one_gpu(arguments: SFTConfig | GRPOConfig) -> SFTConfig | GRPOConfig:
    """``arguments``, of one GPU where a lone process sees several: TRL refuses to divide its batches among them."""
    if count_devices() == 1:
        arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def accumulation(whole: int, micro: int, what: str) -> int:
    """The number of micro-batches of each device in a whole batch, which all devices share.

    Raises :class:`UserError` where it is not an integer.
    """
    devices = count_devices()
    if whole % (micro * devices):
        each = f"micro_batch_size {micro}" + (f" on each of {devices} devices" if devices > 1 else "")
        raise UserError(f"{what} {whole} is no multiple of {each}.", "Change one of them.")
    return whole // (micro * devices)


def dataset_of(pairs: Sequence[Pair], root: Path | str, data: Data, messages: Sequence[dict]) -> Dataset:
    """A row per pair: its fields, ``images`` [reference image, test image], and the columns of its ``messages``.

    Images are opened when a row is read.
    """
    rows = [
        {"id": pair.id, "category": pair.test.category, "label": pair.test.label, "reference": pair.reference,
         "test": pair.test.image, "number": number}
        for number, pair in enumerate(pairs)
    ]  # fmt: skip

    def read(batch: dict[str, list]) -> dict[str, list]:
        numbers = batch.pop("number")
        columns = {key: [messages[number][key] for number in numbers] for key in messages[0]}
        return batch | {"images": [pair_images(pairs[number], root, data) for number in numbers]} | columns

    return Dataset.from_list(rows).with_transform(read)


def training_fingerprint(profile: Profile, stage: Sft | Grpo, model: str, seed: int, records: Sequence[Record]) -> dict:
    """All inputs of a training: a killed one resumes only where every value is the same."""
    rows = "\n".join(record.model_dump_json() for record in records)
    return {
        "model": models.fingerprint(model), "seed": seed, "devices": count_devices(),
        "shown": hashlib.sha256(rows.encode()).hexdigest(),
        "data": profile.data.model_dump(include={"min_pixels", "max_pixels"}),
        "settings": profile.model.model_dump() | stage.model_dump(),
    }  # fmt: skip


def fit_and_save(
    trainer: Trainer, profile: Profile, run: RunFolder, arm: str, seed: int, *, inputs: dict,
    files: Sequence[TrainingFile], columns: Callable[[dict], dict], merge: bool = False,
) -> Path:  # fmt: skip
    """Train, then write the model (or its adapter) and tokenizer into the checkpoint, completely or not at all.

    Writes the manifest of ``files`` first. Resumes a killed training of the same ``inputs`` and keeps a finished one; a
    checkpoint of other inputs is moved aside. ``columns`` makes a row of the log of the trainer's own, ``merge`` adds
    the whole model to an adapter. UserError where an alarm stops it, steps are missing or weights are not finite.
    """
    folder, is_main = run.checkpoint(arm, seed), trainer.is_world_process_zero()
    if is_main:
        write_manifest(run.manifest(arm, seed), files)
    trainer.inputs = inputs = json.loads(json.dumps(inputs))  # as it is read again
    origin = origin_of(folder)
    trained = origin is not None and origin | {"devices": 0} == inputs | {"devices": 0}
    if trained and run.log(arm, seed).exists() and (getattr(trainer, "rollouts", None) or folder).exists():
        print(f"{arm}: {folder} was trained from the same inputs and is kept")
        shutil.rmtree(state_dir(folder), ignore_errors=True)
        return folder
    trainer.remove_callback(PrinterCallback)  # prints a dictionary per step
    trainer.add_callback(StepLog(run, arm, seed, columns, profile.stop_on_alarm))
    states = state_dir(folder)
    with trainer.accelerator.main_process_first():
        last = last_state(states, inputs)
    trainer.train(resume_from_checkpoint=last)
    if trainer.state.global_step != (steps := trainer.state.max_steps):
        raise UserError(f"{arm} ended before its {steps} steps were taken.", "Give it more data, or smaller steps.")
    parts = [getattr(one, "ds_tensor", getattr(one, "_local_tensor", one)) for one in trainer.model.parameters()]
    if not all(part.isfinite().all() for part in parts):
        raise UserError(f"{arm} ended with weights that are not finite.", "Lower its learning rate.")
    if trainer.is_fsdp_enabled:  # the states are shards, the checkpoint is a plain folder
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(states / "final"))
    trainer.accelerator.wait_for_everyone()
    if is_main:
        (states / "final" / "training_args.bin").unlink(missing_ok=True)
        if merge and profile.model.lora_rank and profile.parallel.method != "zero3":  # which divides what is loaded
            models.write_merged(states / "final", profile.model, trainer.processing_class)
        seal(states / "final", inputs)
        if origin and not trained:  # trained by hand: the pipeline removes its own
            aside = folder.with_name(f"{folder.name}-before")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
            print(f"{arm}: the earlier checkpoint, trained from other inputs, is now {aside}")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(states / "final", folder)
        shutil.rmtree(states)
    trainer.accelerator.wait_for_everyone()
    return folder


ALARMS: tuple[tuple[str, Callable[[float], bool], int, str], ...] = (
    ("loss", lambda loss: not math.isfinite(loss), 1, "the loss is not finite; lower the learning rate"),
    ("grad_norm", lambda norm: not math.isfinite(norm), 1, "the gradient is not finite; lower the learning rate"),
    ("frac_reward_zero_std", lambda share: share > 0.8, 5, "in more than 80 % of the groups all rewards are equal, so "
     "there is nothing to learn from; raise the temperature or choose other pairs"),
    ("clipped_share", lambda share: share > 0.5, 5, "more than half of the completions are truncated; "
     "raise max_new_tokens"),
    ("yes_rate", lambda rate: rate == 0, 5, "all answers are no; lower the learning rate or raise beta"),
    ("yes_rate", lambda rate: rate == 1, 5, "all answers are yes; lower the learning rate or raise beta"),
)  # fmt: skip
"""Column of the log, which value is a sign of failure, in how many consecutive steps it raises an alarm, message."""


class StepLog(TrainerCallback):
    """Appends a row per step to the log, with the alarms that it raises, and reports the progress.

    ``columns`` makes a row of the trainer's own log and the step's seconds. An alarm is also a warning; where ``stop``
    is set, it raises :class:`UserError`. When a training resumes, the rows of later steps are removed.
    """

    def __init__(self, run: RunFolder, arm: str, seed: int, columns: Callable[[dict], dict], stop: bool) -> None:
        self.path, self.rollouts, self.title = run.log(arm, seed), run.rollouts(arm, seed), arm
        self.columns, self.stop = columns, stop
        self.streaks: dict[str, int] = {}  # alarm: consecutive steps with its sign

    def on_train_begin(self, args, state, control, **_: object) -> None:
        for path in (self.path, self.rollouts) if state.is_world_process_zero else ():
            if path.exists():
                rows = [row for row in read_jsonl(path) if row["step"] <= state.global_step]
                write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self.progress = Progress(self.title, "step", state.max_steps, begun=state.global_step)
        if state.global_step:
            print(f"{self.title}: resuming after step {state.global_step}")
        self.clock = time.perf_counter()

    def on_log(self, args, state, control, logs: dict, **_: object) -> None:
        if "loss" not in logs:
            return  # the summary at the end
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        row = {"step": state.global_step} | self.columns(logs | {"seconds": seconds}) | {"seconds": seconds}
        new = self.alarms(row)
        if state.is_world_process_zero:
            append_json(self.path, row | ({"alarms": new} if new else {}))
            name = "reward" if "reward" in row else "loss"
            self.progress.tell(state.global_step, f"{name} {row[name]:.3f}")
            for message in new:
                warnings.warn(f"{self.title}, step {state.global_step}: {message}", stacklevel=2)
        if new and self.stop:  # in every process
            message = f"{self.title} stopped at step {state.global_step}: {new[0]}."
            raise UserError(message, f"Change a value of the profile. The last stored state is in {args.output_dir}.")

    def alarms(self, row: dict) -> list[str]:
        """The alarms that ``row``, the next of the log, raises."""
        signs = [
            (text, steps) for name, is_bad, steps, text in ALARMS if row.get(name) is not None and is_bad(row[name])
        ]
        self.streaks = {text: self.streaks.get(text, 0) + 1 for text, _ in signs}
        return [text for text, steps in signs if self.streaks[text] == steps]
