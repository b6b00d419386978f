"""Whatever the input, a reader reads it or raises UserError, and nothing that is shown escapes from where it is shown.

A hundred examples each; ten thousand with ``HYPOTHESIS_PROFILE=long``.
"""

import csv
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import rotten
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jinja2 import Environment
from jinja2.utils import htmlsafe_json_dumps
from PIL import Image

from ladlib.batch import convert
from ladlib.config import Profile, load_profile
from ladlib.data import mmad, readers
from ladlib.data.images import open_image
from ladlib.data.readers import read_defects
from ladlib.errors import UserError
from ladlib.records import leads_outside
from ladlib.report.formats import csv as as_csv
from ladlib.report.formats import markdown
from ladlib.report.tables import readable
from ladlib.response import parse_response
from ladlib.results import read_records
from ladlib.rewards import accuracy_reward, format_reward
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sanitize import escape_csv, escape_terminal, strip_control
from ladlib.sft_data import read_sft_file

quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
KEYS = st.sampled_from(["defect_name", "pixel_value", "saturation_threshold", "relative_saturation", "a/b/c/d",
    "conversation", "Question", "Answer", "Options", "type", "id", "A", "choices", "message", "content", "error",
    "../../a/b", "step", "profile", "seed", "stages", "logprobs", "similar_templates"])  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 300), st.integers(), st.floats(), st.text(max_size=8), KEYS,
)  # fmt: skip
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
).map(json.dumps)  # fmt: skip
TEXTS = st.one_of(JSON, st.text(), JSON.flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end])))
BYTES = st.one_of(TEXTS.map(lambda text: text.encode(errors="surrogatepass")), st.binary())
PIECES = [
    "</script>", "<img src=x onerror=a()>", "&lt;", "|", "\\", "$x$", "%", "\x1b[31m", "\u202e", "\x00", "\r\n",
    "=HYPERLINK(1)", "@SUM(1)", "+1", "-2+3", "]]>", "<!--", "](javascript:a)", "{{7*7}}", "{%", "\\input{x}", "~",
    "^", "_", "#", "'", '"', "\u2028",
]  # fmt: skip
HOSTILE = st.lists(st.text(max_size=6) | st.sampled_from(PIECES), max_size=6).map("".join)


def told(read):
    """What ``read`` gives, or None where it says in one line why not."""
    try:
        return read()
    except UserError as error:
        assert escape_terminal(str(error)).isprintable() and error.hint
        return None


@pytest.fixture
def file(tmp_path):
    """Writes what is given to a file of a name; its path."""

    def write(content: bytes, name: str = "file") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


# Readers


WHOLE = [row[2] for row in rotten.ODD_IMAGES]


@st.composite
def spoiled_images(draw):
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=6)):
        data[place] = value
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@quiet
@pytest.mark.filterwarnings("ignore")
@given(spoiled_images() | st.binary(max_size=64))
def test_any_bytes_are_an_image_or_are_told(file, content):
    with patch.object(Image, "MAX_IMAGE_PIXELS", 100_000):  # else a changed header costs a second
        image = told(lambda: open_image(file(content, "a.png")))
    assert image is None or (image.mode == "RGB" and min(image.size) > 0)


@quiet
@given(BYTES)
def test_any_defects_config_is_read_or_told(file, content):
    names = told(lambda: read_defects(file(content, "category/defects_config.json").parent))
    assert names is None or all(1 <= value <= 255 and name for value, name in names.items())


@quiet
@pytest.mark.filterwarnings("ignore:.*questions have no valid answer")
@given(BYTES)
def test_any_mmad_is_read_or_told(file, content):
    questions = told(lambda: mmad.read_questions(file(content, "mmad/mmad.json").parent))
    for one in questions or ():
        assert one.answer in one.options and not leads_outside(one.image)
        mmad.locate(one.image)


FIELDS = st.sampled_from(
    ["pcb4", "train", "test", "normal", "anomaly", "a/b.JPG", "../b", "", '"', ",", "\n", "\r", ";"]
)
ROWS = st.lists(st.lists(FIELDS, min_size=5, max_size=5).map(",".join), max_size=4).map("\r\n".join)


@quiet
@given(ROWS.map(lambda rows: b"object,split,label,image,mask\r\n" + rows.encode()) | st.binary())
def test_any_split_of_visa_is_read_or_told(file, content):
    rows = told(lambda: readers.read_split(file(content)))
    assert rows is None or not [row for row in rows if leads_outside(row.image) or leads_outside(row.mask)]


@quiet
@given(BYTES)
def test_any_line_of_a_run_is_read_or_told(file, content):
    rows = told(lambda: read_jsonl(file(content)))
    assert rows is None or all(isinstance(row, dict) for row in rows)
    told(lambda: read_records(file(content + b"\n")))
    told(lambda: read_sft_file(file(content)))
    told(lambda: RunFolder(file(content, "run.json").parent).read())


@quiet
@given(TEXTS | HOSTILE | st.text(st.sampled_from("!&*-?:,[]{}#|>@`\"'%~ \n\taye0.1")))
def test_any_profile_is_read_or_told(file, text):
    path = file(text.encode(errors="surrogatepass"), "any.yaml")
    assert told(lambda: load_profile(str(path))) is None, "no text made so has all sections"


SECTIONS = st.sampled_from([f"{section}.{field}" for section, kind in Profile.model_fields.items()
    if hasattr(kind.annotation, "model_fields") for field in kind.annotation.model_fields])  # fmt: skip


@quiet
@given(SECTIONS | st.text(max_size=12), LEAVES | st.lists(LEAVES, max_size=2))
def test_any_override_of_a_profile_is_taken_or_told(dotted, value):
    profile = told(lambda: load_profile("smoke", **{dotted: value}))
    assert profile is None or all(math.isfinite(one) for one in numbers(profile.model_dump()))


def numbers(value):
    if isinstance(value, dict):
        return [one for inner in value.values() for one in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


SCALARS = st.one_of(
    st.text(), st.integers().map(str), st.floats().map(repr), st.text("0123456789eE+-._:xobn ~!&*[]{}\"'")
)


@given(SCALARS, st.sampled_from([0, 0.0, True, "text"]))
def test_any_parameter_is_of_its_kind_or_told(text, default):
    value = told(lambda: convert("name", text, default))
    assert value is None or type(value) is type(default)
    assert not isinstance(value, float) or math.isfinite(value)


@given(BYTES.map(lambda data: data.decode(errors="replace")))
def test_any_body_of_a_server_is_a_completion_or_none(body):
    try:
        found = parse_response(body)
    except ValueError:
        return
    assert found.p_yes is None or 0 <= found.p_yes <= 1


@given(HOSTILE | st.text())
def test_any_completion_is_rewarded_and_never_raises(text):
    assert accuracy_reward(text, "yes") + accuracy_reward(text, "no") <= 1
    assert format_reward(text) in (0.0, 1.0)


# What is shown


@given(
    HOSTILE | st.text(st.characters()) | st.sampled_from(["..", "/etc", "a/../b", "C:\\a", "\\\\host\\a", "a\\..\\b"])
)
def test_a_path_that_is_let_through_stays_in_its_folder(path):
    assume(not leads_outside(path))
    root = Path("/somewhere/data")
    assert Path(*[part for part in (root / path).parts if part != "."]).is_relative_to(root)
    assert ".." not in (root / path.replace("\\", "/")).parts


@given(HOSTILE | st.text(st.characters()))
def test_what_a_terminal_is_told_holds_no_control_character(text):
    shown = escape_terminal(text)
    assert shown.replace("\u3000", "").isprintable() or any(one.isspace() for one in shown)
    assert not {"\x1b", "\n", "\r", "\x9b", "\u202e", "\x00"} & {*escape_terminal(text)}
    assert not {"\x1b", "\r", "\x9b", "\u202e", "\x00"} & {*strip_control(text)}


@given(HOSTILE | st.text())
def test_a_cell_of_csv_is_one_cell_and_no_formula(text):
    written = as_csv(pd.DataFrame({"a": [text, "b"], "n": [1, 2]}))
    rows = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert [len(row) for row in rows] == [2, 2, 2]
    assert rows[1][0] == escape_csv(strip_control(text))
    assert not rows[1][0].lstrip().startswith(("=", "@"))


@given(HOSTILE | st.text())
def test_a_cell_of_markdown_is_one_cell_without_tags_and_links(text):
    shown = readable(pd.DataFrame({"a": [strip_control(text)]}))
    lines = markdown(shown).split("\n")
    assert len(lines) == 4
    bare = lines[2].replace("\\\\", "").replace("\\|", "").replace("\\<", "").replace("]\\(", "")
    assert bare.count("|") <= 2 and "<" not in bare and "](" not in bare


@given(HOSTILE | st.text())
def test_a_cell_of_latex_holds_no_command_of_the_text(text):
    body = pd.DataFrame({"a": [strip_control(text)]}).to_latex(index=False, escape=True).split("\\midrule\n")[1]
    cell = body.split("\\\\\n\\bottomrule")[0]
    commands = (r"\textbackslash", r"\textasciitilde", r"\textasciicircum", r"\space")
    for known in (*commands, *(f"\\{one}" for one in "&%$#_{}")):
        cell = cell.replace(known, "")
    assert not set("\\$%#&{}~^") & set(cell)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.data = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.data.append(data)


PAGE = Environment(autoescape=True).from_string(
    '<p title="{{ text }}">{{ text }}</p><script type="application/json">{{ data }}</script>'
)


@given(HOSTILE | st.text())
def test_a_text_in_the_page_is_text_whatever_it_holds(text):
    seen = Tags(PAGE.render(text=strip_control(text), data=htmlsafe_json_dumps({"text": text})))
    assert [tag for tag, _ in seen.tags] == ["p", "script"]
    assert json.loads(seen.data[-1]) == {"text": text}
    assert "".join(seen.data[:-1]) == strip_control(text)
