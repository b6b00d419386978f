"""What must be true after a load."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import tiny_base, tiny_processor, tiny_profile

from ladlib.errors import UserError
from ladlib.models import VISION_TOKENS, decode, fingerprint, load_model, load_processor, resolve_model
from ladlib.pipeline import STAGES
from ladlib.training import LORA_TARGETS


@pytest.fixture
def settings():
    return tiny_profile().model


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(tiny_base(), tmp_path / "model")


def write_adapter(folder, trained: bool, base: str = ""):
    model = load_model(base or tiny_base(), tiny_profile().model)
    model.name_or_path = base or tiny_base()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=LORA_TARGETS))
    for name, weight in adapted.named_parameters():
        if trained and "lora_B" in name:
            torch.nn.init.constant_(weight, 0.05)
    adapted.save_pretrained(folder)
    return str(folder)


def logits(model):
    ids = torch.arange(20, 40).unsqueeze(0)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def test_a_checkpoint_with_a_missing_key_is_refused(copied, settings):
    weights = load_file(copied / "model.safetensors")
    weights.pop(next(key for key in weights if key.endswith("k_proj.weight")))
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing keys, first .*k_proj"):
        load_model(str(copied), settings)


def test_a_checkpoint_with_an_unknown_key_is_refused(copied, settings):
    weights = load_file(copied / "model.safetensors") | {"model.language_model.stray.weight": torch.zeros(1)}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 unexpected keys"):
        load_model(str(copied), settings)


def test_an_adapter_that_does_nothing_is_refused(tmp_path, settings):
    with pytest.raises(UserError, match="changes nothing"):
        load_model(write_adapter(tmp_path / "adapter", trained=False), settings)


def test_an_adapter_changes_the_logits(tmp_path, settings):
    adapter = write_adapter(tmp_path / "adapter", trained=True)
    assert not torch.allclose(
        logits(load_model(tiny_base(), settings)), logits(load_model(adapter, settings)), atol=1e-4
    )


def test_an_adapter_on_an_adapter_is_merged_on_top_of_it_wherever_the_run_lies(tmp_path, settings):
    first = write_adapter(tmp_path / "first", trained=True)
    write_adapter(tmp_path / "second", trained=True, base=first)
    moved = shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    one, two = (logits(load_model(f"{moved}/{name}", settings)) for name in ("first", "second"))
    assert not torch.allclose(one, two, atol=1e-4)


def test_vision_tokens_are_banned_and_padding_is_on_the_left(settings):
    model, processor = load_model(tiny_base(), settings), load_processor(tiny_base(), tiny_profile().data)
    banned = processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    assert sorted(model.generation_config.suppress_tokens) == sorted(banned)
    assert processor.tokenizer.padding_side == "left"


@pytest.mark.parametrize("name", ["results/none", "none", "runs/toy/checkpoints/none"])
def test_a_folder_that_is_not_there_is_one_line_that_names_it_and_the_hub_is_not_asked(settings, name):
    with pytest.raises(UserError, match=f"There is no model in {name}"):
        load_model(name, settings)


def test_a_checkpoint_that_is_not_there_says_which_notebook_makes_it():
    with pytest.raises(UserError) as missing:
        resolve_model("results/none/checkpoints/sft-seed0")
    made = {(stage.name, Path(path).name) for stage in STAGES for path in stage.outputs if "checkpoints" in path}
    assert len(made) == 2
    for notebook, checkpoint in made:
        assert f"{notebook} makes {checkpoint.split('-')[0]}" in missing.value.hint


def test_a_completion_ends_at_the_end_of_its_turn_and_keeps_special_tokens():
    tokenizer = tiny_processor().tokenizer
    ids = tokenizer("<think>a<|im_start|></think><|im_end|>", add_special_tokens=False)["input_ids"]
    assert decode(tokenizer, [*ids, *ids]) == ("<think>a<|im_start|></think>", "stop")
    assert decode(tokenizer, ids[:-1]) == ("<think>a<|im_start|></think>", "length")


def test_a_model_of_other_weights_has_another_fingerprint(copied):
    before = fingerprint(str(copied))
    assert before == fingerprint(tiny_base())
    weights = load_file(copied / "model.safetensors")
    weights[min(weights)] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(str(copied)) != before


def test_a_model_that_is_nowhere_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="neither a folder nor available from the hub"):
        load_model("nowhere/at-all", tiny_profile().model)
