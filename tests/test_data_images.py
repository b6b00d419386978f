import hashlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ladlib.data.images import fit, fitted_size, open_image, read_size, sha256
from ladlib.errors import UserError


def corner(path, at=(0, 0)):
    return open_image(path).getpixel(at)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 128, 255]


@pytest.mark.parametrize("ending", ["tif", "png", "pgm"])
def test_sixteen_bit_grey_is_scaled_in_every_format(tmp_path, ending):
    Image.fromarray(np.full((2, 2), 200 * 257, dtype=np.uint16)).save(tmp_path / f"a.{ending}")
    assert corner(tmp_path / f"a.{ending}") == (200, 200, 200)


def test_floating_point_grey_is_refused_with_a_mend(tmp_path):
    Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="export it again"):
        open_image(tmp_path / "a.tif")


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (2, 2), (255, 0, 0, 255)).save(tmp_path / "red.png")
    Image.new("LA", (2, 2), (0, 0)).save(tmp_path / "grey.png")
    assert corner(tmp_path / "clear.png") == (255, 255, 255)
    assert corner(tmp_path / "red.png") == (255, 0, 0)
    assert corner(tmp_path / "grey.png") == (255, 255, 255)


def test_a_palette_gives_its_colours_and_its_transparent_entry_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=0)
    assert corner(tmp_path / "plain.png") == (10, 20, 30)
    assert corner(tmp_path / "clear.png") == (255, 255, 255)
    assert corner(tmp_path / "clear.png", (1, 0)) == (40, 50, 60)


def test_cmyk_grey_and_one_bit_images_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    Image.new("L", (2, 2), 77).save(tmp_path / "grey.png")
    Image.new("1", (2, 2), 1).save(tmp_path / "bit.png")
    assert min(corner(tmp_path / "cmyk.jpg")) > 250
    assert corner(tmp_path / "grey.png") == (77, 77, 77)
    assert corner(tmp_path / "bit.png") == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (8, 16)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_an_error_naming_it(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    for opener in (open_image, read_size):
        with pytest.raises(UserError, match=r"a\.png"):
            opener(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_cut_off_image_is_an_error_naming_it(tmp_path, form):
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, form)
    (tmp_path / "a.img").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"a\.img"):
        open_image(tmp_path / "a.img")


def test_a_missing_image_is_an_error_naming_it(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.png"):
        open_image(tmp_path / "nowhere.png")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="too large"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((800, 1600), (700, 1400)),  # Qwen2.5-VL's default upper bound
        ((56, 56), (56, 56)),
        ((20, 20), (56, 56)),
        ((1000, 1000), (980, 980)),
    ],
)
def test_sizes_are_those_of_smart_resize(size, fitted):
    assert fitted_size(*size, 56 * 56, 1280 * 28 * 28) == fitted


def test_a_band_that_holds_no_size_is_an_error_naming_the_parameters():
    with pytest.raises(UserError, match="min_pixels and max_pixels"):
        fitted_size(100, 100, 784 + 1, 784 * 2 - 1)


def test_a_strip_is_refused():
    with pytest.raises(UserError, match="too narrow"):
        fitted_size(4000, 10, 784, 784 * 100)


def test_an_image_that_fits_is_returned_as_it_is():
    image = Image.new("RGB", (112, 112))
    assert fit(image, 112 * 112, 112 * 112) is image


sides = st.integers(1, 4000)
cells = st.integers(1, 1280)


@settings(deadline=None, max_examples=50)  # a busy machine is not a failure
@given(sides, sides, cells, st.integers(0, 1280))
def test_a_fitted_size_is_in_the_band_divisible_by_28_and_fits_again(width, height, fewest, more):
    if max(width, height) > 50 * min(width, height):
        return
    band = fewest * 784, (fewest + more) * 784
    assume(more >= 20 or fewest <= 200)  # a narrow band about a prime holds only slivers, see below
    size = fitted_size(width, height, *band)
    assert size[0] % 28 == 0 and size[1] % 28 == 0
    assert band[0] <= size[0] * size[1] <= band[1]
    assert fitted_size(*size, *band) == size


def test_a_band_that_holds_only_slivers_is_refused():
    with pytest.raises(UserError, match="No size with sides divisible by 28"):
        fitted_size(1, 1, 269 * 784, 269 * 784)


def test_qwens_own_resize_gives_these_sizes_and_leaves_them_alone():
    smart_resize = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl").smart_resize
    random = np.random.default_rng(0)
    for width, height in random.integers(28, 4000, (500, 2)).tolist():
        wide, narrow = (56 * 56, 1280 * 784), (112 * 112, 112 * 112)
        assert fitted_size(width, height, *wide) == smart_resize(height, width, 28, *wide)[::-1]
        for band in (wide, narrow):
            size = fitted_size(width, height, *band)
            assert smart_resize(size[1], size[0], 28, *band) == size[::-1]


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
