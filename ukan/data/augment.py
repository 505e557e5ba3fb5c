"""Random changes of training samples, through albumentations, which no other file knows.

Everything random in a sample comes from one integer, so that a sample is the same whoever makes it and whenever.
"""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version when imported

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.plan import AugmentPlan


class Augmenter:
    """Image and mask to a changed image and mask of the same shape; all that is random comes from the seed given."""

    def __init__(self, plan: AugmentPlan, input_size: tuple[int, int]) -> None:
        self.pipeline = A.Compose(_steps(plan, *input_size))

    def __call__(
        self, image_HWC: NDArray[np.uint8], mask_HWK: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        self.pipeline.set_random_seed(seed)
        done = self.pipeline(image=image_HWC, mask=mask_HWK)
        return (
            np.ascontiguousarray(done["image"].reshape(image_HWC.shape)),
            np.ascontiguousarray(done["mask"].reshape(mask_HWK.shape)),
        )


def _steps(plan: AugmentPlan, height: int, width: int) -> list[A.BasicTransform]:
    shift = (-plan.shift, plan.shift)
    steps = [
        (plan.rot90, lambda p: A.RandomRotate90(p=p)),
        (
            plan.any_flip,
            lambda p: A.OneOf(
                [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), A.Compose([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)])],
                p=p,
            ),
        ),
        (plan.hflip, lambda p: A.HorizontalFlip(p=p)),
        (plan.vflip, lambda p: A.VerticalFlip(p=p)),
        (
            plan.affine,
            lambda p: A.Affine(
                scale=plan.scale,
                rotate=(-plan.rotate_deg, plan.rotate_deg),
                translate_percent={"x": shift, "y": shift},
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_CONSTANT,
                keep_ratio=True,
                p=p,
            ),
        ),
        (
            plan.intensity,
            lambda p: A.RandomBrightnessContrast(brightness_limit=plan.brightness, contrast_limit=plan.contrast, p=p),
        ),
        (plan.gamma, lambda p: A.RandomGamma(gamma_limit=(70, 140), p=p)),
        (plan.noise, lambda p: A.GaussNoise(std_range=(0.01, 0.06), p=p)),
        (plan.blur, lambda p: A.GaussianBlur(sigma_limit=(0.3, 1.0), blur_limit=0, p=p)),
    ]
    made = [make(probability) for probability, make in steps if probability > 0]
    # Quarter turns exchange the sides of an oblong input.
    if plan.rot90 and height != width:
        made.append(A.Resize(height, width, interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST))
    return made
