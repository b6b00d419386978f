import json
import shutil

import pytest
from layouts import write_config, write_image, write_loco, write_mask

from ladlib.data import read_dataset
from ladlib.data.mvtec_loco import defects_of, read, read_defects
from ladlib.errors import UserError


def by_id(samples):
    return {sample.id: sample for sample in samples}


def test_each_split_and_kind_becomes_samples_with_relative_paths(tmp_path):
    write_loco(tmp_path)
    samples = by_id(read(tmp_path))
    assert len(samples) == 3 + 1 + 2 + 2 + 1
    sample = samples["juice_bottle/test/logical_anomalies/000"]
    assert (sample.category, sample.split, sample.anomaly, sample.label) == (
        "juice_bottle", "test", "logical", "yes",
    )  # fmt: skip
    assert sample.image == "juice_bottle/test/logical_anomalies/000.png"
    assert samples["juice_bottle/validation/good/000"].label == "no"


def test_the_defect_is_named_by_the_masks_pixel_value(tmp_path):
    write_loco(tmp_path)
    assert by_id(read(tmp_path))["juice_bottle/test/structural_anomalies/000"].defect == "contamination"


def test_several_masks_give_several_names_in_an_order_that_does_not_depend_on_the_masks(tmp_path):
    write_loco(tmp_path, logical=[[[254], [255]], [[255], [254]], [[255], [255]], [[254, 255]]])
    samples = by_id(read(tmp_path))
    defects = [samples[f"juice_bottle/test/logical_anomalies/{number:03d}"].defect for number in range(4)]
    both = "missing_bottom_label + missing_top_label"
    assert defects == [both, both, "missing_top_label", both]
    assert samples["juice_bottle/test/logical_anomalies/000"].masks == (
        "juice_bottle/ground_truth/logical_anomalies/000/000.png",
        "juice_bottle/ground_truth/logical_anomalies/000/001.png",
    )


def test_many_defects_of_one_image_come_in_alphabetical_order(tmp_path):
    names = {value: f"defect_{value}" for value in range(240, 248)}
    masks = [write_mask(tmp_path / f"{value}.png", value) for value in (243, 240, 247, 241, 246, 242, 245, 244)]
    assert defects_of(masks, names) == sorted(names.values())


def test_flattened_masks_are_reported_and_never_read_as_missing_top_labels(tmp_path):
    root = write_loco(tmp_path, logical=[[], []])
    for number in range(2):
        write_mask(root / "ground_truth" / "logical_anomalies" / f"{number:03d}.png", 255)
    with pytest.warns(UserWarning, match="2 flattened masks"):
        samples = by_id(read(tmp_path))
    sample = samples["juice_bottle/test/logical_anomalies/000"]
    assert sample.defect == "unknown"
    assert sample.masks == ("juice_bottle/ground_truth/logical_anomalies/000.png",)


def test_an_anomalous_image_without_any_mask_has_an_unknown_defect(tmp_path):
    root = write_loco(tmp_path)
    shutil.rmtree(root / "ground_truth")
    samples = by_id(read(tmp_path))
    assert samples["juice_bottle/test/logical_anomalies/000"].defect == "unknown"
    assert samples["juice_bottle/test/good/000"].defect == ""


def test_a_mask_value_that_the_config_does_not_name_is_an_error_naming_the_mask(tmp_path):
    write_loco(tmp_path, logical=[[[17]]])
    with pytest.raises(UserError, match=r"logical_anomalies/000/000\.png has the pixel value 17"):
        read(tmp_path)


def test_a_colour_mask_is_an_error(tmp_path):
    root = write_loco(tmp_path)
    write_image(root / "ground_truth" / "logical_anomalies" / "000" / "000.png", mode="RGB")
    with pytest.raises(UserError, match="mode RGB"):
        read(tmp_path)


def test_a_cut_off_mask_is_an_error(tmp_path):
    root = write_loco(tmp_path)
    mask = root / "ground_truth" / "logical_anomalies" / "000" / "000.png"
    mask.write_bytes(mask.read_bytes()[:45])
    with pytest.raises(UserError, match="does not decode"):
        read(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_value": 0},
        {"pixel_value": 256},
        {"pixel_value": "255"},
        {"pixel_value": 254},  # that of the next entry
        {"defect_name": ""},
        {"defect_name": "contamination"},  # that of the last entry
        {"saturation_threshold": 1.5},  # relative: a share
        {"relative_saturation": False, "saturation_threshold": 0.5},  # absolute: pixels
        {"relative_saturation": 1},
        {"colour": "red"},
    ],
)
def test_a_config_unlike_the_published_ones_is_an_error_naming_the_file(tmp_path, changes):
    write_config(tmp_path, **changes)
    with pytest.raises(UserError, match=r"defects_config\.json"):
        read_defects(tmp_path)


def test_a_config_entry_without_a_key_is_an_error(tmp_path):
    path = write_config(tmp_path)
    entries = json.loads(path.read_text())
    del entries[0]["relative_saturation"]
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="relative_saturation"):
        read_defects(tmp_path)


def test_a_config_that_is_not_json_and_one_that_is_not_there_are_errors(tmp_path):
    with pytest.raises(UserError, match="is missing"):
        read_defects(tmp_path)
    (tmp_path / "defects_config.json").write_text("[{")
    with pytest.raises(UserError, match=r"defects_config\.json"):
        read_defects(tmp_path)


def test_absolute_and_relative_thresholds_are_both_accepted(tmp_path):
    write_config(tmp_path, saturation_threshold=70400, relative_saturation=False)
    assert read_defects(tmp_path)[255] == "missing_top_label"


def test_an_unknown_folder_of_the_test_split_is_an_error(tmp_path):
    root = write_loco(tmp_path)
    write_image(root / "test" / "broken" / "000.png")
    with pytest.raises(UserError, match="test/broken"):
        read(tmp_path)


def test_files_of_a_macos_archive_are_no_images(tmp_path):
    root = write_loco(tmp_path)
    (root / "train" / "good" / "._000.png").write_bytes(b"\0")
    (root / "train" / "good" / "Thumbs.db").write_bytes(b"\0")
    assert len(read(tmp_path)) == 9


def test_a_category_with_a_config_and_no_images_gives_no_samples(tmp_path):
    write_loco(tmp_path)
    write_config(tmp_path / "breakfast_box")
    assert {sample.category for sample in read_dataset(tmp_path, "mvtec_loco")} == {"juice_bottle"}
