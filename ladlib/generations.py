"""The pairs that an arm is judged on, in which variants, and which of its records are kept. No torch.

    answers = Answers(profile, Path("data"), path, "base", 0, plan(profile, Path("data")), {"model": "toy-base"})
    for task in answers.pending:
        answers.append(task, prompt, completion, seconds)

``blind`` (the reference image in both places) and ``swapped`` (the images change places, the question stays) are
baselines; other reference images and other wordings are choices that the paper leaves open.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ladlib import prompts
from ladlib.checksums import sha256
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair, ranked, training_normals
from ladlib.errors import UserError, read_json
from ladlib.parsing import parse_answer
from ladlib.records import Completion, Factor, Generation, Pair, Seen, Variation
from ladlib.runs import DAMAGED, append_json, read_jsonl, write_text

REFERENCES = 3  # other reference images of a test image, for the variant "reference"
WORDINGS = ("short", "compare")  # of prompts.WORDINGS, for the variant "wording"
VARIANTS = ("blind", "swapped", "reference", "wording")


class Variant(NamedTuple):
    """How a pair is judged."""

    factor: Factor = "none"  # what is changed
    level: str = ""  # to what
    shown: tuple[Seen, Seen] = ("reference", "test")
    question: str = prompts.QUESTION
    reference: int = 0  # rank of the reference image; 0 is evaluation's


class Task(NamedTuple):
    """A pair to be judged."""

    pair: Pair
    variant: Variant = Variant()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.pair.id, self.variant.factor, self.variant.level


def plan(profile: Profile, data_root: Path | str, variant: str = "", limit: int | None = None) -> list[Task]:
    """The pairs to be judged, and how. A category with few training images lowers the other references for all."""
    samples = read_dataset(data_root, "mvtec_loco")
    pairs, normals = pair(samples, profile.data.reference_seed), training_normals(samples)
    if not variant:
        return [Task(one) for one in subsample(pairs, profile.evaluate.limit if limit is None else limit)]
    chosen = balanced_subsample(pairs, profile.evaluate.variants)
    rankings = [
        ranked(
            one.test.image, normals[one.test.dataset, one.test.category], profile.data.reference_seed, 1 + REFERENCES
        )
        for one in chosen
    ]
    return [
        Task(Pair(test=one.test, reference=ranking[how.reference]), how)
        for how in variants(variant, min(map(len, rankings), default=1) - 1)
        for one, ranking in zip(chosen, rankings, strict=True)
    ]


def variants(name: str = "all", references: int = REFERENCES) -> list[Variant]:
    """Evaluation's own, then those with the factor ``name``. Raises :class:`UserError` for an unknown one."""
    if name not in ("all", *VARIANTS):
        raise UserError(f"There is no variant {name!r}.", f"Use one of all, {', '.join(VARIANTS)}.")
    every = [
        Variant("blind", shown=("reference", "reference")),
        Variant("swapped", shown=("test", "reference")),
        *(Variant("reference", str(1 + rank), reference=rank) for rank in range(1, 1 + references)),
        *(Variant("wording", wording, question=prompts.WORDINGS[wording]) for wording in WORDINGS),
    ]
    return [Variant(), *(variant for variant in every if name in ("all", variant.factor))]


def subsample(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most ``limit`` pairs of each category and kind of anomaly, always the same ones; all where 0.

    Chosen by the hash of the test image's id, since the first files of a folder often share a defect.
    """
    chosen = {one.id for rank, one in _ranked(pairs) if rank <= limit}
    return [one for one in pairs if one.id in chosen or not limit]


def balanced_subsample(pairs: Sequence[Pair], size: int) -> list[Pair]:
    """At most ``size`` good and logical ``pairs``: each category and kind gives one in turn, always the same."""
    ranks = _ranked([one for one in pairs if one.test.anomaly != "structural"])
    return [one for _, one in sorted(ranks, key=lambda turn: (turn[0], turn[1].test.category, turn[1].test.anomaly))][
        :size
    ]


def _ranked(pairs: Sequence[Pair]) -> Iterator[tuple[int, Pair]]:
    """Each pair with its rank, from 1, in its category and kind, by the hash of its id."""
    counts = Counter()
    for one in sorted(pairs, key=lambda one: hashlib.sha256(one.id.encode()).digest()):
        counts[one.test.category, one.test.anomaly] += 1
        yield counts[one.test.category, one.test.anomaly], one


def file_hashes(one: Pair, folder: Path) -> tuple[str, str]:
    """SHA-256 of the files of reference and test image."""
    return sha256(folder / one.reference), sha256(folder / one.test.image)


def matches(row: Mapping, one: Pair, folder: Path) -> bool:
    """Whether the record ``row`` is of the pair ``one``: same reference image, same label, same bytes."""
    same = (row["reference"], row["label"]) == (one.reference, one.test.label)
    return same and tuple(row["images_sha256"]) == file_hashes(one, folder)


class Answers:
    """The records of one arm and seed on ``tasks``; ``path`` is left with those that were made with ``inputs``.

    Records of another model, prompt or image are removed, and so is a line cut off while being written. Raises
    :class:`UserError` for what is no record, and rather than throw away answers of an endpoint, which cost money.
    """

    def __init__(
        self, profile: Profile, data_root: Path | str, path: Path, arm: str, seed: int, tasks: Sequence[Task],
        inputs: dict,
    ) -> None:  # fmt: skip
        self.profile, self.path, self.arm, self.seed, self.tasks = profile, path, arm, seed, tasks
        self.folder = find_dataset(data_root, "mvtec_loco")
        done = self._resume(inputs) & {task.key for task in tasks}
        if done:
            print(f"{arm}: {len(done)} of {len(tasks)} pairs were judged before")
        self.pending = [task for task in tasks if task.key not in done]

    def _resume(self, inputs: dict) -> set[tuple[str, str, str]]:
        """The keys of the records that are kept."""
        note, pairs = self.path.with_suffix(".inputs.json"), {task.key: task.pair for task in self.tasks}
        made = read_json(note, DAMAGED) if note.exists() else {}
        kept, bought = {}, []
        for number, row in enumerate(read_jsonl(self.path), 1):
            if missing := [name for name in ("id", "reference", "label", "images_sha256") if name not in row]:
                raise UserError(f"{self.path}, record {number} has no {missing[0]}.", DAMAGED)  # may be somebody's
            key = row["id"], row.get("factor", "none"), row.get("level", "")
            if made == inputs and (key not in pairs or matches(row, pairs[key], self.folder)):
                kept[key] = row
            elif row.get("served") and "replay" not in made:  # what was replayed is still in its file
                bought.append(row["served"])
        if bought:
            raise UserError(
                f"{self.path} holds {len(bought)} answers of {bought[0]} with another model, setting or image.",
                "They are not thrown away: set the values back, or move the file elsewhere.",
            )
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept.values())
        if self.path.is_file() and self.path.read_bytes() != text.encode():
            write_text(self.path, text)
        if made != inputs:
            write_text(note, json.dumps(inputs, indent=2) + "\n")
        return set(kept)

    def images(self, task: Task) -> dict[Seen, Image.Image]:
        """Reference and test image as every model sees them; opened once, they lie ready."""
        paths, data = {"reference": task.pair.reference, "test": task.pair.test.image}, self.profile.data
        return {name: view(self.folder / path, data.min_pixels, data.max_pixels) for name, path in paths.items()}

    def record(self, task: Task, prompt: str, completion: Completion, seconds: float, served: str = "") -> Generation:
        """What is stored of an answer to ``task``, given to ``prompt``."""
        test, variant = task.pair.test, task.variant
        changed = {"factor": variant.factor, "level": variant.level, "shown": variant.shown}
        is_variation = self.path.parent.name == "sensitivity"
        return (Variation if is_variation else Generation)(
            **test.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}), label=test.label,
            arm=self.arm, seed=self.seed, reference=task.pair.reference, test=test.image,
            answer=parse_answer(completion.text), prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
            images_sha256=file_hashes(task.pair, self.folder),
            pixels=tuple(image.size for image in self.images(task).values()), seconds=seconds, served=served,
            **asdict(completion), **(changed if is_variation else {}),
        )  # fmt: skip

    def append(self, record: Generation) -> None:
        """Have ``record`` on disk before returning."""
        append_json(self.path, record.model_dump(mode="json"))
