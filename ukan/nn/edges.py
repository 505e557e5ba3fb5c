"""The univariate functions on the edges of a KAN layer, and what enters them: to be looked at, not trained through.

    phi_oi(x) = base_weight_oi * act(x) + spline_scaler_oi * sum_m spline_weight_oim * B_m(x),    y_o = sum_i phi_oi(x_i)

They are written out by the textbook's recursion, in float64 on the CPU, whatever way the layer itself computes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ukan.nn.kan import KANLinear, bspline_basis

# Shapes: R rows of inputs, I inputs, O outputs, E edges, N points of a plot, M basis functions, T knots

_AT_ONCE = 1 << 22  # values of edges: bounds the memory at some 100 MB


class Edge(NamedTuple):
    input: int
    output: int
    strength: float
    """The mean of |phi| over the rows."""
    spline_share: float
    """Of that what the spline makes: mean |spline| / (mean |base| + mean |spline|)."""


class Outside(NamedTuple):
    """How many values lie where; a share of the grid's outside is (below_grid + above_grid) / values."""

    values: int
    below_grid: int
    above_grid: int
    below_knots: int
    above_knots: int


@torch.no_grad()
def edge_functions(layer: KANLinear, x_NE: Tensor, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Base and spline, (N, E) each, of the edges from inputs[e] to outputs[e] at points x_NE; phi is their sum."""
    x = x_NE.detach().cpu().double()
    weight_OI, spline_OIM = _weights(layer)
    basis_NEM = _basis(layer, x, _knots(layer)[list(inputs)])
    spline = (basis_NEM * spline_OIM[list(outputs), list(inputs)]).sum(-1)
    return _activation(layer, x) * weight_OI[list(outputs), list(inputs)], spline


class Strengths(NamedTuple):
    """Of every edge (O, I) the mean over rows of inputs of |phi|, of |base| and of |spline|."""

    phi_OI: Tensor
    base_OI: Tensor
    spline_OI: Tensor

    @property
    def spline_share(self) -> float:
        """How much of the layer its splines make: mean |spline| / (mean |base| + mean |spline|) over all edges."""
        return _share(float(self.base_OI.mean()), float(self.spline_OI.mean()))

    def strongest(self, count: int) -> list[Edge]:
        """The edges of the largest mean |phi|, strongest first; of each input its strongest alone, as others look alike."""
        largest_I, outputs_I = self.phi_OI.max(0)
        inputs = largest_I.argsort(descending=True, stable=True)[:count].tolist()
        phi, base, spline = (values.tolist() for values in self)
        return [Edge(i, o, phi[o][i], _share(base[o][i], spline[o][i])) for i, o in ((i, int(outputs_I[i])) for i in inputs)]


@torch.no_grad()
def edge_strengths(layer: KANLinear, x_RI: Tensor) -> Strengths:
    x = x_RI.detach().cpu().double()
    weight_OI, spline_OIM = _weights(layer)
    knots = _knots(layer)
    parts = []
    for chosen in torch.arange(x.shape[1]).split(max(1, _AT_ONCE // (len(x) * len(weight_OI)))):
        base = _activation(layer, x[:, chosen]).unsqueeze(1) * weight_OI[:, chosen]
        spline = torch.einsum("rim,oim->roi", _basis(layer, x[:, chosen], knots[chosen]), spline_OIM[:, chosen])
        parts.append(torch.stack([values.abs().mean(0) for values in (base + spline, base, spline)]))
    return Strengths(*torch.cat(parts, -1))


@torch.no_grad()
def count_outside(layer: KANLinear, x_RI: Tensor) -> Outside:
    """How many of the inputs (R, I) lie outside their grid, and outside the outermost knots where every spline ends."""
    knots, order = layer.grid.to(x_RI.device), layer.spline_order
    low, high = knots[:, order], knots[:, -1 - order]
    tests = (x_RI < low, x_RI > high, x_RI < knots[:, 0], x_RI > knots[:, -1])
    return Outside(x_RI.numel(), *(int(test.sum()) for test in tests))


def _share(base: float, spline: float) -> float:
    return spline / (base + spline) if base + spline else math.nan


def _weights(layer: KANLinear) -> tuple[Tensor, Tensor]:
    """base_weight (O, I) and what the basis functions are multiplied with (O, I, M)."""
    spline = layer.spline_weight.detach().cpu().double()
    if layer.spline_scaler is not None:
        spline = spline * layer.spline_scaler.detach().cpu().double().unsqueeze(-1)
    return layer.base_weight.detach().cpu().double(), spline


def _knots(layer: KANLinear) -> Tensor:
    return layer.grid.detach().cpu().double()


def _activation(layer: KANLinear, x: Tensor) -> Tensor:
    return getattr(F, layer.base_activation)(x)


def _basis(layer: KANLinear, x_NI: Tensor, knots_IT: Tensor) -> Tensor:
    """(N, I, M); beyond the grid as the layer says: towards zero at the outermost knots, or on in a straight line."""
    order = layer.spline_order
    if layer.beyond == "zero":
        return bspline_basis(x_NI, knots_IT, order)
    low, high = knots_IT[:, order], knots_IT[:, -1 - order]
    inside = torch.minimum(torch.maximum(x_NI, low), high)
    # The slope is taken within the outermost spans of the grid, since at its very ends spans of order 1 have two.
    slope_at = inside
    if order == 1:
        first, last = (knots_IT[:, 1] + knots_IT[:, 2]) / 2, (knots_IT[:, -2] + knots_IT[:, -3]) / 2
        slope_at = torch.minimum(torch.maximum(inside, first), last)
    lower = bspline_basis(slope_at, knots_IT, order - 1)
    width = knots_IT[:, order:] - knots_IT[:, :-order]
    rising = torch.where(width > 0, order * lower / width, 0)
    slope = rising[..., :-1] - rising[..., 1:]
    return bspline_basis(inside, knots_IT, order) + (x_NI - inside).unsqueeze(-1) * slope
