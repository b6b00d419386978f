"""Reading a group's prompt once gives the stock trainer's numbers; stock TRL is the oracle."""

from itertools import product

import pytest
import torch
from accelerate import Accelerator
from tiny import narrow_3b, tiny_base, tiny_profile, write_data
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl.data_utils import prepare_multimodal_messages

from ladlib import grpo
from ladlib.bench import grpo as bench
from ladlib.bench.cost import step_of, step_operations
from ladlib.conversations import balanced_pairs
from ladlib.errors import UserError
from ladlib.shared_prefix.shown import show
from ladlib.sizes import sizes_of
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
    trainer.current_gradient_accumulation_steps = 1
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


def as_ours(trainer, inputs):
    """What the stock trainer made of a step, as ours has it: the images of a prompt once for all of its rows."""
    size = trainer.num_generations
    prompts = inputs["image_grid_thw"].view(-1, 2, 3)
    patches = inputs["pixel_values"].split(prompts.prod(dim=2).sum(dim=1).tolist())
    grids = prompts[::size].flatten(0, 1)
    with torch.no_grad():
        trainer._shown = show(trainer._plain(trainer.model), torch.cat(patches[::size]), grids)
    return inputs | trainer._shown.rows(size)


def gradients(trainer, inputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return loss, {name: one.grad for name, one in trainer.model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(("beta", "lora", "frozen"), list(product([0.0, 0.04], [None, LORA], [False, True])))
def test_loss_and_gradients_are_the_stock_trainers(data, tmp_path, monkeypatch, beta, lora, frozen):
    changes = {"grpo__beta": beta, "model__lora": lora, "model__freeze_vision": frozen}
    stock, ours = both(data, tmp_path, grpo__group_size=4, grpo__micro_batch_size=8, **changes)
    stir(stock, ours)
    inputs = scored(stock, monkeypatch)
    assert len(set(inputs["prompt_mask"].sum(dim=1).tolist())) > 1, "prompts of unequal length"
    (loss, expected), (found_loss, found) = gradients(stock, inputs), gradients(ours, as_ours(ours, inputs))
    torch.testing.assert_close(found_loss, loss, **CLOSE)
    assert found.keys() == expected.keys() and any(one.abs().max() > 1e-4 for one in expected.values())
    scale = max(one.abs().max() for one in expected.values())
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("batch_size", [8, 4, 2])
def test_log_probabilities_and_entropies_are_those_of_stock_in_batches_of_any_size(
    data, tmp_path, monkeypatch, batch_size
):
    stock, ours = both(data, tmp_path, grpo__group_size=4, grpo__micro_batch_size=8)
    stir(stock, ours)
    made = scored(stock, monkeypatch)
    texts = [torch.cat([made[f"prompt_{kind}"], made[f"completion_{kind}"]], dim=1) for kind in ("ids", "mask")]
    found = []
    for trainer in (stock, ours):
        own = made if trainer is stock else as_ours(ours, made)
        shown = {name: own[name] for name in ("pixel_values", "image_grid_thw", "num_images")}
        shown["mm_token_type_ids"] = own.get("mm_token_type_ids")
        with torch.no_grad():
            found.append(
                trainer._get_per_token_logps_and_entropies(
                    trainer.model, *texts, made["completion_ids"].shape[1], batch_size, compute_entropy=True, **shown
                )
            )
    seen = made["completion_mask"].bool()
    for expected, one in zip(*(pair[:2] for pair in found), strict=True):
        torch.testing.assert_close(one[seen], expected[seen], **CLOSE)


def test_a_group_without_spread_is_read_without_a_gradient_where_there_is_no_kl_term(data, tmp_path, monkeypatch):
    changes = {"grpo__beta": 0.0, "grpo__group_size": 4, "grpo__micro_batch_size": 8}
    stock, ours = both(data, tmp_path, **changes)
    inputs = scored(stock, monkeypatch)
    inputs["advantages"][4:] = 0
    read = []
    hook = ours.model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append((len(kwargs["input_ids"]), torch.is_grad_enabled())), with_kwargs=True
    )
    (loss, expected), (found_loss, found) = gradients(stock, inputs), gradients(ours, as_ours(ours, inputs))
    hook.remove()
    assert read == [(1, True), (1, False)], "a row of one group with its gradient, a row of the other without"
    torch.testing.assert_close(found_loss, loss, **CLOSE)
    scale = max(one.abs().max() for one in expected.values())
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-5, atol=1e-5 * scale)


def test_a_step_in_micro_batches_of_whole_groups_is_the_step_in_one(data, tmp_path, monkeypatch):
    weights, stock = [], grpo.SharedTrainer._calculate_rewards
    monkeypatch.setattr(grpo.SharedTrainer, "_calculate_rewards", lambda self, *args: with_spread(stock(self, *args)))
    for micro in (8, 4):
        ours = make(data, tmp_path / str(micro), True, grpo__group_size=4, grpo__micro_batch_size=micro, grpo__steps=1)
        torch.manual_seed(0)
        ours.train()
        weights.append(torch.cat([one.flatten() for one in ours.model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_a_prompt_and_its_images_are_read_once_for_all_of_its_completions(data, tmp_path, monkeypatch):
    ours = make(data, tmp_path, True, grpo__group_size=4, grpo__micro_batch_size=8, grpo__max_completion_tokens=3)
    images, tokens = [], []
    inner = ours.model.model
    inner.visual.register_forward_pre_hook(
        lambda module, args, kwargs: images.append(len(kwargs["grid_thw"])), with_kwargs=True
    )
    inner.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    made = ours._generate_and_score_completions(batch(ours))
    prompts = made["prompt_mask"].sum(dim=1)[::4].tolist()
    assert images == [4] and sum(rows * length for rows, length in tokens[:2]) < sum(prompts) + 64
    assert all(length == 1 for _, length in tokens[2:]), "then one token of each completion at a time"
    ours.compute_loss(ours.model, made)
    assert images == [4, 4] and tokens[-1][0] == 2, "two prompts, a row each"


def test_an_image_is_cut_into_patches_once_a_step_and_encoded_once_where_the_tower_is_frozen(
    data, tmp_path, monkeypatch
):
    ours = make(data, tmp_path, True, grpo__group_size=4, grpo__micro_batch_size=8, model__freeze_vision=True)
    cut, encoded, stock = [], [], Qwen2VLImageProcessorPil.preprocess
    monkeypatch.setattr(
        Qwen2VLImageProcessorPil, "preprocess",
        lambda self, images, *args, **kwargs: cut.append(sum(map(len, images))) or stock(self, images, *args, **kwargs),
    )  # fmt: skip
    for model in (ours.model, ours.ref_model):
        model.model.visual.register_forward_pre_hook(
            lambda module, args, kwargs: encoded.append(len(kwargs["grid_thw"])), with_kwargs=True
        )
    made = ours._generate_and_score_completions(batch(ours))
    ours.compute_loss(ours.model, made)
    assert sum(cut) == 4 and encoded == [4], "two images of two prompts, with a KL term"


def test_completions_are_drawn_in_the_numeric_type_of_the_profile(data, tmp_path):
    ours = make(data, tmp_path, True, grpo__group_size=2, grpo__micro_batch_size=4, model__dtype="bfloat16")
    found, inner = set(), ours._plain(ours.model).model
    for layer in (inner.visual.blocks[0].mlp.up_proj, inner.language_model.layers[0].mlp.up_proj):
        layer.register_forward_hook(lambda module, args, output: found.add(output.dtype))
    ours._generate([prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch(ours)])
    assert found == {torch.bfloat16}


def test_a_group_is_read_no_further_than_its_own_longest_completion(data, tmp_path, monkeypatch):
    ours = make(data, tmp_path, True, grpo__group_size=4, grpo__micro_batch_size=4)
    lengths = [2, 3, 1, 2, 9, 5, 7, 1]
    monkeypatch.setattr(
        ours, "_draw_groups", lambda *_: [[[5] * n for n in lengths[:4]], [[5] * n for n in lengths[4:]]]
    )
    read, seen = [], lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1])
    hook = ours.ref_model.register_forward_pre_hook(seen, with_kwargs=True)
    made = ours._generate_and_score_completions(batch(ours))
    hook.remove()
    prompts = made["prompt_mask"].sum(dim=1)[::4].tolist()
    assert read == [prompts[0] - 1 + 4 * 3, prompts[1] - 1 + 4 * 9]
    assert made["ref_per_token_logps"].shape == (8, 9)


def test_a_group_without_spread_is_drawn_again_as_often_as_the_profile_says(data, tmp_path, monkeypatch):
    ours = make(data, tmp_path, True, grpo__group_size=4, grpo__micro_batch_size=8, grpo__redraws=2)
    word = ours._tokenizer("yes")["input_ids"]
    other = ours._tokenizer("<think></think><answer>yes</answer>")["input_ids"]
    silent, teaching = [word] * 4, [word, word, word, other]
    drawn, asked = iter([[teaching, silent], [silent], [teaching]]), []
    monkeypatch.setattr(
        ours, "_draw_groups", lambda model, prompts, size: asked.append([one.first for one in prompts]) or next(drawn)
    )
    made = ours._generate_and_score_completions(batch(ours))
    assert asked == [[0, 1], [1], [1]], "the group that teaches is left alone"
    rows = [
        row[kept.bool()].tolist() for row, kept in zip(made["completion_ids"], made["completion_mask"], strict=True)
    ]
    assert rows == teaching * 2


def test_redrawing_by_the_stock_trainer_is_refused_with_the_mend(data, tmp_path):
    with pytest.raises(UserError, match="grpo.redraws needs grpo.shared_prefix"):
        make(data, tmp_path, False, grpo__redraws=1)


def test_tokens_are_drawn_as_often_as_they_are_likely(data, tmp_path):
    ours = make(data, tmp_path, True, grpo__temperature=2.0)
    logits = torch.tensor([0.0, 1.0, 2.0, -torch.inf])
    torch.manual_seed(0)
    shares = torch.bincount(ours._draw(logits.expand(40_000, -1)), minlength=4) / 40_000
    torch.testing.assert_close(shares, (logits / 2).softmax(dim=0), atol=0.01, rtol=0)


def test_another_attention_is_refused_with_the_mend(data, tmp_path):
    with pytest.raises(UserError, match="shared_prefix works with model.attention sdpa, not eager"):
        make(data, tmp_path, True, model__attention="eager")


def test_vllm_is_refused_with_the_mend(data, tmp_path):
    with pytest.raises(UserError, match="shared_prefix"):
        make(data, tmp_path, True, grpo__engine="vllm_server")


def test_a_model_divided_among_devices_is_refused_with_the_mend(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "is_fsdp2", True)
    with pytest.raises(UserError, match="needs a whole model on each device.*ddp or zero3"):
        make(data, tmp_path, True)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_at_the_papers_lengths_a_step_takes_less_than_a_third_of_the_arithmetic(data, tmp_path, frozen):
    """Two images of about 300 tokens each, answers of 150 tokens, G 8; widths and depths in the 3B's proportions."""
    model = narrow_3b(tmp_path / "model")
    profile = tiny_profile(
        model__base=model, data__min_pixels=290 * 28**2, data__max_pixels=310 * 28**2,
        grpo__max_completion_tokens=150, grpo__group_size=8, grpo__prompts_per_step=2, grpo__micro_batch_size=16,
        grpo__steps=1, model__freeze_vision=frozen,
    )  # fmt: skip
    ways = [bench._way(name, profile, data, tmp_path, "") for name in (bench.STOCK, bench.OURS)]
    stock, ours = (way.flops() for way in ways)
    assert all(way.tokens > 120 for way in ways) and stock > 3 * ours
    sizes = sizes_of(profile.model.base)
    on_paper = step_operations(sizes, step_of(profile, sizes, completion=150))
    assert [sum(on_paper[name].values()) for name in ("stock", "here")] == pytest.approx([stock, ours], rel=0.15)


def test_greedy_drawing_writes_what_generate_writes(data, tmp_path, monkeypatch):
    stock, ours = both(data, tmp_path, grpo__temperature=1e-6, grpo__max_completion_tokens=40)
    whole = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in batch(stock)]
    assert ours._generate(whole)[1] == stock._generate(whole)[1]
