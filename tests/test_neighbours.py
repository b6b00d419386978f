"""The nearest-neighbour detector: a hand-worked threshold, and no way for a test image to reach it."""

import numpy as np
import pytest
from layouts import write_pairs
from PIL import Image
from tiny import tiny_profile

from ladlib import neighbours
from ladlib.data.images import view
from ladlib.errors import UserError
from ladlib.metrics import score_detections
from ladlib.neighbours import BINS, SIDE, features, fit
from ladlib.records import Detection
from ladlib.report.stored import read_records
from ladlib.runs import RunFolder


@pytest.fixture
def profile():
    return tiny_profile(evaluate__limit=0)


def detect(profile, data, root):
    return read_records(neighbours.detect(profile, data, RunFolder(root)), Detection)


def test_the_threshold_is_a_quantile_of_the_distances_left_out():
    normals = np.array([[0.0], [1.0], [3.0], [10.0]])  # nearest other: 1, 1, 2, 7
    nearest, threshold = fit(normals)
    assert threshold == pytest.approx(2 + 0.85 * (7 - 2))  # place 0.95 x 3 = 2.85 of the sorted four
    assert nearest.kneighbors([[2.5]])[0][0, 0] == pytest.approx(0.5)


def test_test_images_have_no_part_in_threshold_or_neighbours(profile, tmp_path):
    data = write_pairs(tmp_path / "data", good=4, logical=4)
    before = detect(profile, data, tmp_path / "a")
    loco = data / "mvtec_loco_anomaly_detection"
    for number, path in enumerate(sorted((loco / "juice_bottle").glob("test/*/*.png"))):
        Image.new("RGB", (60, 30), (250 - number, 10 * number, 128)).save(path)
    view.cache_clear()  # the same paths show other images now
    after = detect(profile, data, tmp_path / "b")
    assert {one.threshold for one in before} == {one.threshold for one in after} and len(before) == 8
    assert [one.distance for one in before] != [one.distance for one in after]
    train = {path.relative_to(loco).as_posix() for path in loco.glob("*/train/good/*.png")}
    assert {one.nearest for one in (*before, *after)} <= train and {one.trained_on for one in after} == {len(train)}


def test_more_test_and_validation_images_change_no_distance(profile, tmp_path):
    data = write_pairs(tmp_path / "data", good=2, logical=2)
    before = {one.id: one.distance for one in detect(profile, data, tmp_path / "a")}
    for split in ("validation", "test"):  # twins of a test image: at distance 0, were they neighbours
        folder = data / "mvtec_loco_anomaly_detection" / "juice_bottle"
        twin = Image.open(folder / "test" / "good" / "000.png")
        twin.save(folder / split / "good" / "900.png")
    after = {one.id: one.distance for one in detect(profile, data, tmp_path / "b")}
    assert {name: after[name] for name in before} == before and min(before.values()) > 0


def test_a_training_image_among_the_test_images_is_at_distance_nought_and_no_anomaly(profile, tmp_path):
    data = write_pairs(tmp_path / "data", good=2, logical=2)
    folder = data / "mvtec_loco_anomaly_detection" / "juice_bottle"
    Image.open(folder / "train" / "good" / "001.png").save(folder / "test" / "good" / "000.png")
    (one,) = [one for one in detect(profile, data, tmp_path / "run") if one.id.endswith("good/000")]
    assert (one.distance, one.answer, one.nearest) == (0.0, "no", "juice_bottle/train/good/001.png")


def test_features_are_a_small_picture_and_a_histogram_of_known_scale():
    black, white = (features(Image.new("RGB", (40, 30), colour)) for colour in ("black", "white"))
    assert black.shape == (SIDE * SIDE * 3 + BINS**3,)
    picture, histogram = black[: -(BINS**3)] - white[: -(BINS**3)], black[-(BINS**3) :] - white[-(BINS**3) :]
    assert np.linalg.norm(picture) == pytest.approx(3**0.5) and np.linalg.norm(histogram) == pytest.approx(2**0.5)


def test_a_single_training_image_leaves_no_threshold_and_is_refused(profile, tmp_path):
    data = write_pairs(tmp_path / "data", good=1, logical=1)
    for number in (1, 2):
        (data / f"mvtec_loco_anomaly_detection/juice_bottle/train/good/{number:03d}.png").unlink()
    with pytest.raises(UserError, match="single training image"):
        detect(profile, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_runs_write_the_same_bytes(profile, tmp_path):
    data = write_pairs(tmp_path / "data", good=2, logical=2)
    first, second = (neighbours.detect(profile, data, RunFolder(tmp_path / name)).read_bytes() for name in "ab")
    assert first == second and first


def detection(anomaly, distance, category="pushpins", threshold=1.0):
    return Detection(
        id=f"{category}/{anomaly}/{distance}", dataset="mvtec_loco", category=category, anomaly=anomaly,
        defect="", label="no" if anomaly == "good" else "yes", test="t.png", image_sha256="", nearest="n.png",
        distance=distance, threshold=threshold, trained_on=4, answer="yes" if distance > threshold else "no",
    )  # fmt: skip


def test_its_scores_follow_from_distance_and_threshold_as_worked_by_hand():
    rows = [
        detection("good", 0.5), detection("good", 1.5), detection("logical", 1.0), detection("logical", 2.0),
        detection("good", 10, "screw_bag", 20.0), detection("logical", 30, "screw_bag", 20.0),
    ]  # fmt: skip
    scores = {(row["subset"], row["category"]): row for row in score_detections(rows)}
    pooled = scores["logical", "pooled"]
    assert [pooled[name] for name in ("tp", "fp", "tn", "fn", "unparsed")] == [2, 1, 2, 1, 0]
    # In thresholds: good 0.5, 1.5, 0.5; anomalous 1, 2, 1.5. Of nine couples 7 in order, 1 a tie.
    assert pooled["auroc"] == pytest.approx(7.5 / 9)
    assert pooled["ece"] is None and pooled["format_rate"] is None and pooled["arm"] == "neighbours"
    assert scores["logical", "screw_bag"]["accuracy"] == 1.0
    assert score_detections([]) == []


def test_distances_are_those_of_the_images_as_the_models_see_them(profile, tmp_path):
    data = write_pairs(tmp_path / "data", good=2, logical=2)
    loco = data / "mvtec_loco_anomaly_detection"
    band = profile.data.min_pixels, profile.data.max_pixels
    seen = {path: features(view(path, *band)) for path in loco.glob("*/t*/*/*.png")}
    train = [vector for path, vector in seen.items() if "train" in path.parts]
    for one in detect(profile, data, tmp_path / "run"):
        assert one.distance == pytest.approx(min(np.linalg.norm(seen[loco / one.test] - other) for other in train))
