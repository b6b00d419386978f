"""What this machine has, held against what a profile needs."""

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
from pydantic import Field

from ladlib.config import Profile, load_profile
from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.hours import PRICE
from ladlib.machine import hardware
from ladlib.memory import CALCULATED, is_calculated
from ladlib.plan import (
    DEVICES,
    SHARDINGS,
    advice_lines,
    arrangements,
    hours_lines,
    memory_lines,
    most,
    nearest_gpu,
)
from ladlib.published_models import commit_of
from ladlib.records import Record
from ladlib.sft_data import read_sft_file

GIB = 2**30
SLACK = 0.9  # a machine sold with 24 GB shows somewhat less than 24 GiB


Verdict = Literal["ok", "note", "missing"]


class Check(Record):
    """One line: ``missing`` keeps the profile from running, ``note`` does not."""

    verdict: Verdict
    subject: str
    found: str


class Needs(Record):
    memory_gib: float
    disk_gib: float


class FoundGpu(Record):
    """A GPU as torch tells of it."""

    name: str
    memory_gib: float


class Cost(Record):
    """An entry of profiles/cost.yaml; None where nothing was measured."""

    needs: Needs
    basis: str
    measured_on: str | None
    peak_memory_gib: float | None
    seconds: dict[str, float | None] = Field(default_factory=dict)


class Diagnosis(Record):
    """All checks of one profile on this machine."""

    profile: str
    checks: tuple[Check, ...]
    plan: tuple[str, ...] = ()  # memory, hours and what to change, where they are calculated
    expected: str

    @property
    def can_run(self) -> bool:
        return all(check.verdict != "missing" for check in self.checks)

    @property
    def summary(self) -> str:
        answer = "can" if self.can_run else "cannot"
        return f"This machine {answer} run profile {self.profile!r}. {self.expected}"


def examine(profile: str, data: str = "", price: float = PRICE) -> Diagnosis:
    """Hold this machine against ``profile`` with the datasets in ``data``; loads torch, no model.

    ``price`` is what an hour of one GPU costs, in US dollars.
    """
    settings = load_profile(profile)
    cost = load_cost(settings.name)
    needs, gpus = cost.needs if cost else Needs(memory_gib=0, disk_gib=0), _found_gpus()
    checks = (
        _python(), _torch(), *_machine(needs), *_gpu_checks(settings, gpus),
        *_weights(settings), *_large(settings), *_engine(settings), *_datasets(settings, data),
        *_conversations(settings),
    )  # fmt: skip
    plan = _plan(settings, gpus, price)
    return Diagnosis(profile=settings.name, checks=checks, plan=plan, expected=_expected(cost, bool(plan)))


def load_cost(profile: str) -> Cost | None:
    """The entry of profiles/cost.yaml, or None for a profile of the user's own."""
    text = (resources.files("ladlib") / "profiles" / "cost.yaml").read_text(encoding="utf-8")
    entry = yaml.safe_load(text).get(profile)
    return Cost.model_validate(entry) if entry else None


def _python() -> Check:
    enough = sys.version_info >= (3, 11)
    return Check(
        verdict="ok" if enough else "missing",
        subject="Python",
        found=f"{platform.python_version()} at {sys.executable}" + ("" if enough else "; 3.11 or newer is needed"),
    )


def _torch() -> Check:
    if find_spec("torch") is None:
        return Check(verdict="missing", subject="torch", found="not installed; run `make env`")
    import torch  # takes seconds: only this command wants to know the build

    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPU only"
    versions = f"transformers {metadata.version('transformers')}, trl {metadata.version('trl')}"
    return Check(verdict="ok", subject="torch", found=f"{torch.__version__}, {build}; {versions}")


def _machine(needs: Needs) -> Iterator[Check]:
    machine = hardware()
    yield Check(verdict="ok", subject="cores", found=f"{machine['cores']}, {_threads()}")
    yield _enough("memory", float(machine["memory_gib"]), needs.memory_gib)
    yield _enough("free disk here", shutil.disk_usage(Path.cwd()).free / GIB, needs.disk_gib, slack=1)


def _threads() -> str:
    limit = os.environ.get("OMP_NUM_THREADS")
    return f"OMP_NUM_THREADS={limit}" if limit else "all of them used"


def _enough(subject: str, found: float, needed: float, slack: float = SLACK) -> Check:
    enough = found >= needed * slack
    return Check(
        verdict="ok" if enough else "missing",
        subject=subject,
        found=f"{found:.1f} GiB" + (f", needed {needed:g} GiB" if needed else ""),
    )


def _found_gpus() -> list[FoundGpu]:
    if find_spec("torch") is None:
        return []
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [torch.cuda.get_device_properties(number) for number in range(count)]
    return [FoundGpu(name=device.name, memory_gib=device.total_memory / GIB) for device in found]


def _gpu_checks(settings: Profile, gpus: Sequence[FoundGpu]) -> Iterator[Check]:
    names = ", ".join(f"{gpu.name} with {gpu.memory_gib:.1f} GiB" for gpu in gpus) or "none that torch can use"
    try:
        calculated = is_calculated(settings)
    except UserError as error:
        yield Check(verdict="note", subject="GPU", found=f"{names}; what is needed is not known: {error.what}")
        return
    if not calculated:
        yield Check(verdict="ok", subject="GPU", found=f"{names if gpus else 'none'}, and none needed")
        return
    verdict, fit = _fit(settings, gpus)
    yield Check(verdict=verdict, subject="GPU", found=f"{names}; {fit} ({CALCULATED})")
    if len(gpus) > 1 and settings.parallel.processes == 1:
        told = "this profile trains on one and refuses to see more; set CUDA_VISIBLE_DEVICES=0, or parallel.processes"
        yield Check(verdict="note", subject="several GPUs", found=told)


def _fit(settings: Profile, gpus: Sequence[FoundGpu]) -> tuple[Verdict, str]:
    """Whether the profile's stages run on ``gpus`` as it says in ``parallel``; else whether they could, divided."""
    count = settings.parallel.processes or max(1, len(gpus))
    how = "none" if count == 1 or settings.parallel.method == "ddp" else "full"
    needed, sizes = most(settings, count, how), sorted((gpu.memory_gib for gpu in gpus), reverse=True)
    each = f"{count} with {needed:.1f} GiB each are needed, the model {SHARDINGS[how]}"
    told = f"one with {needed:.1f} GiB is needed" if count == 1 else each
    if len(sizes) >= count and needed <= sizes[count - 1]:
        return "ok", told
    for several, way in arrangements(settings, [len(gpus)] if len(gpus) > 1 else []):
        if way == "full" and most(settings, several, way) <= sizes[-1]:
            return "missing", f"{told}; divided among these it would be {most(settings, several, way):.1f} GiB on each"
    return "missing", told


def _plan(settings: Profile, gpus: Sequence[FoundGpu], price: float) -> tuple[str, ...]:
    try:
        if not is_calculated(settings):
            return ()
    except UserError:
        return ()
    devices = sorted({1, len(gpus)}) if gpus else DEVICES
    gpu = nearest_gpu(settings, gpus[0].name if gpus else "")
    parts = memory_lines(settings, devices), hours_lines(settings, gpu, devices, price), advice_lines(settings)
    return tuple(line for part in parts for line in ("", *part))


def _weights(settings: Profile) -> Iterator[Check]:
    base = settings.model.base
    if (resources.files("ladlib") / "assets" / base).is_dir():
        yield Check(verdict="ok", subject="base model", found=f"{base}, shipped with ladlib")
    elif Path(base).is_dir():
        yield Check(verdict="ok", subject="base model", found=f"the folder {base}")
    elif "/" not in base:
        yield Check(verdict="missing", subject="base model", found=f"{base} is not shipped with this installation")
    elif _cached(base, commit_of(base, settings.model.revision)):
        yield Check(verdict="ok", subject="base model", found=f"{base}, in the local cache")
    else:
        yield Check(
            verdict="note",
            subject="base model",
            found=f"{base} is not in the local cache; it is downloaded on first use",
        )


def _large(settings: Profile) -> Iterator[Check]:
    """The large model, where notebook 05 loads it."""
    name = settings.model.large
    shipped = resources.files("ladlib") / "assets" / name / "config.json"
    if settings.evaluate.large and not (shipped.is_file() or Path(name).is_dir()):
        yield Check(verdict="missing", subject="large model", found=f"{name} is not shipped with this installation")


def _engine(settings: Profile) -> Iterator[Check]:
    """vLLM, where a stage of the profile uses it."""
    if settings.grpo.engine != "transformers" and find_spec("vllm") is None:
        message = f"none in this environment, and grpo.engine is {settings.grpo.engine}"
        yield Check(verdict="missing", subject="vLLM", found=message)


def _cached(model: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str)


def _datasets(settings: Profile, data: str) -> Iterator[Check]:
    if settings.toy is not None and not data:
        yield Check(verdict="ok", subject="datasets", found="drawn by the first notebook")
        return
    if not data:
        yield Check(verdict="missing", subject="datasets", found="none given; name their folder with --data")
        return
    for dataset in ("mvtec_loco", "mvtec_ad", "visa", "mmad"):
        try:
            yield Check(verdict="ok", subject=dataset, found=str(find_dataset(Path(data), dataset)))
        except UserError as error:
            yield Check(verdict="missing", subject=dataset, found=str(error))


def _conversations(settings: Profile) -> Iterator[Check]:
    """The file of stage 1, where the profile names one."""
    if not settings.data.sft_file:
        return
    try:
        rows = read_sft_file(Path(settings.data.sft_file))
        yield Check(verdict="ok", subject="SFT file", found=f"{settings.data.sft_file}, {len(rows)} conversations")
    except UserError as error:
        yield Check(verdict="missing", subject="SFT file", found=str(error))


def _expected(cost: Cost | None, calculated: bool) -> str:
    if calculated:
        return f"Memory and time: {CALCULATED}; see above."
    if cost is None:
        return "Memory and time: not measured for a profile of your own."
    peak = f"{cost.peak_memory_gib:g} GiB at most" if cost.peak_memory_gib else "not measured"
    known = [seconds for seconds in cost.seconds.values() if seconds is not None]
    time = f"{sum(known) / 60:.0f} minutes" if known and len(known) == len(cost.seconds) else "not measured"
    where = f" (measured on {cost.measured_on})" if cost.measured_on else f" (needs: {cost.basis})"
    return f"Memory: {peak}. Time: {time}{where}."
