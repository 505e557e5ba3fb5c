"""Random changes of training samples, through albumentations, which no other file knows.

Everything random in a sample comes from one integer, so that a sample is the same whoever makes it and whenever.
"""

import os
import zlib
from collections.abc import Callable
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version when imported

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.errors import UserError
from ukan.plan import AugmentPlan


class Augmenter:
    """Image and mask to a changed image and mask of the same shape; all that is random comes from the seed given."""

    def __init__(self, plan: AugmentPlan, input_size: tuple[int, int], colour_order: str = "rgb") -> None:
        self.steps = _steps(plan, *input_size)
        self.pipeline = A.Compose(list(self.steps.values()))
        self.colour = plan.colour > 0
        self.reverse = self.colour and colour_order == "bgr"

    def __call__(
        self, image_HWC: NDArray[np.uint8], mask_HWM: NDArray[np.uint8], seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Any number of channels each. A mask's values are labels and never blend.

        Raises UserError where colour is to change and there is none.
        """
        if self.colour and image_HWC.shape[2] != 3:
            raise UserError(
                f"train.augment.colour changes images of 3 channels, these have {image_HWC.shape[2]}: set it to 0"
            )
        for name, step in self.steps.items():
            step.set_random_seed(_seed_of(name, seed))
        done = self.pipeline(image=self._in_order(image_HWC), mask=mask_HWM)
        return (
            self._in_order(done["image"].reshape(image_HWC.shape)),
            np.ascontiguousarray(done["mask"].reshape(mask_HWM.shape)),
        )

    def _in_order(self, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """BGR to RGB or back: albumentations takes the first channel for red."""
        return np.ascontiguousarray(image_HWC[..., ::-1] if self.reverse else image_HWC)


def _seed_of(step: str, seed: int) -> int:
    """Each step draws for itself: with one seed for all, those of equal probability would happen together or not at all."""
    return int(np.random.SeedSequence([seed, zlib.crc32(step.encode())]).generate_state(1)[0])


def _steps(plan: AugmentPlan, height: int, width: int) -> dict[str, A.BasicTransform]:
    """The steps that are on, in the order they are taken."""
    shift = (-plan.shift, plan.shift)
    steps: dict[str, Callable[[float], A.BasicTransform]] = {
        "rot90": lambda p: A.RandomRotate90(p=p),
        "any_flip": lambda p: A.OneOf(
            [A.HorizontalFlip(p=1), A.VerticalFlip(p=1), A.Compose([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)])], p=p
        ),
        "hflip": lambda p: A.HorizontalFlip(p=p),
        "vflip": lambda p: A.VerticalFlip(p=p),
        "affine": lambda p: A.Affine(
            scale=plan.scale,
            rotate=(-plan.rotate_deg, plan.rotate_deg),
            translate_percent={"x": shift, "y": shift},
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            border_mode=cv2.BORDER_CONSTANT,
            keep_ratio=True,
            p=p,
        ),
        "elastic": lambda p: _Elastic(
            alpha=plan.elastic_shift * min(height, width),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            border_mode=cv2.BORDER_REFLECT_101,  # no ragged black rim
            p=p,
        ),
        "colour": lambda p: A.ColorJitter(
            brightness=(1, 1),
            contrast=(1, 1),
            saturation=(1 - plan.saturation, 1 + plan.saturation),
            hue=(-plan.hue, plan.hue),
            p=p,
        ),
        "intensity": lambda p: A.RandomBrightnessContrast(
            brightness_limit=plan.brightness, contrast_limit=plan.contrast, p=p
        ),
        "gamma": lambda p: A.RandomGamma(gamma_limit=tuple(100 * exponent for exponent in plan.gamma_range), p=p),
        "noise": lambda p: A.GaussNoise(std_range=plan.noise_std, p=p),
        "blur": lambda p: A.GaussianBlur(sigma_limit=plan.blur_sigma_px, blur_limit=0, p=p),
    }
    made = {name: make(getattr(plan, name)) for name, make in steps.items() if getattr(plan, name) > 0}
    if plan.rot90 and height != width:  # quarter turns exchange the sides of an oblong input
        made["back"] = A.Resize(height, width, interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST_EXACT)
    return made


class _Elastic(A.ElasticTransform):
    """The U-Net paper's deformation (Ronneberger et al. 2015, section 3.1): each knot of a coarse 3x3 grid is displaced by a
    normal draw of deviation alpha, in pixels, and the displacements between are interpolated bicubically.

    albumentations' own field is many times larger along the borders than inside.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        knots = self.random_generator.normal(0, self.alpha, (2, 3, 3)).astype(np.float32)
        moves = [cv2.resize(knots_33, (width, height), interpolation=cv2.INTER_CUBIC) for knots_33 in knots]
        rows, columns = np.indices((height, width), np.float32)
        return {"map_x": columns + moves[0], "map_y": rows + moves[1]}
