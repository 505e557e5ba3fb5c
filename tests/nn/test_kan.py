"""KANLinear against the textbook: the Cox-de Boor recursion and the layer's formula, written out here in plain numbers."""

import math

import pytest
import torch
from torch.nn import functional as F

from ukan.nn.kan import KANLinear, bspline_basis

ORDERS, GRIDS = (1, 2, 3, 4, 5), (3, 5, 7)


def b(x: float, knots: list[float], m: int, order: int) -> float:
    """Basis function m of an order at x (de Boor 1978, p. 131); a span of no width contributes nothing."""
    if order == 0:
        return 1.0 if knots[m] <= x < knots[m + 1] else 0.0
    value = 0.0
    if knots[m + order] > knots[m]:
        value += (x - knots[m]) / (knots[m + order] - knots[m]) * b(x, knots, m, order - 1)
    if knots[m + order + 1] > knots[m + 1]:
        value += (knots[m + order + 1] - x) / (knots[m + order + 1] - knots[m + 1]) * b(x, knots, m + 1, order - 1)
    return value


def basis_by_hand(x_N: torch.Tensor, knots_T: torch.Tensor, order: int) -> torch.Tensor:
    knots = knots_T.tolist()
    rows = [[b(x, knots, m, order) for m in range(len(knots) - order - 1)] for x in x_N.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def make_knots(kind: str, grid: int, order: int) -> torch.Tensor:
    """grid spans on [-1, 1] and order spans beyond on either side; random ones are between 0.2 and 1 of a mean span wide."""
    count = grid + 2 * order
    if kind == "uniform":
        return -1 + (torch.arange(count + 1, dtype=torch.float64) - order) * 2 / grid
    widths = 0.2 + 0.8 * torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(grid + order))
    knots = torch.cat((torch.zeros(1, dtype=torch.float64), widths.cumsum(0)))
    return -1 + (knots - knots[order]) * 2 / (knots[order + grid] - knots[order])


def points(knots_T: torch.Tensor, count: int = 24) -> torch.Tensor:
    """Points inside, beyond and exactly on the knots."""
    low, high = knots_T[0].item(), knots_T[-1].item()
    anywhere = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.cat((low - 0.5 + anywhere * (high - low + 1), knots_T))


def layer(inputs: int = 3, outputs: int = 2, **sizes: int) -> KANLinear:
    torch.manual_seed(0)
    made = KANLinear(inputs, outputs, **sizes).double()
    with torch.no_grad():
        made.spline_weight.normal_()  # at its start the spline is too small to see
    return made


# The basis


@pytest.mark.parametrize("kind", ["uniform", "random"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", ORDERS)
def test_basis_is_the_scalar_recursion(order: int, grid: int, kind: str) -> None:
    knots_T = make_knots(kind, grid, order)
    x_N = points(knots_T)
    ours = bspline_basis(x_N[:, None], knots_T[None], order)[:, 0]
    assert ours.shape == (len(x_N), grid + order)
    assert (ours - basis_by_hand(x_N, knots_T, order)).abs().max() <= 1e-13


@pytest.mark.parametrize("kind", ["uniform", "random"])
@pytest.mark.parametrize("order", ORDERS)
def test_basis_sums_to_one_inside_the_grid_and_is_never_negative(order: int, kind: str) -> None:
    knots_T = make_knots(kind, 5, order)
    x_N = torch.linspace(-1, 1, 41, dtype=torch.float64)[:-1]  # half-open
    basis_NM = bspline_basis(x_N[:, None], knots_T[None], order)[:, 0]
    assert (basis_NM.sum(1) - 1).abs().max() <= 1e-13
    assert basis_NM.min() >= -1e-15


@pytest.mark.parametrize("order", ORDERS)
def test_basis_is_zero_outside_the_knots(order: int) -> None:
    knots_T = make_knots("random", 5, order)
    outside = torch.stack((knots_T[0] - 1e-9, knots_T[-1], knots_T[-1] + 1e-9, torch.tensor(50.0), torch.tensor(-50.0)))
    assert not bspline_basis(outside[:, None], knots_T[None], order).any()
    assert bspline_basis(knots_T[None, :1] + 1e-3, knots_T[None], order).any()


def test_each_input_has_knots_of_its_own_and_leading_dimensions_are_kept() -> None:
    knots_IT = torch.stack((make_knots("uniform", 5, 3), make_knots("random", 5, 3)))
    x_BLI = torch.rand(2, 4, 2, dtype=torch.float64) * 2 - 1
    basis_BLIM = bspline_basis(x_BLI, knots_IT, 3)
    assert basis_BLIM.shape == (2, 4, 2, 8)
    for i in range(2):
        by_hand = basis_by_hand(x_BLI[..., i].flatten(), knots_IT[i], 3).view(2, 4, 8)
        assert (basis_BLIM[:, :, i] - by_hand).abs().max() <= 1e-13


@pytest.mark.parametrize("knots", [[0, 0, 0, 0, 1, 2, 2, 2, 2], [0, 1, 1, 2, 3, 3, 3, 4, 5], [1.0] * 9])
def test_repeated_knots_give_the_recursion_with_zero_for_zero_by_zero_and_no_nan(knots: list[float]) -> None:
    knots_T = torch.tensor(knots, dtype=torch.float64)
    x_N = torch.tensor([-1.0, 0.0, 0.3, 1.0, 1.5, 2.0, 3.0, 4.9, 6.0], dtype=torch.float64, requires_grad=True)
    basis = bspline_basis(x_N[:, None], knots_T[None], 3)[:, 0]
    assert (basis - basis_by_hand(x_N.detach(), knots_T, 3)).abs().max() <= 1e-13
    basis.square().sum().backward()
    assert x_N.grad is not None and x_N.grad.isfinite().all()


# The layer


@pytest.mark.parametrize(("grid", "order"), [(5, 3), (3, 1), (7, 2)])
def test_layer_is_the_scalar_formula(grid: int, order: int) -> None:
    kan = layer(grid_size=grid, spline_order=order)
    x_NI = torch.rand(6, 3, dtype=torch.float64) * 8 - 4
    with torch.no_grad():
        ours = kan(x_NI)
    for n in range(6):
        for o in range(2):
            y = 0.0
            for i in range(3):
                x, knots = x_NI[n, i].item(), kan.grid[i].tolist()
                spline = sum(kan.spline_weight[o, i, m].item() * b(x, knots, m, order) for m in range(grid + order))
                y += kan.base_weight[o, i].item() * x / (1 + math.exp(-x)) + kan.spline_scaler[o, i].item() * spline
            assert abs(ours[n, o].item() - y) <= 1e-13


def test_layer_takes_any_leading_dimensions() -> None:
    kan = layer()
    x_BLI = torch.rand(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(kan(x_BLI), kan(x_BLI.view(10, 3)).view(2, 5, 2), rtol=0, atol=1e-14)
        assert kan(x_BLI[0, 0]).shape == (2,)


def test_layer_in_float32_is_near_the_layer_in_float64() -> None:
    kan = layer(16, 8)
    x_NI = torch.rand(64, 16, dtype=torch.float64) * 5 - 2.5
    with torch.no_grad():
        exact, single = kan(x_NI), kan.float()(x_NI.float())
    assert (single - exact).abs().max() <= 2e-5


def test_outside_the_knots_the_base_path_stands_alone() -> None:
    kan = layer()
    x_NI = torch.tensor([[2.2001, 3.0, 40.0], [-2.2001, -3.0, -40.0]], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(kan(x_NI), F.silu(x_NI) @ kan.base_weight.T, rtol=0, atol=1e-14)
        assert (kan(x_NI / 20) - F.silu(x_NI / 20) @ kan.base_weight.T).abs().min() > 1e-6


@pytest.mark.parametrize("order", [2, 3, 5])
def test_gradients_are_those_of_finite_differences(order: int) -> None:
    kan = layer(spline_order=order)
    x_NI = (torch.rand(5, 3, dtype=torch.float64) * 5 - 2.5).requires_grad_()

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        names = ("base_weight", "spline_weight", "spline_scaler")
        return torch.func.functional_call(kan, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x_NI, kan.base_weight, kan.spline_weight, kan.spline_scaler))


def test_gradients_reach_all_three_parameters_and_the_input() -> None:
    torch.manual_seed(0)
    kan = KANLinear(3, 2)
    x_NI = (torch.rand(64, 3) * 4 - 2).requires_grad_()
    kan(x_NI).square().sum().backward()
    for tensor in (kan.base_weight, kan.spline_weight, kan.spline_scaler, x_NI):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and (tensor.grad != 0).all()


# Its start and its form


@pytest.mark.parametrize("grid", GRIDS)
def test_the_spline_starts_within_a_hundredth_at_the_grid_points(grid: int) -> None:
    torch.manual_seed(0)
    kan = KANLinear(8, 6, grid_size=grid)
    # The noise is published for five spans: +-0.5 * 0.1 / grid.
    basis_PM = basis_by_hand(torch.linspace(-1, 1, grid + 1, dtype=torch.float64), make_knots("uniform", grid, 3), 3)
    values_OIP = torch.einsum("oim,pm->oip", kan.spline_weight.double(), basis_PM)
    bound = 0.05 / grid
    assert values_OIP.abs().max() <= bound * (1 + 1e-4)
    # Uniform noise: its deviation is bound / sqrt(3), and it comes near both ends.
    assert values_OIP.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
    assert values_OIP.max() > 0.9 * bound and values_OIP.min() < -0.9 * bound


def test_base_weights_and_scalers_start_uniform_within_one_by_the_root_of_the_inputs() -> None:
    torch.manual_seed(0)
    kan = KANLinear(64, 48)
    for weight in (kan.base_weight, kan.spline_scaler):
        assert weight.abs().max() <= 1 / 8 and weight.abs().max() > 0.99 / 8
        assert weight.std().item() == pytest.approx(1 / 8 / math.sqrt(3), rel=0.05)


def test_parameters_have_the_published_names_shapes_and_count() -> None:
    kan = KANLinear(7, 4)
    shapes = {name: tuple(tensor.shape) for name, tensor in kan.state_dict().items()}
    assert shapes == {"base_weight": (4, 7), "spline_weight": (4, 7, 8), "spline_scaler": (4, 7), "grid": (7, 12)}
    assert sum(parameter.numel() for parameter in kan.parameters()) == 10 * 7 * 4
    torch.testing.assert_close(kan.grid[3], torch.linspace(-2.2, 2.2, 12), rtol=0, atol=1e-6)


def test_another_grid_range_moves_the_knots() -> None:
    kan = KANLinear(1, 1, grid_size=4, spline_order=2, grid_range=(0.0, 8.0))
    assert kan.grid[0].tolist() == [-4, -2, 0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("sizes", [{"grid_size": 0}, {"spline_order": 0}, {"grid_range": (1.0, 1.0)}])
def test_impossible_sizes_are_refused(sizes: dict) -> None:
    with pytest.raises(ValueError, match="KANLinear needs"):
        KANLinear(2, 2, **sizes)


def test_the_same_seed_gives_the_same_start() -> None:
    def made(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return KANLinear(3, 3).spline_weight.detach()

    assert torch.equal(made(1), made(1)) and not torch.equal(made(1), made(2))
