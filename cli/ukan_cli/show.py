"""What commands print: bars, tables, scores."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that draws a bar on a terminal, and elsewhere says one line now and then."""
    if not sys.stderr.isatty():
        import time

        said_at = time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at > 15:
                said_at = time.monotonic()
                print(f"{title}: {done}/{total}", file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    progress, tasks = Progress(console=Console(stderr=True), transient=True), list[TaskID]()

    def draw(done: int, total: int) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task(title, total=total))
        progress.update(tasks[0], completed=done, total=total)
        if done >= total:  # what comes after may draw a bar of its own
            progress.stop()

    try:
        yield draw
    finally:
        progress.stop()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table as wide as the terminal; its full width where there is none, so that nothing is cut from a log."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def scores(summary: dict[str, Any]) -> None:
    """The table of an evaluation."""
    rows = []
    for name, score in summary["scores"].items():
        interval = score["interval95"]
        rows.append(
            (
                name,
                "undefined" if score["mean"] is None else f"{score['mean']:.4f}",
                f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "-",
                score["undefined"] or "",
            )
        )
    table(("score", "mean over cases", "95 % interval (groups)", "undefined"), rows)
    if published := summary.get("as_published"):
        print(published["what"] + ":")
        print("  " + ", ".join(f"{key} {value:.4f}" for key, value in published["mean"].items()))
        if published["paper"]:
            print("  the paper reports: " + ", ".join(f"{k} {v}" for k, v in published["paper"].items()))
