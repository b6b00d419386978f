"""Lessons as padded batches, the same for a step whenever they are asked for."""

import math
import random
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from ladlib.models import PairProcessor
from ladlib.pretrain.recipes import Recipe
from ladlib.prompts import prompt_text
from ladlib.toy.lessons import Lesson, draw_lesson
from ladlib.toy.scenes import Scene, render

DECISIVE = 5.0  # weight of the tokens that carry a judgement
SORTED = 4  # batches drawn together and sorted by length


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
        phase = self.recipe.phase(first)
        kinds = rng.choices(list(phase.lessons), list(phase.lessons.values()), k=self.recipe.batch * SORTED)
        lessons = sorted((draw_lesson(kind, rng, phase.most) for kind in kinds), key=_length)
        turns = rng.sample(range(SORTED), SORTED)  # short and long batches in random order
        begin = turns[step - first] * self.recipe.batch
        return collate(self.processor, lessons[begin : begin + self.recipe.batch], random.Random(f"{step}"))


@dataclass(frozen=True)
class Batch:
    """Lessons as tensors: model inputs; labels and weights (batch, length); what each image token shows.

    ``shown`` is (image tokens of the batch in order, 3): the tokens of place, colour and shape.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor  # -100 outside the answers
    weights: torch.Tensor
    shown: torch.Tensor

    def to(self, device: str) -> "Batch":
        inputs = {key: value.to(device) for key, value in self.inputs.items()}
        return Batch(inputs, self.labels.to(device), self.weights.to(device), self.shown.to(device))


def _length(lesson: Lesson) -> int:
    cells = sum(scene.rows * scene.cols for scene in lesson.scenes)
    return cells + len(lesson.question.split()) + sum(len(text.split()) for text, _ in lesson.answer)


def collate(processor: PairProcessor, lessons: list[Lesson], rng: random.Random) -> Batch:
    """Photograph the lessons' scenes and lay questions and answers out as one padded batch."""
    images = [[render(scene, rng) for scene in lesson.scenes] for lesson in lessons]
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
    shown = [row for lesson in lessons for scene in lesson.scenes for row in _shown(processor, scene)]
    return Batch(batch, labels, weights, torch.tensor(shown))


def _shown(processor: PairProcessor, scene: Scene) -> list[list[int]]:
    """The tokens of place, colour and shape for each cell of ``scene``, which is one image token each."""
    at = scene.at()
    words = []
    for place in scene.places():
        part = at.get(place)
        words.append([place, part.colour if part else "none", part.shape if part else "none"])
    return [processor.tokenizer.convert_tokens_to_ids([f"\u0120{word}" for word in row]) for row in words]


def _answer_tokens(processor: PairProcessor, lesson: Lesson) -> tuple[list[int], list[float]]:
    tokens, weights = [], []
    for text, decisive in [*lesson.answer, ("<|im_end|>", False)]:
        piece = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += piece
        weights += [DECISIVE if decisive else 1.0] * len(piece)
    return tokens, weights
