"""GlaS' object scores on drawings worked out by hand, and against the paper's formulas written out mask by mask."""

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff

from ukan.metrics.objects import SUMS, instances, object_dice, object_f1, object_hausdorff, object_sums, shared_pixels


def picture(*rows: str) -> np.ndarray:
    return np.array([[int(character) for character in row.replace(".", "0")] for row in rows])


EMPTY = picture("......", "......", "......")
TRUTH = picture("11..22", "11..22", "......")


def test_instances_join_at_corners_and_keep_tiny_ones() -> None:
    found = instances(picture("1....1", ".1....", "...1..") > 0)
    assert found.max() == 3
    assert found[0, 0] == found[1, 1] != found[2, 3] != found[0, 5]


def test_a_perfect_prediction_under_other_numbers_is_perfect() -> None:
    sums = object_sums(TRUTH, np.select([TRUTH == 1, TRUTH == 2], [7, 3]))
    assert (object_f1(sums), object_dice(sums), object_hausdorff(sums)) == (1, 1, 0)


def test_a_drawing_worked_out_by_hand() -> None:
    # 1 is covered by half, which is not enough; 2 by three of four; 3 is invented, its nearest object is 2.
    guess = picture("1...22", "1...2.", "....3.")
    sums = dict(zip(SUMS, object_sums(TRUTH, guess), strict=True))
    assert (sums["true_positives"], sums["false_positives"], sums["false_negatives"]) == (1, 2, 1)
    assert (sums["area_true"], sums["area_predicted"]) == (8, 6)
    first, second = 2 * 2 / (4 + 2), 2 * 3 / (4 + 3)
    assert sums["dice_true"] == pytest.approx(4 * first + 4 * second)
    assert sums["dice_predicted"] == pytest.approx(2 * first + 3 * second + 1 * 0)
    # 1: its right column is 1 from the guess; 2: its lost corner is 1 away; 3 to 2: the far corner is (2, 1) away.
    assert sums["hausdorff_true"] == pytest.approx(4 * 1 + 4 * 1)
    assert sums["hausdorff_predicted"] == pytest.approx(2 * 1 + 3 * 1 + 1 * math.sqrt(5))


def test_half_of_a_gland_is_no_true_positive_and_a_pixel_more_is() -> None:
    assert object_f1(object_sums(TRUTH, picture("11....", "......", "......"))) == 0
    assert object_f1(object_sums(TRUTH, picture("11....", "1.....", "......"))) == pytest.approx(2 / 3)


def test_only_one_of_the_pieces_of_a_gland_can_claim_it() -> None:
    gland = picture("11111", "11111")
    pieces = picture("11122", "11122")
    counts = object_sums(gland, pieces)[:3]
    assert counts.tolist() == [1, 1, 0]


def test_one_blob_over_two_glands_finds_only_the_one_it_shares_most_with() -> None:
    sums = object_sums(picture("111.22"), picture("111111"))
    # It shares most with 1, which it covers whole; 2 is covered whole as well, but is not its partner.
    assert sums[:3].tolist() == [1, 0, 1]


def test_equal_overlaps_go_to_the_smaller_number() -> None:
    # 9 shares a pixel with each of 2 (5 pixels) and 5 (1 pixel): its partner is 2.
    sums = object_sums(picture("22222", "....5"), picture("....9", "....9"))
    assert dict(zip(SUMS, sums, strict=True))["dice_predicted"] == pytest.approx(2 * (2 * 1 / (5 + 2)))


def test_empty_images() -> None:
    nothing = object_sums(EMPTY, EMPTY)
    assert (object_f1(nothing), object_dice(nothing)) == (1, 1) and math.isnan(object_hausdorff(nothing))
    for missed in (object_sums(TRUTH, EMPTY), object_sums(EMPTY, TRUTH)):
        assert (object_f1(missed), object_dice(missed)) == (0, 0) and math.isnan(object_hausdorff(missed))


def test_among_other_images_a_missed_object_costs_its_images_diagonal() -> None:
    found, missed = object_sums(TRUTH, TRUTH), object_sums(TRUTH, EMPTY)
    both = found + missed
    # Half of the truth's area at the diagonal, all of the prediction's at 0.
    assert object_hausdorff(both) == pytest.approx((math.hypot(3, 6) / 2 + 0) / 2)
    assert object_dice(both) == pytest.approx((0.5 + 1) / 2)
    assert object_f1(both) == pytest.approx(2 * 2 / (2 * 2 + 2))


def test_scores_take_many_sums_at_once() -> None:
    many = np.stack([object_sums(TRUTH, TRUTH), object_sums(EMPTY, EMPTY), object_sums(TRUTH, EMPTY)])
    assert object_f1(many).tolist() == [1, 1, 0] and object_dice(many).tolist() == [1, 1, 0]
    assert np.array_equal(object_hausdorff(many), [0, np.nan, np.nan], equal_nan=True)


def test_what_is_no_instance_map_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        object_sums(TRUTH, -TRUTH)
    with pytest.raises(ValueError, match="one shape"):
        shared_pixels(TRUTH, TRUTH[:2])


def random_objects(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 2)
    labels = ndimage.label(smooth > np.quantile(smooth, 0.75))[0]
    return rng.permutation(np.arange(1, labels.max() + 1) * 3)[labels - 1] * (labels > 0)


def hausdorff(one: np.ndarray, other: np.ndarray) -> float:
    a, b = np.argwhere(one), np.argwhere(other)
    return max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])


def by_the_paper(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """F1, object Dice and object Hausdorff over all objects of all images, each a mask of its own."""
    hits = false = missed = 0
    halves = np.zeros((2, 2))
    for truth, guess in pairs:
        names = [[(labels == name) for name in np.unique(labels) if name] for labels in (truth, guess)]
        claimed = set()
        for piece in names[1]:
            overlaps = [(piece & gland).sum() for gland in names[0]]
            best = int(np.argmax(overlaps))
            if overlaps[best] > 0.5 * names[0][best].sum():
                hits += 1
                claimed.add(best)
            else:
                false += 1
        missed += len(names[0]) - len(claimed)
        for side in (0, 1):
            area = sum((labels > 0).sum() for labels in (pair[side] for pair in pairs))
            for piece in names[side]:
                others = names[1 - side]
                overlaps = [(piece & other).sum() for other in others]
                partner = others[int(np.argmax(overlaps))]
                if max(overlaps):
                    halves[side] += (
                        piece.sum() / area * 2 * max(overlaps) / (piece.sum() + partner.sum()),
                        piece.sum() / area * hausdorff(piece, partner),
                    )
                else:
                    halves[side, 1] += piece.sum() / area * min(hausdorff(piece, other) for other in others)
    dice, distance = halves.mean(axis=0)
    return 2 * hits / (2 * hits + false + missed), dice, distance


def test_scores_are_the_papers_image_by_image_and_over_a_whole_part() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(6):
        shape = (int(rng.integers(30, 50)), int(rng.integers(30, 50)))
        truth = random_objects(rng, shape)
        # Some objects overlap, some do not, some split and some merge.
        guess = np.where(rng.random() < 0.5, np.roll(truth, 4, axis=1), random_objects(rng, shape))
        pairs.append((truth, guess))
    sums = np.stack([object_sums(truth, guess) for truth, guess in pairs])
    scores = (object_f1, object_dice, object_hausdorff)
    for row, pair in zip(sums, pairs, strict=True):
        assert [score(row) for score in scores] == pytest.approx(by_the_paper([pair]), abs=1e-4)
    assert [score(sums.sum(axis=0)) for score in scores] == pytest.approx(by_the_paper(pairs), abs=1e-4)
