"""KM-UNet's selective-scan efficient multi-scale module (SEM; Zhang 2025, "KM-UNet: KAN Mamba UNet for medical image
segmentation", Eq. 1-6): a scan over the map in several directions (SS2D), then multi-scale attention (EMA).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.nn.orders import find_order, order_of, sequences
from ukan.nn.scan import Backend, check_backend, selective_scan

# Shapes: B batch, C channels, H W height and width, L = H * W places, G sequences, D inner channels, N states


class SS2D(nn.Module):
    """The scan block of VMamba (Liu et al. 2024, "VMamba: Visual State Space Model", first version): a map in, the same size
    out.

    To expand times the channels, a 3x3 depthwise convolution and SiLU; a selective scan of each sequence of `order`, step by
    step with widths, inputs and outputs made from the place itself; the sum of all over each place, normalised, gated, and
    back to the channels. Parameters, their names and their start are those of VMamba and the published KM-UNet.
    """

    def __init__(
        self, channels: int, *, order: str = "raster", backend: Backend = "auto", states: int = 16, expand: int = 2
    ) -> None:
        super().__init__()
        check_backend(backend)
        find_order(order)
        self.order, self.backend, self.states = order, backend, states
        inner, rank, groups = expand * channels, math.ceil(channels / 16), sequences(order)
        self.rank, self.groups = rank, groups
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj_weight = nn.Parameter(torch.empty(groups, rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(groups, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(groups, inner))
        self.A_logs = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(groups * inner, 1))
        self.Ds = nn.Parameter(torch.ones(groups * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        nn.init.uniform_(self.x_proj_weight, -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():  # softplus of the bias lies between 0.001 and 0.1, evenly by its logarithm
            width = torch.exp(torch.empty_like(self.dt_projs_bias).uniform_(math.log(1e-3), math.log(1e-1)))
            self.dt_projs_bias.copy_(width + torch.log(-torch.expm1(-width)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size = x_BCHW.shape[2], x_BCHW.shape[3]
        x_BHWD, gate_BHWD = self.in_proj(x_BCHW.permute(0, 2, 3, 1)).chunk(2, -1)
        x_BDHW = F.silu(self.conv2d(x_BHWD.permute(0, 3, 1, 2)))
        u_LBD = x_BDHW.permute(2, 3, 0, 1).flatten(0, 1)

        # What is chosen at a place does not depend on when it is visited: one product for all sequences, put in order after.
        chosen_LBGR = F.linear(u_LBD, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (self.groups, -1))
        rank_LBGR, B_LBGN, C_LBGN = chosen_LBGR.split((self.rank, self.states, self.states), -1)
        width_LBGD = torch.einsum("lbgr,gdr->lbgd", rank_LBGR, self.dt_projs_weight)
        delta_LBGD = F.softplus(width_LBGD + self.dt_projs_bias)

        there_GL, back_GL = order_of(self.order, size, x_BCHW.device)
        A_GDN = -torch.exp(self.A_logs).unflatten(0, (self.groups, -1))
        u_LBGD = u_LBD.unsqueeze(2).expand(-1, -1, self.groups, -1)
        y_LBGD = selective_scan(
            _reorder(u_LBGD, there_GL, back_GL),
            _reorder(delta_LBGD, there_GL, back_GL),
            A_GDN,
            _reorder(B_LBGN, there_GL, back_GL),
            _reorder(C_LBGN, there_GL, back_GL),
            self.Ds.unflatten(0, (self.groups, -1)),
            backend=self.backend,
        )
        y_LBD = _reorder(y_LBGD, back_GL, there_GL).sum(2)
        y_BHWD = self.out_norm(y_LBD.transpose(0, 1)).unflatten(1, size)
        return self.out_proj(y_BHWD * F.silu(gate_BHWD)).permute(0, 3, 1, 2)


class EMA(nn.Module):
    """Efficient multi-scale attention (Ouyang et al. 2023, "Efficient Multi-Scale Attention Module with Cross-Spatial
    Learning"): each group of channels is gated along rows and columns, then place by place, by what a 1x1 and a 3x3 branch
    say of one another. 8 groups as published, fewer where the channels do not divide so.
    """

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        self.groups = math.gcd(channels, groups)
        width = channels // self.groups
        self.gn = nn.GroupNorm(width, width)
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW.reshape(-1, x_BCHW.shape[1] // self.groups, *x_BCHW.shape[2:])  # groups take the place of a batch
        height, width = x.shape[2:]
        along = torch.cat((x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)), 2)
        rows, columns = self.conv1x1(along).sigmoid().split((height, width), 2)
        gated, near = self.gn(x * rows * columns.transpose(2, 3)), self.conv3x3(x)
        attention = _says(gated, near) + _says(near, gated)
        return (x * attention.sigmoid()).reshape(x_BCHW.shape)


def _says(one: Tensor, of: Tensor) -> Tensor:
    """The map of `of`, its channels weighted by the softmax of the means of `one`; (B, 1, H, W)."""
    weights = one.mean((2, 3)).softmax(1).unsqueeze(1)
    return torch.bmm(weights, of.flatten(2)).unflatten(2, of.shape[2:])


class _Reorder(torch.autograd.Function):
    """A permutation's gradient is the permutation back, which is far faster than summing into places."""

    @staticmethod
    def forward(ctx: Any, x_LBGE: Tensor, order_GL: Tensor, back_GL: Tensor) -> Tensor:
        ctx.save_for_backward(order_GL, back_GL)
        return _rows(x_LBGE, order_GL)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        order_GL, back_GL = ctx.saved_tensors
        return _Reorder.apply(grads[0], back_GL, order_GL), None, None


def _rows(x_LBGE: Tensor, order_GL: Tensor) -> Tensor:
    steps, batch, groups, width = x_LBGE.shape
    device = x_LBGE.device
    of_batch = torch.arange(batch, device=device).unsqueeze(1)
    rows_LBG = (order_GL.T.unsqueeze(1) * batch + of_batch) * groups + torch.arange(groups, device=device)
    return x_LBGE.reshape(-1, width).index_select(0, rows_LBG.flatten()).view(steps, batch, groups, width)


def _reorder(x_LBGE: Tensor, order_GL: Tensor, back_GL: Tensor) -> Tensor:
    """Each sequence in its order: y[l, b, g] = x[order[g, l], b, g]."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return _rows(x_LBGE, order_GL)
    return _Reorder.apply(x_LBGE, order_GL, back_GL)
