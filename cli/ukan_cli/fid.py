"""`ukan fid`"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.train import Data, Device


class Protocol(StrEnum):
    honest = "honest"
    paper = "paper"


def fid(
    real: Annotated[Path, typer.Argument(help="A folder of real images, or a diffusion run: its held-out images.")],
    fake: Annotated[Path, typer.Argument(help="A folder of generated images.")],
    protocol: Annotated[
        Protocol | None, typer.Option(help="honest by default; both where REAL is a run that holds images out.")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="inception (default) or run:FOLDER[:FOLD]; may be given several times."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inception's weights; fetched or found where torch keeps them.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="Cut both sides to their largest centred square and shrink it to this.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write; FAKE by default, or fid/ in the run.")
    ] = None,
    device: Device = None,
    data: Data = None,
) -> None:
    """How far generated images are from real ones (KID, FID, precision, recall), and whether they repeat training images."""
    from ukan.diffuse.fid import compare_images

    with show.bar("looking") as tell:
        record, folder = compare_images(
            real,
            fake,
            features=features or ["inception"],
            weights=weights,
            protocol=protocol.value if protocol else None,
            size=size,
            out=out,
            device=device,
            data=data,
            on_progress=tell,
        )
    show.fidelity(record)
    from ukan.report.diffusion_page import write_fid_page

    page = write_fid_page(folder)
    print(f"written: {folder / 'fid.json'}, {page}")
