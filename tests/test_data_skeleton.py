"""The check on complete copies of all four datasets, and on copies with one fault."""

import shutil
from contextlib import contextmanager

import pytest
from skeleton import write_skeleton

from ladlib.data.check import check

LOCO, AD, VISA = "mvtec_loco_anomaly_detection", "mvtec_anomaly_detection", "visa"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_skeleton(tmp_path_factory.mktemp("skeleton"))


@contextmanager
def moved(path, target):
    """``path`` at ``target`` for a while."""
    path.rename(target)
    yield
    target.rename(path)


@contextmanager
def cut(path, beside):
    """The first two thirds of ``path`` for a while; the same bytes under other names stay whole."""
    with moved(path, beside):
        path.write_bytes(beside.read_bytes()[: beside.stat().st_size * 2 // 3])
        yield
        path.unlink()


def wrong(root):
    """What is wrong or strange, by dataset and category; that MMAD's file is not the released one is no news here."""
    found = [one for one in check(root) if one.severity != "ok" and one.dataset != "mmad"]
    return [(one.dataset, one.category, one.message) for one in found]


@pytest.mark.slow
def test_complete_datasets_pass(whole):
    found = check(whole)
    assert [one.message for one in found if one.severity == "error"] == []
    warned = [one.message for one in found if one.severity == "warning"]
    assert warned == ["mmad.json: 39672 questions about 8366 images, but not the released file."]
    assert sum(one.severity == "ok" for one in found) == 15 + 5 + 12 + 1 + 1  # categories, split file, knowledge


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "dataset", "place", "files"),
    [
        (f"{LOCO}/screw_bag/test/logical_anomalies/077.png", "mvtec_loco", "test/logical_anomalies", 137),
        (f"{AD}/transistor/test/misplaced/004.png", "mvtec_ad", "test/misplaced", 10),
        (f"{VISA}/pcb2/Data/Images/Anomaly/031.JPG", "visa", "test, Data/Images/Anomaly", 100),
    ],
)
def test_one_file_that_is_missing_renamed_or_cut_off_is_named(whole, tmp_path, file, dataset, place, files):
    path = whole / file
    category, stem = path.relative_to(whole).parts[1], path.stem
    missing = (dataset, category, f"{place}: {files - 1} of {files} images, missing {stem}.")
    with moved(path, tmp_path / "away"):
        assert missing in wrong(whole)
    with moved(path, path.with_stem(f"copy of {stem}")):
        found = wrong(whole)
        assert missing in found
        assert any(f"not published: copy of {stem}" in message for _, _, message in found)
    with cut(path, tmp_path / "away"):
        place = "/".join(path.parts[-3:])
        assert wrong(whole) == [(dataset, category, f"1 images do not decode: {place}.")]
    assert wrong(whole) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target", "named"),
    [
        (
            f"{LOCO}/juice_bottle/train/good/334.png",
            f"{LOCO}/juice_bottle/test/good/334.png",
            ["train/good: 334 of 335 images, missing 334.", "test/good: 1 images that were not published: 334."],
        ),
        (
            f"{AD}/cable/test/cable_swap/011.png",
            f"{AD}/cable/train/good/999.png",
            [
                "test/cable_swap: 11 of 12 images, missing 011.",
                "train/good: 1 images that were not published: 999.",
            ],
        ),
        (
            f"{VISA}/pcb4/Data/Images/Anomaly/099.JPG",
            f"{VISA}/pcb4/Data/Images/Normal/9999.JPG",
            [
                "test, Data/Images/Anomaly: 99 of 100 images, missing 099.",
                "Data/Images/Normal: 1 images that were not published: 9999.",
            ],
        ),
    ],
)
def test_a_file_in_another_split_is_named_in_both(whole, source, target, named):
    with moved(whole / source, whole / target):
        messages = [message for _, _, message in wrong(whole)]
    assert set(named) <= set(messages)


@pytest.mark.slow
def test_two_files_of_one_split_that_changed_places_with_another_dataset_are_not_taken_for_its_own(whole, tmp_path):
    with moved(whole / AD / "bottle", tmp_path / "bottle"):
        shutil.copytree(whole / LOCO / "pushpins" / "train", whole / AD / "bottle" / "train")
        messages = [message for dataset, category, message in wrong(whole) if category == "bottle"]
        shutil.rmtree(whole / AD / "bottle")
    assert "train/good: 163 images that were not published: 209-371." in messages
    assert any("broken_large: 0 of 20 images, all missing" in message for message in messages)
