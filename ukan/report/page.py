"""`ukan report`: everything about a run on one HTML page that opens offline: no script, nothing fetched from anywhere."""

import csv
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ukan import __version__
from ukan.errors import DataError, UserError
from ukan.paths import write_text
from ukan.report import pictures, plots, tables
from ukan.report.tables import Score
from ukan.runs import Run, open_run
from ukan.training.log import read_log

PICTURES = 4
"""Worst, middle and best cases, so many of each."""
SAMPLES = 8


class Shown(NamedTuple):
    """A case with its pictures, or why there are none."""

    score: Score
    pictures: list[pictures.Picture]
    missing: str


def write_report(run_path: Path, *, data: Path | None = None) -> Path:
    """Write report.html of an evaluated run and return its path.

    Raises UserError where the run is not evaluated, DataError where its scores are of other weights than it holds now, or
    where `data` is not its dataset. Raw images that have moved only leave gaps.
    """
    run = open_run(run_path)
    summary, scores = _read_scores(run)
    root, moved = _find_data(run, data)
    page = {
        "run": run,
        "plan": run.plan,
        "summary": summary,
        "unscored": len({name for split in run.splits for name in split["val"]}) - summary["cases"],
        "published": tables.published_table(summary),
        "score_table": tables.score_table(summary),
        "subsets": tables.subset_table(run, scores),
        "histogram": plots.histogram([score.dice for score in scores], summary["scores"]["dice"]["mean"]),
        "empty": [score.dice for score in scores if score.empty],
        **_by_size(run, scores),
        "curves": _curves(run, summary["folds"]),
        "curve_legend": plots.CURVES,
        "moved": moved,
        "error_legend": _ERROR_LEGEND,
        "chosen": _chosen_cases(run, root, scores) if root else {},
        **_samples(run, root, summary["folds"][0]),
        "fingerprint": tables.fingerprint_table(run),
        "problems": tables.problem_kinds(run),
        "fields": tables.plan_table(run),
        **tables.origin(run),
        "version": __version__,
    }
    write_text(run.folder.report, _template().render(page))
    return run.folder.report


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of cases, classes and folders are the user's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = tables.number
    return environment.get_template("page.html.j2")


def _read_scores(run: Run) -> tuple[dict[str, Any], list[Score]]:
    """The summary and its cases, if they are of the weights that lie in the run."""
    folder = run.folder
    again = f"run `ukan evaluate {shlex.quote(str(folder.root))}`"
    if not folder.summary.exists() or not folder.metrics.exists():
        raise UserError(f"{folder.root}: no scores to report; {again} first")
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
        with folder.metrics.open(newline="", encoding="utf-8") as file:
            scores = [_score(row) for row in csv.DictReader(file)]
        stale = summary["weights_sha256"] != run.weights_sha256() or summary["scored"] != len(scores)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder.summary}, {folder.metrics.name}: not readable ({error!r}); {again} again") from error
    if stale:
        raise DataError(f"{folder.summary}: scores of other networks than those now in {folder.root}; {again} again")
    return summary, scores


def _score(row: dict[str, str]) -> Score:
    return Score(
        case=row["case"],
        fold=int(row["fold"]),
        group=row["group"],
        label=row["label"],
        empty=row["truth_empty"] == "1",
        dice=float(row["dice"]),
        hd95_px=float(row["hd95_px"]),
    )


def _find_data(run: Run, given: Path | None) -> tuple[Path | None, str]:
    """The raw folder, or None and where it was looked for. What was asked for and is not there is an error."""
    try:
        return run.data_root(given), ""
    except DataError:
        if given is not None:
            raise
        return None, str(run.environment().get("data_root", ""))


# Plots and pictures.


def _by_size(run: Run, scores: Sequence[Score]) -> dict[str, Any]:
    sized = [(100 * run.cases[score.case].foreground, score) for score in scores if not score.empty]
    if not sized:
        return {"by_size": Markup(), "size_legend": []}
    plot, legend = plots.dice_by_size(
        [size for size, _ in sized], [score.dice for _, score in sized], [score.label for _, score in sized]
    )
    return {"by_size": plot, "size_legend": legend}


def _curves(run: Run, folds: Sequence[int]) -> list[Markup]:
    logs = {fold: rows for fold in folds if (rows := read_log(run.folder.fold(fold).log))}
    losses = [float(row[key]) for rows in logs.values() for row in rows for key in ("loss", "val_loss") if row[key]]
    return [plots.learning_curves(fold, rows, max(losses)) for fold, rows in logs.items()]


_ERROR_LEGEND = (
    plots.Entry("■", pictures.hex_of(pictures.FOUND), "rightly found"),
    plots.Entry("■", pictures.hex_of(pictures.INVENTED), "invented (false positive)"),
    plots.Entry("■", pictures.hex_of(pictures.MISSED), "missed (false negative)"),
)


def worst_middle_best(scores: Sequence[Score], count: int) -> dict[str, list[Score]]:
    """`count` of each by Dice, ties by name; no score twice where there are few."""
    rising = sorted(scores, key=lambda score: (score.dice, score.case, score.fold))
    worst = rising[:count]
    best = sorted(rising[count:], key=lambda score: (-score.dice, score.case, score.fold))[:count]
    rest = [score for score in rising if score not in worst and score not in best]
    start = max(0, (len(rest) - count) // 2)
    return {"Worst": worst, "Middle": rest[start : start + count], "Best": best}


def _chosen_cases(run: Run, root: Path, scores: Sequence[Score]) -> dict[str, list[Shown]]:
    chosen = worst_middle_best(scores, PICTURES)
    return {kind: [_show(run, root, score) for score in group] for kind, group in chosen.items() if group}


def _show(run: Run, root: Path, score: Score) -> Shown:
    prediction = run.folder.prediction(score.fold, score.case)
    try:
        return Shown(score, pictures.case_pictures(root, run.cases[score.case], prediction, run), "")
    except DataError as error:
        return Shown(score, [], str(error))


def _samples(run: Run, root: Path | None, fold: int) -> dict[str, Any]:
    about: dict[str, Any] = {"samples": [], "samples_missing": "", "samples_fold": fold}
    if root:
        try:
            about["samples"] = pictures.sample_pictures(run, root, fold, SAMPLES)
        except DataError as error:
            about["samples_missing"] = str(error)
    return about
