"""What a person sees of a training: a bar or plain lines, log.csv, progress.png."""

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

from ukan.paths import write_text, written_whole

COLUMNS = ("epoch", "step", "loss", "val_loss", "val_dice", "lr", "lr_kan", "elapsed_s")
_PLAIN_EVERY_S = 15.0
_PLOT_EVERY_S = 20.0


class Log:
    """The rows of log.csv and their picture. Opening it for a resumed run drops rows beyond the step resumed from."""

    def __init__(self, csv_path: Path, png_path: Path, step: int) -> None:
        self.csv_path, self.png_path = csv_path, png_path
        self.rows = [row for row in read_log(csv_path) if int(row["step"]) <= step] if step else []
        self.drawn_at = float("-inf")

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append({key: row.get(key, "") for key in COLUMNS})
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.csv_path, text.getvalue())
        if time.monotonic() - self.drawn_at > _PLOT_EVERY_S:
            self.draw()

    def draw(self) -> None:
        if self.rows:
            draw_curves(self.rows, self.png_path)
        self.drawn_at = time.monotonic()


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv, none where there is none yet; lines that a crash has damaged are left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return [row for row in csv.DictReader(file) if _whole(row)]


def _whole(row: dict[str, str]) -> bool:
    if row.keys() != set(COLUMNS) or None in row.values() or not row["step"].isdecimal():
        return False
    try:
        for value in row.values():
            float(value or 0)
    except ValueError:
        return False
    return True


def draw_curves(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss and held-out Dice over epochs, learning rates below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    score = top.twinx()
    marker = "o" if len(rows) < 3 else None
    for axis, key, colour, label in (
        (top, "loss", "tab:blue", "training loss"),
        (top, "val_loss", "tab:orange", "held-out loss"),
        (score, "val_dice", "tab:green", "held-out Dice (for watching only)"),
        (bottom, "lr", "tab:gray", "learning rate"),
        (bottom, "lr_kan", "tab:red", "of KAN layers"),
    ):
        points = [(float(row["epoch"]), float(row[key])) for row in rows if row[key] not in ("", None)]
        if points:
            axis.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker)
    score.set_ylim(0, 1)
    top.set_ylabel("loss")
    score.set_ylabel("Dice")
    bottom.set_xlabel("epoch")
    bottom.set_yscale("log")
    lines = [line for axis in (top, score) for line in axis.get_lines()]
    top.legend(lines, [str(line.get_label()) for line in lines], loc="center right", fontsize="small")
    bottom.legend(fontsize="small")
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


class Progress:
    """A bar with loss, score and time left on a terminal; elsewhere a plain line now and then."""

    def __init__(self, title: str, total: int, done: int, *, visible: bool = True) -> None:
        self.title, self.total, self.first = title, total, done
        self.started_at = self.printed_at = time.monotonic()
        self.note, self.bar, self.warm = "", None, False
        self.visible = visible
        if visible and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[note]}"),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(title, total=total, completed=done, note="")
            self.bar.start()

    def step(self, done: int, loss: float) -> None:
        if not self.visible:
            return
        if not self.warm and done < self.total:  # the first step pays for set-up, and says nothing of the others
            self.warm, self.first, self.started_at = True, done, time.monotonic()
            return
        per_step = (time.monotonic() - self.started_at) / max(1, done - self.first)
        text = f"loss {loss:.4f}{self.note}, {human_time(per_step * (self.total - done))} left"
        if self.bar:
            self.bar.update(self.task, completed=done, note=text)
        elif time.monotonic() - self.printed_at > _PLAIN_EVERY_S or done == self.total:
            self.printed_at = time.monotonic()
            print(f"{self.title}: step {done}/{self.total}, {text}", file=sys.stderr, flush=True)

    def score(self, scores: dict[str, float]) -> None:
        self.note = "".join(f", {name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())

    def close(self) -> None:
        if self.bar:
            self.bar.stop()


def human_time(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
