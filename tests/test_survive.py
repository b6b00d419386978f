"""Runs survive kills, a full disk, a second process, Ctrl-C, a limit of time."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest
from fake_notebooks import STAGES as FAKES
from fake_notebooks import execute_here, write_notebooks
from rich.console import Console
from typer.testing import CliRunner

from ladlib import batch, pipeline
from ladlib.cli import app
from ladlib.errors import UserError
from ladlib.runner import StageFailed
from ladlib.runs import RELEASED, RunFolder, locked, read_jsonl, write_bytes

RUNNING = re.compile(r"^\[(\d\d_\w+)\] cell", re.MULTILINE)
COMPARED = (
    "generations/*.jsonl", "logs/*.jsonl", "manifests/*", "rationales/*", "samples/*", "tables/*", "metrics.json",
)  # fmt: skip
Disk = namedtuple("Disk", "total used free")
SLEEP = "import time\nprint('asleep', flush=True)\ntime.sleep(60)"


class Chain:
    """One run folder that ``ladlib reproduce`` is called on until it ends well."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder.with_suffix(".txt")

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "ladlib", "reproduce", "--profile", "smoke", "--run", str(self.folder)]
        with self.output.open("w") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def stage(self) -> str:
        """The stage that is running; "" where none has begun."""
        return ([""] + RUNNING.findall(self.output.read_text(errors="replace")))[-1]

    def kill(self, stage: str, seconds: float, whole: bool) -> bool:
        """SIGKILL to the pipeline alone, as one kills a process, or to the whole, as a machine that is switched off.

        It comes ``seconds`` after ``stage`` has begun; False where the run had ended.
        """
        process = self.start()
        while process.poll() is None and self.stage() < stage:
            time.sleep(0.05)
        end = time.monotonic() + seconds
        while process.poll() is None and self.stage() == stage and time.monotonic() < end:
            time.sleep(0.05)
        if process.poll() is not None:
            return False
        (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        return True


def differences(run: Path, expected: Path) -> list[str]:
    """What differs between two runs, by file; [] where they are equal."""
    files = ((root, file) for root in (run, expected) for pattern in COMPARED for file in root.glob(pattern))
    names = sorted({file.relative_to(root).as_posix() for root, file in files})
    return [name for name in names if _content(run / name) != _content(expected / name)]


def _content(file: Path) -> object:
    if not file.is_file():
        return None
    if file.suffix != ".jsonl":
        return file.read_bytes()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    timeless = [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]
    return sorted(timeless, key=lambda row: str(row.get("id", ""))) if "generations" in file.parts else timeless


@pytest.mark.slow
def test_a_run_that_is_killed_in_its_long_stages_ends_as_an_undisturbed_one(tmp_path, smoke):
    chain, chance = Chain(tmp_path / "run"), random.Random(3)
    stages = [smoke.stage(name) for name in ("02_sft", "03_grpo", "04_evaluation")]
    killed = [chain.kill(one.name, chance.uniform(0, one.seconds), number != 1) for number, one in enumerate(stages)]
    assert chain.start().wait() == 0, chain.output.read_text()[-2000:]
    assert any(killed) and differences(chain.folder, smoke.root) == []


# One process at a time


@pytest.fixture
def holder(tmp_path):
    """Another process that is at work in the folder ``run``."""
    code = "import sys, time\nfrom pathlib import Path\nfrom ladlib.runs import locked\n"
    code += "with locked(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)\n"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def no_table(monkeypatch):
    monkeypatch.setattr(pipeline, "closing", lambda folder: "the comparison")


def reproduce(root, two="", **options):
    notebooks = write_notebooks(root.parent / "notebooks", **{"two": two} if two else {})
    console = Console(quiet=True)
    return pipeline.reproduce("smoke", run=str(root), notebooks=notebooks, stages=FAKES, console=console, **options)


def test_a_second_process_in_the_same_folder_is_refused_and_in_another_it_runs(tmp_path, monkeypatch, holder):
    monkeypatch.setattr(batch, "execute", execute_here)
    with pytest.raises(UserError, match="Another ladlib process is at work in .*run"):
        reproduce(tmp_path / "run")
    shutil.copytree(RELEASED / "toy", tmp_path / "run", dirs_exist_ok=True)
    result = CliRunner().invoke(app, ["report", "--run", str(tmp_path / "run")])
    assert result.exit_code == 2 and "Another ladlib process" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    reproduce(tmp_path / "other")
    holder.kill()
    holder.wait()
    for _ in range(2):  # a lock ends with its block
        with locked(tmp_path / "run"):
            pass


@pytest.mark.slow
def test_a_kernel_waits_for_the_one_that_a_killed_pipeline_left_behind(tmp_path):
    code = "import sys, time\nfrom pathlib import Path\nfrom ladlib.runs import lock_kernel\n"
    code += "lock_kernel(Path(sys.argv[1]))\nprint('in', flush=True)\ntime.sleep(float(sys.argv[2]))"
    environment, run = os.environ | {"LADLIB_BATCH": "1"}, [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen([*run, "2"], stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout.readline() == "in\n"
        subprocess.run([*run, "0"], env=os.environ | {"LADLIB_BATCH": ""}, check=True, timeout=1.5)  # opened by hand
        subprocess.run([*run, "0"], env=environment, check=True)
        assert first.poll() is not None


# Interrupted, too slow, too large


@pytest.mark.slow
def test_ctrl_c_stops_within_seconds_and_says_how_to_resume(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from pathlib import Path; import fake_notebooks, ladlib.pipeline as p; from functools import partial\n"
        "p.reproduce = partial(p.reproduce, notebooks=Path(sys.argv.pop(1)), stages=fake_notebooks.STAGES)\n"
        "from ladlib.cli import app; app()"
    )
    folders = [str(Path(__file__).parent), str(write_notebooks(tmp_path / "notebooks", two=SLEEP))]
    command = [sys.executable, "-c", code, *folders, "reproduce", "--profile", "smoke", "--run", str(tmp_path / "run")]
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests begun in the background ignore it
    process = subprocess.Popen(
        [*command, "--verbose"], text=True, preexec_fn=hear, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while "asleep" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on" in errors and "Traceback" not in errors
    assert time.monotonic() - begun < 15
    assert RunFolder(tmp_path / "run").stage("01_one") and not RunFolder(tmp_path / "run").stage("02_two")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("two", "options", "error", "words"),
    [
        (SLEEP, {"minutes": 0.05}, StageFailed, "02_two failed in cell .*limit of 0.05 minutes"),
        ("import os\nos.kill(os.getpid(), 9)", {}, StageFailed, "02_two failed .*want of memory.*micro_batch_size"),
        ("raise OSError(28, 'No space left on device')", {}, UserError, "disk of .* is full. Make room and run the"),
        ("import ladlib as lad\nraise lad.errors.UserError('A', 'B.')", {}, UserError, r"^A B\. \[02_two, cell 4\]$"),
    ],
    ids=["over its time limit", "killed by the system", "a full disk", "an error of the user"],
)
def test_a_notebook_that_cannot_go_on_is_named_with_what_to_do(tmp_path, two, options, error, words):
    with pytest.raises(error, match=f"(?s){words}"):
        reproduce(tmp_path / "run", two, **options)


def test_a_disk_that_is_too_small_is_reported_before_anything_runs_and_not_in_a_run_that_has_begun(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(1, 1, 2**20))
    result = CliRunner().invoke(app, ["reproduce", "--profile", "smoke", "--run", str(tmp_path / "run")])
    assert result.exit_code == 2 and "takes 0.2 GiB, and the disk of" in result.stderr
    assert not (tmp_path / "run" / "run.json").exists()
    RunFolder(tmp_path / "run").open("smoke", 0)
    monkeypatch.setattr(batch, "execute", execute_here)
    assert reproduce(tmp_path / "run").stage("03_three")


def fifo(path):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [fifo, Path.mkdir, lambda path: path.symlink_to(path.parent / "theirs"),
                                  lambda path: path.symlink_to("/dev/full")])  # fmt: skip
def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path, make):
    run = RunFolder(tmp_path)
    make(run.run_json)
    with pytest.raises(UserError, match=r"run.json is (no regular file|damaged)|not a run folder"):
        run.read()
    with pytest.raises(UserError, match="run.json is no regular file. Name another file, or move it away."):
        write_bytes(run.run_json, b"{}")
    assert not run.run_json.is_file() and not (tmp_path / "theirs").exists()
    fifo(tmp_path / "answers.jsonl")
    with pytest.raises(UserError, match="answers.jsonl is no regular file"):
        read_jsonl(tmp_path / "answers.jsonl")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ladlib.runs.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and [one.name for one in tmp_path.iterdir()] == ["file"]
