"""The paper's models at their real sizes, without weights: what is counted, frozen and given adapters."""

import json
from decimal import Decimal
from importlib import resources

import pytest
from peft import get_peft_model
from torch import nn
from transformers import Qwen2_5_VLConfig

from ladlib.config import load_profile
from ladlib.models import count_parameters, meta_model
from ladlib.published_models import PUBLISHED, VISION
from ladlib.training import freeze, lora_config

SMALL, LARGE = "Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-72B-Instruct"
LANGUAGE = {SMALL: "3.09", LARGE: "72.7"}  # billions, on the cards of Qwen2.5-3B and Qwen2.5-72B
ALL = {SMALL: 3_754_622_976, LARGE: 73_410_777_344}
UNFROZEN = {SMALL: 3_085_938_688, LARGE: 72_706_203_648}  # without the vision tower and its projector
ADAPTED = {SMALL: 119_734_272, LARGE: 842_137_600}  # rank * (inputs + outputs) of the seven layers of each block
FOLDER = resources.files("ladlib") / "profiles"
PROFILES = {
    path.name.removesuffix(".yaml"): load_profile(path.name.removesuffix(".yaml")).model
    for path in FOLDER.iterdir()
    if path.name.endswith(".yaml") and path.name != "cost.yaml"
}
WHOLE = sorted(name for name, settings in PROFILES.items() if not settings.lora)
WITH_ADAPTERS = sorted(set(PROFILES) - set(WHOLE))


@pytest.fixture(params=PUBLISHED)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return meta_model(PUBLISHED[name])


def trained(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


def rounds_to(parameters: int, billions: str) -> bool:
    """Whether the number, in billions, is the published one to the last digit that is published."""
    return round(Decimal(parameters) / 10**9, -Decimal(billions).as_tuple().exponent) == Decimal(billions)


def test_the_models_have_as_many_parameters_as_published(name, model):
    assert count_parameters(model) == ALL[name]
    assert rounds_to(ALL[name], str(PUBLISHED[name].billions))


def test_without_the_vision_tower_they_are_the_language_models_they_were_made_from(name, model):
    assert rounds_to(count_parameters(model) - count_parameters(model.model.visual), LANGUAGE[name])


def test_an_outline_holds_no_weights(model):
    assert {one.device.type for one in model.parameters()} == {"meta"}


def test_only_the_3b_uses_its_embedding_as_the_output_layer(name, model):
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == (name == SMALL)


def test_every_profile_is_looked_at():
    assert WHOLE == ["paper", "smoke", "toy"] and WITH_ADAPTERS == ["small"]


@pytest.mark.parametrize("profile", WHOLE)
def test_a_profile_without_adapters_trains_all_but_the_frozen_vision_tower(profile, name, model):
    settings = PROFILES[profile]
    freeze(model, settings)
    assert lora_config(model, settings.lora) is None
    assert trained(model) == (UNFROZEN if settings.freeze_vision else ALL)[name]


def test_the_frozen_vision_tower_includes_its_projector_and_nothing_else(model):
    freeze(model, PROFILES["paper"])
    frozen = {key for key, one in model.named_parameters() if not one.requires_grad}
    assert frozen == {key for key, _ in model.named_parameters() if key.startswith("model.visual.")}
    assert {key.split(".")[2] for key in frozen} == {"patch_embed", "blocks", "merger"}


@pytest.mark.parametrize("profile", WITH_ADAPTERS)
def test_adapters_sit_on_the_seven_linear_layers_of_each_language_block_and_nothing_else_trains(
    profile, name, model, capsys
):
    settings = PROFILES[profile]
    freeze(model, settings)
    adapted = get_peft_model(model, lora_config(model, settings.lora), low_cpu_mem_usage=True)
    places = [key for key, module in adapted.named_modules() if hasattr(module, "lora_A")]
    assert len(places) == 7 * PUBLISHED[name].layers == {SMALL: 252, LARGE: 560}[name]
    assert f"on {len(places)} linear layers" in capsys.readouterr().out
    assert all(".model.language_model.layers." in key for key in places)
    assert all("lora_" in key for key, one in adapted.named_parameters() if one.requires_grad)
    assert settings.lora.rank == 64 and trained(adapted) == ADAPTED[name]


def test_what_the_family_shares_is_as_in_a_genuine_configuration(qwen_files, name):
    genuine = json.loads((qwen_files / "config.json").read_text(encoding="utf-8"))
    ours = PUBLISHED[name].config()
    assert {key: genuine["vision_config"][key] for key in VISION} == VISION
    shared = ("max_position_embeddings", "rms_norm_eps", "use_sliding_window")
    assert {key: ours["text_config"][key] for key in shared} == {key: genuine[key] for key in shared}
    rope = ours["text_config"]["rope_parameters"]
    assert rope["rope_theta"] == genuine["rope_theta"]
    assert rope["mrope_section"] == genuine["rope_scaling"]["mrope_section"]
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    assert {key: getattr(Qwen2_5_VLConfig(**ours), key) for key in tokens} == {key: genuine[key] for key in tokens}
