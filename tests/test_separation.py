"""The test set is apart: neither pretraining nor the two training stages see its categories, layouts or rules."""

import ast
import random
from pathlib import Path

import pytest

import ladlib
from ladlib.checksums import sha256
from ladlib.config import Toy
from ladlib.data import FOLDERS, read_dataset
from ladlib.toy import backdrops, loco
from ladlib.toy import products as training
from ladlib.toy.datasets import write_datasets
from ladlib.toy.scenes import crowded_scene, random_scene

ROOT = Path(ladlib.__file__).parent
DRAWS = 300


def layouts(draw) -> set[tuple]:
    """What ``draw`` lays where, whatever the backdrop."""
    scenes = [draw(random.Random(f"layout/{number}")) for number in range(DRAWS)]
    return {(scene.rows, scene.cols, frozenset((part.place, part.name) for part in scene.parts)) for scene in scenes}


def reached(start: Path) -> set[str]:
    """Every module of the package that ``start`` imports, directly or through others."""
    found, left = set(), [start]
    while left:
        file = left.pop()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)] if isinstance(
                node, ast.ImportFrom
            ) else []  # fmt: skip
            for name in names:
                path = ROOT.parent.joinpath(*name.split("."))
                target = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                if target.is_file() and target.is_relative_to(ROOT) and name not in found:
                    found.add(name)
                    left.append(target)
    return found


@pytest.mark.parametrize("module", ["toy/tasks.py", "toy/scenes.py", "toy/pretrain_data.py", "toy/pretrain.py"])
def test_pretraining_cannot_reach_the_generators_of_the_products(module):
    assert not {"ladlib.toy.loco", "ladlib.toy.products"} & reached(ROOT / module)


def test_the_training_products_cannot_reach_the_generators_of_the_test_set():
    assert not {"ladlib.toy.loco"} & reached(ROOT / "toy" / "products.py")


@pytest.mark.parametrize("product", loco.PRODUCTS, ids=lambda product: product.name)
def test_no_layout_of_a_test_category_is_drawn_for_training_or_pretraining(product):
    tested = layouts(product.normal)
    for one in training.PRODUCTS:
        assert not tested & layouts(one.normal), one.name
    assert not tested & layouts(crowded_scene)
    assert not tested & layouts(lambda rng: random_scene(rng, most=16))


def test_no_test_category_lies_before_a_backdrop_that_was_seen_before():
    tested = {product.normal(random.Random(0)).backdrop for product in loco.PRODUCTS}
    trained = {product.normal(random.Random(0)).backdrop for product in training.PRODUCTS}
    assert not tested & (trained | set(backdrops.GENERAL))


def test_no_test_image_has_the_bytes_of_a_training_image(tmp_path):
    write_datasets(tmp_path / "toy", Toy(train=3, good=4, logical=12, structural=3))
    hashes = {
        dataset: {
            sha256(tmp_path / "toy" / FOLDERS[dataset] / sample.image)
            for sample in read_dataset(tmp_path / "toy", dataset)
        }
        for dataset in ("mvtec_ad", "visa", "mvtec_loco")
    }
    assert not hashes["mvtec_loco"] & (hashes["mvtec_ad"] | hashes["visa"])
