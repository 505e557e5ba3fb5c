"""Knots that follow the data: a new grid for every input of a KAN layer, its functions kept, and what has to move along.

After Liu et al. 2024, "KAN" (grid extension and its update from samples, section 2.4 and Eq. 2.16), with the mixture of even
and adaptive grids of published implementations. Coefficients over other knots are other numbers: the new ones are the least
squares fit of the old functions; that fit is linear, so that one matrix an input carries over all that is counted in them.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from ukan.nn.kan import KANLinear

# Shapes: R rows, I inputs, O outputs, T knots, M basis functions, P points

_MARGIN = 0.01
"""By which a grid reaches beyond the least and the largest input."""
_NARROW = 0.01
"""An input that spans a smaller share of its present grid, such as a constant one, keeps its knots."""
_ROWS = 512
"""Inputs that the fit looks at."""
_ELSEWHERE = 1e-3
"""Weight, in the fit, of all places of the knots against that of the inputs: where none came, functions stay as well."""


class Change(NamedTuple):
    """New knots, and how coefficients and gradients move from the old ones to them."""

    knots_IT: Tensor
    coefficients_IMM: Tensor
    """[i, new, old]"""
    gradients_IMM: Tensor
    """[i, new, old]: the transpose of the fit in the other direction, since gradients move against coefficients."""


@torch.no_grad()
def plan_change(layer: KANLinear, x_RI: Tensor, adaptive: float) -> Change:
    """The change that a sample of inputs asks for; nothing is changed yet. Computed in float64 on the CPU."""
    x, old = x_RI.detach().cpu().double(), layer.grid.cpu().double()
    new = knots_from_inputs(x, old, layer.spline_order, adaptive).to(layer.grid.dtype).double()  # as they will be kept
    sample = some_rows(torch.nan_to_num(x, posinf=0, neginf=0), _ROWS)
    points_PI = torch.cat((sample, _within_spans(old), _within_spans(new)))
    weight_P = torch.ones(len(points_PI), dtype=torch.float64) / len(sample)
    weight_P[len(sample) :] = _ELSEWHERE / (len(points_PI) - len(sample))
    before, after = (_basis(layer, knots, points_PI) for knots in (old, new))
    return Change(new, _fit(after, before, weight_P), _fit(before, after, weight_P).transpose(1, 2))


def some_rows(x: Tensor, count: int) -> Tensor:
    """At most `count` rows (R, I) of all there are, copied; not at even distances, which would fall on columns of a map."""
    rows = x.reshape(-1, x.shape[-1])
    if len(rows) <= count:
        return rows.clone()
    golden = (5**0.5 - 1) / 2
    at = (torch.arange(count, dtype=torch.float64) * golden % 1 * len(rows)).long()
    return rows[at.to(rows.device)]


def _within_spans(knots_IT: Tensor) -> Tensor:
    """Points (P, I) in every span, however narrow: where a span has none, a fit is free to do anything."""
    shares = (torch.arange(8, dtype=knots_IT.dtype) + 0.5).view(-1, 1, 1) / 8
    return torch.lerp(knots_IT[:, :-1], knots_IT[:, 1:], shares).permute(2, 0, 1).flatten(0, 1)


def knots_from_inputs(x_RI: Tensor, old_IT: Tensor, order: int, adaptive: float) -> Tensor:
    """Knots (I, T) for a sample of inputs: a mixture of their quantiles (`adaptive`, 0 to 1) and even spaces."""
    size = old_IT.shape[1] - 1 - 2 * order
    low, high = x_RI.amin(0) - _MARGIN, x_RI.amax(0) + _MARGIN
    shares = torch.linspace(0, 1, size + 1, dtype=x_RI.dtype).unsqueeze(1)
    even, quantiles = torch.lerp(low, high, shares), torch.quantile(x_RI, shares[:, 0], dim=0)
    grid_PI = torch.lerp(even, quantiles, adaptive)
    beyond = torch.arange(1, order + 1).unsqueeze(1) * (high - low) / size
    knots_TI = torch.cat((grid_PI[0] - beyond.flip(0), grid_PI, grid_PI[-1] + beyond))
    wide = high - low - 2 * _MARGIN >= _NARROW * (old_IT[:, -1 - order] - old_IT[:, order])
    usable = wide & knots_TI.isfinite().all(0)  # not, too, where an input is no number
    return torch.where(usable.unsqueeze(1), knots_TI.T, old_IT)


def _basis(layer: KANLinear, knots_IT: Tensor, points_PI: Tensor) -> Tensor:
    """(P, M, I) of the layer's functions over other knots."""
    other = copy.deepcopy(layer).cpu().double()
    other.set_knots(knots_IT)
    return other.features(points_PI)[1]


def _fit(to_PMI: Tensor, of_PMI: Tensor, weight_P: Tensor) -> Tensor:
    """(I, M, M): coefficients over `to` of what has given coefficients over `of`, by weighted least squares."""
    weighted = to_PMI * weight_P[:, None, None]
    gram, mixed = (torch.einsum("pmi,pni->imn", weighted, other) for other in (to_PMI, of_PMI))
    # A basis function that no point meets has nothing to fit: it gets zero instead of a division by it.
    ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).mean(1)
    return torch.linalg.solve(gram + ridge[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype), mixed)


@torch.no_grad()
def apply_change(layer: KANLinear, change: Change) -> None:
    """Take the new knots, and the coefficients that keep the functions.

    For a layer and its moving average alike: an average of coefficients is one of functions while all have the same knots.
    """
    layer.spline_weight.copy_(_carried(layer.spline_weight, change.coefficients_IMM))
    layer.set_knots(change.knots_IT.to(layer.grid))


@torch.no_grad()
def carry_moments(layer: KANLinear, change: Change, optimizer: torch.optim.Optimizer) -> None:
    """Adam's moments of the coefficients, carried over.

    The first moment as the gradients it is an average of; the second as the variance of sums of such gradients, taken for
    independent. Steps go on counting.
    """
    state = optimizer.state.get(layer.spline_weight, {})
    for name, matrix in (("exp_avg", change.gradients_IMM), ("exp_avg_sq", change.gradients_IMM.square())):
        if name in state:
            state[name].copy_(_carried(state[name], matrix))


def _carried(values_OIM: Tensor, matrix_IMM: Tensor) -> Tensor:
    return torch.einsum("imn,oin->oim", matrix_IMM, values_OIM.cpu().double())
