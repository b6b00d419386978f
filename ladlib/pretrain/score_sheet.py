"""What a toy base model can do: exact answers to held-out lessons, kind by kind.

One mean loss would hide it: a model may list parts perfectly and judge at chance.
"""

import random

import torch

from ladlib.models import PairProcessor
from ladlib.prompts import prompt_text
from ladlib.toy.general import photograph
from ladlib.toy.lessons import LESSONS, Lesson, draw_lesson

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
