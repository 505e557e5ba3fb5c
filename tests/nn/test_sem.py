"""The scan over a map and the attention after it, against their definitions written out."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.nn.orders import ORDERS
from ukan.nn.sem import EMA, SS2D


def disturbed(module: nn.Module) -> nn.Module:
    """No parameter at a value that hides it."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


def by_definition(ss2d: SS2D, x_CHW: Tensor) -> Tensor:
    """One image, sequence by sequence and step by step: each is projected in its own order, as in the publications."""
    height, width = x_CHW.shape[1:]
    x, gate = ss2d.in_proj(x_CHW.permute(1, 2, 0)).chunk(2, -1)
    x = F.silu(ss2d.conv2d(x.permute(2, 0, 1)[None]))[0].flatten(1).T
    y = torch.zeros_like(x)
    inner = x.shape[1]
    for k, order in enumerate(torch.from_numpy(ORDERS[ss2d.order](height, width).copy())):
        h = torch.zeros(inner, ss2d.states, dtype=x.dtype)
        A = -ss2d.A_logs[k * inner : (k + 1) * inner].exp()
        for place in order.tolist():
            chosen = ss2d.x_proj_weight[k] @ x[place]
            rank, B, C = chosen.split((ss2d.rank, ss2d.states, ss2d.states))
            delta = F.softplus(ss2d.dt_projs_weight[k] @ rank + ss2d.dt_projs_bias[k])
            h = (delta[:, None] * A).exp() * h + (delta * x[place])[:, None] * B
            y[place] = y[place] + h @ C + ss2d.Ds[k * inner : (k + 1) * inner] * x[place]
    y = ss2d.out_norm(y).unflatten(0, (height, width)) * F.silu(gate)
    return ss2d.out_proj(y).permute(2, 0, 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("channels", "size"), [(20, (3, 5)), (5, (4, 2))])
def test_a_map_is_scanned_in_every_direction(order: str, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ss2d = disturbed(SS2D(channels, order=order, states=3))
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([by_definition(ss2d, image) for image in x])
        torch.testing.assert_close(ss2d(x), expected, rtol=1e-10, atol=1e-10)


def test_gradients_come_back_through_every_order() -> None:
    for order in ORDERS:
        torch.manual_seed(0)
        ss2d = disturbed(SS2D(3, order=order, states=2))
        x = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(ss2d, (x,))


def test_a_scan_starts_as_published() -> None:
    ss2d = SS2D(48)
    assert [tuple(p.shape) for p in (ss2d.x_proj_weight, ss2d.dt_projs_weight, ss2d.A_logs)] == [
        (4, 3 + 32, 96),
        (4, 96, 3),
        (4 * 96, 16),
    ]
    width = F.softplus(ss2d.dt_projs_bias)
    assert width.min() >= 0.99e-3 and width.max() <= 1.01e-1
    torch.testing.assert_close(ss2d.A_logs[7].exp(), torch.arange(1.0, 17))
    assert (ss2d.Ds == 1).all()


def test_attention_is_its_definition_group_by_group() -> None:
    torch.manual_seed(0)
    ema = disturbed(EMA(24))
    x = torch.randn(2, 24, 4, 6, dtype=torch.float64)
    found = ema(x)
    for image in range(2):
        for group in range(8):
            part = x[image, 3 * group : 3 * group + 3]
            rows, columns = part.mean(2), part.mean(1)
            mixed = ema.conv1x1(torch.cat((rows, columns), 1)[None, :, :, None])[0, :, :, 0].sigmoid()
            gated = part * mixed[:, :4, None] * mixed[:, None, 4:]
            flat = gated.flatten(1)
            normal = (flat - flat.mean(1, keepdim=True)) / (flat.var(1, keepdim=True, correction=0) + ema.gn.eps).sqrt()
            gated = (normal * ema.gn.weight[:, None] + ema.gn.bias[:, None]).view_as(part)
            near = ema.conv3x3(part[None])[0]
            says = [
                torch.einsum("c,chw->hw", one.mean((1, 2)).softmax(0), other)
                for one, other in ((gated, near), (near, gated))
            ]
            torch.testing.assert_close(found[image, 3 * group : 3 * group + 3], part * sum(says).sigmoid())


@pytest.mark.parametrize("channels", [8, 20, 7])
def test_attention_takes_any_width(channels: int) -> None:
    ema = EMA(channels)
    assert ema.groups == math.gcd(channels, 8)
    assert ema(torch.randn(2, channels, 3, 5)).shape == (2, channels, 3, 5)
