"""Stored predictions taken over into a run: all that fit, or nothing and one line."""

import json

import pytest
from chat_server import ChatServer
from layouts import write_pairs

from ladlib import endpoint
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.replay import replay
from ladlib.report.stored import read_records
from ladlib.runs import RunFolder, read_jsonl

PAIRS = 12


def profile(**changes):
    values = {"evaluate.limit": 0, "endpoint.label": "FP8, vLLM 0.11"}
    return load_profile("smoke", **values | {name.replace("__", "."): value for name, value in changes.items()})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data"), PAIRS // 2, PAIRS // 2)


@pytest.fixture(scope="module")
def stored(data, tmp_path_factory):
    """What another machine stored."""
    server = ChatServer()
    elsewhere = RunFolder(tmp_path_factory.mktemp("elsewhere"))
    path = endpoint.evaluate(profile(endpoint__url=server.url, endpoint__concurrency=1), data, elsewhere, 0)
    server.close()
    return path


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def changed(stored, folder, number=0, drop=False, twice=False, **fields):
    """A copy of ``stored`` with one line changed, left out or there twice."""
    rows = read_jsonl(stored)
    rows[number : number + 1] = [] if drop else [rows[number] | fields] * (2 if twice else 1)
    path = folder / "changed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_stored_predictions_become_the_runs_own_records_once(stored, data, run, capsys):
    path = replay(profile(), data, run, 3, stored)
    assert path == run.generations("large", 3)
    before = read_records(stored)
    assert read_records(path) == [one.model_copy(update={"seed": 3}) for one in before]
    assert f"large: {PAIRS} stored answers taken over" in capsys.readouterr().out
    replay(profile(), data, run, 3, stored)
    assert len(read_records(path)) == PAIRS


def test_a_corrected_file_takes_the_place_of_the_one_before(stored, data, run, tmp_path):
    replay(profile(), data, run, 0, stored)
    path = replay(profile(), data, run, 0, changed(stored, tmp_path, text="<answer>no</answer>"))
    assert read_records(path)[0].text == "<answer>no</answer>" and len(read_records(path)) == PAIRS


def test_the_answer_is_read_from_the_stored_text_again(stored, data, run, tmp_path):
    file = changed(stored, tmp_path, text="<answer>yes or no</answer>", answer="yes")
    assert read_records(replay(profile(), data, run, 0, file))[0].answer is None


def test_a_limit_takes_the_chosen_pairs_and_leaves_the_others(stored, data, run):
    assert len(read_records(replay(profile(), data, run, 0, stored, limit=2))) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"drop": True}, "lacks 1 of 12 pairs, first juice_bottle/test/"),
        ({"twice": True}, "answers 1 pairs twice"),
        ({"arm": "base"}, "holds answers of the arm base, not of large"),
        ({"images_sha256": ["0", "0"]}, "was judged from other images"),
        ({"reference": "juice_bottle/train/good/999.png"}, "was judged from other images"),
        ({"pixels": [[28, 28], [28, 28]]}, "was seen at"),
        ({"p_yes": None, "served": ""}, "says neither p_yes nor what served it"),
        ({"finish": "tired"}, "finish"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(stored, data, run, tmp_path, change, told):
    with pytest.raises(UserError, match=told):
        replay(profile(), data, run, 0, changed(stored, tmp_path, **change))
    assert not run.generations("large", 0).exists()


def test_a_file_that_is_not_there_is_one_line(data, run, tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        replay(profile(), data, run, 0, tmp_path / "none.jsonl")


def test_answers_that_were_paid_for_do_not_give_way_to_a_file(stored, data, tmp_path):
    run = RunFolder(stored.parents[1])
    with pytest.raises(UserError, match="holds 12 answers of toy-large, FP8, vLLM 0.11"):
        replay(profile(), data, run, 0, changed(stored, tmp_path, text="<answer>no</answer>"))


def test_other_sizes_of_image_are_other_questions(stored, data, run):
    with pytest.raises(UserError, match="this run sees it at"):
        replay(profile(data__min_pixels=15680, data__max_pixels=31360), data, run, 0, stored)
