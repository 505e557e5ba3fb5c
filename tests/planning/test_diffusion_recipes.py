"""The recipes of Diffusion U-KAN: what its code did, what its text says, with the published scores beside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ukan.errors import UserError
from ukan.models import model_sizes
from ukan.plan import AugmentPlan, Fingerprint, Plan, flatten
from ukan.planning.diffuse import plan_diffuse
from ukan.stage.prepare import plan_folder
from ukan.stage.recipes import load_recipe, load_set, recipes
from ukan.training.optim import learning_rate

# Table 3: FID and Inception score. Cases, those of an official test part, and without an object.
DATASETS: dict[str, tuple[dict[str, float], int, int, int]] = {
    "busi": ({"fid": 101.93, "inception_score": 2.76}, 780, 0, 133),
    "cvc": ({"fid": 46.34, "inception_score": 2.75}, 612, 0, 0),
    "glas": ({"fid": 41.55, "inception_score": 2.46}, 165, 80, 0),
}
CODE, TEXT = ([f"paper/diffusion-{key}{end}" for key in DATASETS] for end in ("", "-as-written"))
SHARED = {
    "task": "diffuse",
    "protocol": "paper",
    "data.channels": 3,
    "data.input_size": [64, 64],
    "split.kind": "all",
    "train.batch_size": 32,
    "train.ema_decay": None,
    "train.precision": "fp32",
    "diffuse.prediction": "epsilon",
    "diffuse.betas": "linear",
    "diffuse.timesteps": 1000,
    "diffuse.snr_gamma": None,
    "diffuse.condition": "none",
    "diffuse.scheduler": "DDPM",
    "diffuse.steps": 1000,
    "diffuse.scheduler_options": {"variance_type": "fixed_large", "clip_sample": False},
    "diffuse.guidance": 1,
}
OF_THE_CODE = {
    "model.name": "diffusion-ukan",
    "model.channels": 64,
    "model.multipliers": [1, 2, 3, 4],
    "model.blocks": 2,
    "model.dropout": 0.15,
    "model.attention": [],
    "model.middle": "kan",
    "train.optimizer": "adamw",
    "train.lr": 4e-4,
    "train.lr_kan": 4e-4,
    "train.weight_decay": 1e-4,
    "train.schedule": "gradual_warmup",
    "train.clip_norm": 1.0,
    "diffuse.loss": "sum",
}
OF_THE_TEXT = {
    "model.name": "diffusion-ukan-as-written",
    "model.kan_layers": ["kan", "kan", "kan"],
    "model.skip": "cat",
    "data.crop": "square",
    "data.random_windows": 0,
    "train.epochs": 1000,
    "train.optimizer": "adam",
    "train.lr": 1e-4,
    "train.lr_kan": 1e-4,
    "train.schedule": "cosine_by_epoch",
    "train.lr_end": 1e-5,
    "train.clip_norm": None,
    "diffuse.loss": "mean",
}
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "paper/diffusion-busi": {"data.crop": [400, 400], "data.random_windows": 0, "train.epochs": 5000},
    "paper/diffusion-cvc": {"data.crop": [288, 288], "data.random_windows": 0, "train.epochs": 1000},
    "paper/diffusion-glas": {"data.crop": [64, 64], "data.random_windows": 5, "train.epochs": 1000},
}
# The published code's rate after so many epochs of 1000 (golden.json, diffusion_lr_trace_x1e-4).
TRACE = {0: 2.0e-4, 1: 2.02e-4, 50: 3.0e-4, 100: 4.0e-4, 150: 3.9764e-4, 550: 2.3191e-4, 800: 0.8295e-4}


def dataset(name: str) -> tuple[dict[str, float], int, int, int]:
    return DATASETS[name.removeprefix("paper/diffusion-").removesuffix("-as-written")]


def make(name: str, **given: Any) -> Plan:
    """The plan of a recipe for a made fingerprint of its dataset."""
    _, cases, test, empty = dataset(name)
    fingerprint = Fingerprint(
        dataset="made",
        layout="folders",
        modality="histology",  # whose own augmentation would be another
        index_sha256="0" * 64,
        cases=cases,
        test=test,
        empty=empty,
        groups=cases - test,
        groups_with_object=cases - test,
        labels={"": cases},
        height=(300, 470, 700),
        width=(320, 560, 1900),
        colour=0,
        lesion_share=(0.01, 0.06, 0.3),
        lesion_side_px=(10.0, 126.0, 281.0),
        mask_values={"0": cases},
        mask_rule="nonzero",
        near_duplicates=0,
    )
    options: dict[str, Any] = {
        "name": "made",
        "empty_cases": ("keep", "they are part of it"),
        "mask_rule_because": "as the masks are",
        "activation_bytes": lambda name, channels, classes, sizes, size: 10 * size[0] * size[1],
        "model_sizes": model_sizes,
        "recipe": load_recipe(name),
    }
    return plan_diffuse(fingerprint, **{**options, **given})


def test_these_are_the_shipped_recipes_of_diffusion() -> None:
    assert {name for name in recipes() if load_recipe(name).get("task") == "diffuse"} == {*CODE, *TEXT}


@pytest.mark.parametrize("name", [*CODE, *TEXT])
def test_all_a_recipe_says_is_in_the_plan_with_its_reasons(name: str) -> None:
    recipe, plan = load_recipe(name), make(name)
    said = flatten({key: value for key, value in recipe.items() if key != "reasons"})
    flat = plan.flat()
    assert {key: flat[key] for key in said} == said
    assert recipe["reasons"].keys() <= said.keys() and recipe["reasons"].items() <= plan.reasons.items()
    assert Plan.parse(yaml.safe_load(plan.dump()), name) == plan


@pytest.mark.parametrize("name", [*CODE, *TEXT])
def test_a_recipe_is_what_was_published(name: str) -> None:
    flat = make(name).flat()
    expected = SHARED | (OF_THE_CODE | OF_ITS_OWN[name] if name in CODE else OF_THE_TEXT)
    expected |= {"published": dataset(name)[0], "train.warmup_epochs": flat["train.epochs"] / 10 if name in CODE else 0}
    expected |= {"data.empty_cases": "drop"} if "busi" in name else {"data.empty_cases": "keep"}
    expected |= {"split.official_test": "pool"} if "glas" in name else {}
    assert {key: flat[key] for key in expected} == expected


@pytest.mark.parametrize("name", [*CODE, *TEXT])
def test_two_flips_are_all_the_augmentation(name: str) -> None:
    augment = make(name).train.augment
    steps = ("rot90", "hflip", "vflip", "any_flip", "affine", "elastic", "colour", "intensity", "gamma", "noise", "blur")
    assert {step: getattr(augment, step) for step in steps if getattr(augment, step)} == {"hflip": 0.5, "vflip": 0.5}


@pytest.mark.parametrize("name", [*CODE, *TEXT])
def test_a_recipe_leaves_nothing_of_the_experiment_to_the_planner(name: str) -> None:
    decided = make(name).reasons.keys() - flatten(load_recipe(name)).keys()
    assert decided <= {
        *("budget_gib", "train.validate_every", "train.channels_last"),  # they change no result
        *("data.modality", "data.mask_rule", "data.target", "data.classes", "data.label_values"),  # the dataset's own
        *("data.window", "split.official_test"),  # without effect on pictures of 8 bits in one part
        *(f"train.augment.{field}" for field in AugmentPlan.model_fields),  # reach of what is off
    }


@pytest.mark.parametrize("epoch", TRACE)
def test_learning_rates_are_those_of_the_published_code(epoch: int) -> None:
    train = make("paper/diffusion-cvc").train
    for step in (epoch * 19, epoch * 19 + 18):  # they move by epoch
        assert learning_rate(train.lr, step, 19, train) == pytest.approx(TRACE[epoch], rel=1e-4)


def test_busi_s_five_times_as_many_epochs_have_the_same_shape() -> None:
    train = make("paper/diffusion-busi").train
    for epoch, rate in {0: 2.0e-4, 250: 3.0e-4, 500: 4.0e-4}.items():
        assert learning_rate(train.lr, epoch, 1, train) == pytest.approx(rate)
    assert 0 < learning_rate(train.lr, 4999, 1, train) < 1.1e-5


@pytest.mark.parametrize("name", [*CODE, *TEXT])
def test_a_recipe_takes_the_steps_its_file_says(name: str) -> None:
    _, cases, _, empty = dataset(name)
    plan = make(name)
    cases -= empty if plan.data.empty_cases == "drop" else 0
    steps = plan.train.epochs * (cases * max(1, plan.data.random_windows) // plan.train.batch_size)
    text = recipes()[name].read_text(encoding="utf-8")
    assert f"about {steps:,} steps" in text and f"--recipe {name}\n" in text
    assert all(f"{value:.2f}" in text for value in plan.published.values())
    assert plan.split.count == 1


@pytest.mark.parametrize("name", CODE)
def test_the_published_baselines_are_the_recipe_with_another_middle(name: str) -> None:
    text = recipes()[name].read_text(encoding="utf-8")
    for middle, attention in {"resblock": [2, 4], "identity": [2], "mlp": []}.items():
        said = f"--set model.middle={middle}" + (
            f" --set model.attention={attention}".replace(", ", ",") if attention else ""
        )
        assert f"{said}\n" in text
        changed = make(name, settings={"model.middle": middle, "model.attention": attention})
        others = {"model.middle", "model.attention"}
        assert {line.partition(":")[0] for line in make(name).difference(changed)} <= others


@pytest.mark.parametrize("name", [*CODE, *TEXT])
@pytest.mark.parametrize(("preset", "steps"), [("smoke", 40), ("fast", 10_000)])
def test_a_recipe_can_be_tried_at_another_length(name: str, preset: str, steps: int) -> None:
    plan, recipe = make(name, preset=preset), load_recipe(name)
    _, cases, _, empty = dataset(name)
    per_epoch = (cases - (empty if "busi" in name else 0)) * max(1, plan.data.random_windows) // 32
    assert plan.train.epochs == max(1, round(steps / per_epoch))
    assert plan.published == {} and plan.protocol == "paper"
    assert bool(plan.train.warmup_epochs) == bool(recipe["train"]["warmup_epochs"])
    assert plan.train.warmup_epochs <= plan.train.epochs / 10  # or the rate would never have risen
    assert plan.diffuse and plan.diffuse.loss == recipe["diffuse"]["loss"]


def test_a_recipe_tells_its_task_to_the_planner(write_dataset: Callable[..., Path]) -> None:
    folder = write_dataset(Path("made"), 34)
    plan, path, _ = plan_folder(folder, recipe="paper/diffusion-glas", preset="smoke")
    assert path == Path("plans/made/paper-diffusion-glas.yaml") and plan.task == "diffuse"
    assert plan.recipe == "paper/diffusion-glas" and plan.split.count == 1
    with pytest.raises(UserError, match="leave one of them out"):
        plan_folder(folder, recipe="paper/diffusion-glas", task="segment")


def test_unknown_fields_of_a_recipe_of_diffusion_are_refused() -> None:
    Path("mine.yaml").write_text("task: diffuse\ndiffuse: {step: 3}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: diffuse\.step: no such field. Did you mean 'diffuse\.steps'"):
        load_recipe("mine.yaml")
    Path("mine.yaml").write_text("task: diffuse\ntrain: {dice_weight: 1}\n")
    with pytest.raises(UserError, match=r"train\.dice_weight: no such field"):
        load_recipe("mine.yaml")


def test_sets_of_recipes_are_of_segmentation() -> None:
    Path("middles.yaml").write_text("recipe: paper/diffusion-busi\nvariants:\n  kan: {}\n  mlp: {model: {middle: mlp}}\n")
    with pytest.raises(UserError, match=r"middles\.yaml: paper/diffusion-busi is of the task diffuse") as refused:
        load_set("middles.yaml")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="no such set of recipes"):
        load_set("paper/diffusion-busi")
