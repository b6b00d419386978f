"""What a profile needs, compared with what this machine has."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import yaml

from ladlib.config import Profile, load_profile
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.families import revision_of
from ladlib.machine import hardware
from ladlib.memory import CALCULATED, DEVICES, GIB, SHARDING, is_calculated, largest, memory_lines
from ladlib.records import Record
from ladlib.sft_data import read_sft_file

SLACK = 0.9  # a machine sold with 24 GB shows somewhat less than 24 GiB

Verdict = Literal["ok", "note", "missing"]


class Check(Record):
    """One line: ``missing`` keeps the profile from running, ``note`` does not."""

    verdict: Verdict
    subject: str
    found: str


class Cost(Record):
    """An entry of profiles/cost.yaml; None where nothing was measured."""

    memory_gib: float
    disk_gib: float
    basis: str
    measured_on: str | None = None
    peak_memory_gib: float | None = None
    seconds: dict[str, float] = {}  # by stage


class Diagnosis(Record):
    """All checks of one profile on this machine."""

    profile: str
    checks: tuple[Check, ...]
    plan: tuple[str, ...] = ()  # memory, where it is calculated
    expected: str

    @property
    def can_run(self) -> bool:
        return all(check.verdict != "missing" for check in self.checks)

    @property
    def summary(self) -> str:
        return f"This machine {'can' if self.can_run else 'cannot'} run profile {self.profile!r}. {self.expected}"


def examine(name: str, data: str = "") -> Diagnosis:
    """The profile ``name`` with the datasets in ``data``, checked on this machine; loads torch, no model."""
    profile = load_profile(name)
    cost, gpus = load_cost(profile.name), find_gpus()
    lines = [
        *_software(profile), *_machine(cost), *_gpu(profile, gpus), *_weights(profile), *_datasets(profile, data),
        *_sft_file(profile),
    ]  # fmt: skip
    checks = tuple(Check(verdict=verdict, subject=subject, found=found) for verdict, subject, found in lines)
    plan = tuple(memory_lines(profile, sorted({1, len(gpus)}) if gpus else DEVICES))
    return Diagnosis(profile=profile.name, checks=checks, plan=("", *plan) if plan else (), expected=_expected(cost))


def load_cost(profile: str) -> Cost | None:
    """The entry of profiles/cost.yaml; None for a profile of the user's own."""
    text = (resources.files("ladlib") / "profiles" / "cost.yaml").read_text(encoding="utf-8")
    entry = yaml.safe_load(text).get(profile)
    return Cost.model_validate(entry) if entry else None


def find_gpus() -> list[tuple[str, float]]:
    """(name, GiB) of each GPU that torch can use."""
    if find_spec("torch") is None:
        return []
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(number) for number in range(count)]
    return [(device.name, device.total_memory / GIB) for device in devices]


def _software(profile: Profile) -> Iterator[tuple[Verdict, str, str]]:
    enough = sys.version_info >= (3, 11)
    version = f"{platform.python_version()} at {sys.executable}"
    yield ("ok", "Python", version) if enough else ("missing", "Python", f"{version}; 3.11 or newer is needed")
    if find_spec("torch") is None:
        yield "missing", "torch", "not installed; run `make env`"
    else:
        import torch  # takes seconds: only this command wants to know the build

        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU only"
        versions = f"transformers {metadata.version('transformers')}, trl {metadata.version('trl')}"
        yield "ok", "torch", f"{torch.__version__}, {build}; {versions}"
    if profile.grpo.engine != "transformers" and find_spec("vllm") is None:
        yield "missing", "vLLM", f"none in this environment, and grpo.engine is {profile.grpo.engine}"


def _machine(cost: Cost | None) -> Iterator[tuple[Verdict, str, str]]:
    machine, threads = hardware(), os.environ.get("OMP_NUM_THREADS")
    yield "ok", "cores", f"{machine['cores']}, {f'OMP_NUM_THREADS={threads}' if threads else 'all of them used'}"
    free = shutil.disk_usage(Path.cwd()).free / GIB
    memory, disk = (cost.memory_gib, cost.disk_gib) if cost else (0, 0)
    for subject, size, needed, slack in (
        ("memory", float(machine["memory_gib"]), memory, SLACK), ("free disk here", free, disk, 1),
    ):  # fmt: skip
        text = f"{size:.1f} GiB" + (f", needed {needed:g} GiB" if needed else "")
        yield "ok" if size >= needed * slack else "missing", subject, text


def _gpu(profile: Profile, gpus: Sequence[tuple[str, float]]) -> Iterator[tuple[Verdict, str, str]]:
    names = ", ".join(f"{name} with {size:.1f} GiB" for name, size in gpus) or "none that torch can use"
    try:
        if not is_calculated(profile):
            yield "ok", "GPU", f"{names if gpus else 'none'}, and none needed"
            return
    except UserError as error:
        yield "note", "GPU", f"{names}; what is needed is not known: {error.what}"
        return
    count, sizes = profile.parallel.processes or max(1, len(gpus)), sorted((size for _, size in gpus), reverse=True)
    sharded = count > 1 and profile.parallel.method != "ddp"
    needed = largest(profile, count, sharded)
    text = f"{count} with {needed:.1f} GiB each are needed, the model {SHARDING[sharded]}"
    fits = len(sizes) >= count and needed <= sizes[count - 1]
    text = f"{names}; {text if count > 1 else f'one with {needed:.1f} GiB is needed'} ({CALCULATED})"
    yield "ok" if fits else "missing", "GPU", text
    if len(gpus) > 1 and profile.parallel.processes == 1:
        hint = "this profile trains on one and refuses to see more; set CUDA_VISIBLE_DEVICES=0, or parallel.processes"
        yield "note", "several GPUs", hint


def _weights(profile: Profile) -> Iterator[tuple[Verdict, str, str]]:
    base, large = profile.model.base, profile.model.large
    if _is_shipped(base):
        yield "ok", "base model", f"{base}, shipped with ladlib"
    elif Path(base).is_dir():
        yield "ok", "base model", f"the folder {base}"
    elif "/" not in base:
        yield "missing", "base model", f"{base} is not shipped with this installation"
    else:
        from huggingface_hub import try_to_load_from_cache

        cached = isinstance(try_to_load_from_cache(base, "config.json", revision=revision_of(base)), str)
        where = "in the local cache" if cached else "not in the local cache; it is downloaded on first use"
        yield "ok" if cached else "note", "base model", f"{base}, {where}"
    if profile.evaluate.large and not (_is_shipped(large) or Path(large).is_dir()):
        yield "missing", "large model", f"{large} is not shipped with this installation"


def _is_shipped(model: str) -> bool:
    return (resources.files("ladlib") / "assets" / model / "config.json").is_file()


def _datasets(profile: Profile, data: str) -> Iterator[tuple[Verdict, str, str]]:
    if profile.toy and not data:
        yield "ok", "datasets", "drawn by the first notebook"
    elif not data:
        yield "missing", "datasets", "none given; name their folder with --data"
    for dataset in ("mvtec_loco", "mvtec_ad", "visa", "mmad") if data else ():
        try:
            yield "ok", dataset, str(find_dataset(Path(data), dataset))
        except UserError as error:
            yield "missing", dataset, str(error)


def _sft_file(profile: Profile) -> Iterator[tuple[Verdict, str, str]]:
    """The file of stage 1, where the profile names one."""
    if file := profile.data.sft_file:
        try:
            yield "ok", "SFT file", f"{file}, {len(read_sft_file(Path(file)))} conversations"
        except UserError as error:
            yield "missing", "SFT file", str(error)


def _expected(cost: Cost | None) -> str:
    if cost is None:
        return "Memory and time: not measured for a profile of your own."
    peak = f"{cost.peak_memory_gib:g} GiB at most" if cost.peak_memory_gib else "not measured"
    time = f"{sum(cost.seconds.values()) / 60:.0f} minutes" if cost.seconds else "not measured"
    where = f" (measured on {cost.measured_on})" if cost.measured_on else f" (needs: {cost.basis})"
    return f"Memory: {peak}. Time: {time}{where}."
