"""A moving average of a network, which forgets its start and then holds a steady window."""

import copy

import torch
from torch import nn


class EMA:
    """`network` is the averaged copy, in eval mode.

    The decay warms up as min(decay, (1 + t) / (10 + t)), so that the random start is soon gone. BatchNorm's running mean and
    variance are averaged with the same decay as the weights: they then describe the same window of networks as the weights
    do. Counters and knots are copied; where knots move, `ukan.training.kan` moves those of the
    average along.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.network = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        mine, theirs = self.network.state_dict(), model.state_dict()
        # A tensor that several names share is one to be averaged.
        own = {(v.data_ptr(), v.shape): k for k, v in mine.items() if v.is_floating_point() and not k.endswith(".grid")}
        average = list(own.values())
        torch._foreach_lerp_([mine[k] for k in average], [theirs[k] for k in average], 1 - decay)
        for name, value in mine.items():
            if not value.is_floating_point() or name.endswith(".grid"):
                value.copy_(theirs[name])
