"""What training a segmentation network is: its loss, and the scores to watch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ukan.data.batches import Batch, TrainingSamples, validation_batches
from ukan.data.cache import Prepared
from ukan.data.preprocess import to_input
from ukan.losses import combined_loss
from ukan.models import build_network, check_trainable
from ukan.plan import Plan
from ukan.stage.synthetic import synthetic_images
from ukan.stage.train import Fold, Material, Options, Trained, memory_format
from ukan.stage.train import train as train_folds


def train(plan_path: Path, **options: Unpack[Options]) -> Trained:
    """`ukan.stage.train.train` of a plan of segmentation."""
    return train_folds(plan_path, make_fold, **options)


def make_fold(material: Material, number: int, accelerator: Any) -> Fold:
    plan, prepared = material.plan, material.prepared
    split, drawn = material.splits[number], None
    if plan.data.synthetic:
        count = sum(len(prepared.rows(name)) for name in split["train"])
        accelerator.print(f"fold {number}: {count} images of {plan.data.synthetic}, drawn or from the cache")
        with accelerator.main_process_first():
            drawn = synthetic_images(plan, material.cases, split, count, str(accelerator.device))
    pictures = (drawn.images_NHWC, drawn.targets_NHWM) if drawn else None
    samples = TrainingSamples(prepared, split["train"], plan.train, plan.data, pictures)
    model = build_network(plan)
    per_process = min(plan.train.batch_size, len(samples)) // accelerator.num_processes
    check_trainable(model, max(1, per_process), plan.data.channels, plan.data.input_size)
    return Fold(
        model,
        samples,
        lambda ready: _compute_loss(ready, plan, accelerator.device),
        lambda names: _validation(plan, prepared, names, accelerator),
        about={"synthetic": drawn.about} if drawn else {},
    )


def _compute_loss(model: nn.Module, plan: Plan, device: torch.device) -> Callable[[Batch], Tensor]:
    loss = combined_loss({"bce": plan.train.bce_weight, "dice": plan.train.dice_weight}, plan.data.target)

    def compute_loss(batch: Batch) -> Tensor:
        images = batch.images_BHWC.to(device, non_blocking=True)
        x = to_input(images, plan.data).contiguous(memory_format=memory_format(plan))
        return loss(model(x), batch.targets_BMHW.to(device, non_blocking=True))

    return compute_loss


def _validation(
    plan: Plan, prepared: Prepared, names: Sequence[str], accelerator: Any
) -> Callable[[nn.Module], dict[str, float]]:
    """Loss and mean Dice over the held-out slices, at the network's size. To watch: no decision looks at it."""
    loss = combined_loss({"bce": plan.train.bce_weight, "dice": plan.train.dice_weight}, plan.data.target)

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, float]:
        was_training = network.training
        network.eval()
        losses, dices, count = 0.0, 0.0, 0
        for batch in validation_batches(prepared, names, plan.infer.batch_size):
            with accelerator.autocast():
                x = to_input(batch.images_BHWC.to(accelerator.device), plan.data)
                logits = network(x.contiguous(memory_format=memory_format(plan))).float()
            targets = batch.targets_BMHW.to(accelerator.device)
            losses += float(loss(logits, targets)) * len(batch.names)
            found, truth = _found(logits, plan), _per_class(targets, plan)
            both, sizes = (found & truth).sum((2, 3)), found.sum((2, 3)) + truth.sum((2, 3))
            dices += float(torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0).mean(1).sum())
            count += len(batch.names)
        network.train(was_training)
        return {"val_loss": losses / count, "val_dice": dices / count}

    return validate


def _found(logits_BLHW: Tensor, plan: Plan) -> Tensor:
    """Masks (B, K, H, W) of the classes."""
    if plan.data.target == "multiclass":
        return _one_hot(logits_BLHW.argmax(1), plan)
    return torch.sigmoid(logits_BLHW) > plan.infer.threshold


def _per_class(targets_BMHW: Tensor, plan: Plan) -> Tensor:
    return _one_hot(targets_BMHW[:, 0].long(), plan) if plan.data.target == "multiclass" else targets_BMHW > 0


def _one_hot(labels_BHW: Tensor, plan: Plan) -> Tensor:
    return torch.stack([labels_BHW == k for k in range(1, plan.data.outputs)], 1)
