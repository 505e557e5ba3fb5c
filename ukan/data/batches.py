"""Prepared cases to batches. Which samples make a step, and what is random in them, follows from (seed, step) alone:
not from the number of workers, nor from how often the run was interrupted."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ukan.data.augment import Augmenter
from ukan.data.cache import Prepared
from ukan.plan import DataPlan, DiffusePlan, TrainPlan


class Batch(NamedTuple):
    images_BHWC: Tensor
    """uint8, prepared."""
    targets_BMHW: Tensor
    """float32, as `prepare_truth` makes them."""
    names: list[str]


Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (N, H, W, C) and targets (N, H, W, M) that no file holds."""


class TrainingSamples(Dataset[tuple[Any, ...]]):
    """Sample (epoch, position): the slice at `position`, changed as it is in that epoch."""

    def __init__(
        self, prepared: Prepared, names: Sequence[str], plan: TrainPlan, data: DataPlan, drawn: Drawn | None = None
    ) -> None:
        """drawn: images that take a sample's place as often as data.synthetic_share says."""
        self.prepared, self.seed = prepared, plan.seed
        self.drawn, self.share = drawn, data.synthetic_share if drawn else 0.0
        chosen = [(name, row) for name in names for row in training_rows(prepared, name, data.empty_slices)]
        self.names, self.rows = [name for name, _ in chosen], [row for _, row in chosen]
        self.augment = Augmenter(plan.augment, prepared.images_NHWC.shape[1:3], data.colour_order)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        epoch, position = key
        row = self.rows[position]
        images, targets, of = self.prepared.images_NHWC, self.prepared.targets_NHWM, row
        name = self.names[position]
        if self.drawn:
            rng = np.random.default_rng([self.seed, epoch, row, 2])
            if rng.random() < self.share:
                (images, targets), of = self.drawn, int(rng.integers(len(self.drawn[0])))
                name = f"drawn image {of}"
        image, target = np.array(images[of]), np.array(targets[of])
        draw = int(np.random.SeedSequence([self.seed, epoch, row]).generate_state(1)[0])
        image, target = self.augment(image, target, draw)
        return torch.from_numpy(image), torch.from_numpy(target).permute(2, 0, 1).float(), name


def training_rows(prepared: Prepared, name: str, empty_slices: str) -> list[int]:
    """The rows of a case to train on: all, or of a volume no more empty slices, evenly spread, than ones with an object."""
    rows = np.array(prepared.rows(name))
    if empty_slices == "keep" or len(rows) == 1:
        return rows.tolist()
    filled = prepared.targets_NHWM[rows[0] : rows[-1] + 1].any((1, 2, 3))
    empty = rows[~filled]
    count = min(len(empty), max(1, int(filled.sum())))
    spread = np.linspace(0, len(empty) - 1, count).round().astype(int)
    return sorted([*rows[filled].tolist(), *empty[spread].tolist()])


class NoisyBatch(NamedTuple):
    images_BHWC: Tensor
    """uint8, prepared."""
    targets_BMHW: Tensor
    noise_BCHW: Tensor
    times_B: Tensor
    """Timesteps, from 0."""
    told_B: Tensor
    """Whether the network is told the condition."""
    names: list[str]


class NoisySamples(TrainingSamples):
    """Samples of diffusion: as `TrainingSamples`, and with each the noise, the timestep and whether its condition is told.

    All of it follows from the seed, the epoch and the sample, so that neither micro-batches nor a resumed run change it.
    """

    def __init__(
        self, prepared: Prepared, names: Sequence[str], plan: TrainPlan, data: DataPlan, diffuse: DiffusePlan
    ) -> None:
        super().__init__(prepared, names, plan, data)
        self.timesteps, self.drop = diffuse.timesteps, diffuse.drop_condition

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        image, target, name = super().__getitem__(key)
        rng = np.random.default_rng([self.seed, key[0], self.rows[key[1]], 1])
        height, width, channels = image.shape
        noise = torch.from_numpy(rng.standard_normal((channels, height, width), np.float32))
        return image, target, noise, int(rng.integers(self.timesteps)), bool(rng.random() >= self.drop), name


class StepSampler:
    """The samples of each step from `first_step` on: epochs in fresh random order, incomplete last batches left out.

    Of a step's batch, process `rank` of `world` gets its own equal share.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, first_step: int, last_step: int, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.first_step, self.last_step, self.rank, self.world = first_step, last_step, rank, world

    def __len__(self) -> int:
        return self.last_step - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(self.count, self.batch_size)
        epoch, order = -1, np.empty(0, int)
        for step in range(self.first_step, self.last_step):
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
            start = step % per_epoch * self.batch_size
            batch = order[start : start + self.batch_size]
            yield [(epoch, int(position)) for position in batch[self.rank :: self.world]]


def steps_per_epoch(count: int, batch_size: int) -> int:
    return max(1, count // batch_size)


def training_batches(samples: TrainingSamples, sampler: StepSampler, workers: int, pin_memory: bool) -> Iterator[Any]:
    """`Batch`es, or `NoisyBatch`es of `NoisySamples`."""
    loader = DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate_noisy if isinstance(samples, NoisySamples) else _collate,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        generator=torch.Generator().manual_seed(0),  # the loader's own draws must not move the training's generator
    )
    return iter(loader)


def validation_batches(prepared: Prepared, names: Sequence[str], batch_size: int) -> Iterator[Batch]:
    """The cases as they are, slice by slice, in the order given."""
    chosen = [(name, row) for name in names for row in prepared.rows(name)]
    for start in range(0, len(chosen), batch_size):
        batch = chosen[start : start + batch_size]
        rows = [row for _, row in batch]
        targets = torch.from_numpy(prepared.targets_NHWM[rows]).permute(0, 3, 1, 2).float()
        yield Batch(torch.from_numpy(prepared.images_NHWC[rows]), targets, [name for name, _ in batch])


def _collate(samples: list[tuple[Tensor, Tensor, str]]) -> Batch:
    images, targets, names = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(targets), list(names))


def _collate_noisy(samples: list[tuple[Any, ...]]) -> NoisyBatch:
    images, targets, noise, times, told, names = zip(*samples, strict=True)
    return NoisyBatch(
        torch.stack(images),
        torch.stack(targets),
        torch.stack(noise),
        torch.tensor(times),
        torch.tensor(told),
        list(names),
    )


def _one_thread(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
