"""The plan: steps as the trainers take them, hours that follow from stated numbers, and advice in order of effect."""

import json
from pathlib import Path

import pytest

from ladlib.batch import declared
from ladlib.config import load_profile
from ladlib.hours import GPUS, LAUNCH, Gpu, stage_hours
from ladlib.memory import CALCULATED, stage_memory
from ladlib.pipeline import STAGES, effective, notebooks_folder
from ladlib.plan import advice_lines, arrangements, hours_lines, memory_lines, most, nearest_gpu, stage_lines
from ladlib.sizes import sizes_of
from ladlib.workload import PROMPT_TEXT, answers_again, grpo_steps, judged_images, rollout_batch, sft_steps

FACTS = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))
PAPER, SMALL = load_profile("paper"), load_profile("small")
IDEAL = Gpu(name="ideal", memory_gib=1, tflops=100, terabytes=1, source="")


@pytest.mark.parametrize("image", FACTS["images"].values(), ids=FACTS["images"])
def test_prompts_have_the_text_tokens_that_were_counted_with_qwens_tokenizer(image):
    for profile in ("paper", "small"):
        fact = image[profile]
        assert fact["prompt_tokens"] == 2 * fact["image_tokens"] + PROMPT_TEXT
        batch = rollout_batch(load_profile(profile), sizes_of(PAPER.model.base))
        assert fact["prompt_tokens"] <= batch.prompt and 4 * 2 * fact["image_tokens"] <= batch.patches


def test_steps_are_those_of_the_profile_or_of_its_epochs():
    toy = load_profile("toy")
    assert (sft_steps(toy), grpo_steps(toy)) == (toy.sft.steps, toy.grpo.steps)
    assert sft_steps(PAPER) == sft_steps(PAPER, devices=8) == 3 * 188
    assert grpo_steps(PAPER) == 2 * 62 and grpo_steps(PAPER, pairs=160) == 2 * 10


def test_every_test_image_is_judged_unless_the_profile_limits_them():
    assert judged_images(PAPER) == 1568
    assert judged_images(load_profile("paper", **{"evaluate.limit": 2})) == 5 * 3 * 2
    assert judged_images(load_profile("toy")) == 5 * (57 + 57 + 15)


def test_answers_under_other_conditions_are_part_of_the_plan_and_its_hours():
    assert answers_again(PAPER) == (1200, 100) and "1300 under other conditions" in stage_lines(PAPER)["04"]
    off = load_profile("paper", **{"evaluate.variants": 0})
    assert stage_hours(off, IDEAL)["evaluation"] < stage_hours(PAPER, IDEAL)["evaluation"]
    assert answers_again(off) == (0, 0)


def test_hours_of_training_are_operations_over_speed():
    layers = 36 * (2 * 2048 * (2048 + 256) + 3 * 2048 * 11008)
    tokens, patches = 2 * 512 + 220, 2 * 2048
    work = 3 * 188 * 16 * (8 * layers * tokens + 2 * sizes_of(PAPER.model.base).vision * patches)
    assert stage_hours(PAPER, IDEAL)["SFT"] == pytest.approx(work / (100e12 * 0.35) / 3600)


def test_decoding_takes_no_less_than_its_kernels_need_to_start():
    fast = IDEAL.model_copy(update={"tflops": 1e9, "terabytes": 1e9})
    hours = stage_hours(PAPER, fast)["GRPO rollouts"]
    assert hours == pytest.approx(124 * 512 * 36 * LAUNCH / 3600, rel=1e-3)
    assert stage_hours(PAPER, IDEAL)["GRPO rollouts"] > hours


def test_more_gpus_take_less_time_to_train_and_as_long_to_evaluate():
    one, eight = stage_hours(PAPER, GPUS["H100"]), stage_hours(PAPER, GPUS["H100"], 8)
    assert all(eight[stage] < one[stage] for stage in ("SFT", "GRPO update", "GRPO rollouts"))
    assert eight["evaluation"] == one["evaluation"]


def test_every_table_says_that_it_is_calculated():
    assert CALCULATED in memory_lines(PAPER)[0]
    assert CALCULATED in hours_lines(PAPER, GPUS["A100"])[0]


def test_a_table_has_a_row_for_each_way_to_hold_the_model():
    assert list(arrangements(PAPER)) == [(1, "none"), (4, "none"), (4, "full"), (8, "none"), (8, "full")]
    assert list(arrangements(SMALL)) == [(1, "none"), (4, "none"), (4, "full")]  # four prompts a step
    assert f"{stage_memory(PAPER, 4, 'full')['SFT'].total / 2**30:.1f}" in memory_lines(PAPER)[4]


def test_the_price_is_the_users():
    hours = [line.split() for line in hours_lines(SMALL, GPUS["A100"], price=0.0)]
    assert hours[-1][-1] == "0"


def test_advice_names_fields_in_order_of_effect_and_each_helps():
    lines = advice_lines(PAPER)[1:]
    left = [float(line.split()[-2]) for line in lines]
    assert left == sorted(left) and left[-1] < most(PAPER)
    assert lines[0].split(":")[0].strip() == "model.lora_rank" and any("grpo.beta" in line for line in lines)
    assert not any("model.lora" in line or "beta" in line for line in advice_lines(SMALL))


def test_the_gpu_is_the_one_found_or_the_smallest_that_holds_the_profile():
    assert nearest_gpu(SMALL).name == "RTX 4090" and nearest_gpu(PAPER).name == "H200"
    assert nearest_gpu(PAPER, "NVIDIA A100-SXM4-80GB").name == "A100"


def test_small_fits_its_24_gb_and_the_paper_needs_more_than_80():
    assert most(SMALL) < 23.5 and most(PAPER) > 79.1


def test_stages_are_told_with_the_profiles_counts_or_the_datasets():
    assert stage_lines(PAPER)["02"].startswith("3000 conversations, 564 steps of 16")
    assert stage_lines(PAPER, conversations=80, pairs=32)["03"].startswith("32 pairs, 4 steps of 128")
    assert set(stage_lines(PAPER)) == {stage.name[:2] for stage in STAGES}


def test_every_parameter_of_the_notebooks_is_a_field_of_the_profile():
    values = {stage.name: declared(notebooks_folder() / f"{stage.name}.ipynb") for stage in STAGES}
    assert effective("paper", values) == PAPER
    values["02_sft"] |= {"sft_steps": 3, "sft_learning_rate": 0.5, "model": "toy-base"}
    values["03_grpo"] |= {"grpo_steps": 4, "grpo_learning_rate": 0.25, "grpo_beta": 0.125}
    values["04_evaluation"] |= {"eval_limit": 6}
    changed = effective("paper", values)
    assert (changed.sft.steps, changed.sft.learning_rate, changed.model.base) == (3, 0.5, "toy-base")
    assert (changed.grpo.steps, changed.grpo.learning_rate, changed.grpo.beta) == (4, 0.25, 0.125)
    assert changed.evaluate.limit == 6
