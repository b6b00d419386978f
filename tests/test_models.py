"""What must be true after a load."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import tiny_base, tiny_processor, tiny_profile
from transformers import AutoModelForImageTextToText, AutoTokenizer

from ladlib.checksums import seal, unseal
from ladlib.errors import UserError
from ladlib.families import VISION_TOKENS
from ladlib.generate import render_prompt
from ladlib.models import decode, fingerprint, load_model, load_processor, whole_model, write_merged
from ladlib.pipeline import weights_sha256
from ladlib.training import LORA_TARGETS

SETTINGS = tiny_profile().model


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(tiny_base(), tmp_path / "model")


def rewrite(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_adapter(folder, trained: bool, base: str = "") -> str:
    model = load_model(base or tiny_base(), SETTINGS)
    model.name_or_path = base or tiny_base()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=LORA_TARGETS))
    for name, weight in adapted.named_parameters():
        if trained and "lora_B" in name:
            torch.nn.init.constant_(weight, 0.05)
    adapted.save_pretrained(folder)
    return str(folder)


def logits(name):
    ids = torch.arange(20, 40).unsqueeze(0)
    with torch.no_grad():
        return load_model(name, SETTINGS)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(next(key for key in weights if "k_proj.weight" in key)),
         r"1 missing keys, first .*k_proj"),
        (lambda weights: weights.update({"model.language_model.stray.weight": torch.zeros(1)}), "1 unexpected keys"),
    ],
    ids=["missing", "unexpected"],
)  # fmt: skip
def test_a_checkpoint_with_other_keys_is_refused(copied, change, message):
    rewrite(copied, change)
    with pytest.raises(UserError, match=message):
        load_model(str(copied), SETTINGS)


def test_an_adapter_that_is_zero_is_refused(tmp_path):
    with pytest.raises(UserError, match="changes nothing"):
        load_model(write_adapter(tmp_path / "adapter", trained=False), SETTINGS)


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace("language_model.layers", "layers"),
        lambda key: f"base_model.model.{key}",
        lambda key: key.replace("layers.1", "layers.7"),
        lambda key: key.replace("layers.0", "layers.1"),
    ],
    ids=["older transformers", "wrapped twice", "a layer of a deeper model", "a layer without weights"],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_of_which_any_weight_does_not_reach_the_model_is_refused(tmp_path, rename):
    folder = tmp_path / "adapter"
    write_adapter(folder, trained=True)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({rename(key): weight for key, weight in weights.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"do not fit: (14|28) missing keys, first base_model.model.model.language_mo"):
        load_model(str(folder), SETTINGS)


def test_an_adapter_on_the_merged_model_of_another_changes_its_logits_again_wherever_the_run_is(tmp_path):
    first = write_adapter(tmp_path / "first", trained=True)
    with pytest.raises(UserError, match="on which no other can stand"):
        whole_model(first)
    write_merged(tmp_path / "first", SETTINGS, tiny_processor())
    write_adapter(tmp_path / "second", trained=True, base=whole_model(first))
    moved = shutil.move(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    outputs = [logits(name) for name in (tiny_base(), f"{moved}/first", f"{moved}/second")]
    for before, after in zip(outputs, outputs[1:], strict=False):
        assert not torch.allclose(before, after, atol=1e-4)
    assert torch.equal(logits(f"{moved}/first/merged"), outputs[1])
    plain = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(f"{moved}/first/merged"), f"{moved}/second"
    )
    ids = torch.arange(20, 40).unsqueeze(0)
    with torch.no_grad():
        theirs = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(theirs, outputs[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("base", ["itself", "another"])
def test_an_adapter_that_stands_on_an_adapter_is_refused(tmp_path, base):
    folder = tmp_path / "itself"
    write_adapter(folder, trained=True)
    shutil.copytree(folder, tmp_path / "another")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(tmp_path / base)}))
    for use in (fingerprint, lambda name: load_model(name, SETTINGS)):
        with pytest.raises(UserError, match=f"itself stands on another, .*{base}"):
            use(str(folder))


def test_a_saved_tokenizer_pads_on_the_left_though_the_models_own_says_nothing_of_it(copied, tmp_path):
    file = copied / "tokenizer_config.json"
    file.write_text(
        json.dumps({key: value for key, value in json.loads(file.read_text()).items() if "side" not in key})
    )
    load_processor(str(copied), tiny_profile().data).save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").padding_side == "left"


def test_a_chat_template_of_the_older_form_makes_the_same_prompt(copied):
    template = copied / "chat_template.jinja"
    (copied / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    assert render_prompt(load_processor(str(copied), tiny_profile().data)) == render_prompt(tiny_processor())


def test_of_a_hub_id_the_configuration_is_read_before_any_weight(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--somebody--other" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (tmp_path / "models--somebody--other" / "refs").mkdir()
    (tmp_path / "models--somebody--other" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="config.json does not belong to a Qwen2.5-VL but to qwen3_vl"):
        load_model("somebody/other", SETTINGS)


def test_vision_tokens_are_banned_and_padding_is_on_the_left():
    model, processor = load_model(tiny_base(), SETTINGS), load_processor(tiny_base(), tiny_profile().data)
    banned = processor.tokenizer.convert_tokens_to_ids(list(VISION_TOKENS))
    assert sorted(model.generation_config.suppress_tokens) == sorted(banned)
    assert processor.tokenizer.padding_side == "left"


def test_a_completion_ends_at_the_end_of_its_turn_and_keeps_special_tokens():
    tokenizer = tiny_processor().tokenizer
    ids = tokenizer("<think>a<|im_start|></think><|im_end|>", add_special_tokens=False)["input_ids"]
    assert decode(tokenizer, [*ids, *ids]) == ("<think>a<|im_start|></think>", "stop")
    assert decode(tokenizer, ids[:-1]) == ("<think>a<|im_start|></think>", "length")


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "tokenizer.json", "config.json"])
def test_a_model_with_other_weights_or_another_prompt_has_another_fingerprint(copied, name):
    before = fingerprint(str(copied))
    assert before == fingerprint(tiny_base()) != weights_sha256(str(copied)) != ""
    rewrite(copied, lambda weights: weights[min(weights)].add_(1))
    other, key = fingerprint(str(copied)), weights_sha256(str(copied))
    assert other != before
    with (copied / name).open("a") as file:
        file.write(" ")
    assert fingerprint(str(copied)) != other and weights_sha256(str(copied)) != key


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja", "origin.json"])
def test_a_trained_model_is_loaded_only_as_it_was_written(copied, name):
    seal(copied, {"seed": 0})
    assert unseal(copied) == {"seed": 0} and load_model(str(copied), tiny_profile().model)
    data = bytearray((copied / name).read_bytes())
    data[-1] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is not"):
        load_model(str(copied), tiny_profile().model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("results/none", "There is no model in results/none"),
        ("runs/toy/checkpoints/none", "There is no model in runs/toy/checkpoints/none"),
        ("nowhere/at-all", "neither a folder nor available from the hub"),
    ],
)
def test_a_model_that_is_nowhere_is_one_line(monkeypatch, name, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message):
        load_model(name, SETTINGS)
