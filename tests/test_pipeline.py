"""The pipeline on small notebooks: what runs, what is skipped, what a failure leaves and says."""

import io
import json
from pathlib import Path

import pytest
from fake_notebooks import HEAD, STAGES, write_notebook, write_notebooks
from rich.console import Console

from ladlib.errors import UserError
from ladlib.pipeline import StageFailed, reproduce
from ladlib.pipeline import run as run_module
from ladlib.pipeline.parameters import check, declared
from ladlib.runs import RunFolder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with notebooks, and a function that runs them and returns what was printed."""
    monkeypatch.setattr(run_module, "closing", lambda folder: "the comparison")
    write_notebooks(tmp_path / "books")

    def run(*parameters: str, **options) -> str:
        out = io.StringIO()
        options = {"profile": "smoke", "run": str(tmp_path / "run")} | options
        books = {"notebooks": tmp_path / "books", "stages": STAGES}
        reproduce(parameters=parameters, console=Console(file=out, width=200), **books, **options)
        return out.getvalue()

    run.root = tmp_path
    return run


def ran(printed: str) -> list[str]:
    return [line.split("]")[0][1:3] for line in printed.splitlines() if "] done in" in line]


def test_a_first_run_executes_all_stages_and_the_second_skips_all(project):
    assert ran(project()) == ["01", "02", "03"]
    record = RunFolder(project.root / "run").read()
    assert [stage.outputs[0] for stage in record.stages] == ["one.txt", "two-0.txt", "three"]
    assert all((project.root / "run" / "notebooks" / f"{stage.name}.ipynb").is_file() for stage in STAGES)
    before = RunFolder(project.root / "run").run_json.read_bytes()
    again = project()
    assert ran(again) == [] and again.count("unchanged, skipped") == 3 and "the comparison" in again
    assert RunFolder(project.root / "run").run_json.read_bytes() == before


def test_a_parameter_runs_its_stage_again_and_later_ones_only_where_outputs_changed(project):
    project()
    assert ran(project("rate=1e-4", "steps=7")) == ["02", "03"]
    assert (project.root / "run" / "two-0.txt").read_text() == "7 0.0001"
    assert RunFolder(project.root / "run").read().parameters["rate"] == 1e-4
    assert ran(project("rate=1e-4", "steps=7", "limit=3")) == ["03"]


def test_changed_code_of_a_notebook_runs_it_again_but_not_what_its_same_outputs_feed(project):
    project()
    write_notebooks(project.root / "books", one='Path(run, "one.txt").write_text("o" + "ne")')
    assert ran(project()) == ["01"]


def test_a_missing_output_runs_its_stage_again(project):
    project()
    (project.root / "run" / "three" / "a").unlink()
    (project.root / "run" / "three").rmdir()
    assert ran(project()) == ["03"]


def test_from_only_and_force_run_unchanged_stages_again(project):
    project()
    assert ran(project(start="2")) == ["02", "03"]
    assert ran(project(only="02_two")) == ["02"]
    assert ran(project(force=True)) == ["01", "02", "03"]


def test_from_needs_the_stages_before_it(project):
    with pytest.raises(UserError, match="01_one has not been run"):
        project(start="03")
    with pytest.raises(UserError, match="no stage '9'"):
        project(only="9")


def test_a_failing_cell_is_told_on_one_screen_and_its_copy_is_kept(project):
    write_notebooks(project.root / "books", two="values = [1]\nvalues[5]")
    with pytest.raises(StageFailed) as failure:
        project()
    told = str(failure.value)
    assert "02_two failed in cell 4 of 4" in told and "    values[5]" in told
    assert "IndexError: list index out of range" in told and len(told.splitlines()) < 24
    copy = json.loads((project.root / "run" / "notebooks" / "02_two.ipynb").read_text())
    assert any(output["output_type"] == "error" for cell in copy["cells"] for output in cell.get("outputs", []))
    assert [stage.name for stage in RunFolder(project.root / "run").read().stages] == ["01_one"]


def test_after_a_failure_the_run_goes_on_where_it_stopped(project):
    write_notebooks(project.root / "books", two="1 / 0")
    with pytest.raises(StageFailed):
        project()
    write_notebooks(project.root / "books")
    assert ran(project()) == ["02", "03"]


def test_an_interrupted_stage_keeps_its_partial_outputs_only_for_the_same_inputs(project):
    body = (
        'path = Path(run, f"two-{seed}.txt")\nlines = path.read_text() if path.exists() else ""\n'
        'path.write_text(lines + f"{steps} ")\nassert lines'
    )
    write_notebooks(project.root / "books", two=body)
    with pytest.raises(StageFailed):
        project()
    with pytest.raises(StageFailed):
        project("steps=3")  # other inputs: starts from nothing
    project("steps=3")  # the same inputs: goes on
    assert (project.root / "run" / "two-0.txt").read_text() == "3 3 "


def test_a_user_error_inside_a_notebook_stays_one_line(project):
    body = 'from ladlib.errors import UserError\nraise UserError("The box is empty.", "Fill it.")'
    write_notebooks(project.root / "books", two=body)
    with pytest.raises(UserError) as error:
        project()
    assert str(error.value) == "The box is empty. Fill it. [02_two, cell 4]"


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ("setps=3", "Did you mean steps"),
        ("steps=three", "not a whole number"),
        ("steps=1.5", "not a whole number"),
        ("steps=true", "not a whole number"),
        ("rate=fast", "not a number"),
        ("steps", "not of the form name=value"),
        ("seed=1", "--seed instead"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_runs(project, parameter, told):
    with pytest.raises(UserError, match=told):
        project(parameter)
    assert not (project.root / "run").exists()


def test_an_int_passes_for_a_float_and_stays_a_float(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD + "rate = -1.0\nfast = False\nname = ''\n")
    values = check(["rate=2", "fast=true", "name=no"], {"a": tmp_path / "a.ipynb"})["a"]
    assert (values["rate"], values["fast"], values["name"]) == (2.0, True, "no")
    assert type(values["rate"]) is float


def test_a_parameters_cell_may_hold_literals_only(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "steps = 3 * 4")
    with pytest.raises(UserError, match="steps = 3 "):
        declared(tmp_path / "a.ipynb")


def test_a_folder_of_another_profile_or_seed_is_refused(project):
    project()
    with pytest.raises(UserError, match="profile 'smoke', seed 0"):
        project(profile="toy")
    with pytest.raises(UserError, match="Give another folder with --run"):
        project(seed=1)


def test_data_must_be_a_folder_with_datasets(project):
    with pytest.raises(UserError, match="There is no folder"):
        project(data=str(project.root / "nowhere"))
    with pytest.raises(UserError, match="holds none of"):
        project(data=str(project.root))
    with pytest.raises(UserError, match="needs datasets"):
        project(profile="paper")
    assert not (project.root / "run").exists()


def test_a_dataset_that_grew_runs_the_stages_again(project):
    images = project.root / "sets" / "visa" / "candle"
    images.mkdir(parents=True)
    data = str(project.root / "sets")
    project(data=data)
    assert ran(project(data=data)) == []
    (images / "0.JPG").write_bytes(b"image")
    assert ran(project(data=data))[0] == "01"


def test_plain_progress_names_stage_cell_and_time(project):
    project()
    printed = project(force=True)  # the second time the time left is known
    assert "[02_two] cell 4/4 · 0:0" in printed
    assert str(Path("run")) not in printed.splitlines()[0]
