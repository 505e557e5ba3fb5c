"""From a raw folder to plans/<dataset>/: `ukan check` and `ukan plan`."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from ukan.data.duplicates import save_thumbnails
from ukan.data.index import Index, Reading, index_folder, save_index
from ukan.data.layouts import LAYOUTS
from ukan.data.problems import write_problems
from ukan.data.splits import Splits, choose_cases, make_splits
from ukan.errors import DataError, UserError
from ukan.paths import PLANS, PlanFolder, slug, write_text
from ukan.plan import Plan, Task, flatten, parse_settings, settable_keys
from ukan.planning.decisions import PresetName
from ukan.planning.diffuse import plan_diffuse
from ukan.planning.segment import named_size, plan_segment
from ukan.sampling import make_scheduler
from ukan.stage.recipes import load_recipe
from ukan.stage.synthetic import synthetic_run

Progress = Callable[[int, int], None]


def check_folder(
    folder: Path, *, on_progress: Progress | None = None, **reading: Unpack[Reading]
) -> tuple[Index, PlanFolder]:
    """Index a raw folder and write index.csv, problems.csv, fingerprint.json and thumbnails.npz to plans/<dataset>/.

    `reading` says how the folder is read, see `Reading`. Returns the index and the folder written to. Problems are in the
    index, errors among them; nothing is raised for those.
    """
    index = index_folder(folder, on_progress=on_progress, **reading)
    place = PlanFolder(PLANS / index.dataset)
    _refuse_another_dataset(place, index.root)
    write_problems(place.problems, index.problems)
    save_index(place.index, index.cases)
    save_thumbnails(place.thumbnails, index.thumbnails)
    if index.fingerprint:
        write_text(place.fingerprint, index.fingerprint.model_dump_json(indent=2) + "\n")
    write_text(place.source, json.dumps({"root": _relative(index.root, place.root)}) + "\n")
    return index, place


def plan_folder(
    folder: Path,
    *,
    recipe: str | None = None,
    model: str | None = None,
    size: str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    budget_gib: float | None = None,
    preset: PresetName = "full",
    task: Task | None = None,
    on_progress: Progress | None = None,
    **reading: Unpack[Reading],
) -> tuple[Plan, Path, Index]:
    """Fingerprint a raw folder and write a plan with its folds. Returns the plan, its path and the index.

    The task is the recipe's, or segment. `model` chooses a network in place of all that a recipe says of another one, `size`
    one of its named sizes; the scores that the recipe states are then left out, as they are another network's.

    `reading` says how the folder is read, see `Reading`; what settings and recipe say of masks goes before it. Raises
    DataError where files cannot be used: they are listed in problems.csv.
    """
    content = load_recipe(recipe) if recipe else {}
    if task and content.get("task", task) != task:
        raise UserError(f"--task {task}: the recipe {recipe} is of the task {content['task']}; leave one of them out")
    content = content | ({"task": task} if task else {})
    own_name = "-".join(filter(None, [recipe or model or _model_of(content), model if recipe else None, size]))
    content = _with_network(content, model, size)
    values = read_settings(content, settings)
    if budget_gib is not None:
        values["budget_gib"] = budget_gib
    if content.get("task") == "diffuse":
        reading["without_masks"] = True
    index, place = check_folder(folder, on_progress=on_progress, **(reading | masks_asked(content, values)))
    refuse_problems(folder, index, place)
    plan_name = slug(name or own_name)
    plan, splits = make_plan(index, plan_name, recipe=recipe, content=content, values=values, size=size, preset=preset)
    if plan.data.synthetic:
        synthetic_run(plan.data)  # refused now, not when training starts
    save_plan(plan, splits, place)
    return plan, place.plan(plan_name), index


def refuse_problems(folder: Path, index: Index, place: PlanFolder) -> None:
    """Raises DataError where files of a folder that was read cannot be used."""
    if index.errors or index.fingerprint is None:
        first = index.errors[0]
        raise DataError(
            f"{folder}: {len(index.errors)} problem(s) keep cases from being used, all listed in {place.problems}; "
            f"the first: {first.where}: {first.what} ({first.do}). --skip-bad leaves such cases out"
        )


def make_plan(
    index: Index,
    name: str,
    *,
    recipe: str | None,
    content: Mapping[str, Any],
    values: Mapping[str, Any],
    size: str | None = None,
    preset: PresetName = "full",
) -> tuple[Plan, Splits]:
    """The plan of a folder that was read, and its folds. `content` is the recipe of that name, `values` what --set says."""
    from ukan.models import model_sizes, model_stride, named_sizes
    from ukan.models.cost import model_cost

    assert index.fingerprint, "refuse_problems comes first"
    plan_segmentation = partial(plan_segment, named_sizes=named_sizes, model_stride=model_stride, size_name=size)
    make = plan_diffuse if content.get("task") == "diffuse" else plan_segmentation
    plan = make(
        index.fingerprint,
        name=name,
        empty_cases=LAYOUTS[index.layout].EMPTY_CASES,
        mask_rule_because=index.mask_rule_because,
        activation_bytes=lambda *asked: model_cost(*asked).activation_bytes,
        model_sizes=model_sizes,
        recipe=content,
        settings=values,
        preset=preset,
    )
    if plan.diffuse:
        make_scheduler(plan.diffuse)  # refused now, not when it is trained
    plan = plan.model_copy(update={"recipe": recipe, "data": plan.data.model_copy(update={"left_out": index.left_out})})
    cases = choose_cases(index.cases, plan.data.empty_cases)
    if plan.diffuse and plan.diffuse.classes:  # a class may have no case that takes part
        there = tuple(name for name in plan.diffuse.classes if any(case.label == name for case in cases))
        plan = plan.model_copy(update={"diffuse": plan.diffuse.model_copy(update={"classes": there})})
    return plan, make_splits(cases, plan.split)


def save_plan(plan: Plan, splits: Splits, place: PlanFolder) -> None:
    write_text(place.splits(plan.name), json.dumps({"folds": splits}, indent=1, ensure_ascii=False) + "\n")
    plan.save(place.plan(plan.name))


def data_root(place: PlanFolder, given: Path | None) -> Path:
    """Where the raw files are: as given, or as noted when the plan was made."""
    if given is not None:
        root = given
    else:
        try:
            root = place.root / json.loads(place.source.read_text(encoding="utf-8"))["root"]
        except (OSError, ValueError, KeyError):
            raise DataError(f"{place.source}: missing or damaged; run `ukan plan` again, or give --data FOLDER") from None
    if not root.is_dir():
        raise DataError(f"{root}: the dataset is not there; give its folder with --data FOLDER")
    return root.resolve()


def read_settings(recipe: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """What --set says, by dotted key; the sizes it may name are those of the model that it, or the recipe, asks for."""
    from ukan.models import model_sizes

    if any(setting.partition("=")[0].strip() == "model.name" for setting in settings):
        raise UserError("--set model.name: the network is chosen by `ukan plan FOLDER --model NAME`")
    return parse_settings(settings, settable_keys(list(model_sizes(_model_of(recipe))), recipe.get("task", "segment")))


def masks_asked(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> Reading:
    """What recipe and settings say of the masks: the index has to know it."""
    said = {**flatten(recipe), **values}
    asked: Reading = {}
    if "data.mask_rule" in said:
        asked["mask_rule"] = said["data.mask_rule"]
    if "data.label_values" in said:
        label_values = said["data.label_values"]
        if not isinstance(label_values, list) or not all(type(value) is int for value in label_values):
            raise UserError(f"data.label_values={label_values}: a list of whole numbers is expected, such as [1,2]")
        asked["label_values"] = label_values
    return asked


def _model_of(recipe: Mapping[str, Any]) -> str:
    default = "diffusion-ukan" if recipe.get("task") == "diffuse" else "ukan"
    return recipe.get("model", {}).get("name", default)


def _with_network(recipe: Mapping[str, Any], model: str | None, size: str | None) -> dict[str, Any]:
    """A recipe with another network, or with what its named sizes set left open; its own network named again keeps all."""
    from ukan.models import find_denoiser, find_model, named_sizes

    name = model or _model_of(recipe)
    (find_denoiser if recipe.get("task") == "diffuse" else find_model)(name)  # refused before the folder is read
    changed, another = dict(recipe), name != _model_of(recipe)
    if another or size:
        changed.pop("published", None)
    if model:
        changed["model"] = {**({} if another else recipe.get("model", {})), "name": model}
        changed["reasons"] = {**recipe.get("reasons", {}), "model.name": "as asked (--model)"}
    if size:
        named = named_sizes(name)
        named_size(named, name, size)  # refused before the folder is read
        # What any size sets: a recipe's as_published would make another network of km-unet's size matched.
        sets = {key for fields in named.values() for key in fields}
        changed["model"] = {key: value for key, value in changed.get("model", {}).items() if key not in sets}
    return changed


def _relative(root: Path, start: Path) -> str:
    try:
        return Path(os.path.relpath(root.resolve(), start.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return root.resolve().as_posix()


def _refuse_another_dataset(place: PlanFolder, root: Path) -> None:
    if not place.source.exists():
        return
    known = (place.root / json.loads(place.source.read_text(encoding="utf-8"))["root"]).resolve()
    if known != root.resolve() and known.is_dir():
        raise UserError(f"{place.root} describes another folder ({known}); give this one a name with --dataset NAME")
