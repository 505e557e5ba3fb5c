"""`ukan predict`"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.evaluate import RunFolder
from ukan_cli.train import Device


def predict(
    run: RunFolder,
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, a folder or a tree of folders.")],
    output: Annotated[Path, typer.Argument(help="The folder for the masks.")],
    fold: Annotated[list[int] | None, typer.Option(help="Use only this fold; may be given several times.")] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw each mask over its image.")] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probabilities, 16 bit.")] = False,
    device: Device = None,
) -> None:
    """Masks of the original size for any images; folds averaged, masks already there left alone.

    Exits with 3 where some inputs could not be read.
    """
    from ukan.segment.predict import predict as stage

    with show.bar("predicting") as tell:
        done = stage(
            run,
            source,
            output,
            folds=fold,
            overlay=overlay,
            probabilities=probabilities,
            device=device,
            on_progress=tell,
        )
    print(f"{done.written} written to {output}, {done.skipped} already there")
    for line in done.failed:
        print(f"ukan: {line}", file=sys.stderr)
    if done.failed:
        print(f"ukan: {len(done.failed)} input(s) failed", file=sys.stderr)
        raise typer.Exit(3)
