"""Photos: every mode and orientation by a stated rule, and every file that is no photo named."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from spade_core.photos import PhotoError, read_photo, resize_photo

RAMP = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def saved(path: Path, pixels: npt.NDArray[Any] | Image.Image, **options: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def test_rgb_is_read_as_stored(tmp_path: Path) -> None:
    photo = read_photo(saved(tmp_path / "a.png", RAMP))
    assert photo.dtype == np.uint8
    np.testing.assert_array_equal(photo, RAMP)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65406, 65407, 65535]], np.uint16)
    photo = read_photo(saved(tmp_path / f"grey.{suffix}", values))
    np.testing.assert_array_equal(photo[0], np.array([0, 0, 1, 1, 128, 254, 255, 255])[:, None].repeat(3, 1))


def test_every_16_bit_value_is_rounded_to_the_nearest(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    photo = read_photo(saved(tmp_path / "grey.png", values))
    np.testing.assert_array_equal(photo[..., 0], np.rint(values / 65535 * 255))


def test_32_bit_grey_is_16_bit_grey_or_refused(tmp_path: Path) -> None:
    values = np.array([[0, 32896, 65535]], np.int32)
    np.testing.assert_array_equal(read_photo(saved(tmp_path / "a.tif", values))[0, :, 0], [0, 128, 255])
    with pytest.raises(PhotoError, match=r"expected grey values 0\.\.65535 but got -1\.\.70000 in '.*b\.tif'"):
        read_photo(saved(tmp_path / "b.tif", np.array([[-1, 70000]], np.int32)))


def test_floats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"expected whole numbers but got '.*a\.tif' with pixels of type float"):
        read_photo(saved(tmp_path / "a.tif", np.zeros((2, 2), np.float32)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    photo = read_photo(saved(tmp_path / "a.tif", image))
    np.testing.assert_array_equal(photo, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_left_out(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    image.putalpha(Image.fromarray(RAMP[..., 0]))
    expected = RAMP if mode == "RGBA" else np.asarray(Image.fromarray(RAMP).convert("L").convert("RGB"))
    np.testing.assert_array_equal(read_photo(saved(tmp_path / "a.png", image)), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8], pixels[8:, :8] = 255, 100
    path = saved(tmp_path / f"a.{suffix}", pixels, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))
    np.testing.assert_array_equal(read_photo(path), expected)


def test_exif_data_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", RAMP, exif=b"Exif\0\0no tags at all", quality=95)
    assert read_photo(path).shape == RAMP.shape


def test_files_that_are_no_photos_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(PhotoError, match=r"expected a readable image file but got '.*text\.png'"):
        read_photo(tmp_path / "text.png")
    with pytest.raises(PhotoError, match=r"got '.*absent\.png'"):
        read_photo(tmp_path / "absent.png")
    with pytest.raises(PhotoError, match=r"at most 47 pixels but got 8x6 = 48 in '.*a\.png'; make the photo smaller"):
        read_photo(saved(tmp_path / "a.png", RAMP), max_pixels=47)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of damaged TIFF tags before it gives up
@given(st.sampled_from(["png", "jpg", "webp", "tif", "gif"]), st.data())
@settings(deadline=None, max_examples=100)
def test_damaged_files_raise_nothing_but_photo_errors(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged.{suffix}"
    file = bytearray(saved(path, RAMP).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=4)):
        file[at] = data.draw(st.integers(0, 255))
    path.write_bytes(file[: data.draw(st.integers(0, len(file)))])
    with contextlib.suppress(PhotoError):
        assert read_photo(path, max_pixels=10_000).shape[2] == 3


def test_a_resize_is_pillows_bicubic() -> None:
    small = resize_photo(RAMP, 3, 5)
    np.testing.assert_array_equal(small, np.asarray(Image.fromarray(RAMP).resize((5, 3), Image.Resampling.BICUBIC)))
    assert resize_photo(RAMP, 6, 8) is RAMP
