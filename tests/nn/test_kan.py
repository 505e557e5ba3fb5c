"""KANLinear against the textbook: the Cox-de Boor recursion and the layer's formula, written out here in plain numbers."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ukan.nn import kan as room
from ukan.nn.kan import KANLinear, bspline_basis, compile_layers

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


def layer(inputs: int = 3, outputs: int = 2, knots: str = "uniform", **sizes: Any) -> KANLinear:
    torch.manual_seed(0)
    made = KANLinear(inputs, outputs, **sizes).double()
    rows = [make_knots(knots, made.grid_size, made.spline_order) * (1 + 0.1 * i) for i in range(inputs)]
    made.set_knots(torch.stack(rows))
    assert made.uniform == (knots == "uniform")
    with torch.no_grad():
        made.spline_weight.normal_()  # at its start the spline is too small to see
    return made


def by_hand(kan: KANLinear, x_NI: torch.Tensor) -> torch.Tensor:
    """The layer in float64, its bases from the scalar recursion."""
    act = {"silu": F.silu, "relu": F.relu, "gelu": F.gelu}[kan.base_activation]
    x = x_NI.double()
    basis = torch.stack([basis_by_hand(x[:, i], kan.grid[i].double(), kan.spline_order) for i in range(kan.in_features)], 1)
    scaler = 1 if kan.spline_scaler is None else kan.spline_scaler.double().unsqueeze(-1)
    return act(x) @ kan.base_weight.double().T + torch.einsum("nim,oim->no", basis, kan.spline_weight.double() * scaler)


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


@pytest.mark.parametrize("knots", ["uniform", "random"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("order", ORDERS)
def test_layer_is_the_scalar_formula_in_both_precisions(order: int, grid: int, knots: str) -> None:
    kan = layer(8, 6, knots, grid_size=grid, spline_order=order)
    reach = 1.1 * kan.grid.abs().max()
    x_NI = (torch.rand(64, 8, dtype=torch.float64) * 2 - 1) * reach
    x_NI[:3] = kan.grid[:, :3].T  # on knots, too
    with torch.no_grad():
        truth = by_hand(kan, x_NI)
        assert (kan(x_NI) - truth).abs().max() <= 1e-13 * truth.abs().max()
        single = kan.float()
        truth = by_hand(single, x_NI.float())  # of the knots as float32 holds them
        assert (single(x_NI.float()) - truth).abs().max() <= 2e-6 * truth.abs().max()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_other_base_activations_and_no_scaler(activation: str) -> None:
    kan = layer(5, 4, base_activation=activation, spline_scaler=False)
    assert kan.spline_scaler is None and "spline_scaler" not in kan.state_dict()
    x_NI = torch.randn(20, 5, dtype=torch.float64)
    with torch.no_grad():
        assert (kan(x_NI) - by_hand(kan, x_NI)).abs().max() <= 1e-12


def test_layer_takes_any_leading_dimensions() -> None:
    kan = layer()
    x_BLI = torch.rand(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(kan(x_BLI), kan(x_BLI.view(10, 3)).view(2, 5, 2), rtol=0, atol=1e-14)
        assert kan(x_BLI[0, 0]).shape == (2,)


def test_outside_the_knots_the_base_path_stands_alone() -> None:
    kan = layer()
    x_NI = torch.tensor([[2.2001, 3.0, 40.0], [-2.2001, -3.0, -40.0]], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(kan(x_NI), F.silu(x_NI) @ kan.base_weight.T, rtol=0, atol=1e-14)
        assert (kan(x_NI / 20) - F.silu(x_NI / 20) @ kan.base_weight.T).abs().min() > 1e-6


@pytest.mark.parametrize(
    ("order", "options"),
    [
        *((order, {"knots": knots}) for order in (2, 3, 4, 5) for knots in ("uniform", "random")),
        *((3, {"beyond": "linear", "knots": knots}) for knots in ("uniform", "random")),
        *((3, {"base_activation": activation}) for activation in ("relu", "gelu")),
        (3, {"spline_scaler": False}),
    ],
)
def test_first_and_second_derivatives_are_those_of_finite_differences(order: int, options: dict[str, Any]) -> None:
    kan = layer(spline_order=order, **options)
    x_NI = (torch.rand(5, 3, dtype=torch.float64) * 5 - 2.5).requires_grad_()
    named = dict(kan.named_parameters())

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(kan, dict(zip(named, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x_NI, *named.values()))
    assert torch.autograd.gradgradcheck(run, (x_NI, *named.values()))


def test_derivatives_of_order_one_are_those_of_finite_differences_between_its_kinks() -> None:
    for knots in ("uniform", "random"):
        kan = layer(spline_order=1, knots=knots)
        x_NI = (torch.rand(5, 3, dtype=torch.float64) * 5 - 2.5).requires_grad_()
        assert (x_NI.detach().unsqueeze(-1) - kan.grid).abs().min() > 1e-3
        assert torch.autograd.gradcheck(kan, (x_NI,))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    kan = layer()
    x_NI = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    kan.requires_grad_(False)
    kan(x_NI).sum().backward()
    assert x_NI.grad is not None and kan.base_weight.grad is None
    kan.requires_grad_(True)
    kan(x_NI.detach()).sum().backward()
    assert kan.spline_weight.grad is not None


def test_gradients_reach_all_three_parameters_and_the_input() -> None:
    torch.manual_seed(0)
    kan = KANLinear(3, 2)
    x_NI = (torch.rand(64, 3) * 4 - 2).requires_grad_()
    kan(x_NI).square().sum().backward()
    for tensor in (kan.base_weight, kan.spline_weight, kan.spline_scaler, x_NI):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and (tensor.grad != 0).all()


@pytest.mark.parametrize("knots", ["uniform", "random"])
def test_with_linear_ends_the_spline_goes_on_straight_and_keeps_its_gradient(knots: str) -> None:
    kan, zero = layer(2, 1, knots, beyond="linear"), layer(2, 1, knots)
    edge_2 = kan.grid[:, -4]  # where the grid ends
    inside = torch.linspace(-0.99, 0.99, 30, dtype=torch.float64).unsqueeze(1) * edge_2
    assert torch.equal(kan(inside), zero(inside))
    far = (edge_2 + torch.tensor([[0.5], [1.5], [7.0], [8.0]], dtype=torch.float64)).requires_grad_()

    def spline(layer: KANLinear, x: torch.Tensor) -> torch.Tensor:
        return layer(x) - F.silu(x) @ layer.base_weight.T

    y = spline(kan, far)
    (y[3] - y[2]).sum().backward()
    slope = (spline(zero, edge_2[None]) - spline(zero, edge_2[None] - 1e-6)) / 1e-6
    assert (y[3] - y[2]).item() == pytest.approx(slope.item(), rel=1e-4)
    assert y[2].item() == pytest.approx(spline(zero, edge_2[None]).item() + 7 * slope.item(), rel=1e-4)
    assert far.grad is not None and (far.grad[2:] != 0).all()


# Its blocks, types and company


@pytest.mark.parametrize("knots", ["uniform", "random"])
def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, knots: str) -> None:
    kan, x_NI = layer(6, 4, knots), torch.randn(150, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for room_bytes in (1, 1 << 30):
        monkeypatch.setitem(room._BLOCK_BYTES, "cpu", room_bytes)
        y = kan(x_NI)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x_NI, *kan.parameters()))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0, 50.0])
def test_bases_that_no_input_meets_are_left_out_of_the_products_and_nothing_changes(shift: float) -> None:
    kan = layer(6, 4)
    x_NI = (shift + torch.rand(40, 6, dtype=torch.float64)).requires_grad_()
    used = room._alive(x_NI.detach(), kan._places, kan._rates, room.Spline(3, 5, True, "zero", "silu"))
    assert (used.stop - used.start) < 8
    y = kan(x_NI)
    ours = torch.autograd.grad(y.square().sum(), (x_NI, *kan.parameters()))
    plain = room._plain(
        x_NI, kan.base_weight, kan._spline_weight(), kan._places, kan._rates, room.Spline(3, 5, True, "zero", "silu")
    )
    theirs = torch.autograd.grad(plain.square().sum(), (x_NI, *kan.parameters()))
    for a, b in zip((y, *ours), (plain, *theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_not_a_number_stays_one_and_no_rows_are_no_rows() -> None:
    kan = layer(2, 2)
    x = torch.tensor([[float("nan"), 0.1], [0.2, 0.3]], dtype=torch.float64)
    assert kan(x)[0].isnan().all() and kan(x)[1].isfinite().all()
    empty = torch.zeros(0, 2, dtype=torch.float64, requires_grad=True)
    kan(empty).sum().backward()
    assert empty.grad is not None and empty.grad.shape == (0, 2) and not kan.base_weight.grad.any()


def test_autocast_computes_products_in_bfloat16_and_features_in_float32() -> None:
    kan = layer(32, 16).float()
    x_NI = torch.randn(64, 32, requires_grad=True)
    exact = kan(x_NI)
    with torch.autocast("cpu", torch.bfloat16):
        y = kan(x_NI)
    assert y.dtype == torch.bfloat16
    assert (y - exact).abs().max() <= 2e-2 * exact.abs().max()
    y.float().square().sum().backward()
    for tensor in (x_NI, *kan.parameters()):
        assert tensor.grad is not None and tensor.grad.dtype == torch.float32
    plain = torch.autograd.grad(exact.square().sum(), (x_NI, *kan.parameters()), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):  # a backward pass inside does not lose digits that the forward had
        again = torch.autograd.grad(exact.square().sum(), (x_NI, *kan.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_layer_in_bfloat16_keeps_its_knots_even() -> None:
    kan = layer(16, 8).float()
    x_NI = torch.randn(64, 16)
    exact = kan(x_NI)
    half = copy.deepcopy(kan).bfloat16()
    assert half.uniform and half(x_NI.bfloat16()).dtype == torch.bfloat16
    assert (half(x_NI.bfloat16()) - exact).abs().max() <= 5e-2 * exact.abs().max()


def test_gradient_checkpointing_changes_nothing() -> None:
    kan, x_NI = layer(), torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    plain = torch.autograd.grad(kan(x_NI).square().sum(), (x_NI, *kan.parameters()))
    again = checkpoint(kan, x_NI, use_reentrant=False)
    found = torch.autograd.grad(again.square().sum(), (x_NI, *kan.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


def test_only_inputs_and_weights_are_kept_for_the_gradient() -> None:
    kan, kept = layer(64, 64).float(), dict[int, int]()
    x_NI = torch.randn(1000, 64, requires_grad=True)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kan(x_NI)
    weights = 2 * kan.spline_weight.nbytes + sum(p.nbytes for p in kan.parameters())
    assert sum(kept.values()) <= x_NI.nbytes + weights + kan.grid.nbytes


@pytest.mark.parametrize("knots", ["uniform", "random"])
def test_the_compiled_layer_gives_the_same(knots: str) -> None:
    kan = layer(24, 16, knots).float()
    if problem := room.compiler_problem(kan):
        pytest.skip(problem)
    fast = copy.deepcopy(kan)
    compile_layers(fast)
    for rows in (70, 33):
        x_NI = torch.randn(rows, 24, requires_grad=True)
        found = []
        for one in (kan, fast):
            y = one(x_NI)
            found.append((y, *torch.autograd.grad(y.square().sum(), (x_NI, *one.parameters()))))
        for ours, theirs in zip(*found, strict=True):
            assert (ours - theirs).abs().max() <= 5e-6 * theirs.abs().max()


def test_a_model_compiled_or_exported_as_a_whole_gives_the_same() -> None:
    kan = nn.Sequential(layer(4, 5), layer(5, 2, "random"))
    x_NI = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    y, whole = kan(x_NI), torch.compile(kan, backend="aot_eager")(x_NI)
    torch.testing.assert_close(whole, y, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(one.square().sum(), tuple(kan.parameters())) for one in (whole, y))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    exported = torch.export.export(kan, (x_NI.detach(),)).module()
    torch.testing.assert_close(exported(x_NI.detach()), y, rtol=0, atol=1e-12)


# Its knots


def test_knots_a_rounding_apart_count_as_even_and_others_do_not() -> None:
    kan = KANLinear(3, 2)
    assert kan.uniform
    eps = torch.finfo(torch.float32).eps
    for roundings, even in ((2, True), (40, False)):
        moved = kan.grid.clone()
        moved[1, 5] += roundings * eps * 2.2
        kan.set_knots(moved)
        assert kan.uniform == even


def test_uneven_knots_stay_uneven_in_bfloat16() -> None:
    kan = KANLinear(4, 4, grid_size=20)
    moved = kan.grid.clone()
    moved[:, 1:-1] += 0.04 * (torch.arange(25) % 2)
    kan.set_knots(moved)
    assert not kan.uniform and not copy.deepcopy(kan).bfloat16().uniform


@pytest.mark.parametrize(("low", "grid"), [(10.0, 5), (1000.0, 5), (-1.0, 50), (-1.0, 200)])
def test_float32_is_exact_to_rounding_far_from_zero_and_on_fine_grids_too(low: float, grid: int) -> None:
    torch.manual_seed(0)
    kan = KANLinear(2, 2, grid_size=grid, grid_range=(low, low + 2))
    with torch.no_grad():
        kan.spline_weight.normal_()
        kan.base_weight.zero_()  # its outputs would be so large that the spline's errors hid
        x_NI = low + 2 * torch.rand(20, 2)
        meant = copy.deepcopy(kan).double()
        if kan.uniform:  # knots that float32 cannot hold: even is what they stand for
            meant.set_knots((low + torch.arange(-3, grid + 4, dtype=torch.float64) * 2 / grid).expand(2, -1))
        truth = by_hand(meant, x_NI)
        of_a_span = (
            torch.finfo(torch.float32).eps * (abs(low) + 2) * grid / 2
        )  # what rounding an input or a knot moves it by
        assert (kan(x_NI) - truth).abs().max() <= max(3e-6, of_a_span if kan.uniform else 0) * truth.abs().max()


def test_a_layer_moved_or_loaded_in_inference_mode_still_trains() -> None:
    kan = KANLinear(3, 2)
    with torch.inference_mode():
        kan.cpu()
        kan.load_state_dict(kan.state_dict())
    kan(torch.randn(4, 3)).sum().backward()
    assert kan.base_weight.grad is not None


def test_inputs_of_another_width_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"takes \(\.\.\., 3\), got \(4, 6\)"):
        KANLinear(3, 2)(torch.randn(4, 6))


def test_knots_that_do_not_ascend_are_refused_and_nothing_changes() -> None:
    kan = KANLinear(3, 2)
    before = kan.grid.clone()
    for knots in (before.flip(1), before[:, :-1], before * float("nan")):
        with pytest.raises(ValueError, match="knots must ascend and have shape"):
            kan.set_knots(knots)
    assert torch.equal(kan.grid, before)


def test_a_loaded_state_brings_its_knots() -> None:
    source, target = layer(knots="random"), layer()
    target.load_state_dict(source.state_dict())
    assert not target.uniform
    x_NI = torch.randn(7, 3, dtype=torch.float64)
    assert torch.equal(source(x_NI), target(x_NI))
    assert torch.equal(copy.deepcopy(target)(x_NI), target(x_NI))


def test_repeated_knots_of_a_constant_input_give_no_nan() -> None:
    kan = layer(3, 2)
    knots = kan.grid.clone()
    knots[1] = 0.5
    kan.set_knots(knots)
    x_NI = torch.randn(20, 3, dtype=torch.float64)
    x_NI[:, 1] = 0.5
    x_NI.requires_grad_()
    y = kan(x_NI)
    assert (y - by_hand(kan, x_NI)).abs().max() <= 1e-12
    gradients = torch.autograd.grad(y.sum(), (x_NI, *kan.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.gpu
@pytest.mark.parametrize("knots", ["uniform", "random"])
@pytest.mark.parametrize(("order", "compiled"), [(order, compiled) for order in ORDERS for compiled in (False, True)])
def test_on_a_gpu_the_layer_gives_the_same(order: int, compiled: bool, knots: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    kan = layer(32, 16, knots, spline_order=order).float()
    there = copy.deepcopy(kan).cuda()
    compile_layers(there, compiled)
    x_NI = torch.randn(5000, 32)
    found = []
    for one, x in ((kan, x_NI.requires_grad_()), (there, x_NI.detach().cuda().requires_grad_())):
        y = one(x)
        found.append([tensor.cpu() for tensor in (y, *torch.autograd.grad(y.square().mean(), (x, *one.parameters())))])
    for ours, theirs in zip(*found, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


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


@pytest.mark.parametrize("sizes", [{"grid_size": 0}, {"spline_order": 0}, {"spline_order": 6}, {"grid_range": (1.0, 1.0)}])
def test_impossible_sizes_are_refused(sizes: dict) -> None:
    with pytest.raises(ValueError, match="KANLinear needs"):
        KANLinear(2, 2, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["base_activation", "beyond"])
def test_a_mistyped_choice_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is one of"):
        KANLinear(2, 2, **{name: "siluu"})  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_start() -> None:
    def made(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return KANLinear(3, 3).spline_weight.detach()

    assert torch.equal(made(1), made(1)) and not torch.equal(made(1), made(2))
