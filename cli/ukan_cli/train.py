"""`ukan train`"""

import os
from pathlib import Path
from typing import Annotated

import typer

from ukan_cli import show
from ukan_cli.check import shell_word

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; the best there is by default.")]
Data = Annotated[Path | None, typer.Option(help="The dataset's folder, where it has moved since planning.")]


def train(
    plan: Annotated[Path, typer.Argument(help="The plan's .yaml file.")],
    fold: Annotated[list[int] | None, typer.Option(help="Train only this fold; may be given several times.")] = None,
    run: Annotated[Path | None, typer.Option(help="The run folder; runs/<dataset>-<plan> by default.")] = None,
    device: Device = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare samples; the result is the same.")
    ] = None,
    max_time: Annotated[str | None, typer.Option(help="Stop in good order after, e.g., 90m or 8h.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Take real steps, say what training takes, and exit.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set an old run aside and begin anew.")] = False,
    data: Data = None,
) -> None:
    """Train the folds of a plan.

    To resume after a stop of any kind, run the same command again: it ends with the same weights.
    """
    from ukan.training.interrupt import parse_time

    max_time_s = parse_time(max_time)
    from ukan import tasks
    from ukan.stage.train import describe

    if dry_run:
        with show.bar("preparing") as tell:
            trial = tasks.dry_run(plan, folds=fold, device=device, workers=workers, data=data, on_progress=tell)
        print(describe(trial))
        return
    with show.bar("preparing") as tell:
        done = tasks.train(
            plan,
            run=run,
            folds=fold,
            device=device,
            workers=workers,
            max_time_s=max_time_s,
            fresh=fresh,
            data=data,
            on_progress=tell,
        )
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return
    root = done.run.folder.root
    stopped = [fold for fold, outcome in done.outcomes.items() if not outcome.finished]
    if stopped:
        outcome = done.outcomes[stopped[0]]
        print(f"stopped by {outcome.stopped_by} in fold {stopped[0]} at step {outcome.step}; the same command goes on")
        return
    print(f"finished folds: {', '.join(map(str, done.run.finished_folds))} of {done.run.plan.split.count}")
    verb = "sample" if done.run.plan.task == "diffuse" else "evaluate"
    print(f"next: ukan {verb} {shell_word(root)}" + (" OUTPUT -n 2048" if verb == "sample" else ""))
