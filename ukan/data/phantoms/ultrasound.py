"""Made-up breast ultrasound, in BUSI's layout.

A picture is built as a scanner builds it: echo strength in dB (tissue layers, lesions, vessels, fat lobules), what the
beam loses or gains on its way down (attenuation, shadows, enhancement), fully developed speckle (a circular complex
Gaussian field blurred by the point-spread function; its magnitude is Rayleigh distributed), and log compression. Depth
runs down the rows. No grey value tells a lesion: deep tissue, shadows, vessels and fat are as dark.
"""

# H rows (depth), W columns (lateral)

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from ukan.data.phantoms.fields import Floats, Grid, draw_size, make_grid, noise, outline, step
from ukan.imaging import write_image, write_mask

Label = Literal["benign", "malignant", "normal"]
SHARES: dict[Label, float] = {"benign": 7 / 12, "malignant": 4 / 12, "normal": 1 / 12}
SHARE_TWO_LESIONS = 0.12


def make_ultrasound(
    rng: np.random.Generator, height: int, width: int, label: Label | None = None
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """A grey picture (height, width) in 8 bits and a mask (height, width) for each of its lesions: 0, 1 or 2.

    "benign" lesions are smooth, wider than tall, and brighten what lies behind them; "malignant" ones are jagged,
    often taller than wide, and throw a shadow; "normal" has none. Without a label one is drawn by SHARES.
    """
    if label is None:
        label = list(SHARES)[rng.choice(len(SHARES), p=list(SHARES.values()))]
    grid = make_grid(height, width)
    echo_db_HW = _tissue(rng, grid)
    path_db_HW = _attenuation(rng, grid)
    for _ in range(rng.integers(0, 4)):
        _add_lobule(rng, grid, echo_db_HW)
    for _ in range(rng.integers(0, 3)):
        _add_vessel(rng, grid, echo_db_HW)
    for _ in range(rng.integers(0, 3)):
        _add_shadow(rng, grid, echo_db_HW, path_db_HW)

    masks: list[NDArray[np.bool_]] = []
    malignant = label == "malignant"
    wanted = 0 if label == "normal" else 2 if rng.random() < SHARE_TWO_LESIONS else 1
    for _ in range(20):
        if len(masks) == wanted:
            break
        radius_HW = _lesion_outline(rng, grid, malignant, largest=18 if wanted == 2 else 29)
        # A second lesion keeps its distance, so that two masks never touch.
        if not any((mask & (radius_HW < 1.5)).any() for mask in masks):
            masks.append(radius_HW < 1)
            _add_lesion(rng, grid, echo_db_HW, path_db_HW, radius_HW, malignant)
    return _scan(rng, grid, echo_db_HW, path_db_HW), masks


def write_ultrasound(folder: Path, count: int, seed: int = 0) -> None:
    """A dataset of `count` pictures as BUSI lies on the disk: RGB pictures and their masks in a folder for each label.

    Picture i depends on (seed, i) alone: a larger count adds pictures and changes none.
    """
    numbers = dict.fromkeys(SHARES, 0)
    for name in numbers:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        # By turns, not by chance: any dozen pictures hold every class.
        label: Label = "normal" if index % 12 == 11 else "malignant" if index % 3 == 1 else "benign"
        numbers[label] += 1
        stem = f"{label} ({numbers[label]})"
        rng = np.random.default_rng([seed, index])
        height, width = draw_size(rng)
        image_HW, masks = make_ultrasound(rng, height, width, label)
        write_image(folder / label / f"{stem}.png", np.repeat(image_HW[:, :, None], 3, axis=2))
        for number, mask_HW in enumerate(masks or [np.zeros((height, width), np.bool_)]):
            write_mask(folder / label / f"{stem}_mask{f'_{number}' if number else ''}.png", mask_HW)


def _tissue(rng: np.random.Generator, grid: Grid) -> Floats:
    """Echo strength in dB (H, W): skin, then layers parted by bright curved interfaces, striated and blotchy."""
    y_H1, _, height, width, unit_px = grid
    depth, level_db = rng.uniform(0.03, 0.07), rng.uniform(2, 7)
    echo_db_HW = np.full((height, width), level_db)
    for texture_db, down, across in ((1.5, 1.2, 9), (2, 5, 8), (2.5, 14, 22)):
        echo_db_HW += texture_db * noise(rng, (height, width), (down * unit_px, across * unit_px))
    while depth < 0.95:
        bend = rng.uniform(0.005, 0.02) if depth < 0.1 else rng.uniform(0.015, 0.06)
        curve_1W = height * (depth + bend * noise(rng, (1, width), (0, rng.uniform(0.12, 0.3) * width)))
        curve_1W += rng.normal(0, 0.06) * (grid.x_1W - width / 2)
        below_HW = step(y_H1 - curve_1W, 0.8 * unit_px)
        next_db = rng.uniform(-9, 5)
        echo_db_HW += (next_db - level_db) * below_HW
        thickness_px = rng.uniform(0.7, 1.6) * unit_px
        patchy_1W = np.clip(0.6 + 0.5 * noise(rng, (1, width), (0, 10 * unit_px)), 0, 1.3)
        echo_db_HW += rng.uniform(4, 13) * patchy_1W * np.exp(-0.5 * ((y_H1 - curve_1W) / thickness_px) ** 2)
        level_db = next_db
        depth += rng.uniform(0.1, 0.4)
    return echo_db_HW


def _attenuation(rng: np.random.Generator, grid: Grid) -> Floats:
    """What depth costs in dB (H, W): what the scanner's gain leaves uncorrected, and its sliders' wobble."""
    loss_db = rng.uniform(2, 20)
    wobble_db_H1 = 2 * noise(rng, (grid.height, 1), (0.15 * grid.height, 0))
    contact_db_1W = rng.uniform(0, 2) * noise(rng, (1, grid.width), (0, 0.15 * grid.width))
    return wobble_db_H1 + contact_db_1W - loss_db * grid.y_H1 / grid.height


def _add_lobule(rng: np.random.Generator, grid: Grid, echo_db_HW: Floats) -> None:
    """A flat lobule of fat: a little darker than its surroundings, in a thin bright capsule. Not a lesion."""
    across_px = rng.uniform(13, 28) * grid.unit_px
    radii_px = (across_px / rng.uniform(2.6, 4.0), across_px)
    centre = (rng.uniform(0.1, 0.9) * grid.height, rng.uniform(0.0, 1.0) * grid.width)
    radius_HW = outline(rng, grid, centre, radii_px, rng.normal(0, 0.2), 4, 0.08)
    capsule_HW = np.exp(-0.5 * ((radius_HW - 1) * radii_px[0] / (1.1 * grid.unit_px)) ** 2)
    echo_db_HW += rng.uniform(3, 8) * capsule_HW - rng.uniform(3, 7) * (radius_HW < 1)


def _add_vessel(rng: np.random.Generator, grid: Grid, echo_db_HW: Floats) -> None:
    """A duct or vessel: a thin black tube between bright walls. Not a lesion."""
    radius_px = rng.uniform(1.2, 3.0) * grid.unit_px
    middle, half_px = rng.uniform(0.1, 0.9) * grid.width, rng.uniform(0.1, 0.35) * grid.width
    slope = rng.normal(0, 0.35)
    curve_1W = rng.uniform(0.15, 0.9) * grid.height + slope * (grid.x_1W - middle)
    curve_1W = curve_1W + 0.03 * grid.height * noise(rng, (1, grid.width), (0, 0.12 * grid.width))
    off_px_HW = np.abs(grid.y_H1 - curve_1W) / np.hypot(1, slope)
    along_1W = step(half_px - np.abs(grid.x_1W - middle), 2 * grid.unit_px)
    wall_HW = np.exp(-0.5 * ((off_px_HW - 1.3 * radius_px) / (0.7 * grid.unit_px)) ** 2)
    tube_HW = step(radius_px - off_px_HW, 0.4 * grid.unit_px)
    echo_db_HW += along_1W * (rng.uniform(2, 6) * wall_HW - rng.uniform(12, 22) * tube_HW)


def _add_shadow(rng: np.random.Generator, grid: Grid, echo_db_HW: Floats, path_db_HW: Floats) -> None:
    """A dark column below a bright speck (a calcification, a ligament, a bubble of air). Not a lesion."""
    top, middle = rng.uniform(0.05, 0.7) * grid.height, rng.uniform(0.05, 0.95) * grid.width
    half_px = rng.uniform(0.02, 0.07) * grid.width
    axis_H1 = middle + rng.normal(0, 0.05) * (grid.y_H1 - top)
    across_HW = step(half_px - np.abs(grid.x_1W - axis_H1), 1.2 * grid.unit_px)
    path_db_HW -= rng.uniform(6, 16) * across_HW * step(grid.y_H1 - top, 1.5 * grid.unit_px)
    speck_HW = np.exp(-0.5 * (((grid.y_H1 - top) / grid.unit_px) ** 2 + ((grid.x_1W - middle) / half_px) ** 2))
    echo_db_HW += rng.uniform(4, 12) * speck_HW


def _lesion_outline(rng: np.random.Generator, grid: Grid, malignant: bool, largest: float) -> Floats:
    """Radius (H, W) about a lesion's centre, 1 on its outline; the whole of it lies inside the picture."""
    size_px = rng.uniform(13, largest) * grid.unit_px
    flat = rng.uniform(0.75, 1.4) if malignant else rng.uniform(0.55, 0.9)  # height over width
    radii_px = (size_px * np.sqrt(flat), size_px / np.sqrt(flat))
    reach_px = 1.3 * max(radii_px) + 2
    y_px = np.clip(rng.uniform(0.22, 0.75) * grid.height, reach_px, grid.height - 1 - reach_px)
    x_px = np.clip(rng.uniform(0.12, 0.88) * grid.width, reach_px, grid.width - 1 - reach_px)
    harmonics, amplitude = (9, 0.2) if malignant else (4, 0.1)
    return outline(rng, grid, (y_px, x_px), radii_px, rng.normal(0, 0.25), harmonics, amplitude)


def _add_lesion(
    rng: np.random.Generator, grid: Grid, echo_db_HW: Floats, path_db_HW: Floats, radius_HW: Floats, malignant: bool
) -> None:
    """Darken the echoes inside an outline, and shade or brighten what lies behind it."""
    inside_HW = step(1 - radius_HW, 0.06 if malignant else 0.03)
    around_db = echo_db_HW[(radius_HW > 1) & (radius_HW < 1.6)].mean()
    mottle_db_HW = 1.5 * noise(rng, echo_db_HW.shape, (4 * grid.unit_px, 5 * grid.unit_px))
    level_db_HW = around_db - rng.uniform(13, 21) + mottle_db_HW
    echo_db_HW += (level_db_HW - echo_db_HW) * inside_HW
    if malignant:  # a bright, blurred halo
        echo_db_HW += rng.uniform(0, 4) * np.exp(-0.5 * ((radius_HW - 1.15) / 0.1) ** 2)
    # The beam is changed by the length of its way through the lesion.
    way_HW = np.cumsum(inside_HW, axis=0)
    way_HW = gaussian_filter1d(way_HW / way_HW.max(), 1.5 * grid.unit_px, axis=1)
    path_db_HW += (-rng.uniform(4, 11) if malignant else rng.uniform(2, 6)) * way_HW


def _scan(rng: np.random.Generator, grid: Grid, echo_db_HW: Floats, path_db_HW: Floats) -> NDArray[np.uint8]:
    """Speckle and log compression: the 8-bit picture (H, W) of these echoes."""
    amplitude_HW = 10 ** ((echo_db_HW + path_db_HW) / 20)
    # The point-spread function, wider across the beam than along it.
    axial_px, narrow_px, wide_px = rng.uniform((0.6, 0.8, 1.6), (0.9, 1.1, 2.4)) * grid.unit_px
    depth_H1 = grid.y_H1 / grid.height
    # The electronics' own noise: a floor under the weakest echoes.
    real_HW, imaginary_HW = 10 ** (-rng.uniform(28, 36) / 20) * rng.standard_normal((2, *amplitude_HW.shape))
    # Two beams of unit power each, mixed by depth: the power stays and the lateral width grows.
    for lateral_px, weight_H1 in ((narrow_px, 1 - depth_H1), (wide_px, depth_H1)):
        scatter_2HW = amplitude_HW * rng.standard_normal((2, *amplitude_HW.shape))
        blurred_2HW = gaussian_filter(scatter_2HW, (0, axial_px, lateral_px), mode="reflect")
        blurred_2HW *= np.sqrt(4 * np.pi * axial_px * lateral_px * weight_H1)
        real_HW += blurred_2HW[0]
        imaginary_HW += blurred_2HW[1]
    received_db_HW = 20 * np.log10(np.hypot(real_HW, imaginary_HW) + 1e-6)
    white_db = np.percentile(received_db_HW, 99.5) + rng.uniform(0, 6)
    grey_HW = 1 + (received_db_HW - white_db) / rng.uniform(42, 58)
    return np.round(255 * np.clip(grey_HW, 0, 1)).astype(np.uint8)
