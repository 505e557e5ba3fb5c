"""What reading a case's files tells: all that the index, the checks and the fingerprint are made of, in one pass."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.duplicates import SIDE, thumbnail
from ukan.data.masks import MaskRule, MaskValues, count_values, fit_labels, foreground
from ukan.data.problems import Problem
from ukan.errors import DataError
from ukan.imaging import Geometry, Picture, read_labels, read_picture
from ukan.plan import Case

_SAMPLE = 10_000
_OUTLINE = 32
_AIR_HU = (-1100, -900)
_SAME_PLACE_MM = 0.1
_PNG, _PNG_COLOURS = b"\x89PNG\r\n\x1a\n", 25  # how a PNG begins, and which byte tells its kind of colours (4: with alpha)


@dataclass(slots=True)
class Facts:
    """A case that can be read."""

    case: Case
    """With width, height and slices."""
    problems: list[Problem]
    mask_values: list[MaskValues]
    """One for each mask."""
    mask_hashes: list[str]
    """sha256 of those that are files, not folders."""
    shares: dict[MaskRule, float]
    """Share of the image inside the united mask, by either rule that may cut it."""
    object_slices: int
    """Slices with anything above 0."""
    outline: NDArray[np.bool_]
    """The united mask, of a volume its projection, at _OUTLINE x _OUTLINE."""
    channels: int
    colour: bool
    geometry: Geometry | None
    digest: str
    thumbnail: NDArray[np.uint8]
    deep: bool
    inside: NDArray[np.float32]
    """Values inside the mask, of a deep image; at most 10,000, evenly drawn."""
    hounsfield: bool


def read_facts(root: Path, case: Case) -> Facts | list[Problem]:
    """What the files of a case tell, or why it cannot be used."""
    pictures: list[Picture] = []
    for name in (case.image, *case.channels):
        try:
            pictures.append(read_picture(root / name))
        except DataError as error:
            return [_unreadable("image", name, error, root)]
        if pictures[-1].values.shape[:3] != pictures[0].values.shape[:3]:
            what = f"{_size(pictures[-1].values)}, but {Path(case.image).name} is {_size(pictures[0].values)}"
            return [Problem("error", "channels of different sizes", name, what, "give channels of one image")]
    values, geometry = pictures[0]
    shape_DHW = (values.shape[0], values.shape[1], values.shape[2])
    problems: list[Problem] = []
    mask_values: list[MaskValues] = []
    mask_hashes: list[str] = []
    all_labels: list[NDArray[np.integer]] = []
    for name in case.masks:
        try:
            labels = read_labels(root / name)
        except DataError as error:
            problems.append(_unreadable("mask", name, error, root))
            continue
        try:
            all_labels.append(fit_labels(labels.values, shape_DHW, name))
        except DataError as error:
            what = str(error).partition(": ")[2]
            problems.append(Problem("error", "mask and image differ in shape", name, what, "give the mask of this image"))
            continue
        mask_values.append(count_values(labels.values))
        problems += _doubts(name, labels, pictures[0])
        if (path := root / name).is_file():
            content = path.read_bytes()
            mask_hashes.append(hashlib.sha256(content).hexdigest())
            if content.startswith(_PNG) and content[_PNG_COLOURS] & 4:
                problems.append(Problem("note", "mask with alpha", name, "an alpha channel", "left out"))
    if any(problem.level == "error" for problem in problems):
        return problems
    depth, height, width = shape_DHW
    if len(case.masks) > 1 and not case.classes:
        problems.append(Problem("note", "several masks", case.case, f"{len(case.masks)} masks", "united"))
    if min(height, width) < 16:
        problems.append(Problem("warning", "tiny image", case.image, f"{width}x{height}", "check that it is an image"))
    deep = values.dtype != np.uint8
    united = _united(all_labels, shape_DHW, "nonzero")
    greys = any(0 < value < 128 for held in mask_values for value in held)
    half = _united(all_labels, shape_DHW, "half") if greys else united
    return Facts(
        case=case._replace(width=width, height=height, slices=depth),
        problems=problems,
        mask_values=mask_values,
        mask_hashes=mask_hashes,
        shares={"nonzero": np.count_nonzero(united) / united.size, "half": np.count_nonzero(half) / half.size},
        object_slices=int(united.any(axis=(1, 2)).sum()),
        outline=_outline(united),
        channels=_channels([picture.values for picture in pictures]),
        colour=_in_colour(values),
        geometry=geometry,
        digest=_digest(values),
        thumbnail=_thumbnail(values),
        deep=deep,
        inside=_inside(values, united) if deep else np.zeros(0, np.float32),
        hounsfield=deep and _looks_like_ct(values),
    )


def _united(all_labels: Sequence[NDArray[np.integer]], shape_DHW: tuple[int, int, int], rule: MaskRule) -> NDArray[np.bool_]:
    parts = [foreground(labels, rule) for labels in all_labels]
    if len(parts) == 1:
        return parts[0]
    return np.any(parts, axis=0) if parts else np.zeros(shape_DHW, bool)


def _unreadable(kind: str, name: str, error: DataError, root: Path) -> Problem:
    what = str(error).removeprefix(f"{root / name}: ").removesuffix("; replace or remove it")
    return Problem("error", f"unreadable {kind}", name, what, "replace the file, or remove the case")


def _doubts(name: str, mask: Picture, image: Picture) -> list[Problem]:
    """Whether a mask that can be used is of another size or place than its image."""
    if mask.values.shape != image.values.shape[:3]:
        what, do = f"mask {_size(mask.values)}, image {_size(image.values)}", "resized by nearest value; check that they fit"
        return [Problem("warning", "mask of another size", name, what, do)]
    off_mm = np.abs(_place(mask.geometry) - _place(image.geometry)).max() if mask.geometry and image.geometry else 0.0
    if off_mm > _SAME_PLACE_MM:
        what = f"their headers place voxels up to {off_mm:.3g} mm apart, or more at the far end"
        return [
            Problem("warning", "mask lies elsewhere than its image", name, what, "laid voxel on voxel; check that they fit")
        ]
    return []


def _place(geometry: Geometry) -> NDArray[np.float64]:
    """Where the first voxel of a stack lies, and the steps along slices, rows and columns: (3, 4) in mm.

    Of the stack as read, so that files that store it in another order of axes may lie in one place.
    """
    axes, flipped = list(geometry.axes), np.array(geometry.flipped)
    steps = geometry.affine[:3, axes]
    last = np.array([geometry.shape[axis] - 1 for axis in axes])
    first = geometry.affine[:3, 3] + steps @ (last * flipped)
    return np.column_stack([first, np.where(flipped, -steps, steps)])


def _in_colour(values_DHWC: NDArray[Any]) -> bool:
    """Whether the channels of a picture differ, in more than a thousandth of its pixels by more than a sixteenth.

    Grey pictures saved as JPEG in colour, or scanned, differ a little.
    """
    if values_DHWC.shape[3] != 3:
        return False
    # Most coloured pictures show it in every 16th row; the others are looked at whole.
    return _coloured(values_DHWC[:, ::16]) > 0.01 or _coloured(values_DHWC) > 0.001


def _coloured(values_DHWC: NDArray[Any]) -> float:
    """The share of pixels whose channels differ by more than a sixteenth of the range."""
    if values_DHWC.dtype != np.uint8:
        return float((np.ptp(values_DHWC.astype(np.float32), axis=3) > values_DHWC.max() / 16).mean())
    red, green, blue = cv2.split(values_DHWC.reshape(-1, *values_DHWC.shape[2:]))
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    return np.count_nonzero(spread > 16) / spread.size


def _channels(pictures: Sequence[NDArray[Any]]) -> int:
    """How many channels a network meets: one a file, where files of channels are pictures in three equal ones."""
    if len(pictures) == 1:
        return pictures[0].shape[3]
    repeated = ((v == v[..., :1]).all() if v.shape[3] == 3 else False for v in pictures)
    return sum(1 if same else v.shape[3] for v, same in zip(pictures, repeated, strict=True))


def _digest(values_DHWC: NDArray[Any]) -> str:
    """A hash of the sums of each row and each column, by channel: another picture has others, and they cost a tenth."""
    rows = values_DHWC.reshape(-1, values_DHWC.shape[2] * values_DHWC.shape[3])
    digest = hashlib.sha256(f"{values_DHWC.shape} {values_DHWC.dtype}".encode())
    for axis in (0, 1):
        if rows.dtype == np.uint8:
            digest.update(cv2.reduce(rows, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S).data)
        else:
            digest.update(rows.sum(axis=axis, dtype=np.float64).data)
    return digest.hexdigest()


def _thumbnail(values_DHWC: NDArray[Any]) -> NDArray[np.uint8]:
    """Of a picture. Volumes of one region all look alike at this size, so they have none."""
    if len(values_DHWC) > 1:
        return np.zeros((SIDE, SIDE), np.uint8)
    image_HWC = values_DHWC[0]
    if image_HWC.dtype == np.uint8 and image_HWC.shape[2] == 3:
        return thumbnail(cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY))
    return thumbnail(image_HWC[..., 0] if image_HWC.dtype == np.uint8 else image_HWC.mean(axis=2, dtype=np.float32))


def _outline(united_DHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    flat_HW = united_DHW[0] if len(united_DHW) == 1 else united_DHW.any(axis=0)
    return cv2.resize(flat_HW.view(np.uint8), (_OUTLINE, _OUTLINE), interpolation=cv2.INTER_NEAREST) > 0


def _inside(values_DHWC: NDArray[Any], united_DHW: NDArray[np.bool_]) -> NDArray[np.float32]:
    values = values_DHWC[united_DHW].ravel()
    return values[:: max(1, -(-len(values) // _SAMPLE))].astype(np.float32)


def _looks_like_ct(values_DHWC: NDArray[Any]) -> bool:
    """Hounsfield units: whole numbers, air near -1000. Checked on every fifth row and column."""
    values = values_DHWC[:, ::5, ::5]
    air = (values > _AIR_HU[0]) & (values < _AIR_HU[1])
    return bool(air.mean() > 0.001 and (values == np.round(values)).all())


def _size(values: NDArray[Any]) -> str:
    slices, height, width = values.shape[:3]
    return f"{width}x{height}" + (f"x{slices}" if slices > 1 else "")


def spacing_text(spacing_mm: Iterable[float]) -> str:
    return "x".join(f"{side:.3g}" for side in spacing_mm)
