"""`ukan plan`"""

from enum import StrEnum
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import Dataset, Folder, GroupRegex, Groups, Layout, SkipBad, print_found, shell_word


class Preset(StrEnum):
    smoke = "smoke"
    fast = "fast"
    full = "full"


class Task(StrEnum):
    segment = "segment"
    diffuse = "diffuse"


def plan(
    folder: Folder,
    recipe: Annotated[
        str | None, typer.Option(help="A shipped recipe, or a .yaml of your own, instead of own decisions.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The network, also in place of a recipe's: docs/models.md names them all.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="One of the network's named sizes, such as paper or matched.")] = None,
    preset: Annotated[
        Preset, typer.Option(help="How much training: does every step run, a first impression, or all of it.")
    ] = Preset.full,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the plan, e.g. train.epochs=5."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The plan's name; the recipe's or model's by default.")] = None,
    task: Annotated[Task | None, typer.Option(help="Segment, the default, or learn to make such images.")] = None,
    budget_gib: Annotated[float | None, typer.Option(help="Memory a training step may take, in GiB.")] = None,
    layout: Layout = None,
    dataset: Dataset = None,
    skip_bad: SkipBad = False,
    group_regex: GroupRegex = None,
    groups: Groups = None,
) -> None:
    """Fingerprint a dataset and write a plan that explains itself, with its folds."""
    from ukan.plan import flatten
    from ukan.stage.prepare import plan_folder

    with show.bar("reading") as tell:
        made, path, index = plan_folder(
            folder,
            recipe=recipe,
            model=model,
            size=size,
            settings=settings or [],
            name=name,
            budget_gib=budget_gib,
            preset=preset.value,
            task=task.value if task else None,
            layout=layout,
            dataset=dataset,
            skip_bad=skip_bad,
            group_regex=group_regex,
            groups=groups,
            on_progress=tell,
        )
    print_found(index)
    notes = sum(problem.level == "warning" for problem in index.problems)
    if notes:
        print(f"  {notes} warnings: `ukan check {shell_word(folder)}` shows them")
    values = flatten(made.model_dump(mode="json", exclude={"reasons"}))
    print()
    show.table(("field", "value", "because"), [(key, values[key], because) for key, because in made.reasons.items()])
    if made.split.kind in ("published", "random"):
        kind = "published" if made.split.kind == "published" else "random"
        print(f"\nThe {kind} split is blind to groups: near-duplicates may be on both sides of it.")
    print(f"\nwritten: {path}\nnext: ukan train {shell_word(path)}   (--dry-run says first what it takes)")
