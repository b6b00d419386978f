"""The command line: exit codes, one line for what a user can mend, nothing heavy at start-up."""

import json
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.runs import RunFolder

COMMANDS = (
    ["reproduce"], ["report"], ["verify"], ["inspect"], ["doctor"], ["pretrain"], ["study"], ["data", "toy"],
    ["data", "check"], ["data", "download"], ["data", "sft"], ["data", "review"],
    ["bench", "eval"], ["bench", "sft"],
)  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def refused(result, *words: str) -> bool:
    """Exit code 2 and one line on stderr with all of ``words`` in it."""
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    return all(word in result.stderr for word in words)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"ladlib {' '.join(command)}" in result.output.split("Examples:")[1]


def test_the_command_line_starts_without_torch_and_answers_as_a_module():
    code = "import sys, ladlib.cli, ladlib.pipeline; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    told = subprocess.run([sys.executable, "-m", "ladlib", "--version"], capture_output=True, text=True)
    assert told.stdout.startswith("ladlib ") and told.returncode == 0


def test_an_unknown_profile_is_refused(run):
    assert refused(run("reproduce", "--profile", "tyo"), "'tyo'", "smoke, toy, small, paper")


def test_a_missing_data_folder_is_refused(run, notebooks):
    assert refused(run("reproduce", "--profile", "smoke", "--data", "nowhere"), "nowhere", "--data")
    assert refused(run("data", "check", "nowhere"), "nowhere")


def test_a_mistyped_parameter_is_refused_and_nothing_is_written(run, tmp_path, notebooks):
    assert refused(run("reproduce", "-p", "grpo_setps=3"), "grpo_setps", "grpo_steps")
    assert refused(run("reproduce", "-p", "grpo_steps=few"), "grpo_steps", "whole number")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_profile_is_refused(run, tmp_path, notebooks):
    RunFolder(tmp_path / "mine").open("toy", 0)
    before = RunFolder(tmp_path / "mine").run_json.read_bytes()
    assert refused(run("reproduce", "--profile", "smoke", "--run", "mine"), "mine", "'toy'", "--run")
    assert RunFolder(tmp_path / "mine").run_json.read_bytes() == before


def test_a_report_needs_a_run(run, tmp_path):
    assert refused(run("report", "--run", "nowhere"), "nowhere", "ladlib reproduce")


def test_a_missing_image_is_refused_before_a_model_is_loaded(run, tmp_path):
    (tmp_path / "normal.png").write_bytes(b"")
    assert refused(run("inspect", "normal.png", "other.png"), "other.png")


def test_inspect_prints_the_verdict_as_text_or_json(run, tmp_path, monkeypatch):
    @dataclass
    class Verdict:
        answer: str = "yes"
        p_yes: float = 0.875
        text: str = "<think>one nut is missing</think><answer>yes</answer>"
        seconds: float = 1.25

    fake = SimpleNamespace(inspect=lambda reference, test, model, profile: Verdict())
    monkeypatch.setitem(sys.modules, "ladlib.evaluate", fake)
    monkeypatch.setattr("ladlib.evaluate", fake, raising=False)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    assert run("inspect", "a.png", "b.png").output.startswith("anomalous, P(anomalous) = 0.88\n")
    told = json.loads(run("inspect", "a.png", "b.png", "--json").output)
    assert told == vars(Verdict()) | {"model": "toy-base"}


def test_data_toy_refuses_a_profile_without_toy_datasets(run):
    assert refused(run("data", "toy", "--out", "x", "--profile", "paper"), "'paper'")


def test_data_check_exits_with_1_where_files_are_missing(run, tmp_path):
    (tmp_path / "mvtec_anomaly_detection" / "bottle" / "train" / "good").mkdir(parents=True)
    result = run("data", "check", str(tmp_path))
    assert result.exit_code == 1
    assert any(line.startswith("error  mvtec_ad") for line in result.output.splitlines())


def test_doctor_exits_with_1_where_the_profile_cannot_run(run):
    result = run("doctor", "--profile", "paper")
    assert result.exit_code == 1
    assert "missing datasets" in result.output and "cannot run profile 'paper'" in result.output


def test_a_dry_run_of_the_paper_profile_prints_the_plan_without_datasets_and_without_torch(tmp_path):
    code = (
        "import sys; from ladlib.cli import app\n"
        "try: app(['reproduce', '--profile', 'paper', '--dry-run', '-p', 'grpo_beta=0'])\n"
        "finally: print('heavy', sorted({'torch', 'transformers', 'papermill'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0 and "heavy []" in told.stdout, told.stderr
    for word in ("3000 conversations, 564 steps", "calculated, not measured", "GPU hours", "Where it does not fit"):
        assert word in told.stdout
    assert "reference" not in told.stdout.split("Memory on each GPU")[1].split("Hours")[0]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def notebooks(tmp_path_factory, monkeypatch):
    """Notebooks of the right names with a few of the right parameters, instead of the real ones."""
    from fake_notebooks import HEAD, write_notebook

    from ladlib.pipeline import STAGES, run

    folder = tmp_path_factory.mktemp("books")
    for stage in STAGES:
        write_notebook(stage.notebook(folder), HEAD + ("grpo_steps = -1\n" if "grpo" in stage.name else ""))
    monkeypatch.setattr(run, "notebooks_folder", lambda: folder)
