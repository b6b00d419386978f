"""The large model through an endpoint, against a real server that stalls, refuses, cuts and lies; and its key."""

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import papermill
import pytest
from chat_server import ANSWER, TROUBLES, ChatServer, images_of
from layouts import write_pairs
from made_up import made_up_run
from papermill.exceptions import PapermillExecutionError
from PIL import Image, ImageChops
from tiny import tiny_profile

from ladlib import endpoint, evaluate, generate
from ladlib.config import load_profile
from ladlib.data import read_dataset
from ladlib.data.images import view
from ladlib.data.pairing import pair
from ladlib.errors import UserError
from ladlib.prompts import QUESTION
from ladlib.records import Generation
from ladlib.runs import RunFolder, read_jsonl
from ladlib.toy.datasets import write_datasets

LABEL = "FP8, vLLM 0.11"
KEY = "sk-planted/0123456789+abcdef"  # JSON may spell "/" and "+" otherwise
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_compare_72b.ipynb"
EVERY = 300  # pairs: enough for each trouble to come often


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("many"), EVERY // 2, EVERY // 2)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("few"), 15, 15)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)
    monkeypatch.setattr(endpoint, "TIMEOUT", 5.0)
    for name in endpoint.KEYS:
        monkeypatch.delenv(name, raising=False)
    one = ChatServer()
    yield one
    one.close()


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def profile(server, **changes):
    """The smoke profile with ``server`` as its endpoint; ``a=v`` changes ``endpoint.a``."""
    changes = {"url": server.url, "label": LABEL, "model": "m", "concurrency": 4} | changes
    return load_profile("smoke", **{"evaluate.limit": 0} | {f"endpoint.{name}": v for name, v in changes.items()})


def ask(server, data, run, limit=None, **changes):
    return evaluate.evaluate(profile(server, **changes), data, run, 0, arm="large", endpoint=True, limit=limit)


def records(path):
    return [Generation.model_validate(row) for row in read_jsonl(path)]


def ids(data):
    return sorted(one.id for one in pair(read_dataset(data, "mvtec_loco"), 0))


# What is asked and stored


def test_every_pair_is_answered_exactly_once_whatever_goes_wrong_on_the_way(server, many, run, capsys, monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT", 2.0)
    every = len(TROUBLES) + 10
    server.trouble = lambda number, attempt: (
        TROUBLES[number % every] if number % every < len(TROUBLES) and attempt <= 1 + number % 2 else ""
    )
    path = ask(server, many, run, concurrency=16)
    found = records(path)
    assert len(found) == EVERY and sorted(one.id for one in found) == ids(many)
    assert len(server.given) == EVERY and set(server.given.values()) == {1}, "no answer is paid twice"
    assert sum(server.asked.values()) > 1.4 * EVERY, "much did go wrong"
    refused = [one for one in found if one.refused]
    assert len(refused) > 20 and all(one.answer is None and one.text for one in refused)
    assert all(one.answer and one.p_yes is not None for one in found if not one.refused)
    assert f"large: {EVERY} answers, {len(refused)} of them refusals" in capsys.readouterr().out


def test_a_record_holds_what_was_answered_by_what(server, few, run, capsys):
    for one in records(ask(server, few, run)):
        assert (one.arm, one.seed, one.served, one.finish) == ("large", 0, f"m, {LABEL}", "stop")
        assert one.text == ANSWER.format(one.answer) and one.p_yes == pytest.approx({"yes": 0.8, "no": 0.2}[one.answer])
        assert (one.prompt_tokens, one.completion_tokens) == (500, 20) and one.seconds > 0
    assert f"large: 30 requests to {server.url[7:-3]}; 4 at a time, no key" in capsys.readouterr().out


def test_a_request_shows_the_pixels_and_the_words_that_every_arm_sees(server, few, run):
    ask(server, few, run)
    data, folder, seen = profile(server).data, few / "mvtec_loco_anomaly_detection", {}
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
    assert server.paths == {"/v1/chat/completions"} and server.keys == {None}


def test_a_server_with_the_models_own_template_gives_it_the_prompt_of_the_local_arms(few):
    _, processor = generate.load(tiny_profile())
    turn = endpoint.message(QUESTION, [view(path, 3136, 15680) for path in sorted(few.rglob("train/good/*.png"))[:2]])
    # As vLLM does: a template sees that there is an image, not which.
    parts = [{"type": "image"} if part["type"] == "image_url" else part for part in turn["content"]]
    seen = [turn | {"content": parts}]
    rendered = processor.tokenizer.apply_chat_template(seen, tokenize=False, add_generation_prompt=True)
    assert rendered == generate.render_prompt(processor)


def test_without_logprobs_p_yes_is_null_and_they_need_not_be_asked_for(server, few, run):
    server.logprobs = False
    assert {one.p_yes for one in records(ask(server, few, run, limit=1))} == {None}
    assert {body.pop("top_logprobs") for body in server.bodies} == {20}
    ask(server, few, RunFolder(run.root / "other"), limit=1, extra={"repetition_penalty": 1.0, "logprobs": False})
    assert "top_logprobs" not in server.bodies[-1] and server.bodies[-1]["repetition_penalty"] == 1.0


# Resuming


KILLED = """
import sys
from pathlib import Path
from ladlib import evaluate
from ladlib.runs import RunFolder
from ladlib.config import load_profile
values = {"evaluate.limit": 0, "endpoint.url": sys.argv[1], "endpoint.label": "FP8, vLLM 0.11", "endpoint.model": "m",
          "endpoint.concurrency": 4}
run = RunFolder(sys.argv[3])
evaluate.evaluate(load_profile("smoke", **values), Path(sys.argv[2]), run, 0, arm="large", endpoint=True)
"""


def test_a_killed_run_resumes_without_asking_again(server, many, run):
    server.trouble = lambda number, attempt: time.sleep(0.02) or ("500" if number % 9 == 1 and attempt == 1 else "")
    process = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(many), str(run.root)])
    path = run.generations("large", 0)
    while not path.exists() or path.read_text().count("\n") < 40:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(0.3)  # what was on its way arrives
    server.trouble = lambda number, attempt: ""
    kept = [row["id"] for row in read_jsonl(path)]
    assert 40 <= len(kept) < EVERY
    asked = sum(server.asked.values())
    ask(server, many, run, concurrency=16)
    found = [one.id for one in records(path)]
    assert sorted(found) == ids(many) and found[: len(kept)] == kept
    assert sum(server.asked.values()) - asked == EVERY - len(kept)
    assert sum(server.given.values()) - EVERY <= 4, "answered twice: only what was on its way when it was killed"
    asked = dict(server.asked)
    ask(server, many, run, url="http://127.0.0.1:9/v1")  # a finished run asks nothing and needs no server
    assert dict(server.asked) == asked


def test_answers_that_were_paid_for_are_not_thrown_away(server, few, run):
    path = ask(server, few, run)
    before = path.read_text()
    with pytest.raises(UserError, match=f"holds 30 answers of m, {LABEL} with another model") as error:
        ask(server, few, run, label="AWQ, vLLM 0.11")
    assert "move the file elsewhere" in error.value.hint and path.read_text() == before
    ask(server, few, run, concurrency=2)  # what changes no answer


# What cannot be answered


def test_a_pair_that_cannot_be_answered_is_named_and_asked_again_alone(server, few, run, capsys):
    server.trouble = lambda number, attempt: "400" if number in (3, 7) else ""
    with pytest.raises(UserError, match="large: 2 of 30 pairs have no answer, first .*HTTP 400: bad image") as error:
        ask(server, few, run)
    path = run.generations("large", 0)
    assert "28 of 30 pairs are answered and kept" in error.value.what and len(records(path)) == 28
    named = re.findall(r"no answer about (\S+): HTTP 400: bad image", capsys.readouterr().out)
    assert len(named) == 2 and sorted([*named, *(one.id for one in records(path))]) == ids(few)
    server.trouble = lambda number, attempt: ""
    asked = sum(server.asked.values())
    ask(server, few, run)
    assert sum(server.asked.values()) == asked + 2 and len(records(path)) == 30


@pytest.mark.parametrize(
    ("trouble", "message", "hint"),
    [
        ("401", "HTTP 401: Incorrect API key", "LADLIB_API_KEY"),
        ("404", "HTTP 404: The model does not exist", "endpoint.model"),
        ("redirect", "HTTP 307", "address it leads to"),
        ("no credit", "HTTP 429: You exceeded your quota", "Top up"),
        ("429 for a day", "asks to wait 1440 minutes", "Run again after that time"),
    ],
)
def test_a_wrong_key_model_or_address_or_an_empty_account_stops_at_once(server, few, run, trouble, message, hint):
    server.trouble = lambda number, attempt: trouble if number >= 5 else ""
    with pytest.raises(UserError, match=message) as error:
        ask(server, few, run)
    assert hint in error.value.hint and sum(server.asked.values()) <= 5 + 2 * 4
    count = len(records(run.generations("large", 0)))
    assert count == sum(server.given.values()) >= 1 and f" {count} of 30 pairs are answered" in error.value.what


def test_an_endpoint_that_answers_nothing_is_given_up_soon(server, few, run):
    server.trouble = lambda number, attempt: "400"
    with pytest.raises(UserError, match="left 10 pairs in a row without an answer: HTTP 400"):
        ask(server, few, run)
    assert sum(server.asked.values()) <= 10 + 2 * 4


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("error", "is no chat completion: .*upstream failed"), ("stream", "data: "), ("tool", "has no words: .*look")],
)
def test_a_server_whose_responses_cannot_be_read_is_given_up_after_the_first_few(server, few, run, trouble, words):
    server.trouble = lambda number, attempt: trouble
    with pytest.raises(UserError, match=f"sent 5 responses and none that can be read: .*{words}.*0 of 30 pairs are"):
        ask(server, few, run)
    assert sum(server.asked.values()) <= 5 + 2 * 4 and not records(run.generations("large", 0))


def test_an_answer_without_words_is_not_stored_and_not_asked_for_again_in_the_same_run(server, few, run):
    server.trouble = lambda number, attempt: "tool" if number == 3 else ""
    with pytest.raises(UserError, match="1 of 30 pairs have no answer, first .*has no words"):
        ask(server, few, run)
    assert max(server.asked.values()) == 1 and len(records(run.generations("large", 0))) == 29


def test_a_null_in_extra_takes_a_field_out(server, few, run):
    extra = {"max_tokens": None, "top_logprobs": None, "max_completion_tokens": 24, "template": {"thinking": None}}
    ask(server, few, run, limit=1, extra=extra)
    body = server.bodies[-1]
    assert not {"max_tokens", "top_logprobs"} & set(body) and body["logprobs"]
    assert (body["max_completion_tokens"], body["template"]) == (24, {"thinking": None})


def test_the_time_limit_counts_from_the_first_byte_to_the_last(server, few, run, monkeypatch):
    monkeypatch.setattr(endpoint, "TIMEOUT", 1.0)
    server.trouble = lambda number, attempt: "drip header"
    monkeypatch.setattr(endpoint, "ATTEMPTS", 1)
    with pytest.raises(UserError, match="the response is not whole within 1 s"):
        ask(server, few, run, limit=1, concurrency=16)


def test_a_proxy_that_cannot_be_used_is_named(server, few, run, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "zork://me:secret@x")
    with pytest.raises(UserError, match="The proxy that the environment names cannot be used") as error:
        ask(server, few, run)
    assert "secret" not in str(error.value)


def test_attempts_at_one_pair_come_to_an_end_and_a_filtered_prompt_is_a_refusal(server, few, run):
    first = {0: "filtered prompt", 2: "500", 4: "429 for ever"}
    server.trouble = lambda number, attempt: first.get(number, "") if attempt == 1 or number == 2 else ""
    with pytest.raises(UserError, match="1 of 30 pairs have no answer, first .*HTTP 500"):
        ask(server, few, run)
    assert max(server.asked.values()) == endpoint.ATTEMPTS
    (one,) = [one for one in records(run.generations("large", 0)) if one.refused]
    assert (one.text, one.answer, one.p_yes) == ("The prompt was filtered.", None, None)


@pytest.mark.parametrize(
    ("url", "message"),
    [("", "names no endpoint"), ("http://localhost:9/v1", "cannot be reached: .*0 of 30 pairs are answered and kept")],
)
def test_without_a_server_there_is_one_line(server, few, run, url, message):
    with pytest.raises(UserError, match=message):
        ask(server, few, run, url=url)


def test_every_request_waits_as_long_as_one_was_told_to(server, few, run):
    times = []
    server.trouble = lambda number, attempt: times.append(time.monotonic()) or ("429 with a time" * (len(times) == 1))
    ask(server, few, run, limit=1, concurrency=1)
    assert times[1] - times[0] >= 0.3


# The key: no file, no output, no executed notebook and no error holds it


def spellings():
    """The key as it is, and as encodings of text, JSON and addresses spell it."""
    every = {KEY, json.dumps(KEY).replace("/", "\\/"), KEY.replace("/", "%2F"), KEY.encode().hex()}
    every |= {KEY.upper(), KEY.upper().replace("/", "&#47;")}
    return [one.strip('"').encode() for one in every] + [b"planted"]


def assert_nowhere(folder, *texts):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    for held in [*(text.encode() for text in texts), *(path.read_bytes() for path in files)]:
        assert not [one for one in spellings() if one in held]


@pytest.fixture
def echoing(server, monkeypatch):
    """A server that repeats the key it is sent, in answers and in errors."""
    monkeypatch.setenv("LADLIB_API_KEY", f" {KEY}\n")
    server.echo = f"Bearer {KEY}"
    return server


FAILS = ("401", "400", "404", "500", "429 for a day", "no credit", "malformed", "no HTTP")


@pytest.mark.parametrize("trouble", ["", *FAILS, "refusal", "filtered prompt", "escaped key", "escaped error"])
def test_the_key_reaches_the_server_and_nothing_else(echoing, few, tmp_path, capfd, caplog, trouble):
    caplog.set_level(logging.INFO if trouble == "no HTTP" else logging.DEBUG)  # httpcore logs the line as it came
    echoing.trouble = lambda number, attempt: trouble
    message, chain = "", []
    try:
        ask(echoing, few, RunFolder(tmp_path), limit=2, concurrency=2)
    except UserError as error:
        message = str(error)
        while error := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
            chain.append(f"{error!r} {error}")  # what a traceback shows
    assert bool(message) == (trouble in (*FAILS, "escaped error"))
    assert echoing.keys == {f"Bearer {KEY}"}, "it was sent"
    output = "".join(capfd.readouterr())
    assert "key from LADLIB_API_KEY" in output
    assert_nowhere(tmp_path, message, *chain, output, caplog.text)
    if trouble == "escaped key":
        assert {row["text"] for row in read_jsonl(RunFolder(tmp_path).generations("large", 0))} == {"a [key] b"}


def test_either_name_of_the_key_works_what_cannot_be_one_is_refused_and_a_placeholder_is_no_secret(
    server, few, run, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "made")
    assert all("made up" in one.text for one in records(ask(server, few, run, limit=1)))
    assert server.keys == {"Bearer made"}
    monkeypatch.setenv("LADLIB_API_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(UserError, match="LADLIB_API_KEY holds characters that no key has") as error:
        ask(server, few, RunFolder(run.root / "other"))
    assert KEY not in str(error.value)


# Notebook 05


def execute(run, server, **parameters):
    given = {"profile": "smoke", "run": str(run.root), "large_endpoint": server.url, "large_model": "Qwen/72B"}
    run.notebooks.mkdir()
    write_datasets(run.data, load_profile("smoke").toy)
    for name in ("good", "test"):  # the images of the records that are made up
        Image.new("RGB", (28, 28)).save(run.data / "mvtec_loco_anomaly_detection" / f"{name}.png")
    papermill.execute_notebook(NOTEBOOK, run.notebooks / NOTEBOOK.name, given | parameters, progress_bar=False)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["", "401"])
def test_notebook_05_asks_the_server_and_holds_no_key(echoing, tmp_path, capfd, trouble):
    echoing.trouble = lambda number, attempt: trouble
    run, failed = made_up_run(tmp_path / "run", profile="smoke"), ""
    try:
        execute(run, echoing, large_label="AWQ, SGLang 0.5")
    except PapermillExecutionError as error:
        failed = str(error)
    assert bool(failed) == bool(trouble) and (run.notebooks / NOTEBOOK.name).is_file()
    assert_nowhere(tmp_path, failed, *capfd.readouterr())
    if not trouble:
        assert len(records(run.generations("large", 0))) == len(echoing.asked) == 15  # one of each category and kind
        row = "large (Qwen/72B, AWQ, SGLang 0.5)"
        assert row in (run.tables / "comparison.csv").read_text() and row in run.report.read_text()
        assert run.read().parameters["endpoint.label"] == "AWQ, SGLang 0.5"
