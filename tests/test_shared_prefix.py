"""Processing a group's prompt once gives the stock trainer's numbers; stock TRL is the reference."""

from itertools import product

import pytest
import torch
from accelerate import Accelerator
from tiny import tiny_base, tiny_profile
from trl.data_utils import prepare_multimodal_messages

from ladlib import grpo
from ladlib.errors import UserError
from ladlib.fast.shared_prefix import StepImages
from ladlib.sft_data import balanced_pairs
from ladlib.training import load_policy

CLOSE = {"rtol": 1e-5, "atol": 1e-7}
GROUPS = {"grpo__group_size": 4, "grpo__micro_batch_size": 8}  # two prompts


def make(data, folder, shared: bool, **changes):
    profile = tiny_profile(model__shared_prefix=shared, **{"model__max_new_tokens": 12} | GROUPS | changes)
    policy, processor = load_policy(profile, tiny_base())
    trainer = grpo.make_trainer(profile, balanced_pairs(profile, data, 0), data, policy, processor, folder, 0)
    trainer.create_optimizer()  # as train does
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def both(data, folder, **changes):
    """The stock trainer and ours; the same small change makes their weights differ from the frozen model's."""
    trainers = [make(data, folder / str(shared), shared, **changes) for shared in (False, True)]
    for trainer in trainers:
        torch.manual_seed(1)
        for weight in trainer.model.parameters():
            if weight.requires_grad:
                weight.data += 0.02 * torch.randn_like(weight)
    return trainers


def batch(trainer) -> list[dict]:
    """The rows of one step: each prompt once per completion, every second one with a larger test image."""
    count = trainer.args.generation_batch_size // trainer.num_generations
    rows = [trainer.train_dataset[number] for number in range(count)]
    for row in rows[1::2]:
        row["images"][1] = row["images"][1].resize((140, 112))
    return [row for row in rows for _ in range(trainer.num_generations)]


def with_spread(monkeypatch) -> None:
    """Let rewards differ within each group."""
    stock = grpo.TimedTrainer._calculate_rewards

    def rewards(self, *args):
        torch.manual_seed(2)
        return torch.rand_like(stock(self, *args))

    monkeypatch.setattr(grpo.TimedTrainer, "_calculate_rewards", rewards)


def scored(trainer, monkeypatch):
    """A step's completions with log-probabilities of the frozen model and advantages."""
    with_spread(monkeypatch)
    torch.manual_seed(3)
    inputs = trainer._generate_and_score_completions(batch(trainer))
    assert len(set(inputs["prompt_mask"].sum(dim=1).tolist())) > 1, "prompts of unequal length"
    return inputs


def as_ours(trainer, inputs):
    """The stock trainer's step in our form: the images of a prompt once for all of its rows."""
    size = trainer.num_generations
    prompts = inputs["image_grid_thw"].view(-1, 2, 3)
    patches = inputs["pixel_values"].split(prompts.prod(dim=2).sum(dim=1).tolist())
    trainer.images = StepImages(torch.cat(patches[::size]), prompts[::size].flatten(0, 1))
    return inputs | trainer.images.rows(size)


def gradients(trainer, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss, {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("beta", "lora", "frozen"), list(product([0.0, 0.04], [0, 2], [False, True])))
def test_loss_and_gradients_are_the_stock_trainers(data, tmp_path, monkeypatch, beta, lora, frozen):
    stock, ours = both(data, tmp_path, grpo__beta=beta, model__lora_rank=lora, model__freeze_vision=frozen)
    inputs = scored(stock, monkeypatch)
    (loss, expected), (our_loss, result) = gradients(stock, inputs), gradients(ours, as_ours(ours, inputs))
    torch.testing.assert_close(our_loss, loss, **CLOSE)
    assert result.keys() == expected.keys() and any(grad.abs().max() > 1e-4 for grad in expected.values())
    scale = max(grad.abs().max() for grad in expected.values())
    for name, grad in expected.items():
        torch.testing.assert_close(result[name], grad, rtol=1e-5, atol=1e-5 * scale)


def test_log_probabilities_and_entropies_are_those_of_stock_in_batches_of_any_size(data, tmp_path, monkeypatch):
    stock, ours = both(data, tmp_path)
    inputs = scored(stock, monkeypatch)
    texts = [torch.cat([inputs[f"prompt_{part}"], inputs[f"completion_{part}"]], dim=1) for part in ("ids", "mask")]
    length, valid = inputs["completion_ids"].shape[1], inputs["completion_mask"].bool()

    def read(trainer, inputs, batch_size):
        images = {name: inputs.get(name) for name in ("pixel_values", "image_grid_thw", "num_images")}
        images["mm_token_type_ids"] = inputs.get("mm_token_type_ids")
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(
                trainer.model, *texts, length, batch_size, compute_entropy=True, **images
            )[:2]

    expected = read(stock, inputs, 8)
    for batch_size in (8, 4, 2):
        for ours_, stock_ in zip(read(ours, as_ours(ours, inputs), batch_size), expected, strict=True):
            torch.testing.assert_close(ours_[valid], stock_[valid], **CLOSE)


def test_a_step_in_micro_batches_of_whole_groups_is_the_step_in_one(data, tmp_path, monkeypatch):
    with_spread(monkeypatch)
    weights = []
    for micro in (8, 4):
        ours = make(data, tmp_path / str(micro), True, grpo__micro_batch_size=micro, grpo__steps=1)
        torch.manual_seed(0)
        ours.train()
        weights.append(torch.cat([weight.flatten() for weight in ours.model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_greedy_sampling_writes_what_generate_writes(data, tmp_path):
    stock, ours = both(data, tmp_path, grpo__temperature=1e-6, model__max_new_tokens=40)
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch(stock)]
    assert ours._generate(prompts)[1] == stock._generate(prompts)[1]


def test_a_prompt_is_processed_once_for_all_of_its_completions(data, tmp_path):
    ours = make(data, tmp_path, True, model__max_new_tokens=3)
    images, tokens, inner = [], [], ours.model.model
    inner.visual.register_forward_pre_hook(
        lambda module, args, kwargs: images.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    inner.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    inputs = ours._generate_and_score_completions(batch(ours))
    prompts = inputs["prompt_mask"].sum(dim=1)[::4].tolist()
    assert images == [4] and sum(rows * length for rows, length in tokens[:2]) < sum(prompts) + 64
    assert all(length == 1 for _, length in tokens[2:]), "then one token of each completion at a time"
    ours.compute_loss(ours.model, inputs)
    assert images == [4, 4] and tokens[-1][0] == 2, "two prompts, a row each"


def test_completions_are_sampled_in_the_numeric_type_of_the_profile(data, tmp_path):
    ours = make(data, tmp_path, True, model__dtype="bfloat16", model__max_new_tokens=2)
    types, inner = set(), ours._plain(ours.model).model
    for layer in (inner.visual.blocks[0].mlp.up_proj, inner.language_model.layers[0].mlp.up_proj):
        layer.register_forward_hook(lambda module, args, output: types.add(output.dtype))
    ours._generate([prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch(ours)])
    assert types == {torch.bfloat16}


def test_what_it_cannot_do_is_refused_with_a_hint(data, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="shared_prefix samples by itself"):
        make(data, tmp_path, True, grpo__engine="vllm_colocate")
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    with pytest.raises(UserError, match="needs a whole model on each device.*ddp or zero3"):
        make(data, tmp_path, True)
