"""`ukan ablate`"""

from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import Dataset, Folder, GroupRegex, Groups, Layout, SkipBad
from ukan_cli.train import Device


def ablate(
    folder: Folder,
    set_name: Annotated[
        str,
        typer.Argument(metavar="SET", help="ukan-table4, -table5, -table6, kan-thesis, km-unet, or a .yaml of your own."),
    ],
    only: Annotated[
        list[str] | None, typer.Option(metavar="VARIANT", help="Train only this variant; may be given several times.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a field of all variants' plans, e.g. train.epochs=16."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What plans, runs and table are named after; the set by default.")] = None,
    fold: Annotated[list[int] | None, typer.Option(help="Train only this fold; may be given several times.")] = None,
    device: Device = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare samples; the result is the same.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop in good order after, e.g., 90m or 8h.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Train nothing: the table of what is finished.")] = False,
    layout: Layout = None,
    dataset: Dataset = None,
    skip_bad: SkipBad = False,
    group_regex: GroupRegex = None,
    groups: Groups = None,
) -> None:
    """Run a set of recipes on one dataset, and compare them in one table.

    To resume after a stop of any kind, run the same command again; what is finished is not done twice.
    """
    from ukan.training.interrupt import parse_time

    max_time_s = parse_time(max_time)
    from ukan.report.table_page import write_table_page
    from ukan.segment.ablate import ablate as stage
    from ukan.segment.ablation_table import shown

    made = stage(
        folder,
        set_name,
        only=only or [],
        settings=settings or [],
        name=name,
        folds=fold,
        device=device,
        workers=workers,
        max_time_s=max_time_s,
        table_only=table,
        bar=show.bar,
        layout=layout,
        dataset=dataset,
        skip_bad=skip_bad,
        group_regex=group_regex,
        groups=groups,
    )
    if made.lines:
        columns, rows = shown(made.lines)
        write_table_page(made.place.page, made.title, made.notes, columns, rows)
        print()
        show.table(columns, rows)
        print()
        for note in made.notes:
            print(note)
        print(f"written: {made.place.page}, {made.place.table}")
    else:
        print("no variant is finished, so there is no table yet")
    if made.stopped:
        print(f"stopped by --max-time {made.stopped}; the same command goes on")
