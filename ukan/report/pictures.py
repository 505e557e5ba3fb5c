"""Small pictures for the page, as data URIs: cases with their outlines and errors, and augmented training samples."""

import base64
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.cache import prepare_cases, read_case
from ukan.data.outputs import read_segmentation
from ukan.errors import DataError
from ukan.imaging import PALETTE, read_image
from ukan.imaging.draw import draw_outline
from ukan.plan import Case, DataPlan
from ukan.runs import Run

HEIGHT_PX, WIDTH_PX = 220, 300
"""The box that a picture fits into."""
STRIPE_PX = 4

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


def case_pictures(root: Path, case: Case, prediction: Path, data: DataPlan) -> list[Picture]:
    """Image, truth, prediction and error of a case; of a volume, the slice with the largest true area.

    `prediction` is its path without a suffix. Raises DataError where files are missing or no longer those scored.
    """
    image_DHWC, truth_KDHW, geometry = read_case(root, case, data)
    found_KDHW = read_segmentation(prediction, len(image_DHWC), geometry, data)
    if found_KDHW.shape != truth_KDHW.shape:
        sizes = ("x".join(map(str, masks.shape[:0:-1])) for masks in (found_KDHW, truth_KDHW))
        raise DataError("{}: {}, the image is {}".format(prediction, *sizes))
    shown = shown_slice(truth_KDHW, found_KDHW)
    image, said = viewable(image_DHWC[shown])
    box = fit_box(image.shape[0], image.shape[1], geometry.spacing_mm[1:] if geometry else (1.0, 1.0))
    small = fitted(image, box)
    truth, found = (fitted_masks(masks[:, shown], box) for masks in (truth_KDHW, found_KDHW))
    said += f", slice {shown + 1} of {len(image_DHWC)}" if len(image_DHWC) > 1 else ""
    return [
        picture("image" + said, small),
        picture("truth" + ("" if truth_KDHW.any() else ": empty"), outlined(small, truth, TRUTH)),
        picture("prediction" + ("" if found_KDHW.any() else ": empty"), outlined(small, found, PREDICTION)),
        picture("error", class_errors(small, truth, found) if len(truth) > 1 else errors(small, truth[0], found[0])),
    ]


def sample_pictures(run: Run, root: Path, fold: int, count: int) -> list[tuple[str, list[Picture]]]:
    """The first samples that the network of a fold was trained on, each beside what it was made from."""
    from ukan.data.batches import StepSampler, TrainingSamples  # they need torch and albumentations

    plan = run.plan
    everyone = {name for split in run.splits for names in split.values() for name in names}
    prepared = prepare_cases(root, [run.cases[name] for name in everyone], plan.data)
    samples = TrainingSamples(prepared, run.splits[fold]["train"], plan.train, plan.data)
    box = fit_box(*plan.data.input_size)
    made = []
    for key in next(iter(StepSampler(len(samples), count, plan.train.seed, 0, 1))):
        changed, changed_target, name = samples[key]
        row = samples.rows[key[1]]
        pictures = []
        for title, image_HWC, target_HWM in (
            ("prepared", prepared.images_NHWC[row], prepared.targets_NHWM[row]),
            ("as trained on", changed.numpy(), changed_target.permute(1, 2, 0).numpy()),
        ):
            bgr = plan.data.colour_order == "bgr" and plan.data.channels == 3
            image, said = viewable(image_HWC[..., ::-1] if bgr else image_HWC)
            masks = fitted_masks(_classes(target_HWM, plan.data), box)
            pictures.append(picture(title + said, outlined(fitted(image, box), masks, TRUTH)))
        made.append((name, pictures))
    return made


def shown_slice(truth_KDHW: Mask, found_KDHW: Mask) -> int:
    """The slice with the largest true area; where nothing is there, with the largest predicted one; else the middle one."""
    for masks in (truth_KDHW, found_KDHW):
        areas = masks.any(0).sum((1, 2))
        if areas.any():
            return int(areas.argmax())
    return truth_KDHW.shape[1] // 2


def viewable(image_HWC: Image) -> tuple[Image, str]:
    """An image of any number of channels as RGB, and what to say where that is not all of it."""
    channels = image_HWC.shape[2]
    if channels == 3:
        return np.ascontiguousarray(image_HWC), ""
    return np.repeat(image_HWC[..., :1], 3, axis=2), "" if channels == 1 else f", channel 1 of {channels}"


def fit_box(height: int, width: int, pixel: tuple[float, float] = (1.0, 1.0)) -> tuple[int, int]:
    """Height and width that fill the page's box in one direction and keep the shape; `pixel`: height and width of one."""
    tall, wide = height * pixel[0], width * pixel[1]
    scale = min(HEIGHT_PX / tall, WIDTH_PX / wide)
    return max(1, round(tall * scale)), max(1, round(wide * scale))


def fitted(image_HWC: Image, box: tuple[int, int]) -> Image:
    shrinks = box[0] < image_HWC.shape[0]
    return cv2.resize(image_HWC, box[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fitted_masks(masks_KHW: Mask, box: tuple[int, int]) -> Mask:
    resized = [cv2.resize(m.astype(np.uint8), box[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0 for m in masks_KHW]
    return np.stack(resized)


def outlined(image_HWC: Image, masks_KHW: Mask, alone: Colour) -> Image:
    """The image with the outline of each class in the class's colour; `alone` where there is one class only."""
    colours = class_colours(len(masks_KHW)) if len(masks_KHW) > 1 else [alone]
    for mask, colour in zip(masks_KHW, colours, strict=True):
        image_HWC = draw_outline(image_HWC, mask, colour, line_px=2, tint=0)
    return image_HWC


def errors(image_HWC: Image, truth_HW: Mask, found_HW: Mask) -> Image:
    """The image in grey, with what was rightly found, invented and missed in colour."""
    drawn = _dimmed(image_HWC)
    for mask, colour in (
        (truth_HW & found_HW, FOUND),
        (~truth_HW & found_HW, INVENTED),
        (truth_HW & ~found_HW, MISSED),
    ):
        _fill(drawn, mask, colour)
    return drawn.astype(np.uint8)


def class_errors(image_HWC: Image, truth_KHW: Mask, found_KHW: Mask) -> Image:
    """The image in grey; what was missed filled with the colour of its class, what was invented striped with it.

    Where one class was taken for another, stripes of the one lie on the other.
    """
    drawn = _dimmed(image_HWC)
    y, x = np.indices(drawn.shape[:2])
    stripes = (y + x) // STRIPE_PX % 2 == 0
    colours = class_colours(len(truth_KHW))
    for truth, found, colour in zip(truth_KHW, found_KHW, colours, strict=True):
        _fill(drawn, truth & ~found, colour)
    for truth, found, colour in zip(truth_KHW, found_KHW, colours, strict=True):
        _fill(drawn, ~truth & found & stripes, colour)
    return drawn.astype(np.uint8)


def class_colours(count: int) -> list[Colour]:
    """The colour of each class where there are several; they come round again where there are more than the palette has."""
    return [PALETTE[k % len(PALETTE)] for k in range(count)]


def picture(title: str, image_HWC: Image) -> Picture:
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    uri = "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
    return Picture(title, uri, image_HWC.shape[1], image_HWC.shape[0])


def embedded(path: Path) -> Picture:
    """A picture of a file as it is. Raises DataError where it is gone or none."""
    return picture(path.stem, read_image(path)[..., :3])


def hex_of(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _classes(target_HWM: NDArray[np.number], data: DataPlan) -> Mask:
    """A prepared target as masks (K, H, W)."""
    if data.target == "multiclass":
        return np.stack([target_HWM[..., 0] == k for k in range(1, data.outputs)])
    return np.moveaxis(target_HWM > 0, -1, 0)


def _dimmed(image_HWC: Image) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.repeat(0.7 * grey[..., None], 3, axis=2)


def _fill(drawn_HWC: NDArray[np.float32], mask_HW: Mask, colour: Colour) -> None:
    drawn_HWC[mask_HW] = 0.4 * drawn_HWC[mask_HW] + 0.6 * np.array(colour)
