"""The command line: exit codes, one line for what a user can hint, nothing heavy at start-up."""

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from ladlib.cli import app
from ladlib.runs import RunFolder

ESCAPE, COLOUR = "\x1b", re.compile(r"\x1b\[[\d;]*?\b(3[0-7]|9[0-7])[\d;]*m")


def commands(command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command below ``command``, groups left out."""
    if not hasattr(command, "commands"):
        return [words]
    return [found for name, one in command.commands.items() for found in commands(one, (*words, name))]


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


FIXED = {  # the interface that design.md promises: command, what its usage names, its options
    "reproduce": ("", "profile data run seed from only force dry-run parameter"),
    "verify": ("RUN_DIR", "json"),
    "inspect": ("REFERENCE TEST", "model json"),
    "doctor": ("", "profile data json"),
    "data toy": ("", "out profile"),
    "data check": ("DIR", "json"),
    "data download": ("DATASET", "out accept-licence"),
    "data sft": ("", "data out"),
    "bench": ("grpo eval", "profile"),
    "pretrain": ("base large", ""),
    "study": ("", "arms seeds run"),
    "report": ("", "run"),
}


@pytest.mark.parametrize("command", FIXED)
def test_a_promised_command_has_its_arguments_and_options(run, command):
    words, options = FIXED[command]
    told = run(*command.split(), "--help").output
    assert all(word.lower() in told.lower() for word in words.split())
    assert all(f"--{option}" in told for option in options.split())


@pytest.mark.parametrize("command", commands(typer.main.get_command(app)), ids=" ".join)
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


def test_data_check_says_of_drawn_datasets_that_they_are_drawn_and_not_what_each_of_them_lacks(run, tmp_path):
    run("data", "toy", "--out", "drawn", "--profile", "smoke")
    lines = run("data", "check", "drawn").output.strip().splitlines()
    assert len(lines) == 3 and "synthetic toy datasets" in lines[0] and "errors" in lines[2]
    told = json.loads(run("data", "check", "drawn", "--json").output)
    assert told["errors"] > 10 and lines[2].startswith(f"{told['errors']} errors")


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_what_is_no_seed_is_refused_before_anything_is_written(run, tmp_path, seed):
    assert refused(run("reproduce", "--seed", seed, "--run", "new"), seed, "from 0 to")
    assert not (tmp_path / "new").exists()


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
    for word in ("3000 conversations, 564 steps", "calculated, not measured", "weights"):
        assert word in told.stdout
    assert "reference" not in told.stdout.split("Memory on each GPU")[1], "beta = 0 needs no reference model"
    assert list(tmp_path.iterdir()) == []


# Manners


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What ``ladlib`` with ``arguments`` writes to a terminal."""
    ours, its = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    plain |= {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    process = subprocess.Popen(
        [sys.executable, "-m", "ladlib", *arguments], stdin=its, stdout=its, stderr=its, env=plain
    )
    os.close(its)
    told = b""
    while part := read_some(ours):
        told += part
    process.wait()
    os.close(ours)
    return told.decode()


def read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so where the other end is closed
        return b""


def test_help_and_usage_errors_are_coloured_on_a_terminal_and_not_where_no_color_is_set():
    for arguments in (["--help"], ["reproduce", "--profle", "toy"]):
        assert COLOUR.search(on_a_terminal(*arguments))
        assert not COLOUR.search(on_a_terminal(*arguments, NO_COLOR="1"))


def test_a_pipe_gets_plain_text_without_escapes_and_frames():
    for arguments in (["reproduce", "--help"], ["data", "check", "--help"], ["reproduce", "--profle", "toy"]):
        told = subprocess.run([sys.executable, "-m", "ladlib", *arguments], capture_output=True, text=True)
        assert ESCAPE not in told.stdout + told.stderr and not set("╭│─") & set(told.stdout + told.stderr)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("ladlib rep", "reproduce"), ("ladlib data ch", "check"), ("ladlib reproduce --profile pa", "paper")],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_profiles(shell, typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    words |= {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    told = CliRunner().invoke(app, prog_name="ladlib", env=words | {"_LADLIB_COMPLETE": f"complete_{shell}"})
    assert offered in told.output and "inspect" not in told.output


def test_the_script_that_the_readme_names_for_completion_is_shown(monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))  # whatever started the tests
    told = CliRunner().invoke(app, ["--show-completion"], prog_name="ladlib")
    assert told.exit_code == 0 and "_LADLIB_COMPLETE=complete_bash" in told.output


def test_a_quiet_reproduction_runs_and_says_nothing(run, tmp_path, monkeypatch):
    from fake_notebooks import STAGES, execute_here, write_notebooks

    from ladlib import pipeline

    monkeypatch.setattr("ladlib.execution.execute", execute_here)
    monkeypatch.setattr("ladlib.pipeline.closing", lambda folder: "the comparison")
    books = write_notebooks(tmp_path / "books")
    monkeypatch.setattr(pipeline, "reproduce", partial(pipeline.reproduce, notebooks=books, stages=STAGES))
    said = run("reproduce", "--profile", "smoke", "--run", "one")
    assert "the comparison" in said.output and "[03_three] done" in said.output
    assert run("reproduce", "--profile", "smoke", "--run", "two", "--quiet").output == ""
    assert (tmp_path / "two" / "three").is_dir()


def test_quiet_does_not_go_with_what_is_there_to_be_read(run):
    assert refused(run("reproduce", "--quiet", "--verbose"), "--quiet", "--verbose")
    assert refused(run("reproduce", "--quiet", "--dry-run"), "--quiet", "--dry-run")


def test_a_quiet_study_names_only_the_stages_that_failed(run, monkeypatch):
    def fails(profile, arms, seeds, folder, jobs, say):
        say("[data] started")
        return ("sft-seed0",)

    monkeypatch.setattr("ladlib.study.study", fails)
    assert "[data] started" in run("study").stdout
    quiet = run("study", "--quiet")
    assert (quiet.exit_code, quiet.stdout) == (1, "") and "sft-seed0" in quiet.stderr


def test_doctor_and_data_check_answer_scripts_with_one_object_and_the_same_exit_code(run, tmp_path):
    told = run("doctor", "--profile", "paper", "--json")
    diagnosis = json.loads(told.stdout)
    assert told.exit_code == 1 and diagnosis["can_run"] is False
    assert {"missing", "datasets"} <= {one[key] for one in diagnosis["checks"] for key in ("verdict", "subject")}
    (tmp_path / "mvtec_anomaly_detection" / "bottle" / "train" / "good").mkdir(parents=True)
    told = run("data", "check", str(tmp_path), "--json")
    found = json.loads(told.stdout)
    assert told.exit_code == 1 and found["errors"] == sum(one["severity"] == "error" for one in found["findings"]) > 0
    assert all({"dataset", "category", "message", "hint"} <= set(one) for one in found["findings"])


@pytest.fixture
def notebooks(tmp_path_factory, monkeypatch):
    """Notebooks of the right names with a few of the right parameters, instead of the real ones."""
    from fake_notebooks import HEAD, write_notebook

    from ladlib.pipeline import STAGES

    folder = tmp_path_factory.mktemp("books")
    for stage in STAGES:
        write_notebook(folder / f"{stage.name}.ipynb", HEAD + ("grpo_steps = -1\n" if "grpo" in stage.name else ""))
    monkeypatch.setattr("ladlib.pipeline.notebooks_folder", lambda: folder)
