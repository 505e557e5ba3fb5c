"""The selective scan, and KM-UNet with it, against loops: time, memory, error, as ratios.

    python benchmarks/scan_speed.py [--rounds 5] [--only scan|network|memory]

All forms take turns in one process on one thread; a ratio is the median over rounds of that round's ratio, times are process
time. N = 16 states, float32. The published loop turns at most three times.
"""

import argparse
import statistics
from typing import Any

import torch
from published_scan import by_unbind, published_loop
from torch import Tensor, nn
from torch.nn import functional as F
from turns import Step, peak_bytes, ratio, take_turns

from ukan.models.km_unet import KMUNet
from ukan.models.ukan import UKAN
from ukan.nn.scan import selective_scan

SHAPES = ((2, 64, 256), (2, 64, 1024), (1, 32, 4096), (1, 128, 16_384))
"""Batch, channels, steps; the last is the longest of KM-UNet's at 256x256."""


def inputs(batch: int, channels: int, steps: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """As the loops take them: u, delta (B, D, L), A (D, N), B, C (B, N, L)."""
    torch.manual_seed(0)
    u, width = (torch.randn(batch, channels, steps) for _ in range(2))
    A = -torch.arange(1.0, 17).repeat(channels, 1)
    B, C = (torch.randn(batch, 16, steps) for _ in range(2))
    return [t.to(dtype).requires_grad_() for t in (u, F.softplus(width - 2), A, B, C)]


def time_first(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> list[Tensor]:
    """The same as our function takes them."""
    return [
        *(t.permute(2, 0, 1).unsqueeze(2) for t in (u, delta)),
        A.unsqueeze(0),
        *(t.permute(2, 0, 1).unsqueeze(2) for t in (B, C)),
    ]


def both_ways(function: Any, given: list[Tensor], grad: Tensor) -> Step:
    return lambda: torch.autograd.grad(function(*given), given, grad)


def scans(rounds: int) -> None:
    print("selective scan, forward and backward, float32: times slower than ours, median (ours in ms); gradients' error")
    for batch, channels, steps in SHAPES:
        given = inputs(batch, channels, steps)
        grad = torch.randn(batch, channels, steps)
        ours = [t.detach().contiguous().requires_grad_() for t in time_first(*given)]
        turns = {"ours": both_ways(selective_scan, ours, grad.permute(2, 0, 1).unsqueeze(2).contiguous())}
        turns["unbind"] = both_ways(by_unbind, given, grad)
        found = take_turns(turns, rounds, 1)
        line = f"  batch {batch}, {channels} channels, {steps} steps: unbind {ratio(found, 'unbind', 'ours'):.1f}"
        if steps <= 4096:
            slow = take_turns(turns | {"published": both_ways(published_loop, given, grad)}, min(rounds, 3), 1)
            line += f", published {ratio(slow, 'published', 'ours'):.0f}"
            exact = inputs(batch, channels, steps, torch.float64)
            truth = time_first(*torch.autograd.grad(by_unbind(*exact), exact, grad.double()))
            worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(turns["ours"](), truth, strict=True))
            line += f", error {worst:.1e}"
        print(f"{line} ({1e3 * statistics.median(found['ours']):.0f} ms)", flush=True)


def networks(rounds: int, batch: int, side: int) -> None:
    print(f"training step (forward, loss, backward), {side}x{side}, batch {batch}: times KM-UNet base with our scan")
    torch.manual_seed(0)
    steps = {
        "KM-UNet base": step(KMUNet(3, 1), batch, side),
        "the same, loop over unbind": step(KMUNet(3, 1, scan_backend="loop"), batch, side),
        "the same, spiral": step(KMUNet(3, 1, scan_order="spiral"), batch, side),
        "the same, convolutions for scans": step(KMUNet(3, 1, sem="conv"), batch, side),
        "KM-UNet as published": step(KMUNet(3, 1, as_published=True), batch, side),
        "KM-UNet matched": step(KMUNet(3, 1, widths=(112, 144, 256)), batch, side),
        "U-KAN base": step(UKAN(3, 1), batch, side),
    }
    found = take_turns(steps, rounds, 1)
    for name in steps:
        print(f"    {name}: {ratio(found, name, 'KM-UNet base'):.2f} ({1e3 * statistics.median(found[name]):.0f} ms)")


def memory(batch: int, side: int) -> None:
    print(f"memory of tensors, training step, {side}x{side}, batch {batch}, over what was there")
    for name, model in (("ours", KMUNet(3, 1)), ("loop over unbind", KMUNet(3, 1, scan_backend="loop"))):
        taken = step(model, batch, side)
        if name == "ours":
            taken()
        print(f"    KM-UNet base, {name}: peak {peak_bytes(taken) / 2**30:.2f} GiB")


def step(model: nn.Module, batch: int, side: int) -> Step:
    model = model.train().to(memory_format=torch.channels_last)
    image = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    truth = (torch.rand(batch, 1, side, side) > 0.5).float()

    def run() -> None:
        model.zero_grad()
        F.binary_cross_entropy_with_logits(model(image), truth).backward()

    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("scan", "network", "memory"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=256)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.only in (None, "scan"):
        scans(asked.rounds)
    if asked.only in (None, "network"):
        networks(asked.rounds, asked.batch, asked.side)
    if asked.only in (None, "memory"):
        memory(asked.batch, asked.side)
