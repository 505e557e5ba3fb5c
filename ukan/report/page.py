"""`ukan report`: everything about a run on one HTML page that opens offline: no script, nothing fetched from anywhere."""

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ukan import __version__
from ukan.errors import DataError, UserError
from ukan.metrics import METRICS
from ukan.metrics.intervals import cluster_bootstrap
from ukan.paths import write_text
from ukan.report import pictures, plots
from ukan.runs import Run, open_run
from ukan.training.log import human_time, read_log

PICTURES = 4
"""Worst, middle and best cases, so many of each."""
SAMPLES = 8
_EXAMPLES = 5


class Score(NamedTuple):
    """A line of metrics_per_case.csv."""

    case: str
    fold: int
    group: str
    label: str
    empty: bool
    dice: float
    hd95_px: float


class Table(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: bool = False
    """Whether all columns but the first are numbers, which stand better to the right."""


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
        "published": _published_table(summary),
        "score_table": _score_table(summary),
        "subsets": _subset_table(run, scores),
        "histogram": plots.histogram([score.dice for score in scores], summary["scores"]["dice"]["mean"]),
        "empty": [score.dice for score in scores if score.empty],
        **_by_size(run, scores),
        "curves": _curves(run, summary["folds"]),
        "curve_legend": plots.CURVES,
        "moved": moved,
        "error_legend": _ERROR_LEGEND,
        "chosen": _chosen_cases(run, root, scores) if root else {},
        **_samples(run, root, summary["folds"][0]),
        "fingerprint": _fingerprint_table(run),
        "problems": _problem_kinds(run),
        "fields": _plan_table(run),
        **_origin(run),
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
    environment.filters["number"] = _number
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


# Scores.

_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "hd95_px": "HD95, px",
    "hd95_px_penalised": "HD95 penalised, px",
    "iou_pooled": "IoU, pooled over batches of 8",
    "dice_of_iou_pooled": "Dice derived from the pooled IoU",
    "iou_at_input_size": "IoU, mean over images",
    "dice_at_input_size": "Dice, mean over images",
}
_PAPERS = {"iou": "iou_pooled", "dice": "dice_of_iou_pooled"}
"""Which of our repetitions is what the paper calls by a name."""


def _score_table(summary: dict[str, Any]) -> Table:
    rows = []
    for name, score in summary["scores"].items():
        decimals = 1 if "_px" in name else 3
        higher = METRICS[name].higher_is_better if name in METRICS else False
        rows.append(
            [
                f"{_NAMES.get(name, name)} {'↑' if higher else '↓'}",
                _number(score["mean"], decimals),
                _interval(score["interval95"], decimals),
                score["undefined"],
                *(_number(value, decimals) for value in score["by_fold"]),
            ]
        )
    part = "split" if summary["split"] == "published" else "fold"
    columns = ["score", "mean", "95 % interval", "undefined", *(f"{part} {fold}" for fold in summary["folds"])]
    return Table(columns, rows, numbers=True)


def _published_table(summary: dict[str, Any]) -> Table | None:
    """The paper's metric on the paper's splits, in the paper's unit, with its own numbers beside."""
    published = summary.get("as_published")
    if not published:
        return None
    paper = published["paper"]
    unit, decimals = (100, 2) if max(paper.values(), default=0) > 1 else (1, 3)
    theirs = {_PAPERS.get(name, name): value for name, value in paper.items()}
    rows = []
    for name in [*published["mean"], *(name for name in theirs if name not in published["mean"])]:
        values = [published["mean"].get(name), *(fold.get(name) for fold in published["by_fold"])]
        ours = ["–" if value is None else _number(value * unit, decimals) for value in values]
        paper_says = _number(theirs[name], decimals) if name in theirs else "–"
        rows.append([_NAMES.get(name, name), ours[0], paper_says, *ours[1:]])
    columns = ["as published" + (", %" if unit == 100 else ""), "mean of splits", "the paper"]
    return Table([*columns, *(f"split {fold}" for fold in summary["folds"])], rows, numbers=True)


def _subset_table(run: Run, scores: Sequence[Score]) -> Table | None:
    """Dice by class and by size of the lesion, where there is something to tell apart."""
    subsets: list[tuple[str, list[Score]]] = []
    labels = sorted({score.label for score in scores})
    if len(labels) > 1:
        subsets += [(label or "no class", [score for score in scores if score.label == label]) for label in labels]
    by_size = sorted((score for score in scores if not score.empty), key=lambda score: run.cases[score.case].foreground)
    if len(by_size) >= 12:
        cuts = [round(len(by_size) * part / 3) for part in range(4)]
        for name, low, high in zip(("smallest", "middle", "largest"), cuts, cuts[1:], strict=False):
            third = by_size[low:high]
            first, last = (_format(100 * run.cases[score.case].foreground) for score in (third[0], third[-1]))
            subsets.append((f"{name} third of lesions: {first} to {last} % of the image", third))
    if empty := [score for score in scores if score.empty]:
        subsets.append(("empty mask: nothing there", empty))
    rows = []
    for name, subset in subsets:
        dices = [score.dice for score in subset]
        interval = _interval(cluster_bootstrap(dices, [score.group for score in subset]), 3)
        rows.append([name, f"{sum(dices) / len(dices):.3f}", interval, sum(dice < 0.5 for dice in dices), len(subset)])
    return Table(["cases", "mean Dice", "95 % interval", "Dice below 0.5", "of"], rows, numbers=True) if rows else None


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


# Pictures.

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


# The dataset and the plan.


def _fingerprint_table(run: Run) -> Table | None:
    try:
        found = json.loads(run.folder.fingerprint.read_text(encoding="utf-8"))
        del found["index_sha256"]  # told with the other hashes
    except (OSError, ValueError, KeyError):
        return None
    show: dict[str, tuple[str, Callable[[Any], str]]] = {
        "labels": ("classes", lambda v: ", ".join(f"{name or 'none'}: {count}" for name, count in v.items())),
        "empty": ("cases with an empty mask", str),
        "groups": ("groups (never on both sides of a split)", str),
        "height": ("height, px (smallest, median, largest)", _list),
        "width": ("width, px (smallest, median, largest)", _list),
        "colour": ("images in colour", str),
        "lesion_share": ("mask, % of the image (5th, 50th, 95th percentile)", lambda v: _list([100 * x for x in v])),
        "lesion_side_px": ("square root of the mask's area, px (5th, 50th, 95th percentile)", _list),
        "mask_values": ("grey values in masks", lambda v: ", ".join(f"{value} in {count}" for value, count in v.items())),
        "mask_rule": ("foreground is", lambda v: {"nonzero": "every value above 0", "half": "128 and above"}.get(v, v)),
        "near_duplicates": ("pairs of the same or nearly the same picture", str),
    }
    rows = []
    for key, value in found.items():
        name, write = show.get(key, (key.replace("_", " "), str))
        rows.append([name, write(value)])
    return Table(["property", "value"], rows)


def _problem_kinds(run: Run) -> list[dict[str, Any]] | None:
    """Problems of the raw folder by kind, in the order of the file: errors, warnings, notes."""
    if not run.folder.problems.exists():
        return None
    with run.folder.problems.open(newline="", encoding="utf-8") as file:
        problems = list(csv.DictReader(file))
    counts = Counter((problem["level"], problem["kind"]) for problem in problems)
    kinds = []
    for (level, kind), count in counts.items():
        examples = [p for p in problems if (p["level"], p["kind"]) == (level, kind)][:_EXAMPLES]
        kinds.append({"level": level, "kind": kind, "count": count, "do": examples[0]["do"], "examples": examples})
    return kinds


def _plan_table(run: Run) -> Table:
    rows = [[key, _plain(value), run.plan.reasons.get(key, "")] for key, value in run.plan.flat().items()]
    return Table(["field", "value", "because"], rows)


# How it was made.


def _origin(run: Run) -> dict[str, Any]:
    """Sessions, folds and hashes from environment.json; tables are empty where it is missing."""
    record = run.environment()
    sessions: list[dict[str, Any]] = record.get("sessions", [])
    keys = ("started_at", "device", "processes", "precision", "workers", "cores", "python", "platform", "commit")
    hashes = run.weights_sha256()
    folds = []
    for fold, sha256 in hashes.items():
        made = record.get("folds", {}).get(fold, {})
        time = human_time(made["elapsed_s"]) if "elapsed_s" in made else "–"
        folds.append([fold, made.get("step", "–"), time, made.get("micro_batch") or "whole", sha256])
    # Versions that every session shares are told once.
    packages = {
        name: {(s.get("packages") or {}).get(name) for s in sessions} for s in sessions for name in s.get("packages") or {}
    }
    return {
        "sessions": Table(
            [key.replace("_", " ") for key in keys],
            [["–" if session.get(key) is None else session[key] for key in keys] for session in sessions],
        ),
        "commands": list(dict.fromkeys(shlex.join(map(str, s["command"])) for s in sessions if "command" in s)),
        "packages": Table(
            ["package", "version"], [[name, ", ".join(sorted(map(str, found)))] for name, found in packages.items()]
        ),
        "fold_table": Table(["fold", "steps", "time", "micro-batch", "sha256 of the weights"], folds),
        "data_root": record.get("data_root", "not recorded"),
    }


# Values to text.


def _number(value: float | None, decimals: int = 3) -> str:
    """A score, or 'undefined' where there is none."""
    return "undefined" if value is None or value != value else f"{value:.{decimals}f}"


def _interval(interval: Sequence[float] | None, decimals: int) -> str:
    return f"{interval[0]:.{decimals}f} to {interval[1]:.{decimals}f}" if interval else "–"


def _format(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(map(_format, values))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(v)}" for key, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
