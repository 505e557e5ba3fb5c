"""Intervals against the textbook on known data, for means and for ratios of counts, by cases and by groups."""

import math
import time

import numpy as np
import pytest

from ukan.metrics.intervals import cluster_bootstrap, interval_of_sums


def test_interval_of_independent_cases_is_the_textbooks() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, 400)
    low, high = cluster_bootstrap(values, [str(i) for i in range(400)], repeats=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_cases_of_one_group_count_as_hardly_more_than_one() -> None:
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(0.7, 0.1, 25), 16)  # 25 groups of 16 cases that are all alike
    grouped = cluster_bootstrap(values, [str(i // 16) for i in range(400)])
    alone = cluster_bootstrap(values, [str(i) for i in range(400)])
    once = cluster_bootstrap(values[::16], [str(i) for i in range(25)])
    assert grouped is not None and alone is not None
    assert (grouped[1] - grouped[0]) / (alone[1] - alone[0]) == pytest.approx(4, rel=0.15)  # sqrt(16)
    assert grouped == pytest.approx(once)


def test_nan_is_left_out() -> None:
    rng = np.random.default_rng(2)
    values, groups = list(rng.random(20)), [str(i // 2) for i in range(20)]
    with_nan = cluster_bootstrap([*values, math.nan, math.nan], [*groups, "0", "a group of nan alone"])
    assert with_nan == cluster_bootstrap(values, groups)


def test_there_is_no_interval_of_fewer_than_two_groups() -> None:
    assert cluster_bootstrap([0.1, 0.9], ["a", "a"]) is None
    assert cluster_bootstrap([0.1, math.nan], ["a", "b"]) is None
    assert cluster_bootstrap([], []) is None
    assert cluster_bootstrap([0.1, 0.9], ["a", "b"]) is not None


def test_an_interval_is_the_same_each_time_and_moves_with_seed_and_level() -> None:
    values, groups = list(np.random.default_rng(3).random(30)), [str(i // 3) for i in range(30)]
    first = cluster_bootstrap(values, groups)
    assert first == cluster_bootstrap(values, groups) and first != cluster_bootstrap(values, groups, seed=1)
    assert first is not None
    narrow = cluster_bootstrap(values, groups, level=0.5)
    assert narrow is not None and first[0] < narrow[0] < narrow[1] < first[1]


def test_every_value_needs_its_group() -> None:
    with pytest.raises(ValueError, match="one of each"):
        cluster_bootstrap([0.1, 0.2], ["a"])
    with pytest.raises(ValueError, match="2 cases but 1 groups"):
        interval_of_sums(np.ones((2, 1)), ["a"], lambda s: s[:, 0])


# Ratios of sums, and any other statistic of them


def test_the_interval_of_a_share_of_counts_is_the_binomials() -> None:
    present = np.full(500, 2)
    found = np.random.default_rng(4).binomial(present, 0.8)
    low, high = cluster_bootstrap(found, [str(i) for i in range(500)], totals=present, repeats=4000)
    share = found.sum() / 1000
    half = 1.96 * math.sqrt(share * (1 - share) / 1000)
    assert low == pytest.approx(share - half, abs=0.15 * half) and high == pytest.approx(share + half, abs=0.15 * half)


def test_a_ratio_weighs_cases_by_their_totals_and_leaves_out_those_without() -> None:
    found, present, groups = [0, 1, 9, 0], [1, 1, 9, 0], ["a", "b", "c", "nothing there"]
    low, high = cluster_bootstrap(found, groups, totals=present)
    assert (low, high) == cluster_bootstrap(found[:3], groups[:3], totals=present[:3])
    assert low == 0 and high == 1
    assert cluster_bootstrap([0, 1], ["a", "b"], totals=[0, 1]) is None


def test_a_mean_is_a_ratio_with_totals_of_one() -> None:
    values, groups = np.random.default_rng(5).random(30), [str(i // 3) for i in range(30)]
    assert cluster_bootstrap(values, groups) == cluster_bootstrap(values, groups, totals=np.ones(30))


def test_groups_are_drawn_whole_with_replacement() -> None:
    # Three groups whose sums are digits of a number: each resample must hold three of them.
    sums = np.array([[1.0], [10.0], [50.0], [50.0]])
    seen: list[float] = []

    def keep(resampled: np.ndarray) -> np.ndarray:
        seen.extend(resampled[:, 0])
        return resampled[:, 0]

    interval_of_sums(sums, ["a", "b", "c", "c"], keep, repeats=500)
    assert len(seen) == 500
    assert set(seen) == {a * 1 + b * 10 + (3 - a - b) * 100 for a in range(4) for b in range(4 - a)}


def test_any_statistic_of_sums_of_any_shape_has_an_interval() -> None:
    rng = np.random.default_rng(6)
    sums, groups = rng.random((40, 3, 5)), [str(i // 2) for i in range(40)]
    shapes = []

    def largest(resampled: np.ndarray) -> np.ndarray:
        shapes.append(resampled.shape)
        return resampled.max(axis=(1, 2))

    low, high = interval_of_sums(sums, groups, largest, repeats=50)
    assert sum(shape[0] for shape in shapes) == 50 and {shape[1:] for shape in shapes} == {(3, 5)}
    assert 0 < low < high


def test_resamples_without_a_value_are_left_out_and_a_case_of_nan_is_refused() -> None:
    always = interval_of_sums(np.ones((3, 1)), ["a", "b", "c"], lambda s: np.full(len(s), np.nan))
    assert always is None
    some = interval_of_sums(np.ones((3, 1)), ["a", "b", "c"], lambda s: np.where(np.arange(len(s)) % 2, np.nan, s[:, 0]))
    assert some == (3, 3)
    with pytest.raises(ValueError, match="nan"):
        interval_of_sums(np.array([[1.0], [np.nan]]), ["a", "b"], lambda s: s[:, 0])


def test_memory_is_bounded_by_drawing_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = list(np.random.default_rng(7).random(40)), [str(i // 2) for i in range(40)]
    whole = cluster_bootstrap(values, groups, repeats=100)
    monkeypatch.setattr("ukan.metrics.intervals._DRAWN_AT_ONCE", 130)
    assert cluster_bootstrap(values, groups, repeats=100) == pytest.approx(whole)


def test_twenty_metrics_of_two_thousand_cases_take_seconds() -> None:
    values, groups = np.random.default_rng(8).random((20, 2000)), [str(i) for i in range(2000)]
    start = time.process_time()
    for metric in values:
        cluster_bootstrap(metric, groups)
    assert time.process_time() - start < 10
