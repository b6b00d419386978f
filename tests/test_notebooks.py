"""The five notebooks as people use them: run by the pipeline, by papermill alone, and read as sources."""

import ast
import json
import statistics
from pathlib import Path

import papermill
import pytest

from ladlib.pipeline import STAGES, reproduce
from ladlib.results import load_run
from ladlib.runs import read_jsonl

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
ARMS = ("base", "sft", "sft_grpo", "large")


def cells(notebook: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.slow
def test_the_five_notebooks_run_in_a_chain_on_the_smoke_profile(smoke):
    executed = sorted(path.stem for path in smoke.notebooks.glob("*.ipynb"))
    assert executed == [stage.name for stage in STAGES]
    assert [stage.name for stage in smoke.read().stages] == executed
    assert smoke.report.is_file() and (smoke.tables / "comparison.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [stage.name for stage in STAGES])
def test_the_executed_copy_shows_its_figures_as_pictures(smoke, stage):
    outputs = [one for cell in cells(smoke.notebooks / f"{stage}.ipynb", "code") for one in cell["outputs"]]
    shown = [one["data"] for one in outputs if "data" in one]
    assert sum("<img " in "".join(data.get("text/html", "")) for data in shown) >= 2
    assert not [data for data in shown if "".join(data.get("text/plain", "")).startswith("<Figure")]


@pytest.mark.slow
def test_a_second_run_skips_every_stage(smoke, capsys):
    before = smoke.read().stages
    reproduce("smoke", run=str(smoke.root))
    assert smoke.read().stages == before
    assert capsys.readouterr().out.count("skipped") == len(STAGES)


@pytest.mark.slow
def test_every_arm_answered_every_pair_and_its_metrics_count_all_of_them(smoke):
    stored = load_run(smoke)
    ids = [{row["id"] for row in read_jsonl(smoke.generations(arm, 0))} for arm in ARMS]
    assert ids[0] == ids[1] == ids[2] and len(ids[0]) == 15  # five categories, one of each kind
    counted = {row["arm"]: row["n"] for row in stored.scores if (row["subset"], row["category"]) == ("all", "pooled")}
    assert all(counted[arm] == 15 for arm in ARMS)


@pytest.mark.slow
def test_one_notebook_runs_alone_by_papermill_once_those_before_it_have(smoke, tmp_path):
    notebook = NOTEBOOKS[4]
    parameters = {"profile": "smoke", "run": str(smoke.root)}
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", parameters, progress_bar=False)
    assert (tmp_path / "out.ipynb").is_file()


@pytest.mark.slow
def test_executed_copies_stay_below_the_ten_megabytes_that_a_repository_page_shows(smoke):
    sizes = {path.name: path.stat().st_size for path in smoke.notebooks.glob("*.ipynb")}
    assert max(sizes.values()) < 10e6, sizes


def test_there_are_five_notebooks_and_they_are_the_stages():
    assert [path.stem for path in NOTEBOOKS] == [stage.name for stage in STAGES]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_installs_nothing_and_keeps_its_cells_short(notebook):
    code = [source(cell) for cell in cells(notebook, "code")]
    for text in code:
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(text)))
    lengths = [len(text.splitlines()) for text in code]
    assert max(lengths) <= 25 and statistics.median(lengths) <= 5
    assert len(cells(notebook, "markdown")) >= 0.7 * len(code)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_parameters_cell_of_commented_literals(notebook):
    (cell,) = [one for one in cells(notebook, "code") if "parameters" in one["metadata"].get("tags", [])]
    lines = source(cell).splitlines()
    names = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source(cell)).body}
    assert {"profile": "toy", "data": "", "run": "", "seed": 0}.items() <= names.items()
    assert len(names) <= 12 and all("#" in line for line in lines)
