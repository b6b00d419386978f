"""A test image that was saved anew is found among the training images; images that only resemble it are not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ladlib.config import load_profile
from ladlib.conversations import training_pairs
from ladlib.data import find_dataset, read_dataset
from ladlib.data.images import open_image
from ladlib.data.near import NEAR, hashes, nearest, perceptual_hash
from ladlib.errors import UserError
from ladlib.manifest import shown_files
from ladlib.toy.datasets import write_datasets


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The toy datasets with fewer images of each kind than the toy profile draws."""
    root = tmp_path_factory.mktemp("drawn") / "data"
    sizes = load_profile("toy").data.toy
    write_datasets(
        root, sizes.model_copy(update={"train": 4, "validation": 1, "good": 4, "logical": 4, "structural": 2})
    )
    return root


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return open_image_of(file)


def open_image_of(file):
    return Image.open(file).convert("RGB")


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 4, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


ALTERED = {
    "jpeg of quality 90": lambda image: jpeg(image, 90),
    "jpeg of quality 50": lambda image: jpeg(image, 50),
    "half the size": lambda image: image.resize([side // 2 for side in image.size], Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize([side * 3 // 2 for side in image.size], Image.Resampling.BICUBIC),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "noisy": noisy,
}


def judged(root):
    folder = find_dataset(root, "mvtec_loco")
    return [folder / one.image for one in read_dataset(root, "mvtec_loco") if one.split == "test"]


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_copy_of_any_test_image_is_near_it(drawn, how):
    for path in judged(drawn):
        image = open_image(path)
        _, bits = nearest(perceptual_hash(ALTERED[how](image)), perceptual_hash(image)[None])
        assert bits <= NEAR, path


def test_no_drawn_training_image_is_taken_for_one_of_the_test_set(drawn, capsys):
    pairs = training_pairs(drawn, 0)
    assert len(shown_files(pairs, drawn)) == len(pairs) > 100
    assert "looks of the test set" in capsys.readouterr().out


@pytest.mark.parametrize("as_reference", [False, True])
def test_a_test_image_saved_anew_under_a_training_images_name_is_refused(drawn, tmp_path, as_reference):
    one = training_pairs(drawn, 0)[0]
    path = find_dataset(drawn, one.test.dataset) / (one.reference if as_reference else one.test.image)
    before = path.read_bytes()
    ALTERED["half the size"](open_image(judged(drawn)[3])).save(path)
    try:
        with pytest.raises(UserError, match=f"{path.name} looks like .*/test/.*of the test set .*bits differ"):
            shown_files([one], drawn)
    finally:
        path.write_bytes(before)


def test_a_bare_surface_has_no_hash(tmp_path):
    assert perceptual_hash(Image.new("RGB", (64, 64), "grey")) is None
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert list(hashes([tmp_path / "a.png"])) == [None]
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(UserError, match="does not decode"):
        list(hashes([tmp_path / "b.png"]))
