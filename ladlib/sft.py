"""Stage 1, supervised fine-tuning: questions and captions about two images, answered in a few words.

    train(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), seed=0)

TRL's ``SFTTrainer`` on rows of prompt and completion, which puts the loss on the answer's tokens
and nothing else. Departures from the paper, which says only "LLaMA-Factory, full-parameter, 3 epochs":
the data (see :mod:`ladlib.conversations`), TRL for LLaMA-Factory, and the values in the profile, each
with its source beside it; cosine schedule as in LLaMA-Factory's example for Qwen2.5-VL.

A step's loss is the mean over its answers' tokens, however it is divided into micro-batches, and those hold
conversations of like length, so that little is padded (``ladlib bench sft``). TRL computes it in chunks of tokens, so
the logits of a whole micro-batch are never in memory at a time.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler
from trl import SFTConfig, SFTTrainer

from ladlib import prompts
from ladlib.alarms import Alarms
from ladlib.config import Data, Profile
from ladlib.conversations import make_conversations
from ladlib.data.images import seen_size, tokens
from ladlib.manifest import shown_files, write_manifest
from ladlib.models import PairProcessor
from ladlib.records import Conversation
from ladlib.runs import RunFolder
from ladlib.training import (
    Resuming,
    StepLog,
    accumulation,
    common_arguments,
    fit_and_save,
    lazy_rows,
    load_policy,
    lora_config,
    origin,
    rows_of,
)


def train(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, model: str = "", arm: str = "sft"
) -> Path:
    """Train ``model`` (the profile's base where "") and return the folder of its checkpoint.

    Writes ``run.manifest(arm, seed)`` first, ``run.log(arm, seed)`` as it goes and the checkpoint at the end. Raises
    :class:`UserError` for data or a model that is not there and for an image of the test set.
    """
    conversations = make_conversations(profile, data_root, seed)
    print(f"{arm}: {len(conversations)} conversations about {len({one.pair.id for one in conversations})} images")
    shown = shown_files([one.pair for one in conversations], data_root)
    model = model or profile.model.base
    policy, processor = load_policy(profile, model)
    trainer = make_trainer(profile, conversations, data_root, policy, processor, run.checkpoint(arm, seed), seed)
    if trainer.is_world_process_zero():
        write_manifest(run.manifest(arm, seed), shown)
    trainer.add_callback(StepLog(run.log(arm, seed), arm, _Row(), Alarms("SFT", profile.sft.stop_on_alarm)))
    return fit_and_save(
        trainer, run.checkpoint(arm, seed), origin(profile, profile.sft, model, seed, [*shown, *conversations])
    )


def make_trainer(
    profile: Profile, conversations: list[Conversation], data_root: Path | str, policy, processor: PairProcessor,
    folder: Path, seed: int,
) -> "StepwiseTrainer":  # fmt: skip
    """The trainer, set up; ``folder`` is where its checkpoint will be."""
    sft = profile.sft
    arguments = SFTConfig(
        **common_arguments(profile, sft, folder, seed, policy),
        gradient_accumulation_steps=accumulation(sft.batch_size, sft.micro_batch_size, "sft.batch_size"),
        lr_scheduler_type="cosine",
        max_length=None,  # cutting a prompt short would cut image tokens from their features
        completion_only_loss=True,
    )
    rows = [
        row | {"question": one.question, "answer": one.answer}
        for row, one in zip(rows_of([one.pair for one in conversations], data_root), conversations, strict=True)
    ]
    return StepwiseTrainer(
        policy, arguments, train_dataset=lazy_rows(rows, profile.data, _messages), processing_class=processor,
        peft_config=lora_config(policy, profile.model.lora),
        lengths=[_count_tokens(row, profile.data, processor) for row in rows],
    )  # fmt: skip


class StepwiseTrainer(Resuming, SFTTrainer):
    """The stock trainer, which goes on where it was killed, and whose step is one whatever the micro-batches.

    Transformers takes this model for one whose loss cannot count the tokens of a whole step (it says so of its own
    loss; TRL's can), and would take the mean of the micro-batches' means.
    """

    def __init__(self, *args, lengths: Sequence[int], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._lengths = lengths  # of the rows of the dataset, in tokens
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, *args) -> Sampler:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        stock = SeedableRandomSampler(self.train_dataset, data_seed=self.args.data_seed)  # as accelerate would make it
        return ByLength(stock, self._lengths, step)


class ByLength(Sampler):
    """The order of ``sampler``, but that the rows of each ``step`` stand by their length."""

    def __init__(self, sampler: SeedableRandomSampler, lengths: Sequence[int], step: int) -> None:
        self.sampler, self.lengths, self.step = sampler, lengths, step

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Accelerate tells it: each pass has an order of its own."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        rows = list(self.sampler)
        for start in range(0, len(rows), self.step):
            yield from sorted(rows[start : start + self.step], key=self.lengths.__getitem__)


def _count_tokens(row: dict, data: Data, processor: PairProcessor) -> int:
    """The tokens of a conversation, but for those that all have."""
    paths = (Path(row["folder"], row[which]) for which in ("reference", "test"))
    visual = sum(tokens(seen_size(path, data.min_pixels, data.max_pixels)) for path in paths)
    return visual + len(processor.tokenizer(row["question"] + row["answer"])["input_ids"])


def _messages(row: dict) -> dict:
    return {
        "prompt": [prompts.user_message(row["question"], images=2)],
        "completion": [{"role": "assistant", "content": row["answer"]}],
    }


class _Row:
    """Columns of a log row; tokens are counted per step, while the trainer counts from the start."""

    def __init__(self) -> None:
        self.before = 0

    def __call__(self, logs: dict) -> dict:
        tokens, self.before = logs["num_tokens"] - self.before, logs["num_tokens"]
        return {key: logs[key] for key in ("loss", "learning_rate", "grad_norm")} | {"tokens": int(tokens)}
