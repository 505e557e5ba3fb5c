"""PHANTOMS: made-up pictures with masks, for `ukan demo`, the tests and the benchmarks.

Physics first, so that a network has to learn shape and texture: no single grey or colour value tells the object.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.phantoms.dermoscopy import make_dermoscopy, write_dermoscopy
from ukan.data.phantoms.endoscopy import make_endoscopy, write_endoscopy
from ukan.data.phantoms.histology import make_histology, write_histology
from ukan.data.phantoms.ultrasound import Label, make_ultrasound, write_ultrasound


class Phantom(NamedTuple):
    """One kind of made-up picture."""

    make: Callable[[np.random.Generator, int, int], tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]]
    """(generator, height, width) to an image (H, W) or (H, W, 3) and a mask (H, W) for each object."""
    write: Callable[[Path, int, int], None]
    """(folder, count, seed): a dataset on the disk as such datasets are published."""
    group_regex: str | None = None
    """What tells the groups in the cases' names, where the layout does not."""
    settings: tuple[str, ...] = ()
    """What a plan has to be told (--set), where the layout does not say it."""
    has_test: bool = False
    """Whether some of the pictures are an official test part."""


PHANTOMS = {
    "ultrasound": Phantom(make_ultrasound, write_ultrasound),
    "histology": Phantom(make_histology, write_histology, has_test=True),
    "endoscopy": Phantom(
        make_endoscopy, write_endoscopy, group_regex=r"^(sequence_\d+)", settings=("data.modality=endoscopy",)
    ),
    "dermoscopy": Phantom(make_dermoscopy, write_dermoscopy),
}

__all__ = ["PHANTOMS", "Label", "Phantom", "make_ultrasound", "write_ultrasound"]
