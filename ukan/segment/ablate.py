"""`ukan ablate`: a set of recipes on one dataset, variant by variant, resumed where it stands, and one table of them all."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from ukan.data.index import Reading
from ukan.errors import UserError, nearest
from ukan.models.cost import Cost, model_cost
from ukan.paths import RUNS, AblationFolder, PlanFolder, RunFolder, slug
from ukan.plan import Plan
from ukan.segment.ablation_table import Line, Planned, compare, describe, write_table
from ukan.segment.evaluate import evaluate
from ukan.segment.train import train
from ukan.stage.prepare import check_folder, make_plan, masks_asked, read_settings, refuse_problems, save_plan
from ukan.stage.recipes import RecipeSet, Variant, load_set

Progress = Callable[[int, int], None]
Bar = Callable[[str], AbstractContextManager[Progress | None]]


@dataclass(frozen=True)
class Ablation:
    """What a set of recipes came to so far."""

    title: str
    lines: list[Line]
    """The variants that are finished."""
    notes: list[str]
    """What is to be known of them."""
    missing: list[str]
    """The others."""
    stopped: str
    """Where --max-time stopped it, if it did."""
    place: AblationFolder


def ablate(
    folder: Path,
    set_name: str,
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    name: str | None = None,
    folds: Sequence[int] | None = None,
    device: str | None = None,
    workers: int | None = None,
    max_time_s: float | None = None,
    table_only: bool = False,
    bar: Bar = lambda title: nullcontext(),
    say: Callable[[str], None] = print,
    **reading: Unpack[Reading],
) -> Ablation:
    """Plan, train and score the variants of a set, or `only` some, and write the table of all that are finished.

    The same call again goes on where it stopped and does nothing twice. All variants are planned before one is trained:
    raises UserError where one is impossible, would be scored on other cases than the rest, or has a run of another plan.
    `settings` are --set's of `ukan plan`, for all variants; the rest is as for `plan_folder`, `train` and `evaluate`. `bar`
    gives, for a title, a block with a function of (done, total).
    """
    deadline_s = None if max_time_s is None else time.monotonic() + max_time_s
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "ukan ablate is one process; make each variant's plan with `ukan plan FOLDER --recipe SET/VARIANT`, train that "
            "by several, then `ukan ablate` scores and compares"
        )
    chosen = load_set(set_name)
    for variant in only:
        if variant not in chosen.variants:
            raise UserError(f"--only {variant}: the set has no such variant. {nearest(variant, list(chosen.variants))}")
    name = slug(name) if name else chosen.name
    planned, place = _plan_all(folder, chosen, set_name, name, settings, bar, reading)
    plan = planned[0].plan
    folds = sorted(set(folds)) if folds else list(range(plan.split.count))
    stopped = ""
    if not table_only:
        wanted = [p for p in planned if not only or p.variant.name in only]
        for p in wanted:
            _refuse_another_plan(p)
        for p in wanted:
            save_plan(p.plan, p.splits, place)
        options: dict[str, Any] = {"device": device, "data": folder}
        stopped = _run(wanted, place, folds, workers, deadline_s, bar, say, options)
    finished = [p for p in planned if p.trained(folds) and not p.begun_otherwise() and p.summary()]
    missing = [p.variant.name for p in planned if p not in finished]
    lines = compare(finished, folds)
    notes = describe(lines, plan, chosen.about, settings, missing) if lines else []
    made = AblationFolder(RUNS / f"{plan.data.dataset}-{name}")
    if lines:
        write_table(lines, made)
    return Ablation(f"{plan.data.dataset}: {name}", lines, notes, missing, stopped, made)


def _run(
    wanted: Sequence[Planned],
    place: PlanFolder,
    folds: Sequence[int],
    workers: int | None,
    deadline_s: float | None,
    bar: Bar,
    say: Callable[[str], None],
    options: dict[str, Any],
) -> str:
    """Train and score what is not. Says where the time was over, nothing where all is done."""
    for number, p in enumerate(wanted, start=1):
        variant = p.variant.name
        trained = p.trained(folds)
        say(f"variant {number} of {len(wanted)}: {variant}{', trained' if trained else ''}")
        if not trained:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return f"before variant {variant}"
            with bar("preparing") as tell:
                done = train(
                    place.plan(p.plan.name), folds=folds, workers=workers, max_time_s=left_s, on_progress=tell, **options
                )
            for fold, outcome in done.outcomes.items():
                if not outcome.finished:
                    return f"in variant {variant}, fold {fold}, at step {outcome.step}"
        if p.summary() is None:
            with bar(f"scoring {variant}") as tell:
                evaluate(p.run.root, on_progress=tell, **options)
    return ""


def _plan_all(
    folder: Path, chosen: RecipeSet, set_name: str, name: str, settings: Sequence[str], bar: Bar, reading: Reading
) -> tuple[list[Planned], PlanFolder]:
    """Every variant's plan, not yet written. The folder is read once."""
    variants = list(chosen.variants.values())
    values = [read_settings(variant.recipe, settings) for variant in variants]
    for key in values[0]:
        if any(key in variant.changes for variant in variants):
            raise UserError(f"--set {key}: the variants of {set_name} differ in just this; make a set of your own instead")
    asked = [masks_asked(variant.recipe, said) for variant, said in zip(variants, values, strict=True)]
    for variant, masks in zip(variants, asked, strict=True):
        _need_same(variants[0], variant, asked[0], masks)
    with bar("reading") as tell:
        index, place = check_folder(folder, on_progress=tell, **(reading | asked[0]))
    refuse_problems(folder, index, place)
    made = []
    for variant, said in zip(variants, values, strict=True):
        recipe = f"{set_name}/{variant.name}"
        plan, splits = make_plan(index, f"{name}-{variant.name}", recipe=recipe, content=variant.recipe, values=said)
        made.append((variant, plan, splits))
        _need_same(variants[0], variant, (made[0][2], made[0][1].data.classes), (splits, plan.data.classes))
    return [Planned(*one, _cost(one[1]), RunFolder(RUNS / f"{one[1].data.dataset}-{one[1].name}")) for one in made], place


def _cost(plan: Plan) -> Cost:
    return model_cost(plan.model.name, plan.data.channels, plan.data.outputs, plan.model.sizes, plan.data.input_size)


def _need_same(first: Variant, other: Variant, of_first: object, of_other: object) -> None:
    if of_first != of_other:
        raise UserError(
            f"variants {first.name} and {other.name} differ in cases, folds or classes, so that their scores could not be "
            "compared; give all variants the same split, data.empty_cases, data.mask_rule, ... (`common` in the set's file)"
        )


def _refuse_another_plan(p: Planned) -> None:
    if difference := p.begun_otherwise():
        more = f" and {len(difference) - 3} more" if len(difference) > 3 else ""
        raise UserError(
            f"{p.run.root} was begun with another plan (then -> now: {'; '.join(difference[:3])}{more}); "
            "give what it was begun with, or --name NAME for an ablation beside it"
        )
