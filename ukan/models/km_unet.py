"""KM-UNet (Zhang 2025, "KM-UNet: KAN Mamba UNet for medical image segmentation"): U-KAN with state-space scans.

Paper and published code differ. The paper has scans with multi-scale attention (SEM) in the encoder and KAN blocks in the
decoder; the code scans the skips, puts scans where the decoder's KAN blocks were, and carries 1,273,545 of its 7,012,554
parameters along without ever calling them. The default here is what the paper says, built so that all of it learns;
`as_published` is what the code computes, with its 5,739,009 live parameters under their published names.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.sides import check_sides
from ukan.models.ukan import (
    WIDTHS,
    DoubleConv,
    Kind,
    PatchEmbed,
    _double,
    _validate,
    layer_maker,
    through_tokens,
    to_map,
    to_tokens,
    token_stage,
)
from ukan.nn.kan import Activation, Beyond
from ukan.nn.scan import Backend
from ukan.nn.sem import EMA, SS2D

Mix = Literal["scan", "conv"]
# A stage's scan and attention, as the published checkpoints name them.
_ENCODER = (("ss2d_1", "ema1"), ("ss2d_2", "ema2"), ("ss2d_3", "ema3"))
_DECODER = tuple((f"ss2d_decoder{number}", f"ema_decoder{number}") for number in (1, 2, 3, 4))


class KMUNet(nn.Module):
    """KM-UNet: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    By default each of the three encoder stages ends in x + SEM(LayerNorm(x)), and the token stages of bottleneck and decoder
    are U-KAN's. as_published: SEM(x) in the skips alone and, in place of the decoder's KAN blocks, after each of its first
    four stages; nothing is added or normalised. sem: "scan", or a 3x3 convolution, BatchNorm and ReLU in each one's place.
    scan_order: a name in `ukan.nn.orders.ORDERS` or "package.module:function". scan_backend: see `ukan.nn.scan`. The rest is
    as of `UKAN`.
    """

    stride = 32
    deepest = "norm4"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        **{name: {"widths": widths} for name, widths in WIDTHS.items()},
        "matched": {"widths": (112, 144, 256)},
        "paper": {"as_published": True},
    }
    """Widths as U-KAN's, of which base costs 1.25 times U-KAN base; as much as that; and the published code."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = WIDTHS["base"],
        kan_layers: Sequence[Kind] = ("kan", "kan", "kan"),
        sem: Mix = "scan",
        scan_order: str = "raster",
        scan_backend: Backend = "auto",
        as_published: bool = False,
        grid_size: int = 5,
        spline_order: int = 3,
        base_activation: Activation = "silu",
        spline_scaler: bool = True,
        beyond: Beyond = "zero",
    ) -> None:
        super().__init__()
        _validate(widths, kan_layers, "add")
        if sem not in ("scan", "conv"):
            raise ValueError(f"sem is 'scan' or 'conv', got {sem!r}")

        make = layer_maker(grid_size, spline_order, base_activation, spline_scaler, beyond)
        c3, d1, d2 = widths
        c1, c2 = c3 // 8, c3 // 4
        self.encoder1 = DoubleConv(in_channels, c1, c1)
        self.encoder2 = DoubleConv(c1, c2, c2)
        self.encoder3 = DoubleConv(c2, c3, c3)
        self.patch_embed3, self.block1, self.norm3 = PatchEmbed(c3, d1), token_stage(d1, kan_layers, make), nn.LayerNorm(d1)
        self.patch_embed4, self.block2, self.norm4 = PatchEmbed(d1, d2), token_stage(d2, kan_layers, make), nn.LayerNorm(d2)
        self.decoder1 = DoubleConv(d2, d2, d1)
        self.decoder2 = DoubleConv(d1, d1, c3)
        self.decoder3 = DoubleConv(c3, c3, c2)
        self.decoder4 = DoubleConv(c2, c2, c1)
        self.decoder5 = DoubleConv(c1, c1, c1)
        self.final = nn.Conv2d(c1, num_classes, 1)

        self.sem, self.as_published = sem, as_published
        mixed = dict(zip(_ENCODER, (c1, c2, c3), strict=True))
        if as_published:
            mixed |= zip(_DECODER, (d1, c3, c2, c1), strict=True)
        for (scan, attention), channels in mixed.items():
            if not as_published:
                self.add_module(f"norm_{scan}", nn.LayerNorm(channels))
            if sem == "conv":
                self.add_module(scan, _conv(channels))
            else:
                self.add_module(scan, SS2D(channels, order=scan_order, backend=scan_backend))
                self.add_module(attention, EMA(channels))
        if not as_published:
            self.dblock1, self.dnorm3 = token_stage(d1, kan_layers, make), nn.LayerNorm(d1)
            self.dblock2, self.dnorm4 = token_stage(c3, kan_layers, make), nn.LayerNorm(c3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "KM-UNet")
        # Convolution phase: each stage halves the side, and is mixed; as published its trunk goes on unmixed.
        x, skips = x_BCHW, []
        for convolve, names in zip((self.encoder1, self.encoder2, self.encoder3), _ENCODER, strict=True):
            x = F.max_pool2d(convolve(x), 2)
            skips.append(self._mix(x, *names))
            x = x if self.as_published else skips[-1]
        # Tokenized KAN phase.
        x = through_tokens(self.patch_embed3(x), self.block1, self.norm3)
        skips.append(x)
        x = through_tokens(self.patch_embed4(x), self.block2, self.norm4)
        # Decoder: convolve, double the side, meet the skip.
        if self.as_published:
            decoders = (self.decoder1, self.decoder2, self.decoder3, self.decoder4)
            for convolve, names in zip(decoders, _DECODER, strict=True):
                x = self._mix(_double(convolve(x)) + skips.pop(), *names)
        else:
            x = through_tokens(_double(self.decoder1(x)) + skips.pop(), self.dblock1, self.dnorm3)
            x = through_tokens(_double(self.decoder2(x)) + skips.pop(), self.dblock2, self.dnorm4)
            x = _double(self.decoder3(x)) + skips.pop()
            x = _double(self.decoder4(x)) + skips.pop()
        return self.final(_double(self.decoder5(x)))

    def _mix(self, x: Tensor, scan: str, attention: str) -> Tensor:
        mixed = x
        if not self.as_published:
            mixed = to_map(self.get_submodule(f"norm_{scan}")(to_tokens(x)), x.shape[-2:])
        mixed = self.get_submodule(scan)(mixed)
        if self.sem == "scan":
            mixed = self.get_submodule(attention)(mixed)
        return mixed if self.as_published else x + mixed


def _conv(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )
