"""Pretraining: the same from the same recipe, whole after a stop, and scored on lessons it never saw."""

import dataclasses
import json
import random

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, tiny_processor

from ladlib.models import load_model
from ladlib.pretrain import Phase, loop, make_model
from ladlib.pretrain.batches import LessonBatches, collate
from ladlib.pretrain.loop import learning_rate, pretrain
from ladlib.pretrain.recipes import RECIPES
from ladlib.pretrain.score_sheet import score_sheet
from ladlib.settings import load_profile
from ladlib.toy.lessons import LESSONS, draw_lesson

SHORT = dataclasses.replace(TINY, steps=4, batch=2, warmup=1, decay=2, phases=(Phase(4, 3, 1.0, {"list": 1}),))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setitem(RECIPES, "base", SHORT)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "SCORED", 1)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(short, tmp_path, monkeypatch):
    whole = pretrain("base", tmp_path / "whole")
    step, left = loop._train_step, [3]

    def stop_after_three(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(loop, "_train_step", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        pretrain("base", tmp_path / "stopped")
    monkeypatch.setattr(loop, "_train_step", step)
    stopped = pretrain("base", tmp_path / "stopped")
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(one[key], two[key]) for key in one)
    steps = [json.loads(line)["step"] for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_pretraining_ships_is_loaded_with_every_weight(short, tmp_path):
    folder = pretrain("base", tmp_path / "made")
    load_model(str(folder), load_profile("smoke").model)
    assert set(json.loads((folder / "score_sheet.json").read_text())) == set(LESSONS)
    assert json.loads((folder / "recipe.json").read_text())["steps"] == SHORT.steps


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    one, two = (LessonBatches(SHORT, tiny_processor())[3] for _ in range(2))
    assert torch.equal(one.inputs["pixel_values"], two.inputs["pixel_values"])
    assert torch.equal(one.labels, two.labels)


def test_only_answers_carry_a_label_and_decisive_words_weigh_more():
    rng = random.Random(0)
    lesson = draw_lesson("judge_places", rng, most=3)
    batch = collate(tiny_processor(), [lesson], rng)
    said = tiny_processor().tokenizer.decode(batch.labels[batch.labels != -100])
    assert said == "".join(text for text, _ in lesson.answer) + "<|im_end|>"
    assert set(batch.weights[batch.labels != -100].tolist()) == {1.0, 5.0}


def test_every_image_token_is_told_its_place_and_its_part():
    rng = random.Random(1)
    lesson = draw_lesson("list", rng, most=4)
    batch = collate(tiny_processor(), [lesson], rng)
    assert len(batch.shown) == int(batch.inputs["mm_token_type_ids"].sum())
    words = [tiny_processor().tokenizer.decode(row) for row in batch.shown]
    scene = lesson.scenes[0]
    at = scene.at()
    assert words == [f" {place} {at[place].kind if place in at else 'none none'}" for place in scene.places()]


def test_the_learning_rate_rises_stays_and_falls_to_nearly_nothing():
    recipe = dataclasses.replace(SHORT, steps=100, warmup=10, decay=20)
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[50] == 1 and rates[-1] == pytest.approx(0.05)


def test_a_random_model_scores_nothing_on_the_score_sheet():
    model = make_model(TINY, tiny_processor()).eval()
    sheet = score_sheet(model, tiny_processor(), per_lesson=1, most=2)
    assert all(scores["exact"] == 0 for scores in sheet.values())
