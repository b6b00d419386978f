"""The five notebooks: how they are made to be stepped through, and that they run, in a chain, alone and twice over."""

import ast
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from ladlib.batch import declared
from ladlib.pipeline import STAGES, reproduce
from ladlib.runs import RunFolder, read_jsonl

WIDGETS = {
    "01_data_exploration": ["pair_browser"],
    "02_sft": [],
    "03_grpo": ["rewards", "rollouts"],
    "04_evaluation": ["threshold", "scene_editor"],
    "05_compare_72b": [],
}
FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
APPENDIX = FOLDER / "appendix" / "grpo_from_scratch.ipynb"
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def read(notebook: Path) -> list[dict]:
    """The cells, each with its source as one text."""
    cells = json.loads(notebook.read_text())["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def code(notebook: Path) -> list[str]:
    return [cell["source"] for cell in read(notebook) if cell["cell_type"] == "code"]


def test_there_are_five_notebooks_and_they_are_the_stages():
    assert [path.stem for path in NOTEBOOKS] == [stage.name for stage in STAGES] == list(WIDGETS)


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, APPENDIX], ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_and_its_cells_are_short_beside_as_much_prose(notebook):
    cells, kinds = code(notebook), [cell["cell_type"] for cell in read(notebook)]
    nodes = [node for source in cells for node in ast.walk(ast.parse(source))]
    # a cell that deletes what an earlier one made cannot be run a second time
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Delete) for node in nodes)
    lengths = [len(source.splitlines()) for source in cells]
    assert statistics.median(lengths) <= 5 and max(lengths) <= 25
    assert kinds[0] == "markdown" and 0.6 <= kinds.count("markdown") / kinds.count("code") <= 1.4


@each_notebook
def test_it_has_20_to_40_cells_with_6_imports_its_question_and_one_parameters_cell_of_commented_literals(notebook):
    cells, source = read(notebook), "\n".join(code(notebook))
    assert 20 <= len(cells) <= 40 and len(re.findall(r"^(?:import|from) ", source, flags=re.M)) <= 6
    assert re.findall(r"lad\.widgets\.(\w+)\(", source) == WIDGETS[notebook.stem]
    parts = r"(?s)# \d\d · .*\*\*The question\.\*\*.*\*\*You will learn\*\*.*\*\*Prerequisites:\*\*"
    assert re.match(parts, cells[0]["source"])
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    names = declared(notebook)
    assert {"profile": "toy", "data": "", "run": "", "seed": 0}.items() <= names.items()
    assert len(names) <= 12 and all("#" in line for line in cell["source"].splitlines())


@each_notebook
def test_its_sections_open_slides(notebook):
    for cell in read(notebook):
        heading = re.search(r"^##? ", cell["source"], flags=re.M)
        slide = ("slide" if heading else "subslide") if cell["cell_type"] == "markdown" else None
        assert cell["metadata"].get("slideshow", {}).get("slide_type") == slide, cell["source"]


def test_notebook_01_loads_few_modules_and_neither_torch_nor_matplotlib_before_its_first_figure(tmp_path):
    cells = code(NOTEBOOKS[0])
    first = next(index for index, source in enumerate(cells) if "lad.cards" in source)
    heavy = {"torch", "matplotlib", "seaborn", "sklearn", "statsmodels", "transformers"}
    lines = [*cells[:first], "import sys", f"print(*sorted({heavy!r} & set(sys.modules)))"]
    lines += ["print(len([name for name in sys.modules if name.split('.')[0] == 'ladlib']))"]
    source = (
        "\n".join(lines).replace('profile = "toy"', 'profile = "smoke"').replace('run = ""', f"run = {str(tmp_path)!r}")
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    *_, loaded, count = done.stdout.splitlines()
    assert loaded == "" and int(count) <= 20


@pytest.mark.slow
def test_the_five_notebooks_run_in_a_chain_and_a_second_run_skips_every_stage(smoke, capsys):
    executed = sorted(path.stem for path in smoke.notebooks.glob("*.ipynb"))
    before = smoke.read().stages
    assert executed == list(WIDGETS) == [stage.name for stage in before]
    assert smoke.report.is_file() and (smoke.tables / "comparison.csv").is_file()
    reproduce("smoke", run=str(smoke.root))
    assert smoke.read().stages == before and capsys.readouterr().out.count("skipped") == len(STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WIDGETS))
def test_an_executed_copy_shows_figures_as_images_and_a_snapshot_of_every_widget(smoke, name):
    copy = smoke.notebooks / f"{name}.ipynb"
    outputs = [out["data"] for cell in read(copy) for out in cell.get("outputs", []) if "data" in out]
    pages = ["".join(data.get("text/html", "")) for data in outputs]
    assert sum("<img " in page for page in pages) >= 2
    assert not [data for data in outputs if "".join(data.get("text/plain", "")).startswith("<Figure")]
    views = [data for data in outputs if "application/vnd.jupyter.widget-view+json" in data]
    assert len(views) == len(WIDGETS[name]) == sum("snapshot. Run this cell" in page for page in pages)
    assert copy.stat().st_size < 10e6  # what a repository's page shows


@pytest.mark.slow
def test_every_arm_answered_every_pair_and_its_metrics_count_all_of_them(smoke):
    ids = [{row["id"] for row in read_jsonl(smoke.generations(arm, 0))} for arm in ("base", "sft", "sft_grpo", "large")]
    assert ids[0] == ids[1] == ids[2] == ids[3] and len(ids[0]) == 15  # five categories, one of each kind
    rows = json.loads(smoke.metrics_json.read_text())
    counts = {row["arm"]: row["n"] for row in rows if (row["subset"], row["category"]) == ("all", "pooled")}
    assert {counts[arm] for arm in ("base", "sft", "sft_grpo", "large")} == {15}


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_alone_by_papermill_and_every_cell_may_be_run_twice(smoke, tmp_path, notebook):
    shutil.copytree(smoke.root, tmp_path / "run")
    twice = nbformat.read(notebook, as_version=4)
    twice.cells = [
        nbformat.from_dict(cell | {"id": f"{cell['id']}-{time}", "metadata": cell["metadata"] if time == 1 else {}})
        for cell in twice.cells
        for time in (1, 2)
        if time == 1 or "parameters" not in cell["metadata"].get("tags", [])
    ]
    nbformat.write(twice, tmp_path / "twice.ipynb")
    parameters = {"profile": "smoke", "run": str(RunFolder(tmp_path / "run").root)}
    papermill.execute_notebook(tmp_path / "twice.ipynb", tmp_path / "out.ipynb", parameters, progress_bar=False)
    assert (tmp_path / "out.ipynb").is_file()


@pytest.mark.slow
def test_the_appendix_policy_learns_and_its_loss_and_gradient_are_those_of_trl(tmp_path):
    """The notebook itself asserts that loss and gradient agree."""
    values = {"run": str(tmp_path / "run")}
    done = papermill.execute_notebook(APPENDIX, tmp_path / "out.ipynb", values, progress_bar=False)
    (output,) = [out for cell in done.cells if "rise" in cell.source for out in cell.outputs]
    rise = float(re.search(r"rise</t[dh]>\s*<td[^>]*>(-?[0-9.]+)", output["data"]["text/html"])[1])
    assert rise >= 0.2
