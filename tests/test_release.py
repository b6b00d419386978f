"""What is committed under results/ and written in the README is one and the same."""

import json
from pathlib import Path

import pytest

from ladlib.release import READMES, with_blocks
from ladlib.report.stored import read_run
from ladlib.runs import RELEASED, RunFolder

ROOT = Path(__file__).parents[1]
NAMES = sorted(folder.name for folder in RELEASED.iterdir())
SHIPPED = sorted(folder.name for folder in (ROOT / "ladlib" / "assets").iterdir() if folder.is_dir())


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_readme_shows_the_numbers_of_the_released_run(readme):
    text = readme.read_text(encoding="utf-8")
    assert with_blocks(text) == text and "<!-- end -->" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_released_metrics_are_those_of_the_released_generations(name):
    released = RunFolder(RELEASED / name)
    assert json.loads(released.metrics_json.read_text()) == read_run(released).metrics


@pytest.mark.parametrize("name", NAMES)
def test_the_released_run_holds_no_absolute_path(name):
    for file in (RELEASED / name).rglob("*.json*"):
        assert "/home/" not in file.read_text() and str(ROOT) not in file.read_text(), file


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_comes_with_its_recipe_log_and_score_sheet(name):
    folder = ROOT / "ladlib" / "assets" / name
    for file in ("model.safetensors", "recipe.json", "log.jsonl", "score_sheet.json"):
        assert (folder / file).is_file(), file


def test_all_shipped_assets_together_stay_below_forty_megabytes():
    assert sum(path.stat().st_size for path in (ROOT / "ladlib" / "assets").rglob("*") if path.is_file()) < 40e6
