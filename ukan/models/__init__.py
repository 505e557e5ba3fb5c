"""MODELS: every network by name. Each keeps one contract: Model(in_channels, num_classes, **sizes), a `stride`, logits out.

Another package adds a network through the entry point group "ukan.models".
"""

import inspect
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from ukan.errors import UserError, nearest
from ukan.models.ukan import UKAN

MODELS: dict[str, type[nn.Module]] = {"ukan": UKAN}


def find_model(name: str) -> type[nn.Module]:
    """The class behind a name: one of MODELS, or one that an installed package offers."""
    if name in MODELS:
        return MODELS[name]
    offered = {entry.name: entry for entry in entry_points(group="ukan.models")}
    if name in offered:
        return offered[name].load()
    raise UserError(f"model.name: no model {name!r}. {nearest(name, [*MODELS, *offered])}")


def model_sizes(name: str) -> dict[str, Any]:
    """The named sizes a model takes, with their defaults."""
    parameters = inspect.signature(find_model(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def build_model(name: str, in_channels: int, num_classes: int, sizes: dict[str, Any]) -> nn.Module:
    """A network with fresh weights; an unknown or impossible size is answered with what would do."""
    known = model_sizes(name)
    for size in sizes:
        if size not in known:
            raise UserError(f"model.{size}: {name} takes no such size. {nearest(size, list(known))}")
    try:
        return find_model(name)(in_channels, num_classes, **sizes)
    except (ValueError, TypeError) as error:
        raise UserError(f"model: {error}") from error
