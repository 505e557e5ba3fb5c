"""A U-Net whose encoder is a ConvNeXt, trained on ImageNet where its weights are at hand: what a strong baseline is today.

The encoder is timm's ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s") without its head, the decoder that of
segmentation-models-pytorch: nearest doubling, the skip concatenated, two 3x3 convolutions with BatchNorm; five times, the
last two without a skip, since the encoder starts with patches of 4x4. ConvNeXt, not its second version or SegFormer's
encoder, because its weights may be used for any purpose (Apache-2.0).
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ukan.errors import DataError, UserError
from ukan.models.sides import check_sides
from ukan.models.weights import fetch_published, load_weights

ENCODERS = {"atto": "convnext_atto.d2_in1k", "pico": "convnext_pico.d1_in1k", "tiny": "convnext_tiny.fb_in1k"}
"""timm's names of encoders and of their weights, all trained on ImageNet-1k."""
MATCHED = (128, 64, 32, 16, 8)


class ConvNeXtUNet(nn.Module):
    """U-Net on a ConvNeXt: (B, in_channels, H, W) to logits (B, num_classes, H, W), H and W multiples of `stride`.

    encoder: "tiny" is the smallest of the paper, "pico" and "atto" are timm's smaller ones. decoder: channels of the five
    steps up. weights: what a training starts from, "imagenet" or "none". Building never fetches them: fresh weights are
    random, and `load_pretrained` puts the published ones in their place when a training begins.
    """

    stride = 32
    deepest = "net.encoder.model.stages_3"
    """The module whose output says most of the whole image."""
    named_sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"encoder": "tiny", "decoder": (256, 128, 64, 32, 16)},
        "matched": {"encoder": "pico", "decoder": MATCHED},
    }

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        encoder: Literal["atto", "pico", "tiny"] = "pico",
        decoder: Sequence[int] = MATCHED,
        weights: Literal["imagenet", "none"] = "imagenet",
    ) -> None:
        try:
            import segmentation_models_pytorch as smp
        except ImportError as error:
            raise UserError(
                f"convnext-unet needs segmentation-models-pytorch ({error}); pip install 'ukan[pretrained]'"
            ) from error

        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder is one of {', '.join(ENCODERS)}, got {encoder!r}")
        if len(decoder) != 5 or any(width < 1 for width in decoder):
            raise ValueError(f"decoder takes five positive numbers, got {list(decoder)}")
        if weights not in ("imagenet", "none"):
            raise ValueError(f"weights is 'imagenet' or 'none', got {weights!r}")
        self.published = ENCODERS[encoder] if weights == "imagenet" else None
        timm_name = f"tu-{ENCODERS[encoder].partition('.')[0]}"
        self.net = smp.Unet(
            timm_name,
            encoder_weights=None,
            decoder_channels=tuple(decoder),
            in_channels=in_channels,
            classes=num_classes,
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        check_sides(x_BCHW, self.stride, "ConvNeXt U-Net")
        return self.net(x_BCHW)

    def load_pretrained(self) -> dict[str, str]:
        """Put the encoder's published weights in, fetched once; gives what they are, nothing with weights="none".

        The first convolution's are summed over the colours for one channel, as a picture without colour shows the same in
        all three, and repeated and scaled for more than three. Raises UserError where the file is nowhere to be had,
        DataError where it holds something else.
        """
        if self.published is None:
            return {}
        from timm.models import adapt_input_conv

        path = fetch_published(
            f"https://huggingface.co/timm/{self.published}/resolve/main/model.safetensors",
            f"the weights {self.published}",
            "train from scratch: --set model.weights=none",
            name=f"{self.published}.safetensors",
        )
        encoder = self.net.encoder.model
        first, wanted = "stem_0.weight", encoder.state_dict()
        found = {
            re.sub(r"^(stem|stages)\.", r"\1_", name): tensor
            for name, tensor in load_weights(path).items()
            if not name.startswith("head.")
        }
        if first in found:
            found[first] = adapt_input_conv(wanted[first].shape[1], found[first])
        if {name: tensor.shape for name, tensor in found.items()} != {name: tensor.shape for name, tensor in wanted.items()}:
            raise DataError(f"{path}: not the weights of {self.published}; remove it, and it is fetched again")
        encoder.load_state_dict(found)
        return {"weights": self.published, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
