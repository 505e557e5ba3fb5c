"""What resuming needs: written whole, two generations of it, read without executing code."""

import io
import pickle
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ukan.errors import DataError, OutOfMemory
from ukan.paths import written_whole
from ukan.runtime import is_out_of_memory

# What readers raise at a file that is damaged or of another version.
_DAMAGED = (
    *(RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)


@dataclass
class TrainingState:
    """Where a training stands beside its tensors. `step` counts finished optimiser steps."""

    step: int = 0
    micro_batch: int | None = None
    """Set where a batch does not fit into memory whole."""
    loss_sum: float = 0.0
    loss_count: int = 0
    """Of the steps since the last line of the log."""
    elapsed_s: float = 0.0
    """Over all sessions."""


def save_resume(path: Path, parts: dict[str, Any], state: TrainingState) -> None:
    """`parts` are objects with state_dict(); random generators are taken along. The checkpoint before is kept beside it."""
    content = {
        "state": vars(state),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "rng_cpu": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    saved = io.BytesIO()
    torch.save(content, saved)  # not to the file: torch's writer does not say why a disk refuses
    with written_whole(path) as temporary:
        temporary.write_bytes(saved.getbuffer())
        if path.exists():
            path.replace(_before(path))


def load_resume(path: Path, parts: dict[str, Any]) -> TrainingState:
    """Put `parts` and random generators where the newest good checkpoint has them; a fresh state where none was saved.

    Raises DataError where all there is is damaged or of another version.
    """
    problems = []
    for found in (path, _before(path)):
        if not found.exists():
            continue
        try:
            state = _load(found, parts)
        except _DAMAGED as error:
            if is_out_of_memory(error):  # nothing is wrong with the file
                raise OutOfMemory(f"no memory to resume {found}; free some and run the same command again") from error
            why = (str(error) or type(error).__name__).splitlines()[0]
            problems.append(f"{found}: cannot be resumed from ({why})")
            continue
        for problem in problems:
            print(f"{problem}; going on from the checkpoint before it, of step {state.step}", file=sys.stderr)
        return state
    if problems:
        raise DataError(f"{'; '.join(problems)}; remove {path.stem}*{path.suffix} there to begin this fold anew")
    return TrainingState()


def remove_resume(path: Path) -> None:
    for found in (path, _before(path)):
        found.unlink(missing_ok=True)


def _load(path: Path, parts: dict[str, Any]) -> TrainingState:
    with zipfile.ZipFile(path) as archive:  # torch reads on over changed bits
        if changed := archive.testzip():
            raise zipfile.BadZipFile(f"{changed} is not what was written")
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(content["parts"][name])
    torch.set_rng_state(content["rng_cpu"])
    if content["rng_cuda"] and torch.cuda.device_count() == len(content["rng_cuda"]):
        torch.cuda.set_rng_state_all(content["rng_cuda"])
    return TrainingState(**content["state"])


def _before(path: Path) -> Path:
    return path.with_stem(f"{path.stem}_before")
