"""Rolling-UNet (Liu et al. 2024, "Rolling-Unet: Revitalizing MLP's Ability to Efficiently Extract Long-Distance Dependencies
for Medical Image Segmentation").

A U-Net whose fourth stage, bottleneck and first decoder stage are Lo2 blocks. In them each channel is rolled along a side by
as many pixels as its index, round the edge, before a linear layer on the pixels: such a layer sees a whole line of the image
(R-MLP). Two, one along each side, see diagonals (OR-MLP); two of those, one of them with a roll turned round, see both kinds
(DOR-MLP). Beside them runs a depthwise separable convolution, for what is near.

In detail as the published code: the two OR-MLPs roll along H, then W, and along W backwards, then H, each with GELU between
its layers and a residual; they are concatenated, normalised, brought back by a linear layer and added to the input. Skips
are added, the last decoder stage has half the first width, dropout is in the bottleneck alone. A norm of each block that the
code builds and never calls is left out: 1,024 parameters of the paper's S, 2,048 of M, 4,096 of L.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.sides import check_sides
from ukan.models.ukan import DoubleConv, init_tokens


class RollingUNet(nn.Module):
    """Rolling-UNet: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of the five levels. The paper's S, M and L begin with 16, 32 and 64 and double from level to level, with
    1.8, 7.1 and 28.3 million parameters; "paper" is S, which U-KAN's Table 2 compares with. The default has as many FLOPs as
    U-KAN base. dropout: in the bottleneck's Lo2 block.
    """

    stride = 16
    deepest = "bottom"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"widths": (16, 32, 64, 128, 256), "dropout": 0.1},
        "paper-M": {"widths": (32, 64, 128, 256, 512), "dropout": 0.2},
        "paper-L": {"widths": (64, 128, 256, 512, 1024), "dropout": 0.3},
        "matched": {"widths": (18, 36, 72, 144, 288), "dropout": 0.1},
    }

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = named_sizes["matched"]["widths"],
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(widths) != 5 or any(width < 1 for width in widths) or widths[0] % 2:
            raise ValueError(f"widths takes five positive numbers, the first even, got {list(widths)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a share from 0 to below 1, got {dropout}")
        c1, c2, c3, d1, d2 = widths
        self.down = nn.ModuleList(DoubleConv(a, b, b) for a, b in pairwise((in_channels, c1, c2, c3)))
        self.down.append(nn.Sequential(FeatureIncentive(c3, d1), Lo2(d1, 0)))
        self.bottom = nn.Sequential(FeatureIncentive(d1, d2), Lo2(d2, dropout))
        self.up = nn.ModuleList(
            [
                FeatureIncentive(d2, d1),
                nn.Sequential(Lo2(d1, 0), nn.Conv2d(d1, c3, 3, padding=1), nn.BatchNorm2d(c3), nn.ReLU()),
                DoubleConv(c3, c3, c2),
                DoubleConv(c2, c2, c1),
            ]
        )
        self.final = nn.Sequential(DoubleConv(c1, c1, c1 // 2), nn.Conv2d(c1 // 2, num_classes, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "Rolling-UNet")
        x, skips = x_BCHW, []
        for stage in self.down:
            skips.append(stage(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for stage in self.up:
            x = F.interpolate(stage(x), scale_factor=2, mode="bilinear", align_corners=False) + skips.pop()
        return self.final(x)


class FeatureIncentive(nn.Module):
    """A 3x3 convolution that changes the width, GELU and a norm over channels, on a map (B, C, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.LayerNorm(out_channels)
        init_tokens(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.gelu(self.proj(x)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Lo2(nn.Module):
    """The Long-Local block on a map (B, C, H, W): DOR-MLP beside a depthwise separable convolution, mixed and normalised."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.ModuleList([nn.Linear(channels, channels), nn.Linear(channels, channels)])
        self.second = nn.ModuleList([nn.Linear(channels, channels), nn.Linear(channels, channels)])
        self.both = nn.Sequential(nn.LayerNorm(2 * channels), nn.Linear(2 * channels, channels))
        self.near = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, channels, 1),
            nn.ReLU(),
            nn.BatchNorm2d(channels),
        )
        self.mix = nn.Linear(2 * channels, channels)
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)
        init_tokens(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        first = self._orthogonal(self.first, x_BHWC, (1, 1), (2, 1))
        second = self._orthogonal(self.second, x_BHWC, (2, -1), (1, 1))
        far = x_BHWC + self.drop(self.both(torch.cat((first, second), -1)))
        near = self.near(x_BCHW).permute(0, 2, 3, 1)
        return self.norm(self.drop(self.mix(torch.cat((far, near), -1)))).permute(0, 3, 1, 2)

    def _orthogonal(self, layers: nn.ModuleList, x_BHWC: Tensor, *rolls: tuple[int, int]) -> Tensor:
        """OR-MLP with its residual: each roll is a dimension and a direction."""
        y = self.drop(F.gelu(layers[0](roll(x_BHWC, *rolls[0]))))
        return x_BHWC + self.drop(layers[1](roll(y, *rolls[1])))


def roll(x_BHWC: Tensor, dim: int, direction: int) -> Tensor:
    """Channel c moved by c pixels forwards (1) or backwards (-1) along a side, round the edge."""
    size, channels = x_BHWC.shape[dim], x_BHWC.shape[3]
    places = torch.arange(size, device=x_BHWC.device)[:, None] - direction * torch.arange(channels, device=x_BHWC.device)
    shape = (1, size, 1, channels) if dim == 1 else (1, 1, size, channels)
    return x_BHWC.gather(dim, (places % size).view(shape).expand_as(x_BHWC))
