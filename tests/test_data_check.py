import shutil

import pytest
from layouts import (
    mmad_entry,
    write_ad,
    write_config,
    write_image,
    write_loco,
    write_mask,
    write_mmad,
    write_visa,
)

from ladlib.data.check import check
from ladlib.data.counts import published, published_categories
from ladlib.data.finding import spans
from ladlib.errors import UserError

CABLE = {
    "bent_wire": 13, "cable_swap": 12, "combined": 11, "cut_inner_insulation": 14, "cut_outer_insulation": 10,
    "missing_cable": 12, "missing_wire": 10, "poke_insulation": 10,
}  # fmt: skip
PUSHPINS = {248 + number: f"defect_{number}" for number in range(8)}


@pytest.fixture(scope="module")
def whole_pushpins(tmp_path_factory):
    """A complete category of MVTec LOCO AD, of tiny images."""
    folder = tmp_path_factory.mktemp("loco")
    root = write_loco(
        folder,
        category="pushpins",
        normals={"train": 372, "validation": 69, "test": 138},
        logical=[[[248]]] * 91,
        structural=[[[255]]] * 81,
    )
    write_config(root, PUSHPINS)
    return folder


@pytest.fixture
def pushpins(whole_pushpins, tmp_path):
    shutil.copytree(whole_pushpins, tmp_path / "loco")
    return tmp_path / "loco" / "pushpins"


def of(findings, category, severity=None):
    return [one.message for one in findings if one.category == category and severity in (None, one.severity)]


def test_a_complete_category_is_ok_and_the_others_are_named_as_missing(whole_pushpins):
    findings = check(whole_pushpins)
    assert of(findings, "pushpins") == ["751 images, their masks and defects_config.json as released."]
    missing = {one.category for one in findings if one.message == "the category is missing."}
    assert missing == {"breakfast_box", "juice_bottle", "screw_bag", "splicing_connectors"}


def test_a_missing_image_is_named(pushpins):
    for name in ("003.png", "004.png", "371.png"):
        (pushpins / "train" / "good" / name).unlink()
    (message,) = of(check(pushpins.parent), "pushpins", "error")
    assert message == "train/good: 369 of 372 images, missing 003-004, 371."


def test_an_extra_image_is_a_warning_that_names_it(pushpins):
    write_image(pushpins / "test" / "good" / "copy of 000.png")
    (message,) = of(check(pushpins.parent), "pushpins", "warning")
    assert "copy of 000.png" in message


def test_a_folder_that_was_not_published_is_a_warning(pushpins):
    write_image(pushpins / "test" / "broken" / "000.png")
    (message,) = of(check(pushpins.parent), "pushpins", "warning")
    assert message.startswith("test/broken: 1 images that were not published")


def test_an_image_that_does_not_decode_is_named(pushpins):
    (pushpins / "test" / "good" / "007.png").write_bytes(b"")
    (message,) = of(check(pushpins.parent), "pushpins", "error")
    assert message == "1 images do not decode: test/good/007.png."


def test_a_cut_off_image_is_named_and_one_with_bytes_behind_its_end_is_not(pushpins):
    cut, longer = (pushpins / "test" / "good" / name for name in ("007.png", "008.png"))
    cut.write_bytes(cut.read_bytes()[:45])
    longer.write_bytes(longer.read_bytes() + b"a camera's note")
    assert of(check(pushpins.parent), "pushpins", "error") == ["1 images do not decode: test/good/007.png."]


def test_an_image_broken_in_the_middle_is_found_when_everything_is_decoded(pushpins):
    path = pushpins / "test" / "good" / "007.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:45] + bytes(4) + whole[49:])
    assert of(check(pushpins.parent), "pushpins", "error") == []
    (message,) = of(check(pushpins.parent, decode=True), "pushpins", "error")
    assert "test/good/007.png" in message


def test_an_unnamed_mask_value_is_found_when_everything_is_decoded(pushpins):
    write_mask(pushpins / "ground_truth" / "logical_anomalies" / "005" / "000.png", 3)
    (message,) = of(check(pushpins.parent, decode=True), "pushpins", "error")
    assert "005/000.png has the pixel value 3" in message


def test_flattened_masks_are_reported_as_such_and_not_as_missing(pushpins):
    truth = pushpins / "ground_truth" / "logical_anomalies"
    for number in range(91):
        shutil.rmtree(truth / f"{number:03d}")
        write_mask(truth / f"{number:03d}.png", 255)
    findings = check(pushpins.parent)
    (message,) = of(findings, "pushpins", "warning")
    assert "91 of 91 masks are flattened" in message
    assert of(findings, "pushpins", "error") == []


def test_missing_masks_and_masks_of_absent_images_are_named(pushpins):
    shutil.rmtree(pushpins / "ground_truth" / "logical_anomalies" / "005")
    (pushpins / "test" / "logical_anomalies" / "006.png").unlink()
    findings = check(pushpins.parent)
    assert "ground_truth/logical_anomalies: no masks for 1 of 90 images: 005." in of(findings, "pushpins", "error")
    assert "masks of absent images: 006." in of(findings, "pushpins", "warning")[0]


def test_a_config_with_too_few_defects_or_none_at_all_is_an_error(pushpins):
    write_config(pushpins, {255: "color"})
    assert of(check(pushpins.parent), "pushpins", "error") == ["defects_config.json names 1 defects, not 8."]
    (pushpins / "defects_config.json").unlink()
    assert "defects_config.json is missing" in of(check(pushpins.parent), "pushpins", "error")[0]


@pytest.mark.parametrize(("train", "validation", "note"), [(360, 60, False), (354, 59, True)])
def test_both_known_counts_of_splicing_connectors_are_accepted(tmp_path, train, validation, note):
    write_splicing(tmp_path, train, validation)
    findings = [one for one in check(tmp_path) if one.category == "splicing_connectors"]
    assert {one.severity for one in findings} == {"ok"}
    assert any("IJCV" in one.message for one in findings) is note


def write_splicing(folder, train, validation):
    root = write_loco(
        folder,
        category="splicing_connectors",
        normals={"train": train, "validation": validation, "test": 119},
        logical=[[[235]]] * 108,
        structural=[[[255]]] * 85,
    )
    write_config(root, {235 + number: f"defect_{number}" for number in range(21)})


def test_the_two_counts_of_splicing_connectors_do_not_mix(tmp_path):
    write_splicing(tmp_path, 354, 60)
    (message,) = of(check(tmp_path), "splicing_connectors", "error")
    assert message == "train/good: 354 of 360 images, missing 354-359."


def test_a_category_that_was_not_published_is_a_warning(tmp_path):
    write_loco(tmp_path, category="teapots")
    assert of(check(tmp_path), "teapots", "warning") == ["is no category of MVTec LOCO AD."]


def test_mvtec_ad_is_held_against_its_counts(tmp_path):
    write_ad(
        tmp_path,
        "metal_nut",
        {"train": 220, "test": 22},
        {"bent": 25, "color": 22, "flip": 23, "scratch": 23},
    )
    defects = {name: number for name, number in CABLE.items() if name != "cable_swap"}
    write_ad(tmp_path, "cable", {"train": 223, "test": 58}, defects)
    (tmp_path / "cable" / "ground_truth" / "bent_wire" / "002_mask.png").unlink()
    (tmp_path / "cable" / "test" / "bent_wire" / "003.png").unlink()
    write_ad(tmp_path, "cable", {}, {"frayed": 1})
    findings = check(tmp_path)
    assert of(findings, "metal_nut") == ["335 images and their masks as released."]
    assert of(findings, "cable") == [
        "test/bent_wire: 12 of 13 images, missing 003.",
        "test/cable_swap: 0 of 12 images, all missing.",
        "test/frayed: 1 images that were not published: 000.",
        "train/good: 223 of 224 images, missing 223.",
        "ground_truth: no masks for 1 images: bent_wire/002.png.",
    ]


def test_every_defect_of_mvtec_ad_has_its_count_and_they_add_up():
    counts = published("mvtec_ad")
    for category in published_categories("mvtec_ad"):
        defects = [
            count[0] for (name, split, kind), count in counts.items()
            if (name, split) == (category, "test") and kind not in ("good", "anomalous")
        ]  # fmt: skip
        assert sum(defects) == counts[category, "test", "anomalous"][0], category


def test_visa_is_held_against_its_split_file_and_that_against_the_counts(tmp_path):
    root = write_visa(tmp_path, "pcb4", train=904, test=101, labels=["scratch"] * 100)
    findings = check(tmp_path)
    assert of(findings, "pcb4") == ["1105 images, their masks and image_anno.csv as released."]
    assert "split_csv/1cls.csv, candle train good: 0 rows, not 900." in of(findings, "", "error")
    (root / "Data" / "Images" / "Normal" / "0000.JPG").unlink()
    (root / "Data" / "Masks" / "Anomaly" / "099.png").unlink()
    (root / "image_anno.csv").unlink()
    assert of(check(tmp_path), "pcb4", "error") == [
        "train, Data/Images/Normal: 903 of 904 images, missing 0000.",
        "Data/Masks/Anomaly: 99 of 100 masks, missing 099.",
        "image_anno.csv is missing: defects are unknown.",
    ]


def test_mmad_files_are_held_against_their_counts(tmp_path):
    write_mmad(tmp_path, {"DS-MVTec/bottle/image/good/000.png": mmad_entry()})
    messages = of(check(tmp_path), "", "error")
    assert messages[0].startswith("mmad.json: 1 questions about 1 images, not 39672 or 39670")
    assert messages[1] == "domain_knowledge.json: 1 categories, not 38."


def test_datasets_absent_from_a_data_root_are_warnings(tmp_path):
    write_mmad(tmp_path / "mmad", {})
    absent = {one.dataset for one in check(tmp_path) if one.message == "the dataset is missing."}
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
    assert total("mvtec_loco", split="train") == 1778
    assert total("mvtec_loco", split="validation") == 305
    kinds = [total("mvtec_loco", split="test", kind=kind) for kind in ("good", "structural", "logical")]
    assert kinds == [575, 432, 561]
    assert total("mvtec_loco", kind="defects") == 89
    ad = [("train", "good"), ("test", "good"), ("test", "anomalous")]
    assert [total("mvtec_ad", split=split, kind=kind) for split, kind in ad] == [3629, 467, 1258]
    assert [total("visa", split=split, kind=kind) for split, kind in ad] == [8659, 962, 1200]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["000.png"], "000"),
        (["002.png", "000.png", "001.png", "010.png"], "000-002, 010"),
        (["000.JPG", "0001.JPG"], "000, 0001"),
        (["b.png", "000.png", "a.png"], "000, a.png, b.png"),
    ],
)
def test_file_names_are_listed_in_short(names, text):
    assert spans(names) == text
