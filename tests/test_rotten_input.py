"""Rotten input (see rotten.py): no traceback, no wrong result, one line with the file and the hint."""

import contextlib
import shutil
import warnings

import numpy as np
import pytest
import rotten
from layouts import mmad_entry, write_ad, write_loco, write_mmad, write_visa
from made_up import made_up_run
from PIL import Image
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.data import mmad, read_dataset
from ladlib.data.download import unpack
from ladlib.data.images import open_image, read_size
from ladlib.errors import UserError
from ladlib.results import load_answers


def each(rows):
    names = [row[0].replace(" ", "-") for row in rows]
    return pytest.mark.parametrize("row", rows, ids=names)


def command(*arguments):
    """A command as a user runs it; what it raises is no traceback, or this fails."""
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def refused(result, *words):
    """One line, exit code 2, all of ``words`` in it, and nothing that steers a terminal."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.isprintable()
    assert [word for word in words if word not in line] == [], line


# Images


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@each(rotten.BAD_IMAGES)
def test_a_bad_image_is_one_line_that_names_it(tmp_path, row):
    _, name, content, words = row
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        open_image(tmp_path / name)
    assert words in str(error.value) and str(tmp_path / name) in error.value.what and error.value.hint


@each(rotten.ODD_IMAGES)
def test_an_odd_image_gives_the_right_pixels(tmp_path, row):
    _, name, content, expected, tolerance = row
    (tmp_path / name).write_bytes(content)
    image = open_image(tmp_path / name)
    lines, columns = expected.shape[:2]
    assert image.mode == "RGB" and image.width * lines == image.height * columns
    step = image.width // columns
    pixels = np.asarray(image)[step // 2 :: step, step // 2 :: step].astype(int)
    assert np.abs(pixels - expected.astype(int)).max() <= tolerance
    assert sorted(read_size(tmp_path / name)) == sorted(image.size)


def test_a_circle_of_links_and_a_name_that_no_file_has_are_no_image(tmp_path):
    (tmp_path / "circle.png").symlink_to("circle.png")
    for name in ("circle.png", "x" * 300 + ".png", "", "a\0b.png"):
        with pytest.raises(UserError):
            open_image(tmp_path / name)


# Datasets


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole data")
    write_loco(root / rotten.LOCO)
    write_ad(root / rotten.AD)
    write_visa(root / rotten.VISA)
    write_mmad(root / rotten.MMAD, {"DS-MVTec/cable/image/missing_cable/000.png": mmad_entry("A")})
    return root


@pytest.fixture
def data(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data é")


ROWS = {
    lambda root: read_dataset(root, "mvtec_loco"): rotten.LOCO_ROWS,
    lambda root: read_dataset(root, "visa"): rotten.VISA_ROWS,
    mmad.read_questions: rotten.MMAD_ROWS,
}


@pytest.mark.parametrize(("row", "read"), [(row, read) for read, rows in ROWS.items() for row in rows])
def test_a_rotten_dataset_is_one_line_and_the_check_goes_through(data, row, read):
    row.spoil(data)
    with pytest.raises(UserError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(data)
    message = str(error.value).encode("ascii", "backslashreplace").decode()
    assert "\n" not in message and [word for word in row.words if word not in message] == [], message
    assert command("data", "check", data).exit_code in (1, 2)


@pytest.mark.parametrize(
    "change", [("\r\n", "\n"), ("\r\n", "\r"), ("object,", "\ufeffobject,"), ("pcb4,test", '"pcb4","test"')]
)
def test_a_csv_of_another_hand_that_says_the_same_is_read_the_same(whole, data, change):
    rotten.Row("", rotten.SPLIT, rotten.replaced(*change), ()).spoil(data)
    assert read_dataset(data, "visa") == read_dataset(whole, "visa")


# Runs and parameters


@each(rotten.RUN_ROWS)
def test_a_damaged_run_is_one_line_and_its_files_stay(tmp_path, row):
    run = made_up_run(tmp_path / "my run", profile="smoke")
    row.spoil(run.root)
    before = {path: path.read_bytes() for path in sorted(run.root.rglob("*")) if path.is_file()}
    refused(command("report", "--run", run.root), *row.words)
    assert before == {path: path.read_bytes() for path in before}
    assert command("verify", run.root).exit_code in (1, 2)


def test_a_torn_last_line_is_left_out_wherever_it_was_torn(tmp_path):
    run = made_up_run(tmp_path)
    path = run.generations("base", 0)
    whole, before = path.read_bytes(), load_answers(run)
    for torn in (b'{"id": "caf\xc3', b"{", b'{"id": 1}', b"\xff"):
        path.write_bytes(whole + torn)
        assert load_answers(run).equals(before)


@each(rotten.PARAMETER_ROWS)
def test_a_parameter_that_is_none_is_one_line_before_anything_runs(tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    given, words = row
    refused(command("reproduce", "--profile", "smoke", "-p", given), words)
    assert list(tmp_path.iterdir()) == []


COMMANDS = ("data toy --profile smoke --out", "reproduce --profile smoke --run", "report --run", "verify", "data check")


@pytest.mark.parametrize("arguments", [text.split() for text in COMMANDS])
def test_a_file_where_a_folder_is_wanted_is_one_line(tmp_path, arguments):
    (tmp_path / "in the way").write_text("kept")
    refused(command(*arguments, tmp_path / "in the way"), "in the way")
    refused(command(*arguments, tmp_path / "in the way" / "below"), "in the way")
    assert (tmp_path / "in the way").read_text() == "kept"


# Archives and models


@each(rotten.ARCHIVES)
def test_a_rotten_archive_leaves_nothing_and_is_one_line(tmp_path, row):
    _, name, content, words = row
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (inside / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        unpack(inside / name, inside / "visa", "visa")
    assert words in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["a", "b", name])


@each(rotten.MODEL_ROWS)
def test_a_damaged_model_is_one_line(tmp_path, row):
    from tiny import tiny_base

    folder = shutil.copytree(tiny_base(), tmp_path / "my model")
    row.spoil(folder)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    refused(command("inspect", tmp_path / "a.png", tmp_path / "b.png", "--model", folder), "my model", *row.words)


def test_a_models_own_code_is_never_run(tmp_path):
    from tiny import tiny_base, tiny_profile

    from ladlib.models import load_model, load_processor

    folder = shutil.copytree(tiny_base(), tmp_path / "model")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\nclass M: pass\n")
    for name, values in (
        ("config.json", {"auto_map": {"AutoConfig": "evil.T", "AutoModel": "evil.M"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "T"}),
    ):
        rotten.Row("", name, rotten.with_keys(**values), ()).spoil(folder)
    for load in (
        lambda: load_processor(str(folder), tiny_profile().data),
        lambda: load_model(str(folder), tiny_profile().model),
    ):
        with contextlib.suppress(UserError):
            load()
    assert not (tmp_path / "ran").exists()
