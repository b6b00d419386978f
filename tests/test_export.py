"""An exported folder needs nothing of ladlib."""

import json

import pytest
import torch
import yaml
from tiny import tiny_profile
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ladlib import sft
from ladlib.data.pairing import pair_images
from ladlib.errors import UserError
from ladlib.export import export
from ladlib.models import load_model, load_processor
from ladlib.prompts import QUESTION, prompt_text
from ladlib.runs import RunFolder
from ladlib.sft_data import make_conversations


@pytest.mark.parametrize("rank", [0, 2], ids=["full", "LoRA"])
def test_plain_transformers_loads_it_completely_and_writes_our_greedy_answers(rank, data, tmp_path):
    run = RunFolder(tmp_path / "run")
    profile = tiny_profile(model__lora_rank=rank, model__dtype="bfloat16", sft__steps=1, sft__learning_rate=1e-2)
    run.open("smoke", 0)
    sft.train(profile, data, run, 0)
    out = export(run.root, tmp_path / "out", arm="sft")
    model, report = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.bfloat16, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    images = Qwen2VLImageProcessorPil.from_pretrained(out)
    assert tokenizer.padding_side == "left" and (out / "prompt.txt").read_text() == QUESTION

    ours = load_model(str(run.checkpoint("sft", 0)), profile.model)
    processor = load_processor(str(run.checkpoint("sft", 0)), profile.data)
    pair = make_conversations(profile, data, 0)[0].pair
    views = pair_images(pair, data, profile.data)
    inputs = processor(text=[prompt_text(processor, QUESTION, images=2)], images=[views], return_tensors="pt")
    assert torch.equal(images(views, return_tensors="pt")["pixel_values"], inputs["pixel_values"])
    expected, result = (loaded.generate(**inputs, max_new_tokens=24) for loaded in (ours, model))
    assert torch.equal(result, expected)
    assert tokenizer.chat_template == processor.tokenizer.chat_template
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"

    _, front, card = (out / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-text-to-text" and "torch.bfloat16" in card
    for where, message in ((out, "exists already"), (tmp_path / "other", "There is no model in .*sft_grpo-seed0")):
        with pytest.raises(UserError, match=message):
            export(run.root, where)
