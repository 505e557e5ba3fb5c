"""Planning: the same facts give the same plan, every decision has its reason, a person's word comes first."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from ukan.errors import DataError, UserError
from ukan.models.ukan import UKAN
from ukan.models.ukan import WIDTHS as PUBLISHED
from ukan.plan import Fingerprint, Plan
from ukan.planning import segment
from ukan.planning.segment import SHORTENED, plan_segment

GIB = 2**30

BUSI_LIKE = Fingerprint(
    dataset="bumps",
    layout="folders",
    modality="ultrasound",
    index_sha256="0" * 64,
    cases=500,
    empty=20,
    groups=450,
    groups_with_object=440,
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
ORGANS = {"mask_rule": "labels", "target": "multiclass", "classes": ("1", "2", "4"), "label_values": (1, 2, 4)}
WIDTHS = {name: list(widths) for name, widths in PUBLISHED.items()}
SIZES = {"widths": (128, 160, 256), "kan_layers": ("kan", "kan", "kan"), "skip": "add"}


def bytes_of(gib_at_256: float = 0.25) -> Any:
    """A network whose activations are so many GiB for an image of 256x256, and proportional to area and first width."""
    return lambda name, channels, classes, sizes, size: int(
        gib_at_256 * GIB * size[0] * size[1] / 256**2 * sizes.get("widths", [128])[0] / 128
    )


def make(fingerprint: Fingerprint = BUSI_LIKE, *, gib_at_256: float = 0.25, **given: Any) -> Plan:
    options: dict[str, Any] = {
        "name": "ukan",
        "empty_cases": ("keep", "they are part of it"),
        "mask_rule_because": "two values each",
        "activation_bytes": bytes_of(gib_at_256),
        "model_sizes": lambda name: SIZES,
        "named_sizes": lambda name: UKAN.named_sizes,
        "model_stride": lambda name: 32,
    }
    return plan_segment(fingerprint, **{**options, **given})


def facts(**changes: Any) -> Fingerprint:
    return Fingerprint.model_validate(BUSI_LIKE.model_dump() | changes)


def set_to(**settings: Any) -> dict[str, Any]:
    return {"settings": {key.replace("__", "."): value for key, value in settings.items()}}


# Pure, and reasoned


@pytest.mark.parametrize("preset", ["smoke", "fast", "full"])
def test_the_same_facts_give_the_same_plan_and_leave_what_was_given_alone(preset: str) -> None:
    recipe = {"train": {"lr": 5e-4, "augment": {"hue": 0.2, "noise_std": [0, 0.1]}}, "reasons": {"train.lr": "so it says"}}
    settings = {"train.epochs": 7, "train.augment.shift": 0.2}
    before = copy.deepcopy((recipe, settings))
    one, other = (make(recipe=recipe, settings=settings, preset=preset) for _ in range(2))
    assert one.dump() == other.dump() and (recipe, settings) == before


def test_planning_opens_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("planning opened a file")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    make()


@pytest.mark.parametrize("preset", ["smoke", "fast", "full"])
@pytest.mark.parametrize("modality", ["ultrasound", "histology", "radiology", "unknown"])
def test_every_field_has_a_reason_or_its_default(modality: str, preset: str) -> None:
    plan = make(facts(modality=modality, colour=4), preset=preset)
    flat = plan.flat()
    default = Plan(name="x", data=plan.data).flat()
    assert plan.reasons.keys() <= flat.keys()
    without = flat.keys() - plan.reasons.keys() - Plan.DERIVED
    assert all(flat[key] == default[key] for key in without)
    # ... and those are only how far a change reaches that is off, and how much published splits hold out.
    augment = plan.train.augment
    on = {name for name, value in augment if isinstance(value, float) and value and f"train.augment.{name}" in plan.reasons}
    reach = {"affine": ("scale", "rotate_deg", "shift"), "colour": ("hue", "saturation"), "noise": ("noise_std",)}
    reach |= {"intensity": ("brightness", "contrast"), "gamma": ("gamma_range",), "blur": ("blur_sigma_px",)}
    reach |= {"elastic": ("elastic_shift",)}
    of_what_is_off = {f"train.augment.{name}" for step, names in reach.items() if step not in on for name in names}
    assert without <= of_what_is_off | {"split.held_out"}
    assert all(len(reason) > 3 for reason in plan.reasons.values())


def test_every_size_of_the_model_is_written_out_with_a_reason() -> None:
    plan = make(model_sizes=lambda name: {**SIZES, "depth": 4})
    assert plan.model.sizes == {"widths": [128, 160, 256], "kan_layers": ["kan"] * 3, "skip": "add", "depth": 4}
    assert {"model.name", "model.widths", "model.depth"} <= plan.reasons.keys()


def test_a_plan_comes_back_from_its_file() -> None:
    make(settings={"train.lr": 2e-4}, preset="fast").save(Path("plan.yaml"))
    assert Plan.load(Path("plan.yaml")) == make(settings={"train.lr": 2e-4}, preset="fast")


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
        ("data.modality", "histology", "unknown"),
        ("data.resize", "letterbox", "stretch"),
        ("data.window", "image", (0.0, 4095.0)),
        ("split.folds", 4, 3),
        ("split.seeds", (7,), (8,)),
        ("split.official_test", "pool", "hold_out"),
        ("model.widths", (64, 96, 128), (8, 8, 8)),
        ("train.augment.hflip", 0.1, 0.2),
        ("train.augment.rotate_deg", 5.0, 90.0),
        ("train.augment.noise_std", (0.0, 0.1), (0.1, 0.2)),  # a field that is not decided
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
        ("data.window", "auto"),
        ("data.window", [2, 1]),
        ("data.channels", 0),
        ("data.modality", "xray"),
        ("split.folds", 0),
        ("split.folds", 1),
        ("split.folds", "five"),
        ("split.kind", "leave-one-out"),
        ("split.seeds", [1, 2]),
        ("train.batch_size", 0),
        ("train.batch_size", "all"),
        ("train.epochs", 0),
        ("train.epochs", "many"),
        ("budget_gib", "8GB"),
        ("budget_gib", 0),
        ("budget_gib", -4),
        ("budget_gib", float("nan")),
        ("budget_gib", float("inf")),
        ("budget_gib", 8192),
        ("data.empty_cases", "maybe"),
        ("train.lr", "fast"),
        ("train.lr", "1.2.3e4"),
        ("train.augment.hflip", 2),
        ("train.augment.scale", [1.2, 0.8]),
        ("train.augment.gamma_range", [0, 1]),
        ("train.augment.elastic_shift", 0.5),
    ],
)
def test_an_impossible_setting_is_answered_with_its_field(key: str, value: Any) -> None:
    with pytest.raises(UserError) as error:
        make(settings={key: value})
    assert key.rpartition(".")[2] in str(error.value) and "\n" not in str(error.value)


def test_a_mistake_in_a_recipe_is_told_as_the_recipes() -> None:
    with pytest.raises(UserError, match=r"recipe: train\.epochs: .* got 'many'"):
        make(recipe={"train": {"epochs": "many"}})


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'smoke'"):
        make(preset="smok")


# What the files hold


def test_grey_folders_have_one_channel_and_coloured_ones_three() -> None:
    assert make().data.channels == 1 and make(facts(colour=1)).data.channels == 3
    assert make(facts(colour=12)).reasons["data.channels"].startswith("12 of 500")


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
def test_other_channels_are_taken_as_they_are_and_normalised_by_themselves(channels: int) -> None:
    plan = make(facts(channels=channels, colour=500))
    assert plan.data.channels == channels
    assert plan.data.normalization == ("imagenet" if channels == 1 else "image")


def test_what_the_folder_says_is_taken_with_its_reason() -> None:
    plan = make(
        facts(mask_rule="half", grouped_by="video sequences"),
        empty_cases=("drop", "the tables are made so"),
        mask_rule_because="greys",
    )
    assert (plan.data.mask_rule, plan.reasons["data.mask_rule"]) == ("half", "greys")
    assert (plan.data.empty_cases, plan.reasons["data.empty_cases"]) == ("drop", "the tables are made so")
    assert (plan.data.dataset, plan.data.layout, plan.data.index_sha256) == ("bumps", "folders", "0" * 64)
    assert plan.data.grouped_by == "video sequences" and plan.data.modality == "ultrasound"


def test_images_of_8_bits_need_no_window_deep_ones_their_own_and_ct_a_fixed_one() -> None:
    assert make().data.window == "none"
    assert make(facts(deep=3)).data.window == "image"
    ct = facts(deep=500, hounsfield=True, intensity=(-103.7, 218.2), channels=1)
    assert make(ct).data.window == (-104, 219) and "nnU-Net" in make(ct).reasons["data.window"]
    assert make(facts(deep=5, hounsfield=True, intensity=(40.0, 40.0))).data.window == "image"
    assert make(facts(deep=5, hounsfield=True)).data.window == "image"


def test_volumes_keep_their_shape_and_most_empty_slices_stay_out() -> None:
    plan, flat = make(facts(slices=90, cases=40, groups=40, empty=0)), make()
    assert (plan.data.resize, plan.data.empty_slices) == ("letterbox", "balance")
    assert (flat.data.resize, flat.data.empty_slices) == ("stretch", "keep")
    # Steps are counted in slices: 32 volumes of 90 are 360 batches of 8.
    assert plan.train.epochs * 360 == pytest.approx(20_000, rel=0.02)


@pytest.mark.parametrize(
    ("height", "width", "resize"),
    [
        ((300, 470, 700), (320, 560, 900), "stretch"),
        ((487, 600, 1072), (332, 620, 1920), "letterbox"),  # the smallest are 0.68, the largest 1.79
        ((256, 256, 256), (128, 256, 300), "letterbox"),
        ((100, 2000, 4000), (133, 2666, 5333), "stretch"),  # of very different size, of one shape
    ],
)
def test_images_of_very_different_shapes_are_padded_not_stretched(height: Any, width: Any, resize: str) -> None:
    plan = make(facts(height=height, width=width))
    assert plan.data.resize == resize and "2-fold" in plan.reasons["data.resize"] or "limit" in plan.reasons["data.resize"]


# Classes


def test_a_label_map_is_several_classes_and_can_be_renamed() -> None:
    plan = make(facts(**ORGANS))
    assert (plan.data.target, plan.data.classes, plan.data.label_values) == ("multiclass", ("1", "2", "4"), (1, 2, 4))
    assert plan.data.outputs == 4
    named = make(facts(**ORGANS), settings={"data.classes": ["liver", "spleen", "kidney"]})
    assert named.data.classes == ("liver", "spleen", "kidney") and named.data.label_values == (1, 2, 4)


def test_some_labels_can_be_chosen_and_keep_their_names() -> None:
    plan = make(facts(**{**ORGANS, "classes": ("liver", "spleen", "kidney")}), settings={"data.label_values": [4, 1]})
    assert (plan.data.label_values, plan.data.classes) == ((4, 1), ("kidney", "liver"))


def test_a_rule_set_by_hand_brings_the_classes_that_follow_from_it() -> None:
    whole = make(facts(**ORGANS), settings={"data.mask_rule": "nonzero"})
    assert (whole.data.target, whole.data.classes, whole.data.label_values) == ("binary", ("foreground",), ())
    parts = make(settings={"data.mask_rule": "labels", "data.label_values": [1, 2]})
    assert (parts.data.target, parts.data.classes) == ("multiclass", ("label 1", "label 2"))


def test_classes_with_masks_of_their_own_may_overlap() -> None:
    asked: list[int] = []

    def activation_bytes(name: str, channels: int, outputs: int, sizes: dict, size: tuple[int, int]) -> int:
        asked.append(outputs)
        return 1

    f = facts(target="multilabel", classes=("polyp", "instrument"))
    plan = make(f, activation_bytes=activation_bytes)
    assert (plan.data.target, plan.data.classes, plan.data.outputs) == ("multilabel", ("polyp", "instrument"), 2)
    assert set(asked) == {2}
    make(facts(**ORGANS), activation_bytes=activation_bytes)
    assert set(asked) == {2, 4}


@pytest.mark.parametrize(
    ("fingerprint", "settings", "answer"),
    [
        ({}, {"data.mask_rule": "labels"}, r"--set data\.label_values=\[1,2\]"),
        (ORGANS, {"data.classes": ["a", "b"]}, "names 2 classes, data.label_values has 3 values"),
        (ORGANS, {"data.label_values": [1], "data.classes": ["a", "b"]}, "names 2 classes, data.label_values has 1 values"),
        (ORGANS, {"data.target": "multilabel"}, "make it multiclass"),
        ({}, {"data.target": "multiclass"}, "make it binary"),
        ({}, {"data.label_values": [1]}, "label_values go with mask_rule=labels"),
        ({}, {"data.classes": ["lesion"]}, "only the classes of a label map can be renamed.*foreground"),
        ({"target": "multilabel", "classes": ("a", "b")}, {"data.classes": ["x", "y"]}, "the files name them: a, b"),
        ({"channels": 5}, {"data.channels": 3}, "the files have 5; give 5"),
        ({}, {"data.channels": 4}, "the files have 3; give 1 or 3"),
        ({"channels": 5}, {"data.normalization": "imagenet"}, "use image"),
        ({}, {"train.augment.colour": 0.5}, "1 channel.* no colour"),
        ({"channels": 4, "modality": "histology"}, {"train.augment.colour": 0.5}, "4 channel.* no colour"),
    ],
)
def test_what_does_not_go_together_is_answered_in_one_line(fingerprint: dict, settings: dict, answer: str) -> None:
    with pytest.raises(UserError, match=answer) as error:
        make(facts(**fingerprint), settings=settings)
    assert "\n" not in str(error.value)


# Folds


@pytest.mark.parametrize(("groups", "folds"), [(450, 5), (5, 5), (3, 3), (2, 2)])
def test_there_are_no_more_folds_than_groups_and_a_word_says_so(groups: int, folds: int) -> None:
    plan = make(facts(groups=groups, grouped_by="patients by file name"))
    assert plan.split.folds == folds
    assert ("no more groups (patients by file name)" in plan.reasons["split.folds"]) == (groups < 5)


def test_a_folder_of_one_group_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match="group"):
        make(facts(groups=1, cases=1, empty=0))


def test_folds_count_only_groups_with_an_object_where_empty_cases_are_left_out() -> None:
    f = facts(groups=4, groups_with_object=3)
    assert make(f).split.folds == 4
    assert make(f, settings={"data.empty_cases": "drop"}).split.folds == 3


def test_an_official_test_part_counts_for_nothing_unless_it_is_pooled() -> None:
    f = facts(cases=165, test=80, empty=0, groups=85, groups_with_object=85)
    apart, pooled = make(f), make(f, settings={"split.official_test": "pool"})
    assert apart.split.official_test == "hold_out" and "80 official test cases" in apart.reasons["split.official_test"]
    # 85 and 165 cases, four fifths of which are 8 and 16 batches of 8.
    assert (apart.train.epochs, pooled.train.epochs) == (1000, 1000)
    assert (apart.train.ema_decay, pooled.train.ema_decay) == (round(1 - 1 / 160, 4), round(1 - 1 / 320, 4))
    assert "no official test part" in make().reasons["split.official_test"]


def test_random_folds_are_bounded_by_cases_not_by_groups() -> None:
    f = facts(groups=3, cases=40, empty=0)
    assert make(f, settings={"split.kind": "random"}).split.folds == 5
    assert make(f).split.folds == 3


def test_a_published_split_trains_on_what_it_does_not_hold_out() -> None:
    def epochs(held_out: float) -> int:
        return make(settings={"split.kind": "published", "split.held_out": held_out}).train.epochs

    assert epochs(0.2) == 400 and epochs(0.5) == round(20_000 / 31)
    assert make(settings={"split.kind": "published"}).split.seeds == (2981,)


# Input size, width and batch


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


@pytest.mark.parametrize(("stride", "kept"), [(16, 32), (32, 32), (64, 64), (48, 96)])
@pytest.mark.parametrize("preset", ["smoke", "full"])
@pytest.mark.parametrize("budget", [8.0, 0.05])
def test_sides_are_multiples_of_the_network_s_stride_too(stride: int, kept: int, preset: str, budget: float) -> None:
    plan = make(model_stride=lambda name: stride, preset=preset, settings={"budget_gib": budget})
    assert all(side % kept == 0 and side >= 64 for side in plan.data.input_size)


def test_small_objects_enlarge_the_input_up_to_512x512_and_never_beyond_the_images() -> None:
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


def test_a_small_budget_narrows_the_network_then_shrinks_the_input_and_at_last_the_batch() -> None:
    def plan(budget: float) -> tuple[int, list[int], tuple[int, int]]:
        made = make(facts(height=(512,) * 3, width=(512,) * 3), gib_at_256=1.0, settings={"budget_gib": budget})
        return made.train.batch_size, made.model.sizes["widths"], made.data.input_size

    base, small = WIDTHS["base"], WIDTHS["S"]
    assert plan(8) == (8, base, (256, 256))
    assert plan(7.9) == (4, base, (256, 256))
    assert plan(4) == (8, small, (256, 256)) or plan(4) == (4, base, (256, 256))
    assert plan(3.9) == (4, small, (256, 256))
    batch, widths, size = plan(1.9)
    assert (batch, widths) == (4, small) and 192 <= size[0] < 256
    assert plan(0.1) == (2, small, (64, 64))
    reason = make(gib_at_256=1.0, settings={"budget_gib": 1.0}).reasons["data.input_size"]
    assert "made smaller for 1 GiB" in reason


@pytest.mark.parametrize(("height", "width"), [(512, 512), (470, 560), (300, 700), (700, 300), (130, 130)])
@pytest.mark.parametrize("budget", [3.0, 1.0, 0.3, 0.1, 0.04])
def test_planning_keeps_to_the_budget_and_comes_to_an_end(height: int, width: int, budget: float) -> None:
    asked = 0

    def activation_bytes(name: str, channels: int, classes: int, sizes: dict, size: tuple[int, int]) -> int:
        nonlocal asked
        asked += 1
        assert asked < 200, f"planning goes round in circles at {size}"
        return bytes_of(1.0)(name, channels, classes, sizes, size)

    f = facts(height=(height,) * 3, width=(width,) * 3)
    plan = make(f, activation_bytes=activation_bytes, settings={"budget_gib": budget})
    size, first = plan.data.input_size, plan.model.sizes["widths"][0]
    assert plan.train.batch_size * size[0] * size[1] / 256**2 * first / 128 <= budget


def test_a_budget_that_holds_not_one_image_is_refused_with_what_to_give() -> None:
    with pytest.raises(UserError, match=r"budget_gib=0\.01 does not hold .* 64x64; give more \(--budget-gib\)"):
        make(gib_at_256=1.0, settings={"budget_gib": 0.01})
    with pytest.raises(UserError, match=r"512x512"):
        make(gib_at_256=1.0, settings={"budget_gib": 1.0, "data.input_size": [512, 512]})


def test_a_size_that_is_set_is_kept_and_only_width_and_batch_shrink() -> None:
    settings = {"data.input_size": [512, 512], "budget_gib": 8.0}
    plan = make(gib_at_256=1.0, settings=settings)
    assert plan.data.input_size == (512, 512) and plan.train.batch_size == 4
    plan = make(gib_at_256=1.0, settings={**settings, "model.widths": [128, 160, 256]})
    assert plan.data.input_size == (512, 512) and plan.train.batch_size == 2


def test_a_batch_has_no_more_images_than_a_fold_trains_on() -> None:
    assert make(facts(cases=6, empty=0, groups=3)).train.batch_size == 4
    dropping = make(facts(cases=10, empty=4, groups=10, groups_with_object=6), empty_cases=("drop", "so"))
    assert dropping.train.batch_size == 4


@pytest.mark.parametrize(("cases", "width"), [(40, "S"), (62, "S"), (64, "base"), (5000, "base"), (7000, "L")])
def test_few_images_get_a_narrow_network_and_many_a_wide_one(cases: int, width: str) -> None:
    plan = make(facts(cases=cases, groups=cases, empty=0))
    assert plan.model.sizes["widths"] == WIDTHS[width] and len(plan.reasons["model.widths"]) > 10


def test_the_wide_network_needs_the_budget_for_a_whole_batch() -> None:
    f = facts(cases=7000, groups=7000, empty=0)
    assert make(f, gib_at_256=0.6).model.sizes["widths"] == WIDTHS["base"]
    assert make(f, preset="fast").model.sizes["widths"] == WIDTHS["base"]


def test_a_model_without_sizes_s_base_and_l_keeps_its_own() -> None:
    sizes, few = {"widths": (32, 64), "depth": 3}, facts(cases=20, groups=20)
    plan = make(few, model_sizes=lambda name: sizes, named_sizes=lambda name: {})
    assert plan.model.sizes == {"widths": [32, 64], "depth": 3}
    named = {"paper": {"widths": (64, 128)}, "matched": {"widths": (32, 64)}}
    plan = make(few, preset="smoke", model_sizes=lambda name: sizes, named_sizes=lambda name: named)
    assert plan.model.sizes == {"widths": [32, 64], "depth": 3}
    assert "U-KAN base" in plan.reasons["model.widths"] and "own default" in plan.reasons["model.depth"]


def test_only_what_sets_the_cost_is_called_matched_and_only_where_all_of_that_size_holds() -> None:
    sizes = {"encoder": "small", "decoder": (8, 4), "dropout": 0.1}
    given: dict[str, Any] = {"model_sizes": lambda name: sizes, "named_sizes": lambda name: {"matched": dict(sizes)}}
    reasons = make(**given).reasons
    assert "U-KAN base" in reasons["model.encoder"] and "U-KAN base" in reasons["model.decoder"]
    assert "U-KAN base" not in reasons["model.dropout"]
    reasons = make(**given, **set_to(model__decoder=[16, 8])).reasons
    assert "U-KAN base" not in reasons["model.encoder"] and "by hand" in reasons["model.decoder"]


PRETRAINED: dict[str, Any] = {
    "model_sizes": lambda name: {"widths": (32, 64), "weights": "imagenet"},
    "named_sizes": lambda name: {},
}
LIKE_PUBLISHED = {"model": {"name": "ukan"}, "data": {"channels": 3, "normalization": "published", "colour_order": "bgr"}}


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        (
            {"recipe": LIKE_PUBLISHED},
            "data.normalization=published and data.colour_order=bgr; --set data.normalization=imagenet "
            "--set data.colour_order=rgb, or --set model.weights=none",
        ),
        (set_to(data__normalization="image"), "image; --set data.normalization=imagenet, or --set model.weights=none"),
        (set_to(data__colour_order="bgr", data__channels=3), "bgr; --set data.colour_order=rgb, or"),
    ],
)
def test_published_weights_of_a_network_are_not_fed_with_images_they_do_not_know(given: Any, instead: str) -> None:
    with pytest.raises(UserError, match=f"model.weights=imagenet: .*{re.escape(instead)}"):
        make(**PRETRAINED, **given)


def test_what_that_refusal_says_to_set_does() -> None:
    mended = ({"model.weights": "none"}, {"data.normalization": "imagenet", "data.colour_order": "rgb"})
    for settings in mended:
        assert make(**PRETRAINED, recipe=LIKE_PUBLISHED, settings=settings).data.channels == 3
    assert make(**PRETRAINED).data.normalization == "imagenet"
    assert make(facts(channels=5), **PRETRAINED).model.sizes["weights"] == "imagenet"  # of which ImageNet has no constants


def test_a_network_whose_default_is_another_than_its_base_is_not_resized_by_the_data() -> None:
    few = facts(cases=20, groups=20)
    assert make(few).model.sizes["widths"] == WIDTHS["S"]
    other = make(few, model_sizes=lambda name: {**SIZES, "widths": (96, 128, 160)})
    assert other.model.sizes["widths"] == [96, 128, 160]


@pytest.mark.parametrize("preset", ["smoke", "full"])
def test_a_size_asked_for_by_name_goes_before_the_data_and_the_preset_and_only_what_is_set_by_hand_before_it(
    preset: str,
) -> None:
    few = facts(cases=20, groups=20)
    plan = make(few, size_name="L", preset=preset)
    assert plan.model.sizes["widths"] == WIDTHS["L"] and "size L of ukan (--size)" in plan.reasons["model.widths"]
    set_so = make(few, size_name="L", preset=preset, settings={"model.widths": [8, 8, 8]})
    assert set_so.model.sizes["widths"] == [8, 8, 8]


def test_a_size_asked_for_that_the_budget_cannot_hold_shrinks_the_input_and_not_the_network() -> None:
    square = facts(height=(512,) * 3, width=(512,) * 3)
    plan = make(square, gib_at_256=1.0, size_name="L", settings={"budget_gib": 2.0})
    assert plan.model.sizes["widths"] == WIDTHS["L"] and plan.data.input_size < (256, 256)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (UKAN.named_sizes, r"--size bas: ukan has no size of this name. Did you mean 'base'\?"),
        ({}, "--size bas: ukan has no sizes with names; .*--set model.FIELD=VALUE"),
    ],
)
def test_an_unknown_name_of_a_size_is_answered_with_the_nearest(named: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(size_name="bas", named_sizes=lambda name: named)


# Length and rates


def test_epochs_make_about_20000_steps_between_40_and_1000_epochs() -> None:
    plan = make()
    assert plan.train.epochs * (400 // 8) == pytest.approx(20_000, rel=0.02)
    assert make(facts(cases=10)).train.epochs == 1000
    assert make(facts(cases=100_000, groups=90_000)).train.epochs == 40


def test_the_learning_rate_is_the_measured_one_and_follows_a_smaller_batch_by_its_square_root() -> None:
    assert make().train.lr == make().train.lr_kan == 3e-3
    for batch, rate in ((8, 3e-3), (2, 1.5e-3), (4, 2.1e-3), (64, 3e-3)):
        plan = make(settings={"train.batch_size": batch})
        assert (plan.train.lr, plan.train.lr_kan) == (rate, rate)


# Presets


def test_the_full_preset_is_what_is_meant_without_one() -> None:
    assert make(preset="full") == make() and make().preset == "full"


def test_a_smoke_plan_is_minutes_of_work_and_says_so() -> None:
    for cases in (12, 85, 165, 200, 612, 780, 2694):
        plan = make(facts(cases=cases, groups=cases, empty=0), preset="smoke")
        size = plan.data.input_size
        assert plan.preset == "smoke" and size[0] * size[1] <= 1.4 * 96**2
        images = cases // 2
        steps = plan.train.epochs * max(1, images // plan.train.batch_size)
        # Around 40 steps, or one look at every picture: the pictures seen in all folds bound the time.
        assert steps >= 30 and plan.split.count * steps * plan.train.batch_size <= max(720, cases)
        assert plan.model.sizes["widths"] == WIDTHS["S"] and plan.train.epochs // plan.train.validate_every <= 7
    for key in (*SHORTENED, "train.validate_every"):
        assert "preset smoke" in plan.reasons[key]


def test_a_fast_plan_is_a_fifth_of_the_steps_on_a_quarter_of_the_area() -> None:
    fast, full = make(preset="fast"), make()
    assert fast.train.epochs * 5 == full.train.epochs and fast.split.folds == 5
    ratio = (fast.data.input_size[0] * fast.data.input_size[1]) / (full.data.input_size[0] * full.data.input_size[1])
    assert 0.2 < ratio < 0.35
    assert all("preset fast" in fast.reasons[key] for key in ("data.input_size", "train.epochs", "split.folds"))


def test_a_preset_changes_only_size_length_and_what_follows_from_them() -> None:
    full, smoke = make(), make(preset="smoke")
    changed = {line.partition(":")[0] for line in full.difference(smoke)}
    assert changed == {*SHORTENED, "preset", "train.validate_every", "train.warmup_epochs", "train.ema_decay"}


def test_a_preset_goes_before_a_recipe_in_its_size_and_length_alone() -> None:
    recipe = {
        "protocol": "paper",
        "published": {"iou": 63.0},
        "data": {"input_size": [256, 256], "normalization": "published"},
        "split": {"kind": "published", "seeds": [1, 2]},
        "model": {"widths": [128, 160, 256], "skip": "cat"},
        "train": {"epochs": 400, "lr": 1e-4, "batch_size": 6},
    }
    plan = make(recipe=recipe, preset="smoke")
    assert max(plan.data.input_size) <= 128 and plan.train.epochs < 10 and plan.model.sizes["widths"] == WIDTHS["S"]
    assert (plan.protocol, plan.data.normalization, plan.split.seeds) == ("paper", "published", (1, 2))
    assert (plan.train.lr, plan.train.batch_size, plan.model.sizes["skip"]) == (1e-4, 6, "cat")
    assert plan.published == {}  # scores of another length and size
    assert make(recipe=recipe, preset="smoke", settings={"train.epochs": 9}).train.epochs == 9
    full = make(recipe=recipe)
    assert (full.train.epochs, full.data.input_size, full.published) == (400, (256, 256), {"iou": 63.0})


# Augmentation


def test_augmentation_follows_the_modality_also_one_set_by_hand() -> None:
    assert make().train.augment.vflip == 0 and make().train.augment.hflip == 0.5
    assert make(facts(modality="radiology")).train.augment.hflip == 0
    square = facts(height=(600,) * 3, width=(600,) * 3, colour=500)
    assert make(square, settings={"data.modality": "dermoscopy"}).train.augment.rot90 == 0.5
    plan = make(square, settings={"data.modality": "histology"})
    assert (plan.train.augment.colour, plan.train.augment.hue) == (0.5, 0.05) and "haematoxylin" in plan.reasons[
        "train.augment.hue"
    ]


def test_the_augmentation_of_ultrasound_is_the_measured_one() -> None:
    augment = make().train.augment
    on = {name: value for name, value in augment if name in segment.choose_augmentation("unknown", 3, (64, 64)) and value}
    assert {name: on[name] for name in ("hflip", "affine", "intensity", "gamma")} == {
        "hflip": 0.5,
        "affine": 0.5,
        "intensity": 0.5,
        "gamma": 0.2,
    }
    assert (augment.scale, augment.rotate_deg, augment.shift) == ((0.8, 1.25), 20.0, 0.1)
    assert (augment.brightness, augment.contrast, augment.gamma_range) == (0.2, 0.2, (0.7, 1.4))
    assert not (augment.noise or augment.blur or augment.elastic or augment.colour or augment.rot90)


@pytest.mark.parametrize("given", [set_to(model__skip="cat"), {"recipe": {"model": {"name": "ukan", "skip": "cat"}}}])
def test_the_network_is_measured_as_it_was_asked_for(given: dict[str, Any]) -> None:
    """Also so that an impossible size is refused when planning: building it says what would do."""
    measured = []

    def activation_bytes(name: str, channels: int, outputs: int, sizes: dict[str, Any], size: tuple[int, int]) -> int:
        measured.append(sizes["skip"])
        return 1

    make(activation_bytes=activation_bytes, **given)
    assert set(measured) == {"cat"}
