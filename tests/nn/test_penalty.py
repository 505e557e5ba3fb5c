"""Regularisation is what its formulas say, in both published forms, with the published sign."""

import math

import pytest
import torch
from torch.nn import functional as F

from ukan.nn.kan import KANLinear, bspline_basis
from ukan.nn.penalty import activation_penalty, coefficient_penalty


def layer() -> KANLinear:
    torch.manual_seed(0)
    made = KANLinear(3, 2).double()
    with torch.no_grad():
        made.spline_weight.normal_()
    return made


def entropy(sizes: list[float]) -> float:
    return -sum(a / sum(sizes) * math.log(a / sum(sizes)) for a in sizes)


def test_the_form_of_coefficients_is_the_thesis_formula() -> None:
    kan = layer()
    sizes = [kan.spline_weight[o, i].abs().mean().item() for o in range(2) for i in range(3)]
    assert coefficient_penalty(kan, 2.0, 0.0).item() == pytest.approx(2 * sum(sizes) / 6)
    assert coefficient_penalty(kan, 0.0, 3.0).item() == pytest.approx(3 * entropy(sizes))


def test_the_form_of_activations_is_the_original_formula() -> None:
    kan, x = layer(), torch.randn(4, 10, 3, dtype=torch.float64)
    rows = x.reshape(-1, 3)
    basis = bspline_basis(rows, kan.grid, 3)
    sizes = []
    for o in range(2):
        for i in range(3):
            phi = kan.base_weight[o, i] * F.silu(rows[:, i])
            phi = phi + kan.spline_scaler[o, i] * (basis[:, i] @ kan.spline_weight[o, i])
            sizes.append(phi.abs().mean().item())
    assert activation_penalty(kan, x, 2.0, 0.0).item() == pytest.approx(2 * sum(sizes), rel=1e-5)
    assert activation_penalty(kan, x, 0.0, 3.0).item() == pytest.approx(3 * entropy(sizes), rel=1e-5)


def test_less_of_it_leaves_fewer_edges_and_gradients_reach_inputs_and_weights() -> None:
    kan, x = layer(), torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    activation_penalty(kan, x, 0.1, 0.1).backward()
    assert x.grad is not None and x.grad.any() and kan.base_weight.grad is not None and kan.spline_scaler.grad is not None
    even = KANLinear(3, 2)
    with torch.no_grad():
        even.spline_weight.fill_(1.0)
        spread = coefficient_penalty(even, 0, 1).item()
        even.spline_weight[0] = 0
        assert coefficient_penalty(even, 0, 1).item() < spread == pytest.approx(math.log(6))


def test_a_layer_of_zeros_gives_no_nan() -> None:
    kan = KANLinear(3, 2)
    with torch.no_grad():
        kan.spline_weight.zero_()
    loss = coefficient_penalty(kan, 1.0, 1.0)
    loss.backward()
    assert loss.isfinite() and kan.spline_weight.grad is not None and kan.spline_weight.grad.isfinite().all()
