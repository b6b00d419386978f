"""The appendix builds GRPO from scratch: its policy learns, and its loss is TRL's on the same batch."""

import ast
import re
import statistics

import papermill
import pytest
from test_notebook_shape import read

from ladlib.pipeline import notebooks_folder

NOTEBOOK = notebooks_folder() / "appendix" / "grpo_from_scratch.ipynb"


def test_its_cells_are_short_and_define_nothing():
    code = [source for kind, source in read(NOTEBOOK) if kind == "code"]
    lengths = [len(source.splitlines()) for source in code]
    assert statistics.median(lengths) <= 5 and max(lengths) <= 25
    for source in code:
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(source)))


def test_it_is_no_stage_and_every_section_begins_with_words():
    kinds = [kind for kind, _ in read(NOTEBOOK)]
    assert kinds[0] == "markdown" and kinds.count("markdown") >= 0.6 * kinds.count("code")


@pytest.mark.slow
def test_its_policy_learns_and_its_loss_and_gradient_are_those_of_trl(tmp_path):
    """The notebook itself asserts that loss and gradient agree."""
    parameters = {"run": str(tmp_path / "run")}
    done = papermill.execute_notebook(NOTEBOOK, tmp_path / "out.ipynb", parameters, progress_bar=False)
    (shown,) = [out for cell in done.cells if "rise" in cell.source for out in cell.outputs]
    rise = float(re.search(r"rise</td>\s*<td[^>]*>(-?[0-9.]+)", shown["data"]["text/html"])[1])
    assert rise >= 0.2
