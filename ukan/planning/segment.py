"""Every decision of a segmentation plan, each with its reason.

What a person sets comes first, what a recipe says second, and only what both leave open is decided here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ukan.errors import DataError
from ukan.plan import Fingerprint, Plan, flatten, unflatten

# (model name, in_channels, num_classes, sizes, input_size) -> bytes that one image leaves in memory for backward
ActivationBytes = Callable[[str, int, int, dict[str, Any], tuple[int, int]], int]

STRIDE = 32
TYPICAL_AREA = 256 * 256
LARGEST_AREA = 512 * 512
SMALLEST_LESION_PX = 8
TYPICAL_STEPS = 20_000


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
) -> Plan:
    """The plan for a dataset. `settings` are dotted keys and values (--set); `recipe` is a plan without a dataset."""
    recipe = dict(recipe or {})
    recipe_reasons: dict[str, str] = recipe.pop("reasons", {})
    recipe_values = flatten(recipe)
    settings = dict(settings or {})
    recipe_values, settings = _checked(recipe_values, settings)
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def decide(key: str, value: Any, because: str) -> Any:
        if key in settings:
            value, because = settings[key], "set by hand (--set)"
        elif key in recipe_values:
            value, because = recipe_values[key], recipe_reasons.get(key, "as the recipe says")
        values[key], reasons[key] = value, because
        return value

    f = fingerprint
    if f.groups < 2:
        raise DataError(f"{f.cases} case(s) in {f.groups} group: nothing could be held out; add cases")
    budget_gib = decide("budget_gib", 8.0, "memory for a training step that common GPUs have")

    # Which cases, and how their files are read.
    empty = decide("data.empty_cases", *empty_cases)
    cases = f.cases - (f.empty if empty == "drop" else 0)
    decide("data.mask_rule", f.mask_rule, mask_rule_because)
    grey = f.colour == 0
    channels = decide("data.channels", 1 if grey else 3, f"{f.colour} of {f.cases} images have colour")
    decide("data.colour_order", "rgb", "the order of the files")
    decide("data.interpolation", "area", "shrinking by averages keeps speckle and thin structures from aliasing")
    decide("data.normalization", "imagenet", "fixed constants: nothing is learned from cases that are later scored")

    # Folds.
    kind = decide("split.kind", "folds", "every case is scored once, by a network that never saw its group")
    if kind == "folds":
        folds = decide("split.folds", min(5, f.groups), "five, or as many as there are groups")
        decide("split.seeds", [0], "any number will do; it is recorded")
        training_cases = cases * (folds - 1) // folds
    else:
        decide("split.folds", 5, "not used by published splits")
        decide("split.seeds", [2981], "the first of the published seeds")
        training_cases = round(cases * 0.8)

    # The network.
    model = decide("model.name", "ukan", "what this project is about")
    sizes = {
        size: decide(f"model.{size}", _plain(value), _MODEL_REASONS.get(size, "the model's own default"))
        for size, value in model_sizes(model).items()
    }

    # Input size and batch: what the pictures ask for, within the budget.
    def fits(size: tuple[int, int], batch: int) -> bool:
        return activation_bytes(model, channels, 1, sizes, size) * batch <= budget_gib * 2**30

    batch = 8
    size, because = _input_size(f)
    fixed = settings.get("data.input_size") or recipe_values.get("data.input_size")
    if fixed:
        size = (int(fixed[0]), int(fixed[1]))
    else:
        area, wanted = float(size[0] * size[1]), size
        while not fits(size, 4) and size != _shape(f, 1):
            area *= 0.8
            size = _shape(f, area)
        if size != wanted:
            because += f", made smaller for {budget_gib:g} GiB"
    size = tuple(decide("data.input_size", list(size), because))
    while batch > 1 and not fits(size, batch):
        batch //= 2
    batch = min(batch, training_cases)
    batch = decide(
        "train.batch_size", batch, f"as published (8), if {budget_gib:g} GiB and {training_cases} training cases allow"
    )

    # How long, and how fast.
    per_epoch = max(1, training_cases // batch)
    epochs = min(1000, max(40, round(TYPICAL_STEPS / per_epoch)))
    epochs = decide("train.epochs", epochs, f"about {TYPICAL_STEPS:,} steps of {per_epoch} an epoch, 40 to 1000 epochs")
    steps = epochs * per_epoch
    for key, (value, why) in _TRAINING.items():
        decide(f"train.{key}", value, why)
    decide("train.warmup_epochs", round(min(5.0, epochs * 0.05), 2), "5 % of the training, at most 5 epochs")
    decay = round(max(0.9, min(0.999, 1 - 1 / max(10.0, steps * 0.02))), 4)
    decide("train.ema_decay", decay, "an average over the last 2 % of the steps, at most 1000 of them")
    decide("train.validate_every", max(1, epochs // 100), "a hundred looks at the held-out cases, for watching only")
    for key, (value, why) in _AUGMENT.items():
        decide(f"train.augment.{key}", value, why)
    decide("infer.threshold", 0.5, "where the loss puts the border; not tuned on anything")
    decide("infer.batch_size", batch, "as in training")

    content = unflatten(values)
    content |= {key: recipe_values[key] for key in ("protocol", "published") if key in recipe_values}
    content["data"] |= {"dataset": f.dataset, "layout": f.layout, "index_sha256": f.index_sha256}
    rest = {**recipe_values, **settings}  # fields that have defaults and need no decision
    for key, value in rest.items():
        if key not in values and key not in content:
            *parents, leaf = key.split(".")
            place = content
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = value
            reasons[key] = "set by hand (--set)" if key in settings else recipe_reasons.get(key, "as the recipe says")
    return Plan.parse({"name": name, **content, "reasons": reasons}, "plan")


_MODEL_REASONS = {
    "widths": "U-KAN base, the published default",
    "kan_layers": "three KAN layers a block, the best of the paper's Table 4",
    "skip": "skips are added, as in the published code",
}

_TRAINING: dict[str, tuple[Any, str]] = {
    "optimizer": ("adamw", "decoupled weight decay"),
    "lr": (3e-3, "thirty times the published rate: training starts from scratch, warms up and is clipped"),
    "lr_kan": (3e-3, "the same for KAN layers: so started, they need no rate of their own"),
    "weight_decay": (1e-2, "usual for AdamW"),
    "schedule": ("cosine", "moves every step"),
    "lr_end": (1e-6, "practically zero"),
    "bce_weight": (0.5, "as published"),
    "dice_weight": (1.0, "as published"),
    "clip_norm": (1.0, "a bound on the step that single hard cases can cause"),
    "precision": ("auto", "bf16 on GPUs that have it, fp32 elsewhere"),
    "channels_last": (True, "tokens and maps are then views of one another"),
    "seed": (0, "any number will do; it is recorded"),
}

_AUGMENT: dict[str, tuple[Any, str]] = {
    "rot90": (0.0, "images have a top and a bottom"),
    "any_flip": (0.0, "left and right are enough"),
    "hflip": (0.5, "left and right are alike"),
    "vflip": (0.0, "images have a top and a bottom"),
    "affine": (0.5, "zoom, small turns and shifts, as between examinations"),
    "intensity": (0.5, "brightness and contrast differ between devices"),
    "gamma": (0.2, "so do their grey curves"),
    "noise": (0.0, "not needed"),
    "blur": (0.0, "not needed"),
}


def _checked(recipe: dict[str, Any], settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recipe and settings as the plan's own types, before any decision looks at them; refused by field where impossible."""
    content = unflatten({**recipe, **settings})
    content["data"] = {**content.get("data", {}), "dataset": "-", "layout": "-", "index_sha256": "-"}
    flat = Plan.parse({**content, "name": "-"}, "--set" if settings else "recipe").flat()
    return {key: flat[key] for key in recipe}, {key: flat[key] for key in settings}


def _input_size(f: Fingerprint) -> tuple[tuple[int, int], str]:
    """Sides near the median image's, of about 256x256 in area; up to 512x512 where small lesions would vanish."""
    height, width = f.height[1], f.width[1]
    area = min(height * width, TYPICAL_AREA)
    because = f"median image {width}x{height} (width x height)"
    smallest = f.lesion_side_px[0] * (area / (height * width)) ** 0.5
    if 0 < smallest < SMALLEST_LESION_PX and area < height * width:
        area = min(height * width, LARGEST_AREA, area * (SMALLEST_LESION_PX / smallest) ** 2)
        because += f", enlarged: the smallest lesions (5th percentile) would be {smallest:.0f} px wide at 256x256"
    elif smallest:
        because += f", the smallest lesions (5th percentile) stay {smallest:.0f} px wide"
    return _shape(f, area), because


def _shape(f: Fingerprint, area: float) -> tuple[int, int]:
    """Multiples of the stride with the median image's shape and about this area."""
    height, width = f.height[1], f.width[1]
    scale = (area / (height * width)) ** 0.5
    sides = [max(2, round(side * scale / STRIDE)) * STRIDE for side in (height, width)]
    return sides[0], sides[1]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
