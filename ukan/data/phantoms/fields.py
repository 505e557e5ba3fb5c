"""What all phantoms are drawn with: pixel grids, smooth noise, soft edges, closed curves, ellipses, streaks."""

# H rows, W columns, N things, K pixels along a patch

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

HEIGHT_PX, WIDTH_PX = 128, 160
"""The size of a written picture, give or take SIZE_SPREAD."""
SIZE_SPREAD = 0.2


class Grid(NamedTuple):
    """Pixel coordinates. `unit_px` is a 128th of the shorter side: textures and small things scale with it."""

    y_H1: Floats
    x_1W: Floats
    height: int
    width: int
    unit_px: float


def make_grid(height: int, width: int) -> Grid:
    if min(height, width) < 32:
        raise ValueError(f"a phantom of {height}x{width} px: too small to show tissue; ask for sides of 32 px or more")
    y_H1, x_1W = np.arange(height, dtype=np.float64)[:, None], np.arange(width, dtype=np.float64)[None, :]
    return Grid(y_H1, x_1W, height, width, min(height, width) / 128)


def draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a picture to be written: no two pictures of a dataset need be of one size."""
    height, width = (round(side * rng.uniform(1 - SIZE_SPREAD, 1 + SIZE_SPREAD)) for side in (HEIGHT_PX, WIDTH_PX))
    return height, width


def outline(
    rng: np.random.Generator,
    grid: Grid,
    centre_px: tuple[float, float],
    radii_px: tuple[float, float],
    tilt: float,
    harmonics: int,
    amplitude: float,
) -> Floats:
    """Radius (H, W) about a point, 1 on a closed curve: a tilted ellipse, its radius waved by 30 % at the most.

    `radii_px` are the half axes down and across, `harmonics` the most waves on one round, `tilt` is in radians.
    """
    down, across = grid.y_H1 - centre_px[0], grid.x_1W - centre_px[1]
    u = (across * np.cos(tilt) + down * np.sin(tilt)) / radii_px[1]
    v = (down * np.cos(tilt) - across * np.sin(tilt)) / radii_px[0]
    angle_HW = np.arctan2(v, u)
    waves_HW = np.zeros_like(angle_HW)
    for periods in range(2, harmonics + 1):
        waves_HW += rng.normal() / np.sqrt(periods) * np.cos(periods * angle_HW + rng.uniform(0, 2 * np.pi))
    return np.hypot(u, v) / (1 + np.clip(amplitude * waves_HW, -0.3, 0.3))


def noise(rng: np.random.Generator, shape: tuple[int, ...], sigma_px: tuple[float, float]) -> Floats:
    """Smooth noise of mean 0 and deviation 1 over the picture."""
    rough = gaussian_filter(rng.standard_normal(shape), sigma_px, mode="reflect")
    return (rough - rough.mean()) / rough.std()


def step(distance: Floats, softness: float | Floats) -> Floats:
    """0 to 1 across 0, over about four times the softness."""
    return 0.5 * (1 + np.tanh(distance / (2 * softness)))


def clouds(rng: np.random.Generator, grid: Grid, sigma_px: float) -> Floats:
    """What `noise` draws with this sigma, many times faster where sigma is large: bumps on a lattice of that spacing."""
    bumps_2 = [
        np.exp(-0.5 * ((side_px - np.arange(-3, side_px.size / sigma_px + 4)[:, None] * sigma_px) / sigma_px) ** 2)
        for side_px in (grid.y_H1.T, grid.x_1W)
    ]
    rough_HW: Floats = bumps_2[0].T @ rng.standard_normal((len(bumps_2[0]), len(bumps_2[1]))) @ bumps_2[1]
    return (rough_HW - rough_HW.mean()) / rough_HW.std()


def sprinkle(
    grid: Grid, centres_px_N2: Floats, radii_px_N2: Floats, angles_N: Floats, levels_N: Floats | float = 1.0
) -> Floats:
    """Many soft-edged ellipses (H, W), each of its level; where they overlap, the higher level shows.

    Centres are (row, column) and may lie outside the picture. Radii are the half axes along and across a line at
    `angles_N` radians from a row, turning from +column to +row.
    """
    count = len(centres_px_N2)
    if count == 0:
        return np.zeros((grid.height, grid.width))
    reach = int(np.ceil(radii_px_N2.max() + 1))
    field = np.zeros((grid.height + 4 * reach, grid.width + 4 * reach))  # room for what lies across the picture's edge
    corner_N2 = np.round(centres_px_N2).astype(np.intp).clip(-reach, [grid.height - 1 + reach, grid.width - 1 + reach])
    offset_K = np.arange(-reach, reach + 1)
    row_NK, column_NK = (corner_N2[:, axis, None] + offset_K for axis in (0, 1))
    down_NK1 = (row_NK - centres_px_N2[:, :1])[:, :, None]
    across_N1K = (column_NK - centres_px_N2[:, 1:])[:, None, :]
    cosine_N11, sine_N11 = np.cos(angles_N)[:, None, None], np.sin(angles_N)[:, None, None]
    long_N11, short_N11 = radii_px_N2[:, 0, None, None], radii_px_N2[:, 1, None, None]
    radius_NKK = np.sqrt(
        ((across_N1K * cosine_N11 + down_NK1 * sine_N11) / long_N11) ** 2
        + ((down_NK1 * cosine_N11 - across_N1K * sine_N11) / short_N11) ** 2
    )
    # An edge as sharp as a pixel allows: half covered on the outline.
    cover_NKK = np.clip(0.5 + (1 - radius_NKK) * np.minimum(long_N11, short_N11), 0, 1)
    level_NKK = cover_NKK * np.broadcast_to(levels_N, count)[:, None, None]
    np.maximum.at(field, (row_NK[:, :, None] + 2 * reach, column_NK[:, None, :] + 2 * reach), level_NKK)
    return field[2 * reach : -2 * reach, 2 * reach : -2 * reach]


def scatter(rng: np.random.Generator, grid: Grid, spacing_px: float) -> Floats:
    """Points (N, 2) spread over the picture and a little beyond: a lattice of this spacing, each point moved at random."""
    rows, columns = (np.arange(-spacing_px, side + spacing_px, spacing_px) for side in (grid.height, grid.width))
    points_N2 = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    return points_N2 + spacing_px * rng.uniform(-0.45, 0.45, points_N2.shape)


def values_at(field_HW: Floats, points_px_N2: Floats) -> Floats:
    """The field's value at the pixel nearest to each point."""
    row_N, column_N = np.round(points_px_N2).astype(np.intp).T
    values_N: Floats = field_HW[row_N.clip(0, field_HW.shape[0] - 1), column_N.clip(0, field_HW.shape[1] - 1)]
    return values_N


def streaks(rng: np.random.Generator, grid: Grid, along_HW: Floats, reach_px: float) -> Floats:
    """Fine noise drawn out along a direction (radians from a row, H, W): line integral convolution along straight pieces."""
    rough_HW = rng.standard_normal((grid.height, grid.width))
    sum_HW = np.zeros_like(rough_HW)
    down_HW, across_HW = np.sin(along_HW), np.cos(along_HW)
    for way in np.arange(-reach_px, reach_px + 0.5):
        row_HW = np.rint(grid.y_H1 + way * down_HW).astype(np.intp).clip(0, grid.height - 1)
        column_HW = np.rint(grid.x_1W + way * across_HW).astype(np.intp).clip(0, grid.width - 1)
        sum_HW += rough_HW[row_HW, column_HW]
    return (sum_HW - sum_HW.mean()) / sum_HW.std()
