"""`ukan demo`"""

import os
import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

IMAGES, NEW_IMAGES = 96, 8
# A small U-KAN on small pictures: minutes on two cores. Everything else is what the planner chooses.
SETTINGS = (
    "data.input_size=[64,64]",
    "model.widths=[64,96,128]",
    "split.folds=3",
    "train.epochs=30",
    "train.validate_every=5",
)


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("ukan-demo"),
    kind: Annotated[
        str, typer.Option(help="What to make up: ultrasound, histology, endoscopy or dermoscopy.")
    ] = "ultrasound",
) -> None:
    """Everything on made-up pictures, in minutes: plan, train, evaluate, predict, report.

    Shows each command as one would type it. Interrupted, the same command goes on.
    """
    import numpy as np

    from ukan.data.phantoms import PHANTOMS
    from ukan.errors import UserError, nearest
    from ukan.imaging import write_image

    if kind not in PHANTOMS:
        raise UserError(f"--kind {kind}: no such pictures. {nearest(kind, list(PHANTOMS))}")
    phantom = PHANTOMS[kind]
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    name = "phantoms" if kind == "ultrasound" else f"phantoms-{kind}"  # every kind may be shown in one folder
    data, new = f"data_raw/{name}", f"new_images/{name}"
    phantom.write(Path(data), IMAGES, 0)
    for number in range(NEW_IMAGES):
        image, _ = phantom.make(np.random.default_rng([1, number]), 128, 160)
        write_image(Path(new, f"scan {number}.png"), image)

    regex = f" --group-regex {shlex.quote(phantom.group_regex)}" if phantom.group_regex else ""
    settings = " ".join(f"--set {setting}" for setting in (*SETTINGS, *phantom.settings))
    run = f"runs/{name}-ukan"
    _do(f"check {data} --dataset {name}{regex}")
    _do(f"plan {data} --dataset {name}{regex} {settings}")
    _do(f"train plans/{name}/ukan.yaml")
    _do(f"evaluate {run}")
    if phantom.has_test:
        _do(f"evaluate {run} --test")
    _do(f"predict {run} {new} masks/{name} --overlay")
    _do(f"report {run}")
    print(f"\nall of it took {time.monotonic() - began:.0f} s; the report: {Path(run, 'report.html').resolve()}")


def _do(words: str) -> None:
    """Show a command as one would type it, and do it."""
    from ukan_cli.main import app

    print(f"\n$ ukan {words}", flush=True)
    name, *options = shlex.split(words)
    commands: Any = typer.main.get_command(app)
    with commands.commands[name].make_context(name, options) as context:
        context.command.invoke(context)
