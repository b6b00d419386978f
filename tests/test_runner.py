"""Stages that are functions: what runs again, and what a failed or killed one leaves."""

import subprocess
import sys
import time
from pathlib import Path

import fake_stages
import pytest
from fake_stages import stage

from ladlib import checksums
from ladlib.runner import Runner
from ladlib.runs import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "study")


def go(run, *stages, jobs=2):
    """Run ``stages``; (names that failed, names that were done, all lines)."""
    lines: list[str] = []
    failed = Runner(stages, run, "smoke", 0, lines.append, jobs).finish()
    return failed, sorted(line.split("]")[0][1:] for line in lines if "] done in" in line), lines


def chain(run, **options):
    """Two stages, one of them built on the other, and one that stands alone."""
    return stage(run.root, "one", **options), stage(run.root, "two", after="one"), stage(run.root, "three")


def test_stages_run_once_each_in_a_process_of_its_own_and_again_where_something_changed(run):
    failed, done, lines = go(run, *chain(run))
    assert failed == () and done == ["one", "three", "two"]
    assert "[one] started" in lines and any("3 of 3 stages" in line for line in lines)
    assert len({(run.root / name).read_text() for name in done}) == 3
    assert (run.root / "logs" / "one.txt").read_text() == "writing one\n"
    assert [each.outputs for each in run.read().stages] == [("one",), ("three",), ("two",)]
    failed, done, lines = go(run, *chain(run))
    assert failed == () and done == [] and all("unchanged, skipped" in line for line in lines)
    assert go(run, *chain(run, text="other"))[1] == ["one", "two"]
    (run.root / "three").unlink()
    assert go(run, *chain(run, text="other"))[1] == ["three"]


def test_a_failed_stage_is_named_with_its_last_line_and_only_holds_up_what_needs_it(run):
    later = stage(run.root, "two", after="one"), stage(run.root, "last", after="two"), stage(run.root, "three")
    failed, done, lines = go(run, stage(run.root, "one", fake_stages.fail), *later)
    assert set(failed) == {"one", "two", "last"} and done == ["three"]
    assert any(line.startswith("[one] failed: ValueError: the oven is cold") for line in lines)
    assert "[last] left out, since one failed" in lines
    assert "Traceback" in (run.root / "logs" / "one.txt").read_text()
    assert go(run, stage(run.root, "one"), *later)[:2] == ((), ["last", "one", "two"])


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (fake_stages.die, "its process was ended by signal 9, perhaps for want of memory"),
        (fake_stages.forget, "it did not write one"),
    ],
)
def test_a_stage_that_is_killed_or_writes_nothing_has_failed_and_takes_no_other_with_it(run, work, reason):
    failed, done, lines = go(run, stage(run.root, "one", work), stage(run.root, "two", seconds=1.0))
    assert failed == ("one",) and done == ["two"]
    assert any(f"[one] failed: {reason}" in line for line in lines)


def test_a_killed_runner_ends_its_stages_and_resumes_with_what_is_left(run):
    code = (
        "import sys; from pathlib import Path; from fake_stages import stage; from ladlib.runs import RunFolder;"
        "from ladlib.runner import Runner; root = Path(sys.argv[1]);"
        "stages = [stage(root, 'one'), stage(root, 'two', after='one', seconds=1.5)];"
        "Runner(stages, RunFolder(root), 'smoke', 0, lambda line: print(line, flush=True)).finish()"
    )
    folder = fake_stages.__file__.removesuffix("fake_stages.py")
    command = [sys.executable, "-c", code, str(run.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        while "[two] started" not in process.stdout.readline():
            assert process.poll() is None
        while "writing" not in (run.root / "logs" / "two.txt").read_text():
            time.sleep(0.05)
        process.kill()
    time.sleep(2)
    assert not (run.root / "two").exists(), "a stage outlived its runner"
    assert go(run, stage(run.root, "one"), stage(run.root, "two", after="one", seconds=1.5))[1] == ["two"]


def test_what_an_interrupted_stage_left_is_kept_for_the_same_key_only(run):
    for text, kept in (("same", False), ("same", True), ("other", False)):
        assert go(run, stage(run.root, "one", fake_stages.stumble, text=text))[0] == ("one",)
        assert (run.root / "one").read_text() == ("second" if kept else "first")


def flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def link(path):
    """In place of the file, a link to a folder of somebody."""
    path.unlink()
    (path.parent.parent / "mine").mkdir()
    (path.parent.parent / "mine" / "a.csv").write_text("1")
    path.symlink_to(path.parent.parent / "mine")


@pytest.mark.parametrize("spoil", [flip, Path.unlink, link, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["one", "three"])
def test_an_output_that_is_not_as_it_was_made_is_named_and_made_again(run, spoil, name):
    go(run, *chain(run))
    spoil(run.root / name)
    failed, done, lines = go(run, *chain(run))
    assert failed == () and done[:1] == [name] and any(line.startswith(f"[{name}] {name} ") for line in lines)
    assert "written" in (run.root / name).read_text() and not checksums.verify(run)
    assert spoil is not link or (run.root.parent / "mine" / "a.csv").read_text() == "1"


def test_a_run_without_its_checksums_is_made_again(run):
    go(run, *chain(run))
    (run.root / "SHA256SUMS").unlink()
    assert go(run, *chain(run))[1] == ["one", "three", "two"]


def test_what_no_stage_has_made_is_left_to_the_stage(run):
    run.open("smoke", 0)
    (run.root / "one").write_text("by hand")
    assert go(run, stage(run.root, "one", fake_stages.stumble, text=""))[0] == ("one",)
    assert (run.root / "one").read_text() == "second"


def test_side_by_side_stages_share_the_cores(run, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("ladlib.runner.hardware", lambda: {"cores": 8})
    go(run, stage(run.root, "one", fake_stages.threads), jobs=4)
    assert (run.root / "one").read_text() == "2"
