import csv
import shutil

import pytest
from layouts import mmad_entry, write_ad, write_image, write_loco, write_mmad, write_visa

from ladlib.data import FOLDERS, find_dataset, logical, mmad, mvtec_ad, read_dataset, visa
from ladlib.data.counts import published_categories
from ladlib.errors import UserError

BOTTLE = "DS-MVTec/bottle/image/broken_large/000.png"


def test_a_dataset_is_found_in_its_folder_and_where_the_folder_itself_is_given(tmp_path):
    inside = tmp_path / FOLDERS["mvtec_loco"]
    write_loco(inside)
    assert find_dataset(tmp_path, "mvtec_loco") == inside
    assert find_dataset(inside, "mvtec_loco") == inside


def test_a_loco_folder_is_not_taken_for_mvtec_ad(tmp_path):
    write_loco(tmp_path)
    with pytest.raises(UserError, match="holds no mvtec_ad dataset"):
        find_dataset(tmp_path, "mvtec_ad")


def test_a_missing_folder_is_one_line_with_its_name(tmp_path):
    with pytest.raises(UserError, match="nowhere") as caught:
        read_dataset(tmp_path / "nowhere", "visa")
    assert "\n" not in str(caught.value)


def test_an_unknown_dataset_names_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="mvtec_loco"):
        read_dataset(tmp_path, "imagenet")
    with pytest.raises(UserError, match="mvtec_loco"):
        find_dataset(tmp_path, "imagenet")


def test_an_unknown_category_names_the_known_ones(tmp_path):
    write_ad(tmp_path)
    with pytest.raises(UserError, match="'juice'.*cable"):
        read_dataset(tmp_path, "mvtec_ad", categories=["juice"])


def test_only_the_categories_asked_for_are_read(tmp_path):
    write_ad(tmp_path)
    write_ad(tmp_path, category="bottle")
    samples = read_dataset(tmp_path, "mvtec_ad", categories=["bottle"])
    assert {sample.category for sample in samples} == {"bottle"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_half_copied_category_is_an_error_naming_what_it_lacks(tmp_path, split):
    root = write_loco(tmp_path)
    shutil.rmtree(root / split)
    with pytest.raises(UserError, match=f"juice_bottle is half copied: it has no {split} images"):
        read_dataset(tmp_path, "mvtec_loco")


def test_a_dataset_folder_without_images_is_an_error(tmp_path):
    (tmp_path / FOLDERS["mvtec_ad"]).mkdir()
    with pytest.raises(UserError, match="holds no images"):
        read_dataset(tmp_path, "mvtec_ad")


def test_samples_come_sorted_by_image_path(tmp_path):
    write_ad(tmp_path / "ad", category="zipper")
    write_ad(tmp_path / "ad", category="bottle")
    images = [sample.image for sample in read_dataset(tmp_path / "ad", "mvtec_ad")]
    assert images == sorted(images) and len(set(images)) == len(images)


def test_mvtec_ad_takes_the_defect_from_the_folder_and_the_mask_beside_it(tmp_path):
    write_ad(tmp_path)
    samples = {sample.id: sample for sample in mvtec_ad.read(tmp_path)}
    bent = samples["cable/test/bent_wire/001"]
    assert (bent.anomaly, bent.defect) == ("structural", "bent_wire")
    assert bent.masks == ("cable/ground_truth/bent_wire/001_mask.png",)
    assert samples["cable/test/missing_cable/000"].anomaly == "logical"
    assert samples["cable/train/good/000"].split == "train"


def test_a_logical_defect_of_one_category_is_not_one_of_another(tmp_path):
    write_ad(tmp_path, category="transistor", defects={"misplaced": 1})
    write_ad(tmp_path, category="wood", defects={"misplaced": 1})
    anomalies = {sample.category: sample.anomaly for sample in mvtec_ad.read(tmp_path) if sample.defect}
    assert anomalies == {"transistor": "logical", "wood": "structural"}


def test_every_row_of_the_logical_table_has_a_known_dataset_and_a_reason():
    text = (logical.resources.files("ladlib.data") / "logical.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(logical.logical_defects()) == len(rows), "a row stands twice"
    for row in rows:
        assert row["dataset"] in ("mvtec_ad", "visa") and row["defect"] and row["reason"], row
    for dataset in ("mvtec_ad", "visa"):
        named = {row["category"] for row in rows if row["dataset"] == dataset}
        assert named & set(published_categories(dataset))


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_visa_is_read_with_either_line_end(tmp_path, line_end):
    write_visa(tmp_path, line_end=line_end)
    samples = {sample.id: sample for sample in read_dataset(tmp_path, "visa")}
    assert len(samples) == 5
    assert samples["pcb4/Data/Images/Normal/0000"].split == "train"
    assert samples["pcb4/Data/Images/Normal/0002"].split == "test"


def test_visa_defects_come_from_the_annotation_and_one_logical_name_is_enough(tmp_path):
    write_visa(tmp_path, labels=["scratch", "missing,dirt", "scratch, wrong place"])
    found = [(one.defect, one.anomaly) for one in visa.read(tmp_path) if one.anomaly != "good"]
    assert found == [
        ("scratch", "structural"),
        ("dirt + missing", "logical"),
        ("scratch + wrong place", "logical"),
    ]


def test_visa_without_annotation_or_masks_still_reads_with_unknown_defects(tmp_path):
    root = write_visa(tmp_path)
    (root / "image_anno.csv").unlink()
    shutil.rmtree(root / "Data" / "Masks")
    anomalous = [one for one in visa.read(tmp_path) if one.anomaly != "good"]
    assert [(one.defect, one.anomaly, one.masks) for one in anomalous] == [("unknown", "structural", ())] * 2


def test_visa_rows_without_an_image_file_give_no_sample(tmp_path):
    root = write_visa(tmp_path)
    (root / "Data" / "Images" / "Anomaly" / "000.JPG").unlink()
    assert len(visa.read_split(tmp_path / "split_csv" / "1cls.csv")) == 5
    assert len(visa.read(tmp_path)) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("object,split,image\n", "other columns"),
        ("object,split,label,image,mask\ncandle,train,normal\n", "line 2: 3 values"),
        ("object,split,label,image,mask\ncandle,validation,normal,a.JPG,\n", "line 2: split"),
        ("object,split,label,image,mask\ncandle,train,fine,a.JPG,\n", "line 2: label"),
        ("", "other columns"),
    ],
)
def test_a_split_file_unlike_the_published_one_is_an_error_with_its_line(tmp_path, text, says):
    path = tmp_path / "1cls.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        visa.read_split(path)


def test_a_missing_split_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"1cls\.csv is missing"):
        visa.read_split(tmp_path / "1cls.csv")


def test_an_mmad_question_is_read_with_its_options_answer_and_templates(tmp_path):
    write_mmad(tmp_path / "mmad", {BOTTLE: mmad_entry()})
    (question,) = mmad.read_questions(tmp_path)
    assert (question.image, question.answer, question.type) == (BOTTLE, "A", "Anomaly Detection")
    assert question.options == {"A": "Yes.", "B": "No."}
    assert question.similar_templates == ("MVTec-AD/bottle/train/good/001.png",)
    assert (question.source, question.category) == ("DS-MVTec", "bottle")


def test_mmad_key_forms_of_the_evaluators_are_accepted(tmp_path):
    entry = mmad_entry()
    turn = {key.lower(): value for key, value in entry.pop("conversation")[0].items() if key != "type"}
    bare = {"conversation_0": [turn]}
    write_mmad(tmp_path, {BOTTLE: bare})
    (question,) = mmad.read_questions(tmp_path)
    assert (question.answer, question.type, question.similar_templates) == ("A", "", ())


def test_an_mmad_question_without_a_valid_answer_is_left_out_with_a_warning(tmp_path):
    other = BOTTLE.replace("000", "001")
    write_mmad(tmp_path, {BOTTLE: mmad_entry(), other: mmad_entry(answer="C")})
    with pytest.warns(UserWarning, match="1 of 2 questions"):
        assert [question.image for question in mmad.read_questions(tmp_path)] == [BOTTLE]


@pytest.mark.parametrize(
    "entries",
    [
        [],
        {},
        {BOTTLE: []},
        {BOTTLE: {}},
        {BOTTLE: {"conversation": [[]]}},
        {BOTTLE: mmad_entry(Options=["Yes", "No"])},
        {BOTTLE: mmad_entry(Question=None)},
        {BOTTLE: mmad_entry(answer="Z")},
        {"000.png": mmad_entry()},
        {BOTTLE: mmad_entry() | {"similar_templates": [1]}},
        {BOTTLE: mmad_entry() | {"random_templates": "MVTec-AD/bottle/train/good/001.png"}},
    ],
)
def test_a_malformed_mmad_file_is_an_error_naming_it(tmp_path, entries):
    write_mmad(tmp_path, entries)
    with pytest.raises(UserError, match=r"mmad\.json"):
        mmad.read_questions(tmp_path)


def test_mmad_files_that_are_missing_or_no_json_are_errors(tmp_path):
    write_mmad(tmp_path, {}, knowledge={"MVTec": {"bottle": "text"}})
    with pytest.raises(UserError, match="MVTec/bottle is no dict"):
        mmad.read_knowledge(tmp_path)
    (tmp_path / "domain_knowledge.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        mmad.read_knowledge(tmp_path)
    (tmp_path / "mmad.json").unlink()
    with pytest.raises(UserError, match=r"mmad\.json is missing"):
        mmad.read_questions(tmp_path)


def test_domain_knowledge_is_read_by_dataset_object_and_defect(tmp_path):
    write_mmad(tmp_path, {})
    assert mmad.read_knowledge(tmp_path)["MVTec"]["bottle"]["good"] == "A bottle."


@pytest.mark.parametrize(
    ("image", "sample"),
    [
        (BOTTLE, ("mvtec_ad", "bottle/test/broken_large/000")),
        ("DS-MVTec/bottle/image/good/000.png", ("mvtec_ad", "bottle/test/good/000")),
        ("VisA/candle/test/bad/000.JPG", ("visa", "candle/Data/Images/Anomaly/000")),
        ("VisA/candle/test/good/0836.JPG", ("visa", "candle/Data/Images/Normal/0836")),
        (
            "MVTec-LOCO/pushpins/test/logical_anomalies/003.png",
            ("mvtec_loco", "pushpins/test/logical_anomalies/003"),
        ),
        ("GoodsAD/drink_can/test/good/1.jpg", None),
    ],
)
def test_an_mmad_image_is_located_in_the_dataset_it_comes_from(image, sample):
    assert mmad.locate(image) == sample


def test_a_located_mmad_image_is_the_id_of_a_read_sample(tmp_path):
    write_visa(tmp_path, name="candle")
    write_image(tmp_path / "unrelated.png")
    ids = {sample.id for sample in visa.read(tmp_path)}
    assert mmad.locate("VisA/candle/test/bad/001.JPG")[1] in ids
