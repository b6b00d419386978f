"""What the 3B sees: the prompt's tokens, the images' grids, a step of each stage with the genuine tokenizer.

``prompt_tokens.json`` was taken from Qwen2.5-VL's own files. Most tests need these, in ``LADLIB_QWEN_FILES``, and
genuine images, in ``LADLIB_REAL_DATA``; the steps of the stages also 11 GiB of memory and eight minutes.
"""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import published_config, tiny_processor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from ladlib import evaluate, grpo, prompts, sft
from ladlib.checksums import sha256
from ladlib.config import load_profile
from ladlib.data.images import fit, open_image, view
from ladlib.generate import beginnings, render_prompt, up_to_answer
from ladlib.models import generation_config, load_processor, make_processor
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sft_data import balanced_pairs
from ladlib.toy.pretrain_model import CHAT_TEMPLATE

FACTS = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))
ANSWER = [{"role": "assistant", "content": "<answer>no</answer>"}]
STEP = {
    "model.dtype": "float32", "sft.steps": 1, "sft.batch_size": 1, "sft.warmup": 0.0, "grpo.steps": 1,
    "grpo.prompts_per_step": 2, "grpo.group_size": 2, "grpo.micro_batch_size": 1, "model.max_new_tokens": 8,
    "evaluate.batch_size": 1, "evaluate.limit": 1, "parallel.processes": 1,
}  # fmt: skip


@pytest.fixture(scope="module", params=["paper", "small"])
def profile(request):
    return load_profile(request.param)


@pytest.fixture(scope="module")
def processor(qwen_files, profile):
    return load_processor(str(qwen_files), profile.data)


def real_data(path: str = "mvtec_loco_anomaly_detection") -> Path:
    file = Path(os.environ.get("LADLIB_REAL_DATA", ""), path)
    if not os.environ.get("LADLIB_REAL_DATA") or not file.exists():
        pytest.skip(f"LADLIB_REAL_DATA has no {path}")
    return file


def blank_pair(category: str, profile) -> list[Image.Image]:
    """Two blank images of the category's size, resized as for every model."""
    data, size = profile.data, tuple(FACTS["images"][category]["size"])
    return [fit(Image.new("RGB", size, colour), data.min_pixels, data.max_pixels) for colour in ("white", "black")]


def facts_of(processor, images: list[Image.Image]) -> dict:
    inputs = processor(text=[render_prompt(processor)], images=[images], return_tensors="pt")
    (grid,) = {tuple(grid) for grid in inputs["image_grid_thw"].tolist()}
    tokens = (inputs["input_ids"] == processor.image_token_id).sum().item() // len(images)
    whole = inputs["input_ids"].shape[1]
    return {"pixels": list(images[0].size), "grid": list(grid), "image_tokens": tokens, "prompt_tokens": whole}


def read(qwen_files: Path, name: str) -> dict:
    return json.loads((qwen_files / f"{name}.json").read_text(encoding="utf-8"))


def test_the_prompt_reads_as_it_did_when_its_tokens_were_taken():
    text = render_prompt(tiny_processor())
    assert hashlib.sha256(text.encode()).hexdigest() == FACTS["prompt"]["text_sha256"]


@pytest.mark.parametrize("category", FACTS["images"])
def test_an_image_of_each_category_has_the_grid_and_tokens_of_the_facts(category, profile):
    toy = make_processor(tiny_processor().tokenizer, profile.data.min_pixels, profile.data.max_pixels)
    facts = FACTS["images"][category][profile.name]
    ours = facts_of(toy, blank_pair(category, profile))
    assert ours | {"prompt_tokens": facts["prompt_tokens"]} == facts  # which the toy tokenizer does not have


@pytest.mark.parametrize("category", FACTS["images"])
def test_the_genuine_tokenizer_sees_each_category_as_in_the_facts(processor, category, profile):
    assert facts_of(processor, blank_pair(category, profile)) == FACTS["images"][category][profile.name]


def test_the_genuine_template_and_tokenizer_write_the_prompt_of_the_facts(qwen_files, processor):
    assert {name: sha256(qwen_files / name) for name in FACTS["files_sha256"]} == FACTS["files_sha256"]
    text = render_prompt(processor)
    assert text == render_prompt(tiny_processor())
    assert processor.chat_template == read(qwen_files, "chat_template")["chat_template"]
    assert processor.tokenizer(text)["input_ids"] == FACTS["prompt"]["ids"]
    whole = [*prompts.rlad_messages(), *ANSWER]
    templates = (CHAT_TEMPLATE, processor.chat_template)
    texts = [processor.apply_chat_template(whole, tokenize=False, chat_template=template) for template in templates]
    assert texts[0] == texts[1]


def test_special_tokens_and_settings_are_the_genuine_ones(qwen_files, processor):
    tokenizer = processor.tokenizer
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in FACTS["special"]} == FACTS["special"]
    assert processor.image_token_id == FACTS["special"]["<|image_pad|>"]
    assert tokenizer.pad_token == "<|endoftext|>" and tokenizer.padding_side == "left"
    genuine, ours = read(qwen_files, "generation_config"), generation_config(tokenizer)
    assert (ours.eos_token_id, ours.pad_token_id) == (genuine["eos_token_id"], genuine["pad_token_id"])
    assert ours.repetition_penalty in (None, 1.0) and genuine["repetition_penalty"] == 1.05
    genuine, ours = read(qwen_files, "preprocessor_config"), json.loads(processor.image_processor.to_json_string())
    for name in ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "image_processor_type"):
        assert ours[name] == genuine[name]


@pytest.mark.parametrize("text", FACTS["written"])
def test_after_an_answer_as_the_3b_writes_it_p_yes_is_read_where_the_word_begins(processor, text):
    tokenizer, words = processor.tokenizer, FACTS["beginnings"]
    assert beginnings(tokenizer)._asdict() == words
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == FACTS["written"][text]
    kept = up_to_answer(tokenizer, ids)
    assert tokenizer.decode(kept).strip().endswith(prompts.ANSWER_OPENING)
    answer = "yes" if "yes" in text.lower() else "no"
    begins = ids[len(kept) - (kept != ids[: len(kept)])]  # in the token that ends the tag, or in the next
    assert begins in words["joined"][answer] + words["after"][answer]


@pytest.mark.parametrize("name", FACTS["fitted_sha256"])
def test_a_real_image_is_resized_once_to_the_pixels_of_the_genuine_processor(name, qwen_files, profile, processor):
    path, facts, band = (
        real_data(name),
        FACTS["fitted_sha256"][name],
        (profile.data.min_pixels, profile.data.max_pixels),
    )
    assert sha256(path) == facts["file_sha256"]
    assert hashlib.sha256(view(path, *band).tobytes()).hexdigest() == facts[profile.name]
    stock = Qwen2VLImageProcessorPil.from_pretrained(qwen_files, min_pixels=band[0], max_pixels=band[1])
    theirs = stock(open_image(path), return_tensors="pt")
    ours = processor.image_processor(view(path, *band), return_tensors="pt")
    assert all(torch.equal(theirs[part], ours[part]) for part in ("image_grid_thw", "pixel_values"))


def test_both_stages_and_the_evaluation_see_the_same_prompt(processor, profile):
    images = blank_pair("juice_bottle", profile)
    evaluated = processor(text=[render_prompt(processor)], images=[images], return_tensors="pt")
    rollout = processor.apply_chat_template(
        [prepare_multimodal_messages(prompts.rlad_messages(), images=images)], add_generation_prompt=True,
        tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip  # as TRL's GRPOTrainer calls it
    row = {"images": images, "prompt": prompts.rlad_messages(), "completion": ANSWER}
    trained = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row])
    length = evaluated["input_ids"].shape[1]
    for other in (rollout, trained):
        assert torch.equal(other["input_ids"][:, :length], evaluated["input_ids"])
        assert torch.equal(other["image_grid_thw"], evaluated["image_grid_thw"])
        assert torch.equal(other["pixel_values"], evaluated["pixel_values"])
    assert rollout["input_ids"].shape[1] == length
    with_loss = trained["labels"][trained["labels"] != -100]
    assert processor.tokenizer.decode(with_loss) == "<answer>no</answer><|im_end|>\n"


def changed(before, after) -> set[str]:
    """Names of the weights that training changed."""
    old, new = (load_file(Path(folder, "model.safetensors")) for folder in (before, after))
    assert set(old) == set(new)
    return {name for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.slow
def test_a_step_of_each_stage_and_an_evaluation_at_the_3bs_widths(qwen_files, tmp_path, monkeypatch):
    """Two layers and two blocks of the tower, of random weights, at the paper profile's pixels."""
    real = real_data().parent
    config = published_config("Qwen/Qwen2.5-VL-3B-Instruct")
    config["text_config"] |= {"num_hidden_layers": 2}
    config["vision_config"] |= {"depth": 2, "fullatt_block_indexes": [1]}
    torch.manual_seed(0)
    base, run = str(tmp_path / "two-layers"), RunFolder(tmp_path / "run")
    Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config)).save_pretrained(base)
    for file in qwen_files.iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            shutil.copy2(file, base)
    profile = load_profile("paper", **STEP | {"model.base": base})

    with pytest.warns(UserWarning, match="without visa"):
        tuned = sft.train(profile, real, run, 0)
    (row,) = read_jsonl(run.log("sft", 0))
    assert row["loss"] == pytest.approx(math.log(151_936), rel=0.15), "as unsure as a random model is"
    names = changed(base, tuned)
    assert row["grad_norm"] > 0 and names and not any("visual" in name for name in names)

    monkeypatch.setattr(grpo, "format_reward", lambda text: sum(map(ord, text)) % 7 / 7)  # a random model earns none
    pairs = [pair for pair in balanced_pairs(profile, real, 0) if pair.test.category == "transistor"][:2]
    final = grpo.train(profile, real, run, 0, model=str(tuned), pairs=pairs)
    (row,) = read_jsonl(run.log("sft_grpo", 0))
    assert row["grad_norm"] > 0 and row["completion_length"] == 8 and abs(row["kl"]) < 1e-4
    assert len(read_jsonl(run.rollouts("sft_grpo", 0))) == 2
    names = changed(tuned, final)
    assert names and not any("visual" in name for name in names)

    rows = read_jsonl(evaluate.evaluate(profile, real, run, 0, arm="base", model=base))
    facts = FACTS["images"]["juice_bottle"]["paper"]
    assert sorted(row["anomaly"] for row in rows) == ["good", "logical", "structural"]
    for row in rows:
        assert row["pixels"] == [facts["pixels"]] * 2 and row["prompt_tokens"] == facts["prompt_tokens"]
        assert row["completion_tokens"] == 8 and 0 <= row["p_yes"] <= 1
