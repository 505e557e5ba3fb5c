"""Planning: the same facts give the same plan, every decision has its reason, a person's word comes first."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ukan.errors import UserError
from ukan.plan import Fingerprint, Plan, flatten
from ukan.planning.segment import plan_segment
from ukan.segment.prepare import load_recipe, recipes

GIB = 2**30

BUSI_LIKE = Fingerprint(
    dataset="bumps",
    layout="folders",
    index_sha256="0" * 64,
    cases=500,
    empty=20,
    groups=450,
    labels={"": 500},
    height=(300, 470, 700),
    width=(320, 560, 900),
    colour=0,
    lesion_share=(0.01, 0.06, 0.3),
    lesion_side_px=(51.0, 126.0, 281.0),
    mask_values={"0": 500, "255": 480},
    mask_rule="nonzero",
    near_duplicates=3,
)
AUGMENT_LIMITS = {"scale", "rotate_deg", "shift", "brightness", "contrast"}
SIZES = {"widths": (128, 160, 256), "depth": 4}


def bytes_of(gib_at_256: float = 0.25) -> Any:
    """A network whose activations are so many GiB for an image of 256x256, and proportional to the area."""
    return lambda name, channels, classes, sizes, size: int(gib_at_256 * GIB * size[0] * size[1] / 256**2)


def make(fingerprint: Fingerprint = BUSI_LIKE, *, gib_at_256: float = 0.25, **given: Any) -> Plan:
    options: dict[str, Any] = {
        "name": "ukan",
        "empty_cases": ("keep", "they are part of it"),
        "mask_rule_because": "two values each",
        "activation_bytes": bytes_of(gib_at_256),
        "model_sizes": lambda name: SIZES,
    }
    return plan_segment(fingerprint, **{**options, **given})


def facts(**changes: Any) -> Fingerprint:
    return BUSI_LIKE.model_copy(update=changes)


# Pure, and reasoned


def test_the_same_facts_give_the_same_plan_and_leave_what_was_given_alone() -> None:
    recipe = {"train": {"lr": 5e-4}, "reasons": {"train.lr": "so it says"}}
    settings = {"train.epochs": 7}
    before = copy.deepcopy((recipe, settings))
    one, other = make(recipe=recipe, settings=settings), make(recipe=recipe, settings=settings)
    assert one.dump() == other.dump() and (recipe, settings) == before


def test_planning_opens_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("planning opened a file")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    make()


def test_every_decided_field_has_a_reason_and_the_others_are_defaults() -> None:
    plan = make()
    flat = plan.flat()
    default = Plan(name="x", data=plan.data).flat()
    assert plan.reasons.keys() <= flat.keys()
    without = flat.keys() - plan.reasons.keys() - Plan.DERIVED
    assert all(flat[key] == default[key] for key in without)
    # ... and those are only how far an augmentation reaches, not whether it happens.
    assert without <= {f"train.augment.{limit}" for limit in AUGMENT_LIMITS}
    assert all(len(reason) > 3 for reason in plan.reasons.values())


def test_every_size_of_the_model_is_written_out_with_a_reason() -> None:
    plan = make()
    assert plan.model.sizes == {"widths": [128, 160, 256], "depth": 4}
    assert {"model.name", "model.widths", "model.depth"} <= plan.reasons.keys()


def test_a_plan_comes_back_from_its_file() -> None:
    make(settings={"train.lr": 2e-4}).save(Path("plan.yaml"))
    assert Plan.load(Path("plan.yaml")) == make(settings={"train.lr": 2e-4})


# Who decides


@pytest.mark.parametrize(
    ("key", "recipe", "setting"),
    [
        ("train.lr", 5e-4, 7e-4),
        ("train.epochs", 123, 45),
        ("train.batch_size", 6, 3),
        ("data.input_size", (160, 192), (64, 96)),
        ("data.channels", 3, 1),
        ("data.empty_cases", "drop", "keep"),
        ("split.folds", 4, 3),
        ("split.seeds", (7,), (8,)),
        ("model.depth", 6, 2),
        ("train.augment.hflip", 0.1, 0.2),
        ("train.augment.rotate_deg", 5.0, 90.0),  # a field that is not decided
        ("train.ema_decay", None, 0.9),
        ("infer.threshold", 0.4, 0.6),
        ("budget_gib", 4.0, 2.0),
    ],
)
def test_a_setting_goes_before_the_recipe_and_the_recipe_before_our_own(key: str, recipe: Any, setting: Any) -> None:
    section, _, leaf = key.rpartition(".")
    content: dict[str, Any] = {leaf: recipe}
    for name in filter(None, reversed(section.split("."))):
        content = {name: content}
    own = make()
    as_recipe = make(recipe={**content, "reasons": {key: "the paper says so"}})
    as_set = make(recipe=content, settings={key: setting})

    def value(plan: Plan) -> Any:
        found = plan.flat()[key]
        return tuple(found) if isinstance(found, list) else found

    assert (value(as_recipe), value(as_set)) == (recipe, setting) and value(own) != recipe
    assert as_recipe.reasons[key] == "the paper says so" and "--set" in as_set.reasons[key]
    assert make(recipe=content).reasons[key] == "as the recipe says"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.input_size", 256),
        ("data.input_size", "256x256"),
        ("data.input_size", [256]),
        ("data.input_size", ["a", "b"]),
        ("data.input_size", [0, 0]),
        ("split.folds", 0),
        ("split.folds", 1),
        ("split.folds", "five"),
        ("split.kind", "random"),
        ("train.batch_size", 0),
        ("train.batch_size", "all"),
        ("train.epochs", 0),
        ("train.epochs", "many"),
        ("budget_gib", "8GB"),
        ("budget_gib", 0),
        ("data.empty_cases", "maybe"),
        ("train.lr", "fast"),
        ("train.lr", "1.2.3e4"),
        ("train.augment.hflip", 2),
    ],
)
def test_an_impossible_setting_is_answered_with_its_field_and_value(key: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        make(settings={key: value})
    assert key.rpartition(".")[2] in str(error.value)


# The decisions


def test_grey_folders_have_one_channel_and_coloured_ones_three() -> None:
    assert make().data.channels == 1 and make(facts(colour=1)).data.channels == 3
    assert make(facts(colour=12)).reasons["data.channels"].startswith("12 of 500")


def test_what_the_folder_says_is_taken_with_its_reason() -> None:
    plan = make(facts(mask_rule="half"), empty_cases=("drop", "the tables are made so"), mask_rule_because="greys")
    assert (plan.data.mask_rule, plan.reasons["data.mask_rule"]) == ("half", "greys")
    assert (plan.data.empty_cases, plan.reasons["data.empty_cases"]) == ("drop", "the tables are made so")
    assert (plan.data.dataset, plan.data.layout, plan.data.index_sha256) == ("bumps", "folders", "0" * 64)


@pytest.mark.parametrize(("groups", "folds"), [(450, 5), (5, 5), (3, 3), (2, 2)])
def test_there_are_no_more_folds_than_groups(groups: int, folds: int) -> None:
    assert make(facts(groups=groups)).split.folds == folds


def test_a_folder_of_one_group_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="group"):
        make(facts(groups=1, cases=1, empty=0))


@pytest.mark.parametrize(("height", "width"), [(470, 560), (1000, 1000), (288, 384), (100, 120), (600, 200), (40, 40)])
def test_the_input_has_the_median_images_shape_about_256x256_in_multiples_of_32(height: int, width: int) -> None:
    plan = make(facts(height=(height,) * 3, width=(width,) * 3))
    size = plan.data.input_size
    assert all(side % 32 == 0 and side >= 64 for side in size)
    assert size[0] * size[1] <= 1.3 * 256**2
    if min(height, width) > 96:
        assert (size[0] / size[1]) / (height / width) == pytest.approx(1, rel=0.25)
        assert size[0] * size[1] == pytest.approx(min(height * width, 256**2), rel=0.25)
    assert f"{width}x{height}" in plan.reasons["data.input_size"]


def test_small_lesions_enlarge_the_input_up_to_512x512_and_never_beyond_the_images() -> None:
    def area(smallest: float, side: int = 1000) -> int:
        f = facts(height=(side,) * 3, width=(side,) * 3, lesion_side_px=(smallest, 60.0, 300.0))
        height, width = make(f, gib_at_256=0.01).data.input_size
        return height * width

    assert area(100) == 256**2
    assert area(32) == 256**2  # 8 px at 256x256
    assert 256**2 < area(20) < 512**2
    assert area(10) == area(1) == 512**2
    assert area(1, side=256) == 256**2
    reason = make(facts(lesion_side_px=(9.0, 60.0, 300.0))).reasons["data.input_size"]
    assert "enlarged" in reason and re.search(r"would be 4 px wide", reason)


def test_a_small_budget_shrinks_the_batch_and_then_the_input() -> None:
    def plan(budget: float) -> tuple[int, tuple[int, int]]:
        made = make(facts(height=(512,) * 3, width=(512,) * 3), gib_at_256=1.0, settings={"budget_gib": budget})
        return made.train.batch_size, made.data.input_size

    assert plan(8) == (8, (256, 256))
    assert plan(7.9) == (4, (256, 256))
    assert plan(4) == (4, (256, 256))
    batch, size = plan(3.9)
    assert batch == 4 and 192 <= size[0] < 256
    batch, size = plan(1.5)
    assert batch == 4 and 4 * size[0] * size[1] / 256**2 <= 1.5
    reason = make(gib_at_256=1.0, settings={"budget_gib": 2.0}).reasons["data.input_size"]
    assert "made smaller for 2 GiB" in reason


@pytest.mark.parametrize(("height", "width"), [(512, 512), (470, 560), (300, 700), (700, 300), (130, 130)])
@pytest.mark.parametrize("budget", [3.0, 1.0, 0.3, 0.1, 0.01, 1e-6])
def test_planning_ends_with_something_however_small_the_budget(height: int, width: int, budget: float) -> None:
    asked = 0

    def activation_bytes(name: str, channels: int, classes: int, sizes: dict, size: tuple[int, int]) -> int:
        nonlocal asked
        asked += 1
        assert asked < 200, f"planning goes round in circles at {size}"
        return bytes_of(1.0)(name, channels, classes, sizes, size)

    f = facts(height=(height,) * 3, width=(width,) * 3)
    plan = make(f, activation_bytes=activation_bytes, settings={"budget_gib": budget})
    size = plan.data.input_size
    needed = plan.train.batch_size * size[0] * size[1] / 256**2
    assert needed <= budget or (plan.train.batch_size == 1 and min(size) == 64)


def test_a_size_that_is_set_is_kept_and_only_the_batch_shrinks() -> None:
    settings = {"data.input_size": [512, 512], "budget_gib": 8.0}
    plan = make(gib_at_256=1.0, settings=settings)
    assert plan.data.input_size == (512, 512) and plan.train.batch_size == 2


def test_a_batch_has_no_more_images_than_a_fold_trains_on() -> None:
    assert make(facts(cases=6, empty=0, groups=3)).train.batch_size == 4
    assert make(facts(cases=10, empty=4, groups=10), empty_cases=("drop", "so")).train.batch_size == 4


def test_epochs_make_about_20000_steps_between_40_and_1000_epochs() -> None:
    plan = make()
    assert plan.train.epochs * (400 // 8) == pytest.approx(20_000, rel=0.02)
    assert make(facts(cases=10)).train.epochs == 1000
    assert make(facts(cases=100_000)).train.epochs == 40


# Recipes


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads_and_all_it_says_is_in_the_plan(name: str) -> None:
    recipe = load_recipe(name)
    plan = make(recipe=recipe, model_sizes=lambda model: {"widths": (1,), "kan_layers": ("kan",), "skip": "add"})
    said = flatten({key: value for key, value in recipe.items() if key != "reasons"})
    flat = plan.flat()
    assert {key: flat[key] for key in said} == said
    assert recipe.get("reasons", {}).items() <= plan.reasons.items()
    assert Plan.parse(yaml.safe_load(plan.dump()), name) == plan


def test_the_recipe_of_the_ukan_paper_is_what_was_published() -> None:
    plan = make(recipe=load_recipe("paper/ukan-busi"), model_sizes=lambda model: {"widths": (1,)})
    flat = plan.flat()
    published = {
        "protocol": "paper",
        "published": {"iou": 63.38, "dice": 76.40},
        "data.empty_cases": "drop",
        "data.channels": 3,
        "data.colour_order": "bgr",
        "data.normalization": "published",
        "data.interpolation": "linear",
        "data.input_size": [256, 256],
        "split.kind": "published",
        "split.seeds": [2981, 6142, 1187],
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
    assert {key: flat[key] for key in published} == published
    on = {key for key, value in plan.train.augment.model_dump().items() if value and key not in AUGMENT_LIMITS}
    assert on == {"rot90", "any_flip"} and plan.train.augment.rot90 == plan.train.augment.any_flip == 0.5
    assert plan.split.count == 3


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
