"""What the 3B will see: the prompt's tokens and the images' grids, held against facts and against genuine files.

The facts in ``prompt_tokens.json`` were taken from Qwen2.5-VL's own files, whose SHA-256 stand there too.
Some are checked everywhere; the rest where ``LADLIB_QWEN_FILES`` names the files (and ``LADLIB_REAL_DATA``
the datasets).
"""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_processor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from ladlib import prompts
from ladlib.checksums import sha256
from ladlib.config import Data, load_profile
from ladlib.data.images import fit, open_image, view
from ladlib.generate import beginnings, render_prompt, up_to_answer
from ladlib.models import generation_config, load_processor, make_processor
from ladlib.toy.pretrain_model import CHAT_TEMPLATE

FACTS = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))
PROFILES = ("paper", "small")


def data_of(profile: str) -> Data:
    return load_profile(profile).data


@pytest.fixture(scope="module", params=PROFILES)
def profile(request):
    return request.param


@pytest.fixture(scope="module")
def processor(qwen_files, profile):
    return load_processor(str(qwen_files), data_of(profile))


@pytest.fixture(params=FACTS["images"])
def category(request):
    return request.param


@pytest.fixture(params=FACTS["fitted_sha256"])
def real_image(request):
    path = Path(os.environ.get("LADLIB_REAL_DATA", ""), request.param)
    if not os.environ.get("LADLIB_REAL_DATA") or not path.is_file():
        pytest.skip(f"LADLIB_REAL_DATA has no {request.param}")
    return path, FACTS["fitted_sha256"][request.param]


def a_pair(category: str, profile: str) -> list[Image.Image]:
    """Two blank images of the category's size, resized as for every model."""
    data, size = data_of(profile), tuple(FACTS["images"][category]["size"])
    return [fit(Image.new("RGB", size, colour), data.min_pixels, data.max_pixels) for colour in ("white", "black")]


def seen(processor, images: list[Image.Image]) -> dict:
    """What the facts tell of an image, of a prompt with ``images``."""
    inputs = processor(text=[render_prompt(processor)], images=[images], return_tensors="pt")
    (grid,) = {tuple(one) for one in inputs["image_grid_thw"].tolist()}
    tokens = (inputs["input_ids"] == processor.image_token_id).sum().item() // len(images)
    whole = inputs["input_ids"].shape[1]
    return {"pixels": list(images[0].size), "grid": list(grid), "image_tokens": tokens, "prompt_tokens": whole}


def test_the_prompt_reads_as_it_did_when_its_tokens_were_taken():
    text = render_prompt(tiny_processor())
    assert hashlib.sha256(text.encode()).hexdigest() == FACTS["prompt"]["text_sha256"]


def test_an_image_of_each_category_has_the_grid_and_tokens_of_the_facts(category, profile):
    data, fact = data_of(profile), FACTS["images"][category][profile]
    tokenizer = tiny_processor().tokenizer
    found = seen(make_processor(tokenizer, data.min_pixels, data.max_pixels), a_pair(category, profile))
    assert {key: found[key] for key in ("pixels", "grid", "image_tokens")} == {
        key: fact[key] for key in ("pixels", "grid", "image_tokens")
    }


def test_the_genuine_files_are_those_of_the_facts(qwen_files):
    assert {name: sha256(qwen_files / name) for name in FACTS["files_sha256"]} == FACTS["files_sha256"]


def test_the_genuine_template_and_tokenizer_render_the_prompt_of_the_facts(qwen_files, processor):
    template = json.loads((qwen_files / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    text = render_prompt(processor)
    assert processor.chat_template == template
    assert hashlib.sha256(text.encode()).hexdigest() == FACTS["prompt"]["text_sha256"]
    assert processor.tokenizer(text)["input_ids"] == FACTS["prompt"]["ids"]


def test_the_toy_template_writes_a_whole_conversation_as_the_genuine_one_does(processor):
    conversation = [*prompts.rlad_messages(), {"role": "assistant", "content": "<answer>no</answer>"}]
    toy = processor.apply_chat_template(conversation, tokenize=False, chat_template=CHAT_TEMPLATE)
    assert toy == processor.apply_chat_template(conversation, tokenize=False)


def test_special_tokens_have_the_genuine_numbers(processor):
    tokenizer = processor.tokenizer
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in FACTS["special"]} == FACTS["special"]
    assert processor.image_token_id == FACTS["special"]["<|image_pad|>"]
    assert tokenizer.pad_token == "<|endoftext|>" and tokenizer.padding_side == "left"


def test_generation_stops_where_the_genuine_configuration_stops_and_has_no_penalty(qwen_files, processor):
    genuine = json.loads((qwen_files / "generation_config.json").read_text(encoding="utf-8"))
    ours = generation_config(None, processor.tokenizer)
    assert (ours.eos_token_id, ours.pad_token_id) == (genuine["eos_token_id"], genuine["pad_token_id"])
    assert ours.repetition_penalty in (None, 1.0) and genuine["repetition_penalty"] == 1.05


def test_the_genuine_tokenizer_sees_each_category_as_in_the_facts(processor, category, profile):
    assert seen(processor, a_pair(category, profile)) == FACTS["images"][category][profile]


def test_the_image_processor_has_the_genuine_settings(qwen_files, processor):
    genuine = json.loads((qwen_files / "preprocessor_config.json").read_text(encoding="utf-8"))
    ours = json.loads(processor.image_processor.to_json_string())
    settings = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "image_processor_type")
    assert {key: ours[key] for key in settings} == {key: genuine[key] for key in settings}


def test_yes_and_no_begin_with_the_tokens_of_the_facts(processor):
    assert beginnings(processor.tokenizer)._asdict() == FACTS["beginnings"]


@pytest.mark.parametrize("text", FACTS["written"])
def test_after_an_answer_as_the_3b_writes_it_p_yes_is_read_where_the_word_begins(processor, text):
    tokenizer, words = processor.tokenizer, FACTS["beginnings"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == FACTS["written"][text]
    read = up_to_answer(tokenizer, ids)
    assert tokenizer.decode(read).strip().endswith(prompts.ANSWER_OPENING)
    answer = "yes" if "yes" in text.lower() else "no"
    begins = ids[len(read) - (read != ids[: len(read)])]  # in the token that ends the tag, or in the next
    assert begins in words["joined"][answer] + words["after"][answer]


def test_a_real_image_is_resized_once_to_the_pixels_of_the_facts(real_image, profile):
    path, fact = real_image
    assert sha256(path) == fact["file_sha256"]
    data = data_of(profile)
    assert hashlib.sha256(view(path, data.min_pixels, data.max_pixels).tobytes()).hexdigest() == fact[profile]


def test_our_pixels_are_those_that_the_genuine_processor_makes_of_the_file(qwen_files, real_image, profile, processor):
    path, data = real_image[0], data_of(profile)
    stock = Qwen2VLImageProcessorPil.from_pretrained(
        qwen_files, min_pixels=data.min_pixels, max_pixels=data.max_pixels
    )  # fmt: skip
    theirs = stock(open_image(path), return_tensors="pt")
    ours = processor.image_processor(view(path, data.min_pixels, data.max_pixels), return_tensors="pt")
    assert torch.equal(theirs["image_grid_thw"], ours["image_grid_thw"])
    assert torch.equal(theirs["pixel_values"], ours["pixel_values"])


def test_both_stages_and_the_evaluation_see_the_same_prompt(processor, profile):
    images = a_pair("juice_bottle", profile)
    judged = processor(text=[render_prompt(processor)], images=[images], return_tensors="pt")
    rollout = processor.apply_chat_template(
        [prepare_multimodal_messages(prompts.rlad_messages(), images=images)], add_generation_prompt=True,
        tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip  # as TRL's GRPOTrainer calls it
    completion = [{"role": "assistant", "content": "<answer>no</answer>"}]
    row = {"images": images, "prompt": prompts.rlad_messages(), "completion": completion}
    taught = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([row])
    length = judged["input_ids"].shape[1]
    for other in (rollout, taught):
        assert torch.equal(other["input_ids"][:, :length], judged["input_ids"])
        assert torch.equal(other["image_grid_thw"], judged["image_grid_thw"])
        assert torch.equal(other["pixel_values"], judged["pixel_values"])
    assert rollout["input_ids"].shape[1] == length
    learned = taught["labels"][taught["labels"] != -100]
    assert processor.tokenizer.decode(learned) == "<answer>no</answer><|im_end|>\n"
