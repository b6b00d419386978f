"""The command line: exit codes, one line for what a user can correct, nothing heavy at start-up."""

import json
import shlex
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import typer
from fake_notebooks import HEAD, STAGES, execute_here, write_notebook, write_notebooks
from typer.testing import CliRunner

from ladlib import pipeline
from ladlib.cli import app
from ladlib.evaluate import Verdict

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
    "export": ("RUN OUT", ""),
}


def commands(command, words: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The options of every command below ``command``, groups left out."""
    if not hasattr(command, "commands"):
        return {" ".join(words): [one.opts[0] for one in command.params if one.param_type_name == "option"]}
    return {
        name: options
        for word, one in command.commands.items()
        for name, options in commands(one, (*words, word)).items()
    }


COMMANDS = commands(typer.main.get_command(app))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_there_are_at_most_thirteen_commands_with_fifty_options():
    assert set(FIXED) <= set(COMMANDS) and len(COMMANDS) <= 13
    assert sum(map(len, COMMANDS.values())) <= 50


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_promised_options_and_an_example(run, command):
    result, (words, options) = run(*command.split(), "--help"), FIXED.get(command, ("", ""))
    assert result.exit_code == 0 and f"ladlib {command}" in result.output.split("Examples:")[1]
    assert all(word.lower() in result.output.lower() for word in words.split())
    assert {f"--{option}" for option in options.split()} <= set(COMMANDS[command])


def test_the_command_line_starts_without_torch():
    code = "import sys, ladlib.cli, ladlib.study; print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("reproduce --profile tyo", ["'tyo'", "smoke, toy, small, paper"]),
        ("reproduce --profile smoke --data nowhere", ["nowhere", "--data"]),
        ("reproduce -p grpo_setps=3", ["grpo_setps", "grpo_steps"]),
        ("reproduce -p grpo_steps=few", ["grpo_steps", "whole number"]),
        ("reproduce --seed -1 --run new", ["-1", "from 0 to"]),
        (f"reproduce --seed {2**32} --run new", [str(2**32), "from 0 to"]),
        ("reproduce --from 02 --only 03", ["--from", "--only"]),
        ("data check nowhere", ["nowhere"]),
        ("data toy --out x --profile paper", ["'paper'"]),
        ("report --run nowhere", ["nowhere", "ladlib reproduce"]),
        ("verify nowhere", ["nowhere"]),
        ("inspect a.png b.png", ["a.png"]),
        ("inspect '' b.png", ["The first path is empty."]),
        ("inspect a.png b.png --profile nonsense", ["There is no profile 'nonsense'."]),
    ],
)
def test_what_cannot_run_is_refused_in_one_line_and_nothing_is_written(run, tmp_path, notebooks, command, words):
    result = run(*shlex.split(command))
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert all(word in result.stderr for word in words)
    assert list(tmp_path.iterdir()) == []


def test_inspect_prints_the_verdict_as_text_or_json(run, tmp_path, monkeypatch):
    verdict = Verdict(answer="yes", p_yes=0.875, text="<think>one nut is missing</think>", seconds=1.25)
    fake = SimpleNamespace(inspect=lambda *_: verdict)
    monkeypatch.setitem(sys.modules, "ladlib.evaluate", fake)
    monkeypatch.setattr("ladlib.evaluate", fake)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    assert run("inspect", "a.png", "b.png").output.startswith("anomalous, P(anomalous) = 0.88\n")
    assert json.loads(run("inspect", "a.png", "b.png", "--json").output) == vars(verdict) | {"model": "toy-base"}


def test_data_check_and_doctor_answer_people_and_scripts_with_the_same_exit_code(run, tmp_path):
    (tmp_path / "mvtec_anomaly_detection" / "bottle" / "train" / "good").mkdir(parents=True)
    result, answer = run("data", "check", "."), run("data", "check", ".", "--json")
    assert result.exit_code == answer.exit_code == 1 and "\nerror  mvtec_ad" in f"\n{result.output}"
    found = json.loads(answer.stdout)
    assert found["errors"] == sum(one["severity"] == "error" for one in found["findings"]) > 0
    assert all({"dataset", "category", "message", "hint"} <= set(one) for one in found["findings"])
    run("data", "toy", "--out", "drawn", "--profile", "smoke")
    assert len(run("data", "check", "drawn").output.strip().splitlines()) == 3, "that they are toys says it all"
    result, answer = run("doctor", "--profile", "paper"), run("doctor", "--profile", "paper", "--json")
    assert result.exit_code == answer.exit_code == 1
    assert "missing datasets" in result.output and "cannot run profile 'paper'" in result.output
    assert json.loads(answer.stdout)["can_run"] is False


def test_a_dry_run_of_the_paper_profile_prints_the_plan_without_datasets_and_without_torch(tmp_path):
    code = (
        "import sys; from ladlib.cli import app\n"
        "try: app(['reproduce', '--profile', 'paper', '--dry-run', '-p', 'grpo_beta=0'])\n"
        "finally: print('heavy', sorted({'torch', 'transformers', 'papermill'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0 and "heavy []" in result.stdout, result.stderr
    for words in ("[02_sft] would run: 3000 conversations, 564 steps", "calculated, not measured", "weights"):
        assert words in result.stdout
    assert "reference" not in result.stdout.split("Memory on each GPU")[1], "beta = 0 needs no reference model"
    assert list(tmp_path.iterdir()) == []


# Manners


def test_help_and_errors_have_neither_colours_nor_frames_in_a_pipe():
    for arguments in (["reproduce", "--help"], ["reproduce", "--profle", "toy"]):
        result = subprocess.run([sys.executable, "-m", "ladlib", *arguments], capture_output=True, text=True)
        assert not set("\x1b╭│─") & set(result.stdout + result.stderr)


@pytest.mark.parametrize(
    ("typed", "offered"), [("ladlib data ch", "check"), ("ladlib reproduce --profile pa", "paper")]
)
def test_a_shell_completes_commands_and_profiles(typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_LADLIB_COMPLETE": "complete_bash"}
    result = CliRunner().invoke(app, prog_name="ladlib", env=words)
    assert offered in result.output and "smoke" not in result.output


def test_a_quiet_reproduction_runs_and_prints_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ladlib.batch.execute", execute_here)
    monkeypatch.setattr("ladlib.pipeline.closing", lambda folder: "the comparison")
    books = write_notebooks(tmp_path / "books")
    monkeypatch.setattr(pipeline, "reproduce", partial(pipeline.reproduce, notebooks=books, stages=STAGES))
    result = run("reproduce", "--profile", "smoke", "--run", "one")
    assert "the comparison" in result.output and "[03_three] done" in result.output
    assert run("reproduce", "--profile", "smoke", "--run", "two", "--quiet").output == ""
    assert (tmp_path / "two" / "three").is_dir()


def test_a_quiet_study_names_only_the_stages_that_failed(run, monkeypatch):
    def fails(profile, arms, seeds, folder, jobs, say):
        say("[data] started")
        return ("train-sft-seed0",)

    monkeypatch.setattr("ladlib.study.study", fails)
    assert "[data] started" in run("study").stdout
    quiet = run("study", "--quiet")
    assert (quiet.exit_code, quiet.stdout) == (1, "") and "train-sft-seed0" in quiet.stderr


@pytest.fixture
def notebooks(tmp_path_factory, monkeypatch):
    """Notebooks of the right names with a few of the right parameters, instead of the real ones."""
    folder = tmp_path_factory.mktemp("books")
    for stage in pipeline.STAGES:
        write_notebook(folder / f"{stage.name}.ipynb", HEAD + ("grpo_steps = -1\n" if "grpo" in stage.name else ""))
    monkeypatch.setattr(pipeline, "notebooks_folder", lambda: folder)
