"""Paired comparisons against independent truths: every sign, textbook numbers, simulated datasets."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from ukan.metrics import comparison
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
    """The signed-rank test's p by going through every assignment of signs to the differences that are not 0."""
    ranks = rankdata(np.abs(differences))[differences != 0]
    differences = differences[differences != 0]
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


@pytest.mark.parametrize(("differing", "equal"), [(1, 9), (4, 95), (7, 7), (11, 3), (12, 0), (12, 80)])
def test_p_is_exact_with_zeros_and_ties(differing: int, equal: int) -> None:
    rng = np.random.default_rng(differing)
    for _ in range(3):
        tied = rng.integers(1, 5, differing) * rng.choice([-1, 1], differing) / 100
        differences = rng.permutation(np.concatenate([tied, np.zeros(equal)]))
        assert signed_rank_p(differences) == pytest.approx(by_all_signs(differences))


def test_a_few_groups_that_differ_among_many_equal_ones_show_nothing() -> None:
    differences = np.array([0.0] * 95 + [0.1, 0.2, 0.3, 0.4])
    assert signed_rank_p(differences) == 0.125 and smallest_detectable(differences) is None
    values = np.stack([0.5 + differences, np.full(99, 0.5)])
    paired = compare_pairs(values, [f"g{k}" for k in range(99)], [(0, 1)])[0]
    assert paired.differing == 4 and paired.p == smallest_p(4) and verdict(paired, "dice") != "better"


@pytest.mark.parametrize(("differing", "equal"), [(3, 30), (5, 94), (6, 40), (8, 92), (9, 9)])
def test_with_mostly_zeros_no_level_is_exceeded_over_all_signs(differing: int, equal: int) -> None:
    sizes = np.round(np.random.default_rng(equal).exponential(0.1, differing) + 0.01, 2)
    p = np.array([signed_rank_p([*(sizes * signs), *[0.0] * equal]) for signs in product((1, -1), repeat=differing)])
    for alpha in (0.01, 0.05, 0.2):
        assert np.mean(p <= alpha) <= alpha
    assert p.min() == smallest_p(differing)


@pytest.mark.parametrize("count", [6, 20, 50, 120])
def test_p_without_zeros_and_ties_is_scipy_s_exact_one(count: int) -> None:
    rng = np.random.default_rng(count)
    for shift in (0.0, 0.2, 0.6):
        differences = rng.normal(shift, 1, count)
        wanted = wilcoxon(differences, method="exact").pvalue
        assert signed_rank_p(differences) == pytest.approx(wanted)


def test_where_p_is_approximated_it_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    for equal, shift in ((0, 0.0), (0, 0.15), (150, 0.15), (300, 0.1)):
        differences = np.concatenate([np.round(rng.normal(shift, 1, 210), 1), np.zeros(equal)])
        differences[:210][differences[:210] == 0] = 0.1
        approximated = signed_rank_p(differences)
        with monkeypatch.context() as patch:
            patch.setattr(comparison, "EXACT_TO", 1000)
            exact = signed_rank_p(differences)
        assert approximated != exact and approximated == pytest.approx(exact, abs=0.01)
        assert approximated == pytest.approx(wilcoxon(differences, zero_method="pratt", correction=False).pvalue)


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
    assert smallest_p(5) > 0.05 > smallest_p(6) and smallest_p(0) == 1
    assert smallest_detectable(np.arange(1.0, 6)) is None, "so no difference could be shown"
    assert smallest_detectable(np.arange(6.0)) is None, "one of the six does not differ"
    six = np.arange(1.0, 7)
    assert smallest_detectable(six) is not None and smallest_detectable(six, 0.01) is None


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
    paired = Paired(sum(interval) / 2, interval, 30, p / 2, p, None, None)
    assert (verdict(paired, "dice"), verdict(paired, "hd95")) == (dice, hd95)


def test_distances_are_better_where_they_are_small() -> None:
    lower = [
        name for name in ("dice", "nsd", "hd95", "hd95_penalised", "object_f1", "object_hausdorff") if lower_is_better(name)
    ]
    assert lower == ["hd95", "hd95_penalised", "object_hausdorff"]
