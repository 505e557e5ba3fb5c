"""Prepared cases on the disk: two memory-mapped arrays, made once, shared by folds and processes, safe to delete."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.index import case_hash
from ukan.data.masks import read_truth
from ukan.data.preprocess import prepare_stack, prepare_truth, read_stack
from ukan.data.windows import Window, cut, windows
from ukan.errors import DataError
from ukan.imaging import Geometry
from ukan.paths import write_text
from ukan.plan import Case, DataPlan, sha256_of
from ukan.runtime import usable_cores

FORMAT = 2  # raise when preparing changes
_STALE_S = 24 * 3600.0
_DEPENDS_ON = {
    *("channels", "colour_order", "window", "input_size", "resize", "interpolation"),
    *("mask_rule", "target", "classes", "label_values"),
}
_UNLESS_DEFAULT = {"crop", "random_windows"}  # what came later: whole images keep the key they had before


@dataclass(frozen=True)
class Prepared:
    """Cases ready for a network; a case is a row, a volume as many as it has slices, window by window where it is cut."""

    names: list[str]
    slices: list[int]
    """How many rows each case has."""
    images_NHWC: NDArray[np.uint8]
    targets_NHWM: NDArray[np.uint8]
    """As `prepare_truth` makes them."""

    @cached_property
    def _rows(self) -> dict[str, range]:
        ends = list(accumulate(self.slices))
        return {name: range(end - n, end) for name, n, end in zip(self.names, self.slices, ends, strict=True)}

    def rows(self, name: str) -> range:
        return self._rows[name]


class Opened(NamedTuple):
    """A case at its own size."""

    image_DHWC: NDArray[np.uint8]
    truth_KDHW: NDArray[np.bool_]
    geometry: Geometry | None


def prepare_cases(
    root: Path, cases: Sequence[Case], data: DataPlan, on_progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """The prepared form of `cases`, from the cache or made now. Raises DataError where files are not those of the index."""
    cases = sorted(cases, key=lambda case: case.case)
    depends_on = {
        "format": FORMAT,
        "cases": [(case.case, case.hash) for case in cases],
        **data.model_dump(mode="json", include=_DEPENDS_ON),
        **data.model_dump(mode="json", include=_UNLESS_DEFAULT, exclude_defaults=True),
    }
    folder = cache_root() / f"{data.dataset}-{sha256_of(depends_on)[:16]}"
    found = _load(folder)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)  # somebody deleted or damaged a part of it
        _make(folder, root, cases, data, on_progress)
        found = _load(folder)
    if found is None:
        raise DataError(f"{folder}: what was just written cannot be read; is the disk full or failing?")
    return found


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ukan"


def read_case(root: Path, case: Case, data: DataPlan) -> Opened:
    """A case at its own size. Raises DataError where its files are not the index's."""
    if case_hash(root, case) != case.hash:
        raise DataError(f"{case.case}: its files have changed since the plan was made; run `ukan plan` again")
    return open_case(root, case, data)


def open_case(root: Path, case: Case, data: DataPlan) -> Opened:
    """A case at its own size, its files taken as they are."""
    stack, geometry = read_stack([root / name for name in (case.image, *case.channels)], data)
    truth = read_truth(root, case, stack.shape[:3], data.mask_rule, data.classes, data.label_values)
    return Opened(stack, truth, geometry)


def _load(folder: Path) -> Prepared | None:
    """What a cache folder holds; None where anything of it is missing or damaged."""
    try:
        about = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        images, targets = (np.load(folder / name, mmap_mode="r") for name in ("images.npy", "targets.npy"))
        prepared = Prepared(about["names"], about["slices"], images, targets)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return prepared if len(images) == len(targets) == sum(prepared.slices) else None


def _make(
    folder: Path, root: Path, cases: Sequence[Case], data: DataPlan, on_progress: Callable[[int, int], None] | None
) -> None:
    height, width = data.input_size
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder.parent)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    rows_of = [case.slices * max(1, data.random_windows) for case in cases]
    ends = list(accumulate(rows_of))
    try:
        outputs = 1 if data.target == "multiclass" else len(data.classes)
        images = _memory_map(making / "images.npy", (ends[-1], height, width, data.channels))
        targets = _memory_map(making / "targets.npy", (ends[-1], height, width, outputs))

        def prepare(number: int) -> str | None:
            case, first = cases[number], ends[number] - rows_of[number]
            try:
                opened = read_case(root, case, data)
                size = opened.image_DHWC.shape[1], opened.image_DHWC.shape[2]
                for k, window in enumerate(windows(size, data.crop, data.random_windows, case.case)):
                    rows = slice(first + k * case.slices, first + (k + 1) * case.slices)
                    images[rows] = prepare_stack(_cut(opened.image_DHWC, window, 1), data)
                    targets[rows] = prepare_truth(_cut(opened.truth_KDHW, window, 2), data)
            except DataError as error:
                return str(error)
            return None

        problems = []
        with ThreadPoolExecutor(usable_cores()) as pool:
            for done, problem in enumerate(pool.map(prepare, range(len(cases))), start=1):
                problems += [problem] if problem else []
                if on_progress:
                    on_progress(done, len(cases))
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise DataError(f"{root}: {'; '.join(problems[:5])}{more}. If the folder moved, --data FOLDER")
        images.flush()
        targets.flush()
        about = {"names": [case.case for case in cases], "slices": rows_of}
        write_text(making / "names.json", json.dumps(about))
        try:
            making.rename(folder)
        except OSError:
            if _load(folder) is None:  # otherwise another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _cut(stack: NDArray[Any], window: Window, axis: int) -> NDArray[Any]:
    """A window of a stack whose height and width are `axis` and the one after it."""
    return np.moveaxis(cut(np.moveaxis(stack, (axis, axis + 1), (0, 1)), window), (0, 1), (axis, axis + 1))


def _memory_map(path: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """An array on the disk whose space is really there: a map over a hole in a full disk would kill the process."""
    made = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                needs = f"preparing the cases needs {made.nbytes / 2**30:.1f} GiB there"
                raise DataError(f"{cache_root()}: {error.strerror}; {needs}; XDG_CACHE_HOME names another place") from error
    return made


def _remove_stale(root: Path) -> None:
    """What killed starts left; anything young may be another process at work."""
    for left in root.glob(".making-*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
