"""Label maps are read as stored, resized by Pillow's grid, and checked; each refusal names its reason."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from spade_core.config import PRESETS
from spade_core.maps.colours import ColourTable
from spade_core.maps.label_maps import (
    LabelMapError,
    check_labels,
    instance_edges,
    prepare,
    read_instance_map,
    read_label_map,
    resize_nearest_centred,
    to_symbols,
)

COCO, ADE20K, CITYSCAPES, DEMO = (PRESETS[name] for name in ("coco", "ade20k", "cityscapes", "demo"))


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey_png(pixels: npt.NDArray[Any], *, bits: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """Write a PNG by hand: samples [H, W] of `bits` bits, or bytes [H, W * channels], with filter 0."""
    height, width = pixels.shape
    if bits < 8:
        spread = (pixels[..., None] >> np.arange(bits - 1, -1, -1)) & 1  # [H, W, bits]
        packed = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        packed = np.frombuffer(pixels.astype(f">u{bits // 8}").tobytes(), np.uint8).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed) if rows is None else rows
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    return png_of(chunk(b"IHDR", header(width // channels, height, bits, colour)), chunk(b"IDAT", zlib.compress(raw)))


def header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def maps(largest: int, dtype: type = np.uint8) -> st.SearchStrategy[npt.NDArray[Any]]:
    shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
    return hnp.arrays(dtype, shapes, elements=st.integers(0, largest))


# Reading


@given(maps(255))
@settings(deadline=None)
def test_grey_and_palette_ids_are_read_as_stored(ids: npt.NDArray[np.uint8]) -> None:
    palette = Image.fromarray(ids, "L").copy()
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    assert palette.mode == "P"
    for data in (saved(Image.fromarray(ids)), saved(palette), saved(palette, transparency=0), grey_png(ids)):
        read = read_label_map(data)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("colour", [0, 3], ids=["grey", "palette"])
def test_small_samples_are_not_stretched_to_255(bits: int, colour: int) -> None:
    ids = np.random.default_rng(bits).integers(0, 2**bits, (7, 13)).astype(np.uint8)
    ids[0, : 2**bits] = np.arange(2**bits)[:13]
    np.testing.assert_array_equal(read_label_map(grey_png(ids, bits=bits, colour=colour)), ids)
    np.testing.assert_array_equal(read_instance_map(grey_png(ids, bits=bits, colour=colour)), ids)


@given(maps(255, np.uint16))
@settings(deadline=None)
def test_16_bit_ids_that_fit_are_read(ids: npt.NDArray[np.uint16]) -> None:
    read = read_label_map(saved(Image.fromarray(ids)))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, ids)


def test_16_bit_ids_that_do_not_fit_are_named() -> None:
    ids = np.zeros((4, 5), np.uint16)
    ids[2, 3], ids[3, 4] = 256, 40000
    with pytest.raises(LabelMapError, match=r"expected ids 0\.\.255 .* got 256 at row 2, column 3 \(largest 40000\)"):
        read_label_map(grey_png(ids, bits=16))


@given(maps(65535, np.uint16))
@settings(deadline=None)
def test_instance_maps_keep_16_bits(ids: npt.NDArray[np.uint16]) -> None:
    read = read_instance_map(saved(Image.fromarray(ids)))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, ids)


def test_rgb_instance_maps_are_panoptic_ids() -> None:
    rgb = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [255, 255, 255]]], np.uint8)
    read = read_instance_map(saved(Image.fromarray(rgb)))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, [[1, 256], [65536, 2**24 - 1]])


def test_a_path_is_read_and_interlacing_is_no_obstacle(tmp_path: Path) -> None:
    # Adam7 stores a 1x1 image as its first pass only: the rows stay the same, and the flag alone differs.
    body = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    path = tmp_path / "map.png"
    path.write_bytes(png_of(chunk(b"IHDR", body), chunk(b"IDAT", zlib.compress(b"\0\x2a"))))
    np.testing.assert_array_equal(read_label_map(path), [[42]])


def test_interlaced_rows_are_put_in_their_places() -> None:
    # 3x2 in Adam7: pass 1 holds (0,0); 4: (0,2); 6: (0,1); 7: the second row.
    body = struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 1)
    data = png_of(chunk(b"IHDR", body), chunk(b"IDAT", zlib.compress(b"\0\1" + b"\0\3" + b"\0\2" + b"\0\4\5\6")))
    np.testing.assert_array_equal(read_label_map(data), [[1, 2, 3], [4, 5, 6]])


# RGB label maps

TABLE = ColourTable((3, 7, 7), ((0, 0, 0), (255, 0, 0), (200, 0, 0)), ("sky", "road", "road in shade"))


def test_rgb_goes_through_the_colour_table() -> None:
    rgb = np.array([[[0, 0, 0], [255, 0, 0]], [[200, 0, 0], [0, 0, 0]]], np.uint8)
    read = read_label_map(saved(Image.fromarray(rgb)), colours=TABLE)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, [[3, 7], [7, 3]])


def test_an_unknown_colour_is_named_with_its_count_and_place() -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[1, 2] = rgb[3, 3] = (1, 2, 3)
    rgb[3, 0] = (9, 9, 9)
    with pytest.raises(
        LabelMapError, match=r"got \(1, 2, 3\) in 2 pixels, first at row 1, column 2 \(1 pixels have other"
    ):
        read_label_map(saved(Image.fromarray(rgb)), colours=TABLE)


def test_rgb_without_a_table_is_refused_unless_it_is_grey() -> None:
    rgb = np.full((2, 2, 3), 9, np.uint8)
    np.testing.assert_array_equal(read_label_map(saved(Image.fromarray(rgb))), np.full((2, 2), 9))
    rgb[1, 1, 2] = 8
    with pytest.raises(
        LabelMapError,
        match=r"no colour table; give one, a CSV file with the columns id,r,g,b,name: --colours FILE, data.colours in",
    ):
        read_label_map(saved(Image.fromarray(rgb)))


def test_grey_through_a_table_stays_grey_in_rgb_only() -> None:
    rgb = np.full((2, 2, 3), 0, np.uint8)
    np.testing.assert_array_equal(read_label_map(saved(Image.fromarray(rgb)), colours=TABLE), np.full((2, 2), 3))


def test_opaque_rgba_as_a_web_canvas_saves_it_is_read_and_transparency_refused() -> None:
    rgba = np.full((2, 3, 4), 255, np.uint8)
    rgba[..., :3] = 5
    np.testing.assert_array_equal(read_label_map(saved(Image.fromarray(rgba))), np.full((2, 3), 5))
    rgba[0, 1, 3] = 254
    with pytest.raises(LabelMapError, match=r"opaque RGBA image but got 1 transparent pixels"):
        read_label_map(saved(Image.fromarray(rgba)))


# What is refused

ROWS = np.arange(12, dtype=np.uint8).reshape(3, 4)
GOOD = grey_png(ROWS)
IDAT = chunk(b"IDAT", zlib.compress(b"\0" * 15))

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "0 bytes; write or send the file again"),
    "text": (b"hello world", "expected a PNG but got the given bytes, bytes b'hello wo'"),
    "HTML": (b"<!DOCTYPE html>", r"text \(HTML, XML or SVG\)"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "JPEG": (saved(Image.fromarray(ROWS), "JPEG"), "JPEG is lossy and changes ids at every edge; save the map as PNG"),
    "GIF": (saved(Image.fromarray(ROWS), "GIF"), "a GIF image"),
    "BMP": (saved(Image.fromarray(ROWS), "BMP"), "a BMP image"),
    "TIFF": (saved(Image.fromarray(ROWS), "TIFF"), "a TIFF image"),
    "WebP": (saved(Image.fromarray(ROWS), "WEBP"), "a WebP image"),
    "signature only": (GOOD[:8], "no end: 8 bytes and no IEND"),
    "half a file": (GOOD[:50], r"cut off at byte 50 of \d+; write or send the file again"),
    "no end chunk": (GOOD[:-12], "no IEND chunk"),
    "flipped bit": (GOOD[:45] + bytes([GOOD[45] ^ 1]) + GOOD[46:], "a wrong checksum in chunk b'IDAT'"),
    "too few rows": (grey_png(ROWS, rows=b"\0\1\2\3\4"), "5 of 15 bytes of pixel data"),
    "no pixel data": (png_of(chunk(b"IHDR", header(4, 3))), "0 of 15 bytes of pixel data"),
    "not deflated": (png_of(chunk(b"IHDR", header(4, 3)), chunk(b"IDAT", b"abcdef")), "cannot be decompressed"),
    "bad filter": (grey_png(ROWS, rows=b"\x09\0\0\0\0" * 3), "cannot be decoded"),
    "no header": (png_of(IDAT), "chunk b'IDAT' where IHDR belongs"),
    "two headers": (
        png_of(chunk(b"IHDR", header(4, 3)), chunk(b"IHDR", header(4, 3)), IDAT),
        "where pixel data belongs",
    ),
    "short header": (png_of(chunk(b"IHDR", b"abc"), IDAT), "a header of 3 bytes, not 13"),
    "3 bits": (png_of(chunk(b"IHDR", header(4, 3, 3)), IDAT), r"impossible header \(colour type 0, 3 bits\)"),
    "no width": (png_of(chunk(b"IHDR", header(0, 3)), IDAT), r"a size of 0x3 \(width x height\)"),
    "grey with alpha": (grey_png(np.zeros((3, 4), np.uint8), colour=4), "grey with alpha: .* save it without alpha"),
    "16-bit RGB": (grey_png(np.zeros((3, 6), np.uint16), bits=16, colour=2), "16-bit RGB; save it with 8 bits"),
    "animated": (
        saved(Image.fromarray(ROWS), save_all=True, append_images=[Image.fromarray(ROWS + 1)]),
        "animated; save one frame",
    ),
    "a bomb": (
        png_of(chunk(b"IHDR", header(100_000, 100_000)), IDAT),
        "expected at most 64000000 pixels but got 100000x100000 = 10000000000",
    ),
    "a thin bomb": (
        png_of(chunk(b"IHDR", header(1, 1 << 24)), IDAT),
        "sides of at most 32768 pixels but got 1x16777216",
    ),
    "many chunks": (
        png_of(chunk(b"IHDR", header(4, 3)), chunk(b"tEXt", b"") * 20_000, IDAT),
        "at most 16384 chunks but got more",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_say_what_and_what_to_do(kind: str) -> None:
    data, text = REFUSED[kind]
    for read in (read_label_map, read_instance_map):
        with pytest.raises(LabelMapError, match=text):
            read(data)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelMapError, match=r"missing\.png': No such file or directory; check the path"):
        read_label_map(tmp_path / "missing.png")
    with pytest.raises(LabelMapError, match="Is a directory"):
        read_label_map(tmp_path)


def test_the_pixel_limit_is_a_parameter() -> None:
    assert read_label_map(GOOD, max_pixels=12).shape == (3, 4)
    with pytest.raises(LabelMapError, match="expected at most 11 pixels but got 4x3 = 12"):
        read_label_map(GOOD, max_pixels=11)


def test_sizes_over_pillows_own_limit_are_ours_to_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    np.testing.assert_array_equal(read_label_map(GOOD), ROWS)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_files_raise_nothing_but_label_map_errors(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["good", *sorted(REFUSED)]))
    file = bytearray(GOOD if name == "good" else REFUSED[name][0])
    for at in data.draw(st.lists(st.integers(0, max(len(file) - 1, 0)), max_size=3)) if file else []:
        file[at] = data.draw(st.integers(0, 255))
    cut = bytes(file[: data.draw(st.integers(0, len(file)))] if data.draw(st.booleans()) else file)
    for read in (read_label_map, read_instance_map):
        with contextlib.suppress(LabelMapError):
            read(cut)


@given(st.integers(0, len(GOOD) - 1))
@settings(deadline=None)
def test_every_truncation_is_noticed(length: int) -> None:
    with pytest.raises(LabelMapError):
        read_label_map(GOOD[:length])


@given(st.binary(max_size=200), st.booleans())
@settings(deadline=None)
def test_random_bytes_raise_nothing_but_label_map_errors(data: bytes, signed: bool) -> None:
    with pytest.raises(LabelMapError):
        read_label_map(b"\x89PNG\r\n\x1a\n" * signed + data)


@given(st.tuples(*[st.integers(0, 2**31)] * 2), *[st.integers(0, 17)] * 2, st.binary(max_size=60))
@settings(deadline=None)
def test_wild_headers_raise_nothing_but_label_map_errors(
    size: tuple[int, int], bits: int, colour: int, rows: bytes
) -> None:
    file = png_of(chunk(b"IHDR", header(*size, bits, colour)), chunk(b"IDAT", zlib.compress(rows)))
    with contextlib.suppress(LabelMapError):
        read_label_map(file, max_pixels=10_000)


# Resizing


def by_pillow(maps: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    return np.asarray(Image.fromarray(maps).resize((width, height), Image.Resampling.NEAREST))


@given(*[st.integers(1, 2100)] * 4)
@example(1024, 2048, 256, 512)
@example(426, 640, 256, 256)
@example(640, 426, 257, 511)
@example(375, 500, 33, 600)
@example(1553, 2148, 2148, 1553)
@example(1, 1, 7, 7)
@settings(deadline=None, max_examples=150)
def test_resizing_picks_pillows_pixels(height: int, width: int, new_height: int, new_width: int) -> None:
    # Every row has its own value, and every column: a source index that is off by one shows.
    rows, columns = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None]
    np.testing.assert_array_equal(
        resize_nearest_centred(rows, new_height, 1), by_pillow(rows, new_height, 1), err_msg="rows"
    )
    np.testing.assert_array_equal(
        resize_nearest_centred(columns, 1, new_width), by_pillow(columns, 1, new_width), err_msg="columns"
    )


def test_resizing_keeps_dtype_and_batch() -> None:
    maps = np.random.default_rng(0).integers(0, 256, (2, 30, 50), dtype=np.uint8)
    resized = resize_nearest_centred(maps, 17, 91)
    assert resized.dtype == np.uint8
    for one, of in zip(resized, maps, strict=True):
        np.testing.assert_array_equal(one, by_pillow(of, 17, 91))


def test_a_row_comes_from_the_middle_of_the_rows_it_stands_for() -> None:
    rows = np.arange(1024)[:, None]
    assert resize_nearest_centred(rows, 256, 1)[:3, 0].tolist() == [2, 6, 10]


def test_pillow_adds_its_step_up_and_the_sum_is_not_the_product() -> None:
    """At some sizes the exact formula takes other rows than Pillow. These sizes show that the sum is needed."""
    size, new_size = 2148, 1553
    exact = [(2 * i + 1) * size // (2 * new_size) for i in range(new_size)]
    assert exact != by_pillow(np.arange(size, dtype=np.int32)[:, None], new_size, 1)[:, 0].tolist()


def test_resizing_refuses_what_has_no_pixels() -> None:
    with pytest.raises(LabelMapError, match=r"expected a map \[H, W\] or \[N, H, W\] with pixels but got shape \(3,\)"):
        resize_nearest_centred(np.zeros(3, np.uint8), 2, 2)
    with pytest.raises(LabelMapError, match=r"got shape \(0, 3\)"):
        resize_nearest_centred(np.zeros((0, 3), np.uint8), 2, 2)
    with pytest.raises(LabelMapError, match="height and width of at least 1 but got 0x2"):
        resize_nearest_centred(np.zeros((3, 3), np.uint8), 0, 2)


# Edges


def test_both_sides_of_a_boundary_are_edges_and_the_border_is_none() -> None:
    instances = np.array([[[1, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]], np.int32)
    expected = np.array([[[0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]], bool)
    np.testing.assert_array_equal(instance_edges(instances), expected)


@given(
    hnp.arrays(
        np.int32, st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)), elements=st.integers(-2, 2)
    )
)
@settings(deadline=None)
def test_edges_are_pixels_that_differ_from_a_neighbour(instances: npt.NDArray[np.int32]) -> None:
    edges = instance_edges(instances)
    assert edges.dtype == np.bool_
    n, height, width = instances.shape
    for item, y, x in np.ndindex(n, height, width):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        ids = [instances[item, a, b] for a, b in around if 0 <= a < height and 0 <= b < width]
        assert edges[item, y, x] == any(i != instances[item, y, x] for i in ids)


# Checks


def test_dont_care_becomes_the_last_class_and_the_input_stays() -> None:
    labels = np.array([[[0, 255], [181, 255]]], np.uint8)
    np.testing.assert_array_equal(check_labels(labels, COCO), [[[0, 182], [181, 182]]])
    assert labels.max() == 255


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
@given(st.integers(0, 255))
@settings(deadline=None)
def test_an_id_is_accepted_exactly_when_the_network_has_it(config: Any, label: int) -> None:
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[1, 3, 4] = label
    if label < config.classes or (label == 255 and config.dont_care):
        assert check_labels(labels, config)[1, 3, 4] == (config.label_nc if label == 255 else label)
    else:
        with pytest.raises(LabelMapError, match=f"but got {label} in 1 pixels, first at item 1, row 3, column 4"):
            check_labels(labels, config)


def bad(config: Any, *ids: int) -> str:
    labels = np.zeros((2, 4, 5), np.uint8)
    for i, label in enumerate(ids):
        labels[1, 2, i] = label
    with pytest.raises(LabelMapError) as caught:
        check_labels(labels, config)
    return str(caught.value)


def test_a_bad_id_is_named_with_its_range_and_the_fix() -> None:
    assert bad(COCO, 7, 200, 200, 183) == (
        "[label_map] expected ids 0..182 or 255 (don't care) but got 200 in 2 pixels, first at item 1, row 2, "
        "column 1, and the ids [183]; COCO-Stuff ids are the official ids - 1 (0..181), with 255 for unlabeled"
    )
    assert "expected ids 0..150 but got 151 in 1 pixels" in bad(ADE20K, 151)
    assert "ADE20K ids are the raw values of its PNG files (0 unknown, 1 wall, .. 150)" in bad(ADE20K, 151)
    assert "expected ids 0..34 but got 40" in bad(CITYSCAPES, 40)
    assert "use the labelIds files, not trainIds" in bad(CITYSCAPES, 40)
    assert "the license plate, -1): replace it by 0 (unlabeled) or 26 (car)" in bad(CITYSCAPES, 255)
    assert "no class for 255 (don't care): replace it by the id of a class" in bad(DEMO, 255)
    assert "give ids of the 16 classes of 'demo'" in bad(DEMO, 16)


def test_symbols_are_labels_or_label_and_edge() -> None:
    labels = np.array([[[0, 3], [182, 5]]], np.uint8)
    edges = np.array([[[False, True], [True, False]]])
    plain, both = to_symbols(labels, None, ADE20K), to_symbols(labels, edges, COCO)
    assert plain.dtype == both.dtype == np.uint16
    np.testing.assert_array_equal(plain, labels)
    np.testing.assert_array_equal(both, [[[0, 7], [365, 10]]])
    assert both.max() < COCO.symbols
    with pytest.raises(LabelMapError, match="expected edges to be given for 'coco' but got None"):
        to_symbols(labels, None, COCO)
    with pytest.raises(LabelMapError, match="expected edges to be None for 'ade20k' but got edges"):
        to_symbols(labels, edges, ADE20K)


def test_prepare_is_the_whole_way() -> None:
    labels = np.zeros((2, 32, 64), np.uint8)
    labels[1, :, 32:] = 255
    instances = labels.astype(np.int32)
    expected = np.zeros((2, 32, 64))
    expected[1, :, 32:], expected[1, :, 31], expected[1, :, 32] = 2 * 182, 1, 2 * 182 + 1
    symbols = prepare(labels, instances, COCO)
    assert symbols.dtype == np.uint16
    np.testing.assert_array_equal(symbols, expected)


@given(st.data())
def test_prepare_is_its_parts_in_one_pass(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from([COCO, ADE20K]))
    shape = (data.draw(st.integers(1, 3)), 32 * data.draw(st.integers(1, 2)), 32 * data.draw(st.integers(1, 3)))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels = random.integers(0, 4, shape).astype(np.uint8)
    if config is COCO:
        labels[random.random(shape) < 0.1] = 255
    instances = random.integers(0, 2, shape).astype(np.int32) if config is COCO else None
    if data.draw(st.booleans()):  # as a view with gaps
        labels = labels.repeat(2, axis=2)[:, :, ::2]
    edges = None if instances is None else instance_edges(instances)
    expected = to_symbols(check_labels(labels, config), edges, config)
    np.testing.assert_array_equal(prepare(labels, instances, config), expected)


OK = np.zeros((1, 64, 32), np.uint8)
DEMO_OK = np.zeros((1, 256, 256), np.uint8)

UNFIT: dict[str, tuple[Any, Any, Any, str]] = {
    "dtype": (OK.astype(np.int64), None, ADE20K, "expected labels of dtype uint8 but got int64; check the range"),
    "rank": (OK[0], None, ADE20K, r"expected labels \[N, H, W\] .* got shape \[64, 32\]; .* map\[None\]"),
    "empty": (OK[:0], None, ADE20K, r"N, H and W at least 1 but got shape \[0, 64, 32\]"),
    "no instances": (OK, None, COCO, "expected an instance map for 'coco' but got none; give `instances`"),
    "instances": (OK, OK.astype(np.int32), ADE20K, r"'ade20k' does not read one, but got shape \[1, 64, 32\]; leave"),
    "instance dtype": (OK, OK, COCO, "expected instances of dtype int32 but got uint8"),
    "instance rank": (OK, OK[0].astype(np.int32), COCO, r"expected instances \[N, H, W\] .* got shape \[64, 32\]"),
    "instance shape": (
        OK,
        np.zeros((1, 32, 64), np.int32),
        COCO,
        r"instances of the labels' shape \[1, 64, 32\] but got \[1, 32, 64\]; resize both",
    ),
    "multiple": (
        np.zeros((1, 100, 64), np.uint8),
        None,
        ADE20K,
        r"multiples of 32 .* but got 100x64; the nearest is 96x64; resize with NEAREST",
    ),
    "fixed size": (
        np.zeros((1, 128, 256), np.uint8),
        None,
        DEMO,
        r"expected 256x256 .*fixed for .* a style vector\) but got 128x256; use resize_nearest_centred\(map, 256",
    ),
    "id": (DEMO_OK + 16, None, DEMO, "expected ids 0..15 but got 16 in 65536 pixels"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_prepare_names_what_does_not_fit(kind: str) -> None:
    labels, instances, config, text = UNFIT[kind]
    with pytest.raises(LabelMapError, match=text):
        prepare(labels, instances, config)


def test_real_maps_go_all_the_way(real_maps: Path) -> None:
    for path in sorted((real_maps / "label").glob("*.png")):
        labels, instances = read_label_map(path), read_instance_map(real_maps / "inst" / path.name)
        np.testing.assert_array_equal(labels, np.asarray(Image.open(path)))
        assert labels.shape == instances.shape
        resized = resize_nearest_centred(labels, 256, 256)[None], resize_nearest_centred(instances, 256, 256)[None]
        symbols = prepare(*resized, COCO)
        np.testing.assert_array_equal(symbols // 2, np.where(resized[0] == 255, 182, resized[0]))
        np.testing.assert_array_equal(symbols % 2, instance_edges(resized[1]))
        assert 0.001 < (symbols % 2).mean() < 0.7
