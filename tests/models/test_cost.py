"""The U-KAN paper's own counting of FLOPs: every number it prints, and what thop finds."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ukan.models
from ukan.models.cost import paper_gflops
from ukan.models.ukan import WIDTHS

SHARED = Path(__file__).resolve().parents[3] / "shared"


def rule(**sizes: Any) -> float:
    return paper_gflops("ukan", 3, 1, sizes)


@pytest.mark.parametrize(("layers", "printed"), [(1, "13.97"), (2, "14.00"), (3, "14.02"), (4, "14.05"), (5, "14.07")])
def test_table_4_is_reproduced(layers: int, printed: str) -> None:
    assert f"{rule(kan_layers=['kan'] * layers):.2f}" == printed


@pytest.mark.parametrize(
    ("kinds", "printed"),
    [
        ("kan kan kan", "14.02"),
        ("mlp kan kan", "14.29"),
        ("kan mlp kan", "14.29"),
        ("kan kan mlp", "14.29"),
        ("mlp mlp mlp", "14.84"),
    ],
)
def test_table_5_is_reproduced(kinds: str, printed: str) -> None:
    assert f"{rule(kan_layers=kinds.split()):.2f}" == printed


@pytest.mark.parametrize(("size", "printed"), [("S", "3.74"), ("base", "14.02"), ("L", "55.11")])
def test_table_6_is_reproduced(size: str, printed: str) -> None:
    assert f"{rule(widths=WIDTHS[size]):.2f}" == printed


def test_the_third_decimal_of_table_6_is_that_of_thop_s_rounded_output() -> None:
    # thop prints the multiply-adds at 512x512 in three decimals, 1.870; the paper's 3.740 is twice that.
    small = rule(widths=WIDTHS["S"])
    assert f"{2 * round(small / 2, 3):.3f}" == "3.740" and small == pytest.approx(3.7395, abs=5e-5)


@pytest.mark.parametrize("size", WIDTHS)
def test_eight_times_what_thop_counts_at_256(size: str) -> None:
    path = SHARED / "golden.json"
    if not path.is_file():
        pytest.skip(f"published counts not beside the checkout ({path})")
    thop = json.loads(path.read_text(encoding="utf-8"))["ukan_seg"][size]["thop_macs_256"]
    assert rule(widths=WIDTHS[size]) == thop * 8 / 1e9


def test_each_module_counts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(nn.Module):
        stride = 1

        def __init__(self, in_channels: int, num_classes: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)
            self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
            self.bn, self.ln = nn.BatchNorm2d(4), nn.LayerNorm(128)
            self.relu = nn.ReLU()
            self.linear = nn.Linear(128, num_classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.relu(self.ln(self.bn(self.depthwise(self.conv(x))))))

    monkeypatch.setattr(ukan.models, "find_model", lambda name: Made)
    pixels = 128 * 128
    macs = pixels * (4 * 2 * 9 + 4 * 9 + 4 * 4 + 4 * 4) + 4 * 128 * 128 * 3
    assert paper_gflops("made", 2, 3, {}) == macs * 8 / 1e9
