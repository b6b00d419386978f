"""Readers of the datasets' real layouts, MMAD among them, and the tables they look up."""

import shutil

import pytest
from layouts import mmad_entry, write_ad, write_config, write_loco, write_mask, write_mmad, write_visa

from ladlib.data import FOLDERS, find_dataset, mmad, read_dataset, readers
from ladlib.data.layout import published_categories, read_table
from ladlib.errors import UserError

BOTTLE = "DS-MVTec/bottle/image/broken_large/000.png"
JUICE = "juice_bottle/test/logical_anomalies/000"


def samples(folder, dataset):
    return {sample.id: sample for sample in read_dataset(folder, dataset)}


# Finding and reading a dataset


def test_a_dataset_is_found_in_its_folder_and_where_the_folder_itself_is_given(tmp_path):
    inside = tmp_path / FOLDERS["mvtec_loco"]
    write_loco(inside)
    assert find_dataset(tmp_path, "mvtec_loco") == find_dataset(inside, "mvtec_loco") == inside
    with pytest.raises(UserError, match="holds no mvtec_ad dataset"):
        find_dataset(inside, "mvtec_ad")


@pytest.mark.parametrize(
    ("folder", "dataset", "says"),
    [("nowhere", "visa", "nowhere"), ("", "imagenet", "'imagenet'.*mvtec_loco"), ("", "visa", "holds no images")],
)
def test_what_cannot_be_read_is_one_line(tmp_path, folder, dataset, says):
    write_visa(tmp_path / FOLDERS["visa"])
    shutil.rmtree(tmp_path / FOLDERS["visa"] / "pcb4")
    with pytest.raises(UserError, match=says) as error:
        read_dataset(tmp_path / folder, dataset)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_half_copied_category_is_an_error_naming_what_it_lacks(tmp_path, split):
    shutil.rmtree(write_loco(tmp_path) / split)
    with pytest.raises(UserError, match=f"juice_bottle is half copied: it has no {split} images"):
        read_dataset(tmp_path, "mvtec_loco")


# MVTec AD and VisA


def test_mvtec_ad_takes_defect_and_mask_from_the_folders_and_logical_from_the_table(tmp_path):
    write_ad(tmp_path)
    write_ad(tmp_path, category="transistor", defects={"misplaced": 1})
    write_ad(tmp_path, category="wood", defects={"misplaced": 1})
    found = samples(tmp_path, "mvtec_ad")
    assert list(found) == sorted(found)
    bent = found["cable/test/bent_wire/001"]
    assert (bent.anomaly, bent.defect) == ("structural", "bent_wire")
    assert bent.masks == ("cable/ground_truth/bent_wire/001_mask.png",)
    assert found["cable/test/missing_cable/000"].anomaly == "logical"
    assert found["cable/train/good/000"].split == "train"
    misplaced = [found[f"{name}/test/misplaced/000"].anomaly for name in ("transistor", "wood")]
    assert misplaced == ["logical", "structural"]


def test_every_row_of_the_logical_table_is_of_a_published_category_and_stands_once():
    rows = read_table("logical.csv")
    assert len(readers.logical_defects()) == len(rows)
    assert all(row["category"] in published_categories(row["dataset"]) and row["reason"] for row in rows)


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_visa_takes_split_and_defects_from_its_tables(tmp_path, line_end):
    write_visa(tmp_path, labels=["scratch", "missing,dirt", "scratch, wrong place"], line_end=line_end)
    found = read_dataset(tmp_path, "visa")
    assert [(one.defect, one.anomaly) for one in found if one.anomaly != "good"] == [
        ("scratch", "structural"),
        ("dirt + missing", "logical"),
        ("scratch + wrong place", "logical"),
    ]
    assert [one.split for one in found if one.anomaly == "good"] == ["train", "train", "test"]
    ids = {one.id for one in found}
    assert mmad.locate("VisA/pcb4/test/bad/001.JPG")[1] in ids and mmad.locate("VisA/pcb4/test/good/0002.JPG")[1] in ids


def test_visa_without_annotation_masks_or_some_images_still_reads(tmp_path):
    root = write_visa(tmp_path)
    (root / "image_anno.csv").unlink()
    shutil.rmtree(root / "Data" / "Masks")
    (root / "Data" / "Images" / "Anomaly" / "000.JPG").unlink()
    with pytest.warns(UserWarning, match="pcb4: 1 of 2 anomaly test images of 1cls.csv are not there"):
        (anomalous,) = (one for one in read_dataset(tmp_path, "visa") if one.anomaly != "good")
    assert (anomalous.defect, anomalous.anomaly, anomalous.masks) == ("unknown", "structural", ())
    assert len(readers.read_split(tmp_path / "split_csv" / "1cls.csv")) == 5


def renamed(old, new):
    """``old`` and ``new`` are patterns, by folder: all files that fit are given another name or folder."""

    def change(root):
        for path in sorted(root.glob(old)):
            target = root / new.format(name=path.name, stem=path.stem)
            target.parent.mkdir(exist_ok=True)
            path.rename(target)

    return change


@pytest.mark.parametrize(
    ("dataset", "change", "says"),
    [
        ("mvtec_ad", renamed("cable/test/good", "cable/test/Good"), "test has no folder good but Good, bent_wire"),
        ("mvtec_loco", renamed("*/test/good", "juice_bottle/test/OK"), "test has no folder good but OK"),
        (
            "mvtec_ad",
            renamed("cable/test/bent_wire/*.png", "cable/test/bent_wire/all/{name}"),
            "bent_wire: all 2 images are in folders",
        ),
        ("mvtec_loco", renamed("*/train/good/*.png", "juice_bottle/train/good/a/{name}"), "train/good: all 3 image"),
        (
            "visa",
            renamed("*/Data/Images/Anomaly/*", "pcb4/Data/Images/Anomaly/{stem}.jpg"),
            "all 2 anomaly test images",
        ),
    ],
)
def test_normal_images_of_another_name_and_classes_left_empty_are_refused(tmp_path, dataset, change, says):
    {"mvtec_ad": write_ad, "mvtec_loco": write_loco, "visa": write_visa}[dataset](tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=says):
        read_dataset(tmp_path, dataset)


def test_an_image_one_folder_too_deep_is_left_out_with_a_warning(tmp_path):
    root = write_ad(tmp_path)
    renamed("test/bent_wire/001.png", "test/bent_wire/more/001.png")(root)
    with pytest.warns(UserWarning, match="bent_wire: 1 of 2 images are in folders of it; they are left out"):
        assert len(read_dataset(tmp_path, "mvtec_ad")) == 5


# MVTec LOCO AD


def test_loco_names_its_defects_by_the_pixel_values_of_the_masks(tmp_path):
    write_loco(tmp_path, logical=[[[254], [255]], [[255], [254]], [[255], [255]], [[254, 255]]])
    found = samples(tmp_path, "mvtec_loco")
    both = "missing_bottom_label + missing_top_label"
    defects = [found[f"juice_bottle/test/logical_anomalies/{number:03d}"].defect for number in range(4)]
    assert defects == [both, both, "missing_top_label", both]
    masks = tuple(f"juice_bottle/ground_truth/logical_anomalies/000/00{number}.png" for number in range(2))
    assert found[JUICE].masks == masks and found[JUICE].image == f"{JUICE}.png"
    assert (found[JUICE].category, found[JUICE].split, found[JUICE].label) == ("juice_bottle", "test", "yes")
    assert found["juice_bottle/test/structural_anomalies/000"].defect == "contamination"
    assert found["juice_bottle/validation/good/000"].label == "no"
    assert len(found) == 3 + 1 + 2 + 4 + 1


def test_flattened_masks_are_reported_and_never_read_as_missing_top_labels(tmp_path):
    root = write_loco(tmp_path, logical=[[], []])
    for number in range(2):
        write_mask(root / "ground_truth" / "logical_anomalies" / f"{number:03d}.png", 255)
    with pytest.warns(UserWarning, match="2 flattened masks"):
        sample = samples(tmp_path, "mvtec_loco")[JUICE]
    assert (sample.defect, sample.masks) == ("unknown", ("juice_bottle/ground_truth/logical_anomalies/000.png",))


@pytest.mark.parametrize("structural", [[[[255]]], [[[255], [255]], [[255]]]])
def test_masks_that_all_hold_255_tell_no_defect_and_are_reported(tmp_path, structural):
    write_loco(tmp_path, logical=[[[255]], [[255], [255]]], structural=structural)
    with pytest.warns(UserWarning, match=f"{2 + len(structural)} flattened masks"):
        found = samples(tmp_path, "mvtec_loco").values()
    assert {one.defect for one in found if one.anomaly != "good"} == {"unknown"}


def test_images_without_masks_have_unknown_defects_and_stray_files_are_none(tmp_path):
    root = write_loco(tmp_path)
    shutil.rmtree(root / "ground_truth")
    (root / "train" / "good" / "._000.png").write_bytes(b"\0")
    (root / "train" / "good" / "Thumbs.db").write_bytes(b"\0")
    write_config(tmp_path / "breakfast_box")  # a category without images
    found = samples(tmp_path, "mvtec_loco")
    assert (found[JUICE].defect, found["juice_bottle/test/good/000"].defect) == ("unknown", "")
    assert len(found) == 9 and {one.category for one in found.values()} == {"juice_bottle"}


# MMAD


def test_an_mmad_question_is_read_in_each_form_that_the_evaluators_take(tmp_path):
    turn = {key.lower(): value for key, value in mmad_entry()["conversation"][0].items() if key != "type"}
    images = [BOTTLE.replace("000", f"00{number}") for number in range(3)]
    entries = (mmad_entry(), {"conversation_0": [turn]}, mmad_entry(answer="C"))
    write_mmad(tmp_path, dict(zip(images, entries, strict=True)))
    with pytest.warns(UserWarning, match="1 of 3 questions have no valid answer"):
        whole, short = mmad.read_questions(tmp_path)
    assert (whole.image, whole.answer, whole.type, whole.source) == (BOTTLE, "A", "Anomaly Detection", "mvtec_ad")
    assert whole.options == short.options == {"A": "Yes.", "B": "No."} and (short.answer, short.type) == ("A", "")
    assert mmad.read_knowledge(tmp_path)["MVTec"]["bottle"]["good"] == "A bottle."


@pytest.mark.parametrize(
    ("image", "sample"),
    [
        (BOTTLE, ("mvtec_ad", "bottle/test/broken_large/000")),
        ("DS-MVTec/bottle/image/good/000.png", ("mvtec_ad", "bottle/test/good/000")),
        ("VisA/candle/test/bad/000.JPG", ("visa", "candle/Data/Images/Anomaly/000")),
        ("VisA/candle/test/good/0836.JPG", ("visa", "candle/Data/Images/Normal/0836")),
        ("MVTec-LOCO/pushpins/test/good/003.png", ("mvtec_loco", "pushpins/test/good/003")),
        ("./DS-MVTec/bottle/image/good/000.png", ("mvtec_ad", "bottle/test/good/000")),
        ("ALL_DATA/MVTec-AD/bottle/test/good/000.png", ("mvtec_ad", "bottle/test/good/000")),
        ("Visa/candle/test/good/0836.JPG", ("visa", "candle/Data/Images/Normal/0836")),
        ("GoodsAD/drink_can/test/good/1.jpg", None),
        ("Elsewhere/bottle/test/good/000.png", None),
    ],
)
def test_an_mmad_image_is_located_in_the_dataset_it_comes_from(image, sample):
    assert mmad.locate(image) == sample
