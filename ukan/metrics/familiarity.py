"""Is this image like the training set: the Mahalanobis distance of its features, and when to say that it is not.

The covariance is shrunk (Ledoit and Wolf 2004), since a few hundred cases do not determine one of hundreds of features; the
distance of pooled encoder features is what finds unfamiliar scans for nnU-Net (Gonzalez et al. 2022, Medical Image
Analysis 82). A model is a dict of plain arrays, to be saved with np.savez.

Training cases are too close, since mean and covariance were fitted to them: thresholds come from held-out cases. By
construction a threshold at a share of 0.95 flags at most 5 % of new images from where the held-out ones come from: that is
its rate of false flags. Features of two networks have nothing to do with each other: each has a model of its own.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Model = dict[str, NDArray[np.float64]]


def fit(features_NF: NDArray[np.floating]) -> Model:
    """Mean (F,) and whitening matrix (F, F) of the training cases' features (N, F), N at least 2."""
    from sklearn.covariance import LedoitWolf

    features = features_NF.astype(np.float64)
    mean = features.mean(axis=0)
    # Shrinkage draws towards equal variances, so features first get them. One that never varied keeps its own unit.
    scale = np.where(np.ptp(features, axis=0) > 0, features.std(axis=0), 1)
    precision = LedoitWolf(assume_centered=True).fit((features - mean) / scale).precision_
    values, vectors = np.linalg.eigh(precision)  # not Cholesky: features that never vary leave zeros, and rounding less
    return {"mean": mean, "whitening": vectors * np.sqrt(np.maximum(values, 0)) / scale[:, None]}


def distance(model: Model, features_MF: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mahalanobis distances (M,) of cases' features (M, F) from the training cases."""
    return np.linalg.norm((features_MF - model["mean"]) @ model["whitening"], axis=1)


def threshold(held_out: ArrayLike, share: float = 0.95) -> float:
    """The distance above which an image is unfamiliar, from distances (N,) of cases the model was not fitted on.

    The ceil((N + 1) share)-th smallest, which one more such case exceeds with a chance of at most 1 - share (conformal
    prediction, Vovk et al. 2005). Infinite where there are too few cases to promise that: 19 are needed at 0.95, 99 at 0.99.
    """
    distances = np.sort(np.asarray(held_out, np.float64))
    rank = math.ceil((len(distances) + 1) * share)
    return float(distances[rank - 1]) if rank <= len(distances) else math.inf
