"""Pages of the notebooks, as the toy run executed them or else their sources; they open from a folder.

Nothing is fetched: formulas are MathML, widgets are left out.
"""

import json
import shutil
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

HERE = Path(__file__).parent
NOTEBOOKS, EXECUTED = HERE.parent / "notebooks", HERE.parent / "results" / "runs" / "toy" / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel; the still beside it does not
project = "ladlib"
extensions = ["myst_nb"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # they would come from another server
html_theme = "alabaster"
html_math_renderer = "mathml"
suppress_warnings = ["myst"]


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (_write_inline, None), (_write_block, None))
    shutil.rmtree(HERE / "notebooks", ignore_errors=True)
    for source in [NOTEBOOKS / "README.md", *NOTEBOOKS.rglob("*.ipynb")]:
        name = source.relative_to(NOTEBOOKS)
        text = (EXECUTED / name if (EXECUTED / name).is_file() else source).read_text("utf-8")
        (HERE / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / "notebooks" / name).write_text(_without_widgets(text) if name.suffix == ".ipynb" else text, "utf-8")


def _without_widgets(text: str) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if WIDGET not in output.get("data", {})]
    return json.dumps(notebook)


def _write_inline(translator, node, display: str = "inline") -> None:
    translator.body.append(convert(node.astext(), display=display))
    raise SkipNode


def _write_block(translator, node) -> None:
    _write_inline(translator, node, "block")
