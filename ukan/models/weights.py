"""Weights as safetensors: written whole, read without executing code. And those that others publish, fetched once."""

import http.client
import json
import re
import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ukan.errors import DataError, UserError
from ukan.paths import written_whole

HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")  # torch.hub's convention
_TIMEOUT_S = 30.0


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


def fetch_published(url: str, what: str, otherwise: str, name: str | None = None) -> Path:
    """The file in torch.hub's folder, downloaded where it is not there.

    name: the file's, where the address does not end with a telling one. Raises UserError where it is nowhere to be had, with
    what to do: put `what` there, or `otherwise`.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / (name or url.rpartition("/")[2])
    if path.exists():
        return path
    hash_of_name = HASH_IN_NAME.search(path.name)
    before = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(_TIMEOUT_S)  # a network that never answers is none
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_of_name and hash_of_name[1], progress=False)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        put = f"put it into {path.parent}" if name is None else f"put it here as {path}"
        raise UserError(
            f"{what} are not here and cannot be fetched ({why}): get {url} where there is a network and {put}, "
            f"or {otherwise}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return path
