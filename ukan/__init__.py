"""ukan: self-configuring medical image segmentation and diffusion around Kolmogorov-Arnold networks.

The public names below are resolved on first use, so that ``import ukan`` loads nothing heavy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Plan": "ukan.plan",
    "KANLinear": "ukan.nn.kan",
    "UKAN": "ukan.models.ukan",
    "MODELS": "ukan.models",
    "find_model": "ukan.models",
    "build_model": "ukan.models",
    "check_folder": "ukan.stage.prepare",
    "plan_folder": "ukan.stage.prepare",
    "train": "ukan.tasks",
    "evaluate": "ukan.tasks",
    "predict": "ukan.segment.predict",
    "predictor": "ukan.segment.predict",
    "sample": "ukan.diffuse.sample",
    "compare_images": "ukan.diffuse.fid",
    "DiffusionUKAN": "ukan.models.diffusion",
    "explain": "ukan.segment.explain",
    "write_report": "ukan.tasks",
    "import_official": "ukan.segment.import_official",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ukan' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
