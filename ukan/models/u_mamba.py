"""A U-Mamba-like network (Ma et al. 2024, "U-Mamba: Enhancing Long-range Dependency for Biomedical Image Segmentation").

nnU-Net's residual U-Net with a Mamba block (Gu and Dao 2023) that reads the pixels of a map line after line, at the bottom
(U-Mamba_Bot) or after every second stage of the encoder (U-Mamba_Enc). "Like", since nnU-Net's planner sets the original's
levels and widths for each dataset: here are seven levels, as it plans for 2-D patches from 256 to 511 pixels wide.

As in the published code: the Mamba block stands in the trunk without a residual; two residual blocks in each level of the
upper half and one in the others, in the decoder the other way round; a stem of two more; the topmost skip is not taken.
Unlike there: no biases before InstanceNorm, which takes them out again; channels never stand in for pixels as the sequence,
which would tie the weights to one image size; one output without deep supervision; a map is convolved before it is doubled,
which is the same and a quarter of the work.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.sides import check_sides
from ukan.nn.scan import Backend, check_backend, selective_scan

# Shapes: B batch, C channels, H W height and width, L = H * W steps, D inner channels of a Mamba block

STATES, EXPAND, KERNEL = 16, 2, 4


class UMamba(nn.Module):
    """U-Mamba-like: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of three to seven levels. nnU-Net's are [32, 64, 128, 256, 512, 512, 512], with 47.5 million parameters;
    the default has as many FLOPs as U-KAN base. Fewer levels are for images whose deepest map would be a pixel. mamba: where
    the Mamba blocks stand, "bottom" or "encoder". scan_backend: see `ukan.nn.scan`.
    """

    stride = 64  # of seven levels; a network of fewer takes finer multiples
    deepest = "bottom"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"widths": (32, 64, 128, 256, 512, 512, 512)},
        "matched": {"widths": (10, 20, 40, 80, 160, 160, 160)},
    }

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = named_sizes["matched"]["widths"],
        mamba: Literal["bottom", "encoder"] = "bottom",
        scan_backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_backend(scan_backend)
        if not 3 <= len(widths) <= 7 or any(width < 1 for width in widths):
            raise ValueError(f"widths takes three to seven positive numbers, got {list(widths)}")
        if mamba not in ("bottom", "encoder"):
            raise ValueError(f"mamba is 'bottom' or 'encoder', got {mamba!r}")
        top, bottom = widths[0], len(widths) - 1
        # Residual blocks: two where maps are large, one from the middle level on; of the decoder's from the deepest upwards.
        counts = [2 if level < len(widths) / 2 else 1 for level in range(len(widths))]
        self.stem = _blocks(in_channels, top, counts[0])
        stages = [
            _blocks(inside, outside, count, stride=2 if level else 1)
            for level, (inside, outside, count) in enumerate(zip((top, *widths), widths, counts, strict=False))
        ]
        for level in (bottom,) if mamba == "bottom" else range(bottom % 2, bottom + 1, 2):
            stages[level].append(Mamba(widths[level], scan_backend))
        *down, self.bottom = stages
        self.down = nn.ModuleList(down)
        rising = [*pairwise(widths[::-1])]
        self.narrow = nn.ModuleList(nn.Conv2d(below, width, 1) for below, width in rising)
        self.up = nn.ModuleList(
            _blocks(2 * width if level else width, width, count)
            for level, (_, width), count in zip(reversed(range(bottom)), rising, counts, strict=False)
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, a=0.01)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        self.final = nn.Conv2d(top, num_classes, 1)  # torch's start: nnU-Net's has logits of 20 to 50

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, 2 ** len(self.down), "U-Mamba")
        x, skips = self.stem(x_BCHW), []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        x = self.bottom(x)
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x, skip = F.interpolate(narrow(x), scale_factor=2, mode="nearest"), skips.pop()
            x = up(torch.cat((x, skip), 1) if skips else x)
        return self.final(x)


class Residual(nn.Module):
    """Two 3x3 convolutions with InstanceNorm beside the input, which a 1x1 convolution brings along where `project`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            InstanceNorm(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            InstanceNorm(out_channels, affine=True),
        )
        self.beside = nn.Conv2d(in_channels, out_channels, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.convs(x) + self.beside(x), 0.01)


class InstanceNorm(nn.InstanceNorm2d):
    """torch's; a map of one pixel, of which nothing can be learned, is refused in training and is its own mean in eval."""

    def forward(self, x: Tensor) -> Tensor:
        if x[0, 0].numel() > 1:
            return super().forward(x)
        if self.training:
            raise ValueError(
                "U-Mamba's deepest map is one pixel, which cannot be normalised: fewer model.widths, or larger images"
            )
        return self.bias[:, None, None].expand_as(x).clone()  # the activation behind works in place


class Mamba(nn.Module):
    """LayerNorm and a Mamba block (Gu and Dao 2023, Fig. 3) over the pixels of a map (B, C, H, W), line after line."""

    def __init__(self, channels: int, backend: Backend = "auto") -> None:
        super().__init__()
        self.backend = backend
        inner, self.rank = EXPAND * channels, -(-channels // 16)
        self.norm = nn.LayerNorm(channels)
        self.in_proj = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, KERNEL, padding=KERNEL - 1, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * STATES, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, STATES + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, channels, bias=False)
        # The published start: step widths log-uniform from 0.001 to 0.1, brought before the softplus.
        step = torch.empty(inner).uniform_(math.log(0.001), math.log(0.1)).exp()
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        size = x_BCHW.shape[-2:]
        u_BLD, gate_BLD = self.in_proj(self.norm(x_BCHW.flatten(2).transpose(1, 2))).chunk(2, -1)
        # Padded on both sides, of which the end is cut: a step sees itself and the three before it.
        u_BLD = F.silu(self.conv(u_BLD.transpose(1, 2))[..., : u_BLD.shape[1]]).transpose(1, 2)
        rank, B, C = self.x_proj(u_BLD).split((self.rank, STATES, STATES), -1)
        u, delta, B, C = (t.transpose(0, 1).unsqueeze(2) for t in (u_BLD, F.softplus(self.dt_proj(rank)), B, C))
        y = selective_scan(u, delta, -self.A_log.exp()[None], B, C, self.D[None], backend=self.backend)
        y_BLD = y.squeeze(2).transpose(0, 1) * F.silu(gate_BLD)
        return self.out_proj(y_BLD).transpose(1, 2).unflatten(2, size)


def _blocks(in_channels: int, out_channels: int, count: int, stride: int = 1) -> nn.Sequential:
    first = Residual(in_channels, out_channels, stride, project=True)
    return nn.Sequential(first, *(Residual(out_channels, out_channels, 1, project=False) for _ in range(count - 1)))
