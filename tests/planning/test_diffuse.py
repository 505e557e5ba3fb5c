"""Planning of diffusion: every decision has its reason, a person's word comes first, what cannot be is said in one line."""

import copy
from pathlib import Path
from typing import Any

import pytest

from ukan.errors import DataError, UserError
from ukan.models import model_sizes
from ukan.models.cost import model_cost
from ukan.plan import DiffusePlan, Fingerprint, Plan, of_task
from ukan.planning import diffuse
from ukan.planning.diffuse import PRESETS, SHORTENED, plan_diffuse

GIB = 2**30
FACTS = Fingerprint(
    dataset="bumps",
    layout="busi",
    modality="ultrasound",
    index_sha256="0" * 64,
    cases=500,
    empty=20,
    groups=450,
    groups_with_object=440,
    labels={"benign": 300, "malignant": 180, "normal": 20},
    height=(300, 470, 700),
    width=(320, 560, 900),
    colour=0,
    lesion_share=(0.01, 0.06, 0.3),
    lesion_side_px=(51.0, 126.0, 281.0),
    mask_values={"0": 500, "255": 480},
    mask_rule="nonzero",
    near_duplicates=3,
)
WITHOUT_MASKS = {"mask_values": {}, "lesion_share": (0.0, 0.0, 0.0), "lesion_side_px": (0.0, 0.0, 0.0), "layout": "images"}


def facts(**changes: Any) -> Fingerprint:
    return Fingerprint.model_validate(FACTS.model_dump() | changes)


def make(fingerprint: Fingerprint = FACTS, *, gib: float = 0.05, **given: Any) -> Plan:
    """A plan for a network of so many GiB an image of 64x64."""
    options: dict[str, Any] = {
        "name": "diffusion",
        "empty_cases": ("keep", "they are part of it"),
        "mask_rule_because": "two values each",
        "activation_bytes": lambda name, channels, classes, sizes, size: int(gib * GIB * size[0] * size[1] / 64**2),
        "model_sizes": model_sizes,
    }
    return plan_diffuse(fingerprint, **{**options, **given})


# Pure, and reasoned


@pytest.mark.parametrize("preset", PRESETS)
def test_the_same_facts_give_the_same_plan_and_leave_what_was_given_alone(preset: str) -> None:
    recipe = {"task": "diffuse", "train": {"lr": 5e-4}, "diffuse": {"steps": 20}, "reasons": {"train.lr": "so it says"}}
    settings = {"train.epochs": 7, "diffuse.guidance": 2.0}
    before = copy.deepcopy((recipe, settings))
    one, other = (make(recipe=recipe, settings=settings, preset=preset) for _ in range(2))
    assert one.dump() == other.dump() and (recipe, settings) == before


def test_planning_opens_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("planning opened a file")

    sizes = {name: model_sizes(name) for name in ("diffusion-ukan",)}  # its module is read when it is first asked for
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    make(model_sizes=sizes.__getitem__)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("modality", ["ultrasound", "histology", "radiology", "unknown"])
def test_every_field_has_a_reason_or_its_default_and_none_is_another_tasks(modality: str, preset: str) -> None:
    plan = make(facts(modality=modality, colour=4), preset=preset)
    flat = plan.flat()
    assert plan.reasons.keys() <= flat.keys() and all(of_task(key, "diffuse") for key in flat)
    default = Plan(name="x", task="diffuse", data=plan.data, diffuse=DiffusePlan()).flat()
    without = flat.keys() - plan.reasons.keys() - Plan.DERIVED
    assert all(flat[key] == default[key] for key in without)
    assert {key for key in without if key.startswith("diffuse.")} == {"diffuse.scheduler_options"}
    assert all(len(reason) > 3 for reason in plan.reasons.values())


@pytest.mark.parametrize("model", ["diffusion-ukan", "diffusion-ukan-as-written"])
def test_every_size_of_the_model_is_written_out_with_a_reason(model: str) -> None:
    plan = make(settings={"model.name": model})
    assert plan.model.name == model and plan.model.sizes.keys() == model_sizes(model).keys()
    assert {"model.name", *(f"model.{size}" for size in plan.model.sizes)} <= plan.reasons.keys()


def test_a_plan_comes_back_from_its_file() -> None:
    settings = {"diffuse.condition": "class", "diffuse.scheduler": "ddpm"}
    settings["diffuse.scheduler_options"] = {"variance_type": "fixed_large"}
    make(settings=settings, preset="fast").save(Path("plan.yaml"))
    plan = Plan.load(Path("plan.yaml"))
    assert plan == make(settings=settings, preset="fast")
    assert plan.diffuse and plan.diffuse.scheduler_options == {"variance_type": "fixed_large"}


# What is decided


def test_by_default_the_published_network_learns_the_largest_centred_square() -> None:
    plan = make()
    assert plan.diffuse
    assert (plan.task, plan.model.name, plan.model.sizes["channels"]) == ("diffuse", "diffusion-ukan", 64)
    assert (plan.data.input_size, plan.data.crop, plan.data.random_windows) == ((64, 64), "square", 0)
    assert (plan.diffuse.prediction, plan.diffuse.betas, plan.diffuse.timesteps) == ("epsilon", "linear", 1000)
    assert (plan.diffuse.condition, plan.diffuse.classes, plan.diffuse.snr_gamma) == ("none", (), 5.0)
    assert plan.train.ema_decay and plan.train.lr == plan.train.lr_kan == 2e-4
    assert (plan.split.kind, plan.split.folds) == ("folds", 5), "a part of the images is kept for judging"
    assert plan.protocol == "honest"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_aim_at_so_many_steps_whatever_the_number_of_images(preset: str) -> None:
    effort = PRESETS[preset]
    for cases in (60, 500, 4000):
        plan = make(facts(cases=cases, groups=cases, empty=0), preset=preset)
        images = cases * 4 // 5
        batch = min(32, images)
        assert plan.train.batch_size == batch and plan.data.input_size == (effort.side_px,) * 2
        per_epoch = images // batch
        assert abs(plan.train.epochs * per_epoch - effort.steps) <= per_epoch / 2 or plan.train.epochs == 1
        assert plan.model.sizes["channels"] == effort.channels
        assert plan.train.epochs // plan.train.validate_every <= effort.looks * 2
        assert plan.train.warmup_epochs <= 0.1 * plan.train.epochs


def test_windows_count_as_images_and_all_cases_are_trained_on_if_so_asked() -> None:
    def steps_an_epoch(**settings: Any) -> int:
        plan = make(settings={key.replace("__", "."): value for key, value in settings.items()})
        return round(PRESETS["full"].steps / plan.train.epochs)

    assert steps_an_epoch() == 400 // 32
    assert steps_an_epoch(data__random_windows=5) == pytest.approx(2000 // 32, rel=0.02)
    assert steps_an_epoch(split__kind="all") == pytest.approx(500 // 32, rel=0.02)
    assert make(settings={"split.kind": "all"}).split.count == 1


@pytest.mark.parametrize("modality", ["ultrasound", "histology", "endoscopy", "dermoscopy", "radiology", "unknown"])
def test_only_flips_and_turns_change_an_image_since_all_else_would_be_drawn(modality: str) -> None:
    augment = make(facts(modality=modality, colour=4)).train.augment
    drawn = ("any_flip", "affine", "elastic", "colour", "intensity", "gamma", "noise", "blur")
    assert not any(getattr(augment, name) for name in drawn)
    assert augment.hflip == (0.0 if modality == "radiology" else 0.5), "left is not right where organs have a side"


def test_classes_are_those_of_the_folder_in_order() -> None:
    plan = make(settings={"diffuse.condition": "class"})
    assert plan.diffuse and plan.diffuse.classes == ("benign", "malignant", "normal")


def test_masks_are_drawn_for_where_there_are_any() -> None:
    plan = make(settings={"diffuse.condition": "mask"})
    assert plan.diffuse and plan.diffuse.condition == "mask" and plan.data.classes == ("foreground",)
    assert make(facts(**WITHOUT_MASKS)).diffuse is not None, "without masks images can be learned all the same"


def test_a_small_budget_makes_the_batch_smaller_and_says_so() -> None:
    plan = make(gib=0.5)
    assert plan.train.batch_size == 16 and "8 GiB" in plan.reasons["train.batch_size"]
    assert make(gib=0.5, settings={"budget_gib": 1.0}).train.batch_size == 2
    assert make(facts(cases=20, groups=20, empty=0)).train.batch_size == 16, "no more than there are"


# Who decides


@pytest.mark.parametrize(
    ("key", "recipe", "setting"),
    [
        ("train.lr", 5e-4, 7e-4),
        ("train.epochs", 123, 45),
        ("train.schedule", "gradual_warmup", "cosine_by_epoch"),
        ("train.ema_decay", None, 0.9),
        ("data.input_size", (96, 64), (32, 32)),
        ("data.crop", (400, 400), "none"),
        ("data.random_windows", 5, 2),
        ("split.kind", "all", "published"),
        ("model.channels", 32, 16),
        ("model.middle", "identity", "resblock"),
        ("model.attention", (2,), (2, 4)),
        ("diffuse.prediction", "sample", "v_prediction"),
        ("diffuse.loss", "sum", "mean"),
        ("diffuse.snr_gamma", None, 1.0),
        ("diffuse.scheduler", "DDPM", "UniPC"),
        ("diffuse.scheduler_options", {"variance_type": "fixed_large"}, {}),
        ("diffuse.preview", 4, 8),
    ],
)
def test_a_setting_goes_before_the_recipe_and_the_recipe_before_our_own(key: str, recipe: Any, setting: Any) -> None:
    section, _, leaf = key.rpartition(".")
    content = {"task": "diffuse", section: {leaf: recipe}}
    as_recipe = make(recipe={**content, "reasons": {key: "the paper says so"}})
    as_set = make(recipe=content, settings={key: setting})

    def value(plan: Plan) -> Any:
        found = plan.flat()[key]
        return tuple(found) if isinstance(found, list) else found

    assert (value(as_recipe), value(as_set)) == (recipe, setting) and value(make()) != recipe
    assert as_recipe.reasons[key] == "the paper says so" and "--set" in as_set.reasons[key]
    assert make(recipe=content).reasons[key] == "as the recipe says"


@pytest.mark.parametrize("preset", ["smoke", "fast"])
def test_a_preset_shortens_a_recipe_and_leaves_its_scores_aside(preset: str) -> None:
    recipe = {
        **{"task": "diffuse", "protocol": "paper", "published": {"fid": 1.0}},
        **{"data": {"input_size": [96, 96]}, "model": {"channels": 128}, "train": {"epochs": 5000, "lr": 1e-3}},
    }
    full, short = make(recipe=recipe), make(recipe=recipe, preset=preset)
    assert full.published == {"fid": 1.0} and not short.published and short.protocol == full.protocol == "paper"
    for key in SHORTENED:
        assert short.flat()[key] != full.flat()[key] and short.reasons[key].startswith(f"preset {preset}: ")
    assert short.train.lr == full.train.lr == 1e-3
    assert make(recipe=recipe, preset=preset, settings={"model.channels": 24}).model.sizes["channels"] == 24


# What cannot be


@pytest.mark.parametrize(
    ("fingerprint", "settings", "answer"),
    [
        ({"labels": {"": 500}}, {"diffuse.condition": "class"}, "diffuse.condition=class: the folder tells none of 500"),
        ({"labels": {"benign": 500}}, {"diffuse.condition": "class"}, "tells only benign of 500"),
        ({"labels": {"a": 200, "b": 200, "": 100}}, {"diffuse.condition": "class"}, "only a, b of 500"),
        (WITHOUT_MASKS, {"diffuse.condition": "mask"}, "diffuse.condition=mask: the folder has no masks"),
        ({}, {"data.random_windows": 3, "data.crop": "none"}, "random_windows.*set crop"),
        ({}, {"diffuse.condition": "text"}, "diffuse.condition.*'class'"),
        ({}, {"diffuse.prediction": "noise"}, "diffuse.prediction.*'epsilon'"),
        ({}, {"diffuse.betas": "sigmoid"}, "diffuse.betas"),
        ({}, {"diffuse.steps": 0}, "diffuse.steps"),
        ({}, {"diffuse.guidance": -1}, "diffuse.guidance"),
        ({}, {"diffuse.drop_condition": 1.5}, "diffuse.drop_condition"),
        ({}, {"model.name": "diffusion-ukn"}, "no network of diffusion|no model"),
        ({}, {"budget_gib": 1e-3}, "budget_gib=0.001 does not hold a training step of one image of 64x64"),
        ({}, {"split.folds": 1}, "split.folds"),
    ],
)
def test_what_does_not_go_together_is_answered_in_one_line(fingerprint: dict, settings: dict, answer: str) -> None:
    with pytest.raises(UserError, match=answer) as error:
        make(facts(**fingerprint), settings=settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"data.input_size": [48, 64]}, "multiples of 32, got 48x64; use 64x64"),
        ({"data.input_size": [32, 200]}, "multiples of 32, got 32x200; use 32x192"),
        ({"model.channels": 7}, "channels is an even number"),
        ({"model.middle": "cnn"}, "middle is one of kan"),
        ({"model.attention": [5]}, "attention names levels"),
    ],
)
def test_what_the_network_does_not_take_is_told_when_planning(settings: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError, match=answer) as error:
        make(settings=settings, activation_bytes=lambda *asked: model_cost(*asked).activation_bytes)
    assert "\n" not in str(error.value)


def test_a_folder_of_one_group_is_refused_unless_all_of_it_is_to_be_learned() -> None:
    alone = facts(groups=1, cases=4, empty=0)
    with pytest.raises(DataError, match="group"):
        make(alone)
    assert make(alone, settings={"split.kind": "all"}).split.count == 1


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'smoke'"):
        make(preset="smok")


def test_what_is_said_as_published_is() -> None:
    defaults = {
        key: value for key, (value, why) in {**diffuse._DIFFUSION, **diffuse._TRAINING}.items() if "published" in why
    }
    assert defaults.items() >= {"prediction": "epsilon", "betas": "linear", "timesteps": 1000, "weight_decay": 1e-4}.items()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_number_of_channels_can_be_planned(channels: int) -> None:
    plan = make(facts(channels=channels, colour=4 if channels == 3 else 0))
    assert plan.data.channels == channels


def test_guidance_needs_something_learned_without_the_condition() -> None:
    settings = {"diffuse.condition": "mask", "diffuse.guidance": 2.0}
    assert make(settings=settings).diffuse.guidance == 2.0  # type: ignore[union-attr]
    with pytest.raises(UserError, match="drop_condition"):
        make(settings=settings | {"diffuse.drop_condition": 0.0})
