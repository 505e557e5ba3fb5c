"""`ukan predict`"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.evaluate import RunFolder
from ukan_cli.train import Device


class Kind(StrEnum):
    image = "image"
    npz = "npz"


def predict(
    run: RunFolder,
    source: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Images, volumes, folders of them, or .txt files that list them."),
    ],
    output: Annotated[Path, typer.Argument(help="The folder for the masks.")],
    fold: Annotated[list[int] | None, typer.Option(help="Use only this fold; may be given several times.")] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over the flips of training; as many times slower.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw each mask over its image.")] = False,
    probabilities: Annotated[
        Kind | None, typer.Option(help="Also write probabilities: 16-bit PNG (NIfTI for volumes), or npz.")
    ] = None,
    device: Device = None,
) -> None:
    """Masks of the original size for any images; folds averaged, masks already there left alone.

    predictions.csv holds for each image the areas found, the Dice to expect and whether it is unlike the training images.
    Exits with 3 where some inputs could not be read.
    """
    from ukan.segment.predict import predict as stage

    with show.bar("predicting") as tell:
        done = stage(
            run,
            source,
            output,
            folds=fold,
            tta=tta,
            overlay=overlay,
            probabilities=probabilities.value if probabilities else None,
            device=device,
            on_progress=tell,
        )
    print(f"{done.written} written to {output}, {done.skipped} already there")
    if done.unfamiliar:
        print(f"{done.unfamiliar} unlike the training images: look at them ('unfamiliar' in {output / 'predictions.csv'})")
    for line in done.failed:
        print(f"ukan: {line}", file=sys.stderr)
    if done.failed:
        print(f"ukan: {len(done.failed)} input(s) failed", file=sys.stderr)
        raise typer.Exit(3)
