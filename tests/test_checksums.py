"""Checksums: an answer, a number, a figure, an image or run.json that was changed later is found by name."""

import os
import random
import shutil
import subprocess

import pytest
from layouts import write_loco
from made_up import made_up, write_generations
from typer.testing import CliRunner

from ladlib import checksums
from ladlib.checksums import sha256
from ladlib.cli import app
from ladlib.errors import UserError
from ladlib.records import RunRecord
from ladlib.report.page import write_report
from ladlib.runs import RELEASED, RunFolder
from ladlib.verify import verify

EDITS = {
    "generations/sft-seed0.jsonl": (b"yes", b"no"),
    "tables/comparison.csv": (b"61.1", b"71.1"),
    "figures/roc.png": (b"picture", b"Picture"),
}
CHANGED = ["generations/sft-seed0.jsonl was changed after it was made, or its line in SHA256SUMS was changed"]


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.write(RunRecord(profile="toy", seed=0, versions={"torch": "2"}))
    rows = [made_up("sft", "pushpins", kind, number, "yes") for kind in ("good", "logical") for number in range(4)]
    write_generations(folder, "sft", rows)
    folder.tables.mkdir()
    (folder.tables / "comparison.csv").write_text("acc\n61.1\n")
    folder.figures.mkdir()
    (folder.figures / "roc.png").write_bytes(b"picture")
    checksums.write(folder)
    return folder


def edit(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def line_of(run, subject):
    return next(check.line for check in verify(run) if check.subject == subject)


def test_an_unchanged_run_passes_here_and_with_sha256sum(run):
    assert checksums.verify(run) == [] and checksums.missing(run) == []
    assert sorted(checksums.read(run)) == sorted(EDITS)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=run.root, check=True)
    (run.root / "SHA256SUMS").unlink()
    assert line_of(run, "checksums") == "skipped checksums: this run has none"


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_found_by_name(run, name):
    edit(run.root / name, *EDITS[name])
    assert checksums.verify(run) == [f"{name} was changed after it was made, or its line in SHA256SUMS was changed"]


def test_verify_exits_with_1_where_an_answer_was_changed(run):
    edit(run.generations("sft", 0), b"yes", b"no")
    result = CliRunner().invoke(app, ["verify", str(run.root)])
    (line,) = [line for line in result.output.splitlines() if line.startswith("failed  checksums")]
    assert result.exit_code == 1 and "generations/sft-seed0.jsonl" in line


def test_a_lost_file_is_named_and_so_is_a_new_one(run):
    (run.figures / "roc.png").rename(run.figures / "other.png")
    (lost,) = checksums.verify(run)
    assert lost.startswith("figures/roc.png is missing") and checksums.missing(run) == ["figures/other.png"]


def test_an_edit_of_run_json_is_found_and_stays_known_after_the_run_goes_on(run):
    edit(run.run_json, b'"seed": 0', b'"seed": 1')
    run.open("toy", 1)
    assert checksums.verify(run) == ["run.json was edited"]


def test_a_file_written_again_gets_its_checksum_and_no_edited_answer_does(run):
    edit(run.generations("sft", 0), b"yes", b"no")
    edit(run.tables / "comparison.csv", b"61.1", b"71.1")
    checksums.write(run, run.tables)
    assert checksums.verify(run) == CHANGED
    write_report(run)
    assert checksums.verify(run) == CHANGED and checksums.missing(run) == []


@pytest.mark.parametrize("line", [b"abc  tables/a.csv", b"0" * 64 + b"  ../outside", b"\xed\xa0\x80"])
def test_a_damaged_file_of_checksums_is_refused(run, line):
    (run.root / "SHA256SUMS").write_bytes(line)
    with pytest.raises(UserError, match="SHA256SUMS"):
        checksums.verify(run)


def test_an_image_that_was_changed_after_it_was_judged_is_found_by_name(tmp_path, run):
    folder = tmp_path / "data" / "mvtec_loco_anomaly_detection"
    write_loco(folder)
    images = sorted(folder.rglob("*.png"))[:2]
    reference, test = (path.relative_to(folder).as_posix() for path in images)
    fields = {"reference": reference, "test": test, "images_sha256": tuple(map(sha256, images))}
    write_generations(run, "sft", [made_up("sft", "pushpins", "good", 0, "no").model_copy(update=fields)])
    run.write(run.read().model_copy(update={"parameters": {"data": str(tmp_path / "data")}}))
    assert line_of(run, "image files") == "passed  image files: 2 have the bytes that were judged"
    images[1].write_bytes(images[1].read_bytes() + b" ")
    assert line_of(run, "image files").startswith(f"failed  image files: {images[1]}")


@pytest.mark.slow
def test_one_changed_byte_of_any_stored_file_of_a_finished_run_fails_by_name(smoke, tmp_path):
    """A sample of the files; all of them (minutes): LADLIB_EVERY_FILE=1 python -m pytest tests/test_checksums.py."""
    run = RunFolder(shutil.copytree(smoke.root, tmp_path / "run"))
    names = {file.relative_to(run.root).as_posix() for file in run.root.rglob("*") if file.is_file()}
    names = sorted(name for name in names if not name.split("/")[-1].startswith("."))
    assert CliRunner().invoke(app, ["verify", str(run.root)]).exit_code == 0 and not checksums.missing(run)
    chance = random.Random(0)
    by_folder = {name.split("/")[0]: name for name in chance.sample(names, len(names))}  # one of each
    few = {*by_folder.values(), *chance.sample(names, 8)}
    for name in names if os.environ.get("LADLIB_EVERY_FILE") else few:
        data = bytearray((run.root / name).read_bytes())
        data[chance.randrange(len(data))] ^= 1
        whole = (run.root / name).rename(tmp_path / "whole")
        (run.root / name).write_bytes(data)
        result = CliRunner().invoke(app, ["verify", str(run.root)])
        assert result.exit_code in (1, 2) and name in result.output, name
        whole.replace(run.root / name)


@pytest.mark.parametrize("name", ["toy", "study"])
def test_the_released_runs_have_checksums_and_are_as_they_were_made(name):
    run = RunFolder(RELEASED / name)
    assert checksums.read(run) and not checksums.verify(run) and not checksums.missing(run)


@pytest.mark.parametrize(
    ("name", "old", "new"), [("tables/comparison.csv", b"6", b"7"), ("run.json", b'"cores": 2', b'"cores": 64')]
)
def test_what_was_changed_in_a_released_run_is_named(tmp_path, name, old, new):
    run = RunFolder(shutil.copytree(RELEASED / "toy", tmp_path / "toy"))
    edit(run.root / name, old, new)
    (fault,) = checksums.verify(run)
    assert name in fault
