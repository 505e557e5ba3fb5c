"""U-Net++ (Zhou et al. 2018, "UNet++: A Nested U-Net Architecture for Medical Image Segmentation"), MONAI's.

A U-Net whose skips are filled with convolutions, each of which sees all maps before it at its level and what comes up from
the level below (Eq. 1). Without the paper's deep supervision: one output, that of the last of the top level, as all networks
here. BatchNorm follows each convolution. MONAI doubles a map with as many channels as it has where it enters the top level,
the paper with half of them: 0.8 % more parameters.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ukan.models.sides import check_sides

MATCHED = (9, 18, 36, 72, 144)


class UNetPlusPlus(nn.Module):
    """U-Net++: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of the five levels. The paper's are [32, 64, 128, 256, 512]; the default's FLOPs are U-KAN base's.
    """

    stride = 16
    deepest = "net.conv_4_0"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"widths": (32, 64, 128, 256, 512)},
        "matched": {"widths": MATCHED},
    }

    def __init__(self, in_channels: int, num_classes: int, *, widths: Sequence[int] = MATCHED) -> None:
        from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

        super().__init__()
        if len(widths) != 5 or any(width < 1 for width in widths[:1]) or any(width < 2 for width in widths[1:]):
            raise ValueError(f"widths takes five positive numbers, from the second on at least 2, got {list(widths)}")
        features = (*widths, widths[0])
        self.net = BasicUNetPlusPlus(2, in_channels, num_classes, features, act="relu", norm="batch", bias=False)
        for node in (1, 2, 3):  # the outputs of deep supervision, which would learn nothing
            setattr(self.net, f"final_conv_0_{node}", nn.Identity())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "U-Net++")
        return self.net(x_BCHW)[0]
