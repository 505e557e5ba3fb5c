"""Shipped recipes, plans without a dataset, and sets of recipes that differ in a few fields: plans/recipes/."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ukan.errors import UserError, nearest
from ukan.paths import slug
from ukan.plan import flatten, read_yaml, settable_keys, unflatten

_SETS = "sets/"
_RULES = ("protocol", "published", "task")
"""What a recipe says of the whole plan."""
SCORES = ("iou", "dice")
"""Of what a row of a published table says, the scores that ours are laid beside."""
_PUBLISHED = (*SCORES, "gflops", "mnist_accuracy")


class Variant(NamedTuple):
    """One recipe of a set."""

    name: str
    recipe: dict[str, Any]
    """The whole recipe: base, what the set says of all, what this variant changes."""
    changes: frozenset[str]
    """The fields that make it a variant."""
    published: dict[str, float]
    """Its row of the published table."""


class RecipeSet(NamedTuple):
    name: str
    about: str
    """What its table shows, and what the published numbers beside it are worth."""
    variants: dict[str, Variant]
    """By name; the first is what the others are compared with."""


def recipes() -> dict[str, Path]:
    """Every shipped recipe by name."""
    return {name: path for name, path in _shipped().items() if not name.startswith(_SETS)}


def recipe_sets() -> dict[str, Path]:
    """Every shipped set of recipes by name."""
    return {name.removeprefix(_SETS): path for name, path in _shipped().items() if name.startswith(_SETS)}


def load_recipe(name: str) -> dict[str, Any]:
    """A shipped recipe, a variant of a set (SET/VARIANT), or a file of one's own."""
    path = _find(name, recipes())
    if path is None:
        return _variant(name)
    content = _read(path)
    if "variants" in content:
        raise UserError(f"--recipe {name}: a set of recipes; `ukan ablate FOLDER {name}` runs it")
    keys = flatten({key: value for key, value in content.items() if key != "reasons"})
    # Sizes of the network are the network's to check.
    _refuse_unknown(
        path,
        [key for key in keys if not key.startswith("model.")],
        [*settable_keys(task=content.get("task", "segment")), *_RULES],
    )
    return content


def load_set(name: str) -> RecipeSet:
    """A shipped set of recipes, or a file of one's own. Every field that a variant changes is one that its plan has."""
    path = _find(name, recipe_sets())
    if path is None:
        raise UserError(f"{name}: no such set of recipes. {nearest(name, list(recipe_sets()))}")
    content = _read(path)
    for key in content:
        if key not in (known := ["recipe", "about", "common", "variants"]):
            raise UserError(f"{path}: {key}: no such field of a set. {nearest(str(key), known)}")
    named = content.get("variants")
    if not isinstance(named, dict) or not named:
        raise UserError(f"{path}: a set has variants, each a name and what it changes; `variants` holds none")
    base = load_recipe(content["recipe"]) if "recipe" in content else {}
    if base.get("task", "segment") != "segment":
        raise UserError(
            f"{path}: {content['recipe']} is of the task {base['task']}; sets compare segmentations, "
            "so make a plan of each with `ukan plan --set` and judge them by `ukan fid`"
        )
    common = content.get("common") or {}
    made = RecipeSet(slug(path.stem), str(content.get("about", "")).strip(), {})
    for variant, changes in named.items():
        if not isinstance(variant, str) or slug(variant) != variant:
            raise UserError(f"{path}: {variant}: a variant's name is of small letters, digits and dashes")
        for said in (common, changes or {}):
            if not isinstance(said, dict):
                raise UserError(f"{path}: {variant}: fields and values are expected, got {said!r}")
        made.variants[variant] = _make(variant, base, common, changes or {}, made.name, f"{path}: {variant}")
    return made


def _make(
    variant: str, base: Mapping[str, Any], common: Mapping[str, Any], changes: Mapping[str, Any], of: str, where: str
) -> Variant:
    from ukan.models import model_sizes

    for_all = flatten(common)
    own = flatten({key: value for key, value in changes.items() if key != "published"})
    fields = flatten({key: value for key, value in base.items() if key not in (*_RULES, "reasons")}) | for_all | own
    _refuse_unknown(where, [*for_all, *own], settable_keys(list(model_sizes(fields.get("model.name", "ukan")))))
    published = _row(changes.get("published") or {}, where)
    reasons = {
        **base.get("reasons", {}),
        **dict.fromkeys(for_all, f"for all variants of the set {of}"),
        **dict.fromkeys(own, f"what makes the variant {variant} of the set {of}"),
    }
    recipe = {key: base[key] for key in _RULES if key in base} | unflatten(fields)
    recipe |= {"published": {key: published[key] for key in SCORES if key in published}, "reasons": reasons}
    return Variant(variant, recipe, frozenset(own), published)


def _shipped() -> dict[str, Path]:
    package = Path(__file__).resolve().parent.parent
    root = next(path for path in (package / "recipes", package.parent / "plans" / "recipes") if path.is_dir())
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def _find(name: str, known: Mapping[str, Path]) -> Path | None:
    return known.get(name) or (Path(name) if name.endswith(".yaml") and Path(name).is_file() else None)


def _variant(name: str) -> dict[str, Any]:
    """SET/VARIANT as a recipe; what else a name that is no recipe's may have meant."""
    sets = recipe_sets()
    whole = name.removeprefix(_SETS)
    if whole in sets:
        raise UserError(f"--recipe {name}: a set of recipes; `ukan ablate FOLDER {whole}` runs it")
    of, _, variant = whole.rpartition("/")
    if _find(of, sets) is None:
        raise UserError(f"--recipe {name}: no such recipe. {nearest(name, [*recipes(), *sets])}")
    variants = load_set(of).variants
    if variant not in variants:
        raise UserError(f"--recipe {name}: the set has no such variant. {nearest(variant, list(variants))}")
    return variants[variant].recipe


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a recipe")
    return content


def _refuse_unknown(where: Path | str, keys: Iterable[str], allowed: list[str]) -> None:
    for key in keys:
        if key not in allowed:
            raise UserError(f"{where}: {key}: no such field. {nearest(key, allowed)}")


def _row(published: Any, where: str) -> dict[str, float]:
    if not isinstance(published, dict):
        raise UserError(f"{where}: published: names and numbers are expected, got {published!r}")
    for key, value in published.items():
        if key not in _PUBLISHED:
            raise UserError(f"{where}: published.{key}: no such number. {nearest(str(key), list(_PUBLISHED))}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{where}: published.{key}: a number is expected, got {value!r}")
    return {key: float(value) for key, value in published.items()}
