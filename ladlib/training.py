"""What SFT and GRPO share: loading a policy, its adapters, the rows, the step log, resuming, the checkpoint."""

import difflib
import hashlib
import json
import os
import re
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
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, SFTConfig

from ladlib.alarms import Alarms, Stopped
from ladlib.config import Data, Grpo, Model, Profile, Sft
from ladlib.data.pairing import pair_images
from ladlib.errors import UserError
from ladlib.families import LARGE, LORA_TARGETS
from ladlib.models import PairProcessor, best_device, count_parameters, fingerprint, load_model, load_processor
from ladlib.progress import Progress
from ladlib.records import Pair, Record
from ladlib.runs import append_json, read_jsonl, write_text

# TRL and PEFT still use transformers' old name of it.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing`? is deprecated", category=FutureWarning)

SAVE_STEPS = 20  # after so many, all is kept that a killed training needs to resume


def load_policy(profile: Profile, name: str) -> tuple[Qwen2_5_VLForConditionalGeneration, PairProcessor]:
    """The model to train and its processor.

    Weights that are trained themselves are float32, whatever the profile's dtype: an update of 1e-6 vanishes in
    bfloat16's eight bits. Autocast then computes in the profile's dtype.
    """
    settings = profile.model if profile.model.lora_rank else profile.model.model_copy(update={"dtype": "float32"})
    policy = load_model(name, settings)
    policy.name_or_path = name  # the base that an adapter trained on it names
    freeze(policy, profile.model)
    return policy, load_processor(name, profile.data)


def freeze(policy: Qwen2_5_VLForConditionalGeneration, settings: Model) -> None:
    """Exclude the vision tower and its projector from training, where the profile says so."""
    if settings.freeze_vision:
        policy.model.visual.requires_grad_(False)


def lora_config(model: torch.nn.Module, rank: int) -> LoraConfig | None:
    """The adapters of ``model``; prints their number. None for rank 0; UserError where no layer takes one."""
    if not rank:
        return None
    layers = [name for name, _ in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]
    if not layers:
        raise UserError("No layer of this model takes a LoRA adapter.", "Use a Qwen2.5-VL model, or `lora_rank: 0`.")
    print(f"LoRA of rank {rank} on {len(layers)} linear layers of the language model")
    return LoraConfig(  # alpha and dropout of VLM-R1's LoRA script
        r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=LORA_TARGETS, task_type="CAUSAL_LM",
    )  # fmt: skip


def common_arguments(profile: Profile, stage: Sft | Grpo, folder: Path, seed: int, policy: torch.nn.Module) -> dict:
    """The arguments that TRL's configurations of both stages take alike."""
    cpu = best_device() == "cpu"
    return dict(
        output_dir=str(state_dir(folder)), seed=seed, data_seed=seed, use_cpu=cpu, dataloader_pin_memory=not cpu,
        learning_rate=stage.learning_rate, warmup_steps=stage.warmup, max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs, per_device_train_batch_size=stage.micro_batch_size,
        bf16=profile.model.dtype == "bfloat16", gradient_checkpointing=count_parameters(policy) > LARGE,
        save_strategy="steps", save_steps=SAVE_STEPS, save_total_limit=1,
        logging_nan_inf_filter=False,  # else a loss that is NaN is logged as the mean of those before
        logging_steps=1, logging_first_step=True, report_to="none", disable_tqdm=True,
        ddp_find_unused_parameters=False,  # every trained weight is used in each pass
        remove_unused_columns=False,  # the transform and the rewards read the columns
    )  # fmt: skip


OURS = {
    "learning_rate": "{}.learning_rate", "warmup_steps": "{}.warmup", "max_steps": "{}.steps",
    "num_train_epochs": "{}.epochs", "per_device_train_batch_size": "{}.micro_batch_size",
    "gradient_accumulation_steps": "{}.micro_batch_size", "bf16": "model.dtype", "seed": "--seed",
    "data_seed": "--seed", "num_generations": "grpo.group_size", "max_completion_length": "model.max_new_tokens",
    "temperature": "grpo.temperature", "beta": "grpo.beta", "reward_weights": "grpo.reward_weights",
    "use_vllm": "grpo.engine", "vllm_mode": "grpo.engine",
}  # fmt: skip
"""Options of TRL that a value of the profile sets."""
FIXED = (
    "output_dir", "use_cpu", "dataloader_pin_memory", "save_strategy", "save_total_limit", "logging_nan_inf_filter",
    "logging_steps", "logging_first_step", "report_to", "disable_tqdm", "remove_unused_columns", "max_length",
    "completion_only_loss", "generation_kwargs", "shuffle_dataset",
)  # fmt: skip
"""Options on which logs, resuming, images and answers depend."""


def check_trl_options(profile: Profile) -> None:
    """Raises :class:`UserError` for an option of ``sft.trl`` or ``grpo.trl`` that is unknown, mistyped or ours."""
    for stage, config in (("sft", SFTConfig), ("grpo", GRPOConfig)):
        types = get_type_hints(config)
        for name, value in getattr(profile, stage).trl.items():
            option = f"{stage}.trl.{name}"
            if name in OURS:
                own = OURS[name].format(stage)
                raise UserError(f"{option} is set by {own}.", f"Change {own} instead.")
            if name in FIXED:
                raise UserError(f"{option} is set by ladlib and cannot be changed.", "Remove it from the profile.")
            if name not in types:
                similar = difflib.get_close_matches(name, types, 1)
                hint = f"Did you mean {similar[0]}?" if similar else "Remove it."
                raise UserError(f"{option} is no option of TRL.", hint)
            try:
                adapter = TypeAdapter(types[name], config=ConfigDict(arbitrary_types_allowed=True))
                adapter.validate_python(value, strict=True)
            except ValidationError as error:
                message = f"{option}: {error.errors()[0]['msg']}, got {value!r}."
                raise UserError(message, "Correct that value.") from error


def count_devices() -> int:
    """The number of processes that train together, as ``accelerate launch`` and torchrun set it."""
    return int(os.environ.get("WORLD_SIZE", 1))


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

    Images are opened, at their final size, when a row is read.
    """
    rows = [{"id": pair.id, "category": pair.test.category, "label": pair.test.label, "reference": pair.reference,
             "test": pair.test.image, "number": number} for number, pair in enumerate(pairs)]  # fmt: skip

    def read(batch: dict[str, list]) -> dict[str, list]:
        numbers = batch.pop("number")
        columns = {key: [messages[number][key] for number in numbers] for key in messages[0]}
        return batch | {"images": [pair_images(pairs[number], root, data) for number in numbers]} | columns

    return Dataset.from_list(rows).with_transform(read)


def state_dir(folder: Path) -> Path:
    """Where a training stores its state, until its checkpoint ``folder`` is complete."""
    return folder.with_name(f".{folder.name}.states")


def training_fingerprint(profile: Profile, stage: Sft | Grpo, model: str, seed: int, records: Sequence[Record]) -> dict:
    """All inputs of a training: a killed one resumes only where every value is the same."""
    rows = "\n".join(record.model_dump_json() for record in records)
    return {
        "model": fingerprint(model), "seed": seed,
        "shown": hashlib.sha256(rows.encode()).hexdigest(), "devices": count_devices(),
        "data": profile.data.model_dump(include={"min_pixels", "max_pixels"}),
        "settings": profile.model.model_dump() | stage.model_dump(),
    }  # fmt: skip


def fit_and_save(trainer: Trainer, folder: Path, inputs: dict, log: "StepLog") -> Path:
    """Train, then write the model (or its adapter) and tokenizer into ``folder``, completely or not at all.

    Resumes a killed training of the same ``inputs``, a :func:`training_fingerprint`, with its optimizer, schedule,
    order and random state.
    """
    trainer.remove_callback(PrinterCallback)  # prints a dictionary per step
    trainer.add_callback(log)
    states = state_dir(folder)
    with trainer.accelerator.main_process_first():
        last = _last_state(states, inputs)
    try:
        trainer.train(resume_from_checkpoint=last)
    except Stopped as error:
        raise UserError(f"{error}.", f"{_copy_last(folder)} Change a value of the profile, then run again.") from error
    trainer.save_model(str(states / "final"))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        (states / "final" / "training_args.bin").unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(states / "final", folder)
        shutil.rmtree(states)
    trainer.accelerator.wait_for_everyone()
    return folder


def _copy_last(folder: Path) -> str:
    """Copy the model of the last state to where no other training deletes it; a sentence says where."""
    last = get_last_checkpoint(str(state_dir(folder)))
    if last is None:
        return "No checkpoint was stored before."
    copy = folder.with_name(f"{folder.name}-step{last.rsplit('-', 1)[1]}")
    if not copy.exists():
        shutil.copytree(last, copy, ignore=shutil.ignore_patterns("*.pt", "*.pth", "*.bin", "trainer_state.json"))
    return f"The last good checkpoint is {copy}."


def _last_state(states: Path, inputs: dict) -> str | None:
    """The last complete state in ``states``, which is emptied where another training wrote it."""
    note, text = states / "origin.json", json.dumps(inputs, indent=2) + "\n"
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(states, ignore_errors=True)
        write_text(note, text)
    while (last := get_last_checkpoint(str(states))) and not _is_complete(Path(last)):
        shutil.rmtree(last)
    return last


def _is_complete(state: Path) -> bool:
    """Whether the file that the trainer writes last can be read."""
    try:
        return "global_step" in json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


class ResumeMixin:
    """Mixed into a trainer: resumes whole models too.

    A Qwen2.5-VL is saved under other names than its layers have. The stock trainer then loads nothing, warns, and
    continues from the weights it began with (https://github.com/huggingface/transformers/issues/43701).
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or not (Path(resume_from_checkpoint) / "config.json").is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # shards, or an adapter
            return
        stored = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            resume_from_checkpoint, dtype=torch.float32, use_safetensors=True
        )
        (model or self.model).load_state_dict(stored.state_dict())


class StepLog(TrainerCallback):
    """Appends a row per step to ``path`` and reports the progress.

    ``columns`` makes a row of the trainer's own log and the step's seconds; a row has the ``alarms`` that it raises.
    Where an alarm stops the training, no state is stored of a step with a sign of one. When a training resumes, the
    rows of later steps are removed from ``path`` and from ``rollouts``.
    """

    def __init__(self, path: Path, title: str, columns: Callable[[dict], dict], alarms: Alarms,
                 rollouts: Path | None = None) -> None:  # fmt: skip
        self.path, self.title, self.columns, self.alarms, self.rollouts = path, title, columns, alarms, rollouts

    def on_train_begin(self, args, state, control, **_: object) -> None:
        for path in (self.path, self.rollouts) if state.is_world_process_zero else ():
            if path and path.exists():
                _truncate(path, state.global_step)
        self.progress = Progress(self.title, "step", state.max_steps, begun=state.global_step)
        if state.global_step:
            print(f"{self.title}: resuming after step {state.global_step}")
        self.clock = time.perf_counter()

    def on_log(self, args, state, control, logs: dict, **_: object) -> None:
        if "loss" not in logs or not (state.is_world_process_zero or self.alarms.stop):
            return  # the summary at the end; other processes read a row only to stop with the first
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        row = {"step": state.global_step} | self.columns(logs | {"seconds": seconds}) | {"seconds": seconds}
        new = self.alarms(row)
        if state.is_world_process_zero:
            append_json(self.path, row | ({"alarms": new} if new else {}))
            name = "reward" if "reward" in row else "loss"
            self.progress.tell(state.global_step, f"{name} {row[name]:.3f}")
        if self.alarms.stop and not self.alarms.is_good:
            control.should_save = False
        if self.alarms.stop and new:
            raise Stopped(f"{self.alarms.title} stopped at step {state.global_step}: {new[0]}")


def _truncate(path: Path, step: int) -> None:
    """Remove the rows of ``path`` after ``step``."""
    rows = [row for row in read_jsonl(path) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
