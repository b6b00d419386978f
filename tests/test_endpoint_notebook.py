"""Notebook 05 with a server that answers as the 72B, and with its predictions replayed."""

from operator import attrgetter
from pathlib import Path

import papermill
import pytest
from chat_server import ChatServer
from made_up import made_up_run

from ladlib.parameters import cells
from ladlib.report.stored import read_records
from ladlib.report.tables import comparison
from ladlib.runs import RunFolder

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_compare_72b.ipynb"
KEY = "sk-test-0123456789abcdef"
ID = attrgetter("id")
ROW = "large (Qwen/72B, AWQ, SGLang 0.5)"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A run of the smoke profile whose large model answered through a server, and the server."""
    run, server = made_up_run(tmp_path_factory.mktemp("asked") / "run", profile="smoke"), ChatServer()
    server.echo = f"Bearer {KEY}"
    parameters = {"large_endpoint": server.url, "large_model": "Qwen/72B", "large_label": "AWQ, SGLang 0.5"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LADLIB_API_KEY", KEY)
        execute(run, **parameters)
    server.close()
    return run, server


def execute(run: RunFolder, **parameters: str) -> None:
    given = {"profile": "smoke", "run": str(run.root)} | parameters
    run.notebooks.mkdir()
    papermill.execute_notebook(NOTEBOOK, run.notebooks / NOTEBOOK.name, given, progress_bar=False)


@pytest.mark.slow
def test_the_row_names_the_model_quantisation_and_engine_that_answered(asked):
    run, server = asked
    records = read_records(run.generations("large", 0))
    assert len(records) == len(server.asked) == 15  # five categories, one of each kind
    assert ROW in (run.tables / "comparison.csv").read_text() and ROW in run.report.read_text()
    assert run.read().parameters["endpoint.label"] == "AWQ, SGLang 0.5"


@pytest.mark.slow
def test_no_file_of_the_run_holds_the_key(asked):
    run, server = asked
    assert server.keys == {f"Bearer {KEY}"}
    files = [path for path in run.root.rglob("*") if path.is_file()]
    assert run.notebooks / NOTEBOOK.name in files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_its_stored_predictions_give_another_run_the_same_row_without_a_server(asked, tmp_path):
    stored = asked[0].generations("large", 0)
    run = made_up_run(tmp_path / "run", profile="smoke")
    given = {"profile": "smoke", "run": str(run.root), "large_replay": str(stored)}
    names = {}
    for cell in [one for one in cells(NOTEBOOK) if one["cell_type"] == "code"][
        :4
    ]:  # here, parameters, start, who answers
        exec(cell["source"], names)
        names |= given if "parameters" in cell["metadata"].get("tags", ()) else {}
    taken = read_records(run.generations("large", 0))
    assert sorted(taken, key=ID) == sorted(read_records(stored), key=ID)
    assert ROW in set(comparison(names["stored"])["method"])
