"""Did the generator learn its training images by heart: the nearest training image of each generated one.

A distance alone says nothing: smooth images are near to everything. So two looks, beside each other:

- *Closer than unseen real images are*: below a threshold that, by construction, at most 5 % of real images that the
  generator never saw would fall below (conformal prediction, Vovk et al. 2005). A share of generated images far above 5 %
  means that they lie closer to the training images than the truth does. Blurred or plain images do so without being copies.
- *A copy of one*: less than a third as far from the nearest training image as from the second nearest (Yoon et al. 2023,
  "Diffusion probabilistic models generalize when they fail to memorize"). That finds single images repeated, whatever their
  contrast; where training images come in near-equal pairs, the second is as near as the first and hides it.

Neither finds a copied part (a lesion in another breast), nor one that is shifted or turned; mirrored ones are found. No
share proves that nothing was memorised. The promise of 5 % needs held-out images that are as unlike the training images as
new ones would be: not frames of the same video. With fewer than 19 of them there is no threshold.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SHARE = 0.05
"""Of unseen real images that are flagged by construction, at most."""
COPY_RATIO = 1 / 3
"""Nearest to second nearest distance below which an image is a copy (Yoon et al. 2023)."""
SIDE = 32
"""Images are compared at this many pixels a side."""
_BLOCK = 256  # queries: bounds the memory


def nearest(
    queries_VNF: NDArray[np.floating], references_MF: NDArray[np.floating], count: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The `count` nearest references of each query by L2: distances and indices (N, count), nearest first.

    V are views of the same query (mirrorings): it is as near as the nearest of them.
    """
    references = references_MF.astype(np.float64)
    squares = (references**2).sum(1)
    none = np.zeros((0, min(count, len(references))))
    distances, indices = [none], [none.astype(np.intp)]
    for start in range(0, queries_VNF.shape[1], _BLOCK):
        views = queries_VNF[:, start : start + _BLOCK].astype(np.float64)
        by_product = np.min([(view**2).sum(1)[:, None] + squares - 2 * (view @ references.T) for view in views], axis=0)
        found = np.argsort(by_product, axis=1, kind="stable")[:, :count]
        # Once more from differences: what products cancel is most of a small distance.
        apart = np.stack([np.linalg.norm(view[:, None] - references[found], axis=2) for view in views]).min(0)
        order = np.argsort(apart, axis=1, kind="stable")
        distances.append(np.take_along_axis(apart, order, 1))
        indices.append(np.take_along_axis(found, order, 1))
    return np.concatenate(distances), np.concatenate(indices)


def nearest_images(
    queries_NHWC: NDArray[np.uint8], references_MHWC: NDArray[np.uint8], count: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """By pixels: the root mean square difference of 8-bit images shrunk by area to at most 32 x 32, white being 1.

    A mirrored image is as near as the image itself: training mirrors.
    """
    queries, references = _small(queries_NHWC), _small(references_MHWC)
    flips: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))
    values = references[0].size
    views = np.stack([np.flip(queries, flip).reshape(len(queries), values) for flip in flips])
    distances, indices = nearest(views, references.reshape(len(references), values), count)
    return distances / math.sqrt(values), indices


def nearest_features(
    queries_NF: NDArray[np.floating], references_MF: NDArray[np.floating], count: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """By features: the cosine distance, 1 - cos, from 0 to 2. A vector of zeros is at 1/2 from every other."""
    queries, references = (
        side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12)
        for side in (queries_NF.astype(np.float64), references_MF.astype(np.float64))
    )
    distances, indices = nearest(queries[None], references, count)
    return distances**2 / 2, indices


def threshold(held_out: ArrayLike, share: float = SHARE) -> float | None:
    """The distance below which an image is suspiciously close, from distances (N,) of real images the generator never saw.

    The floor((N + 1) share)-th smallest: one more such image lies below it with a chance of at most `share`. None where
    there are too few to promise that: 19 are needed at 0.05.
    """
    distances = np.sort(np.asarray(held_out, np.float64))
    rank = math.floor((len(distances) + 1) * share + 1e-9)
    return float(distances[rank - 1]) if rank else None


def flagged(generated_NK: NDArray[np.float64], held_out_MK: NDArray[np.float64], *, squared: bool = False) -> dict[str, Any]:
    """From distances to the nearest and, where K is 2, second nearest training image: who is suspiciously close, who a copy.

    squared: whether distances grow with the square of a length, as the cosine distance does. `share` is None where there is
    no threshold, `copies` where there is one training image alone.
    """
    limit = threshold(held_out_MK[:, 0])
    return {
        "threshold": limit,
        "share": None if limit is None else float((generated_NK[:, 0] < limit).mean()),
        "expected_share": SHARE,
        "copies": _copies(generated_NK, squared),
        "copies_held_out": _copies(held_out_MK, squared),
    }


def _copies(distances_NK: NDArray[np.float64], squared: bool) -> int | None:
    if distances_NK.shape[1] < 2:
        return None
    first, second = distances_NK[:, 0], distances_NK[:, 1]
    return int((first < COPY_RATIO ** (2 if squared else 1) * second).sum())


def _small(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    height, width = (min(SIDE, side) for side in images_NHWC.shape[1:3])
    made = [cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) for image in images_NHWC]
    return np.array(made, np.float32).reshape(len(made), height, width, images_NHWC.shape[3]) / np.float32(255)
