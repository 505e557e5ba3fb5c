"""The shipped sets of recipes are the papers' tables, row by row; a set is read as strictly as a recipe."""

from pathlib import Path
from typing import Any

import pytest

from ukan.errors import UserError
from ukan.models import build_model
from ukan.models.cost import model_cost, paper_gflops
from ukan.plan import Plan, flatten
from ukan.stage.recipes import load_recipe, load_set, recipe_sets, recipes

# As printed: variant, IoU, F1, GFLOPs; the variant's one difference.
TABLES: dict[str, dict[str, tuple[tuple[float, float, str] | None, dict[str, Any]]]] = {
    "ukan-table4": {
        "three-layers": ((65.26, 78.75, "14.02"), {"model.kan_layers": ["kan"] * 3}),
        "one-layer": ((64.20, 77.81, "13.97"), {"model.kan_layers": ["kan"]}),
        "two-layers": ((64.56, 78.01, "14.00"), {"model.kan_layers": ["kan"] * 2}),
        "four-layers": ((64.72, 78.35, "14.05"), {"model.kan_layers": ["kan"] * 4}),
        "five-layers": ((64.86, 78.42, "14.07"), {"model.kan_layers": ["kan"] * 5}),
    },
    "ukan-table5": {
        "kan-kan-kan": ((65.26, 78.75, "14.02"), {"model.kan_layers": ["kan", "kan", "kan"]}),
        "mlp-kan-kan": ((64.12, 77.86, "14.29"), {"model.kan_layers": ["mlp", "kan", "kan"]}),
        "kan-mlp-kan": ((63.82, 77.58, "14.29"), {"model.kan_layers": ["kan", "mlp", "kan"]}),
        "kan-kan-mlp": ((64.30, 77.95, "14.29"), {"model.kan_layers": ["kan", "kan", "mlp"]}),
        "mlp-mlp-mlp": ((63.49, 77.07, "14.84"), {"model.kan_layers": ["mlp", "mlp", "mlp"]}),
        "wide-mlp": (None, {"model.kan_layers": ["wide-mlp"] * 3}),
    },
    "ukan-table6": {
        "base": ((65.26, 78.75, "14.02"), {"model.widths": [128, 160, 256]}),
        "small": ((64.62, 78.28, "3.74"), {"model.widths": [64, 96, 128]}),
        "large": ((66.01, 79.09, "55.11"), {"model.widths": [256, 320, 512]}),
    },
}
THESIS: dict[str, tuple[float | None, dict[str, Any]]] = {
    "default": (None, {}),
    "grid-3": (0.9478, {"model.grid_size": 3}),
    "grid-7": (0.9444, {"model.grid_size": 7}),
    "order-2": (0.9598, {"model.spline_order": 2}),
    "order-4": (0.9400, {"model.spline_order": 4}),
    "relu": (0.9578, {"model.base_activation": "relu"}),
    "no-regularisation": (0.9465, {"train.kan_l1": 0, "train.kan_entropy": 0}),
    "no-grid-update": (0.9425, {"train.kan_update_every": 0}),
    "no-spline-scaler": (0.9531, {"model.spline_scaler": False}),
}
ROWS = [(name, variant) for name, rows in TABLES.items() for variant in rows]


def fields(recipe: dict[str, Any]) -> dict[str, Any]:
    return flatten({key: value for key, value in recipe.items() if key not in ("reasons", "published")})


def test_these_are_the_shipped_sets_and_none_is_taken_for_a_recipe() -> None:
    assert set(recipe_sets()) == {*TABLES, "kan-thesis", "km-unet"}
    assert not any("table" in name or "thesis" in name for name in recipes())


@pytest.mark.parametrize("name", TABLES)
def test_a_set_is_the_papers_table_with_its_default_first(name: str) -> None:
    variants = load_set(name).variants
    assert list(variants) == list(TABLES[name])
    first = next(iter(variants.values())).recipe
    assert fields(first) == fields(load_recipe("paper/ukan-busi")), "the default of the paper's tables is the recipe"


@pytest.mark.parametrize(("name", "variant"), ROWS)
def test_a_row_is_the_printed_one_and_differs_in_what_it_says(name: str, variant: str) -> None:
    printed, changed = TABLES[name][variant]
    made = load_set(name).variants[variant]
    published = printed and {"iou": printed[0], "dice": printed[1], "gflops": float(printed[2])}
    assert made.published == (published or {})
    assert made.recipe["published"] == {key: made.published[key] for key in ("iou", "dice") if key in made.published}
    assert fields(made.recipe) == fields(load_recipe("paper/ukan-busi")) | changed and made.changes == changed.keys()
    assert made.recipe["protocol"] == "paper" and variant in made.recipe["reasons"][next(iter(changed))]


@pytest.mark.parametrize(("name", "variant"), ROWS)
def test_the_printed_gflops_are_those_of_the_rule(name: str, variant: str) -> None:
    printed, _ = TABLES[name][variant]
    sizes = {key: value for key, value in load_set(name).variants[variant].recipe["model"].items() if key != "name"}
    if printed:
        assert f"{paper_gflops('ukan', 3, 1, sizes):.2f}" == f"{float(printed[2]):.2f}"


def test_the_wide_mlp_is_a_control_of_equal_parameters_and_the_mlp_of_equal_width() -> None:
    kan, mlp, wide = (
        model_cost("ukan", 3, 1, {"kan_layers": [kind] * 3}, (64, 64)).parameters for kind in ("kan", "mlp", "wide-mlp")
    )
    assert wide == pytest.approx(kan, rel=0.003) and mlp < kan / 2


def test_the_thesis_ablation_changes_one_thing_at_a_time() -> None:
    variants = load_set("kan-thesis").variants
    assert list(variants) == list(THESIS)
    default = fields(variants["default"].recipe)
    assert default["train.kan_update_every"] > 0 and default["train.kan_l1"] > 0 and default["train.kan_entropy"] > 0
    assert (default["model.grid_size"], default["model.spline_order"], default["model.base_activation"]) == (5, 3, "silu")
    for name, (accuracy, changed) in THESIS.items():
        assert fields(variants[name].recipe) == default | changed, name
        assert variants[name].published == ({"mnist_accuracy": accuracy} if accuracy else {})
        assert variants[name].recipe["published"] == {}, "accuracies of MNIST are laid beside nothing"


@pytest.mark.parametrize("name", ["ukan-table4", "ukan-table5", "ukan-table6", "kan-thesis"])
def test_every_variant_is_a_plan_and_a_network(name: str) -> None:
    data = {"dataset": "made", "layout": "folders", "index_sha256": "0" * 64}
    for variant, made in load_set(name).variants.items():
        content = {key: value for key, value in made.recipe.items() if key != "published"}
        plan = Plan.parse({**content, "name": variant, "data": content["data"] | data}, variant)
        if name != "ukan-table6":
            plan = plan.model_copy(update={"model": plan.model.model_copy(update={"widths": [8, 8, 8]})})
        build_model(plan.model.name, plan.data.channels, plan.data.outputs, plan.model.sizes)


@pytest.mark.parametrize("name", ["ukan-table4", "ukan-table5", "ukan-table6", "kan-thesis"])
def test_a_set_s_file_says_how_to_run_it_and_what_its_numbers_are_worth(name: str) -> None:
    text = recipe_sets()[name].read_text(encoding="utf-8")
    assert f"ukan ablate data_raw/Dataset_BUSI_with_GT {name}" in text and "What the printed numbers are worth" in text


# As recipes, and of one's own


def test_a_set_is_no_recipe_but_each_of_its_variants_is() -> None:
    for name in ("ukan-table5", "sets/ukan-table5"):
        with pytest.raises(UserError, match=r"a set of recipes; `ukan ablate FOLDER ukan-table5` runs it"):
            load_recipe(name)
    assert load_recipe("ukan-table5/wide-mlp")["model"]["kan_layers"] == ["wide-mlp"] * 3
    with pytest.raises(UserError, match="no such variant. Did you mean 'wide-mlp'"):
        load_recipe("ukan-table5/wide")


def test_a_set_of_ones_own_is_a_file_of_nested_or_dotted_fields() -> None:
    Path("mine.yaml").write_text(
        "recipe: paper/ukan-cvc\nabout: Which skips?\ncommon: {train: {epochs: 3}}\n"
        "variants:\n  add: {}\n  cat: {model.skip: cat, published: {dice: 91}}\n"
    )
    made = load_set("mine.yaml")
    assert (made.name, made.about, list(made.variants)) == ("mine", "Which skips?", ["add", "cat"])
    assert [v.recipe["model"]["skip"] for v in made.variants.values()] == ["add", "cat"]
    assert all(v.recipe["train"]["epochs"] == 3 and v.recipe["protocol"] == "paper" for v in made.variants.values())
    assert [v.recipe["published"] for v in made.variants.values()] == [{}, {"dice": 91.0}]
    assert load_recipe("mine.yaml/cat")["model"]["skip"] == "cat"
    with pytest.raises(UserError, match=r"ukan ablate FOLDER mine\.yaml"):
        load_recipe("mine.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "mine.yaml: not a recipe"),
        ("variant: {}", "variant: no such field of a set. Did you mean 'variants'"),
        ("recipe: paper/ukan-busi", "`variants` holds none"),
        ("recipe: paper/ukan-bus\nvariants: {a: {}}", "Did you mean 'paper/ukan-busi'"),
        ("variants: {a: {train: {epoch: 3}}}", "mine.yaml: a: train.epoch: no such field. Did you mean 'train.epochs'"),
        ("variants: {a: {model: {width: [8, 8, 8]}}}", "model.width: no such field. Did you mean 'model.widths'"),
        ("variants: {a: {protocol: honest}}", "a: protocol: no such field"),
        ("common: {trian: {}}\ncommon: {trian: 1}\nvariants: {a: {}}", "trian: no such field"),
        ("variants: {a: 3}", "a: fields and values are expected, got 3"),
        ("variants: {a: {published: {f1: 70}}}", "published.f1: no such number"),
        ("variants: {a: {published: {iou: high}}}", "published.iou: a number is expected, got 'high'"),
        ("variants: {a/b: {}}", "a/b: a variant's name is of small letters, digits and dashes"),
        ("variants: {1: {}}", "1: a variant's name is of small letters, digits and dashes"),
    ],
)
def test_a_mistake_in_a_set_is_told_with_its_place(text: str, said: str) -> None:
    Path("mine.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_set("mine.yaml")
    assert said in str(error.value)


def test_an_unknown_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="ukan-tabel5: no such set of recipes. Did you mean 'ukan-table5'"):
        load_set("ukan-tabel5")
