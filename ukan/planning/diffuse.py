"""Every decision of a plan of diffusion, each with its reason.

As in `ukan.planning.segment`: what a person sets comes first, what a recipe says second, and the rest is decided here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ukan.errors import UserError, nearest
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
ActivationBytes = Callable[[str, int, int, dict[str, Any], Size], int]

BATCH = 32
FOLDS = 5


class Preset(NamedTuple):
    side_px: int
    channels: int
    """Of the network's first level."""
    steps: int
    looks: int
    """At the held-out images, each with some images drawn."""
    prefix: str


PRESETS: dict[PresetName, Preset] = {
    "smoke": Preset(32, 16, 40, 2, "preset smoke: "),
    "fast": Preset(64, 32, 10_000, 10, "preset fast: "),
    "full": Preset(64, 64, 50_000, 20, ""),
}
SHORTENED = ("data.input_size", "model.channels", "train.epochs")


def plan_diffuse(
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
    """The plan for a dataset; arguments and errors as of `ukan.planning.segment.plan_segment`."""
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r}: there is none of this name. {nearest(preset, list(PRESETS))}")
    f, effort = fingerprint, PRESETS[preset]
    warms_up = bool((recipe or {}).get("train", {}).get("warmup_epochs"))  # a rise as long as the recipe's would not end
    shortened = (*SHORTENED, *(["train.warmup_epochs"] if warms_up else []))
    decisions = Decisions(recipe or {}, settings or {}, () if preset == "full" else shortened)
    decisions.rules["task"] = "diffuse"
    decide = decisions.decide
    budget_gib = decisions.budget_gib()

    # Which images, and what of them.
    modality, channels, _ = decisions.cases(f, empty_cases, mask_rule_because)
    decide("data.crop", "square", "the largest centred square: nothing is stretched, no border is made up")
    decide("data.random_windows", 0, "one window an image")
    images = decisions.split(
        f,
        FOLDS,
        "fold 0 is trained, its held-out part judges; other folds with --fold: ",
        folds_because="a part of the images is held out for judging, no group on both sides",
        test_because="official test cases are neither trained on nor looked at",
    )
    images *= max(1, decisions.values["data.random_windows"])
    condition = decide("diffuse.condition", "none", "images from noise alone")
    classes = _classes(f, condition)
    if classes:
        decisions.values["diffuse.classes"] = classes
    if condition == "mask" and not f.mask_values:
        raise UserError("diffuse.condition=mask: the folder has no masks to draw images for; use none or class")

    # The network and its input.
    model = decide("model.name", "diffusion-ukan", "the published network")
    sizes = plain(model_sizes(model))
    if "channels" in sizes:
        decide("model.channels", effort.channels, f"{effort.prefix}{effort.channels}" if effort.prefix else "as published")
    for key, value in sizes.items():
        if f"model.{key}" not in decisions.values:
            decide(f"model.{key}", value, _MODEL_REASONS.get(key, "the model's own default"))
    sizes = {key: decisions.values[f"model.{key}"] for key in sizes}
    side = effort.side_px
    because = f"{effort.prefix}{side}x{side}" if effort.prefix else f"{side}x{side}, as published"
    size: Size = tuple(decide("data.input_size", [side, side], because))
    image_bytes = activation_bytes(model, channels, len(classes), sizes, size)
    batch = decide(
        "train.batch_size",
        *choose_batch_size(size, images, budget_gib, BATCH, lambda _, batch: image_bytes * batch <= budget_gib * 2**30),
    )

    # What is learned, how long, and how fast.
    if model == "diffusion-ukan-as-written":
        decide("diffuse.prediction", "sample", "its output is of half the side, doubled smoothly: it cannot hold noise")
    for key, (value, why) in _DIFFUSION.items():
        if f"diffuse.{key}" not in decisions.values:
            decide(f"diffuse.{key}", value, why)
    per_epoch = max(1, images // batch)
    epochs = decide("train.epochs", max(1, round(effort.steps / per_epoch)), f"{effort.prefix}about {effort.steps:,} steps")
    for key, (value, why) in _TRAINING.items():
        decide(f"train.{key}", value, why)
    warmup = round(min(500 / per_epoch, epochs * 0.1), 2)
    decide("train.warmup_epochs", warmup, "500 steps, at most a tenth of all: the first errors are large")
    decide("train.ema_decay", *choose_ema_decay(epochs * per_epoch))
    looks = f"{effort.prefix}about {effort.looks} looks, images drawn at each"
    decide("train.validate_every", max(1, epochs // effort.looks), looks)
    for key, (value, why) in choose_augmentation(modality, channels, size).items():
        if key in ("hflip", "vflip", "rot90"):
            decide(f"train.augment.{key}", value, why)
        elif not isinstance(value, tuple) and key in _CHANGES:
            decide(f"train.augment.{key}", 0.0, "off: images drawn would show it")
    decide("infer.batch_size", batch, "as in training")
    return decisions.plan(f, name, preset)


_CHANGES = ("any_flip", "affine", "elastic", "colour", "intensity", "gamma", "noise", "blur")
_MODEL_REASONS = MODEL_REASONS | {
    "multipliers": "as published",
    "blocks": "as published",
    "dropout": "as published",
    "attention": "none, as published for U-KAN; the published baselines have [2, 4]",
    "middle": "the published U-KAN",
}
_DIFFUSION: dict[str, tuple[Any, str]] = {
    "prediction": ("epsilon", "as published"),
    "betas": ("linear", "as published"),
    "timesteps": (1000, "as published"),
    "snr_gamma": (5.0, "the weight of its paper: nearly clean images would otherwise take most of the gradient"),
    "loss": ("mean", "the same whatever the batch and the size of images"),
    "drop_condition": (0.1, "usual; of no effect without a condition"),
    "scheduler": ("DDIM", "the same image of the same seed, in few steps"),
    "steps": (50, "a twentieth of the published 1000"),
    "guidance": (1.0, "the condition as it is; more follows it closer and varies less"),
    "preview": (16, "four rows"),
}
_TRAINING: dict[str, tuple[Any, str]] = {
    **TRAINING,
    "lr": (2e-4, "of DDPM (Ho et al. 2020), and the published code's"),
    "lr_kan": (2e-4, "as published: KAN layers have no rate of their own here"),
    "weight_decay": (1e-4, "as published"),
}


def _classes(f: Fingerprint, condition: str) -> list[str]:
    """The classes of pictures to draw. Raises UserError where the folder tells none."""
    if condition != "class":
        return []
    known = sorted(label for label in f.labels if label)
    if len(known) < 2 or "" in f.labels:
        told = f"only {', '.join(known)}" if known else "none"
        raise UserError(
            f"diffuse.condition=class: the folder tells {told} of {f.cases} pictures' classes; the layout tells them, or "
            "sub-folders do (--layout images)"
        )
    return known
