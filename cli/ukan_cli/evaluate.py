"""`ukan evaluate`"""

from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import shell_word
from ukan_cli.train import Data, Device

RunFolder = Annotated[Path, typer.Argument(help="The run folder.")]


def evaluate(run: RunFolder, device: Device = None, data: Data = None) -> None:
    """Score every held-out case by the fold that never saw it."""
    from ukan.segment.evaluate import evaluate as stage

    with show.bar("scoring") as tell:
        summary = stage(run, device=device, data=data, on_progress=tell)
    print(
        f"protocol {summary['protocol']}: {summary['scored']} scores of {summary['cases']} cases "
        f"in {summary['groups']} groups, at their own sizes"
    )
    if summary["folds_missing"]:
        print(f"folds not trained, their cases not scored: {', '.join(map(str, summary['folds_missing']))}")
    show.scores(summary)
    print(f"written: {run / 'metrics_per_case.csv'}, {run / 'summary.json'}, {run / 'predictions'}")
    print(f"next: ukan report {shell_word(run)}")
