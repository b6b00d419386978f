"""Doctor on made-up GPUs: what fits, what is missing, and what each stage will do."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from ladlib import doctor
from ladlib.batch import declared
from ladlib.config import load_profile
from ladlib.doctor import examine
from ladlib.memory import CALCULATED, PROMPT_TEXT, evaluated_images, memory_lines, plan_lines, prompt_tokens
from ladlib.pipeline import STAGES, effective, notebooks_folder

GIB_OF = {"NVIDIA GeForce RTX 4090": 23.5, "NVIDIA A100-SXM4-80GB": 79.1, "NVIDIA H200": 139.7}
SMALL_GPU, A100, H200 = GIB_OF
FACTS = json.loads(Path(__file__).with_name("prompt_tokens.json").read_text(encoding="utf-8"))
PAPER = load_profile("paper")


@pytest.fixture
def diagnose(monkeypatch):
    def diagnose(profile: str, *names: str):
        monkeypatch.setattr(doctor, "find_gpus", lambda: [(name, GIB_OF[name]) for name in names])
        return examine(profile)

    return diagnose


def checks(diagnosis, subject: str):
    return [(check.verdict, check.found) for check in diagnosis.checks if check.subject == subject]


@pytest.mark.parametrize(
    ("profile", "gpus", "verdict", "text"),
    [
        ("small", [SMALL_GPU], "ok", f"one with 13.2 GiB is needed ({CALCULATED})"),
        ("paper", [SMALL_GPU], "missing", CALCULATED),
        ("paper", [A100], "missing", CALCULATED),
        ("paper", [H200], "ok", CALCULATED),
        ("paper", [A100] * 8, "ok", "8 with"),
        ("small", [], "missing", "none that torch can use"),
        ("toy", [], "ok", "none, and none needed"),
    ],
)
def test_gpus_are_compared_with_the_calculated_memory(diagnose, profile, gpus, verdict, text):
    diagnosis = diagnose(profile, *gpus)
    ((found, message),) = checks(diagnosis, "GPU")
    assert found == verdict and text in message
    assert bool(diagnosis.plan) == (profile != "toy")
    assert not checks(diagnosis, "several GPUs")


def test_a_profile_for_one_gpu_says_what_to_do_on_a_machine_with_several(diagnose):
    diagnosis = diagnose("small", A100, A100)
    assert checks(diagnosis, "GPU")[0][0] == "ok"
    ((verdict, message),) = checks(diagnosis, "several GPUs")
    assert verdict == "note" and "CUDA_VISIBLE_DEVICES" in message


def test_the_plan_is_for_one_four_and_eight_gpus_where_there_is_none(diagnose):
    plan = diagnose("paper").plan
    assert [line.split("  ")[1] for line in plan[3:8]] == [
        "1", "4, each holds all of it", "4, divided among them", "8, each holds all of it", "8, divided among them",
    ]  # fmt: skip
    assert CALCULATED in plan[1] and "reference 14.0" in " ".join(plan) and "grpo.beta 0" in plan[-1]
    assert len(memory_lines(load_profile("small"))) == 11  # four prompts per step: not on eight GPUs


@pytest.mark.parametrize(
    ("name", "text", "subject", "verdict", "message"),
    [
        ("small", "model:\n  base: a/b", "GPU", "note", "what is needed is not known: The sizes of a/b"),
        ("toy", "model:\n  large: toy-huge", "large model", "missing", "toy-huge is not shipped"),
        ("smoke", "grpo:\n  engine: vllm_colocate", "vLLM", "missing", "grpo.engine is vllm_colocate"),
        ("smoke", "data:\n  sft_file: gone.jsonl", "SFT file", "missing", "gone.jsonl"),
        ("smoke", "model:\n  base: toy-tiny", "base model", "missing", "toy-tiny is not shipped"),
        ("paper", "", "datasets", "missing", "--data"),
    ],
)
def test_what_is_missing_is_named(diagnose, tmp_path, name, text, subject, verdict, message):
    values = yaml.safe_load((files("ladlib") / "profiles" / f"{name}.yaml").read_text())
    for section, changed in (yaml.safe_load(text) or {}).items():
        values[section] = values.get(section, {}) | changed
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    diagnosis = diagnose(str(tmp_path / "mine.yaml"))
    ((found, line),) = checks(diagnosis, subject)
    assert found == verdict and message in line and (verdict == "note" or not diagnosis.can_run)
    untouched = diagnose(name)
    assert subject in ("GPU", "base model", "datasets") or not checks(untouched, subject)


@pytest.mark.parametrize("image", FACTS["images"].values(), ids=FACTS["images"])
def test_prompts_have_the_text_tokens_that_were_counted_with_qwens_tokenizer(image):
    for name in ("paper", "small"):
        text = image[name]["prompt_tokens"] - 2 * image[name]["image_tokens"]
        assert text == PROMPT_TEXT and image[name]["prompt_tokens"] <= prompt_tokens(load_profile(name))


def test_stages_are_listed_with_the_profiles_counts():
    lines = plan_lines(PAPER)
    assert set(lines) == {stage.name.split("_")[0] for stage in STAGES}
    assert lines["02"] == "3000 conversations, 564 steps of 16"
    assert lines["03"].startswith("1000 pairs, 124 steps of 128 completions")
    assert "3 models answer to 1568 pairs, at most 1121 + 512 tokens each" in lines["04"]
    assert "to 0 with a change" in plan_lines(PAPER.replace({"evaluate.variants": 0}))["04"]
    assert evaluated_images(PAPER.replace({"evaluate.limit": 2})) == 5 * 3 * 2
    assert evaluated_images(load_profile("toy")) == 5 * (57 + 57 + 15)


def test_every_parameter_of_the_notebooks_is_a_field_of_the_profile():
    values = {stage.name: declared(notebooks_folder() / f"{stage.name}.ipynb") for stage in STAGES}
    assert effective("paper", values) == PAPER
    values["02_sft"] |= {"sft_steps": 3, "sft_learning_rate": 0.5, "model": "toy-base"}
    values["03_grpo"] |= {"grpo_steps": 4, "grpo_learning_rate": 0.25, "grpo_beta": 0.125}
    values["04_evaluation"] |= {"eval_limit": 6}
    assert effective("paper", values) == PAPER.replace({
        "sft.steps": 3, "sft.learning_rate": 0.5, "model.base": "toy-base", "grpo.steps": 4,
        "grpo.learning_rate": 0.25, "grpo.beta": 0.125, "evaluate.limit": 6,
    })  # fmt: skip
