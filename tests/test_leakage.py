"""No image of the test set is trained on: by its bytes, and by its looks where it was saved again."""

import hashlib
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from tiny import tiny_base, tiny_profile, write_data

from ladlib import grpo, sft
from ladlib.config import load_profile
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import open_image
from ladlib.errors import UserError
from ladlib.leakage import NEAR, perceptual_hash, training_files
from ladlib.runs import RunFolder
from ladlib.sft_data import pairs_to_train_on, training_pairs
from ladlib.toy.datasets import write_datasets

STAGES = pytest.mark.parametrize(("stage", "arm"), [(sft.train, "sft"), (grpo.train, "sft_grpo")])


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def loco_images(root):
    folder = find_dataset(root, "mvtec_loco")
    return [folder / one.image for one in read_dataset(root, "mvtec_loco") if one.split == "test"]


@STAGES
def test_a_stage_leaves_the_hash_of_every_image_it_was_trained_on(data, tmp_path, stage, arm):
    run = RunFolder(tmp_path / "run")
    stage(tiny_profile(), data, run, 0, model=tiny_base())
    rows = pd.read_csv(run.manifest(arm, 0), keep_default_na=False)
    assert len(rows) > 1 and not rows.duplicated(["dataset", "test"]).any()
    for row in rows.itertuples():
        for name, digest in ((row.reference, row.reference_sha256), (row.test, row.test_sha256)):
            assert hashlib.sha256((find_dataset(data, row.dataset) / name).read_bytes()).hexdigest() == digest


@STAGES
def test_a_stage_that_would_see_a_test_image_stops_before_it_begins(data, tmp_path, stage, arm):
    for pair in pairs_to_train_on(tiny_profile(), data):
        shutil.copy(loco_images(data)[-1], find_dataset(data, pair.test.dataset) / pair.test.image)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="an image of the test set"):
        stage(tiny_profile(), data, run, 0, model=tiny_base())
    assert not run.manifest(arm, 0).exists() and not run.checkpoint(arm, 0).exists()


# Looks


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy datasets with fewer images of each kind than in the toy profile."""
    root = tmp_path_factory.mktemp("toy") / "data"
    few = {"train": 4, "good": 4, "logical": 4, "structural": 2}
    write_datasets(root, load_profile("toy").toy.model_copy(update=few))
    return root


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 4, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def half(image):
    return image.resize([side // 2 for side in image.size], Image.Resampling.LANCZOS)


ALTERED = {
    "jpeg of quality 50": lambda image: jpeg(image, 50),
    "half the size": half,
    "grey and brighter": lambda image: ImageEnhance.Brightness(image.convert("L").convert("RGB")).enhance(1.1),
    "noisy": noisy,
}


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_of_any_test_image_differs_in_few_bits(toy, how):
    for path in loco_images(toy):
        image = open_image(path)
        differing = np.bitwise_count(perceptual_hash(ALTERED[how](image)) ^ perceptual_hash(image)).sum()
        assert differing <= NEAR * 3 // 4, path


def test_no_training_image_of_the_toy_world_is_taken_for_one_of_the_test_set(toy, capsys):
    pairs = training_pairs(toy, 0)
    assert len(training_files(pairs, toy)) == len(pairs) > 100
    assert "near-duplicate check, test set" in capsys.readouterr().out


@pytest.mark.parametrize("as_reference", [False, True])
@pytest.mark.parametrize(
    ("copy", "says"),
    [
        (shutil.copy, "has the bytes of"),
        (lambda image, path: half(open_image(image)).save(path), "with .* bits differing looks like"),
    ],
)
def test_a_test_image_under_a_training_images_name_is_refused(toy, copy, says, as_reference):
    pair = training_pairs(toy, 0)[0]
    path = find_dataset(toy, pair.test.dataset) / (pair.reference if as_reference else pair.test.image)
    before = path.read_bytes()
    copy(loco_images(toy)[3], path)
    try:
        with pytest.raises(UserError, match=f"{path.name} {says} .*/test/.*of the test set"):
            training_files([pair], toy)
    finally:
        path.write_bytes(before)


def test_a_bare_surface_has_no_hash_and_matches_none(data):
    assert perceptual_hash(Image.new("RGB", (64, 64), "grey")) is None
    pair, bare = pairs_to_train_on(tiny_profile(), data)[0], Image.new("RGB", (64, 64), "grey")
    bare.save(find_dataset(data, pair.test.dataset) / pair.test.image, compress_level=0)
    bare.resize((32, 32)).save(loco_images(data)[0])
    assert len(training_files([pair], data)) == 1
