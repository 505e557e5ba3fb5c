"""Any dataset as a raw dataset of nnU-Net (version 2): `ukan export-nnunet`.

Images keep their values: pictures become one PNG each (or TIFF where some have more than 8 bits), volumes a NIfTI for each
channel on the grid they came on. Label maps hold 0 to K. The folds of a plan become splits_final.json.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ukan.data.index import case_hash, file_sha256, index_folder, load_index
from ukan.data.layouts import find_layout
from ukan.data.masks import read_truth
from ukan.errors import DataError, UserError
from ukan.imaging import Geometry, Picture, is_volume, read_picture
from ukan.imaging.picture import stored_order
from ukan.paths import PlanFolder, write_text
from ukan.plan import Case, DataPlan, Fingerprint, Plan, load_splits
from ukan.runtime import usable_cores

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    folder: Path
    train: int
    test: int
    splits: bool
    """Whether the folds of a plan lie beside it."""


@dataclass(frozen=True)
class _Source:
    root: Path
    dataset: str
    train: list[Case]
    test: list[Case]
    masks: DataPlan | Fingerprint
    """What says how masks are read."""
    fingerprint: Fingerprint
    folds: list[dict[str, list[str]]]


def export_nnunet(
    folder: Path,
    out: Path,
    *,
    number: int = 501,
    layout: str | None = None,
    plan: Path | None = None,
    on_progress: Progress | None = None,
) -> Exported:
    """Write `out`/Dataset<number>_<name>/ from a raw folder; with the cases, classes and folds of a plan if one is given.

    An official test part becomes imagesTs and labelsTs. Raises UserError where the number is taken, DataError where files
    cannot be used, have changed since the plan was made, or hold what the format cannot: classes that overlap, pictures and
    volumes together, cases of different channels. Nothing is left behind then.
    """
    if not 1 <= number <= 999:
        raise UserError(f"--id {number}: nnU-Net's datasets are numbered from 1 to 999")
    for taken in sorted(out.glob(f"Dataset{number:03}_*")):
        raise UserError(f"{taken} is there already; remove it, or give another number with --id")
    source = _of_plan(folder, plan) if plan else _of_folder(folder, layout, on_progress)
    place = out / f"Dataset{number:03}_{source.dataset}"
    making = out / f".writing-{place.name}"
    shutil.rmtree(making, ignore_errors=True)  # what a killed export left
    try:
        _write(source, making, on_progress)
        making.rename(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Exported(place, len(source.train), len(source.test), bool(source.folds))


def _of_folder(folder: Path, layout: str | None, on_progress: Progress | None) -> _Source:
    index = index_folder(folder, layout=layout, on_progress=on_progress)
    if index.errors or index.fingerprint is None:
        first = index.errors[0]
        raise DataError(
            f"{folder}: {len(index.errors)} problem(s) keep cases from being used, `ukan check` lists them; "
            f"the first: {first.where}: {first.what} ({first.do})"
        )
    if not index.fingerprint.mask_values:
        raise DataError(f"{folder}: images without masks: nnU-Net would have nothing to learn from")
    train, test = ([case for case in index.cases if (case.split == "test") == is_test] for is_test in (False, True))
    return _Source(index.root, index.dataset, train, test, index.fingerprint, index.fingerprint, [])


def _of_plan(folder: Path, path: Path) -> _Source:
    plan, place = Plan.load(path), PlanFolder(path.parent)
    cases, folds = load_index(place.index), load_splits(place.splits(plan.name))
    if file_sha256(place.index) != plan.data.index_sha256:
        raise DataError(f"{place.index} is no longer the one the plan was made from; run `ukan plan` again")
    root = find_layout(folder, plan.data.layout)[1]
    named = {name for fold in folds for names in fold.values() for name in names}
    train = [case for case in cases if case.case in named]
    test = [case for case in cases if case.case not in named and case.split == "test"]
    for case in (*train, *test):
        if case_hash(root, case) != case.hash:
            raise DataError(f"{case.case}: its files have changed since the plan was made; run `ukan plan` again")
    fingerprint = Fingerprint.model_validate_json(place.fingerprint.read_text(encoding="utf-8"))
    return _Source(root, plan.data.dataset, train, test, plan.data, fingerprint, folds)


def _write(source: _Source, folder: Path, on_progress: Progress | None) -> None:
    ending, classes = _ending(source), source.masks.classes
    if not source.train:
        raise DataError(f"{source.root}: no case outside the official test part; nnU-Net would have nothing to train on")
    if reserved := {"background", "ignore"}.intersection(classes):
        raise DataError(f"a class is named {min(reserved)}, which means something else to nnU-Net; rename it")
    channels = _write_cases(source, folder, ending, on_progress)
    usual = "CT" if source.fingerprint.hounsfield else "channel"  # nnU-Net normalises CT in a way of its own
    names = ["R", "G", "B"] if channels == (3,) else [usual] * sum(channels)
    content = {
        "name": source.dataset,
        "channel_names": {str(k): name for k, name in enumerate(names)},
        "labels": {"background": 0} | {name: k for k, name in enumerate(classes, start=1)},
        "numTraining": len(source.train),
        "file_ending": ending,
    }
    write_text(folder / "dataset.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if source.folds:
        write_text(folder / "splits_final.json", json.dumps(source.folds, indent=1, ensure_ascii=False) + "\n")


def _write_cases(source: _Source, folder: Path, ending: str, on_progress: Progress | None) -> tuple[int, ...]:
    """Write every case's files; returns how many channels each image file of a case holds."""
    work = [(case, part) for part, cases in (("Tr", source.train), ("Ts", source.test)) for case in cases]
    for part in {part for _, part in work}:
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True)
    pool, first = ThreadPoolExecutor(usable_cores()), None
    try:
        written = pool.map(lambda item: _write_case(source, item[0], item[1], folder, ending), work)
        for done, ((case, _), channels) in enumerate(zip(work, written, strict=True), start=1):
            first = first or channels
            if channels != first:
                what = f"{sum(channels)} channel(s), {work[0][0].case} has {sum(first)}"
                raise DataError(f"{case.case}: {what}; nnU-Net takes the same for all cases: convert or remove it")
            if on_progress:
                on_progress(done, len(work))
    finally:
        pool.shutdown(cancel_futures=True)
    assert first is not None, "there is a case to train on"
    return first


def _ending(source: _Source) -> str:
    cases = [*source.train, *source.test]
    volumes = sum(case.slices > 1 or is_volume(Path(case.image)) for case in cases)
    if volumes not in (0, len(cases)):
        raise DataError(
            f"{source.root}: {len(cases) - volumes} pictures and {volumes} volumes; nnU-Net takes one kind a dataset"
        )
    return ".nii.gz" if volumes else ".tif" if source.fingerprint.deep else ".png"


def _write_case(source: _Source, case: Case, part: str, folder: Path, ending: str) -> tuple[int, ...]:
    """Write a case's files; returns how many channels each image file holds."""
    paths = [source.root / name for name in (case.image, *case.channels)]
    pictures = [read_picture(path) for path in paths]
    values, geometry = pictures[0]
    for path, picture in zip(paths, pictures, strict=True):
        if picture.values.shape[:3] != values.shape[:3]:
            raise DataError(f"{path}: not of the size of {paths[0].name}, which shows the same")
    how = source.masks
    truth_KDHW = read_truth(source.root, case, values.shape[:3], how.mask_rule, how.classes, how.label_values)
    if (truth_KDHW.sum(0) > 1).any():
        raise DataError(f"{case.case}: its classes overlap, which a label map cannot hold; export one class at a time")
    numbers = np.arange(1, len(truth_KDHW) + 1, dtype=np.uint8)
    labels_DHW = (truth_KDHW * numbers[:, None, None, None]).max(0)
    images = _channels(pictures, paths, as_volume=ending == ".nii.gz")
    for k, image in enumerate(images):
        _save(folder / f"images{part}" / f"{case.case}_{k:04}{ending}", image, geometry)
    _save(folder / f"labels{part}" / f"{case.case}{ending}", labels_DHW[..., None], geometry)
    return tuple(image.shape[3] for image in images)


def _channels(pictures: Sequence[Picture], paths: Sequence[Path], as_volume: bool) -> list[NDArray[Any]]:
    """The arrays (D, H, W, C) of a case's files: one channel each, but three for a single colour picture."""
    if as_volume:
        return [picture.values[..., k : k + 1] for picture in pictures for k in range(picture.values.shape[3])]
    if len(pictures) == 1:
        return [pictures[0].values]
    made = []
    for path, (values, _) in zip(paths, pictures, strict=True):
        if (values != values[..., :1]).any():
            raise DataError(f"{path}: in colour, and one of several files; nnU-Net takes one channel a file")
        made.append(values[..., :1])
    return made


def _save(path: Path, values_DHWC: NDArray[Any], geometry: Geometry | None) -> None:
    if path.suffix == ".gz":
        _save_nifti(path, values_DHWC[..., 0], geometry)
        return
    image = values_DHWC[0]
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    # Not every reader has a decoder for compressed TIFFs.
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1] if path.suffix == ".tif" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    found, content = cv2.imencode(path.suffix, image, options)
    assert found, f"{image.dtype} {image.shape} is what PNG or TIFF can hold"
    path.write_bytes(content.tobytes())


def _save_nifti(path: Path, values_DHW: NDArray[Any], geometry: Geometry | None) -> None:
    """Image and labels alike, so that both lie on one grid. A stack without a place gets slices 1 mm apart, as shown."""
    import nibabel

    depth, height, width = values_DHW.shape
    if geometry is None:
        rows_down = np.diag([-1.0, -1.0, 1.0, 1.0])
        geometry = Geometry((1, 1, 1), rows_down, (width, height, depth), (2, 1, 0), (False, False, False))
    stored = stored_order(values_DHW, geometry)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize == 8:  # many a reader of NIfTI knows no such whole numbers
        stored = stored.astype(np.float64)
    image = nibabel.Nifti1Image(stored, geometry.affine)
    image.set_qform(geometry.affine, "scanner")
    image.set_sform(geometry.affine, "scanner")
    image.header["xyzt_units"] = geometry.header.get("xyzt_units", 2)  # 2: mm
    image.to_filename(path)
