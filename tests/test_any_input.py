"""Whatever the input, a reader reads it or raises UserError, and nothing that is shown escapes from where it is shown.

A hundred examples each; ten thousand with ``HYPOTHESIS_PROFILE=long``.
"""

import csv
import io
import json
import math
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import rotten
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ladlib.batch import convert
from ladlib.config import Profile, load_profile
from ladlib.data import mmad
from ladlib.data.images import open_image
from ladlib.data.readers import read_defects, read_split
from ladlib.errors import UserError
from ladlib.records import leads_outside
from ladlib.report.formats import csv as as_csv
from ladlib.results import read_records
from ladlib.runs import RunFolder, read_jsonl
from ladlib.sanitize import escape_csv, escape_terminal, strip_control
from ladlib.sft_data import read_sft_file

quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
KEYS = st.sampled_from(["defect_name", "pixel_value", "a/b/c/d", "conversation", "Question", "Answer", "Options",
    "type", "id", "A", "../../a/b", "step", "profile", "seed", "stages"])  # fmt: skip
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


def read_or_none(read):
    """What ``read`` gives, or None where it raises UserError, in one line with a hint."""
    try:
        return read()
    except UserError as error:
        assert escape_terminal(str(error)).isprintable() and error.hint
        return None


# Readers


@st.composite
def spoiled_images(draw):
    data = bytearray(draw(st.sampled_from([row[2] for row in rotten.ODD_IMAGES])))
    for index, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=6)):
        data[index] = value
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


CELLS = st.sampled_from(["pcb4", "train", "test", "normal", "a/b.JPG", "../b", "", '"', ",", "\n", "\r", ";"])
ROWS = st.lists(st.lists(CELLS, min_size=5, max_size=5).map(",".join), max_size=4).map("\r\n".join)
YAML = (TEXTS | st.text(st.sampled_from("!&*-?:,[]{}#|>@`\"'%~ \n\taye0.1"))).map(
    lambda text: text.encode(errors="surrogatepass")
)
READERS = [
    ("a.png", open_image, spoiled_images() | st.binary(max_size=64)),
    ("defects_config.json", lambda path: read_defects(path.parent), BYTES),
    ("mmad.json", lambda path: mmad.read_questions(path.parent), BYTES),
    ("1cls.csv", read_split, ROWS.map(lambda rows: b"object,split,label,image,mask\r\n" + rows.encode()) | st.binary()),
    ("lines.jsonl", read_jsonl, BYTES),
    ("records.jsonl", read_records, BYTES.map(lambda content: content + b"\n")),
    ("sft.csv", read_sft_file, BYTES),
    ("run.json", lambda path: RunFolder(path.parent).read(), BYTES),
    ("any.yaml", lambda path: load_profile(str(path)), YAML),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "read", "contents"), READERS, ids=[row[0] for row in READERS])
@quiet
@given(data=st.data())
def test_a_file_of_any_content_is_read_or_refused_in_one_line(tmp_path, name, read, contents, data):
    (tmp_path / name).write_bytes(data.draw(contents))
    with patch.object(Image, "MAX_IMAGE_PIXELS", 100_000):  # else a changed header costs a second
        read_or_none(lambda: read(tmp_path / name))


SECTIONS = st.sampled_from([f"{section}.{field}" for section, kind in Profile.model_fields.items()
    if hasattr(kind.annotation, "model_fields") for field in kind.annotation.model_fields])  # fmt: skip


@quiet
@given(SECTIONS | st.text(max_size=12), LEAVES | st.lists(LEAVES, max_size=2))
def test_any_override_of_a_profile_is_taken_or_refused(dotted, value):
    profile = read_or_none(lambda: load_profile("smoke", **{dotted: value}))
    assert profile is None or all(math.isfinite(one) for one in numbers(profile.model_dump()))


def numbers(value):
    if isinstance(value, dict):
        return [one for inner in value.values() for one in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


SCALARS = st.one_of(
    st.text(), st.integers().map(str), st.floats().map(repr), st.text("0123456789eE+-._:xobn ~!&*[]{}\"'")
)


@given(SCALARS, st.sampled_from([0, 0.0, True, "text"]))
def test_any_parameter_is_of_its_kind_or_refused(text, default):
    value = read_or_none(lambda: convert("name", text, default))
    assert value is None or type(value) is type(default)
    assert not isinstance(value, float) or math.isfinite(value)


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
