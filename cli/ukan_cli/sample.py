"""`ukan sample`"""

import os
from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import shell_word
from ukan_cli.evaluate import RunFolder
from ukan_cli.train import Data, Device


def sample(
    run: RunFolder,
    output: Annotated[Path, typer.Argument(help="The folder for the images.")],
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="How many images; 64 by default, or one for each of --masks.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the first image; the others' follow.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Steps of the scheduler an image, instead of the plan's.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="DDIM, DDPM, DPM-Solver++, UniPC, Euler or another of diffusers'.")
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How far to follow class or mask; 1 as it is, more follows closer.")
    ] = None,
    label: Annotated[str | None, typer.Option("--class", help="Draw this class only.")] = None,
    masks: Annotated[Path | None, typer.Option(help="A folder of masks to draw images for, in turn.")] = None,
    fold: Annotated[int, typer.Option(min=0, help="The fold whose network draws.")] = 0,
    device: Device = None,
    data: Data = None,
) -> None:
    """Images from noise: image i depends on its seed alone.

    The same command goes on where it was interrupted, and draws further images where more are asked for.
    """
    from ukan.diffuse.sample import sample as stage

    with show.bar("drawing") as tell:
        done = stage(
            run,
            output,
            count=count,
            seed=seed,
            fold=fold,
            steps=steps,
            scheduler=scheduler,
            guidance=guidance,
            label=label,
            masks=masks,
            device=device,
            data=data,
            on_progress=tell,
        )
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return
    print(f"{done.written} images written to {done.folder.images}, {done.skipped} already there")
    if done.folder.grid.exists():  # images of other channels than 1 and 3 have none
        print(f"the first at a glance: {done.folder.grid}")
    print(f"next: ukan fid {shell_word(run)} {shell_word(output)}")
