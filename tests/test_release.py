"""What is committed under results/ and written in the README is one and the same."""

import json
from pathlib import Path

import pytest

from ladlib.pretrain.recipes import RECIPES
from ladlib.release import with_blocks
from ladlib.report.stored import read_run
from ladlib.runs import RunFolder

ROOT = Path(__file__).parents[1]
RELEASED = RunFolder(ROOT / "results" / "released" / "toy")


def test_the_readme_shows_the_numbers_of_the_released_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_blocks(text, RELEASED) == text


def test_the_released_metrics_are_those_of_the_released_generations():
    assert json.loads(RELEASED.metrics_json.read_text()) == read_run(RELEASED).metrics


def test_the_released_run_holds_no_absolute_path():
    for file in (RELEASED.root).rglob("*.json*"):
        assert "/home/" not in file.read_text() and str(ROOT) not in file.read_text(), file


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_model_comes_with_its_recipe_log_and_score_sheet(name):
    folder = ROOT / "ladlib" / "assets" / f"toy-{name}"
    for file in ("model.safetensors", "recipe.json", "log.jsonl", "score_sheet.json"):
        assert (folder / file).is_file(), file


def test_all_shipped_assets_together_stay_below_forty_megabytes():
    assert sum(path.stat().st_size for path in (ROOT / "ladlib" / "assets").rglob("*") if path.is_file()) < 40e6
