"""The file of conversations for stage 1: by template, by a server that stalls and babbles, and after a review."""

import json

import chat_server
import pytest
from chat_server import ChatServer, choice
from layouts import mmad_entry, write_ad, write_mmad, write_visa
from test_rotten_input import refused
from typer.testing import CliRunner

from ladlib import endpoint
from ladlib.cli import app
from ladlib.config import load_profile
from ladlib.runs import read_jsonl
from ladlib.sft_data import make_conversations, read_sft_file
from ladlib.sft_writer import read_reply

CAPTION = "<answer>Two cores, one is cut </answer>"
QUESTION = "<question>How many cores?</question>\n<answer>Two, one is cut.</answer>"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Test images with a question and a caption each."""
    root = tmp_path_factory.mktemp("data")
    write_ad(root / "mvtec_anomaly_detection", normals={"train": 2, "test": 4}, defects={"missing_cable": 4})
    write_visa(root / "visa")
    names = ("good/000", "good/001", "missing_cable/000", "missing_cable/001", "missing_cable/002")
    images = [f"DS-MVTec/cable/image/{name}.png" for name in names]
    folder = write_mmad(root / "mmad", {image: mmad_entry("B" if "/good/" in image else "A") for image in images})
    for number, image in enumerate(images):
        path = (folder / image).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"=Caption {number} <b>bold</b> & \u2028 end.", encoding="utf-8")
    return root


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "TIMEOUT", 1.0)
    for name in endpoint.KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(chat_server, "pair_of", lambda body: json.dumps(body["messages"]))
    monkeypatch.setattr(chat_server, "completion", lambda number, body, server: choice({"content": fitting(body)}))
    one = ChatServer()
    yield one
    one.close()


def words_of(body):
    return body["messages"][0]["content"][-1]["text"]


def fitting(body):
    return CAPTION if "Write a caption" in words_of(body) else QUESTION


def sft(data, out, *more):
    arguments = ["data", "sft", "--data", data, "--out", out, "--profile", "smoke"]
    return CliRunner().invoke(app, [str(one) for one in (*arguments, *more)])


def asked(data, out, server, *more):
    return sft(data, out, "--endpoint", server.url, "--model", "m", *more)


# By template


def test_the_template_writes_the_same_bytes_again_and_other_ones_for_another_seed(data, tmp_path):
    made = make_conversations(load_profile("smoke"), data, 0)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = sft(data, tmp_path / name, "--seed", seed)
        assert result.exit_code == 0 and f"{len(made)} of {len(made)} conversations" in result.output
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other
    rows = read_sft_file(tmp_path / "a")
    assert [(row.test, row.question, row.answer) for row in rows] == [
        (one.pair.test.image, one.question, one.answer) for one in made
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "m"], ["--endpoint and --model"]),
        (["--seed", "-1"], ["-1"]),
        (["--data", "nowhere"], ["There is no folder nowhere"]),
        (["--endpoint", "localhost:8000", "--model", "m"], ["endpoint.url"]),
        ([], ["sft.csv exists"]),
    ],
)
def test_options_that_do_not_fit_and_a_file_that_exists_are_one_line(data, tmp_path, options, words):
    (tmp_path / "sft.csv").write_text("reviewed")
    refused(sft(data, tmp_path / ("other.csv" if options else "sft.csv"), *options), *words)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["reviewed"]


# By endpoint


def test_the_endpoint_sees_both_images_and_the_annotation_and_is_asked_once(data, tmp_path, server):
    troubles = ("stall", "429", "500", "cut", "malformed", "")
    server.trouble = lambda number, attempt: troubles[number % len(troubles)] if attempt == 1 else ""
    result = asked(data, tmp_path / "sft.csv", server)
    assert result.exit_code == 0, result.output
    rows, count = read_sft_file(tmp_path / "sft.csv"), sum(server.asked.values())
    assert set(server.given.values()) == {1}
    assert len(rows) == len(server.given) == len(make_conversations(load_profile("smoke"), data, 0))
    for row in rows:
        assert row.writer == "m" and row.question.startswith("The first image shows a normal product.")
        assert row.answer == ("Two cores, one is cut" if row.kind == "Caption" else "Two, one is cut.")
    for body in server.bodies:
        assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "image_url", "text"]
        assert "Look beyond it" in words_of(body) and ("=Caption" in words_of(body) or "A. Yes." in words_of(body))
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 1024) and "logprobs" not in body
    assert asked(data, tmp_path / "other.csv", server).exit_code == 0
    assert sum(server.asked.values()) == count
    assert (tmp_path / "other.csv").read_bytes() == (tmp_path / "sft.csv").read_bytes()


def test_a_build_without_all_answers_writes_no_file_and_the_next_asks_only_for_the_missing(data, tmp_path, server):
    server.trouble = lambda number, attempt: "malformed" if number == 2 else ""
    refused(asked(data, tmp_path / "sft.csv", server), "1 of 4 conversations have no answer")
    assert not (tmp_path / "sft.csv").exists()
    replies, count = tmp_path / "sft-replies.jsonl", sum(server.asked.values())
    with replies.open("a") as file:
        file.write('{"key": "half a li')  # cut off while being written
    server.trouble = lambda number, attempt: ""
    assert asked(data, tmp_path / "sft.csv", server).exit_code == 0
    assert sum(server.asked.values()) == count + 1
    assert len(read_sft_file(tmp_path / "sft.csv")) == len(read_jsonl(replies)) == 4
    replies.write_text("{}\n")
    refused(asked(data, tmp_path / "other.csv", server), "sft-replies.jsonl", "Take the line out")


def test_a_reply_in_another_form_is_left_out_and_kept(data, tmp_path, server, monkeypatch):
    babble = lambda number, body, server: choice({"content": "Sure! " * (number == 1) + fitting(body)})  # noqa: E731
    monkeypatch.setattr(chat_server, "completion", babble)
    server.trouble = lambda number, attempt: "refusal" if (number, attempt) == (2, 1) else ""
    result = asked(data, tmp_path / "sft.csv", server)
    assert "2 replies are not in the required form" in result.output
    count = sum(server.asked.values())
    assert count == len(read_sft_file(tmp_path / "sft.csv")) + 2
    assert asked(data, tmp_path / "other.csv", server).exit_code == 0
    assert sum(server.asked.values()) == count


@pytest.mark.parametrize(
    ("text", "caption", "read"),
    [
        (CAPTION, True, "Two cores, one is cut"),
        (QUESTION, False, "Two, one is cut."),
        (QUESTION, True, None),
        (f"Sure! {CAPTION}", True, None),
        (CAPTION + CAPTION, True, None),
        (CAPTION, False, None),
        ("<answer> </answer>", True, None),
        ("<answer>the <|im_end|> end</answer>", True, None),
        ("<answer>so <think>hm</think> it is</answer>", True, None),
        ("<answer>a gap < 5 mm</answer>", True, "a gap < 5 mm"),
    ],
)
def test_a_reply_is_read_only_in_the_required_form(text, caption, read):
    found = read_reply(text, caption)
    assert (found[1] if found else None) == read
