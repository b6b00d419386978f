"""What the page's explorer shows: every test pair with the answers of all arms, its pictures and its mask.

    explore(run, stored, data, room=8_000_000)    # a dict that is written into the page as JSON

Pictures come from ``data`` and are taken only where their SHA-256 is that of the file which was judged. Beside
drawn images lie their scenes: then every statement of a rationale is marked true or false.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps

from ladlib.data import find_dataset, read_dataset
from ladlib.errors import UserError
from ladlib.metrics import is_right
from ladlib.parsing import parse
from ladlib.records import Generation
from ladlib.report.embedded import Source, embed
from ladlib.report.stored import Key, Stored
from ladlib.report.style import strip_control
from ladlib.report.tables import NAMES
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy.statements import judged
from ladlib.toy.truth import Truth, read_scenes

LONGEST = 100_000  # characters of a completion; what is longer is cut, and says so
MARKS = {True: "t", False: "f", None: "u"}
Answers = list[Generation]  # of all arms about the same two images


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset's images; nothing of one that is not at hand."""

    folder: Path | None = None
    masks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scenes: dict[str, Truth] = field(default_factory=dict)


def explore(run: RunFolder, stored: Stored, data: Path, room: int) -> dict:
    """Arms, texts, pictures and pairs; as JSON at most ``room`` characters long, half of them for the words.

    Where that is too little, pairs are left out evenly, and then pictures; the counts tell of how many.
    """
    pairs = _pairs(stored.generations)
    datasets = {name: known_dataset(data, name) for name in sorted({one.dataset for one in stored.generations})}
    sources = [judged_files(answers[0], datasets[answers[0].dataset]) for answers in pairs]
    words = _Words(run, stored, datasets)
    step, told = 1, words.of(pairs, sources)
    while _length(told) > room / 2 and step < len(pairs):
        step *= 2
        told = words.of(pairs[::step], sources[::step])
    shown = sources[::step]
    embedded = embed([one for three in shown for one in three if one], room - _length(told))
    return told | _pictures(shown, embedded) | {"total": len(pairs)}


def _length(told: dict) -> int:
    return len(htmlsafe_json_dumps(told))


def _pairs(generations: Sequence[Generation]) -> list[Answers]:
    pairs: dict[tuple[str, str, str], Answers] = {}
    for one in generations:
        pairs.setdefault((one.dataset, one.id, one.reference), []).append(one)
    return list(pairs.values())


def known_dataset(data: Path, name: str) -> Dataset:
    """What is known of the dataset ``name`` below ``data``."""
    try:
        folder, samples = find_dataset(data, name), read_dataset(data, name)
    except UserError:
        return Dataset()
    try:
        scenes = read_scenes(folder)
    except UserError:
        scenes = {}
    return Dataset(folder, {one.image: one.masks for one in samples}, scenes)


def judged_files(one: Generation, dataset: Dataset) -> tuple[Source | None, Source | None, Source | None]:
    """Reference, test image and mask, as far as they are the files that were judged."""
    if dataset.folder is None:
        return None, None, None
    kept = [
        Source((dataset.folder / path,)) if _sha256(dataset.folder / path) == expected else None
        for path, expected in zip((one.reference, one.test), one.images_sha256, strict=True)
    ]
    masks = tuple(dataset.folder / path for path in dataset.masks.get(one.test, ()))
    return kept[0], kept[1], Source(masks, is_mask=True) if masks and kept[1] else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


def _pictures(sources: Sequence[tuple[Source | None, ...]], embedded: dict[Source, str]) -> dict:
    places = {source: place for place, source in enumerate(embedded)}
    rows = [[places.get(one) if one else None for one in three] for three in sources]
    whole = sum(row[0] is not None and row[1] is not None for row in rows)
    return {"pictures": list(embedded.values()), "places": rows, "pictured": whole}


class _Words:
    """The explorer's words of any choice of pairs; equal completions are kept once."""

    def __init__(self, run: RunFolder, stored: Stored, datasets: dict[str, Dataset]) -> None:
        self.datasets = datasets
        self.keys: dict[Key, int] = {}
        for one in stored.generations:
            self.keys.setdefault((one.arm, one.seed), len(self.keys))
        self.checked = {key: {row.get("id"): row for row in read_jsonl(run.rationales(*key))} for key in self.keys}

    def of(self, pairs: Sequence[Answers], sources: Sequence[tuple[Source | None, ...]]) -> dict:
        texts: dict[str, int] = {}
        rows = [
            self._pair(answers, texts, known=bool(three[0] and three[1]))
            for answers, three in zip(pairs, sources, strict=True)
        ]
        arms = [f"{NAMES.get(arm, arm)}, seed {seed}" for arm, seed in self.keys]
        return {"arms": arms, "texts": list(texts), "pairs": rows, "marked": any(map(_is_marked, rows))}

    def _pair(self, answers: Answers, texts: dict[str, int], known: bool) -> dict:
        first = answers[0]
        return {
            "id": first.id,
            "category": first.category,
            "kind": first.anomaly,
            "defect": first.defect,
            "answers": {self.keys[one.arm, one.seed]: self._answer(one, texts, known) for one in answers},
        }

    def _answer(self, one: Generation, texts: dict[str, int], known: bool) -> list:
        """Place of its text, answer, P(anomalous), whether right, a mark a sentence, statements true, statements."""
        reading, text = parse(one.text), strip_control(one.text[:LONGEST])
        if len(one.text) > LONGEST:
            text += f"… (cut here: {len(one.text):,} characters)"
        checked = self.checked[one.arm, one.seed].get(one.id, {})
        return [
            texts.setdefault(text, len(texts)),
            reading.answer,
            None if one.p_yes is None else round(one.p_yes, 4),
            is_right(one),
            self._marks(one, reading.think) if known else "",
            checked.get("true"),
            checked.get("statements"),
        ]

    def _marks(self, one: Generation, think: str | None) -> str:
        scenes = self.datasets[one.dataset].scenes
        if not think or one.reference not in scenes or one.test not in scenes:
            return ""
        return "".join(MARKS[mark] for mark in judged(think, scenes[one.reference].scene, scenes[one.test].scene))


def _is_marked(pair: dict) -> bool:
    return any(answer[4] for answer in pair["answers"].values())
