"""From a raw folder to plans/<dataset>/: `ukan check` and `ukan plan`."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from ukan.data.duplicates import save_thumbnails
from ukan.data.index import Index, Reading, index_folder, save_index
from ukan.data.layouts import LAYOUTS
from ukan.data.problems import write_problems
from ukan.data.splits import choose_cases, make_splits
from ukan.errors import DataError, UserError, nearest
from ukan.paths import PLANS, PlanFolder, slug, write_text
from ukan.plan import Plan, flatten, parse_settings, read_yaml, settable_keys
from ukan.planning.segment import PresetName, plan_segment

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
    settings: Sequence[str] = (),
    name: str | None = None,
    budget_gib: float | None = None,
    preset: PresetName = "full",
    on_progress: Progress | None = None,
    **reading: Unpack[Reading],
) -> tuple[Plan, Path, Index]:
    """Fingerprint a raw folder and write a plan with its folds. Returns the plan, its path and the index.

    `reading` says how the folder is read, see `Reading`; what settings and recipe say of masks goes before it. Raises
    DataError where files cannot be used: they are listed in problems.csv.
    """
    from ukan.models import model_sizes
    from ukan.models.cost import model_cost

    content = load_recipe(recipe) if recipe else {}
    model = _model_asked(content, settings)
    values = parse_settings(settings, settable_keys(list(model_sizes(model))))
    if budget_gib is not None:
        values["budget_gib"] = budget_gib
    reading |= _masks_asked({**flatten(content), **values})
    index, place = check_folder(folder, on_progress=on_progress, **reading)
    if index.errors or index.fingerprint is None:
        first = index.errors[0]
        raise DataError(
            f"{folder}: {len(index.errors)} problem(s) keep cases from being used, all listed in {place.problems}; "
            f"the first: {first.where}: {first.what} ({first.do}). --skip-bad leaves such cases out"
        )
    plan_name = slug(name or recipe or model)
    plan = plan_segment(
        index.fingerprint,
        name=plan_name,
        empty_cases=LAYOUTS[index.layout].EMPTY_CASES,
        mask_rule_because=index.mask_rule_because,
        activation_bytes=lambda *asked: model_cost(*asked).activation_bytes,
        model_sizes=model_sizes,
        recipe=content,
        settings=values,
        preset=preset,
    )
    plan = plan.model_copy(update={"recipe": recipe, "data": plan.data.model_copy(update={"left_out": index.left_out})})
    splits = make_splits(choose_cases(index.cases, plan.data.empty_cases), plan.split)
    write_text(place.splits(plan_name), json.dumps({"folds": splits}, indent=1, ensure_ascii=False) + "\n")
    plan.save(place.plan(plan_name))
    return plan, place.plan(plan_name), index


def recipes() -> dict[str, Path]:
    """Every shipped recipe by name."""
    package = Path(__file__).resolve().parent.parent
    root = next(path for path in (package / "recipes", package.parent / "plans" / "recipes") if path.is_dir())
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def load_recipe(name: str) -> dict[str, Any]:
    """A shipped recipe, or a file of one's own."""
    known = recipes()
    path = known.get(name) or (Path(name) if name.endswith(".yaml") and Path(name).is_file() else None)
    if path is None:
        raise UserError(f"--recipe {name}: no such recipe. {nearest(name, list(known))}")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a recipe")
    allowed = [*settable_keys(), "protocol", "published", "task"]
    for key in flatten({key: value for key, value in content.items() if key != "reasons"}):
        if key not in allowed and not key.startswith("model."):
            raise UserError(f"{path}: {key}: no such field. {nearest(key, allowed)}")
    return content


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


def _model_asked(recipe: dict[str, Any], settings: Sequence[str]) -> str:
    for setting in settings:
        if setting.startswith("model.name="):
            return setting.partition("=")[2].strip()
    return recipe.get("model", {}).get("name", "ukan")


def _masks_asked(said: Mapping[str, Any]) -> Reading:
    """What recipe and settings say of the masks: the index has to know it."""
    asked: Reading = {}
    if "data.mask_rule" in said:
        asked["mask_rule"] = said["data.mask_rule"]
    if "data.label_values" in said:
        values = said["data.label_values"]
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            raise UserError(f"data.label_values={values}: a list of whole numbers is expected, such as [1,2]")
        asked["label_values"] = values
    return asked


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
