"""`ukan evaluate`: every case scored once, at its own size, by networks that never saw it."""

import csv
import json
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ukan.data.cache import Prepared, prepare_cases, read_case
from ukan.data.masks import read_instances
from ukan.data.outputs import write_segmentation
from ukan.data.preprocess import per_class
from ukan.errors import DataError, UserError
from ukan.inference import Predicted, decide, full_size, predict_stacks, training_flips
from ukan.metrics import dice, dice_from_iou, iou, measure, penalised, pooled_iou
from ukan.metrics.calibration import near_object, tally
from ukan.metrics.lesions import lesions
from ukan.metrics.objects import instances, object_sums
from ukan.metrics.quality import expected_dice
from ukan.paths import ScoreFolder, write_text, written_whole
from ukan.plan import Case, DataPlan, Plan
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device, resolve_precision, usable_cores
from ukan.segment.quality import fit_quality
from ukan.segment.summary import OBJECTS, summarise

Progress = Callable[[int, int], None]
Row = dict[str, Any]


class Part(NamedTuple):
    """Cases and the networks that score them."""

    name: str
    folds: list[int]
    cases: list[Case]


class Task(NamedTuple):
    """What is to be scored."""

    what: str
    place: ScoreFolder
    root: Path
    data: DataPlan
    parts: list[Part]
    left_out: list[str] = []
    """Cases that the networks may know."""
    training_known: bool = True
    """Whether it is known which those are."""


@dataclass
class Scored:
    """What scoring gives."""

    rows: list[Row] = field(default_factory=list)
    """One for each case and class."""
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    """One for each row, where masks hold instances."""
    tallies: list[NDArray[np.float64]] = field(default_factory=list)
    """For each case the calibration over all its pixels, and near its objects."""
    features: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)
    """By part and case, where one network scored it."""
    as_published: list[dict[str, float]] = field(default_factory=list)
    """One for each part."""


def evaluate(
    run_path: Path,
    *,
    test: bool = False,
    on: Path | None = None,
    layout: str | None = None,
    tta: bool = False,
    device: str | None = None,
    data: Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[dict[str, Any], ScoreFolder]:
    """Score a run; write masks, metrics_per_case.csv and summary.json, and return the summary and where it lies.

    By default every held-out case by the network of its fold. test: the official test part, by the mean of the finished
    folds. on: another dataset, likewise, without the cases that were in training or look nearly like one. tta: the mean
    over the flips of training.
    """
    run = open_run(run_path)
    if not run.finished_folds:
        raise UserError(f"{run_path}: no fold is finished; `ukan train` the plan first")
    if test and on:
        raise UserError("--test and --on: one at a time")
    task = external(run, on, layout) if on else _test(run, data) if test else held_out(run, data)
    chosen = pick_device(device)
    wanted = {case.case: case for part in task.parts for case in part.cases}
    if not test and not on:  # all that training prepared, for the cache's sake and to know what is familiar
        prepared = prepare_cases(task.root, [run.cases[name] for name in sorted(_trained_or_held_out(run))], task.data)
    else:
        prepared = prepare_cases(task.root, list(wanted.values()), task.data)
    total, scored = sum(len(part.cases) for part in task.parts), Scored()
    for part in task.parts:
        _score_part(run, task, part, prepared, chosen, tta, scored, _counted(on_progress, total))
    _write_rows(task.place.metrics, scored.rows)
    summary: dict[str, Any] = {"protocol": run.plan.protocol, "what": task.what, "split": run.plan.split.kind}
    summary |= {"folds": run.finished_folds, "cases": len(wanted), "left_out": task.left_out, "tta": tta}
    summary["training_known"] = task.training_known
    summary["folds_missing"] = [k for k in range(run.plan.split.count) if k not in run.finished_folds]
    tallies = np.stack(scored.tallies)
    sums = np.stack(scored.sums) if scored.sums else None
    plan = run.plan.model_copy(update={"data": task.data})
    summary |= summarise(scored.rows, plan, tallies=tallies[:, 0], tallies_near=tallies[:, 1], sums=sums)
    if scored.as_published and not test and not on:
        summary["as_published"] = _as_published(run, scored.as_published)
    if not test and not on:
        summary["quality"] = fit_quality(run, scored.rows, scored.features, prepared, chosen)
    summary["weights_sha256"] = run.weights_sha256()
    summary["environment"] = environment_record(sys.argv) | {"device": str(chosen)}
    write_text(task.place.summary, json.dumps(summary, indent=1) + "\n")
    return summary, task.place


def _trained_or_held_out(run: Run) -> set[str]:
    return {name for split in run.splits for names in split.values() for name in names}


def held_out(run: Run, data: Path | None) -> Task:
    parts = [Part(f"fold_{k}", [k], [run.cases[name] for name in run.splits[k]["val"]]) for k in run.finished_folds]
    what = "held-out cases, by which the imported network's epoch was chosen" if run.imported else "held-out cases"
    return Task(what, run.folder.scores, run.data_root(data), run.plan.data, parts)


def _test(run: Run, data: Path | None) -> Task:
    cases = [case for case in run.cases.values() if case.split == "test"]
    if not cases or _trained_or_held_out(run) & {case.case for case in cases}:
        why = "was pooled with the rest (split.official_test)" if cases else "is not among its cases"
        raise UserError(f"{run.folder.root}: an official test part {why}; without --test the held-out cases are scored")
    part = Part("all", run.finished_folds, cases)
    return Task("the official test part", run.folder.test_scores, run.data_root(data), run.plan.data, [part])


def external(run: Run, on: Path, layout: str | None) -> Task:
    """Another dataset's cases, read by its own mask rule, without those that the networks may know."""
    from ukan.data.duplicates import find_twins, load_thumbnails
    from ukan.data.index import index_folder

    index = index_folder(on, layout=layout)
    if index.errors or index.fingerprint is None:
        raise DataError(f"{on}: {len(index.errors)} problem(s) keep cases from being used; `ukan check` lists them")
    found, data = index.fingerprint, run.plan.data
    if not found.mask_values:
        raise DataError(f"{on}: images without masks: there is nothing to compare with; `ukan predict` segments them")
    if (found.target, data.target) != ("binary", "binary") and found.classes != data.classes:
        raise UserError(f"{on}: its classes ({', '.join(found.classes)}) are not the run's ({', '.join(data.classes)})")
    data = data.model_copy(update={"dataset": found.dataset} | found.model_dump(include={"mask_rule", "label_values"}))
    twins = find_twins(index.thumbnails, load_thumbnails(run.folder.thumbnails)) if run.knows_cases else {}
    cases = [case for case in index.cases if case.case not in twins]
    if not cases:
        raise DataError(f"{on}: every case was in training, or looks nearly like one that was; nothing is left to score")
    place = run.folder.external_scores(found.dataset)
    parts = [Part("all", run.finished_folds, cases)]
    return Task(f"dataset {found.dataset}", place, index.root, data, parts, sorted(twins), run.knows_cases)


def _score_part(
    run: Run,
    task: Task,
    part: Part,
    prepared: Prepared,
    device: torch.device,
    tta: bool,
    scored: Scored,
    tell: Callable[[int], None],
) -> None:
    plan = run.plan.model_copy(update={"data": task.data})
    networks = [run.network(fold, device) for fold in part.folds]
    precision = resolve_precision(plan.train.precision, device)
    flips = training_flips(plan) if tta else [()]
    testing = task.place == run.folder.test_scores
    known = {run.cases[name].group for fold in part.folds for name in run.splits[fold]["train"]} if testing else set()
    stacks = (prepared.images_NHWC[_slice(prepared.rows(case.case))] for case in part.cases)
    small: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        waiting = deque[Future[list[Row]]]()
        for case, said in zip(
            part.cases, predict_stacks(networks, stacks, plan, device, precision, flips=flips), strict=True
        ):
            targets = prepared.targets_NHWM[_slice(prepared.rows(case.case))]
            truth_DKhw, found_DKhw = per_class(targets, plan.data), decide(said.probabilities_DKhw, plan, axis=1)
            near = near_object(truth_DKhw, found_DKhw)
            scored.tallies.append(np.stack([tally(said.probabilities_DKhw[box], truth_DKhw[box]) for box in (..., near)]))
            if plan.split.kind == "published":
                small.append((truth_DKhw[0, 0], found_DKhw[0, 0]))
            if len(part.folds) == 1 and said.features_F:
                scored.features[part.name, case.case] = said.features_F[0]
            twin = int(case.group in known)
            waiting.append(pool.submit(_score_case, task, part, case, said, plan, twin))
            if len(waiting) > 2 * usable_cores():
                _take(waiting.popleft().result(), scored)
            tell(len(scored.tallies))
        while waiting:
            _take(waiting.popleft().result(), scored)
    if small and plan.data.target == "binary":
        pooled = pooled_iou([truth for truth, _ in small], [found for _, found in small])
        scored.as_published.append(
            {
                "iou_pooled": pooled,
                "dice_of_iou_pooled": dice_from_iou(pooled),
                "iou_at_input_size": float(np.mean([iou(t, f) for t, f in small])),
                "dice_at_input_size": float(np.mean([dice(t, f) for t, f in small])),
            }
        )


def _score_case(task: Task, part: Part, case: Case, said: Predicted, plan: Plan, twin: int) -> list[Row]:
    """One case at its own size, written as a mask and measured class by class."""
    image, truth_KDHW, geometry = read_case(task.root, case, plan.data)
    probabilities_KDHW = full_size(said.probabilities_DKhw, image.shape[1:3], plan.data)
    found_KDHW = decide(probabilities_KDHW, plan)
    write_segmentation(task.place.prediction(part.name, case.case), found_KDHW, geometry, plan.data)
    spacing = geometry.spacing_mm if geometry else None
    rows = []
    for k, name in enumerate(plan.data.classes):
        truth, found, probabilities = truth_KDHW[k], found_KDHW[k], said.probabilities_DKhw[:, k]
        row: Row = {"case": case.case, "part": part.name, "class": name, "group": case.group}
        row |= {"label": case.label, "grade": case.grade, "twin_in_training": twin, "object_share": float(truth.mean())}
        row |= {"truth_empty": int(not truth.any()), "found_empty": int(not found.any()), "unit": "mm" if geometry else "px"}
        row |= measure(truth, found, spacing)
        row |= {f"{name}_penalised": penalised(row[name], truth, found, spacing) for name in ("hd95", "assd")}
        row |= {f"lesions_{name}": count for name, count in lesions(truth, found)._asdict().items()}
        row |= {"largest_probability": float(probabilities.max())}
        row |= {"expected_dice": expected_dice(probabilities, plan.infer.threshold)}
        if plan.data.mask_rule == "instances" and len(image) == 1:
            sums = object_sums(read_instances(task.root, case, truth.shape)[0], instances(found[0]))
            row |= {name: float(score(sums)) for name, score in OBJECTS.items()} | {"sums": sums}
        rows.append(row)
    return rows


def _take(rows: list[Row], scored: Scored) -> None:
    scored.sums += [row.pop("sums") for row in rows if "sums" in row]
    scored.rows += rows


def _as_published(run: Run, by_part: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "what": "at the network's size: IoU pooled over batches of 8, the Dice derived from it, and means over images",
        "mean": {key: float(np.mean([part[key] for part in by_part])) for key in by_part[0]},
        "by_fold": by_part,
        "paper": run.plan.published,
    }


def _slice(rows: range) -> slice:
    return slice(rows.start, rows.stop)


def _counted(on_progress: Progress | None, total: int) -> Callable[[int], None]:
    return lambda done: on_progress(done, total) if on_progress else None


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()})
