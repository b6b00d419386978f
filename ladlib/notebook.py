"""How every notebook begins: a profile with overrides, a run folder, and the data.

    session = start(profile="toy", data="", run="", seed=0, overrides={"sft.steps": -1})
    session.profile, session.run, session.data, session.seed

A notebook may be run from the repository's root or from ``notebooks/``, so relative paths are read from
the root: the nearest folder above the current one whose ``pyproject.toml`` is ladlib's, else the current one.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import get_args

from ladlib.config import Profile, load_profile
from ladlib.data import read_dataset
from ladlib.errors import UserError
from ladlib.records import Dataset, RunRecord, Sample
from ladlib.report.tables import departures
from ladlib.runs import RunFolder
from ladlib.seals import seal
from ladlib.toy.datasets import write_datasets

UNSET = (-1, "")  # an override of -1, -1.0 or "" leaves the profile's value
RUNS = "results/runs"


@dataclass(frozen=True)
class Session:
    """What a notebook works with. In a notebook it shows itself as a table of settings and versions."""

    profile: Profile  # overrides applied
    run: RunFolder
    data: Path  # the folder that holds the datasets
    seed: int
    record: RunRecord = field(repr=False)  # of run.json, as it was when the notebook began
    changed: tuple[str, ...] = ()  # dotted names of the overridden values

    @property
    def is_toy(self) -> bool:
        """Whether the images were drawn by :mod:`ladlib.toy`: such numbers never say what a real model scores."""
        return self.data == self.run.data

    def rows(self) -> list[tuple[str, str]]:
        """(setting, value) for the table."""
        values = self.profile.model_dump()
        return [
            ("profile", f"{self.profile.name}: {self.profile.label}"),
            *((f"changed: {name}", str(_value(values, name))) for name in self.changed),
            ("seed", str(self.seed)),
            ("run folder", shown_path(self.run.root)),
            ("datasets", f"{shown_path(self.data)}{' (drawn)' if self.is_toy else ''}"),
            ("hardware", ", ".join(f"{name} {value}" for name, value in self.record.hardware.items())),
            ("versions", ", ".join(f"{name} {version}" for name, version in self.record.versions.items())),
        ]

    def sealed(self, *paths: Path) -> list[tuple[str, int, float]]:
        """Seal what a notebook made; (path, number of files, MiB) of those of ``paths`` that exist."""
        seal(self.run, *paths)
        rows = []
        for path in paths:
            files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
            if files:
                rows.append((shown_path(path), len(files), sum(file.stat().st_size for file in files) / 2**20))
        return rows

    def _repr_html_(self) -> str:
        cells = (
            f"<tr><th style='text-align:left;vertical-align:top'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table>{''.join(cells)}</table>"


def start(
    profile: str = "toy", data: str = "", run: str = "", seed: int = 0, overrides: Mapping[str, object] | None = None
) -> Session:
    """Load ``profile``, open the run folder and find the data; toy datasets are drawn into the run where needed.

    ``overrides`` maps dotted names to values; those of -1 or "" are left to the profile. ``run`` of ""
    means ``results/runs/<profile>``. With ``data`` of "" the profile's toy datasets are used. The values in
    force of all that ``overrides`` names are kept in ``run.json``.

    Raises :class:`UserError` for an unknown profile or override, a run folder of another profile or seed, a
    data folder that is not there, and a profile without toy datasets where ``data`` is "".
    """
    given = dict(overrides or {})
    changed = {name: value for name, value in given.items() if value not in UNSET}
    settings = load_profile(profile, **changed)
    if not data and settings.data.toy is None:
        raise UserError(f"Profile {profile!r} needs datasets.", "Give the folder that holds them as `data`.")
    if data and not from_root(data).is_dir():
        raise UserError(f"There is no folder {from_root(data)}.", "Give the folder that holds the datasets as `data`.")
    folder = RunFolder(from_root(run or f"{RUNS}/{settings.name}"))
    values = settings.model_dump()
    record = folder.open(settings.name, seed, data=data, **{name: _value(values, name) for name in given})
    record = record.model_copy(update={"departures": tuple(departures(settings).to_dict("records"))})
    folder.write(record)
    return Session(settings, folder, _data(settings, data, folder), seed, record, tuple(changed))


def read_present(root: Path | str) -> tuple[dict[Dataset, list[Sample]], dict[Dataset, str]]:
    """The samples of every dataset below ``root`` that can be read, and for the others the reason why not."""
    samples, absent = {}, {}
    for dataset in get_args(Dataset):
        try:
            samples[dataset] = read_dataset(root, dataset)
        except UserError as error:
            absent[dataset] = error.what
    return samples, absent


def from_root(path: str) -> Path:
    """``path`` as a notebook's parameter means it: relative to the root, "~" the home folder."""
    return find_root(Path.cwd()) / Path(path).expanduser()


def find_root(start: Path) -> Path:
    """The nearest folder at or above ``start`` with ladlib's ``pyproject.toml``; ``start`` where there is none."""
    for folder in (start, *start.parents):
        if _project(folder / "pyproject.toml") == "ladlib":
            return folder
    return start


def _project(file: Path) -> str:
    """The name in a ``pyproject.toml``; "" where there is none, or the file is another's and cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _data(profile: Profile, data: str, run: RunFolder) -> Path:
    if data:
        return from_root(data)
    write_datasets(run.data, profile.data.toy)
    return run.data


def _value(values: dict, dotted: str) -> object:
    for name in dotted.split("."):
        values = values[name]
    return values


def shown_path(path: Path) -> str:
    """``path`` as seen from the root, so that an executed notebook does not tell where a home folder lies."""
    root = find_root(Path.cwd())
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
