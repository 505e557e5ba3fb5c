"""Lesions and images found, on drawings counted by hand, and AUROC against its definition."""

import math

import numpy as np
import pytest

from ukan.metrics.intervals import cluster_bootstrap
from ukan.metrics.lesions import Lesions, image_scores, lesion_scores, lesions


def mask(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def test_lesions_found_missed_and_invented() -> None:
    truth = mask("###....##", "###....##", ".........", "##.......")
    guess = mask(".##......", ".##......", ".....###.", "##.......")
    assert lesions(truth, guess) == Lesions(present=3, found=2, predicted=3, false_positives=1)


def test_pieces_that_touch_at_a_corner_are_one_lesion_in_pictures_and_volumes() -> None:
    assert lesions(mask("#.", ".#"), mask("..", "..")).present == 1
    volume = np.zeros((2, 2, 2), bool)
    volume[0, 0, 0] = volume[1, 1, 1] = True
    assert lesions(volume, volume) == Lesions(1, 1, 1, 0)


@pytest.mark.parametrize(("size", "found"), [(10, 1), (11, 0)])
def test_a_tenth_of_iou_is_found_and_less_is_not(size: int, found: int) -> None:
    truth, guess = np.zeros((2, 1, 12), bool)
    truth[0, 0], guess[0, :size] = True, True
    assert lesions(truth, guess) == Lesions(1, found, 1, 1 - found)


def test_a_mask_over_everything_finds_nothing_small() -> None:
    truth = np.zeros((10, 10), bool)
    truth[2, 2] = truth[7, 7] = True
    assert lesions(truth, np.ones_like(truth)) == Lesions(2, 0, 1, 1)


def test_one_piece_finds_one_lesion_only_and_second_pieces_are_not_false() -> None:
    two, one = mask("###.###"), mask("#######")
    assert lesions(two, one) == Lesions(2, 1, 1, 0)
    assert lesions(one, two) == Lesions(1, 1, 2, 0)


def test_as_many_pairs_as_can_be_are_made() -> None:
    # The second piece fits the first lesion better than both other pairs together, but then only one would be found.
    truth = mask("############.###")
    guess = mask("##.#############")
    assert lesions(truth, guess) == Lesions(2, 2, 2, 0)


def test_no_lesions_at_all() -> None:
    empty, some = np.zeros((4, 4), bool), mask("#...", "....", "...#", "....")
    assert lesions(empty, empty) == Lesions(0, 0, 0, 0)
    assert lesions(some, empty) == Lesions(2, 0, 0, 0)
    assert lesions(empty, some) == Lesions(0, 0, 2, 2)


def test_rates_are_of_all_lesions_and_of_all_images() -> None:
    cases = [Lesions(2, 1, 3, 2), Lesions(0, 0, 1, 1), Lesions(3, 3, 3, 0), Lesions(0, 0, 0, 0)]
    scores = lesion_scores(cases, ["a", "b", "c", "d"])
    assert scores.counts == Lesions(5, 4, 7, 3) and scores.cases == 4
    assert scores.sensitivity == 4 / 5 and scores.false_positives_per_image == 3 / 4
    assert scores.sensitivity_interval95 == cluster_bootstrap([1, 3], ["a", "c"], totals=[2, 3])
    assert scores.false_positives_per_image_interval95 == cluster_bootstrap([2, 1, 0, 0], ["a", "b", "c", "d"])


def test_sensitivity_without_lesions_is_undefined() -> None:
    scores = lesion_scores([Lesions(0, 0, 1, 1)], ["a"])
    assert math.isnan(scores.sensitivity) and scores.sensitivity_interval95 is None
    assert scores.false_positives_per_image == 1
    assert math.isnan(lesion_scores([], []).false_positives_per_image)


def test_images_with_and_without_an_object() -> None:
    scores = image_scores([True, True, True, False, False], [0.9, 0.5, 0.6, 0.5, 0.7], 0.5, list("abcde"))
    assert (scores.with_object, scores.without_object) == (3, 2)
    assert (scores.true_positives, scores.true_negatives) == (2, 1)  # a score at the threshold is not called
    assert scores.sensitivity == 2 / 3 and scores.specificity == 1 / 2
    assert scores.auroc == (2 + 0.5 + 1) / 6


def test_auroc_is_the_chance_that_an_object_scores_higher() -> None:
    rng = np.random.default_rng(0)
    present, scores = rng.random(60) < 0.3, np.round(rng.random(60), 1)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[present] for b in scores[~present]]
    assert image_scores(present, scores, 0.5, ["x"] * 60).auroc == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("present", [True, False])
def test_where_one_kind_is_absent_its_rate_and_auroc_are_undefined(present: bool) -> None:
    scores = image_scores([present] * 3, [0.1, 0.6, 0.9], 0.5, list("abc"))
    assert math.isnan(scores.auroc)
    assert math.isnan(scores.specificity) is present and math.isnan(scores.sensitivity) is not present
    assert (scores.specificity_interval95 is None) is present and (scores.sensitivity_interval95 is None) is not present
