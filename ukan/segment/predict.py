"""`ukan predict`: any images or volumes to masks of the original size under the inputs' names."""

import csv
import itertools
import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ukan.data.outputs import segmentation_paths, suffix_for, write_segmentation
from ukan.data.preprocess import prepare_stack, read_stack
from ukan.errors import DataError, UserError
from ukan.imaging import (
    Geometry,
    find_images,
    is_image_name,
    stem_of,
    to_8bit,
    write_jpeg,
    write_probabilities,
    write_volume_probabilities,
)
from ukan.imaging.draw import draw_classes
from ukan.inference import Predicted, decide, full_size, predict_stacks, training_flips
from ukan.paths import locked, write_text, written_whole
from ukan.plan import Plan
from ukan.runs import Run, open_run
from ukan.runtime import Precision, pick_device, resolve_precision, usable_cores
from ukan.segment.quality import Quality, load_quality

RECORD = "ukan-predict.json"
TABLE = "predictions.csv"
Probabilities = Literal["image", "npz"]
_SUFFIXES = (".png", ".nii.gz", ".tif")


@dataclass
class Done:
    written: int = 0
    skipped: int = 0
    unfamiliar: int = 0
    failed: list[str] = field(default_factory=list)
    """One line for each input that could not be read."""


@dataclass(frozen=True)
class Job:
    """One image or volume and where what comes of it lies."""

    sources: tuple[Path, ...]
    """A file, or several whose channels make one image."""
    name: str
    """The path of its mask below the output folder, without a suffix."""


@dataclass(frozen=True)
class Wanted:
    """What is written beside the masks."""

    output: Path
    overlay: bool = False
    probabilities: Probabilities | None = None

    def overlay_path(self, name: str) -> Path:
        return self.output / "overlays" / f"{name}.jpg"

    def probability_path(self, name: str, suffix: str) -> Path:
        return self.output / "probabilities" / f"{name}{suffix}"


@dataclass(frozen=True)
class _Opened:
    job: Job
    stack_DHWC: NDArray[np.uint8]
    geometry: Geometry | None


def predict(
    run_path: Path,
    sources: Path | Sequence[Path],
    output: Path,
    *,
    folds: Sequence[int] | None = None,
    tta: bool = False,
    overlay: bool = False,
    probabilities: Probabilities | None = None,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Done:
    """Masks for images, volumes, folders of them or text files that list them, by the mean of a run's finished folds.

    Masks lie under `output`, in the inputs' tree and under their names, in the forms that `ukan.data.outputs` describes;
    overlays and probabilities in folders overlays/ and probabilities/; what is known of each prediction in predictions.csv
    (`table_row`). tta: the mean over the flips the networks were trained with. What is already there is left alone, so that
    several processes may share the work. Raises DataError where there is no image at all; single bad files are told in the
    result.
    """
    run = open_run(run_path)
    folds = _folds(run, folds)
    jobs = find_jobs([sources] if isinstance(sources, Path) else sources, output, run.plan)
    _record(run, folds, tta, output)
    chosen = pick_device(device)
    networks = [run.network(fold, chosen) for fold in folds]
    precision = resolve_precision(run.plan.train.precision, chosen)
    flips = training_flips(run.plan) if tta else [()]
    wanted = Wanted(output, overlay, probabilities)
    with locked(output / ".ukan-predict.lock", wait=False) as alone:
        if not alone:  # another process goes through the list from its start
            random.shuffle(jobs)
        return run_jobs(jobs, wanted, networks, run.plan, chosen, precision, flips, load_quality(run, folds), on_progress)


def predictor(
    run_path: Path | str, *, folds: Sequence[int] | None = None, tta: bool = False, device: str | None = None
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A function from an image to its mask, by the mean of a run's finished folds.

    It takes (H, W) or (H, W, C), or a volume (D, H, W, C), of any size; 8-bit values as they are (colour in RGB order),
    others through the plan's window. It gives bool (H, W) for one class; uint8 (H, W) of 0 to K where classes exclude one
    another; bool (K, H, W) where they may overlap; volumes with D before H.
    """
    run = open_run(Path(run_path))
    plan, chosen = run.plan, pick_device(device)
    networks = [run.network(fold, chosen) for fold in _folds(run, folds)]
    precision = resolve_precision(plan.train.precision, chosen)
    flips = training_flips(plan) if tta else [()]

    def predict_one(image: NDArray[Any]) -> NDArray[Any]:
        image = np.asarray(image)
        if image.ndim not in (2, 3, 4):
            raise UserError(f"an image of shape {image.shape}; (H, W), (H, W, C) or (D, H, W, C) is expected")
        values = image[None, ..., None] if image.ndim == 2 else image[None] if image.ndim == 3 else image
        stack = to_8bit(values, plan.data.window)
        (said,) = predict_stacks(networks, [prepare_stack(stack, plan.data)], plan, chosen, precision, flips=flips)
        found = decide(full_size(said.probabilities_DKhw, stack.shape[1:3], plan.data), plan)
        found = found if image.ndim == 4 else found[:, 0]
        if plan.data.target == "multilabel":
            return found
        if plan.data.target == "binary":
            return found[0]
        numbers = np.arange(1, len(found) + 1, dtype=np.uint8)
        return np.tensordot(numbers, found.astype(np.uint8), axes=1)

    return predict_one


def run_jobs(
    jobs: Sequence[Job],
    wanted: Wanted,
    networks: Sequence[nn.Module],
    plan: Plan,
    device: torch.device,
    precision: Precision,
    flips: Sequence[tuple[int, ...]] = ((),),
    quality: Quality | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Done:
    """Reading, predicting and writing overlap; only a few images are in memory at a time, whatever their number."""
    result, opened = Done(), deque[_Opened]()
    ahead = usable_cores() + 1

    def stacks() -> Iterator[NDArray[np.uint8]]:
        for one in _read_ahead(jobs, wanted, plan, ahead, result):
            opened.append(one)
            yield prepare_stack(one.stack_DHWC, plan.data)

    with ThreadPoolExecutor(usable_cores()) as writers:
        writing = deque[Future[dict[str, Any]]]()

        def finish_one() -> None:
            row = writing.popleft().result()
            result.written += 1
            result.unfamiliar += row.get("unfamiliar") == 1
            if on_progress:
                on_progress(result.written + result.skipped + len(result.failed), len(jobs))

        for said in predict_stacks(networks, stacks(), plan, device, precision, flips=flips):
            writing.append(writers.submit(_write, opened.popleft(), said, wanted, plan, quality))
            if len(writing) > ahead:
                finish_one()
        while writing:
            finish_one()
    if (wanted.output / TABLE).exists():
        _tidy_table(wanted.output)
    return result


def find_jobs(sources: Sequence[Path], output: Path, plan: Plan) -> list[Job]:
    """What is to be made of the inputs, sorted by name. Names that would collide (a.jpg, a.png) keep their file type."""
    found: list[tuple[Path, Path]] = []  # source, and its place in the output's tree
    for source in _listed(sources):
        if source.is_dir():
            here, there = source.resolve(), output.resolve()
            images = find_images(source)
            if here in there.parents:  # what an earlier run wrote is no input
                images = [path for path in images if there not in path.resolve().parents]
            if not images:
                raise DataError(f"{source}: no image in it")
            found += [(path, path.relative_to(source) if path != source else Path(path.name)) for path in images]
        elif not source.exists():
            raise DataError(f"{source}: no such file or folder")
        else:
            found.append((source, Path(source.name)))
    grouped = _grouped_channels(found, plan)
    plain = [place.with_name(stem_of(place)).as_posix() for _, place in grouped]
    used = Counter(name.lower() for name in plain)
    jobs = []
    for (files, place), name in zip(grouped, plain, strict=True):
        clear = name if used[name.lower()] == 1 else place.with_name(place.name.replace(".", "_")).as_posix()
        jobs.append(Job(files, clear))
    twice = [name for name, count in Counter(job.name.lower() for job in jobs).items() if count > 1]
    if twice:
        raise UserError(f"{len(twice)} names occur in several inputs ({twice[0]}, ...); predict them into separate folders")
    targets = (path for job in jobs for suffix in _SUFFIXES for path in _masks(job, output, plan, suffix))
    overwritten = {path.resolve() for path in targets} & {source.resolve() for job in jobs for source in job.sources}
    if overwritten:
        raise UserError(f"{output}: masks would overwrite the images ({min(overwritten).name}, ...); give another folder")
    return sorted(jobs, key=lambda job: job.name)


def _listed(sources: Sequence[Path]) -> Iterator[Path]:
    """The inputs, text files replaced by the paths they list (relative to themselves)."""
    for source in sources:
        if source.suffix.lower() != ".txt" or not source.is_file():
            if source.is_file() and source.suffix and not is_image_name(source.name):
                raise DataError(f"{source}: not an image, nor a .txt that lists images")
            yield source
            continue
        lines = [line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines()]
        listed = [source.parent / line for line in lines if line and not line.startswith("#")]
        missing = [path for path in listed if not path.exists()]
        if missing or not listed:
            what = f"{len(missing)} of its {len(listed)} paths do not exist ({missing[0]}, ...)" if missing else "empty"
            raise DataError(f"{source}: {what}; one path a line is expected, relative to the list")
        yield from listed


def _grouped_channels(found: Sequence[tuple[Path, Path]], plan: Plan) -> list[tuple[tuple[Path, ...], Path]]:
    """Files case_0000, case_0001, ... as one image, where the network was trained on nnU-Net's files."""
    if plan.data.layout != "nnunet":
        return [((source,), place) for source, place in found]
    cases: dict[Path, list[Path]] = {}
    for source, place in sorted(found, key=lambda one: one[0].name):
        stem, _, channel = stem_of(place).rpartition("_")
        name = stem if len(channel) == 4 and channel.isdigit() else stem_of(place)
        cases.setdefault(place.with_name(name + place.name.removeprefix(stem_of(place))), []).append(source)
    return [(tuple(files), place) for place, files in cases.items()]


def _is_done(job: Job, wanted: Wanted, plan: Plan) -> bool:
    if not any(all(path.exists() for path in _masks(job, wanted.output, plan, suffix)) for suffix in _SUFFIXES):
        return False
    if wanted.overlay and not wanted.overlay_path(job.name).exists():
        return False
    return not wanted.probabilities or _has_probabilities(job, wanted, plan)


def _masks(job: Job, output: Path, plan: Plan, suffix: str) -> list[Path]:
    return segmentation_paths(output / job.name, plan.data, suffix)


def _has_probabilities(job: Job, wanted: Wanted, plan: Plan) -> bool:
    if wanted.probabilities == "npz":
        return wanted.probability_path(job.name, ".npz").exists()
    names = [job.name] if len(plan.data.classes) == 1 else [_in_class(job.name, c) for c in plan.data.classes]
    return any(all(wanted.probability_path(name, suffix).exists() for name in names) for suffix in _SUFFIXES)


def _read_ahead(jobs: Sequence[Job], wanted: Wanted, plan: Plan, ahead: int, result: Done) -> Iterator[_Opened]:
    """The inputs that are not done yet, in order, the next few being read already."""

    def read(job: Job) -> _Opened | str | None:
        if _is_done(job, wanted, plan):
            return None
        try:
            return _Opened(job, *read_stack(job.sources, plan.data))
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(usable_cores()) as readers:
        coming, rest = deque[Future[_Opened | str | None]](), iter(jobs)
        coming.extend(readers.submit(read, job) for job in itertools.islice(rest, ahead))
        while coming:
            read_one = coming.popleft().result()
            coming.extend(readers.submit(read, job) for job in itertools.islice(rest, 1))
            if read_one is None:
                result.skipped += 1
            elif isinstance(read_one, str):
                result.failed.append(read_one)
            else:
                yield read_one


def _write(opened: _Opened, said: Predicted, wanted: Wanted, plan: Plan, quality: Quality | None) -> dict[str, Any]:
    name = opened.job.name
    probabilities_KDHW = full_size(said.probabilities_DKhw, opened.stack_DHWC.shape[1:3], plan.data)
    found_KDHW = decide(probabilities_KDHW, plan)
    if wanted.overlay:
        shown = int(found_KDHW.sum((0, 2, 3)).argmax()) if found_KDHW.any() else len(opened.stack_DHWC) // 2
        image = opened.stack_DHWC[shown]
        image = image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, axis=2)
        write_jpeg(wanted.overlay_path(name), draw_classes(image, found_KDHW[:, shown]))
    if wanted.probabilities:
        _write_probabilities(name, probabilities_KDHW, opened.geometry, wanted, plan)
    row = table_row(opened.job, said, found_KDHW, opened.geometry, plan, quality)
    _append_row(wanted.output, row)
    write_segmentation(wanted.output / name, found_KDHW, opened.geometry, plan.data)  # last: it says that the case is done
    return row


def _write_probabilities(
    name: str, probabilities_KDHW: NDArray[np.float32], geometry: Geometry | None, wanted: Wanted, plan: Plan
) -> None:
    if wanted.probabilities == "npz":
        with written_whole(wanted.probability_path(name, ".npz")) as temporary:
            squeezed = probabilities_KDHW if geometry or probabilities_KDHW.shape[1] > 1 else probabilities_KDHW[:, 0]
            np.savez_compressed(temporary, probabilities=squeezed.astype(np.float16), classes=np.array(plan.data.classes))
        return
    for label, probabilities_DHW in zip(plan.data.classes, probabilities_KDHW, strict=True):
        of_class = name if len(plan.data.classes) == 1 else _in_class(name, label)
        path = wanted.probability_path(of_class, suffix_for(len(probabilities_DHW), geometry))
        if geometry is not None:
            write_volume_probabilities(path, probabilities_DHW[None], geometry)
        else:
            write_probabilities(path, probabilities_DHW[0] if len(probabilities_DHW) == 1 else probabilities_DHW)


def _in_class(name: str, label: str) -> str:
    return (Path(name).parent / label / Path(name).name).as_posix()


def table_row(
    job: Job, said: Predicted, found_KDHW: NDArray[np.bool_], geometry: Geometry | None, plan: Plan, quality: Quality | None
) -> dict[str, Any]:
    """A line of predictions.csv.

    area_<class>: pixels, or millilitres of a volume. largest_probability: over all pixels and classes. predicted_dice,
    agreement, distance, unfamiliar: as `Quality.of` says; empty where the run was not evaluated.
    """
    row: dict[str, Any] = {"case": job.name, "input": job.sources[0].as_posix()}
    voxel_ml = float(np.prod(geometry.spacing_mm)) / 1000 if geometry else None
    for label, found in zip(plan.data.classes, found_KDHW, strict=True):
        count = int(found.sum())
        row[f"area_{label}"] = count if voxel_ml is None else round(count * voxel_ml, 4)
    row["largest_probability"] = round(float(said.probabilities_DKhw.max()), 4)
    row |= dict.fromkeys(("predicted_dice", "agreement", "distance", "unfamiliar"), "")
    return row | (quality.of(said, plan) if quality else {})


def _append_row(output: Path, row: dict[str, Any]) -> None:
    path = output / TABLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(output / ".ukan-table.lock"), path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def _tidy_table(output: Path) -> None:
    """Sorted by name, one line a case (the last, where a killed run left two), no half-written line."""
    path = output / TABLE
    with locked(output / ".ukan-table.lock"):
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = {row["case"]: row for row in reader if None not in row and None not in row.values()}
            columns = list(reader.fieldnames or ())
        with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[name] for name in sorted(rows))


def _folds(run: Run, asked: Sequence[int] | None) -> list[int]:
    finished = run.finished_folds
    if not finished:
        raise UserError(f"{run.folder.root}: no fold is finished; `ukan train` the plan first")
    for fold in asked or ():
        if fold not in finished:
            raise UserError(f"--fold {fold}: not finished; finished are {', '.join(map(str, finished))}")
    return sorted(set(asked)) if asked else finished


def _record(run: Run, folds: Sequence[int], tta: bool, output: Path) -> None:
    """Note which networks the masks of a folder are from; masks of others are not mixed with them."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; give a folder for the masks")
    weights = run.weights_sha256()
    mine: dict[str, Any] = {"weights_sha256": {str(fold): weights[str(fold)] for fold in folds}}
    mine |= {"threshold": run.plan.infer.threshold, "tta": tta}
    path = output / RECORD
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if {key: before.get(key) for key in mine} != mine:
            raise UserError(
                f"{output} holds masks made otherwise ({before.get('run')}, folds {before.get('folds')}, "
                f"tta {before.get('tta')}); give another folder, or remove it"
            )
        return
    write_text(path, json.dumps({"run": run.folder.root.name, "folds": list(folds), **mine}, indent=1) + "\n")
