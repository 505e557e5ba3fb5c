"""`ukan evaluate`: every case once, by the network that never saw it, at its own size, by the rules of evidence."""

import csv
import json
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ukan.data.cache import Prepared, prepare_cases, read_case
from ukan.errors import UserError
from ukan.imaging import write_mask
from ukan.inference import at_size, predict_prepared
from ukan.metrics import METRICS, dice, dice_from_iou, iou, pooled_iou
from ukan.metrics.intervals import cluster_bootstrap
from ukan.paths import write_text, written_whole
from ukan.plan import Case
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device, resolve_precision, usable_cores

Progress = Callable[[int, int], None]
Row = dict[str, Any]


def evaluate(
    run_path: Path, *, device: str | None = None, data: Path | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Score the finished folds of a run on their held-out cases; writes masks, metrics_per_case.csv and summary.json.

    Returns the summary.
    """
    run = open_run(run_path)
    folds = run.finished_folds
    if not folds:
        raise UserError(f"{run_path}: no fold is finished; `ukan train` the plan first")
    root = run.data_root(data)
    chosen = pick_device(device)
    named = {name for fold in folds for name in run.splits[fold]["val"]}
    everyone = {name for split in run.splits for names in split.values() for name in names}
    prepared = prepare_cases(root, [run.cases[name] for name in sorted(everyone)], run.plan.data)
    total = sum(len(run.splits[fold]["val"]) for fold in folds)
    rows: list[Row] = []
    as_published: list[dict[str, float]] = []
    for fold in folds:
        tell = partial(_tell, on_progress, len(rows), total) if on_progress else None
        fold_rows, published = _score_fold(run, fold, root, prepared, chosen, tell)
        rows += fold_rows
        as_published.append(published)
    _write_rows(run.folder.metrics, rows)
    summary = summarise(run, rows, folds, as_published) | {"cases": len(named)}
    summary["environment"] = environment_record(sys.argv) | {"device": str(chosen)}
    write_text(run.folder.summary, json.dumps(summary, indent=1) + "\n")
    return summary


def _tell(on_progress: Progress, before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def _score_fold(
    run: Run, fold: int, root: Path, prepared: Prepared, device: Any, tell: Callable[[int], None] | None
) -> tuple[list[Row], dict[str, float]]:
    plan, network = run.plan, run.network(fold, device)
    precision = resolve_precision(plan.train.precision, device)
    row_of = {name: row for row, name in enumerate(prepared.names)}
    names = run.splits[fold]["val"]
    rows: list[Row] = []
    small_truths, small_found = [], []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(names), plan.infer.batch_size):
            batch = names[start : start + plan.infer.batch_size]
            images = prepared.images_NHWC[[row_of[name] for name in batch]]
            probabilities = predict_prepared([network], images, plan, device, precision)
            small_found += [p[0] > plan.infer.threshold for p in probabilities]
            small_truths += [prepared.masks_NHWK[row_of[name], ..., 0] > 0 for name in batch]
            cases = [run.cases[name] for name in batch]
            rows += pool.map(lambda case, p: _score_case(run, fold, root, case, p), cases, probabilities)
            if tell:
                tell(len(rows))
    pooled = pooled_iou(small_truths, small_found)
    both = list(zip(small_truths, small_found, strict=True))
    return rows, {
        "iou_pooled": pooled,
        "dice_of_iou_pooled": dice_from_iou(pooled),
        "iou_at_input_size": float(np.mean([iou(t, f) for t, f in both])),
        "dice_at_input_size": float(np.mean([dice(t, f) for t, f in both])),
    }


def _score_case(run: Run, fold: int, root: Path, case: Case, probabilities_Khw: NDArray[np.float32]) -> Row:
    """One case at its own size, written as a mask and measured."""
    image, truth = read_case(root, case, run.plan.data)
    found = at_size(probabilities_Khw, *image.shape[:2])[0] > run.plan.infer.threshold
    write_mask(run.folder.prediction(fold, case.case), found)
    row: Row = {"case": case.case, "fold": fold, "group": case.group, "label": case.label}
    row |= {"truth_empty": int(not truth.any()), "found_empty": int(not found.any())}
    row |= {name: metric.compute(truth, found) for name, metric in METRICS.items()}
    # Beside the undefined distance one that makes a missed or invented object cost the image's diagonal.
    distance = 0.0 if not truth.any() and not found.any() else math.hypot(*truth.shape)
    row["hd95_px_penalised"] = distance if math.isnan(row["hd95_px"]) else row["hd95_px"]
    return row


SCORES = (*METRICS, "hd95_px_penalised")


def summarise(
    run: Run, rows: Sequence[Row], folds: Sequence[int], as_published: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Means over cases with 95 % intervals by groups; for published splits also the published metric, split by split."""
    scores: dict[str, Any] = {}
    for name in SCORES:
        values = [row[name] for row in rows]
        defined = [value for value in values if not math.isnan(value)]
        scores[name] = {
            "mean": float(np.mean(defined)) if defined else None,
            "interval95": cluster_bootstrap(values, [row["group"] for row in rows]),
            "undefined": len(values) - len(defined),
            "by_fold": [_mean([row[name] for row in rows if row["fold"] == fold]) for fold in folds],
        }
    missing = [fold for fold in range(run.plan.split.count) if fold not in folds]
    summary: dict[str, Any] = {
        "protocol": run.plan.protocol,
        "split": run.plan.split.kind,
        "folds": list(folds),
        "folds_missing": missing,
        "scored": len(rows),
        "groups": len({row["group"] for row in rows}),
        "empty_truth": sum(row["truth_empty"] for row in rows),
        "empty_found": sum(row["found_empty"] for row in rows),
        "scores": scores,
        "weights_sha256": run.weights_sha256(),
    }
    if run.plan.split.kind == "published":
        summary["as_published"] = {
            "what": "at the network's size: IoU pooled over batches of 8, the Dice derived from it, and means over images",
            "mean": {key: float(np.mean([fold[key] for fold in as_published])) for key in as_published[0]},
            "by_fold": list(as_published),
            "paper": run.plan.published,
        }
    return summary


def _mean(values: Sequence[float]) -> float | None:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else None


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()})
