"""Volumes to stacks of slices: NIfTI through nibabel; DICOM, mha, mhd, nrrd through SimpleITK. Stacks to NIfTI."""

import gzip
import logging
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.errors import DataError, UserError
from ukan.imaging.names import image_suffix, is_dicom
from ukan.imaging.picture import Geometry, Picture, canonical, stored_order
from ukan.imaging.quiet import SILENCE
from ukan.paths import written_whole

_MOST_CHANNELS = 16
_MOST_ZIPPED = 1032  # gzip makes nothing smaller than by this factor

# The fields of a NIfTI header that say where its voxels lie, beside pixdim.
_PLACE = (
    "xyzt_units", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "sform_code", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
_UNIT_MM = {1: 1000.0, 3: 0.001}  # of the codes of a NIfTI for metres and micrometres; others are, or stand for, mm
_RAS_OF_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM and ITK count towards left and back, NIfTI towards right and front

_ITK_READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO"}
_DICOM = "GDCMImageIO"
_ITK_KINDS = {"MetaImageIO": "mha", "NrrdImageIO": "nrrd", _DICOM: "DICOM"}
_SERIES, _DESCRIPTION, _POSITION = "0020|000e", "0008|103e", "0020|0032"  # DICOM tags
_UNEVEN = 0.1  # of the distance between slices, for what rounding of positions explains


class _Stored(NamedTuple):
    """A volume as its file has it."""

    values: NDArray[Any]
    """(i, j, k, C)."""
    affine: NDArray[np.float64]
    """From i, j, k to RAS."""


def read_volume(path: Path) -> Picture:
    """A NIfTI, mha, mhd or nrrd file, a DICOM file, or a folder with one DICOM series; values (D, H, W, C).

    Axes as `canonical` has them. Whole numbers come in the file's own type, others, and scaled ones, as float32. Raises
    DataError where the file is damaged or is not one volume.
    """
    suffix = image_suffix(path.name)
    try:
        if path.is_dir():
            return canonical(*_dicom_series(path))
        if not path.exists():
            raise DataError("no such file")
        if path.stat().st_size == 0:
            raise DataError("an empty file; replace or remove it")
        if suffix in (".nii", ".nii.gz"):
            return _nifti(path)
        if suffix in _ITK_READERS:
            return canonical(*_itk(_itk_opened(path, _ITK_READERS[suffix])))
        if is_dicom(path):
            return canonical(*_itk(_itk_opened(path, _DICOM)))
        raise DataError("not a file of a known image type")
    except DataError as error:
        raise DataError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def dicom_entries(folder: Path, files: Sequence[Path]) -> list[Path]:
    """What the DICOM files of a folder are: one volume (the folder), or pictures of their own.

    Files of one series that know their position in the patient are slices of a volume. A folder in which only some are is
    returned as one, and refused when it is read.
    """
    if len(files) < 2:
        return list(files)
    slices: Counter[str] = Counter()
    for file in files:
        with suppress(DataError):  # it is told where the file is read
            reader = _itk_opened(file, _DICOM)
            slices[_series_of(reader)] += reader.HasMetaDataKey(_POSITION)
    return [folder] if max(slices.values(), default=0) > 1 else list(files)


def write_volume(path: Path, labels_DHW: NDArray[np.uint8], geometry: Geometry) -> None:
    """Labels as a NIfTI (.nii.gz) on the very grid of the volume they were made from."""
    _write_nifti(path, stored_order(labels_DHW.astype(np.uint8, copy=False), geometry), geometry)


def write_volume_probabilities(path: Path, probabilities_KDHW: NDArray[np.floating], geometry: Geometry) -> None:
    """Probabilities as a float32 NIfTI (.nii.gz) on the grid of the volume they were made from, K along a fourth axis."""
    stored = np.stack([stored_order(values.astype(np.float32, copy=False), geometry) for values in probabilities_KDHW], -1)
    _write_nifti(path, stored, geometry)


def _write_nifti(path: Path, stored: NDArray[Any], geometry: Geometry) -> None:
    nibabel = _nibabel()
    place = geometry.header
    if place and place["dim"][0] == 2 and stored.ndim == 3:
        stored = stored[:, :, 0]
    image = nibabel.Nifti1Image(stored, geometry.affine)
    if place:
        image.header["pixdim"][:4] = place["pixdim"][:4]
        for field in _PLACE:
            image.header[field] = place[field]
    else:
        image.set_qform(geometry.affine, "scanner")
        image.set_sform(geometry.affine, "scanner")
        image.header.set_xyzt_units("mm")
    with (
        written_whole(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as zipped,  # the same bytes whenever written
    ):
        image.to_stream(zipped)


def _nifti(path: Path) -> Picture:
    nibabel = _nibabel()
    damaged = (
        OSError, EOFError, ValueError, OverflowError, zlib.error,
        nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError, nibabel.wrapstruct.WrapStructError,
    )  # fmt: skip
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rb") as file:
            start = file.peek(4)[:4]  # the header's length, in either byte order
            versions = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}
            version = versions.get(int.from_bytes(start, "little")) or versions.get(int.from_bytes(start, "big"))
            if version is None:
                raise ValueError("its content is of another kind")
            image = version.from_stream(file)
            header, shape, kind = image.header, image.shape, image.get_data_dtype()
            needed = _refuse_absurd(shape, kind.itemsize)
            if needed > path.stat().st_size * (_MOST_ZIPPED if zipped else 1):
                raise ValueError(f"its header promises {'x'.join(map(str, shape))} voxels, more than it can hold")
            values = np.asanyarray(image.dataobj)
            while zipped and file.read(2**20):  # the check sum stands at the end
                pass
    except DataError:
        raise
    except damaged as error:
        raise DataError(f"not readable as NIfTI ({_one_line(error)}); replace or remove it") from error
    if kind.names:  # colours
        values = np.stack([values[name] for name in "RGB"], -1)
        shape = (*shape, *(1,) * (3 - len(shape)), 3)
    channels = [size for size in shape[3:] if size > 1]
    if len(channels) > 1:
        raise DataError(f"an array of {len(shape)} dimensions; one file a volume is expected")
    values = values.reshape(*(*shape, 1, 1)[:3], *(channels or (1,)))
    place = {field: np.array(header[field]) for field in ("dim", "pixdim", *_PLACE)}
    unit_mm = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return canonical(_fit_for_use(values), image.affine, unit_mm, place)


def _itk_opened(path: Path, reader_name: str) -> Any:
    """An ITK reader that has read a file's header."""
    reader = _simpleitk().ImageFileReader()
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    try:
        with SILENCE:
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(reader_name, error) from error
    _refuse_absurd(reader.GetSize(), reader.GetNumberOfComponents())
    return reader


def _itk(reader: Any) -> _Stored:
    try:
        with SILENCE:
            image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(reader.GetImageIO(), error) from error
    values = _simpleitk().GetArrayFromImage(image)  # (k, j, i), with a time before and components behind
    dimensions = image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() == 1:
        values = values[..., None]
    if dimensions == 4 and values.shape[-1] == 1:
        values = np.moveaxis(values[..., 0], 0, -1)
    elif dimensions > 3:
        raise DataError(f"an array of {dimensions} dimensions; one file a volume is expected")
    elif dimensions == 2:
        values = values[None]
    n = min(dimensions, 3)
    affine = np.eye(4)
    affine[:n, :n] = np.reshape(image.GetDirection(), (dimensions, dimensions))[:n, :n] * image.GetSpacing()[:n]
    affine[:n, 3] = image.GetOrigin()[:n]
    return _Stored(_fit_for_use(values.transpose(2, 1, 0, 3)), _RAS_OF_LPS @ affine)


def _unreadable(reader_name: str, error: RuntimeError) -> DataError:
    return DataError(f"not readable as {_ITK_KINDS[reader_name]} ({_one_line(error)}); replace or remove it")


def _dicom_series(folder: Path) -> _Stored:
    """The volume whose slices are the DICOM files of a folder."""
    readers, slices = {}, {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_dicom(file):
            with _told_by_name(file):
                readers[file.name] = _itk_opened(file, _DICOM)
    series = Counter(_series_of(reader) for reader in readers.values())
    if not series:
        raise DataError("a folder without a DICOM file")
    if len(series) > 1:
        found = "; ".join(f"{name}: {count} files" for name, count in series.most_common(4))
        raise DataError(f"{len(series)} DICOM series ({found}); move each to a folder of its own")
    if len(readers) > 1 and not all(reader.HasMetaDataKey(_POSITION) for reader in readers.values()):
        raise DataError(f"{len(readers)} DICOM files that do not say where they lie are no volume; give them one by one")
    for name, reader in readers.items():
        with _told_by_name(folder / name):
            slices[name] = _itk(reader)
    return _stacked(slices) if len(slices) > 1 else next(iter(slices.values()))


def _stacked(slices: dict[str, _Stored]) -> _Stored:
    """Slices by the names of their files, in any order, as one volume."""
    values, affine = next(iter(slices.values()))
    for name, (other, place) in slices.items():
        alike = other.shape == values.shape and np.allclose(place[:3, :2], affine[:3, :2], atol=1e-3)
        if other.shape[2] > 1 or not alike:
            raise DataError(f"{name} differs in size or orientation; move what is no slice of the volume away")
    across = np.cross(affine[:3, 0], affine[:3, 1])
    across /= np.linalg.norm(across)
    ordered = sorted(slices.values(), key=lambda one: float(one.affine[:3, 3] @ across))
    gaps = np.diff([one.affine[:3, 3] @ across for one in ordered])
    usual = np.median(gaps)
    apart = f"its DICOM slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart"
    if gaps.min() < _UNEVEN * gaps.max():
        raise DataError(f"{apart}: a time series, or echoes; move each volume to a folder of its own")
    if np.abs(gaps - usual).max() > _UNEVEN * usual:
        raise DataError(f"{apart}: one is missing, or is not of this volume")
    affine = ordered[0].affine.copy()
    affine[:3, 2] = (ordered[-1].affine[:3, 3] - affine[:3, 3]) / (len(ordered) - 1)  # along a tilted gantry, too
    # Joined with the slices outermost, as the files' pixels lie.
    return _Stored(np.concatenate([one.values.transpose(2, 1, 0, 3) for one in ordered]).transpose(2, 1, 0, 3), affine)


def _series_of(reader: Any) -> str:
    """The UID of a DICOM file's series, and its description where it has one."""
    said = [reader.GetMetaData(tag).strip(" \0") for tag in (_SERIES, _DESCRIPTION) if reader.HasMetaDataKey(tag)]
    return " ".join(said)


@contextmanager
def _told_by_name(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{file.name}: {error}") from error


def _fit_for_use(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers, and at most as many channels as may be meant as such; fractions as float32."""
    if values.dtype.kind not in "iufb":
        raise DataError(f"values of type {values.dtype}, which are no grey values; convert them")
    if values.shape[-1] > _MOST_CHANNELS:
        raise DataError(f"{values.shape[-1]} volumes in one file, a time series; save the ones to use as files of their own")
    return values.astype(np.float32, copy=False) if values.dtype.kind == "f" else values


def _refuse_absurd(shape: Sequence[int], bytes_a_voxel: int) -> int:
    """The bytes that an array will take; DataError where that is more than there is memory."""
    import psutil

    needed, free = math.prod(map(int, shape)) * bytes_a_voxel, psutil.virtual_memory().available
    if needed < 1:
        raise DataError("an array without a voxel; replace or remove it")
    if needed > free:
        size = "x".join(map(str, shape))
        raise DataError(f"{size} voxels take {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free; cut it into parts")
    return needed


def _one_line(error: Exception) -> str:
    """What a library says, without the object that says it, and not all of it where that is long."""
    said = " ".join(re.split(r"\(0x[0-9a-f]+\):", str(error))[-1].split())
    said = re.sub(r" Reason: (Success|Inappropriate ioctl.*)", "", said)  # whatever the system's last error was
    return said if len(said) < 100 else f"{said[:100]} ..."


@cache
def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise UserError(f"SimpleITK reads DICOM, mha and nrrd and is missing ({error}); `pip install SimpleITK`") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters comes as an error
    return SimpleITK


@cache
def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise UserError(f"nibabel reads and writes NIfTI and is missing ({error}); `pip install nibabel`") from error
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what matters comes as an error
    return nibabel
