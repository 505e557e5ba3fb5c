"""`ukan demo`"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ukan_cli import check, evaluate, plan, predict, report, train

IMAGES, NEW_IMAGES = 96, 8
# A small U-KAN on small pictures: minutes on two cores. Everything else is what the planner chooses.
SETTINGS = [
    "data.input_size=[64,64]",
    "model.widths=[64,96,128]",
    "split.folds=3",
    "train.epochs=30",
    "train.validate_every=5",
]


def demo(folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("ukan-demo")) -> None:
    """Everything on made-up ultrasound, in minutes: plan, train, evaluate, predict, report.

    Shows each command as one would type it. Interrupted, the same command goes on.
    """
    import numpy as np

    from ukan.data.phantoms import make_ultrasound, write_ultrasound
    from ukan.imaging import write_image

    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    data, new = Path("data_raw/phantoms"), Path("new_images")
    write_ultrasound(data, IMAGES, seed=0)
    for number in range(NEW_IMAGES):
        image_HW, _ = make_ultrasound(np.random.default_rng([1, number]), 128, 160)
        write_image(new / f"scan {number}.png", image_HW)
    run = Path("runs/phantoms-ukan")
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    _show("check", str(data))
    check.check(data, dataset="phantoms")
    _do(plan.plan, f"plan {data} {' '.join(words)}", data, settings=SETTINGS, dataset="phantoms")
    _do(train.train, "train plans/phantoms/ukan.yaml", Path("plans/phantoms/ukan.yaml"))
    _do(evaluate.evaluate, f"evaluate {run}", run)
    _do(predict.predict, f"predict {run} {new} masks --overlay", run, new, Path("masks"), overlay=True)
    _do(report.report, f"report {run}", run)
    print(f"\nall of it took {time.monotonic() - began:.0f} s; the report: {(run / 'report.html').resolve()}")


def _do(command: Callable[..., None], words: str, *arguments: Any, **options: Any) -> None:
    _show(words)
    command(*arguments, **options)


def _show(*words: str) -> None:
    print(f"\n$ ukan {' '.join(words)}", flush=True)
