"""The 3B's widths, the genuine tokenizer, real images: what a first run with its weights meets, two layers deep.

Each stage takes a step through the library's own functions at the paper profile's pixels. Needs the files named by
``LADLIB_QWEN_FILES`` and ``LADLIB_REAL_DATA``, about 11 GiB of memory and eight minutes.
"""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import published_config
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ladlib import evaluate, grpo, sft
from ladlib.config import load_profile
from ladlib.data import find_dataset
from ladlib.data.images import view
from ladlib.generate import render_prompt
from ladlib.models import load_processor
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sft_data import balanced_pairs

pytestmark = pytest.mark.slow

FACTS = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))["images"]
STEP = {
    "model.dtype": "float32", "sft.steps": 1, "sft.batch_size": 1, "sft.warmup": 0.0, "grpo.steps": 1,
    "grpo.prompts_per_step": 2, "grpo.group_size": 2, "grpo.micro_batch_size": 1, "model.max_new_tokens": 8,
    "evaluate.batch_size": 1, "evaluate.limit": 1, "parallel.processes": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("LADLIB_REAL_DATA", "")
    if not Path(folder, "mvtec_loco_anomaly_detection").is_dir():
        pytest.skip("LADLIB_REAL_DATA names no folder of genuine files")
    return Path(folder)


@pytest.fixture(scope="module")
def base(qwen_files, tmp_path_factory):
    """The 3B cut to two layers and a tower of two blocks, of random weights, with the genuine tokenizer."""
    config = published_config("Qwen/Qwen2.5-VL-3B-Instruct")
    config["text_config"] |= {"num_hidden_layers": 2}
    config["vision_config"] |= {"depth": 2, "fullatt_block_indexes": [1]}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("two-layers")
    Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**config)).save_pretrained(folder)
    for file in qwen_files.iterdir():
        if file.name not in ("config.json", "generation_config.json"):
            shutil.copy2(file, folder)
    return str(folder)


@pytest.fixture(scope="module")
def profile(base):
    return load_profile("paper", **STEP | {"model.base": base})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tuned(profile, real, run):
    with pytest.warns(UserWarning, match="without visa"):
        return sft.train(profile, real, run, 0)


def changed(before, after):
    """Names of the weights that training changed."""
    old, new = (load_file(Path(folder, "model.safetensors")) for folder in (before, after))
    assert set(old) == set(new)
    return {name for name in old if not torch.equal(old[name], new[name])}


def only_language(names):
    return bool(names) and not any("visual" in name for name in names)


def test_a_step_of_sft_trains_the_language_model_alone(profile, base, run, tuned):
    (row,) = read_jsonl(run.log("sft", 0))
    assert row["loss"] == pytest.approx(math.log(151_936), rel=0.15), "as unsure as a random model is"
    assert row["grad_norm"] > 0 and only_language(changed(base, tuned))


def test_a_step_of_grpo_draws_real_tokens_and_trains_the_language_model_alone(profile, real, run, tuned, monkeypatch):
    monkeypatch.setattr(grpo, "format_reward", lambda text: sum(map(ord, text)) % 7 / 7)  # a random model earns none
    pairs = [one for one in balanced_pairs(profile, real, 0) if one.test.category == "transistor"][:2]
    folder = grpo.train(profile, real, run, 0, model=str(tuned), pairs=pairs)
    (row,) = read_jsonl(run.log("sft_grpo", 0))
    assert row["grad_norm"] > 0 and row["completion_length"] == 8 and abs(row["kl"]) < 1e-4
    assert len(read_jsonl(run.rollouts("sft_grpo", 0))) == 2
    assert only_language(changed(tuned, folder))


def test_the_evaluation_sees_the_prompt_of_the_facts(profile, real, run, base):
    rows = read_jsonl(evaluate.evaluate(profile, real, run, 0, arm="base", model=base))
    facts = FACTS["juice_bottle"]["paper"]
    assert sorted(row["anomaly"] for row in rows) == ["good", "logical", "structural"]
    for row in rows:
        assert row["pixels"] == [facts["pixels"]] * 2 and row["prompt_tokens"] == facts["prompt_tokens"]
        assert row["completion_tokens"] == 8 and 0 <= row["p_yes"] <= 1


def test_a_transistor_takes_as_many_image_tokens_as_its_features_have_rows(profile, real, base):
    data = profile.data
    path = next((find_dataset(real, "mvtec_ad") / "transistor" / "train" / "good").glob("*.png"))
    images = [view(path, data.min_pixels, data.max_pixels)] * 2
    processor = load_processor(base, data)
    inputs = processor(text=[render_prompt(processor)], images=[images], return_tensors="pt")
    tokens = (inputs["input_ids"] == processor.image_token_id).sum().item()
    assert tokens == inputs["pixel_values"].shape[0] // 4 == 2 * FACTS["transistor"]["paper"]["image_tokens"]
