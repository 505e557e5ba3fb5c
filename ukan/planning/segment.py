"""Every decision of a segmentation plan, each with its reason.

What a person sets comes first, what a recipe says second, and only what both leave open is decided here. A preset other than
full goes before the recipe in the four fields that make it a preset (SHORTENED): it asks whether every step runs, or for a
first impression, and a recipe's length and size would leave it no effect.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from ukan.errors import DataError, UserError, nearest
from ukan.plan import Fingerprint, Plan
from ukan.planning.augmentation import choose_augmentation
from ukan.planning.decisions import (
    MODEL_REASONS,
    TRAINING,
    Decisions,
    PresetName,
    Size,
    choose_batch_size,
    choose_ema_decay,
    plain,
)

# (model name, in_channels, num_classes, sizes, input_size) -> bytes that one image leaves in memory for backward
ActivationBytes = Callable[[str, int, int, dict[str, Any], tuple[int, int]], int]

STRIDE = 32  # sides are multiples of it, and of the network's own
SMALLEST_LESION_PX = 8
BATCH = 8
FEW_IMAGES, MANY_IMAGES = 50, 5000  # below the one a narrower network, from the other on a wider one
SHAPES_DIFFER = 2.0


class Preset(NamedTuple):
    area_px: int
    """Of the network's input; pictures are not enlarged to it."""
    largest_area_px: int
    """Where small objects would vanish."""
    steps: int
    """Of the optimiser, for each fold."""
    fewest_epochs: int
    folds: int
    looks: int
    """At the held-out cases, while training."""
    prefix: str
    """What the reasons of its decisions begin with."""


PRESETS: dict[PresetName, Preset] = {
    "smoke": Preset(96 * 96, 96 * 96, 40, 1, 2, 4, "preset smoke: "),
    "fast": Preset(128 * 128, 128 * 128, 4_000, 5, 5, 50, "preset fast: "),
    "full": Preset(256 * 256, 512 * 512, 20_000, 40, 5, 100, ""),
}
SHORTENED = ("data.input_size", "model.widths", "split.folds", "train.epochs")
SET_COST = ("widths", "encoder", "decoder")  # sizes of a network that its FLOPs follow


def plan_segment(
    fingerprint: Fingerprint,
    *,
    name: str,
    empty_cases: tuple[str, str],
    mask_rule_because: str,
    activation_bytes: ActivationBytes,
    model_sizes: Callable[[str], dict[str, Any]],
    named_sizes: Callable[[str], Mapping[str, Mapping[str, Any]]],
    model_stride: Callable[[str], int],
    size_name: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: PresetName = "full",
) -> Plan:
    """The plan for a dataset. `settings` are dotted keys and values (--set); `recipe` is a plan without a dataset; size_name
    is one of the network's named sizes, which then is not chosen by the data, the recipe or the preset.

    Raises UserError for values that are impossible, or do not go together, DataError for a dataset that cannot be split.
    """
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r}: there is none of this name. {nearest(preset, list(PRESETS))}")
    f, effort = fingerprint, PRESETS[preset]
    if not f.mask_values:
        raise DataError(
            f"{f.dataset}: images without masks, from which no segmentation can be learned; give their masks, or learn to "
            "make such images: ukan plan --task diffuse"
        )
    decisions = Decisions(recipe or {}, settings or {}, () if preset == "full" else SHORTENED)
    decide, given, values = decisions.decide, decisions.given, decisions.values
    budget_gib = decisions.budget_gib()

    # Which cases, what they show, and how their files are read.
    modality, channels, outputs = decisions.cases(f, empty_cases, mask_rule_because)
    decide("data.colour_order", "rgb", "the order of the files")
    decide("data.normalization", *_normalization(channels))
    decide("data.resize", *_resize(f))
    decide("data.empty_slices", *_empty_slices(f))
    decide("data.synthetic", None, "real images only")
    decide("data.synthetic_share", 0.5, "of no effect without data.synthetic")

    images = decisions.split(
        f,
        effort.folds,
        effort.prefix,
        folds_because="every case is scored once, by a network that never saw its group",
        test_because="official test cases stay outside the folds; `ukan evaluate --test` scores them once",
    )

    # The network, its input and the batch: what the pictures ask for, within the budget.
    model = decide("model.name", "ukan", "what this project is about")
    sizes, named = plain(model_sizes(model)), {key: plain(value) for key, value in named_sizes(model).items()}
    if size_name is not None:
        for key, value in named_size(named, model, size_name).items():
            sizes[key] = decide(f"model.{key}", value, f"size {size_name} of {model} (--size)")
    sizes |= {key: given[f"model.{key}"] for key in sizes if f"model.{key}" in given}

    @cache
    def image_bytes(size: Size, widths: tuple[int, ...]) -> int:
        wide = sizes | ({"widths": list(widths)} if widths else {})
        return activation_bytes(model, channels, outputs, wide, size)

    def fits(size: Size, batch: int, **other: Any) -> bool:
        return image_bytes(size, tuple((sizes | other).get("widths", ()))) * batch <= budget_gib * 2**30

    stride = math.lcm(STRIDE, model_stride(model))
    size, because = _input_size(f, effort, stride)
    size = tuple(given.get("data.input_size", size))
    if size_name is None and {"S", "base", "L"} <= named.keys() and sizes.items() >= named["base"].items():
        widths = {name: named[name]["widths"] for name in ("S", "base", "L")}
        sizes["widths"] = decide("model.widths", *_widths(widths, preset, images, size, fits))
    matched = named.get("matched", {})
    is_matched = matched.items() <= {key: given.get(f"model.{key}", value) for key, value in sizes.items()}.items()
    for key, value in sizes.items():
        if f"model.{key}" not in values:
            costs = is_matched and key in matched and key in SET_COST
            default = "about the FLOPs of U-KAN base (size matched)" if costs else "the model's own default"
            sizes[key] = decide(f"model.{key}", value, MODEL_REASONS.get(key, default))
    _refuse_unlike_pretraining(model, sizes, values)
    if "data.input_size" not in given and (smaller := _within_budget(f, size, stride, fits)) != size:
        size, because = smaller, f"{because}, made smaller for {budget_gib:g} GiB"
    decide("data.input_size", list(size), because)
    batch = decide("train.batch_size", *choose_batch_size(size, images, budget_gib, BATCH, fits))

    # How long, and how fast.
    per_epoch = max(1, images // batch)
    epochs = decide("train.epochs", *_epochs(per_epoch, effort))
    for key in ("lr", "lr_kan"):
        decide(f"train.{key}", *_learning_rate(key, batch))
    for key, (value, why) in _TRAINING.items():
        decide(f"train.{key}", value, why)
    decide("train.warmup_epochs", round(min(5.0, epochs * 0.05), 2), "5 % of the training, at most 5 epochs")
    decide("train.ema_decay", *choose_ema_decay(epochs * per_epoch))
    looks = f"{effort.prefix}about {effort.looks} looks at the held-out cases, for watching only"
    decide("train.validate_every", max(1, epochs // effort.looks), looks)
    for key, (value, why) in choose_augmentation(modality, channels, size).items():
        decide(f"train.augment.{key}", value, why)
    if channels != 3 and values["train.augment.colour"]:
        raise UserError(f"train.augment.colour: images of {channels} channel(s) have no colour to change; set it to 0")
    decide("infer.threshold", 0.5, "where the loss puts the border; not tuned on anything")
    decide("infer.batch_size", batch, "as in training")

    return decisions.plan(f, name, preset)


_TRAINING: dict[str, tuple[Any, str]] = {
    **TRAINING,
    "weight_decay": (1e-2, "usual for AdamW"),
    "bce_weight": (0.5, "as published"),
    "dice_weight": (1.0, "as published"),
}


# The decisions: each gives the value and why


def _normalization(channels: int) -> tuple[str, str]:
    if channels in (1, 3):
        return "imagenet", "fixed constants: nothing is learned from cases that are later scored"
    return "image", f"{channels} channels, of which ImageNet knows nothing: each image's own"


def _refuse_unlike_pretraining(model: str, sizes: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Published weights know images in RGB order, normalised once; of other channels than 1 or 3 there are no constants."""
    if sizes.get("weights") in (None, "none") or values["data.channels"] not in (1, 3):
        return
    wanted = {"data.normalization": "imagenet", "data.colour_order": "rgb"}
    if unlike := [key for key, value in wanted.items() if values[key] != value]:
        raise UserError(
            f"model.weights={sizes['weights']}: these weights of {model} do not know images of "
            f"{' and '.join(f'{key}={values[key]}' for key in unlike)}; "
            f"{' '.join(f'--set {key}={wanted[key]}' for key in unlike)}, or --set model.weights=none"
        )


def _resize(f: Fingerprint) -> tuple[str, str]:
    """Of the shapes we know a bound: the narrowest image is no wider than (width / height) of the smallest sides, the one of
    largest width no narrower than that of the largest; and so for the highest and the lowest."""
    if f.slices > 1:
        return "letterbox", "a volume's pixels have a shape that means something"
    of_smallest, of_largest = f.width[0] / f.height[0], f.width[2] / f.height[2]
    apart = max(of_smallest, of_largest) / min(of_smallest, of_largest)
    if apart >= SHAPES_DIFFER:
        return "letterbox", f"width to height differs {apart:.1f}-fold between images ({SHAPES_DIFFER:g} is the limit)"
    return (
        "stretch",
        f"images are of similar shape (letterbox from a {SHAPES_DIFFER:g}-fold difference on): no pixel is wasted",
    )


def _empty_slices(f: Fingerprint) -> tuple[str, str]:
    if f.slices > 1:
        return "balance", "most slices of a volume show no object"
    return "keep", "no volumes"


def _input_size(f: Fingerprint, effort: Preset, stride: int) -> tuple[Size, str]:
    """The median image's shape in about the preset's area; more of it where small objects would vanish."""
    height, width = f.height[1], f.width[1]
    area: float = min(height * width, effort.area_px)
    because = f"{effort.prefix}median image {width}x{height} (width x height) in about {math.isqrt(effort.area_px)}^2 pixels"
    smallest = f.lesion_side_px[0] * (area / (height * width)) ** 0.5
    largest = min(height * width, effort.largest_area_px)
    if 0 < smallest < SMALLEST_LESION_PX and area < largest:
        because += f", enlarged: the smallest objects (5th percentile) would be {smallest:.0f} px wide"
        area = min(largest, area * (SMALLEST_LESION_PX / smallest) ** 2)
    elif smallest:
        because += f", the smallest objects (5th percentile) stay {smallest:.0f} px wide"
    return _shape(f, area, stride), because


def _shape(f: Fingerprint, area: float, stride: int) -> Size:
    """Multiples of the stride with the median image's shape and about this area."""
    height, width = f.height[1], f.width[1]
    scale = (area / (height * width)) ** 0.5
    sides = [max(math.ceil(2 * STRIDE / stride), round(side * scale / stride)) * stride for side in (height, width)]
    return sides[0], sides[1]


def named_size(named: Mapping[str, Mapping[str, Any]], model: str, size_name: str) -> Mapping[str, Any]:
    """What one of a network's named sizes sets. Raises UserError where there is none of this name."""
    if not named:
        raise UserError(f"--size {size_name}: {model} has no sizes with names; set its fields: --set model.FIELD=VALUE")
    if size_name not in named:
        raise UserError(f"--size {size_name}: {model} has no size of this name. {nearest(size_name, list(named))}")
    return named[size_name]


def _widths(
    widths: Mapping[str, list[int]], preset: PresetName, images: int, size: Size, fits: Callable[..., bool]
) -> tuple[list[int], str]:
    """Of the published widths S, base and L."""
    if preset == "smoke":
        return widths["S"], "preset smoke: size S, the narrowest"
    if images < FEW_IMAGES:
        return widths["S"], f"size S: {images} training images are few for the millions of parameters of size base"
    if not fits(size, BATCH // 2, widths=widths["base"]):
        return widths["S"], f"size S: the budget does not hold {BATCH // 2} images in the base network"
    if preset == "full" and images >= MANY_IMAGES and fits(size, BATCH, widths=widths["L"]):
        return widths["L"], f"size L: {images:,} training images and the budget carry four times the computation"
    return widths["base"], "size base, the default"


def _within_budget(f: Fingerprint, size: Size, stride: int, fits: Callable[..., bool]) -> Size:
    """The input made smaller until half a batch fits, or it cannot shrink further."""
    area = float(size[0] * size[1])
    while not fits(size, BATCH // 2) and size != _shape(f, 1, stride):
        area *= 0.8
        size = _shape(f, area, stride)
    return size


def _epochs(per_epoch: int, effort: Preset) -> tuple[int, str]:
    epochs = min(1000, max(effort.fewest_epochs, round(effort.steps / per_epoch)))
    span = f"{effort.fewest_epochs} to 1000 epochs"
    return epochs, f"{effort.prefix}about {effort.steps:,} steps of {per_epoch} an epoch, {span}"


def _learning_rate(key: str, batch: int) -> tuple[float, str]:
    """3e-3 was measured at a batch of 8. Below it the rate follows the square root, as for Adam (Malladi et al. 2022)."""
    rate = float(f"{3e-3 * min(1.0, batch / BATCH) ** 0.5:.2g}")
    smaller = f", less for a batch of {batch}" if batch < BATCH else ""
    if key == "lr_kan":
        return rate, "the same for KAN layers: so started, they need no rate of their own"
    return rate, f"thirty times the published rate{smaller}: training starts from scratch, warms up and is clipped"
