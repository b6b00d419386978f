"""Copies of the datasets checked against their releases: complete ones, and ones with a fault each."""

import shutil

import pytest
from layouts import mmad_entry, write_config, write_image, write_loco, write_mask, write_mmad, write_visa

from ladlib.data.check import check
from ladlib.data.layout import published
from ladlib.errors import UserError

WHOLE = "all images and their annotations as released."
PUSHPINS = {248 + number: f"defect_{number}" for number in range(8)}


@pytest.fixture(scope="module")
def whole_pushpins(tmp_path_factory):
    """A complete category of MVTec LOCO AD, of tiny images."""
    folder = tmp_path_factory.mktemp("loco")
    normals = {"train": 372, "validation": 69, "test": 138}
    root = write_loco(folder, "pushpins", normals, logical=[[[248]]] * 91, structural=[[[255]]] * 81)
    write_config(root, PUSHPINS)
    return folder


@pytest.fixture
def pushpins(whole_pushpins, tmp_path):
    shutil.copytree(whole_pushpins, tmp_path / "loco")
    return tmp_path / "loco" / "pushpins"


def of(findings, category, severity=None):
    return [one.message for one in findings if one.category == category and severity in (None, one.severity)]


def test_a_complete_category_is_ok_and_the_others_are_missing(whole_pushpins):
    findings = check(whole_pushpins)
    assert of(findings, "pushpins") == [WHOLE]
    missing = {one.category for one in findings if one.message == "the category is missing."}
    assert missing == {"breakfast_box", "juice_bottle", "screw_bag", "splicing_connectors"}


def remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


def rewrite(name, change):
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def hold_255(root):
    for mask in root.glob("ground_truth/*/*/*.png"):
        write_mask(mask, 255)


def flatten(root):
    shutil.rmtree(root / "ground_truth/logical_anomalies")
    for number in range(91):
        write_mask(root / f"ground_truth/logical_anomalies/{number:03d}.png", 255)


IMAGE, MASK = "test/good/007.png", "ground_truth/logical_anomalies/005/000.png"


@pytest.mark.parametrize(
    ("spoil", "severity", "message"),
    [
        (remove("train/good/003.png", IMAGE), "error", "good/007.png, pushpins/train/good/003.png."),
        (lambda root: write_image(root / "test/good/copy of 000.png"), "warning", "1 images were not published: push"),
        (rewrite(IMAGE, lambda data: b""), "error", "1 images do not open: pushpins/test/good/007.png."),
        (rewrite(IMAGE, lambda data: data[:45] + bytes(4) + data[49:]), "error", "1 images do not open: pushpins/test"),
        (rewrite(IMAGE, lambda data: data[:45]), "error", "1 images do not open: pushpins/test/good/007.png."),
        (rewrite(IMAGE, lambda data: data + b"a camera's note"), "ok", "as released"),
        (remove(MASK), "error", "1 images have no masks: pushpins/test/logical_anomalies/005.png."),
        (lambda root: write_image(root / MASK, 248, size=(9, 8)), "error", "another size than their images: pushpins"),
        (lambda root: write_mask(root / MASK, 3), "error", "005/000.png has the pixel value 3"),
        (hold_255, "error", "172 images have unknown defects: pushpins/test/logical_anomalies/000.png, "),
        (flatten, "error", "91 images have unknown defects: pushpins/test/logical_anomalies/000.png, "),
        (remove("defects_config.json"), "error", "defects_config.json is missing"),
    ],
)
def test_a_fault_is_the_only_finding_and_names_its_files(pushpins, spoil, severity, message):
    spoil(pushpins)
    findings = [finding for finding in check(pushpins.parent) if finding.category == "pushpins"]
    assert [finding.severity for finding in findings] == [severity] and message in findings[0].message, findings


@pytest.mark.parametrize(
    ("train", "validation", "severity"), [(360, 60, "ok"), (354, 59, "ok"), (354, 60, "error"), (360, 59, "error")]
)
def test_both_known_counts_of_splicing_connectors_are_accepted_and_no_mixture(tmp_path, train, validation, severity):
    normals = {"train": train, "validation": validation, "test": 119}
    root = write_loco(tmp_path, "splicing_connectors", normals, [[[235]]] * 108, [[[255]]] * 85)
    write_config(root, {235 + number: f"defect_{number}" for number in range(21)})
    write_loco(tmp_path, category="teapots")
    findings = check(tmp_path)
    assert {one.severity for one in findings if one.category == "splicing_connectors"} == {severity}
    assert of(findings, "teapots", "warning") == ["is no category of mvtec_loco."]


def test_visa_is_checked_against_its_split_file(tmp_path):
    root = write_visa(tmp_path, "pcb4", labels=["scratch"] * 3)
    assert of(check(tmp_path), "pcb4") == [WHOLE]
    remove("Data/Images/Normal/0000.JPG", "Data/Masks/Anomaly/002.png", "image_anno.csv")(root)
    assert of(check(tmp_path), "pcb4") == [
        "1 of 6 images are missing: pcb4/Data/Images/Normal/0000.JPG.",
        "1 images have no masks: pcb4/Data/Images/Anomaly/002.JPG.",
        "2 images have unknown defects: pcb4/Data/Images/Anomaly/000.JPG, pcb4/Data/Images/Anomaly/001.JPG.",
    ]


def test_mmad_files_are_compared_with_the_released_ones_and_absent_datasets_are_warnings(tmp_path):
    write_mmad(tmp_path / "mmad", {"DS-MVTec/bottle/image/good/000.png": mmad_entry()})
    names = ("mmad.json", "domain_knowledge.json")
    findings = check(tmp_path)
    assert of(findings, "", "warning")[:2] == [f"{name} is not the released file." for name in names]
    absent = {finding.dataset for finding in findings if finding.message == "the dataset is missing."}
    assert absent == {"mvtec_ad", "visa", "mvtec_loco"}
    (tmp_path / "mmad" / "mmad.json").write_text("[]")
    assert "mmad.json" in of(check(tmp_path), "", "error")[0]


def test_a_broken_split_file_is_one_finding(tmp_path):
    write_visa(tmp_path, "pcb4")
    (tmp_path / "split_csv" / "1cls.csv").write_text("object;split")
    assert [finding.severity for finding in check(tmp_path)] == ["error"]


def test_a_folder_with_nothing_to_recognise_is_an_error(tmp_path):
    for folder, message in ((tmp_path, "holds none of"), (tmp_path / "nowhere", "There is no folder")):
        with pytest.raises(UserError, match=message):
            check(folder)


@pytest.mark.parametrize(
    ("dataset", "split", "kind", "total"),
    [
        ("mvtec_loco", "train", "good", 1778), ("mvtec_loco", "validation", "good", 305),
        ("mvtec_loco", "test", "good", 575), ("mvtec_loco", "test", "structural", 432),
        ("mvtec_loco", "test", "logical", 561), ("mvtec_loco", "config", "defects", 89),
        ("mvtec_ad", "train", "good", 3629), ("mvtec_ad", "test", "good", 467), ("mvtec_ad", "test", "anomalous", 1258),
        ("visa", "train", "good", 8659), ("visa", "test", "good", 962), ("visa", "test", "anomalous", 1200),
    ],
)  # fmt: skip
def test_the_committed_counts_add_up_to_the_published_totals(dataset, split, kind, total):
    assert sum(counts[0] for key, counts in published(dataset).items() if key[1:] == (split, kind)) == total
