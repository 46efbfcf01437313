"""Photos: read from a file to upright RGB, and resized. Training, evaluation and style images all use this file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from spade_core.config import MAX_PIXELS
from spade_core.types import Image as Photo

_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PhotoError(ValueError):
    """A file is no usable photo. The message names the file, what was found and how to mend it."""


def read_photo(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read an image file of any format that Pillow reads: RGB uint8 [H, W, 3], turned upright by EXIF orientation.

    `source` is the file, or its content.

    16-bit grey (modes I;16 and I) is scaled: 65535 becomes 255. Alpha is dropped: a transparent pixel keeps its stored
    colour. Pillow converts palettes, CMYK and other modes to RGB. An animation gives its first frame.
    Raises PhotoError.
    """
    path = source if isinstance(source, Path) else Path("the photo")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            _check_size(image, path, max_pixels)
            image.load()
    except PhotoError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise errors of many kinds for damaged files
        raise PhotoError(f"[photo] expected a readable image file but got '{path}': {error}") from None
    return np.ascontiguousarray(_rgb(_upright(image), path))


def resize_photo(photo: Photo, height: int, width: int) -> Photo:
    """Resize RGB uint8 [H, W, 3] to [height, width, 3] by Pillow's bicubic, which averages where a photo shrinks."""
    if photo.shape[:2] == (height, width):
        return photo
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))


def _check_size(image: Image.Image, path: Path, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise PhotoError(
            f"[photo] expected at most {max_pixels} pixels but got {image.width}x{image.height} = "
            f"{image.width * image.height} in '{path}'; make the photo smaller"
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001 - EXIF data that cannot be read names no orientation; the pixels are whole
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image, path: Path) -> Photo:
    if image.mode.startswith("I"):
        return _grey16(np.asarray(image), path)
    if image.mode == "F":
        raise PhotoError(
            f"[photo] expected whole numbers but got '{path}' with pixels of type float, whose range is unknown; "
            "save it with 8 or 16 bits"
        )
    return np.asarray(image.convert("RGB"))


def _grey16(grey: npt.NDArray[np.integer], path: Path) -> Photo:
    """Scale 16-bit grey to RGB. Pillow's convert("RGB") would cut values at 255, so the photo would become white."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise PhotoError(
            f"[photo] expected grey values 0..65535 but got {low}..{high} in '{path}'; save it with 8 or 16 bits"
        )
    scaled = ((grey.astype(np.int32) + 128) // 257).astype(np.uint8)  # 257 = 65535 / 255
    return np.repeat(scaled[..., None], 3, axis=2)
