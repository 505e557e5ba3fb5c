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
from ukan.metrics.quality import FAILURE, FLAGGED
from ukan.paths import ScoreFolder, write_text
from ukan.report import pictures, plots, record, tables
from ukan.report.tables import CaseScore, Score
from ukan.runs import Run, open_run
from ukan.training.log import read_log

PICTURES = 4
"""Worst, middle and best cases, so many of each."""
SAMPLES = 8


class Evaluation(NamedTuple):
    """What `ukan evaluate` left in a folder."""

    name: str
    """For people."""
    anchor: str
    """For links and plots of the page."""
    summary: dict[str, Any]
    scores: list[Score]


class Shown(NamedTuple):
    """A case with its pictures, or why there are none."""

    score: CaseScore
    pictures: list[pictures.Picture]
    missing: str


def write_report(run_path: Path, *, data: Path | None = None) -> Path:
    """Write report.html of an evaluated run and return its path.

    Held-out scores come first; those of an official test part and of other datasets follow in sections of their own, and are
    named but not shown where they are of other weights than the run holds now.

    Raises UserError where the run is not evaluated, DataError where its held-out scores are of other weights, or where
    `data` is not its dataset. Raw images that have moved only leave gaps.
    """
    run = open_run(run_path)
    run.need_cases()
    command = f"ukan evaluate {shlex.quote(str(run.folder.root))}"
    if not run.folder.scores.summary.exists() or not run.folder.scores.metrics.exists():
        raise UserError(f"{run.folder.root}: no scores to report; run `{command}` first")
    weights = run.weights_sha256()
    held_out = _read(run.folder.scores, "held-out cases", "held-out", weights, command)
    others, stale = _read_others(run, weights, command)
    summary = held_out.summary
    root, moved = find_data(run, data)
    cases = tables.by_case(held_out.scores)
    page = {
        "run": run,
        "plan": run.plan,
        "summary": summary,
        "evaluations": [_about(evaluation) for evaluation in (held_out, *others)],
        "stale": stale,
        "unscored": len({name for split in run.splits for name in split["val"]}) - summary["cases"],
        "published": tables.published_table(summary),
        "counted": _counted(summary),
        "histogram": plots.histogram(
            [score.dice for score in held_out.scores], summary["scores"]["dice"]["mean"], _counted(summary)
        ),
        **_by_size(held_out),
        **_quality(summary),
        **_inside(run, weights),
        "curves": _curves(run, summary["folds"]),
        "curve_legend": plots.CURVES,
        "has_data": root is not None,
        "moved": moved,
        "error_legend": _error_legend(run.plan.data.classes),
        "chosen": _chosen_cases(run, root, cases) if root else {},
        "rightly_empty": sum(score.rightly_empty for score in cases),
        **_samples(run, root, summary["folds"][0]),
        "fingerprint": record.fingerprint_table(run),
        "problems": record.problem_kinds(run),
        "plan_tables": record.plan_tables(run),
        **record.origin(run, {evaluation.name: evaluation.summary for evaluation in (held_out, *others)}),
        "version": __version__,
    }
    write_text(run.folder.report, template("page.html.j2").render(page))
    return run.folder.report


def template(name: str) -> Any:
    """A template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of cases, classes and folders are the user's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = tables.number
    environment.globals["mark"] = plots.mark
    return environment.get_template(name)


# Scores.


def _read(place: ScoreFolder, name: str, anchor: str, weights: dict[str, str], command: str) -> Evaluation:
    """Scores that are of these weights. Raises DataError where they are of others, or cannot be read."""
    try:
        summary = json.loads(place.summary.read_text(encoding="utf-8"))
        with place.metrics.open(newline="", encoding="utf-8") as file:
            scores = [_score(row) for row in csv.DictReader(file)]
        stale = summary["weights_sha256"] != weights or summary["scored"] != len({(s.part, s.case) for s in scores})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place.summary}, {place.metrics.name}: not readable ({error!r}); run `{command}` again") from error
    if stale:
        raise DataError(f"{place.summary}: not of the networks that are in the run now; run `{command}` again")
    return Evaluation(name, anchor, summary, scores)


def _read_others(run: Run, weights: dict[str, str], command: str) -> tuple[list[Evaluation], list[str]]:
    """The official test part and the other datasets that were scored, and why some of them are not shown."""
    places = [(run.folder.test_scores, "official test part", "test", f"{command} --test")]
    for number, folder in enumerate(sorted(run.folder.external_scores("").root.glob("*/"))):
        place = ScoreFolder(folder)
        places.append((place, f"other dataset: {folder.name}", f"external-{number}", f"{command} --on FOLDER"))
    found, stale = [], []
    for place, name, anchor, again in places:
        if place.summary.exists():
            try:
                found.append(_read(place, name, anchor, weights, again))
            except DataError as error:
                stale.append(str(error))
    return found, stale


def _score(row: dict[str, str]) -> Score:
    return Score(
        case=row["case"],
        part=row["part"],
        of=row["class"],
        label=row["label"],
        grade=row["grade"],
        empty=row["truth_empty"] == "1",
        share=float(row["object_share"]),
        dice=float(row["dice"]),
        hd95=float(row["hd95"]),
        unit=row["unit"],
        twin=row["twin_in_training"] == "1",
    )


def _about(evaluation: Evaluation) -> dict[str, Any]:
    """What the page tells of each evaluation alike."""
    summary = evaluation.summary
    return {
        "name": evaluation.name,
        "anchor": evaluation.anchor,
        "summary": summary,
        "scores": tables.score_table(summary),
        "by_class": tables.class_table(summary),
        "forest": tables.forest(summary),
        "counted": _counted(summary),
        "detection": tables.detection_table(summary),
        "objects": tables.object_table(summary),
        "calibration": tables.calibration_table(summary),
        "reliability": plots.reliability(summary["calibration"]["reliability"], evaluation.anchor),
        "twins": tables.twins(evaluation.scores),
    }


def _counted(summary: dict[str, Any]) -> str:
    """What a row of metrics_per_case.csv is: with several classes, or splits that overlap, a case has more than one."""
    if "by_class" in summary:
        return "masks"
    return "cases" if summary["scored"] == summary["cases"] else "scores"


def _quality(summary: dict[str, Any]) -> dict[str, Any]:
    quality = summary.get("quality", {})
    if not quality.get("points"):
        return {"quality_table": None}
    plot = plots.predicted_dice(quality["points"])
    table = tables.quality_table(quality)
    return {"quality": quality, "predicted": plot, "quality_table": table, "failure": FAILURE, "flagged": FLAGGED}


def _inside(run: Run, weights: dict[str, str]) -> dict[str, Any]:
    """What `ukan explain` left: shown where it is of these weights, otherwise why it is not."""
    place = run.folder.explain
    about: dict[str, Any] = {"inside": None, "inside_missing": ""}
    if not place.record.exists():
        return about
    again = f"run `ukan explain {shlex.quote(str(run.folder.root))}` again"
    try:
        found = json.loads(place.record.read_text(encoding="utf-8"))
        if found["weights_sha256"] != weights:
            return about | {"inside_missing": f"{place.record}: not of the networks that are in the run now; {again}"}
        figures = [path for path in (place.inputs, place.functions) if found["layers"]]
        return about | {
            "inside": found,
            "plausibility": tables.plausibility_table(found) if found["masks"] else None,
            "inside_figures": [pictures.embedded(path) for path in figures],
            "inside_maps": [(case, pictures.embedded(place.map(case))) for case in found["drawn"]],
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        return about | {"inside_missing": f"{place.record}: not readable ({error!r}); {again}"}


def _by_size(held_out: Evaluation) -> dict[str, Any]:
    filled = [score for score in held_out.scores if not score.empty]
    if not filled:
        return {"by_size": Markup(), "size_legend": []}
    kinds = [score.of if "by_class" in held_out.summary else score.label for score in filled]
    plot, legend = plots.dice_by_size([100 * score.share for score in filled], [score.dice for score in filled], kinds)
    return {"by_size": plot, "size_legend": legend}


def _curves(run: Run, folds: Sequence[int]) -> list[Markup]:
    logs = {fold: rows for fold in folds if (rows := read_log(run.folder.fold(fold).log))}
    losses = [float(row[key]) for rows in logs.values() for row in rows for key in ("loss", "val_loss") if row[key]]
    return [plots.learning_curves(fold, rows, max(losses)) for fold, rows in logs.items()]


# Pictures.


def find_data(run: Run, given: Path | None) -> tuple[Path | None, str]:
    """The raw folder, or None and where it was looked for. What was asked for and is not there is an error."""
    try:
        return run.data_root(given), ""
    except DataError:
        if given is not None:
            raise
        return None, str(run.environment().get("data_root", ""))


def _error_legend(classes: Sequence[str]) -> list[plots.Entry]:
    if len(classes) > 1:
        colours = map(pictures.hex_of, pictures.class_colours(len(classes)))
        return [plots.Entry("■", colour, name) for name, colour in zip(classes, colours, strict=True)]
    return [
        plots.Entry("■", pictures.hex_of(pictures.FOUND), "rightly found"),
        plots.Entry("■", pictures.hex_of(pictures.INVENTED), "invented (false positive)"),
        plots.Entry("■", pictures.hex_of(pictures.MISSED), "missed (false negative)"),
    ]


def worst_middle_best(scores: Sequence[CaseScore], count: int) -> dict[str, list[CaseScore]]:
    """`count` of each by Dice, ties by name; no score twice where there are few."""
    rising = sorted(scores, key=lambda score: (score.dice, score.case, score.part))
    worst = rising[:count]
    best = sorted(rising[count:], key=lambda score: (-score.dice, score.case, score.part))[:count]
    rest = [score for score in rising if score not in worst and score not in best]
    start = max(0, (len(rest) - count) // 2)
    return {"Worst": worst, "Middle": rest[start : start + count], "Best": best}


def _chosen_cases(run: Run, root: Path, scores: Sequence[CaseScore]) -> dict[str, list[Shown]]:
    chosen = worst_middle_best([score for score in scores if not score.rightly_empty], PICTURES)
    return {kind: [_show(run, root, score) for score in group] for kind, group in chosen.items() if group}


def _show(run: Run, root: Path, score: CaseScore) -> Shown:
    prediction = run.folder.scores.prediction(score.part, score.case)
    try:
        return Shown(score, pictures.case_pictures(root, run.cases[score.case], prediction, run.plan.data), "")
    except DataError as error:
        return Shown(score, [], str(error))


def _samples(run: Run, root: Path | None, fold: int) -> dict[str, Any]:
    about: dict[str, Any] = {"samples": [], "samples_missing": "", "samples_fold": fold}
    if run.imported:
        about["samples_missing"] = "the network was trained elsewhere"
    elif root:
        try:
            about["samples"] = pictures.sample_pictures(run, root, fold, SAMPLES)
        except DataError as error:
            about["samples_missing"] = str(error)
    return about
