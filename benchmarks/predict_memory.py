"""Memory of a prediction against the number of images: 100 and 10,000 small PNGs, a stand-in network of one convolution.

    python benchmarks/predict_memory.py [--many 10000]

Each count runs in a process of its own, after a warm-up of 16 images; the figure is the growth of its peak resident memory.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def one(folder: Path, count: int) -> None:
    import torch
    from torch import nn

    from ukan.plan import DataPlan, InferPlan, Plan
    from ukan.runtime import peak_memory_gib
    from ukan.segment.predict import Wanted, find_jobs, run_jobs

    torch.set_num_threads(1)
    data = DataPlan(dataset="x", layout="folders", index_sha256="0", channels=1, input_size=(64, 64))
    plan = Plan(name="x", data=data, infer=InferPlan(batch_size=8))
    network = nn.Conv2d(1, 1, 3, padding=1)
    with tempfile.TemporaryDirectory() as out:
        jobs = find_jobs([folder], Path(out), plan)[:count]
        run_jobs(jobs, Wanted(Path(out)), [network], plan, torch.device("cpu"), "fp32")
    print(peak_memory_gib() * 1024)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        one(Path(arguments.one[0]), int(arguments.one[1]))
        return
    import numpy as np
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for i in range(arguments.many):
            Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(f"{folder}/{i:06d}.png", compress_level=1)
        peaks = {}
        for count in (100, arguments.many):
            command = [sys.executable, __file__, "--one", folder, str(count)]
            peaks[count] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    few, many = peaks[100], peaks[arguments.many]
    print(f"peak at 100 images {few:.0f} MiB, at {arguments.many} {many:.0f} MiB: grows by {many - few:.1f} MiB")


if __name__ == "__main__":
    main()
