"""LOSSES: logits and targets in, one number out. BCE and Dice are summed with the plan's weights."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# Shapes: B batch, K classes, H W


def dice_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """MONAI's soft Dice loss on sigmoids: for each image and class, then the mean; smoothed as U-KAN published it."""
    from monai.losses import DiceLoss  # seconds to import, and only training needs it

    return DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)


def bce_loss() -> Callable[[Tensor, Tensor], Tensor]:
    return F.binary_cross_entropy_with_logits


LOSSES: dict[str, Callable[[], Callable[[Tensor, Tensor], Tensor]]] = {"bce": bce_loss, "dice": dice_loss}


def combined_loss(weights: dict[str, float]) -> Callable[[Tensor, Tensor], Tensor]:
    """A weighted sum of LOSSES by name, e.g. {"bce": 0.5, "dice": 1.0}; computed in float32."""
    parts = [(LOSSES[name](), weight) for name, weight in weights.items() if weight]
    if not parts:
        raise ValueError("every loss has weight 0; set train.bce_weight or train.dice_weight")

    def loss(logits_BKHW: Tensor, targets_BKHW: Tensor) -> Tensor:
        logits = logits_BKHW.float()
        return torch.stack([weight * part(logits, targets_BKHW) for part, weight in parts]).sum()

    return loss
