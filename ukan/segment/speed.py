"""How fast networks answer, measured in turns: a machine that swings swings for all of them."""

import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ukan.runs import Run
from ukan.runtime import resolve_precision

ROUNDS = 7
ROUND_S = 0.2
"""What a network's turn takes at least, unless one image takes longer."""


class Timed(NamedTuple):
    seconds_RK: NDArray[np.float64]
    """Of one image forward, a row for each round, a column for each run."""
    peak_bytes: list[int | None]
    """The most memory a run's forward takes beside all the networks' weights, on CUDA."""
    machine: str


def time_networks(
    runs: Sequence[Run],
    fold: int,
    device: torch.device,
    *,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
    on_progress: Callable[[int, int], None] | None = None,
) -> Timed:
    """Time the networks of a fold, one image at a time, at each run's input size and precision.

    Runs of like networks share a measurement. Each round asks every network for images in turn, so that ratios within a
    round stand for less of the machine's swings than times do.
    """
    kinds = [_kind(run) for run in runs]
    ask = {kind: _asker(run, fold, device) for kind, run in zip(kinds, runs, strict=True)}
    peaks = {kind: _peak_bytes(once, device) for kind, once in ask.items()}  # warms up as well
    often = {kind: min(1000, math.ceil(round_s / _timed(once, 1, device))) for kind, once in ask.items()}
    seconds: list[list[float]] = []
    for number in range(rounds):
        measured = {kind: _timed(once, often[kind], device) for kind, once in ask.items()}
        seconds.append([measured[kind] for kind in kinds])
        if on_progress:
            on_progress(number + 1, rounds)
    return Timed(np.array(seconds), [peaks[kind] for kind in kinds], machine_name(device))


def machine_name(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor's with how many threads are used."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type


def _kind(run: Run) -> str:
    """What decides how long a network takes."""
    data, train = run.plan.data, run.plan.train
    network = (run.plan.model, data.channels, data.outputs, data.input_size)
    return repr((network, train.precision, train.channels_last, train.kan_update_every > 0))  # uniform knots are faster


def _asker(run: Run, fold: int, device: torch.device) -> Callable[[], None]:
    plan = run.plan
    network = run.network(fold, device)
    precision = resolve_precision(plan.train.precision, device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    memory_format = torch.channels_last if plan.train.channels_last else torch.contiguous_format
    image = torch.rand(1, plan.data.channels, *plan.data.input_size, device=device).contiguous(memory_format=memory_format)

    def once() -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=precision != "fp32"):
            network(image)

    return once


def _peak_bytes(once: Callable[[], None], device: torch.device) -> int | None:
    once()
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    once()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _timed(once: Callable[[], None], times: int, device: torch.device) -> float:
    """Seconds of one call, the mean of several in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        once()
    _wait(device)
    return (time.perf_counter() - start) / times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
