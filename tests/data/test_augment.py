"""Augmentation: mask and image move together, labels never mix, shades never reach a mask, and a seed is a sample."""

import colorsys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from ukan.data.augment import Augmenter
from ukan.errors import UserError
from ukan.plan import AugmentPlan, Modality
from ukan.planning.augmentation import BY_MODALITY, choose_augmentation

GEOMETRY = ("rot90", "hflip", "vflip", "any_flip", "affine", "elastic")
SHADES = ("intensity", "gamma", "noise", "blur")  # colour besides, for three channels
SIZES = [(64, 64), (96, 64), (64, 160)]
Image = NDArray[np.uint8]


def everything(colour: float = 0.5) -> AugmentPlan:
    return AugmentPlan(colour=colour, **dict.fromkeys((*GEOMETRY, *SHADES), 0.5))


def one(step: str, **ranges: Any) -> AugmentPlan:
    return AugmentPlan(**{step: 1.0}, **ranges)


def texture(size: tuple[int, int], channels: int, seed: int = 0) -> Image:
    """Smooth bright and dark areas that differ from channel to channel."""
    noise = np.random.default_rng(seed).normal(size=(*size, channels))
    smooth = gaussian_filter(noise, (4, 4, 0))
    return np.clip(128 + 300 * smooth / np.abs(smooth).max(), 20, 235).astype(np.uint8)


def coordinates(size: tuple[int, int]) -> Image:
    """Two channels that hold each pixel's own row and column, counted from 20: 0 is outside the picture."""
    return np.stack(np.indices(size), axis=-1).astype(np.uint8) + 20


# Mask and image in step


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", GEOMETRY)
def test_every_pixel_of_the_mask_comes_from_where_the_images_pixel_comes_from(step: str, size: tuple[int, int]) -> None:
    # A ramp survives interpolation, and a label is the nearest pixel's: both say where in the picture they come from.
    here = coordinates(size)
    augment, moved = Augmenter(one(step), size), 0
    for seed in range(20):
        image, mask = augment(here, here, seed)
        assert image.shape == mask.shape == here.shape and image.dtype == mask.dtype == np.uint8
        inside = binary_erosion((mask > 0).all(2), iterations=2)  # where the picture ends, it is blended with black
        assert inside.mean() > 0.35
        assert np.abs(image.astype(int) - mask)[inside].max() <= 1
        assert not image[binary_erosion((mask == 0).all(2), iterations=2)].any()
        moved += not np.array_equal(mask, here)
    assert moved >= 12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", GEOMETRY)
def test_a_picture_that_is_its_own_mask_stays_so_up_to_its_outline(step: str, size: tuple[int, int]) -> None:
    y, x = np.indices(size)
    mask = ((y - size[0] * 0.4) ** 2 / 18**2 + (x - size[1] * 0.55) ** 2 / 25**2 <= 1).astype(np.uint8)[..., None]
    augment = Augmenter(one(step), size)
    for seed in range(20):
        image, changed = augment(mask * 255, mask, seed)
        assert set(np.unique(changed)) <= {0, 1}
        pure = (image <= 5) | (image >= 250)
        assert np.array_equal(changed[pure], image[pure] > 128)
        differ = (image >= 128) != (changed > 0)
        assert differ.sum() <= 0.15 * (~pure).sum()  # at the corners of its pixels a nearest label rounds the other way


@pytest.mark.parametrize("step", GEOMETRY)
def test_labels_never_mix(step: str) -> None:
    # All 256 labels in disorder: any average of two neighbours would be another label at another place.
    rng = np.random.default_rng(1)
    blocks = rng.permutation(256).astype(np.uint8).reshape(16, 16)
    labels = blocks.repeat(6, 0).repeat(6, 1)
    augment = Augmenter(one(step), (96, 96))
    for seed in range(10):
        _, changed = augment(np.zeros((96, 96, 1), np.uint8), labels[..., None], seed)
        for label in np.intersect1d(blocks[3:-3, 3:-3], changed):  # the edge may be mirrored
            # Each label stays one piece of about its size, wherever it went.
            y, x = np.nonzero(changed[..., 0] == label)
            assert max(np.ptp(y), np.ptp(x)) <= 14 and len(y) <= 3 * 36


def test_a_rare_label_in_many_mask_channels_keeps_its_value_and_place() -> None:
    mask = np.zeros((64, 64, 7), np.uint8)
    for channel in range(7):
        mask[20:40, 10 + 5 * channel : 14 + 5 * channel, channel] = 255 - channel
    augment = Augmenter(everything(), (64, 64))
    for seed in range(30):
        _, changed = augment(texture((64, 64), 3), mask, seed)
        for channel in range(7):
            assert set(np.unique(changed[..., channel])) <= {0, 255 - channel}


def test_flips_and_turns_are_those_numpy_makes() -> None:
    image, mask = texture((64, 64), 3), texture((64, 64), 2, seed=1)

    def outcomes(**plan: float) -> set[tuple[bytes, bytes]]:
        augment = Augmenter(AugmentPlan(**plan), (64, 64))
        return {tuple(changed.tobytes() for changed in augment(image, mask, seed)) for seed in range(40)}  # type: ignore[misc]

    def both(change: Any) -> tuple[bytes, bytes]:
        return np.ascontiguousarray(change(image)).tobytes(), np.ascontiguousarray(change(mask)).tobytes()

    assert outcomes(hflip=1) == {both(np.fliplr)}
    assert outcomes(vflip=1) == {both(np.flipud)}
    assert outcomes(any_flip=1) == {both(np.fliplr), both(np.flipud), both(lambda a: a[::-1, ::-1])}
    assert outcomes(rot90=1) == {both(lambda a, k=k: np.rot90(a, k)) for k in range(4)}
    assert outcomes(hflip=0.5) == {both(np.fliplr), both(np.array)}


# Shades


@pytest.mark.parametrize(("step", "channels"), [*((s, c) for s in SHADES for c in (1, 3, 16)), ("colour", 3)])
def test_shades_change_the_image_and_never_the_mask(step: str, channels: int) -> None:
    image, mask = texture((64, 96), channels), texture((64, 96), 2, seed=1)
    augment = Augmenter(one(step), (64, 96))
    for seed in range(10):
        changed, same = augment(image, mask, seed)
        assert np.array_equal(same, mask)
        assert not np.array_equal(changed, image) and changed.dtype == np.uint8 and changed.shape == image.shape


@pytest.mark.parametrize(
    ("step", "still"),
    [
        ("affine", {"scale": (1, 1), "rotate_deg": 0, "shift": 0}),
        ("elastic", {"elastic_shift": 0}),
        ("colour", {"hue": 0, "saturation": 0}),
        ("intensity", {"brightness": 0, "contrast": 0}),
        ("gamma", {"gamma_range": (1, 1)}),
        ("noise", {"noise_std": (0, 0)}),
    ],
)
def test_ranges_of_nothing_change_nothing(step: str, still: dict[str, Any]) -> None:
    image = texture((64, 64), 3)
    changed, _ = Augmenter(one(step, **still), (64, 64))(image, image[..., :1], 0)
    assert np.abs(changed.astype(int) - image).max() <= 1


def test_gamma_follows_its_curve_within_its_range() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    augment = Augmenter(one("gamma", gamma_range=(0.6, 1.8)), (16, 16))
    found = []
    for seed in range(40):
        changed = augment(ramp, ramp, seed)[0].ravel()
        exponent = np.log((changed[128] + 0.5) / 255) / np.log(128 / 255)
        assert np.abs(changed - 255 * (np.arange(256) / 255) ** exponent).max() <= 2
        found.append(exponent)
    assert 0.58 < min(found) < 0.75 and 1.6 < max(found) < 1.82


def test_noise_has_the_deviation_asked_for_and_no_mean() -> None:
    grey = np.full((64, 64, 5), 128, np.uint8)
    augment = Augmenter(one("noise", noise_std=(0.03, 0.05)), (64, 64))
    for seed in range(10):
        changed = augment(grey, grey, seed)[0].astype(float)
        assert 0.028 < changed.std() / 255 < 0.052 and abs(changed.mean() - 128) < 1


def test_blur_is_a_gaussian_of_the_width_asked_for() -> None:
    image = texture((64, 64), 3)
    changed, _ = Augmenter(one("blur", blur_sigma_px=(1.5, 1.5)), (64, 64))(image, image[..., :1], 0)
    expected = gaussian_filter(image.astype(float), (1.5, 1.5, 0))
    assert np.abs(changed - expected)[8:-8, 8:-8].max() <= 2


def test_elastic_moves_pixels_by_about_its_share_of_the_side_and_smoothly() -> None:
    for size in ((64, 64), (96, 160)):
        here = coordinates(size)
        augment, squares = Augmenter(one("elastic", elastic_shift=0.02), size), []
        for seed in range(20):
            moved = augment(here, here, seed)[1].astype(int) - here
            inside = moved[6:-6, 6:-6]  # the edges are mirrored
            squares.append((inside**2).mean())
            assert max(np.abs(np.diff(inside, axis=axis)).max() for axis in (0, 1)) <= 2
        assert 0.6 < np.sqrt(np.mean(squares)) / (0.02 * min(size)) < 1.2  # between its knots the field is weaker


# Colours


def hues(image: Image) -> NDArray[np.float64]:
    return np.array([colorsys.rgb_to_hsv(*(pixel / 255))[0] for pixel in image.reshape(-1, 3)])


def test_hue_turns_within_its_range_and_leaves_lightness_and_grey() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8] = 200, 80, 40  # orange
    image[8:] = 128  # grey
    augment = Augmenter(one("colour", hue=0.1, saturation=0), (16, 16))
    turns = []
    for seed in range(40):
        changed, _ = augment(image, image[..., :1], seed)
        assert np.ptp(changed[8:], axis=2).max() == 0 and np.abs(changed[8:].astype(int) - 128).max() <= 1
        turn = (hues(changed[:8]) - hues(image[:8]) + 0.5) % 1 - 0.5
        turns.append(turn.mean())
        assert abs(int(changed[:8].max()) - 200) <= 2
    assert -0.11 < min(turns) < -0.06 and 0.06 < max(turns) < 0.11


def test_saturation_stretches_the_distance_from_grey_within_its_range() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:] = 150, 120, 100
    augment = Augmenter(one("colour", hue=0, saturation=0.4), (16, 16))
    spreads = [np.ptp(augment(image, image[..., :1], seed)[0][0, 0].astype(int)) / 50 for seed in range(40)]
    assert 0.58 < min(spreads) < 0.75 and 1.25 < max(spreads) < 1.42


def test_colour_acts_on_true_colours_whatever_the_order_of_the_channels() -> None:
    rgb, mask = texture((64, 96), 3), texture((64, 96), 1)
    for plan in (one("colour"), everything(1.0)):
        in_rgb, in_bgr = Augmenter(plan, (64, 96)), Augmenter(plan, (64, 96), "bgr")
        for seed in range(10):
            image, truth = in_rgb(rgb, mask, seed)
            reversed_image, same_truth = in_bgr(np.ascontiguousarray(rgb[..., ::-1]), mask, seed)
            assert np.array_equal(image, reversed_image[..., ::-1]) and np.array_equal(truth, same_truth)


@pytest.mark.parametrize("channels", [1, 4])
def test_colour_for_images_without_colours_is_refused_in_one_line(channels: int) -> None:
    augment = Augmenter(AugmentPlan(colour=0.1), (64, 64))
    with pytest.raises(UserError, match=f"colour changes images of 3 channels, these have {channels}: set it to 0"):
        augment(texture((64, 64), channels), texture((64, 64), 1), 0)


# Samples


@pytest.mark.parametrize("step", [*GEOMETRY, *SHADES, "colour"])
def test_probability_0_switches_off_and_1_switches_on(step: str) -> None:
    image, mask = texture((64, 64), 3), texture((64, 64), 1)
    off, on = Augmenter(AugmentPlan(**{step: 0.0}), (64, 64)), Augmenter(one(step), (64, 64))
    assert all(np.array_equal(off(image, mask, seed)[0], image) for seed in range(10))
    assert sum(not np.array_equal(on(image, mask, seed)[0], image) for seed in range(20)) >= 12
    half = Augmenter(AugmentPlan(**{step: 0.5}), (64, 64))
    changed = sum(not np.array_equal(half(image, mask, seed)[0], image) for seed in range(100))
    assert 20 < changed < 75  # a quarter of the quarter turns turn nothing


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize("labels", [1, 2, 5])
@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_channels_and_masks_keep_shape_and_type_under_everything(
    channels: int, labels: int, size: tuple[int, int]
) -> None:
    image, mask = texture(size, channels), (texture(size, labels, seed=1) > 128).astype(np.uint8)
    augment = Augmenter(everything(0.5 if channels == 3 else 0.0), size)
    for seed in range(8):
        changed, truth = augment(image, mask, seed)
        assert changed.shape == image.shape and truth.shape == mask.shape
        assert changed.dtype == truth.dtype == np.uint8 and set(np.unique(truth)) <= {0, 1}
        assert changed.flags.c_contiguous and truth.flags.c_contiguous


@pytest.mark.parametrize("step", ["affine", "elastic", "intensity", "gamma", "blur"])
def test_equal_channels_stay_equal(step: str) -> None:
    image = texture((64, 96), 1).repeat(16, 2)
    changed, _ = Augmenter(one(step), (64, 96))(image, image[..., :1], 3)
    assert (changed == changed[..., :1]).all()


def test_a_seed_is_a_sample_whoever_makes_it_and_in_whatever_order() -> None:
    image, mask = texture((64, 96), 3), texture((64, 96), 2)
    one_maker, other_maker = Augmenter(everything(), (64, 96)), Augmenter(everything(), (64, 96))
    forwards = [one_maker(image, mask, seed) for seed in range(20)]
    backwards = [other_maker(image, mask, seed) for seed in reversed(range(20))][::-1]
    for (a, b), (c, d) in zip(forwards, backwards, strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)
    assert len({a.tobytes() for a, _ in forwards}) == 20


def test_changes_happen_independently_of_one_another() -> None:
    steps = ("hflip", "vflip", "affine", "elastic", "colour", "intensity", "gamma", "noise", "blur")
    image, mask = texture((32, 32), 3), texture((32, 32), 1)
    alone = [Augmenter(AugmentPlan(**{step: 0.5}), (32, 32)) for step in steps]
    happened = np.array([[not np.array_equal(a(image, mask, s)[0], image) for a in alone] for s in range(200)])
    assert np.abs(happened.mean(0) - 0.5).max() < 0.12
    assert np.abs(np.corrcoef(happened.T) - np.eye(len(steps))).max() < 0.25
    # ... and what one draws does not depend on which others are on.
    both = Augmenter(AugmentPlan(hflip=0.5, vflip=0.5), (32, 32))
    for seed in range(20):
        expected = mask[:, ::-1] if happened[seed, 0] else mask
        expected = expected[::-1] if happened[seed, 1] else expected
        assert np.array_equal(both(image, mask, seed)[1], expected)


def test_what_went_in_is_left_alone() -> None:
    image, mask = texture((64, 64), 3), texture((64, 64), 1)
    before = image.copy(), mask.copy()
    for seed in range(20):
        Augmenter(everything(), (64, 64), "bgr")(image, mask, seed)
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


def test_the_published_recipes_turns_and_flips_are_drawn_apart_and_all_occur() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    augment = Augmenter(AugmentPlan(rot90=0.5, any_flip=0.5), (4, 4), "bgr")
    flips = {"none": lambda x: x, "across": np.fliplr, "down": np.flipud, "both": lambda x: np.fliplr(np.flipud(x))}
    made = {flip(np.rot90(image, turn)).tobytes() for turn in range(4) for flip in flips.values()}
    drawn = [augment(image, image, seed)[0].tobytes() for seed in range(400)]
    assert set(drawn) == made, "the eight ways a square lies on itself"
    # Half stay unturned (a quarter of the turns are by nothing), half unflipped: 0.625 * 0.5, and ways that come out alike.
    assert 0.25 < drawn.count(image.tobytes()) / 400 < 0.45


@pytest.mark.parametrize("modality", BY_MODALITY)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_every_modalitys_choice_works(modality: Modality, channels: int, size: tuple[int, int]) -> None:
    chosen = {name: value for name, (value, _) in choose_augmentation(modality, channels, size).items()}
    augment = Augmenter(AugmentPlan(**chosen), size)
    image, mask = texture(size, channels), texture(size, 1)
    samples = [augment(image, mask, seed) for seed in range(12)]
    assert len({changed.tobytes() for changed, _ in samples}) >= 8
    assert all(set(np.unique(truth)) <= {0, *np.unique(mask)} for _, truth in samples)
