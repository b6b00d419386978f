"""Evaluation with a tiny random model, on a tiny MVTec LOCO AD."""

import json
import math

import pytest
import torch
from tiny import tiny_base, tiny_profile, write_data

from ladlib import evaluate
from ladlib.data import read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.endpoint.asking import message
from ladlib.errors import UserError
from ladlib.generations import select
from ladlib.likelihood import beginnings
from ladlib.models import VISION_TOKENS
from ladlib.prompts import QUESTION
from ladlib.records import Generation
from ladlib.runs import RunFolder, read_jsonl


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def profile():
    return tiny_profile(evaluate__max_new_tokens=12, evaluate__batch_size=2, evaluate__limit=0)


@pytest.fixture(scope="module")
def loaded(profile):
    return evaluate.load(profile)


def images(data, profile, count=4):
    folder = data / "mvtec_loco_anomaly_detection"
    pairs = pair(read_dataset(data, "mvtec_loco"), 0)[:count]
    paths = [(folder / one.reference, folder / one.test.image) for one in pairs]
    return [[view(path, profile.data.min_pixels, profile.data.max_pixels) for path in two] for two in paths]


def force(model, token: int):
    """Make the model's most likely next token ``token``, whatever came before."""
    return model.lm_head.register_forward_hook(
        lambda module, args, output: output.index_fill(-1, torch.tensor([token]), 1e4)
    )


def timeless(text: str) -> list[dict]:
    """Records without what may differ between two runs: the time, and digits that depend on the batch."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [row | {"seconds": 0, "p_yes": round(row["p_yes"], 4)} for row in rows]


@pytest.mark.slow
def test_two_processes_with_a_copy_of_the_model_each_write_the_file_of_one(data, profile, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    parallel = profile.parallel.model_copy(update={"processes": 2})
    several = profile.model_copy(update={"parallel": parallel})
    files = [
        evaluate.evaluate(one, data, RunFolder(folder), 0, arm="base", model=tiny_base())
        for one, folder in ((profile, alone), (several, shared))
    ]
    one, other = (timeless(path.read_text()) for path in files)
    assert len(one) > 4 and one == other


def test_each_test_pair_gets_one_whole_record(data, profile, tmp_path):
    path = evaluate.evaluate(profile, data, RunFolder(tmp_path), 0, arm="base", model=tiny_base())
    records = [Generation.model_validate(row) for row in read_jsonl(path)]
    assert sorted(one.id for one in records) == sorted(
        sample.id for sample in read_dataset(data, "mvtec_loco") if sample.split == "test"
    )
    for one in records:
        assert 0 <= one.p_yes <= 1
        assert one.completion_tokens <= 12
        assert all(side % 28 == 0 for size in one.pixels for side in size)
        assert "/train/good/" in one.reference


def test_an_interrupted_evaluation_goes_on_where_it_stopped(data, profile, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    path = evaluate.evaluate(profile, data, run, 0, arm="base", model=tiny_base())
    whole = path.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:40], encoding="utf-8")  # cut off in the third record
    judged = []
    judge = evaluate._judge
    monkeypatch.setattr(evaluate, "_judge", lambda *args: judged.extend(args[-1]) or judge(*args))
    evaluate.evaluate(profile, data, run, 0, arm="base", model=tiny_base())
    left = {json.loads(line)["id"] for line in lines[2:]}
    assert left <= {one.id for one in judged} and len(judged) < len(lines)  # whole batches, and no batch in vain
    assert timeless(whole) == timeless(path.read_text(encoding="utf-8"))
    judged.clear()
    evaluate.evaluate(profile, data, run, 0, arm="base", model=tiny_base())
    assert not judged


def test_records_of_another_setting_or_image_are_made_again(data, profile, tmp_path):
    run = RunFolder(tmp_path)
    path = evaluate.evaluate(profile, data, run, 0, arm="base", model=tiny_base(), limit=1)
    shorter = tiny_profile(evaluate__max_new_tokens=3, evaluate__limit=1)
    evaluate.evaluate(shorter, data, run, 0, arm="base", model=tiny_base())
    rows = read_jsonl(path)
    assert len(rows) == 3 and all(row["completion_tokens"] <= 3 for row in rows)
    changed = [{**rows[0], "text": "kept"}, {**rows[1], "text": "old", "images_sha256": ["0", "0"]}, rows[2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    evaluate.evaluate(shorter, data, run, 0, arm="base", model=tiny_base())
    texts = {row["id"]: row["text"] for row in read_jsonl(path)}
    assert texts[rows[0]["id"]] == "kept" and texts[rows[1]["id"]] == rows[1]["text"]


def test_a_limit_takes_the_same_few_of_each_category_and_kind(data):
    pairs = pair(read_dataset(data, "mvtec_loco"), 0)
    chosen = select(pairs, 1)
    assert sorted(one.test.anomaly for one in chosen) == ["good", "logical", "structural"]
    assert chosen == [one for one in select(list(reversed(pairs)), 1)[::-1]]
    assert select(pairs, 0) == pairs


def test_the_size_of_the_batch_changes_nothing(data, profile, loaded):
    pairs = images(data, profile)
    assert len({tuple(image.size for image in two) for two in pairs}) > 1, "prompts must differ in length"
    together = evaluate.answer(*loaded, pairs, 12)
    alone = [evaluate.answer(*loaded, [two], 12)[0] for two in pairs]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.prompt_tokens for one in together] == [one.prompt_tokens for one in alone]
    assert [one.p_yes for one in together] == pytest.approx([one.p_yes for one in alone], abs=1e-4)


def test_a_model_that_wants_an_image_token_does_not_get_it(data, profile, loaded):
    model, processor = loaded
    hook = force(model, processor.image_token_id)
    try:
        (found,) = evaluate.answer(model, processor, images(data, profile, 1), 8)
    finally:
        hook.remove()
    assert not any(token in found.text for token in VISION_TOKENS)


def test_p_yes_follows_the_logits_after_the_answer_tag(data, profile, loaded):
    model, processor = loaded
    first = beginnings(processor.tokenizer).after
    for word, expected in (("yes", 1.0), ("no", 0.0)):
        hook = force(model, first[word][0])
        try:
            (found,) = evaluate.answer(model, processor, images(data, profile, 1), 2)
        finally:
            hook.remove()
        assert found.p_yes == pytest.approx(expected)
        assert found.finish == "length" and not math.isnan(found.p_yes)


def test_a_server_with_the_models_own_template_gives_it_the_prompt_of_the_local_arms(data, profile, loaded):
    _, processor = loaded
    (two,) = images(data, profile, 1)
    turn = message(QUESTION, two)
    # As vLLM does: a template sees that there is an image, not which.
    parts = [{"type": "image"} if part["type"] == "image_url" else part for part in turn["content"]]
    seen = [turn | {"content": parts}]
    rendered = processor.tokenizer.apply_chat_template(seen, tokenize=False, add_generation_prompt=True)
    assert rendered == evaluate.render_prompt(processor)


def test_inspect_takes_images_of_any_size_and_answers(data, profile):
    files = sorted((data / "mvtec_loco_anomaly_detection").glob("*/test/good/*.png"))
    verdict = evaluate.inspect(files[0], files[1], tiny_base(), profile)
    assert verdict.answer in ("yes", "no", None)
    assert 0 <= verdict.p_yes <= 1 and verdict.seconds > 0


def test_inspect_of_a_file_that_is_no_image_is_one_line(tmp_path, profile):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match="does not decode"):
        evaluate.inspect(tmp_path / "a.png", tmp_path / "a.png", tiny_base(), profile)
