"""`ukan plan --model NAME --size NAME`: which network a plan gets, whose scores stand beside it, and what it is called."""

from pathlib import Path
from typing import Any

import pytest

from ukan.errors import UserError
from ukan.models import named_sizes
from ukan.plan import Plan
from ukan.stage.prepare import plan_folder
from ukan.stage.recipes import load_recipe

BUSI = "paper/ukan-busi"


@pytest.fixture
def folder(write_dataset) -> Path:
    return write_dataset(Path("data"), count=10, size=(32, 40))


def planned(folder: Path, **options: Any) -> tuple[Plan, str]:
    plan, path, _ = plan_folder(folder, **options)
    assert Plan.load(path) == plan
    return plan, path.stem


def widths(model: str, size: str) -> list[int]:
    return list(named_sizes(model)[size]["widths"])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "ukan"),
        ({"model": "unet"}, "unet"),
        ({"model": "unet", "size": "paper"}, "unet-paper"),
        ({"size": "L"}, "ukan-l"),
        ({"model": "unet", "name": "mine"}, "mine"),
        ({"recipe": BUSI}, "paper-ukan-busi"),
        ({"recipe": BUSI, "model": "unet"}, "paper-ukan-busi-unet"),
        ({"recipe": BUSI, "size": "S"}, "paper-ukan-busi-s"),
    ],
)
def test_a_plan_is_called_by_what_was_asked_for(folder: Path, options: dict[str, Any], name: str) -> None:
    assert planned(folder, **options)[1] == name


def test_without_a_size_the_network_has_its_own_and_with_one_that(folder: Path) -> None:
    plan, _ = planned(folder, model="unet")
    assert plan.model.name == "unet" and plan.model.sizes == {"widths": widths("unet", "matched")}
    assert plan.reasons["model.name"] == "as asked (--model)"
    plan, _ = planned(folder, model="unet", size="paper", preset="smoke")
    assert plan.model.sizes == {"widths": widths("unet", "paper")} and "--size" in plan.reasons["model.widths"]
    plan, _ = planned(folder, size="paper", model="unet", settings=["model.widths=[4,4,4,4,4]"])
    assert plan.model.sizes == {"widths": [4, 4, 4, 4, 4]}


def test_a_rival_under_a_published_protocol_keeps_all_of_it_but_the_network_and_its_scores(folder: Path) -> None:
    assert load_recipe(BUSI)["published"]
    ours, _ = planned(folder, recipe=BUSI)
    rival, _ = planned(folder, recipe=BUSI, model="unet")
    assert rival.model.sizes == {"widths": widths("unet", "matched")}
    assert ours.published and not rival.published and rival.recipe == BUSI and rival.protocol == "paper"
    sections = ("data", "split", "train", "infer")
    assert {name: getattr(rival, name) for name in sections} == {name: getattr(ours, name) for name in sections}


def test_another_size_under_a_published_protocol_keeps_the_rest_of_its_network(folder: Path) -> None:
    ours, _ = planned(folder, recipe=BUSI)
    small, _ = planned(folder, recipe=BUSI, size="S")
    assert small.model.sizes == {**ours.model.sizes, "widths": widths("ukan", "S")} and not small.published


@pytest.mark.parametrize("recipe", [BUSI, "paper/km-unet-busi"])
def test_a_recipe_s_own_network_by_name_keeps_what_the_recipe_says_and_its_scores(folder: Path, recipe: str) -> None:
    ours, _ = planned(folder, recipe=recipe)
    named, _ = planned(folder, recipe=recipe, model=ours.model.name, name=ours.name)
    assert named.published == ours.published and not named.difference(ours)
    assert {key for key in ours.reasons if ours.reasons[key] != named.reasons[key]} == {"model.name"}


def test_a_recipe_s_own_network_in_a_named_size_keeps_the_rest_and_not_the_scores(folder: Path) -> None:
    Path("own.yaml").write_text("published: {dice: 80}\nmodel: {widths: [8, 8, 8], kan_layers: [mlp]}\n")
    plan, _ = planned(folder, recipe="own.yaml", model="ukan", size="base")
    assert plan.model.sizes["widths"] == widths("ukan", "base") and plan.model.sizes["kan_layers"] == ["mlp"]
    assert not plan.published
    plan, _ = planned(folder, recipe="own.yaml", model="ukan")
    assert plan.model.sizes["widths"] == [8, 8, 8] and plan.published


def test_a_named_size_leaves_nothing_of_the_recipe_s_size(folder: Path) -> None:
    plan, _ = planned(folder, recipe="paper/km-unet-busi", model="km-unet", size="matched")
    assert plan.model.sizes["widths"] == widths("km-unet", "matched") and not plan.model.sizes["as_published"]
    assert not plan.published


def test_pretrained_weights_under_a_protocol_of_other_images_are_refused_with_what_to_set(folder: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(UserError, match=r"--set data.normalization=imagenet .* or --set model.weights=none"):
        plan_folder(folder, recipe=BUSI, model="convnext-unet")
    plan, _ = planned(folder, recipe=BUSI, model="convnext-unet", settings=["model.weights=none"])
    assert plan.data.normalization == "published" and plan.model.sizes["weights"] == "none"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "ukam"}, "no model 'ukam'. Did you mean 'ukan'"),
        ({"model": "unett"}, "Did you mean 'unet'"),
        ({"model": "unet", "size": "papper"}, "--size papper: unet has no size of this name. Did you mean 'paper'"),
        ({"size": "M"}, "--size M: ukan has no size of this name. Known: S, base, L"),
        ({"model": "diffusion-ukan"}, "a network of diffusion"),
        ({"model": "unet", "task": "diffuse"}, "no network of diffusion 'unet'"),
        ({"size": "base", "task": "diffuse"}, "diffusion-ukan has no sizes with names"),
        ({"settings": ["model.name=unet"]}, "--set model.name: .*--model"),
        ({"settings": ["model.name = unet"]}, "--set model.name: .*--model"),
        ({"model": "unet", "settings": ["model.kan_layers=[kan]"]}, "model.kan_layers"),
    ],
)
def test_what_cannot_be_is_refused_before_the_folder_is_read(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_folder(folder, **options)
    assert not Path("plans").exists()


def test_networks_of_diffusion_are_chosen_so_too(folder: Path) -> None:
    plan, name = planned(folder, model="diffusion-ukan-as-written", task="diffuse")
    assert plan.model.name == name == "diffusion-ukan-as-written" and "skip" in plan.model.sizes


def test_the_command_takes_both(folder: Path) -> None:
    from typer.testing import CliRunner
    from ukan_cli.main import app

    result = CliRunner().invoke(app, ["plan", "data", "--model", "unet", "--size", "paper"])
    assert result.exit_code == 0, result.output
    assert Plan.load(Path("plans/data/unet-paper.yaml")).model.sizes == {"widths": widths("unet", "paper")}
