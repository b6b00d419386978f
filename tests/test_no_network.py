"""No default command connects to anything but this machine, though nothing tells the libraries to stay offline."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ladlib.data import find_dataset, read_dataset
from ladlib.runs import RELEASED

ROOT = Path(__file__).parents[1]
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@pytest.fixture
def blocked(tmp_path):
    """Runs a command without a network; (exit code, output), after looking at what it tried."""
    tried = tmp_path / "tried"
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    environment |= {"PYTHONPATH": f"{ROOT / 'tests' / 'blocked'}:{ROOT}", "TRIED": str(tried), "HOME": str(tmp_path)}

    def run(*arguments, code=""):
        command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "ladlib", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=1200)
        assert code or not tried.exists(), tried.read_text()
        return done.returncode, done.stdout + done.stderr

    run.tried = tried
    return run


def test_the_block_blocks(blocked):
    code, told = blocked(code="import urllib.request; urllib.request.urlopen('http://example.org')")
    assert code == 1 and "Network is unreachable" in told and blocked.tried.read_text() == "example.org\n"
    blocked.tried.unlink()
    code, told = blocked(code="import socket; socket.create_connection(('192.0.2.1', 80))")
    assert code == 1 and "192.0.2.1" in blocked.tried.read_text()


@pytest.mark.slow
def test_data_inspect_doctor_report_and_verify_connect_to_nothing(blocked, tmp_path):
    assert blocked("data", "toy", "--profile", "smoke", "--out", tmp_path / "data")[0] == 0
    assert blocked("data", "check", tmp_path / "data")[0] == 1, "toy datasets are not complete"
    assert blocked("doctor")[0] in (0, 1)
    assert blocked("doctor", "--profile", "paper")[0] == 1
    assert blocked("reproduce", "--profile", "paper", "--dry-run")[0] == 0
    images = [
        find_dataset(tmp_path / "data", "mvtec_loco") / one.image
        for one in read_dataset(tmp_path / "data", "mvtec_loco")
    ]
    assert blocked("inspect", images[0], images[1])[0] == 0
    shutil.copytree(RELEASED / "toy", tmp_path / "run")
    assert blocked("report", "--run", tmp_path / "run", "--data", tmp_path / "data")[0] == 0
    assert blocked("verify", tmp_path / "run")[0] in (0, 1)


TRAIN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from ladlib import grpo, sft
from ladlib.runs import RunFolder
from tiny import tiny_profile, write_data
data, run, profile = write_data(Path("data")), RunFolder("run"), tiny_profile(sft__steps=1, grpo__steps=1)
grpo.train(profile, data, run, 0, model=str(sft.train(profile, data, run, 0)))
"""


@pytest.mark.slow
def test_no_training_tells_anybody_that_it_runs(blocked):
    code, told = blocked(code=TRAIN.format(tests=str(ROOT / "tests")))
    assert code == 0, told
    assert not blocked.tried.exists(), blocked.tried.read_text()


@pytest.mark.slow
def test_a_whole_run_connects_to_nothing(blocked, tmp_path):
    code, told = blocked("reproduce", "--profile", "smoke", "--run", tmp_path / "run")
    assert code == 0, told
