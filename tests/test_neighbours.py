"""The nearest-neighbour detector: a hand-worked threshold, and no way for a test image to reach it."""

import numpy as np
import pandas as pd
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
from ladlib.results import to_frame
from ladlib.runs import RunFolder, read_jsonl

PROFILE = tiny_profile(evaluate__limit=0)


def detect(data, root):
    path = neighbours.detect(PROFILE, data, RunFolder(root))
    return [Detection.model_validate(row) for row in read_jsonl(path)]


@pytest.fixture
def data(tmp_path):
    view.cache_clear()  # the same paths may show other images now
    return write_pairs(tmp_path / "data", good=3, logical=3)


def test_the_threshold_is_a_quantile_of_the_distances_left_out():
    nearest, threshold = fit(np.array([[0.0], [1.0], [3.0], [10.0]]))  # nearest other: 1, 1, 2, 7
    assert threshold == pytest.approx(2 + 0.85 * (7 - 2))  # index 0.95 x 3 = 2.85 of the sorted four
    assert nearest.kneighbors([[2.5]])[0][0, 0] == pytest.approx(0.5)


def test_features_are_a_small_picture_and_a_histogram_of_known_scale():
    black, white = (features(Image.new("RGB", (40, 30), colour)) for colour in ("black", "white"))
    assert black.shape == (SIDE * SIDE * 3 + BINS**3,)
    picture, histogram = black[: -(BINS**3)] - white[: -(BINS**3)], black[-(BINS**3) :] - white[-(BINS**3) :]
    assert np.linalg.norm(picture) == pytest.approx(3**0.5) and np.linalg.norm(histogram) == pytest.approx(2**0.5)


def test_only_training_images_are_neighbours_and_make_the_threshold(data, tmp_path):
    before = detect(data, tmp_path / "a")
    loco = data / "mvtec_loco_anomaly_detection"
    sizes = PROFILE.data.min_pixels, PROFILE.data.max_pixels
    seen = {path: features(view(path, *sizes)) for path in loco.glob("*/t*/*/*.png")}
    train = {path.relative_to(loco).as_posix(): value for path, value in seen.items() if "train" in path.parts}
    for one in before:
        assert one.distance == pytest.approx(min(np.linalg.norm(seen[loco / one.test] - x) for x in train.values()))
        assert one.nearest in train and one.trained_on == len(train)
    for number, path in enumerate(sorted(loco.glob("juice_bottle/test/*/*.png"))):
        Image.new("RGB", (60, 30), (250 - number, 10 * number, 128)).save(path)
    Image.open(loco / "juice_bottle/train/good/001.png").save(loco / "juice_bottle/test/good/000.png")
    view.cache_clear()
    after = detect(data, tmp_path / "b")
    assert {one.threshold for one in before} == {one.threshold for one in after} and len(before) == 6
    assert [one.distance for one in before] != [one.distance for one in after]
    (twin,) = [one for one in after if one.id.endswith("good/000")]
    assert twin.distance == pytest.approx(0, abs=1e-6)
    assert (twin.answer, twin.nearest) == ("no", "juice_bottle/train/good/001.png")


def test_a_single_training_image_leaves_no_threshold_and_is_refused(data, tmp_path):
    for number in (1, 2):
        (data / f"mvtec_loco_anomaly_detection/juice_bottle/train/good/{number:03d}.png").unlink()
    with pytest.raises(UserError, match="single training image"):
        detect(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_its_scores_follow_from_distance_and_threshold_as_worked_by_hand():
    columns = ["anomaly", "distance", "category", "threshold"]
    cells = [
        ("good", 0.5, "pushpins", 1.0), ("good", 1.5, "pushpins", 1.0), ("logical", 1.0, "pushpins", 1.0),
        ("logical", 2.0, "pushpins", 1.0), ("good", 10.0, "screw_bag", 20.0), ("logical", 30.0, "screw_bag", 20.0),
    ]  # fmt: skip
    frame = pd.DataFrame(cells, columns=columns)
    frame["label"] = np.where(frame["anomaly"] == "good", "no", "yes")
    scores = {(row["subset"], row["category"]): row for row in score_detections(frame)}
    pooled = scores["logical", "pooled"]
    assert [pooled[name] for name in ("tp", "fp", "tn", "fn", "unparsed")] == [2, 1, 2, 1, 0]
    # In thresholds: good 0.5, 1.5, 0.5; anomalous 1, 2, 1.5. Of nine couples 7 in order, 1 a tie.
    assert pooled["auroc"] == pytest.approx(7.5 / 9)
    assert pooled["ece"] is None and pooled["format_rate"] is None and pooled["arm"] == "neighbours"
    assert scores["logical", "screw_bag"]["accuracy"] == 1.0
    assert score_detections(to_frame([], Detection)) == []
