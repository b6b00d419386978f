"""How every notebook begins, and what it may ask of its run.

    session = start(profile="toy", overrides={"grpo.steps": -1})
    session.train("grpo")
    session.evaluate("sft_grpo")

Methods reach other modules through ``lad``, which imports them on first use: a notebook begins without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import yaml

import ladlib as lad
from ladlib.config import PROFILES, Profile, load_profile
from ladlib.errors import UserError
from ladlib.records import Completion, Conversation, Dataset, Generation, Pair, RunRecord, Sample, Variation
from ladlib.runs import RELEASED, RUNS, RunFolder, find, from_root, lock_kernel, read_jsonl, shown_path, write_text

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

    from ladlib.evaluate import Verdict
    from ladlib.results import RunResults

UNSET = (-1, "")  # an override of -1, -1.0 or "" leaves the profile's value


@dataclass(frozen=True)
class Session:
    """What a notebook works with. In a notebook it shows itself as a table of settings and versions."""

    profile: Profile  # overrides applied
    run: RunFolder
    data: Path  # the folder that holds the datasets
    seed: int
    record: RunRecord = field(repr=False)  # of run.json, as it was when the notebook began
    _outputs: list[Path] = field(default_factory=list, repr=False)  # what this notebook wrote
    _models: dict = field(default_factory=dict, repr=False)  # the last loaded model and its processor, by arm

    @property
    def is_toy(self) -> bool:
        """Whether the images are synthetic: such numbers never say what a real model scores."""
        return self.data == self.run.data

    def folder(self, dataset: Dataset = "mvtec_loco") -> Path:
        """The folder of a dataset, to which the paths in its records are relative."""
        return lad.data.find_dataset(self.data, dataset)

    def samples(self, dataset: Dataset = "mvtec_loco") -> list[Sample]:
        """All images of a dataset. Raises :class:`UserError` where it is missing or incomplete."""
        return lad.data.read_dataset(self.data, dataset)

    def datasets(self) -> tuple[dict[Dataset, list[Sample]], dict[Dataset, str]]:
        """(samples of every dataset that can be read, for the others the reason why not)."""
        samples, missing = {}, {}
        for dataset in get_args(Dataset):
            try:
                samples[dataset] = self.samples(dataset)
            except UserError as error:
                missing[dataset] = error.what
        return samples, missing

    def pairs(self, dataset: Dataset = "mvtec_loco") -> list[Pair]:
        """Every test image of a dataset with its reference image."""
        from ladlib.data.pairing import pair

        return pair(self.samples(dataset), self.profile.data.reference_seed)

    def training_pairs(self) -> list[Pair]:
        """The pairs of GRPO: half of them anomalous, none from MVTec LOCO AD."""
        return lad.sft_data.balanced_pairs(self.profile, self.data, self.seed)

    def conversations(self) -> list[Conversation]:
        """The questions and answers of SFT."""
        return lad.sft_data.make_conversations(self.profile, self.data, self.seed)

    def model_name(self, arm: str) -> str:
        """What ``arm`` is loaded from: a name of the profile, or the folder of this run's checkpoint."""
        base = str(self.record.parameters.get("model.base", self.profile.model.base))  # what notebook 02 started from
        names = {"base": base, "large": self.profile.model.large}
        return names.get(arm) or str(self.run.checkpoint(arm, self.seed))

    def load(self, arm: str) -> tuple:
        """(model, processor) of ``arm``; the last loaded one stays in memory."""
        if arm not in self._models:
            self._models.clear()
            self._models[arm] = lad.generate.load(self.profile, self.model_name(arm))
        return self._models[arm]

    def train(self, stage: str) -> Path:
        """Train stage "sft" or "grpo" and return the folder of its checkpoint; resumes where it was interrupted.

        Raises :class:`UserError` where a training image is one of the test set.
        """
        self._models.clear()
        arm, model = lad.launch.ARMS[stage], self.model_name("sft") if stage == "grpo" else ""
        folder = lad.launch.train(stage, self.profile, self.data, self.run, self.seed, model)
        self._outputs.append(folder)
        self._outputs.extend(file(arm, self.seed) for file in (self.run.log, self.run.rollouts, self.run.manifest))
        return folder

    def log(self, arm: str) -> list[dict]:
        """The training log of ``arm``, a row for each step."""
        return read_jsonl(self.run.log(arm, self.seed))

    def rollouts(self, arm: str) -> list[dict]:
        """The stored groups of completions that ``arm`` was trained on."""
        return read_jsonl(self.run.rollouts(arm, self.seed))

    def sample(self, arm: str, per_rule: int) -> list[dict]:
        """Several sampled answers of ``arm`` to ``per_rule`` toy training pairs of each rule type, a row per pair."""
        lad.study.sample(self.profile, self.run, arm, self.seed, self.model_name(arm), per_rule)
        path = self.run.samples(arm, self.seed)
        self._outputs.append(path)
        return read_jsonl(path)

    def evaluate(self, arm: str, variant: str = "", stored: str = "") -> "DataFrame":
        """The answers of ``arm`` to the test pairs, one row per pair; pairs answered before are not asked again.

        ``variant`` answers some of the pairs with one thing changed: "blind", "swapped", "reference", "wording" or
        "all". ``stored`` is a file of answers to the same pairs, taken over instead. "large" is answered by the
        profile's endpoint where there is one; on the toy profile the released answers are taken over.
        """
        source = {"stored": from_root(stored)} if stored else self._source(arm)
        limit = self.record.parameters.get("evaluate.limit", self.profile.evaluate.limit)
        where, path = (self.profile, self.data, self.run, self.seed), self.run.generations(arm, self.seed)
        try:
            path = lad.evaluate.evaluate(*where, arm=arm, variant=variant, limit=limit, **source) if source else path
        except UserError as error:
            if stored or "stored" not in source:
                raise
            print(f"No answers of the larger stand-in model: {error.what}")
        return self._table(path, list((Variation if variant else Generation).model_fields))

    def _source(self, arm: str) -> dict:
        """Who answers as ``arm``: a model, the endpoint, the released answers; nobody where a server has answered."""
        if arm == "large" and self.profile.endpoint.url:
            return {"endpoint": True}
        if arm != "large" or self.profile.model.large == self.profile.model.base:
            return {"model": self.model_name(arm)}
        released = find(RunFolder(RELEASED / "toy").generations(arm, 0)) if self.is_toy else None
        served = any(row["served"] for row in read_jsonl(self.run.generations(arm, self.seed)))
        return {"stored": released} if released and not served else {}

    def detect(self) -> "DataFrame":
        """What the nearest-neighbour detector says of every test image, one row per image."""
        return self._table(lad.neighbours.detect(self.profile, self.data, self.run))

    def check_rationales(self, *arms: str) -> None:
        """Check the rationales of ``arms`` against the scenes of the synthetic images; nothing on real images."""
        from ladlib.toy.truth import write_rationales

        for arm in arms if self.is_toy else ():
            self._outputs.append(write_rationales(self.run, arm, self.seed, self.folder()))

    def answer(self, pairs: "Sequence[Sequence[Image]]", arm: str = "sft_grpo") -> list[Completion]:
        """One greedy completion for each (reference image, test image), which are resized as everywhere."""
        data = self.profile.data
        resized = [[lad.data.images.fit(image, data.min_pixels, data.max_pixels) for image in pair] for pair in pairs]
        return lad.evaluate.answer(*self.load(arm), resized, self.profile)

    def inspect(self, reference: Path | str, test: Path | str, arm: str = "sft_grpo") -> "Verdict":
        """Answer, P(anomalous) and rationale for two image files of any size."""
        return lad.evaluate.inspect(from_root(reference), from_root(test), self.model_name(arm), self.profile)

    def results(self) -> "RunResults":
        """Everything that the run has stored, with its metrics."""
        return lad.load_run(self.run)

    def report(self) -> Path:
        """Write metrics, tables, figures and the report page from what the run has stored; the page."""
        page = lad.page.write_report(self.run, self.data, check=lad.verify.verify)
        self._outputs.extend([self.run.metrics_json, self.run.tables, self.run.figures, page])
        return page

    def written(self) -> "DataFrame":
        """What this notebook wrote, with its size; it enters the run's checksums."""
        from pandas import DataFrame

        paths = [path for path in dict.fromkeys(self._outputs) if path.exists()]
        lad.checksums.write(self.run, *paths)
        rows = []
        for path in paths:
            sizes = [file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()]
            rows.append({"path": shown_path(path), "files": len(sizes), "MiB": round(sum(sizes) / 2**20, 2)})
        return DataFrame(rows)

    def _table(self, path: Path | None, columns: list[str] | None = None) -> "DataFrame":
        from pandas import DataFrame

        if path:
            self._outputs.append(path)
        return DataFrame(read_jsonl(path) if path else [], columns=columns)

    def settings(self) -> dict[str, str]:
        """What the table shows."""
        return {
            "profile": f"{self.profile.name}: {self.profile.label}",
            **{name: str(value) for name, value in self.record.parameters.items() if name != "data"},
            "seed": str(self.seed),
            "run folder": shown_path(self.run.root),
            "datasets": f"{shown_path(self.data)}{' (synthetic)' if self.is_toy else ''}",
            "hardware": ", ".join(f"{name} {value}" for name, value in self.record.hardware.items()),
            "versions": ", ".join(f"{name} {version}" for name, version in self.record.versions.items()),
        }

    def _repr_html_(self) -> str:
        left = "style='text-align:left;vertical-align:top'"
        cells = ((escape(name), escape(text)) for name, text in self.settings().items())
        rows = (f"<tr><th {left}>{name}</th><td {left}>{text}</td></tr>" for name, text in cells)
        return f"<table>{''.join(rows)}</table>"


def start(
    profile: str = "toy", data: str = "", run: str = "", seed: int = 0, overrides: Mapping[str, object] | None = None
) -> Session:
    """The session of a notebook: ``profile`` with overrides, its run folder and its data.

    ``overrides`` maps dotted names to values; -1 and "" leave the profile's, and all are stored in ``run.json``.
    ``run`` of "" means ``results/runs/<profile>``; with ``data`` of "" the profile's synthetic datasets are written
    into the run. Relative paths are read from the repository's root (:func:`ladlib.runs.find_root`).

    Raises :class:`UserError` for an unknown profile or override, a run folder of another profile or seed, a
    data folder that does not exist, and a profile without synthetic datasets where ``data`` is "".
    """
    given = overrides or {}
    settings = load_profile(profile, **{name: value for name, value in given.items() if value not in UNSET})
    if not data and settings.toy is None:
        raise UserError(f"Profile {profile!r} needs datasets.", "Give the folder that holds them as `data`.")
    if data and not from_root(data).is_dir():
        raise UserError(f"There is no folder {from_root(data)}.", "Give the folder that holds the datasets as `data`.")
    folder = RunFolder(from_root(run or f"{RUNS}/{settings.name}"))
    lock_kernel(folder.root)
    in_force = {name: reduce(getattr, name.split("."), settings) for name in given}
    record = folder.open(settings.name, seed, data=data, **in_force)
    if settings.name not in PROFILES:
        write_text(folder.profile, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
    if data:
        return Session(settings, folder, from_root(data), seed, record, [folder.run_json])
    from ladlib.toy.datasets import write_datasets

    written = [folder.run_json] if folder.data.exists() else [folder.run_json, folder.data]
    write_datasets(folder.data, settings.toy)
    return Session(settings, folder, folder.data, seed, record, written)


def reopen(run: str) -> Session:
    """A session on a finished run, which it does not change. Raises :class:`UserError` where there is none."""
    folder = RunFolder(from_root(run))
    record = folder.read()
    data = record.parameters.get("data", "")
    return Session(
        lad.results.profile_of(folder, record), folder, from_root(data) if data else folder.data, record.seed, record
    )
