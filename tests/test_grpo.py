"""Stage 2 with a tiny random model and two images a row."""

import os
from pathlib import Path

import pytest
import torch
from tiny import tiny_base, tiny_profile, write_data

from ladlib import evaluate, grpo, sft
from ladlib.errors import UserError
from ladlib.models import VISION_TOKENS, load_model
from ladlib.rewards import group_advantages
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sft_data import balanced_pairs
from ladlib.training import load_policy

COLUMNS = {"step", *grpo.METRICS, "seconds_update", "seconds"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def weights(folder, profile) -> dict[str, torch.Tensor]:
    return load_model(str(folder), profile.model).state_dict()


def make(data, folder, profile):
    policy, processor = load_policy(profile, tiny_base())
    return grpo.make_trainer(profile, balanced_pairs(profile, data, 0), data, policy, processor, folder, 0)


def answer(monkeypatch, text: str) -> None:
    """Let every second completion read ``text``, so that groups have a spread."""
    decode, count = grpo.decode, iter(range(10_000))
    texts: dict[tuple[int, ...], str] = {}

    def decoded(tokenizer, ids):
        if tuple(ids) not in texts:
            texts[tuple(ids)] = text if next(count) % 2 else decode(tokenizer, ids)[0]
        return texts[tuple(ids)], "stop"

    monkeypatch.setattr(grpo, "decode", decoded)


def test_a_step_is_logged_with_its_rollouts_and_changes_the_weights(data, tmp_path, monkeypatch):
    answer(monkeypatch, "<think>x</think><answer>yes</answer>")
    profile, run = tiny_profile(), RunFolder(tmp_path)
    folder = grpo.train(profile, data, run, 0, model=tiny_base())
    rows = read_jsonl(run.log("sft_grpo", 0))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == COLUMNS and None not in rows[0].values()
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5), "the frozen model is the one that training starts from"
    for row in rows:
        assert row["reward"] == pytest.approx(row["accuracy_reward"] + row["format_reward"])
        assert row["format_reward"] == row["yes_rate"] == 0.5
        parts = row["seconds_generate"] + row["seconds_reward"] + row["seconds_update"]
        assert parts == pytest.approx(row["seconds"]) and row["seconds_update"] > 0
    groups = read_jsonl(run.rollouts("sft_grpo", 0))
    assert [group["step"] for group in groups] == [1, 1, 2, 2]
    assert [group["label"] for group in groups] == ["yes", "no", "yes", "no"]
    for group in groups:
        rewards = [one["reward"] for one in group["completions"]]
        assert len(rewards) == profile.grpo.group_size
        assert [one["advantage"] for one in group["completions"]] == pytest.approx(group_advantages(rewards), abs=1e-3)
        assert set(group["completions"][0]) == {"text", "accuracy", "format", "reward", "advantage"}
    before, after = weights(tiny_base(), profile), weights(folder, profile)
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_the_spread_is_the_mean_over_groups_not_over_the_batch(data, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "decode", lambda tokenizer, ids: ("<think>x</think><answer>yes</answer>", "stop"))
    run = RunFolder(tmp_path)
    grpo.train(tiny_profile(grpo__steps=1), data, run, 0, model=tiny_base())
    (row,) = read_jsonl(run.log("sft_grpo", 0))
    assert row["accuracy_reward"] == 0.5 and row["yes_rate"] == 1.0
    assert row["reward_std"] == 0.0 and row["frac_reward_zero_std"] == 1.0


def test_the_same_seed_draws_the_same_completions(data, tmp_path):
    texts = []
    for name in ("a", "b"):
        run = RunFolder(tmp_path / name)
        grpo.train(tiny_profile(grpo__steps=1), data, run, 0, model=tiny_base())
        texts.append([one["text"] for group in read_jsonl(run.rollouts("sft_grpo", 0)) for one in group["completions"]])
    assert texts[0] == texts[1]


def test_no_vision_token_is_sampled_even_where_the_model_wants_one(data, tmp_path):
    trainer = make(data, tmp_path / "grpo", tiny_profile())
    tokenizer = trainer.processing_class.tokenizer
    banned = tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    trainer.model.lm_head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor(banned), 50.0)
    )
    trainer.model.train()
    row = trainer.train_dataset[0]
    images = [{"type": "image", "image": image} for image in row["images"]]
    message = {"role": "user", "content": [*images, row["prompt"][0]["content"][-1]]}
    _, completions, *_ = trainer._generate([[message]] * 2)
    assert completions and not {token for ids in completions for token in ids} & set(banned)


def test_the_kl_terms_model_is_the_start_and_stays_frozen(data, tmp_path):
    trainer = make(data, tmp_path / "grpo", tiny_profile())
    start = trainer.model.state_dict()
    frozen = trainer.ref_model.state_dict()
    assert all(torch.equal(start[key], frozen[key]) for key in start)
    trainer.train()
    assert all(torch.equal(frozen[key], value) for key, value in trainer.ref_model.state_dict().items())


def test_an_adapter_trained_on_an_adapter_starts_from_it(data, tmp_path, monkeypatch):
    answer(monkeypatch, "<think>x</think><answer>yes</answer>")  # without a spread an adapter stays zero
    profile = tiny_profile(model__lora_rank=2, grpo__steps=1, sft__steps=1)
    run = RunFolder(tmp_path)
    start = str(sft.train(profile, data, run, 0))
    folder = grpo.train(profile, data, run, 0, model=start)
    (row,) = read_jsonl(run.log("sft_grpo", 0))
    assert row["kl"] == pytest.approx(0, abs=1e-5)
    assert weights(folder, profile).keys() == weights(tiny_base(), profile).keys()
    with pytest.raises(UserError, match="is an adapter"):
        grpo.train(tiny_profile(), data, run, 0, model=start)


def test_micro_batches_add_up_to_one_generation_and_one_update_a_step(data, tmp_path):
    policy, _ = load_policy(tiny_profile(), tiny_base())
    config = grpo.make_config(tiny_profile(grpo__group_size=4, grpo__micro_batch_size=2), policy, tmp_path, 0)
    assert config.gradient_accumulation_steps == config.steps_per_generation == 4
    assert config.generation_batch_size == 8
    with pytest.raises(UserError, match="no multiple of micro_batch_size 3"):
        grpo.make_config(tiny_profile(grpo__micro_batch_size=3), policy, tmp_path, 0)


@pytest.mark.slow
def test_both_stages_and_the_evaluation_go_through_on_genuine_images(tmp_path):
    folder = os.environ.get("LADLIB_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LADLIB_REAL_DATA names no folder of genuine files")
    profile, run = tiny_profile(evaluate__limit=1), RunFolder(tmp_path)
    with pytest.warns(UserWarning, match="without visa"):
        start = str(sft.train(profile, folder, run, 0))
        trained = str(grpo.train(profile, folder, run, 0, model=start))
    path = evaluate.evaluate(profile, folder, run, 0, arm="sft_grpo", model=trained)
    assert sorted(row["anomaly"] for row in read_jsonl(path)) == ["good", "logical", "structural"]
    assert {tuple(row["pixels"][0]) for row in read_jsonl(path)} == {(84, 168)}  # 800x1600 in the toy's band
