"""Measuring in turns: on a machine whose speed swings, what is compared takes turns in one process, and ratios are kept."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Step = Callable[[], object]


def take_turns(steps: dict[str, Step], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Process seconds of every step in every round; not of the first, which compile and fill caches."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + warm_up):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if number >= warm_up:
                found[name].append(time.process_time() - began)
    return found


def ratio(found: dict[str, list[float]], slow: str, fast: str) -> float:
    return statistics.median(a / b for a, b in zip(found[slow], found[fast], strict=True))


def peak_bytes(step: Step) -> int:
    """The most memory that tensors of a step take together, from the allocator's own record."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    with tempfile.TemporaryDirectory() as folder:
        now = most = 0
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("name") == "[memory]"]
        for event in sorted(events, key=lambda event: event["ts"]):
            now += event["args"]["Bytes"]
            most = max(most, now)
    return most
