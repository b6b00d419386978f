"""What this machine has, held against what a profile needs."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from ladlib.data import find_dataset
from ladlib.errors import UserError
from ladlib.runs import hardware
from ladlib.schema import Record
from ladlib.settings import Profile, load_profile

GIB = 2**30
SLACK = 0.9  # a machine sold with 24 GB shows somewhat less than 24 GiB


class Check(Record):
    """One line: ``missing`` keeps the profile from running, ``note`` does not."""

    verdict: Literal["ok", "note", "missing"]
    subject: str
    found: str


class Needs(Record):
    memory_gib: float
    gpu_gib: float
    disk_gib: float


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
    expected: str

    @property
    def can_run(self) -> bool:
        return all(check.verdict != "missing" for check in self.checks)

    @property
    def summary(self) -> str:
        answer = "can" if self.can_run else "cannot"
        return f"This machine {answer} run profile {self.profile!r}. {self.expected}"


def examine(profile: str, data: str = "") -> Diagnosis:
    """Hold this machine against ``profile`` with the datasets in ``data``; loads torch, no model."""
    settings = load_profile(profile)
    cost = load_cost(settings.name)
    needs = cost.needs if cost else Needs(memory_gib=0, gpu_gib=0, disk_gib=0)
    checks = (
        _python(), _torch(), *_machine(needs), *_gpu(needs.gpu_gib),
        *_weights(settings), *_datasets(settings, data),
    )  # fmt: skip
    return Diagnosis(profile=settings.name, checks=checks, expected=_expected(cost))


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


def _gpu(needed: float) -> Iterator[Check]:
    if find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        lacking = f"none that torch can use; one with {needed:g} GiB is needed" if needed else "none, and none needed"
        yield Check(verdict="missing" if needed else "ok", subject="GPU", found=lacking)
        return
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        check = _enough(f"GPU {number}", device.total_memory / GIB, needed)
        yield check.model_copy(update={"found": f"{device.name}, {check.found}"})


def _weights(settings: Profile) -> Iterator[Check]:
    base = settings.model.base
    if (resources.files("ladlib") / "assets" / base).is_dir():
        yield Check(verdict="ok", subject="base model", found=f"{base}, shipped with ladlib")
    elif Path(base).is_dir():
        yield Check(verdict="ok", subject="base model", found=f"the folder {base}")
    elif "/" not in base:
        yield Check(verdict="missing", subject="base model", found=f"{base} is not shipped with this installation")
    elif _cached(base, settings.model.revision):
        yield Check(verdict="ok", subject="base model", found=f"{base}, in the local cache")
    else:
        yield Check(
            verdict="note",
            subject="base model",
            found=f"{base} is not in the local cache; it is downloaded on first use",
        )


def _cached(model: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str)


def _datasets(settings: Profile, data: str) -> Iterator[Check]:
    if settings.data.toy is not None and not data:
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


def _expected(cost: Cost | None) -> str:
    if cost is None:
        return "Memory and time: not measured for a profile of your own."
    peak = f"{cost.peak_memory_gib:g} GiB at most" if cost.peak_memory_gib else "not measured"
    known = [seconds for seconds in cost.seconds.values() if seconds is not None]
    time = f"{sum(known) / 60:.0f} minutes" if known and len(known) == len(cost.seconds) else "not measured"
    where = f" (measured on {cost.measured_on})" if cost.measured_on else f" (needs: {cost.basis})"
    return f"Memory: {peak}. Time: {time}{where}."
