"""The real images of a run, exactly as its networks see them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.cache import Prepared
from ukan.runs import Run


class RealImages(NamedTuple):
    """Prepared 8-bit images (N, H, W, C): those a fold was trained on, and those it never saw."""

    held_out_NHWC: NDArray[np.uint8]
    train_NHWC: NDArray[np.uint8]
    held_out_names: list[str]
    """The case of each image; a case may have several."""
    train_names: list[str]


def real_images(run: Run, fold: int = 0, data: Path | None = None) -> RealImages:
    """Raises DataError where the dataset is not there, or has changed."""
    run.need_fold(fold)
    prepared = run.prepared(data)
    split = run.splits[fold]
    (held_out, held_out_names), (train, train_names) = (_of(prepared, split[part]) for part in ("val", "train"))
    return RealImages(held_out, train, held_out_names, train_names)


def _of(prepared: Prepared, names: list[str]) -> tuple[NDArray[np.uint8], list[str]]:
    rows = [(name, row) for name in names for row in prepared.rows(name)]
    return prepared.images_NHWC[[row for _, row in rows]], [name for name, _ in rows]
