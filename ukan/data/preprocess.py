"""The one way from an image file to what a network sees: training, evaluation and prediction all come through here."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.errors import DataError
from ukan.imaging import Geometry, read_picture, to_8bit
from ukan.plan import DataPlan

if TYPE_CHECKING:
    import torch

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet, RGB order
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def read_stack(paths: Sequence[Path], data: DataPlan) -> tuple[NDArray[np.uint8], Geometry | None]:
    """An image, or a volume, as 8-bit slices (D, H, W, C); the channels of further files follow those of the first.

    Raises DataError where a file cannot be read, where files of one image differ in size, or where values of more than 8
    bits meet a plan that has no window for them.
    """
    pictures = [read_picture(path) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.values.shape[:3] != pictures[0].values.shape[:3]:
            raise DataError(f"{path}: not of the size of {paths[0].name}, which shows the same")
    stacks = []
    for path, picture in zip(paths, pictures, strict=True):
        try:
            stacks.append(to_8bit(picture.values, data.window))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
    if len(stacks) > 1:  # one channel a file: ordinary pictures come with three equal ones
        stacks = [stack[..., :1] if _grey(stack) else stack for stack in stacks]
    return (np.concatenate(stacks, axis=3) if len(stacks) > 1 else stacks[0]), pictures[0].geometry


def prepare_stack(stack_DHWC: NDArray[np.uint8], data: DataPlan) -> NDArray[np.uint8]:
    """Slices of any size to the plan's channels, order and input size: (D, height, width, channels), still 8 bit."""
    return np.stack([_prepare_image(image, data) for image in stack_DHWC])


def prepare_truth(truth_KDHW: NDArray[np.bool_], data: DataPlan) -> NDArray[np.uint8]:
    """Classes (K, D, H, W) to training targets (D, height, width, M), by nearest value.

    One channel of 0 and 1 a class; or, where classes exclude one another, one channel of 0 (background) to K.
    """
    if data.target == "multiclass":
        labels = np.zeros(truth_KDHW.shape[1:], np.uint8)
        for k, truth in enumerate(truth_KDHW, start=1):
            labels[truth] = k
        channels_MDHW = labels[None]
    else:
        channels_MDHW = truth_KDHW.astype(np.uint8)
    resized = [[_resize(slice_HW, data, cv2.INTER_NEAREST) for slice_HW in channel] for channel in channels_MDHW]
    return np.moveaxis(np.array(resized), 0, -1)


def per_class(targets_DHWM: NDArray[np.uint8], data: DataPlan) -> NDArray[np.bool_]:
    """Training targets back as masks (D, K, height, width)."""
    if data.target == "multiclass":
        return np.stack([targets_DHWM[..., 0] == k for k in range(1, data.outputs)], axis=1)
    return np.moveaxis(targets_DHWM > 0, -1, 1)


def at_size(probabilities_Khw: NDArray[np.float32], size: Sequence[int], data: DataPlan) -> NDArray[np.float32]:
    """Probabilities at the input size (K, h, w) back at an image's own size (height, width).

    Probabilities are resized, not masks, so that outlines stay smooth.
    """
    top, left, inner_height, inner_width = _placed(size, data)
    inner = probabilities_Khw[:, top : top + inner_height, left : left + inner_width]
    return np.stack([cv2.resize(p, (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for p in inner])


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


def to_signed(images_BHWC: "torch.Tensor") -> "torch.Tensor":
    """Prepared 8-bit images to what diffusion sees: (B, C, H, W), float32, from -1 to 1."""
    return images_BHWC.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_condition(targets_BMHW: "torch.Tensor", data: DataPlan) -> "torch.Tensor":
    """Training targets to what diffusion is told of masks: (B, K, H, W), 1 inside each class and -1 elsewhere."""
    import torch

    if data.target == "multiclass":
        targets_BMHW = torch.cat([targets_BMHW == k for k in range(1, len(data.classes) + 1)], 1)
    return (targets_BMHW > 0).float().mul(2).sub(1)


def _prepare_image(image_HWC: NDArray[np.uint8], data: DataPlan) -> NDArray[np.uint8]:
    image_HWC = _in_channels(image_HWC, data)
    _, _, height, width = _placed(image_HWC.shape[:2], data)
    shrinks = image_HWC.shape[0] > height and image_HWC.shape[1] > width
    # Averaging areas keeps what a shrunken image would otherwise skip over; it is no way to enlarge.
    method = cv2.INTER_AREA if data.interpolation == "area" and shrinks else cv2.INTER_LINEAR
    return _resize(image_HWC, data, method).reshape(*data.input_size, data.channels)


def _in_channels(image_HWC: NDArray[np.uint8], data: DataPlan) -> NDArray[np.uint8]:
    channels = image_HWC.shape[2]
    if channels == 1 and data.channels == 3:
        return np.repeat(image_HWC, 3, axis=2)
    if channels == 3 and data.channels == 1:
        return cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)[..., None]
    if channels != data.channels:
        raise DataError(f"an image of {channels} channels for a network of {data.channels}")
    return np.ascontiguousarray(image_HWC[..., ::-1]) if data.colour_order == "bgr" and channels == 3 else image_HWC


def _resize(image: NDArray[np.uint8], data: DataPlan, method: int) -> NDArray[np.uint8]:
    """To the input size; whatever a letterbox leaves free is 0."""
    top, left, height, width = _placed(image.shape[:2], data)
    resized = cv2.resize(image, (width, height), interpolation=method).reshape(height, width, *image.shape[2:])
    if (height, width) == tuple(data.input_size):
        return resized
    framed = np.zeros((*data.input_size, *image.shape[2:]), image.dtype)
    framed[top : top + height, left : left + width] = resized
    return framed


def _placed(size: Sequence[int], data: DataPlan) -> tuple[int, int, int, int]:
    """Top, left, height and width of an image of this size within the network's input."""
    (height, width), (into_height, into_width) = size, data.input_size
    if data.resize == "stretch":
        return 0, 0, into_height, into_width
    scale = min(into_height / height, into_width / width)
    inner_height = min(into_height, max(1, round(height * scale)))
    inner_width = min(into_width, max(1, round(width * scale)))
    return (into_height - inner_height) // 2, (into_width - inner_width) // 2, inner_height, inner_width


def _grey(stack_DHWC: NDArray[np.uint8]) -> bool:
    return stack_DHWC.shape[3] == 3 and bool((stack_DHWC == stack_DHWC[..., :1]).all())
