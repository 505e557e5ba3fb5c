"""KM-UNet's recipes are U-KAN's but for what its repository changed; its set asks one question at a time."""

from typing import Any

import pytest
import yaml

from ukan.models import build_model, model_sizes, model_stride, named_sizes
from ukan.plan import AugmentPlan, Fingerprint, Plan, flatten
from ukan.planning.segment import plan_segment
from ukan.stage.recipes import load_recipe, load_set, recipe_sets, recipes

# Of each dataset: cases that take part, steps of a training at 80/20 and at 7:3, the log's IoU and F1, what limits them.
LOGS: dict[str, tuple[int, int, int, dict[str, float], str]] = {
    "busi": (647, 25_600, 22_400, {"iou": 65.42, "dice": 78.79}, "UKANWithSS2D"),
    "cvc": (612, 24_400, 21_200, {"iou": 85.01, "dice": 91.79}, "UKANWithSS2D"),
    "glas": (165, 6_400, 5_600, {}, "no log of GlaS"),
    "isic2017": (2150, 86_000, 75_200, {"iou": 83.89, "dice": 91.00}, "ends at epoch 138 of 400"),
    "isic2018": (2694, 107_600, 94_000, {"iou": 83.39, "dice": 90.81}, "ends at epoch 275 of 400"),
}
NAMES = [f"paper/km-unet-{dataset}{split}" for dataset in LOGS for split in ("", "-7to3")]
NETWORK = {
    "model.name": "km-unet",
    "model.as_published": True,
    "model.widths": [128, 160, 256],
    "model.kan_layers": ["kan", "kan", "kan"],
    "model.sem": "scan",
    "model.scan_order": "raster",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "km-unet": {},
    "spiral": {"model.scan_order": "spiral"},
    "conv": {"model.sem": "conv"},
    "mlp": {"model.kan_layers": ["mlp"] * 3},
    "wide-mlp": {"model.kan_layers": ["wide-mlp"] * 3},
}


def dataset_of(name: str) -> str:
    return name.removeprefix("paper/km-unet-").removesuffix("-7to3")


def fields(recipe: dict[str, Any]) -> dict[str, Any]:
    return flatten({key: value for key, value in recipe.items() if key not in ("reasons", "published")})


def planned(recipe: dict[str, Any], **given: Any) -> Plan:
    """The plan of a recipe for a made fingerprint."""
    fingerprint = Fingerprint(
        dataset="made",
        layout="folders",
        modality="histology",
        index_sha256="0" * 64,
        cases=700,
        empty=0,
        groups=700,
        groups_with_object=700,
        labels={"": 700},
        height=(300, 470, 700),
        width=(320, 560, 1900),
        colour=700,
        lesion_share=(0.01, 0.06, 0.3),
        lesion_side_px=(10.0, 126.0, 281.0),
        mask_values={"0": 700},
        mask_rule="nonzero",
        near_duplicates=0,
    )
    return plan_segment(
        fingerprint,
        name="km-unet",
        empty_cases=("keep", "they are part of it"),
        mask_rule_because="as the masks are",
        # Networks of convolutions take little room here, of scans much: what follows the room, would differ.
        activation_bytes=lambda name, channels, classes, sizes, size: (
            (200 if sizes["sem"] == "conv" else 20_000) * size[0] * size[1]
        ),
        model_sizes=model_sizes,
        named_sizes=named_sizes,
        model_stride=model_stride,
        recipe=recipe,
        **given,
    )


def test_these_are_the_shipped_recipes_of_km_unet() -> None:
    assert {name for name in recipes() if load_recipe(name)["model"]["name"] == "km-unet"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_u_kans_of_the_dataset_but_for_network_split_and_flip(name: str) -> None:
    of_ukan = {
        key: value for key, value in fields(load_recipe(f"paper/ukan-{dataset_of(name)}")).items() if key != "model.skip"
    }
    changed = NETWORK | {
        "model.scan_backend": "auto",
        "split.held_out": 0.3 if name.endswith("-7to3") else 0.2,
        "split.seeds": [2981],
        "train.augment.any_flip": 0,
        "train.augment.hflip": 0.5,
    }
    assert fields(load_recipe(name)) == of_ukan | changed


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_the_logs_of_the_split_they_were_made_on_and_the_file_says_what_limits_them(name: str) -> None:
    *_, scores, limit = LOGS[dataset_of(name)]
    text = recipes()[name].read_text(encoding="utf-8")
    assert load_recipe(name).get("published", {}) == ({} if name.endswith("-7to3") else scores)
    assert limit in text or not scores and "averages over its five datasets" in text
    assert ("No score to lay beside" in text) == (name.endswith("-7to3") or not scores)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_the_steps_its_file_says(name: str) -> None:
    cases, at_80, at_70, *_ = LOGS[dataset_of(name)]
    tenths, steps = (3, at_70) if name.endswith("-7to3") else (2, at_80)
    train = load_recipe(name)["train"]
    held_out = -(-cases * tenths // 10)  # scikit-learn rounds the held-out share up
    assert train["epochs"] * ((cases - held_out) // train["batch_size"]) == steps
    text = recipes()[name].read_text(encoding="utf-8")
    assert f"about {steps:,} steps" in text and f"--recipe {name}\n" in text and f"paper-{name[6:]}.yaml " in text


@pytest.mark.parametrize("name", NAMES)
def test_all_a_recipe_says_is_in_the_plan_and_nothing_of_the_experiment_is_left_to_the_planner(name: str) -> None:
    recipe, plan = load_recipe(name), planned(load_recipe(name))
    flat, said = plan.flat(), flatten({key: value for key, value in recipe.items() if key != "reasons"})
    assert {key: flat[key] for key in said} == said
    assert recipe["reasons"].keys() <= said.keys() and recipe["reasons"].items() <= plan.reasons.items()
    assert {key for key in plan.reasons if key not in said} <= {
        *("budget_gib", "train.validate_every", "train.channels_last"),  # they change no result
        *("data.modality", "data.mask_rule", "data.target", "data.classes", "data.label_values"),  # the dataset's own
        *("data.window", "data.empty_slices", "split.official_test"),  # without effect on pictures of 8 bits in one part
        *(f"train.augment.{field}" for field in AugmentPlan.model_fields),  # reach of what is off
    }
    assert Plan.parse(yaml.safe_load(plan.dump()), name) == plan


def test_the_network_of_the_recipes_is_what_lives_of_the_published_one() -> None:
    sizes = planned(load_recipe("paper/km-unet-cvc")).model.sizes
    network = build_model("km-unet", 3, 1, sizes)
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_739_009


@pytest.mark.parametrize("preset", ["smoke", "fast"])
def test_a_recipe_can_be_tried_at_a_smaller_size_and_length(preset: Any) -> None:
    plan = planned(load_recipe("paper/km-unet-busi"), preset=preset)
    assert plan.train.epochs < 400 and max(plan.data.input_size) <= 160 and plan.published == {}
    assert plan.model.sizes["as_published"] and plan.protocol == "paper"


# The set of the paper's three questions


def test_the_set_asks_one_question_at_a_time_of_the_network_as_it_is_by_default() -> None:
    variants = load_set("km-unet").variants
    assert {name: dict.fromkeys(variant.changes) for name, variant in variants.items()} == {
        name: dict.fromkeys(changes) for name, changes in VARIANTS.items()
    }
    first = fields(variants["km-unet"].recipe)
    for key, default in model_sizes("km-unet").items():
        if f"model.{key}" in first and key != "widths":
            assert first[f"model.{key}"] == (list(default) if isinstance(default, tuple) else default)
    for name, changes in VARIANTS.items():
        assert fields(variants[name].recipe) == first | changes
        assert variants[name].published == {}, "the paper's scores are of another network and protocol"


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_planned_alike_under_the_honest_protocol_however_much_room_they_take(variant: str) -> None:
    variants = load_set("km-unet").variants
    first, plan = (planned(variants[name].recipe) for name in ("km-unet", variant))
    assert plan.protocol == "honest" and plan.split.kind == "folds" and plan.published == {}
    assert {line.split(":")[0] for line in first.difference(plan)} == VARIANTS[variant].keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_a_network(variant: str) -> None:
    sizes = planned(load_set("km-unet").variants[variant].recipe).model.sizes
    network = build_model("km-unet", 3, 1, sizes | {"widths": [8, 8, 8]})
    kinds = {type(module).__name__ for module in network.modules()}
    assert ("SS2D" in kinds) == (variant != "conv") and ("KANLinear" in kinds) == ("mlp" not in variant)


def test_the_sets_file_says_how_to_run_it_on_one_and_on_several_objects_an_image() -> None:
    text = recipe_sets()["km-unet"].read_text(encoding="utf-8")
    assert "ukan ablate data_raw/Dataset_BUSI_with_GT km-unet\n" in text and "ukan ablate data_raw/GlaS km-unet " in text
