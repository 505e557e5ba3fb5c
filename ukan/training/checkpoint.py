"""What resuming needs: written whole, read without executing code."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ukan.errors import DataError, OutOfMemory
from ukan.paths import written_whole


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
    """`parts` are objects with state_dict(); random generators are taken along."""
    content = {
        "state": vars(state),
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "rng_cpu": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with written_whole(path) as temporary:
        torch.save(content, temporary)


def load_resume(path: Path, parts: dict[str, Any]) -> TrainingState:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(content["parts"][name])
        torch.set_rng_state(content["rng_cpu"])
        if content["rng_cuda"] and torch.cuda.device_count() == len(content["rng_cuda"]):
            torch.cuda.set_rng_state_all(content["rng_cuda"])
        return TrainingState(**content["state"])
    except torch.OutOfMemoryError as error:  # a RuntimeError too, but nothing is wrong with the file
        raise OutOfMemory(f"no memory on the device to resume {path}; free some and run the same command again") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: cannot be resumed from ({str(error).splitlines()[0]}); remove it to begin this fold anew"
        ) from error
