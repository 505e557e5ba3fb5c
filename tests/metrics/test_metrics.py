"""The metrics on masks one can count by eye, by the rules for empty ones, and against MONAI in pixels and millimetres."""

import math

import numpy as np
import pytest
from scipy import ndimage

from ukan.metrics import METRICS, bounding_box, dice, dice_from_iou, iou, measure, outline, penalised, pooled_iou


def mask(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


EMPTY = mask(".....", ".....", ".....", ".....", ".....")
TRUTH = mask(".....", ".###.", ".###.", ".....", ".....")  # 6 pixels
GUESS = mask(".....", "..###", "..###", "..##.", ".....")  # 8 pixels, 4 of them right
ASIDE = mask("#....", ".....", ".....", ".....", "#....")
FULL = ~EMPTY
SHARES = ("dice", "iou", "precision", "recall", "specificity", "iou_65", "nsd")
LENGTHS = ("hd95", "assd")


def test_overlap_on_a_drawing() -> None:
    scores = measure(TRUTH, GUESS)
    assert scores["dice"] == dice(TRUTH, GUESS) == 2 * 4 / (6 + 8)
    assert scores["iou"] == iou(TRUTH, GUESS) == 4 / 10
    assert scores["precision"] == 4 / 8
    assert scores["recall"] == 4 / 6
    assert scores["specificity"] == 15 / 19
    assert scores["iou_65"] == 0


def test_a_perfect_prediction_scores_one_and_no_distance() -> None:
    assert measure(TRUTH, TRUTH) == dict.fromkeys(SHARES, 1) | dict.fromkeys(LENGTHS, 0)


def test_no_overlap_scores_zero() -> None:
    scores = measure(TRUTH, ASIDE)
    assert [scores[name] for name in ("dice", "iou", "precision", "recall", "iou_65")] == [0] * 5


def test_measure_gives_what_each_metric_gives_alone() -> None:
    for spacing in (None, (0.5, 2.0)):
        alone = {name: metric.compute(TRUTH, GUESS, spacing) for name, metric in METRICS.items()}
        assert measure(TRUTH, GUESS, spacing) == alone


@pytest.mark.parametrize(("kept", "expected"), [(13, 0.65), (12, 0)])
def test_an_iou_below_65_percent_counts_nothing(kept: int, expected: float) -> None:
    truth, guess = np.zeros((2, 4, 10), bool)
    truth.ravel()[:20], guess.ravel()[:kept] = True, True
    assert METRICS["iou_65"].compute(truth, guess) == expected


# Empty masks


def test_empty_against_empty_is_all_right() -> None:
    scores = measure(EMPTY, EMPTY)
    assert [scores[name] for name in ("dice", "iou", "iou_65", "nsd", "specificity")] == [1] * 5
    assert all(math.isnan(scores[name]) for name in ("precision", "recall", "hd95", "assd"))


@pytest.mark.parametrize(("truth", "guess"), [(EMPTY, GUESS), (TRUTH, EMPTY)])
def test_where_one_is_empty_overlaps_are_zero_and_distances_undefined(truth: np.ndarray, guess: np.ndarray) -> None:
    scores = measure(truth, guess)
    assert [scores[name] for name in ("dice", "iou", "iou_65", "nsd")] == [0] * 4
    assert math.isnan(scores["hd95"]) and math.isnan(scores["assd"])


def test_precision_recall_and_specificity_are_undefined_without_what_they_are_a_share_of() -> None:
    assert math.isnan(measure(TRUTH, EMPTY)["precision"]) and measure(EMPTY, GUESS)["precision"] == 0
    assert math.isnan(measure(EMPTY, GUESS)["recall"]) and measure(TRUTH, EMPTY)["recall"] == 0
    assert math.isnan(measure(FULL, GUESS)["specificity"]) and measure(EMPTY, FULL)["specificity"] == 0


def test_a_penalised_distance_costs_the_diagonal_where_one_mask_is_empty() -> None:
    assert penalised(2.5, TRUTH, GUESS) == 2.5
    assert penalised(math.nan, EMPTY, EMPTY) == 0
    assert penalised(math.nan, TRUTH, EMPTY) == penalised(math.nan, EMPTY, GUESS) == pytest.approx(math.hypot(5, 5))
    volume = np.zeros((4, 6, 8), bool)
    assert penalised(math.nan, volume, ~volume, (2.0, 1.0, 0.5)) == pytest.approx(math.sqrt(8**2 + 6**2 + 4**2))


def test_metrics_say_which_way_is_better_and_which_are_lengths() -> None:
    worst = mask(".....", ".....", ".....", ".....", "#####")
    for name, metric in METRICS.items():
        bad, good = metric.compute(TRUTH, worst), metric.compute(TRUTH, TRUTH)
        assert good > bad if metric.higher_is_better else good < bad
        twice = metric.compute(TRUTH, worst, (2.0, 2.0))
        if metric.unit == "length":
            assert twice == pytest.approx(2 * bad)
        elif name != "nsd":  # whose tolerance is a length
            assert twice == bad


@pytest.mark.parametrize(
    ("truth", "guess", "spacing", "message"),
    [
        (TRUTH, GUESS[:4], None, "one shape"),
        (TRUTH[0], GUESS[0], None, "2 or 3 dimensions"),
        (TRUTH.astype(np.uint8), GUESS, None, "bool"),
        (TRUTH, GUESS, (1.0, 1.0, 1.0), "spacing"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    truth: np.ndarray, guess: np.ndarray, spacing: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(truth, guess, spacing)


# Distances between outlines


def hd95(truth: np.ndarray, guess: np.ndarray, spacing: tuple[float, ...] | None = None) -> float:
    return METRICS["hd95"].compute(truth, guess, spacing)


def test_distance_between_two_pixels_is_euclidean_in_the_unit_of_the_spacing() -> None:
    here, there = np.zeros((2, 5, 5), bool)
    here[0, 0], there[3, 4] = True, True
    for name in LENGTHS:
        assert METRICS[name].compute(here, there) == METRICS[name].compute(there, here) == 5
        assert METRICS[name].compute(here, there, (4.0, 1.25)) == 13


def test_hd95_is_the_larger_of_the_two_directions_at_the_95th_percentile() -> None:
    point = mask(".....", ".....", "#....", ".....", ".....")
    line = mask(".....", ".....", "#####", ".....", ".....")
    # From the point to the line 0; from the line to the point 0 1 2 3 4, whose 95th percentile is 3 + 0.8 * (4 - 3).
    assert hd95(point, line) == hd95(line, point) == pytest.approx(3.8)
    # The mean over the six pixels of both outlines; four of them are no further than 2 px.
    assert METRICS["assd"].compute(point, line) == pytest.approx(10 / 6)
    assert METRICS["nsd"].compute(point, line) == pytest.approx(4 / 6)


def test_a_distance_is_between_outlines_and_not_between_areas() -> None:
    ring = mask("#####", "#...#", "#...#", "#...#", "#####")
    assert hd95(FULL, ring) == 0  # the image's edge is an outline
    inner = mask(".....", ".###.", ".###.", ".###.", ".....")
    assert hd95(FULL, inner) == pytest.approx(math.sqrt(2))  # of 16 outline pixels 4 corners are sqrt(2) away
    assert hd95(ring, inner) == hd95(FULL, inner)


@pytest.mark.parametrize("shape", [(9, 14), (1, 7), (5, 8, 6), (2, 3, 1)])
def test_an_outline_is_what_an_erosion_takes_away(shape: tuple[int, ...]) -> None:
    some = np.random.default_rng(0).random(shape) < 0.8
    assert np.array_equal(outline(some), some & ~ndimage.binary_erosion(some))


def test_the_bounding_box_is_scipys() -> None:
    some = np.random.default_rng(0).random((9, 40, 30)) < 0.001
    assert some.any()
    assert bounding_box(some) == ndimage.find_objects(some.astype(int))[0]


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    return smooth > np.quantile(smooth, rng.uniform(0.6, 0.95))


def monai(truth: np.ndarray, guess: np.ndarray, spacing: tuple[float, ...] | None) -> dict[str, float]:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    g, t = (torch.from_numpy(m)[None, None].float() for m in (guess, truth))
    options = {"include_background": True, "spacing": spacing}
    return {
        "hd95": compute_hausdorff_distance(g, t, percentile=95, **options).item(),
        "assd": compute_average_surface_distance(g, t, symmetric=True, **options).item(),
        "nsd": compute_surface_dice(g, t, class_thresholds=[2.0], **options).item(),
    }


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.7, 0.3)])
def test_distances_are_monais_on_random_pictures_that_touch_the_edge_too(spacing: tuple[float, ...] | None) -> None:
    rng = np.random.default_rng(0)
    touching = 0
    for _ in range(10):
        shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60)))
        truth, guess = blob(rng, shape), blob(rng, shape)
        touching += bool(truth[0].any() or truth[:, -1].any())
        ours, theirs = measure(truth, guess, spacing), monai(truth, guess, spacing)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-4)
    assert touching > 3


@pytest.mark.parametrize("spacing", [None, (2.5, 0.8, 0.7)])
def test_distances_are_monais_on_random_volumes_in_millimetres(spacing: tuple[float, ...] | None) -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        shape = (int(rng.integers(5, 15)), int(rng.integers(20, 40)), int(rng.integers(20, 40)))
        truth, guess = blob(rng, shape), blob(rng, shape)
        ours, theirs = measure(truth, guess, spacing), monai(truth, guess, spacing)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-4)


def test_a_stack_of_one_slice_scores_as_the_picture() -> None:
    rng = np.random.default_rng(2)
    truth, guess = blob(rng, (30, 40)), blob(rng, (30, 40))
    assert measure(truth[None], guess[None], (5.0, 0.7, 0.3)) == measure(truth, guess, (0.7, 0.3))
    nothing = np.zeros_like(truth)
    expected = penalised(math.nan, truth, nothing, (0.7, 0.3))
    assert penalised(math.nan, truth[None], nothing[None], (5.0, 0.7, 0.3)) == expected


def test_far_away_parts_of_a_large_image_change_no_distance() -> None:
    here, there = np.zeros((2, 300, 400), bool)
    here[290, 390], there[293, 394] = True, True
    assert hd95(here, there) == 5


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
