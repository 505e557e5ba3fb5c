"""The one way from an image file to what a network sees: training, evaluation and prediction all come through here."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.plan import DataPlan

if TYPE_CHECKING:
    import torch

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, RGB order
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def prepare_image(image_HWC: NDArray[np.uint8], data: DataPlan) -> NDArray[np.uint8]:
    """An RGB image of any size to the plan's channels, order and input size: (height, width, channels), still 8 bit."""
    height, width = data.input_size
    if data.channels == 1:
        image_HWC = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)[..., None]
    elif data.colour_order == "bgr":
        image_HWC = np.ascontiguousarray(image_HWC[..., ::-1])
    shrinks = image_HWC.shape[0] > height and image_HWC.shape[1] > width
    # Averaging areas keeps what a shrunken image would otherwise skip over; it is no way to enlarge.
    method = cv2.INTER_AREA if data.interpolation == "area" and shrinks else cv2.INTER_LINEAR
    return cv2.resize(image_HWC, (width, height), interpolation=method).reshape(height, width, data.channels)


def prepare_mask(mask_HW: NDArray[np.bool_], data: DataPlan) -> NDArray[np.uint8]:
    """A mask (H, W) to (height, width) of 0 and 1, by nearest value."""
    height, width = data.input_size
    return cv2.resize(mask_HW.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def to_input(images_BHWC: "torch.Tensor", data: DataPlan) -> "torch.Tensor":
    """Prepared 8-bit images to the network's input (B, C, H, W), float32, normalised as the plan says."""
    import torch

    x = images_BHWC.permute(0, 3, 1, 2).float().div(255)
    if data.normalization == "image":
        mean = x.mean((2, 3), keepdim=True)
        return (x - mean) / x.std((2, 3), keepdim=True).clamp_min(1 / 255)
    # One channel: what ImageNet's constants are for a picture with three equal channels. As published, BGR images meet the
    # constants of RGB: the order is deliberately not changed here.
    constants = [np.atleast_1d(v if data.channels == 3 else _GREY @ v).astype(np.float32) for v in (_MEAN, _STD)]
    shift, scale = (torch.from_numpy(v).to(x.device)[:, None, None] for v in constants)
    x = (x - shift) / scale
    return x / 255 if data.normalization == "published" else x  # U-KAN's dataset.py divides by 255 a second time
