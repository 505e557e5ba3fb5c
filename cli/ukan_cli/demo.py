"""`ukan demo`"""

from pathlib import Path
from typing import Annotated

import typer


def demo(folder: Annotated[Path, typer.Argument(help="Where to work.")] = Path("ukan-demo")) -> None:
    """Everything on made-up ultrasound, in minutes: plan, train, evaluate, predict, report."""
