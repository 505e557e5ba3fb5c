"""Samples of diffusion: noise, timestep and whether the condition is told follow from seed, epoch and sample alone."""

import numpy as np
import pytest
import torch

from ukan.data.batches import NoisyBatch, NoisySamples, StepSampler, TrainingSamples, training_batches
from ukan.data.cache import Prepared
from ukan.plan import AugmentPlan, DataPlan, DiffusePlan, TrainPlan
from ukan.training.loop import split_batch

DATA = DataPlan(dataset="x", layout="images", index_sha256="0")


def prepared(count: int = 11, size: tuple[int, int] = (16, 24), channels: int = 1) -> Prepared:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 200, (count, *size, channels), dtype=np.uint8)
    return Prepared([f"case {i}" for i in range(count)], [1] * count, images, images[..., :1] // 130)


def noisy_samples(names: int = 9, seed: int = 3, channels: int = 1, **diffuse: float) -> NoisySamples:
    train = TrainPlan(augment=AugmentPlan(hflip=0.5, vflip=0.5), seed=seed)
    named = [f"case {i}" for i in range(names)]
    return NoisySamples(prepared(max(11, names), channels=channels), named, train, DATA, DiffusePlan(**diffuse))


def batches(
    first: int = 0, last: int = 7, *, workers: int = 0, seed: int = 3, rank: int = 0, world: int = 1
) -> list[NoisyBatch]:
    samples = noisy_samples(seed=seed)
    sampler = StepSampler(len(samples), 4, seed, first, last, rank, world)
    return list(training_batches(samples, sampler, workers, pin_memory=False))


def same(one: list[NoisyBatch], other: list[NoisyBatch]) -> bool:
    return len(one) == len(other) and all(
        a.names == b.names and all(torch.equal(x, y) for x, y in zip(a[:-1], b[:-1], strict=True))
        for a, b in zip(one, other, strict=True)
    )


def drawn(samples: NoisySamples, epochs: int) -> list[tuple[int, bool]]:
    """Timestep and whether the condition is told, of many samples."""
    return [samples[epoch, position][3:5] for epoch in range(epochs) for position in range(len(samples))]


def test_a_batch_holds_images_masks_noise_and_times_of_one_length_and_kind() -> None:
    batch = batches()[0]
    assert batch.images_BHWC.shape == (4, 16, 24, 1) and batch.images_BHWC.dtype == torch.uint8
    assert batch.targets_BMHW.shape == (4, 1, 16, 24) and batch.targets_BMHW.dtype == torch.float32
    assert batch.noise_BCHW.shape == (4, 1, 16, 24) and batch.noise_BCHW.dtype == torch.float32
    assert batch.times_B.shape == (4,) and batch.times_B.dtype == torch.int64
    assert batch.told_B.shape == (4,) and batch.told_B.dtype == torch.bool and len(batch.names) == 4


def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    assert same(batches(), batches())
    assert not same(batches(), batches(seed=4))


def test_samples_do_not_depend_on_the_number_of_workers() -> None:
    assert same(batches(workers=2), batches(workers=0))


@pytest.mark.parametrize("first", [1, 2, 5])
def test_samples_do_not_depend_on_where_the_training_was_taken_up(first: int) -> None:
    assert same(batches(first), batches()[first:])


def test_processes_get_their_own_share_of_the_same_noise() -> None:
    whole, parts = batches(), [batches(rank=rank, world=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        for field in ("images_BHWC", "noise_BCHW", "times_B", "told_B"):
            shared = torch.stack([getattr(part[step], field) for part in parts], 1).flatten(0, 1)
            assert torch.equal(shared, getattr(batch, field))


def test_micro_batches_are_pieces_of_the_batch() -> None:
    batch = batches()[0]
    pieces = list(split_batch(batch, 3))
    assert [len(piece.names) for piece in pieces] == [3, 1] and all(isinstance(piece, NoisyBatch) for piece in pieces)
    for field in ("noise_BCHW", "times_B", "told_B"):
        assert torch.equal(torch.cat([getattr(piece, field) for piece in pieces]), getattr(batch, field))


def test_samples_do_not_depend_on_torchs_or_numpys_own_generators_nor_move_them() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - libraries draw from it
    one, found = batches(), (torch.rand(1), np.random.rand())  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert (torch.rand(1), np.random.rand()) == found  # noqa: NPY002
    assert same(batches(), one)


def test_images_are_those_of_a_training_without_noise() -> None:
    noisy = noisy_samples()
    plain = TrainingSamples(noisy.prepared, noisy.names, TrainPlan(augment=AugmentPlan(hflip=0.5, vflip=0.5), seed=3), DATA)
    for key in ((0, 0), (0, 5), (4, 5)):
        image, mask, _, _, _, name = noisy[key]
        assert torch.equal(image, plain[key][0]) and torch.equal(mask, plain[key][1]) and name == plain[key][2]


def test_every_sample_of_every_epoch_has_noise_of_its_own_that_is_normally_distributed() -> None:
    samples = noisy_samples()
    noise = torch.stack([samples[epoch, position][2] for epoch in range(12) for position in range(9)]).flatten(1)
    assert len({row.numpy().tobytes() for row in noise}) == 12 * 9
    count = noise.numel()  # 41,472: bounds of four deviations
    assert abs(noise.mean()) < 4 / count**0.5 and abs(noise.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / count) ** 0.5
    between = np.corrcoef(noise.numpy())[np.triu_indices(len(noise), 1)]
    assert abs(between).max() < 6 / noise.shape[1] ** 0.5


@pytest.mark.parametrize("timesteps", [4, 1000])
def test_timesteps_are_all_equally_likely(timesteps: int) -> None:
    times = np.array([time for time, _ in drawn(noisy_samples(timesteps=timesteps), 200)])
    assert times.min() >= 0 and times.max() < timesteps
    counts = np.bincount(times * 4 // timesteps, minlength=4)
    assert abs(counts - len(times) / 4).max() < 4 * (len(times) * 3 / 16) ** 0.5
    assert {0, timesteps - 1} <= set(times) or timesteps == 1000


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_so_large_a_share_is_not_told_its_condition(share: float) -> None:
    told = np.array([told for _, told in drawn(noisy_samples(drop_condition=share), 150)])
    deviation = (share * (1 - share) / len(told)) ** 0.5
    assert abs((~told).mean() - share) <= 4 * deviation


def test_what_is_told_and_when_says_nothing_of_one_another() -> None:
    times, told = np.array(drawn(noisy_samples(drop_condition=0.5), 150)).T
    assert abs(np.corrcoef(times, told)[0, 1]) < 4 / len(times) ** 0.5
