"""What SFT and GRPO share: loading a policy, its adapters, the rows, the log, the checkpoint."""

import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    PrinterCallback,
    Qwen2_5_VLForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from ladlib.alarms import Alarms, Stopped
from ladlib.config import Data, Grpo, Lora, Model, Profile, Sft
from ladlib.conversations import view
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.models import PairProcessor, best_device, count_parameters, fingerprint, load_model, load_processor
from ladlib.progress import Progress
from ladlib.records import Pair, Record
from ladlib.runs import append_json, read_jsonl, write_text
from ladlib.sizes import LARGE

# TRL and PEFT still use transformers' old name of it.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing`? is deprecated", category=FutureWarning)

LORA_TARGETS = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"
"""The language model's linear layers and nothing else: bare names such as ``q_proj`` or ``up_proj`` would
also match parts of the vision tower (peft issue 2615)."""


def load_policy(profile: Profile, name: str) -> tuple[Qwen2_5_VLForConditionalGeneration, PairProcessor]:
    """The model to train and its processor.

    Weights that are trained themselves are kept in float32, whatever the profile's dtype: an update of
    1e-6 vanishes in bfloat16's eight bits. The arithmetic is then done in the profile's dtype by autocast.
    """
    settings = profile.model if profile.model.lora else profile.model.model_copy(update={"dtype": "float32"})
    policy = load_model(name, settings)
    policy.name_or_path = name  # where an adapter trained on it says its base is
    freeze(policy, profile.model)
    return policy, load_processor(name, profile.data, profile.model.revision)


def freeze(policy: Qwen2_5_VLForConditionalGeneration, settings: Model) -> None:
    """Leave the vision tower and its projector as they are in training, where the profile says so."""
    if settings.freeze_vision:
        policy.model.visual.requires_grad_(False)


def lora_config(model: torch.nn.Module, lora: Lora | None) -> LoraConfig | None:
    """The adapters of ``model``; prints how many layers get one. Raises :class:`UserError` where none does."""
    if lora is None:
        return None
    matched = [name for name, _ in model.named_modules() if re.fullmatch(LORA_TARGETS, name)]
    if not matched:
        raise UserError("No layer of this model takes a LoRA adapter.", "Use a Qwen2.5-VL model, or `lora: null`.")
    print(f"LoRA of rank {lora.rank} on {len(matched)} linear layers of the language model")
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=LORA_TARGETS,
        task_type="CAUSAL_LM",
    )  # fmt: skip


def common_arguments(profile: Profile, stage: Sft | Grpo, folder: Path, seed: int, policy: torch.nn.Module) -> dict:
    """The arguments that both of TRL's configurations take alike."""
    cpu = best_device() == "cpu"
    return dict(
        output_dir=str(states(folder)), seed=seed, data_seed=seed, use_cpu=cpu, dataloader_pin_memory=not cpu,
        learning_rate=stage.learning_rate, warmup_steps=stage.warmup, max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs, per_device_train_batch_size=stage.micro_batch_size,
        bf16=profile.model.dtype == "bfloat16", gradient_checkpointing=count_parameters(policy) > LARGE,
        save_strategy="steps", save_steps=stage.save_steps, save_total_limit=1,
        logging_nan_inf_filter=False,  # else a loss that is no number is logged as the mean of those before
        logging_steps=1, logging_first_step=True, report_to="none", disable_tqdm=True,
        ddp_find_unused_parameters=False,  # all that is trained is used in each pass
        remove_unused_columns=False,  # the columns are read by the transform and by the rewards
    )  # fmt: skip


def count_devices() -> int:
    """How many processes train together: ``accelerate launch`` and torchrun tell each of them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def accumulation(whole: int, micro: int, what: str) -> int:
    """How many micro-batches each device makes of a whole batch, which is divided among all of them.

    Raises :class:`UserError` where it does not come out even.
    """
    devices = count_devices()
    if whole % (micro * devices):
        each = f"micro_batch_size {micro}" + (f" on each of {devices} devices" if devices > 1 else "")
        raise UserError(f"{what} {whole} is no multiple of {each}.", "Change one of them.")
    return whole // (micro * devices)


def rows_of(pairs: list[Pair], root: Path | str) -> list[dict]:
    """A row for each pair: what is known of it, and where its images lie."""
    folders = {dataset: find_dataset(root, dataset) for dataset in sorted({one.test.dataset for one in pairs})}
    return [
        {
            "id": one.id, "category": one.test.category, "label": one.test.label,
            "reference": one.reference, "test": one.test.image, "folder": str(folders[one.test.dataset]),
        }
        for one in pairs
    ]  # fmt: skip


def lazy_rows(rows: list[dict], data: Data, complete: Callable[[dict], dict]) -> Dataset:
    """``rows`` with an ``images`` column, [reference image, test image], and what ``complete`` adds to a row.

    Images are opened when a row is read, already at their last size.
    """

    def read(batch: dict[str, list]) -> dict[str, list]:
        read_rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        whole = [row | {"images": _images(row, data)} | complete(row) for row in read_rows]
        return {key: [row[key] for row in whole] for key in whole[0]}

    return Dataset.from_list(rows).with_transform(read)


def _images(row: dict, data: Data) -> list:
    paths = (Path(row["folder"], row[which]) for which in ("reference", "test"))
    return [view(path, data.min_pixels, data.max_pixels) for path in paths]


def states(folder: Path) -> Path:
    """Where a training keeps what it needs to go on, until its checkpoint ``folder`` is whole."""
    return folder.with_name(f".{folder.name}.states")


def origin(profile: Profile, stage: Sft | Grpo, model: str, seed: int, shown: Sequence[Record]) -> dict:
    """What a training is made from: one that was killed goes on only where all of it is the same."""
    rows = "\n".join(one.model_dump_json() for one in shown)
    return {
        "model": fingerprint(model, profile.model.revision), "seed": seed,
        "shown": hashlib.sha256(rows.encode()).hexdigest(), "devices": count_devices(),
        "data": profile.data.model_dump(include={"min_pixels", "max_pixels"}),
        "settings": profile.model.model_dump() | stage.model_dump(exclude={"stop_on_alarm"}),
    }  # fmt: skip


def fit_and_save(trainer: Trainer, folder: Path, made_from: dict) -> Path:
    """Train, then put the model (or its adapter) and tokenizer into ``folder``, whole or not at all.

    Goes on where a training of the same origin was killed, with its optimizer, schedule, order and random state.
    """
    trainer.remove_callback(PrinterCallback)  # prints a dictionary a step
    with trainer.accelerator.main_process_first():
        last = _last_state(states(folder), made_from)
    try:
        trainer.train(resume_from_checkpoint=last)
    except Stopped as error:
        raise UserError(
            f"{error}.", f"{_keep_last_good(folder)} Change a value of the profile, then run again."
        ) from error
    final = states(folder) / "final"
    trainer.save_model(str(final))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        (final / "training_args.bin").unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(final, folder)
        shutil.rmtree(states(folder))
    trainer.accelerator.wait_for_everyone()
    return folder


def _keep_last_good(folder: Path) -> str:
    """Copy the model of the last state out of where another training would clear it; where it is, in a sentence."""
    last = get_last_checkpoint(str(states(folder)))
    if last is None:
        return "No checkpoint was kept before."
    kept = folder.with_name(f"{folder.name}-step{last.rsplit('-', 1)[1]}")
    if not kept.exists():
        shutil.copytree(last, kept, ignore=shutil.ignore_patterns("*.pt", "*.pth", "*.bin", "trainer_state.json"))
    return f"The last good checkpoint is {kept}."


def _last_state(kept: Path, made_from: dict) -> str | None:
    """The last whole state in ``kept``, which is emptied where it was left by another training."""
    note, text = kept / "origin.json", json.dumps(made_from, indent=2) + "\n"
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(kept, ignore_errors=True)
        write_text(note, text)
    while (last := get_last_checkpoint(str(kept))) and not _is_whole(Path(last)):
        shutil.rmtree(last)
    return last


def _is_whole(state: Path) -> bool:
    """Whether the trainer came to the file that it writes last, and to its end."""
    try:
        return "global_step" in json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


class Resuming:
    """Mixed into a trainer: resumes whole models too.

    A Qwen2.5-VL is saved under other names than its layers have, and the stock trainer loads none of them, says so
    in a warning and trains on from where it began (https://github.com/huggingface/transformers/issues/43701).
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or not (Path(resume_from_checkpoint) / "config.json").is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # shards, or an adapter
            return
        kept = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            resume_from_checkpoint, dtype=torch.float32, use_safetensors=True
        )
        (model or self.model).load_state_dict(kept.state_dict())


class StepLog(TrainerCallback):
    """Appends a row a step to ``path`` and tells the progress.

    ``row`` makes the columns from the trainer's own log and the step's seconds; what ``watch`` finds wrong in one
    stands in it as ``alarms``. Where an alarm is to stop the training, no state is kept of a step that shows a sign
    of one. At the start, rows of steps that are still to come are taken out of ``path`` and of
    ``beside``, another file of rows that tell their step.
    """

    def __init__(
        self, path: Path, title: str, row: Callable[[dict], dict], watch: Alarms, beside: Path | None = None,
    ) -> None:  # fmt: skip
        self.path, self.title, self.row, self.watch, self.beside = path, title, row, watch, beside

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        for path in (self.path, self.beside) if state.is_world_process_zero else ():
            if path and path.exists():
                _cut(path, state.global_step)
        self.progress = Progress(self.title, "step", state.max_steps, begun=state.global_step)
        if state.global_step:
            print(f"{self.title}: goes on after step {state.global_step}")
        self.clock = time.perf_counter()

    def on_log(self, args, state, control, logs: dict, **_: object) -> None:
        if "loss" not in logs or not (state.is_world_process_zero or self.watch.stop):
            return  # the summary at the end; other processes look at a row only to stop with this one
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        row = {"step": state.global_step} | self.row(logs | {"seconds": seconds}) | {"seconds": seconds}
        new = self.watch(row)
        if state.is_world_process_zero:
            append_json(self.path, row | ({"alarms": new} if new else {}))
            measure = "reward" if "reward" in row else "loss"
            self.progress.tell(state.global_step, f"{measure} {row[measure]:.3f}")
        if self.watch.stop and not self.watch.is_good(row):
            control.should_save = False
        self.watch.halt(new, state.global_step)


def _cut(path: Path, step: int) -> None:
    """Leave the rows of ``path`` up to ``step``."""
    rows = [row for row in read_jsonl(path) if row["step"] <= step]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
