"""No default command connects to anything but this machine, though nothing tells the libraries to stay offline."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import BLOCKED, OFFLINE

from ladlib.data import find_dataset, read_dataset
from ladlib.runs import RELEASED

COMMANDS = """
import json, sys
from typer.testing import CliRunner
from ladlib.cli import app
for command in json.loads(sys.argv[1]):
    print(command[0], CliRunner().invoke(app, command).exit_code)
"""


@pytest.fixture
def blocked(tmp_path):
    """Runs Python without a network; (what it printed, what it tried to reach)."""
    tried = tmp_path / "tried"
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    path = f"{BLOCKED}:{BLOCKED.parents[1]}"
    environment |= {"PYTHONPATH": path, "TRIED": str(tried), "HOME": str(tmp_path)}

    def run(code, *arguments):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=1200)
        return done.stdout + done.stderr, tried.read_text() if tried.exists() else ""

    return run


def test_the_block_blocks(blocked):
    printed, tried = blocked("import urllib.request; urllib.request.urlopen('http://example.org')")
    assert "Network is unreachable" in printed and tried == "example.org\n"


@pytest.mark.slow
def test_data_inspect_doctor_report_and_verify_connect_to_nothing(blocked, tmp_path, smoke):
    folder = find_dataset(smoke.data, "mvtec_loco")
    images = [str(folder / sample.image) for sample in read_dataset(smoke.data, "mvtec_loco")[:2]]
    shutil.copytree(RELEASED / "toy", tmp_path / "run")
    commands = [
        ["data", "toy", "--profile", "smoke", "--out", "drawn"], ["doctor"], ["doctor", "--profile", "paper"],
        ["reproduce", "--profile", "paper", "--dry-run"], ["inspect", *images], ["report", "--run", "run"],
        ["verify", "run"],
    ]  # fmt: skip
    printed, tried = blocked(COMMANDS, json.dumps(commands))
    codes = "".join(line.split()[1] for line in printed.splitlines() if line[:1].isalpha())
    assert re.fullmatch("0[01][01][01]00[01]", codes), printed
    assert tried == ""


@pytest.mark.slow
def test_a_whole_run_connects_to_nothing(smoke):
    tried = smoke.root.parent / "tried"
    assert not tried.exists(), tried.read_text()
