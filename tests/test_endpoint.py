"""The large model through an endpoint, against a real server that stalls, refuses, cuts and lies."""

import json
import logging
import signal
import subprocess
import sys
import time

import pytest
from chat_server import ANSWER, TROUBLES, ChatServer, images_of
from layouts import write_pairs
from PIL import ImageChops

from ladlib import endpoint
from ladlib.config import load_profile
from ladlib.data import read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.endpoint import client
from ladlib.endpoint.client import Pace, retry_after
from ladlib.errors import UserError
from ladlib.generations import select
from ladlib.prompts import QUESTION
from ladlib.report.stored import read_records
from ladlib.runs import RunFolder, read_jsonl

LABEL = "FP8, vLLM 0.11"
KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """As many pairs as the paper's protocol has: 575 good, 561 logical."""
    return write_pairs(tmp_path_factory.mktemp("released"), 575, 561)


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("few"), 15, 15)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 0.01)
    for name in client.KEYS:
        monkeypatch.delenv(name, raising=False)
    one = ChatServer()
    yield one
    one.close()


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def profile(server, **changes):
    """The smoke profile with ``server`` as its endpoint; ``a=v`` changes ``endpoint.a``."""
    changes = {"url": server.url, "label": LABEL, "model": "m", "timeout": 5.0, "concurrency": 4} | changes
    dotted = {f"endpoint.{name}": value for name, value in changes.items()}
    return load_profile("smoke", **{"evaluate.limit": 0} | dotted)


def evaluate(server, data, run, **changes):
    return endpoint.evaluate(profile(server, **changes), data, run, 0)


def ids(data):
    return sorted(one.id for one in pair(read_dataset(data, "mvtec_loco"), 0))


# What is asked and kept


def test_1136_pairs_are_each_answered_exactly_once_whatever_goes_wrong_on_the_way(server, released, run, capsys):
    every = len(TROUBLES) + 10
    server.trouble = lambda number, attempt: (
        TROUBLES[number % every] if number % every < len(TROUBLES) and attempt <= 1 + number % 2 else ""
    )
    path = evaluate(server, released, run, timeout=2.0, concurrency=16)
    records = read_records(path)
    assert len(records) == 1136 and sorted(one.id for one in records) == ids(released)
    assert len(server.given) == 1136 and set(server.given.values()) == {1}, "no answer is paid twice"
    assert sum(server.asked.values()) > 1136 + 500, "much did go wrong"
    refused = [one for one in records if one.refused]
    assert len(refused) > 100 and all(one.answer is None and one.text for one in refused)
    assert all(one.answer and one.p_yes is not None for one in records if not one.refused)
    assert not path.with_suffix(".unanswered.jsonl").exists()
    assert f"large: 1136 answers, {len(refused)} of them refusals" in capsys.readouterr().out


def test_a_record_holds_what_was_answered_from_what_and_by_what(server, few, run):
    for one in read_records(evaluate(server, few, run)):
        assert (one.arm, one.seed, one.served) == ("large", 0, f"m, {LABEL}")
        assert one.text == ANSWER.format(one.answer) and one.finish == "stop" and not one.refused
        assert one.p_yes == pytest.approx({"yes": 0.8, "no": 0.2}[one.answer])
        assert (one.prompt_tokens, one.completion_tokens) == (500, 20) and one.seconds > 0
        assert all(side % 28 == 0 for size in one.pixels for side in size)


def test_a_request_shows_the_pixels_and_the_words_that_every_arm_sees(server, few, run):
    evaluate(server, few, run)
    data = profile(server).data
    folder = few / "mvtec_loco_anomaly_detection"
    seen = {}
    for one in pair(read_dataset(few, "mvtec_loco"), 0):
        paths = (folder / path for path in (one.reference, one.test.image))
        reference, test = (view(path, data.min_pixels, data.max_pixels) for path in paths)
        seen[test.tobytes()] = (reference, test)
    assert len(seen) == len(server.bodies) == 30
    for body in server.bodies:
        sent = images_of(body)
        for one, other in zip(sent, seen[sent[1].tobytes()], strict=True):
            assert one.mode == "RGB" and one.size == other.size and not ImageChops.difference(one, other).getbbox()
        kinds = [part["type"] for part in body["messages"][0]["content"]]
        assert kinds == ["image_url", "image_url", "text"] and body["messages"][0]["content"][2]["text"] == QUESTION
        assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 24, "m")
    assert server.paths == {"/v1/chat/completions"}


def test_without_logprobs_p_yes_is_null_and_they_need_not_be_asked_for(server, few, run):
    server.logprobs = False
    assert {one.p_yes for one in read_records(evaluate(server, few, run))} == {None}
    assert {body["top_logprobs"] for body in server.bodies} == {20}
    server.bodies.clear()
    evaluate(server, few, RunFolder(run.root / "other"), top_logprobs=0, extra={"repetition_penalty": 1.0})
    assert all("logprobs" not in body and body["repetition_penalty"] == 1.0 for body in server.bodies)


def test_a_limit_asks_for_the_pairs_that_every_arm_judges(server, few, run):
    path = endpoint.evaluate(profile(server), few, run, 0, limit=3)
    chosen = select(pair(read_dataset(few, "mvtec_loco"), 0), 3)
    assert sorted(one.id for one in read_records(path)) == sorted(one.id for one in chosen) and len(chosen) == 6


# Going on


KILLED = """
import sys
from pathlib import Path
from ladlib import endpoint
from ladlib.runs import RunFolder
from ladlib.config import load_profile
values = {"evaluate.limit": 0, "endpoint.url": sys.argv[1], "endpoint.label": "FP8, vLLM 0.11", "endpoint.model": "m",
          "endpoint.concurrency": 4}
endpoint.evaluate(load_profile("smoke", **values), Path(sys.argv[2]), RunFolder(sys.argv[3]), 0)
"""


def test_a_killed_run_goes_on_without_asking_again(server, released, run):
    server.trouble = lambda number, attempt: time.sleep(0.02) or ("500" if number % 9 == 1 and attempt == 1 else "")
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(released), str(run.root)])
    path, deadline = run.generations("large", 0), time.monotonic() + 40
    while not path.exists() or path.read_text().count("\n") < 60:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # what was on its way arrives
    server.trouble = lambda number, attempt: ""
    kept = [row["id"] for row in read_jsonl(path)]
    assert 60 <= len(kept) < 1136
    asked = sum(server.asked.values())
    evaluate(server, released, run, concurrency=16)
    records = read_records(path)
    assert sorted(one.id for one in records) == ids(released)
    assert [one.id for one in records][: len(kept)] == kept
    assert sum(server.asked.values()) - asked == 1136 - len(kept)
    assert len(server.given) == 1136
    assert sum(server.given.values()) - 1136 <= 4, "answered twice: only what was on its way when it was killed"


def test_a_finished_run_asks_nothing_and_needs_no_server(server, few, run):
    evaluate(server, few, run)
    asked = dict(server.asked)
    endpoint.evaluate(profile(server, url="http://127.0.0.1:9/v1"), few, run, 0)
    assert dict(server.asked) == asked


def test_answers_that_were_paid_for_are_not_thrown_away(server, few, run):
    path = evaluate(server, few, run)
    before = path.read_text()
    with pytest.raises(UserError, match=f"holds 30 answers of m, {LABEL} with another model") as error:
        evaluate(server, few, run, label="AWQ, vLLM 0.11")
    assert "move the file elsewhere" in error.value.hint and path.read_text() == before
    evaluate(server, few, run, timeout=9.0, input_price=1.0)  # what changes no answer


# What cannot be answered


def test_a_pair_that_cannot_be_answered_is_named_kept_apart_and_asked_again_alone(server, few, run):
    server.trouble = lambda number, attempt: "400" if number in (3, 7) else ""
    with pytest.raises(UserError, match="large: 2 of 30 pairs have no answer, first .*HTTP 400: bad image") as error:
        evaluate(server, few, run)
    path = run.generations("large", 0)
    assert "28 of 30 pairs are answered and kept" in error.value.what and len(read_records(path)) == 28
    unanswered = path.with_suffix(".unanswered.jsonl")
    assert str(unanswered) in error.value.hint
    left = {row["id"] for row in read_jsonl(unanswered)}
    assert len(left) == 2 and left | {one.id for one in read_records(path)} == set(ids(few))
    server.trouble = lambda number, attempt: ""
    asked = sum(server.asked.values())
    evaluate(server, few, run)
    assert sum(server.asked.values()) == asked + 2 and len(read_records(path)) == 30 and not unanswered.exists()


@pytest.mark.parametrize(
    ("trouble", "told", "hint"),
    [
        ("401", "HTTP 401: Incorrect API key", "LADLIB_API_KEY"),
        ("404", "HTTP 404: The model does not exist", "endpoint.model"),
        ("no credit", "HTTP 429: You exceeded your quota", "Top up"),
        ("429 for a day", "asks to wait 1440 minutes", "Run again after that time"),
    ],
)
def test_a_wrong_key_model_or_empty_account_stops_at_once(server, few, run, trouble, told, hint):
    server.trouble = lambda number, attempt: trouble if number >= 5 else ""
    with pytest.raises(UserError, match=told) as error:
        evaluate(server, few, run)
    assert hint in error.value.hint and "pairs are answered and kept" in error.value.what
    assert sum(server.asked.values()) <= 5 + 2 * 4
    kept = len(read_records(run.generations("large", 0)))
    assert kept == sum(server.given.values()) >= 1 and f" {kept} of 30 pairs are" in error.value.what


def test_an_endpoint_that_answers_nothing_is_given_up_soon(server, few, run):
    server.trouble = lambda number, attempt: "400"
    with pytest.raises(UserError, match="left 10 pairs in a row without an answer: HTTP 400"):
        evaluate(server, few, run)
    assert sum(server.asked.values()) <= 10 + 2 * 4


def test_attempts_at_one_pair_come_to_an_end(server, few, run):
    server.trouble = lambda number, attempt: "500" if number == 2 else ""
    with pytest.raises(UserError, match="1 of 30 pairs have no answer, first .*HTTP 500"):
        evaluate(server, few, run)
    assert max(server.asked.values()) == client.ATTEMPTS


def test_a_prompt_that_a_filter_turns_away_is_a_refusal(server, few, run):
    server.trouble = lambda number, attempt: "filtered prompt" if number == 0 else ""
    (one,) = [one for one in read_records(evaluate(server, few, run)) if one.refused]
    assert (one.text, one.answer, one.p_yes) == ("The prompt was filtered.", None, None)


def test_without_an_address_there_is_one_line(server, few, run):
    with pytest.raises(UserError, match="names no endpoint"):
        evaluate(server, few, run, url="")


# Pace


def test_requests_keep_to_the_rate_and_wait_as_long_as_they_are_told(server, few, run):
    server.trouble = lambda number, attempt: "429 with a time" if number == 0 and attempt == 1 else ""
    begun = time.monotonic()
    evaluate(server, few, run, requests_per_minute=1200, concurrency=8)
    assert time.monotonic() - begun >= 30 * 0.05  # 31 requests, 50 ms apart


def test_a_hold_delays_every_request_that_comes_after_it():
    import threading

    pace = Pace(0, threading.Event())
    pace.wait()
    pace.hold(0.2)
    begun = time.monotonic()
    pace.wait()
    assert 0.19 <= time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("", 0.0), ("soon", 0.0), ("-1", 0.0), ("nan", 0.0),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)  # fmt: skip
def test_retry_after_is_a_number_a_date_or_nothing(header, seconds):
    assert retry_after(header) == seconds


def test_a_retry_after_date_ahead_is_waited_for():
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9


def test_an_address_at_which_nothing_listens_is_told_before_the_first_request(server, few, run):
    with pytest.raises(UserError, match=r"cannot be reached: .*0 of 30 pairs are answered and kept"):
        evaluate(server, few, run, url="http://localhost:9/v1")


# Cost


def test_cost_and_time_are_told_before_the_first_request(server, few, run, capsys, monkeypatch):
    told = []
    server.trouble = lambda number, attempt: told.append(capsys.readouterr().out) or "401"
    with pytest.raises(UserError):
        evaluate(server, few, run, input_price=1000.0, output_price=5000.0, requests_per_minute=6000, concurrency=1)
    first, second = told[0].splitlines()
    assert first == f"large: 30 requests to {server.url[7:-3]} for m, {LABEL}; 1 at a time, no key"
    # two images of 12 tokens or so, 99 for the words; 24 at most said back
    assert second.startswith("large: about 0.00 million tokens in, at most 0.00 million out: at most $")
    assert second.endswith("; about 5 min, if a request takes 10 s")
    dollars = float(second.split("$")[1].split(";")[0])
    assert 30 * 24 * 0.005 + 30 * (2 * 12 + 80) * 0.001 < dollars < 30 * 24 * 0.005 + 30 * (2 * 20 + 130) * 0.001


def test_an_unknown_price_is_said_to_be_unknown(server, few, run, capsys):
    evaluate(server, few, run)
    assert capsys.readouterr().out.count("price not known") == 2


# The key


def texts(folder):
    return [path.read_text() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", client.KEYS)
def test_the_key_reaches_the_server_and_nothing_else(server, few, run, monkeypatch, capfd, caplog, name):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(name, f" {KEY}\n")
    server.echo = f"Bearer {KEY}"  # a server that repeats all it is sent, in answers and in errors
    server.trouble = lambda number, attempt: "400" if number == 4 else "429" if attempt == 1 else ""
    with pytest.raises(UserError) as failed:
        evaluate(server, few, run)
    written = texts(run.root)
    assert len(written) == 3 and len(read_records(run.generations("large", 0))) == 29
    server.trouble = lambda number, attempt: "401"
    with pytest.raises(UserError, match=r"Incorrect API key provided: Bearer \[key\]") as refused:
        evaluate(server, few, run)
    assert server.keys == {f"Bearer {KEY}"}
    out, err = capfd.readouterr()
    assert f"key from {name}" in out
    for text in (out, err, caplog.text, str(failed.value), str(refused.value), *written, *texts(run.root)):
        assert KEY not in text


def test_a_key_that_cannot_be_one_is_refused_without_being_shown(server, few, run, monkeypatch):
    monkeypatch.setenv("LADLIB_API_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(UserError, match="LADLIB_API_KEY holds characters that no key has") as error:
        evaluate(server, few, run)
    assert KEY not in str(error.value) and not server.asked


def test_a_placeholder_is_no_secret_and_changes_no_answer(server, few, run, monkeypatch):
    monkeypatch.setenv("LADLIB_API_KEY", "made")
    assert all("made up" in one.text for one in read_records(evaluate(server, few, run)))


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", f"http://user:{KEY}@host/v1", f"http://h?key={KEY}"]
)
def test_an_address_that_is_none_or_holds_a_key_is_refused_without_being_shown(url):
    with pytest.raises(UserError, match="endpoint.url: Value error, an address") as error:
        load_profile("toy", **{"endpoint.url": url})
    assert KEY not in str(error.value)


def test_no_file_of_a_toy_run_changes_without_an_endpoint():
    assert load_profile("toy").endpoint.url == load_profile("paper").endpoint.url == ""
    assert json.loads(load_profile("toy").model_dump_json())["endpoint"]["input_price"] is None
