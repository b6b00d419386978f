"""Profiles: small checked YAML files. A profile changes values, never the path through the code."""

from importlib import resources
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator

from ladlib.errors import UserError, read_text
from ladlib.records import Record

Method = Literal["ddp", "fsdp2", "zero3"]

PROFILES = ("smoke", "toy", "small", "paper")


class ToyData(Record):
    """How many toy images to draw, per category."""

    train: int = Field(gt=0)
    validation: int = Field(ge=0)
    good: int = Field(gt=0)  # in the test split
    logical: int = Field(gt=0)
    structural: int = Field(gt=0)
    seed: int = 0


class Data(Record):
    """Where images come from and how large the model sees them."""

    toy: ToyData | None = None  # None: a real dataset folder must be given
    min_pixels: int = Field(gt=0)  # of one image after resizing; a multiple of 28 * 28
    max_pixels: int = Field(gt=0)
    sft_samples: int = Field(gt=0)  # conversations of stage 1
    sft_file: str | None = None  # built by `ladlib data sft`, relative to the profile's file; None: made by template
    grpo_pairs: int = Field(gt=0)  # pairs of stage 2, half of them anomalous
    validation_share: float = Field(ge=0, lt=1)  # of the training images, seen by no stage: for choosing values
    reference_seed: int = 0  # which training normal stands beside which test image


class Lora(Record):
    """Low-rank adapters on the language model (arXiv 2106.09685)."""

    rank: int = Field(gt=0)
    alpha: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)


class Model(Record):
    """Which weights play the tiny and the large model."""

    base: str  # a shipped toy model, a folder, or a hub id
    large: str
    revision: str = "pinned"  # of a hub id: a commit or branch; pinned = the commit in ladlib.published_models
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    lora: Lora | None = None  # None: full-parameter training
    freeze_vision: bool = False


class Sft(Record):
    """Stage 1. ``steps`` of 0 means ``epochs`` passes over the data."""

    epochs: float = Field(gt=0)
    steps: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(gt=0)  # conversations of one optimizer step, over all devices
    micro_batch_size: int = Field(gt=0)
    warmup: float = Field(ge=0, le=1)  # share of the steps
    save_steps: int = Field(20, gt=0)  # after so many, all is kept that a killed training needs to go on
    stop_on_alarm: bool = False  # end where ladlib.alarms finds it gone wrong, and keep the last good checkpoint


class Grpo(Record):
    """Stage 2. ``steps`` of 0 means ``epochs`` passes over the pairs."""

    epochs: float = Field(gt=0)
    steps: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    prompts_per_step: int = Field(gt=0)
    group_size: int = Field(gt=1)  # completions per prompt, G
    micro_batch_size: int = Field(gt=0)  # completions of one forward and backward pass
    beta: float = Field(ge=0)  # weight of the KL term to the frozen reference model
    epsilon: float = Field(gt=0)  # clip range of the policy ratio
    temperature: float = Field(gt=0)
    max_completion_tokens: int = Field(gt=0)
    warmup: float = Field(ge=0, le=1)
    save_steps: int = Field(20, gt=0)  # as above
    stop_on_alarm: bool = False  # as above
    engine: Literal["transformers", "vllm_colocate"] = "transformers"  # samples the completions
    shared_prefix: bool = (
        False  # one reading of what a group has in common (ladlib.fast.shared_prefix); False: stock TRL
    )
    accuracy_weight: float = Field(ge=0)
    format_weight: float = Field(ge=0)


class Evaluate(Record):
    """Greedy evaluation. ``limit`` of 0 means every test image."""

    batch_size: int = Field(gt=0)
    max_new_tokens: int = Field(gt=0)
    limit: int = Field(ge=0)  # test images per category and kind of anomaly
    shared_prefix: bool = False  # what pairs have in common is computed once (ladlib.decoding); False: plain generate
    sensitivity: int = Field(0, ge=0)  # test pairs judged again under other conditions; 0 = none
    large: bool = False  # whether notebook 05 loads the large model on this machine


class Parallel(Record):
    """On how many devices a stage is trained, and how they share the model (:mod:`ladlib.launch`).

    Where transformers answers in the evaluation, each has a copy of the model (:mod:`ladlib.evaluate`).
    """

    processes: int = Field(1, ge=0)  # one a device; 0 = one for each GPU of this machine
    method: Method = "ddp"  # each holds all of the model; fsdp2, zero3: it is divided among them


class Endpoint(Record):
    """An OpenAI-compatible server that answers as the large model (:mod:`ladlib.endpoint`).

    Its key is no value of a profile: it comes from the environment.
    """

    url: str = ""  # up to its version, such as http://localhost:8000/v1; "" = none
    model: str = ""  # the name it is served under; "" = model.large
    label: str = ""  # quantisation and engine, such as "FP8, vLLM 0.11": both change answers, so the row names them
    concurrency: int = Field(8, gt=0)  # requests at a time
    requests_per_minute: int = Field(0, ge=0)  # 0 = as many as come
    timeout: float = Field(120.0, gt=0)  # seconds for a whole response, before the request counts as lost
    top_logprobs: int = Field(20, ge=0, le=20)  # words listed at each place, for P(yes); 0 = do not ask
    input_price: float | None = Field(None, ge=0)  # dollars for a million tokens; None = not known
    output_price: float | None = Field(None, ge=0)
    extra: dict[str, str | int | float | bool] = {}  # further fields of a request, where an engine takes more

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("an address begins with http:// or https://")
        if "@" in url or parts.query:
            raise ValueError("an address holds no key, since it is stored; give the key in the environment")
        return url.rstrip("/")


class Profile(Record):
    """All values of a run that are not given on the command line."""

    name: str
    label: str  # printed beside every number of a run with this profile
    data: Data
    model: Model
    sft: Sft
    grpo: Grpo
    evaluate: Evaluate
    parallel: Parallel = Parallel()
    endpoint: Endpoint = Endpoint()


def load_profile(name: str, **overrides: object) -> Profile:
    """Read the profile ``name`` (or a YAML file) with dotted ``section.field`` overrides applied.

    Raises :class:`UserError` for an unknown profile, field, or value of the wrong type.
    """
    values = _checked(name, _parsed(name)).model_dump()  # with the sections that the file leaves out
    if values["data"]["sft_file"]:
        values["data"]["sft_file"] = str(Path(name).resolve().parent / Path(values["data"]["sft_file"]).expanduser())
    for dotted, value in overrides.items():
        _set(values, dotted, value)
    return _checked(name, values)


def _checked(name: str, values: dict) -> Profile:
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"Profile {name!r}: {field}: {first['msg']}.", "Correct that value.") from error


def _parsed(name: str) -> object:
    """What the YAML says. A date or a number that there is none of raises ValueError, a tag other errors still."""
    try:
        return yaml.safe_load(_read(name))
    except (yaml.YAMLError, ValueError, RecursionError, *TAGGED) as error:
        told = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"Profile {name!r} is no YAML: {told}.", "Correct the file.") from error


TAGGED = (KeyError, IndexError, AttributeError, TypeError)
"""What PyYAML's constructors raise for a tag such as ``!!bool`` before another word."""


def _read(name: str) -> str:
    if name in PROFILES:
        return (resources.files("ladlib") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return read_text(Path(name), "Correct the file.")
    raise UserError(f"There is no profile {name!r}.", f"Use one of {', '.join(PROFILES)}, or a .yaml file.")


def _set(values: dict, dotted: str, value: object) -> None:
    *sections, field = dotted.split(".")
    for section in sections:
        found = values.get(section)
        values = found if isinstance(found, dict) else {}
    if field not in values:
        raise UserError(f"No profile has a value {dotted!r}.", "Check its spelling in ladlib/config.py.")
    values[field] = value
