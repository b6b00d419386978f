"""The data of stage 1 built as a file: by template, by a server that stalls and babbles, and after a review."""

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from importlib.resources import files

import chat_server
import pytest
from chat_server import ChatServer, choice
from layouts import mmad_entry, write_ad, write_mmad, write_visa
from test_cli import refused
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.config import load_profile
from ladlib.conversations import make_conversations
from ladlib.doctor import examine
from ladlib.endpoint import client
from ladlib.endpoint.writing import read_reply
from ladlib.errors import UserError
from ladlib.held_out import held_out
from ladlib.pipeline.inputs import _sft_file
from ladlib.report.tables import departures
from ladlib.review import apply_review, write_page
from ladlib.runs import read_jsonl
from ladlib.sft_file import read_written

CAPTION = "<caption>Two cores, one is cut </caption>"
QUESTION = "<question>How many cores?</question>\n<answer>Two, one is cut.</answer>"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12 test images with a question and a caption each."""
    root = tmp_path_factory.mktemp("data")
    write_ad(root / "mvtec_anomaly_detection", normals={"train": 2, "test": 4}, defects={"missing_cable": 4})
    write_visa(root / "visa", test=2)
    images = [
        f"DS-MVTec/cable/image/{kind}/{number:03d}.png" for kind in ("good", "missing_cable") for number in range(4)
    ]
    images += [f"VisA/pcb4/test/good/{number:04d}.JPG" for number in (2, 3)]
    images += [f"VisA/pcb4/test/bad/{number:03d}.JPG" for number in (0, 1)]
    folder = write_mmad(root / "mmad", {image: mmad_entry("A") for image in images})
    for number, image in enumerate(images):
        path = (folder / image).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'Caption "{number}", <b>bold</b> & </script> \u2028 end.', encoding="utf-8")
    return root


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(client, "PAUSE", 0.01)
    for name in client.KEYS:
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
    return sft(data, out, "--writer", "endpoint", "--endpoint", server.url, "--model", "m", "--timeout", 1, *more)


def write_review(path, *rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "decision", "question", "answer"), *rows])
    return path


def trained_on(file, **changes):
    return load_profile("smoke", **{"data.sft_file": str(file)} | changes)


# By template


def test_the_template_writes_the_same_bytes_again_and_other_ones_for_another_seed(data, tmp_path):
    made = make_conversations(load_profile("smoke"), data, 0)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = sft(data, tmp_path / name, "--seed", seed)
        assert result.exit_code == 0 and f"{len(made)} of {len(made)} conversations" in result.output
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other
    rows = read_written(tmp_path / "a")
    assert [(one.pair, one.kind, one.question, one.answer) for one in rows] == [
        (one.pair, one.kind, one.question, one.answer) for one in made
    ]
    assert {one.writer for one in rows} == {"template"} and {one.prompt_sha256 for one in rows} == {""}
    assert all(one.prior.answer == one.answer and len(one.images_sha256[1]) == 64 for one in rows)


# By endpoint


def test_the_endpoint_sees_both_images_and_the_prior_and_is_told_to_look_beyond_it(data, tmp_path, server):
    result = asked(data, tmp_path / "sft.jsonl", server, "--input-price", 1, "--output-price", 2)
    assert result.exit_code == 0, result.output
    rows = read_written(tmp_path / "sft.jsonl")
    assert len(rows) == len(server.bodies) == len(make_conversations(load_profile("smoke"), data, 0))
    sent = {hashlib.sha256(words_of(body).encode()).hexdigest(): words_of(body) for body in server.bodies}
    for one in rows:
        text = sent[one.prompt_sha256]
        assert one.prior.answer in text and (one.kind == "Caption" or one.prior.question in text)
        assert "Look beyond it" in text and "merge what you see with what is known" in text
        assert one.writer == "m" and one.question.startswith("The first image shows a normal product.")
        assert one.answer == ("Two cores, one is cut" if one.kind == "Caption" else "Two, one is cut.")
    for body in server.bodies:
        assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "image_url", "text"]
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 1024) and "logprobs" not in body


def test_tokens_and_cost_are_told_before_the_first_request(data, tmp_path, server, capsys):
    server.trouble = lambda number, attempt: "401"
    result = asked(data, tmp_path / "sft.jsonl", server, "--input-price", 1000, "--output-price", 2000)
    assert result.exit_code == 2 and "HTTP 401" in result.stderr
    count = len(make_conversations(load_profile("smoke"), data, 0))
    assert f"sft data: {count} requests to {server.url[7:-3]} for m; 8 at a time, no key" in result.output
    assert f"at most {count * 1024 / 1e6:.2f} million out: at most $" in result.output
    assert not (tmp_path / "sft.jsonl").exists()


def test_whatever_goes_wrong_on_the_way_each_is_written_once_and_a_second_build_asks_nobody(data, tmp_path, server):
    troubles = ("stall", "429", "429 with a time", "500", "cut", "malformed", "no choices", "hang up", "")
    server.trouble = lambda number, attempt: troubles[number % len(troubles)] if attempt == 1 else ""
    first = asked(data, tmp_path / "sft.jsonl", server)
    assert first.exit_code == 0, first.output
    made = (tmp_path / "sft.jsonl").read_bytes()
    assert set(server.given.values()) == {1} and len(server.given) == len(read_written(tmp_path / "sft.jsonl"))
    count = sum(server.asked.values())
    assert asked(data, tmp_path / "other.jsonl", server).exit_code == 0
    assert sum(server.asked.values()) == count and (tmp_path / "other.jsonl").read_bytes() == made


def test_a_killed_build_goes_on_and_asks_only_for_what_is_missing(data, tmp_path, server):
    server.trouble = lambda number, attempt: time.sleep(0.3) or ""
    command = [sys.executable, "-m", "ladlib", "data", "sft", "--data", data, "--out", tmp_path / "sft.jsonl"]
    options = ["--profile", "smoke", "--writer", "endpoint", "--endpoint", server.url, "--model", "m"]
    process = subprocess.Popen([str(one) for one in (*command, *options, "--concurrency", 1)])
    replies, deadline = tmp_path / "sft-replies.jsonl", time.monotonic() + 60
    while len(read_jsonl(replies)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with replies.open("a") as file:
        file.write('{"key": "half a li')  # cut off while being written
    time.sleep(0.5)  # what was on its way arrives
    server.trouble = lambda number, attempt: ""
    kept, before = len(read_jsonl(replies)), sum(server.asked.values())
    result = asked(data, tmp_path / "sft.jsonl", server)
    assert result.exit_code == 0 and f"{kept} of" in result.output and "were written before" in result.output
    rows = read_written(tmp_path / "sft.jsonl")
    assert sum(server.asked.values()) - before == len(rows) - kept
    assert len(read_jsonl(replies)) == len(rows)


def test_a_reply_in_another_form_is_left_out_kept_and_asked_for_again_only_when_told(
    data, tmp_path, server, monkeypatch
):
    babble = lambda number, body, server: choice({"content": "Sure! " * (number == 1) + fitting(body)})  # noqa: E731
    monkeypatch.setattr(chat_server, "completion", babble)
    server.trouble = lambda number, attempt: "refusal" if (number, attempt) == (2, 1) else ""
    result = asked(data, tmp_path / "sft.jsonl", server)
    assert "2 replies are not in the form asked for (0 cut off at the limit of tokens, 1 refusals)" in result.output
    count, asked_before = len(read_written(tmp_path / "sft.jsonl")), sum(server.asked.values())
    assert asked_before == count + 2
    asked(data, tmp_path / "sft.jsonl", server)
    assert sum(server.asked.values()) == asked_before
    monkeypatch.setattr(chat_server, "completion", lambda number, body, server: choice({"content": fitting(body)}))
    assert asked(data, tmp_path / "sft.jsonl", server, "--ask-again").exit_code == 0
    assert len(read_written(tmp_path / "sft.jsonl")) == count + 2 and sum(server.asked.values()) == asked_before + 2


@pytest.mark.parametrize(
    ("text", "caption", "read"),
    [
        (CAPTION, True, "Two cores, one is cut"),
        (f"\n{CAPTION}\n", True, "Two cores, one is cut"),
        (QUESTION, False, "Two, one is cut."),
        (QUESTION, True, None),
        (CAPTION, False, None),
        (f"Sure! {CAPTION}", True, None),
        (CAPTION + CAPTION, True, None),
        (CAPTION.replace("</caption>", ""), True, None),
        ("<caption> </caption>", True, None),
        ("<caption>the <|im_end|> end</caption>", True, None),
        ("<caption>so <think>hm</think> it is</caption>", True, None),
        ("<caption>a gap < 5 mm</caption>", True, "a gap < 5 mm"),
        ("", True, None),
    ],
)
def test_a_reply_is_read_only_in_the_form_asked_for(text, caption, read):
    found = read_reply(text, caption)
    assert (found[1] if found else None) == read


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--writer", "endpoint"], ["--endpoint URL"]),
        (["--model", "m"], ["--writer endpoint"]),
        (["--writer", "endpoint", "--endpoint", "localhost:8000", "--model", "m"], ["endpoint.url"]),
        (["--review", "nowhere.csv"], ["nowhere.csv"]),
        (["--profile", "tyo"], ["'tyo'"]),
    ],
)
def test_options_that_do_not_fit_are_one_line(data, tmp_path, options, words):
    assert refused(sft(data, tmp_path / "sft.jsonl", *options), *words)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_written_over(data, tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    assert refused(sft(data, tmp_path / "mine.json"), "mine.json", "no file of conversations")
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_a_damaged_file_of_replies_is_named_with_its_line(data, tmp_path, server):
    (tmp_path / "sft-replies.jsonl").write_text("{}\n")
    assert refused(asked(data, tmp_path / "sft.jsonl", server), "sft-replies.jsonl, line 1", "Take the line out")


# The review


def test_a_review_leaves_out_the_rejected_and_replaces_the_edited(data, tmp_path):
    sft(data, tmp_path / "sft.jsonl")
    first, second, third, *others = read_written(tmp_path / "sft.jsonl")
    review = write_review(
        tmp_path / "review.csv",
        (first.id, "reject", first.question, first.answer),
        (second.id, "edit", "What is\r\nnew?", 'A "comma", and a line\nend'),
        (third.id, "Accept", third.question.replace("\n", "\r\n"), third.answer),
    )
    result = sft(data, tmp_path / "sft.jsonl", "--review", review)
    assert "Review: 1 accepted, 1 edited, " in result.output and f"{len(others)} not reviewed" in result.output
    edited, accepted, *left = read_written(tmp_path / "sft.jsonl")
    assert (edited.question, edited.answer) == ("What is\nnew?", 'A "comma", and a line\nend')
    assert (edited.id, edited.reviewed) == (second.id, "edit") and edited.prior == second.prior
    assert accepted == third.model_copy(update={"reviewed": "accept"}) and left == others


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (lambda one: ("0123", "accept", one.question, one.answer), "line 2: no conversation has the id '0123'"),
        (lambda one: (one.id, "maybe", one.question, one.answer), "line 2: 'maybe' is no decision"),
        (lambda one: (one.id, "edit", one.question, " "), "line 2: edited to no words"),
        (lambda one: (one.id, "accept", one.question, "other"), "line 2: accepted, with other words"),
        (lambda one: (one.id, "accept"), "line 2: the row ends before its question"),
    ],
)
def test_a_row_that_cannot_be_applied_is_named_with_its_line_and_the_file_stays(data, tmp_path, row, told):
    sft(data, tmp_path / "sft.jsonl")
    before = (tmp_path / "sft.jsonl").read_bytes()
    review = write_review(tmp_path / "review.csv", row(read_written(tmp_path / "sft.jsonl")[0]))
    assert refused(sft(data, tmp_path / "sft.jsonl", "--review", review), f"review.csv, {told}")
    assert (tmp_path / "sft.jsonl").read_bytes() == before


def test_a_line_number_counts_lines_of_the_file_and_two_decisions_on_one_id_are_refused(data, tmp_path):
    sft(data, tmp_path / "sft.jsonl")
    rows = read_written(tmp_path / "sft.jsonl")
    edit = (rows[0].id, "edit", "two\nlines", "and\nthree\nmore")
    with pytest.raises(UserError, match=f"line 6: '{rows[0].id}' was decided in line 2"):
        apply_review(rows, write_review(tmp_path / "review.csv", edit, edit))


@pytest.mark.parametrize("content", [b"", b"id;decision;question;answer\n", b"\xff\xfe", b'id,"x'])
def test_a_file_that_is_no_review_is_one_line(data, tmp_path, content):
    (tmp_path / "review.csv").write_bytes(content)
    assert refused(sft(data, tmp_path / "sft.jsonl", "--review", tmp_path / "review.csv"), "review.csv")


# The page


class Page(HTMLParser):
    """What a page holds and what it would fetch."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.fetched, self.data, self.inside = set(), [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.fetched += [found[name] for name in ("src", "href", "srcset") if found.get(name)]
        self.inside = found.get("id") == "data"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        self.data += data if self.inside else ""


def test_a_file_that_a_review_was_applied_to_is_not_reviewed_again(data, tmp_path):
    sft(data, tmp_path / "sft.jsonl")
    one = read_written(tmp_path / "sft.jsonl")[0]
    review = write_review(tmp_path / "review.csv", (one.id, "accept", one.question, one.answer))
    sft(data, tmp_path / "sft.jsonl", "--review", review)
    with pytest.raises(UserError, match="already applied"):
        write_page(tmp_path / "sft.jsonl", data, tmp_path / "review.html")


def test_in_a_browser_keys_decide_a_reload_keeps_and_the_download_is_applied(data, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="no browser to drive")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser_path:
        pytest.skip("no browser")
    sft(data, tmp_path / "sft.jsonl")
    rows = read_written(tmp_path / "sft.jsonl")
    write_page(tmp_path / "sft.jsonl", data, tmp_path / "review.html")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "review.html").as_uri())
        assert page.evaluate("document.getElementById('test').naturalWidth") > 0
        page.keyboard.press("a")
        page.keyboard.press("r")
        page.keyboard.press("e")
        page.fill("#newAnswer", 'Said "so", twice\nand a\u00e4')
        page.keyboard.press("Control+Enter")
        page.reload()
        assert page.inner_text("#count").startswith(f"3 of {len(rows)} decided: 1 accepted, 1 edited, 1 rejected")
        page.select_option("#state", "reject")
        assert page.inner_text("#place") == "1 of 1"
        with page.expect_download() as got:
            page.click("#download")
        got.value.save_as(tmp_path / "review.csv")
        browser.close()
    assert said == []
    new = apply_review(rows, tmp_path / "review.csv")
    assert [one.id for one in new] == [one.id for one in rows if one.id != rows[1].id]
    assert new[0].reviewed == "accept" and new[1].answer == 'Said "so", twice\nand a\u00e4'


# Training on it


def test_stage_1_is_trained_on_the_file_that_the_profile_names(data, tmp_path):
    sft(data, tmp_path / "sft.jsonl", "--seed", 5)
    rows = read_written(tmp_path / "sft.jsonl")
    made = make_conversations(trained_on(tmp_path / "sft.jsonl"), data, 0)
    assert {one.id for one in made} == {one.id for one in rows} and made != rows
    assert made == make_conversations(trained_on(tmp_path / "sft.jsonl"), data, 0)
    few = trained_on(tmp_path / "sft.jsonl", **{"data.sft_samples": 3})
    trained, untrained = make_conversations(few, data, 0), held_out(few, data, 0, per_kind=9)
    assert len(trained) == 3 and untrained and not {one.pair.id for one in untrained} & {one.pair.id for one in trained}


def test_what_is_held_back_for_validation_is_not_trained_on_whoever_built_the_file(data, tmp_path):
    sft(data, tmp_path / "sft.jsonl")
    profile = trained_on(tmp_path / "sft.jsonl", **{"data.validation_share": 0.5})
    left = {one.pair.id for one in make_conversations(profile, data, 0)}
    assert 0 < len(left) < len({one.pair.id for one in read_written(tmp_path / "sft.jsonl")})


@pytest.mark.parametrize("field", ["category", "image"])
def test_a_file_with_an_image_of_loco_is_refused_by_name(data, tmp_path, field):
    sft(data, tmp_path / "sft.jsonl")
    lines = (tmp_path / "sft.jsonl").read_text().split("\n")
    row = json.loads(lines[0])
    row["pair"]["test"][field] = {"category": "screw_bag", "image": "loco/screw_bag/test/good/000.png"}[field]
    (tmp_path / "sft.jsonl").write_text("\n".join([json.dumps(row), *lines[1:]]))
    with pytest.raises(UserError, match="is of MVTec LOCO AD, the test set"):
        make_conversations(trained_on(tmp_path / "sft.jsonl"), data, 0)


def test_a_file_that_is_absent_damaged_or_about_absent_images_is_one_line(data, tmp_path):
    with pytest.raises(UserError, match="There is no file .*nowhere.jsonl"):
        make_conversations(trained_on(tmp_path / "nowhere.jsonl"), data, 0)
    sft(data, tmp_path / "sft.jsonl")
    text, image = (tmp_path / "sft.jsonl").read_text(), read_written(tmp_path / "sft.jsonl")[0].pair.test.image
    (tmp_path / "sft.jsonl").write_text(text.replace(image, f"{image}.gone.png"))
    with pytest.raises(UserError, match=r"and 1 are not there, first .*\.gone\.png"):
        make_conversations(trained_on(tmp_path / "sft.jsonl"), data, 0)
    (tmp_path / "sft.jsonl").write_text(text[:-20])
    with pytest.raises(UserError, match=r"sft.jsonl, line \d+: .*Build the file again"):
        make_conversations(trained_on(tmp_path / "sft.jsonl"), data, 0)


def test_a_profile_names_the_file_relative_to_itself_and_what_it_holds_counts(data, tmp_path):
    sft(data, tmp_path / "sft.jsonl")
    text = (files("ladlib") / "profiles" / "smoke.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("  sft_samples:", "  sft_file: sft.jsonl\n  sft_samples:"))
    profile = load_profile(str(tmp_path / "mine.yaml"))
    assert profile.data.sft_file == str(tmp_path / "sft.jsonl")
    assert "from sft.jsonl;" in " ".join(departures(profile)["ours"]), "its name and not where it lies"
    check = next(one for one in examine(str(tmp_path / "mine.yaml")).checks if one.subject == "SFT file")
    assert check.verdict == "ok" and "4 conversations" in check.found
    before = _sft_file(profile)
    sft(data, tmp_path / "sft.jsonl", "--seed", 9)
    assert before != _sft_file(profile) and _sft_file(load_profile("smoke")) == {}


def test_the_doctor_and_the_departures_without_a_file(tmp_path):
    assert not [one for one in examine("smoke").checks if one.subject == "SFT file"]
    assert "by rules;" in " ".join(departures(load_profile("smoke"))["ours"])
    text = (files("ladlib") / "profiles" / "smoke.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("  sft_samples:", "  sft_file: gone.jsonl\n  sft_samples:"))
    check = next(one for one in examine(str(tmp_path / "mine.yaml")).checks if one.subject == "SFT file")
    assert check.verdict == "missing" and "gone.jsonl" in check.found
