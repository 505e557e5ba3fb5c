"""Made-up dermoscopy: a pigmented lesion on hairy skin, in ISIC 2018's layout.

A picture is built as the skin shows itself: where the pigments are (melanin near the surface is brown, melanin in the
depth looks blue since the tissue above it scatters blue light back, blood is red), the light they leave (Beer and
Lambert), what lies on the skin (hairs, gel bubbles, ink, a ruler), and the dermoscope's round field of view. No colour
tells a lesion: skins are pale to dark, lesions faint to black, and hairs, ink and corners are dark as well.
"""

# H rows, W columns, C colours, N things

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ukan.data.phantoms.fields import (
    Bools,
    Floats,
    Grid,
    clouds,
    draw_size,
    make_grid,
    outline,
    scatter,
    sprinkle,
    step,
    streaks,
)
from ukan.imaging import write_jpeg, write_mask

_ABSORBED_3C = np.array([[0.45, 0.85, 1.35], [0.08, 0.75, 0.65], [1.0, 0.75, 0.45]])
"""What melanin, blood, and melanin in the depth take of red, green and blue light."""
_INK_C = np.array([1.1, 1.4, 0.35])


def make_dermoscopy(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], list[Bools]]:
    """A colour picture (height, width, 3) in 8 bits and the mask (height, width) of its lesion."""
    grid = make_grid(height, width)
    melanin_HW, blood_HW = _skin(rng, grid)
    radius_HW, size_px = _lesion_outline(rng, grid)
    pigments_HW3 = np.stack([melanin_HW, blood_HW, np.zeros_like(blood_HW)], axis=-1)
    pigments_HW3 += _lesion(rng, grid, radius_HW, size_px, float(melanin_HW.mean()))
    light_HWC = np.array([0.98, 0.92, 0.86]) * np.exp(-pigments_HW3.clip(0, None) @ _ABSORBED_3C)
    if rng.random() < 0.15:
        light_HWC *= np.exp(-_ink(rng, grid)[:, :, None] * _INK_C)
    _add_hairs(rng, grid, light_HWC)
    if rng.random() < 0.2:
        light_HWC *= 1 - 0.85 * _ruler(rng, grid)[:, :, None]
    if rng.random() < 0.6:  # light in the gel
        glints_N2 = scatter(rng, grid, 16 * grid.unit_px)
        glints_N2 = glints_N2[rng.random(len(glints_N2)) < rng.uniform(0, 0.5)]
        radii_N2 = grid.unit_px * rng.uniform(0.3, 1.0, (len(glints_N2), 2))
        shine_HW = sprinkle(
            grid, glints_N2, radii_N2, rng.uniform(0, np.pi, len(glints_N2)), rng.uniform(0.2, 0.9, len(glints_N2))
        )
        light_HWC += shine_HW[:, :, None] * (1 - light_HWC)
    view_HW = _field_of_view(rng, grid)
    light_HWC *= view_HW[:, :, None] * rng.uniform(0.55, 1.05) * rng.uniform(0.92, 1.08, 3)
    blur_px = rng.uniform(0.3, 0.8) * grid.unit_px
    light_HWC = gaussian_filter(light_HWC, (blur_px, blur_px, 0)) + rng.normal(0, 0.008, light_HWC.shape)
    return np.round(255 * light_HWC.clip(0, 1)).astype(np.uint8), [(radius_HW < 1) & (view_HW > 0.4)]


def write_dermoscopy(folder: Path, count: int, seed: int = 0) -> None:
    """A dataset of `count` pictures as ISIC 2018 lies on the disk: JPEG files, and PNG masks in a folder beside them.

    Picture i depends on (seed, i) alone: a larger count adds pictures and changes none.
    """
    images, masks = folder / "ISIC2018_Task1-2_Training_Input", folder / "ISIC2018_Task1_Training_GroundTruth"
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        image_HWC, [mask_HW] = make_dermoscopy(rng, *draw_size(rng))
        write_jpeg(images / f"ISIC_{index:07}.jpg", image_HWC)
        write_mask(masks / f"ISIC_{index:07}_segmentation.png", mask_HW)


def _skin(rng: np.random.Generator, grid: Grid) -> tuple[Floats, Floats]:
    """Melanin and blood (H, W) of the skin around: blotches, a lattice of fine furrows, freckles."""
    unit = grid.unit_px
    melanin = np.exp(rng.uniform(np.log(0.04), np.log(1.3)))
    heading = rng.uniform(0, np.pi)
    shape = (grid.height, grid.width)
    furrows_HW = sum(streaks(rng, grid, np.full(shape, heading + turn), 5 * unit) for turn in (0.0, rng.uniform(0.8, 1.6)))
    furrows_HW = gaussian_filter(furrows_HW, 0.5 * unit)
    uneven_HW = 0.10 * clouds(rng, grid, 16 * unit) + 0.06 * clouds(rng, grid, 3 * unit) + rng.uniform(0, 0.12) * furrows_HW
    melanin_HW = (melanin + 0.1) * (1 + uneven_HW) - 0.1
    blood_HW = rng.uniform(0.05, 0.35) + rng.uniform(0.02, 0.1) * clouds(rng, grid, 14 * unit) + 0.015 * furrows_HW
    freckles_N2 = scatter(rng, grid, 18 * unit)
    freckles_N2 = freckles_N2[rng.random(len(freckles_N2)) < rng.choice([0, 0.1, 0.5])]
    radii_N2 = unit * rng.uniform(1.0, 4.0, (len(freckles_N2), 1)) * rng.uniform(0.8, 1.2, (len(freckles_N2), 2))
    freckles_HW = sprinkle(grid, freckles_N2, radii_N2, np.zeros(len(freckles_N2)), rng.uniform(0.1, 0.5, len(freckles_N2)))
    return melanin_HW + gaussian_filter(freckles_HW, unit), blood_HW


def _lesion_outline(rng: np.random.Generator, grid: Grid) -> tuple[Floats, float]:
    """Radius (H, W) about the lesion's centre, 1 on its outline; and its mean radius in pixels."""
    unit = grid.unit_px
    size_px, long = np.exp(rng.uniform(np.log(14), np.log(52))) * unit, rng.uniform(1.0, 1.25)
    centre = (grid.height * rng.uniform(0.3, 0.7), grid.width * rng.uniform(0.25, 0.75))
    waves, amplitude = int(rng.integers(3, 10)), rng.uniform(0.04, 0.2)
    radius_HW = outline(rng, grid, centre, (size_px * long, size_px / long), rng.uniform(0, np.pi), waves, amplitude)
    ragged_px = rng.uniform(0.2, 1.2) * unit * clouds(rng, grid, 3 * unit)
    if rng.random() < 0.3:  # pigment that runs outwards in strands
        outwards_HW = np.arctan2(grid.y_H1 - centre[0], grid.x_1W - centre[1])
        ragged_px += rng.uniform(0.8, 2.0) * unit * gaussian_filter(streaks(rng, grid, outwards_HW, 6 * unit), 0.6 * unit)
    return radius_HW + ragged_px / size_px, size_px


def _lesion(rng: np.random.Generator, grid: Grid, radius_HW: Floats, size_px: float, skin: float) -> Floats:
    """Melanin, blood and deep melanin (H, W, 3) that a lesion adds."""
    unit = grid.unit_px
    # Its edge is sharp here and fades there.
    soft_px = unit * np.exp(rng.uniform(-0.4, 0.9) + 0.5 * clouds(rng, grid, 16 * unit))
    inside_HW = step((1 - radius_HW) * size_px, soft_px)
    strength = (0.5 + skin) * np.exp(rng.uniform(np.log(0.3), np.log(2.2)))
    tone_HW = (
        1 + rng.uniform(0.1, 0.4) * clouds(rng, grid, 9 * unit) + rng.uniform(0.05, 0.2) * clouds(rng, grid, 2.5 * unit)
    )
    if rng.random() < 0.6:  # the network: brown meshes around pale holes
        mesh_HW = np.exp(-((clouds(rng, grid, 1.4 * unit) / 0.6) ** 2)) - 0.55
        tone_HW += rng.uniform(0.4, 1.1) * mesh_HW * np.clip(0.5 + clouds(rng, grid, 12 * unit), 0, 1)
    if rng.random() < 0.5:  # globules
        globules_N2 = scatter(rng, grid, 5 * unit)
        globules_N2 = globules_N2[rng.random(len(globules_N2)) < rng.uniform(0.1, 0.7)]
        radii_N2 = unit * rng.uniform(0.7, 1.9, (len(globules_N2), 2))
        spots_HW = sprinkle(grid, globules_N2, radii_N2, np.zeros(len(globules_N2)), rng.uniform(0.3, 1.0, len(globules_N2)))
        tone_HW += rng.uniform(0.3, 1.0) * spots_HW
    deep_HW = np.zeros_like(inside_HW)
    if rng.random() < 0.4:  # a blue veil
        deep_HW = rng.uniform(0.3, 1.2) * np.clip(clouds(rng, grid, 8 * unit) + rng.uniform(-0.5, 0.8), 0, 1)
        tone_HW *= 1 - 0.6 * np.clip(deep_HW, 0, 1)
    if rng.random() < 0.35:  # regression: a pale scar, peppered
        scar_HW = np.clip(clouds(rng, grid, 8 * unit) - rng.uniform(0.2, 0.9), 0, 0.75)
        tone_HW *= 1 - scar_HW
        deep_HW += 0.5 * scar_HW * np.clip(clouds(rng, grid, unit) - 0.5, 0, 1)
    red_HW = rng.uniform(-0.1, 0.2) + 0.07 * clouds(rng, grid, 6 * unit)
    halo_HW = rng.uniform(0, 0.15) * np.exp(-0.5 * ((radius_HW - 1) * size_px / (5 * unit)) ** 2)
    return np.stack(
        [inside_HW * strength * tone_HW.clip(0.05, None), inside_HW * red_HW + halo_HW, inside_HW * deep_HW], axis=-1
    )


def _add_hairs(rng: np.random.Generator, grid: Grid, light_HWC: Floats) -> None:
    """Hairs: thin dark (or fair) arcs, most of them lying one way, each with its shadow."""
    unit = grid.unit_px
    draw = rng.random()
    count = rng.integers(8, 30) if draw < 0.25 else rng.integers(1, 8) if draw < 0.65 else 0
    if count == 0:
        return
    heading, spread = rng.uniform(0, np.pi), rng.uniform(0.1, 0.8)
    thick_px = rng.uniform(0.3, 0.9) * unit
    cover_HW = np.zeros((grid.height, grid.width))
    for _ in range(count):
        turn, bend = heading + rng.normal(0, spread), rng.normal(0, 0.6) / grid.height
        y_H1, x_1W = grid.y_H1 - rng.uniform(0, grid.height), grid.x_1W - rng.uniform(0, grid.width)
        along_HW, aside_HW = x_1W * np.cos(turn) + y_H1 * np.sin(turn), y_H1 * np.cos(turn) - x_1W * np.sin(turn)
        off_HW = np.abs(aside_HW - bend * along_HW**2) / np.sqrt(1 + (2 * bend * along_HW) ** 2)
        ends_HW = rng.uniform(0.1, 0.6) * grid.width - np.abs(along_HW)
        # It thins out towards its ends.
        width_HW = thick_px * rng.uniform(0.7, 1.3) * np.clip(ends_HW / (20 * unit), 0, 1)
        cover_HW = np.maximum(cover_HW, np.clip(0.5 + width_HW - off_HW, 0, 1) * (ends_HW > 0))
    cover_HW *= rng.uniform(0.6, 1.0)
    shadow_HW = gaussian_filter(np.roll(cover_HW, rng.integers(-2, 3, 2), axis=(0, 1)), unit)
    light_HWC *= 1 - rng.uniform(0, 0.4) * shadow_HW[:, :, None]
    hair_C = np.array([0.16, 0.11, 0.09]) if rng.random() < 0.8 else np.array([0.62, 0.50, 0.36])
    light_HWC += cover_HW[:, :, None] * (hair_C - light_HWC)


def _ink(rng: np.random.Generator, grid: Grid) -> Floats:
    """How thick a surgeon's pen has written on the skin (H, W): a stroke or two near the edges of the picture."""
    ink_HW = np.zeros((grid.height, grid.width))
    for _ in range(rng.integers(1, 3)):
        turn = rng.uniform(0, 2 * np.pi)
        y_H1, x_1W = grid.y_H1 - grid.height / 2, grid.x_1W - grid.width / 2
        away_HW = np.cos(turn) * x_1W + np.sin(turn) * y_H1 + 3 * grid.unit_px * clouds(rng, grid, 12 * grid.unit_px)
        off_HW = np.abs(away_HW - rng.uniform(0.38, 0.55) * grid.height) - rng.uniform(1.5, 5) * grid.unit_px
        ink_HW = np.maximum(ink_HW, step(-off_HW, 0.7 * grid.unit_px))
    return rng.uniform(0.4, 1.2) * ink_HW * np.clip(0.8 + 0.25 * clouds(rng, grid, 2 * grid.unit_px), 0.1, None)


def _ruler(rng: np.random.Generator, grid: Grid) -> Floats:
    """How much the marks of a ruler cover (H, W): a long one after four short ones, along a line near an edge."""
    period_px, turn = rng.uniform(4, 9) * grid.unit_px, rng.choice(4) * np.pi / 2 + rng.normal(0, 0.05)
    y_H1, x_1W = grid.y_H1 - grid.height / 2, grid.x_1W - grid.width / 2
    along_HW, away_HW = np.cos(turn) * x_1W + np.sin(turn) * y_H1, np.cos(turn) * y_H1 - np.sin(turn) * x_1W
    place_HW = along_HW / period_px
    length_HW = np.where(np.rint(place_HW) % 5 == 0, 9, 5) * grid.unit_px
    into_HW = away_HW - rng.uniform(0.33, 0.42) * grid.height
    mark_HW = np.clip(0.5 + 0.5 * grid.unit_px - np.abs(place_HW - np.rint(place_HW)) * period_px, 0, 1)
    return mark_HW * (into_HW > 0) * (into_HW < length_HW)


def _field_of_view(rng: np.random.Generator, grid: Grid) -> Floats:
    """The light that arrives (H, W): uneven, and in many pictures little of it outside a circle."""
    y_H1, x_1W = (grid.y_H1 / grid.height - 0.5), (grid.x_1W / grid.width - 0.5)
    view_HW = 1 + rng.uniform(-0.25, 0.25) * y_H1 + rng.uniform(-0.25, 0.25) * x_1W
    if rng.random() < 0.55:
        from_middle_HW = np.hypot(grid.y_H1 - grid.height / 2, grid.x_1W - grid.width / 2)
        from_middle_HW /= max(grid.height, grid.width)
        radius = rng.uniform(0.46, 0.62)
        view_HW *= 1 - 0.3 * (from_middle_HW / radius).clip(0, 1) ** 3
        view_HW *= 1 - rng.uniform(0.75, 0.97) * step(from_middle_HW - radius, rng.uniform(0.004, 0.02))
    return view_HW
