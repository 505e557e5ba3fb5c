"""Which files are images, by their names; DICOM without an extension by its first bytes."""

import os
from pathlib import Path

RASTER_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif"})
NIFTI_SUFFIXES = frozenset({".nii", ".nii.gz"})
ITK_SUFFIXES = frozenset({".mha", ".mhd", ".nrrd"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
IMAGE_SUFFIXES = RASTER_SUFFIXES | NIFTI_SUFFIXES | ITK_SUFFIXES | DICOM_SUFFIXES


def image_suffix(name: str) -> str:
    """The suffix by which a file name is an image's, in lower case ('.nii.gz' whole); '' for others.

    Hidden files (and the `._x.png` that macOS leaves) are no images.
    """
    if name.startswith("."):
        return ""
    lower = name.lower()
    suffix = ".nii.gz" if lower.endswith(".nii.gz") else os.path.splitext(lower)[1]  # noqa: PTH122 - Path costs 5 times more
    return suffix if suffix in IMAGE_SUFFIXES else ""


def is_image_name(name: str) -> bool:
    """Whether a file name is an image's."""
    return image_suffix(name) != ""


def is_volume(path: Path) -> bool:
    """Whether a path is that of a volume (NIfTI, DICOM, mha, nrrd), by its name alone; a folder is a DICOM series."""
    return image_suffix(path.name) not in RASTER_SUFFIXES


def stem_of(path: Path) -> str:
    """The name without an image's suffix; a DICOM series goes by its folder's whole name."""
    return path.name[: len(path.name) - len(image_suffix(path.name))]


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix; where it has none, or a number (IM.0001), by its first bytes."""
    name = path.name
    suffix = os.path.splitext(name)[1]  # noqa: PTH122
    if suffix and not suffix[1:].isdigit():
        return image_suffix(name) in DICOM_SUFFIXES
    if name.startswith(".") or name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
