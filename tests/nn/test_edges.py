"""The functions on the edges are the layer: what it gives is their sum."""

from typing import Any

import pytest
import torch

from ukan.nn.edges import count_outside, edge_functions, edge_strengths
from ukan.nn.kan import KANLinear

INPUTS, OUTPUTS = 3, 4


def layer(**sizes: Any) -> KANLinear:
    torch.manual_seed(0)
    made = KANLinear(INPUTS, OUTPUTS, **sizes).double()
    with torch.no_grad():
        made.spline_weight.normal_()  # at its start the spline is too small to see
    return made


def rows(count: int = 64) -> torch.Tensor:
    """Inside the grid, outside it and outside the outermost knots."""
    return 6 * torch.rand(count, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 3


def all_edges(made: KANLinear, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Base and spline of every edge, (R, O, I) each."""
    inputs = [i for _ in range(OUTPUTS) for i in range(INPUTS)]
    outputs = [o for o in range(OUTPUTS) for _ in range(INPUTS)]
    base, spline = edge_functions(made, x[:, inputs], inputs, outputs)
    return base.unflatten(1, (OUTPUTS, INPUTS)), spline.unflatten(1, (OUTPUTS, INPUTS))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("beyond", ["zero", "linear"])
@pytest.mark.parametrize(("activation", "scaler"), [("silu", True), ("relu", False), ("gelu", True)])
def test_the_layer_is_the_sum_of_its_edges(order: int, beyond: str, activation: str, scaler: bool) -> None:
    made = layer(spline_order=order, beyond=beyond, base_activation=activation, spline_scaler=scaler)
    x = rows()
    base, spline = all_edges(made, x)
    assert spline.abs().max() > 0.1 and base.abs().max() > 0.1
    torch.testing.assert_close((base + spline).sum(-1), made(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("beyond", ["zero", "linear"])
def test_the_layer_is_the_sum_of_its_edges_with_knots_of_its_own_for_every_input(beyond: str) -> None:
    made = layer(beyond=beyond)
    spans = 0.2 + torch.rand(made.grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    made.set_knots(-2 + 0.5 * spans.cumsum(1))
    x = rows()
    base, spline = all_edges(made, x)
    torch.testing.assert_close((base + spline).sum(-1), made(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_linear_edge_goes_on_in_the_line_that_the_grid_ends_in(order: int) -> None:
    made, step = layer(spline_order=order, beyond="linear"), 1e-6
    for end, sign in ((-1.0, -1), (1.0, 1)):
        x = torch.tensor([end - sign * step, end, end + sign, end + 2 * sign], dtype=torch.float64)
        _, spline = edge_functions(made, x[:, None].expand(-1, 2), [0, 1], [1, 0])
        within, beyond, further = (spline[1] - spline[0]) / step, spline[2] - spline[1], spline[3] - spline[2]
        assert beyond.abs().max() > 0.02
        torch.testing.assert_close(beyond, within, rtol=0, atol=1e-3)
        torch.testing.assert_close(further, beyond)


def test_the_strongest_edges_are_those_of_the_largest_mean_magnitude_one_of_each_input() -> None:
    made, x = layer(), rows()
    base, spline = all_edges(made, x)
    strength = (base + spline).abs().mean(0)
    edges = edge_strengths(made, x).strongest(2)
    assert [edge.strength for edge in edges] == pytest.approx(strength.amax(0).sort(descending=True)[0][:2].tolist())
    assert len({edge.input for edge in edges}) == 2
    for edge in edges:
        place = (edge.output, edge.input)
        of_base, of_spline = base.abs().mean(0)[place], spline.abs().mean(0)[place]
        assert edge.strength == pytest.approx(float(strength[place]))
        assert edge.spline_share == pytest.approx(float(of_spline / (of_base + of_spline)))


def test_the_spline_share_of_a_layer_is_over_all_its_edges() -> None:
    made, x = layer(), rows()
    base, spline = (part.abs().mean() for part in all_edges(made, x))
    assert edge_strengths(made, x).spline_share == pytest.approx(float(spline / (base + spline)))
    with torch.no_grad():
        made.spline_weight.zero_()
    assert edge_strengths(made, x).spline_share == 0


def test_strengths_do_not_depend_on_how_the_inputs_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(), rows()
    whole = edge_strengths(made, x)
    monkeypatch.setattr("ukan.nn.edges._AT_ONCE", 1)
    for divided, known in zip(edge_strengths(made, x), whole, strict=True):
        torch.testing.assert_close(divided, known)


def test_what_lies_outside_is_counted_against_the_knots_of_its_own_input() -> None:
    made = layer()  # a grid of -1 to 1, knots to +-2.2
    moved = made.grid.clone()
    moved[2] += 10
    made.set_knots(moved)
    x = torch.tensor([[-3.0, -1.5, 0.0], [0.0, 1.0, 10.0], [2.0, 2.3, 13.0]], dtype=torch.float64)
    assert count_outside(made, x) == (9, 3, 3, 2, 2)
