"""Paired comparisons against independent truths: every sign, textbook numbers, simulated datasets."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata

from ukan.metrics.comparison import (
    NO_DIFFERENCE,
    Paired,
    compare_pairs,
    group_means,
    holm,
    lower_is_better,
    signed_rank_p,
    smallest_detectable,
    smallest_p,
    verdict,
)
from ukan.metrics.intervals import cluster_bootstrap


def by_all_signs(differences: np.ndarray) -> float:
    """The signed-rank test's p by going through every assignment of signs."""
    ranks = rankdata(np.abs(differences))
    centre = ranks.sum() / 2
    observed = abs(ranks[differences > 0].sum() - centre)
    sums = [ranks[np.array(signs)].sum() for signs in product((True, False), repeat=len(ranks))]
    return float(np.mean([abs(total - centre) >= observed - 1e-9 for total in sums]))


@pytest.mark.parametrize("count", [5, 8, 11])
def test_p_of_few_groups_is_exact(count: int) -> None:
    rng = np.random.default_rng(count)
    for shift in (0.0, 0.5, 2.0):
        differences = rng.normal(shift, 1, count)
        assert signed_rank_p(differences) == pytest.approx(by_all_signs(differences))


def test_p_of_many_groups_is_below_its_level_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    rejected = np.mean([signed_rank_p(rng.standard_t(3, 80)) < 0.05 for _ in range(1000)])
    assert 0.03 < rejected < 0.07


def test_networks_that_do_not_differ_have_a_p_of_one() -> None:
    assert signed_rank_p(np.zeros(20)) == 1.0
    assert 0 < signed_rank_p([0.0] * 15 + [0.1, -0.2, 0.3, 0.25, 0.4]) < 1


def test_fewer_than_six_groups_cannot_reach_five_percent() -> None:
    for groups in (4, 5, 6, 9):
        assert smallest_p(groups) == pytest.approx(signed_rank_p(np.arange(1.0, groups + 1)))
    assert smallest_p(5) > 0.05 > smallest_p(6)
    assert smallest_detectable(np.arange(5.0)) is None, "so no difference could be shown"
    assert smallest_detectable(np.arange(6.0)) is not None and smallest_detectable(np.arange(6.0), 0.01) is None


def test_holm_gives_the_numbers_of_a_worked_example_whatever_the_order() -> None:
    # Four p of 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, and never below the one before.
    assert holm([0.03, 0.005, 0.04, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([0.04]) == [0.04] and holm([]) == []


def test_holm_keeps_the_error_of_all_comparisons_together() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(600, 1, 20))  # all are compared with one reference: far from independent
    runs = rng.normal(size=(600, 4, 20)) - shared
    any_found = [min(holm([signed_rank_p(row) for row in rows])) < 0.05 for rows in runs]
    assert 0.01 < np.mean(any_found) < 0.07


@pytest.mark.parametrize(("groups", "alpha"), [(12, 0.05), (30, 0.05), (30, 0.01), (80, 0.05)])
def test_the_smallest_detectable_difference_is_found_in_about_80_percent_of_datasets(groups: int, alpha: float) -> None:
    rng = np.random.default_rng(groups)
    sample = rng.normal(size=groups)
    spread = 0.07
    sample *= spread / sample.std(ddof=1)
    smallest = smallest_detectable(sample, alpha)
    assert smallest
    found = [signed_rank_p(rng.normal(smallest, spread, groups)) < alpha for _ in range(1500)]
    assert 0.74 < np.mean(found) < 0.85
    half = [signed_rank_p(rng.normal(smallest / 2, spread, groups)) < alpha for _ in range(300)]
    assert np.mean(half) < 0.45


def test_what_was_shown_of_a_dataset_s_own_differences_is_where_its_test_would_find_it() -> None:
    """The whole way: cases in groups of unlike sizes, the difference estimated from one dataset, found in others like it."""
    rng = np.random.default_rng(5)
    groups = [f"g{k}" for k in range(24) for _ in range(1 + k % 4)]

    def dataset(shift: float) -> np.ndarray:
        of_group = np.repeat(rng.normal(shift, 0.05, 24), [1 + k % 4 for k in range(24)])
        first = rng.uniform(0.5, 0.9, len(groups))
        return np.stack([first, first + of_group + rng.normal(0, 0.03, len(groups))])

    estimates = [compare_pairs(dataset(0), groups, [(1, 0)])[0].detectable for _ in range(25)]
    smallest = float(np.mean([estimate for estimate in estimates if estimate is not None]))
    found = [compare_pairs(dataset(smallest), groups, [(1, 0)])[0].p < 0.05 for _ in range(250)]
    assert 0.7 < np.mean(found) < 0.9


def test_intervals_of_pairs_are_those_of_the_paired_cluster_bootstrap() -> None:
    rng = np.random.default_rng(2)
    values = rng.uniform(size=(4, 60))
    groups = [f"g{k % 13}" for k in range(60)]
    pairs = [(1, 0), (3, 2), (0, 3)]
    for (a, b), paired in zip(pairs, compare_pairs(values, groups, pairs), strict=True):
        difference = values[a] - values[b]
        assert paired.difference == pytest.approx(difference.mean())
        assert paired.interval95 == pytest.approx(cluster_bootstrap(difference, groups))
        means = [difference[[g == name for g in groups]].mean() for name in sorted(set(groups))]
        assert group_means(difference, groups) == pytest.approx(means)
        assert paired.p == pytest.approx(signed_rank_p(means)) and paired.p_holm >= paired.p
        assert paired.detectable_holm and paired.detectable and paired.detectable_holm > paired.detectable


def test_rounding_of_stored_scores_breaks_no_ties() -> None:
    values = np.array([[0.1 + 0.2, 0.7, 0.5, 0.9, 0.3, 0.6], [0.3, 0.7, 0.4, 0.8, 0.2, 0.4]])
    assert compare_pairs(values, list("abcdef"), [(0, 1)])[0].p == signed_rank_p([0, 0, 0.1, 0.1, 0.1, 0.2])


def test_one_group_gives_no_interval_and_no_verdict() -> None:
    paired = compare_pairs(np.array([[0.1, 0.2], [0.3, 0.5]]), ["a", "a"], [(1, 0)])[0]
    assert paired.interval95 is None and paired.detectable is None and paired.p == 1.0
    assert verdict(paired, "dice") == "one group: cannot be told"


@pytest.mark.parametrize(
    ("interval", "p", "dice", "hd95"),
    [
        ((0.01, 0.05), 0.01, "better", "worse"),
        ((-0.05, -0.01), 0.01, "worse", "better"),
        ((-0.01, 0.05), 0.01, NO_DIFFERENCE, NO_DIFFERENCE),
        ((0.0, 0.05), 0.6, NO_DIFFERENCE, NO_DIFFERENCE),
        ((0.01, 0.05), 0.05, "unclear", "unclear"),
    ],
)
def test_better_is_said_only_where_interval_and_test_agree(
    interval: tuple[float, float], p: float, dice: str, hd95: str
) -> None:
    paired = Paired(sum(interval) / 2, interval, p / 2, p, None, None)
    assert (verdict(paired, "dice"), verdict(paired, "hd95")) == (dice, hd95)


def test_distances_are_better_where_they_are_small() -> None:
    lower = [
        name for name in ("dice", "nsd", "hd95", "hd95_penalised", "object_f1", "object_hausdorff") if lower_is_better(name)
    ]
    assert lower == ["hd95", "hd95_penalised", "object_hausdorff"]
