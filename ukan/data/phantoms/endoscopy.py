"""Made-up colonoscopy: polyps in a colon, several frames of each, as images/ and masks/.

A scene is a surface in space: a bent tube with folds, and a polyp that grows out of its wall. A frame is what a camera in
it sees: rays are marched to the surface, which is lit from the camera's tip (light falls off with the distance squared),
reflects what blood leaves of the light (Beer and Lambert; vessels, red patches), and is wet: where its film of water
faces the lamp it mirrors it. No colour tells a polyp: walls come as near, as bright and as red.
"""

# H rows, W columns, C colours, P points, K waves, U V texels of the wall, around the tube and along it
# 3 space: x right, y down, z along the tube; the unit is the tube's radius

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, minimum_filter

from ukan.data.phantoms.fields import Bools, Floats, Grid, draw_size, make_grid
from ukan.imaging import write_image, write_mask

Singles = NDArray[np.float32]
PER_SEQUENCE = 4

_SHAPE_UV = (192, 240)
_START, _LENGTH = -1.0, 8.0
_FAR = 8.0
_BLOOD_C = np.array([0.22, 1.0, 1.05])
"""What blood absorbs of red, green and blue light."""
_BILE_C = np.array([0.0, 0.1, 1.0])
_FILM, _BLOOD, _BILE = slice(0, 3), 3, 4  # what the wall's texels hold


class _Polyp(NamedTuple):
    foot_3: Singles
    head_3: Singles
    axes_33: Singles
    """Rows: the head's axes, the last one away from the wall, each divided by the head's radius that way."""
    radius: float
    stalk: float
    """Half the stalk's thickness; 0 for a polyp that sits on the wall."""
    blend: float
    """Over what distance it goes over into the wall."""
    waves_K3: Singles
    lobes: float
    """How high the waves of its surface are, in radii."""
    blood: float
    """How much redder it is than the wall."""


class _Pose(NamedTuple):
    place_3: Singles
    turn_3: Singles
    """Pitch, yaw and roll, in radians."""


class Scene(NamedTuple):
    """A stretch of colon with its polyp, and how this endoscope shows it."""

    bend_2: Singles
    radius_UV: Singles
    skin_UVK: Singles
    """Texels of the wall: the tilt of its film of water, its blood, and bile on it."""
    polyp: _Polyp
    pose: _Pose
    drift: _Pose
    """What the camera moves during a sequence."""
    view: float
    """Half the angle of view along the shorter side, in radians."""
    tint_C: Floats
    exposure: float
    shine: float
    corner: float
    in_turns: bool
    """Whether red, green and blue are taken one after another, so that what moves has coloured edges."""


def make_endoscopy(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], list[Bools]]:
    """A colour picture (height, width, 3) in 8 bits and the mask (height, width) of its polyp."""
    image_HWC, mask_HW = make_frame(rng, draw_scene(rng), 0.5, height, width)
    return image_HWC, [mask_HW]


def write_endoscopy(folder: Path, count: int, seed: int = 0) -> None:
    """A dataset of `count` frames, PER_SEQUENCE in a row of one polyp: images/sequence_003_frame_2.png and its mask.

    Frame i depends on (seed, i) alone: a larger count adds frames and changes none.
    """
    for index in range(count):
        sequence, frame = divmod(index, PER_SEQUENCE)
        if frame == 0:
            rng = np.random.default_rng([seed, sequence, 1])  # a third number: no frame's own generator
            scene, size = draw_scene(rng), draw_size(rng)
        moment = frame / (PER_SEQUENCE - 1)
        image_HWC, mask_HW = make_frame(np.random.default_rng([seed, index]), scene, moment, *size)
        name = f"sequence_{sequence + 1:03}_frame_{frame + 1}.png"
        write_image(folder / "images" / name, image_HWC)
        write_mask(folder / "masks" / name, mask_HW)


def draw_scene(rng: np.random.Generator) -> Scene:
    heading = rng.uniform(0, 2 * np.pi)
    bend_2 = rng.uniform(0.05, 0.35) * _singles(np.cos(heading), np.sin(heading))
    radius_UV = _draw_wall(rng)
    blood_UV = (
        rng.uniform(0.4, 0.9) + rng.uniform(0.05, 0.25) * _texture(rng, 16) + rng.uniform(0.04, 0.12) * _texture(rng, 2)
    )
    sore = rng.uniform(0, 0.8) * (rng.random() < 0.5)
    blood_UV += sore * np.clip(_texture(rng, 9) - 1.3, 0, 1) * np.clip(_texture(rng, 2), 0, 1)
    visible = rng.uniform(0.1, 0.8)
    for texels, strength in ((10, 0.8), (6, 0.6), (3.5, 0.5)):  # vessels: the lines where a smooth field changes its sign
        field_UV = _texture(rng, texels)
        off_UV = np.abs(field_UV) / (np.hypot(*np.gradient(field_UV)) + 0.02)
        blood_UV += visible * strength * np.exp(-0.5 * (off_UV / 0.6) ** 2) * np.clip(0.3 + _texture(rng, 12), 0, 1.5)
    bile_UV = np.clip(rng.uniform(-3.0, -0.8) + _texture(rng, 13), 0, 0.7)
    film_UV3 = [0.6 * _texture(rng, 3) + _texture(rng, 1) for _ in range(3)]
    skin_UVK = np.stack([*film_UV3, blood_UV.clip(0.1, None), bile_UV], axis=-1).astype(np.float32)

    pose = _Pose(_singles(*rng.uniform(-0.45, 0.45, 2), 0), _singles(*rng.uniform(-0.8, 0.8, 2), rng.uniform(0, 6.3)))
    drift = _Pose(_singles(*rng.uniform(-0.15, 0.15, 2), rng.uniform(-0.25, 0.25)), _singles(*rng.uniform(-0.25, 0.25, 3)))
    view = rng.uniform(0.75, 1.05)
    return Scene(
        bend_2=bend_2,
        radius_UV=radius_UV,
        skin_UVK=skin_UVK,
        polyp=_draw_polyp(rng, bend_2, radius_UV, pose, view),
        pose=pose,
        drift=drift,
        view=view,
        tint_C=np.array([1.0, 0.76, 0.5]) * rng.uniform([0.9, 0.85, 0.6], [1.1, 1.1, 1.3]),
        exposure=rng.uniform(0.35, 1.1),
        shine=rng.uniform(1, 5),
        corner=rng.uniform(1.45, 1.75),
        in_turns=bool(rng.random() < 0.3),
    )


def make_frame(
    rng: np.random.Generator, scene: Scene, moment: float, height: int, width: int
) -> tuple[NDArray[np.uint8], Bools]:
    """The picture (H, W, 3) and the polyp's mask (H, W) at a moment of the sequence, 0 to 1."""
    grid = make_grid(height, width)
    y_H1, x_1W = 2 * (grid.y_H1 + 0.5) / height - 1, 2 * (grid.x_1W + 0.5) / width - 1
    frame_HW = (np.maximum(np.abs(y_H1) / 0.95, np.abs(x_1W) / 0.9) < 1) & (np.abs(y_H1) + np.abs(x_1W) < scene.corner)
    way = 2 * moment - 1 + rng.uniform(-0.2, 0.2)
    while True:
        pose = _Pose(*(start + way * move for start, move in zip(scene.pose, scene.drift, strict=True)))
        point_3P = _seen(scene, pose, _rays(grid, pose, scene.view), frame_HW)
        is_polyp_P = _polyp_distance(scene.polyp, point_3P) < _wall_distance(scene.bend_2, scene.radius_UV, point_3P)
        if is_polyp_P.sum() > 0.02 * frame_HW.size or abs(way) < 0.01:
            break
        way /= 2  # the polyp is out of sight
    mask_HW, light_HWC = np.zeros_like(frame_HW), np.zeros((height, width, 3))
    mask_HW[frame_HW] = is_polyp_P
    light_HWC[frame_HW] = _shade(scene, pose, point_3P, is_polyp_P)
    return _expose(rng, grid, scene, light_HWC, frame_HW), mask_HW


def _draw_wall(rng: np.random.Generator) -> Singles:
    """The tube's radius (U, V): thick folds that go part of the way around, sacs between them, and unevenness."""
    angle_U1 = np.linspace(-np.pi, np.pi, _SHAPE_UV[0])[:, None]
    z_1V = _START + _LENGTH * np.arange(_SHAPE_UV[1])[None, :] / _SHAPE_UV[1]
    sides, heading = rng.integers(2, 4), rng.uniform(0, 2 * np.pi)
    radius_UV = 1 + rng.uniform(0, 0.12) * np.cos(sides * (angle_U1 - heading)) + rng.uniform(0.02, 0.07) * _texture(rng, 12)
    radius_UV += rng.uniform(0.0, 0.012) * _texture(rng, 3)
    z, height = _START + rng.uniform(0, 0.5), rng.uniform(0.1, 0.5)
    while z < _START + _LENGTH:
        slant_U1 = (
            z + 0.12 * np.cos(angle_U1 - rng.uniform(0, 2 * np.pi)) + 0.1 * np.sin(sides * angle_U1 + rng.uniform(0, 6.3))
        )
        reach_U1 = np.clip(rng.uniform(0.2, 0.9) + 0.8 * np.cos(angle_U1 - rng.uniform(0, 2 * np.pi)), 0, 1)
        thick = rng.uniform(0.07, 0.14)
        radius_UV -= height * rng.uniform(0.5, 1.2) * reach_U1 * np.exp(-0.5 * ((z_1V - slant_U1) / thick) ** 2)
        z += rng.uniform(0.5, 1.3)
    return radius_UV.clip(0.25, None).astype(np.float32)


def _draw_polyp(rng: np.random.Generator, bend_2: Singles, radius_UV: Singles, pose: _Pose, view: float) -> _Polyp:
    """A polyp on a piece of wall that the camera sees."""
    wall = partial(_wall_distance, bend_2, radius_UV)
    rays_3P = _rays(make_grid(32, 32), pose, view)[:, 9:-9, 9:-9].reshape(3, -1)
    far_P = _march(wall, pose, rays_3P, np.full(rays_3P.shape[1], 0.02, np.float32), 26)
    # Not too near, not too far: of the walls in sight, one about as far as this.
    chosen = np.abs(np.log(far_P / rng.uniform(0.7, 1.8)) + 0.1 * rng.standard_normal(len(far_P))).argmin()
    far = float(far_P[chosen])
    foot_3 = pose.place_3 + far * rays_3P[:, chosen]
    out_3 = _slope(wall, foot_3[:, None])[:, 0]
    aside_3 = np.cross(out_3, rng.standard_normal(3))
    aside_3 /= np.linalg.norm(aside_3)
    stalked = rng.random() < 0.35
    radius = min(far * rng.uniform(0.18, 0.35) * (0.75 if stalked else 1), 0.45)
    flat = 1.0 if stalked else rng.uniform(0.5, 0.9)
    long = rng.uniform(1.0, 1.5)
    raised = radius * (rng.uniform(1.3, 2.0) if stalked else flat * rng.uniform(0.1, 0.5))
    head_3 = foot_3 + raised * out_3 + (rng.uniform(-0.6, 0.6) * radius * aside_3 if stalked else 0)
    axes_33 = np.stack([aside_3 / long, np.cross(out_3, aside_3), out_3 / flat]) / radius
    return _Polyp(
        foot_3=foot_3,
        head_3=head_3.astype(np.float32),
        axes_33=axes_33.astype(np.float32),
        radius=radius * flat,
        stalk=radius * rng.uniform(0.35, 0.55) if stalked else 0.0,
        blend=radius * rng.uniform(0.15, 0.4),
        waves_K3=rng.normal(0, rng.uniform(1.0, 2.5), (3, 3)).astype(np.float32),
        lobes=rng.uniform(0.02, 0.12),
        blood=rng.normal(0.3, 0.3),
    )


def _rays(grid: Grid, pose: _Pose, view: float) -> Singles:
    """The direction of every pixel's ray (3, H, W): the angle grows with the distance from the middle, as in a wide lens."""
    half = min(grid.height, grid.width) / 2
    y_HW, x_HW = np.broadcast_arrays((grid.y_H1 + 0.5 - grid.height / 2) / half, (grid.x_1W + 0.5 - grid.width / 2) / half)
    angle_HW = view * np.hypot(y_HW, x_HW)
    aside_HW = view * np.sinc(angle_HW / np.pi)
    forward_3HW = np.stack([x_HW * aside_HW, y_HW * aside_HW, np.cos(angle_HW)]).astype(np.float32)
    return np.einsum("ij,jhw->ihw", _turn(pose.turn_3), forward_3HW)


def _turn(turn_3: Singles) -> Singles:
    """What turns the camera's axes into the tube's (3, 3)."""
    (cp, cy, cr), (sp, sy, sr) = np.cos(turn_3), np.sin(turn_3)
    pitch = _singles([1, 0, 0], [0, cp, -sp], [0, sp, cp])
    yaw = _singles([cy, 0, sy], [0, 1, 0], [-sy, 0, cy])
    roll = _singles([cr, -sr, 0], [sr, cr, 0], [0, 0, 1])
    turned_33: Singles = np.linalg.multi_dot([yaw, pitch, roll])
    return turned_33


def _wall_distance(bend_2: Singles, radius_UV: Singles, point_3P: Singles) -> Singles:
    """How far it is to the tube's wall (P,) from inside: never more than it is, as marching rays need it."""
    x_P, y_P, angle_P = _around(bend_2, point_3P)
    return 0.6 * (_texels(radius_UV, angle_P, point_3P[2]) - np.sqrt(x_P**2 + y_P**2))


def _polyp_distance(polyp: _Polyp, point_3P: Singles) -> Singles:
    local_3P = polyp.axes_33 @ (point_3P - polyp.head_3[:, None])
    head_P = np.sqrt(np.einsum("ip,ip->p", local_3P, local_3P)) - 1
    near_P = np.abs(head_P) < 1
    head_P[near_P] -= polyp.lobes * np.sin(polyp.waves_K3 @ local_3P[:, near_P]).sum(axis=0)
    head_P *= 0.8 * polyp.radius
    if polyp.stalk == 0:
        return head_P
    stem_3, from_3P = polyp.head_3 - polyp.foot_3, point_3P - polyp.foot_3[:, None]
    along_P = (stem_3 @ from_3P / (stem_3 @ stem_3)).clip(0, 1)
    stalk_P = _length(from_3P - along_P * stem_3[:, None]) - polyp.stalk
    return _blended(head_P, stalk_P, 0.6 * polyp.stalk)


def _scene_distance(scene: Scene, point_3P: Singles) -> Singles:
    wall_P = _wall_distance(scene.bend_2, scene.radius_UV, point_3P)
    return _blended(wall_P, _polyp_distance(scene.polyp, point_3P), scene.polyp.blend)


def _blended(one_P: Singles, other_P: Singles, over: float) -> Singles:
    """The smaller of two distances, with the crease between the surfaces filled in over some distance."""
    near_P = np.clip(over - np.abs(one_P - other_P), 0, None)
    return np.minimum(one_P, other_P) - near_P * near_P / (4 * over)


def _slope(distance: Callable[[Singles], Singles], point_3P: Singles, reach: float = 0.025) -> Singles:
    """The surface's normal (3, P) at points on it."""
    here_P = distance(point_3P)
    slope_3P = np.stack([distance(point_3P + step_31) - here_P for step_31 in _singles(*(reach * np.eye(3)))[:, :, None]])
    return slope_3P / (_length(slope_3P) + 1e-9)


def _march(distance: Callable[[Singles], Singles], pose: _Pose, rays_3P: Singles, far_P: Singles, steps: int) -> Singles:
    """How far (P,) rays go from the camera to the surface, from where they are now; _FAR where they meet none."""
    for _ in range(steps):
        far_P = (far_P + distance(pose.place_3[:, None] + far_P * rays_3P)).clip(0.02, _FAR)
    return far_P


def _seen(scene: Scene, pose: _Pose, rays_3HW: Singles, frame_HW: Bools) -> Singles:
    """Where on the surface the rays inside the frame end (3, P)."""
    distance = partial(_scene_distance, scene)
    # Every second ray of every second row first, then all of them from a little before.
    few_3HW = rays_3HW[:, ::2, ::2]
    far_P = _march(distance, pose, few_3HW.reshape(3, -1), np.full(few_3HW[0].size, 0.02, np.float32), 26)
    far_HW = minimum_filter(far_P.reshape(few_3HW.shape[1:]), 3).repeat(2, axis=0).repeat(2, axis=1)
    far_P = 0.97 * far_HW[: frame_HW.shape[0], : frame_HW.shape[1]][frame_HW] - 0.01
    rays_3P = rays_3HW.reshape(3, -1).compress(frame_HW.ravel(), axis=1)
    far_P = _march(distance, pose, rays_3P, far_P, 5)
    # Rays that pass close by an edge take longer.
    late_P = distance(pose.place_3[:, None] + far_P * rays_3P) > 0.003 * far_P
    far_P[late_P] = _march(distance, pose, rays_3P[:, late_P], far_P[late_P], 30)
    return pose.place_3[:, None] + far_P * rays_3P


def _shade(scene: Scene, pose: _Pose, point_3P: Singles, is_polyp_P: Bools) -> Floats:
    """The light (P, C) that comes back from surface points to the camera."""
    normal_3P = _slope(partial(_scene_distance, scene), point_3P)
    to_eye_3P = pose.place_3[:, None] - point_3P
    to_lamp_3P = to_eye_3P + 0.06 * _turn(pose.turn_3)[:, :1]  # beside the lens
    far_P = _length(to_lamp_3P)
    to_lamp_3P, to_eye_3P = to_lamp_3P / far_P, to_eye_3P / _length(to_eye_3P)
    angle_P, z_P = _around(scene.bend_2, point_3P)[2], point_3P[2].copy()
    # The polyp wears a piece of wall of its own.
    polyp = scene.polyp
    local_3P = 1.5 * polyp.radius * polyp.axes_33 @ (point_3P[:, is_polyp_P] - polyp.head_3[:, None])
    angle_P[is_polyp_P], z_P[is_polyp_P] = local_3P[1] + 0.6 * local_3P[2], local_3P[0] - 0.5 * local_3P[2] + 1
    skin_PK = _texels(scene.skin_UVK, angle_P, z_P)

    # Light enters the mucosa and comes out beside: no edge is quite dark.
    falling_P = (0.15 + 0.85 * (normal_3P * to_lamp_3P).sum(axis=0).clip(0, None)) / (far_P**2 + 0.1)
    blood_P = (skin_PK[:, _BLOOD] + (scene.polyp.blood + 0.15 * skin_PK[:, 0]) * is_polyp_P).clip(0.05, None)
    bile_P = skin_PK[:, _BILE] * (1 - 0.7 * is_polyp_P)  # runs off
    colour_PC = scene.tint_C * np.exp(-blood_P[:, None] * _BLOOD_C - bile_P[:, None] * _BILE_C)
    film_3P = normal_3P + 0.22 * skin_PK[:, _FILM].T
    half_3P = to_lamp_3P + to_eye_3P
    facing_P = (film_3P * half_3P).sum(axis=0) / (_length(film_3P) * _length(half_3P))
    mirrored_P = scene.shine * np.exp(350 * (facing_P - 1)) / (far_P**2 + 0.1)
    light_PC: Floats = (falling_P + 0.02 / (far_P + 0.1))[:, None] * colour_PC + mirrored_P[:, None]
    return light_PC


def _expose(rng: np.random.Generator, grid: Grid, scene: Scene, light_HWC: Floats, frame_HW: Bools) -> NDArray[np.uint8]:
    """The picture (H, W, C) that the camera makes of this light."""
    light_HWC = light_HWC * (scene.exposure / np.percentile(light_HWC[frame_HW].mean(axis=1), 75))
    light_HWC = gaussian_filter(light_HWC, (0.5 * grid.unit_px, 0.5 * grid.unit_px, 0))
    if rng.random() < 0.5:  # the tip moves during the exposure
        step_2 = rng.normal(0, 1.2, 2) * grid.unit_px
        count = 2 * int(np.ceil(np.abs(step_2).max())) + 1
        light_HWC = np.mean([_moved(light_HWC, share * step_2) for share in np.linspace(-1, 1, count)], axis=0)
        if scene.in_turns:
            light_HWC = np.stack([_moved(light_HWC[..., colour], (colour - 1) * step_2) for colour in range(3)], axis=-1)
    grey_HWC = (1 - np.exp(-light_HWC)) ** (1 / 2.2)
    grey_HWC += rng.normal(0, rng.uniform(0.004, 0.015), grey_HWC.shape)
    grey_HWC = np.where(frame_HW[..., None], grey_HWC, 0.03)
    return np.round(255 * grey_HWC.clip(0, 1)).astype(np.uint8)


def _around(bend_2: Singles, point_3P: Singles) -> tuple[Singles, Singles, Singles]:
    """Points seen from the tube's bent middle line: x, y and the angle (P,)."""
    way_P = point_3P[2] ** 2 / (1 + 0.1 * np.abs(point_3P[2]))
    x_P, y_P = (point_3P[axis] - bend_2[axis] * way_P for axis in (0, 1))
    return x_P, y_P, np.arctan2(y_P, x_P)


def _texels(table_UV: Singles, angle_P: Singles, z_P: Singles) -> Singles:
    """What a table of the wall, (U, V) or (U, V, K), holds at an angle (-pi to pi) and a z: linear between texels."""
    around, along = _SHAPE_UV
    u_P = (angle_P * np.float32((around - 1) / (2 * np.pi)) + np.float32((around - 1) / 2)).clip(0, around - 1.001)
    v_P = ((z_P - np.float32(_START)) * np.float32(along / _LENGTH)).clip(0, along - 1.001)
    low_u_P, low_v_P = np.floor(u_P), np.floor(v_P)
    share = (slice(None),) + (None,) * (table_UV.ndim - 2)
    u, v = (u_P - low_u_P)[share], (v_P - low_v_P)[share]
    table, first_P = table_UV.reshape(around * along, *table_UV.shape[2:]), (low_u_P * along + low_v_P).astype(np.int32)
    here, right = table.take(first_P, axis=0), table.take(first_P + 1, axis=0)
    below, across = table.take(first_P + along, axis=0), table.take(first_P + along + 1, axis=0)
    upper = here + v * (right - here)
    value: Singles = upper + u * (below + v * (across - below) - upper)
    return value


def _texture(rng: np.random.Generator, texels: float) -> Singles:
    """Smooth noise (U, V) of mean 0 and deviation 1 on the wall; it closes around the tube."""
    round_px = _SHAPE_UV[0] - 1  # the last row is the first again
    around = max(round(round_px / texels), 3)
    off_UN = np.arange(_SHAPE_UV[0])[:, None] - np.arange(around) * round_px / around
    off_UN = (off_UN + round_px / 2) % round_px - round_px / 2
    off_NV = np.arange(_SHAPE_UV[1]) - np.arange(-3, _SHAPE_UV[1] / texels + 4)[:, None] * texels
    bumps_UN, bumps_NV = (np.exp(-0.5 * (off / texels) ** 2).astype(np.float32) for off in (off_UN, off_NV))
    rough_NN = rng.standard_normal((around, len(off_NV)), np.float32)
    rough_UV: Singles = np.linalg.multi_dot([bumps_UN, rough_NN, bumps_NV])
    return (rough_UV - rough_UV.mean()) / rough_UV.std()


def _moved(light_HWC: Floats, by_px_2: Floats) -> Floats:
    return np.roll(light_HWC, tuple(np.rint(by_px_2).astype(int)), axis=(0, 1))


def _length(vector_3P: Singles) -> Singles:
    length_P: Singles = np.sqrt((vector_3P**2).sum(axis=0))
    return length_P


def _singles(*values: object) -> Singles:
    return np.array(values, np.float32)
