"""Pictures that are the same, or nearly so: found by the correlation of 32x32 thumbnails, chained into groups.

On BUSI the threshold finds 169 pairs, nearly all the same lesion seen again by eye (the literature counts about 235
near-duplicates); 11 pairs among PH2's 200 dermoscopies.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32
LIKENESS = 0.95
_BLOCK = 2048


def thumbnail(grey_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A picture as SIDE * SIDE greys of mean 0 and norm 1; zeros where it is of one grey, which is like nothing."""
    small = cv2.resize(grey_HW, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > SIDE * 0.5 else np.zeros_like(small)


def find_pairs(thumbnails_NP: NDArray[np.float32], pixels: Sequence[str]) -> list[tuple[int, int, float]]:
    """Pairs (a, b, likeness), a < b: pixels the same (likeness 1), or thumbnails that correlate by LIKENESS or more."""
    pairs: dict[tuple[int, int], float] = {}
    for start in range(0, len(thumbnails_NP), _BLOCK):
        likeness = thumbnails_NP[start : start + _BLOCK] @ thumbnails_NP[start:].T
        for row, column in np.argwhere(np.triu(likeness, k=1) >= LIKENESS):
            pairs[start + int(row), start + int(column)] = min(1.0, float(likeness[row, column]))
    first: dict[str, int] = {}
    for index, digest in enumerate(pixels):
        if digest in first:
            pairs[first[digest], index] = 1.0
        else:
            first[digest] = index
    return sorted((a, b, likeness) for (a, b), likeness in pairs.items())


def chain(count: int, pairs: Sequence[tuple[int, int]], groups: Sequence[str]) -> list[int]:
    """For each item the first item of its group: joined by pairs and by equal non-empty group names, transitively."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    named: dict[str, int] = {}
    joined = [*pairs, *((named.setdefault(group, i), i) for i, group in enumerate(groups) if group)]
    for a, b in joined:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(item) for item in range(count)]
