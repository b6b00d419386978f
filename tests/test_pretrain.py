"""Pretraining: the same from the same recipe, whole after a stop, and scored on lessons it never saw."""

import dataclasses
import json
import random

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY, tiny_processor

from ladlib.config import load_profile
from ladlib.models import load_model
from ladlib.toy import pretrain as loop
from ladlib.toy.pretrain import Muon, pretrain, schedule, tower_share
from ladlib.toy.pretrain_data import SHOWN, LessonBatches, collate, look
from ladlib.toy.pretrain_model import BASE, RECIPES, Phase, grow, make_model
from ladlib.toy.tasks import LESSONS, draw_lesson

PHASES = (Phase(1, 3, 1.0, {}), Phase(4, 3, 1.0, {"list": 1}))
SHORT = dataclasses.replace(TINY, steps=4, batch=2, warmup=1, decay=2, phases=PHASES)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setitem(RECIPES, "base", SHORT)
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    monkeypatch.setattr(loop, "SCORED", 1)


def lesson_batch(kind, most=5):
    rng = random.Random(0)
    lesson = draw_lesson(kind, rng, most)
    return lesson, collate(tiny_processor(), [lesson], rng)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_files_and_weights_of_one_that_was_not(short, tmp_path, monkeypatch):
    whole = pretrain("base", tmp_path / "whole")
    steps = [loop._train_step] * 3
    with monkeypatch.context() as patched, pytest.raises(IndexError):
        patched.setattr(loop, "_train_step", lambda *args: steps.pop()(*args))
        pretrain("base", tmp_path / "stopped")
    monkeypatch.setattr(loop, "make_toy_processor", None)  # the words keep the numbers that they had
    stopped = pretrain("base", tmp_path / "stopped")
    expected, weights = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(expected[key], weights[key]) for key in expected)
    steps = [json.loads(line)["step"] for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    load_model(str(stopped), load_profile("smoke").model)  # refuses missing weights
    assert set(json.loads((stopped / "score_sheet.json").read_text())) == set(LESSONS)
    assert json.loads((stopped / "recipe.json").read_text())["steps"] == SHORT.steps


def test_a_batch_depends_on_its_number_alone():
    one, two = (LessonBatches(SHORT, tiny_processor())[3] for _ in range(2))
    assert torch.equal(one.inputs["pixel_values"], two.inputs["pixel_values"])
    assert torch.equal(one.labels, two.labels)


def test_only_answers_carry_a_label_and_decisive_words_weigh_more():
    lesson, batch = lesson_batch("judge_places", most=3)
    labelled = batch.labels != -100
    text = tiny_processor().tokenizer.decode(batch.labels[labelled])
    assert text == "".join(text for text, _ in lesson.answer) + "<|im_end|>"
    assert set(batch.weights[labelled].tolist()) == {1.0, 5.0}


def test_every_image_token_has_the_label_of_its_place_and_its_part():
    lesson, batch = lesson_batch("list", most=4)
    assert len(batch.shown) == int(batch.inputs["mm_token_type_ids"].sum())
    parts, seen = lesson.scenes[0].at(), {}
    for row in batch.shown.tolist():
        place, kind, blemish, last = (words[index] for words, index in zip(SHOWN, row, strict=True))
        name = parts[place].name if place in parts else "none"
        assert f"{kind} {blemish}".removesuffix(" none") == name
        assert last == seen.get(name, "none")
        seen[name] = place


def test_a_batch_to_look_at_has_images_and_no_question():
    batch = look(tiny_processor(), 3, 16, random.Random(0))
    assert batch.labels is None and set(batch.inputs) == {"pixel_values", "image_grid_thw"}
    assert len(batch.shown) == sum(int(rows * cols) // 4 for _, rows, cols in batch.inputs["image_grid_thw"])


def test_looking_alone_teaches_the_vision_tower_and_nothing_else(short, tmp_path, monkeypatch):
    untrained = make_model(SHORT, tiny_processor()).state_dict()
    only_look = dataclasses.replace(SHORT, steps=1, decay=1, phases=(Phase(1, 3, 1.0, {}),))
    monkeypatch.setitem(RECIPES, "base", only_look)
    trained = load_model(str(pretrain("base", tmp_path)), load_profile("smoke").model).state_dict()
    moved = {key for key, value in trained.items() if not torch.equal(value, untrained[key].bfloat16().float())}
    assert moved and all("visual" in key for key in moved)


def test_the_learning_rate_rises_stays_and_falls_and_the_tower_learns_fast_alone_and_slowly_in_lessons():
    phases = tuple(Phase(until, 3, 1.0, lessons) for until, lessons in ((40, {}), (60, {"list": 1}), (100, {})))
    recipe = dataclasses.replace(SHORT, steps=100, warmup=10, decay=20, settle=20, phases=phases)
    rates = [schedule(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[50] == 1 and rates[-1] == pytest.approx(0.05)
    shares = [tower_share(recipe, step) for step in range(100)]
    assert set(shares[:21]) == {1.0} and shares[30] == 0.5 and set(shares[38:60]) == {0.1}
    assert set(shares[60:81]) == {1.0} and shares[90] == 0.5


def test_a_kind_of_part_is_one_token_and_reads_as_two_words():
    tokenizer = tiny_processor().tokenizer
    ids = tokenizer(" a2 red disc same .")["input_ids"]
    assert len(ids) == 4 and tokenizer.decode(ids) == " a2 red disc same ."


def test_the_first_heads_begin_by_looking_one_two_and_three_tokens_back():
    model = make_model(dataclasses.replace(BASE, layers=1), tiny_processor()).eval()
    inputs = lesson_batch("list")[1].inputs
    with torch.inference_mode():
        attention = model(**inputs, output_attentions=True).attentions[0][0]
    last = int(inputs["attention_mask"].sum()) - 1
    for head, distance in enumerate((1, 2, 3)):
        assert attention[head, last, last - distance] > 0.8


def test_muon_in_float32_takes_the_steps_of_pytorchs_own():
    torch.manual_seed(0)
    start = [torch.randn(8, 20), torch.randn(8, 20), torch.randn(30, 6)]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, first in zip(ours, theirs, start, strict=True):
        assert (one - other).norm() < 0.02 * (other - first).norm()  # theirs rounds to bfloat16


def test_a_grown_model_answers_as_the_small_one_and_the_copies_of_a_unit_learn_apart():
    small = make_model(TINY, tiny_processor()).eval()
    wider = dataclasses.replace(TINY, hidden=96, heads=8, vision_hidden=64, vision_heads=8, layers=TINY.layers + 1)
    large = make_model(wider, tiny_processor()).eval()
    for vector in (weights for weights in small.parameters() if weights.ndim == 1):  # norms and biases, as if trained
        vector.data.add_(0.1 * torch.randn_like(vector))
    grow(small, large)
    _, batch = lesson_batch("judge_open")
    result = large(**batch.inputs, labels=batch.labels)
    with torch.inference_mode():
        expected = small(**batch.inputs).logits
    assert torch.allclose(expected, result.logits, atol=1e-4 * expected.abs().max().item())
    result.loss.backward()
    first, second = large.model.language_model.layers[0].mlp.gate_proj.weight.grad.chunk(2)
    assert not torch.allclose(first, second, rtol=0.01)
