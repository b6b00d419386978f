"""Pairs judged again under other conditions, by a tiny random model: what is shown, kept, and gone on with."""

import json
import weakref
from collections import Counter

import pytest
from tiny import tiny_base, tiny_profile, write_data

from ladlib import evaluate, prompts, sensitivity
from ladlib.conditions import conditions, subsample
from ladlib.config import load_profile
from ladlib.data import read_dataset
from ladlib.data.pairing import pair, ranked
from ladlib.parsing import parse_answer
from ladlib.records import Pair, Sample, Variation
from ladlib.runs import RunFolder, read_jsonl

LEVELS = 12  # evaluation's own, blind, swapped, two other references, four wordings, order, batch, dtype


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def profile():
    return tiny_profile(
        evaluate__max_new_tokens=12, evaluate__batch_size=4, evaluate__sensitivity=4, model__dtype="float32"
    )


@pytest.fixture(scope="module")
def judged(data, profile, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("judged"))
    sensitivity.vary(profile, data, run, 0, arm="base", model=tiny_base())
    return run


def records(run):
    return [Variation.model_validate(row) for row in read_jsonl(run.sensitivity("base", 0))]


def of(run, factor):
    return [one for one in records(run) if one.factor == factor]


def test_every_pair_is_judged_once_under_every_condition(judged, data):
    rows = records(judged)
    logical = [one for one in read_dataset(data, "mvtec_loco") if one.split == "test" and one.anomaly != "structural"]
    assert {one.id for one in rows} == {one.id for one in logical} and len(logical) == 4
    counts = Counter((one.id, one.factor, one.level) for one in rows)
    assert len(rows) == LEVELS * 4 and set(counts.values()) == {1}
    for one in rows:
        assert one.answer == parse_answer(one.text) and 0 <= one.p_yes <= 1


def test_a_condition_changes_one_thing_and_says_which(judged):
    usual = {one.id: one for one in of(judged, "none")}
    for one in records(judged):
        first = usual[one.id]
        assert (one.reference != first.reference) == (one.factor == "reference")
        assert (one.prompt_sha256 != first.prompt_sha256) == (one.factor in ("wording", "order"))
        assert one.label == first.label and one.images_sha256[1] == first.images_sha256[1]
    shown = {one.factor: one.shown for one in records(judged)}
    assert shown.pop("blind") == ("reference", "reference")
    assert shown.pop("swapped") == shown.pop("order") == ("test", "reference")
    assert set(shown.values()) == {("reference", "test")}


def test_the_model_gets_the_images_that_the_record_names(data, profile, tmp_path, monkeypatch):
    seen, answer = [], evaluate.answer

    def watch(model, processor, images, tokens, question, **how):
        seen.extend((two[0].tobytes(), two[1].tobytes(), question) for two in images)
        return answer(model, processor, images, tokens, question, **how)

    monkeypatch.setattr(evaluate, "answer", watch)
    run = RunFolder(tmp_path)
    sensitivity.vary(profile, data, run, 0, arm="base", model=tiny_base())
    given = dict(zip([(one.id, one.factor, one.level) for one in records(run)], seen, strict=True))
    for (name, factor, _), (first, second, question) in given.items():
        reference, test, usual = given[name, "none", ""]
        if factor == "blind":
            assert (first, second, question) == (reference, reference, usual)
        if factor in ("swapped", "order"):
            assert (first, second) == (test, reference)
            assert question == (prompts.TEST_FIRST if factor == "order" else usual)
        if factor == "reference":
            assert first != reference and second == test


def test_an_interrupted_run_goes_on_where_it_stopped_and_repeats_nothing(judged, data, profile, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    sensitivity.vary(profile, data, run, 0, arm="base", model=tiny_base())
    path = run.sensitivity("base", 0)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:9]) + lines[9][:50], encoding="utf-8")
    asked, answer = [], evaluate.answer
    monkeypatch.setattr(evaluate, "answer", lambda *args, **how: asked.extend(args[2]) or answer(*args, **how))
    sensitivity.vary(profile, data, run, 0, arm="base", model=tiny_base())
    assert len(lines) - 9 <= len(asked) < len(lines)  # whole batches, and no batch in vain
    assert [one.text for one in records(run)] == [one.text for one in records(judged)]
    asked.clear()
    sensitivity.vary(profile, data, run, 0, arm="base", model=tiny_base())
    assert not asked


def test_answers_of_another_model_or_setting_are_made_again(data, profile, tmp_path):
    run = RunFolder(tmp_path)
    sensitivity.vary(profile, data, run, 0, arm="base", model=tiny_base())
    fewer = profile.evaluate.model_copy(update={"sensitivity": 2})
    sensitivity.vary(profile.model_copy(update={"evaluate": fewer}), data, run, 0, arm="base", model=tiny_base())
    assert len(records(run)) == LEVELS * 2  # the same answers, of two pairs
    shorter = fewer.model_copy(update={"max_new_tokens": 3})
    sensitivity.vary(profile.model_copy(update={"evaluate": shorter}), data, run, 0, arm="base", model=tiny_base())
    assert len(records(run)) == LEVELS * 2 and max(one.completion_tokens for one in records(run)) <= 3


def test_in_float32_one_pair_at_a_time_gives_the_texts_of_a_batch(judged):
    together = {one.id: one for one in of(judged, "none")}
    assert {one.prompt_tokens for one in together.values()} != {next(iter(together.values())).prompt_tokens}
    for one in of(judged, "batch"):
        assert one.text == together[one.id].text
        assert one.p_yes == pytest.approx(together[one.id].p_yes, abs=1e-4)


def test_the_other_numeric_type_is_really_used(judged):
    usual = {one.id: one.p_yes for one in of(judged, "none")}
    assert any(one.p_yes != usual[one.id] for one in of(judged, "dtype"))
    assert [one.level for one in of(judged, "dtype")] == ["bfloat16"] * 4
    paper = conditions(load_profile("paper"))[-1]
    assert (paper.factor, paper.dtype) == ("dtype", "float32")


def test_only_one_model_is_in_memory_at_a_time(data, profile, tmp_path, monkeypatch):
    alive, load = [], evaluate.load

    def watch(*args):
        assert not [one for one in alive if one() is not None]
        model, processor = load(*args)
        alive.append(weakref.ref(model))
        return model, processor

    monkeypatch.setattr(evaluate, "load", watch)
    few = profile.model_copy(update={"evaluate": profile.evaluate.model_copy(update={"sensitivity": 1})})
    sensitivity.vary(few, data, RunFolder(tmp_path), 0, arm="base", model=tiny_base())
    assert len(alive) == 2


def test_nothing_is_judged_and_nothing_stored_where_the_profile_says_none(data, profile, tmp_path):
    off = profile.model_copy(update={"evaluate": profile.evaluate.model_copy(update={"sensitivity": 0})})
    assert sensitivity.vary(off, data, RunFolder(tmp_path), 0, arm="base", model="no model is loaded") is None
    assert not list(tmp_path.iterdir())


def test_the_subsample_is_even_over_category_and_kind_and_keeps_its_pairs_when_it_grows():
    def made(category, anomaly, number):
        name = f"{category}/test/{anomaly}/{number}"
        known = {"dataset": "mvtec_loco", "category": category, "split": "test", "anomaly": anomaly}
        return Pair(test=Sample(id=name, image=f"{name}.png", **known), reference="r.png")

    kinds = ("good", "logical", "structural")
    pairs = [made(place, kind, n) for place in "abc" for kind in kinds for n in range(20)]
    few, more = subsample(pairs, 12), subsample(list(reversed(pairs)), 60)
    assert set(Counter((one.test.category, one.test.anomaly) for one in few).values()) == {2}
    assert "structural" not in {one.test.anomaly for one in more}
    assert more[:12] == few


def test_reference_images_stand_in_line_behind_the_one_of_evaluation(data):
    samples = read_dataset(data, "mvtec_loco")
    normals = [one.image for one in samples if one.split == "train"]
    for one in pair(samples, 0):
        line = ranked(one.test.image, normals, 0, 3)
        assert line[0] == one.reference and sorted(line) == sorted(normals)


def test_all_wordings_ask_for_the_same_form_and_the_question_is_as_committed():
    form = prompts.QUESTION[prompts.QUESTION.index("First output") :]
    assert len(prompts.WORDINGS) >= 4 and len({*prompts.WORDINGS.values(), prompts.QUESTION}) >= 5
    assert all(text.endswith(form) for text in (*prompts.WORDINGS.values(), prompts.TEST_FIRST))
    swapped = {"first image": "second image", "second image": "first image"}
    task = prompts.QUESTION[: -len(form)]
    assert prompts.TEST_FIRST[: -len(form)] == "".join(
        swapped.get(part, part) for part in _split(task, "first image", "second image")
    )


def _split(text, *words):
    for word in words:
        text = text.replace(word, f"\0{word}\0")
    return text.split("\0")


def test_a_record_is_one_line_of_json_with_the_keys_of_a_generation(judged):
    (line, *_) = judged.sensitivity("base", 0).read_text(encoding="utf-8").splitlines()
    assert {"id", "text", "answer", "p_yes", "images_sha256", "factor", "level", "shown"} <= set(json.loads(line))
