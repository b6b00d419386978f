"""What results/released/ holds is what its stored answers give: tables and metrics byte for byte, and the claims."""

from pathlib import Path

import pandas as pd
import pytest

from ladlib.report import tables
from ladlib.results import load_run
from ladlib.runs import RELEASED

STATUSES = {
    "accuracy": "not testable here", "f1": "not testable here", "concise": "not testable here",
    "accuracy-gain": "does not hold", "f1-gain": "holds", "accuracy-72b": "does not hold", "f1-72b": "holds",
    "operating-point": "does not hold", "always-anomalous": "does not hold", "toy-gain": "does not hold",
    "toy-gain-lenient": "does not hold", "toy-gain-auroc": "does not hold", "toy-over-sft": "holds",
    "toy-over-longer-sft": "holds", "toy-near-large": "holds", "toy-over-always-yes": "does not hold",
    "toy-format": "holds", "toy-true": "holds", "toy-no-less-true": "holds", "toy-agree": "holds",
    "toy-categories": "holds",
}  # fmt: skip


def files_of(root: Path) -> dict[str, bytes]:
    files = [root / "metrics.json", *(root / "tables").iterdir()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module", params=["toy", "study"])
def regenerated(request, tmp_path_factory):
    """(released folder, a folder with what its stored answers give)."""
    released, folder = RELEASED / request.param, tmp_path_factory.mktemp(request.param)
    results = load_run(released)
    of_study = tables.of_study(results) if request.param == "study" else {}
    tables.write_all(results, folder, tables.of_run(results) | of_study)
    return released, folder


def test_metrics_and_tables_are_those_of_the_stored_answers(regenerated):
    released, folder = map(files_of, regenerated)
    assert sorted(released) == sorted(folder)
    assert [name for name, text in released.items() if folder[name] != text] == []


def test_the_study_says_to_every_claim_what_is_known_of_it(regenerated):
    released, folder = regenerated
    if released.name == "study":
        claims = pd.read_csv(folder / "tables" / "claims.csv")
        assert dict(zip(claims["id"], claims["status"], strict=True)) == STATUSES
