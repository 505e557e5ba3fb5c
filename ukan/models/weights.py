"""Weights as safetensors: written whole, read without executing code."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ukan.errors import DataError
from ukan.paths import written_whole


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
