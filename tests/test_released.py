"""What results/released/ holds is what its stored answers give: tables and metrics byte for byte, and the claims."""

import gzip
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ladlib.report import tables
from ladlib.results import load_run
from ladlib.runs import RELEASED

sys.path.insert(0, str(RELEASED.parent))  # results/release.py is for maintainers, outside of the package
import release  # noqa: E402

ROOT = Path(__file__).parents[1]
STATUSES = {
    "accuracy": "not testable here", "f1": "not testable here", "concise": "not testable here",
    "accuracy-gain": "does not hold", "f1-gain": "holds", "accuracy-72b": "does not hold", "f1-72b": "holds",
    "operating-point": "does not hold", "always-anomalous": "does not hold", "toy-gain": "does not hold",
    "toy-gain-lenient": "does not hold", "toy-gain-auroc": "does not hold", "toy-over-sft": "holds",
    "toy-over-longer-sft": "holds", "toy-near-large": "holds", "toy-over-always-yes": "does not hold",
    "toy-format": "holds", "toy-true": "holds", "toy-no-less-true": "holds", "toy-agree": "holds",
    "toy-categories": "holds",
}  # fmt: skip


NAMES = sorted(folder.name for folder in RELEASED.iterdir())
SHIPPED = sorted(folder.name for folder in (ROOT / "ladlib" / "assets").glob("toy-*"))


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


@pytest.mark.parametrize("readme", release.READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_readme_shows_the_numbers_of_the_released_run(readme):
    text = readme.read_text(encoding="utf-8")
    assert release.with_blocks(text) == text and "<!-- end -->" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_released_run_holds_no_absolute_path_and_only_what_cannot_be_made_again(name):
    for file in (RELEASED / name).rglob("*.json*"):
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
        assert "/home/" not in text and str(ROOT) not in text, file
    assert not [
        *(RELEASED / name).rglob("*.html"),
        *(RELEASED / name).rglob("*.pdf"),
        *(RELEASED / name).rglob("*.ipynb"),
    ]


def test_all_tracked_files_together_stay_below_20_megabytes():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 20e6


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_comes_with_its_recipe_log_and_score_sheet(name):
    folder = ROOT / "ladlib" / "assets" / name
    for file in ("recipe.json", "log.jsonl", "score_sheet.json"):
        assert (folder / file).is_file(), file
