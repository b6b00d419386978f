"""Steps are counted as the trainers count them, where epochs do not come out even."""

import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib import grpo, sft
from ladlib.sft_data import balanced_pairs, make_conversations
from ladlib.training import load_policy
from ladlib.workload import grpo_steps, sft_steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def planned(trainer) -> int:
    return trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


def test_an_epoch_of_sft_ends_with_a_smaller_step(data, tmp_path):
    profile = tiny_profile(data__sft_samples=5, sft__steps=0, sft__epochs=3, sft__batch_size=4, sft__micro_batch_size=2)
    conversations = make_conversations(profile, data, 0)
    assert len(conversations) == 5
    trainer = sft.make_trainer(profile, conversations, data, *load_policy(profile, tiny_base()), tmp_path / "x", 0)
    assert planned(trainer) == sft_steps(profile) == 3 * 2


def test_an_epoch_of_grpo_leaves_an_incomplete_step_out(data, tmp_path):
    profile = tiny_profile(grpo__steps=0, grpo__epochs=2, grpo__prompts_per_step=3, grpo__micro_batch_size=2)
    pairs = balanced_pairs(profile, data, 0)
    assert len(pairs) == 4
    trainer = grpo.make_trainer(profile, pairs, data, *load_policy(profile, tiny_base()), tmp_path / "x", 0)
    assert planned(trainer) == grpo_steps(profile, len(pairs)) == 2 * 1
