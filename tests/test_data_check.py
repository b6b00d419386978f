"""Copies of the datasets checked against their releases: complete ones, and ones with a fault each."""

import shutil
from contextlib import contextmanager

import pytest
from layouts import mmad_entry, write_config, write_image, write_loco, write_mask, write_mmad, write_visa
from skeleton import write_skeleton

from ladlib.data.check import check
from ladlib.data.layout import published, published_categories
from ladlib.errors import UserError

LOCO, AD, VISA = "mvtec_loco_anomaly_detection", "mvtec_anomaly_detection", "visa"
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
    findings = check(whole_pushpins, decode=True)
    assert of(findings, "pushpins") == ["751 images and their annotations as released."]
    missing = {one.category for one in findings if one.message == "the category is missing."}
    assert missing == {"breakfast_box", "juice_bottle", "screw_bag", "splicing_connectors"}


def remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


def rewrite(name, change):
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


IMAGE, MASK = "test/good/007.png", "ground_truth/logical_anomalies/005/000.png"
FAULTS = [
    (remove("train/good/003.png", "train/good/371.png"), "error", "good: 370 of 372 images, missing 003.png, 371.png."),
    (lambda root: write_image(root / "test/good/copy of 000.png"), "warning", "not published: copy of 000.png."),
    (lambda root: write_image(root / "test/broken/000.png"), "warning", "test/broken: 1 images that were not"),
    (rewrite(IMAGE, lambda data: b""), "error", "1 images do not decode: test/good/007.png."),
    (rewrite(IMAGE, lambda data: data[:45]), "error", "1 images do not decode: test/good/007.png."),
    (rewrite(IMAGE, lambda data: data + b"a camera's note"), "ok", "as released"),
    (remove(MASK), "error", "1 images have no masks: test/logical_anomalies/005.png."),
    (lambda root: write_image(root / MASK, 248, size=(9, 8)), "error", "another size than their images: ground_truth"),
    (lambda root: write_config(root, {255: "color"}), "error", "defects_config.json names 1 defects, not 8."),
    (remove("defects_config.json"), "error", "defects_config.json is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "severity", "says"), FAULTS)
def test_a_fault_is_the_only_finding_and_names_its_files(pushpins, spoil, severity, says):
    spoil(pushpins)
    findings = [one for one in check(pushpins.parent) if one.category == "pushpins"]
    assert [one.severity for one in findings] == [severity] and says in findings[0].message, findings


def test_faults_within_images_and_masks_are_found_when_everything_is_decoded(pushpins):
    rewrite(IMAGE, lambda data: data[:45] + bytes(4) + data[49:])(pushpins)
    write_mask(pushpins / MASK, 3)
    assert of(check(pushpins.parent), "pushpins", "error") == []
    value, image = of(check(pushpins.parent, decode=True), "pushpins", "error")
    assert "005/000.png has the pixel value 3" in value and "test/good/007.png" in image


def test_flattened_masks_are_a_warning_and_not_missing(pushpins):
    truth = pushpins / "ground_truth" / "logical_anomalies"
    for number in range(91):
        shutil.rmtree(truth / f"{number:03d}")
        write_mask(truth / f"{number:03d}.png", 255)
    (message,) = of(check(pushpins.parent), "pushpins")
    assert "91 of 172 masks are flattened" in message


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


def test_visa_is_checked_against_its_split_file_and_that_against_the_counts(tmp_path):
    root = write_visa(tmp_path, "pcb4", train=904, test=101, labels=["scratch"] * 100)
    findings = check(tmp_path)
    assert of(findings, "pcb4") == ["1105 images and their annotations as released."]
    assert "split_csv/1cls.csv, candle train good: 0 rows, not 900." in of(findings, "", "error")
    remove("Data/Images/Normal/0000.JPG", "Data/Masks/Anomaly/099.png", "image_anno.csv")(root)
    shown = ", ".join(f"pcb4/Data/Images/Anomaly/{number:03d}.JPG" for number in range(20))
    assert of(check(tmp_path), "pcb4", "error") == [
        "Data/Images/Normal: 1004 of 1005 images, missing 0000.JPG.",
        f"image_anno.csv is missing or names no defect for {shown} and 80 more.",
        "1 images have no masks: Data/Images/Anomaly/099.JPG.",
    ]


def test_mmad_files_are_checked_against_their_counts_and_absent_datasets_are_warnings(tmp_path):
    write_mmad(tmp_path / "mmad", {"DS-MVTec/bottle/image/good/000.png": mmad_entry()})
    findings = check(tmp_path)
    assert of(findings, "", "error") == [
        "mmad.json: 1 questions about 1 images, not 39672 or 39670 questions.",
        "domain_knowledge.json: 1 categories, 38 in the release.",
    ]
    absent = {one.dataset for one in findings if one.message == "the dataset is missing."}
    assert absent == {"mvtec_ad", "visa", "mvtec_loco"}


def test_a_folder_with_nothing_to_recognise_is_an_error(tmp_path):
    with pytest.raises(UserError, match="holds none of"):
        check(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        check(tmp_path / "nowhere")


def total(dataset, **wanted):
    keys = ("category", "split", "kind")
    rows = [(dict(zip(keys, key, strict=True)), counts[0]) for key, counts in published(dataset).items()]
    return sum(count for row, count in rows if wanted.items() <= row.items())


def test_the_committed_counts_add_up_to_the_published_totals():
    assert [total("mvtec_loco", split=split) for split in ("train", "validation")] == [1778, 305]
    kinds = [total("mvtec_loco", split="test", kind=kind) for kind in ("good", "structural", "logical")]
    assert kinds == [575, 432, 561] and total("mvtec_loco", kind="defects") == 89
    ad = [("train", "good"), ("test", "good"), ("test", "anomalous")]
    assert [total("mvtec_ad", split=split, kind=kind) for split, kind in ad] == [3629, 467, 1258]
    assert [total("visa", split=split, kind=kind) for split, kind in ad] == [8659, 962, 1200]
    for category in published_categories("mvtec_ad"):
        rows = {key[2]: count[0] for key, count in published("mvtec_ad").items() if key[:2] == (category, "test")}
        assert sum(rows.values()) - rows["good"] == 2 * rows["anomalous"], category


# All four datasets, with every published file


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_skeleton(tmp_path_factory.mktemp("skeleton"))


@contextmanager
def moved(path, target):
    """``path`` at ``target`` for a while."""
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    yield
    target.rename(path)


@pytest.mark.slow
def test_of_complete_datasets_all_pass_but_files_that_are_missing_or_in_another_place(whole, tmp_path):
    with (
        moved(whole / LOCO / "screw_bag/test/logical_anomalies/077.png", tmp_path / "away"),
        moved(whole / AD / "cable/test/cable_swap/011.png", whole / AD / "cable/train/good/999.png"),
        moved(whole / AD / "bottle/test/contamination", whole / AD / "bottle/test/dirt"),
        moved(whole / VISA / "pcb4/Data/Images/Anomaly/099.JPG", whole / VISA / "pcb4/Data/Images/Normal/9999.JPG"),
    ):
        findings = check(whole)
    assert sum(one.severity == "ok" for one in findings) == 15 + 5 + 12 + 1 + 1 - 4  # split file, knowledge, 4 spoiled
    (warning,) = (one.message for one in findings if one.severity != "ok" and not one.category)
    assert warning == "mmad.json: 39672 questions about 8366 images, but not the released file."
    found = [(one.category, one.message) for one in findings if one.severity != "ok" and one.category]
    assert [row for row in found if row[0] != "bottle"] == [
        ("cable", "test/cable_swap: 11 of 12 images, missing 011.png."),
        ("cable", "train/good: 1 images that were not published: 999.png."),
        ("pcb4", "Data/Images/Normal: 1 images that were not published: 9999.JPG."),
        ("pcb4", "Data/Images/Anomaly: 99 of 100 images, missing 099.JPG."),
        ("screw_bag", "test/logical_anomalies: 136 of 137 images, missing 077.png."),
    ]
    bottle = [message.split(",")[0].split(":")[0] for category, message in found if category == "bottle"]
    assert bottle[:2] == ["test/contamination", "test/dirt"]
