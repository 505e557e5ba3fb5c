"""Weights as safetensors: written whole, read without executing code."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ukan.errors import DataError
from ukan.paths import written_whole


def save_weights(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    from safetensors.torch import save

    # Copies: the format has no place for weights that share memory.
    tensors = {
        name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, tensor in model.state_dict().items()
    }
    content = save(tensors, metadata={"ukan": json.dumps(about)})
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def load_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: not readable as weights ({error}); restore it, or remove it and train again") from error
