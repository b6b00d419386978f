"""Profiles: small checked YAML files that list what differs from the defaults here.

    load_profile("toy").grpo.beta                       # 0.04
    load_profile("toy", **{"grpo.beta": 0.0})           # or profile.replace({"grpo.beta": 0.0})

The defaults are the method at the size of the paper (arXiv 2504.12749). Where the paper states a value, the comment
says "paper"; every other value is unknown there and comes from the project named beside it. A profile changes values,
never the path through the code.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError, ValidationInfo, field_validator, model_validator

from ladlib.errors import UserError, first_problem, read_text
from ladlib.records import Record

Method = Literal["ddp", "fsdp2", "zero3"]
Options = dict[str, JsonValue]

PROFILES = ("smoke", "toy", "small", "paper")
TAGGED = (ValueError, KeyError, IndexError, AttributeError, TypeError)
"""What PyYAML's constructors raise for a date that does not exist, or a tag such as ``!!bool`` before another word."""
ALIASES = 20  # in a profile: merged into each other, many more would take for ever
BASE = ", base model "  # in a label, before the name of one that the label was not written for
RENAMED = {"evaluate.sensitivity": "evaluate.variants"}
"""Parameters in ``run.json`` of earlier runs, and what they are called now."""


class Section(Record):
    """A part of a profile. ``true`` is no number, though Python takes it for 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_number(cls, value: object, info: ValidationInfo) -> object:
        is_whole = cls.model_fields[info.field_name].annotation in (int, float) and isinstance(value, int)
        if is_whole and (isinstance(value, bool) or value > 10**9):
            raise ValueError("a number of at most 1000000000 is needed")
        return value


class Toy(Section):
    """How many synthetic images to draw, per category."""

    train: int = Field(gt=0)  # a reference image is chosen from these
    good: int = Field(gt=0)  # in the test split
    logical: int = Field(gt=0)
    structural: int = Field(gt=0)
    seed: ClassVar[int] = 0

    @property
    def validation(self) -> int:
        """A fourth of ``train``."""
        return max(1, self.train // 4)


class Data(Section):
    """Which images, and how large the model sees them."""

    min_pixels: int = Field(50_176, gt=0)  # of one image after resizing: 64 x 28 x 28, no side below about 224
    max_pixels: int = Field(401_408, gt=0)  # 512 visual tokens (LLaMA-Factory caps at 262144, IAD-R1 at 480000)
    sft_samples: int = Field(3000, gt=0)  # conversations of stage 1; paper: about 3k pairs
    sft_file: str | None = None  # built by `ladlib data sft`, relative to the profile's file; None: made by template
    grpo_pairs: int = Field(1000, gt=0)  # pairs of stage 2, half of them anomalous; paper: about 1k pairs
    validation_share: float = Field(0.0, ge=0, lt=1)  # of the training images, held out; paper: trains on all
    reference_seed: ClassVar[int] = 0  # which training normal is the reference of which test image


class Model(Section):
    """Which weights play the small and the large model, and how they answer."""

    base: str = "Qwen/Qwen2.5-VL-3B-Instruct"  # paper; or a shipped toy model, a folder, another hub id
    large: str = "Qwen/Qwen2.5-VL-72B-Instruct"  # paper
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # LLaMA-Factory qwen2_5vl_full_sft.yaml
    lora_rank: int = Field(0, ge=0)  # 0 = full-parameter training, as in the paper
    freeze_vision: bool = True  # LLaMA-Factory example: vision tower and projector frozen
    max_new_tokens: int = Field(512, gt=0)  # of a completion, in training and evaluation; IAD-R1, EMIT
    shared_prefix: bool = False  # compute what completions share once (ladlib.fast); False: stock TRL and generate


class Sft(Section):
    """Stage 1. ``steps`` of 0 means ``epochs`` passes over the data."""

    epochs: float = Field(3, gt=0)  # paper
    steps: int = Field(0, ge=0)
    learning_rate: float = Field(1e-5, gt=0)  # LLaMA-Factory example, cosine
    batch_size: int = Field(16, gt=0)  # of one step over all devices; LLaMA-Factory example: 1 x 2 on each of eight
    micro_batch_size: int = Field(1, gt=0)  # LLaMA-Factory example
    warmup: float = Field(0.1, ge=0, le=1)  # share of the steps; LLaMA-Factory example
    trl: Options = {}  # handed to TRL's SFTConfig as they are


class Grpo(Section):
    """Stage 2. ``steps`` of 0 means ``epochs`` passes over the pairs."""

    epochs: float = Field(2, gt=0)  # VLM-R1 run_grpo_rec.sh
    steps: int = Field(0, ge=0)
    learning_rate: float = Field(1e-6, gt=0)  # VLM-R1
    prompts_per_step: int = Field(16, gt=0, le=2**16)  # VLM-R1: 8 x 2 x 8 devices = 128 completions of 8 per prompt
    group_size: int = Field(8, gt=1, le=2**16)  # completions per prompt, G; VLM-R1, AnomalyR1, EMIT
    micro_batch_size: int = Field(8, gt=0)  # completions of one forward and backward pass; VLM-R1
    beta: float = Field(0.04, ge=0)  # weight of the KL term to the frozen reference model; VLM-R1
    temperature: float = Field(0.9, gt=0)  # VLM-R1
    warmup: float = Field(0.0, ge=0, le=1)  # the trainer's default in VLM-R1's script
    reward_weights: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (1.0, 1.0)
    # of accuracy and format; VLM-R1: both count alike
    engine: Literal["transformers", "vllm_colocate"] = "transformers"  # samples the completions
    trl: Options = {}  # handed to TRL's GRPOConfig as they are


class Evaluate(Section):
    """Greedy evaluation."""

    batch_size: int = Field(8, gt=0)
    limit: int = Field(0, ge=0)  # test images per category and kind of anomaly; 0 = all
    variants: int = Field(100, ge=0)  # test pairs answered again with one change; 100: flip rates within 6 points
    large: bool = False  # whether notebook 05 loads the large model on this machine


class Parallel(Section):
    """On how many devices a stage is trained, and how they share the model."""

    processes: int = Field(1, ge=0)  # one per device; 0 = one for each GPU of this machine
    method: Method = "ddp"  # each holds all of the model; fsdp2, zero3: it is divided among them


class Endpoint(Section):
    """An OpenAI-compatible server that answers as the large model (:mod:`ladlib.endpoint`).

    Its key is no value of a profile: it comes from the environment.
    """

    url: str = ""  # up to its version, such as http://localhost:8000/v1; "" = none
    model: str = ""  # the name it is served under; "" = model.large
    label: str = ""  # quantisation and engine, such as "FP8, vLLM 0.11": both change answers, so the row names them
    concurrency: int = Field(8, gt=0)  # requests at a time
    extra: Options = {}  # further fields of a request; null takes a field out

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        if not url:
            return url
        from httpx2 import URL, InvalidURL  # what the client reads it with

        try:
            parts = URL(url)
            parts.host.encode("idna")  # as a name is looked up
        except (InvalidURL, UnicodeError) as error:
            raise ValueError(f"no address: {str(error).rstrip('.')}") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ValueError("an address begins with http:// or https://")
        if "@" in url or parts.query:
            raise ValueError("an address holds no key, since it is stored; give the key in the environment")
        return url.rstrip("/")


class Profile(Record):
    """All values of a run that are not given on the command line."""

    name: str = Field(pattern=r"^\w[\w .+()-]*$", max_length=100)  # of the file, unless it says another; of run folders
    label: str  # printed beside every number of a run with this profile
    toy: Toy | None = None  # None: a real dataset folder must be given
    data: Data = Data()
    model: Model = Model()
    sft: Sft = Sft()
    grpo: Grpo = Grpo()
    stop_on_alarm: bool = False  # end a training that raises an alarm (ladlib.training.ALARMS)
    evaluate: Evaluate = Evaluate()
    parallel: Parallel = Parallel()
    endpoint: Endpoint = Endpoint()

    @model_validator(mode="after")
    def _fills_a_step(self) -> "Profile":
        if (pairs := self.data.grpo_pairs // 2 * 2) < self.grpo.prompts_per_step:  # TRL drops an incomplete step
            raise ValueError(f"{pairs} pairs do not fill one step of {self.grpo.prompts_per_step} prompts")
        return self

    def replace(self, values: Mapping[str, object]) -> "Profile":
        """This profile with dotted ``section.field`` values in place of its own.

        Raises :class:`UserError` for an unknown field, or a value of the wrong type.
        """
        dumped = self.model_dump()
        for dotted, value in values.items():
            *sections, field = dotted.split(".")
            inner = dumped
            for section in sections:
                inner = inner.get(section) if isinstance(inner, dict) else None
            if not isinstance(inner, dict) or field not in inner:
                raise UserError(f"No profile has a value {dotted!r}.", "Check its spelling in ladlib/config.py.")
            inner[field] = value
        profile = _checked(self.name, dumped)
        return profile if profile.model.base == self.model.base else _labelled(profile)


def load_profile(name: str, **overrides: object) -> Profile:
    """The profile ``name`` (or that of a YAML file) with dotted ``section.field`` overrides applied.

    Raises :class:`UserError` for an unknown profile, field, or value of the wrong type.
    """
    if name in PROFILES:
        text = (resources.files("ladlib") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")) and Path(name).is_file():
        text = read_text(Path(name), "Correct the file.")
    else:
        raise UserError(f"There is no profile {name!r}.", f"Use one of {', '.join(PROFILES)}, or a .yaml file.")
    try:
        if len(re.findall(r"[\s,:\[]\*[^\s*]", text)) > ALIASES:
            raise yaml.YAMLError(f"it has more than {ALIASES} aliases")
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, *TAGGED) as error:
        message = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise UserError(f"Profile {name!r} is not YAML: {message}.", "Correct the file.") from error
    profile = _checked(name, {"name": Path(name).stem} | values if isinstance(values, dict) else values)
    if name not in PROFILES and profile.name in PROFILES and "name" not in values:
        raise UserError(f"{name} has the name of a shipped profile, whose runs it would replace.", "Rename the file.")
    if name not in PROFILES and profile.label in _shipped():
        profile = _labelled(profile)
    if profile.data.sft_file:
        file = Path(name).resolve().parent / Path(profile.data.sft_file).expanduser()
        profile = profile.replace({"data.sft_file": str(file)})
    return profile.replace(overrides)


@cache
def _shipped() -> dict[str, str]:
    """The base model of each shipped profile, by its label."""
    profiles = map(load_profile, PROFILES)
    return {profile.label: profile.model.base for profile in profiles}


def _labelled(profile: Profile) -> Profile:
    """``profile`` with a label that names its base model, where the label may be that of a run with another one."""
    label, base = profile.label.partition(BASE)[0], profile.model.base
    label += "" if _shipped().get(label) == base else BASE + Path(base).name
    return profile.model_copy(update={"label": label})


def _checked(name: str, values: object) -> Profile:
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        raise UserError(f"Profile {name!r}: {first_problem(error)}.", "Correct that value.") from error
