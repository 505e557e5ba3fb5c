"""Kvasir-SEG, colonoscopies with polyps (Jha et al. 2020), as published: JPEG images and JPEG masks, told apart from other
folders of the kind by the file of bounding boxes beside them.
"""

from pathlib import Path

from ukan.data.layouts.pairing import Found, inside, pair
from ukan.plan import MaskRule, Modality

TREE = """images/  cju0qkwl35piu0993l0dewei2.jpg ...
masks/   cju0qkwl35piu0993l0dewei2.jpg ...
kavsir_bboxes.json"""
DATASET = "kvasir-seg"
EMPTY_CASES = ("keep", "Kvasir-SEG: every image shows a polyp")
MODALITY: Modality = "endoscopy"
RULE: MaskRule | None = None
NEEDS: tuple[tuple[str, ...], ...] = ()


def recognises(root: Path) -> bool:
    # "kavsir" is how it is spelt in the archive.
    boxes = any((root / name).is_file() for name in ("kavsir_bboxes.json", "kvasir_bboxes.json"))
    return boxes and inside(root, "images") is not None and inside(root, "masks") is not None


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    images, masks = inside(root, "images"), inside(root, "masks")
    assert images and masks, "find_cases is called where recognises() said yes"
    return pair(root, images, {"": masks})
