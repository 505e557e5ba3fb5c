"""What a file of any kind becomes: a stack of slices, and where it lies in the patient."""

from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.errors import DataError

# A slice axis stands out when its voxels are this much longer than the others.
_COARSE = 1.2

# For slices across the patient's left-right, front-back and head-foot axis: the axes of slices, rows and columns with the
# direction in which each runs (+1: towards left, posterior, superior), as they are shown on a radiologist's screen.
_VIEWS = {
    0: ((0, 1), (2, -1), (1, 1)),  # sagittal: front at the left, head at the top
    1: ((1, 1), (2, -1), (0, 1)),  # coronal: the patient's right at the left, head at the top
    2: ((2, 1), (1, 1), (0, 1)),  # axial: the patient's right at the left, front at the top
}


class Geometry(NamedTuple):
    """Where a stack of slices lies in the patient, and in which order its file stores it."""

    spacing_mm: tuple[float, float, float]
    """Between slices, rows and columns; 1 where the file tells none."""
    affine: NDArray[np.float64]
    """(4, 4): from the file's own voxel indices (i, j, k) to space, x to the right, y to the front, z to the head (RAS, as
    in NIfTI)."""
    shape: tuple[int, int, int]
    """Of the file, along i, j, k."""
    axes: tuple[int, int, int]
    """The file's axis that became slices, rows, columns."""
    flipped: tuple[bool, bool, bool]
    """Which of slices, rows, columns run against the file's axis."""
    header: dict[str, Any] = {}
    """The fields of a NIfTI header that say where it lies, as they were; nothing for other files."""


class Picture(NamedTuple):
    """What a file holds, as a stack of slices: an ordinary picture is a stack of one."""

    values: NDArray[Any]
    """An image's (D, H, W, C) or a mask's (D, H, W)."""
    geometry: Geometry | None
    """Where a volume lies in the patient; None for ordinary pictures."""


def canonical(
    stored: NDArray[Any], affine: NDArray[np.float64], unit_mm: float = 1, header: dict[str, Any] | None = None
) -> Picture:
    """A volume as its file stores it, (i, j, k, C), in the one order all volumes come in.

    Axes are those of the patient that lie nearest to the file's; nothing is resampled. Slices are cut across the axis with
    one voxel; else across that with the longest voxels, if they are 1.2 times as long as the others'; else axially. They are
    shown as on a radiologist's screen. `affine` as in Geometry, one unit of which is `unit_mm`.

    Raises DataError where the affine does not span space.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not spacing.all() or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise DataError("the header does not say where the voxels lie (its affine is singular); repair it")
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3] / spacing
    nearest = max(permutations(range(3)), key=lambda axes: sum(abs(lps[world, axis]) for world, axis in enumerate(axes)))
    size = [stored.shape[axis] for axis in nearest]
    length = [spacing[axis] for axis in nearest]
    if size.count(1) == 1:
        across = size.index(1)
    else:
        _, second, longest = sorted(length)  # rounded, as 1.2 is a usual spacing, and float32 keeps a bit less
        across = length.index(longest) if round(longest / second, 3) >= _COARSE else 2
    axes = [nearest[world] for world, _ in _VIEWS[across]]
    against = [bool(lps[world, nearest[world]] * sign < 0) for world, sign in _VIEWS[across]]
    values = stored.transpose(*axes, 3)[tuple(slice(None, None, -1 if flip else 1) for flip in against)]
    geometry = Geometry(
        spacing_mm=(
            float(spacing[axes[0]] * unit_mm),
            float(spacing[axes[1]] * unit_mm),
            float(spacing[axes[2]] * unit_mm),
        ),
        affine=affine,
        shape=(stored.shape[0], stored.shape[1], stored.shape[2]),
        axes=(axes[0], axes[1], axes[2]),
        flipped=(against[0], against[1], against[2]),
        header=header or {},
    )
    return Picture(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), geometry)


def stored_order(values_DHW: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """The way back: slices, rows, columns as the file's i, j, k."""
    turned = values_DHW[tuple(slice(None, None, -1 if flip else 1) for flip in geometry.flipped)]
    stored = turned.transpose(np.argsort(geometry.axes))
    if stored.shape != geometry.shape:
        raise ValueError(f"an array of {values_DHW.shape} slices, rows, columns does not fit a volume of {geometry.shape}")
    return stored


def to_8bit(values_DHWC: NDArray[Any], window: str | tuple[float, float]) -> NDArray[np.uint8]:
    """Values of any depth as 8 bits, linearly; uint8 stays as it is.

    `window`: the two values that become 0 and 255; or "image", a channel's own 0.5th and 99.5th percentile over the stack
    (one without contrast becomes zeros). Raises DataError for "none", which knows no way.
    """
    if values_DHWC.dtype == np.uint8:
        return values_DHWC
    if window == "none":
        raise DataError("more than 8 bits a value; say how they become 8: `--set data.window=image`, or two values")
    channels = range(values_DHWC.shape[-1])
    if isinstance(window, str):  # nearest: between two values there is nothing to gain, and a second search to lose
        ends = [np.percentile(values_DHWC[..., channel], (0.5, 99.5), method="nearest") for channel in channels]
    else:
        ends = [np.array(window) for _ in channels]
    low = np.array([first for first, _ in ends], np.float32)
    scale = np.array([255 / (last - first) if last > first else 0 for first, last in ends], np.float32)
    made = np.empty(values_DHWC.shape, np.uint8)
    for values_HWC, made_HWC in zip(values_DHWC, made, strict=True):  # slice by slice: what is between needs little memory
        scaled = values_HWC.astype(np.float32)
        scaled -= low
        scaled *= scale
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
        made_HWC[...] = scaled
    return made
