"""`ukan export-nnunet`"""

from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import Folder, Layout, shell_word


def export_nnunet(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="Where to write: nnU-Net's nnUNet_raw.")],
    number: Annotated[int, typer.Option("--id", help="The dataset's number there.")] = 501,
    layout: Layout = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan's .yaml: its cases and classes, and its folds as splits_final.json.")
    ] = None,
) -> None:
    """Write a dataset as a raw dataset of nnU-Net (version 2)."""
    from ukan.segment.export import export_nnunet as stage

    with show.bar("exporting") as tell:
        done = stage(folder, out, number=number, layout=layout, plan=plan, on_progress=tell)
    print(f"written: {done.folder}  ({done.train} cases{f', {done.test} of the official test part' if done.test else ''})")
    if done.splits:
        print(f"the plan's folds: copy splits_final.json to nnUNet_preprocessed/{done.folder.name}/ before training")
    else:
        print("nnU-Net will make folds at random, blind to patients and sequences; --plan hands it the grouped ones")
    print(f"next: nnUNet_raw={shell_word(out)} nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity")
