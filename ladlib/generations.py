"""The pairs that an arm is judged on, in which variants, and which of its records are kept. No torch.

    answers = Answers(profile, Path("data"), path, "base", 0, plan(profile, Path("data")), {"model": "toy-base"})
    for task in answers.pending:
        answers.append(answers.record(task, prompt, completion, seconds))

``blind`` (the reference image in both places) and ``swapped`` (the images change places, the question stays) are
baselines; other reference images and other wordings are choices that the paper leaves open.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ladlib import checksums, prompts
from ladlib.checksums import sha256
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair, ranked, training_normals
from ladlib.errors import UserError, read_json
from ladlib.parsing import parse_answer
from ladlib.records import Completion, Factor, Generation, Pair, Seen, Variation
from ladlib.runs import DAMAGED, RunFolder, append_json, read_jsonl, write_text


class Variant(NamedTuple):
    """How a pair is judged."""

    factor: Factor = "none"  # what is changed
    level: str = ""  # to what
    shown: tuple[Seen, Seen] = ("reference", "test")
    question: str = prompts.QUESTION
    reference: int = 0  # rank of the reference image; 0 is evaluation's


VARIANTS = (
    Variant("blind", shown=("reference", "reference")),
    Variant("swapped", shown=("test", "reference")),
    *(Variant("reference", str(1 + rank), reference=rank) for rank in (1, 2, 3)),
    *(Variant("wording", name, question=prompts.WORDINGS[name]) for name in ("short", "compare")),
)
FACTORS = tuple(dict.fromkeys(variant.factor for variant in VARIANTS))


class Task(NamedTuple):
    """A pair to be judged."""

    pair: Pair
    variant: Variant = Variant()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.pair.id, self.variant.factor, self.variant.level


def plan(profile: Profile, data_root: Path | str, factor: str = "", limit: int | None = None) -> list[Task]:
    """The pairs to be judged as in evaluation, or (of :data:`FACTORS`, or "all") also with that ``factor`` changed.

    Raises :class:`UserError` for an unknown factor.
    """
    samples = read_dataset(data_root, "mvtec_loco")
    pairs, seed = pair(samples, profile.data.reference_seed), profile.data.reference_seed
    if not factor:
        return [Task(one) for one in subsample(pairs, profile.evaluate.limit if limit is None else limit)]
    if factor not in ("all", *FACTORS):
        raise UserError(f"There is no variant {factor!r}.", f"Use one of all, {', '.join(FACTORS)}.")
    chosen, normals = balanced_subsample(pairs, profile.evaluate.variants), training_normals(samples)
    tasks = [Task(one) for one in chosen]
    for variant in (variant for variant in VARIANTS if factor in ("all", variant.factor)):
        for test in (one.test for one in chosen):
            nearest = ranked(test.image, normals[test.dataset, test.category], seed, 1 + variant.reference)
            if variant.reference < len(nearest):  # a category may have few training images
                tasks.append(Task(Pair(test=test, reference=nearest[variant.reference]), variant))
    return tasks


def subsample(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most ``limit`` pairs of each category and kind of anomaly, always the same ones; all where 0.

    Chosen by the hash of the test image's id, since the first files of a folder often share a defect.
    """
    ranks = _ranks(pairs)
    return [one for one in pairs if ranks[one.id] <= limit or not limit]


def balanced_subsample(pairs: Sequence[Pair], size: int) -> list[Pair]:
    """At most ``size`` good and logical ``pairs``: each category and kind gives one in turn, always the same."""
    ranks = _ranks(pairs)
    judged = [one for one in pairs if one.test.anomaly != "structural"]
    return sorted(judged, key=lambda one: (ranks[one.id], one.test.category, one.test.anomaly))[:size]


def _ranks(pairs: Sequence[Pair]) -> dict[str, int]:
    """The rank of each pair by its id, from 1, in its category and kind, by the hash of its id."""
    counts, ranks = Counter(), {}
    for one in sorted(pairs, key=lambda one: hashlib.sha256(one.id.encode()).digest()):
        counts[one.test.category, one.test.anomaly] += 1
        ranks[one.id] = counts[one.test.category, one.test.anomaly]
    return ranks


def matches(row: Mapping, one: Pair, folder: Path) -> bool:
    """Whether the record ``row`` is of the pair ``one``: same reference image, same label, same bytes."""
    same = (row["reference"], row["label"]) == (one.reference, one.test.label)
    return same and tuple(row["images_sha256"]) == _file_hashes(one, folder)


def _file_hashes(one: Pair, folder: Path) -> tuple[str, str]:
    return sha256(folder / one.reference), sha256(folder / one.test.image)


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
        self.folder, self.run = find_dataset(data_root, "mvtec_loco"), RunFolder(path.parents[1])
        done = self._resume(inputs)
        self.pending = [task for task in tasks if task.key not in done]
        if self.pending:
            checksums.forget(self.run, path)  # in the making
        if count := len(tasks) - len(self.pending):
            print(f"{arm}: {count} of {len(tasks)} pairs were judged before")

    def _resume(self, inputs: dict) -> set[tuple[str, str, str]]:
        """The keys of the records that are kept."""
        note, pairs = checksums.note_of(self.path), {task.key: task.pair for task in self.tasks}
        made = read_json(note, DAMAGED) if note.exists() else {}
        kept, bought, changed = {}, [], checksums.verify(self.run, self.path)
        for number, row in enumerate(read_jsonl(self.path), 1):
            if missing := [name for name in ("id", "reference", "label", "images_sha256") if name not in row]:
                raise UserError(f"{self.path}, record {number} has no {missing[0]}.", DAMAGED)  # may be somebody's
            key = row["id"], row.get("factor", "none"), row.get("level", "")
            if made == inputs and not changed and (key not in pairs or matches(row, pairs[key], self.folder)):
                kept[key] = row
            elif row.get("served") and "replay" not in made:  # what was replayed is still in its file
                bought.append(row["served"])
        if bought and changed:
            hint = f"Its answers of {bought[0]} are not thrown away: restore it, or move it elsewhere."
            raise UserError(f"{self.run.root}: {changed[0]}.", hint)
        if bought:
            what = f"{self.path} holds {len(bought)} answers of {bought[0]} with another model, setting or image."
            raise UserError(what, "They are not thrown away: set the values back, or move the file elsewhere.")
        if changed:
            print(f"{changed[0]}: all pairs are judged again")
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
        fields = test.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}) | asdict(completion)
        record_class = Generation
        if self.path.parent.name == "sensitivity":
            record_class = Variation
            fields |= {"factor": variant.factor, "level": variant.level, "shown": variant.shown}
        return record_class(
            **fields, label=test.label, arm=self.arm, seed=self.seed, reference=task.pair.reference, test=test.image,
            answer=parse_answer(completion.text), prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
            images_sha256=_file_hashes(task.pair, self.folder),
            pixels=tuple(image.size for image in self.images(task).values()), seconds=seconds, served=served,
        )  # fmt: skip

    def append(self, record: Generation) -> None:
        """Have ``record`` on disk before returning."""
        append_json(self.path, record.model_dump(mode="json"))
