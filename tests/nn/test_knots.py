"""Knots that follow the data keep the functions, and what is counted in coefficients moves along."""

import copy

import pytest
import torch

from ukan.nn.kan import KANLinear
from ukan.nn.knots import apply_change, carry_moments, knots_from_inputs, plan_change, some_rows


def layer(inputs: int = 4, outputs: int = 3, **sizes) -> KANLinear:
    torch.manual_seed(0)
    made = KANLinear(inputs, outputs, **sizes)
    with torch.no_grad():
        made.spline_weight.normal_()
    return made


def sample(rows: int = 800, inputs: int = 4) -> torch.Tensor:
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(1))
    return x * torch.linspace(0.5, 1.2, inputs)


@pytest.mark.parametrize("adaptive", [0.0, 0.5, 0.98])
def test_the_grid_reaches_over_the_inputs_and_is_even_or_follows_their_quantiles(adaptive: float) -> None:
    x, kan = sample().double(), layer()
    knots = knots_from_inputs(x, kan.grid.double(), 3, adaptive)
    assert knots.shape == kan.grid.shape and (knots.diff(dim=1) > 0).all()
    assert (knots[:, 3] <= x.amin(0)).all() and (knots[:, -4] >= x.amax(0)).all()
    if not adaptive:
        assert torch.allclose(knots.diff(dim=1), knots.diff(dim=1)[:, :1])
    inside = torch.stack([((x > a) & (x < b)).sum(0) for a, b in zip(knots.T[3:-4], knots.T[4:-3], strict=True)])
    spread = (inside.float() / 800 - 1 / 5).abs().max()
    assert spread < 0.02 if adaptive == 0.98 else spread > 0.05


@pytest.mark.parametrize("sizes", [{}, {"beyond": "linear"}, {"grid_size": 7, "spline_order": 2}])
def test_the_functions_stay_as_near_as_the_new_knots_allow(sizes: dict) -> None:
    x = sample()
    kan = layer(**{"grid_size": 12} | sizes)
    with torch.no_grad():  # a smooth function, which knots elsewhere can follow
        kan.spline_weight.copy_(torch.sin(torch.linspace(0, 3, kan.spline_weight.shape[-1])).expand_as(kan.spline_weight))
        before = kan(x)
        change = plan_change(kan, x, 0.5)
        apply_change(kan, change)
        assert not kan.uniform
        assert (kan(x) - before).square().mean() < 6e-4 * before.var()


def test_the_same_knots_change_nothing() -> None:
    kan, x = layer(), sample()
    apply_change(kan, plan_change(kan, x, 0.3))
    twin = copy.deepcopy(kan)
    change = plan_change(kan, x, 0.3)
    assert torch.equal(change.knots_IT.float(), kan.grid)
    for matrix in (change.coefficients_IMM, change.gradients_IMM):
        assert (matrix - torch.eye(8, dtype=torch.float64)).abs().max() < 1e-4
    apply_change(kan, change)
    assert (kan(x) - twin(x)).abs().max() < 1e-4 * twin(x).abs().max()


def test_constant_inputs_keep_their_knots_and_nothing_becomes_nan() -> None:
    kan, x = layer(), sample()
    x[:, 1], x[:, 2] = 0.0, 0.7
    x[:, 3] = x[:, 3].relu()  # half of them zero
    before = kan.grid.clone()
    apply_change(kan, plan_change(kan, x, 0.98))
    assert torch.equal(kan.grid[1:3], before[1:3]) and not torch.equal(kan.grid[0], before[0])
    y = kan(x.requires_grad_())
    y.sum().backward()
    assert y.isfinite().all() and x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize(("grid", "shift"), [(5, 2.0), (7, 1.0), (10, 1.0), (20, 0.0)])
def test_functions_of_sparse_inputs_survive_many_updates(grid: int, shift: float) -> None:
    """Behind a ReLU most inputs are 0, so quantiles fall together and spans become narrow."""
    torch.manual_seed(0)
    kan, worst = KANLinear(4, 4, grid_size=grid), 0.0
    optimizer = torch.optim.Adam(kan.parameters(), lr=1e-2)
    for step in range(1, 61):
        x = (torch.randn(512, 4) - shift).relu()
        optimizer.zero_grad()
        loss = (kan(x) - torch.sin(2 * x)).square().mean()
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            with torch.no_grad():
                before, change = kan(x), plan_change(kan, x, 0.98)
                apply_change(kan, change)
                carry_moments(kan, change, optimizer)
                worst = max(worst, ((kan(x) - before).square().mean() / before.var()).sqrt().item())
    assert worst < 0.2 and kan.spline_weight.abs().max() < 20 and loss < 0.2
    assert all(moment.isfinite().all() for moment in optimizer.state[kan.spline_weight].values())


def test_inputs_that_are_no_numbers_leave_their_knots() -> None:
    kan, x = layer(), sample()
    x[3, 1], x[5, 2] = float("nan"), float("inf")
    before = kan.grid.clone()
    apply_change(kan, plan_change(kan, x, 0.5))
    assert torch.equal(kan.grid[1:3], before[1:3]) and kan.spline_weight.isfinite().all()


def test_sampled_rows_are_spread_over_a_map_and_not_its_columns() -> None:
    at = some_rows(torch.arange(8 * 256.0).unsqueeze(1), 64).long().flatten() % 256
    rows, columns = (at // 16).unique(), (at % 16).unique()
    assert len(rows) == len(columns) == 16
    few = torch.randn(5, 3)
    assert torch.equal(some_rows(few, 64), few)


def test_an_average_of_layers_is_the_average_of_their_functions_after_the_change_too() -> None:
    one, other, x = layer(), layer(), sample()
    with torch.no_grad():
        other.spline_weight.normal_()
        other.base_weight.copy_(one.base_weight)
        other.spline_scaler.copy_(one.spline_scaler)
    mean = copy.deepcopy(one)
    with torch.no_grad():
        mean.spline_weight.copy_((one.spline_weight + other.spline_weight) / 2)
    change = plan_change(one, x, 0.5)
    for kan in (one, other, mean):
        apply_change(kan, change)
    with torch.no_grad():
        assert (mean(x) - (one(x) + other(x)) / 2).abs().max() < 1e-4


def test_the_first_moment_is_carried_as_the_gradient_over_the_new_knots() -> None:
    """Between nested grids the old functions are exactly among the new ones, and gradients over both can be compared."""
    x = sample(inputs=1, rows=2000)
    kan = layer(1, 1, grid_size=4)
    fine = kan.grid.clone()
    target = torch.sin(2 * x)

    def gradient(kan: KANLinear) -> torch.Tensor:
        return torch.autograd.grad((kan(x) - target).square().mean(), kan.spline_weight)[0]

    optimizer = torch.optim.Adam(kan.parameters(), lr=1e-9)
    optimizer.zero_grad()
    (kan(x) - target).square().mean().backward()
    optimizer.step()
    kept = optimizer.state[kan.spline_weight]["exp_avg"].clone()
    change = plan_change(kan, x, 0.0)
    apply_change(kan, change)
    carry_moments(kan, change, optimizer)
    state = optimizer.state[kan.spline_weight]
    moved, wanted = state["exp_avg"].flatten(), 0.1 * gradient(kan).flatten()  # the first step keeps a tenth
    assert not torch.allclose(kan.grid, fine) and not torch.allclose(kept.flatten(), wanted, rtol=0.2)
    assert torch.nn.functional.cosine_similarity(moved, wanted, dim=0) > 0.97
    assert (state["exp_avg_sq"] >= 0).all() and state["step"] == 1


def test_a_layer_in_training_goes_on_learning_over_changing_knots() -> None:
    torch.manual_seed(0)
    kan, x = KANLinear(1, 1, grid_size=8), 4 * torch.rand(1000, 1) - 1
    target = torch.sin(3 * x)
    optimizer = torch.optim.Adam(kan.parameters(), lr=3e-2)
    for step in range(600):
        optimizer.zero_grad()
        loss = (kan(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        if step in (50, 100, 150):
            change = plan_change(kan, x, 0.5)
            apply_change(kan, change)
            carry_moments(kan, change, optimizer)
    assert loss < 5e-3  # with the grid it started with, half of the inputs lie beyond: 0.1
