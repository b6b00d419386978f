"""The generations file of one arm: the pairs it is to hold, those it holds already, one record an answer.

    generations = Generations.open(profile, Path("data"), run, 0, arm="base", inputs={"model": "toy-base"})
    for one in generations.left:
        generations.keep(generations.record(one, generations.views(one), prompt, completion, seconds))

Whoever answers, a model on this machine (:mod:`ladlib.evaluate`) or one behind an address
(:mod:`ladlib.endpoint`), the pairs, their images, the records and the rules of going on are these.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from ladlib import prompts
from ladlib.config import Profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import sha256, view
from ladlib.data.pairing import pair
from ladlib.errors import UserError, read_json
from ladlib.parsing import parse_answer
from ladlib.records import Finish, Generation, Pair
from ladlib.runs import DAMAGED, RunFolder, append_json, read_jsonl, write_text


@dataclass(frozen=True)
class Completion:
    """What a model answered to one pair."""

    text: str
    finish: Finish
    p_yes: float | None  # None: whoever serves the model does not tell
    prompt_tokens: int
    completion_tokens: int  # the end of the turn included
    refused: bool = False


@dataclass(frozen=True)
class Generations:
    """The generations of one arm and seed on the test pairs of MVTec LOCO AD."""

    profile: Profile
    arm: str
    seed: int
    path: Path
    folder: Path  # of the dataset: what the paths of pairs are relative to
    pairs: tuple[Pair, ...]
    left: tuple[Pair, ...]  # those of ``pairs`` that had no record when the file was opened

    @classmethod
    def open(
        cls, profile: Profile, data_root: Path | str, run: RunFolder, seed: int, *, arm: str,
        inputs: Mapping[str, object], limit: int | None = None,
    ) -> "Generations":  # fmt: skip
        """Find the pairs below ``data_root`` and those that ``run`` has answers to, made with the same ``inputs``.

        ``limit`` test images per category and kind of anomaly (the profile's where None; 0 = all). Answers made
        with other inputs, or to other images, are removed; those of an endpoint cost money, so there this raises
        :class:`UserError`, as it does for data that are not there.
        """
        folder, path = find_dataset(data_root, "mvtec_loco"), run.generations(arm, seed)
        pairs = pair(read_dataset(data_root, "mvtec_loco"), profile.data.reference_seed)
        pairs = select(pairs, profile.evaluate.limit if limit is None else limit)
        known = {one.id: one for one in pairs}
        kept = resume(
            path,
            dict(inputs) | inputs_of(profile),
            lambda row: row["id"] not in known or holds(row, known[row["id"]], folder),
        )
        done = {row["id"] for row in kept} & set(known)
        if done:
            print(f"{arm}: {len(done)} of {len(pairs)} pairs were judged before")
        left = tuple(one for one in pairs if one.id not in done)
        return cls(profile, arm, seed, path, folder, tuple(pairs), left)

    def views(self, one: Pair) -> list[Image.Image]:
        """Reference and test image as every model sees them."""
        band = self.profile.data.min_pixels, self.profile.data.max_pixels
        return [view(self.folder / path, *band) for path in (one.reference, one.test.image)]

    def record(
        self, one: Pair, seen: Sequence[Image.Image], prompt: str, found: Completion, seconds: float, served: str = ""
    ) -> Generation:
        """What is kept of an answer to ``one``, given to ``prompt`` with the images ``seen``."""
        return Generation(
            **one.test.model_dump(include={"id", "dataset", "category", "anomaly", "defect"}), label=one.test.label,
            arm=self.arm, seed=self.seed, reference=one.reference, test=one.test.image,
            answer=parse_answer(found.text), prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
            images_sha256=image_hashes(one, self.folder), pixels=tuple(image.size for image in seen),
            seconds=seconds, served=served, **asdict(found),
        )  # fmt: skip

    def keep(self, record: Generation) -> None:
        """Append ``record`` and have it on disk before returning."""
        append_json(self.path, record.model_dump(mode="json"))


def select(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most ``limit`` pairs of each category and kind of anomaly, always the same ones; all where 0.

    Chosen by the hash of the test image's id, since the first files of a folder often share a defect.
    """
    if not limit:
        return list(pairs)
    ranked = sorted(pairs, key=lambda one: hashlib.sha256(one.id.encode()).digest())
    taken: dict[tuple[str, str], list[str]] = {}
    for one in ranked:
        ids = taken.setdefault((one.test.category, one.test.anomaly), [])
        if len(ids) < limit:
            ids.append(one.id)
    chosen = {identifier for ids in taken.values() for identifier in ids}
    return [one for one in pairs if one.id in chosen]


def image_hashes(one: Pair, folder: Path) -> tuple[str, str]:
    """SHA-256 of the files of reference and test image."""
    return sha256(folder / one.reference), sha256(folder / one.test.image)


def holds(row: Mapping, one: Pair, folder: Path) -> bool:
    """Whether the record ``row`` is of the pair ``one``: same reference image, same label, same bytes."""
    if (row["reference"], row["label"]) != (one.reference, one.test.label):
        return False
    return tuple(row["images_sha256"]) == image_hashes(one, folder)


def inputs_of(profile: Profile) -> dict:
    """What every answer depends on beside the model and the images."""
    values = {"question": prompts.QUESTION, "max_new_tokens": profile.evaluate.max_new_tokens}
    return values | profile.data.model_dump(include={"min_pixels", "max_pixels"})


def resume(path: Path, inputs: dict, still_holds: Callable[[dict], bool]) -> list[dict]:
    """The records in ``path`` that were made with ``inputs`` and still hold; ``path`` is left with these.

    Records of another model, prompt or image are removed, and so is a line cut off while being written.
    """
    note = path.with_suffix(".inputs.json")
    made = read_json(note, DAMAGED) if note.exists() else {}
    rows = read_jsonl(path)
    _refuse_foreign(rows, path)
    fits = [made == inputs and still_holds(row) for row in rows]
    kept = [row for row, fit in zip(rows, fits, strict=True) if fit]
    _refuse_to_lose([row for row, fit in zip(rows, fits, strict=True) if not fit], made, path)
    if path.is_file():
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    if made != inputs:
        write_text(note, json.dumps(inputs, indent=2) + "\n")
    return kept


def _refuse_foreign(rows: Sequence[Mapping], path: Path) -> None:
    """What is no record at all is not overwritten: the file may be somebody's."""
    for number, row in enumerate(rows, 1):
        if lacking := [name for name in ("id", "reference", "label", "images_sha256") if name not in row]:
            raise UserError(f"{path}, record {number} has no {lacking[0]}.", DAMAGED)


def _refuse_to_lose(rows: Sequence[Mapping], made: Mapping, path: Path) -> None:
    """Answers of an endpoint may have cost money; those replayed from a file are still in that file."""
    bought = [row for row in rows if row.get("served")]
    if bought and "replay" not in made:
        raise UserError(
            f"{path} holds {len(bought)} answers of {bought[0]['served']} with another model, setting or image.",
            "They are not thrown away: set the values back, or move the file elsewhere.",
        )
