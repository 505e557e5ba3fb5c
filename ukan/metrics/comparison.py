"""Two or more networks on the same cases: paired differences, tests, and the smallest difference that could have been shown.

Cases of one group are not independent: intervals resample groups, and the test is of the groups' means.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ukan.metrics import METRICS
from ukan.metrics.intervals import percentiles, resampled_sums

ALPHA, POWER = 0.05, 0.8
NO_DIFFERENCE = "no difference shown"
EXACT_TO = 200
"""So many groups that differ are tested exactly: cheap, and beyond it the normal approximation is good."""


class Paired(NamedTuple):
    """One network less another, on the same cases."""

    difference: float
    """The mean over cases."""
    interval95: tuple[float, float] | None
    """By resampling groups; None where there is only one."""
    differing: int
    """Groups whose mean difference is not 0: the test learns from no others."""
    p: float
    """Wilcoxon's signed-rank test of the differences' means by group, two-sided."""
    p_holm: float
    """The same after Holm's correction over all differences asked for at once."""
    detectable: float | None
    """See `smallest_detectable`."""
    detectable_holm: float | None
    """The same at the first, strictest level of Holm's procedure: 5 % over the number of differences."""


def compare_pairs(values_KN: ArrayLike, groups: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[Paired]:
    """For each pair (a, b) the values of row a less those of row b, with Holm's correction over these pairs.

    values_KN: a row for each network, a column for each case, no nan; groups: of the cases.
    """
    values = np.asarray(values_KN, np.float64)
    drawn_RK = resampled_means(values, groups)
    # Scores are read with six decimals: what differs less is rounding, and would break ties.
    by_group = [np.round(group_means(values[a] - values[b], groups), 9) for a, b in pairs]
    raw = [signed_rank_p(differences) for differences in by_group]
    found = []
    for (a, b), differences, p, corrected in zip(pairs, by_group, raw, holm(raw), strict=True):
        found.append(
            Paired(
                float((values[a] - values[b]).mean()),
                None if drawn_RK is None else percentiles(drawn_RK[:, a] - drawn_RK[:, b]),
                int(np.count_nonzero(differences)),
                p,
                corrected,
                smallest_detectable(differences),
                smallest_detectable(differences, ALPHA / len(pairs)),
            )
        )
    return found


def resampled_means(values_KN: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64] | None:
    """Means (R, K) over the cases of resamples of groups, the same groups for all rows; None where there is one group."""
    if len(set(groups)) < 2:
        return None
    sums = np.concatenate([values_KN.T, np.ones((values_KN.shape[1], 1))], axis=1)
    return np.concatenate([drawn[:, :-1] / drawn[:, -1:] for drawn in resampled_sums(sums, groups)])


def group_means(values: ArrayLike, groups: Sequence[str]) -> NDArray[np.float64]:
    """The mean of each group's cases, groups by name."""
    _, place = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return np.bincount(place, np.asarray(values, np.float64)) / np.bincount(place)


def signed_rank_p(differences: ArrayLike) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where nothing differs.

    Zeros are ranked and then left out (Pratt, J. Am. Stat. Assoc. 54, 1959), equal differences share their mean rank. Under
    the null hypothesis each of the others has either sign with probability 1/2, which is gone through exactly to EXACT_TO of
    them; beyond, the sum of ranks is taken as normal, with its variance under these signs.
    """
    from scipy.stats import rankdata

    values = np.asarray(differences, np.float64)
    ranks = np.rint(2 * rankdata(np.abs(values))).astype(np.int64)  # twice the ranks: of ties they are halves
    total, positive = int(ranks[values != 0].sum()), int(ranks[values > 0].sum())
    ranks, larger = ranks[values != 0], max(positive, total - positive)
    if len(ranks) > EXACT_TO:
        return math.erfc((2 * larger - total) / math.sqrt(2 * float(np.square(ranks, dtype=np.float64).sum())))
    chance = np.zeros(total + 1)  # of each sum of positive ranks, one rank more at a time
    chance[0] = 1
    for rank in ranks:
        chance /= 2
        chance[rank:] += chance[:-rank].copy()
    return min(1.0, 2 * float(chance[larger:].sum()))


def smallest_p(differing: int) -> float:
    """No two-sided signed-rank test of so many differences beside 0 gives less: all signs alike, or all the other way."""
    return min(1.0, 2.0 ** (1 - differing))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scand. J. Statist. 6, 1979): p so adjusted keep the family's error at any dependence."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = highest
    return adjusted


def smallest_detectable(differences: ArrayLike, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The smallest true difference that a two-sided test of these groups finds with this probability.

    (t(1 - alpha/2) + t(power)) s / sqrt(G), with s the deviation of the G groups' mean differences and t the quantiles of
    Student's distribution with G - 1 degrees of freedom (Bloom, Evaluation Review 19, 1995). It is a mean over groups, of a
    t-test; the signed-rank test needs 2 % more where differences are normal (Hodges & Lehmann 1956), less where tails are
    heavy. None where it cannot be told: no spread, or too few groups that differ for any p of the signed-rank test below
    alpha.
    """
    from scipy.stats import t

    values = np.asarray(differences, np.float64)
    if len(values) < 2 or smallest_p(int(np.count_nonzero(values))) > alpha:
        return None
    error = values.std(ddof=1) / math.sqrt(len(values))
    return float((t.ppf(1 - alpha / 2, len(values) - 1) + t.ppf(power, len(values) - 1)) * error) or None


def lower_is_better(metric: str) -> bool:
    """Whether a column of metrics_per_case.csv is of distances."""
    known = METRICS.get(metric.removesuffix("_penalised"))
    return not known.higher_is_better if known else metric == "object_hausdorff"


def verdict(paired: Paired, metric: str) -> str:
    """What may be said: better and worse only where interval and corrected test agree."""
    if paired.interval95 is None:
        return "one group: cannot be told"
    low, high = paired.interval95
    if low <= 0 <= high:
        return NO_DIFFERENCE
    if paired.p_holm >= ALPHA:
        return "unclear"
    return "worse" if (paired.difference > 0) == lower_is_better(metric) else "better"
