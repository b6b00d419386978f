"""The pipeline on small notebooks: what runs, what is skipped, what a failure leaves and says."""

import io
import json
import shutil
from itertools import combinations

import pytest
from fake_notebooks import HEAD, STAGES, execute_here, write_notebook, write_notebooks
from rich.console import Console
from typer.testing import CliRunner

from ladlib import runner
from ladlib.batch import Progress, check, declared
from ladlib.cli import app
from ladlib.config import load_profile
from ladlib.errors import UserError
from ladlib.pipeline import depends_on, reproduce
from ladlib.runner import StageFailed
from ladlib.runs import RunFolder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with notebooks, and a function that runs them and returns what was printed."""
    monkeypatch.setattr("ladlib.pipeline.closing", lambda folder: "the comparison")
    write_notebooks(tmp_path / "books")

    def run(*parameters: str, **options) -> str:
        out = io.StringIO()
        options = {"profile": "smoke", "run": str(tmp_path / "run"), "parameters": parameters} | options
        books = {"notebooks": tmp_path / "books", "stages": STAGES}
        reproduce(console=Console(file=out, width=200), **books, **options)
        return out.getvalue()

    run.root = tmp_path
    return run


@pytest.fixture
def quick(project, monkeypatch):
    """The same without kernels."""
    monkeypatch.setattr("ladlib.batch.execute", execute_here)
    return project


def ran(printed: str) -> list[str]:
    return [line.split("]")[0][1:3] for line in printed.splitlines() if "] done in" in line]


def test_a_first_run_executes_all_stages_and_the_second_skips_all(project):
    first = project()
    assert ran(first) == ["01", "02", "03"]
    assert "[02_two] cell 4/4 · 0:0" in first
    record = RunFolder(project.root / "run").read()
    outputs = [("one.txt", "notebooks/01_one.ipynb"), ("two-0.txt", "notebooks/02_two.ipynb"),
               ("three", "notebooks/03_three.ipynb")]  # fmt: skip
    assert [stage.outputs for stage in record.stages] == outputs
    again = project()
    assert ran(again) == [] and again.count("unchanged, skipped") == 3 and "the comparison" in again
    assert RunFolder(project.root / "run").read() == record


@pytest.mark.parametrize(
    ("change", "options", "again"),
    [
        (lambda root: None, {"parameters": ("rate=1e-4", "steps=7")}, ["02", "03"]),
        (lambda root: None, {"parameters": ("limit=3",)}, ["03"]),
        (lambda root: write_notebooks(root / "books", one='Path(run, "one.txt").write_text("o" + "ne")'), {}, ["01"]),
        (lambda root: shutil.rmtree(root / "run" / "three"), {}, ["03"]),
        (lambda root: None, {"start": "2"}, ["02", "03"]),
        (lambda root: None, {"only": "02_two"}, ["02"]),
        (lambda root: None, {"force": True}, ["01", "02", "03"]),
    ],
    ids=["parameters", "the last's", "code that writes the same", "a missing output", "from", "only", "force"],
)
def test_what_changed_or_is_asked_for_runs_again_and_nothing_else(quick, change, options, again):
    quick()
    change(quick.root)
    assert ran(quick(**options)) == again


def test_a_dry_run_prints_what_would_run_and_writes_nothing(quick):
    assert quick(dry_run=True).count("] would run") == 3 and not (quick.root / "run").exists()
    quick()
    before = sorted(path.stat().st_mtime_ns for path in quick.root.rglob("*"))
    assert quick(dry_run=True).count("unchanged, would be skipped") == 3
    plan = quick(dry_run=True, start="02")
    assert "[01_one]" not in plan and "[02_two] would run:" in plan and "[03_three] would run:" in plan
    assert sorted(path.stat().st_mtime_ns for path in quick.root.rglob("*")) == before
    write_notebooks(quick.root / "books", two='Path(run, f"two-{seed}.txt").write_text("other")')
    plan = quick(dry_run=True)
    assert "[01_one] unchanged" in plan and "[02_two] would run:" in plan and "[03_three] would run:" in plan


def test_a_failing_cell_is_shown_on_one_screen_its_copy_is_kept_and_the_run_resumes_there(project):
    write_notebooks(project.root / "books", two="values = [1]\nvalues[5]")
    with pytest.raises(StageFailed) as failure:
        project()
    screen = str(failure.value)
    assert "02_two failed in cell 4 of 4" in screen and "    values[5]" in screen
    assert "IndexError: list index out of range" in screen and len(screen.splitlines()) < 24
    copy = json.loads((project.root / "run" / "notebooks" / "02_two.ipynb").read_text())
    assert any(output["output_type"] == "error" for cell in copy["cells"] for output in cell.get("outputs", []))
    assert [stage.name for stage in RunFolder(project.root / "run").read().stages] == ["01_one"]
    write_notebooks(project.root / "books")
    assert ran(project()) == ["02", "03"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": ["setps=3"]}, "Did you mean steps"),
        ({"parameters": ["steps=three"]}, "not a whole number"),
        ({"parameters": ["steps=1.5"]}, "not a whole number"),
        ({"parameters": ["steps=true"]}, "not a whole number"),
        ({"parameters": ["rate=fast"]}, "not a number"),
        ({"parameters": ["steps"]}, "not of the form name=value"),
        ({"parameters": ["seed=1"]}, "--seed instead"),
        ({"start": "03"}, "01_one has not been run"),
        ({"only": "9"}, "no stage '9'"),
        ({"data": "nowhere"}, "There is no folder"),
        ({"data": "."}, "holds none of"),
        ({"profile": "paper"}, "needs datasets"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(quick, monkeypatch, options, message):
    monkeypatch.chdir(quick.root)
    with pytest.raises(UserError, match=message):
        quick(**options)
    assert not (quick.root / "run" / "run.json").exists()


def test_an_int_passes_for_a_float_and_stays_a_float(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD + "rate = -1.0\nfast = False\nname = ''\n")
    values = check(["rate=2", "fast=true", "name=no"], {"a": tmp_path / "a.ipynb"})["a"]
    assert (values["rate"], values["fast"], values["name"]) == (2.0, True, "no")
    assert type(values["rate"]) is float


def test_a_parameters_cell_may_hold_literals_only(tmp_path):
    for line in ("steps = 3 * 4", "print(3)", "steps =", "run.steps = 3"):
        write_notebook(tmp_path / "a.ipynb", line)
        with pytest.raises(UserError, match="Only `name = literal`"):
            declared(tmp_path / "a.ipynb")


@pytest.mark.parametrize(
    "command",
    [
        "reproduce --profile smoke --run X", "reproduce --profile smoke --run X --only 05", "study --run X",
        "reproduce --profile smoke --run X --dry-run", "report --run X", "verify X",
    ],
)  # fmt: skip
def test_a_folder_of_somebody_is_no_run_folder_and_stays_as_it_is(tmp_path, monkeypatch, command):
    for name in ("tables/mine.csv", "figures/mine.png", "data/mine"):
        (tmp_path / "X" / name).parent.mkdir(parents=True)
        (tmp_path / "X" / name).write_text("mine")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 2 and "no run folder" in result.stderr.replace("not a run", "no run")
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="no run folder and holds files. Name a new or empty folder."):
        RunFolder("X").open("smoke", 0)


def test_a_folder_of_another_profile_or_seed_is_refused(quick):
    quick()
    with pytest.raises(UserError, match="profile 'smoke', seed 0"):
        quick(profile="toy")
    with pytest.raises(UserError, match="Give another folder with --run"):
        quick(seed=1)


def test_a_dataset_that_grew_runs_the_stages_again(quick):
    images = quick.root / "sets" / "visa" / "candle"
    images.mkdir(parents=True)
    data = str(quick.root / "sets")
    quick(data=data)
    assert ran(quick(data=data)) == []
    (images / "0.JPG").write_bytes(b"image")
    assert ran(quick(data=data))[0] == "01"


def test_a_cell_is_announced_and_now_and_then_how_far_it_has_counted():
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200), "02_sft", 3)
    progress.start_cell({"cell_type": "code", "source": "train()"}, 0)
    progress.start_cell({"cell_type": "markdown", "source": "words"}, 1)
    for number in (9, 10):
        progress.write(f"sft · step {number}/40 · about 1:30 left\nnothing\n")
        progress.printed -= 60
    assert out.getvalue() == "[02_sft] cell 1/3 · 0:00\n[02_sft] cell 1/3 · 0:00 · sft · step 10/40 · about 1:30 left\n"


def test_a_terminal_rewrites_the_line_of_a_cell_and_a_quiet_console_shows_none():
    terminal, silent = io.StringIO(), io.StringIO()
    for console in (Console(file=terminal, force_terminal=True, width=40), Console(file=silent, quiet=True)):
        progress = Progress(console, "02_sft", 3)
        for _ in range(2):
            progress.start_cell({"cell_type": "code", "source": "train()"}, 0)
        progress.close()
    assert terminal.getvalue() == "\r\x1b[2K[02_sft] cell 1/3 · 0:00\r\x1b[2K[02_sft] cell 2/3 · 0:00\n"
    assert silent.getvalue() == ""


def depends(notebook, changes=None, **parameters):
    return depends_on(notebook, parameters, load_profile("smoke", **changes or {}), reports=notebook.stem == "ask")


def test_files_that_are_named_count_with_their_contents_and_an_sft_file_not_with_its_place(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD, "1")
    stored, seen = tmp_path / "stored.jsonl", []
    for text in (None, "{}\n", "[]\n"):
        if text:
            stored.write_text(text)
        seen.append(depends(tmp_path / "a.ipynb", large_replay=str(stored)))
    assert all(one != other for one, other in combinations(seen, 2))
    seen = []
    for name, text in (("one", "same"), ("two", "same"), ("two", "other")):
        (tmp_path / name).write_text(text)
        seen.append(depends(tmp_path / "a.ipynb", {"data.sft_file": str(tmp_path / name)}))
    assert seen[0] == seen[1] != seen[2]


def test_weights_count_that_a_parameter_names_wherever_they_are(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD, "1")
    (tmp_path / "base").mkdir()
    seen = []
    for text in ("{}", "[]"):
        (tmp_path / "base" / "config.json").write_text(text)
        seen += [depends(tmp_path / "a.ipynb", model=str(tmp_path / "base"))["weights"]]
        seen += [depends(tmp_path / "a.ipynb", {"model.base": str(tmp_path / "base")})["weights"]]
    assert seen[0] == seen[1] != seen[2] == seen[3] and all(map(all, seen))


def test_a_base_model_that_cannot_be_loaded_stops_a_run_and_a_dry_run_before_anything_runs(quick):
    (quick.root / "config.json").write_text('{"model_type": "llama"}')
    profile = load_profile("smoke", **{"model.base": str(quick.root)}).model_dump_json()
    (quick.root / "mine.yaml").write_text(profile)
    for dry_run in (True, False):
        with pytest.raises(UserError, match="does not belong to a Qwen2.5-VL but to llama"):
            quick(profile=str(quick.root / "mine.yaml"), dry_run=dry_run)


@pytest.mark.parametrize("changes", [{"endpoint.url": "http://localhost:8000/v1"}, {"model.large": "other"}])
def test_who_answers_as_the_large_model_counts_for_the_stage_that_asks_it_and_trains_nothing_again(tmp_path, changes):
    for name in ("train", "ask"):
        write_notebook(tmp_path / f"{name}.ipynb", HEAD, "1")
    assert depends(tmp_path / "train.ipynb") == depends(tmp_path / "train.ipynb", changes)
    assert depends(tmp_path / "ask.ipynb") != depends(tmp_path / "ask.ipynb", changes)


def test_the_code_of_reports_counts_for_the_stage_that_reports_alone(tmp_path, monkeypatch):
    for name in ("models.py", "cli.py", "report/page.py", "toy/tasks.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.setattr(runner, "PACKAGE", tmp_path)

    def changes(name):
        before = {reports: runner.code_sha256.__wrapped__(reports) for reports in (False, True)}
        (tmp_path / name).write_text("changed")
        return [runner.code_sha256.__wrapped__(reports) != old for reports, old in before.items()]

    assert changes("report/page.py") == changes("cli.py") == [False, True]
    assert changes("models.py") == changes("toy/tasks.yaml") == [True, True]
