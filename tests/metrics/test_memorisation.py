"""Nearest training images against brute force, the promised rate of false flags, and copies that are found."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from ukan.metrics.memorisation import SHARE, flagged, nearest, nearest_features, nearest_images, threshold


def pictures(rng: np.random.Generator, count: int, side: int = 32) -> np.ndarray:
    return rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def test_the_nearest_are_those_of_all_distances() -> None:
    rng = np.random.default_rng(0)
    queries, references = rng.standard_normal((600, 7)), rng.standard_normal((90, 7))
    distances, indices = nearest(queries[None], references, 3)
    every = cdist(queries, references)
    assert np.array_equal(indices, np.argsort(every, axis=1)[:, :3])
    assert distances == pytest.approx(np.sort(every, axis=1)[:, :3])


def test_a_query_is_as_near_as_its_nearest_view() -> None:
    views = np.array([[[5.0, 0]], [[0.0, 1]]])
    distances, indices = nearest(views, np.array([[9.0, 0], [0, 0]]))
    assert distances.tolist() == [[1.0]] and indices.tolist() == [[1]]


def test_a_copy_is_at_exactly_zero_far_from_the_origin_too() -> None:
    references = np.random.default_rng(1).standard_normal((50, 300)).astype(np.float32) + 1000
    distances, indices = nearest(references[None, 10:20], references)
    assert not distances.any() and indices[:, 0].tolist() == list(range(10, 20))


def test_images_differ_by_the_root_mean_square_of_white() -> None:
    black, grey = np.zeros((1, 64, 48, 3), np.uint8), np.full((1, 64, 48, 3), 51, np.uint8)
    distances, _ = nearest_images(grey, black)
    assert distances == pytest.approx(np.array([[0.2]]))  # one reference: no second nearest


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1)])
def test_a_mirrored_copy_is_a_copy(axes: tuple[int, ...]) -> None:
    references = pictures(np.random.default_rng(2), 8)
    distances, indices = nearest_images(np.flip(references[5], axes)[None], references)
    assert distances[0, 0] == 0 and indices[0, 0] == 5 and distances[0, 1] > 0.1


def test_pictures_smaller_than_the_comparison_and_of_one_channel_are_taken_as_they_are() -> None:
    references = pictures(np.random.default_rng(3), 4, side=9)[..., :1]
    distances, indices = nearest_images(references, references)
    assert not distances[:, 0].any() and indices[:, 0].tolist() == [0, 1, 2, 3]


def test_features_are_compared_by_the_cosine() -> None:
    queries, references = np.random.default_rng(4).standard_normal((2, 12, 5))
    distances, _ = nearest_features(queries * 7, references)
    assert distances == pytest.approx(np.sort(cdist(queries, references, "cosine"), axis=1)[:, :2])
    assert nearest_features(np.zeros((1, 5)), references)[0] == pytest.approx(np.full((1, 2), 0.5))


def test_unseen_real_images_are_flagged_at_most_at_the_promised_rate() -> None:
    rng = np.random.default_rng(5)
    training = rng.standard_normal((300, 6))
    distances = nearest(rng.standard_normal((1, 4000, 6)), training)[0][:, 0]
    draws = [rng.permutation(distances) for _ in range(300)]
    rates = [(drawn[120:] < threshold(drawn[:120])).mean() for drawn in draws]
    assert np.mean(rates) == pytest.approx(6 / 121, abs=0.005)
    assert np.mean(rates) < SHARE + 0.002


@pytest.mark.parametrize(("held_out", "given"), [(18, False), (19, True)])
def test_with_too_few_held_out_images_there_is_no_threshold(held_out: int, given: bool) -> None:
    distances = np.linspace(1, 2, held_out)
    assert (threshold(distances) is not None) == given
    assert (flagged(np.zeros((3, 2)), distances[:, None])["share"] is not None) == given


def test_copies_are_flagged_by_both_looks_and_new_images_by_neither() -> None:
    rng = np.random.default_rng(6)
    training, held_out, new = (pictures(rng, n) for n in (60, 40, 40))
    noise = rng.integers(-20, 21, training[:40].shape)
    copied = np.clip(training[:40].astype(int) + noise, 0, 255).astype(np.uint8)
    unseen = nearest_images(held_out, training)[0]
    for made, share, copies in ((copied, 1.0, 40), (new, 0.1, 0)):
        found = flagged(nearest_images(made, training)[0], unseen)
        assert found["copies"] == copies and found["copies_held_out"] == 0
        assert abs(found["share"] - share) <= 0.1


def test_a_single_training_image_has_no_second_nearest() -> None:
    found = flagged(np.ones((5, 1)), np.ones((30, 1)))
    assert found["copies"] is None and found["share"] == 0.0
