"""The memory calculator's rates against transformers' own layers at the 3B's widths, and what follows from them.

The layers run on tensors without values (``FakeTensorMode``), so that real widths cost nothing; bytes are
counted by storage, and a rate is what 8,192 more tokens (4,096 more patches) add.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from peft import get_peft_model
from tiny import tiny_base
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from ladlib.activations import inference_rates, rates
from ladlib.bench import LiveBytes
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.memory import (
    CALCULATED,
    GIB,
    HEAD_TILE,
    Memory,
    cache_bytes,
    is_calculated,
    stage_memory,
)
from ladlib.models import load_model, meta_model
from ladlib.published_models import PUBLISHED
from ladlib.sizes import sizes_of
from ladlib.training import freeze, lora_config

THREE_B = "Qwen/Qwen2.5-VL-3B-Instruct"
SIZES = sizes_of(THREE_B)
PAPER, SMALL = load_profile("paper"), load_profile("small", **{"model.lora": {"rank": 64, "alpha": 128, "dropout": 0}})
WHOLE = load_profile("paper", **{"model.freeze_vision": False})
CLOSE = 0.03


@contextmanager
def without_values(profile, dtype: torch.dtype) -> Iterator[torch.nn.Module]:
    """The 3B with one layer of each kind as the profile trains it, gradients included; no tensor holds values."""
    model = meta_model(PUBLISHED[THREE_B].model_copy(update={"layers": 1})).to(dtype).train()
    freeze(model, profile.model)
    if profile.model.lora:
        get_peft_model(model.requires_grad_(False), lora_config(model, profile.model.lora), low_cpu_mem_usage=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for name, one in list(module._parameters.items()):
                if one is not None:
                    module._parameters[name] = _empty(one)
            for name, one in list(module._buffers.items()):
                module._buffers[name] = torch.empty(one.shape, dtype=one.dtype)
        yield model


def _empty(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    made = torch.nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
    made.grad = torch.zeros_like(made) if made.requires_grad else None
    return made


def decoder_peak(model, dtype: torch.dtype, rows: int, backward: bool, autocast: bool) -> int:
    language, tokens = model.model.language_model, 1024
    hidden = torch.zeros(rows, tokens, SIZES.hidden, dtype=dtype, requires_grad=backward)
    rotary = language.rotary_emb(hidden, torch.zeros(3, rows, tokens, dtype=torch.long))
    mask = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)  # as left padding makes one
    return peak(lambda: language.layers[0](hidden, attention_mask=mask, position_embeddings=rotary), backward, autocast)


def tower_peak(model, patches: int, backward: bool, autocast: bool) -> int:
    hidden = torch.zeros(patches, SIZES.vision_hidden, dtype=torch.bfloat16, requires_grad=backward)
    rotary = torch.zeros(patches, 80), torch.zeros(patches, 80)
    windows = np.arange(0, patches + 1, 64)  # real numbers: the layer splits by them
    block = model.model.visual.blocks[0]
    return peak(lambda: block(hidden, cu_seqlens=windows, position_embeddings=rotary), backward, autocast)


def peak(layer, backward: bool, autocast: bool) -> int:
    with torch.set_grad_enabled(backward), LiveBytes() as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = layer()
        if backward:
            output.backward(torch.zeros_like(output))
    return live.peak


def decoder_rate(*args, **kwargs) -> float:
    return (decoder_peak(*args, rows=16, **kwargs) - decoder_peak(*args, rows=8, **kwargs)) / 8192


def tower_rate(*args, **kwargs) -> float:
    return (tower_peak(*args, patches=8192, **kwargs) - tower_peak(*args, patches=4096, **kwargs)) / 4096


@pytest.mark.parametrize(
    ("profile", "dtype"), [(PAPER, torch.float32), (SMALL, torch.bfloat16)], ids=["whole", "adapters"]
)
def test_a_decoder_layer_in_training_needs_the_stated_bytes_a_token(profile, dtype):
    stated, stream = rates(profile, SIZES), dtype.itemsize * SIZES.hidden
    with without_values(profile, dtype) as model:
        forward = decoder_rate(model, dtype, backward=False, autocast=True)
        backward = decoder_rate(model, dtype, backward=True, autocast=True)
    assert stated.boundary == stream
    assert forward + 2 * stream == pytest.approx(stated.forward, rel=CLOSE)  # embeddings and input, held elsewhere
    assert backward == pytest.approx(stated.backward, rel=CLOSE)


@pytest.mark.parametrize(
    ("profile", "dtype"), [(WHOLE, torch.float32), (SMALL, torch.bfloat16)], ids=["whole", "adapters"]
)
def test_a_layer_of_the_tower_in_training_needs_the_stated_bytes_a_patch(profile, dtype):
    stated = rates(profile, SIZES)
    with without_values(profile, dtype) as model:
        forward = tower_rate(model, backward=False, autocast=True)
        backward = tower_rate(model, backward=True, autocast=True)
    assert stated.vision_boundary == 2 * SIZES.vision_hidden
    assert forward + stated.vision_boundary == pytest.approx(stated.vision_forward, rel=CLOSE)
    assert backward == pytest.approx(stated.vision_backward, rel=CLOSE)


def test_a_model_that_only_answers_needs_the_stated_bytes():
    stated, dtype = inference_rates(SIZES), torch.bfloat16
    with without_values(PAPER, dtype) as model:
        forward = decoder_rate(model, dtype, backward=False, autocast=False)
        tower = tower_rate(model, backward=False, autocast=False)
    assert forward + 2 * dtype.itemsize * SIZES.hidden == pytest.approx(stated.forward, rel=CLOSE)
    assert tower + dtype.itemsize * SIZES.vision_hidden == pytest.approx(stated.vision_forward, rel=CLOSE)


def test_the_head_makes_tiles_and_one_float32_gradient_of_the_embedding(monkeypatch):
    for name in ("_forward_tile", "_backward_tile"):  # Triton's kernels, unlike these, work in place
        monkeypatch.setattr(chunked_logprob, name, lambda *args, **kwargs: None)
    tokens, words = HEAD_TILE
    tile, head = 2 * tokens * words, chunked_logprob.ChunkedLogProbFunction
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16), LiveBytes() as live:
        hidden = torch.zeros(2 * tokens, SIZES.hidden, requires_grad=True)
        weight = torch.zeros(SIZES.embedding // SIZES.hidden, SIZES.hidden, requires_grad=True)
        targets, before = torch.zeros(2 * tokens, dtype=torch.long), live.now
        output, *_ = head.apply(hidden, weight, None, targets, 0.9, words, None, 1.0, ("log_probs", "entropy"))
        forward = live.peak - before
        live.reset_peak()
        output.sum().backward()
    slice_ = 2 * words * SIZES.hidden  # of the head in bfloat16
    assert HEAD_TILE[0] == chunked_logprob.TOKEN_CHUNK_SIZE
    assert HEAD_TILE[1] == trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    assert forward == pytest.approx(tile + slice_, rel=0.1)
    copies = 6 * words * SIZES.hidden  # a CPU has no product of bfloat16 into float32, and takes copies
    gradients = 4 * SIZES.embedding + 4 * 2 * tokens * SIZES.hidden
    assert live.peak - before == pytest.approx(tile + gradients + copies, rel=0.3)


@pytest.mark.parametrize(("autocast", "item"), [(True, 4), (False, 2)])
def test_the_cache_is_as_large_as_calculated(autocast, item):
    dtype = "float32" if autocast else "bfloat16"
    model = load_model(tiny_base(), load_profile("smoke", **{"model.dtype": dtype}).model).eval()
    cache, ids = DynamicCache(config=model.config.get_text_config()), torch.zeros(3, 20, dtype=torch.long)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)
    held = sum(one.nbytes for layer in cache.layers for one in (layer.keys, layer.values))
    assert held == cache_bytes(sizes_of(tiny_base()), 3 * 21, item)


def test_the_states_of_full_training_are_sixteen_bytes_a_parameter():
    sft = stage_memory(WHOLE)["SFT"]
    assert sft.weights + sft.gradients + sft.optimizer == 16 * SIZES.parameters


def test_adapters_have_no_second_model_and_full_training_has_one_unless_there_is_no_kl_term():
    assert stage_memory(SMALL)["GRPO update"].reference == 0
    assert stage_memory(PAPER)["GRPO update"].reference == 4 * SIZES.parameters
    free = load_profile("paper", **{"grpo.beta": 0.0})
    assert stage_memory(free)["GRPO update"].reference == 0


def test_several_whole_copies_need_more_than_one_and_sharded_ones_less():
    one, four, shared = (stage_memory(PAPER, n, how)["SFT"] for n, how in ((1, "none"), (4, "none"), (4, "full")))
    assert four.buckets == four.gradients and four.total > one.total > shared.total
    assert shared.optimizer == one.optimizer / 4


@pytest.mark.parametrize(
    ("field", "less", "stage"),
    [
        ("data.max_pixels", 200_704, "SFT"),
        ("grpo.micro_batch_size", 2, "GRPO update"),
        ("grpo.prompts_per_step", 8, "GRPO rollouts"),
        ("grpo.group_size", 4, "GRPO rollouts"),
        ("model.max_new_tokens", 128, "GRPO update"),
        ("grpo.beta", 0.0, "GRPO rollouts"),
        ("evaluate.batch_size", 2, "evaluation"),
    ],
)
def test_less_of_a_field_needs_less_memory(field, less, stage):
    changed = load_profile("paper", **{field: less})
    assert stage_memory(changed)[stage].total < stage_memory(PAPER)[stage].total


def test_the_sum_of_the_terms_is_the_total():
    for memory in stage_memory(PAPER, 4).values():
        assert sum(memory.terms().values()) == pytest.approx(memory.total)
        assert memory.allowance > GIB


def test_it_is_for_large_models_in_bfloat16_only():
    assert is_calculated(PAPER) and is_calculated(SMALL)
    assert not is_calculated(load_profile("toy"))
    assert not is_calculated(load_profile("paper", **{"model.dtype": "float32"}))
    with pytest.raises(UserError, match="sizes"):
        is_calculated(load_profile("paper", **{"model.base": "somebody/a-model"}))
    assert CALCULATED == "calculated, not measured" and Memory().tensors == 0
