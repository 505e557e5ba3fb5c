"""Small pictures for the page, as data URIs: cases with their outlines and errors, and augmented training samples."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.cache import prepare_cases, read_case
from ukan.errors import DataError
from ukan.imaging import read_mask
from ukan.imaging.draw import draw_outline
from ukan.plan import Case
from ukan.runs import Run

HEIGHT_PX, WIDTH_PX = 220, 300
"""The box that a picture fits into."""

Colour = tuple[int, int, int]
TRUTH: Colour = (0, 200, 140)
PREDICTION: Colour = (255, 200, 0)
# Colours that the colour-blind tell apart (Okabe and Ito): found, invented, missed.
FOUND: Colour = (0, 158, 115)
INVENTED: Colour = (213, 94, 0)
MISSED: Colour = (86, 180, 233)

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Picture(NamedTuple):
    title: str
    uri: str
    width: int
    height: int


def case_pictures(root: Path, case: Case, prediction: Path, run: Run) -> list[Picture]:
    """Image, truth, prediction and error of a case. Raises DataError where files are missing or no longer those scored."""
    image, truth = read_case(root, case, run.plan.data)
    found = read_mask(prediction) > 0
    if found.shape != truth.shape:
        raise DataError(f"{prediction}: {found.shape[1]}x{found.shape[0]}, the image is {truth.shape[1]}x{truth.shape[0]}")
    small, small_truth, small_found = fitted(image), fitted_mask(truth), fitted_mask(found)
    return [
        picture("image", small),
        picture("truth" if truth.any() else "truth: empty", outlined(small, small_truth, TRUTH)),
        picture("prediction" if found.any() else "prediction: empty", outlined(small, small_found, PREDICTION)),
        picture("error", errors(small, small_truth, small_found)),
    ]


def sample_pictures(run: Run, root: Path, fold: int, count: int) -> list[tuple[str, list[Picture]]]:
    """The first samples that the network of a fold was trained on, each with the case it was made from."""
    from ukan.data.batches import StepSampler, TrainingSamples  # they need torch and albumentations

    plan = run.plan
    everyone = {name for split in run.splits for names in split.values() for name in names}
    prepared = prepare_cases(root, [run.cases[name] for name in everyone], plan.data)
    samples = TrainingSamples(prepared, run.splits[fold]["train"], plan.train.augment, plan.train.seed)
    made = []
    for key in next(iter(StepSampler(len(samples), count, plan.train.seed, 0, 1))):
        changed, changed_mask, name = samples[key]
        row = samples.rows[key[1]]
        pictures = []
        for title, image, mask in (
            ("prepared", prepared.images_NHWC[row], prepared.masks_NHWK[row, ..., 0] > 0),
            ("as trained on", changed.numpy(), changed_mask[0].numpy() > 0),
        ):
            pictures.append(picture(title, outlined(fitted(_rgb(image, plan.data.colour_order)), fitted_mask(mask), TRUTH)))
        made.append((name, pictures))
    return made


def fitted(image_HWC: Image) -> Image:
    """An RGB image at the size of the page's box, its shape kept."""
    width, height = _size(image_HWC.shape)
    shrinks = height < image_HWC.shape[0]
    return cv2.resize(image_HWC, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fitted_mask(mask_HW: Mask) -> Mask:
    return cv2.resize(mask_HW.astype(np.uint8), _size(mask_HW.shape), interpolation=cv2.INTER_NEAREST_EXACT) > 0


def outlined(image_HWC: Image, mask_HW: Mask, colour: Colour) -> Image:
    return draw_outline(image_HWC, mask_HW, colour, line_px=2, tint=0)


def errors(image_HWC: Image, truth_HW: Mask, found_HW: Mask) -> Image:
    """The image in grey, with what was rightly found, invented and missed in colour."""
    grey = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)
    drawn = np.repeat(0.7 * grey[..., None], 3, axis=2)
    for mask, colour in (
        (truth_HW & found_HW, FOUND),
        (~truth_HW & found_HW, INVENTED),
        (truth_HW & ~found_HW, MISSED),
    ):
        drawn[mask] = 0.4 * drawn[mask] + 0.6 * np.array(colour)
    return drawn.astype(np.uint8)


def picture(title: str, image_HWC: Image) -> Picture:
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
    return Picture(title, uri, image_HWC.shape[1], image_HWC.shape[0])


def hex_of(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _size(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height, as cv2 wants them."""
    scale = min(HEIGHT_PX / shape[0], WIDTH_PX / shape[1])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _rgb(image_HWC: Image, colour_order: str) -> Image:
    """A prepared image as a viewer wants it: three channels, red first."""
    if image_HWC.shape[2] == 1:
        return np.repeat(image_HWC, 3, axis=2)
    return np.ascontiguousarray(image_HWC[..., ::-1] if colour_order == "bgr" else image_HWC)
