"""Segmentation U-KAN (Li et al. 2024, "U-KAN Makes Strong Backbone for Medical Image Segmentation and Generation").

A U-Net whose two deepest stages and their decoders pass the image as tokens through Kolmogorov-Arnold layers. Where paper
and published code differ, the code is the default, since the published scores are its scores, and the paper is an argument:
skips are added (code) or concatenated (Eq. 8-9). Modules carry the names of the published checkpoints.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.sides import check_sides
from ukan.nn.kan import Activation, Beyond, KANLinear, in_place_of_kan

# Shapes: B batch, C channels, H W height and width, L = H * W tokens

Kind = Literal["kan", "mlp", "wide-mlp"]
MakeLayer = Callable[[str, int], nn.Module]
WIDTHS = {"S": (64, 96, 128), "base": (128, 160, 256), "L": (256, 320, 512)}


class UKAN(nn.Module):
    """U-KAN: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    widths: channels of the third stage and of the two token stages (C3, D1, D2 of the paper); the first two stages have an
    eighth and a quarter of the first. kan_layers: one to five layers in each token block, each "kan", "mlp" (a linear layer
    of equal width in its place: the paper's Table 5) or "wide-mlp" (two linear layers with as many parameters as the KAN
    layer). skip: "add" as published, "cat" as the paper writes; the paper leaves open how the doubled channels come back,
    here by a 1x1 convolution. grid_size, spline_order, base_activation, spline_scaler, beyond: of every KAN layer, see
    `KANLinear`.
    """

    stride = 32
    deepest = "norm4"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {name: {"widths": widths} for name, widths in WIDTHS.items()}
    """Of the paper's Table 6."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int] = WIDTHS["base"],
        kan_layers: Sequence[Kind] = ("kan", "kan", "kan"),
        skip: Literal["add", "cat"] = "add",
        grid_size: int = 5,
        spline_order: int = 3,
        base_activation: Activation = "silu",
        spline_scaler: bool = True,
        beyond: Beyond = "zero",
    ) -> None:
        super().__init__()
        _validate(widths, kan_layers, skip)

        make = layer_maker(grid_size, spline_order, base_activation, spline_scaler, beyond)
        c3, d1, d2 = widths
        c1, c2 = c3 // 8, c3 // 4
        self.encoder1 = DoubleConv(in_channels, c1, c1)
        self.encoder2 = DoubleConv(c1, c2, c2)
        self.encoder3 = DoubleConv(c2, c3, c3)
        self.patch_embed3, self.block1, self.norm3 = PatchEmbed(c3, d1), token_stage(d1, kan_layers, make), nn.LayerNorm(d1)
        self.patch_embed4, self.block2, self.norm4 = PatchEmbed(d1, d2), token_stage(d2, kan_layers, make), nn.LayerNorm(d2)

        self.decoder1 = DoubleConv(d2, d2, d1)
        self.dblock1, self.dnorm3 = token_stage(d1, kan_layers, make), nn.LayerNorm(d1)
        self.decoder2 = DoubleConv(d1, d1, c3)
        self.dblock2, self.dnorm4 = token_stage(c3, kan_layers, make), nn.LayerNorm(c3)
        self.decoder3 = DoubleConv(c3, c3, c2)
        self.decoder4 = DoubleConv(c2, c2, c1)
        self.decoder5 = DoubleConv(c1, c1, c1)
        self.final = nn.Conv2d(c1, num_classes, 1)
        self.fuse = nn.ModuleList(nn.Conv2d(2 * c, c, 1) for c in (d1, c3, c2, c1)) if skip == "cat" else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.run(x_BCHW)

    def run(self, x_BCHW: Tensor, *beside: Tensor) -> Tensor:
        """The forward pass; `beside` is what other token blocks than KANBlock take beside their tokens (a time)."""
        check_sides(x_BCHW, self.stride, "U-KAN")
        # Convolution phase: each stage halves the side.
        skip1 = F.max_pool2d(self.encoder1(x_BCHW), 2)
        skip2 = F.max_pool2d(self.encoder2(skip1), 2)
        skip3 = F.max_pool2d(self.encoder3(skip2), 2)
        # Tokenized KAN phase.
        skip4 = through_tokens(self.patch_embed3(skip3), self.block1, self.norm3, *beside)
        bottom = through_tokens(self.patch_embed4(skip4), self.block2, self.norm4, *beside)
        # Decoder: convolve, double the side, meet the skip.
        x = self._meet(self.decoder1(bottom), skip4, 0)
        x = through_tokens(x, self.dblock1, self.dnorm3, *beside)
        x = self._meet(self.decoder2(x), skip3, 1)
        x = through_tokens(x, self.dblock2, self.dnorm4, *beside)
        x = self._meet(self.decoder3(x), skip2, 2)
        x = self._meet(self.decoder4(x), skip1, 3)
        return self.final(_double(self.decoder5(x)))

    def _meet(self, x: Tensor, skip: Tensor, level: int) -> Tensor:
        x = _double(x)
        return x + skip if self.fuse is None else self.fuse[level](torch.cat((x, skip), 1))


def layer_maker(
    grid_size: int, spline_order: int, base_activation: Activation, spline_scaler: bool, beyond: Beyond
) -> MakeLayer:
    """What makes a layer of a kind and width: a KAN layer of these sizes, or its stand-in."""

    def make(kind: str, channels: int) -> nn.Module:
        if kind == "mlp":
            return in_place_of_kan(nn.Linear(channels, channels))
        if kind == "wide-mlp":
            hidden = (1 + grid_size + spline_order + spline_scaler) * channels // 2
            return in_place_of_kan(nn.Sequential(nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, channels)))
        return KANLinear(
            channels,
            channels,
            grid_size=grid_size,
            spline_order=spline_order,
            base_activation=base_activation,
            spline_scaler=spline_scaler,
            beyond=beyond,
        )

    return make


class DoubleConv(nn.Module):
    """Twice a 3x3 convolution, BatchNorm and ReLU. In the decoder the first keeps the width and the second changes it."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PatchEmbed(nn.Module):
    """Overlapping 3x3 patches at half the side, normalised over channels; gives a map (B, C, H / 2, W / 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_channels)
        init_tokens(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        return to_map(self.norm(to_tokens(x)), x.shape[-2:])


class KANBlock(nn.Module):
    """x + KANLayer(LayerNorm(x)) on tokens (B, L, C)."""

    def __init__(self, channels: int, kan_layers: Sequence[str], make: MakeLayer) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(channels)
        self.layer = KANLayer(channels, kan_layers, make)
        init_tokens(self)

    def forward(self, x_BLC: Tensor, size: tuple[int, int]) -> Tensor:
        return x_BLC + self.layer(self.norm2(x_BLC), size)


class KANLayer(nn.Module):
    """Several times: a KAN layer (or its stand-in) on the tokens, depthwise convolution, BatchNorm and ReLU on the map."""

    def __init__(self, channels: int, kan_layers: Sequence[str], make: MakeLayer) -> None:
        super().__init__()
        self.count = len(kan_layers)
        for i, kind in enumerate(kan_layers, start=1):
            self.add_module(f"fc{i}", make(kind, channels))
            self.add_module(f"dwconv_{i}", DepthwiseConv(channels))

    def forward(self, x_BLC: Tensor, size: tuple[int, int]) -> Tensor:
        for i in range(1, self.count + 1):
            x_BLC = self.get_submodule(f"fc{i}")(x_BLC)
            x_BLC = to_tokens(self.get_submodule(f"dwconv_{i}")(to_map(x_BLC, size)))
        return x_BLC


class DepthwiseConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.dwconv(x)))


def token_stage(channels: int, kan_layers: Sequence[str], make: MakeLayer) -> nn.ModuleList:
    return nn.ModuleList([KANBlock(channels, kan_layers, make)])  # a list of one: so the published checkpoints name it


def through_tokens(x: Tensor, blocks: nn.ModuleList, norm: nn.Module, *beside: Tensor) -> Tensor:
    size = x.shape[-2:]
    tokens = to_tokens(x)
    for block in blocks:
        tokens = block(tokens, size, *beside)
    return to_map(norm(tokens), size)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) to (B, L, C): a view where memory is channels-last."""
    return x_BCHW.flatten(2).transpose(1, 2)


def to_map(x_BLC: Tensor, size: Sequence[int]) -> Tensor:
    return x_BLC.transpose(1, 2).unflatten(2, tuple(size))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@torch.no_grad()
def init_tokens(module: nn.Module) -> None:
    """The published start of everything in the token stages but the KAN layers, which know their own."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            part.weight.mul_(part.groups**0.5)  # fan-out counts the outputs of one group
        if isinstance(part, nn.Linear | nn.Conv2d) and part.bias is not None:
            nn.init.zeros_(part.bias)


def _validate(widths: Sequence[int], kan_layers: Sequence[str], skip: str) -> None:
    if len(widths) != 3 or any(width < 1 for width in widths) or widths[0] % 8:
        raise ValueError(f"widths takes three positive numbers, the first a multiple of 8, got {list(widths)}")
    if not 1 <= len(kan_layers) <= 5 or set(kan_layers) - set(get_args(Kind)):
        raise ValueError(f"kan_layers takes one to five of 'kan', 'mlp' and 'wide-mlp', got {kan_layers!r}")
    if skip not in ("add", "cat"):
        raise ValueError(f"skip is 'add' or 'cat', got {skip!r}")
