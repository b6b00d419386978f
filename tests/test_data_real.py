"""Genuine files of the datasets, where a machine has them; they are not part of this project.

Set ``LADLIB_REAL_DATA`` to a folder with ``mvtec_loco_anomaly_detection`` and the others. Used are juice_bottle,
breakfast_box's defects_config.json, transistor, VisA's split file and MMAD's domain_knowledge.json.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from ladlib.data import FOLDERS, mmad, read_dataset
from ladlib.data.check import check
from ladlib.data.images import fit, open_image
from ladlib.data.layout import published
from ladlib.data.readers import read_defects, read_split
from ladlib.sft_data import section


@pytest.fixture
def real():
    """Where a genuine file or folder lies; the test is skipped where it does not."""
    root = Path(os.environ.get("LADLIB_REAL_DATA") or "nowhere")

    def path(dataset, place=""):
        if not (root / FOLDERS[dataset] / place).exists():
            pytest.skip(f"LADLIB_REAL_DATA has no {FOLDERS[dataset]}/{place}")
        return root / FOLDERS[dataset] / place

    return path


@pytest.mark.parametrize(
    ("category", "names"),
    [
        ("juice_bottle", {255: "missing_top_label", 240: "wrong_juice_type", 238: "contamination"}),
        ("breakfast_box", {255: "missing_almonds", 250: "2_nectarines_1_tangerine", 234: "contamination"}),
    ],
)
def test_the_genuine_configs_name_their_defects(real, category, names):
    defects = read_defects(real("mvtec_loco", category))
    assert len(defects) == published("mvtec_loco")[category, "config", "defects"][0]
    assert names.items() <= defects.items()


@pytest.mark.filterwarnings("ignore:.*flattened masks")
def test_genuine_juice_bottles_are_read_fitted_and_checked(real):
    juice = real("mvtec_loco", "juice_bottle")
    samples = read_dataset(juice.parent, "mvtec_loco")
    assert {sample.anomaly for sample in samples} == {"good", "logical", "structural"}
    assert all((juice.parent / sample.image).is_file() for sample in samples)
    if any(juice.glob("ground_truth/logical_anomalies/*.png")):  # flattened by a third party
        assert {sample.defect for sample in samples if sample.anomaly == "logical"} == {"unknown"}
    image = open_image(juice / "test" / "good" / "000.png")
    assert image.size == (800, 1600) and fit(image, 4 * 784, 1280 * 784).size == (700, 1400)
    present = sum(sample.split == "train" for sample in samples)
    messages = [finding.message for finding in check(juice.parent) if finding.category == "juice_bottle"]
    assert present == 335 or any("images are missing" in message for message in messages)


def test_genuine_transistors_that_are_misplaced_are_logical(real):
    samples = read_dataset(real("mvtec_ad", "transistor").parent, "mvtec_ad")
    misplaced = [sample for sample in samples if sample.defect == "misplaced"]
    assert misplaced and all(sample.anomaly == "logical" and sample.masks for sample in misplaced)


def test_the_genuine_tables_have_the_published_rows(real):
    rows = read_split(real("visa", "split_csv/1cls.csv"))
    kinds = {"normal": "good", "anomaly": "anomalous"}
    found = Counter((row.object, row.split, kinds[row.label]) for row in rows)
    assert len(rows) == 10_821 and found == {key: counts[0] for key, counts in published("visa").items()}
    knowledge = mmad.read_knowledge(real("mmad", "domain_knowledge.json").parent)
    assert sum(map(len, knowledge.values())) == 38


def test_of_the_genuine_texts_about_visa_each_defect_gets_its_own_or_none(real):
    knowledge = mmad.read_knowledge(real("mmad", "domain_knowledge.json").parent)["VisA"]
    labels = ("bent", "burnt", "dirt", "extra", "melt", "missing", "missing + scratch", "scratch", "wrong place")
    found = {
        product: {label: part.split(">")[0][1:] for label in labels if (part := section(about["bad"], label))}
        for product, about in knowledge.items()
    }
    assert {product: parts for product, parts in found.items() if parts} == {
        "pcb3": {"bent": "Bent Component", "missing": "Missing Component", "scratch": "Scratch"},
        "pcb4": {"burnt": "Burnt Area", "extra": "Extra Material", "missing": "Missing Component",
                 "scratch": "Surface Scratch"},
        "pipe_fryum": {"scratch": "Surface Scratches"},
    }  # fmt: skip
