"""Published answers, beside the checkout (shared/golden): a rule fills every parameter, a formula makes the image."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ukan.nn.kan import KANLinear

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture
def golden() -> Callable[[str], Any]:
    """A file of published answers; without it the test is skipped."""

    def read(file: str) -> Any:
        path = SHARED / file
        if not path.is_file():
            pytest.skip(f"published answers not beside the checkout ({path})")
        return json.loads(path.read_text(encoding="utf-8"))

    return read


@pytest.fixture
def fill() -> Callable[[nn.Module, Sequence[str]], None]:
    """The rule of the golden files, by which every entry of the published network got its numbers; names as sorted there,
    those that ours does not have among them."""

    def by_rule(model: nn.Module, names: Sequence[str]) -> None:
        state = model.state_dict()
        for k, name in enumerate(names):
            if name not in state:
                continue
            entry = state[name]
            s = torch.sin(0.7 * torch.arange(entry.numel(), dtype=torch.float64) + k).view(entry.shape)
            if name.endswith("running_var"):
                s = 1 + 0.1 * s
            elif name.endswith("running_mean"):
                s = 0.1 * s
            elif entry.dim() >= 2:
                s = s / math.sqrt(entry.numel() / entry.shape[0])
            elif name.endswith("weight"):
                s = 1 + 0.1 * s
            else:
                s = 0.1 * s
            entry.copy_(s)
        for module in model.modules():
            if isinstance(module, KANLinear):
                module.set_knots((-1 + 0.4 * torch.arange(-3, 9, dtype=torch.float64)).expand_as(module.grid))

    return by_rule


@pytest.fixture
def golden_image() -> Callable[[int, int], Tensor]:
    """The image that the published networks answered, (1, 3, H, W) in float64."""

    def make(height: int, width: int) -> Tensor:
        c, y, x = torch.meshgrid(*(torch.arange(float(n), dtype=torch.float64) for n in (3, height, width)), indexing="ij")
        return (torch.sin(0.05 * (y + 1) * (c + 1)) * torch.cos(0.07 * (x + 1)))[None]

    return make
