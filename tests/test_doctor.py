"""Doctor on made-up GPUs: what fits, what is told, and that the verdict is what a run would meet."""

from importlib.resources import files

import pytest
import yaml

from ladlib import doctor
from ladlib.config import load_profile
from ladlib.doctor import FoundGpu, examine
from ladlib.memory import CALCULATED

GIB_OF = {"NVIDIA GeForce RTX 4090": 23.5, "NVIDIA A100-SXM4-80GB": 79.1, "NVIDIA H200": 139.7}


@pytest.fixture
def diagnose(monkeypatch):
    def diagnose(profile: str, *names: str, **options):
        gpus = [FoundGpu(name=name, memory_gib=GIB_OF[name]) for name in names]
        monkeypatch.setattr(doctor, "_found_gpus", lambda: gpus)
        return examine(profile, **options)

    return diagnose


def gpu_check(diagnosis):
    return next(check for check in diagnosis.checks if check.subject == "GPU")


@pytest.mark.parametrize(
    ("profile", "name", "verdict"),
    [
        ("small", "NVIDIA GeForce RTX 4090", "ok"),
        ("paper", "NVIDIA GeForce RTX 4090", "missing"),
        ("paper", "NVIDIA A100-SXM4-80GB", "missing"),
        ("paper", "NVIDIA H200", "ok"),
    ],
)
def test_a_gpu_is_held_against_the_calculated_memory(diagnose, profile, name, verdict):
    check = gpu_check(diagnose(profile, name))
    assert check.verdict == verdict and CALCULATED in check.found


def test_without_a_gpu_a_large_model_cannot_run_and_a_toy_model_can(diagnose):
    assert gpu_check(diagnose("small")).verdict == "missing"
    toy = diagnose("toy")
    assert gpu_check(toy).found == "none, and none needed" and toy.plan == ()


def test_eight_gpus_share_the_model_of_the_paper_profile(diagnose):
    diagnosis = diagnose("paper", *["NVIDIA A100-SXM4-80GB"] * 8)
    assert gpu_check(diagnosis).verdict == "ok" and "8 with" in gpu_check(diagnosis).found
    assert not any("CUDA_VISIBLE_DEVICES" in check.found for check in diagnosis.checks)
    assert any(line.startswith("  8, divided among them") for line in diagnosis.plan)


def test_a_profile_for_one_gpu_says_what_to_do_on_a_machine_with_several(diagnose):
    diagnosis = diagnose("small", *["NVIDIA A100-SXM4-80GB"] * 2)
    assert gpu_check(diagnosis).verdict == "ok"
    assert any("CUDA_VISIBLE_DEVICES" in check.found for check in diagnosis.checks)


def test_the_plan_is_for_one_four_and_eight_gpus_where_none_is_found(diagnose):
    plan = diagnose("paper").plan
    assert [line.split()[0].strip(",") for line in plan if line.startswith(("  1 ", "  4, each", "  8, each"))] == [
        "1", "4", "8", "1",
    ]  # fmt: skip  # memory, then hours
    assert plan[1].startswith("Memory") and any(line.startswith("Where it does not fit") for line in plan)


def test_the_price_changes_the_bill(diagnose):
    free = diagnose("small", "NVIDIA H200", price=0.0).plan
    assert any("0.00 USD" in line for line in free)


def test_sizes_that_are_not_known_are_a_note(diagnose, tmp_path):
    from importlib import resources

    text = (resources.files("ladlib") / "profiles" / "small.yaml").read_text(encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("model:", "model:\n  base: a/b"))
    diagnosis = diagnose(str(mine), "NVIDIA H200")
    assert gpu_check(diagnosis).verdict == "note" and "a/b" in gpu_check(diagnosis).found and diagnosis.plan == ()


def test_a_large_model_that_is_to_answer_here_and_is_not_there_is_missing(tmp_path):
    assert not [one for one in examine("toy").checks if one.subject == "large model"]
    text = (files("ladlib") / "profiles" / "toy.yaml").read_text().replace("large: toy-large", "large: toy-huge")
    (tmp_path / "mine.yaml").write_text(text)
    check = next(one for one in examine(str(tmp_path / "mine.yaml")).checks if one.subject == "large model")
    assert check.verdict == "missing" and "toy-huge" in check.found


def test_vllm_is_missed_only_where_a_profile_asks_for_it(tmp_path):
    values = load_profile("smoke").model_dump()
    values["grpo"]["engine"] = "vllm_colocate"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    missed = [check.found for check in examine(str(tmp_path / "mine.yaml")).checks if check.subject == "vLLM"]
    assert len(missed) == 1 and "grpo.engine is vllm_colocate" in missed[0]
    assert not any(check.subject == "vLLM" for check in examine("smoke").checks)
