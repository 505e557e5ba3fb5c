"""Calibration on probabilities whose error is known, pixel by pixel, and the tallies' sums."""

import math

import numpy as np
import pytest

from ukan.metrics.calibration import BINS, ece, near_object, reliability, tally
from ukan.metrics.intervals import interval_of_sums


def test_a_tally_counts_by_hand() -> None:
    p = np.array([[0.0, 0.05, 0.5], [0.99, 1.0, 1 / 15]], np.float32)
    truth = np.array([[False, True, True], [True, False, False]])
    counted = tally(p, truth)
    assert counted.shape == (3, BINS)
    assert counted[0].sum() == 6 and counted[0, [0, 1, 7, 14]].tolist() == [2, 1, 1, 2]
    assert counted[2, [0, 1, 7, 14]].tolist() == [1, 0, 1, 1]
    assert counted[1, 14] == pytest.approx(1.99)


def test_tallies_of_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    p, truth = rng.random((4, 30, 20)), rng.random((4, 30, 20)) < 0.3
    assert sum(tally(a, b) for a, b in zip(p, truth, strict=True)) == pytest.approx(tally(p, truth))


def test_probabilities_that_are_true_have_no_error_and_pushed_ones_have() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(400_000)
    truth = rng.random(p.shape) < p
    assert ece(tally(p, truth)) < 0.005
    pushed = np.clip(p + 0.2, 0, 1)
    gap = np.abs(pushed - p).mean()  # all to one side, so bins hide nothing
    assert ece(tally(pushed, truth)) == pytest.approx(gap, abs=0.005)


def test_ece_is_its_definition_bin_by_bin() -> None:
    rng = np.random.default_rng(2)
    p, truth = rng.random(3000) ** 2, rng.random(3000) < 0.4
    expected = 0.0
    for k in range(BINS):
        inside = (p >= k / BINS) & (p < (k + 1) / BINS)
        expected += inside.mean() * abs(p[inside].mean() - truth[inside].mean())
    assert ece(tally(p, truth)) == pytest.approx(expected)


def test_ece_takes_many_tallies_and_has_an_interval() -> None:
    rng = np.random.default_rng(3)
    tallies = np.stack([tally(p, rng.random(500) < p**2) for p in rng.random((30, 500))])
    assert ece(tallies).shape == (30,)
    assert ece(tallies)[3] == ece(tallies[3])
    low, high = interval_of_sums(tallies, [str(i) for i in range(30)], ece)
    assert low < ece(tallies.sum(axis=0)) < high


def test_no_pixels_have_no_error() -> None:
    assert math.isnan(ece(np.zeros((3, BINS))))


def test_a_reliability_row_says_what_was_promised_and_what_came() -> None:
    p, truth = np.array([0.1, 0.12, 0.9]), np.array([True, False, True])
    rows = reliability(tally(p, truth))
    assert len(rows) == BINS and rows[0].low == 0 and rows[-1].high == 1
    assert rows[1].pixels == 2 and rows[1].mean_probability == pytest.approx(0.11) and rows[1].foreground_share == 0.5
    assert rows[5].pixels == 0 and math.isnan(rows[5].mean_probability) and math.isnan(rows[5].foreground_share)


def test_near_the_object_is_the_box_around_both_twice_as_long_within_the_image() -> None:
    truth, guess = np.zeros((2, 100, 100), bool)
    truth[40:50, 2:6], guess[44:60, 3:9] = True, True
    assert near_object(truth, guess) == (slice(30, 70), slice(0, 13))  # 20 rows and 7 columns, 10 and 4 more on each side


def test_near_the_object_is_nothing_where_nothing_is() -> None:
    empty = np.zeros((3, 8, 8), bool)
    assert tally(np.zeros((3, 8, 8))[near_object(empty, empty)], empty[near_object(empty, empty)]).sum() == 0


def test_sure_background_hides_an_error_that_the_pixels_near_the_object_show() -> None:
    truth = np.zeros((100, 100), bool)
    truth[45:55, 45:55] = True
    p = np.where(truth, 0.6, 0.0)
    box = near_object(truth, p > 0.5)
    assert ece(tally(p, truth)) == pytest.approx(0.4 * 0.01)
    assert ece(tally(p[box], truth[box])) == pytest.approx(0.4 / 4)


def test_arrays_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        tally(np.zeros((2, 3)), np.zeros((3, 2), bool))
