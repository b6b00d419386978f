"""Lessons as padded batches, the same for a step whenever they are asked for.

What a toy base model can do: exact answers to held-out lessons, kind by kind.

One mean loss would hide it: a model may list parts perfectly and judge at chance.
"""

import math
import random
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from ladlib.models import PairProcessor
from ladlib.prompts import prompt_text
from ladlib.toy.parts import BLEMISHES
from ladlib.toy.pretrain_model import KINDS, Recipe
from ladlib.toy.scenes import Scene, crowded_scene, one_coloured_scene, photograph, place_of, random_scene
from ladlib.toy.tasks import LESSONS, Lesson, draw_lesson

DECISIVE = 5.0  # weight of the tokens that carry a judgement
SORTED = 4  # batches drawn together and sorted by length
LOOKED_AT = 2  # images of a batch without lessons, for each lesson that a batch has
PLACES = tuple(place_of(row, col) for row in range(8) for col in range(8))
SHOWN = (PLACES, ("none", *(text.strip() for text in KINDS.values())), ("none", *BLEMISHES), ("none", *PLACES))
"""What can be said of a cell: its place, the kind and blemish of the part in it, and where the last such part lay."""


class LessonBatches(Dataset):
    """Batch number ``step``, the same whenever it is asked for.

    Lessons are drawn for ``SORTED`` batches at once and sorted by length, so that little is padded.
    """

    def __init__(self, recipe: Recipe, processor: PairProcessor) -> None:
        self.recipe, self.processor = recipe, processor

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> "Batch":
        first = step - step % SORTED
        rng = random.Random(f"{self.recipe.seed}:{first}")
        phase = self.recipe.phase(step)
        if not phase.lessons:
            images = self.recipe.batch * LOOKED_AT
            return look(self.processor, images, phase.most, random.Random(f"{self.recipe.seed}:{step}"))
        kinds = rng.choices(list(phase.lessons), list(phase.lessons.values()), k=self.recipe.batch * SORTED)
        lessons = sorted((draw_lesson(kind, rng, phase.most) for kind in kinds), key=_length)
        turns = rng.sample(range(SORTED), SORTED)  # short and long batches in random order
        begin = turns[step - first] * self.recipe.batch
        return collate(self.processor, lessons[begin : begin + self.recipe.batch], random.Random(f"{step}"))


@dataclass(frozen=True)
class Batch:
    """Lessons as tensors: model inputs; labels and weights (batch, length); what each image token shows.

    ``shown`` is (image tokens of the batch in order, 4): indices into the words of :data:`SHOWN`. A batch of
    images alone, without lessons, has no labels.
    """

    inputs: dict[str, torch.Tensor]
    shown: torch.Tensor
    labels: torch.Tensor | None = None  # -100 outside the answers
    weights: torch.Tensor | None = None

    def to(self, device: str) -> "Batch":
        """The batch on ``device``."""
        inputs = {key: value.to(device) for key, value in self.inputs.items()}
        answers = [None if value is None else value.to(device) for value in (self.labels, self.weights)]
        return Batch(inputs, self.shown.to(device), *answers)


def _length(lesson: Lesson) -> int:
    cells = sum(scene.rows * scene.cols for scene in lesson.scenes)
    return cells + len(lesson.question.split()) + sum(len(text.split()) for text, _ in lesson.answer)


def collate(processor: PairProcessor, lessons: list[Lesson], rng: random.Random) -> Batch:
    """Photograph the lessons' scenes and lay questions and answers out as one padded batch."""
    images = [[photograph(scene, rng) for scene in lesson.scenes] for lesson in lessons]
    texts = [prompt_text(processor, lesson.question, len(lesson.scenes)) for lesson in lessons]
    inputs = processor(text=texts, images=images, return_tensors=None)
    answers = [_answer_tokens(processor, lesson) for lesson in lessons]
    rows = list(zip(inputs["input_ids"], answers, strict=True))
    longest = max(len(prompt) + len(tokens) for prompt, (tokens, _) in rows)
    length = math.ceil(longest / 16) * 16  # few different shapes: each new one costs a kernel its set-up
    ids = torch.full((len(rows), length), processor.tokenizer.pad_token_id)
    labels, weights, attention = torch.full_like(ids, -100), torch.zeros(len(rows), length), torch.zeros_like(ids)
    for row, (prompt, (tokens, weight)) in enumerate(rows):
        start, end = len(prompt), len(prompt) + len(tokens)
        ids[row, :end] = torch.tensor(prompt + tokens)
        attention[row, :end] = 1
        labels[row, start:end], weights[row, start:end] = torch.tensor(tokens), torch.tensor(weight)
    batch = {
        "input_ids": ids,
        "attention_mask": attention,
        "mm_token_type_ids": (ids == processor.image_token_id).long(),
        "pixel_values": torch.as_tensor(inputs["pixel_values"]),
        "image_grid_thw": torch.as_tensor(inputs["image_grid_thw"]),
    }
    return Batch(batch, _shown([scene for lesson in lessons for scene in lesson.scenes]), labels, weights)


def look(processor: PairProcessor, images: int, most: int, rng: random.Random) -> Batch:
    """A batch of scenes to be looked at, without a question: crowded, of few kinds of parts, or of one colour.

    From crowded scenes alone a tower learns to tell grey from white by what else is there, and errs where all
    parts are grey.
    """
    drawn = (crowded_scene, lambda rng: random_scene(rng, most), lambda rng: one_coloured_scene(rng, most))
    scenes = [rng.choice(drawn)(rng) for _ in range(images)]
    seen = processor.image_processor(images=[photograph(scene, rng) for scene in scenes], return_tensors="pt")
    return Batch({key: torch.as_tensor(seen[key]) for key in ("pixel_values", "image_grid_thw")}, _shown(scenes))


def _shown(scenes: list[Scene]) -> torch.Tensor:
    """What is to be said of each cell, which is one image token each: indices into the words of :data:`SHOWN`."""
    rows = []
    for scene in scenes:
        at, last = scene.at(), {}
        for place in scene.places():
            part = at.get(place)
            name = part.name if part else "none"
            said = (place, part.kind if part else "none", (part and part.blemish) or "none", last.get(name, "none"))
            rows.append([words.index(word) for words, word in zip(SHOWN, said, strict=True)])
            last[name] = place
    return torch.tensor(rows)


def shown_tokens(processor: PairProcessor, device: str) -> list[torch.Tensor]:
    """The tokens of the words of :data:`SHOWN`; a place that no lesson names has no token and is never right."""
    unknown = [processor.tokenizer.pad_token_id]
    groups = [
        [processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words] for words in SHOWN
    ]
    return [torch.tensor([ids if len(ids) == 1 else unknown for ids in group], device=device)[:, 0] for group in groups]


def _answer_tokens(processor: PairProcessor, lesson: Lesson) -> tuple[list[int], list[float]]:
    tokens, weights = [], []
    for text, decisive in [*lesson.answer, ("<|im_end|>", False)]:
        piece = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += piece
        weights += [DECISIVE if decisive else 1.0] * len(piece)
    return tokens, weights


BATCH = 32
MAX_NEW_TOKENS = 128


def score_sheet(model, processor: PairProcessor, per_lesson: int, most: int = 9) -> dict[str, dict[str, float]]:
    """Share of exact answers per kind of lesson; for judgements also that of right verdicts and notes.

    ``per_lesson`` lessons of each kind are drawn from seeds that pretraining never uses. Decoding is greedy.
    """
    sheet = {}
    for kind in LESSONS:
        rng = random.Random(f"held out/{kind}")
        lessons = [draw_lesson(kind, rng, most) for _ in range(per_lesson)]
        parts = [lessons[start : start + BATCH] for start in range(0, per_lesson, BATCH)]
        sheet[kind] = _score(lessons, [text for part in parts for text in answer(model, processor, part)])
    return sheet


def answer(model, processor: PairProcessor, lessons: list[Lesson]) -> list[str]:
    """The model's greedy answers."""
    rng = random.Random(f"held out/{lessons[0].question}")
    images = [[photograph(scene, rng) for scene in lesson.scenes] for lesson in lessons]
    inputs = processor(
        text=[prompt_text(processor, lesson.question, len(lesson.scenes)) for lesson in lessons],
        images=images,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
    return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _score(lessons: list[Lesson], answers: list[str]) -> dict[str, float]:
    truths = ["".join(text for text, _ in lesson.answer) for lesson in lessons]
    scores = {"exact": _share(a.strip() == t.strip() for a, t in zip(answers, truths, strict=True))}
    if lessons[0].kind.startswith(("judge", "present")):
        pairs = [(_split(a), _split(t)) for a, t in zip(answers, truths, strict=True)]
        scores["verdict"] = _share(a[1] == t[1] for a, t in pairs)
        scores["notes"] = _share(a[0] == t[0] for a, t in pairs)
    return scores


def _split(text: str) -> tuple[str, str]:
    """(notes with their tags, verdict with its tags)."""
    notes, middle, verdict = text.strip().partition("><")
    return notes, middle + verdict


def _share(outcomes) -> float:
    outcomes = list(outcomes)
    return round(sum(outcomes) / len(outcomes), 3)
