"""The notebooks as people step through them: in the real JupyterLab, in a browser, every control moved by keyboard."""

import re
import shutil

import nbformat
import pytest
from axe import serious_violations
from lab import Lab, serve

from ladlib.pipeline import STAGES, notebooks_folder

pytestmark = pytest.mark.slow

DOWN = ("Space", "ArrowDown", "Enter")  # while a menu is closed, JupyterLab keeps the arrow keys to itself
NOT_OURS = {
    "aria-input-field-name": "ipywidgets gives the handle of a slider no name; its label and value stand beside it",
    "scrollable-region-focusable": "JupyterLab's own box around a wide table; Chromium lets the keyboard into it",
}
RIGHT, SPACE = ("ArrowRight",), ("Space",)

# What each notebook lets a reader move, in an order in which every move shows.
MOVES = {
    "01_data_exploration": {
        "Pair browser": [
            ("Show the mask", SPACE), ("Let me guess", SPACE), ("Let me guess", SPACE),
            ("Pair", RIGHT), ("Category", DOWN),
        ],
    },
    "02_sft": {},
    "03_grpo": {
        "Reward playground": [("Completion", "<think></think><answer>yes</answer>"), ("Label", DOWN)],
        "Rollout explorer": [("Group", DOWN)],
    },
    "04_evaluation": {
        "Threshold on P(anomalous)": [("Threshold", RIGHT), ("Model", DOWN)],
        "Scene editor": [
            ("Place", DOWN), ("Do", DOWN), ("Do", DOWN), ("Part", DOWN), ("Product", DOWN),
        ],
    },
    "05_compare_72b": {},
    "grpo_from_scratch": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(smoke, tmp_path_factory):
    """The notebooks, set to a copy of a finished smoke run and the appendix to two steps."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(smoke.root, folder / "run")
    for stage in STAGES:
        put(notebooks_folder() / f"{stage.name}.ipynb", folder, profile="smoke", run="run")
    put(notebooks_folder() / "appendix" / "grpo_from_scratch.ipynb", folder, run="scratch", steps=2)
    return folder


def put(source, folder, **parameters):
    """A copy of a notebook with other values of its parameters."""
    notebook = nbformat.read(source, as_version=4)
    (cell,) = [one for one in notebook.cells if "parameters" in one.metadata.get("tags", [])]
    for name, value in parameters.items():
        cell.source, count = re.subn(rf"^{name} = \S+", f"{name} = {value!r}", cell.source, flags=re.M)
        assert count == 1, name
    nbformat.write(notebook, folder / source.name)


@pytest.fixture(scope="module")
def address(folder):
    with serve(folder) as address:
        yield address


@pytest.fixture(scope="module", params=MOVES)
def opened(request, folder, address, browser):
    """One notebook after the other, open in JupyterLab, all of its cells run; and what was saved then."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    lab = Lab(page, address, folder / f"{request.param}.ipynb")
    yield lab, lab.run_all()
    page.close()


def test_run_all_from_the_menu_runs_every_cell_without_an_error(opened):
    lab, notebook = opened
    code = [one for one in notebook.cells if one.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert [one.evalue for one in outputs if one.output_type == "error"] == []
    assert all(one.execution_count for one in code)
    assert not [one.text for one in outputs if one.output_type == "stream" and "Traceback" in one.text]
    assert lab.page.get_by_text(re.compile("Error displaying widget|Error rendering output")).count() == 0


def test_every_control_changes_its_view_by_keyboard(opened):
    lab, _ = opened
    shown = lab.explorers()
    assert list(shown) == list(MOVES[lab.file.stem])
    for title, moves in MOVES[lab.file.stem].items():
        assert {name for name, _ in moves} == set(shown[title].controls)
        still = [name for name, what in moves if not shown[title].move(name, what)]
        assert still == [], f"{title} did not follow"


def test_a_screen_reader_is_told_of_every_picture_and_axe_finds_no_serious_violation(opened):
    lab, _ = opened
    told = lab.page.eval_on_selector_all(".jp-OutputArea img", "all => all.map(one => one.alt)")
    assert told and all(len(one.split()) >= 3 for one in told)
    assert serious_violations(lab.page, ".jp-OutputArea-output", known=NOT_OURS) == []


def test_a_still_is_kept_in_the_notebook_and_gives_way_to_its_widget(opened):
    lab, notebook = opened
    stills = lab.page.locator(".ladlib-still")
    assert stills.count() == len(MOVES[lab.file.stem]) == nbformat.writes(notebook).count("class='ladlib-still'")
    assert not any(one.is_visible() for one in stills.all())
