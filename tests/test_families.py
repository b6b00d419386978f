"""What is counted without torch is what transformers and PEFT build, at the published models' real sizes."""

import json

import pytest
from peft import get_peft_model
from tiny import meta_model, tiny_base

from ladlib.config import PROFILES, load_profile
from ladlib.doctor import trained_parameters
from ladlib.errors import UserError
from ladlib.families import PUBLISHED, check_family, sizes_of
from ladlib.models import count_parameters, load_model
from ladlib.training import freeze, lora_config

NAME = "Qwen/Qwen2.5-VL-3B-Instruct"
PARAMETERS = 3_754_622_976  # 7,509,245,952 bytes of bfloat16
LANGUAGE = 3_085_938_688  # Qwen2.5-3B's card: 3.09B
ADAPTERS = 119_734_272  # rank 64 on the seven layers of each block


def test_the_published_model_has_as_many_parameters_as_published_and_as_counted():
    model, sizes = meta_model(NAME), sizes_of(NAME)
    assert sizes.parameters == count_parameters(model) == PARAMETERS
    assert sizes.language == sizes.parameters - count_parameters(model.model.visual) == LANGUAGE


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_trains_what_it_says(profile):
    profile, model = load_profile(profile), meta_model(NAME)
    freeze(model, profile.model)
    if profile.model.lora_rank:
        model = get_peft_model(model, lora_config(profile.model.lora_rank), low_cpu_mem_usage=True)
        layers = [key for key, module in model.named_modules() if hasattr(module, "lora_A")]
        assert len(layers) == 7 * PUBLISHED[NAME].layers
        assert all(".model.language_model.layers." in key for key in layers)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    whole = LANGUAGE if profile.model.freeze_vision else PARAMETERS
    assert trained == trained_parameters(profile, sizes_of(NAME)) == (ADAPTERS if profile.model.lora_rank else whole)
    frozen = {key.split(".")[2] for key, weight in model.named_parameters() if not weight.requires_grad}
    if profile.name == "paper":  # the tower and its projector, nothing else
        assert frozen == {"patch_embed", "blocks", "merger"}


@pytest.mark.parametrize("name", ["toy-base", "a folder"])
def test_a_model_in_a_folder_is_counted_from_its_configuration(name):
    folder = tiny_base() if name == "a folder" else name
    assert sizes_of(folder).parameters == count_parameters(load_model(folder, load_profile("smoke").model))


def test_the_sizes_of_a_7b_are_read_as_qwens_repository_writes_them(tmp_path):
    config = dict(
        model_type="qwen2_5_vl", hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, vocab_size=152_064,
        num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
        vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420),
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert sizes_of(str(tmp_path)).parameters == 8_292_166_656


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_type": "qwen3_vl"}', "does not belong to a Qwen2.5-VL but to qwen3_vl"),
        ("[]", "but to None"),
        ('{"model_type": []}', "does not belong"),
    ],
)
def test_another_family_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        check_family(tmp_path / "config.json")
    with pytest.raises(UserError, match="no configuration"):
        sizes_of(str(tmp_path))
    with pytest.raises(UserError, match="not known"):
        sizes_of("somebody/a-model")
