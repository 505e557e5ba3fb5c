"""UNeXt is the paper's: its parameters counted from its layers, its cost as published, its shifts. What every model keeps is
in test_contract.py."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ukan.errors import UserError
from ukan.models import build_model, named_sizes
from ukan.models.cost import model_cost, paper_gflops
from ukan.models.unext import TokenizedMLP, UNeXt, shift

PAPER = named_sizes("unext")["paper"]["widths"]


def parameters(widths: tuple[int, ...], in_channels: int, num_classes: int) -> int:
    """A convolution a stage with its BatchNorm; a tokenized MLP is a norm before and after, two linear layers and a
    depthwise convolution between."""
    c1, c2, c3, d1, d2 = widths

    def conv(inside: int, outside: int) -> int:  # with the scale and shift of the norm behind it
        return 9 * inside * outside + outside + 2 * outside

    def tokens(channels: int) -> int:
        return 2 * (channels**2 + channels) + 10 * channels + 2 * 2 * channels

    down = conv(in_channels, c1) + conv(c1, c2) + conv(c2, c3) + conv(c3, d1) + tokens(d1) + conv(d1, d2) + tokens(d2)
    up = conv(d2, d1) + tokens(d1) + conv(d1, c3) + tokens(c3) + conv(c3, c2) + conv(c2, c1)
    return down + up + 9 * c1**2 + c1 + c1 * num_classes + num_classes


@pytest.mark.parametrize("size", ["paper", "matched"])
def test_parameters_are_those_of_its_layers(size: str) -> None:
    widths = named_sizes("unext")[size]["widths"]
    with torch.device("meta"):
        made = [sum(p.numel() for p in UNeXt(c, k, widths=widths).parameters()) for c, k in ((1, 2), (3, 1))]
    assert made == [parameters(widths, 1, 2), parameters(widths, 3, 1)]


def test_the_paper_s_size_has_the_published_parameters_and_cost() -> None:
    cost = model_cost("unext", 3, 1, {"widths": PAPER}, (256, 256))
    assert cost.parameters == 1_471_921, "1.47 M (Valanarasu and Patel 2022)"
    assert round(paper_gflops("unext", 3, 1, {"widths": PAPER}), 2) == 4.58, "as counted in Table 2 of U-KAN"


def test_the_default_costs_what_u_kan_base_costs() -> None:
    ours, theirs = (model_cost(name, 3, 1, {}, (256, 256)).flops for name in ("unext", "ukan"))
    assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("channels", [10, 12])
def test_groups_of_channels_move_by_minus_two_to_two_pixels_and_zeros_come_in(dim: int, channels: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 6, 7, channels))
    expected = np.zeros_like(x)
    size, group = x.shape[dim], -(-channels // 5)
    for channel in range(channels):
        for to in range(size):
            source = to - (channel // group - 2)
            if 0 <= source < size:
                index = (slice(None),) * dim
                expected[(*index, to, ..., channel)] = x[(*index, source, ..., channel)]
    np.testing.assert_array_equal(shift(torch.from_numpy(x), dim).numpy(), expected)


def test_a_tokenized_mlp_is_a_convolution_along_the_width_then_one_along_the_height() -> None:
    """A linear layer on shifted channels is a convolution whose kernel has one weight for each pair of channels."""
    torch.manual_seed(0)
    block = TokenizedMLP(10).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 10, 7, 9, dtype=torch.double)

    def along(layer: torch.nn.Linear, y: Tensor, vertical: bool) -> Tensor:
        kernel = torch.zeros(10, 10, 1, 5, dtype=torch.double)
        for channel in range(10):
            kernel[:, channel, 0, 2 - (channel // 2 - 2)] = layer.weight[:, channel]
        return F.conv2d(
            y, kernel.transpose(2, 3) if vertical else kernel, layer.bias, padding=(2, 0) if vertical else (0, 2)
        )

    def normal(norm: torch.nn.LayerNorm, y: Tensor) -> Tensor:
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return y * norm.weight[:, None, None] + norm.bias[:, None, None]

    with torch.no_grad():
        y = F.gelu(block.dwconv(along(block.fc1, normal(block.norm1, x), False)))
        expected = normal(block.norm2, x + along(block.fc2, y, True))
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("widths", [[16, 32, 128, 160], [8, 8, 8, 8, 0], [8] * 6])
def test_other_than_five_positive_widths_are_refused(widths: list[int]) -> None:
    with pytest.raises(UserError, match="model: widths takes five positive numbers, got "):
        build_model("unext", 3, 1, {"widths": widths})
