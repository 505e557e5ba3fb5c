"""Networks and whole images to probabilities at the images' own sizes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.preprocess import prepare_image, to_input
from ukan.plan import Plan
from ukan.runtime import Precision

if TYPE_CHECKING:
    import torch
    from torch import nn


def predict_prepared(
    networks: "Sequence[nn.Module]",
    images_BHWC: NDArray[np.uint8],
    plan: Plan,
    device: "torch.device",
    precision: Precision,
) -> NDArray[np.float32]:
    """Prepared 8-bit images to probabilities (B, K, h, w), the mean over networks, at the plan's input size."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    memory_format = torch.channels_last if plan.train.channels_last else torch.contiguous_format
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=precision != "fp32"):
        x = to_input(torch.from_numpy(images_BHWC).to(device), plan.data).contiguous(memory_format=memory_format)
        total = torch.zeros((), device=device)
        for network in networks:
            total = total + torch.sigmoid(network(x).float())
        return (total / len(networks)).cpu().numpy()


def predict_images(
    networks: "Sequence[nn.Module]",
    images: Sequence[NDArray[np.uint8]],
    plan: Plan,
    device: "torch.device",
    precision: Precision = "fp32",
) -> list[NDArray[np.float32]]:
    """RGB images (H, W, 3) of any sizes to probabilities (K, H, W) at those sizes."""
    prepared = np.stack([prepare_image(image, plan.data) for image in images])
    probabilities = predict_prepared(networks, prepared, plan, device, precision)
    return [at_size(p, *image.shape[:2]) for p, image in zip(probabilities, images, strict=True)]


def at_size(probabilities_Khw: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Probabilities (K, h, w) resized to (K, height, width): probabilities, not masks, so that outlines stay smooth."""
    return np.stack([cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in probabilities_Khw])
