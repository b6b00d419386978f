"""Reading a group's prompt once gives the stock trainer's numbers; stock TRL is the oracle."""

from itertools import product

import pytest
import torch
from tiny import tiny_base, tiny_profile, write_data
from trl.data_utils import prepare_multimodal_messages

from ladlib import grpo
from ladlib.conversations import balanced_pairs
from ladlib.training import load_policy

CLOSE = {"rtol": 1e-5, "atol": 1e-7}
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def make(data, folder, shared: bool, **changes):
    profile = tiny_profile(grpo__shared_prefix=shared, **{"grpo__max_completion_tokens": 12} | changes)
    policy, processor = load_policy(profile, tiny_base())
    trainer = grpo.make_trainer(profile, balanced_pairs(profile, data, 0), data, policy, processor, folder, 0)
    trainer.create_optimizer()  # as train does
    trainer.model.train()
    return trainer


def both(data, folder, **changes):
    return [make(data, folder / str(shared), shared, **changes) for shared in (False, True)]


def batch(trainer) -> list[dict]:
    """The rows of one step: each prompt as often as it is answered, every second one with a larger test image."""
    count = trainer.args.generation_batch_size // trainer.num_generations
    rows = [trainer.train_dataset[number] for number in range(count)]
    for row in rows[1::2]:
        row["images"][1] = row["images"][1].resize((140, 112))
    return [row for row in rows for _ in range(trainer.num_generations)]


def stir(*trainers) -> None:
    """The same small change of what is trained in each, so that it differs from the frozen model."""
    for trainer in trainers:
        torch.manual_seed(1)
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.data += 0.02 * torch.randn_like(weight)


def with_spread(rewards: torch.Tensor) -> torch.Tensor:
    """Other rewards, which differ within each group."""
    torch.manual_seed(2)
    return torch.rand_like(rewards)


def scored(trainer, monkeypatch):
    """A step's completions with log-probabilities of the frozen model and advantages that have a spread."""
    stock = type(trainer)._calculate_rewards
    monkeypatch.setattr(type(trainer), "_calculate_rewards", lambda self, *args: with_spread(stock(self, *args)))
    torch.manual_seed(3)
    return trainer._generate_and_score_completions(batch(trainer))


def gradients(trainer, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss, {name: one.grad for name, one in trainer.model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(("beta", "lora"), list(product([0.0, 0.04], [None, LORA])))
def test_loss_and_gradients_are_the_stock_trainers(data, tmp_path, monkeypatch, beta, lora):
    stock, ours = both(data, tmp_path, grpo__beta=beta, model__lora=lora, grpo__group_size=4, grpo__micro_batch_size=8)
    stir(stock, ours)
    inputs = scored(stock, monkeypatch)
    assert len(set(inputs["prompt_mask"].sum(dim=1).tolist())) > 1, "prompts of unequal length"
    (loss, expected), (found_loss, found) = gradients(stock, inputs), gradients(ours, inputs)
    torch.testing.assert_close(found_loss, loss, **CLOSE)
    assert found.keys() == expected.keys() and any(one.abs().max() > 1e-4 for one in expected.values())
    scale = max(one.abs().max() for one in expected.values())
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-5, atol=1e-5 * scale)


def test_greedy_drawing_writes_what_generate_writes(data, tmp_path, monkeypatch):
    stock, ours = both(data, tmp_path, grpo__temperature=1e-6, grpo__max_completion_tokens=40)
    whole = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch(stock)]
    assert ours._generate(whole)[1] == stock._generate(whole)[1]
