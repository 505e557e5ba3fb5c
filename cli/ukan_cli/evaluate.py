"""`ukan evaluate`"""

from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import Layout, shell_word
from ukan_cli.train import Data, Device

RunFolder = Annotated[Path, typer.Argument(help="The run folder.")]


def evaluate(
    run: RunFolder,
    test: Annotated[
        bool, typer.Option("--test", help="Score the official test part, once, by the mean of the finished folds.")
    ] = False,
    on: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Score another dataset, cases seen in training left out.")
    ] = None,
    layout: Layout = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over the flips of training; as many times slower.")] = False,
    device: Device = None,
    data: Data = None,
) -> None:
    """Score every held-out case by the fold that never saw it; or an official test part; or another dataset.

    Of a diffusion run: how well noise is told from images never trained on.
    """
    from ukan.tasks import evaluate as stage

    with show.bar("scoring") as tell:
        summary, place = stage(run, test=test, on=on, layout=layout, tta=tta, device=device, data=data, on_progress=tell)
    if summary.get("task") == "diffuse":
        show.denoising(summary)
        print(f"written: {place.metrics}, {place.summary}")
        print(f"next: ukan sample {shell_word(run)} OUTPUT -n 2048")
        return
    print(
        f"protocol {summary['protocol']}, {summary['what']}: {summary['scored']} scores of {summary['cases']} cases "
        f"in {summary['groups']} groups, at their own sizes"
    )
    if summary["folds_missing"]:
        print(f"folds not trained, their cases not scored: {', '.join(map(str, summary['folds_missing']))}")
    if summary["left_out"]:
        print(f"left out: {len(summary['left_out'])} cases that the networks may have been trained on, or twins of such")
    if not summary["training_known"]:
        print("which images the network was trained on is not known: any of these may be among them, and score too well")
    show.scores(summary)
    print(f"written: {place.metrics}, {place.summary}, {place.predictions}")
    if summary["training_known"]:
        print(f"next: ukan report {shell_word(run)}")
