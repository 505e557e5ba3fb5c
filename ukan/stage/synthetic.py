"""Images drawn by a diffusion run for training a segmentation network: by a fold that saw none of what will be scored."""

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.cache import cache_root
from ukan.data.preprocess import per_class, prepare_stack, prepare_truth
from ukan.errors import UserError
from ukan.paths import written_whole
from ukan.plan import Case, DataPlan, Plan
from ukan.runs import Run, open_run
from ukan.runtime import pick_device, resolve_precision
from ukan.sampling import draw_images, drawn_by


class Synthetic(NamedTuple):
    """Drawn images, prepared as the network takes them."""

    images_NHWC: NDArray[np.uint8]
    targets_NHWM: NDArray[np.uint8]
    """The masks they were drawn for, as `prepare_truth` makes them."""
    about: dict[str, Any]
    """By what they were drawn."""


def synthetic_images(
    plan: Plan,
    cases: dict[str, Case],
    split: dict[str, list[str]],
    count: int,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Synthetic:
    """`count` images of the run plan.data.synthetic, of the seeds 0, 1, ..., for masks of cases its network was trained on.

    The fold that draws is the first whose training cases share no group with the held-out cases of `split`, nor with an
    official test part. What is drawn is kept in the cache. Raises UserError where the run is none of the kind, is of another
    index of the dataset, or has no such fold.
    """
    data, run = plan.data, synthetic_run(plan.data)
    fold = unspoilt_fold(run, cases, split, test_held_out=plan.split.official_test == "hold_out")
    weights = run.weights_sha256()[str(fold)]
    assert run.plan.diffuse
    settings = run.plan.diffuse.model_dump(mode="json") | {"weights": weights, "count": count}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    kept = cache_root() / f"synthetic-{key}.npz"
    images, targets = _load(kept) or _draw(run, fold, count, device, kept, on_progress)
    (height, width), (ours_h, ours_w) = run.plan.data.input_size, data.input_size
    if ours_h > height or ours_w > width:
        print(f"data.synthetic: images of {width}x{height} are enlarged to {ours_w}x{ours_h}, and blurred", file=sys.stderr)
    about = {
        "run": data.synthetic,
        "fold": fold,
        "weights_sha256": weights,
        "images": count,
        "share": data.synthetic_share,
        "size": [height, width],
    }
    truth_KDHW = np.moveaxis(per_class(targets, run.plan.data), 1, 0)
    return Synthetic(prepare_stack(images, data), prepare_truth(truth_KDHW, data), about)


def synthetic_run(data: DataPlan) -> Run:
    """The run data.synthetic. Raises UserError where it is none whose images can be learned from."""
    assert data.synthetic
    try:
        run = open_run(Path(data.synthetic), "diffuse")
    except UserError as error:
        raise type(error)(f"data.synthetic={error}") from error
    where, theirs = run.folder.root, run.plan
    assert theirs.diffuse
    if theirs.diffuse.condition != "mask":
        raise UserError(
            f"data.synthetic={where}: drawn without masks (diffuse.condition={theirs.diffuse.condition}); only images drawn "
            "for masks can be learned from"
        )
    if theirs.data.index_sha256 != data.index_sha256:
        raise UserError(
            f"data.synthetic={where}: of another index of the dataset, so that nobody knows what its networks saw; plan and "
            "train both on the same folder, with the same --groups and --skip-bad"
        )
    if theirs.data.classes != data.classes:
        known = ", ".join(theirs.data.classes)
        raise UserError(f"data.synthetic={where}: of the classes {known}, not {', '.join(data.classes)}")
    return run


def unspoilt_fold(run: Run, cases: dict[str, Case], split: dict[str, list[str]], *, test_held_out: bool = True) -> int:
    """The first finished fold trained on nothing that `split`, or an official test part held out, will score."""
    scored = {cases[name].group for name in split["val"]}
    scored |= {case.group for case in run.cases.values() if case.split == "test" and test_held_out}
    shared: list[str] = []
    for fold in run.finished_folds:
        found = [name for name in run.splits[fold]["train"] if run.cases[name].group in scored]
        if not found:
            return fold
        shared = found if not shared or len(found) < len(shared) else shared
    finished = ", ".join(map(str, run.finished_folds)) or "none"
    raise UserError(
        f"data.synthetic={run.folder.root}: every finished fold ({finished}) was trained on cases that this fold will be "
        f"scored on, or on others of their groups (at least {len(shared)}: {', '.join(shared[:3])}); train the same fold "
        "there first (ukan train PLAN --fold K), with the same split"
    )


def _load(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    try:
        with np.load(path) as kept:
            return kept["images"], kept["targets"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _draw(
    run: Run, fold: int, count: int, device: str | None, kept: Path, on_progress: Callable[[int, int], None] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    plan, prepared, chosen = run.plan, run.prepared(), pick_device(device)
    rows = [row for name in run.splits[fold]["train"] for row in prepared.rows(name)]
    drawn = [rows[drawn_by(seed, len(rows))] for seed in range(count)]
    targets = np.array(prepared.targets_NHWM[drawn])
    network, precision = run.network(fold, chosen), resolve_precision(plan.train.precision, chosen)
    images = []
    for start in range(0, count, plan.infer.batch_size):
        seeds = range(start, min(count, start + plan.infer.batch_size))
        images.append(draw_images(network, plan, seeds, chosen, precision, targets_BHWM=targets[start : seeds[-1] + 1]))
        if on_progress:
            on_progress(seeds[-1] + 1, count)
    with written_whole(kept) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=np.concatenate(images), targets=targets)
    return np.concatenate(images), targets
