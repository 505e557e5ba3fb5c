"""Files and arrays: every kind of picture is read as a viewer shows it, damaged ones are named, written ones are exact."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukan.errors import DataError
from ukan.imaging import is_image_name, read_image, read_mask, write_jpeg, write_mask, write_probabilities

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
BLOCKS = np.kron(RNG.integers(0, 2, (4, 5), dtype=np.uint8), np.ones((16, 16), np.uint8)) * 255  # survives JPEG


def saved(image: Image.Image, name: str, **options: object) -> Path:
    image.save(name, **options)
    return Path(name)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


# Images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
def test_grey_and_colour_come_back_exactly(suffix: str) -> None:
    image = read_image(saved(Image.fromarray(GREY), f"grey.{suffix}"))
    assert image.dtype == np.uint8 and np.array_equal(image, rgb(GREY))
    assert np.array_equal(read_image(saved(Image.fromarray(RGB), f"colour.{suffix}")), RGB)


def test_jpeg_comes_back_nearly() -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2
    image = read_image(saved(Image.fromarray(smooth), "a.jpg", quality=95))
    assert np.abs(image.astype(int) - rgb(smooth)).max() <= 4


def test_alpha_is_left_out_and_hides_nothing() -> None:
    alpha = np.zeros((5, 7, 1), np.uint8)
    assert np.array_equal(read_image(saved(Image.fromarray(np.concatenate([RGB, alpha], 2)), "a.png")), RGB)
    both = np.stack([GREY, alpha[..., 0]], 2)
    assert np.array_equal(read_image(saved(Image.fromarray(both, "LA"), "b.png")), rgb(GREY))


def test_a_palette_is_resolved_to_its_colours() -> None:
    image = Image.fromarray((GREY % 3).astype(np.uint8))
    image.putpalette([255, 0, 0, 0, 200, 0, 10, 20, 30])
    expected = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30]], np.uint8)[GREY % 3]
    assert image.mode == "P" and np.array_equal(read_image(saved(image, "a.png")), expected)


def test_one_bit_images_are_black_and_white() -> None:
    image = Image.fromarray(GREY > 100)
    assert image.mode == "1"
    assert np.array_equal(read_image(saved(image, "a.bmp")), rgb((GREY > 100).astype(np.uint8) * 255))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_picture_is_turned_as_its_exif_tag_says(suffix: str) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :8] = 255  # white top left corner
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to view"
    image = read_image(saved(Image.fromarray(np.rot90(upright)), f"turned.{suffix}", exif=exif))
    assert image.shape == (16, 32, 3)
    assert np.abs(image[..., 0].astype(int) - upright).max() <= 8


def deep_rgb(path: Path) -> None:
    """A 16-bit colour PNG by hand: Pillow does not write them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + RNG.integers(0, 2**16, 12, dtype=np.uint16).astype(">u2").tobytes() for _ in range(3))
    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["16-bit png", "16-bit tif", "32-bit tif", "float tif", "16-bit colour png"])
def test_more_than_8_bits_are_refused_with_the_path(kind: str) -> None:
    path = Path("deep.png" if kind.endswith("png") else "deep.tif")
    if kind == "16-bit colour png":
        deep_rgb(path)
    else:
        dtype = {"16": np.uint16, "32": np.int32, "fl": np.float32}[kind[:2]]
        Image.fromarray(GREY.astype(dtype) * 200).save(path)
    with pytest.raises(DataError, match=r"deep\.(png|tif): .*8 bits"):
        read_image(path)


# Damage


def damaged(kind: str, path: Path) -> Path:
    whole = Path("whole.png")
    Image.fromarray(RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8)).save(
        whole, {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[path.suffix]
    )
    content = whole.read_bytes()
    changed = {
        "empty": b"",
        "text": b"<html>404 not found</html>",
        "truncated": content[: len(content) // 2],
        "header only": content[:20],
        "zeros": bytes(len(content)),
    }[kind]
    path.write_bytes(changed)
    return path


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # as they are outside of tests
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "header only", "zeros"])
def test_a_damaged_file_is_a_data_error_with_its_path(kind: str, suffix: str) -> None:
    path = damaged(kind, Path(f"damaged{suffix}"))
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=rf"damaged\{suffix}: not readable as an image"):
            read(path)


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(DataError, match="an empty file"):
        read_image(damaged("empty", Path("a.png")))


def test_a_png_with_a_flipped_byte_is_a_data_error() -> None:
    path = saved(Image.fromarray(RNG.integers(0, 256, (60, 60, 3), dtype=np.uint8)), "flipped.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"flipped\.png"):
        read_image(path)


def test_a_missing_file_and_a_folder_are_data_errors() -> None:
    Path("folder.png").mkdir()
    with pytest.raises(DataError, match=r"nowhere\.png: no such file"):
        read_image(Path("nowhere.png"))
    with pytest.raises(DataError, match=r"folder\.png"):
        read_image(Path("folder.png"))


# Masks


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "1", "P"])
def test_a_masks_values_are_those_of_the_file_in_every_mode(mode: str, top: int) -> None:
    inside = GREY > 100
    values = inside.astype(np.uint8) * top
    image = {
        "L": lambda: Image.fromarray(values),
        "RGB": lambda: Image.fromarray(rgb(values)),
        "RGBA": lambda: Image.fromarray(np.concatenate([rgb(values), 255 - rgb(values)[..., :1]], 2)),
        "LA": lambda: Image.fromarray(np.stack([values, np.zeros_like(values)], 2), "LA"),
        "1": lambda: Image.fromarray(inside),
        "P": lambda: _palette(inside, top),
    }[mode]()
    assert image.mode == mode
    expected = inside.astype(np.uint8) * 255 if mode == "1" else values
    assert np.array_equal(read_mask(saved(image, "mask.png")), expected)


def _palette(inside: np.ndarray, top: int) -> Image.Image:
    image = Image.fromarray(inside.astype(np.uint8))
    image.putpalette([0, 0, 0, top, top, top])
    return image


def test_instance_ids_survive_the_reading() -> None:
    ids = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert np.array_equal(read_mask(saved(Image.fromarray(ids), "ids.bmp")), ids)
    assert np.array_equal(read_mask(saved(Image.fromarray(ids.astype(np.uint16)), "ids16.png")), ids)


def test_a_mask_is_turned_like_its_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(Image.fromarray(np.rot90(GREY)), "a.png", exif=exif)
    assert np.array_equal(read_mask(path), GREY) and np.array_equal(read_image(path), rgb(GREY))


def test_mask_values_that_8_bits_do_not_hold_are_refused() -> None:
    with pytest.raises(DataError, match=r"deep\.png: mask with values from 0 to 1000"):
        read_mask(saved(Image.fromarray(np.array([[0, 1000]], np.uint16)), "deep.png"))


def test_a_mask_of_fractions_is_refused_and_not_cut_to_nothing() -> None:
    path = saved(Image.fromarray(np.array([[0.0, 0.9]], np.float32)), "soft.tif")
    with pytest.raises(DataError, match=r"soft\.tif"):
        read_mask(path)


# Writing


def test_a_written_mask_is_0_and_255_and_comes_back() -> None:
    inside = GREY > 100
    write_mask(Path("out/deep/mask.png"), inside)
    with Image.open("out/deep/mask.png") as image:
        assert image.mode == "L" and image.format == "PNG"
        assert np.array_equal(np.asarray(image), inside * np.uint8(255))
    assert np.array_equal(read_mask(Path("out/deep/mask.png")) > 0, inside)


def test_written_probabilities_are_value_by_65535() -> None:
    probabilities = np.array([[0, 1, 0.5], [1 / 65535, 0.1, 0.9]], np.float32)
    write_probabilities(Path("p.png"), probabilities)
    with Image.open("p.png") as image:
        values = np.asarray(image)
    assert values.max() == 65535 and values.min() == 0 and values[1, 0] == 1
    assert np.abs(values / 65535 - probabilities).max() <= 0.5 / 65535 + 1e-7


def test_a_written_jpeg_is_near_its_image() -> None:
    write_jpeg(Path("a.jpg"), rgb(BLOCKS))
    assert np.abs(read_image(Path("a.jpg")).astype(int) - rgb(BLOCKS)).mean() < 3


def test_a_file_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    write_mask(Path("out/a.png"), GREY > 100)
    before = Path("out/a.png").read_bytes()

    def fail(image: Image.Image, path: Path, *rest: object, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match="no space"):
            write_mask(Path("out") / name, GREY > 50)
    assert [path.name for path in Path("out").iterdir()] == ["a.png"] and Path("out/a.png").read_bytes() == before


# Names


@pytest.mark.parametrize("name", ["a.png", "a.b.JPG", "a (1).jpeg", "a.Bmp", "a.tif", "ä.TIFF"])
def test_images_are_known_by_their_names(name: str) -> None:
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["._a.png", ".hidden.png", "a.txt", "png", "a.png.bak", "Thumbs.db", ".png", ""])
def test_hidden_and_other_files_are_no_images(name: str) -> None:
    assert not is_image_name(name)
