"""DICOM as scanners and archives leave it: series in any order, without extensions, beside others, and single pictures."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from ukan.errors import DataError
from ukan.imaging import find_images, read_picture, stem_of, write_volume

RNG = np.random.default_rng(0)
OBLIQUE = (0.36, 0.48, -0.8, -0.8, 0.6, 0.0)  # directions of a row and of a column


def element(tag: tuple[int, int], kind: str, value: Any) -> bytes:
    if kind == "US":
        value = struct.pack(f"<{np.size(value)}H", *np.atleast_1d(value))
    elif isinstance(value, str):
        value = value.encode()
    value += b"" if len(value) % 2 == 0 else b"\0" if kind in ("UI", "OB") else b" "
    length = struct.pack("<HI", 0, len(value)) if kind in ("OB", "OW") else struct.pack("<H", len(value))
    return struct.pack("<HH", *tag) + kind.encode() + length + value


def decimals(values: Sequence[float]) -> str:
    return "\\".join(f"{value:.6g}" for value in values)


def dicom(
    path: str,
    values: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    series: str = "1.2.3",
    position: Sequence[float] = (),
    directions: Sequence[float] = (1, 0, 0, 0, 1, 0),
    bits: int = 0,
    scale: tuple[float, float] = (1, 0),
    frames: int = 1,
    extra: Sequence[tuple[tuple[int, int], str, Any]] = (),
) -> np.ndarray:
    """A DICOM file by hand, as no library at hand writes all of them; gives back the values."""
    rows, columns = values.shape[1:3] if frames > 1 else values.shape[:2]
    stored = values.dtype.itemsize * 8
    elements = [
        ((0x08, 0x16), "UI", "1.2.840.10008.5.1.4.1.1.7"),
        ((0x08, 0x18), "UI", f"1.2.9.{abs(hash(path))}"),
        ((0x20, 0x0E), "UI", series),
        ((0x28, 0x02), "US", 3 if photometric in ("RGB", "YBR_FULL") else 1),
        ((0x28, 0x04), "CS", photometric),
        ((0x28, 0x06), "US", 0),
        ((0x28, 0x08), "IS", str(frames)),
        ((0x28, 0x10), "US", rows),
        ((0x28, 0x11), "US", columns),
        ((0x28, 0x30), "DS", decimals([0.5, 0.7])),
        ((0x28, 0x100), "US", stored),
        ((0x28, 0x101), "US", bits or stored),
        ((0x28, 0x102), "US", (bits or stored) - 1),
        ((0x28, 0x103), "US", int(values.dtype.kind == "i")),
        ((0x28, 0x1052), "DS", str(scale[1])),
        ((0x28, 0x1053), "DS", str(scale[0])),
        ((0x7FE0, 0x10), "OB" if stored == 8 else "OW", values.tobytes()),
        *extra,
    ]
    if position:
        elements += [((0x20, 0x32), "DS", decimals(position)), ((0x20, 0x37), "DS", decimals(directions))]
    meta = b"".join(
        element((0x02, number), "UI", value)
        for number, value in ((0x02, elements[0][2]), (0x03, elements[1][2]), (0x10, "1.2.840.10008.1.2.1"), (0x12, "1.2.9"))
    )
    content = b"".join(element(*one) for one in sorted(elements))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(bytes(128) + b"DICM" + element((0x02, 0x00), "UL", struct.pack("<I", len(meta))) + meta + content)
    return values


def scan(
    folder: str,
    names: Sequence[str],
    *,
    directions: Sequence[float] = OBLIQUE,
    gap: float = 2.5,
    shear: float = 0,
    **tags: Any,
) -> np.ndarray:
    """A series of as many slices as names, the first lying lowest; gives the values (slice, row, column)."""
    row, column = np.reshape(directions, (2, 3))
    across = np.cross(row, column) * gap + shear * row
    values = RNG.integers(0, 1000, (len(names), 6, 5)).astype(np.int16)
    for number, name in enumerate(names):
        position = np.array([-20.0, 30, 40]) + number * across
        dicom(f"{folder}/{name}", values[number], position=position.tolist(), directions=directions, **tags)
    return values


SHUFFLED = ["IM7", "IM2", "IM5", "1.2.840.77", "IM.0003", "aaa"]
SERIES_FOLDER = Path("study/patient.01")


# Series


@pytest.mark.parametrize(
    "directions", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0), OBLIQUE]
)
def test_a_series_is_ordered_by_position_whatever_its_files_are_called(directions: tuple[float, ...]) -> None:
    scan(str(SERIES_FOLDER), SHUFFLED, directions=directions)
    picture = read_picture(SERIES_FOLDER)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(SERIES_FOLDER)))
    theirs = reader.Execute()
    sitk.WriteImage(theirs, "theirs.nii.gz")
    through_nifti = read_picture(Path("theirs.nii.gz"))
    assert picture.geometry is not None and through_nifti.geometry is not None
    assert np.array_equal(picture.values, through_nifti.values) and picture.values.shape[0] == len(SHUFFLED)
    assert picture.geometry.spacing_mm == pytest.approx(through_nifti.geometry.spacing_mm, rel=1e-4)
    write_volume(Path("found.nii.gz"), (picture.values[..., 0] > 500).astype(np.uint8), picture.geometry)
    found = sitk.ReadImage("found.nii.gz")
    assert found.GetSize() == theirs.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(found, get)(), getattr(theirs, get)(), atol=1e-4)
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(theirs) > 500)


def test_a_series_that_itk_wrote_comes_back_without_extensions() -> None:
    volume = sitk.GetImageFromArray(RNG.integers(-1000, 2000, (4, 6, 5)).astype(np.int16))
    volume.SetSpacing((0.7, 0.7, 3))
    volume.SetOrigin((-10, 20, 30))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    Path("series").mkdir()
    for number, name in enumerate(["c", "a", "d", "b"]):
        one = volume[:, :, number]
        for tag, value in {
            "0008|0060": "CT", "0020|000e": "1.2.826.7", "0020|0013": str(number),
            "0020|0032": decimals(volume.TransformIndexToPhysicalPoint((0, 0, number))), "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():  # fmt: skip
            one.SetMetaData(tag, value)
        writer.SetFileName(f"series/{name}.dcm")
        writer.Execute(one)
        Path(f"series/{name}.dcm").rename(f"series/{name}")
    picture = read_picture(Path("series"))
    assert np.array_equal(picture.values[..., 0], sitk.GetArrayFromImage(volume))
    assert picture.geometry is not None and picture.geometry.spacing_mm == pytest.approx((3, 0.7, 0.7))
    assert np.allclose(picture.geometry.affine[:3, 3], (10, -20, 30))  # RAS of the LPS origin


def test_a_tilted_gantry_shears_the_grid() -> None:
    scan("ct", SHUFFLED, directions=(1, 0, 0, 0, 1, 0), shear=0.8)
    geometry = read_picture(Path("ct")).geometry
    assert geometry is not None
    last = geometry.affine @ [0, 0, len(SHUFFLED) - 1, 1]
    assert np.allclose(last[:3], [20 - 5 * 0.8, -30, 40 + 5 * 2.5], atol=1e-4)


def test_slices_with_scales_of_their_own_are_all_scaled() -> None:
    raw = [
        dicom(f"pet/{n}", RNG.integers(0, 99, (6, 5)).astype(np.int16), position=(0, 0, n), scale=(n + 0.5, 0))
        for n in range(3)
    ]
    found = read_picture(Path("pet")).values
    assert found.dtype == np.float32
    assert np.allclose(found[..., 0], [values * (n + 0.5) for n, values in enumerate(raw)])


def test_several_series_in_a_folder_are_refused_with_their_names() -> None:
    scan("mixed", ["a", "b", "c"], series="1.2.77", extra=[((0x08, 0x103E), "LO", "T2 axial")])
    scan("mixed", ["d", "e"], series="1.2.88")
    with pytest.raises(
        DataError, match=r"mixed: 2 DICOM series \(1\.2\.77 T2 axial: 3 files; 1\.2\.88: 2 files\); move each to"
    ):
        read_picture(Path("mixed"))
    assert find_images(Path("mixed")) == [Path("mixed")]  # as one, so that the refusal is met once


def test_a_missing_slice_is_told() -> None:
    scan("gap", SHUFFLED)
    Path("gap/IM5").unlink()
    with pytest.raises(DataError, match=r"gap: its DICOM slices lie 2\.5 to 5 mm apart: one is missing"):
        read_picture(Path("gap"))


def test_several_slices_at_one_place_are_told() -> None:
    scan("time", ["a", "b", "c"])
    scan("time", ["d", "e", "f"])
    with pytest.raises(DataError, match=r"time: its DICOM slices lie 0 to 2\.5 mm apart: a time series"):
        read_picture(Path("time"))


def test_a_scout_among_the_slices_is_told_by_its_name() -> None:
    scan("ct", ["b", "c", "d"])
    scan("ct", ["scout"], directions=(1, 0, 0, 0, 0, -1))
    with pytest.raises(DataError, match="ct: scout differs in size or orientation"):
        read_picture(Path("ct"))


def test_a_damaged_slice_is_told_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    scan("ct", SHUFFLED)
    Path("ct/IM5").write_bytes(Path("ct/IM5").read_bytes()[:300])
    with pytest.raises(DataError, match="ct: IM5: not readable as DICOM"):
        read_picture(Path("ct"))
    scan("ct", SHUFFLED)
    Path("ct/IM5").write_bytes(Path("ct/IM5").read_bytes()[:-20])
    with pytest.raises(DataError, match="ct: IM5: not readable as DICOM"):
        read_picture(Path("ct"))
    assert find_images(Path("ct")) == [Path("ct")]
    assert capfd.readouterr() == ("", "")


# Single files


@pytest.mark.parametrize("name", ["a.dcm", "a", "A.IMA", "1.2.840.7"])
def test_a_single_file_is_one_slice_with_its_spacing(name: str) -> None:
    values = dicom(name, RNG.integers(0, 4096, (6, 5)).astype(np.uint16), bits=12, scale=(2, -1024))
    picture = read_picture(Path(name))
    assert np.array_equal(picture.values[0, ..., 0], values.astype(int) * 2 - 1024)
    assert picture.geometry is not None and picture.geometry.spacing_mm[1:] == pytest.approx((0.5, 0.7))


def test_fractions_of_a_scale_are_kept() -> None:
    values = dicom("a.dcm", RNG.integers(0, 4096, (6, 5)).astype(np.uint16), bits=12, scale=(0.25, 1))
    found = read_picture(Path("a.dcm")).values
    assert found.dtype == np.float32 and np.array_equal(found[0, ..., 0], values * 0.25 + 1)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_where_white_is_zero_the_picture_is_shown_as_a_viewer_does(bits: int) -> None:
    values = RNG.integers(0, 2**bits, (6, 5)).astype(np.uint8 if bits == 8 else np.uint16)
    dicom("a.dcm", values, bits=bits, photometric="MONOCHROME1")
    assert np.array_equal(read_picture(Path("a.dcm")).values[0, ..., 0], 2**bits - 1 - values)


def test_colour_ultrasound() -> None:
    values = dicom("a.dcm", RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8), photometric="RGB")
    picture = read_picture(Path("a.dcm")).values
    assert picture.dtype == np.uint8 and np.array_equal(picture[0], values)


def test_ultrasound_in_luminance_and_chroma_becomes_rgb() -> None:
    values = dicom("a.dcm", RNG.integers(60, 190, (6, 5, 3), dtype=np.uint8), photometric="YBR_FULL")
    y, blue, red = np.moveaxis(values.astype(float), -1, 0)
    expected = np.stack(
        [y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128), y + 1.772 * (blue - 128)], -1
    )
    assert np.abs(read_picture(Path("a.dcm")).values[0] - np.clip(expected, 0, 255)).max() <= 1.01


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_the_frames_of_a_file_are_slices(photometric: str) -> None:
    shape = (4, 6, 5, 3) if photometric == "RGB" else (4, 6, 5)
    values = dicom("a.dcm", RNG.integers(0, 256, shape, dtype=np.uint8), photometric=photometric, frames=4)
    assert np.array_equal(read_picture(Path("a.dcm")).values, values.reshape(4, 6, 5, -1))


# Finding


def test_a_volume_is_its_folder_and_goes_by_its_name() -> None:
    scan(str(SERIES_FOLDER), SHUFFLED)
    scan("study/other", ["1.dcm", "2.dcm"])
    Path("study/DICOMDIR").write_bytes(bytes(128) + b"DICM")
    Path("study/other/notes.txt").write_text("x")
    found = find_images(Path("study"))
    assert found == [Path("study/other"), SERIES_FOLDER]
    assert [stem_of(path) for path in found] == ["other", "patient.01"]


def test_pictures_of_series_of_their_own_are_pictures_of_their_own() -> None:
    for number in range(3):
        dicom(f"xray/{number}.dcm", np.zeros((6, 5), np.uint8), series=f"1.2.{number}", position=(0, 0, 0))
    assert find_images(Path("xray")) == [Path(f"xray/{number}.dcm") for number in range(3)]


def test_pictures_of_one_series_that_lie_nowhere_are_pictures_of_their_own() -> None:
    for name in ("view1", "view2"):
        dicom(f"us/{name}", np.zeros((6, 5, 3), np.uint8), photometric="RGB")
    assert find_images(Path("us")) == [Path("us/view1"), Path("us/view2")]
    with pytest.raises(
        DataError, match="us: 2 DICOM files that do not say where they lie are no volume; give them one by one"
    ):
        read_picture(Path("us"))


def test_a_prediction_for_a_series_is_a_nifti_that_nibabel_places_over_it() -> None:
    values = scan("ct", SHUFFLED, directions=(1, 0, 0, 0, 1, 0))
    picture = read_picture(Path("ct"))
    assert picture.geometry is not None
    write_volume(Path("found.nii.gz"), (picture.values[..., 0] > 500).astype(np.uint8), picture.geometry)
    found = nibabel.load("found.nii.gz")
    assert found.header.get_sform(coded=True)[1] == found.header.get_qform(coded=True)[1] == 1
    assert np.allclose(found.affine, [[-0.7, 0, 0, 20], [0, -0.5, 0, -30], [0, 0, 2.5, 40], [0, 0, 0, 1]])
    assert np.array_equal(np.asarray(found.dataobj), values.transpose(2, 1, 0) > 500)
