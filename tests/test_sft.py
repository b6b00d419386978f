"""Stage 1 with a tiny random model and two images a row."""

import pytest
import torch
from tiny import tiny_base, tiny_profile, write_data
from trl import SFTTrainer

from ladlib import sft
from ladlib.errors import UserError
from ladlib.models import load_model
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sft_data import make_conversations
from ladlib.training import load_policy, lora_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def weights(folder, profile) -> dict[str, torch.Tensor]:
    return load_model(str(folder), profile.model).state_dict()


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(one[key], two[key]) for key in one)


def make(data, tmp_path, profile):
    conversations = make_conversations(profile, data, 0)
    policy, processor = load_policy(profile, tiny_base())
    return sft.make_trainer(profile, conversations, data, policy, processor, tmp_path / "sft-seed0", 0), conversations


def test_a_step_changes_the_weights_and_is_logged(data, tmp_path):
    profile, run = tiny_profile(), RunFolder(tmp_path)
    folder = sft.train(profile, data, run, 0)
    rows = read_jsonl(run.log("sft", 0))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"step", "loss", "learning_rate", "grad_norm", "tokens", "seconds"}
    assert all(row["tokens"] > 100 and row["grad_norm"] > 0 for row in rows)
    assert folder == run.checkpoint("sft", 0) and not list(folder.parent.glob(".*"))
    assert not same(weights(folder, profile), weights(tiny_base(), profile))


def test_only_the_answers_tokens_carry_loss(data, tmp_path):
    trainer, conversations = make(data, tmp_path, tiny_profile(data__sft_samples=6))
    tokenizer = trainer.processing_class.tokenizer
    rows = [trainer.train_dataset[index] for index in range(len(conversations))]
    assert all(len(row["images"]) == 2 for row in rows)
    batch = trainer.data_collator(rows)
    for ids, labels, one in zip(batch["input_ids"], batch["labels"], conversations, strict=True):
        assert tokenizer.decode(labels[labels != -100]) == f"{one.answer}<|im_end|>\n"
        assert not (ids[labels != -100] == trainer.processing_class.image_token_id).any()
    images = (batch["input_ids"] == trainer.processing_class.image_token_id).sum()
    assert images == batch["image_grid_thw"].prod(dim=1).sum() // 4  # merged two by two: nothing was resized or cut


def test_the_same_seed_gives_the_same_model(data, tmp_path):
    profile = tiny_profile(sft__steps=1)
    first, again = (weights(sft.train(profile, data, RunFolder(tmp_path / name), 0), profile) for name in "ab")
    assert same(first, again)


def test_a_step_is_the_same_in_micro_batches_of_any_size(data, tmp_path):
    made, settings = [], {"data__sft_samples": 8, "sft__steps": 1, "sft__batch_size": 8}
    for micro in (8, 2):
        profile = tiny_profile(sft__micro_batch_size=micro, **settings)
        trainer, conversations = make(data, tmp_path / str(micro), profile)
        trainer.train()
        made.append((trainer.state.log_history[0]["loss"], trainer.state.log_history[0]["grad_norm"]))
    assert len({len(one.answer) for one in conversations}) > 1, "a mean of means would differ"
    assert made[1] == pytest.approx(made[0], rel=1e-4)


def test_a_step_sees_the_conversations_that_the_stock_trainers_sees(data, tmp_path):
    settings = {"data__sft_samples": 12, "sft__batch_size": 2, "sft__micro_batch_size": 1, "sft__steps": 4}
    trainer, _ = make(data, tmp_path, tiny_profile(**settings))
    stock = SFTTrainer(
        trainer.model, trainer.args, train_dataset=trainer.train_dataset, processing_class=trainer.processing_class
    )
    seen = []
    for one in (trainer, stock):
        loader = one.get_train_dataloader()
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            rows = [batch["input_ids"][0].tolist() for batch in loader]
            seen.append([sorted(rows[step : step + 2]) for step in range(0, len(rows), 2)])
    ours, theirs = seen[:2], seen[2:]
    assert ours == theirs and ours[0] != ours[1]


def test_a_micro_batch_holds_conversations_of_like_length_of_the_same_step():
    lengths = [9, 1, 5, 3, 8, 2, 7]
    order = [*sft.ByLength([6, 0, 3, 1, 2, 5, 4], lengths, step=4)]
    assert [lengths[row] for row in order] == [1, 3, 7, 9, 2, 5, 8]
    assert set(order[:4]) == {6, 0, 3, 1}


def test_a_frozen_vision_tower_does_not_move(data, tmp_path):
    profile = tiny_profile(model__freeze_vision=True, sft__steps=1)
    after, before = weights(sft.train(profile, data, RunFolder(tmp_path), 0), profile), weights(tiny_base(), profile)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and not [key for key in moved if "visual" in key]


def test_adapters_go_to_the_language_model_only_and_can_be_loaded(data, tmp_path, capsys):
    profile = tiny_profile(model__lora_rank=2, sft__steps=1)
    folder = sft.train(profile, data, RunFolder(tmp_path), 0)
    assert "on 14 linear layers of the language model" in capsys.readouterr().out  # 7 in each of 2 blocks
    after, before = weights(folder, profile), weights(tiny_base(), profile)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert len(moved) == 14 and all("language_model.layers" in key for key in moved)


def test_a_model_without_language_layers_takes_no_adapter():
    with pytest.raises(UserError, match="No layer"):
        lora_config(torch.nn.Linear(2, 2), tiny_profile(model__lora_rank=2).model.lora)


def test_a_batch_that_does_not_divide_is_one_line(data, tmp_path):
    with pytest.raises(UserError, match="batch_size 3 is no multiple of micro_batch_size 2"):
        make(data, tmp_path, tiny_profile(sft__batch_size=3))
