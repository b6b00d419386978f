"""A cell that was run too early says what to run first.

NameError: name 'rollouts' is not defined
`rollouts` is made in section "10 · Groups, seen close". Run the cells from the top down to there first.
"""

import ast
import json
from pathlib import Path

from IPython import get_ipython

from ladlib.notebook import find_root


def mind_the_order(notebook: str) -> None:
    """From now on a missing name is explained by the cell of ``notebook`` that makes it; outside IPython, nothing."""
    shell = get_ipython()
    file = find_notebook(notebook)
    if shell is None or file is None:
        return

    def explain(shell, kind, error: NameError, trace, tb_offset=None) -> None:
        if advice := what_first(file, error.name or ""):
            error.add_note(advice)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((NameError,), explain)


def find_notebook(name: str) -> Path | None:
    """The notebook's source beside this code, else below the current root; None where there is none."""
    package = Path(__file__).parents[1]
    folders = (package.parent / "notebooks", package / "notebooks", find_root(Path.cwd()) / "notebooks")
    return next((folder / f"{name}.ipynb" for folder in folders if (folder / f"{name}.ipynb").is_file()), None)


def what_first(notebook: Path, name: str) -> str:
    """Where ``notebook`` first makes ``name``, as advice; "" where it never does."""
    heading = ""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            heading = next((line.lstrip("# ") for line in source.splitlines()[::-1] if line.startswith("#")), heading)
        elif cell["cell_type"] == "code" and name in made_by(source):
            return f'`{name}` is made in section "{heading}". Run the cells from the top down to there first.'
    return ""


def made_by(source: str) -> set[str]:
    """The names that a cell binds: by assignment, import, loop or ``with``."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a cell of magic commands
        return set()
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    aliases = (one for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for one in node.names)
    return bound | {(one.asname or one.name).split(".")[0] for one in aliases}
