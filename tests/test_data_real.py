"""Checks on genuine files of the datasets, where a machine has them.

Set ``LADLIB_REAL_DATA`` to a folder with ``mvtec_loco_anomaly_detection`` and the others; the parts
that these tests need are juice_bottle and breakfast_box's defects_config.json, transistor, VisA's
split file and MMAD's domain_knowledge.json. The files themselves are not part of this project.
"""

import os
import warnings
from collections import Counter
from pathlib import Path

import pytest

from ladlib.data import FOLDERS, mmad, read_dataset
from ladlib.data.check import check
from ladlib.data.images import fit, open_image
from ladlib.data.layout import published
from ladlib.data.pairing import pair
from ladlib.data.readers import read_defects, read_split


@pytest.fixture
def real():
    folder = Path(os.environ.get("LADLIB_REAL_DATA", ""))
    if not os.environ.get("LADLIB_REAL_DATA") or not folder.is_dir():
        pytest.skip("LADLIB_REAL_DATA names no folder with genuine files")
    return folder


def needs(path):
    if not path.exists():
        pytest.skip(f"LADLIB_REAL_DATA has no {path.name}")
    return path


@pytest.mark.parametrize(
    ("category", "number", "some"),
    [
        ("juice_bottle", 18, {255: "missing_top_label", 240: "wrong_juice_type", 238: "contamination"}),
        ("breakfast_box", 22, {255: "missing_almonds", 250: "2_nectarines_1_tangerine", 234: "contamination"}),
    ],
)
def test_the_genuine_configs_name_their_defects(real, category, number, some):
    folder = needs(real / FOLDERS["mvtec_loco"] / category)
    names = read_defects(folder)
    assert len(names) == number == published("mvtec_loco")[category, "config", "defects"][0]
    assert some.items() <= names.items()


def test_genuine_juice_bottles_read_and_flattened_masks_are_never_top_labels(real):
    juice = needs(real / FOLDERS["mvtec_loco"] / "juice_bottle")
    flattened = any(juice.glob("ground_truth/logical_anomalies/*.png"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = read_dataset(real, "mvtec_loco", categories=["juice_bottle"])
    assert {sample.anomaly for sample in samples} == {"good", "logical", "structural"}
    assert all((juice.parent / sample.image).is_file() for sample in samples)
    if flattened:
        assert any("flattened" in str(one.message) for one in caught)
        assert {sample.defect for sample in samples if sample.anomaly == "logical"} == {"unknown"}
    assert len(pair(samples, seed=0)) == sum(sample.split == "test" for sample in samples)


def test_a_genuine_juice_bottle_fits_the_band(real):
    juice = needs(real / FOLDERS["mvtec_loco"] / "juice_bottle")
    image = open_image(juice / "test" / "good" / "000.png")
    assert image.size == (800, 1600)
    assert fit(image, 4 * 784, 1280 * 784).size == (700, 1400)


def test_genuine_transistors_that_are_misplaced_are_logical(real):
    needs(real / FOLDERS["mvtec_ad"] / "transistor")
    samples = read_dataset(real, "mvtec_ad", categories=["transistor"])
    misplaced = [sample for sample in samples if sample.defect == "misplaced"]
    assert misplaced and all(sample.anomaly == "logical" and sample.masks for sample in misplaced)


def test_the_genuine_split_file_has_the_published_rows(real):
    rows = read_split(needs(real / FOLDERS["visa"] / "split_csv" / "1cls.csv"))
    assert len(rows) == 10_821
    kinds = {"normal": "good", "anomaly": "anomalous"}
    found = Counter((row.object, row.split, kinds[row.label]) for row in rows)
    assert found == {key: counts[0] for key, counts in published("visa").items()}


def test_the_genuine_domain_knowledge_has_38_categories(real):
    needs(real / FOLDERS["mmad"] / "domain_knowledge.json")
    assert sum(len(objects) for objects in mmad.read_knowledge(real).values()) == 38


def test_the_check_says_exactly_how_many_juice_bottles_are_missing(real):
    folder = needs(real / FOLDERS["mvtec_loco"])
    present = len(list((folder / "juice_bottle" / "train" / "good").glob("*.png")))
    messages = [one.message for one in check(folder) if one.category == "juice_bottle"]
    if present < 335:
        assert any(message.startswith(f"train/good: {present} of 335 images, missing ") for message in messages)
