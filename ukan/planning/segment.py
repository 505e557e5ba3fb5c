"""Every decision of a segmentation plan, each with its reason.

What a person sets comes first, what a recipe says second, and only what both leave open is decided here. A preset other than
full goes before the recipe in the four fields that make it a preset (SHORTENED): it asks whether every step runs, or for a
first impression, and a recipe's length and size would leave it no effect.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ukan.errors import DataError, UserError, nearest
from ukan.plan import Fingerprint, Plan, flatten, unflatten
from ukan.planning.augmentation import choose_augmentation

# (model name, in_channels, num_classes, sizes, input_size) -> bytes that one image leaves in memory for backward
ActivationBytes = Callable[[str, int, int, dict[str, Any], tuple[int, int]], int]
Size = tuple[int, int]  # height and width, in pixels
PresetName = Literal["smoke", "fast", "full"]

STRIDE = 32
SMALLEST_LESION_PX = 8
BATCH = 8
LARGEST_BUDGET_GIB = 1024
WIDTHS = {"S": [64, 96, 128], "base": [128, 160, 256], "L": [256, 320, 512]}  # Table 6 of the U-KAN paper
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


def plan_segment(
    fingerprint: Fingerprint,
    *,
    name: str,
    empty_cases: tuple[str, str],
    mask_rule_because: str,
    activation_bytes: ActivationBytes,
    model_sizes: Callable[[str], dict[str, Any]],
    recipe: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: PresetName = "full",
) -> Plan:
    """The plan for a dataset. `settings` are dotted keys and values (--set); `recipe` is a plan without a dataset.

    Raises UserError for values that are impossible, or do not go together, DataError for a dataset that cannot be split.
    """
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r}: there is none of this name. {nearest(preset, list(PRESETS))}")
    f, effort = fingerprint, PRESETS[preset]
    given, given_because, rules = _given(recipe or {}, settings or {}, preset)
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def decide(key: str, value: Any, because: str) -> Any:
        values[key], reasons[key] = (given[key], given_because[key]) if key in given else (value, because)
        return values[key]

    budget_gib = decide("budget_gib", 8.0, "memory for a training step that common GPUs have")
    if budget_gib > LARGEST_BUDGET_GIB:
        raise UserError(f"budget_gib={budget_gib:g}: no machine has so much; it is the GiB a training step may take")

    # Which cases, what they show, and how their files are read.
    modality = decide("data.modality", f.modality, _modality_because(f))
    empty = decide("data.empty_cases", *empty_cases)
    rule = decide("data.mask_rule", f.mask_rule, mask_rule_because)
    target = decide("data.target", *_target(f, rule))
    label_values = decide("data.label_values", *_label_values(f, rule))
    classes = decide("data.classes", *_classes(f, target, label_values))
    channels = decide("data.channels", *_channels(f))
    decide("data.colour_order", "rgb", "the order of the files")
    decide("data.window", *_window(f))
    decide("data.normalization", *_normalization(channels))
    decide("data.interpolation", "area", "shrinking by averages keeps speckle and thin structures from aliasing")
    decide("data.resize", *_resize(f))
    decide("data.empty_slices", *_empty_slices(f))
    _refuse_contradictions(f, values)

    # Folds.
    kind = decide("split.kind", "folds", "every case is scored once, by a network that never saw its group")
    official_test = decide("split.official_test", "hold_out", _official_test_because(f))
    cases, groups = _taking_part(f, empty, official_test)
    if kind == "published":
        held_out = decide("split.held_out", 0.2, "as published")
        decide("split.seeds", [2981], "the first of the published seeds")
        training_cases = round(cases * (1 - held_out))
    else:
        folds = decide("split.folds", *_folds(f, cases, groups if kind == "folds" else cases, effort))
        decide("split.seeds", [0], "any number will do; it is recorded")
        training_cases = cases * (folds - 1) // folds
    images = training_cases * f.slices

    # The network, its input and the batch: what the pictures ask for, within the budget.
    model = decide("model.name", "ukan", "what this project is about")
    sizes = {key: list(value) if isinstance(value, tuple) else value for key, value in model_sizes(model).items()}

    @cache
    def image_bytes(size: Size, widths: tuple[int, ...]) -> int:
        wide = sizes | ({"widths": list(widths)} if widths else {})
        return activation_bytes(model, channels, len(classes) + (target == "multiclass"), wide, size)

    def fits(size: Size, batch: int, **other: Any) -> bool:
        return image_bytes(size, tuple((sizes | other).get("widths", ()))) * batch <= budget_gib * 2**30

    size, because = _input_size(f, effort)
    size = tuple(given.get("data.input_size", size))
    if sizes.get("widths") == WIDTHS["base"]:
        sizes["widths"] = decide("model.widths", *_widths(preset, images, size, fits))
    for key, value in sizes.items():
        if f"model.{key}" not in values:
            sizes[key] = decide(f"model.{key}", value, _MODEL_REASONS.get(key, "the model's own default"))
    if "data.input_size" not in given and (smaller := _within_budget(f, size, fits)) != size:
        size, because = smaller, f"{because}, made smaller for {budget_gib:g} GiB"
    decide("data.input_size", list(size), because)
    batch = decide("train.batch_size", *_batch_size(size, images, budget_gib, fits))

    # How long, and how fast.
    per_epoch = max(1, images // batch)
    epochs = decide("train.epochs", *_epochs(per_epoch, effort))
    for key in ("lr", "lr_kan"):
        decide(f"train.{key}", *_learning_rate(key, batch))
    for key, (value, why) in _TRAINING.items():
        decide(f"train.{key}", value, why)
    decide("train.warmup_epochs", round(min(5.0, epochs * 0.05), 2), "5 % of the training, at most 5 epochs")
    decide("train.ema_decay", *_ema_decay(epochs * per_epoch))
    looks = f"{effort.prefix}about {effort.looks} looks at the held-out cases, for watching only"
    decide("train.validate_every", max(1, epochs // effort.looks), looks)
    for key, (value, why) in choose_augmentation(modality, channels, size).items():
        decide(f"train.augment.{key}", value, why)
    if channels != 3 and values["train.augment.colour"]:
        raise UserError(f"train.augment.colour: images of {channels} channel(s) have no colour to change; set it to 0")
    decide("infer.threshold", 0.5, "where the loss puts the border; not tuned on anything")
    decide("infer.batch_size", batch, "as in training")

    for key in [key for key in given if key not in values]:  # fields that have defaults and need no decision
        decide(key, given[key], given_because[key])
    content = unflatten(values) | rules
    content["data"] |= {
        "dataset": f.dataset,
        "layout": f.layout,
        "index_sha256": f.index_sha256,
        "grouped_by": f.grouped_by,
    }
    return Plan.parse({"name": name, "preset": preset, **content, "reasons": reasons}, "plan")


_MODEL_REASONS = {
    "kan_layers": "three KAN layers a block, the best of the paper's Table 4",
    "skip": "skips are added, as in the published code",
    "grid_size": "as published",
    "spline_order": "as published; of even knots the fast formula",
    "base_activation": "as published",
    "spline_scaler": "as published",
    "beyond": "as published: beyond the outermost knots the base activation alone",
}

_TRAINING: dict[str, tuple[Any, str]] = {
    "optimizer": ("adamw", "decoupled weight decay"),
    "weight_decay": (1e-2, "usual for AdamW"),
    "schedule": ("cosine", "moves every step"),
    "lr_end": (1e-6, "practically zero"),
    "bce_weight": (0.5, "as published"),
    "dice_weight": (1.0, "as published"),
    "clip_norm": (1.0, "a bound on the step that single hard cases can cause"),
    "precision": ("auto", "bf16 on GPUs that have it, fp32 elsewhere"),
    "channels_last": (True, "tokens and maps are then views of one another"),
    "compile": ("auto", "KAN layers by the compiler where the training is long enough for it to pay"),
    "kan_update_every": (0, "knots stay, as published; inputs come normalised"),
    "kan_update_until": (0.5, "of no effect while knots stay"),
    "kan_update_adaptive": (0.5, "of no effect while knots stay"),
    "kan_penalty": ("coefficients", "of no effect without weights"),
    "kan_l1": (0.0, "as published for U-KAN: weight decay alone"),
    "kan_entropy": (0.0, "as published for U-KAN: weight decay alone"),
    "seed": (0, "any number will do; it is recorded"),
}


# What a person or a recipe says


def _given(
    recipe: Mapping[str, Any], settings: Mapping[str, Any], preset: PresetName
) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """What is not to be decided, by dotted key; why each is so; and what a recipe says of the whole plan."""
    rules = {key: recipe[key] for key in ("protocol", "published", "task") if key in recipe}
    said = flatten({key: value for key, value in recipe.items() if key != "reasons" and key not in rules})
    if preset != "full":
        rules.pop("published", None)  # the scores of another length and size
        said = {key: value for key, value in said.items() if key not in SHORTENED}
    given = {key: _typed(key, value, "recipe") for key, value in said.items()}
    because = {key: recipe.get("reasons", {}).get(key, "as the recipe says") for key in given}
    for key, value in settings.items():
        given[key], because[key] = _typed(key, value, "--set"), "set by hand (--set)"
    return given, because, rules


def _typed(key: str, value: Any, source: str) -> Any:
    """A value as its field's own type. Whether it goes with the others is seen when all are decided."""
    part: Any = Plan
    for name in key.split("."):
        if name not in part.model_fields:  # a size of the model, which the model itself checks
            return value
        field = part.model_fields[name]
        part = field.annotation
    hint: Any = Annotated[field.annotation, field]
    adapter = TypeAdapter(hint)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        messages = dict.fromkeys(row["msg"] for row in error.errors())
        raise UserError(f"{source}: {key}: {'; '.join(messages)}, got {value!r}") from error


def _refuse_contradictions(f: Fingerprint, values: Mapping[str, Any]) -> None:
    """What was set by hand, against the files and against one another: one line that says what to set instead."""
    rule, classes = values["data.mask_rule"], tuple(values["data.classes"])
    if (target := _target(f, rule)[0]) != values["data.target"]:
        raise UserError(f"data.target={values['data.target']}: masks read by the rule {rule!r} make it {target}")
    if rule == "labels" and not values["data.label_values"]:
        raise UserError(
            "data.mask_rule=labels: say which mask value is which class, "
            "for example --set data.label_values=[1,2] --set data.classes=[gland,vessel]"
        )
    if rule == "labels" and len(classes) != len(values["data.label_values"]):
        raise UserError(
            f"data.classes names {len(classes)} classes, data.label_values has {len(values['data.label_values'])} values: "
            "they must be as many, in the same order"
        )
    if rule != "labels" and classes != (known := tuple(_classes(f, target, ())[0])):
        raise UserError(
            f"data.classes={list(classes)}: only the classes of a label map can be renamed; "
            f"here the files name them: {', '.join(known)}"
        )
    of_files = (1, 3) if f.channels in (1, 3) else (f.channels,)
    if values["data.channels"] not in of_files:
        raise UserError(
            f"data.channels={values['data.channels']}: the files have {f.channels}; give {' or '.join(map(str, of_files))}"
        )


# The decisions: each gives the value and why


def _modality_because(f: Fingerprint) -> str:
    if f.modality == "unknown":
        return "nothing tells what these pictures are; augmentation is careful (--set data.modality=... helps it)"
    return f"what the layout {f.layout} holds; augmentation follows it"


def _target(f: Fingerprint, rule: str) -> tuple[str, str]:
    if rule == "labels":
        return "multiclass", "a pixel of a label map has one class at most"
    if f.target == "multilabel":
        return "multilabel", "classes with masks of their own may overlap"
    return "binary", "one class"


def _label_values(f: Fingerprint, rule: str) -> tuple[list[int], str]:
    if rule != "labels":
        return [], "no label map"
    return list(f.label_values), "the values above 0 that masks hold"


def _classes(f: Fingerprint, target: str, label_values: list[int] | tuple[()]) -> tuple[list[str], str]:
    if target == "multiclass":
        names = dict(zip(f.label_values, f.classes, strict=True)) if f.mask_rule == "labels" else {}
        named = [names.get(value, f"label {value}") for value in label_values]
        return named, "one for each label; --set data.classes=[...] names them"
    if target == f.target:
        return list(f.classes), "as the masks are"
    return ["foreground"], "all labels as one"


def _channels(f: Fingerprint) -> tuple[int, str]:
    if f.channels == 3:
        return 3 if f.colour else 1, f"{f.colour} of {f.cases} images have colour"
    return f.channels, "as many as the files have"


def _window(f: Fingerprint) -> tuple[Any, str]:
    if f.deep == 0:
        return "none", "images of 8 bits"
    if f.hounsfield and f.intensity and f.intensity[0] < f.intensity[1]:
        low, high = math.floor(f.intensity[0]), math.ceil(f.intensity[1])
        return [low, high], "Hounsfield units have a meaning: 0.5th to 99.5th percentile inside all masks, as in nnU-Net"
    return "image", "values of more than 8 bits without a common scale: each image's own range"


def _normalization(channels: int) -> tuple[str, str]:
    if channels in (1, 3):
        return "imagenet", "fixed constants: nothing is learned from cases that are later scored"
    return "image", f"{channels} channels, of which ImageNet knows nothing: each image's own"


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


def _official_test_because(f: Fingerprint) -> str:
    if f.test:
        return f"{f.test} official test cases stay outside the folds; `ukan evaluate --test` scores them once"
    return "there is no official test part"


def _taking_part(f: Fingerprint, empty_cases: str, official_test: str) -> tuple[int, int]:
    """Cases, and groups, from which the folds are made. A pooled test part's groups are not known: at least the others."""
    cases = f.cases - (f.test if official_test == "hold_out" else 0) - (f.empty if empty_cases == "drop" else 0)
    return cases, f.groups_with_object if empty_cases == "drop" else f.groups


def _folds(f: Fingerprint, cases: int, groups: int, effort: Preset) -> tuple[int, str]:
    if groups < 2:
        raise DataError(f"{cases} case(s) in {groups} group: nothing could be held out; add cases")
    if groups < effort.folds:
        made = f" ({f.grouped_by})" if f.grouped_by else ""
        return groups, f"only {groups}: there are no more groups{made}, and a group is never on both sides"
    if effort.prefix:
        return effort.folds, f"{effort.prefix}{effort.folds} folds"
    return effort.folds, "usual; each trains on 80 % of the cases"


def _input_size(f: Fingerprint, effort: Preset) -> tuple[Size, str]:
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
    return _shape(f, area), because


def _shape(f: Fingerprint, area: float) -> Size:
    """Multiples of the stride with the median image's shape and about this area."""
    height, width = f.height[1], f.width[1]
    scale = (area / (height * width)) ** 0.5
    sides = [max(2, round(side * scale / STRIDE)) * STRIDE for side in (height, width)]
    return sides[0], sides[1]


def _widths(preset: PresetName, images: int, size: Size, fits: Callable[..., bool]) -> tuple[list[int], str]:
    if preset == "smoke":
        return WIDTHS["S"], "preset smoke: U-KAN-S, the narrowest published"
    if images < FEW_IMAGES:
        return WIDTHS["S"], f"U-KAN-S: {images} training images are few for 6.4 million parameters"
    if not fits(size, BATCH // 2, widths=WIDTHS["base"]):
        return WIDTHS["S"], f"U-KAN-S: the budget does not hold {BATCH // 2} images in the base network"
    if preset == "full" and images >= MANY_IMAGES and fits(size, BATCH, widths=WIDTHS["L"]):
        return WIDTHS["L"], f"U-KAN-L: {images:,} training images and the budget carry four times the computation"
    return WIDTHS["base"], "U-KAN base, the published default"


def _within_budget(f: Fingerprint, size: Size, fits: Callable[..., bool]) -> Size:
    """The input made smaller until half a batch fits, or it cannot shrink further."""
    area = float(size[0] * size[1])
    while not fits(size, BATCH // 2) and size != _shape(f, 1):
        area *= 0.8
        size = _shape(f, area)
    return size


def _batch_size(size: Size, images: int, budget_gib: float, fits: Callable[..., bool]) -> tuple[int, str]:
    batch = BATCH
    while not fits(size, batch):
        if batch == 1:
            raise UserError(
                f"budget_gib={budget_gib:g} does not hold a training step of one image of {size[1]}x{size[0]}; "
                "give more (--budget-gib), or a smaller data.input_size or model"
            )
        batch //= 2
    return min(batch, images), f"as published ({BATCH}), if {budget_gib:g} GiB and {images} training images allow"


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


def _ema_decay(steps: int) -> tuple[float, str]:
    decay = round(max(0.9, min(0.999, 1 - 1 / max(10.0, steps * 0.02))), 4)
    return decay, "an average over the last 2 % of the steps, at most 1000 of them"
