"""What the training stages see: conversations for stage 1, balanced pairs for stage 2, the validation split."""

import warnings
from importlib.resources import files

import pandas as pd
import pytest
from layouts import mmad_entry, write_ad, write_loco, write_mmad, write_visa

from ladlib.config import load_profile
from ladlib.data import read_dataset
from ladlib.data.check import check
from ladlib.data.pairing import pair
from ladlib.doctor import examine
from ladlib.errors import UserError
from ladlib.sft_data import (
    balanced_pairs,
    held_out,
    in_validation_split,
    make_conversations,
    read_sft_file,
    refuse_loco,
    training_pairs,
    write_sft_file,
)

PROFILE = load_profile("smoke", **{"data.sft_samples": 100})
MISSING = "DS-MVTec/cable/image/missing_cable/000.png"


ENTRIES = {MISSING: mmad_entry("A"), "MVTec-LOCO/juice_bottle/test/good/000.png": mmad_entry("B")}
KNOWLEDGE = {"MVTec": {"cable": {"good": " <Whole>\n Description: Three cores. " + "word " * 70 + "."}}}


@pytest.fixture
def root(tmp_path):
    defects = {"missing_cable": 3, "bent_wire": 1}
    write_ad(tmp_path / "mvtec_anomaly_detection", normals={"train": 2, "test": 3}, defects=defects)
    write_visa(tmp_path / "visa")
    write_loco(tmp_path / "mvtec_loco_anomaly_detection")
    caption = (write_mmad(tmp_path / "mmad", ENTRIES, KNOWLEDGE) / MISSING).with_name("001.txt")
    caption.parent.mkdir(parents=True)
    caption.write_text("Two cores .\n", encoding="utf-8")
    return tmp_path


# Conversations


def test_questions_and_captions_come_from_mmad_and_are_about_images_that_are_there(root):
    write_mmad(root / "mmad", ENTRIES | {MISSING.replace("000", "999"): mmad_entry("A")}, KNOWLEDGE)
    with pytest.warns(UserWarning, match="1 of 2 questions are about images that are not there"):
        made = make_conversations(PROFILE, root, 0)
    (question,) = (one for one in made if one.kind != "Caption")
    assert question.pair.id == "cable/test/missing_cable/000" and question.answer == "A. Yes."
    assert question.question.endswith("Is there any defect in the object?\nA. Yes.\nB. No.")
    captions = {one.pair.id: one.answer for one in made if one.kind == "Caption"}
    assert captions["cable/test/missing_cable/001"] == "Two cores ."
    assert captions["cable/test/good/000"] == "Whole: Three cores."
    assert "cable/test/missing_cable/000" not in captions
    assert {one.pair.test.dataset for one in made} <= {"mvtec_ad", "visa"}


@pytest.mark.parametrize("change", [lambda name: f"ALL_DATA/{name}", lambda name: f"./{name}", str.lower])
def test_the_names_of_mmad_may_have_folders_before_them_and_other_capitals(root, change):
    expected = make_conversations(PROFILE, root, 0)
    entries = {change(name): entry for name, entry in ENTRIES.items()}
    write_mmad(root / "mmad", entries, {change(name): about for name, about in KNOWLEDGE.items()})
    (root / "mmad" / "ALL_DATA").mkdir()
    (root / "mmad" / "DS-MVTec").rename(root / "mmad" / "ALL_DATA" / "DS-MVTec")
    assert make_conversations(PROFILE, root, 0) == expected


def test_questions_about_no_known_dataset_are_counted_and_a_file_without_another_is_refused(root):
    unknown = {f"Elsewhere/{number}.png": mmad_entry("A") for number in range(2)}
    write_mmad(root / "mmad", ENTRIES | unknown, KNOWLEDGE)
    with pytest.warns(UserWarning, match="2 of 3 questions are about no known dataset, such as .*Elsewhere/0.png"):
        make_conversations(PROFILE, root, 0)
    write_mmad(root / "mmad", unknown, KNOWLEDGE)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="None of MMAD's 2 questions is about an image"):
        make_conversations(PROFILE, root, 0)


GOOD = "DS-MVTec/cable/image/good/000.png"
KINDS = {"A": "Bent wire", "B": "missing_cable", "C": "A torn one"}
PRODUCTS = {"A": "Cable", "B": "Metal nut.", "C": "A thing"}


@pytest.mark.parametrize(
    ("image", "turn", "is_wrong"),
    [
        (GOOD, {"Answer": "A"}, True),
        (GOOD, {"Answer": "B"}, False),
        (MISSING, {"Answer": "B"}, True),
        (GOOD, {"Answer": "B", "type": "Object Classification", "Options": PRODUCTS}, True),
        (GOOD, {"Answer": "A", "type": "Object Classification", "Options": PRODUCTS}, False),
        (GOOD, {"Answer": "C", "type": "Object Classification", "Options": PRODUCTS}, False),
        (MISSING, {"Answer": "A", "type": "Defect Classification", "Options": KINDS}, True),
        (MISSING, {"Answer": "B", "type": "Defect Classification", "Options": KINDS}, False),
        (MISSING, {"Answer": "C", "type": "Defect Classification", "Options": KINDS}, False),
        ("DS-MVTec/pill/image/good/000.png", {"Answer": "B"}, True),
        ("DS-MVTec/pill/image/good/022.png", {"Answer": "B"}, False),
        ("DS-MVTec/transistor/image/misplaced/003.png", {"type": "Defect Localization"}, True),
        ("DS-MVTec/transistor/image/misplaced/003.png", {"Answer": "A"}, False),
    ],
)
def test_questions_that_contradict_their_image_or_are_known_mistakes_are_left_out_and_named(
    root, image, turn, is_wrong
):
    for category in ("pill", "transistor"):
        write_ad(root / "mvtec_anomaly_detection", category, {"train": 2, "test": 23}, defects={"misplaced": 4})
    write_mmad(root / "mmad", {MISSING.replace("000", "002"): mmad_entry("A"), image: mmad_entry(**turn)}, KNOWLEDGE)
    found = [finding.message for finding in check(root) if "contradict" in finding.message]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        made = make_conversations(PROFILE, root, 0)
    assert len([one for one in made if one.kind != "Caption"]) == 2 - is_wrong
    said = [str(one.message) for one in warned]
    assert len(found) == len(said) == is_wrong
    name = "jam-cc/MMAD#" if image.split("/")[1] != "cable" else image
    assert all(name in text and text.startswith("1 ") for text in [*found, *said])


SECTIONS = (
    " <Burnt Area>\n Description: Dark.\n\n <Missing Component>\n Description: Empty pads.\n\n"
    " <Surface Scratches>\n Description: Lines.\n\n <Dirt and Melting>\n Description: Spots."
)


def test_of_a_text_about_several_defects_an_image_gets_the_part_about_its_own_or_none(root):
    labels = ["missing", "wrong place", "dirt", "scratch", "scratch,missing"]
    write_visa(root / "visa", labels=labels)
    write_mmad(root / "mmad", ENTRIES, {"VisA": {"pcb4": {"good": "<Normal> Fine.", "bad": SECTIONS}}})
    with pytest.warns(UserWarning, match="3 images have no caption: MMAD has none of their defect alone"):
        made = make_conversations(PROFILE, root, 0)
    captions = {one.pair.test.defect: one.answer for one in made if one.pair.test.dataset == "visa"}
    expected = {
        "": "Normal: Fine.",
        "missing": "Missing Component: Empty pads.",
        "scratch": "Surface Scratches: Lines.",
    }
    assert captions == expected


def test_junk_of_macos_and_byte_order_marks_change_nothing(root):
    expected = make_conversations(PROFILE, root, 0)
    (root / "mmad" / MISSING).with_name("._001.txt").write_bytes(b"\0\5\26\7\xb0")
    for file in (root / "mmad").glob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert make_conversations(PROFILE, root, 0) == expected


@pytest.mark.parametrize("turn", [{"Question": "Is <|image_pad|> broken?"}, {"Options": {"A": "<|im_end|>"}}])
def test_a_text_with_a_special_token_is_refused_before_it_is_trained_on(root, turn):
    write_mmad(root / "mmad", {MISSING: mmad_entry("A", **turn)})
    with pytest.raises(UserError, match=r"cable/test/missing_cable/000 holds '<\|'"):
        make_conversations(PROFILE, root, 0)


def test_the_seed_alone_decides_what_is_chosen_and_the_rest_is_held_out(root):
    few = load_profile("smoke")
    first, again, other = (make_conversations(few, root, seed) for seed in (0, 0, 1))
    assert first == again != other and len(first) == few.data.sft_samples
    asked, trained = held_out(few, root, 0, per_kind=1), {one.pair.id for one in first}
    assert asked and not trained & {one.pair.id for one in asked}
    assert len({one.kind for one in asked}) == len(asked)
    assert held_out(PROFILE, root, 0, per_kind=9) == []


# Pairs


def test_training_pairs_have_a_training_normal_and_are_never_of_the_test_set(root):
    for one in training_pairs(root, seed=0):
        assert "/train/good/" in one.reference or "/Normal/000" in one.reference
        assert one.reference != one.test.image and one.test.dataset in ("mvtec_ad", "visa")
    with pytest.raises(UserError, match="the test set"):
        refuse_loco(pair(read_dataset(root, "mvtec_loco"), 0))
    write_ad(root / "mvtec_anomaly_detection", category="screw_bag")
    with pytest.raises(UserError, match="screw_bag.*the test set"):
        training_pairs(root, 0)


def test_grpo_pairs_are_balanced_alternate_and_are_of_the_same_categories(root):
    write_ad(root / "mvtec_anomaly_detection", "wood", {"train": 2, "test": 20}, defects={"scratch": 1})
    pairs = balanced_pairs(load_profile("smoke", **{"data.grpo_pairs": 6}), root, 0)
    assert [one.test.anomaly for one in pairs] == ["logical", "good"] * 3
    assert len({one.id for one in pairs}) == 6 and "wood" not in {one.test.category for one in pairs}


def test_an_absent_dataset_is_left_out_with_a_warning_and_two_are_an_error(tmp_path):
    write_ad(tmp_path / "mvtec_anomaly_detection", category="wood", defects={"scratch": 1})
    with pytest.warns(UserWarning, match="without visa"):
        assert {one.test.dataset for one in training_pairs(tmp_path, 0)} == {"mvtec_ad"}
    with pytest.warns(UserWarning), pytest.raises(UserError, match="no logical test image"):
        balanced_pairs(PROFILE, tmp_path, 0)
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning), pytest.raises(UserError, match="Training needs one of them"):
        training_pairs(tmp_path / "empty", 0)


def test_no_stage_is_trained_on_the_validation_split(root):
    write_ad(root / "mvtec_anomaly_detection", normals={"train": 2, "test": 30}, defects={"missing_cable": 30})
    profile = load_profile("smoke", **{"data.sft_samples": 1000, "data.grpo_pairs": 1000, "data.validation_share": 0.4})
    split = {one.id for one in training_pairs(root, profile.data.reference_seed) if in_validation_split(one, profile)}
    trained = {one.id for one in balanced_pairs(profile, root, 0)}
    asked = {one.pair.id for one in make_conversations(profile, root, 0)}
    assert len(split) > 10 and len(trained) > 10 and not split & (trained | asked)


# A file of conversations


@pytest.fixture
def file(root):
    write_mmad(root / "mmad", {MISSING.replace("000", f"00{number}"): mmad_entry("A") for number in range(3)})
    made = make_conversations(PROFILE, root, 5)
    formula = made[0].model_copy(update={"answer": '=1+1, "a" and\nanother line'})
    write_sft_file(root / "sft.csv", [formula, *made[1:]], "template")
    return root / "sft.csv"


def on_file(file, **changes):
    return load_profile("smoke", **{"data.sft_file": str(file)} | changes)


def test_stage_1_is_trained_on_the_file_that_the_profile_names_without_the_validation_split(root, file):
    made = make_conversations(on_file(file), root, 0)
    assert len(made) == 4 and '=1+1, "a" and\nanother line' in {one.answer for one in made}
    trained = {one.pair.id for one in make_conversations(on_file(file, **{"data.sft_samples": 1}), root, 0)}
    asked = held_out(on_file(file, **{"data.sft_samples": 1}), root, 0, per_kind=9)
    assert asked and not {one.pair.id for one in asked} & trained
    remaining = {one.pair.id for one in make_conversations(on_file(file, **{"data.validation_share": 0.5}), root, 0)}
    assert 0 < len(remaining) < len({one.pair.id for one in made})
    with pytest.raises(UserError, match="validation split"):
        make_conversations(on_file(file, **{"data.validation_share": 0.99}), root, 0)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("test", "screw_bag/test/good/000.png", "about screw_bag/test/good/000.png .* which is no training pair"),
        ("reference", "cable/train/good/009.png", "cable/train/good/009.png, which is no training pair"),
        ("answer", "", r"sft\.csv, line 4: answer: .*build it again"),
        ("decision", "maybe", "line 4: decision: Input should be '', 'accept', 'edit' or 'reject'"),
    ],
)
def test_a_file_with_a_row_that_cannot_be_used_is_one_line(root, file, column, value, says):
    rows = pd.read_csv(file, keep_default_na=False)
    rows = rows[["\n" not in answer for answer in rows["answer"]]].reset_index(drop=True)
    rows.loc[0, column] = value
    rows.to_csv(file, index=False)
    with pytest.raises(UserError, match=says):
        make_conversations(on_file(file), root, 0)


def test_a_review_in_a_spreadsheet_leaves_out_the_rejected_and_changes_the_edited(root, file):
    assert file.read_bytes().startswith(b"\xef\xbb\xbf") and "'=1+1" in file.read_text(encoding="utf-8")
    rows = pd.read_csv(file, keep_default_na=False)
    rows["decision"] = ["accept", "edit", "reject", ""]
    rows.loc[1, "answer"] = "New words,\r\nin two lines."
    empty = {name: "" for name in rows.columns}  # as spreadsheets leave behind
    pd.concat([rows, pd.DataFrame([empty])]).to_csv(file, index=False, lineterminator="\r\n")
    answers = [row.answer for row in read_sft_file(file)]
    assert answers == ['=1+1, "a" and\nanother line', "New words,\nin two lines.", rows["answer"][3]]


def test_a_profile_names_the_file_relative_to_itself_and_doctor_misses_it(file):
    text = (files("ladlib") / "profiles" / "smoke.yaml").read_text()
    mine = file.with_name("mine.yaml")
    mine.write_text(text.replace("  sft_samples:", "  sft_file: sft.csv\n  sft_samples:"))
    assert load_profile(str(mine)).data.sft_file == str(file)
    for verdict in ("ok", "missing"):
        assert {check.verdict for check in examine(str(mine)).checks if check.subject == "SFT file"} == {verdict}
        file.unlink(missing_ok=True)
