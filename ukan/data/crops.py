"""Pictures that show a part of one another: crops of one frame, at any scale down to half, wherever they were cut.

The middle of every picture is looked for in every other, everywhere and at several scales, as 6x6 greys: one matrix product
for each picture. The few most like it are laid over it exactly (ECC: Evangelidis and Psarakis, IEEE TPAMI 2008), and what
both show is compared as whole pictures are, more strictly, since the best of many places was chosen.

Looked at by eye: of BUSI's 671 pictures 27 further pairs, 20 of them of one frame (their detail correlates by 0.95 and more)
and 7 of one lesion in neighbouring frames (0.79 and more); different lesions end at 0.62 on PH2, different videos at 0.59 on
CVC-ClinicDB. Of crops to 70 % of both sides, cut anywhere, resized and stored as JPEG, 97 % are found on BUSI and 96 % on
GlaS; of those to half of both sides 96 % and 56 %. Crops turned, mirrored or stretched by more than a tenth are not found.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.likeness import LIKENESS, SMALL, unit_details, unit_greys
from ukan.runtime import usable_cores

DETAIL = 0.7
MOST = 5_000
"""Pictures that are compared with one another: the search grows with their square, to more than a minute of a core here."""
_PATCH = 6
_MIDDLE = 0.6  # of the short side
_SHORT_SIDES = (10, 11, 13, 14, 16, 18, 20, 22)  # of a scene: a patch is _MIDDLE of it, down to half of that
_CONTRAST = 3.0  # standard deviation of a patch's greys, below which it is like nothing
_PROMISING = 0.65
_LOOKED_AT = 6  # scenes for each middle
_BLOCK = 64
_BENT = 0.1  # what scales across and down may differ by, and what may slant: crops are neither stretched nor turned
_LEAST = 0.4  # of each side of either picture must be seen in the other


class Frames(NamedTuple):
    """Pictures as squares, whatever their shape, and what shape that was; those of one grey are part of nothing."""

    greys_NHW: NDArray[np.uint8]
    sizes_N2: NDArray[np.int64]
    """Height and width in pixels."""


class Overlaps(NamedTuple):
    """Which pictures show a part of one another, by their numbers, sorted."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    likeness: NDArray[np.float32]
    """The correlation of what both show."""
    shared: NDArray[np.float32]
    """How much of the two pictures that is: of the one that it is less of."""


class _Place(NamedTuple):
    """Where the middle of one picture may be in another."""

    picture: int
    scene: int
    box: NDArray[np.float64]
    """Left, top, width, height as shares of the scene."""


def find_overlaps(these: Frames, those: Frames) -> Overlaps:
    """Pairs of one of these and one of those; where both are the same object, first < second."""
    alone = these is those
    with ThreadPoolExecutor(usable_cores()) as pool:
        found: dict[tuple[int, int], tuple[float, float]] = {}
        for swapped in (False,) if alone else (False, True):
            pictures, scenes = (those, these) if swapped else (these, those)
            places = list(_places(pictures, scenes, alone, pool))
            for place, said in zip(places, pool.map(partial(_lay_over, pictures, scenes), places), strict=True):
                a, b = (place.scene, place.picture) if swapped else (place.picture, place.scene)
                pair = (min(a, b), max(a, b)) if alone else (a, b)
                if said and said > found.get(pair, (0.0, 0.0)):
                    found[pair] = said
    pairs = sorted(found)
    first, second = np.array(pairs, np.intp).reshape(-1, 2).T
    likeness, shared = np.array([found[pair] for pair in pairs], np.float32).reshape(-1, 2).T
    return Overlaps(first, second, likeness, shared)


def _places(pictures: Frames, scenes: Frames, alone: bool, pool: ThreadPoolExecutor) -> Iterator[_Place]:
    """The scenes most like the middle of each picture, and where in them."""
    middles_ND = _unit_patches(np.stack([_middle(*frame) for frame in zip(*pictures, strict=True)]))
    score_NK: NDArray[np.float32] = np.zeros((len(middles_ND), 1), np.float32)
    scene_NK: NDArray[np.intp] = np.zeros((len(middles_ND), 1), np.intp)
    where_NK: NDArray[np.intp] = np.zeros((len(middles_ND), 1), np.intp)

    def look(scene: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        score_NR = middles_ND @ _patches(scenes.greys_NHW[scene], scenes.sizes_N2[scene]).T
        if alone:
            score_NR[scene] = 0
        where_N = score_NR.argmax(axis=1)
        return score_NR[np.arange(len(where_N)), where_N], where_N

    for start in range(0, len(scenes.greys_NHW), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(scenes.greys_NHW)), dtype=np.intp)
        scores, wheres = zip(*pool.map(look, block.tolist()), strict=True)
        score_NK = np.column_stack([score_NK, *scores])
        scene_NK = np.column_stack([scene_NK, np.broadcast_to(block, (len(score_NK), len(block)))])
        where_NK = np.column_stack([where_NK, *wheres])
        best = np.argsort(-score_NK, axis=1, kind="stable")[:, :_LOOKED_AT]
        score_NK = np.take_along_axis(score_NK, best, axis=1)
        scene_NK = np.take_along_axis(scene_NK, best, axis=1)
        where_NK = np.take_along_axis(where_NK, best, axis=1)
    for picture, rank in np.argwhere(score_NK >= _PROMISING).tolist():
        scene = int(scene_NK[picture, rank])
        yield _Place(picture, scene, _box(scenes.sizes_N2[scene], int(where_NK[picture, rank])))


def _middle(grey_HW: NDArray[np.uint8], size_2: NDArray[np.int64]) -> NDArray[np.float32]:
    return _cut(grey_HW.astype(np.float32), _from_box(_middle_box(size_2)), _PATCH, finer=4)


def _middle_box(size_2: NDArray[np.int64]) -> NDArray[np.float64]:
    share_2 = _MIDDLE * size_2[::-1].min() / size_2[::-1]
    return np.concatenate([(1 - share_2) / 2, share_2])


def _grids(size_2: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Heights and widths of a scene that is searched for patches of _PATCH pixels."""
    return [(max(_PATCH, round(h)), max(_PATCH, round(w))) for h, w in np.outer(_SHORT_SIDES, size_2 / size_2.min())]


def _patches(grey_HW: NDArray[np.uint8], size_2: NDArray[np.int64]) -> NDArray[np.float32]:
    windows = []
    for height, width in _grids(size_2):
        small_HW = cv2.resize(grey_HW, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
        windows.append(np.lib.stride_tricks.sliding_window_view(small_HW, (_PATCH, _PATCH)).reshape(-1, _PATCH, _PATCH))
    return _unit_patches(np.concatenate(windows))


def _box(size_2: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """Where a patch of `_patches` is in its scene: left, top, width, height as shares."""
    for height, width in _grids(size_2):
        rows, columns = height - _PATCH + 1, width - _PATCH + 1
        if number < rows * columns:
            top, left = divmod(number, columns)
            return np.array([left / width, top / height, _PATCH / width, _PATCH / height])
        number -= rows * columns
    raise IndexError(number)


def _unit_patches(patches_NHW: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors = patches_NHW.reshape(len(patches_NHW), _PATCH * _PATCH)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(norms, 1e-6)
    vectors[norms[:, 0] <= _PATCH * _CONTRAST] = 0
    return vectors


def _lay_over(pictures: Frames, scenes: Frames, place: _Place) -> tuple[float, float] | None:
    """Likeness and share of what a picture and a scene both show, where that is nearly the same.

    Maps are matrices of homogeneous (x, y, 1), from 0 to 1 across and down a picture.
    """
    picture_HW = pictures.greys_NHW[place.picture].astype(np.float32)
    scene_HW = scenes.greys_NHW[place.scene].astype(np.float32)
    size, scene_size = (frames.sizes_N2[i][::-1] for frames, i in ((pictures, place.picture), (scenes, place.scene)))
    to_scene = _from_box(place.box) @ np.linalg.inv(_from_box(_middle_box(size[::-1])))
    overlap = _overlap(to_scene)
    if min(overlap[0, 0], overlap[1, 1]) < _LEAST / 2:
        return None
    pixels = _to_pixels(len(scene_HW)) @ to_scene @ overlap @ np.linalg.inv(_to_pixels(SMALL))
    try:
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-3)
        seen = _cut(picture_HW, overlap, SMALL)
        _, found = cv2.findTransformECC(seen, scene_HW, pixels[:2].astype(np.float32), cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:  # how it says that the two cannot be laid over one another
        return None
    exact = np.vstack([found, [0, 0, 1]]).astype(np.float64)
    to_scene = np.linalg.inv(_to_pixels(len(scene_HW))) @ exact @ _to_pixels(SMALL) @ np.linalg.inv(overlap)
    linear = to_scene[:2, :2] * scene_size[:, None] / size[None]
    across, down = linear[0, 0], linear[1, 1]
    bent = max(abs(linear[0, 1]), abs(linear[1, 0]), abs(across - down)) / max(across, down, 1e-6)
    if min(across, down) <= 0 or bent > _BENT:
        return None
    overlap = _overlap(to_scene)
    in_scene = to_scene @ overlap
    if min(overlap[0, 0], overlap[1, 1], in_scene[0, 0], in_scene[1, 1]) < _LEAST:
        return None
    both_NHW = np.stack([_cut(picture_HW, overlap, SMALL), _cut(scene_HW, in_scene, SMALL)])
    greys_NP, details_NP = unit_greys(both_NHW), unit_details(both_NHW)
    likeness = float(greys_NP[0] @ greys_NP[1])
    if likeness < LIKENESS or details_NP[0] @ details_NP[1] < DETAIL:
        return None
    shared = min(overlap[0, 0] * overlap[1, 1], in_scene[0, 0] * in_scene[1, 1], 1.0)
    return min(likeness, 1.0), float(shared)


def _from_box(box_4: NDArray[np.float64]) -> NDArray[np.float64]:
    left, top, width, height = box_4
    return np.array([[width, 0, left], [0, height, top], [0, 0, 1]])


def _overlap(to_scene: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box of a picture that lies inside the scene, the map taken for one that does not turn."""
    scale_2, shift_2 = np.maximum(to_scene.diagonal()[:2], 1e-6), to_scene[:2, 2]
    low_2, high_2 = np.clip(-shift_2 / scale_2, 0, 1), np.clip((1 - shift_2) / scale_2, 0, 1)
    return _from_box(np.concatenate([low_2, np.maximum(high_2 - low_2, 1e-6)]))


def _to_pixels(side: int) -> NDArray[np.float64]:
    """To the numbers of pixels, whose middles they are."""
    return np.array([[side, 0, -0.5], [0, side, -0.5], [0, 0, 1]])


def _cut(grey_HW: NDArray[np.float32], part: NDArray[np.float64], side: int, finer: int = 2) -> NDArray[np.float32]:
    """A part of a picture as side x side means."""
    to_pixels = _to_pixels(len(grey_HW)) @ part @ np.linalg.inv(_to_pixels(side * finer))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (side * finer, side * finer)
    found = cv2.warpAffine(grey_HW, to_pixels[:2], size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(found, (side, side), interpolation=cv2.INTER_AREA)
