"""Every image of a folder."""

import os
from pathlib import Path

from ukan.errors import DataError
from ukan.imaging.names import DICOM_SUFFIXES, image_suffix, is_dicom
from ukan.imaging.volumes import dicom_entries


def find_images(folder: Path) -> list[Path]:
    """The images of a folder and of those in it, sorted: by their names, and DICOM without an extension.

    A folder stands for the DICOM files in it where they are slices of a volume. What is hidden, and folders that are links,
    are left out. Raises DataError where a folder cannot be read.
    """
    found: list[Path] = []
    dicom: list[Path] = []
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error
    for entry in entries:
        suffix = image_suffix(entry.name)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            found += find_images(Path(entry.path))
        elif suffix and suffix not in DICOM_SUFFIXES:
            if entry.is_file():
                found.append(Path(entry.path))
        elif is_dicom(path := Path(entry.path)):
            dicom.append(path)
    return sorted(found + dicom_entries(folder, sorted(dicom)))
