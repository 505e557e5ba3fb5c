"""The optimiser and how its learning rates move."""

import math

import torch
from torch import nn
from torch.optim import Optimizer

from ukan.nn.kan import kan_parameters
from ukan.plan import TrainPlan


def make_optimizer(model: nn.Module, plan: TrainPlan) -> Optimizer:
    """Adam or AdamW with two groups: parameters of KAN layers and what stands in their place, and all others.

    The published code tells them by their names, so that an MLP in a KAN layer's place learns at the same rate there, too.
    """
    kan = {id(parameter) for parameter in kan_parameters(model)}
    groups = [
        {"name": "base", "lr": plan.lr, "params": [p for p in model.parameters() if id(p) not in kan]},
        {"name": "kan", "lr": plan.lr_kan, "params": [p for p in model.parameters() if id(p) in kan]},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[plan.optimizer]
    return kind([group for group in groups if group["params"]], weight_decay=plan.weight_decay, foreach=True)


def learning_rate(peak: float, step: int, steps_per_epoch: int, plan: TrainPlan) -> float:
    """The rate at a step: a linear rise over warmup_epochs, then a half cosine down to lr_end (never up to it).

    Of gradual_warmup, where lr_end says nothing, the shape is the published trace's: an epoch at the peak, then the cosine.
    """
    if plan.schedule == "gradual_warmup":
        epoch, rise = step // steps_per_epoch, plan.warmup_epochs
        if epoch <= rise:
            return peak * (1 + (epoch / rise if rise else 1)) / 2
        return peak * (1 + math.cos(math.pi * (epoch - rise - 1) / plan.epochs)) / 2
    total, warmup = plan.epochs * steps_per_epoch, plan.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if plan.schedule == "cosine_by_epoch":
        step = step // steps_per_epoch * steps_per_epoch
    share = (step - warmup) / max(1.0, total - warmup)
    end = min(plan.lr_end, peak)
    return end + (peak - end) * (1 + math.cos(math.pi * share)) / 2


def set_learning_rates(optimizer: Optimizer, step: int, steps_per_epoch: int, plan: TrainPlan) -> dict[str, float]:
    """Set every group's rate for a step; returns {group name: rate}."""
    peaks = {"base": plan.lr, "kan": plan.lr_kan}
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(peaks[group["name"]], step, steps_per_epoch, plan)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
