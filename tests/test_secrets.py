"""A key that is planted in the environment is found nowhere: no file, no output, no executed notebook, no error."""

import json
import logging
from pathlib import Path

import httpx
import papermill
import pytest
from chat_server import ChatServer
from layouts import write_pairs
from made_up import made_up_run
from papermill.exceptions import PapermillExecutionError

from ladlib import endpoint
from ladlib.config import load_profile
from ladlib.endpoint import client
from ladlib.endpoint.client import Client, Unanswered
from ladlib.errors import UserError
from ladlib.runs import RunFolder

KEY = "sk-planted/0123456789+abcdef"  # JSON may spell "/" and "+" otherwise
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_compare_72b.ipynb"
TROUBLES = ("", "401", "400", "404", "500", "429 for a day", "no credit", "malformed", "refusal", "filtered prompt")


def spellings():
    """The key as it is, and as encodings of text, JSON and addresses spell it."""
    every = {KEY, json.dumps(KEY).replace("/", "\\/"), KEY.replace("/", "%2F"), KEY.encode().hex()}
    return [one.strip('"').encode() for one in every] + [b"planted"]


def held(folder):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [path for path in files if any(one in path.read_bytes() for one in spellings())]


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("LADLIB_API_KEY", KEY)


@pytest.fixture
def server():
    one = ChatServer()
    one.echo = f"Bearer {KEY}"
    yield one
    one.close()


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("few"), 3, 3)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_answer_and_no_error_of_a_server_brings_the_key_into_a_file_or_an_output(
    server, few, tmp_path, capfd, caplog, trouble
):
    caplog.set_level(logging.DEBUG)
    server.trouble = lambda number, attempt: trouble
    values = {"url": server.url, "model": "m", "timeout": 5.0, "concurrency": 2}
    profile = load_profile("smoke", **{f"endpoint.{name}": value for name, value in values.items()})
    told = ""
    try:
        endpoint.evaluate(profile, few, RunFolder(tmp_path), 0)
    except UserError as error:
        told = str(error)
    assert bool(told) == (trouble not in ("", "refusal", "filtered prompt"))
    assert server.keys == {f"Bearer {KEY}"}, "it was sent"
    shown = "".join([told, *capfd.readouterr(), caplog.text]).encode()
    assert not [one for one in spellings() if one in shown] and held(tmp_path) == []


@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_key_that_a_server_spells_in_escapes_is_struck_out(server, status):
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    message = f'{{"content": "a {escaped} b"}}'
    body = f'{{"choices": [{{"message": {message}}}], "error": {{"message": "a {escaped} b"}}}}'
    asked = Client(load_profile("smoke", **{"endpoint.url": server.url}).endpoint)
    try:
        told = asked._read(httpx.Response(status), asked._struck(body)).text
    except (UserError, Unanswered) as error:
        told = str(error)
    assert "a [key] b" in told and KEY not in told


def test_what_a_client_shows_of_itself_is_not_its_key(server):
    asked = Client(load_profile("smoke", **{"endpoint.url": server.url}).endpoint)
    assert KEY not in f"{asked!r} {asked} {asked.http!r} {asked.http.headers!r}"


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["", "401", "500"])
def test_no_executed_notebook_holds_the_key(server, tmp_path, capfd, trouble):
    server.trouble = lambda number, attempt: trouble
    run = made_up_run(tmp_path / "run", profile="smoke")
    run.notebooks.mkdir()
    given = {"profile": "smoke", "run": str(run.root), "large_endpoint": server.url, "large_model": "m"}
    try:
        papermill.execute_notebook(NOTEBOOK, run.notebooks / NOTEBOOK.name, given, progress_bar=False)
        failed = ""
    except PapermillExecutionError as error:
        failed = str(error)
    assert bool(failed) == bool(trouble) and (run.notebooks / NOTEBOOK.name).is_file()
    shown = "".join([failed, *capfd.readouterr()]).encode()
    assert not [one for one in spellings() if one in shown] and held(tmp_path) == []
