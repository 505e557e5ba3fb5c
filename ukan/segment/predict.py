"""`ukan predict`: any image, folder or tree to masks of the original size under the inputs' names."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ukan.errors import DataError, UserError
from ukan.imaging import IMAGE_SUFFIXES, is_image_name, read_image, write_jpeg, write_mask, write_probabilities
from ukan.imaging.draw import draw_outline
from ukan.inference import predict_images
from ukan.paths import write_text
from ukan.plan import Plan
from ukan.runs import Run, open_run
from ukan.runtime import Precision, pick_device, resolve_precision

RECORD = "ukan-predict.json"


@dataclass
class Predicted:
    written: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    """One line for each input that could not be read."""


@dataclass(frozen=True)
class Job:
    """One input image and the files to come of it."""

    source: Path
    mask: Path
    overlay: Path | None
    probabilities: Path | None

    @property
    def outputs(self) -> list[Path]:
        return [path for path in (self.mask, self.overlay, self.probabilities) if path]


def predict(
    run_path: Path,
    source: Path,
    output: Path,
    *,
    folds: Sequence[int] | None = None,
    overlay: bool = False,
    probabilities: bool = False,
    device: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Masks for an image, a folder or a tree of folders, by the mean of a run's finished folds.

    Masks are PNGs of 0 and 255 under `output`, in the inputs' tree and under their names; overlays and probabilities (16-bit
    PNG, value / 65535) lie in folders overlays/ and probabilities/ beside them. What is already there is left alone. Raises
    DataError where there is no image at all; single bad files are told in the result.
    """
    run = open_run(run_path)
    folds = _folds(run, folds)
    jobs = find_jobs(source, output, overlay=overlay, probabilities=probabilities)
    _record(run, folds, output)
    chosen = pick_device(device)
    networks = [run.network(fold, chosen) for fold in folds]
    precision = resolve_precision(run.plan.train.precision, chosen)
    return run_jobs(jobs, networks, run.plan, chosen, precision, on_progress)


def run_jobs(
    jobs: Sequence[Job],
    networks: Sequence[nn.Module],
    plan: Plan,
    device: "object",
    precision: Precision,
    on_progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Batch by batch: read, predict, write. Nothing is kept, so that the number of images costs no memory."""
    result = Predicted()
    for batch in _batches(_readable(jobs, result), plan.infer.batch_size):
        found = predict_images(networks, [image for _, image in batch], plan, device, precision)  # type: ignore[arg-type]
        for (job, image), probabilities_KHW in zip(batch, found, strict=True):
            write_outputs(job, image, probabilities_KHW[0], plan.infer.threshold)
            result.written += 1
        if on_progress:
            on_progress(result.written + result.skipped + len(result.failed), len(jobs))
    return result


def find_jobs(source: Path, output: Path, *, overlay: bool = False, probabilities: bool = False) -> list[Job]:
    """What is to be made of an input, sorted by name. Names that would collide (a.jpg, a.png) keep their file type."""
    if source.is_file():
        root, names = source.parent, [Path(source.name)]
        if not is_image_name(source.name):
            raise DataError(f"{source}: not an image; known types are {', '.join(sorted(IMAGE_SUFFIXES))}")
    elif source.is_dir():
        root, here, there = source, source.resolve(), output.resolve()
        files = [path for path in source.rglob("*") if is_image_name(path.name) and path.is_file()]
        if here in there.parents:  # what an earlier run wrote is no input
            files = [path for path in files if there not in path.resolve().parents]
        names = sorted(path.relative_to(root) for path in files)
    else:
        raise DataError(f"{source}: no such file or folder")
    if not names:
        raise DataError(f"{source}: no image in it; known types are {', '.join(sorted(IMAGE_SUFFIXES))}")
    stems = Counter(name.with_suffix("").as_posix().lower() for name in names)
    jobs = []
    for name in names:
        alone = stems[name.with_suffix("").as_posix().lower()] == 1
        target = name.with_suffix("") if alone else name.with_name(name.name.replace(".", "_"))
        jobs.append(
            Job(
                source=root / name,
                mask=output / f"{target}.png",
                overlay=output / "overlays" / f"{target}.jpg" if overlay else None,
                probabilities=output / "probabilities" / f"{target}.png" if probabilities else None,
            )
        )
    overwritten = {path.resolve() for job in jobs for path in job.outputs} & {job.source.resolve() for job in jobs}
    if overwritten:
        raise UserError(f"{output}: masks would overwrite the images ({min(overwritten).name}, ...); give another folder")
    return jobs


def write_outputs(job: Job, image_HWC: NDArray[np.uint8], probabilities_HW: NDArray[np.float32], threshold: float) -> None:
    mask = probabilities_HW > threshold
    if job.overlay:
        write_jpeg(job.overlay, draw_outline(image_HWC, mask))
    if job.probabilities:
        write_probabilities(job.probabilities, probabilities_HW)
    write_mask(job.mask, mask)  # last: its presence says that the case is done


def _readable(jobs: Sequence[Job], result: Predicted) -> Iterator[tuple[Job, NDArray[np.uint8]]]:
    for job in jobs:
        if all(path.exists() for path in job.outputs):
            result.skipped += 1
            continue
        try:
            yield job, read_image(job.source)
        except DataError as error:
            result.failed.append(str(error))


def _batches(images: Iterator[tuple[Job, NDArray[np.uint8]]], size: int) -> Iterator[list[tuple[Job, NDArray[np.uint8]]]]:
    while batch := list(itertools.islice(images, size)):
        yield batch


def _folds(run: Run, asked: Sequence[int] | None) -> list[int]:
    finished = run.finished_folds
    if not finished:
        raise UserError(f"{run.folder.root}: no fold is finished; `ukan train` the plan first")
    for fold in asked or ():
        if fold not in finished:
            raise UserError(f"--fold {fold}: not finished; finished are {', '.join(map(str, finished))}")
    return sorted(set(asked)) if asked else finished


def _record(run: Run, folds: Sequence[int], output: Path) -> None:
    """Note which networks the masks of a folder are from; masks of others are not mixed with them."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; give a folder for the masks")
    weights = run.weights_sha256()
    mine = {"weights_sha256": {str(fold): weights[str(fold)] for fold in folds}, "threshold": run.plan.infer.threshold}
    path = output / RECORD
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if {key: before.get(key) for key in mine} != mine:
            raise UserError(
                f"{output} holds masks of other networks ({before.get('run')}); give another folder, or remove it"
            )
        return
    write_text(path, json.dumps({"run": run.folder.root.name, "folds": list(folds), **mine}, indent=1) + "\n")
