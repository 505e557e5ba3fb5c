"""Batches: a sample follows from seed, epoch and case alone, and its mask moves with its image."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ukan.data.augment import Augmenter
from ukan.data.batches import Batch, StepSampler, TrainingSamples, steps_per_epoch, training_batches, validation_batches
from ukan.data.cache import Prepared
from ukan.plan import AugmentPlan, DataPlan, TrainPlan

EVERYTHING = AugmentPlan(
    rot90=0.5, any_flip=0.5, hflip=0.5, vflip=0.5, affine=0.7, intensity=0.5, gamma=0.3, noise=0.3, blur=0.3
)
GEOMETRY = {"rot90": 1.0}, {"hflip": 1.0}, {"vflip": 1.0}, {"any_flip": 1.0}, {"affine": 1.0}
SHADES = {"intensity": 1.0}, {"gamma": 1.0}, {"noise": 1.0}, {"blur": 1.0}


def key(change: dict[str, float]) -> str:
    return next(iter(change))


def prepared(count: int = 11, size: tuple[int, int] = (32, 32), channels: int = 1, classes: int = 1) -> Prepared:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 200, (count, *size, channels), dtype=np.uint8)
    masks = rng.integers(0, 2, (count, *size, classes), dtype=np.uint8)
    return Prepared([f"case {i}" for i in range(count)], [1] * count, images, masks)


def training_samples(data: Prepared, names: list[str], augment: AugmentPlan, seed: int = 0, **plan: str) -> TrainingSamples:
    about = DataPlan(dataset="x", layout="folders", index_sha256="0", **plan)
    return TrainingSamples(data, names, TrainPlan(augment=augment, seed=seed), about)


def batches(
    first: int = 0, last: int = 7, *, workers: int = 0, seed: int = 3, rank: int = 0, world: int = 1, size: int = 4
) -> list[Batch]:
    samples = training_samples(prepared(), [f"case {i}" for i in range(9)], EVERYTHING, seed)
    sampler = StepSampler(len(samples), size, seed, first, last, rank, world)
    return list(training_batches(samples, sampler, workers, pin_memory=False))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.names == b.names and torch.equal(a.images_BHWC, b.images_BHWC) and torch.equal(a.targets_BMHW, b.targets_BMHW)
        for a, b in zip(one, other, strict=True)
    )


# The same samples, whoever makes them


def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    assert same(batches(), batches())
    assert not same(batches(), batches(seed=4))


def test_samples_do_not_depend_on_the_number_of_workers() -> None:
    assert same(batches(workers=2), batches(workers=0))


@pytest.mark.parametrize("first", [1, 2, 5])  # two steps an epoch: in the middle of one, and between two
def test_samples_do_not_depend_on_where_the_training_was_taken_up(first: int) -> None:
    assert same(batches(first), batches()[first:])


def test_samples_do_not_depend_on_torchs_or_numpys_own_generators_nor_move_them() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - libraries draw from it
    one, drawn = batches(), (torch.rand(1), np.random.rand())  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert (torch.rand(1), np.random.rand()) == drawn  # noqa: NPY002
    assert same(batches(), one)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_batch_without_overlap_and_make_the_same_samples(world: int) -> None:
    whole = batches()
    parts = [batches(rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        rows = {name: image for part in parts for name, image in zip(part[step].names, part[step].images_BHWC, strict=True)}
        assert sum(len(part[step].names) for part in parts) == len(batch.names) == len(rows)
        assert {len(part[step].names) for part in parts} == {4 // world}
        for name, image in zip(batch.names, batch.images_BHWC, strict=True):
            assert torch.equal(rows[name], image)


def test_an_epoch_shows_no_case_twice_and_each_epoch_has_an_order_of_its_own() -> None:
    sampler = StepSampler(9, 4, 0, 0, 20)
    steps = list(sampler)
    assert len(sampler) == len(steps) == 20
    epochs = [[position for step in steps[i : i + 2] for _, position in step] for i in range(0, 20, 2)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10
    assert {position for epoch in epochs for position in epoch} == set(range(9))  # whoever is left out comes later
    assert [{epoch for epoch, _ in step} for step in steps] == [{i // 2} for i in range(20)]


def test_a_case_is_changed_anew_in_every_epoch() -> None:
    samples = training_samples(prepared(), ["case 3"], EVERYTHING, 0)
    images = [samples[epoch, 0][0].numpy().tobytes() for epoch in range(6)]
    assert len(set(images)) == 6


def test_cases_of_one_epoch_are_changed_differently() -> None:
    twins = prepared()
    twins.images_NHWC[:] = twins.images_NHWC[0]
    samples = training_samples(twins, twins.names, AugmentPlan(affine=1.0), 0)
    assert len({samples[0, position][0].numpy().tobytes() for position in range(11)}) == 11


@pytest.mark.parametrize(("count", "size", "steps"), [(9, 4, 2), (8, 4, 2), (3, 4, 1), (1, 8, 1)])
def test_incomplete_batches_are_left_out_unless_there_is_no_other(count: int, size: int, steps: int) -> None:
    assert steps_per_epoch(count, size) == steps
    assert [len(step) for step in StepSampler(count, size, 0, 0, steps)] == [min(size, count)] * steps


def test_names_stand_by_their_own_samples_when_a_fold_takes_some_cases() -> None:
    data = prepared()
    samples = training_samples(data, ["case 7", "case 2"], AugmentPlan(), 0)
    for position, row in ((0, 7), (1, 2)):
        image, mask, name = samples[0, position]
        assert name == f"case {row}" and np.array_equal(image, data.images_NHWC[row])
        assert np.array_equal(mask.permute(1, 2, 0), data.targets_NHWM[row]) and mask.dtype == torch.float32


def test_validation_shows_every_case_once_as_it_is_in_the_order_asked() -> None:
    data = prepared(channels=3, classes=2)
    names = [f"case {i}" for i in (4, 0, 9, 2, 7)]
    found: Iterator[Batch] = validation_batches(data, names, 2)
    rows = [row for batch in found for row in zip(*batch, strict=True)]
    assert [name for _, _, name in rows] == names
    for image, mask, name in rows:
        row = data.names.index(name)
        assert np.array_equal(image, data.images_NHWC[row])
        assert np.array_equal(mask.permute(1, 2, 0), data.targets_NHWM[row])


def volumes() -> Prepared:
    """Two volumes of 6 and 3 slices and a picture; the first shows its object in slices 2 and 3."""
    data = prepared(10)
    data.targets_NHWM[:] = 0
    data.targets_NHWM[[2, 3, 9], 5, 5] = 1
    return Prepared(["a", "b", "c"], [6, 3, 1], data.images_NHWC, data.targets_NHWM)


def test_a_volumes_slices_are_samples_of_their_own() -> None:
    data = volumes()
    assert [list(data.rows(name)) for name in "abc"] == [[0, 1, 2, 3, 4, 5], [6, 7, 8], [9]]
    samples = training_samples(data, ["c", "a"], AugmentPlan())
    assert samples.rows == [9, 0, 1, 2, 3, 4, 5] and samples.names == ["c", *"aaaaaa"]
    found = validation_batches(data, ["b", "c"], 3)
    shown = [(name, image) for batch in found for image, _, name in zip(*batch, strict=True)]
    assert [name for name, _ in shown] == ["b", "b", "b", "c"]
    assert all(np.array_equal(image, data.images_NHWC[row]) for (_, image), row in zip(shown, (6, 7, 8, 9), strict=True))


def test_balanced_slices_are_all_with_an_object_and_as_many_without_spread_over_the_volume() -> None:
    samples = training_samples(volumes(), ["a", "b", "c"], AugmentPlan(), empty_slices="balance")
    assert samples.rows == [0, 2, 3, 5, 6, 9], "of a volume without an object one slice stays"


# Mask and image in step


def shape(size: tuple[int, int]) -> np.ndarray:
    """An L in one corner: no turn or flip leaves it as it is."""
    mask = np.zeros((*size, 1), np.uint8)
    mask[4:21, 5:10] = mask[16:21, 5:19] = 1
    return mask


@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
@pytest.mark.parametrize("change", GEOMETRY, ids=key)
def test_the_mask_moves_with_the_image(change: dict[str, float], size: tuple[int, int]) -> None:
    mask = shape(size)
    augment = Augmenter(AugmentPlan(**change), size)
    moved = 0
    for seed in range(40):
        image, changed = augment(mask * 255, mask, seed)
        assert image.shape == changed.shape == mask.shape and set(np.unique(changed)) <= {0, 1}
        # Between pixels the image blends; where it is pure, so is the truth.
        assert changed[image >= 250].all() and not changed[image <= 5].any()
        assert ((image > 5) & (image < 250)).mean() < 0.12
        moved += not np.array_equal(changed, mask)
        if "affine" not in change and size[0] == size[1]:
            assert np.array_equal(image, changed * 255)
    assert moved >= 25


@pytest.mark.parametrize("change", SHADES, ids=key)
def test_shades_change_the_image_and_leave_the_mask(change: dict[str, float]) -> None:
    data = prepared(channels=3)
    augment = Augmenter(AugmentPlan(**change), (32, 32))
    for seed in range(8):
        image, mask = augment(data.images_NHWC[0], data.targets_NHWM[0], seed)
        assert np.array_equal(mask, data.targets_NHWM[0])
        assert not np.array_equal(image, data.images_NHWC[0]) and image.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [1, 2])
def test_masks_stay_0_and_1_and_shapes_stay_under_everything_at_once(channels: int, classes: int) -> None:
    data = prepared(1, (64, 32), channels, classes)
    augment = Augmenter(EVERYTHING, (64, 32))
    for seed in range(30):
        image, mask = augment(data.images_NHWC[0], data.targets_NHWM[0], seed)
        assert image.shape == (64, 32, channels) and mask.shape == (64, 32, classes)
        assert image.dtype == mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}


def outcomes(**plan: float) -> set[bytes]:
    mask = shape((32, 32))
    augment = Augmenter(AugmentPlan(**plan), (32, 32))
    return {augment(mask * 255, mask, seed)[1].tobytes() for seed in range(60)}


def test_flips_and_turns_are_those_named() -> None:
    mask = shape((32, 32))
    plain, across, down, both = (m.tobytes() for m in (mask, mask[:, ::-1], mask[::-1], mask[::-1, ::-1]))
    assert outcomes(hflip=1) == {across} and outcomes(hflip=0.5) == {plain, across}
    assert outcomes(vflip=1) == {down}
    assert outcomes(any_flip=1) == {across, down, both}
    assert outcomes(rot90=1) == {np.rot90(mask, k).tobytes() for k in range(4)}
    assert outcomes() == {plain}


def extent(**plan: object) -> tuple[float, float, float]:
    """Over many draws: the largest change of area (share), of the centre (pixels), and of the direction (degrees)."""
    mask = np.zeros((64, 64, 1), np.uint8)
    mask[22:42, 12:52] = 1
    augment = Augmenter(AugmentPlan(affine=1.0, **plan), (64, 64))
    areas, shifts, turns = [], [], []
    for seed in range(60):
        changed = augment(mask * 255, mask, seed)[1][..., 0]
        y, x = np.nonzero(changed)
        areas.append(abs(len(y) / mask.sum() - 1))
        shifts.append(max(abs(y.mean() - 31.5), abs(x.mean() - 31.5)))
        spread = np.cov(x, y)
        turns.append(abs(np.degrees(0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1]))))
    return max(areas), max(shifts), max(turns)


def test_zoom_turn_and_shift_keep_to_their_ranges_and_do_nothing_else() -> None:
    still = {"scale": (1.0, 1.0), "rotate_deg": 0.0, "shift": 0.0}
    assert max(extent(**still)) < 0.01
    area, shift, turn = extent(**{**still, "scale": (0.8, 1.25)})
    assert 0.25 < area < 0.75 and shift < 1.5 and turn < 1
    area, shift, turn = extent(**{**still, "rotate_deg": 20.0})
    assert 14 < turn < 22 and shift < 1.5 and area < 0.12
    area, shift, turn = extent(**{**still, "shift": 0.1})
    assert 4.5 < shift < 7.5 and turn < 1 and area < 0.01


def test_brightness_and_contrast_keep_to_their_ranges() -> None:
    ramp = np.tile(np.arange(60, 188, 4, dtype=np.uint8), (32, 1))[..., None]
    mask = np.zeros_like(ramp)

    def spreads(**plan: float) -> tuple[float, float]:
        augment = Augmenter(AugmentPlan(intensity=1.0, **plan), (32, 32))
        changed = [augment(ramp, mask, seed)[0].astype(float) for seed in range(40)]
        return max(abs(c.mean() - ramp.mean()) for c in changed), max(abs(c.std() / ramp.std() - 1) for c in changed)

    shift, stretch = spreads(brightness=0.2, contrast=0.0)
    assert 30 < shift < 53 and stretch < 0.05
    _, stretch = spreads(brightness=0.0, contrast=0.2)
    assert 0.12 < stretch < 0.22
    assert spreads(brightness=0.0, contrast=0.0) == pytest.approx((0, 0), abs=0.01)
