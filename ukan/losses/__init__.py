"""LOSSES: logits and targets in, one number out. Cross-entropy and Dice are summed with the plan's weights.

Classes that may overlap (and a single one) go through sigmoids: K logits, targets of 0 and 1 in K channels. Classes that
exclude one another go through a softmax: K + 1 logits, the background's first, targets of 0 to K in one channel.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ukan.plan import Target

# Shapes: B batch, L logits, M target channels, H W

Loss = Callable[[Tensor, Tensor], Tensor]


def dice_loss(target: Target) -> Loss:
    """MONAI's soft Dice loss: for each image and class (background left out), then the mean; smoothed as U-KAN published."""
    from monai.losses import DiceLoss  # seconds to import, and only training needs it

    if target == "multiclass":
        return DiceLoss(softmax=True, to_onehot_y=True, include_background=False, smooth_nr=1e-5, smooth_dr=1e-5)
    return DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)


def cross_entropy_loss(target: Target) -> Loss:
    """The mean over pixels (and classes): binary, or over classes that exclude one another."""
    if target == "multiclass":
        return lambda logits_BLHW, targets_B1HW: F.cross_entropy(logits_BLHW, targets_B1HW[:, 0].long())
    return F.binary_cross_entropy_with_logits


LOSSES: dict[str, Callable[[Target], Loss]] = {"bce": cross_entropy_loss, "dice": dice_loss}


def combined_loss(weights: dict[str, float], target: Target) -> Loss:
    """A weighted sum of LOSSES by name, e.g. {"bce": 0.5, "dice": 1.0}; computed in float32."""
    parts = [(LOSSES[name](target), weight) for name, weight in weights.items() if weight]
    if not parts:
        raise ValueError("every loss has weight 0; set train.bce_weight or train.dice_weight")

    def loss(logits_BLHW: Tensor, targets_BMHW: Tensor) -> Tensor:
        logits = logits_BLHW.float()
        return torch.stack([weight * part(logits, targets_BMHW) for part, weight in parts]).sum()

    return loss
