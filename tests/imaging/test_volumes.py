"""Volumes come in one orientation and go back to their own grid: judged by nibabel and SimpleITK reading the files."""

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from ukan.errors import DataError
from ukan.imaging import Geometry, read_labels, read_picture, write_volume, write_volume_probabilities

RNG = np.random.default_rng(0)
SHAPE = (5, 6, 7)
ALL_AXES = [
    "".join(codes) for axes in itertools.permutations(["LR", "PA", "SI"]) for codes in itertools.product(*axes)
]  # 48 ways to store a volume


def rotation(degrees: float) -> np.ndarray:
    """About an axis that is none of the patient's."""
    x, y, z = np.array([1, 2, 3]) / np.sqrt(14)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine_of(axes: str, spacing: tuple[float, float, float] = (1, 1, 1), degrees: float = 0) -> np.ndarray:
    """RAS affine of a volume whose axes run towards these sides."""
    sides = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ np.transpose([sides[side] for side in axes]) * spacing
    affine[:3, 3] = (-12.5, 31.25, 100.125)
    return affine


def nifti(values: np.ndarray, affine: np.ndarray | None, name: str = "a.nii.gz", **header: Any) -> Path:
    image = nibabel.Nifti1Image(values, affine)
    for field, value in header.items():
        image.header[field] = value
    nibabel.save(image, name)
    return Path(name)


def voxels(*shape: int, dtype: str = "int16") -> np.ndarray:
    return RNG.integers(0, 1000 if dtype != "uint8" else 256, shape or SHAPE).astype(dtype)


# Orientation


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize("degrees", [0, 20])
def test_axial_slices_of_any_stored_order_are_those_of_itk(axes: str, degrees: float) -> None:
    values = voxels()
    path = nifti(values, affine_of(axes, (0.8, 0.8, 0.8), degrees))
    picture = read_picture(path)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")  # arrays of ITK are (z, y, x): from feet to head first
    assert np.array_equal(picture.values[..., 0], sitk.GetArrayFromImage(expected))
    assert picture.geometry is not None and picture.geometry.spacing_mm == pytest.approx((0.8, 0.8, 0.8))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL", "ASR", "ILP"])
@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize(("coarse", "shown"), [("LR", "PIL"), ("PA", "LIP"), ("SI", "LPS")])
def test_slices_are_cut_across_the_coarsest_axis_and_shown_upright(
    axes: str, degrees: float, coarse: str, shown: str
) -> None:
    spacing = [0.5, 0.5, 0.5]
    number = next(n for n, code in enumerate(axes) if code in coarse)
    spacing[number] = 0.6  # 1.2 times, which float32 stores as a bit less
    path = nifti(voxels(), affine_of(axes, tuple(spacing), degrees))
    picture = read_picture(path)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(path)), shown)
    assert np.array_equal(picture.values[..., 0], sitk.GetArrayFromImage(expected))
    assert picture.geometry is not None and picture.geometry.spacing_mm == pytest.approx((0.6, 0.5, 0.5))


def test_spacing_is_of_slices_rows_and_columns() -> None:
    geometry = read_picture(nifti(voxels(), affine_of("SLA", (4, 0.7, 0.9)))).geometry
    assert geometry is not None
    assert geometry.spacing_mm == pytest.approx((4, 0.9, 0.7))  # S is across; rows run back (A), columns left (L)


def test_where_no_axis_stands_out_slices_are_axial() -> None:
    geometry = read_picture(nifti(voxels(), affine_of("LPS", (1.15, 1, 1)))).geometry
    assert geometry is not None and geometry.axes == (2, 1, 0)
    geometry = read_picture(nifti(voxels(), affine_of("LPS", (3, 3, 1)))).geometry
    assert geometry is not None and geometry.axes == (2, 1, 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_is_one_slice(axis: int) -> None:
    shape = [5, 6, 7]
    shape[axis] = 1
    assert len(read_picture(nifti(voxels(*shape), affine_of("RAS", (1, 1, 1)))).values) == 1


# And back


def grids_agree(path: Path, original: Path) -> None:
    """Size, origin, spacing, directions, as nibabel and as ITK see them."""
    ours, theirs = nibabel.load(path), nibabel.load(original)
    assert ours.shape[:3] == theirs.shape[:3] and np.allclose(ours.affine, theirs.affine, atol=1e-5)
    for get in ("get_sform", "get_qform"):
        (mine, code), (other, their_code) = (getattr(image.header, get)(coded=True) for image in (ours, theirs))
        assert code == their_code and (mine is other is None or np.allclose(mine, other, atol=1e-5))
    assert ours.header.get_xyzt_units()[0] == theirs.header.get_xyzt_units()[0]
    ours, theirs = sitk.ReadImage(str(path)), sitk.ReadImage(str(original))
    assert ours.GetSize()[:3] == theirs.GetSize()[:3]
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(ours, get)(), getattr(theirs, get)(), atol=1e-5)


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize(("spacing", "degrees"), [((1, 1, 1), 0), ((0.7, 0.9, 2.5), 25)])
def test_what_is_found_lies_where_it_was_seen(axes: str, spacing: tuple[float, float, float], degrees: float) -> None:
    values = voxels()
    original = nifti(values, affine_of(axes, spacing, degrees), sform_code=1, qform_code=1)
    picture = read_picture(original)
    assert picture.geometry is not None
    write_volume(Path("out/found.nii.gz"), (picture.values[..., 0] > 500).astype(np.uint8), picture.geometry)
    found = nibabel.load("out/found.nii.gz")
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(found.dataobj), values > 500)
    grids_agree(Path("out/found.nii.gz"), original)
    assert np.array_equal(read_labels(Path("out/found.nii.gz")).values, picture.values[..., 0] > 500)


def test_two_different_forms_of_a_header_are_both_kept() -> None:
    image = nibabel.Nifti1Image(voxels(), None)
    image.set_qform(affine_of("RAS", (1, 2, 3), 10), "scanner")
    image.set_sform(affine_of("RAS", (1, 2, 3), 12), "mni")
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, "a.nii")
    geometry = read_picture(Path("a.nii")).geometry
    assert geometry is not None and np.allclose(geometry.affine, image.get_sform())
    write_volume(Path("b.nii.gz"), np.zeros([geometry.shape[axis] for axis in geometry.axes], np.uint8), geometry)
    grids_agree(Path("b.nii.gz"), Path("a.nii"))


@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (1, 0), (0, 1)])
def test_a_header_may_place_its_voxels_in_any_way_nifti_knows(sform: int, qform: int) -> None:
    values = voxels()
    image = nibabel.Nifti1Image(values, None)
    image.header.set_zooms((0.5, 0.6, 2.0))
    image.set_sform(affine_of("ILP", (0.5, 0.6, 2.0)) if sform else None, sform)
    image.set_qform(affine_of("ILP", (0.5, 0.6, 2.0)) if qform else None, qform)
    nibabel.save(image, "a.nii.gz")
    picture = read_picture(Path("a.nii.gz"))
    assert picture.geometry is not None and np.allclose(picture.geometry.affine, nibabel.load("a.nii.gz").affine)
    assert sorted(picture.geometry.spacing_mm) == pytest.approx([0.5, 0.6, 2.0])
    write_volume(Path("b.nii.gz"), (picture.values[..., 0] > 500).astype(np.uint8), picture.geometry)
    assert np.array_equal(np.asarray(nibabel.load("b.nii.gz").dataobj), values > 500)
    grids_agree(Path("b.nii.gz"), Path("a.nii.gz"))


def test_probabilities_are_a_float_nifti_with_a_class_an_index() -> None:
    original = nifti(voxels(), affine_of("PIR", (1, 2, 3), 15))
    picture = read_picture(original)
    assert picture.geometry is not None
    probabilities = np.stack([picture.values[..., 0] / 1000, 1 - picture.values[..., 0] / 1000]).astype(np.float16)
    write_volume_probabilities(Path("p.nii.gz"), probabilities, picture.geometry)
    found = nibabel.load("p.nii.gz")
    assert found.shape == (*SHAPE, 2) and found.get_data_dtype() == np.float32
    assert np.allclose(found.get_fdata()[..., 0], np.asarray(nibabel.load(original).dataobj) / 1000, atol=1e-3)
    assert np.allclose(found.affine, nibabel.load(original).affine, atol=1e-5)
    assert np.array_equal(read_picture(Path("p.nii.gz")).values, np.moveaxis(probabilities, 0, -1).astype(np.float32))


def test_the_same_labels_make_the_same_file_and_no_half_written_one() -> None:
    geometry = read_picture(nifti(voxels(), np.eye(4))).geometry
    assert geometry is not None
    labels = np.ones((7, 6, 5), np.uint8)
    for name in ("a/1.nii.gz", "b/other.nii.gz"):
        write_volume(Path(name), labels, geometry)
    assert Path("a/1.nii.gz").read_bytes() == Path("b/other.nii.gz").read_bytes()
    with pytest.raises(ValueError, match="does not fit"):
        write_volume(Path("a/2.nii.gz"), labels[:-1], geometry)
    assert [path.name for path in Path("a").iterdir()] == ["1.nii.gz"]


def test_geometry_survives_being_sent_to_another_process() -> None:
    import pickle

    geometry = read_picture(nifti(voxels(), affine_of("PIR", (1, 2, 3), 15))).geometry
    again: Geometry = pickle.loads(pickle.dumps(geometry))
    write_volume(Path("b.nii.gz"), np.zeros([again.shape[axis] for axis in again.axes], np.uint8), again)
    grids_agree(Path("b.nii.gz"), Path("a.nii.gz"))


# What NIfTI files hold


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_in_either_byte_order(dtype: str, order: str) -> None:
    values = voxels(dtype=dtype)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1, -1, 1, 1]), dtype=dtype).__class__(
        values, np.diag([-1, -1, 1, 1]), nibabel.Nifti1Header(endianness=order), dtype=dtype), "a.nii")  # fmt: skip
    assert Path("a.nii").read_bytes()[:4] == struct.pack(f"{order}i", 348)
    found = read_picture(Path("a.nii")).values
    assert np.array_equal(found[..., 0], values.transpose(2, 1, 0))
    assert found.dtype == ("float32" if dtype == "float64" else dtype) and found.dtype.isnative and found.flags.c_contiguous


def test_a_scaled_volume_comes_with_its_scaled_values() -> None:
    image = nibabel.Nifti1Image(voxels(), np.diag([-1, -1, 1, 1]))
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, "a.nii.gz")
    found = read_picture(Path("a.nii.gz")).values
    expected = sitk.GetArrayFromImage(sitk.ReadImage("a.nii.gz"))
    assert found.dtype == np.float32 and np.allclose(found[..., 0], expected) and found.min() < -400


def test_lengths_in_other_units_become_millimetres() -> None:
    image = nibabel.Nifti1Image(voxels(), np.diag([500.0, 500, 2000, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, "a.nii")
    geometry = read_picture(Path("a.nii")).geometry
    assert geometry is not None and geometry.spacing_mm == pytest.approx((2, 0.5, 0.5))
    write_volume(Path("b.nii.gz"), np.zeros((7, 6, 5), np.uint8), geometry)
    grids_agree(Path("b.nii.gz"), Path("a.nii"))


def test_a_flat_nifti_is_one_slice_and_goes_back_flat() -> None:
    values = voxels(5, 6)
    picture = read_picture(nifti(values, np.diag([-1, -1, 1, 1])))
    assert picture.geometry is not None and np.array_equal(picture.values[0, ..., 0], values.T)
    write_volume(Path("b.nii.gz"), (picture.values[..., 0] > 500).astype(np.uint8), picture.geometry)
    assert np.array_equal(np.asarray(nibabel.load("b.nii.gz").dataobj), values > 500)


@pytest.mark.parametrize("shape", [(*SHAPE, 4), (*SHAPE, 1, 4)])  # the second as ITK writes vectors
def test_a_fourth_axis_is_channels(shape: tuple[int, ...]) -> None:
    values = voxels(*shape)
    found = read_picture(nifti(values, np.diag([-1, -1, 1, 1]))).values
    assert np.array_equal(found, values.reshape(*SHAPE, 4).transpose(2, 1, 0, 3))
    with pytest.raises(DataError, match="a mask of 4 channels"):
        read_labels(Path("a.nii.gz"))


def test_a_time_series_is_refused() -> None:
    assert read_picture(nifti(voxels(*SHAPE, 16), np.eye(4))).values.shape[-1] == 16
    with pytest.raises(DataError, match=r"a\.nii\.gz: 17 volumes in one file, a time series"):
        read_picture(nifti(voxels(*SHAPE, 17), np.eye(4)))
    with pytest.raises(DataError, match=r"a\.nii\.gz: an array of 5 dimensions"):
        read_picture(nifti(voxels(*SHAPE, 2, 3), np.eye(4)))


def test_coloured_voxels_are_three_channels() -> None:
    colours = voxels(*SHAPE, 3, dtype="uint8")
    stored = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")]).reshape(SHAPE)
    found = read_picture(nifti(stored, np.diag([-1, -1, 1, 1]))).values
    assert found.dtype == np.uint8 and np.array_equal(found, colours.transpose(2, 1, 0, 3))


def test_labels_stored_as_floats_are_whole_numbers_and_fractions_are_refused() -> None:
    labels = RNG.integers(0, 4, SHAPE)
    found = read_labels(nifti(labels.astype(np.float64), np.diag([-1, -1, 1, 1]))).values
    assert found.dtype.kind == "i" and np.array_equal(found, labels.transpose(2, 1, 0))
    with pytest.raises(DataError, match=r"a\.nii\.gz: a mask of values from 0 to 1\.5 that are not whole"):
        read_labels(nifti(labels * 0.5, np.eye(4)))


# ITK's own files


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd"])
@pytest.mark.parametrize("axes", ["RAS", "PIR", "SAL"])
def test_itk_files_and_niftis_of_the_same_volume_agree(name: str, axes: str) -> None:
    original = nifti(voxels(), affine_of(axes, (0.7, 0.9, 2.5), 20))
    sitk.WriteImage(sitk.ReadImage(str(original)), name)
    ours, theirs = read_picture(Path(name)), read_picture(original)
    assert ours.geometry is not None and theirs.geometry is not None
    assert np.array_equal(ours.values, theirs.values) and ours.values.dtype == theirs.values.dtype
    assert ours.geometry.spacing_mm == pytest.approx(theirs.geometry.spacing_mm)
    write_volume(Path("b.nii.gz"), (ours.values[..., 0] > 500).astype(np.uint8), ours.geometry)
    found = nibabel.load("b.nii.gz")
    assert np.allclose(found.affine, nibabel.load(original).affine, atol=1e-5)
    assert np.array_equal(np.asarray(found.dataobj), np.asarray(nibabel.load(original).dataobj) > 500)


def test_itk_vectors_flat_and_four_dimensional_files() -> None:
    values = voxels(7, 6, 5, 3)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), "a.mha")
    assert np.array_equal(read_picture(Path("a.mha")).values, values)
    sitk.WriteImage(sitk.GetImageFromArray(values[0, ..., 0]), "flat.mha")
    assert np.array_equal(read_picture(Path("flat.mha")).values[0, ..., 0], values[0, ..., 0])
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(values[..., channel]) for channel in range(3)]), "time.mha")
    assert np.array_equal(read_picture(Path("time.mha")).values, values)


# Damage: each is one line, and nothing else is printed


def headless(**fields: Any) -> bytes:
    """A NIfTI of 5x6x7 zeros whose header says something else."""
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4))
    content = bytearray(image.to_bytes())
    for name, value in fields.items():
        at = nibabel.nifti1.header_dtype.fields[name]
        packed = np.array(value, at[0].base).tobytes()
        content[at[1] : at[1] + len(packed)] = packed
    return bytes(content)


WHOLE = nibabel.Nifti1Image(np.arange(210, dtype=np.int16).reshape(SHAPE), np.eye(4)).to_bytes()
META = b"ObjectType = Image\nNDims = 3\nDimSize = %s\nElementType = MET_SHORT\nElementDataFile = %s\n"
DAMAGED = {
    "empty.nii": b"",
    "empty.nii.gz": b"",
    "html.nii": b"<html>404 not found</html>" * 40,
    "html.nii.gz": b"<html>404 not found</html>" * 40,
    "cut.nii": WHOLE[:-50],
    "header.nii": WHOLE[:200],
    "cut.nii.gz": gzip.compress(WHOLE)[:-60],
    "short.nii.gz": gzip.compress(WHOLE[:-50]),
    "flipped.nii.gz": (lambda content: content[:150] + bytes([content[150] ^ 255]) + content[151:])(gzip.compress(WHOLE)),
    "crc.nii.gz": gzip.compress(WHOLE)[:-8] + bytes(8),
    "absurd.nii": headless(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]),
    "absurd.nii.gz": gzip.compress(headless(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])),
    "large.nii.gz": gzip.compress(headless(dim=[3, 300, 300, 30, 1, 1, 1, 1])),
    "negative.nii": headless(dim=[3, -5, 6, 7, 1, 1, 1, 1]),
    "none.nii": headless(dim=[3, 5, 0, 7, 1, 1, 1, 1]),
    "type.nii": headless(datatype=9999),
    "complex.nii": nibabel.Nifti1Image(np.zeros(SHAPE, np.complex64), np.eye(4)).to_bytes(),
    "singular.nii": headless(srow_x=[0, 0, 0, 0]),
    "nan.nii": headless(srow_x=[np.nan, 0, 0, 0]),
    "empty.mha": b"",
    "html.nrrd": b"<html>404 not found</html>" * 40,
    "raw.mhd": META % (b"5 6 7", b"gone.raw"),
    "cut.mha": META % (b"5 6 7", b"LOCAL") + bytes(99),
    "absurd.mha": META % (b"90000 90000 90000", b"LOCAL"),
    "empty.dcm": b"",
    "html.dcm": b"<html>404 not found</html>" * 40,
    "magic.dcm": bytes(128) + b"DICM",
    "1.2.840.1": bytes(128) + b"DICM" + bytes(40),
    "1.2.840.2": b"no DICOM at all",
    "README": b"no DICOM at all",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_volume_is_one_line_with_its_path(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(name).write_bytes(DAMAGED[name])
    for read in (read_picture, read_labels):
        with pytest.raises(DataError) as caught:
            read(Path(name))
        message = str(caught.value)
        assert message.startswith(f"{name}: ") and "\n" not in message and len(message) < 250, message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["gone.nii.gz", "gone.mha", "gone.dcm", "gone"])
def test_a_missing_volume_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        read_picture(Path(name))


@pytest.mark.parametrize("name", ["folder.nii.gz", "folder.mha", "folder"])
def test_a_folder_that_is_no_series_is_refused(name: str) -> None:
    Path(name).mkdir()
    with pytest.raises(DataError, match=f"{name}: a folder without a DICOM file"):
        read_picture(Path(name))


def test_values_that_are_no_numbers_are_told_with_their_place() -> None:
    values = np.zeros(SHAPE, np.float32)
    values[1, 2, 3] = np.nan
    with pytest.raises(DataError, match=r"1 of 210 values are no numbers \(the first at slice, row, column 3, 2, 1\)"):
        read_picture(nifti(values, np.diag([-1, -1, 1, 1])))


@pytest.mark.parametrize(("library", "name"), [("nibabel", "a.nii.gz"), ("SimpleITK", "a.mha")])
def test_a_missing_library_is_told_with_the_command_that_installs_it(
    library: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from ukan.errors import UserError
    from ukan.imaging import volumes

    Path(name).write_bytes(b"some")
    for get in (volumes._nibabel, volumes._simpleitk):
        get.cache_clear()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=f"`pip install {library}`"):
        read_picture(Path(name))
