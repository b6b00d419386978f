"""Stage 1 in two ways: this project's trainer, and TRL's ``SFTTrainer`` as it is, on the same conversations.

    bench(load_profile("toy"), Path("data"), repeats=3, steps=5)

Both see the same conversations in each step. In ours those of a micro-batch are of like length, so that fewer tokens
are read only because a longer conversation stands beside. Tokens read are told beside those needed.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from transformers import PrinterCallback
from trl import SFTTrainer

from ladlib import sft
from ladlib.bench.timing import alternate, print_result, show
from ladlib.config import Profile
from ladlib.sft_data import make_conversations
from ladlib.training import load_policy, lora_config

OURS, STOCK = "ours", "TRL's SFTTrainer"


def bench(profile: Profile, data_root: Path | str, repeats: int, steps: int) -> dict:
    """Time ``steps`` optimizer steps in both ways, print a line each and the result, and return it.

    Raises :class:`UserError` for data or a model that is not there.
    """
    profile = profile.model_copy(update={"sft": profile.sft.model_copy(update={"steps": steps})})
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: _trainer(name, profile, data_root, Path(folder)) for name in (OURS, STOCK)}
        tokens = {}
        for name, one in trainers.items():
            with _read(one.model) as tokens[name]:
                one.train()  # and what a first step sets up is set up
        seconds = alternate({name: one.train for name, one in trainers.items()}, repeats)
    show(seconds, {name: {"tokens read": one["read"]} for name, one in tokens.items()})
    result = _result(profile, seconds, tokens)
    print_result(result)
    return result


def _trainer(name: str, profile: Profile, data_root: Path | str, folder: Path) -> SFTTrainer:
    policy, processor = load_policy(profile, profile.model.base)
    conversations = make_conversations(profile, data_root, seed=0)
    trainer = sft.make_trainer(profile, conversations, data_root, policy, processor, folder / "sft", seed=0)
    if name == STOCK:
        policy, _ = load_policy(profile, profile.model.base)
        trainer = SFTTrainer(
            policy, trainer.args, train_dataset=trainer.train_dataset, processing_class=processor,
            peft_config=lora_config(policy, profile.model.lora),
        )  # fmt: skip
    trainer.args.save_strategy = "no"
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def _read(policy: torch.nn.Module) -> Iterator[dict[str, int]]:
    """Count the tokens that ``policy`` reads, and those among them that are no padding."""
    count = {"read": 0, "needed": 0}

    def add(module, args, kwargs) -> None:
        mask = kwargs["attention_mask"]
        count["read"] += mask.numel()
        count["needed"] += int(mask.sum())

    hook = policy.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield count
    finally:
        hook.remove()


def _result(profile: Profile, seconds: dict[str, list[float]], tokens: dict[str, dict[str, int]]) -> dict:
    return {
        "what": "sft",
        "profile": profile.name,
        "ratio": median(seconds[STOCK]) / median(seconds[OURS]),
        "steps": profile.sft.steps,
        "batch_size": profile.sft.batch_size,
        "micro_batch_size": profile.sft.micro_batch_size,
        "seconds": seconds,
        "tokens_read": {name: one["read"] for name, one in tokens.items()},
        "tokens_needed": tokens[OURS]["needed"],
        "threads": torch.get_num_threads(),
    }
