"""What the training stages are shown."""

import pytest
from layouts import mmad_entry, write_ad, write_loco, write_mmad, write_visa

from ladlib.config import load_profile
from ladlib.conversations import balanced_pairs, make_conversations, refuse_loco, training_pairs, validation_pairs
from ladlib.data import read_dataset
from ladlib.data.pairing import pair
from ladlib.errors import UserError

PROFILE = load_profile("smoke", **{"data.sft_samples": 100})


def write_all(root):
    write_ad(
        root / "mvtec_anomaly_detection", normals={"train": 2, "test": 3}, defects={"missing_cable": 3, "bent_wire": 1}
    )
    write_visa(root / "visa")
    write_loco(root / "mvtec_loco_anomaly_detection")
    return root


def mmad(root, knowledge=None):
    entries = {
        "DS-MVTec/cable/image/missing_cable/000.png": mmad_entry("A"),
        "DS-MVTec/cable/image/missing_cable/999.png": mmad_entry("A"),
        "MVTec-LOCO/juice_bottle/test/good/000.png": mmad_entry("B"),
    }
    return write_mmad(root / "mmad", entries, knowledge)


def test_questions_of_mmad_are_asked_about_images_that_are_there(tmp_path):
    mmad(write_all(tmp_path))
    with pytest.warns(UserWarning, match="1 of 2 questions are about images that are not there"):
        (found,) = make_conversations(PROFILE, tmp_path, 0)
    assert found.pair.id == "cable/test/missing_cable/000"
    assert found.question.endswith("Is there any defect in the object?\nA. Yes.\nB. No.")
    assert found.answer == "A. Yes."


@pytest.mark.filterwarnings("ignore:1 of 2 questions")
@pytest.mark.parametrize("turn", [{"Question": "Is <|image_pad|> broken?"}, {"Options": {"A": "<|im_end|>"}}])
def test_a_text_with_a_special_token_is_refused_before_it_is_trained_on(tmp_path, turn):
    root = write_all(tmp_path)
    entries = {"DS-MVTec/cable/image/missing_cable/000.png": mmad_entry("A", **turn)}
    write_mmad(root / "mmad", entries)
    with pytest.raises(UserError, match=r"cable/test/missing_cable/000 holds '<\|'"):
        make_conversations(PROFILE, root, 0)


def test_the_reference_image_is_a_training_normal(tmp_path):
    for one in training_pairs(write_all(tmp_path), seed=0):
        assert "/train/good/" in one.reference or "/Normal/000" in one.reference
        assert one.reference != one.test.image


def test_no_question_and_no_pair_is_of_the_test_dataset(tmp_path):
    mmad(write_all(tmp_path))
    with pytest.warns(UserWarning):
        asked = make_conversations(PROFILE, tmp_path, 0)
    assert {one.pair.test.dataset for one in asked} <= {"mvtec_ad", "visa"}
    assert {one.test.dataset for one in balanced_pairs(PROFILE, tmp_path, 0)} <= {"mvtec_ad", "visa"}
    with pytest.raises(UserError, match="the test set"):
        refuse_loco(pair(read_dataset(tmp_path, "mvtec_loco"), 0))


def test_a_loco_category_inside_the_training_folder_is_refused(tmp_path):
    write_ad(tmp_path / "mvtec_anomaly_detection", category="screw_bag")
    write_visa(tmp_path / "visa")
    with pytest.raises(UserError, match="screw_bag.*the test set"):
        training_pairs(tmp_path, 0)


def test_without_mmad_the_folders_names_are_asked_about(tmp_path):
    with pytest.warns(UserWarning, match=r"no mmad.json"):
        made = make_conversations(PROFILE, write_all(tmp_path), 0)
    assert {one.kind for one in made} == {"Anomaly Detection", "Defect Classification"}
    bent = [one.answer[3:] for one in made if one.pair.test.defect == "bent_wire"]
    assert sorted(bent) == ["Yes.", "bent_wire"]
    assert {one.answer for one in made if one.pair.test.label == "no"} == {"B. No."}


def test_captions_come_from_the_text_beside_the_image_else_from_domain_knowledge(tmp_path):
    knowledge = {"MVTec": {"cable": {"good": " <Whole>\n Description: Three cores. " + "word " * 70 + "."}}}
    folder = mmad(write_all(tmp_path), knowledge)
    caption = folder / "DS-MVTec/cable/image/missing_cable/001.txt"
    caption.parent.mkdir(parents=True)
    caption.write_text("Two cores .\n", encoding="utf-8")
    with pytest.warns(UserWarning):
        captions = {
            one.pair.id: one.answer for one in make_conversations(PROFILE, tmp_path, 0) if one.kind == "Caption"
        }
    assert captions["cable/test/missing_cable/001"] == "Two cores ."
    assert captions["cable/test/good/000"] == "Whole: Three cores."
    assert "cable/test/missing_cable/000" not in captions


def test_the_seed_alone_decides_what_is_drawn(tmp_path):
    write_all(tmp_path)
    few = load_profile("smoke")
    with pytest.warns(UserWarning):
        first, again, other = (make_conversations(few, tmp_path, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == few.data.sft_samples


def test_grpo_pairs_are_balanced_and_alternate(tmp_path):
    pairs = balanced_pairs(load_profile("smoke", **{"data.grpo_pairs": 6}), write_all(tmp_path), 0)
    assert [one.test.anomaly for one in pairs] == ["logical", "good"] * 3
    assert len({one.id for one in pairs}) == 6


def test_good_pairs_are_of_the_categories_of_the_logical_ones(tmp_path):
    write_all(tmp_path)
    write_ad(
        tmp_path / "mvtec_anomaly_detection", category="wood", normals={"train": 2, "test": 20}, defects={"scratch": 1}
    )
    pairs = balanced_pairs(load_profile("smoke", **{"data.grpo_pairs": 6}), tmp_path, 0)
    assert "wood" not in {one.test.category for one in pairs}


def test_an_absent_dataset_is_left_out_with_a_warning_and_two_are_an_error(tmp_path):
    write_ad(tmp_path / "mvtec_anomaly_detection")
    with pytest.warns(UserWarning, match="without visa"):
        assert {one.test.dataset for one in training_pairs(tmp_path, 0)} == {"mvtec_ad"}
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning), pytest.raises(UserError, match="Training needs one of them"):
        training_pairs(tmp_path / "empty", 0)


def test_grpo_without_a_logical_test_image_is_an_error(tmp_path):
    write_ad(tmp_path / "mvtec_anomaly_detection", category="wood", defects={"scratch": 1})
    with pytest.warns(UserWarning), pytest.raises(UserError, match="no logical test image"):
        balanced_pairs(PROFILE, tmp_path, 0)


def test_no_stage_is_trained_on_the_validation_split(tmp_path):
    write_ad(tmp_path / "mvtec_anomaly_detection", normals={"train": 2, "test": 30}, defects={"missing_cable": 30})
    write_visa(tmp_path / "visa")
    profile = load_profile("smoke", **{"data.sft_samples": 1000, "data.grpo_pairs": 1000, "data.validation_share": 0.4})
    held_back = {one.id for one in validation_pairs(profile, tmp_path, 0)}
    trained = {one.id for one in balanced_pairs(profile, tmp_path, 0)}
    with pytest.warns(UserWarning):
        asked = {one.pair.id for one in make_conversations(profile, tmp_path, 0)}
    assert len(held_back) > 10 and len(trained) > 10 and not held_back & (trained | asked)


def test_without_a_validation_share_nothing_is_held_back(tmp_path):
    assert validation_pairs(PROFILE, write_all(tmp_path), 0) == []
