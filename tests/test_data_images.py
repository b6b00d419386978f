"""Images as every model sees them (odd and broken files: tests/rotten.py)."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ladlib.data.images import fit, fitted_size, open_image, view, view_size
from ladlib.errors import UserError


def test_transparency_is_laid_over_white_in_every_mode(tmp_path):
    palette = Image.new("P", (1, 1))
    palette.putpalette([10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=0)
    Image.new("LA", (1, 1), (0, 0)).save(tmp_path / "grey.png")
    for path in tmp_path.iterdir():
        assert open_image(path).getpixel((0, 0)) == (255, 255, 255), path


def test_a_view_has_the_size_that_its_header_promises_and_is_made_once(tmp_path):
    Image.new("RGB", (300, 100)).save(tmp_path / "a.png")
    band = 112 * 112, 160 * 160
    assert view(tmp_path / "a.png", *band).size == view_size(tmp_path / "a.png", *band) == (252, 84)
    assert view(tmp_path / "a.png", *band) is view(tmp_path / "a.png", *band)
    fitting = Image.new("RGB", (112, 112))
    assert fit(fitting, 112 * 112, 112 * 112) is fitting


@pytest.mark.parametrize(
    ("size", "band", "message"),
    [
        ((100, 100), (784 + 1, 784 * 2 - 1), "min_pixels and max_pixels"),
        ((1, 1), (269 * 784, 269 * 784), "No size with sides divisible by 28"),  # a prime: slivers
        ((4000, 10), (784, 784 * 100), "too narrow"),
    ],
)
def test_a_band_without_a_size_and_a_strip_are_refused(size, band, message):
    with pytest.raises(UserError, match=message):
        fitted_size(*size, *band)


sides = st.integers(1, 4000)
cells = st.integers(1, 1280)


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(sides, sides, cells, st.integers(0, 1280))
def test_a_fitted_size_is_in_the_band_divisible_by_28_and_fits_again(width, height, fewest, more):
    if max(width, height) > 50 * min(width, height):
        return
    band = fewest * 784, (fewest + more) * 784
    assume(more >= 20 or fewest <= 200)  # a narrow band about a prime holds only slivers
    size = fitted_size(width, height, *band)
    assert size[0] % 28 == 0 and size[1] % 28 == 0
    assert band[0] <= size[0] * size[1] <= band[1]
    assert fitted_size(*size, *band) == size


def test_qwens_own_resize_gives_these_sizes_and_leaves_them_alone():
    smart_resize = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl").smart_resize
    random = np.random.default_rng(0)
    for width, height in random.integers(28, 4000, (500, 2)).tolist():
        wide, narrow = (56 * 56, 1280 * 784), (112 * 112, 112 * 112)
        assert fitted_size(width, height, *wide) == smart_resize(height, width, 28, *wide)[::-1]
        for band in (wide, narrow):
            size = fitted_size(width, height, *band)
            assert smart_resize(size[1], size[0], 28, *band) == size[::-1]
