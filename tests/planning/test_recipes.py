"""The shipped recipes: each loads, stands in the plan word for word, and is what its paper did."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ukan.errors import UserError
from ukan.models import model_sizes, model_stride, named_sizes
from ukan.plan import AugmentPlan, Fingerprint, Plan, flatten
from ukan.planning.segment import plan_segment
from ukan.stage.recipes import load_recipe, recipes

# What the five papers' recipes share: U-KAN's train.py.
PUBLISHED = {
    "protocol": "paper",
    "data.channels": 3,
    "data.colour_order": "bgr",
    "data.normalization": "published",
    "data.interpolation": "linear",
    "data.resize": "stretch",
    "data.input_size": [256, 256],
    "split.kind": "published",
    "split.held_out": 0.2,
    "split.seeds": [2981, 6142, 1187],
    "model.name": "ukan",
    "model.widths": [128, 160, 256],
    "model.kan_layers": ["kan", "kan", "kan"],
    "model.skip": "add",
    "train.epochs": 400,
    "train.batch_size": 8,
    "train.optimizer": "adam",
    "train.lr": 1e-4,
    "train.lr_kan": 1e-2,
    "train.weight_decay": 1e-4,
    "train.warmup_epochs": 0,
    "train.schedule": "cosine_by_epoch",
    "train.lr_end": 1e-5,
    "train.bce_weight": 0.5,
    "train.dice_weight": 1.0,
    "train.clip_norm": None,
    "train.ema_decay": None,
    "train.precision": "fp32",
    "train.seed": 1029,
    "infer.threshold": 0.5,
}
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "paper/ukan-busi": {"published": {"iou": 63.38, "dice": 76.40}, "data.empty_cases": "drop", "data.mask_rule": "nonzero"},
    "paper/ukan-cvc": {"published": {"iou": 85.05, "dice": 91.88}, "data.empty_cases": "keep"},
    "paper/ukan-glas": {
        "published": {"iou": 87.64, "dice": 93.37},
        "data.input_size": [512, 512],
        "split.official_test": "pool",
    },
    "paper/ukan-isic2017": {"published": {}, "split.seeds": [2981], "split.official_test": "hold_out"},
    "paper/ukan-isic2018": {"published": {}, "split.seeds": [2981], "split.official_test": "hold_out"},
}
# Cases, those of an official test part, the mask rule, and the steps a split takes.
DATASETS: dict[str, tuple[int, int, str, int]] = {
    "paper/ukan-busi": (780, 0, "nonzero", 25_600),
    "paper/ukan-cvc": (612, 0, "half", 24_400),
    "paper/ukan-glas": (165, 80, "instances", 6_400),
    "paper/ukan-isic2017": (2750, 600, "nonzero", 86_000),
    "paper/ukan-isic2018": (3694, 1000, "nonzero", 107_600),
}


def make(name: str, **given: Any) -> Plan:
    """The plan of a recipe for a made fingerprint of its dataset."""
    cases, test, rule, _ = DATASETS[name]
    fingerprint = Fingerprint(
        dataset="made",
        layout="folders",
        modality="histology",
        index_sha256="0" * 64,
        cases=cases,
        test=test,
        empty=133 if name == "paper/ukan-busi" else 0,
        groups=cases - test,
        groups_with_object=cases - test,
        labels={"": cases},
        height=(300, 470, 700),
        width=(320, 560, 1900),
        colour=cases,
        lesion_share=(0.01, 0.06, 0.3),
        lesion_side_px=(10.0, 126.0, 281.0),
        mask_values={"0": cases},
        mask_rule=rule,  # type: ignore[arg-type]
        near_duplicates=0,
    )
    options: dict[str, Any] = {
        "name": "ukan",
        "empty_cases": ("keep", "they are part of it"),
        "mask_rule_because": "as the masks are",
        "activation_bytes": lambda name, channels, classes, sizes, size: 10 * size[0] * size[1],
        "model_sizes": model_sizes,
        "named_sizes": named_sizes,
        "model_stride": model_stride,
        "recipe": load_recipe(name),
    }
    return plan_segment(fingerprint, **{**options, **given})


def test_these_are_the_shipped_recipes() -> None:
    of_ukan = {name for name in recipes() if load_recipe(name)["model"]["name"] == "ukan"}
    assert of_ukan == set(OF_ITS_OWN) == set(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_all_a_recipe_says_is_in_the_plan_with_its_reasons(name: str) -> None:
    recipe, plan = load_recipe(name), make(name)
    said = flatten({key: value for key, value in recipe.items() if key != "reasons"})
    flat = plan.flat()
    assert {key: flat[key] for key in said} == said
    assert recipe["reasons"].keys() <= said.keys() and recipe["reasons"].items() <= plan.reasons.items()
    assert Plan.parse(yaml.safe_load(plan.dump()), name) == plan


@pytest.mark.parametrize("name", DATASETS)
def test_a_recipe_is_what_was_published(name: str) -> None:
    flat = make(name).flat()
    published = PUBLISHED | OF_ITS_OWN[name]
    assert {key: flat[key] for key in published} == published


@pytest.mark.parametrize("name", DATASETS)
def test_a_recipe_leaves_nothing_of_the_experiment_to_the_planner(name: str) -> None:
    plan = make(name)
    said = flatten(load_recipe(name))
    decided = {key for key in plan.reasons if key not in said}
    assert decided <= {
        *("budget_gib", "train.validate_every", "train.channels_last"),  # they change no result
        *("data.modality", "data.mask_rule", "data.target", "data.classes", "data.label_values"),  # the dataset's own
        *("data.window", "data.empty_slices", "split.official_test"),  # without effect on pictures of 8 bits in one part
        *(f"train.augment.{field}" for field in AugmentPlan.model_fields),  # reach of what is off, see the next test
    }


@pytest.mark.parametrize("name", DATASETS)
def test_quarter_turns_and_one_flip_are_all_the_augmentation(name: str) -> None:
    augment = make(name).train.augment
    steps = ("rot90", "hflip", "vflip", "any_flip", "affine", "elastic", "colour", "intensity", "gamma", "noise", "blur")
    flip = "hflip" if "isic" in name else "any_flip"
    assert {step: getattr(augment, step) for step in steps if getattr(augment, step)} == {"rot90": 0.5, flip: 0.5}


@pytest.mark.parametrize("name", DATASETS)
def test_a_recipe_takes_the_steps_its_file_says(name: str) -> None:
    cases, test, _, steps = DATASETS[name]
    plan = make(name)
    cases -= test if plan.split.official_test == "hold_out" else 0
    cases -= 133 if plan.data.empty_cases == "drop" else 0
    held_out = -(-cases * 2 // 10)  # scikit-learn rounds the held-out share up
    assert plan.train.epochs * ((cases - held_out) // plan.train.batch_size) == steps
    assert plan.split.count == (1 if "isic" in name else 3)
    text = recipes()[name].read_text(encoding="utf-8")
    assert f"about {steps:,} steps" in text and f"--recipe {name}" in text


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("preset", ["smoke", "fast"])
def test_a_recipe_can_be_tried_at_a_smaller_size_and_length(name: str, preset: str) -> None:
    plan = make(name, preset=preset)
    assert plan.train.epochs < 400 and max(plan.data.input_size) <= 160 and plan.published == {}
    assert (plan.protocol, plan.train.lr_kan, plan.data.normalization) == ("paper", 1e-2, "published")


# Recipes of one's own


def test_a_mistyped_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'paper/ukan-busi'"):
        load_recipe("paper/ukan-bus")


def test_a_recipe_of_ones_own_is_a_file_and_its_unknown_fields_are_refused() -> None:
    Path("mine.yaml").write_text("train: {epochs: 3}\n")
    assert load_recipe("mine.yaml") == {"train": {"epochs": 3}}
    Path("mine.yaml").write_text("train: {epoch: 3}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: train\.epoch: no such field. Did you mean 'train\.epochs'"):
        load_recipe("mine.yaml")


def test_a_recipe_is_read_like_a_plan() -> None:
    Path("mine.yaml").write_text("train: {lr: 1e-4}\n")
    assert load_recipe("mine.yaml") == {"train": {"lr": 1e-4}}


@pytest.mark.parametrize("text", ["", "words", "- a", "train: ["])
def test_a_file_that_is_no_recipe_is_refused_with_its_path(text: str) -> None:
    Path("mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        load_recipe("mine.yaml")
