"""Prepared cases on the disk: two memory-mapped arrays, made once, shared by folds and processes, safe to delete."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ukan.data.index import case_hash
from ukan.data.masks import united_mask
from ukan.data.preprocess import prepare_image, prepare_mask
from ukan.errors import DataError
from ukan.imaging import read_image
from ukan.plan import Case, DataPlan, sha256_of
from ukan.runtime import usable_cores

_FILES = ("images.npy", "masks.npy", "names.json")
FORMAT = 1  # raise when preparing changes


@dataclass(frozen=True)
class Prepared:
    """Cases ready for a network, in the order of `names`."""

    names: list[str]
    images_NHWC: NDArray[np.uint8]
    masks_NHWK: NDArray[np.uint8]
    """0 and 1, one channel a class."""


def prepare_cases(
    root: Path, cases: Sequence[Case], data: DataPlan, on_progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """The prepared form of `cases`, from the cache or made now. Raises DataError where files are not those of the index."""
    cases = sorted(cases, key=lambda case: case.case)
    depends_on = {
        "format": FORMAT,
        "cases": [(case.case, case.hash) for case in cases],
        **data.model_dump(
            mode="json", include={"mask_rule", "channels", "colour_order", "input_size", "interpolation", "classes"}
        ),
    }
    folder = cache_root() / f"{data.dataset}-{sha256_of(depends_on)[:16]}"
    if not all((folder / name).exists() for name in _FILES):
        shutil.rmtree(folder, ignore_errors=True)  # somebody deleted a part of it
        _make(folder, root, cases, data, on_progress)
    return Prepared(
        names=json.loads((folder / "names.json").read_text(encoding="utf-8")),
        images_NHWC=np.load(folder / "images.npy", mmap_mode="r"),
        masks_NHWK=np.load(folder / "masks.npy", mmap_mode="r"),
    )


def cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ukan"


def read_case(root: Path, case: Case, data: DataPlan) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image (H, W, 3) and mask (H, W) of a case at the image's own size. Raises DataError where they are not the index's."""
    if case_hash(root, case) != case.hash:
        raise DataError(f"{case.case}: its files have changed since the plan was made; run `ukan plan` again")
    image = read_image(root / case.image)
    height, width = image.shape[:2]
    return image, united_mask(root, case.masks, height, width, data.mask_rule)


def _make(
    folder: Path, root: Path, cases: Sequence[Case], data: DataPlan, on_progress: Callable[[int, int], None] | None
) -> None:
    height, width = data.input_size
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        images, masks = (
            np.lib.format.open_memmap(making / name, "w+", np.uint8, (len(cases), height, width, channels))
            for name, channels in (("images.npy", data.channels), ("masks.npy", len(data.classes)))
        )

        def prepare(number: int) -> str | None:
            case = cases[number]
            try:
                image, mask = read_case(root, case, data)
            except (OSError, DataError) as error:
                return str(error)
            images[number] = prepare_image(image, data)
            masks[number] = prepare_mask(mask, data)[..., None]
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
        masks.flush()
        (making / "names.json").write_text(json.dumps([case.case for case in cases]), encoding="utf-8")
        try:
            making.rename(folder)
        except OSError:
            if not (folder / "names.json").exists():  # otherwise another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
