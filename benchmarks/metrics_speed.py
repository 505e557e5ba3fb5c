"""Time of measuring one case: all of METRICS in one pass against MONAI's three surface metrics, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/metrics_speed.py

Two ellipses a few pixels apart, in a picture of 2000x2000 and a volume of 100x512x512; best of three.
"""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ukan.metrics import measure


def ellipse(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    grid = np.ogrid[tuple(slice(side) for side in shape)]
    return sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True)) <= 1


def monai(truth: NDArray[np.bool_], guess: NDArray[np.bool_], spacing: tuple[float, ...]) -> None:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    g, t = (torch.from_numpy(mask)[None, None].float() for mask in (guess, truth))
    compute_hausdorff_distance(g, t, include_background=True, percentile=95, spacing=spacing)
    compute_average_surface_distance(g, t, include_background=True, symmetric=True, spacing=spacing)
    compute_surface_dice(g, t, class_thresholds=[2.0], include_background=True, spacing=spacing)


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    cases = {
        "picture 2000x2000": ((2000, 2000), (1000, 1000), (600, 700), (1010, 980), (590, 720), (1.0, 1.0)),
        "volume 100x512x512": (
            (100, 512, 512),
            (50, 256, 256),
            (40, 200, 180),
            (52, 250, 260),
            (38, 205, 175),
            (2.5, 0.7, 0.7),
        ),
    }
    for name, (shape, here, size, there, other, spacing) in cases.items():
        truth, guess = ellipse(shape, here, size), ellipse(shape, there, other)
        ours = best(lambda: measure(truth, guess, spacing))  # noqa: B023
        theirs = best(lambda: monai(truth, guess, spacing))  # noqa: B023
        print(f"{name}: {ours:.3f} s, MONAI's three {theirs:.3f} s, {theirs / ours:.1f} times as long")


if __name__ == "__main__":
    main()
