"""Stage 1 with a tiny random model and two images per row."""

import pytest
import torch
from tiny import tiny_base, tiny_profile, weights_of
from trl import SFTTrainer

from ladlib import sft, training
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sft_data import make_conversations
from ladlib.training import load_policy


def changed(before: dict, after: dict) -> set[str]:
    """Names of the weights that differ."""
    return {key for key in before if not torch.equal(before[key], after[key])}


def make(data, tmp_path, profile):
    conversations = make_conversations(profile, data, 0)
    policy, processor = load_policy(profile, tiny_base())
    return sft.make_trainer(profile, conversations, data, policy, processor, tmp_path / "sft-seed0", 0), conversations


def test_the_same_seed_trains_the_same_weights_and_logs_each_step(data, tmp_path):
    profile, runs = tiny_profile(), [RunFolder(tmp_path / name) for name in "ab"]
    folders = [sft.train(profile, data, run, 0) for run in runs]
    rows = read_jsonl(runs[0].log("sft", 0))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"step", "loss", "learning_rate", "grad_norm", "tokens", "seconds"}
    assert all(row["tokens"] > 100 and row["grad_norm"] > 0 for row in rows)
    assert folders[0] == runs[0].checkpoint("sft", 0) and not list(folders[0].parent.glob(".*"))
    first, again = (weights_of(folder) for folder in folders)
    assert not changed(first, again) and changed(weights_of(tiny_base()), first)


def test_adapters_leave_the_frozen_tower_without_a_backward_pass_and_lose_what_hooks_would(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 0)  # recompute activations, as for the 3B
    profile, logs = tiny_profile(model__lora_rank=2, model__freeze_vision=True, sft__steps=1), []
    for method in ("zero3", "ddp"):  # with hooks, without
        trainer, _ = make(data, tmp_path / method, profile.replace({"parallel.method": method}))
        tower, graphs = trainer.model.base_model.model.model.visual, []
        tower.register_forward_hook(lambda *call, seen=graphs: seen.append(call[-1].last_hidden_state.requires_grad))
        trainer.train()
        logs.append([trainer.state.log_history[0][key] for key in ("loss", "grad_norm")])
        assert graphs and all(graph == (method == "zero3") for graph in graphs)
    assert logs[0] == logs[1]


def test_only_the_answers_tokens_carry_loss(data, tmp_path):
    profile = tiny_profile(data__sft_samples=6)
    trainer, conversations = make(data, tmp_path, profile)
    tokenizer, image = trainer.processing_class.tokenizer, trainer.processing_class.image_token_id
    rows = [trainer.train_dataset[index] for index in range(len(conversations))]
    assert all(len(row["images"]) == 2 for row in rows)
    batch = trainer.data_collator(rows)
    for ids, labels, talk in zip(batch["input_ids"], batch["labels"], conversations, strict=True):
        assert tokenizer.decode(labels[labels != -100]) == f"{talk.answer}<|im_end|>\n"
        assert not (ids[labels != -100] == image).any()
        pieces = sft.tokens_with_loss(talk, data, profile.data, trainer.processing_class)
        assert "".join(text for text, carries_loss in pieces if carries_loss) == f"{talk.answer}<|im_end|>\n"
    images = (batch["input_ids"] == image).sum()
    assert images == batch["image_grid_thw"].prod(dim=1).sum() // 4  # merged two by two: nothing was resized or cut


def test_a_step_is_the_same_in_micro_batches_of_any_size(data, tmp_path):
    results = []
    for micro in (8, 2):
        profile = tiny_profile(data__sft_samples=8, sft__steps=1, sft__batch_size=8, sft__micro_batch_size=micro)
        trainer, conversations = make(data, tmp_path / str(micro), profile)
        trainer.train()
        results.append((trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["grad_norm"]))
    assert len({len(talk.answer) for talk in conversations}) > 1, "a mean of means would differ"
    assert results[1] == pytest.approx(results[0], rel=1e-4)


def test_a_step_has_the_conversations_of_the_stock_trainers(data, tmp_path):
    settings = {"data__sft_samples": 12, "sft__batch_size": 2, "sft__micro_batch_size": 1, "sft__steps": 4}
    trainer, _ = make(data, tmp_path, tiny_profile(**settings))
    stock = SFTTrainer(
        trainer.model, trainer.args, train_dataset=trainer.train_dataset, processing_class=trainer.processing_class
    )

    def steps(loader, epoch):
        loader.set_epoch(epoch)
        rows = [batch["input_ids"][0].tolist() for batch in loader]
        return [sorted(rows[step : step + 2]) for step in range(0, len(rows), 2)]

    ours, theirs = ([steps(one.get_train_dataloader(), epoch) for epoch in (0, 1)] for one in (trainer, stock))
    assert ours == theirs and ours[0] != ours[1]


@pytest.mark.parametrize(
    ("settings", "count", "part"),
    [({"model__freeze_vision": True}, None, "language_model"), ({"model__lora_rank": 2}, 14, "language_model.layers")],
    ids=["frozen tower", "LoRA"],
)
def test_only_the_language_model_changes(data, tmp_path, settings, count, part):
    profile = tiny_profile(sft__steps=1, **settings)
    after = weights_of(sft.train(profile, data, RunFolder(tmp_path), 0))
    names = changed(weights_of(tiny_base()), after)
    assert names and not any("visual" in name for name in names)
    if count:  # seven linear layers in each of two blocks
        assert len(names) == count and all(part in name for name in names)
