"""What is counted without torch is what transformers and PEFT build."""

import pytest
from peft import get_peft_model
from tiny import tiny_base

from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.models import count_parameters, load_model, meta_model
from ladlib.published_models import PUBLISHED
from ladlib.sizes import sizes_of
from ladlib.training import lora_config


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_models_parameters_are_counted_as_transformers_builds_them(name):
    model, sizes = meta_model(PUBLISHED[name]), sizes_of(name)
    assert sizes.parameters == count_parameters(model)
    assert sizes.vision == count_parameters(model.model.visual)
    assert sizes.embedding == model.get_input_embeddings().weight.numel()


def test_adapters_are_counted_as_peft_makes_them():
    name, settings = "Qwen/Qwen2.5-VL-3B-Instruct", load_profile("small").model
    model = meta_model(PUBLISHED[name]).requires_grad_(False)
    adapted = get_peft_model(model, lora_config(model, settings.lora), low_cpu_mem_usage=True)
    trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert sizes_of(name).adapters(settings.lora.rank) == trained


@pytest.mark.parametrize("name", ["toy-base", "a folder"])
def test_a_model_in_a_folder_is_counted_from_its_configuration(name):
    folder = tiny_base() if name == "a folder" else name
    assert sizes_of(folder).parameters == count_parameters(load_model(folder, load_profile("smoke").model))


def test_an_image_has_a_token_for_28_by_28_pixels():
    assert sizes_of("Qwen/Qwen2.5-VL-3B-Instruct").image_tokens(401_408) == 512


def test_sizes_that_nobody_knows_are_refused():
    with pytest.raises(UserError, match="Qwen2.5-VL-3B-Instruct"):
        sizes_of("somebody/some-model")
