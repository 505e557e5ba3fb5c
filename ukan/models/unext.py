"""UNeXt (Valanarasu and Patel 2022, "UNeXt: MLP-based Rapid Medical Image Segmentation Network").

A U-Net of one convolution a stage whose two deepest stages and their decoders are tokenized MLPs: five groups of channels
are moved by -2 to 2 pixels along the width before the first linear layer, and along the height before the second, so that a
layer that sees one pixel sees its neighbours. U-KAN is this network with KAN layers in their place and two convolutions.

Of the paper is the order of the shifts, which the published code turns round. Of the code are the norms, one before each
block and one at the end of each stage, and the first two widths: 16 and 32 give the 1.47 million parameters that the paper
states, the 32 and 64 of its text 1.58.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.sides import check_sides
from ukan.models.ukan import PatchEmbed, init_tokens


class UNeXt(nn.Module):
    """UNeXt: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of the three convolution stages and the two token stages. The paper's are [16, 32, 128, 160, 256], with
    1.47 million parameters; the default has as many FLOPs as U-KAN base.
    """

    stride = 32
    deepest = "bottom"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"widths": (16, 32, 128, 160, 256)},
        "matched": {"widths": (35, 70, 280, 350, 560)},
    }

    def __init__(
        self, in_channels: int, num_classes: int, *, widths: Sequence[int] = named_sizes["matched"]["widths"]
    ) -> None:
        super().__init__()
        if len(widths) != 5 or any(width < 1 for width in widths):
            raise ValueError(f"widths takes five positive numbers, got {list(widths)}")
        c1, c2, c3, d1, d2 = widths
        self.down = nn.ModuleList(
            nn.Sequential(*_convolve(a, b), nn.MaxPool2d(2), nn.ReLU()) for a, b in pairwise((in_channels, c1, c2, c3))
        )
        self.down.append(nn.Sequential(PatchEmbed(c3, d1), TokenizedMLP(d1)))
        self.bottom = nn.Sequential(PatchEmbed(d1, d2), TokenizedMLP(d2))
        self.up = nn.ModuleList(nn.Sequential(*_convolve(a, b), _double(), nn.ReLU()) for a, b in pairwise(widths[::-1]))
        self.mix = nn.ModuleList([TokenizedMLP(d1), TokenizedMLP(c3), nn.Identity(), nn.Identity()])
        self.final = nn.Sequential(nn.Conv2d(c1, c1, 3, padding=1), _double(), nn.ReLU(), nn.Conv2d(c1, num_classes, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "UNeXt")
        x, skips = x_BCHW, []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        x = self.bottom(x)
        for up, mix in zip(self.up, self.mix, strict=True):
            x = mix(up(x) + skips.pop())
        return self.final(x)


class TokenizedMLP(nn.Module):
    """LN(x + MLP(LN(x))) on a map (B, C, H, W), in the MLP a shift before each layer and a depthwise convolution between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, channels)
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.fc2 = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        init_tokens(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        y_BHWC = self.fc1(shift(self.norm1(x_BHWC), 2))
        y_BHWC = F.gelu(self.dwconv(y_BHWC.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return self.norm2(x_BHWC + self.fc2(shift(y_BHWC, 1))).permute(0, 3, 1, 2)


def shift(x_BHWC: Tensor, dim: int) -> Tensor:
    """Five groups of channels, as equal as torch.chunk makes them, moved by -2, -1, 0, 1, 2 along a side; zeros come in."""
    padded = F.pad(x_BHWC, (0, 0, 2, 2) if dim == 2 else (0, 0, 0, 0, 2, 2))
    size = x_BHWC.shape[dim]
    return torch.cat([group.narrow(dim, 4 - i, size) for i, group in enumerate(padded.chunk(5, -1))], -1)


def _convolve(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)


def _double() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
