"""`ukan explain`"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import Layout, shell_word
from ukan_cli.evaluate import RunFolder
from ukan_cli.train import Data, Device


def explain(
    run: RunFolder,
    images: Annotated[
        Path | None, typer.Argument(help="A folder of images, or a dataset with masks; the held-out cases by default.")
    ] = None,
    twin: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A second run whose maps stand beside, on the same cases.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Draw the functions of this KAN layer; may be given several times.")
    ] = None,
    fold: Annotated[int | None, typer.Option(help="Look into this fold's network only.")] = None,
    cases: Annotated[int, typer.Option(min=0, help="How many cases are drawn; scores are over all.")] = 6,
    layout: Layout = None,
    device: Device = None,
    data: Data = None,
) -> None:
    """Look inside: learned functions with what enters them, and where the token stages are active, against the masks."""
    from ukan.segment.explain import explain as stage

    with show.bar("looking") as tell:
        about, place, failed = stage(
            run,
            images,
            twin=twin,
            layers=layer or (),
            fold=fold,
            cases=cases,
            layout=layout,
            device=device,
            data=data,
            on_progress=tell,
        )
    groups = f" in {about['groups']} groups" if about["masks"] else ": maps and functions only, no plausibility"
    print(f"{about['what']}: {about['images']}{groups}")
    if about["left_out"]:
        print(f"left out: {len(about['left_out'])} cases that the networks may have been trained on, or twins of such")
    if about["masks"]:
        show.plausibility(about)
    if about["layers"]:
        show.inputs(about)
    else:
        print("the network has no KAN layer: no functions are drawn")
    written = [place.record, *(path for path in (place.functions, place.inputs, place.plausibility) if path.exists())]
    print(f"written: {', '.join(map(str, written + [place.maps] * bool(about['drawn'])))}")
    print(f"next: ukan report {shell_word(run)}")
    for line in failed:
        print(f"ukan: {line}", file=sys.stderr)
    if failed:
        print(f"ukan: {len(failed)} image(s) failed", file=sys.stderr)
        raise typer.Exit(3)
