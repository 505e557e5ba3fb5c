"""How far generated images are from real ones: features in, numbers out, by torch-fidelity's own functions.

Arrays are features of images, (N, F); which network made them decides what the numbers mean and what they may be called.
Two protocols, never mixed:

- `honest`: against images that the generator never saw. The kernel distance first: it is unbiased, so that few images make
  it noisy but not large. The Frechet distance falls with the number of images (Chong and Forsyth 2020, CVPR), so that it is
  given with n on both sides and beside its floor: two disjoint random parts of the real images against each other.
- `paper`: all generated against the training images, one number, as papers report it. It rewards memorising.

Sources: FID, Heusel et al. 2017 (NeurIPS); KID, Binkowski et al. 2018 (ICLR); precision and recall, Kynkaanniemi et al. 2019
(NeurIPS); Inception score, Salimans et al. 2016 (NeurIPS).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukan.errors import DataError

Floats = NDArray[np.floating]

MINIMUM = 4
"""Images a side: two halves of two, and the neighbours that precision and recall look at."""
REPEATS = 20
"""Of a Frechet distance at equal n."""
SUBSETS, LARGEST_SUBSET = 100, 1000
"""Of a kernel distance; torch-fidelity's."""
NEIGHBOURS = 3
"""Precision and recall: the k of the k-th nearest neighbour."""
SPLITS = 10
"""Parts over which an Inception score is averaged, as published."""
SPLIT_SIZE = 100
"""The least images a part of an honest Inception score: one of few images cannot have a high score."""
SEED = 2020
"""Of all draws; torch-fidelity's."""


def honest(real_NF: Floats, generated_MF: Floats, logits_MC: Floats | None = None) -> dict[str, Any]:
    """Generated images against real ones that the generator never saw.

    With h = half of the smaller side:

    - kernel distance: mean and 95 % interval over 100 random subsets of min(1000, h) images a side. Floor: as many disjoint
      subsets of that size, both of real images.
    - Frechet distance: once over all images, and mean and 95 % interval over 20 random draws of h images a side. Floor: as
      many pairs of disjoint draws of h real images.
    - precision (share of generated images within the real ones' neighbourhoods) and recall (the reverse).
    - Inception score, where there are class logits (M, C) of the generated images: of these alone, no real image in it.

    Intervals are those of the draws: they show what the choice of images does, not what another training would.
    Raises DataError where a side has fewer than 4 images.
    """
    _enough(real_NF, generated_MF)
    half = min(len(real_NF), len(generated_MF)) // 2
    size = min(LARGEST_SUBSET, half)
    return {
        "n_real": len(real_NF),
        "n_generated": len(generated_MF),
        "kernel": {
            "subset_size": size,
            "subsets": SUBSETS,
            **_spread(kernel_distances(real_NF, generated_MF, size)),
            "floor": _spread(_apart(_kernel, real_NF, size, SUBSETS)),
        },
        "frechet": {
            "value": frechet(real_NF, generated_MF),
            "same_n": {
                "n": half,
                "repeats": REPEATS,
                **_spread(_drawn(frechet_by_singular_values, real_NF, generated_MF, half, REPEATS)),
                "floor": _spread(_apart(frechet_by_singular_values, real_NF, half, REPEATS)),
            },
        },
        **precision_recall(real_NF, generated_MF),
        "neighbours": NEIGHBOURS,
        "inception_score": None
        if logits_MC is None
        else inception_score(logits_MC, max(1, min(SPLITS, len(logits_MC) // SPLIT_SIZE))),
    }


def paper(real_NF: Floats, generated_MF: Floats, logits_MC: Floats | None = None) -> dict[str, Any]:
    """All generated images against all training images, as papers report it: one Frechet distance, one Inception score.

    A generator that repeats its training images is the best by it. The score is None without logits, and for fewer images
    than its 10 parts. Raises DataError where a side has fewer than 4 images.
    """
    _enough(real_NF, generated_MF)
    scored = logits_MC is not None and len(logits_MC) >= SPLITS
    return {
        "n_real": len(real_NF),
        "n_generated": len(generated_MF),
        "frechet": {"value": frechet(real_NF, generated_MF)},
        "inception_score": inception_score(logits_MC, SPLITS) if scored and logits_MC is not None else None,
    }


def frechet(real_NF: Floats, generated_MF: Floats) -> float:
    """The Frechet distance of two Gaussians with the sides' means and covariances, as torch-fidelity computes it.

    Where there are fewer images than features, its eigenvalues of a singular product are off by rounding: a set against
    itself comes out a few 1e-4 below 0 for 2048 features. That is far below what any choice of images does.
    """
    import torch
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    # Doubles: the mean over many rows of floats loses digits.
    sides = [torch.from_numpy(side.astype(np.float64)) for side in (generated_MF, real_NF)]
    return float(fid_statistics_to_metric(*map(fid_features_to_statistics, sides), verbose=False)[KEY_METRIC_FID])


def frechet_by_singular_values(real_NF: Floats, generated_MF: Floats) -> float:
    """The same distance without covariances, exact at any rank, and many times faster where images are few: for repeats.

    With X, Y the centred features over sqrt(n - 1), the covariances are X'X and Y'Y. The eigenvalues of X'X Y'Y other than
    0 are those of (XY')(XY')': the trace of the product's square root is the sum of the singular values of XY'.
    """
    (x, x_mean), (y, y_mean) = (_centred(side) for side in (real_NF, generated_MF))
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(((x_mean - y_mean) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * shared)


def kernel_distances(real_NF: Floats, generated_MF: Floats, size: int, subsets: int = SUBSETS) -> NDArray[np.float64]:
    """Squared maximum mean discrepancy, unbiased, kernel (x'y / F + 1)^3, of random subsets (subsets,) of `size` images.

    Of KID these are torch-fidelity's own subsets, one by one, of which it tells no more than mean and deviation.
    """
    draws = np.random.RandomState(SEED)  # its draws
    found = []
    for _ in range(subsets):
        generated = generated_MF[draws.choice(len(generated_MF), size, replace=False)]
        real = real_NF[draws.choice(len(real_NF), size, replace=False)]
        found.append(_kernel(generated, real))
    return np.array(found)


def precision_recall(real_NF: Floats, generated_MF: Floats) -> dict[str, float]:
    import torch
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    sides = [torch.from_numpy(np.ascontiguousarray(side)) for side in (generated_MF, real_NF)]
    found = prc_features_to_metric(*sides, prc_neighborhood=NEIGHBOURS, verbose=False)
    return {"precision": found[KEY_METRIC_PRECISION], "recall": found[KEY_METRIC_RECALL]}


def inception_score(logits_MC: Floats, splits: int) -> dict[str, float]:
    """exp of the mean divergence of an image's class probabilities from those of all: mean and deviation over parts.

    The classes are those of ImageNet, which have no meaning for medical images; no real image takes part, and the score of
    real ones is no upper bound. Not comparable across datasets.
    """
    import torch
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    found = isc_features_to_metric(torch.from_numpy(logits_MC), splits, True, SEED)
    return {
        "mean": found[KEY_METRIC_ISC_MEAN],
        "deviation": found[KEY_METRIC_ISC_STD],
        "splits": splits,
        "n": len(logits_MC),
    }


def _kernel(first_NF: Floats, second_NF: Floats) -> float:
    from torch_fidelity.metric_kid import kernel_mmd

    return float(kernel_mmd(first_NF, second_NF))


def _drawn(
    distance: Callable[[Floats, Floats], float], real_NF: Floats, generated_MF: Floats, size: int, repeats: int
) -> NDArray[np.float64]:
    """Distances (repeats,) of random parts of `size` images a side."""
    rng = np.random.default_rng(SEED)
    sides = (real_NF, generated_MF)
    return np.array([distance(*(side[rng.permutation(len(side))[:size]] for side in sides)) for _ in range(repeats)])


def _apart(distance: Callable[[Floats, Floats], float], real_NF: Floats, size: int, repeats: int) -> NDArray[np.float64]:
    """Distances (repeats,) of two disjoint random parts of `size` real images."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(repeats):
        drawn = real_NF[rng.permutation(len(real_NF))[: 2 * size]]
        found.append(distance(drawn[:size], drawn[size:]))
    return np.array(found)


def _spread(values: NDArray[np.float64]) -> dict[str, Any]:
    return {"mean": float(values.mean()), "interval95": np.quantile(values, (0.025, 0.975)).tolist()}


def _centred(features_NF: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A matrix X with X'X the covariance, of no more rows than columns, and the mean (F,)."""
    features = features_NF.astype(np.float64)
    mean = features.mean(axis=0)
    x = (features - mean) / np.sqrt(len(features) - 1)
    return (np.asarray(np.linalg.qr(x, mode="r")) if len(x) > x.shape[1] else x), mean


def _enough(real_NF: Floats, generated_MF: Floats) -> None:
    for what, side in (("real", real_NF), ("generated", generated_MF)):
        if len(side) < MINIMUM:
            raise DataError(
                f"{len(side)} {what} image(s): at least {MINIMUM} are needed on each side, hundreds to mean much"
            )
