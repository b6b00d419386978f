"""The test set is apart: neither pretraining nor the two training stages see its categories, layouts or rules."""

import random

import pytest
from test_floors import ROOT, TREES, imports

from ladlib.checksums import sha256
from ladlib.config import Toy
from ladlib.data import FOLDERS, read_dataset
from ladlib.toy import backdrops, loco
from ladlib.toy import products as training
from ladlib.toy.datasets import write_datasets
from ladlib.toy.scenes import crowded_scene, random_scene

DRAWS = 300


def layouts(draw) -> set[tuple]:
    """What ``draw`` lays where, whatever the backdrop."""
    scenes = [draw(random.Random(f"layout/{number}")) for number in range(DRAWS)]
    return {(scene.rows, scene.cols, frozenset((part.place, part.name) for part in scene.parts)) for scene in scenes}


def reached(start: str) -> set[str]:
    """Every file of the package that the file ``start`` imports, directly or through others."""
    found, pending = set(), [ROOT / start]
    while pending:
        for name in imports(TREES[pending.pop()]):
            for module in (name, name.rpartition(".")[0]):
                path = ROOT.parent.joinpath(*module.split("."))
                new = {path.with_suffix(".py"), path / "__init__.py"} & TREES.keys() - found
                found |= new
                pending += new
    return {path.relative_to(ROOT).as_posix() for path in found}


@pytest.mark.parametrize(
    ("module", "generators"),
    [
        ("toy/tasks.py", {"toy/loco.py", "toy/products.py"}),
        ("toy/scenes.py", {"toy/loco.py", "toy/products.py"}),
        ("toy/pretrain_data.py", {"toy/loco.py", "toy/products.py"}),
        ("toy/pretrain.py", {"toy/loco.py", "toy/products.py"}),
        ("toy/products.py", {"toy/loco.py"}),
    ],
)
def test_pretraining_and_training_cannot_reach_the_generators_of_what_is_tested_later(module, generators):
    assert reached("toy/datasets.py") >= {"toy/loco.py", "toy/products.py"}
    assert not generators & reached(module)


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
