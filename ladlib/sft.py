"""Stage 1, supervised fine-tuning: questions and captions about two images, answered in a few words.

    train(load_profile("toy"), Path("data"), RunFolder("results/runs/toy"), seed=0)

TRL's ``SFTTrainer``, with loss on the answer's tokens only. Departures from the paper, which says only "LLaMA-Factory,
full-parameter, 3 epochs": the data (:mod:`ladlib.sft_data`), TRL, and the values in the profile, each with its source;
cosine schedule as in LLaMA-Factory's example for Qwen2.5-VL. A step's loss is the mean over its answers' tokens,
whatever its micro-batches; those hold conversations of similar length, so that there is little padding.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from torch.utils.data import Sampler
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from ladlib import prompts, training
from ladlib.config import Data, Profile
from ladlib.data import find_dataset
from ladlib.data.images import tokens, view_size
from ladlib.leakage import training_files
from ladlib.models import PairProcessor
from ladlib.records import Conversation
from ladlib.resume import ResumeMixin
from ladlib.runs import RunFolder
from ladlib.sft_data import make_conversations


def train(
    profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, model: str = "", arm: str = "sft"
) -> Path:
    """The folder of the checkpoint trained from ``model`` (the profile's base where "").

    Raises :class:`UserError` for missing data or model and for an image of the test set.
    """
    training.check_trl_options(profile)
    conversations = make_conversations(profile, data_root, seed)
    pairs = [conversation.pair for conversation in conversations]
    print(f"{arm}: {len(conversations)} conversations about {len({pair.id for pair in pairs})} images")
    files = training_files(pairs, data_root)
    model = model or profile.model.base
    policy, processor = training.load_policy(profile, model)
    trainer = make_trainer(profile, conversations, data_root, policy, processor, run.checkpoint(arm, seed), seed)
    inputs = training.training_fingerprint(profile, profile.sft, model, seed, [*files, *conversations])
    return training.fit_and_save(
        trainer, profile, run, arm, seed, inputs=inputs, files=files, columns=_Columns(), merge=True
    )


def make_trainer(
    profile: Profile, conversations: list[Conversation], data_root: Path | str, policy, processor: PairProcessor,
    folder: Path, seed: int,
) -> "StepwiseTrainer":  # fmt: skip
    """The trainer, ready to run; ``folder`` is where its checkpoint will be."""
    sft = profile.sft
    options = dict(
        **training.common_arguments(profile, sft, folder, seed, policy),
        gradient_accumulation_steps=training.accumulation(sft.batch_size, sft.micro_batch_size, "sft.batch_size"),
        lr_scheduler_type="cosine",
        max_length=None,  # a truncated prompt would lose image tokens but not their features
        completion_only_loss=True,
    )
    arguments = training.on_one_gpu(SFTConfig(**options | sft.trl))
    return StepwiseTrainer(
        policy, arguments, train_dataset=_dataset(conversations, data_root, profile.data), processing_class=processor,
        peft_config=training.lora_config(profile.model.lora_rank),
        lengths=[_count_tokens(conversation, data_root, profile.data, processor) for conversation in conversations],
    )  # fmt: skip


def tokens_with_loss(
    conversation: Conversation, data_root: Path | str, data: Data, processor: PairProcessor
) -> list[tuple[str, bool]]:
    """The tokens of a conversation as text, and whether each carries loss, by the trainer's collator."""
    row = _dataset([conversation], data_root, data)[0]
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row])
    pieces = [processor.tokenizer.decode([token]) for token in batch["input_ids"][0].tolist()]
    return list(zip(pieces, (batch["labels"][0] != -100).tolist(), strict=True))


def _dataset(conversations: Sequence[Conversation], data_root: Path | str, data: Data) -> Dataset:
    messages = [
        {"prompt": [prompts.user_message(conversation.question, images=2)],
         "completion": [{"role": "assistant", "content": conversation.answer}]}
        for conversation in conversations
    ]  # fmt: skip
    return training.dataset_of([conversation.pair for conversation in conversations], data_root, data, messages)


class StepwiseTrainer(ResumeMixin, SFTTrainer):
    """The stock trainer, which resumes, and whose loss is the same for micro-batches of any size.

    Transformers assumes that this model's loss (not TRL's) cannot count the tokens of a whole step, and would average
    the micro-batches' means.
    """

    def __init__(self, *args, lengths: Sequence[int], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._lengths = lengths  # of the dataset's rows, in tokens
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, *args) -> Sampler:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        stock = SeedableRandomSampler(self.train_dataset, data_seed=self.args.data_seed)  # as accelerate makes it
        return ByLength(stock, self._lengths, step)


class ByLength(Sampler):
    """The order of ``sampler``, with the rows of each ``step`` sorted by length."""

    def __init__(self, sampler: SeedableRandomSampler, lengths: Sequence[int], step: int) -> None:
        self.sampler, self.lengths, self.step = sampler, lengths, step

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order; accelerate calls this."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        rows = list(self.sampler)
        for start in range(0, len(rows), self.step):
            yield from sorted(rows[start : start + self.step], key=self.lengths.__getitem__)


def _count_tokens(conversation: Conversation, data_root: Path | str, data: Data, processor: PairProcessor) -> int:
    """The tokens of a conversation without those that all conversations share."""
    pair = conversation.pair
    folder = find_dataset(data_root, pair.test.dataset)
    sizes = [view_size(folder / path, data.min_pixels, data.max_pixels) for path in (pair.reference, pair.test.image)]
    text_ids = processor.tokenizer(conversation.question + conversation.answer)["input_ids"]
    return sum(map(tokens, sizes)) + len(text_ids)


class _Columns:
    """Columns of a log row; tokens are those of the step, while the trainer counts from the start."""

    def __init__(self) -> None:
        self.before = 0

    def __call__(self, logs: dict) -> dict:
        step_tokens, self.before = logs["num_tokens"] - self.before, logs["num_tokens"]
        return {key: logs[key] for key in ("loss", "learning_rate", "grad_norm")} | {"tokens": int(step_tokens)}
