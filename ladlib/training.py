"""What SFT and GRPO share: loading a policy, its adapters, the rows, the log, the checkpoint."""

import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
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

from ladlib.conversations import view
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.models import PairProcessor, best_device, count_parameters, load_model, load_processor
from ladlib.progress import Progress
from ladlib.runs import append_json
from ladlib.schema import Pair
from ladlib.settings import Data, Grpo, Lora, Model, Profile, Sft
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
        output_dir=str(partial(folder)), seed=seed, data_seed=seed, use_cpu=cpu, dataloader_pin_memory=not cpu,
        learning_rate=stage.learning_rate, warmup_steps=stage.warmup, max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs, per_device_train_batch_size=stage.micro_batch_size,
        bf16=profile.model.dtype == "bfloat16", gradient_checkpointing=count_parameters(policy) > LARGE,
        logging_steps=1, logging_first_step=True, save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False,  # the columns are read by the transform and by the rewards
    )  # fmt: skip


def accumulation(whole: int, micro: int, what: str) -> int:
    """How many micro-batches make up a whole batch. Raises :class:`UserError` where it does not come out even."""
    if whole % micro:
        raise UserError(f"{what} {whole} is no multiple of micro_batch_size {micro}.", "Change one of them.")
    return whole // micro


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


def partial(folder: Path) -> Path:
    """Where a checkpoint is written before it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def fit_and_save(trainer: Trainer, folder: Path) -> Path:
    """Train, then put the model (or its adapter) and tokenizer into ``folder``, whole or not at all."""
    trainer.remove_callback(PrinterCallback)  # prints a dictionary a step
    trainer.train()
    trainer.save_model(str(partial(folder)))
    if trainer.is_world_process_zero():
        (partial(folder) / "training_args.bin").unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial(folder), folder)
    return folder


class StepLog(TrainerCallback):
    """Appends a row a step to ``path``, begun anew, and tells the progress.

    ``row`` makes the columns from the trainer's own log and the step's seconds; ``watch`` sees each row
    as it is written.
    """

    def __init__(
        self, path: Path, title: str, row: Callable[[dict], dict], watch: Callable[[dict], None] | None = None
    ) -> None:
        self.path, self.title, self.row, self.watch = path, title, row, watch

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.is_world_process_zero:
            self.path.unlink(missing_ok=True)
        self.progress = Progress(self.title, "step", state.max_steps)
        self.clock = time.perf_counter()

    def on_log(self, args, state, control, logs: dict, **_: object) -> None:
        if "loss" not in logs or not state.is_world_process_zero:
            return  # the summary at the end
        seconds, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        row = {"step": state.global_step} | self.row(logs | {"seconds": seconds}) | {"seconds": seconds}
        append_json(self.path, row)
        measure = "reward" if "reward" in row else "loss"
        self.progress.tell(state.global_step, f"{measure} {row[measure]:.3f}")
        if self.watch:
            self.watch(row)
