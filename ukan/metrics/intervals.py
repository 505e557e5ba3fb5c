"""Confidence intervals that know that cases of one group are not independent: cluster bootstrap over whole groups.

A comparison is paired: hand in the differences, case by case, and groups are drawn once for both sides.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_DRAWN_AT_ONCE = 2**22  # groups: bounds the memory at some 100 MB


def cluster_bootstrap(
    values: ArrayLike,
    groups: Sequence[str],
    *,
    totals: ArrayLike | None = None,
    repeats: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of the mean over cases or, with totals, of sum(values) / sum(totals).

    The second is for ratios of counts: lesions found over lesions present. Cases with a value of nan or a total of 0 are
    left out, as they are of the statistic itself. None where fewer than two groups are left: there is no interval.
    """
    top = np.asarray(values, np.float64)
    bottom = np.ones_like(top) if totals is None else np.asarray(totals, np.float64)
    if not len(top) == len(bottom) == len(groups):
        raise ValueError(f"{len(top)} values, {len(bottom)} totals and {len(groups)} groups: one of each a case is needed")
    defined = ~np.isnan(top) & (bottom > 0)
    kept = [group for group, keep in zip(groups, defined, strict=True) if keep]
    sums = np.stack([top, bottom], axis=1)[defined]
    return interval_of_sums(sums, kept, lambda s: s[:, 0] / s[:, 1], repeats=repeats, level=level, seed=seed)


def interval_of_sums(
    sums: NDArray[np.float64],
    groups: Sequence[str],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    repeats: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of any statistic of sums over cases, such as an ECE of bins or an F1 of counts.

    sums is (N, ...): what each case adds. statistic takes (R, ...), the sums over the cases of R resamples, and gives (R,);
    resamples on which it is nan are left out. None where there are fewer than two groups, or it is nan on every resample.
    """
    if len(sums) != len(groups):
        raise ValueError(f"{len(sums)} cases but {len(groups)} groups")
    if len(set(groups)) < 2:
        return None
    values = np.concatenate([statistic(drawn) for drawn in resampled_sums(sums, groups, repeats=repeats, seed=seed)])
    return percentiles(values, level)


def resampled_sums(
    sums: NDArray[np.float64], groups: Sequence[str], *, repeats: int = 2000, seed: int = 0
) -> Iterator[NDArray[np.float64]]:
    """Sums over the cases of resamples of whole groups, (R, ...) at a time: `repeats` in all.

    Which groups are drawn depends on the seed and on how many there are, so that what is made of one call, column by column,
    is paired. sums is (N, ...): what each case adds.
    """
    names, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if np.isnan(sums).any():
        raise ValueError("a case adds nan: leave it out, and say so")
    by_group = np.zeros((len(names), *sums.shape[1:]))
    np.add.at(by_group, place, sums)
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // len(names))
    for start in range(0, repeats, at_once):
        rows = min(at_once, repeats - start)
        drawn = rng.integers(len(names), size=(rows, len(names))) + len(names) * np.arange(rows)[:, None]
        # How often each group is drawn: sums of whole resamples are then one matrix product for all columns.
        times = np.bincount(drawn.ravel(), minlength=rows * len(names)).reshape(rows, len(names))
        yield np.tensordot(times.astype(np.float64), by_group, axes=1)


def percentiles(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float] | None:
    """The middle `level` of what resamples gave; nan ones are left out, None where all are."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
