"""Pictures that are the same, or nearly so, within a dataset and between two; chained into groups.

Two pictures are nearly the same where their 32x32 thumbnails correlate by LIKENESS or more and their detail by DETAIL or
more (`ukan.data.likeness`), or where this is so of a part that both show (`ukan.data.crops`). Whole pictures, looked at by
eye: on BUSI 150 pairs stay of 169, all of the same lesion, as are those given up (the literature counts about 235); on PH2
one of 11, all 11 of different lesions; on CVC-ClinicDB none of the 61 between different videos.
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.crops import MOST, Frames, Overlaps, find_overlaps
from ukan.data.likeness import LIKENESS, SMALL, unit_details, unit_greys
from ukan.errors import DataError
from ukan.paths import written_whole

SIDE = 64
DETAIL = 0.5
_LOW = 8
_TILE = 1024
_CHUNK = 2**15
_NO_OVERLAPS = Overlaps(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.float32))


class Thumbnails(NamedTuple):
    """What tells whether a picture was seen before."""

    names: Sequence[str]
    digests: Sequence[str]
    """A hash of the pixels, whatever the file's type."""
    greys_NHW: NDArray[np.uint8]
    """(N, SIDE, SIDE); of one grey for what is never like another picture: volumes, and pictures without contrast."""
    sizes_N2: NDArray[np.int64] | None
    """Height and width of the pictures; None in files of before crops were looked for, whose greys are SMALL x SMALL."""


class Pairs(NamedTuple):
    """Which are alike, by their numbers, sorted; the likeness is the correlation of what both show."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    likeness: NDArray[np.float32]
    shared: NDArray[np.float32]
    """How much of the two pictures both show; 1 where they are alike as a whole."""


def thumbnail(grey_HW: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture as SIDE x SIDE greys; values that are not 8 bits are stretched to them."""
    small = cv2.resize(grey_HW, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if small.dtype == np.uint8:
        return small
    low, high = float(small.min()), float(small.max())
    return np.round((small - low) * (255 / (high - low))).astype(np.uint8) if high > low else np.zeros_like(small, np.uint8)


def find_pairs(thumbnails: Thumbnails) -> Pairs:
    """All pairs, first < second, of equal pixels (likeness 1), nearly the same picture, or nearly the same part of one.

    Parts are left out of more than `ukan.data.crops.MOST` pictures.
    """
    digests = np.array(thumbnails.digests)
    small_NHW = _small(thumbnails)
    whole_NP = unit_greys(small_NHW)
    found = [(a[a < b], b[a < b], likeness[a < b]) for a, b, likeness in _near(whole_NP, small_NHW, whole_NP, small_NHW)]
    # Pictures of one grey are near nothing, but may be the same.
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    flat = np.flatnonzero(~whole_NP.any(axis=1) & (first[which] < np.arange(len(digests))))
    found.append((first[which][flat], flat, np.ones(len(flat), np.float32)))
    a, b, likeness = (np.concatenate(parts) for parts in zip(*found, strict=True))
    likeness[digests[a] == digests[b]] = 1
    parts = _overlaps(thumbnails, thumbnails) if len(digests) <= MOST else _NO_OVERLAPS
    new = ~np.isin(parts.first * len(digests) + parts.second, a * len(digests) + b)
    a, b = np.concatenate([a, parts.first[new]]), np.concatenate([b, parts.second[new]])
    shared = np.concatenate([np.ones_like(likeness), parts.shared[new]])
    likeness = np.concatenate([likeness, parts.likeness[new]])
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], likeness[order], shared[order])


def find_twins(these: Thumbnails, those: Thumbnails) -> dict[str, str]:
    """{name of these: name of the most alike of those}, where `find_pairs` would find the two.

    Parts are left out of more than `ukan.data.crops.MOST` squared pairs.
    """
    same = dict(zip(those.digests, those.names, strict=True))
    twins: dict[str, str] = {}
    best: dict[str, float] = {}
    small_a, small_b = _small(these), _small(those)
    whole = _near(unit_greys(small_a), small_a, unit_greys(small_b), small_b)
    parts = _overlaps(these, those) if len(these.names) * len(those.names) <= MOST**2 else _NO_OVERLAPS
    for a, b, likeness in (*whole, parts[:3]):
        for i, j, alike in zip(a.tolist(), b.tolist(), likeness.tolist(), strict=True):
            if alike > best.get(these.names[i], 0):
                best[these.names[i]], twins[these.names[i]] = alike, those.names[j]
    exact = zip(these.names, these.digests, strict=True)
    return twins | {name: same[digest] for name, digest in exact if digest in same}


def chain(count: int, pairs_P2: NDArray[np.intp], *namings: Sequence[str]) -> list[int]:
    """For each item the first item of its group: joined by pairs and by equal non-empty names, transitively."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [pairs_P2.reshape(-1, 2)]
    for names in namings:
        first: dict[str, int] = {}
        named = [(first.setdefault(name, i), i) for i, name in enumerate(names) if name]
        links.append(np.array(named, np.intp).reshape(-1, 2))
    a, b = np.concatenate(links).T
    _, component = connected_components(coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count)), directed=False)
    _, first_of, which = np.unique(component, return_index=True, return_inverse=True)
    return first_of[which].tolist()


def save_thumbnails(path: Path, thumbnails: Thumbnails) -> None:
    names, digests, greys_NHW, sizes_N2 = thumbnails
    sizes_N2 = np.zeros((0, 2), np.int64) if sizes_N2 is None else sizes_N2
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, names=np.array(names), digests=np.array(digests), greys=greys_NHW, sizes=sizes_N2)


def load_thumbnails(path: Path) -> Thumbnails:
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, digests = stored["names"].tolist(), stored["digests"].tolist()
            sizes_N2 = stored.get("sizes")
            return Thumbnails(names, digests, stored["greys"], sizes_N2 if sizes_N2 is not None and len(sizes_N2) else None)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: missing or damaged ({error}); run `ukan plan` again") from error


def _small(thumbnails: Thumbnails) -> NDArray[np.float32]:
    """As SMALL x SMALL means."""
    greys_NHW = thumbnails.greys_NHW.astype(np.float32)
    count, side, _ = greys_NHW.shape
    return greys_NHW.reshape(count, SMALL, side // SMALL, SMALL, side // SMALL).mean(axis=(2, 4))


def _overlaps(these: Thumbnails, those: Thumbnails) -> Overlaps:
    if these.sizes_N2 is None or those.sizes_N2 is None:
        return _NO_OVERLAPS
    here = Frames(these.greys_NHW, these.sizes_N2)
    return find_overlaps(here, here if these is those else Frames(those.greys_NHW, those.sizes_N2))


def _near(
    whole_a: NDArray[np.float32], greys_a: NDArray[np.float32], whole_b: NDArray[np.float32], greys_b: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """The pairs of the module's first sentence, exactly, in pieces; where a is b only those above the diagonal's tiles.

    A correlation x.y is at most low_x.low_y + |rest_x| |rest_y| (Cauchy-Schwarz), where low are the coordinates in a few
    orthonormal directions and rest what they leave: that product of _LOW^2 + 1 numbers rules out nearly all pairs.
    """
    bound_a, bound_b = _bounding(whole_a), _bounding(whole_b)
    for i in range(0, len(whole_a), _TILE):
        for j in range(i if whole_a is whole_b else 0, len(whole_b), _TILE):
            bound = bound_a[i : i + _TILE] @ bound_b[j : j + _TILE].T
            if bound.max() < LIKENESS - 1e-5:
                continue
            rows, columns = np.nonzero(bound >= LIKENESS - 1e-5)
            if whole_a is whole_b and i == j:
                rows, columns = rows[rows < columns], columns[rows < columns]
            for start in range(0, len(rows), _CHUNK):
                a, b = i + rows[start : start + _CHUNK], j + columns[start : start + _CHUNK]
                likeness = np.einsum("np,np->n", whole_a[a], whole_b[b])
                near = likeness >= LIKENESS
                a, b, likeness = a[near], b[near], np.minimum(likeness[near], 1)
                agree = _details_agree(greys_a, a, greys_b, b)
                yield a[agree], b[agree], likeness[agree]


def _bounding(whole_NP: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lowest _LOW x _LOW terms of the cosine transform, and the norm of all others."""
    k, x = np.arange(_LOW)[:, None], np.arange(SMALL)[None]
    cosines_KX = np.sqrt(np.where(k, 2, 1) / SMALL) * np.cos(np.pi * k * (2 * x + 1) / (2 * SMALL))
    low = whole_NP @ np.kron(cosines_KX, cosines_KX).T.astype(np.float32)
    rest = np.sqrt(np.maximum(0, (whole_NP**2).sum(axis=1) - (low**2).sum(axis=1)))
    return np.column_stack([low, rest])


def _details_agree(
    greys_a: NDArray[np.float32], a: NDArray[np.intp], greys_b: NDArray[np.float32], b: NDArray[np.intp]
) -> NDArray[np.bool_]:
    used_a, at_a = np.unique(a, return_inverse=True)
    used_b, at_b = np.unique(b, return_inverse=True)
    details_a, details_b = unit_details(greys_a[used_a]), unit_details(greys_b[used_b])
    likeness = np.einsum("np,np->n", details_a[at_a], details_b[at_b])
    shown_a, shown_b = (np.asarray(details.any(axis=1)) for details in (details_a, details_b))
    return ~(shown_a[at_a] & shown_b[at_b]) | (likeness >= DETAIL)
