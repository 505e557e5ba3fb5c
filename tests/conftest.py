"""What every test stands on: a folder of its own, a cache of its own, made-up datasets, and the real BUSI sample."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks the network when it is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: more threads only wait for one another
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # where there are more, waiting must not keep a core busy


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def alone(cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing a test writes lands in the checkout or in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    monkeypatch.chdir(tmp_path)


def make_case(
    rng: np.random.Generator, size: tuple[int, int] = (48, 64), colour: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipse on noise: uint8 image (H, W) or (H, W, 3) and bool mask (H, W)."""
    height, width = size
    # The noise is coarse, so that it is still there in a thumbnail: no two pictures are near-duplicates.
    coarse = rng.integers(0, 100, (16, 16))
    noise = coarse[np.arange(height)[:, None] * 16 // height, np.arange(width)[None] * 16 // width]
    half_y, half_x = (side * rng.uniform(0.12, 0.22) for side in size)
    y = rng.uniform(half_y, height - half_y)
    x = rng.uniform(half_x, width - half_x)
    mask = ((np.arange(height)[:, None] - y) / half_y) ** 2 + ((np.arange(width)[None] - x) / half_x) ** 2 <= 1
    image = (noise + 130 * mask + rng.integers(0, 20, size)).astype(np.uint8)
    if colour:
        image = np.stack([image, image // 2, 255 - image], axis=-1)
    return image, mask


@pytest.fixture
def write_dataset() -> Callable[..., Path]:
    """write_dataset(folder, count=12, *, size=(48, 64), colour=False, seed=0): images/ and masks/ of PNGs; gives folder."""

    def write(
        folder: Path, count: int = 12, *, size: tuple[int, int] = (48, 64), colour: bool = False, seed: int = 0
    ) -> Path:
        rng = np.random.default_rng(seed)
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        for number in range(count):
            image, mask = make_case(rng, size, colour)
            Image.fromarray(image).save(folder / "images" / f"c{number:03}.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"c{number:03}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def busi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real BUSI sample in its published layout, from the shared data beside the checkout."""
    unpack = ROOT.parent / "shared" / "data" / "unpack.py"
    if not unpack.is_file():
        pytest.skip("real BUSI sample not beside the checkout")
    folder = tmp_path_factory.mktemp("real")
    subprocess.run([sys.executable, str(unpack), str(folder), "busi"], check=True, capture_output=True, timeout=300)
    return folder / "Dataset_BUSI_with_GT"
