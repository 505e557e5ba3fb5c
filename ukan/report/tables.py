"""Tables for the page: what is in a run's files, in words a reader knows."""

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ukan.metrics import METRICS
from ukan.metrics.intervals import cluster_bootstrap
from ukan.runs import Run
from ukan.training.log import human_time

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


def score_table(summary: dict[str, Any]) -> Table:
    rows = []
    for name, score in summary["scores"].items():
        decimals = 1 if "_px" in name else 3
        higher = METRICS[name].higher_is_better if name in METRICS else False
        rows.append(
            [
                f"{_NAMES.get(name, name)} {'↑' if higher else '↓'}",
                number(score["mean"], decimals),
                _interval(score["interval95"], decimals),
                score["undefined"],
                *(number(value, decimals) for value in score["by_fold"]),
            ]
        )
    part = "split" if summary["split"] == "published" else "fold"
    columns = ["score", "mean", "95 % interval", "undefined", *(f"{part} {fold}" for fold in summary["folds"])]
    return Table(columns, rows, numbers=True)


def published_table(summary: dict[str, Any]) -> Table | None:
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
        ours = ["–" if value is None else number(value * unit, decimals) for value in values]
        paper_says = number(theirs[name], decimals) if name in theirs else "–"
        rows.append([_NAMES.get(name, name), ours[0], paper_says, *ours[1:]])
    columns = ["as published" + (", %" if unit == 100 else ""), "mean of splits", "the paper"]
    return Table([*columns, *(f"split {fold}" for fold in summary["folds"])], rows, numbers=True)


def subset_table(run: Run, scores: Sequence[Score]) -> Table | None:
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


def fingerprint_table(run: Run) -> Table | None:
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


def problem_kinds(run: Run) -> list[dict[str, Any]] | None:
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


def plan_table(run: Run) -> Table:
    rows = [[key, _plain(value), run.plan.reasons.get(key, "")] for key, value in run.plan.flat().items()]
    return Table(["field", "value", "because"], rows)


def origin(run: Run) -> dict[str, Any]:
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
    packages: dict[str, set[str]] = {}
    for session in sessions:
        for name, version in (session.get("packages") or {}).items():
            packages.setdefault(name, set()).add(version or "not installed")
    return {
        "sessions": Table(
            [key.replace("_", " ") for key in keys],
            [["–" if session.get(key) is None else session[key] for key in keys] for session in sessions],
        ),
        "commands": list(dict.fromkeys(shlex.join(map(str, s["command"])) for s in sessions if "command" in s)),
        "packages": Table(["package", "version"], [[name, ", ".join(sorted(found))] for name, found in packages.items()]),
        "fold_table": Table(["fold", "steps", "time", "micro-batch", "sha256 of the weights"], folds),
        "data_root": record.get("data_root", "not recorded"),
    }


def number(value: float | None, decimals: int = 3) -> str:
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
