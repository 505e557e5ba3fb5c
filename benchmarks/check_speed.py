"""What indexing and checking a large folder costs beside bare decoding of the same files, in one process.

    python benchmarks/check_speed.py [--images 20000] [--rounds 3] [--folder DIR]

Made-up pictures of 288x384 pixels (CVC-ClinicDB's size) with masks, half of them PNG, half JPEG, no two alike. Bare decoding
reads every image and mask in as many processes as there are cores and keeps nothing; indexing is `index_folder`, all of
`ukan check` but the files it writes. Both are run in turn; the ratio is of their medians, of time
and, for machines that others use too, of core seconds. Linux only.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from ukan.data.index import Index, index_folder
from ukan.imaging import read_labels, read_picture
from ukan.runtime import peak_memory_gib, usable_cores

HEIGHT, WIDTH = 288, 384


def write_pair(folder: Path, number: int) -> None:
    """Clouds of colour with a disc on them: as compressible as photographs, and each its own picture."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    centre = int(rng.integers(60, WIDTH - 60)), int(rng.integers(60, HEIGHT - 60))
    cv2.circle(mask, centre, int(rng.integers(10, 60)), 255, -1)
    image[mask > 0] = image[mask > 0] // 2 + 100
    image += rng.integers(0, 8, image.shape, dtype=np.uint8)
    name = f"{number:06}"
    suffix, options = (".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]) if number % 2 else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert cv2.imwrite(str(folder / "images" / (name + suffix)), image, options)
    assert cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)


def decode(pair: tuple[Path, Path]) -> None:
    read_picture(pair[0])
    read_labels(pair[1])


def decode_all(folder: Path) -> None:
    pairs = zip(sorted((folder / "images").iterdir()), sorted((folder / "masks").iterdir()), strict=True)
    with ProcessPoolExecutor(usable_cores(), get_context("fork")) as pool:
        for _ in pool.map(decode, pairs, chunksize=16):
            pass


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds it takes, and seconds of all cores it uses, those of its processes among them."""

    def used() -> float:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    began, used_before = time.perf_counter(), used()
    function()
    return time.perf_counter() - began, used() - used_before


def measure(folder: Path, images: int, rounds: int) -> None:
    found: list[Index] = []
    decoding, indexing = [], []
    for number in range(rounds):
        decoding.append(timed(lambda: decode_all(folder)))
        indexing.append(timed(lambda: found.append(index_folder(folder))))
        shares = [a / b for a, b in zip(decoding[-1], indexing[-1], strict=True)]
        print(f"round {number}: {shares[0]:.1%} of the bare rate, {shares[1]:.1%} by core seconds", flush=True)
    for index in found:
        assert len(index.cases) == images and not index.errors and not index.pairs
    (decode_s, decode_cpu_s), (index_s, index_cpu_s) = (
        [statistics.median(part) for part in zip(*runs, strict=True)] for runs in (decoding, indexing)
    )
    print(
        f"{images} images with masks, {usable_cores()} cores: decoding {images / decode_s:.0f} a second, "
        f"indexing and checking {images / index_s:.0f} a second: {decode_s / index_s:.1%} of the bare rate "
        f"({decode_cpu_s / index_cpu_s:.1%} by core seconds); peak memory {peak_memory_gib():.2f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the pictures are made; a temporary folder by default")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        folder = Path(made, "pictures")
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True)
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(lambda number: write_pair(folder, number), range(arguments.images)))
        measure(folder, arguments.images, arguments.rounds)


if __name__ == "__main__":
    main()
