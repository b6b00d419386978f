"""The records of one arm: the pairs that are judged, those that have a record already, one record for each answer.

    answers = Answers.open(profile, data_root, path, "base", 0, plan(profile, data_root), inputs={"model": "toy-base"})
    for task in answers.pending:
        answers.append(answers.record(task, sizes, prompt, completion, seconds))

Whoever answers, a model on this machine, a server or a file, these are the same. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ladlib import prompts
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import sha256, view
from ladlib.data.pairing import pair, ranked, training_normals
from ladlib.errors import UserError, read_json
from ladlib.parsing import parse_answer
from ladlib.records import Completion, Factor, Generation, Pair, Seen, Variation
from ladlib.runs import DAMAGED, append_json, read_jsonl, write_text

REFERENCES = 3  # other reference images of a test image, for the variant "reference"
Images = Mapping[Seen, Image.Image]  # reference and test image of a pair
WORDINGS = ("short", "compare")  # of prompts.WORDINGS, for the variant "wording"


class Variant(NamedTuple):
    """How a pair is judged."""

    factor: Factor = "none"  # what is changed
    level: str = ""  # to what
    images: tuple[Seen, Seen] = ("reference", "test")
    question: str = prompts.QUESTION
    reference: int = 0  # index in the ranking of reference images; 0 is evaluation's


class Task(NamedTuple):
    """A pair to be judged."""

    pair: Pair
    variant: Variant = Variant()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.pair.id, self.variant.factor, self.variant.level


@dataclass(frozen=True)
class Answers:
    """The records of one arm and seed: those that are wanted, those that are pending, and where they go."""

    profile: Profile
    arm: str
    seed: int
    path: Path
    folder: Path  # of the dataset: what the paths of pairs are relative to
    tasks: tuple[Task, ...]
    pending: tuple[Task, ...]  # those that had no record when the file was opened

    @classmethod
    def open(
        cls, profile: Profile, data_root: Path | str, path: Path, arm: str, seed: int, tasks: Sequence[Task],
        inputs: dict,
    ) -> "Answers":  # fmt: skip
        """What of ``tasks`` is pending; the file is left with the records that were made with ``inputs``."""
        folder, known = find_dataset(data_root, "mvtec_loco"), {task.key: task.pair for task in tasks}
        rows = resume(path, inputs, lambda row: _key(row) not in known or matches(row, known[_key(row)], folder))
        done = {_key(row) for row in rows} & set(known)
        if done:
            print(f"{arm}: {len(done)} of {len(known)} pairs were judged before")
        pending = tuple(task for task in tasks if task.key not in done)
        return cls(profile, arm, seed, path, folder, tuple(tasks), pending)

    def images(self, tasks: Sequence[Task]) -> list[Images]:
        """Reference and test image of each as every model sees them; opened once, they lie ready."""
        data = self.profile.data
        files = [{"reference": task.pair.reference, "test": task.pair.test.image} for task in tasks]
        return [
            {name: view(self.folder / path, data.min_pixels, data.max_pixels) for name, path in paths.items()}
            for paths in files
        ]

    def record(
        self, task: Task, images: Images, prompt: str, completion: Completion, seconds: float, served: str = ""
    ) -> Generation:
        """What is stored of an answer to ``task``, given to ``prompt``."""
        test, variant = task.pair.test, task.variant
        changed = {"factor": variant.factor, "level": variant.level, "shown": variant.images}
        is_variation = self.path.parent.name == "sensitivity"
        return (Variation if is_variation else Generation)(
            **test.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}), label=test.label,
            arm=self.arm, seed=self.seed, reference=task.pair.reference, test=test.image,
            answer=parse_answer(completion.text), prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
            images_sha256=file_hashes(task.pair, self.folder), pixels=tuple(one.size for one in images.values()),
            seconds=seconds, served=served, **asdict(completion), **(changed if is_variation else {}),
        )  # fmt: skip

    def append(self, record: Generation) -> None:
        """Have ``record`` on disk before returning."""
        append_json(self.path, record.model_dump(mode="json"))


# Which pairs


def plan(profile: Profile, data_root: Path | str, variant: str = "", limit: int | None = None) -> list[Task]:
    """The pairs to be judged, and how. A category with few training images lowers the other references for all."""
    samples, seed = read_dataset(data_root, "mvtec_loco"), profile.data.reference_seed
    pairs = pair(samples, seed)
    if not variant:
        return [Task(one) for one in subsample(pairs, profile.evaluate.limit if limit is None else limit)]
    normals, chosen = training_normals(samples), balanced_subsample(pairs, profile.evaluate.variants)
    rankings = [
        ranked(one.test.image, normals[one.test.dataset, one.test.category], seed, 1 + REFERENCES) for one in chosen
    ]
    return [
        Task(Pair(test=one.test, reference=ranking[how.reference]), how)
        for how in variants(variant, min(map(len, rankings), default=1) - 1)
        for one, ranking in zip(chosen, rankings, strict=True)
    ]


def variants(name: str = "all", references: int = REFERENCES) -> list[Variant]:
    """Evaluation's own, then those with the factor ``name``. Raises :class:`UserError` for an unknown one."""
    every = [
        Variant("blind", images=("reference", "reference")),
        Variant("swapped", images=("test", "reference")),
        *(Variant("reference", str(1 + index), reference=index) for index in range(1, 1 + references)),
        *(Variant("wording", wording, question=prompts.WORDINGS[wording]) for wording in WORDINGS),
    ]
    names = dict.fromkeys(["all", "blind", "swapped", "reference", "wording"])
    if name not in names:
        raise UserError(f"There is no variant {name!r}.", f"Use one of {', '.join(names)}.")
    return [Variant(), *(variant for variant in every if name in ("all", variant.factor))]


def subsample(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most ``limit`` pairs of each category and kind of anomaly, always the same ones; all where 0.

    Chosen by the hash of the test image's id, since the first files of a folder often share a defect.
    """
    chosen = {one.id for rank, one in _ranked_in_strata(pairs) if rank < limit}
    return [one for one in pairs if one.id in chosen or not limit]


def balanced_subsample(pairs: Sequence[Pair], size: int) -> list[Pair]:
    """At most ``size`` good and logical ``pairs``: each category and kind gives one in turn, always the same."""
    turns = _ranked_in_strata([one for one in pairs if one.test.anomaly != "structural"])
    ordered = sorted(turns, key=lambda turn: (turn[0], turn[1].test.category, turn[1].test.anomaly))
    return [one for _, one in ordered[:size]]


def _ranked_in_strata(pairs: Sequence[Pair]) -> Iterator[tuple[int, Pair]]:
    """Each pair with its rank in its category and kind, by the hash of its id."""
    counts: dict[tuple[str, str], int] = {}
    for one in sorted(pairs, key=lambda one: hashlib.sha256(one.id.encode()).digest()):
        stratum = one.test.category, one.test.anomaly
        counts[stratum] = counts.get(stratum, -1) + 1
        yield counts[stratum], one


# Which records are kept


def file_hashes(one: Pair, folder: Path) -> tuple[str, str]:
    """SHA-256 of the files of reference and test image."""
    return sha256(folder / one.reference), sha256(folder / one.test.image)


def matches(row: Mapping, one: Pair, folder: Path) -> bool:
    """Whether the record ``row`` is of the pair ``one``: same reference image, same label, same bytes."""
    same = (row["reference"], row["label"]) == (one.reference, one.test.label)
    return same and tuple(row["images_sha256"]) == file_hashes(one, folder)


def _key(row: Mapping) -> tuple[str, str, str]:
    return row["id"], row.get("factor", "none"), row.get("level", "")


def resume(path: Path, inputs: dict, still_matches: Callable[[dict], bool]) -> list[dict]:
    """The records in ``path`` that were made with ``inputs`` and still match; ``path`` is left with these.

    Records of another model, prompt or image are removed, and so is a line cut off while being written. Raises
    :class:`UserError` for what is no record, and rather than throw away answers of an endpoint.
    """
    note = path.with_suffix(".inputs.json")
    made = read_json(note, DAMAGED) if note.exists() else {}
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        if missing := [name for name in ("id", "reference", "label", "images_sha256") if name not in row]:
            raise UserError(f"{path}, record {number} has no {missing[0]}.", DAMAGED)  # the file may be somebody's
    fits = [made == inputs and still_matches(row) for row in rows]
    bought = [row for row, fit in zip(rows, fits, strict=True) if not fit and row.get("served")]
    if bought and "replay" not in made:  # those replayed are still in the file that they came from
        raise UserError(
            f"{path} holds {len(bought)} answers of {bought[0]['served']} with another model, setting or image.",
            "They are not thrown away: set the values back, or move the file elsewhere.",
        )
    kept = [row for row, fit in zip(rows, fits, strict=True) if fit]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    if path.is_file() and path.read_bytes() != text.encode():
        write_text(path, text)
    if made != inputs:
        write_text(note, json.dumps(inputs, indent=2) + "\n")
    return kept
