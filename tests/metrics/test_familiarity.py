"""Unlike the training set: the distance against its definition, and the promised rate of false flags."""

import math
from pathlib import Path

import numpy as np
import pytest

from ukan.metrics.familiarity import distance, fit, threshold


def cases(rng: np.random.Generator, count: int, features: int) -> np.ndarray:
    """Correlated features of unlike scales, as pooled features of an encoder are."""
    mixing = np.random.default_rng(9).standard_normal((8, features))
    scales = np.geomspace(0.01, 10, features)
    return ((rng.standard_normal((count, 8)) @ mixing + rng.standard_normal((count, features))) * scales).astype(np.float32)


def test_with_many_cases_it_is_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    training, asked = cases(rng, 50_000, 5), cases(rng, 20, 5)
    away = asked - training.mean(axis=0)
    expected = np.sqrt(np.einsum("nf,fg,ng->n", away, np.linalg.inv(np.cov(training.T.astype(float))), away))
    assert distance(fit(training), asked) == pytest.approx(expected, rel=0.01)


def test_it_does_not_depend_on_the_features_units() -> None:
    rng = np.random.default_rng(1)
    training, asked, units = cases(rng, 40, 30), cases(rng, 5, 30), rng.uniform(0.1, 100, 30)
    assert distance(fit(training * units), asked * units) == pytest.approx(distance(fit(training), asked), rel=1e-4)


@pytest.mark.parametrize("features", [16, 512])
def test_held_out_cases_are_falsely_flagged_at_the_promised_rate(features: int) -> None:
    rng = np.random.default_rng(2)
    distances = distance(fit(cases(rng, 300, features)), cases(rng, 6000, features))
    # The promise is over draws of the held-out cases too: any one set of 100 sets the limit a little high or low.
    draws = [rng.permutation(distances) for _ in range(300)]
    rates = [(drawn[100:] > threshold(drawn[:100], 0.95)).mean() for drawn in draws]
    assert np.mean(rates) == pytest.approx(5 / 101, abs=0.005)


def test_a_threshold_from_training_cases_would_flag_far_too_many() -> None:
    rng = np.random.default_rng(3)
    training = cases(rng, 300, 512)
    model = fit(training)
    wrong = threshold(distance(model, training), 0.95)
    assert (distance(model, cases(rng, 400, 512)) > wrong).mean() > 0.5


def test_unlike_images_are_flagged() -> None:
    rng = np.random.default_rng(4)
    model = fit(cases(rng, 300, 128))
    limit = threshold(distance(model, cases(rng, 200, 128)), 0.99)
    unlike = cases(rng, 200, 128) + rng.standard_normal(128).astype(np.float32) * 2 * np.geomspace(0.01, 10, 128)
    assert (distance(model, unlike) > limit).mean() > 0.9


def test_a_feature_that_never_varied_counts_when_it_does() -> None:
    rng = np.random.default_rng(5)
    training = cases(rng, 100, 6)
    training[:, 2] = 0.1
    model = fit(training)
    usual = training[:1].copy()
    odd = usual.copy()
    odd[0, 2] = 50
    assert np.isfinite(distance(model, usual)).all()
    assert distance(model, odd)[0] > distance(model, usual)[0] + 10


def test_a_model_is_saved_as_plain_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    model, asked = fit(cases(rng, 30, 10)), cases(rng, 4, 10)
    np.savez(tmp_path / "familiarity.npz", **model)
    with np.load(tmp_path / "familiarity.npz", allow_pickle=False) as saved:
        assert np.array_equal(distance(dict(saved), asked), distance(model, asked))


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(19, 0.95, 19), (18, 0.95, math.inf), (99, 0.99, 99), (39, 0.95, 38)]
)
def test_a_threshold_promises_no_more_than_its_cases_can_keep(count: int, share: float, expected: float) -> None:
    assert threshold(np.random.default_rng(0).permutation(count) + 1, share) == expected
