"""What a killed training goes on from: states and checkpoints whose files are those that were written."""

import shutil
from pathlib import Path

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import Qwen2_5_VLForConditionalGeneration

from ladlib.checksums import seal, unseal
from ladlib.errors import UserError


def state_dir(folder: Path) -> Path:
    """Where a training stores its state, until its checkpoint ``folder`` is complete."""
    return folder.with_name(f".{folder.name}.states")


def last_state(states: Path, inputs: dict) -> str | None:
    """The last whole state of these inputs in ``states``, from which all others are removed."""
    shutil.rmtree(states / "final", ignore_errors=True)
    found = sorted(states.glob("checkpoint-*"), key=lambda state: int(state.name.split("-")[1]))
    while found and origin_of(found[-1]) != inputs:
        shutil.rmtree(found.pop())
    return str(found[-1]) if found else None


def origin_of(folder: Path) -> dict | None:
    """What the model or state in ``folder`` was trained from; None where it is not whole, with a line that says why."""
    try:
        return unseal(folder) if folder.exists() else None
    except UserError as error:
        print(f"Not used: {error.what}")
        return None


class ResumeMixin:
    """Mixed into a trainer: seals each state before it removes the one before, and resumes whole models too.

    A Qwen2.5-VL is saved under other names than its layers have, so the stock trainer loads nothing and warns
    (https://github.com/huggingface/transformers/issues/43701).
    """

    inputs: dict | None = None  # of the training

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.bf16 and self.accelerator.is_fsdp2:  # accelerate's own rounds outputs and sums of gradients, too
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = policy

    def _save_checkpoint(self, model: torch.nn.Module, trial: object) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            new = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            seal(new, self.inputs or {})
            for old in {*new.parent.glob("checkpoint-*")} - {new}:
                shutil.rmtree(old)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or not (Path(resume_from_checkpoint) / "config.json").is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # shards, or an adapter
            return
        stored = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            resume_from_checkpoint, dtype=torch.float32, use_safetensors=True
        )
        (model or self.model).load_state_dict(stored.state_dict())
