"""Profiles: all load, wrong values are refused with the field's name."""

import json
from pathlib import Path

import pytest

from ladlib.config import PROFILES, load_profile
from ladlib.doctor import load_cost
from ladlib.errors import UserError
from ladlib.pipeline import STAGES


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads_and_is_consistent(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.data.min_pixels % 784 == 0 and profile.data.max_pixels % 784 == 0
    assert profile.data.min_pixels < profile.data.max_pixels
    assert profile.sft.batch_size % profile.sft.micro_batch_size == 0
    completions = profile.grpo.prompts_per_step * profile.grpo.group_size
    assert completions % profile.grpo.micro_batch_size == 0
    assert profile.data.grpo_pairs % 2 == 0  # half of them anomalous


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_an_entry_in_the_cost_table_for_every_stage(name):
    assert list(load_cost(name).seconds) == [stage.name for stage in STAGES]


def test_overrides_replace_single_values():
    profile = load_profile("toy", **{"grpo.steps": 7, "model.dtype": "bfloat16"})
    assert (profile.grpo.steps, profile.model.dtype) == (7, "bfloat16")
    assert profile.grpo.beta == load_profile("toy").grpo.beta


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"grpo.stesp": 7}, "grpo.stesp"),
        ({"grop.steps": 7}, "grop.steps"),
        ({"grpo.steps": "many"}, "grpo.steps"),
        ({"grpo.group_size": 1}, "grpo.group_size"),
        ({"model.dtype": "float8"}, "model.dtype"),
    ],
)
def test_an_unknown_field_or_a_wrong_value_is_named(overrides, told):
    with pytest.raises(UserError, match=told):
        load_profile("toy", **overrides)


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="smoke, toy, small, paper"):
        load_profile("toys")


def test_a_profile_may_be_a_file_and_refuses_unknown_keys(tmp_path):
    from importlib.resources import files

    text = (files("ladlib") / "profiles" / "smoke.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("name: smoke", "name: mine"))
    assert load_profile(str(tmp_path / "mine.yaml")).name == "mine"
    (tmp_path / "mine.yaml").write_text(text + "speed: 3\n")
    with pytest.raises(UserError, match="speed"):
        load_profile(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", PROFILES)
def test_the_values_in_force_are_those_of_the_released_runs(name):
    resolved = json.loads(Path(__file__).with_name("profiles_resolved.json").read_text())
    assert load_profile(name).model_dump(mode="json") == resolved[name]
