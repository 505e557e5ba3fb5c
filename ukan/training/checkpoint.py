"""Weights as safetensors, and what resuming needs; both written whole, both read without executing code."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ukan.errors import DataError
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
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path}: cannot be resumed from ({str(error).splitlines()[0]}); remove it to begin this fold anew"
        ) from error


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"ukan": json.dumps(about)})


def load_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not readable as weights ({error})") from error
