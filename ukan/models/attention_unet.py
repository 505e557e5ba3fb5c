"""Attention U-Net (Oktay et al. 2018, "Attention U-Net: Learning Where to Look for the Pancreas"), MONAI's.

A U-Net whose skips pass a gate: a map of weights between 0 and 1, made of the skip and of what comes up from below (Eq.
1-2). The paper's network is one for volumes; MONAI's in two dimensions differs from it in that the gate's two inputs meet at
the skip's size and not at half of it, that strided convolutions take the place of pooling, that one convolution
follows where skips meet, and that there is no deep supervision.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from ukan.models.sides import check_sides

MATCHED = (16, 32, 64, 128, 256)


class AttentionUNet(nn.Module):
    """Attention U-Net: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of the five levels. The paper states none for images; [64, 128, 256, 512, 1024] is what is compared with
    under its name. The default has as many FLOPs as U-KAN base.
    """

    stride = 16
    deepest = "net.model.1.submodule.1.submodule.1.submodule.1.submodule"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"widths": (64, 128, 256, 512, 1024)},
        "matched": {"widths": MATCHED},
    }

    def __init__(self, in_channels: int, num_classes: int, *, widths: Sequence[int] = MATCHED) -> None:
        from monai.networks.nets.attentionunet import AttentionUnet

        super().__init__()
        if len(widths) != 5 or any(width < 2 for width in widths):  # a gate has half of a level's channels
            raise ValueError(f"widths takes five numbers from 2 on, got {list(widths)}")
        self.net = AttentionUnet(2, in_channels, num_classes, widths, strides=(2, 2, 2, 2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "Attention U-Net")
        return self.net(x_BCHW)
