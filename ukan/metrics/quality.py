"""How good is this mask, without a truth: estimates of Dice from probabilities or members, and their calibration.

An estimate is turned into a predicted Dice by an isotonic curve, fitted on held-out cases; `cross_fit` predicts each fold's
cases by a curve fitted on the others, and `validate` says how far that can be trusted.
"""

from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr

from ukan.metrics import Mask, dice

FAILURE = 0.5
"""A Dice below it is a failure."""

FLAGGED = 0.2
"""The share of cases, lowest predicted first, that `validate` looks for failures in."""


def expected_dice(probabilities: NDArray[np.floating], threshold: float) -> float:
    """Dice that the probabilities expect of their own mask, those above the threshold; any number of dimensions.

    2 * sum of p inside the mask / (sum of p + size of the mask): the soft Dice confidence of Borges et al. 2024
    (arXiv:2402.10665), near the optimum where pixels err independently. Where the mask is empty it is 1 - max p: a Dice of 1
    if the truth is empty too, whose chance is at most that, and is that where pixels err together as one object's do.
    """
    mask = probabilities > threshold
    if not mask.any():
        return 1.0 - float(probabilities.max())
    total = float(probabilities.sum(dtype=np.float64)) + int(mask.sum())
    return 2 * float(probabilities[mask].sum(dtype=np.float64)) / total


def agreement(members: NDArray[np.bool_], consensus: Mask) -> float:
    """Mean Dice of the members' masks (M, ...) with the consensus mask (...)."""
    return float(np.mean([dice(member, consensus) for member in members]))


class Curve(TypedDict):
    """A rising curve as its knots, straight between them and level beyond: plain lists, to be stored as JSON."""

    estimate: list[float]
    dice: list[float]


def fit_curve(estimates: ArrayLike, dices: ArrayLike) -> Curve:
    """The isotonic curve from estimates (N,) to Dice (N,) by least squares."""
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1).fit(np.asarray(estimates), np.asarray(dices))
    return Curve(estimate=model.X_thresholds_.tolist(), dice=model.y_thresholds_.tolist())


def apply_curve(curve: Curve, estimates: ArrayLike) -> NDArray[np.float64]:
    """Predicted Dice (N,) of estimates (N,)."""
    return np.interp(np.asarray(estimates, np.float64), curve["estimate"], curve["dice"])


def cross_fit(estimates: ArrayLike, dices: ArrayLike, folds: ArrayLike) -> NDArray[np.float64]:
    """Predicted Dice (N,) of each case by the curve of the other folds' cases; folds (N,) must be two or more."""
    estimate, truth, fold = np.asarray(estimates, np.float64), np.asarray(dices, np.float64), np.asarray(folds)
    names = np.unique(fold)
    if len(names) < 2:
        raise ValueError("a curve is only validated across two folds or more")
    predicted = np.empty_like(estimate)
    for name in names:
        inside = fold == name
        predicted[inside] = apply_curve(fit_curve(estimate[~inside], truth[~inside]), estimate[inside])
    return predicted


class Validation(NamedTuple):
    """How well a predicted Dice predicts; nan where undefined (no failures, or nothing varies)."""

    cases: int
    mean_absolute_error: float
    spearman: float
    failures: int
    flagged: int
    caught: float


def validate(predicted: ArrayLike, dices: ArrayLike) -> Validation:
    """Predicted Dice (N,) against the true one (N,), N at least 1.

    caught is the share of true failures (Dice below 0.5) among the fifth of cases predicted lowest. A curve has level
    pieces, so predictions are often equal: where the fifth ends among equals, each counts by the share of them that fits in.
    """
    p, truth = np.asarray(predicted, np.float64), np.asarray(dices, np.float64)
    failed = truth < FAILURE
    flagged = int(np.ceil(FLAGGED * len(p)))
    last = np.sort(p)[flagged - 1]
    below, equal = p < last, p == last
    caught = failed[below].sum() + failed[equal].sum() * (flagged - below.sum()) / equal.sum()
    varies = len(p) > 1 and np.ptp(p) > 0 and np.ptp(truth) > 0
    return Validation(
        cases=len(p),
        mean_absolute_error=float(np.abs(p - truth).mean()),
        spearman=float(spearmanr(p, truth).statistic) if varies else float("nan"),
        failures=int(failed.sum()),
        flagged=flagged,
        caught=float(caught / failed.sum()) if failed.any() else float("nan"),
    )
