"""A folder of masks for each class beside one folder of images, as the U-KAN repository has it (images/, masks/0/).

One class folder is a binary dataset; several are classes that may overlap.
"""

from pathlib import Path

from ukan.data.layouts import folders
from ukan.data.layouts.pairing import Found
from ukan.plan import MaskRule, Modality

TREE = """images/   a.png  b.png ...
masks/0/  a.png  b_mask.png ...     (one folder a class, named by number or by name)
[masks/1/ ...]                      (train/, val/, test/ around them are fine)"""
DATASET = ""
EMPTY_CASES = folders.EMPTY_CASES
MODALITY: Modality = "unknown"
RULE: MaskRule | None = None
NEEDS: tuple[tuple[str, ...], ...] = ()


def recognises(root: Path) -> bool:
    return any(masks and folders.class_folders(images, masks) for _, images, masks in folders.parts(root))


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    return folders.cases_of_parts(root, _by_class)


def _by_class(images: Path, masks: Path) -> dict[str, Path]:
    found = folders.class_folders(images, masks)
    return found if len(found) > 1 else {"": next(iter(found.values()), masks)}
