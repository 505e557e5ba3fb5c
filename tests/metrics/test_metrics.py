"""The metrics on masks one can count by eye, by the rules for empty ones, and against MONAI; intervals on known data."""

import math

import numpy as np
import pytest
from scipy import ndimage

from ukan.metrics import METRICS, dice, dice_from_iou, hd95_px, iou, pooled_iou, precision, recall
from ukan.metrics.intervals import cluster_bootstrap


def mask(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


EMPTY = mask(".....", ".....", ".....", ".....", ".....")
TRUTH = mask(".....", ".###.", ".###.", ".....", ".....")  # 6 pixels
GUESS = mask(".....", "..###", "..###", "..##.", ".....")  # 8 pixels, 4 of them right
ASIDE = mask("#....", ".....", ".....", ".....", "#....")
FULL = ~EMPTY


def test_overlap_on_a_drawing() -> None:
    assert dice(TRUTH, GUESS) == 2 * 4 / (6 + 8)
    assert iou(TRUTH, GUESS) == 4 / 10
    assert precision(TRUTH, GUESS) == 4 / 8
    assert recall(TRUTH, GUESS) == 4 / 6


def test_a_perfect_prediction_scores_one_and_no_distance() -> None:
    assert [METRICS[name].compute(TRUTH, TRUTH) for name in METRICS] == [1, 1, 1, 1, 0]


def test_no_overlap_scores_zero() -> None:
    assert [f(TRUTH, ASIDE) for f in (dice, iou, precision, recall)] == [0, 0, 0, 0]


def test_dice_and_iou_of_empty_and_empty_are_one() -> None:
    assert dice(EMPTY, EMPTY) == iou(EMPTY, EMPTY) == 1


@pytest.mark.parametrize(("truth", "guess"), [(EMPTY, GUESS), (TRUTH, EMPTY)])
def test_dice_and_iou_are_zero_where_one_is_empty(truth: np.ndarray, guess: np.ndarray) -> None:
    assert dice(truth, guess) == iou(truth, guess) == 0


def test_precision_is_undefined_without_a_prediction_and_recall_without_an_object() -> None:
    assert math.isnan(precision(TRUTH, EMPTY)) and math.isnan(recall(EMPTY, GUESS))
    assert precision(EMPTY, GUESS) == 0 and recall(TRUTH, EMPTY) == 0
    assert math.isnan(precision(EMPTY, EMPTY)) and math.isnan(recall(EMPTY, EMPTY))


@pytest.mark.parametrize(("truth", "guess"), [(EMPTY, EMPTY), (EMPTY, GUESS), (TRUTH, EMPTY)])
def test_a_distance_is_undefined_where_either_is_empty(truth: np.ndarray, guess: np.ndarray) -> None:
    assert math.isnan(hd95_px(truth, guess))


def test_metrics_say_which_way_is_better() -> None:
    for metric in METRICS.values():
        good, bad = metric.compute(TRUTH, GUESS), metric.compute(TRUTH, ASIDE)
        assert (good > bad) is metric.higher_is_better


# Distances


def test_distance_between_two_pixels_is_euclidean() -> None:
    here, there = np.zeros((2, 5, 5), bool)
    here[0, 0], there[3, 4] = True, True
    assert hd95_px(here, there) == hd95_px(there, here) == 5


def test_hd95_is_the_larger_of_the_two_directions_at_the_95th_percentile() -> None:
    point = mask(".....", ".....", "#....", ".....", ".....")
    line = mask(".....", ".....", "#####", ".....", ".....")
    # From the point to the line 0; from the line to the point 0 1 2 3 4, whose 95th percentile is 3 + 0.8 * (4 - 3).
    assert hd95_px(point, line) == hd95_px(line, point) == pytest.approx(3.8)


def test_a_distance_is_between_outlines_and_not_between_areas() -> None:
    ring = mask("#####", "#...#", "#...#", "#...#", "#####")
    assert hd95_px(FULL, ring) == 0  # the image's edge is an outline
    inner = mask(".....", ".###.", ".###.", ".###.", ".....")
    assert hd95_px(FULL, inner) == pytest.approx(math.sqrt(2))  # of 16 outline pixels 4 corners are sqrt(2) away
    assert hd95_px(ring, inner) == hd95_px(FULL, inner)


def blob(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    return smooth > np.quantile(smooth, rng.uniform(0.6, 0.95))


def test_hd95_is_monais_on_random_blobs_that_touch_the_edge_too() -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance

    rng = np.random.default_rng(0)
    touching = 0
    for _ in range(20):
        shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60)))
        truth, guess = blob(rng, shape), blob(rng, shape)
        touching += bool(truth[0].any() or truth[:, -1].any())
        one, other = (torch.from_numpy(m)[None, None].float() for m in (guess, truth))
        theirs = compute_hausdorff_distance(one, other, include_background=True, percentile=95).item()
        assert hd95_px(truth, guess) == pytest.approx(theirs, abs=1e-4)
    assert touching > 5


def test_far_away_parts_of_a_large_image_change_no_distance() -> None:
    here, there = np.zeros((2, 300, 400), bool)
    here[290, 390], there[293, 394] = True, True
    assert hd95_px(here, there) == 5


# Pooled scores, as published


@pytest.mark.parametrize("count", [1, 8, 11, 16])
def test_pooled_iou_is_over_the_pixels_of_each_batch_weighted_by_its_size(count: int) -> None:
    rng = np.random.default_rng(count)
    truths, guesses = rng.random((2, count, 6, 7)) < 0.4
    expected = 0.0
    for start in range(0, count, 8):
        t, p = truths[start : start + 8], guesses[start : start + 8]
        expected += ((t & p).sum() + 1e-5) / ((t | p).sum() + 1e-5) * len(t) / count
    assert pooled_iou(list(truths), list(guesses)) == pytest.approx(expected, abs=1e-12)


def test_pooled_iou_depends_on_the_batch_size_and_takes_images_of_different_sizes() -> None:
    truths, guesses = [FULL, TRUTH, np.ones((2, 2), bool)], [FULL, ASIDE, np.zeros((2, 2), bool)]
    assert pooled_iou(truths, guesses, 3) == pytest.approx(25 / 37, abs=1e-5)
    assert pooled_iou(truths, guesses, 1) == pytest.approx(1 / 3, abs=1e-5)


def test_pooled_iou_of_nothing_but_empty_masks_is_one() -> None:
    assert pooled_iou([EMPTY, EMPTY], [EMPTY, EMPTY]) == 1


def test_dice_from_iou_is_the_dice_of_the_same_counts() -> None:
    assert dice_from_iou(iou(TRUTH, GUESS)) == pytest.approx(dice(TRUTH, GUESS))
    assert dice_from_iou(0) == 0 and dice_from_iou(1) == 1


# Intervals


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
    with pytest.raises(ValueError, match="shorter"):
        cluster_bootstrap([0.1, 0.2], ["a"])
