"""From a row a case and class to the numbers of an evaluation, each with its interval over groups."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukan.metrics import METRICS
from ukan.metrics.calibration import ece, reliability
from ukan.metrics.intervals import cluster_bootstrap, interval_of_sums
from ukan.metrics.lesions import Lesions, image_scores, lesion_scores
from ukan.metrics.objects import object_dice, object_f1, object_hausdorff
from ukan.plan import Plan

Row = dict[str, Any]

LESIONS = Lesions._fields
OBJECTS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "object_f1": object_f1,
    "object_dice": object_dice,
    "object_hausdorff": object_hausdorff,
}
SCORES = (*METRICS, "hd95_penalised", "assd_penalised")
SIZES = ("smallest third of objects", "middle third", "largest third")


def summarise(
    rows: Sequence[Row],
    plan: Plan,
    *,
    tallies: NDArray[np.float64],
    tallies_near: NDArray[np.float64],
    sums: NDArray[np.float64] | None,
) -> dict[str, Any]:
    """Scores as means over cases, and over classes where there are several; the same class by class and by subgroup.

    tallies (cases, 3, bins): what `calibration.tally` counted in each case, over all its pixels and near its objects. sums
    (rows, 9): what `objects.object_sums` counted, where masks hold instances.
    """
    groups = [row["group"] for row in rows]
    of_case = list({(row["part"], row["case"]): row["group"] for row in rows}.values())
    summary: dict[str, Any] = {
        "scored": len(of_case),
        "groups": len(set(groups)),
        "unit": "/".join(sorted({row["unit"] for row in rows})),
        "empty_truth": sum(row["truth_empty"] for row in rows),
        "empty_found": sum(row["found_empty"] for row in rows),
        "scores": scores(rows),
    }
    if len(plan.data.classes) > 1:
        summary["by_class"] = {c: scores([row for row in rows if row["class"] == c]) for c in plan.data.classes}
    apart = [row for row in rows if not row["twin_in_training"]]
    if 0 < len(apart) < len(rows):
        summary["scores_without_twins"] = scores(apart)
    summary["subgroups"] = _subgroups(rows)
    found = lesion_scores([Lesions(*(row[f"lesions_{name}"] for name in LESIONS)) for row in rows], groups)
    summary["lesions"] = found._asdict() | {"counts": found.counts._asdict()}
    present = [not row["truth_empty"] for row in rows]
    largest = [row["largest_probability"] for row in rows]
    summary["images"] = image_scores(present, largest, plan.infer.threshold, groups)._asdict()
    summary["calibration"] = {
        "ece": float(ece(tallies.sum(0))),
        "ece_interval95": interval_of_sums(tallies, of_case, ece),
        "ece_near_objects": float(ece(tallies_near.sum(0))),
        "ece_near_objects_interval95": interval_of_sums(tallies_near, of_case, ece),
        "reliability": [bin._asdict() for bin in reliability(tallies.sum(0))],
    }
    if sums is not None:
        summary["objects"] = {
            name: {"all": float(score(sums.sum(0))), "interval95": interval_of_sums(sums, groups, score)}
            for name, score in OBJECTS.items()
        }
    return without_nan(summary)


def scores(rows: Sequence[Row]) -> dict[str, Any]:
    """For each score the mean over rows, its interval over groups, how many rows leave it undefined, each part's mean."""
    groups = [row["group"] for row in rows]
    parts = list(dict.fromkeys(row["part"] for row in rows))
    found: dict[str, Any] = {}
    for name in [*SCORES, *(name for name in OBJECTS if name in rows[0])]:
        values = [row[name] for row in rows]
        found[name] = {
            "mean": _mean(values),
            "interval95": cluster_bootstrap(values, groups),
            "undefined": sum(math.isnan(value) for value in values),
            "by_fold": [_mean([row[name] for row in rows if row["part"] == part]) for part in parts],
        }
    return found


def _subgroups(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Dice by class and grade of the picture, and by the size of the object, wherever there is more than one."""
    tables: list[dict[str, Any]] = []
    for by, title in (("label", "class"), ("grade", "grade")):
        for value in sorted({row[by] for row in rows if row[by]}):
            tables.append(_subgroup(title, value, [row for row in rows if row[by] == value]))
    filled = sorted((row for row in rows if not row["truth_empty"]), key=lambda row: row["object_share"])
    if len(filled) >= 3 * len(SIZES):
        for k, title in enumerate(SIZES):
            third = filled[len(filled) * k // 3 : len(filled) * (k + 1) // 3]
            low, high = third[0]["object_share"], third[-1]["object_share"]
            tables.append(_subgroup("size", f"{title} ({low:.1%} to {high:.1%} of the image)", third))
    return tables


def _subgroup(by: str, value: str, rows: Sequence[Row]) -> dict[str, Any]:
    dices, groups = [row["dice"] for row in rows], [row["group"] for row in rows]
    return {
        "by": by,
        "value": value,
        "cases": len(rows),
        "groups": len(set(groups)),
        "dice": _mean(dices),
        "interval95": cluster_bootstrap(dices, groups),
    }


def _mean(values: Sequence[float]) -> float | None:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else None


def without_nan(value: Any) -> Any:
    """JSON has no nan: what is undefined is null."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
