"""Profiles: all load with the values of the released runs, wrong values are refused with the field's name."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from ladlib.config import PROFILES, Profile, load_profile
from ladlib.doctor import load_cost
from ladlib.errors import UserError
from ladlib.pipeline import STAGES

MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
TEXTS = {name: (files("ladlib") / "profiles" / f"{name}.yaml").read_text() for name in PROFILES}


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    pairs = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and name not in ("trl", "extra", "toy")
        pairs |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return pairs


@pytest.mark.parametrize("name", PROFILES)
def test_the_values_in_force_are_those_of_the_released_runs(name):
    """To write the file again: {name: load_profile(name).model_dump(mode="json") for name in PROFILES}."""
    released = json.loads(Path(__file__).with_name("profiles_resolved.json").read_text())
    assert load_profile(name).model_dump(mode="json") == released[name]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_lists_only_what_differs_from_the_defaults_and_is_consistent(name):
    listed, defaults = flat(yaml.safe_load(TEXTS[name])), flat(Profile(name="x", label="").model_dump(mode="json"))
    assert not {field for field, value in listed.items() if defaults.get(field) == value}
    profile = load_profile(name)
    stages = [stage.name for stage in STAGES] if name == "toy" else []
    assert profile.name == name and list(load_cost(name).seconds) == stages
    assert profile.data.min_pixels % 784 == profile.data.max_pixels % 784 == 0
    assert profile.data.min_pixels < profile.data.max_pixels
    assert profile.sft.batch_size % profile.sft.micro_batch_size == 0
    assert profile.grpo.prompts_per_step * profile.grpo.group_size % profile.grpo.micro_batch_size == 0
    assert profile.data.grpo_pairs % 2 == 0  # half of them anomalous


def test_a_profile_has_at_most_fifty_parameters():
    sections = load_profile("toy").model_dump()
    assert sum(len(value) if isinstance(value, dict) else 1 for value in sections.values()) <= 50


def test_overrides_replace_single_values():
    profile = load_profile("toy", **{"grpo.steps": 7, "model.dtype": "bfloat16"})
    assert (profile.grpo.steps, profile.model.dtype) == (7, "bfloat16")
    assert profile.replace({"grpo.steps": 80, "model.dtype": "float32"}) == load_profile("toy")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"grpo.stesp": 7}, "No profile has a value 'grpo.stesp'. Check its spelling in ladlib/config.py."),
        ({"grop.steps": 7}, "No profile has a value 'grop.steps'."),
        ({"grpo.steps.more": 7}, "No profile has a value 'grpo.steps.more'."),
        ({"toy.validation": 7}, "No profile has a value 'toy.validation'."),
        ({"grpo.steps": "many"}, "Profile 'toy': grpo.steps: Input should be a valid integer"),
        ({"grpo.group_size": 1}, "Profile 'toy': grpo.group_size: Input should be greater than 1."),
        ({"grpo.group_size": 10**6}, "Profile 'toy': grpo.group_size: Input should be less than or equal to 65536."),
        ({"sft.steps": 2**40}, "Profile 'toy': sft.steps: Value error, a number of at most 1000000000"),
        ({"sft.learning_rate": True}, "Profile 'toy': sft.learning_rate: Value error, a number of at most"),
        ({"evaluate.limit": False}, "Profile 'toy': evaluate.limit: Value error, a number of at most"),
        ({"data.grpo_pairs": 7}, "Profile 'toy': the file: Value error, 6 pairs do not fill one step of 8 prompts."),
        ({"grpo.reward_weights": [1]}, "Profile 'toy': grpo.reward_weights"),
        ({"grpo.trl": {"top_k": float("nan")}}, "Profile 'toy': grpo.trl"),
        ({"model.dtype": "float8"}, "Profile 'toy': model.dtype: Input should be 'float32' or 'bfloat16'."),
        ({"endpoint.url": "http://me:key@host/v1"}, "Profile 'toy': endpoint.url: Value error, an address"),
        *(
            ({"endpoint.url": url}, "Profile 'toy': endpoint.url: Value error, no address: ")
            for url in ("http://host:x/v1", "http://a..b/v1", f"http://{'a' * 300}/v1", "http://a/v1\n",
                        "http://a/\x1b")
        ),
    ],
)  # fmt: skip
def test_an_unknown_field_or_a_wrong_value_is_named(overrides, message):
    with pytest.raises(UserError) as error:
        load_profile("toy", **overrides)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("toys", "", "There is no profile 'toys'. Use one of smoke, toy, small, paper, or a .yaml file."),
        ("mine.yaml", "speed: 3\nlabel: a", "Profile '{}': speed: Extra inputs are not permitted."),
        ("mine.yaml", "data: {min_pixels: 0}\nlabel: a", "Profile '{}': data.min_pixels: Input should be greater"),
        ("mine.yaml", 'label: a\nname: "../../x"', "Profile '{}': name: String should match pattern"),
        ("mine.yaml", "label: a\nname: /abs/path", "Profile '{}': name: String should match pattern"),
        ("mine.yaml", 'label: a\nname: "."', "Profile '{}': name: String should match pattern"),
        ("mine.yaml", 'label: a\nname: ""', "Profile '{}': name: String should match pattern"),
        ("mine.yaml", 'label: a\nname: "a\\0b"', "Profile '{}': name: String should match pattern"),
        ("mine.yaml", "a: [", "Profile '{}' is not YAML: while parsing"),
        ("mine.yaml", "[" * 20_000, "Profile '{}' is not YAML: nested too deeply"),
        (
            "mine.yaml",
            "!!python/object/apply:os.system ['touch pwned']",
            "Profile '{}' is not YAML: could not determine",
        ),
        ("mine.yaml", "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", "Profile '{}': label: Field required"),
        ("mine.yaml", MERGED, "Profile '{}' is not YAML: it has more than 20 aliases"),
        ("mine.yaml", "\0", "Profile '{}' is not YAML: unacceptable character"),
        ("mine.yaml", "- a", "Profile '{}': the file: Input should be"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_with_the_reason(tmp_path, name, text, message):
    path = str(tmp_path / name) if text else name
    if text:
        Path(path).write_text(text)
    with pytest.raises(UserError) as error:
        load_profile(path)
    assert str(error.value).startswith(message.format(path))


@pytest.mark.parametrize(
    ("shipped", "changes", "overrides", "label"),
    [
        ("paper", {"model": {"base": "/models/seven"}}, {}, "{}, base model seven"),
        ("toy", {"model": {"base": "a/b"}, "label": "mine"}, {}, "mine"),
        ("toy", {"label": "mine"}, {"model.base": "a/b"}, "mine, base model b"),
        ("small", {}, {"model.base": "a/b"}, "{}, base model b"),
        ("small", {"sft": {"epochs": 1}}, {}, "{}"),
    ],
)
def test_a_label_names_the_base_model_where_it_was_written_for_another(tmp_path, shipped, changes, overrides, label):
    values = yaml.safe_load(TEXTS[shipped])
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values | changes))
    profile = load_profile(str(tmp_path / "mine.yaml"), **overrides)
    assert profile.label == profile.replace({"grpo.beta": 0.5}).label == label.format(values["label"])
    own = load_profile(shipped)
    assert profile.replace({"model.base": own.model.base}).label == own.label or "label" in changes
    assert load_cost(profile.name) is None


def test_a_file_with_the_name_of_a_shipped_profile_is_refused_since_it_would_enter_its_runs(tmp_path):
    (tmp_path / "paper.yaml").write_text(TEXTS["paper"])
    with pytest.raises(UserError, match="the name of a shipped profile"):
        load_profile(str(tmp_path / "paper.yaml"))


def test_a_profile_may_be_a_file_that_names_it(tmp_path):
    (tmp_path / "mine.yaml").write_text(TEXTS["smoke"] + "endpoint: {extra: {chat_template_kwargs: {thinking: [1]}}}\n")
    profile = load_profile(str(tmp_path / "mine.yaml"))
    assert profile.name == "mine" and profile.endpoint.extra["chat_template_kwargs"] == {"thinking": [1]}
    assert profile.model_copy(update={"name": "smoke"}).replace({"endpoint.extra": {}}) == load_profile("smoke")
