"""Tables of scores for the page: what an evaluation's summary.json says, in words a reader knows."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ukan.metrics import ISIC_THRESHOLD, METRICS, TOLERANCE


class Score(NamedTuple):
    """A row of metrics_per_case.csv: a case and a class."""

    case: str
    part: str
    """fold_k, or all."""
    of: str
    """The class of the mask."""
    label: str
    grade: str
    empty: bool
    """Whether the true mask is."""
    share: float
    """Of the image inside the true mask."""
    dice: float
    hd95: float
    unit: str
    twin: bool
    """Whether a case of its group was in training."""


class CaseScore(NamedTuple):
    """A case in a part, all its classes together."""

    case: str
    part: str
    dice: float
    """The mean over classes."""
    rightly_empty: bool
    """Whether nothing is there and nothing was found: no picture worth a look."""
    details: list[str]


class Table(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: bool = False
    """Whether all columns but the first are numbers, which stand better to the right."""


class Bar(NamedTuple):
    """A line of a forest plot."""

    name: str
    cases: int
    groups: int
    dice: float | None
    interval: Sequence[float] | None


_NAMES = {
    "dice": "Dice",
    "iou": "IoU (Jaccard)",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "iou_65": f"IoU, thresholded at {ISIC_THRESHOLD}",
    "hd95": "HD95",
    "assd": "ASSD",
    "nsd": f"Surface Dice (NSD) at {TOLERANCE:g}",
    "hd95_penalised": "HD95, penalised",
    "assd_penalised": "ASSD, penalised",
    "object_f1": "Object F1",
    "object_dice": "Object Dice",
    "object_hausdorff": "Object Hausdorff distance",
    "iou_pooled": "IoU, pooled over batches of 8",
    "dice_of_iou_pooled": "Dice derived from the pooled IoU",
    "iou_at_input_size": "IoU, mean over images",
    "dice_at_input_size": "Dice, mean over images",
}
_PAPERS = {"iou": "iou_pooled", "dice": "dice_of_iou_pooled"}
"""Which of our repetitions is what the paper calls by a name."""
_SUBGROUPS = {"class": "class of the picture", "grade": "grade", "size": "size of the object"}


def part_names(summary: dict[str, Any]) -> list[str]:
    """What the columns of `by_fold` are called; none where all was scored at once."""
    if len(summary["scores"]["dice"]["by_fold"]) < 2:
        return []
    part = "split" if summary["split"] == "published" else "fold"
    return [f"{part} {fold}" for fold in summary["folds"]]


def score_table(summary: dict[str, Any]) -> Table:
    """Every score over all classes; beside it the same without twins, where there are any in a test part."""
    without = summary.get("scores_without_twins", {})
    rows = []
    for name, score in summary["scores"].items():
        row = [score_name(name, summary["unit"]), *_mean_and_interval(name, score), score["undefined"]]
        row += _mean_and_interval(name, without[name]) if without else []
        rows.append([*row, *(number(value, _decimals(name)) for value in score["by_fold"][: len(part_names(summary))])])
    columns = ["score", "mean", "95 % interval", "undefined", *(["without twins", "95 % interval"] if without else [])]
    return Table([*columns, *part_names(summary)], rows, numbers=True)


def class_table(summary: dict[str, Any]) -> Table | None:
    """Every score class by class, where there are several."""
    by_class = summary.get("by_class")
    if not by_class:
        return None
    rows = []
    for name in summary["scores"]:
        row = [score_name(name, summary["unit"])]
        for scores in by_class.values():
            mean, interval = _mean_and_interval(name, scores[name])
            undefined = f", {scores[name]['undefined']} undefined" if scores[name]["undefined"] else ""
            row.append(f"{mean} ({interval}{undefined})" if scores[name]["mean"] is not None else mean)
        rows.append(row)
    return Table(["score", *by_class], rows, numbers=True)


def forest(summary: dict[str, Any]) -> list[tuple[str, list[Bar]]]:
    """Dice of all, by class of the mask, and by each kind of subgroup that tells two or more apart: (kind, lines)."""
    scored, groups, by_class = summary["scored"], summary["groups"], summary.get("by_class", {})
    overall = summary["scores"]["dice"]
    kinds = [("", [Bar("all", scored * max(1, len(by_class)), groups, overall["mean"], overall["interval95"])])]
    if by_class:
        dices = {name: scores["dice"] for name, scores in by_class.items()}
        bars = [Bar(name, scored, groups, dice["mean"], dice["interval95"]) for name, dice in dices.items()]
        kinds.append(("class of the mask", bars))
    for by, title in _SUBGROUPS.items():
        found = [group for group in summary["subgroups"] if group["by"] == by]
        bars = [Bar(g["value"], g["cases"], g["groups"], g["dice"], g["interval95"]) for g in found]
        kinds += [(title, bars)] if len(bars) > 1 else []
    return kinds


def detection_table(summary: dict[str, Any]) -> Table:
    """What is found: lesion by lesion, and image by image."""
    lesions, images = summary["lesions"], summary["images"]
    counts, each = lesions["counts"], "mask" if "by_class" in summary else "image"
    called = f"{images['true_positives']} of {images['with_object']}"
    left_empty = f"{images['true_negatives']} of {images['without_object']}"
    invented = f"{counts['false_positives']} in {lesions['cases']} {each}s"
    lines = [
        ("Lesions found (sensitivity)", lesions, "sensitivity", f"{counts['found']} of {counts['present']}"),
        (f"False positives per {each}", lesions, "false_positives_per_image", invented),
        (f"{each.capitalize()}s with an object that are called", images, "sensitivity", called),
        (f"{each.capitalize()}s without one that are left empty", images, "specificity", left_empty),
        ("AUROC of the highest probability", images, "auroc", ""),
    ]
    rows = [
        [what, number(found[key]), _interval(found.get(f"{key}_interval95"), 3), said] for what, found, key, said in lines
    ]
    return Table(["", "value", "95 % interval", "that is"], rows, numbers=True)


def calibration_table(summary: dict[str, Any]) -> Table:
    found = summary["calibration"]
    rows = [
        [what, number(found[key]), _interval(found[f"{key}_interval95"], 3)]
        for what, key in (("ECE near objects", "ece_near_objects"), ("ECE over all pixels", "ece"))
    ]
    return Table(["", "value", "95 % interval"], rows, numbers=True)


def object_table(summary: dict[str, Any]) -> Table | None:
    """GlaS' scores over the objects of all images together, where masks hold instances."""
    if not (objects := summary.get("objects")):
        return None
    rows = [
        [score_name(name, "px"), number(score["all"], _decimals(name)), _interval(score["interval95"], _decimals(name))]
        for name, score in objects.items()
    ]
    return Table(["over all objects", "value", "95 % interval"], rows, numbers=True)


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


def quality_table(quality: dict[str, Any]) -> Table:
    """How well the Dice of held-out cases was predicted without their truth."""
    rows = [
        ["mean absolute error", number(quality["mean_absolute_error"]), f"{quality['cases']} cases"],
        ["Spearman's correlation", number(quality["spearman"]), ""],
        ["failures caught", number(quality["caught"]), f"of {quality['failures']}, in the lowest {quality['flagged']}"],
    ]
    return Table(["", "value", "that is"], rows, numbers=True)


def plausibility_table(found: dict[str, Any]) -> Table:
    """What `ukan explain` measured of each stage's activation maps, beside it the twin's."""
    twin = found["twin"]
    columns = ["stage", "IoU", "95 % interval", "by chance", "inverted", "AUROC"]
    columns += [f"IoU of {twin['run']}", "difference", "95 % interval"] if twin else []
    rows = []
    for stage, scores in found["stages"].items():
        row = [f"{stage}, {scores['side'][1]}×{scores['side'][0]}", *_mean_and_interval("iou", scores["iou"])]
        row += [number(scores[name]["mean"]) for name in ("iou_by_chance", "iou_inverted", "auroc")]
        if "twin" in scores:
            row += [number(scores["twin"]["iou"]["mean"]), *_mean_and_interval("iou", scores["difference"]["iou"])]
        rows.append(row + ["–"] * (len(columns) - len(row)))
    return Table(columns, rows, numbers=True)


def twins(scores: Sequence[Score]) -> int:
    return len({score.case for score in scores if score.twin})


def by_case(scores: Iterable[Score]) -> list[CaseScore]:
    """Cases with the mean Dice over their classes, and what else to say of each."""
    cases: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        cases.setdefault((score.part, score.case), []).append(score)
    return [_case_score(of_case) for of_case in cases.values()]


def _case_score(of_case: Sequence[Score]) -> CaseScore:
    first = of_case[0]
    if len(of_case) > 1:
        said = [f"{score.of} {score.dice:.3f}" for score in of_case]
    else:
        said = [f"HD95 {number(first.hd95, 1)}" + (f" {first.unit}" if first.hd95 == first.hd95 else "")]
    said += [word for word in (first.label, first.grade and f"grade {first.grade}") if word]
    dice = sum(score.dice for score in of_case) / len(of_case)
    return CaseScore(first.case, first.part, dice, all(score.empty for score in of_case) and dice == 1, said)


def score_name(name: str, unit: str) -> str:
    """A score in words, with its unit and which way is better."""
    shown = _NAMES.get(name, name)
    if is_length(name):
        return f"{shown}, {'px' if name == 'object_hausdorff' else unit} ↓"
    return f"{shown} {unit} ↑" if name == "nsd" else f"{shown} ↑"


def is_length(name: str) -> bool:
    """Whether a score is a distance, in px or mm."""
    metric = METRICS.get(name.removesuffix("_penalised"))
    return metric.unit == "length" if metric else name == "object_hausdorff"


def _decimals(name: str) -> int:
    return 2 if is_length(name) else 3


def _mean_and_interval(name: str, score: dict[str, Any]) -> tuple[str, str]:
    return number(score["mean"], _decimals(name)), _interval(score["interval95"], _decimals(name))


def number(value: float | None, decimals: int = 3) -> str:
    """A score, or 'undefined' where there is none."""
    return "undefined" if value is None or value != value else f"{value:.{decimals}f}"


def _interval(interval: Sequence[float] | None, decimals: int) -> str:
    return f"{interval[0]:.{decimals}f} to {interval[1]:.{decimals}f}" if interval else "–"
