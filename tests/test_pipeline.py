"""The pipeline on small notebooks: what runs, what is skipped, what a failure leaves and says."""

import io
import json
from itertools import combinations

import pytest
from fake_notebooks import HEAD, STAGES, execute_here, write_notebook, write_notebooks
from rich.console import Console

from ladlib import runner
from ladlib.batch import Progress, check, declared
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
        options = {"profile": "smoke", "run": str(tmp_path / "run")} | options
        books = {"notebooks": tmp_path / "books", "stages": STAGES}
        reproduce(parameters=parameters, console=Console(file=out, width=200), **books, **options)
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
    assert [stage.outputs[0] for stage in record.stages] == ["one.txt", "two-0.txt", "three"]
    assert all((project.root / "run" / "notebooks" / f"{stage.name}.ipynb").is_file() for stage in STAGES)
    before = RunFolder(project.root / "run").run_json.read_bytes()
    again = project()
    assert ran(again) == [] and again.count("unchanged, skipped") == 3 and "the comparison" in again
    assert RunFolder(project.root / "run").run_json.read_bytes() == before


def test_a_parameter_runs_its_stage_again_and_later_ones_only_where_outputs_changed(quick):
    quick()
    assert ran(quick("rate=1e-4", "steps=7")) == ["02", "03"]
    assert (quick.root / "run" / "two-0.txt").read_text() == "7 0.0001"
    assert ran(quick("rate=1e-4", "steps=7", "limit=3")) == ["03"]


def test_a_dry_run_tells_what_would_run_and_writes_nothing(quick):
    told = quick(dry_run=True)
    assert [line.split("]")[0][1:] for line in told.splitlines() if "would run" in line] == [s.name for s in STAGES]
    assert not (quick.root / "run").exists() and ran(told) == []
    quick()
    before = sorted(path.stat().st_mtime_ns for path in quick.root.rglob("*"))
    assert quick(dry_run=True).count("unchanged, would be skipped") == 3
    told = quick(dry_run=True, start="02")
    assert "[01_one]" not in told and "[02_two] would run:" in told and "[03_three] would run:" in told
    assert sorted(path.stat().st_mtime_ns for path in quick.root.rglob("*")) == before


def test_a_dry_run_says_which_stages_depend_on_what_an_earlier_one_makes_anew(quick):
    quick()
    write_notebooks(quick.root / "books", two='Path(run, f"two-{seed}.txt").write_text("other")')
    told = quick(dry_run=True)
    assert "[01_one] unchanged" in told and "[02_two] would run:" in told
    assert "[03_three] would run where 02_two changes its outputs" in told


def test_changed_code_of_a_notebook_runs_it_again_but_not_what_its_same_outputs_feed(quick):
    quick()
    write_notebooks(quick.root / "books", one='Path(run, "one.txt").write_text("o" + "ne")')
    assert ran(quick()) == ["01"]


def test_a_missing_output_runs_its_stage_again(quick):
    quick()
    (quick.root / "run" / "three" / "a").unlink()
    (quick.root / "run" / "three").rmdir()
    assert ran(quick()) == ["03"]


def test_from_only_and_force_run_unchanged_stages_again(quick):
    quick()
    assert ran(quick(start="2")) == ["02", "03"]
    assert ran(quick(only="02_two")) == ["02"]
    assert ran(quick(force=True)) == ["01", "02", "03"]


def test_from_needs_the_stages_before_it(quick):
    with pytest.raises(UserError, match="01_one has not been run"):
        quick(start="03")
    with pytest.raises(UserError, match="no stage '9'"):
        quick(only="9")


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


def test_after_a_failure_the_run_goes_on_where_it_stopped(quick):
    write_notebooks(quick.root / "books", two="1 / 0")
    with pytest.raises(ZeroDivisionError):
        quick()
    write_notebooks(quick.root / "books")
    assert ran(quick()) == ["02", "03"]


def test_an_interrupted_stage_keeps_its_partial_outputs_only_for_the_same_inputs(quick):
    body = (
        'path = Path(run, f"two-{seed}.txt")\nlines = path.read_text() if path.exists() else ""\n'
        'path.write_text(lines + f"{steps} ")\nassert lines'
    )
    write_notebooks(quick.root / "books", two=body)
    with pytest.raises(AssertionError):
        quick()
    with pytest.raises(AssertionError):
        quick("steps=3")  # other inputs: starts from nothing
    quick("steps=3")  # the same inputs: goes on
    assert (quick.root / "run" / "two-0.txt").read_text() == "3 3 "


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
def test_a_wrong_parameter_is_refused_before_anything_runs(quick, parameter, told):
    with pytest.raises(UserError, match=told):
        quick(parameter)
    assert not (quick.root / "run").exists()


def test_an_int_passes_for_a_float_and_stays_a_float(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD + "rate = -1.0\nfast = False\nname = ''\n")
    values = check(["rate=2", "fast=true", "name=no"], {"a": tmp_path / "a.ipynb"})["a"]
    assert (values["rate"], values["fast"], values["name"]) == (2.0, True, "no")
    assert type(values["rate"]) is float


def test_a_parameters_cell_may_hold_literals_only(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "steps = 3 * 4")
    with pytest.raises(UserError, match="steps = 3 "):
        declared(tmp_path / "a.ipynb")


def test_a_folder_of_another_profile_or_seed_is_refused(quick):
    quick()
    with pytest.raises(UserError, match="profile 'smoke', seed 0"):
        quick(profile="toy")
    with pytest.raises(UserError, match="Give another folder with --run"):
        quick(seed=1)


def test_data_must_be_a_folder_with_datasets(quick):
    with pytest.raises(UserError, match="There is no folder"):
        quick(data=str(quick.root / "nowhere"))
    with pytest.raises(UserError, match="holds none of"):
        quick(data=str(quick.root))
    with pytest.raises(UserError, match="needs datasets"):
        quick(profile="paper")
    assert not (quick.root / "run").exists()


def test_a_dataset_that_grew_runs_the_stages_again(quick):
    images = quick.root / "sets" / "visa" / "candle"
    images.mkdir(parents=True)
    data = str(quick.root / "sets")
    quick(data=data)
    assert ran(quick(data=data)) == []
    (images / "0.JPG").write_bytes(b"image")
    assert ran(quick(data=data))[0] == "01"


def test_the_time_left_comes_from_what_a_cell_prints_and_from_what_a_stage_usually_takes():
    progress = Progress(Console(file=io.StringIO()), "02_sft", 3, expected=600.0)
    assert 590 < progress.seconds_left() <= 600
    progress.started -= 595
    progress.start_cell({"cell_type": "code", "source": "train()"}, 0)
    progress.start_cell({"cell_type": "markdown", "source": "words"}, 1)
    progress.cell_started -= 30
    progress.write("sft · step 10/40 · 1:30 left")
    assert progress.cell == 1 and 85 < progress.seconds_left() < 95


def depends(notebook, changes=None, **parameters):
    return depends_on(notebook, parameters, load_profile("smoke", **changes or {}), reports=notebook.stem == "ask")


def test_a_file_named_by_a_parameter_counts_with_its_contents(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD, "1")
    stored, seen = tmp_path / "stored.jsonl", []
    for text in (None, "{}\n", "[]\n"):
        if text:
            stored.write_text(text)
        seen.append(depends(tmp_path / "a.ipynb", large_replay=str(stored)))
    assert all(one != other for one, other in combinations(seen, 2))


def test_an_sft_file_counts_with_its_contents_and_not_with_its_place(tmp_path):
    write_notebook(tmp_path / "a.ipynb", HEAD, "1")
    seen = []
    for name, text in (("one", "same"), ("two", "same"), ("two", "other")):
        (tmp_path / name).write_text(text)
        seen.append(depends(tmp_path / "a.ipynb", {"data.sft_file": str(tmp_path / name)}))
    assert seen[0] == seen[1] != seen[2]


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
        before = [runner.code_sha256.__wrapped__(reports) for reports in (False, True)]
        (tmp_path / name).write_text("changed")
        return [
            runner.code_sha256.__wrapped__(reports) != old for reports, old in zip((False, True), before, strict=True)
        ]

    assert changes("report/page.py") == changes("cli.py") == [False, True]
    assert changes("models.py") == changes("toy/tasks.yaml") == [True, True]
