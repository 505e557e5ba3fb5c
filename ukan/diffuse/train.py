"""What training a network of diffusion is: noise to be predicted, the error on held-out images, images drawn to watch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from ukan.data.batches import NoisyBatch, NoisySamples
from ukan.data.preprocess import to_condition, to_signed
from ukan.diffuse.pictures import write_grid
from ukan.models import build_network, check_trainable
from ukan.plan import DiffusePlan
from ukan.runtime import resolve_precision
from ukan.sampling import draw_images, make_scheduler, schedule
from ukan.stage.train import Fold, Material, Options, Trained
from ukan.stage.train import train as train_folds


def train(plan_path: Path, **options: Unpack[Options]) -> Trained:
    """`ukan.stage.train.train` of a plan of diffusion."""
    return train_folds(plan_path, make_fold, **options)


def make_fold(material: Material, number: int, accelerator: Any) -> Fold:
    plan, split = material.plan, material.splits[number]
    assert plan.diffuse, "a plan of diffusion"
    make_scheduler(plan.diffuse)  # refused now, not at the first look
    shown = split["val"] or split["train"]
    model = build_network(plan)
    samples = NoisySamples(material.prepared, split["train"], plan.train, plan.data, plan.diffuse)
    per_process = max(1, min(plan.train.batch_size, len(samples)) // accelerator.num_processes)
    check_trainable(model, per_process, plan.data.channels, plan.data.input_size, torch.zeros((), device="meta"))
    return Fold(
        model,
        samples,
        lambda ready: _compute_loss(ready, material, accelerator.device),
        lambda names: _validation(material, names, accelerator),
        _preview(material, shown, accelerator) if plan.diffuse.preview else None,
    )


def denoising_error(
    network: nn.Module,
    scheduler: Any,
    images_BCHW: Tensor,
    noise_BCHW: Tensor,
    times_B: Tensor,
    told: dict[str, Tensor] | None = None,
) -> Tensor:
    """The mean squared error (B,) of what the network predicts of noisy images; images from -1 to 1.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al. 2020, Eq. 4), by diffusers' DDPMScheduler, which also says
    what is predicted. told: what the network is conditioned on.
    """
    noisy = scheduler.add_noise(images_BCHW, noise_BCHW, times_B)
    kind = scheduler.config.prediction_type
    wanted = noise_BCHW if kind == "epsilon" else images_BCHW
    if kind == "v_prediction":
        wanted = scheduler.get_velocity(images_BCHW, noise_BCHW, times_B)
    predicted = network(noisy.contiguous(memory_format=_layout(network)), times_B, **(told or {})).sample
    return (predicted.float() - wanted).square().mean((1, 2, 3))


def min_snr_weights(scheduler: Any, gamma: float | None) -> Tensor:
    """The weight (T,) of each timestep's error: min(SNR, gamma) for the image's own error (Hang et al. 2023); 1 without."""
    abar = scheduler.alphas_cumprod.double()
    if gamma is None:
        return torch.ones_like(abar).float()
    snr = abar / (1 - abar)
    # The error of the noise is the image's times SNR, that of v the image's times SNR + 1.
    times = {"epsilon": snr, "sample": 1.0, "v_prediction": snr + 1}[scheduler.config.prediction_type]
    return (snr.clamp_max(gamma) / times).float()


def noise_scheduler(diffuse: DiffusePlan) -> Any:
    """What turns images into noise."""
    from diffusers.schedulers import DDPMScheduler

    return DDPMScheduler(**schedule(diffuse))


def labels_of(material: Material, names: Sequence[str]) -> list[int]:
    """The number of each case's class among those of the plan."""
    assert material.plan.diffuse
    return [material.plan.diffuse.classes.index(material.cases[name].label) for name in names]


def _compute_loss(model: nn.Module, material: Material, device: torch.device) -> Callable[[NoisyBatch], Tensor]:
    plan, diffuse = material.plan, material.plan.diffuse
    assert diffuse
    scheduler = noise_scheduler(diffuse)
    weights_T = min_snr_weights(scheduler, diffuse.snr_gamma).to(device)
    # The published sum over a whole batch's values, divided by 1000, so that pieces of a batch add up to it.
    values = plan.train.batch_size * plan.data.channels * plan.data.input_size[0] * plan.data.input_size[1]
    scale = values / 1000 if diffuse.loss == "sum" else 1.0

    def compute_loss(batch: NoisyBatch) -> Tensor:
        images = to_signed(batch.images_BHWC.to(device, non_blocking=True))
        noise, times = batch.noise_BCHW.to(device, non_blocking=True), batch.times_B.to(device)
        told: dict[str, Tensor] = {}
        if diffuse.condition == "class":
            labels = torch.tensor(labels_of(material, batch.names))
            told["class_labels"] = torch.where(batch.told_B, labels, len(diffuse.classes)).to(device)
        if diffuse.condition == "mask":
            masks = to_condition(batch.targets_BMHW.to(device, non_blocking=True), plan.data)
            told["condition"] = masks * batch.told_B.to(device)[:, None, None, None]
        errors = denoising_error(model, scheduler, images, noise, times, told)
        return (errors * weights_T[times]).mean() * scale

    return compute_loss


def _validation(material: Material, names: Sequence[str], accelerator: Any) -> Callable[[nn.Module], dict[str, float]]:
    """The mean error over held-out images, always of the same noise, at timesteps spread evenly. To watch."""
    plan, prepared, diffuse = material.plan, material.prepared, material.plan.diffuse
    assert diffuse
    scheduler, device = noise_scheduler(diffuse), accelerator.device
    rows = [(name, row) for name in names for row in prepared.rows(name)]

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, float]:
        if not rows:
            return {}
        was_training = network.training
        network.eval()
        total = 0.0
        for start in range(0, len(rows), plan.infer.batch_size):
            chosen = rows[start : start + plan.infer.batch_size]
            numbers = [row for _, row in chosen]
            images = to_signed(torch.from_numpy(prepared.images_NHWC[numbers]).to(device))
            noise = torch.stack([fixed_noise(row, images.shape[1:]) for row in numbers]).to(device)
            places = (torch.arange(start, start + len(chosen)) + 0.5) / len(rows)
            times = (places * diffuse.timesteps).long().to(device)
            told: dict[str, Tensor] = {}
            if diffuse.condition == "class":
                told["class_labels"] = torch.tensor(labels_of(material, [name for name, _ in chosen]), device=device)
            if diffuse.condition == "mask":
                targets = torch.from_numpy(prepared.targets_NHWM[numbers]).permute(0, 3, 1, 2)
                told["condition"] = to_condition(targets.to(device), plan.data)
            with accelerator.autocast():
                total += float(denoising_error(network, scheduler, images, noise, times, told).sum())
        network.train(was_training)
        return {"val_loss": total / len(rows)}

    return validate


def fixed_noise(number: int, shape: Sequence[int]) -> Tensor:
    """The same noise for the same number."""
    return torch.from_numpy(np.random.default_rng(number).standard_normal(tuple(shape), np.float32))


def _preview(material: Material, names: Sequence[str], accelerator: Any) -> Callable[[nn.Module, Path], None]:
    """Images of the seeds 0, 1, ...; of classes in turn, or of the masks of cases, which are shown before them."""
    plan, prepared, diffuse = material.plan, material.prepared, material.plan.diffuse
    assert diffuse
    seeds = range(diffuse.preview)
    rows = [row for name in names for row in prepared.rows(name)]
    spread = [rows[i * len(rows) // len(seeds)] for i in seeds]

    def draw(network: nn.Module, path: Path) -> None:
        was_training = network.training
        network.eval()
        images, masks = [], []
        for start in range(0, len(seeds), plan.infer.batch_size):
            chosen = seeds[start : start + plan.infer.batch_size]
            labels = [i % len(diffuse.classes) for i in chosen] if diffuse.condition == "class" else None
            targets = prepared.targets_NHWM[[spread[i] for i in chosen]] if diffuse.condition == "mask" else None
            precision = resolve_precision(plan.train.precision, accelerator.device)
            images.append(
                draw_images(network, plan, chosen, accelerator.device, precision, labels=labels, targets_BHWM=targets)
            )
            masks += [] if targets is None else [targets]
        write_grid(path, np.concatenate(images), np.concatenate(masks) if masks else None)
        network.train(was_training)

    return draw


def _layout(network: nn.Module) -> torch.memory_format:
    weight = next(p for p in network.parameters() if p.ndim == 4)
    return torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
