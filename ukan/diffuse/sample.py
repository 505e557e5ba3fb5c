"""`ukan sample`: images from noise, one for each seed, into a folder that another call fills further."""

import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ukan.data.masks import Rule, count_values, misfit, read_truth
from ukan.data.outputs import write_segmentation
from ukan.data.preprocess import per_class, prepare_truth
from ukan.data.windows import cut, windows
from ukan.diffuse.pictures import write_grid
from ukan.errors import DataError, Interrupted, UserError, nearest
from ukan.imaging import find_images, read_image, read_labels, stem_of, write_image, write_pages
from ukan.paths import SampleFolder, write_text, written_whole
from ukan.plan import Case, DataPlan, DiffusePlan, Plan
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device, resolve_precision
from ukan.sampling import draw_images, drawn_by, make_scheduler
from ukan.training.interrupt import Stop

_SHOWN = 64
"""Images of the grid."""
COLUMNS = ("image", "seed", "class", "mask")


class Sampled(NamedTuple):
    written: int
    skipped: int
    """Were there already."""
    folder: SampleFolder


class Conditions(NamedTuple):
    """What each image is drawn for."""

    labels: list[str] | None = None
    masks: list[str] | None = None
    """Their names."""
    target_HWM: Callable[[int], NDArray[np.uint8]] | None = None
    """The mask of an image, by its number."""
    sha256: str | None = None
    """Of all masks given."""


def sample(
    run_path: Path,
    out: Path,
    *,
    count: int | None = None,
    seed: int = 0,
    fold: int = 0,
    steps: int | None = None,
    scheduler: str | None = None,
    guidance: float | None = None,
    label: str | None = None,
    masks: Path | None = None,
    device: str | None = None,
    data: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sampled:
    """Draw `count` images of the seeds `seed`, `seed` + 1, ... into out/images/; those already there are left alone.

    steps, scheduler, guidance: instead of the plan's. label: one class for all (condition: class), otherwise each image's
    class is drawn by its seed, as often as among the training cases. masks: a folder of them (condition: mask), taken in
    turn; otherwise each image's mask is drawn by its seed from the training cases, whose dataset is then needed (data).
    count: 64 by default, or as many as there are masks.

    Raises UserError for what the run cannot do, DataError where masks do not match or `out` holds other images; Interrupted
    after Ctrl-C or SIGTERM, with all images so far in place.
    """
    run = open_run(run_path, "diffuse")
    run.need_fold(fold)
    plan = _changed(run.plan, steps, scheduler, guidance)
    assert plan.diffuse
    if count is not None and count < 1:
        raise UserError(f"-n {count}: at least one image")
    make_scheduler(plan.diffuse)  # a name it does not know is refused before any work
    _refuse_unasked(run, plan.diffuse, guidance, label, masks)
    files = _mask_files(masks, plan.data) if masks else None
    count = count or (len(files) if files else 64)
    place, suffix = SampleFolder(out), ".png" if plan.data.channels in (1, 3) else ".tif"
    there = place.images.glob(f"[0-9]*{suffix}") if place.record.exists() else []
    total = max(count, *(int(path.stem) + 1 for path in there if path.stem.isdecimal()), 1)
    conditions = _conditions(run, fold, range(seed, seed + total), label, files, masks, data)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    settings = _settings(run, plan.diffuse, fold, seed, label, conditions.sha256)
    missing = [i for i in range(count) if not place.image(i, suffix).exists()]
    mine, chosen = [i for i in missing if i % world == rank], pick_device(device or _own_device(world))
    if mine:
        network, precision = run.network(fold, chosen), resolve_precision(plan.train.precision, chosen)
    _open(place, settings, main=rank == 0)  # nothing is noted of a network that cannot be read
    with Stop() as stop:
        for start in range(0, len(mine), plan.infer.batch_size):
            if stop.reason:
                done = count - len(missing) + start
                raise Interrupted(f"{stop.reason}: {done} of {count} images are in {out}; the same command goes on")
            batch = mine[start : start + plan.infer.batch_size]
            targets = np.stack([conditions.target_HWM(i) for i in batch]) if conditions.target_HWM else None
            labels = [plan.diffuse.classes.index(conditions.labels[i]) for i in batch] if conditions.labels else None
            seeds = [seed + i for i in batch]
            images = draw_images(network, plan, seeds, chosen, precision, labels=labels, targets_BHWM=targets)
            for k, number in enumerate(batch):
                if targets is not None:
                    write_segmentation(
                        place.mask(number), per_class(targets[k : k + 1], plan.data)[0, :, None], None, plan.data
                    )
                _write(place.image(number, suffix), images[k])  # last: its presence says that the mask is there
            if on_progress:
                on_progress(start + len(batch), len(mine))
    if all(place.image(i, suffix).exists() for i in range(count)):  # of several processes the last to end sees it
        _finish(place, settings, conditions, total, seed, suffix, str(chosen))
    return Sampled(len(mine), count - len(missing), place)


def _own_device(world: int) -> str | None:
    """A launcher's processes take a GPU each."""
    if world == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def _changed(plan: Plan, steps: int | None, scheduler: str | None, guidance: float | None) -> Plan:
    assert plan.diffuse
    changes: dict[str, Any] = {"steps": steps, "scheduler": scheduler, "guidance": guidance}
    changes = {key: value for key, value in changes.items() if value is not None}
    if scheduler and scheduler != plan.diffuse.scheduler:
        changes["scheduler_options"] = {}  # those of the plan are of its own scheduler
    for key, lowest in (("steps", 1), ("guidance", 0)):
        if key in changes and changes[key] < lowest:
            raise UserError(f"--{key} {changes[key]}: at least {lowest}")
    if changes.get("steps", 1) > plan.diffuse.timesteps:
        raise UserError(f"--steps {steps}: the network knows {plan.diffuse.timesteps} timesteps, and no more can be taken")
    return plan.model_copy(update={"diffuse": plan.diffuse.model_copy(update=changes)})


def _refuse_unasked(run: Run, diffuse: DiffusePlan, guidance: float | None, label: str | None, masks: Path | None) -> None:
    said = f"{run.folder.root} was trained with diffuse.condition={diffuse.condition}"
    if label is not None and diffuse.condition != "class":
        raise UserError(f"--class {label}: {said}; leave it out, or train with condition=class")
    if masks is not None and diffuse.condition != "mask":
        raise UserError(f"--masks {masks}: {said}; leave it out, or train with condition=mask")
    if guidance is not None and diffuse.condition == "none":
        raise UserError(f"--guidance {guidance:g}: {said}: there is nothing to follow; leave it out")
    if diffuse.guidance != 1 and not diffuse.drop_condition:
        raise UserError(
            f"--guidance {diffuse.guidance:g}: {run.folder.root} was trained with diffuse.drop_condition=0 and knows "
            "nothing without the condition; leave it out"
        )
    if label is not None and label not in diffuse.classes:
        raise UserError(f"--class {label}: no such class. {nearest(label, list(diffuse.classes))}")


def _conditions(
    run: Run,
    fold: int,
    seeds: Sequence[int],
    label: str | None,
    files: dict[str, Case] | None,
    folder: Path | None,
    data: Path | None,
) -> Conditions:
    diffuse, names = run.plan.diffuse, run.splits[fold]["train"]
    assert diffuse
    if diffuse.condition == "class":
        known = [run.cases[name].label for name in names]
        return Conditions(labels=[label or known[drawn_by(seed, len(known))] for seed in seeds])
    if diffuse.condition == "mask" and files and folder:
        targets = _read_masks(folder, files, run.plan.data)
        chosen = [list(files)[i % len(files)] for i in range(len(seeds))]
        digest = hashlib.sha256(b"".join(name.encode() + targets[name].tobytes() for name in targets)).hexdigest()
        return Conditions(masks=chosen, target_HWM=lambda i: targets[chosen[i]], sha256=digest)
    if diffuse.condition == "mask":
        prepared = run.prepared(data)
        rows = [(name, row) for name in names for row in prepared.rows(name)]
        drawn = [rows[drawn_by(seed, len(rows))] for seed in seeds]
        return Conditions(
            masks=[name for name, _ in drawn], target_HWM=lambda i: np.array(prepared.targets_NHWM[drawn[i][1]])
        )
    return Conditions()


def _mask_files(folder: Path, data: DataPlan) -> dict[str, Case]:
    """The masks of a folder by name; where classes may overlap, a folder a class. Raises DataError where there are none."""
    if not folder.is_dir():
        raise DataError(f"--masks {folder}: no such folder")
    if data.target != "multilabel":
        found = find_images(folder)
        if not found:
            raise DataError(f"--masks {folder}: no masks in it")
        return {stem_of(path): Case(stem_of(path), "", (path.relative_to(folder).as_posix(),)) for path in found}
    by_name: dict[str, dict[str, str]] = {}
    for name in data.classes:
        for path in find_images(folder / name) if (folder / name).is_dir() else []:
            by_name.setdefault(stem_of(path), {})[name] = path.relative_to(folder).as_posix()
    if not by_name:
        raise DataError(f"--masks {folder}: a folder of masks for each class is expected ({', '.join(data.classes)})")
    return {stem: Case(stem, "", tuple(of.values()), classes=tuple(of)) for stem, of in sorted(by_name.items())}


def _read_masks(folder: Path, files: dict[str, Case], data: DataPlan) -> dict[str, NDArray[np.uint8]]:
    """Masks as the network takes them, (H, W, M). All that do not fit are told at once."""
    read: dict[str, NDArray[np.uint8]] = {}
    problems: list[str] = []
    rule = Rule(data.mask_rule, data.label_values, "")
    for stem, case in files.items():
        try:
            labels = [read_labels(folder / name).values for name in case.masks]
            wrong = [misfit(count_values(values), rule) for values in labels]
            problems += [f"{name}: {what[1]}" for name, what in zip(case.masks, wrong, strict=True) if what]
            shape = (1, *labels[0].shape[1:])
            truth = read_truth(folder, case, shape, data.mask_rule, data.classes, data.label_values)
        except DataError as error:
            problems.append(str(error))
            continue
        window = windows(shape[1:], data.crop, data.random_windows, stem)[0]
        read[stem] = prepare_truth(np.stack([cut(of_class[0], window)[None] for of_class in truth]), data)[0]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            f"--masks {folder}: {len(problems)} do not match those the run was trained with: {'; '.join(problems[:5])}{more}"
        )
    return read


def _write(path: Path, image_HWC: NDArray[np.uint8]) -> None:
    channels = image_HWC.shape[2]
    if channels in (1, 3):
        write_image(path, image_HWC[..., 0] if channels == 1 else image_HWC)
    else:
        write_pages(path, np.moveaxis(image_HWC, 2, 0))


def _settings(
    run: Run, diffuse: DiffusePlan, fold: int, seed: int, label: str | None, masks_sha256: str | None
) -> dict[str, Any]:
    """What an image depends on beside its number."""
    return {
        "run": run.folder.root.name,
        "fold": fold,
        "weights_sha256": run.weights_sha256()[str(fold)],
        "first_seed": seed,
        **diffuse.model_dump(mode="json", include={"scheduler", "scheduler_options", "steps", "guidance", "condition"}),
        "class": label,
        "masks_sha256": masks_sha256,
        "size": list(run.plan.data.input_size),
    }


def _open(place: SampleFolder, settings: dict[str, Any], main: bool) -> None:
    """Raises UserError where the folder holds images drawn otherwise, or no such images at all."""
    if place.record.exists():
        try:
            known = json.loads(place.record.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{place.record}: damaged; remove it with the images, or give another folder") from error
        differ = [f"{key}: {known.get(key)} -> {value}" for key, value in settings.items() if known.get(key) != value]
        if differ:
            raise UserError(f"{place.root}: holds images drawn otherwise ({'; '.join(differ)}); give another folder")
    elif place.root.exists() and any(place.root.iterdir()) and main:
        raise UserError(f"{place.root}: not empty, and not filled by `ukan sample`; give another folder")
    elif main:
        write_text(place.record, json.dumps({"settings": settings}, indent=1) + "\n")


def _finish(
    place: SampleFolder, settings: dict[str, Any], conditions: Conditions, count: int, seed: int, suffix: str, device: str
) -> None:
    """The table, the grid, the record of all images that are there."""
    made = [i for i in range(count) if place.image(i, suffix).exists()]
    with written_whole(place.table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for i in made:
            label = conditions.labels[i] if conditions.labels else ""
            writer.writerow([place.image(i, suffix).name, seed + i, label, conditions.masks[i] if conditions.masks else ""])
    shown = made[:_SHOWN]
    if suffix == ".png":
        images = np.stack([read_image(place.image(i, suffix)) for i in shown])
        targets = np.stack([conditions.target_HWM(i) for i in shown]) if conditions.target_HWM else None
        write_grid(place.grid, images, targets)
    record = {"settings": settings, "images": len(made), "environment": environment_record(sys.argv) | {"device": device}}
    write_text(place.record, json.dumps(record, indent=1) + "\n")
