"""`ukan plan`"""

from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import Dataset, Folder, Layout, print_found, shell_word


def plan(
    folder: Folder,
    recipe: Annotated[
        str | None, typer.Option(help="A shipped recipe, or a .yaml of your own, instead of own decisions.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the plan, e.g. train.epochs=5."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The plan's name; the recipe's or model's by default.")] = None,
    budget_gib: Annotated[float | None, typer.Option(help="Memory a training step may take, in GiB.")] = None,
    layout: Layout = None,
    dataset: Dataset = None,
) -> None:
    """Fingerprint a dataset and write a plan that explains itself, with its folds."""
    from ukan.plan import flatten
    from ukan.segment.prepare import plan_folder

    with show.bar("reading") as tell:
        made, path, index = plan_folder(
            folder,
            recipe=recipe,
            settings=settings or [],
            name=name,
            budget_gib=budget_gib,
            layout=layout,
            dataset=dataset,
            on_progress=tell,
        )
    print_found(index)
    notes = sum(problem.level == "warning" for problem in index.problems)
    if notes:
        print(f"  {notes} warnings: `ukan check {shell_word(folder)}` shows them")
    values = flatten(made.model_dump(mode="json", exclude={"reasons"}))
    print()
    show.table(("field", "value", "because"), [(key, values[key], because) for key, because in made.reasons.items()])
    if made.split.kind == "published":
        print("\nThe published split is blind to groups: near-duplicates may be on both sides of it.")
    print(f"\nwritten: {path}\nnext: ukan train {shell_word(path)}   (--dry-run says first what it takes)")
