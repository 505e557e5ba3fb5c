"""Regularisation of KAN layers: the size of their functions, and how evenly it is spread over the edges.

With a_oi the size of the function on an edge and p = a / sum(a), a layer adds

    l1 * |a| + entropy * S,    S = - sum_oi p_oi log p_oi

to the loss. Two sizes are published: the mean of |phi_oi(x)| over the inputs (Liu et al. 2024, "KAN", Eq. 2.17-2.20, with
|a| the sum over edges), and, for less memory, the mean of the |coefficients| (the Mask2KAN thesis, Eq. 2.8-2.9, with |a| the
mean over edges). The entropy is added in both with the sign published: a smaller loss leaves FEWER edges, although the
thesis' text speaks of a more uniform spread.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ukan.nn.kan import KANLinear
from ukan.nn.knots import some_rows

_ROWS = 64
"""Inputs, spread over the batch, that the mean of |phi| is taken over."""


def coefficient_penalty(layer: KANLinear, l1: float, entropy: float) -> Tensor:
    size_OI = layer.spline_weight.abs().mean(-1)
    return l1 * size_OI.mean() + entropy * _entropy(size_OI)


def activation_penalty(layer: KANLinear, x: Tensor, l1: float, entropy: float) -> Tensor:
    """x (..., I) is what entered the layer; gradients reach it."""
    rows = some_rows(x, _ROWS).float()
    size_OI = checkpoint(_mean_size, layer, rows, use_reentrant=False)  # every edge's every value is a lot to keep
    return l1 * size_OI.sum() + entropy * _entropy(size_OI)


def _mean_size(layer: KANLinear, x_RI: Tensor) -> Tensor:
    active_RI, basis_RMI = layer.features(x_RI)
    weight = layer.spline_weight if layer.spline_scaler is None else layer.spline_weight * layer.spline_scaler.unsqueeze(-1)
    phi_ROI = active_RI.unsqueeze(1) * layer.base_weight + torch.einsum("rmi,oim->roi", basis_RMI, weight)
    return phi_ROI.abs().mean(0)


def _entropy(size_OI: Tensor) -> Tensor:
    size_OI = size_OI + 1e-9  # a logarithm has no slope at zero
    return torch.special.entr(size_OI / size_OI.sum()).sum()
