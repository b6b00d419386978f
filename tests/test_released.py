"""What results/released/ holds is what its stored answers give: tables and metrics byte for byte, and the claims."""

from pathlib import Path

import pandas as pd
import pytest

from ladlib.report import tables, varied
from ladlib.report.claims import claims_frame, claims_text
from ladlib.report.defects import defects_frame
from ladlib.report.doubt import calibration_frame, calibration_text
from ladlib.report.page import _json_rows
from ladlib.report.stored import read_run
from ladlib.report.study import _tables, arms_and_seeds
from ladlib.report.study_spoken import read_passes, read_summaries
from ladlib.runs import RELEASED, RunFolder, write_text

STATUSES = {
    "accuracy": "not testable here", "f1": "not testable here", "concise": "not testable here",
    "accuracy-gain": "does not hold", "f1-gain": "holds", "accuracy-72b": "does not hold", "f1-72b": "holds",
    "operating-point": "does not hold", "always-anomalous": "does not hold", "toy-gain": "does not hold",
    "toy-gain-lenient": "does not hold", "toy-gain-auroc": "does not hold", "toy-over-sft": "holds",
    "toy-over-longer-sft": "holds", "toy-near-large": "holds", "toy-over-always-yes": "does not hold",
    "toy-format": "holds", "toy-true": "holds", "toy-no-less-true": "holds", "toy-agree": "holds",
    "toy-categories": "holds",
}  # fmt: skip


def write_all(run: RunFolder, folder: Path) -> None:
    """Everything in ``run`` that its answers give, below ``folder``."""
    stored = read_run(run)
    claims = claims_frame(stored, read_summaries(run, arms_and_seeds(stored)))
    calibration = calibration_frame(stored)
    write_text(folder / "metrics.json", _json_rows(stored.metrics))
    tables.write(tables.comparison(stored), folder / "tables", "comparison")
    tables.write(tables.categories(stored), folder / "tables", "categories")
    tables.write(calibration, folder / "tables", "calibration", calibration_text(calibration))
    tables.write(defects_frame(stored), folder / "tables", "defects")
    tables.write(tables.departures(stored.profile), folder / "tables", "departures")
    tables.write(claims, folder / "tables", "claims", claims_text(claims))
    if stored.variations:
        for name in ("sensitivity", "variance"):
            frame = getattr(varied, f"{name}_frame")(stored)
            tables.write(frame, folder / "tables", name, getattr(varied, f"{name}_text")(frame))
    if run.root.name == "study":
        for name, (frame, shown) in _tables(run, stored, read_passes(run, arms_and_seeds(stored))).items():
            tables.write(frame, folder / "tables", f"study-{name}", shown)


def files_of(root: Path) -> dict[str, bytes]:
    found = [root / "metrics.json", *(root / "tables").iterdir()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module", params=["toy", "study"])
def regenerated(request, tmp_path_factory):
    """(released folder, a folder with what its stored answers give)."""
    folder = tmp_path_factory.mktemp(request.param)
    write_all(RunFolder(RELEASED / request.param), folder)
    return RELEASED / request.param, folder


def test_metrics_and_tables_are_those_of_the_stored_answers(regenerated):
    released, folder = map(files_of, regenerated)
    assert sorted(released) == sorted(folder)
    assert [name for name, text in released.items() if folder[name] != text] == []


def test_the_study_says_to_every_claim_what_is_known_of_it(regenerated):
    released, folder = regenerated
    if released.name == "study":
        claims = pd.read_csv(folder / "tables" / "claims.csv")
        assert dict(zip(claims["id"], claims["status"], strict=True)) == STATUSES
