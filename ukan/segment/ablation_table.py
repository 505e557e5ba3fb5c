"""The variants of a set of recipes side by side: scores with intervals, paired differences, costs, the published numbers."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ukan.data.splits import Splits
from ukan.errors import DataError
from ukan.metrics.intervals import cluster_bootstrap
from ukan.models import find_model
from ukan.models.cost import Cost, paper_gflops
from ukan.paths import AblationFolder, RunFolder, written_whole
from ukan.plan import Plan, load_splits
from ukan.runs import Run
from ukan.segment.compare import read_rows, steps_of
from ukan.stage.recipes import Variant

Interval = tuple[float, float] | None
POOLED = ("iou_pooled", "dice_of_iou_pooled")


@dataclass(frozen=True)
class Planned:
    """A variant as a plan for a dataset, and the run it has or will have."""

    variant: Variant
    plan: Plan
    splits: Splits
    cost: Cost
    run: RunFolder

    def begun_otherwise(self) -> list[str]:
        """In what the run that is there differs from this plan."""
        if not self.run.plan.exists():
            return []
        difference = Plan.load(self.run.plan).difference(self.plan)
        return difference or ["the folds"] * (load_splits(self.run.splits) != self.splits)

    def trained(self, folds: Sequence[int]) -> bool:
        return all(self.run.fold(k).weights.exists() for k in folds)

    def summary(self) -> dict[str, Any] | None:
        """That of an evaluation of the weights that are there, without --tta; None where there is none."""
        try:
            summary = json.loads(self.run.scores.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        current = summary.get("weights_sha256") == Run(self.run, self.plan).weights_sha256()
        return summary if current and not summary["tta"] and self.run.scores.metrics.exists() else None


class Line(NamedTuple):
    """A variant in the table: the columns of table.csv. Scores are shares of 1, the paper's as well."""

    variant: str
    dice: float
    dice_interval95: Interval
    iou: float
    iou_interval95: Interval
    difference: float | None
    """Of the Dice to the first line's, case by case; None in the first."""
    difference_interval95: Interval
    iou_pooled: float | None
    dice_of_iou_pooled: float | None
    paper_iou: float | None
    paper_dice: float | None
    parameters: int
    gflops: float
    gflops_by_paper_rule: float | None
    """None for a network that takes no 256x256."""
    paper_gflops: float | None
    seconds_per_step: float | None
    steps: int | None
    """Of each fold."""
    protocol: str
    folds: tuple[int, ...]
    cases: int
    scored: int
    """Counts a case once for each split that holds it out."""
    groups: int
    input_size: tuple[int, int]
    """Height and width."""


def compare(finished: Sequence[Planned], folds: Sequence[int]) -> list[Line]:
    """A line for each variant, all of them trained and scored in these folds. Raises DataError where cases differ."""
    lines: list[Line] = []
    scores = [read_rows(Run(p.run, p.plan), folds) for p in finished]
    for p, mine in zip(finished, scores, strict=True):
        if mine.keys() != scores[0].keys():
            raise DataError(
                f"{p.run.scores.metrics} and {finished[0].run.scores.metrics} do not hold the same cases and classes, "
                f"so they cannot be compared; `ukan evaluate {p.run.root}` writes the first anew"
            )
        groups = [row["group"] for row in scores[0].values()]
        dice, iou, first_dice = (
            np.array([float(rows[key][score]) for key in scores[0]])
            for rows, score in ((mine, "dice"), (mine, "iou"), (scores[0], "dice"))
        )
        plan, published, pooled = p.plan, p.variant.published, _pooled(p.summary() or {}, folds)
        seconds, steps = steps_of(Run(p.run, p.plan), folds)
        lines.append(
            Line(
                variant=p.variant.name,
                dice=float(dice.mean()),
                dice_interval95=cluster_bootstrap(dice, groups),
                iou=float(iou.mean()),
                iou_interval95=cluster_bootstrap(iou, groups),
                difference=float((dice - first_dice).mean()) if lines else None,
                difference_interval95=cluster_bootstrap(dice - first_dice, groups) if lines else None,
                iou_pooled=pooled.get(POOLED[0]),
                dice_of_iou_pooled=pooled.get(POOLED[1]),
                paper_iou=published["iou"] / 100 if "iou" in published else None,  # papers print percent
                paper_dice=published["dice"] / 100 if "dice" in published else None,
                parameters=p.cost.parameters,
                gflops=p.cost.flops / 1e9,
                gflops_by_paper_rule=_paper_rule(plan),
                paper_gflops=published.get("gflops"),
                seconds_per_step=seconds,
                steps=steps,
                protocol=plan.protocol,
                folds=tuple(folds),
                cases=len({case for _, case, _ in mine}),
                scored=len({(part, case) for part, case, _ in mine}),
                groups=len(set(groups)),
                input_size=plan.data.input_size,
            )
        )
    return lines


def describe(lines: Sequence[Line], plan: Plan, about: str, settings: Sequence[str], missing: Sequence[str]) -> list[str]:
    """What is to be known of the table, a sentence or two each. `plan` is that of any of its variants."""
    first = lines[0]
    unit = "split" if plan.split.kind == "published" else "fold"
    which = f"{unit}{'s' if len(first.folds) > 1 else ''} {', '.join(map(str, first.folds))} of {plan.split.count}"
    scored = f", {first.scored} scores" if first.scored != first.cases else ""
    steps = sorted({line.steps for line in lines if line.steps})
    sizes = sorted({f"{width}x{height}" for height, width in (line.input_size for line in lines)})
    length = " or ".join(f"{n:,}" for n in steps) or "an unknown number of"
    notes = [
        f"Protocol {first.protocol}, {which}: {first.cases} held-out cases in {first.groups} groups{scored}; "
        f"{length} steps a {unit} at {' or '.join(sizes)}.",
        "Dice and IoU: of each case at its own size; the mean, and its 95 % interval over groups. The difference is paired, "
        "case by case: where its interval holds 0, these cases do not tell the two apart. Chance between trainings is not "
        "in the intervals.",
    ]
    if len(steps) > 1 or len(sizes) > 1:
        notes.append("The variants differ in steps or input size: this is no comparison at equal effort.")
    if plan.split.kind == "published":
        notes.append("The published split is blind to groups: near-duplicates may be on both sides of it.")
    if any(line.iou_pooled is not None for line in lines):
        notes.append("Pooled: the published metric, IoU over batches of 8 at the network's size; here of the last epoch.")
    if about:
        notes.append(about)
    if any(line.paper_iou is not None or line.paper_dice is not None for line in lines):
        notes.append("The paper's scores belong beside the pooled ones, and only at the paper's size, length and data.")
    notes.append(
        "GFLOPs: one image forward at the size used, 2 for each multiply-add of convolutions and matrix products (KAN "
        "layers included), 9 for each state and step of a scan. By the paper's rule: eight times what thop counts at "
        "256x256, where KAN layers count as nothing."
    )
    if settings:
        notes.append(f"Set by hand for all variants: {', '.join(settings)}.")
    if missing:
        notes.append(f"Not trained and scored by this plan in these {unit}s: {', '.join(missing)}.")
    return notes


def shown(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells for people; a column that nothing is known of is left out, what is not known else is a dash."""
    columns = {
        "variant": [line.variant for line in lines],
        "Dice": [_with_interval(line.dice, line.dice_interval95) for line in lines],
        "IoU": [_with_interval(line.iou, line.iou_interval95) for line in lines],
        "Dice, difference\nto the first": [
            _with_interval(line.difference, line.difference_interval95, "+.4f") for line in lines
        ],
        "IoU,\npooled": [_number(line.iou_pooled) for line in lines],
        "Dice of\npooled IoU": [_number(line.dice_of_iou_pooled) for line in lines],
        "paper's\nIoU": [_number(line.paper_iou) for line in lines],
        "paper's\nDice": [_number(line.paper_dice) for line in lines],
        "parameters": [f"{line.parameters:,}" for line in lines],
        "GFLOPs": [_number(line.gflops, ".3f") for line in lines],
        "by paper's\nrule": [_number(line.gflops_by_paper_rule, ".2f") for line in lines],
        "paper's\nGFLOPs": [_number(line.paper_gflops, ".2f") for line in lines],
        "seconds\na step": [_number(line.seconds_per_step, ".3f") for line in lines],
    }
    known = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    return list(known), [list(row) for row in zip(*known.values(), strict=True)]


def write_table(lines: Sequence[Line], place: AblationFolder) -> None:
    """table.csv: an interval as two columns, what is not known empty."""
    rows = []
    for line in lines:
        row: dict[str, Any] = {}
        for key, value in line._asdict().items():
            if key.endswith("_interval95"):
                low, high = value or (None, None)
                row |= {key.replace("interval95", "low"): low, key.replace("interval95", "high"): high}
            else:
                row[key] = value
        row = {key: f"{value:.6f}" if isinstance(value, float) else value for key, value in row.items()}
        height, width = line.input_size
        rows.append(row | {"folds": " ".join(map(str, line.folds)), "input_size": f"{width}x{height}"})
    with written_whole(place.table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _pooled(summary: dict[str, Any], folds: Sequence[int]) -> dict[str, float]:
    """The published metric, its mean over these splits; nothing where the split is not the published one."""
    if "as_published" not in summary:
        return {}
    by_fold = dict(zip(summary["folds"], summary["as_published"]["by_fold"], strict=True))
    return {key: float(np.mean([by_fold[k][key] for k in folds])) for key in POOLED}


def _paper_rule(plan: Plan) -> float | None:
    if 256 % find_model(plan.model.name).stride:  # type: ignore[attr-defined]
        return None
    return paper_gflops(plan.model.name, plan.data.channels, plan.data.outputs, plan.model.sizes)


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def _with_interval(value: float | None, interval: Interval, form: str = ".4f") -> str:
    return _number(value, form) + (f"\n{interval[0]:{form}} to {interval[1]:{form}}" if interval else "")
