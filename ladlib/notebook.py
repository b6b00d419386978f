"""How every notebook begins, and what it may ask of its run.

    session = start(profile="toy", overrides={"grpo.steps": -1})
    session.train("grpo")
    session.evaluate("sft_grpo")

A notebook may be run from the repository's root or from ``notebooks/``, so relative paths are read from the root: the
nearest folder above the current one whose ``pyproject.toml`` is ladlib's, else the current one. Heavy imports are
inside the methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ladlib.config import Profile, load_profile
from ladlib.errors import UserError
from ladlib.records import Conversation, Dataset, Pair, RunRecord, Sample
from ladlib.runs import RUNS, RunFolder, from_root, lock_kernel, read_jsonl, shown_path

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from ladlib.evaluate import Verdict
    from ladlib.records import Completion
    from ladlib.results import RunResults

UNSET = (-1, "")  # an override of -1, -1.0 or "" leaves the profile's value
ALIGN = "text-align:left;vertical-align:top"


@dataclass(frozen=True)
class Session:
    """What a notebook works with. In a notebook it shows itself as a table of settings and versions."""

    profile: Profile  # overrides applied
    run: RunFolder
    data: Path  # the folder that holds the datasets
    seed: int
    record: RunRecord = field(repr=False)  # of run.json, as it was when the notebook began
    changed: tuple[str, ...] = ()  # dotted names of the overridden values
    _outputs: list[Path] = field(default_factory=list, repr=False)  # what this notebook wrote
    _models: dict = field(default_factory=dict, repr=False)  # the last loaded model and its processor, by arm

    @property
    def is_toy(self) -> bool:
        """Whether the images are synthetic: such numbers never say what a real model scores."""
        return self.data == self.run.data

    def folder(self, dataset: Dataset = "mvtec_loco") -> Path:
        """The folder of a dataset, to which the paths in its records are relative."""
        from ladlib.data import find_dataset

        return find_dataset(self.data, dataset)

    def samples(self, dataset: Dataset = "mvtec_loco") -> list[Sample]:
        """All images of a dataset. Raises :class:`UserError` where it is missing or incomplete."""
        from ladlib.data import read_dataset

        return read_dataset(self.data, dataset)

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
        from ladlib.sft_data import balanced_pairs

        return balanced_pairs(self.profile, self.data, self.seed)

    def conversations(self) -> list[Conversation]:
        """The questions and answers of SFT."""
        from ladlib.sft_data import make_conversations

        return make_conversations(self.profile, self.data, self.seed)

    def model_name(self, arm: str) -> str:
        """What ``arm`` is loaded from: a name of the profile, or the folder of this run's checkpoint."""
        names = {"base": self.profile.model.base, "large": self.profile.model.large}
        return names[arm] if arm in names else str(self.run.checkpoint(arm, self.seed))

    def load(self, arm: str) -> tuple:
        """(model, processor) of ``arm``; the last loaded one is kept in memory."""
        from ladlib import generate

        if arm not in self._models:
            self._models.clear()
            self._models[arm] = generate.load(self.profile, self.model_name(arm))
        return self._models[arm]

    def train(self, stage: str) -> Path:
        """Train stage "sft" or "grpo" and return the folder of its checkpoint; resumes where it was interrupted.

        Raises :class:`UserError` where a training image is one of the test set.
        """
        from ladlib import launch

        self._models.clear()
        arm, model = launch.ARMS[stage], self.model_name("sft") if stage == "grpo" else ""
        folder = launch.train(stage, self.profile, self.data, self.run, self.seed, model)
        files = self.run.log, self.run.rollouts, self.run.manifest
        self._outputs.extend([folder, *(file(arm, self.seed) for file in files)])
        return folder

    def log(self, arm: str) -> list[dict]:
        """The training log of ``arm``, a row for each step."""
        return read_jsonl(self.run.log(arm, self.seed))

    def rollouts(self, arm: str) -> list[dict]:
        """The stored groups of completions that ``arm`` was trained on."""
        return read_jsonl(self.run.rollouts(arm, self.seed))

    def evaluate(self, arm: str, stored: str = "") -> "pd.DataFrame":
        """The answers of ``arm`` to the test pairs, one row per pair; pairs answered before are not asked again.

        Who answers follows from the arm: "large" is the server of ``endpoint.url`` where the profile names one, else
        ``model.large``. With ``stored``, a file of answers to the same pairs is taken over instead.
        """
        import pandas as pd

        from ladlib import evaluate
        from ladlib.records import Generation

        where = self.profile, self.data, self.run, self.seed
        if stored:
            path = evaluate.evaluate(*where, arm=arm, stored=from_root(stored))
        elif arm == "large" and self.profile.endpoint.url:
            path = evaluate.evaluate(*where, arm=arm, endpoint=True)
        else:
            path = evaluate.evaluate(*where, arm=arm, model=self.model_name(arm))
        self._outputs.append(path)
        return pd.DataFrame(read_jsonl(path), columns=list(Generation.model_fields))

    def answer(self, pairs: "Sequence[Sequence[Image.Image]]", arm: str = "sft_grpo") -> "list[Completion]":
        """One greedy completion for each (reference image, test image), which are resized as everywhere."""
        from ladlib import generate
        from ladlib.data.images import fit

        model, processor = self.load(arm)
        data, settings, size = self.profile.data, self.profile.model, self.profile.evaluate.batch_size
        images = [[fit(image, data.min_pixels, data.max_pixels) for image in pair] for pair in pairs]
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        options = {"max_new_tokens": settings.max_new_tokens, "shared_prefix": settings.shared_prefix}
        return [one for batch in batches for one in generate.answer(model, processor, batch, **options)]

    def inspect(self, reference: Path | str, test: Path | str, arm: str = "sft_grpo") -> "Verdict":
        """Answer, P(anomalous) and rationale for two image files of any size."""
        from ladlib import evaluate

        return evaluate.inspect(from_root(reference), from_root(test), self.model_name(arm), self.profile)

    def results(self) -> "RunResults":
        """Everything that the run has stored, with its metrics."""
        from ladlib.results import load_run

        return load_run(self.run)

    def report(self) -> Path:
        """Write metrics, tables, figures and the report page from what the run has stored; the page."""
        from ladlib.report.page import write_report
        from ladlib.verify import verify

        page = write_report(self.run, self.data, check=verify)
        self._outputs.extend([self.run.metrics_json, self.run.tables, self.run.figures, page])
        return page

    def written(self, *others: Path) -> "pd.DataFrame":
        """What this notebook wrote, with its size; it enters the run's checksums."""
        import pandas as pd

        from ladlib import checksums

        paths = [path for path in dict.fromkeys([*self._outputs, *others]) if path.exists()]
        checksums.write(self.run, *paths)
        rows = []
        for path in paths:
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            rows.append((shown_path(path), len(files), round(sum(file.stat().st_size for file in files) / 2**20, 2)))
        return pd.DataFrame(rows, columns=["path", "files", "MiB"])

    def rows(self) -> list[tuple[str, str]]:
        """(setting, value) for the table."""
        hardware, versions = self.record.hardware.items(), self.record.versions.items()
        return [
            ("profile", f"{self.profile.name}: {self.profile.label}"),
            *((f"changed: {name}", str(_value(self.profile, name))) for name in self.changed),
            ("seed", str(self.seed)),
            ("run folder", shown_path(self.run.root)),
            ("datasets", f"{shown_path(self.data)}{' (synthetic)' if self.is_toy else ''}"),
            ("hardware", ", ".join(f"{name} {value}" for name, value in hardware)),
            ("versions", ", ".join(f"{name} {version}" for name, version in versions)),
        ]

    def _repr_html_(self) -> str:
        look = "text-align:left;vertical-align:top"
        cells = (
            f"<tr><th style='{look}'>{escape(n)}</th><td style='{look}'>{escape(v)}</td></tr>" for n, v in self.rows()
        )
        return f"<table>{''.join(cells)}</table>"


def start(
    profile: str = "toy", data: str = "", run: str = "", seed: int = 0, overrides: Mapping[str, object] | None = None
) -> Session:
    """The session of a notebook: ``profile`` with overrides, its run folder and its data.

    ``overrides`` maps dotted names to values; -1 and "" leave the profile's. ``run`` of "" means
    ``results/runs/<profile>``. With ``data`` of "" the profile's synthetic datasets are written into the run. The
    values of all that ``overrides`` names are stored in ``run.json``.

    Raises :class:`UserError` for an unknown profile or override, a run folder of another profile or seed, a
    data folder that does not exist, and a profile without synthetic datasets where ``data`` is "".
    """
    given = dict(overrides or {})
    changed = {name: value for name, value in given.items() if value not in UNSET}
    settings = load_profile(profile, **changed)
    if not data and settings.toy is None:
        raise UserError(f"Profile {profile!r} needs datasets.", "Give the folder that holds them as `data`.")
    if data and not from_root(data).is_dir():
        raise UserError(f"There is no folder {from_root(data)}.", "Give the folder that holds the datasets as `data`.")
    folder = RunFolder(from_root(run or f"{RUNS}/{settings.name}"))
    lock_kernel(folder.root)
    record = folder.open(settings.name, seed, data=data, **{name: _value(settings, name) for name in given})
    return Session(settings, folder, _data(settings, data, folder), seed, record, tuple(changed), [folder.run_json])


def _data(profile: Profile, data: str, run: RunFolder) -> Path:
    if data:
        return from_root(data)
    from ladlib.toy.datasets import write_datasets

    write_datasets(run.data, profile.toy)
    return run.data


def _value(profile: Profile, dotted: str) -> object:
    return reduce(getattr, dotted.split("."), profile)
