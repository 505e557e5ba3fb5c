"""Confidence intervals that know that cases of one group are not independent."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cluster_bootstrap(
    values: Sequence[float], groups: Sequence[str], *, repeats: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval of the mean over cases, by drawing whole groups with replacement.

    nan values are left out, as they are of the mean. None where fewer than two groups have a value: there is no interval.
    """
    defined = [(value, group) for value, group in zip(values, groups, strict=True) if not np.isnan(value)]
    names = sorted({group for _, group in defined})
    if len(names) < 2:
        return None
    place = {name: i for i, name in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, group in defined:
        sums[place[group]] += value
        counts[place[group]] += 1
    rng = np.random.default_rng(seed)
    means: NDArray[np.float64] = np.empty(repeats)
    for repeat in range(repeats):
        drawn = rng.integers(len(names), size=len(names))
        means[repeat] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
