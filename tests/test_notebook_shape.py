"""How a notebook is made to be stepped through: what it promises, where one stands, prose before code, twice over."""

import ast
import json
import re
import shutil
import statistics
from pathlib import Path

import nbformat
import papermill
import pytest
from nbconvert import SlidesExporter

from ladlib.runs import RunFolder

WIDGETS = {
    "01_data_exploration": ["pair_browser"],
    "02_sft": [],
    "03_grpo": ["rewards", "rollouts"],
    "04_evaluation": ["threshold", "scene_editor"],
    "05_compare_72b": [],
}
NOTEBOOKS = [Path(__file__).parents[1] / "notebooks" / f"{name}.ipynb" for name in WIDGETS]
each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def read(notebook: Path) -> list[tuple[str, str]]:
    """(kind, source) of every cell."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook.read_text())["cells"]]


@each_notebook
def test_it_begins_with_its_question_what_one_will_know_and_what_it_needs(notebook):
    kind, text = read(notebook)[0]
    assert kind == "markdown" and text.startswith(f"# {notebook.stem[:2]} · ")
    parts = [text.find(part) for part in ("**The question.**", "**At the end you will know**", "**It needs**")]
    assert -1 not in parts and parts == sorted(parts)


@each_notebook
def test_every_section_says_in_sentences_what_its_code_is_about(notebook):
    section = ""
    for kind, source in read(notebook)[4:]:
        if kind == "markdown":
            section = source
        elif section.strip():
            prose = [line for line in section.splitlines() if line.strip() and not line.startswith(("#", "|", "$"))]
            written = "what this wrote" in section.lower()  # a table of files explains itself
            assert written or sum(len(line.split()) for line in prose) >= 5, f"no word before\n{source}"
            section = ""


@each_notebook
def test_prose_and_code_keep_each_other_company(notebook):
    kinds = [kind for kind, _ in read(notebook)]
    assert 0.7 <= kinds.count("markdown") / kinds.count("code") <= 1.4


@each_notebook
def test_code_cells_are_short(notebook):
    lengths = [len(source.splitlines()) for kind, source in read(notebook) if kind == "code"]
    assert statistics.median(lengths) <= 5 and max(lengths) <= 25


@each_notebook
def test_no_cell_takes_a_name_away_that_it_needs_itself(notebook):
    """A cell that deletes what an earlier one made cannot be run a second time."""
    assert not [
        source
        for kind, source in read(notebook)
        if kind == "code" and any(isinstance(node, ast.Delete) for node in ast.walk(ast.parse(source)))
    ]


@each_notebook
def test_its_widgets_are_there(notebook):
    code = "\n".join(source for kind, source in read(notebook) if kind == "code")
    assert re.findall(r"lad\.widgets\.(\w+)\(", code) == WIDGETS[notebook.stem]


@each_notebook
def test_sections_open_slides_and_code_stays_with_its_prose(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        text = "\n" + "".join(cell["source"])
        prose = "slide" if "\n# " in text or "\n## " in text else "subslide"
        kind = cell["metadata"].get("slideshow", {}).get("slide_type")
        assert kind == (prose if cell["cell_type"] == "markdown" else None), text


@each_notebook
def test_as_slides_it_has_one_for_each_that_it_opens(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    opened = sum(cell["metadata"].get("slideshow") == {"slide_type": "slide"} for cell in cells)
    page, _ = SlidesExporter().from_filename(notebook)
    assert page.count("<section><section>") == opened


def shown(notebook: Path) -> list[dict]:
    """The data of every output of an executed copy."""
    cells = json.loads(notebook.read_text())["cells"]
    return [out["data"] for cell in cells for out in cell.get("outputs", []) if "data" in out]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, used in WIDGETS.items() if used])
def test_an_executed_copy_holds_a_still_for_every_widget(smoke, name):
    outputs = shown(smoke.notebooks / f"{name}.ipynb")
    views = [one for one in outputs if "application/vnd.jupyter.widget-view+json" in one]
    stills = [one for one in outputs if "snapshot. Run this cell" in "".join(one.get("text/html", ""))]
    assert len(stills) == len(views) == len(WIDGETS[name])


@pytest.fixture
def own_run(smoke, tmp_path) -> RunFolder:
    """A copy of the smoke run that a test may change."""
    shutil.copytree(smoke.root, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.mark.slow
@each_notebook
def test_every_cell_may_be_run_twice(own_run, tmp_path, notebook):
    read_twice = nbformat.read(notebook, as_version=4)
    read_twice.cells = [
        nbformat.from_dict(cell | {"id": f"{cell['id']}-{time}", "metadata": cell["metadata"] if time == 1 else {}})
        for cell in read_twice.cells
        for time in (1, 2)
        if time == 1 or "parameters" not in cell["metadata"].get("tags", [])
    ]
    nbformat.write(read_twice, tmp_path / "twice.ipynb")
    parameters = {"profile": "smoke", "run": str(own_run.root)}
    papermill.execute_notebook(tmp_path / "twice.ipynb", tmp_path / "out.ipynb", parameters, progress_bar=False)
    assert (tmp_path / "out.ipynb").is_file()
