"""The memory sum against the bytes that TRL's trainers hold in a small training on a CPU, and what follows from it."""

from dataclasses import replace

import pytest
from tiny import TINY, meta_model, tiny_processor, tiny_profile, write_data
from trl.trainer import utils as trl_utils

from ladlib import grpo, memory, sft, training
from ladlib.bench import LiveBytes
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.memory import GIB, grpo_steps, is_calculated, largest, sft_steps, stage_memory
from ladlib.sft_data import balanced_pairs, make_conversations
from ladlib.toy.pretrain_model import make_model
from ladlib.training import load_policy

PAPER, SMALL = load_profile("paper"), load_profile("small")
TILE = 4096 * 128  # tokens x words: TRL's buffer of 32768 words would be larger than all else here


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    wide = replace(TINY, hidden=256, layers=4, heads=4, vision_hidden=128)
    make_model(wide, tiny_processor()).save_pretrained(folder)
    tiny_processor().tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(params=[0, 8], ids=["full", "adapters"])
def profile(request, model, monkeypatch):
    monkeypatch.setattr(training, "LARGE", 0)  # recompute activations, as for the 3B
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 128)
    monkeypatch.setattr(memory, "TILE", TILE)
    monkeypatch.setattr(memory, "SFT_TEXT", 76)  # of the conversations here
    return tiny_profile(
        model__base=model, model__dtype="bfloat16", model__freeze_vision=True, model__lora_rank=request.param,
        model__max_new_tokens=48, model__shared_prefix=False, data__min_pixels=80 * 784, data__max_pixels=80 * 784,
        data__sft_samples=4, sft__steps=2, sft__micro_batch_size=4, sft__batch_size=4, grpo__micro_batch_size=4,
        grpo__prompts_per_step=1, grpo__group_size=4, grpo__beta=0.04, grpo__steps=2,
    )  # fmt: skip


@pytest.mark.slow
def test_a_training_holds_what_is_calculated(profile, data, tmp_path):
    stage = "SFT" if profile.model.lora else "GRPO update"
    policy, processor = load_policy(profile, profile.model.base)
    if stage == "SFT":
        inputs = make_conversations(profile, data, 0)
        trainer = sft.make_trainer(profile, inputs, data, policy, processor, tmp_path / "x", 0)
    else:
        inputs = balanced_pairs(profile, data, 0)[:1]
        trainer = grpo.make_trainer(profile, inputs, data, policy, processor, tmp_path / "x", 0)
    live = LiveBytes()
    live.known(trainer.model, *([trainer.ref_model] if getattr(trainer, "ref_model", None) else []))
    with live:
        trainer.train()
    assert live.peak == pytest.approx(stage_memory(profile)[stage].tensors, rel=memory.TOLERANCE)


def test_full_training_holds_sixteen_bytes_per_parameter_and_a_reference_model_where_there_is_a_kl_term():
    whole = PAPER.replace({"model.freeze_vision": False})
    update = stage_memory(whole)["GRPO update"]
    parameters = sum(weight.numel() for weight in meta_model(PAPER.model.base).parameters())
    copies = 2 * (parameters - 151_936 * 2048)
    assert update.weights + update.gradients + update.adam == 16 * parameters + copies
    assert update.reference == 4 * parameters
    assert stage_memory(PAPER.replace({"grpo.beta": 0.0}))["GRPO update"].reference == 0
    assert stage_memory(SMALL)["GRPO update"].reference == 0


def test_the_small_profile_fits_24_gb_and_the_papers_needs_more_than_80_unless_it_is_divided():
    assert largest(SMALL) < 23.5 and largest(PAPER) > 79.1 > largest(PAPER, 8, sharded=True)
    assert largest(PAPER, 8) > largest(PAPER, 8, sharded=True)


@pytest.mark.parametrize(
    ("field", "less", "stage"),
    [
        ("data.max_pixels", 200_704, "SFT"),
        ("grpo.micro_batch_size", 2, "GRPO update"),
        ("grpo.prompts_per_step", 8, "GRPO rollouts"),
        ("grpo.group_size", 4, "GRPO rollouts"),
        ("model.max_new_tokens", 128, "GRPO update"),
        ("grpo.beta", 0.0, "GRPO rollouts"),
        ("model.lora_rank", 64, "SFT"),
        ("evaluate.batch_size", 2, "evaluation"),
    ],
)
def test_less_of_a_field_needs_less_memory(field, less, stage):
    assert stage_memory(PAPER.replace({field: less}))[stage].total < stage_memory(PAPER)[stage].total
    assert stage_memory(PAPER)[stage].total > GIB


def test_it_is_for_large_models_in_bfloat16_only():
    assert is_calculated(PAPER) and is_calculated(SMALL)
    assert not is_calculated(load_profile("toy")) and not is_calculated(PAPER.replace({"model.dtype": "float32"}))
    with pytest.raises(UserError, match="sizes"):
        is_calculated(PAPER.replace({"model.base": "somebody/a-model"}))


def planned(trainer) -> int:
    return trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


def test_steps_are_counted_as_the_trainers_count_them_where_epochs_do_not_come_out_even(data, tmp_path):
    """An epoch of SFT ends with a smaller step; one of GRPO drops an incomplete step."""
    uneven = tiny_profile(
        data__sft_samples=5, sft__steps=0, sft__epochs=3, sft__batch_size=4, sft__micro_batch_size=2,
        grpo__steps=0, grpo__epochs=2, grpo__prompts_per_step=3, grpo__micro_batch_size=2,
    )  # fmt: skip
    inputs, where = make_conversations(uneven, data, 0), (tmp_path / "x", 0)
    policy, processor = load_policy(uneven, uneven.model.base)
    assert planned(sft.make_trainer(uneven, inputs, data, policy, processor, *where)) == sft_steps(uneven) == 3 * 2
    pairs = balanced_pairs(uneven, data, 0)
    trainer = grpo.make_trainer(uneven, pairs, data, policy, processor, *where)
    assert planned(trainer) == grpo_steps(uneven, len(pairs)) == 2 * 1


def test_steps_are_those_of_the_profile_or_of_its_epochs():
    toy = load_profile("toy")
    assert (sft_steps(toy), grpo_steps(toy)) == (toy.sft.steps, toy.grpo.steps)
    assert sft_steps(PAPER) == sft_steps(PAPER, devices=8) == 3 * 188
    assert grpo_steps(PAPER) == 2 * 62 and grpo_steps(PAPER, pairs=160) == 2 * 10
