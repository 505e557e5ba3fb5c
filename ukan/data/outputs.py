"""Segmentations on the disk: what `evaluate` and `predict` write, and what others read back.

One class: a PNG of 0 and 255. Classes that exclude one another: a PNG whose value is the class's number (1 to K, with a
palette, so that viewers show colours). Classes that may overlap: one mask a class, in a folder of its name. Volumes are
NIfTI files on the grid of their input, stacks without a place in a patient TIFFs of many pages.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukan.imaging import Geometry, read_labels, write_labels_png, write_mask, write_pages, write_volume
from ukan.plan import DataPlan


def segmentation_paths(base: Path, data: DataPlan, suffix: str) -> list[Path]:
    """The files of a segmentation; `base` is its path without a suffix."""
    if data.target == "multilabel":
        return [base.parent / name / f"{base.name}{suffix}" for name in data.classes]
    return [base.with_name(f"{base.name}{suffix}")]


def suffix_for(slices: int, geometry: Geometry | None) -> str:
    if geometry is not None:
        return ".nii.gz"
    return ".png" if slices == 1 else ".tif"


def write_segmentation(base: Path, found_KDHW: NDArray[np.bool_], geometry: Geometry | None, data: DataPlan) -> None:
    suffix = suffix_for(found_KDHW.shape[1], geometry)
    paths = segmentation_paths(base, data, suffix)
    if data.target == "multiclass":
        numbers = np.arange(1, len(found_KDHW) + 1, dtype=np.uint8)
        labels = [(found_KDHW * numbers[:, None, None, None]).max(0)]
    else:
        labels = [found.astype(np.uint8) for found in found_KDHW]
    for path, labels_DHW in zip(paths, labels, strict=True):
        if geometry is not None:
            write_volume(path, labels_DHW, geometry)
        elif suffix == ".tif":
            write_pages(path, labels_DHW if data.target == "multiclass" else labels_DHW * np.uint8(255))
        elif data.target == "multiclass":
            write_labels_png(path, labels_DHW[0])
        else:
            write_mask(path, labels_DHW[0] > 0)


def read_segmentation(base: Path, slices: int, geometry: Geometry | None, data: DataPlan) -> NDArray[np.bool_]:
    """The masks (K, D, H, W) that `write_segmentation` wrote. Raises DataError where a file is missing or damaged."""
    paths = segmentation_paths(base, data, suffix_for(slices, geometry))
    labels = [read_labels(path).values for path in paths]
    if data.target == "multiclass":
        return np.stack([labels[0] == k for k in range(1, len(data.classes) + 1)])
    return np.stack([values > 0 for values in labels])
