"""`ukan import-official`"""

from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import shell_word


def import_official(
    file: Annotated[Path, typer.Argument(help="The model.pth that the public repository of U-KAN or KM-UNet trained.")],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its config.yml; the one beside it by default.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The dataset it was trained on, to score what was held out.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run folder; runs/<name>-official by default.")
    ] = None,
    classes: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Names of the classes, in their order.")] = None,
) -> None:
    """Make a run folder of a checkpoint of the public U-KAN or KM-UNet repository, to predict with it and to score it.

    The file is read without running any code in it. Images are read, stretched and normalised as these repositories do.
    """
    from ukan.segment.import_official import TITLES
    from ukan.segment.import_official import import_official as stage

    names = classes.split(",") if classes is not None else None
    with show.bar("reading") as tell:
        made = stage(file, config=config, data=data, run=run, classes=names, on_progress=tell)
    plan, root = made.plan, made.folder.root
    sizes, (height, width) = plan.model.sizes, plan.data.input_size
    widths, layers = ", ".join(map(str, sizes["widths"])), ", ".join(sizes["kan_layers"])
    print(
        f"{TITLES[plan.model.name]}, widths {widths}, layers {layers}, at {width}x{height}: {', '.join(plan.data.classes)}"
    )
    for note in made.environment()["imported"]["notes"]:
        print(f"  {note}")
    print(f"written: {root}")
    print(f"next: ukan predict {shell_word(root)} IMAGES MASKS")
    print(f"      ukan evaluate {shell_word(root)}{'' if data else ' --on FOLDER'}")
