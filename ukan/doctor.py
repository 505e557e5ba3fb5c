"""What a machine has and lacks for ukan, each lack with what to type. Nothing here fails: it finds out."""

import importlib
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Literal, NamedTuple

from ukan.errors import UserError
from ukan.runtime import installed_version, pick_device, usable_cores, usable_memory_gib

_PAIR = "pip install --force-reinstall torch torchvision"
_OPTIONAL = {
    "onnx": ("exporting a network with torch.onnx", "pip install 'ukan[export]'"),
    "onnxscript": ("exporting a network with torch.onnx", "pip install 'ukan[export]'"),
    "segmentation-models-pytorch": ("convnext-unet", "pip install 'ukan[pretrained]'"),
}


class Finding(NamedTuple):
    state: Literal["ok", "missing", "warning", "optional"]
    """missing: training cannot start without it."""
    what: str
    found: str
    do: str = ""


def examine(device: str | None = None) -> list[Finding]:
    """Everything training needs, first to last."""
    return [_python(), *_torch(device), *_packages(), _cores(), _memory(), _disk(), *_optional()]


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} ({sys.executable})"
    return Finding("ok" if good else "missing", "Python >= 3.11", found, "" if good else "install Python 3.11 or newer")


def _torch(device: str | None) -> list[Finding]:
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return [Finding("missing", "torch", _line(error), "pip install torch torchvision")]
    findings = [Finding("ok", "torch", torch.__version__)]
    try:
        torchvision = importlib.import_module("torchvision")
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
        kept = importlib.import_module("torchvision.ops").nms(boxes, torch.tensor([0.5, 0.9]), 0.5)
        works = kept.tolist() == [1]
        state: Literal["ok", "missing"] = "ok" if works else "missing"
        findings.append(Finding(state, "torchvision fits torch", torchvision.__version__, "" if works else _PAIR))
    except ModuleNotFoundError as error:
        findings.append(Finding("missing", "torchvision fits torch", _line(error), "pip install torchvision"))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # A build of one origin beside a torch of another: "operator torchvision::nms does not exist".
        found = f"torchvision {installed_version('torchvision')} is no match for torch {torch.__version__}: {_line(error)}"
        findings.append(Finding("missing", "torchvision fits torch", found, _PAIR))
    return [*findings, _device(torch, device)]


def _device(torch: object, asked: str | None) -> Finding:
    try:
        device = pick_device(asked)
        if device.type == "cuda":
            free, total = (number / 2**30 for number in torch.cuda.mem_get_info(device))  # type: ignore[attr-defined]
            bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"  # type: ignore[attr-defined]
            name = torch.cuda.get_device_name(device)  # type: ignore[attr-defined]
            return Finding("ok", "device", f"{device}: {name}, {free:.1f} of {total:.1f} GiB free, {bf16}")
        if device.type == "cpu" and asked is None:
            why = _why_no_gpu(torch)
            return Finding("ok", "device", f"cpu ({why})", "training is slow on a CPU: try `ukan train PLAN --dry-run`")
        return Finding("ok", "device", str(device))
    except (UserError, RuntimeError) as error:
        return Finding("missing", "device", _line(error), "choose another with --device, or repair the driver")


def _why_no_gpu(torch: object) -> str:
    if getattr(getattr(torch, "version", None), "cuda", None) is None:
        return "this torch is built without CUDA"
    return "no GPU driver" if shutil.which("nvidia-smi") is None else "torch finds no usable GPU"


def _packages() -> list[Finding]:
    """The required packages beside torch: imported where that is quick, looked up where it is not."""
    missing = [name for name in _required() if installed_version(name) is None]
    if missing:
        return [Finding("missing", "packages", f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")]
    try:
        cv2 = importlib.import_module("cv2")
    except (ImportError, OSError) as error:
        return [
            Finding("missing", "packages", f"OpenCV: {_line(error)}", "pip install --force-reinstall opencv-python-headless")
        ]
    return [Finding("ok", "packages", f"all {len(_required())} installed, OpenCV {cv2.__version__}")]


def _required() -> list[str]:
    import re

    try:
        lines = [line for line in requires("ukan") or [] if "extra ==" not in line]
    except PackageNotFoundError:  # run from a source folder that was never installed
        return ["ukan"]
    return [re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0] for line in lines]


def _cores() -> Finding:
    import psutil

    usable, present = usable_cores(), psutil.cpu_count() or 1
    found = f"{usable} usable" + (f" of {present}: affinity or a cgroup limits them" if usable < present else "")
    return Finding("ok", "cores", found)


def _memory() -> Finding:
    gib = usable_memory_gib()
    little = gib < 4
    return Finding("warning" if little else "ok", "memory", f"{gib:.1f} GiB", "close other programs" if little else "")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    little = free < 2
    found = f"{free:.1f} GiB free in {Path.cwd()}"
    return Finding("warning" if little else "ok", "disk", found, "a run takes up to 1 GiB: make room" if little else "")


def _optional() -> list[Finding]:
    findings = []
    for name, (use, install) in _OPTIONAL.items():
        version = installed_version(name)
        findings.append(
            Finding(
                "ok" if version else "optional",
                f"{name}: {use}",
                version or "not installed",
                "" if version else install,
            )
        )
    return findings


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
