"""A predicted Dice: the estimate on simulated truths, the curve against sklearn's, its validation on counted cases."""

import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from ukan.metrics import dice
from ukan.metrics.quality import agreement, apply_curve, cross_fit, expected_dice, fit_curve, validate


def test_expected_dice_by_hand() -> None:
    p = np.array([[0.9, 0.6], [0.3, 0.2]])
    assert expected_dice(p, 0.5) == pytest.approx(2 * 1.5 / (2.0 + 2))
    assert expected_dice(p, 0.25) == pytest.approx(2 * 1.8 / (2.0 + 3))


def test_sure_probabilities_expect_a_perfect_dice() -> None:
    sure = np.zeros((4, 5, 6), np.float32)
    assert expected_dice(sure, 0.5) == 1
    sure[1:3] = 1
    assert expected_dice(sure, 0.5) == 1


def test_expected_dice_is_the_mean_over_truths_drawn_from_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = np.clip(rng.normal(0.4, 0.3, (60, 60)), 0, 1)
    drawn = [dice(rng.random(p.shape) < p, p > 0.5) for _ in range(50)]
    assert expected_dice(p, 0.5) == pytest.approx(np.mean(drawn), abs=0.005)


def test_of_an_empty_mask_it_is_the_chance_that_nothing_is_there() -> None:
    p = np.full((5, 5), 0.1)
    p[2, 2] = 0.4
    assert expected_dice(p, 0.5) == pytest.approx(0.6)


def test_agreement_is_the_mean_dice_with_the_consensus() -> None:
    consensus = np.array([[True, True, False, False]])
    members = np.array([consensus, [[True, False, False, False]], [[False, False, True, True]]])
    assert agreement(members, consensus) == pytest.approx((1 + 2 / 3 + 0) / 3)


def noisy(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.beta(5, 2, count)
    return np.clip(truth**0.5 + rng.normal(0, 0.05, count), 0, 1), truth


def test_the_curve_is_sklearns_within_and_beyond_its_knots_and_survives_json() -> None:
    from sklearn.isotonic import IsotonicRegression

    estimates, truth = noisy(200)
    curve = json.loads(json.dumps(fit_curve(estimates, truth)))
    asked = np.linspace(-0.5, 1.5, 101)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(estimates, truth).predict(asked)
    assert apply_curve(curve, asked) == pytest.approx(theirs)


def test_cross_fitting_predicts_each_fold_by_the_others_alone() -> None:
    estimates, truth = noisy(90)
    folds = np.arange(90) % 3
    predicted = cross_fit(estimates, truth, folds)
    changed = truth.copy()
    changed[folds == 1] = 0  # what is true in a fold must not matter to its own prediction
    assert np.array_equal(cross_fit(estimates, changed, folds)[folds == 1], predicted[folds == 1])
    assert not np.array_equal(cross_fit(estimates, changed, folds)[folds == 0], predicted[folds == 0])
    assert np.abs(predicted - truth).mean() < np.abs(estimates - truth).mean()


def test_cross_fitting_needs_two_folds() -> None:
    with pytest.raises(ValueError, match="two folds"):
        cross_fit([0.1, 0.2], [0.1, 0.2], [0, 0])


def test_validation_by_hand() -> None:
    truth = [0.9, 0.8, 0.4, 0.1, 0.7, 0.9, 0.6, 0.3, 0.8, 0.9]
    predicted = [0.9, 0.7, 0.6, 0.2, 0.3, 0.8, 0.7, 0.5, 0.9, 0.8]
    found = validate(predicted, truth)
    assert (found.cases, found.failures, found.flagged) == (10, 3, 2)
    assert found.caught == pytest.approx(1 / 3)  # of the two lowest, 0.2 and 0.3, one failed; three failed in all
    assert found.mean_absolute_error == pytest.approx(np.mean(np.abs(np.subtract(predicted, truth))))
    assert found.spearman == pytest.approx(spearmanr(predicted, truth).statistic)


def test_equal_predictions_share_the_places_left_in_the_lowest_fifth() -> None:
    truth = [0.1, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    assert validate([0.5] * 10, truth).caught == pytest.approx(2 / 10)  # as drawing lots would
    assert validate([0.5] * 4 + [0.9] * 6, truth).caught == pytest.approx(2 / 4)
    assert validate([0.1] + [0.5] * 9, truth).caught == pytest.approx((1 + 1 / 9) / 2)


def test_validation_of_what_does_not_vary_is_undefined_where_it_must_be() -> None:
    fine = validate([0.5, 0.5, 0.5], [0.9, 0.8, 0.7])
    assert math.isnan(fine.spearman) and math.isnan(fine.caught) and fine.failures == 0
    assert validate([0.9], [0.4]).caught == 1
