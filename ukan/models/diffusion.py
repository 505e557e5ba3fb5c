"""Diffusion U-KAN (Li et al. 2024, section "Extending U-KAN to Diffusion Models"), as its code is and as its text says.

Published code and text describe two networks. `DiffusionUKAN` is the code's: a DDPM U-Net (Ho et al. 2020) whose middle is a
small U-KAN; the paper's baselines exchange that middle, and here do so on equal terms. `DiffusionUKANAsWritten` is the
text's: Segmentation U-KAN with the time in its KAN blocks (Eq. 11).

Both are diffusers models: save_pretrained, from_pretrained, and diffusers' pipelines run them.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.models.ukan import UKAN, WIDTHS, Kind, MakeLayer, PatchEmbed, layer_maker, to_map, to_tokens
from ukan.nn.kan import Activation, Beyond

# Shapes: B batch, C channels, H W height and width, L = H * W tokens, T width of the time embedding

Middle = Literal["kan", "mlp", "wide-mlp", "resblock", "identity"]


class _Denoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """What both networks share: how they are called, and what they may be conditioned on."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        # The sparing way sets tensors one by one past load_state_dict, and KAN layers would not notice their knots.
        return super().from_pretrained(*args, **({"low_cpu_mem_usage": False} | kwargs))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        condition: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Noisy images (B, C, H, W) at timesteps, one for all or (B,), to what the network predicts, of the same shape.

        class_labels: (B,), `num_classes` standing for none given; condition: masks (B, M, H, W) of -1 and 1, 0 everywhere
        standing for none given. A network that is not conditioned takes neither.
        """
        height, width = sample.shape[-2:]
        if height % self.stride or width % self.stride:
            fits = tuple(max(1, round(side / self.stride)) * self.stride for side in (height, width))
            raise ValueError(
                f"it takes sides that are multiples of {self.stride}, got {height}x{width}; use {fits[0]}x{fits[1]}"
            )
        if (class_labels is not None and self.classes is None) or (
            condition is not None and not self.config["mask_channels"]
        ):
            raise ValueError("this network was not made for what it is conditioned on: see num_classes, mask_channels")
        time_B = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        time_BT = self.time_embedding(time_B, sample.dtype)
        if self.classes is not None:
            none = torch.full((len(sample),), self.config["num_classes"], device=sample.device)
            time_BT = time_BT + self.classes(none if class_labels is None else class_labels)
        if self.config["mask_channels"]:
            if condition is None:
                condition = sample.new_zeros(len(sample), self.config["mask_channels"], height, width)
            sample = torch.cat((sample, condition.to(sample.dtype)), 1)
        predicted = self._predict(sample, time_BT)
        return UNet2DOutput(sample=predicted) if return_dict else (predicted,)

    def _predict(self, x: Tensor, time_BT: Tensor) -> Tensor:
        raise NotImplementedError


class DiffusionUKAN(_Denoiser):
    """The published network, and its baselines: noisy images (B, in_channels, H, W) to a prediction of the same shape.

    num_classes: classes it may be conditioned on, 0 for none; mask_channels: channels of masks laid beside the image;
    sample_size: what it is made for, for diffusers' pipelines only. H and W are multiples of `stride`, 32 with four levels.

    channels: of the first level; multipliers: of each level's; blocks: residual blocks a level; dropout inside them.
    attention: levels, counted from 0, with attention in every residual block; the number of levels names the middle.
    Published: none for U-KAN, [2, 4] for the baselines. middle: "kan", the published one; "mlp" and "wide-mlp" put a linear
    layer of equal width, or two of equal parameters, in place of each KAN layer; "resblock", two residual blocks;
    "identity", nothing.
    grid_size to beyond: of every KAN layer, see `KANLinear`.

    26,807,811 parameters by default; the published frozen table of the time embedding is computed instead, so that fractions
    of a step have an embedding, too.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        num_classes: int = 0,
        mask_channels: int = 0,
        sample_size: Sequence[int] = (64, 64),
        *,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 2,
        dropout: float = 0.15,
        attention: Sequence[int] = (),
        middle: Middle = "kan",
        grid_size: int = 5,
        spline_order: int = 3,
        base_activation: Activation = "silu",
        spline_scaler: bool = True,
        beyond: Beyond = "zero",
    ) -> None:
        super().__init__()
        levels = len(multipliers)
        _validate(channels, multipliers, blocks, dropout, attention, middle)
        self.stride = 2 ** (levels - 1) * 4  # the middle halves twice; the same for all, so that all take the same images
        time = 4 * channels
        widths = [channels * m for m in multipliers]

        self.time_embedding = TimeEmbedding(channels, time)
        self.classes = nn.Embedding(num_classes + 1, time) if num_classes else None
        self.head = _conv(in_channels + mask_channels, channels)
        self.downblocks = nn.ModuleList()
        kept, now = [channels], channels
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.downblocks.append(ResBlock(now, width, time, dropout, level in attention))
                now = width
                kept.append(now)
            if level < levels - 1:
                self.downblocks.append(Downsample(now))
                kept.append(now)
        if middle == "resblock":
            self.bottleneck: nn.Module = ResBlockMiddle(now, time, dropout, levels in attention)
        else:
            make = layer_maker(grid_size, spline_order, base_activation, spline_scaler, beyond)
            tokens = TokenMiddle(now, (5 * channels, 8 * channels), time, middle, make) if middle != "identity" else None
            self.bottleneck = WithAttention(now, tokens) if levels in attention else (tokens or NoMiddle())
        self.upblocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.upblocks.append(ResBlock(now + kept.pop(), width, time, dropout, level in attention))
                now = width
            if level > 0:
                self.upblocks.append(Upsample(now))
        self.tail = nn.Sequential(_group_norm(now), nn.SiLU(), _conv(now, in_channels, gain=1e-5))

    def _predict(self, x: Tensor, time_BT: Tensor) -> Tensor:
        x = self.head(x)
        kept = [x]
        for block in self.downblocks:
            x = block(x, time_BT)
            kept.append(x)
        x = self.bottleneck(x, time_BT)
        for block in self.upblocks:
            x = block(torch.cat((x, kept.pop()), 1) if isinstance(block, ResBlock) else x, time_BT)
        return self.tail(x)


class DiffusionUKANAsWritten(_Denoiser):
    """The paper's text: Segmentation U-KAN's trunk with Z_k = LN(KAN(Z_{k-1})) + F(TE(t)) in its KAN blocks (Eq. 11), and no
    depthwise convolutions or residuals there. in_channels to sample_size as in `DiffusionUKAN`, other sizes as in `UKAN`.

    What the text leaves open: TE is the sinusoid and two learned layers of the published code, F a linear projection for
    each KAN layer. The norm that ends a stage in Segmentation U-KAN's code is left out, Eq. 11 being normalised itself.
    Skips are concatenated (Eq. 8-9) or, as in the code, added.
    """

    stride = UKAN.stride

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        num_classes: int = 0,
        mask_channels: int = 0,
        sample_size: Sequence[int] = (64, 64),
        *,
        widths: Sequence[int] = WIDTHS["base"],
        kan_layers: Sequence[Kind] = ("kan", "kan", "kan"),
        skip: Literal["add", "cat"] = "cat",
        grid_size: int = 5,
        spline_order: int = 3,
        base_activation: Activation = "silu",
        spline_scaler: bool = True,
        beyond: Beyond = "zero",
    ) -> None:
        super().__init__()
        self.trunk = UKAN(in_channels + mask_channels, in_channels, widths=widths, kan_layers=kan_layers, skip=skip)
        make = layer_maker(grid_size, spline_order, base_activation, spline_scaler, beyond)
        time = 2 * widths[0]
        for stage, norm, width in (
            ("block1", "norm3", widths[1]),
            ("block2", "norm4", widths[2]),
            ("dblock1", "dnorm3", widths[1]),
            ("dblock2", "dnorm4", widths[0]),
        ):
            setattr(self.trunk, stage, nn.ModuleList([TimedBlock(width, kan_layers, time, make)]))
            setattr(self.trunk, norm, nn.Identity())
        self.time_embedding = TimeEmbedding(widths[0] // 2, time)
        self.classes = nn.Embedding(num_classes + 1, time) if num_classes else None

    def _predict(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return self.trunk.run(x, time_BT)


class TimeEmbedding(nn.Module):
    """Timesteps (B,), whole or not, to (B, out): sines and cosines in turn (Vaswani et al. 2017), then two layers."""

    def __init__(self, sines: int, out: int) -> None:
        super().__init__()
        self.sines = sines
        self.timembedding = nn.Sequential(nn.Identity(), _linear(sines, out), nn.SiLU(), _linear(out, out))

    def forward(self, time_B: Tensor, dtype: torch.dtype) -> Tensor:
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        exponents = torch.arange(0, self.sines, 2, device=time_B.device, dtype=kept) / self.sines
        angles = time_B.to(kept)[:, None] * torch.exp(-math.log(10000) * exponents)
        waves = torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
        return self.timembedding(waves.to(dtype))


class ResBlock(nn.Module):
    """Two convolutions with the time added between them, and attention behind them where asked for."""

    def __init__(self, in_channels: int, out_channels: int, time: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.block1 = nn.Sequential(_group_norm(in_channels), nn.SiLU(), _conv(in_channels, out_channels))
        self.temb_proj = nn.Sequential(nn.SiLU(), _linear(time, out_channels))
        self.block2 = nn.Sequential(
            _group_norm(out_channels), nn.SiLU(), nn.Dropout(dropout), _conv(out_channels, out_channels, gain=1e-5)
        )
        self.shortcut = _conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.attn = Attention(out_channels) if attention else nn.Identity()

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        h = self.block1(x) + self.temb_proj(time_BT)[:, :, None, None]
        return self.attn(self.block2(h) + self.shortcut(x))


class Attention(nn.Module):
    """x + self-attention of one head over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = _group_norm(channels)
        self.proj_q, self.proj_k, self.proj_v = (_conv(channels, channels, 1) for _ in range(3))
        self.proj = _conv(channels, channels, 1, gain=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x)
        q, k, v = (to_tokens(project(h)) for project in (self.proj_q, self.proj_k, self.proj_v))
        return x + self.proj(to_map(F.scaled_dot_product_attention(q, k, v), x.shape[-2:]))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = _conv(channels, channels, stride=2)

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return self.main(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = _conv(channels, channels)

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return self.main(F.interpolate(x, scale_factor=2, mode="nearest"))


# Middles: (B, C, H, W) and the time to (B, C, H, W)


class TokenMiddle(nn.Module):
    """The published middle: two token stages down and one up, with KAN layers or what stands in their place; skips added."""

    def __init__(self, channels: int, widths: tuple[int, int], time: int, kind: str, make: MakeLayer) -> None:
        super().__init__()
        d1, d2 = widths
        self.patch_embed3, self.kan_block1, self.norm3 = (
            PatchEmbed(channels, d1),
            _stage(d1, time, kind, make),
            nn.LayerNorm(d1),
        )
        self.patch_embed4, self.kan_block2, self.norm4 = PatchEmbed(d1, d2), _stage(d2, time, kind, make), nn.LayerNorm(d2)
        self.decoder1 = TimedConv(d2, d1, time)
        self.kan_dblock1, self.dnorm3 = _stage(d1, time, kind, make), nn.LayerNorm(d1)
        self.decoder2 = TimedConv(d1, channels, time)

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        skip4 = self._tokens(self.patch_embed3(x), self.kan_block1, self.norm3, time_BT)
        bottom = self._tokens(self.patch_embed4(skip4), self.kan_block2, self.norm4, time_BT)
        up = F.silu(_double(self.decoder1(bottom, time_BT))) + skip4
        up = self._tokens(up, self.kan_dblock1, self.dnorm3, time_BT)
        return F.silu(_double(self.decoder2(up, time_BT))) + x

    @staticmethod
    def _tokens(x: Tensor, blocks: nn.ModuleList, norm: nn.Module, time_BT: Tensor) -> Tensor:
        tokens = to_tokens(x)
        for block in blocks:
            tokens = block(tokens, time_BT)
        return to_map(norm(tokens), x.shape[-2:])


class TokenBlock(nn.Module):
    """KAN(LN(x)) + F(TE(t)) on tokens (B, L, C): one layer, no residual."""

    def __init__(self, channels: int, time: int, kind: str, make: MakeLayer) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(channels)
        self.kan = nn.ModuleDict({"fc1": make(kind, channels)})
        self.temb_proj = nn.Sequential(nn.SiLU(), _linear(time, channels))

    def forward(self, x_BLC: Tensor, time_BT: Tensor) -> Tensor:
        return self.kan["fc1"](self.norm2(x_BLC)) + self.temb_proj(time_BT).unsqueeze(1)


class TimedConv(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution; the time added."""

    def __init__(self, in_channels: int, out_channels: int, time: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_group_norm(in_channels), nn.SiLU(), _conv(in_channels, out_channels))
        self.temb_proj = nn.Sequential(nn.SiLU(), _linear(time, out_channels))

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return self.conv(x) + self.temb_proj(time_BT)[:, :, None, None]


class ResBlockMiddle(nn.Module):
    def __init__(self, channels: int, time: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.first = ResBlock(channels, channels, time, dropout, attention)
        self.second = ResBlock(channels, channels, time, dropout, attention=False)

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return self.second(self.first(x, time_BT), time_BT)


class NoMiddle(nn.Module):
    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return x


class WithAttention(nn.Module):
    """Attention before a middle that has none of its own."""

    def __init__(self, channels: int, middle: nn.Module | None) -> None:
        super().__init__()
        self.attn, self.middle = Attention(channels), middle or NoMiddle()

    def forward(self, x: Tensor, time_BT: Tensor) -> Tensor:
        return self.middle(self.attn(x), time_BT)


class TimedBlock(nn.Module):
    """Several times Z = LN(KAN(Z)) + F(TE(t)) on tokens (B, L, C): Eq. 11."""

    def __init__(self, channels: int, kan_layers: Sequence[str], time: int, make: MakeLayer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make(kind, channels) for kind in kan_layers)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in kan_layers)
        self.times = nn.ModuleList(nn.Linear(time, channels) for _ in kan_layers)

    def forward(self, x_BLC: Tensor, size: tuple[int, int], time_BT: Tensor) -> Tensor:
        for layer, norm, project in zip(self.layers, self.norms, self.times, strict=True):
            x_BLC = norm(layer(x_BLC)) + project(time_BT).unsqueeze(1)
        return x_BLC


def _stage(channels: int, time: int, kind: str, make: MakeLayer) -> nn.ModuleList:
    return nn.ModuleList([TokenBlock(channels, time, kind, make)])  # a list of one: so the published checkpoints name it


def _conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
    return _start(conv, gain)


def _linear(in_features: int, out_features: int) -> nn.Linear:
    return _start(nn.Linear(in_features, out_features), 1.0)


def _start(layer: Any, gain: float) -> Any:
    """The published start: Xavier's; nearly zero where a block, or the network, begins as nothing."""
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def _group_norm(channels: int) -> nn.GroupNorm:
    # 32 groups as published; fewer where the width has no 32 parts of two channels, since the norm of one channel alone
    # would take the time away again, which is the same at all places.
    return nn.GroupNorm(math.gcd(32, channels // 2), channels)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _validate(
    channels: int, multipliers: Sequence[int], blocks: int, dropout: float, attention: Sequence[int], middle: str
) -> None:
    if channels < 2 or channels % 2:
        raise ValueError(f"channels is an even number, got {channels}")
    if not multipliers or min(multipliers) < 1 or blocks < 1:
        raise ValueError(f"multipliers and blocks count from 1, got {list(multipliers)} and {blocks}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a share below 1, got {dropout}")
    if set(attention) - set(range(len(multipliers) + 1)):
        raise ValueError(f"attention names levels 0 to {len(multipliers)}, the last being the middle, got {list(attention)}")
    if middle not in get_args(Middle):
        raise ValueError(f"middle is one of {', '.join(get_args(Middle))}, got {middle!r}")
