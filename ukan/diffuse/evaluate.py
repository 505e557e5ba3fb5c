"""`ukan evaluate` of a diffusion run: how well noise is told from images never trained on, and from those trained on."""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ukan.data.cache import Prepared
from ukan.data.preprocess import to_condition, to_signed
from ukan.diffuse.train import denoising_error, fixed_noise, noise_scheduler
from ukan.errors import UserError
from ukan.metrics.intervals import cluster_bootstrap, interval_of_sums
from ukan.paths import ScoreFolder, write_text, written_whole
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device, resolve_precision

Progress = Callable[[int, int], None]
TIMES = 10
"""Parts of the timesteps, each asked at its middle."""
COLUMNS = ("case", "fold", "part", "group", "error")


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
    """The mean squared error of what the finished folds predict, unweighted, at ten timesteps, always of the same noise.

    Of held-out images, and of as many training images spread over all: their difference is what was learned by heart.
    Writes metrics_per_case.csv and summary.json. Raises UserError for options of segmentation (test, on, layout, tta), and
    where the run holds nothing out.
    """
    run = open_run(run_path, "diffuse")
    asked = {"--test": test, "--on": on, "--layout": layout, "--tta": tta}
    if wrong := [option for option, value in asked.items() if value]:
        raise UserError(f"{', '.join(wrong)}: of segmentation, and {run.folder.root} is a run of diffusion; leave it out")
    if not run.finished_folds:
        raise UserError(f"{run.folder.root}: no fold is trained yet; `ukan train` goes on")
    if not any(run.splits[fold]["val"] for fold in run.finished_folds):
        raise UserError(
            f"{run.folder.root}: trained on every image (split.kind=all), so that none is left to judge by; "
            f"`ukan sample`, then `ukan fid {run.folder.root} FOLDER --protocol paper`"
        )
    prepared, chosen = run.prepared(data), pick_device(device)
    parts = [
        (fold, part, rows)
        for fold in run.finished_folds
        for part, rows in _parts(prepared, run.splits[fold]["val"], run.splits[fold]["train"]).items()
    ]
    total, found = sum(len(rows) for *_, rows in parts), list[tuple[dict[str, Any], NDArray[np.float64]]]()
    for fold, part, rows in parts:
        network = run.network(fold, chosen)
        for start in range(0, len(rows), run.plan.infer.batch_size):
            batch = rows[start : start + run.plan.infer.batch_size]
            errors_BT = _errors(run, network, prepared, batch, chosen)
            for (name, _), errors_T in zip(batch, errors_BT, strict=True):
                about = {"case": name, "fold": fold, "part": part, "group": run.cases[name].group, "error": errors_T.mean()}
                found.append((about, errors_T))
            if on_progress:
                on_progress(len(found), total)
    summary: dict[str, Any] = {
        "task": "diffuse",
        "protocol": run.plan.protocol,
        "what": "denoising error, mean squared, unweighted",
    }
    summary |= {"folds": run.finished_folds, "split": run.plan.split.kind, **_summarise(run, found)}
    summary |= {
        "weights_sha256": run.weights_sha256(),
        "environment": environment_record(sys.argv) | {"device": str(chosen)},
    }
    _write_rows(run.folder.scores.metrics, [row for row, _ in found])
    write_text(run.folder.scores.summary, json.dumps(summary, indent=1) + "\n")
    return summary, run.folder.scores


def _parts(prepared: Prepared, held_out: Sequence[str], train: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Rows of the held-out images, and as many of the training images, evenly spread."""
    ours, theirs = ([(name, row) for name in names for row in prepared.rows(name)] for names in (held_out, train))
    spread = np.unique(np.linspace(0, len(theirs) - 1, min(len(ours), len(theirs))).round().astype(int))
    return {"held_out": ours, "training": [theirs[i] for i in spread]}


@torch.inference_mode()
def _errors(
    run: Run, network: torch.nn.Module, prepared: Prepared, rows: Sequence[tuple[str, int]], device: torch.device
) -> NDArray[np.float64]:
    """(B, TIMES)"""
    plan, numbers = run.plan, [row for _, row in rows]
    assert plan.diffuse
    scheduler, precision = noise_scheduler(plan.diffuse), resolve_precision(plan.train.precision, device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    images = to_signed(torch.from_numpy(prepared.images_NHWC[numbers]).to(device))
    told: dict[str, torch.Tensor] = {}
    if plan.diffuse.condition == "class":
        labels = [plan.diffuse.classes.index(run.cases[name].label) for name, _ in rows]
        told["class_labels"] = torch.tensor(labels, device=device)
    if plan.diffuse.condition == "mask":
        targets = torch.from_numpy(prepared.targets_NHWM[numbers]).permute(0, 3, 1, 2)
        told["condition"] = to_condition(targets.to(device), plan.data)
    found = []
    for part in range(TIMES):
        time = int((part + 0.5) * plan.diffuse.timesteps / TIMES)
        noise = torch.stack([fixed_noise(row * TIMES + part, images.shape[1:]) for row in numbers]).to(device)
        times = torch.full((len(rows),), time, device=device)
        with torch.autocast(device.type, dtype, enabled=precision != "fp32"):
            found.append(denoising_error(network, scheduler, images, noise, times, told).double().cpu().numpy())
    return np.stack(found, axis=1)


def _summarise(run: Run, found: Sequence[tuple[dict[str, Any], NDArray[np.float64]]]) -> dict[str, Any]:
    assert run.plan.diffuse
    rows = [row for row, _ in found]
    errors_NT, unseen = np.stack([errors for _, errors in found]), np.array([row["part"] == "held_out" for row in rows])
    mean, groups = errors_NT.mean(1), [row["group"] for row in rows]
    sums = np.stack([mean * unseen, unseen, mean * ~unseen, ~unseen], axis=1).astype(np.float64)
    held_out, training = float(mean[unseen].mean()), float(mean[~unseen].mean())
    edges = np.linspace(0, run.plan.diffuse.timesteps, TIMES + 1).round().astype(int).tolist()
    by_time = zip(edges, edges[1:], errors_NT[unseen].mean(0).tolist(), errors_NT[~unseen].mean(0).tolist(), strict=False)
    return {
        "cases": len({row["case"] for row, is_unseen in zip(rows, unseen, strict=True) if is_unseen}),
        "groups": len({group for group, is_unseen in zip(groups, unseen, strict=True) if is_unseen}),
        "error": {
            "held_out": held_out,
            "interval95": cluster_bootstrap(mean[unseen], np.array(groups)[unseen].tolist()),
            "training": training,
            "gap": held_out - training,
            "gap_interval95": interval_of_sums(sums, groups, _gap),
        },
        "by_time": [{"from": low, "to": high, "held_out": a, "training": b} for low, high, a, b in by_time],
    }


def _gap(sums_R4: NDArray[np.float64]) -> NDArray[np.float64]:
    """Held-out less training mean, of resamples; nan where one drew no image of a part."""
    with np.errstate(invalid="ignore"):
        return sums_R4[:, 0] / sums_R4[:, 1] - sums_R4[:, 2] / sums_R4[:, 3]


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"error": f"{row['error']:.6f}"} for row in rows)
