"""Stage 2 with a tiny random model and two images per row."""

import json
import shutil
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from tiny import tiny_base, tiny_profile, weights_of

from ladlib import grpo, sft
from ladlib.errors import UserError
from ladlib.families import VISION_TOKENS
from ladlib.rewards import group_advantages
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sft_data import balanced_pairs
from ladlib.training import load_policy

COLUMNS = {"step", *grpo.METRICS, "seconds_update", "seconds"}
ANSWER = "<think>x</think><answer>yes</answer>"


def make(data, folder, profile):
    policy, processor = load_policy(profile, tiny_base())
    return grpo.make_trainer(profile, balanced_pairs(profile, data, 0), data, policy, processor, folder, 0)


@pytest.fixture
def answers(monkeypatch):
    """Let every second completion read ``ANSWER``, so that rewards differ within a group."""
    decode, count = grpo.decode, iter(range(10_000))
    texts: dict[tuple[int, ...], str] = {}

    def decoded(tokenizer, ids):
        if tuple(ids) not in texts:
            texts[tuple(ids)] = ANSWER if next(count) % 2 else decode(tokenizer, ids)[0]
        return texts[tuple(ids)], "stop"

    monkeypatch.setattr(grpo, "decode", decoded)


def test_a_step_is_logged_with_its_rollouts_and_changes_the_weights(data, tmp_path, answers):
    profile, run = tiny_profile(), RunFolder(tmp_path)
    folder = grpo.train(profile, data, run, 0, model=tiny_base())
    rows, groups = read_jsonl(run.log("sft_grpo", 0)), read_jsonl(run.rollouts("sft_grpo", 0))
    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == COLUMNS and None not in rows[0].values()
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-5), "the frozen model is the one that training starts from"
    for row in rows:
        assert row["reward"] == pytest.approx(row["accuracy_reward"] + row["format_reward"])
        assert row["format_reward"] == row["yes_rate"] == 0.5
        of_step = [group["completions"] for group in groups if group["step"] == row["step"]]
        spreads = [stdev(completion["reward"] for completion in group) for group in of_step]
        assert row["reward_std"] == pytest.approx(fmean(spreads)), "of the groups, not of the batch"
        parts = row["seconds_generate"] + row["seconds_reward"] + row["seconds_update"]
        assert parts == pytest.approx(row["seconds"]) and row["seconds_update"] > 0
    assert [group["step"] for group in groups] == [1, 1, 2, 2]
    assert [group["label"] for group in groups] == ["yes", "no", "yes", "no"]
    for group in groups:
        rewards = [completion["reward"] for completion in group["completions"]]
        advantages = [completion["advantage"] for completion in group["completions"]]
        assert len(rewards) == profile.grpo.group_size
        assert advantages == pytest.approx(group_advantages(rewards), abs=1e-3)
        assert set(group["completions"][0]) == {"text", "accuracy", "format", "reward", "advantage"}
    before, after = weights_of(tiny_base()), weights_of(folder)
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_no_vision_token_is_sampled_even_where_the_model_prefers_one(data, tmp_path):
    trainer = make(data, tmp_path / "grpo", tiny_profile())
    banned = trainer.processing_class.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    trainer.model.lm_head.register_forward_hook(
        lambda module, args, out: out.index_fill(-1, torch.tensor(banned), 50.0)
    )
    trainer.model.train()
    row = trainer.train_dataset[0]
    images = [{"type": "image", "image": image} for image in row["images"]]
    message = {"role": "user", "content": [*images, row["prompt"][0]["content"][-1]]}
    _, completions, *_ = trainer._generate([[message]] * 2)
    assert completions and not {token for ids in completions for token in ids} & set(banned)


def test_an_adapter_trained_on_an_adapter_starts_from_its_merged_model(data, tmp_path, answers):
    profile = tiny_profile(model__lora_rank=2, grpo__steps=1, sft__steps=1)
    run = RunFolder(tmp_path)
    start = str(sft.train(profile, data, run, 0))
    folder = grpo.train(profile, data, run, 0, model=start)
    (row,) = read_jsonl(run.log("sft_grpo", 0))
    assert row["kl"] == pytest.approx(0, abs=1e-5)
    assert weights_of(folder).keys() == weights_of(tiny_base()).keys()
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == f"{start}/merged" and Path(base, "config.json").is_file() and Path(base, "tokenizer.json").is_file()
    shutil.rmtree(base)
    with pytest.raises(UserError, match="is an adapter"):
        grpo.train(profile, data, run, 0, model=start)


def test_micro_batches_add_up_to_one_generation_and_one_update_per_step(data, tmp_path):
    policy, _ = load_policy(tiny_profile(), tiny_base())
    config = grpo.make_config(tiny_profile(grpo__group_size=4, grpo__micro_batch_size=2), policy, tmp_path, 0)
    assert config.gradient_accumulation_steps == config.steps_per_generation == 4
    assert config.generation_batch_size == 8
    with pytest.raises(UserError, match="no multiple of micro_batch_size 3"):
        grpo.make_config(tiny_profile(grpo__micro_batch_size=3), policy, tmp_path, 0)


class FakeVllm:
    """Stands for TRL's ``VLLMGeneration``: the same model, answered by transformers; ``fault`` spoils its prompts."""

    def __init__(self, trainer, fault):
        self.trainer, self.fault = trainer, fault
        self.temperature, self.max_completion_length, self.asked = 1.0, trainer.max_completion_length, []

    def sync_weights(self):
        pass

    def generate(self, prompts, images, num_generations, profiler=None):
        self.asked.append((self.temperature, self.max_completion_length, len(prompts)))
        completions = [self.answer(ids, pair) for ids, pair in zip(prompts, images, strict=True)]
        return [self.fault(ids) for ids in prompts], completions, [[[-1.0]] * len(ids) for ids in completions], None

    def answer(self, ids, images):
        inputs = self.trainer.processing_class.image_processor(images=images, return_tensors="pt")
        row, model = torch.tensor([ids]), self.trainer.model
        kinds = (row == model.config.image_token_id).int()
        with torch.no_grad():
            out = model.generate(
                input_ids=row, mm_token_type_ids=kinds, max_new_tokens=self.max_completion_length, **inputs
            )
        return out[0, len(ids) :].tolist()


def with_vllm(data, folder, fault=lambda ids: ids):
    trainer = make(data, folder, tiny_profile(model__shared_prefix=False, grpo__steps=1))
    vars(trainer).pop("generation_config")  # with vLLM, TRL's trainer has none
    trainer.use_vllm, trainer.vllm_mode, trainer._last_loaded_step = True, "colocate", -1
    trainer._is_checked = trainer.vllm_importance_sampling_correction = False
    trainer.vllm_generation = FakeVllm(trainer, fault)
    return trainer


def test_vllm_samples_rollouts_once_it_agrees_with_the_trainers_own_model(data, tmp_path, capsys):
    trainer = with_vllm(data, tmp_path)
    trainer.train()
    assert "vLLM and transformers agree on 2 pairs" in capsys.readouterr().out
    assert trainer.vllm_generation.asked == [(0.0, grpo.PARITY_TOKENS, 2), (1.0, trainer.max_completion_length, 4)]


def test_a_prompt_whose_images_vllm_inserts_twice_trains_nothing(data, tmp_path):  # TRL issue 6294
    trainer = with_vllm(data, tmp_path, lambda ids: [*ids[:9], *ids[5:]])
    with pytest.raises(UserError, match="vLLM and transformers differ in the prompt tokens of pair 1"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_the_profile_chooses_the_engine_which_samples_no_vision_token(tmp_path):
    policy, _ = load_policy(tiny_profile(), tiny_base())
    config = grpo.make_config(tiny_profile(grpo__engine="vllm_colocate"), policy, tmp_path, 0)
    assert config.use_vllm and config.vllm_mode == "colocate"
    assert config.generation_kwargs == {"bad_words": list(VISION_TOKENS)}
    config = grpo.make_config(tiny_profile(), policy, tmp_path, 0)
    assert not config.use_vllm
    assert config.generation_kwargs == {"suppress_tokens": policy.generation_config.suppress_tokens}
