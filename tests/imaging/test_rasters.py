"""What rasters become, beyond the plain: deep ones keep their values, stacks their pages, odd TIFFs their colours."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ukan.errors import DataError
from ukan.imaging import (
    PALETTE,
    read_labels,
    read_picture,
    to_8bit,
    write_labels_png,
    write_pages,
    write_probabilities,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
TYPES = ("uint16", "int16", "uint32", "int32", "float32", "float64")


def deep(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return (RNG.random(shape) * 60000 - (30000 if dtype[0] != "u" else 0)).astype(dtype)


def png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG by hand, as no library at hand writes all of them: 1 to 4 channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(values: np.ndarray, photometric: int, extra: Sequence[int] = (), planar: int = 1, order: str = "<") -> bytes:
    """An uncompressed TIFF of one page by hand."""
    height, width, channels = values.shape
    bits = values.dtype.itemsize * 8
    planes = [values] if planar == 1 else [values[..., channel] for channel in range(channels)]
    data = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
    tags = {
        256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric], 273: [0] * len(data),
        277: [channels], 278: [height], 279: [len(part) for part in data], 284: [planar],
        339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
    }  # fmt: skip
    if extra:
        tags[338] = list(extra)
    kind = {tag: "I" if tag in (273, 279) else "H" for tag in tags}
    start = 8 + 2 + 12 * len(tags) + 4
    at = start + sum(len(v) * struct.calcsize(kind[t]) for t, v in tags.items())
    for number, part in enumerate(data):
        tags[273][number] = at + sum(map(len, data[:number]))
        assert len(part) % 2 == 0 or number == len(data) - 1
    table, beyond = b"", b""
    for tag in sorted(tags):
        packed = struct.pack(f"{order}{len(tags[tag])}{kind[tag]}", *tags[tag])
        table += struct.pack(f"{order}HHI", tag, 3 if kind[tag] == "H" else 4, len(tags[tag]))
        if len(packed) <= 4:
            table += packed.ljust(4, b"\0")
        else:
            table += struct.pack(f"{order}I", start + len(beyond))
            beyond += packed
    beyond = beyond.ljust(at - start, b"\0")
    mark = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return mark + table + bytes(4) + beyond + b"".join(data)


def stored(content: bytes, name: str) -> Path:
    Path(name).write_bytes(content)
    return Path(name)


# More than 8 bits


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_16_bit_png_keeps_its_values_and_loses_its_alpha(channels: int) -> None:
    values = deep(5, 7, channels)
    picture = read_picture(stored(png(values), "a.png"))
    assert picture.geometry is None and picture.values.dtype == np.uint16
    assert np.array_equal(picture.values, values[None, ..., : 1 if channels < 3 else 3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_16_bit_png_is_turned_as_its_exif_tag_says(channels: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    values = deep(5, 7, channels)
    picture = read_picture(stored(png(values, (b"eXIf", exif.tobytes()[6:])), "a.png"))
    assert np.array_equal(picture.values[0], np.rot90(values, -1)[..., : 1 if channels < 3 else 3])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_deep_tif_keeps_its_values_and_its_type(dtype: str, channels: int, order: str) -> None:
    values = deep(6, 8, channels, dtype=dtype)
    picture = read_picture(stored(tiff(values, 1 if channels == 1 else 2, order=order), "a.tif"))
    assert picture.values.dtype == dtype and np.array_equal(picture.values[0], values)


def test_deep_tifs_of_opencv_come_back_compressed_and_with_alpha() -> None:
    values = deep(20, 30, 4)
    cv2.imwrite("a.tif", values)  # LZW, as BGRA
    assert np.array_equal(read_picture(Path("a.tif")).values[0], values[..., 2::-1])


def test_a_16_bit_tif_in_which_white_is_zero_is_not_shown_as_a_negative() -> None:
    values = deep(6, 8, 1)
    assert np.array_equal(read_picture(stored(tiff(values, 0), "a.tif")).values[0], 65535 - values)


@pytest.mark.parametrize(
    "content",
    [tiff(deep(6, 8, 3), 2, planar=2), tiff(deep(6, 8, 4), 5), tiff(deep(6, 8, 2), 1, (2,)), tiff(deep(6, 8, 5), 2, (0, 0))],
    ids=["planar", "cmyk", "grey and alpha", "five channels"],
)
def test_deep_tifs_that_no_library_reads_rightly_are_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.tif: a TIFF of an unusual kind \(photometric .* of 16 bits\); save it as PNG"):
        read_picture(stored(content, "a.tif"))


@pytest.mark.parametrize(
    "content", [png(deep(60, 80, 3)), tiff(deep(60, 80, 3), 2), tiff(deep(60, 80, 1, dtype="float32"), 1)]
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_deep_file_is_a_data_error(content: bytes, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = stored(content[: int(len(content) * share)], "a.tif" if content[:2] == b"II" else "a.png")
    with pytest.raises(DataError, match=r"a\.(png|tif): not readable as an image"):
        read_picture(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_told_with_their_place(bad: float) -> None:
    values = deep(6, 8, 1, dtype="float32")
    values[2, 3] = bad
    path = stored(tiff(values, 1), "a.tif")
    for read in (read_picture, read_labels):
        with pytest.raises(
            DataError, match=r"a\.tif: 1 of 48 values are no numbers \(the first at slice, row, column 0, 2, 3\)"
        ):
            read(path)


# CVC-ClinicDB's own TIFs: three samples, declared grey


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [(), (0, 0)])
@pytest.mark.parametrize("planar", [1, 2])
def test_a_tif_of_three_samples_declared_grey_is_a_colour_image(order: str, extra: tuple[int, ...], planar: int) -> None:
    even = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path = stored(tiff(even, 1, extra, planar, order), "1.tif")
    with pytest.raises(OSError):
        Image.open(path).load()
    assert np.array_equal(read_picture(path).values, even[None])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_such_a_tif_may_be_compressed(compression: str) -> None:
    Image.fromarray(RGB).save("1.tif", compression=compression)
    content = Path("1.tif").read_bytes()
    declared = struct.pack("<HHIHH", 262, 3, 1, 2, 0)
    assert content.count(declared) == 1
    path = stored(content.replace(declared, struct.pack("<HHIHH", 262, 3, 1, 1, 0)), "1.tif")
    assert np.array_equal(read_picture(path).values, RGB[None])


def test_it_may_have_16_bits() -> None:
    values = deep(6, 8, 3)
    assert np.array_equal(read_picture(stored(tiff(values, 1), "1.tif")).values[0], values)


def test_a_tif_with_more_samples_than_colours_is_refused_with_the_reason() -> None:
    path = stored(tiff(RNG.integers(0, 256, (6, 8, 5), dtype=np.uint8), 1), "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: a TIFF of an unusual kind \(photometric 1, 5 samples of 8 bits\)"):
        read_picture(path)


# Stacks and animations


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_pages_of_a_tif_are_slices(dtype: str) -> None:
    pages = RNG.integers(0, 256, (3, 5, 7)).astype(dtype)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save("a.tif", save_all=True, append_images=others)
    picture = read_picture(Path("a.tif"))
    assert picture.geometry is None and picture.values.dtype == dtype
    assert np.array_equal(picture.values, np.repeat(pages[..., None], 3 if dtype == "uint8" else 1, 3))
    assert np.array_equal(read_labels(Path("a.tif")).values, pages)


def test_pages_of_different_sizes_or_kinds_are_refused() -> None:
    for other in (Image.fromarray(GREY[:3]), Image.fromarray(GREY.astype(np.uint16))):
        Image.fromarray(GREY).save("a.tif", save_all=True, append_images=[other])
        with pytest.raises(DataError, match=r"a\.tif: .*(pages of different kinds|unusual)"):
            read_picture(Path("a.tif"))


def test_the_thumbnail_in_a_tif_is_no_page() -> None:
    thumbnail = Image.fromarray(RGB[::2, ::2])
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(RGB).save("a.tif", save_all=True, append_images=[thumbnail])
    with Image.open("a.tif") as image:
        image.seek(1)
        assert image.tag_v2.get(254) == 1  # the file is what it is meant to be
    assert np.array_equal(read_picture(Path("a.tif")).values, RGB[None])


def test_written_pages_come_back() -> None:
    for values in (RNG.integers(0, 256, (3, 5, 7), dtype=np.uint8), deep(3, 5, 7), GREY[None]):
        write_pages(Path("out/a.tif"), values)
        assert np.array_equal(read_labels(Path("out/a.tif")).values, values)


def test_probabilities_of_a_stack_are_16_bit_pages() -> None:
    write_probabilities(Path("a.tif"), np.array([[[0.0, 0.5]], [[1.0, 0.25]]], np.float32))
    assert read_labels(Path("a.tif")).values.tolist() == [[[0, 32768]], [[65535, 16384]]]


def test_a_gif_is_read_and_an_animation_refused() -> None:
    frames = [Image.fromarray(page) for page in RNG.integers(0, 256, (3, 5, 7), dtype=np.uint8)]
    frames[0].save("still.gif")
    assert np.array_equal(read_picture(Path("still.gif")).values[0], np.repeat(np.asarray(frames[0])[..., None], 3, 2))
    assert np.array_equal(read_labels(Path("still.gif")).values[0], np.asarray(frames[0]))
    for name in ("moving.gif", "moving.png"):
        frames[0].save(name, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match=rf"{name}: an animation of 3 frames"):
            read_picture(Path(name))


# 8 bits of every kind


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", mode) for mode in ("1", "L", "LA", "P", "RGBA")]
    + [("jpg", mode) for mode in ("L", "CMYK", "YCbCr")]
    + [("tif", mode) for mode in ("1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB")]
    + [("gif", mode) for mode in ("1", "L", "P", "RGBA")]
    + [("bmp", mode) for mode in ("1", "L", "P", "RGBA")],
)
def test_pictures_of_every_mode_look_as_pillow_shows_them(suffix: str, mode: str) -> None:
    slopes = [(1, 2), (2, 1), (3, 1)]
    smooth = np.stack([np.add.outer(np.arange(40) * a, np.arange(60) * b).astype(np.uint8) for a, b in slopes], 2)
    image = Image.fromarray(smooth)
    image = Image.new("LAB", (60, 40), (120, 90, 30)) if mode == "LAB" else image.convert(mode[:1] if mode == "PA" else mode)
    image.convert(mode).save(f"a.{suffix}")
    with Image.open(f"a.{suffix}") as again:
        expected = np.asarray(again.convert("RGB"))
    assert np.array_equal(read_picture(Path(f"a.{suffix}")).values, expected[None])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "gif", "bmp"])
@pytest.mark.parametrize("width", [4, 16, 48, 160, 163])
def test_a_width_of_16_has_nothing_to_do_with_16_bits(suffix: str, width: int) -> None:
    for mode in ("L", "RGB"):
        Image.new(mode, (width, 16), 7 if mode == "L" else (7, 7, 7)).save(f"a.{suffix}")
        picture, labels = read_picture(Path(f"a.{suffix}")).values, read_labels(Path(f"a.{suffix}")).values
        assert picture.dtype == np.uint8 and (picture == 7).all() and picture.shape == (1, 16, width, 3)
        assert labels.dtype == np.uint8 and (labels == 7).all() and labels.shape == (1, 16, width)


def test_a_bmp_of_16_bits_a_pixel_has_8_or_fewer_a_channel() -> None:
    pixels = RNG.integers(0, 2**16, (4, 6), dtype=np.uint16)  # 5, 6 and 5 bits
    header = struct.pack("<IiiHHIIiiII", 40, 6, -4, 1, 16, 3, 48, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    path = stored(b"BM" + struct.pack("<IHHI", 114, 0, 0, 66) + header + pixels.astype("<u2").tobytes(), "a.bmp")
    found = read_picture(path).values
    exact = np.stack([(pixels >> 11) / 31, (pixels >> 5) % 64 / 63, pixels % 32 / 31], -1) * 255
    assert found.dtype == np.uint8 and np.abs(found[0] - exact).max() <= 1


# Labels


def palette_png(indices: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([value for colour in colours for value in colour])
    image.save("mask.png")
    return Path("mask.png")


def test_a_palette_of_greys_stands_for_the_greys() -> None:
    path = palette_png(GREY % 3, [(0, 0, 0), (7, 7, 7), (255, 255, 255), (1, 2, 3)])  # the colour is not in use
    assert np.array_equal(read_labels(path).values[0], np.array([0, 7, 255])[GREY % 3])


def test_a_palette_of_colours_after_black_stands_for_its_labels() -> None:
    path = palette_png(GREY % 3, [(0, 0, 0), (128, 0, 0), (0, 128, 0)])
    assert np.array_equal(read_labels(path).values[0], GREY % 3)


def test_a_palette_of_colours_that_does_not_start_black_stands_for_their_lightness() -> None:
    colours = [(255, 0, 0), (0, 0, 0), (0, 0, 255)]
    lightness = np.array([round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in colours])
    assert np.array_equal(read_labels(palette_png(GREY % 3, colours)).values[0], lightness[GREY % 3])


def test_written_labels_come_back_and_viewers_show_them_in_colours() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_labels_png(Path("out/a.png"), labels)
    assert np.array_equal(read_labels(Path("out/a.png")).values, labels[None])
    shown = read_picture(Path("out/a.png")).values[0].reshape(256, 3)
    assert shown[0].tolist() == [0, 0, 0] and np.array_equal(shown[1:], PALETTE)
    for present in (np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)):
        write_labels_png(Path("a.png"), present)
        assert np.array_equal(read_labels(Path("a.png")).values[0], present)


def test_the_colours_of_classes_differ_from_one_another_and_from_greys() -> None:
    assert len(set(PALETTE)) == 255
    assert all(max(colour) - min(colour) > 40 for colour in PALETTE)
    apart = [np.abs(np.subtract(a, b)).sum() for n, a in enumerate(PALETTE[:8]) for b in PALETTE[:n]]
    assert min(apart) > 100


@pytest.mark.parametrize("dtype", TYPES)
def test_a_label_map_of_any_depth_is_whole_numbers(dtype: str) -> None:
    labels = np.array([[0, 1, 300], [32000, 2, 0]]).astype(dtype)
    found = read_labels(stored(tiff(labels[..., None], 1), "a.tif")).values
    assert found.dtype.kind in "iu" and np.array_equal(found, labels[None])


def test_fractions_and_deep_colours_are_no_labels() -> None:
    with pytest.raises(DataError, match=r"a\.tif: a mask of values from 0 to 0\.5 that are not whole"):
        read_labels(stored(tiff(np.array([[[0.0], [0.5]]], np.float32), 1), "a.tif"))
    with pytest.raises(DataError, match=r"a\.png: a mask of 3 channels"):
        read_labels(stored(png(deep(5, 7, 3)), "a.png"))


# 8 bits of more


def test_8_bits_stay_as_they_are_whatever_the_window() -> None:
    values = RGB[None]
    assert all(to_8bit(values, window) is values for window in ("none", "image", (0.0, 10.0)))


def test_a_fixed_window_is_linear_and_cuts_beyond() -> None:
    values = np.array([-1024, -160, 40, 240, 3071], np.int16).reshape(1, 1, 5, 1)
    assert to_8bit(values, (-160, 240)).ravel().tolist() == [0, 0, 128, 255, 255]
    assert to_8bit(values.astype(np.float32), (-160, 240)).ravel().tolist() == [0, 0, 128, 255, 255]


def test_the_window_of_an_image_is_its_own_percentiles_channel_by_channel_over_the_stack() -> None:
    values = np.stack([deep(4, 30, 40), deep(4, 30, 40) // 7], -1)
    made = to_8bit(values, "image")
    assert made.dtype == np.uint8
    for channel in range(2):
        low, high = np.percentile(values[..., channel], (0.5, 99.5), method="nearest")
        exact = np.clip((values[..., channel].astype(float) - low) / (high - low), 0, 1) * 255
        assert np.abs(made[..., channel] - exact).max() <= 0.51


def test_an_image_without_contrast_becomes_zeros() -> None:
    assert not to_8bit(np.full((1, 4, 5, 1), 700, np.uint16), "image").any()


def test_without_a_window_a_deep_image_is_refused_with_what_to_set() -> None:
    with pytest.raises(DataError, match=r"--set data\.window=image"):
        to_8bit(deep(1, 4, 5, 1), "none")


# Absurd sizes


@pytest.mark.parametrize("kind", ["8-bit png", "16-bit png", "8-bit tif", "16-bit tif", "bmp"])
def test_a_file_that_promises_more_pixels_than_any_picture_is_a_data_error(kind: str) -> None:
    bits = 8 if kind[0] == "8" else 16
    if kind.endswith("png"):
        content = bytearray(png(deep(5, 7, 3)))
        content[16:25] = struct.pack(">IIB", 60_000, 60_000, bits)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif kind.endswith("tif"):
        content = bytearray(tiff(deep(6, 8, 1).astype(f"uint{bits}"), 1))
        for tag in (256, 257):
            at = content.index(struct.pack("<HHI", tag, 3, 1)) + 8
            content[at : at + 2] = struct.pack("<H", 60_000)
    else:
        Image.fromarray(RGB).save("small.bmp")
        content = bytearray(Path("small.bmp").read_bytes())
        content[18:26] = struct.pack("<II", 60_000, 60_000)
    path = stored(bytes(content), f"a.{kind[-3:]}")
    with pytest.raises(DataError, match=r"a\.\w+: not readable as an image \(.*"):
        read_picture(path)
