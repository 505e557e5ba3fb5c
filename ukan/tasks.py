"""What each task does at a verb that serves all of them: the plan says which."""

from pathlib import Path
from typing import Any, Unpack

from ukan.paths import ScoreFolder
from ukan.plan import Plan
from ukan.runs import open_run
from ukan.stage import train as training
from ukan.stage.train import DryRun, MakeFold, Options, Trained


def train(plan_path: Path, **options: Unpack[Options]) -> Trained:
    """Train the folds of a plan of any task, see `ukan.stage.train.train`."""
    return training.train(plan_path, _make_fold(plan_path), **options)


def dry_run(plan_path: Path, **options: Any) -> DryRun:
    """`ukan.stage.train.dry_run` of a plan of any task."""
    return training.dry_run(plan_path, _make_fold(plan_path), **options)


def evaluate(run_path: Path, **options: Any) -> tuple[dict[str, Any], ScoreFolder]:
    """`ukan.segment.evaluate.evaluate`, or of a diffusion run `ukan.diffuse.evaluate.evaluate`."""
    if open_run(run_path, None).plan.task == "diffuse":
        from ukan.diffuse.evaluate import evaluate as stage
    else:
        from ukan.segment.evaluate import evaluate as stage
    return stage(run_path, **options)


def write_report(run_path: Path, *, data: Path | None = None) -> Path:
    """`ukan.report.page.write_report`, or of a diffusion run `ukan.report.diffusion_page.write_diffusion_report`."""
    if open_run(run_path, None).plan.task == "diffuse":
        from ukan.report.diffusion_page import write_diffusion_report as stage
    else:
        from ukan.report.page import write_report as stage
    return stage(run_path, data=data)


def _make_fold(plan_path: Path) -> MakeFold:
    if Plan.load(plan_path).task == "diffuse":
        from ukan.diffuse.train import make_fold
    else:
        from ukan.segment.train import make_fold
    return make_fold
