"""Made-up colon tissue, stained with haematoxylin and eosin, in GlaS' layout.

A picture is built as a slide comes to be: glands in stroma; how much of each stain every spot takes up (nuclei blue
haematoxylin; cytoplasm, fibres and red cells pink eosin; mucus, lumen and clefts neither); and the light that is left
behind both stains (Beer and Lambert). No colour tells a gland: stroma has nuclei, fibres and holes of its own, and the two
stains differ from slide to slide.
"""

# H rows, W columns, C colours, S stains, N things

import csv
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.ndimage import label as number_parts
from scipy.spatial import KDTree

from ukan.data.phantoms.fields import (
    Bools,
    Floats,
    Grid,
    clouds,
    draw_size,
    make_grid,
    scatter,
    sprinkle,
    step,
    streaks,
    values_at,
)
from ukan.paths import written_whole

Grade = Literal["benign", "malignant"]
PER_PATIENT = 4

_HAEMATOXYLIN, _EOSIN = (0.65, 0.70, 0.29), (0.12, 0.95, 0.28)
"""Optical density in red, green and blue; after Ruifrok and Johnston 2001."""


class Slide(NamedTuple):
    """What the pictures of one slide share."""

    density_SC: Floats
    """Optical density of the two stains, at a concentration of 1."""
    glass_C: Floats


def draw_slide(rng: np.random.Generator) -> Slide:
    density_SC = np.clip(np.array([_HAEMATOXYLIN, _EOSIN]) + rng.normal(0, 0.05, (2, 3)), 0.03, None)
    strength_S1 = rng.uniform([[1.1], [0.7]], [[2.0], [1.6]])
    return Slide(density_SC * strength_S1, rng.uniform(0.90, 1.0) * rng.uniform(0.95, 1.0, 3))


def make_histology(
    rng: np.random.Generator, height: int, width: int, grade: Grade | None = None, slide: Slide | None = None
) -> tuple[NDArray[np.uint8], list[Bools]]:
    """A colour picture (height, width, 3) in 8 bits and a mask (height, width) for each of its glands.

    "benign" glands are round or long, each for itself, with one row of nuclei, goblet cells and a lumen in the middle;
    "malignant" ones are ragged and grown together, with several rows of large nuclei and torn or several lumina. Without a
    grade or a slide they are drawn.
    """
    grid = make_grid(height, width)
    slide = slide or draw_slide(rng)
    malignant = rng.random() < 0.5 if grade is None else grade == "malignant"
    number_HW, glass_HW = _glands(rng, grid, malignant)
    while not number_HW.any():
        number_HW, glass_HW = _glands(rng, grid, malignant)
    inside_HW = number_HW > 0
    stroma_2HW = _stroma(rng, grid, distance_transform_edt(~inside_HW) / grid.unit_px)
    glands_2HW = _epithelium(rng, grid, distance_transform_edt(inside_HW) / grid.unit_px, malignant)
    stains_2HW = np.where(inside_HW, glands_2HW, stroma_2HW) * ~glass_HW
    density_HWC = stains_2HW.transpose(1, 2, 0) @ slide.density_SC
    light_HWC = gaussian_filter(slide.glass_C * np.exp(-density_HWC), (0.45 * grid.unit_px, 0.45 * grid.unit_px, 0))
    light_HWC += rng.normal(0, 0.008, light_HWC.shape)
    image_HWC = np.round(255 * light_HWC.clip(0, 1)).astype(np.uint8)
    return image_HWC, [number_HW == number for number in range(1, number_HW.max() + 1)]


def write_histology(folder: Path, count: int, seed: int = 0) -> None:
    """A dataset of `count` pictures as GlaS was first published: bitmaps, gland numbers as masks, and Grade.csv.

    PER_PATIENT pictures in a row are of one patient: one slide, one grade. Every fifth patient is in the official test part.
    Picture i depends on (seed, i) alone: a larger count adds pictures and changes none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {"train": 0, "testA": 0}
    rows = []
    for index in range(count):
        patient = index // PER_PATIENT
        grade: Grade = "malignant" if patient % 2 else "benign"
        part = "testA" if patient % 5 == 4 else "train"
        numbers[part] += 1
        name = f"{part}_{numbers[part]}"
        rng = np.random.default_rng([seed, index])
        slide = draw_slide(np.random.default_rng([seed, patient, 1]))  # a third number: no picture's own generator
        image_HWC, masks = make_histology(rng, *draw_size(rng), grade, slide)
        number_HW = sum((number * mask_HW for number, mask_HW in enumerate(masks, 1)), np.zeros(image_HWC.shape[:2], int))
        for stem, values in ((name, image_HWC), (f"{name}_anno", number_HW.astype(np.uint8))):
            with written_whole(folder / f"{stem}.bmp") as temporary:
                Image.fromarray(values).save(temporary, "BMP")
        rows.append((name, patient + 1, grade, grade))
    with written_whole(folder / "Grade.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        columns = ("name", "patient ID", "grade (GlaS)", "grade (Sirinukunwattana et al. 2015)")
        csv.writer(file).writerows([columns, *rows])


def _glands(rng: np.random.Generator, grid: Grid, malignant: bool) -> tuple[NDArray[np.int32], Bools]:
    """The number of the gland at each place (H, W), 0 outside; and where the glass is bare, beyond the tissue's edge.

    Mostly there are some; glands that reach the edge are left out.
    """
    unit, shape = grid.unit_px, (grid.height, grid.width)
    # Glands of one place are cut at one angle: circles in a space that is turned, stretched and, in the end, bent.
    spacing_px, tilt = rng.uniform(30, 52) * unit, rng.uniform(0, np.pi)
    stretch = rng.uniform(1.0, 1.35 if malignant else 1.8)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]) * [[1 / stretch], [1.0]]
    place_2HW = np.stack(np.broadcast_arrays(grid.y_H1 - grid.height / 2, grid.x_1W - grid.width / 2))
    bends = ((5.0, 11), (1.6, 4)) if malignant else ((2.0, 9), (0.5, 3))
    for bend, scale in bends:
        place_2HW = place_2HW + bend * unit * np.stack([clouds(rng, grid, scale * unit) for _ in "yx"])
    place_2HW = np.einsum("ij,jhw->ihw", turn, place_2HW)

    count = int(np.ceil(np.hypot(*shape) / spacing_px)) + 2
    rows, columns = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    centre_N2 = np.stack([rows * np.sqrt(0.75), columns + 0.5 * (rows % 2)], axis=-1).reshape(-1, 2) - count / 2
    centre_N2 = spacing_px * (centre_N2 + rng.normal(0, 0.16 if malignant else 0.08, centre_N2.shape) + rng.uniform(0, 1, 2))
    # Some places of the lattice stay empty, in patches: stroma, muscle, fat.
    patch_N = np.sin(centre_N2 @ rng.normal(0, 1.5 / spacing_px, 2) + rng.uniform(0, 2 * np.pi))
    centre_N2 = centre_N2[rng.random(len(centre_N2)) < 0.78 + 0.4 * patch_N]
    radius_N = spacing_px * rng.uniform(0.32, 0.58 if malignant else 0.50, len(centre_N2))
    group_N = np.arange(len(centre_N2))
    if malignant:  # some grow into their nearest neighbour
        nearest_N = KDTree(centre_N2).query(centre_N2, k=2)[1][:, 1]
        group_N = np.where(rng.random(len(centre_N2)) < 0.45, nearest_N, group_N)

    first_HW, second_HW = np.full((2, *shape), -1e3)  # how deep in the nearest gland, and in the next
    for group in np.unique(group_N):
        members = group_N == group
        away_2NHW = place_2HW[:, None] - centre_N2[members].T[:, :, None, None]
        deep_HW = (radius_N[members, None, None] - np.sqrt(away_2NHW[0] ** 2 + away_2NHW[1] ** 2)).max(axis=0)
        second_HW = np.maximum(second_HW, np.minimum(first_HW, deep_HW))
        first_HW = np.maximum(first_HW, deep_HW)
    gap_px = rng.uniform(2.5, 7) * unit
    inside_HW = (first_HW > 0) & (first_HW - second_HW > gap_px)
    inside_HW = gaussian_filter(inside_HW.astype(np.float64), 1.2 * unit) > 0.5

    glass_HW = np.zeros(shape, bool)
    if rng.random() < 0.25:
        across = rng.uniform(0, 2 * np.pi)
        edge_HW = np.cos(across) * (grid.y_H1 - grid.height / 2) + np.sin(across) * (grid.x_1W - grid.width / 2)
        edge_HW = edge_HW + unit * (5 * clouds(rng, grid, 14 * unit) + clouds(rng, grid, 2 * unit))
        glass_HW = edge_HW > rng.uniform(0.2, 0.5) * min(shape)
    number_HW, count = number_parts(inside_HW)
    area_N = np.bincount(number_HW.ravel(), minlength=count + 1)
    dropped_N = (area_N < 60 * unit**2) | (np.bincount(number_HW[glass_HW], minlength=count + 1) > 0)
    dropped_N[0] = True
    renumbered_N = np.where(dropped_N, 0, np.cumsum(~dropped_N))
    return renumbered_N[number_HW].astype(np.int32), glass_HW


def _stroma(rng: np.random.Generator, grid: Grid, away_HW: Floats) -> Floats:
    """Blue and pink stain (2, H, W) between glands: fibres that wind around them, clefts, cells, vessels, fat.

    `away` is the distance (H, W) from the nearest gland, in units.
    """
    unit = grid.unit_px
    # Fibres run along the lines of equal value of a winding field.
    heading = rng.uniform(0, 2 * np.pi)
    straight_HW = (np.cos(heading) * grid.y_H1 + np.sin(heading) * grid.x_1W) / unit
    field_HW = rng.uniform(0.3, 1.0) * straight_HW + np.minimum(away_HW, 12) + 5 * clouds(rng, grid, 9 * unit)
    along_HW = np.arctan2(*np.gradient(gaussian_filter(field_HW, unit))) + np.pi / 2
    fibre_HW = gaussian_filter(streaks(rng, grid, along_HW, 5 * unit), 0.4 * unit)
    loose_HW = np.clip(rng.uniform(-0.3, 0.8) + 0.6 * clouds(rng, grid, 12 * unit), 0, 1)
    pink_HW = rng.uniform(0.35, 0.6) + 0.1 * fibre_HW + 0.05 * clouds(rng, grid, unit)
    pink_HW += rng.uniform(0, 0.6) * np.clip(clouds(rng, grid, 14 * unit) - 0.6, 0, 1)  # muscle
    blue_HW = np.clip(rng.uniform(0.05, 0.22) + 0.08 * clouds(rng, grid, 7 * unit) + 0.03 * fibre_HW, 0, None)
    filled_HW = 1 - 0.9 * loose_HW * step(-0.2 - fibre_HW, 0.25)  # the rest is clefts
    pink_HW, blue_HW = pink_HW * filled_HW, blue_HW * filled_HW

    # Cells: spindles along the fibres, and round lymphocytes that come in crowds.
    crowd_HW = rng.uniform(0.0, 0.8) + 0.35 * clouds(rng, grid, 11 * unit)
    points_N2 = scatter(rng, grid, 3.4 * unit)
    points_N2 = points_N2[rng.random(len(points_N2)) < values_at(crowd_HW, points_N2).clip(0.12, 0.95)]
    count = len(points_N2)
    round_N = rng.random(count) < 0.25 + 0.7 * values_at(crowd_HW, points_N2)
    radii_N2 = unit * rng.uniform(0.85, 1.15, (count, 1)) * np.where(round_N[:, None], (1.35, 1.2), (2.5, 0.7))
    angle_N = values_at(along_HW, points_N2) + rng.normal(0, 0.25, count)
    blue_HW = np.maximum(blue_HW, sprinkle(grid, points_N2, radii_N2, angle_N, rng.uniform(0.6, 1.1, count)))

    # Vessels, some with red cells, in walls of their own; and in some pictures fat, whose cells are large and empty.
    free_M2 = np.argwhere(away_HW > 5)
    vessels_N2 = rng.permutation(free_M2)[: rng.integers(0, 6)].astype(np.float64)
    radii_N2 = unit * rng.uniform((3.0, 2.0), (9.0, 4.5), (len(vessels_N2), 2))
    angle_N = values_at(along_HW, vessels_N2)
    wall_HW = sprinkle(grid, vessels_N2, radii_N2 + 1.5 * unit, angle_N)
    hollow_HW = sprinkle(grid, vessels_N2, radii_N2, angle_N)
    red_N2 = scatter(rng, grid, 2.8 * unit)
    red_N2 = red_N2[(rng.random(len(red_N2)) < 0.5) & (values_at(hollow_HW, red_N2) > 0.9)]
    red_HW = sprinkle(grid, red_N2, np.full((len(red_N2), 2), 1.3 * unit), np.zeros(len(red_N2)), 0.9)
    if rng.random() < 0.2:
        cells_N2 = scatter(rng, grid, 8 * unit)
        cells_N2 = cells_N2[(values_at(clouds(rng, grid, 18 * unit), cells_N2) > 0.5) & (values_at(away_HW, cells_N2) > 4)]
        radii_N2 = unit * rng.uniform(3.2, 4.6, (len(cells_N2), 2))
        hollow_HW = np.maximum(hollow_HW, sprinkle(grid, cells_N2, radii_N2, np.zeros(len(cells_N2))))
    pink_HW = np.maximum(np.maximum(pink_HW, 0.6 * wall_HW) * (1 - hollow_HW), red_HW)
    return np.stack([blue_HW * (1 - hollow_HW), pink_HW.clip(0, None)])


def _epithelium(rng: np.random.Generator, grid: Grid, depth_HW: Floats, malignant: bool) -> Floats:
    """Blue and pink stain (2, H, W) inside glands: nuclei, cytoplasm, goblet cells, lumen, by the depth (H, W) in units."""
    unit = grid.unit_px
    smooth_HW = gaussian_filter(depth_HW, unit)
    across_HW = np.arctan2(*np.gradient(smooth_HW))  # a cell stands across the outline
    tall = rng.uniform(7, 12) if malignant else rng.uniform(8, 20)
    top_HW = tall + (2.5 if malignant else 1.0) * clouds(rng, grid, 4 * unit)
    lumen_HW = step(depth_HW - top_HW, 0.35)
    pink_HW = rng.uniform(0.3, 0.6) + 0.05 * clouds(rng, grid, unit)
    blue_HW = rng.uniform(0.12, 0.3) * (0.6 + step(5 - depth_HW, 1)) + 0.03 * clouds(rng, grid, unit)
    pink_HW = pink_HW + 0.25 * np.exp(-0.5 * ((depth_HW - top_HW + 0.6) / 0.6) ** 2)  # the brush border
    hollow_HW = lumen_HW * rng.uniform(0.8, 1.0)

    goblets_N2 = scatter(rng, grid, 3.9 * unit)
    share = rng.uniform(0, 0.3) if malignant else rng.uniform(0.3, 1.0)
    depth_N = values_at(depth_HW, goblets_N2)
    goblets_N2 = goblets_N2[
        (depth_N > 5) & (depth_N < values_at(top_HW, goblets_N2) + 1) & (rng.random(len(depth_N)) < share)
    ]
    count = len(goblets_N2)
    radii_N2 = unit * rng.uniform(0.85, 1.15, (count, 1)) * (2.5, 1.9)
    goblet_HW = sprinkle(grid, goblets_N2, radii_N2, values_at(across_HW, goblets_N2), rng.uniform(0.7, 1.0, count))
    if malignant:  # lumina of their own, punched into the sheet
        holes_N2 = scatter(rng, grid, 11 * unit)
        holes_N2 = holes_N2[(values_at(depth_HW, holes_N2) > 5) & (rng.random(len(holes_N2)) < rng.uniform(0, 0.6))]
        radii_N2 = unit * rng.uniform(1.6, 3.6, (len(holes_N2), 2))
        goblet_HW = np.maximum(goblet_HW, sprinkle(grid, holes_N2, radii_N2, np.zeros(len(holes_N2))))
    hollow_HW = np.maximum(hollow_HW, goblet_HW)
    debris_HW = np.clip(rng.uniform(-2.5, 0.2) + clouds(rng, grid, 1.1 * unit), 0, 1) * lumen_HW

    rows = rng.uniform(0.6, 0.85) * tall if malignant else rng.uniform(3.2, 4.6)
    nuclei_N2 = scatter(rng, grid, (2.9 if malignant else 2.5) * unit)
    depth_N = values_at(depth_HW, nuclei_N2)
    kept_N = (depth_N > 1.2) & (depth_N < rows) & (values_at(hollow_HW, nuclei_N2) < 0.4) & (rng.random(len(depth_N)) < 0.92)
    nuclei_N2 = nuclei_N2[kept_N]
    count = len(nuclei_N2)
    radii_N2 = unit * rng.uniform(0.8, 1.2, (count, 1)) * ((2.3, 1.35) if malignant else (1.9, 1.05))
    angle_N = values_at(across_HW, nuclei_N2) + rng.normal(0, 0.45 if malignant else 0.2, count)
    nuclei_HW = sprinkle(grid, nuclei_N2, radii_N2, angle_N, rng.uniform(0.55, 1.05, count))
    pink_HW = np.maximum(pink_HW * (1 - hollow_HW), 0.6 * debris_HW)
    blue_HW = np.maximum(np.maximum(blue_HW * (1 - hollow_HW), 0.25 * debris_HW), nuclei_HW)
    return np.stack([blue_HW, pink_HW]).clip(0, None)
