"""U-Net (Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation"): the plain rival.

As the paper draws it (Fig. 1): five levels, two 3x3 convolutions a level, max-pooling down, a 2x2 transposed convolution up,
skips concatenated, a 1x1 convolution at the end. Unlike there, convolutions are padded, so that logits have the image's
size and no skip is cropped, and BatchNorm follows each 3x3 convolution, in the place of the paper's dropout.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.sides import check_sides

MATCHED = (15, 30, 60, 120, 240)


class UNet(nn.Module):
    """U-Net: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of the five levels. The paper's are [64, 128, 256, 512, 1024], with 31.0 million parameters and 18 times
    the FLOPs of U-KAN base; the default has as many FLOPs as that, with 1.7 million.
    """

    stride = 16
    deepest = "bottom"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"widths": (64, 128, 256, 512, 1024)},
        "matched": {"widths": MATCHED},
    }

    def __init__(self, in_channels: int, num_classes: int, *, widths: Sequence[int] = MATCHED) -> None:
        super().__init__()
        if len(widths) != 5 or any(width < 1 for width in widths):
            raise ValueError(f"widths takes five positive numbers, got {list(widths)}")
        *outer, deepest = widths
        entering = [in_channels, *outer]
        self.down = nn.ModuleList(double_conv(a, b) for a, b in zip(entering, outer, strict=False))
        self.bottom = double_conv(entering[-1], deepest)
        rising = [*zip(widths[:0:-1], widths[-2::-1], strict=True)]
        self.up = nn.ModuleList(nn.ConvTranspose2d(below, width, 2, stride=2) for below, width in rising)
        self.merge = nn.ModuleList(double_conv(2 * width, width) for _, width in rising)
        self.final = nn.Conv2d(widths[0], num_classes, 1)
        _init(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "U-Net")
        x, skips = x_BCHW, []
        for convolve in self.down:
            skips.append(convolve(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for double, convolve in zip(self.up, self.merge, strict=True):
            x = convolve(torch.cat((skips.pop(), double(x)), 1))
        return self.final(x)


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Twice a 3x3 convolution, BatchNorm and ReLU; BatchNorm's shift is the convolution's bias."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@torch.no_grad()
def _init(module: nn.Module) -> None:
    """The paper's start: Gaussian weights of deviation sqrt(2 / N), N the values that one output is made of."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            # A 2x2 transposed convolution of stride 2 makes a pixel of one place below: its four weights never meet.
            met = part.in_channels if isinstance(part, nn.ConvTranspose2d) else part.weight[0].numel()
            nn.init.normal_(part.weight, std=(2 / met) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
