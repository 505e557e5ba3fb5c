"""Plausibility of maps whose answers are known."""

import math

import cv2
import numpy as np
import pytest

from ukan.metrics.plausibility import SCORES, active, otsu, plausibility, to_map


def square(size: int = 20, low: int = 5, high: int = 15) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return mask


def test_a_map_that_is_the_mask_is_fully_plausible() -> None:
    truth = square()
    scores = plausibility(to_map(np.where(truth, 3.0, -1.0)), truth)
    assert scores["iou"] == 1 and scores["iou_inverted"] == 0 and scores["auroc"] == 1


def test_a_map_that_is_low_on_the_object_is_told_by_the_inverted_iou_and_an_auroc_of_0() -> None:
    truth = square()
    scores = plausibility(to_map(np.where(truth, -1.0, 3.0)), truth)
    assert scores["iou"] == 0 and scores["iou_inverted"] == 1 and scores["auroc"] == 0


def test_a_map_that_covers_half_of_the_object_has_an_iou_of_one_half() -> None:
    truth = square()
    half = truth & (np.arange(20) < 10)
    scores = plausibility(to_map(np.where(half, 1.0, 0.0)), truth)
    assert scores["iou"] == pytest.approx(0.5)
    assert scores["auroc"] == pytest.approx(0.75)  # half of the pairs are right, half are ties
    assert scores["iou_by_chance"] == pytest.approx((0.125 * 0.25) / (0.125 + 0.25 - 0.125 * 0.25))


def test_chance_is_what_blind_maps_have() -> None:
    rng, truth = np.random.default_rng(0), square(200, 20, 120)
    scores = [plausibility(to_map(rng.random((200, 200))), truth) for _ in range(4)]
    assert np.mean([s["iou"] for s in scores]) == pytest.approx(np.mean([s["iou_by_chance"] for s in scores]), abs=0.01)
    assert np.mean([s["auroc"] for s in scores]) == pytest.approx(0.5, abs=0.01)


def test_the_threshold_is_otsu_s() -> None:
    rng = np.random.default_rng(1)
    for share in (0.1, 0.3, 0.5):
        values = to_map(np.where(rng.random((64, 64)) < share, rng.normal(3, 1, (64, 64)), rng.normal(0, 1, (64, 64))))
        known, _ = cv2.threshold(values, 0, 255, cv2.THRESH_OTSU)
        assert otsu(values) == int(known)


def test_an_even_map_is_active_nowhere() -> None:
    truth = square()
    even = to_map(np.full(truth.shape, 7.0))
    assert not active(even).any()
    scores = plausibility(even, truth)
    assert scores["iou"] == 0 and scores["iou_by_chance"] == 0 and scores["auroc"] == 0.5


def test_nothing_is_said_of_an_image_without_an_object() -> None:
    scores = plausibility(to_map(np.random.default_rng(0).random((8, 8))), np.zeros((8, 8), bool))
    assert scores.keys() == set(SCORES) and all(math.isnan(value) for value in scores.values())


def test_an_object_that_fills_the_image_has_no_auroc() -> None:
    scores = plausibility(to_map(np.random.default_rng(0).random((8, 8))), np.ones((8, 8), bool))
    assert math.isnan(scores["auroc"]) and 0 < scores["iou"] < 1
