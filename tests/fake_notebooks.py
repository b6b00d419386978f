"""Small notebooks without torch, for tests of the pipeline."""

import json
from pathlib import Path

from ladlib.batch import cells
from ladlib.runner import Stage

HEAD = 'profile = "toy"\ndata = ""\nrun = ""\nseed = 0\n'
STAGES = (Stage("01_one", ("one.txt",)), Stage("02_two", ("two-{seed}.txt",)), Stage("03_three", ("three",)))
BODIES = {
    "01_one": ("", 'path = Path(run) / "one.txt"\npath.write_text("one")'),
    "02_two": ("steps = -1\nrate = -1.0\n", 'Path(run, f"two-{seed}.txt").write_text(f"{steps} {rate!r}")'),
    "03_three": ("limit = -1\n", 'Path(run, "three").mkdir()\nPath(run, "three", "a").write_text(str(limit))'),
}


def write_notebooks(folder: Path, **bodies: str) -> Path:
    """The notebooks of STAGES in ``folder``; ``three="1 / 0"`` gives 03_three another body."""
    for name, (parameters, body) in BODIES.items():
        body = bodies.get(name.split("_")[1], body)
        write_notebook(folder / f"{name}.ipynb", HEAD + parameters, "from pathlib import Path", body)
    return folder


def write_notebook(path: Path, parameters: str, *sources: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [_cell(parameters, ["parameters"])] + [_cell(source, []) for source in sources]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def _cell(source: str, tags: list[str]) -> dict:
    cell = {"cell_type": "code", "execution_count": None, "metadata": {"tags": tags}, "outputs": []}
    return cell | {"id": f"cell{abs(hash(source)) % 10**8}", "source": source}


def execute_here(notebook: Path, copy: Path, parameters: dict, **_: object) -> None:
    """In place of papermill where a test is about what runs, not how: the cells in this process."""
    names = dict(parameters)
    for cell in cells(notebook)[1:]:
        exec(cell["source"], names)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text('{"cells": []}')
