"""Rolling-UNet is the paper's: its parameters counted from its layers, its cost as published, its rolls. What every model
keeps is in test_contract.py."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.errors import UserError
from ukan.models import build_model, named_sizes
from ukan.models.cost import model_cost, paper_gflops
from ukan.models.rolling_unet import Lo2, RollingUNet, roll

SIZES = named_sizes("rolling-unet")
DEAD = {"paper": 1_024, "paper-M": 2_048, "paper-L": 4_096}
"""Of the published network: a norm of each Lo2 block that is never called."""


def parameters(widths: tuple[int, ...], in_channels: int, num_classes: int) -> int:
    c1, c2, c3, d1, d2 = widths

    def conv(inside: int, outside: int) -> int:  # with the scale and shift of the norm behind it
        return 9 * inside * outside + outside + 2 * outside

    def lo2(channels: int) -> int:
        far = 4 * (channels**2 + channels) + 2 * 2 * channels + 2 * channels**2 + channels
        near = 10 * channels + channels**2 + channels + 2 * channels
        return far + near + 2 * channels**2 + channels + 2 * channels

    down = sum(conv(a, b) + conv(b, b) for a, b in ((in_channels, c1), (c1, c2), (c2, c3)))
    middle = conv(c3, d1) + lo2(d1) + conv(d1, d2) + lo2(d2) + conv(d2, d1) + lo2(d1) + conv(d1, c3)
    up = sum(conv(a, a) + conv(a, b) for a, b in ((c3, c2), (c2, c1), (c1, c1 // 2)))
    return down + middle + up + c1 // 2 * num_classes + num_classes


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_its_layers(size: str) -> None:
    with torch.device("meta"):
        made = [sum(p.numel() for p in RollingUNet(c, k, **SIZES[size]).parameters()) for c, k in ((1, 2), (3, 1))]
    assert made == [parameters(SIZES[size]["widths"], 1, 2), parameters(SIZES[size]["widths"], 3, 1)]


def test_the_paper_s_sizes_have_the_published_parameters_and_cost() -> None:
    costs = {name: model_cost("rolling-unet", 3, 1, SIZES[name], (256, 256)) for name in DEAD}
    published = [round((costs[name].parameters + dead) / 1e6, 2) for name, dead in DEAD.items()]
    assert published == [1.78, 7.10, 28.32], "of its code"
    assert costs["paper"].parameters == 1_782_161
    assert round(paper_gflops("rolling-unet", 3, 1, SIZES["paper"]), 2) == 16.82, "as counted in Table 2 of U-KAN"


def test_the_default_costs_what_u_kan_base_costs() -> None:
    ours, theirs = (model_cost(name, 3, 1, {}, (256, 256)).flops for name in ("rolling-unet", "ukan"))
    assert ours == pytest.approx(theirs, rel=0.05)


def rolled(x_BHWC: Tensor, dim: int, direction: int) -> Tensor:
    """One channel at a time."""
    return torch.stack([x_BHWC[..., c].roll(direction * c, dim) for c in range(x_BHWC.shape[-1])], -1)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("channels", [3, 17])
def test_a_channel_is_rolled_by_its_index_round_the_edge(dim: int, direction: int, channels: int) -> None:
    x = torch.randn(2, 5, 7, channels, generator=torch.Generator().manual_seed(0))
    assert torch.equal(roll(x, dim, direction), rolled(x, dim, direction))


def test_a_linear_layer_on_rolled_channels_sees_the_whole_line_and_nothing_else() -> None:
    x = torch.zeros(1, 6, 8, 8, requires_grad=True)
    roll(x, 2, 1)[0, 3, 2].sum().backward()
    assert x.grad is not None
    seen = x.grad.sum((0, 3))
    assert torch.equal(seen[3], torch.ones(8)) and seen.sum() == 8


def test_a_lo2_block_is_two_orthogonal_mlps_beside_a_separable_convolution() -> None:
    torch.manual_seed(0)
    block = Lo2(6, 0.5).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 5, 7, dtype=torch.double)
    p = dict(block.named_parameters())

    def linear(name: str, y: Tensor) -> Tensor:
        return torch.einsum("bhwi,oi->bhwo", y, p[f"{name}.weight"]) + p[f"{name}.bias"]

    def normal(name: str, y: Tensor) -> Tensor:
        y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return y * p[f"{name}.weight"] + p[f"{name}.bias"]

    with torch.no_grad():
        t = x.permute(0, 2, 3, 1)
        first = t + linear("first.1", rolled(F.gelu(linear("first.0", rolled(t, 1, 1))), 2, 1))
        second = t + linear("second.1", rolled(F.gelu(linear("second.0", rolled(t, 2, -1))), 1, 1))
        far = t + linear("both.1", normal("both.0", torch.cat((first, second), -1)))
        near = block.near(x).permute(0, 2, 3, 1)
        expected = normal("norm", linear("mix", torch.cat((far, near), -1))).permute(0, 3, 1, 2)
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_dropout_is_in_the_bottleneck_alone() -> None:
    model = RollingUNet(3, 1, widths=[4, 6, 8, 10, 12], dropout=0.3)
    dropped = {name: part.p for name, part in model.named_modules() if isinstance(part, nn.Dropout) and part.p}
    assert dropped == {"bottom.1.drop": 0.3}


@pytest.mark.parametrize(
    ("sizes", "answer"),
    [
        ({"widths": [16, 32, 64, 128]}, "widths takes five positive numbers, the first even, got "),
        ({"widths": [15, 32, 64, 128, 256]}, "widths takes five positive numbers, the first even, got "),
        ({"dropout": 1}, "dropout is a share from 0 to below 1, got 1"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError, match=f"model: {answer}"):
        build_model("rolling-unet", 3, 1, sizes)
