"""What the machine is and decides: cores, memory, device, precision, seeds, and the record of it all."""

import errno
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ukan.errors import OutOfMemory, UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def usable_cores() -> int:
    """Cores this process may really use: its affinity, or less where a cgroup limits its time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpu_quota()
    return max(1, min(cores, int(quota))) if quota else cores


def usable_memory_gib() -> float:
    """Memory that can still be taken: what is available, or less where a cgroup limits it."""
    import psutil

    available = psutil.virtual_memory().available
    limit, used = _cgroup_number("memory.max"), _cgroup_number("memory.current")
    if limit is not None:
        available = min(available, max(0, limit - (used or 0)))
    return available / 2**30


def peak_memory_gib() -> float:
    """The most memory this process has held so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "insufficient memory", "alloc_failed", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator gave up: Python's and the system's say so by type, those of torch and OpenCV in words."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    speaks = not isinstance(error, OSError | ValueError | LookupError)  # those quote names of files and keys
    return speaks and any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def explain_out_of_memory(do: str) -> Iterator[None]:
    """Where memory runs out within the block, raises OutOfMemory with what to do."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"out of memory: {do}") from error


def pick_device(asked: str | None) -> "torch.device":
    """The device asked for, or the best there is: CUDA, then Apple's, then the CPU."""
    import torch

    if asked is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise UserError(f"--device {asked}: no such device. Use cpu, cuda, cuda:1 or mps") from error
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device.type, False):
        raise UserError(f"--device {asked}: not usable here; `ukan doctor` says why. Without --device the best is taken")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"--device {asked}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0")
    return device


def resolve_precision(asked: str, device: "torch.device") -> Precision:
    """auto is bf16 on GPUs that have it and fp32 elsewhere."""
    import torch

    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "bf16" if has_bf16 else "fp32"
    if asked == "fp16" and device.type != "cuda":
        raise UserError(f"train.precision=fp16 needs a CUDA device, this is {device.type}; use fp32, bf16 or auto")
    if asked == "bf16" and device.type == "cuda" and not has_bf16:
        raise UserError("train.precision=bf16: this GPU does not have it; use fp16, fp32 or auto")
    return asked  # type: ignore[return-value]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and choose algorithms that give the same bits each time."""
    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products on CUDA ask for
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries below us draw from it
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Costs time, and nothing here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def environment_record(argv: list[str]) -> dict[str, Any]:
    """What a number depends on beside the plan: versions, machine, command."""
    import datetime

    packages = (
        "ukan",
        "torch",
        "torchvision",
        "accelerate",
        "albumentations",
        "diffusers",
        "torch-fidelity",
        "monai",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "scikit-learn",
    )
    return {
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": usable_cores(),
        "packages": {name: installed_version(name) for name in packages},
        "commit": _git_commit(),
    }


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source tree this package runs from, '+' for local changes; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _cgroup_cpu_quota() -> float | None:
    """Cores' worth of time that the cgroup allows, v2 or v1; None without a limit."""
    text = _read("/sys/fs/cgroup/cpu.max")
    if text:
        quota, _, period = text.partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    quota, period = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _cgroup_number(name: str) -> int | None:
    text = _read(f"/sys/fs/cgroup/{name}")
    return int(text) if text.isdigit() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
