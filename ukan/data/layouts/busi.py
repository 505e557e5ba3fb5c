"""BUSI, breast ultrasound (Al-Dhabyani et al. 2020), as published: masks beside the images, several a case."""

import re
from pathlib import Path

from ukan.data.problems import Problem
from ukan.imaging import is_image_name
from ukan.plan import Case, MaskRule, Modality

TREE = """benign/     benign (1).png  benign (1)_mask.png  [benign (1)_mask_1.png ...]
malignant/  malignant (1).png  malignant (1)_mask.png ...
[normal/    normal (1).png  normal (1)_mask.png ...]"""
DATASET = "busi"
EMPTY_CASES = ("drop", "BUSI: the published tables are made on the cases with a lesion; normal ones have empty masks")
MODALITY: Modality = "ultrasound"
RULE: MaskRule | None = None
NEEDS = (("benign",), ("malignant",))

CLASSES = ("benign", "malignant", "normal")
_MASK = re.compile(r"(?P<stem>.+)_mask(?:_\d+)?$")


def recognises(root: Path) -> bool:
    if not all((root / name).is_dir() for name in CLASSES[:2]):
        return False
    return any(_MASK.match(path.stem) for path in (root / "benign").iterdir())


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> tuple[list[Case], list[Problem]]:
    cases: list[Case] = []
    problems: list[Problem] = []
    for label in CLASSES:
        folder = root / label
        if not folder.is_dir():
            continue
        names = sorted(path.name for path in folder.iterdir() if is_image_name(path.name))
        images = {Path(name).stem: name for name in names if not _MASK.match(Path(name).stem)}
        masks: dict[str, list[str]] = {}
        for name in names:
            if match := _MASK.match(Path(name).stem):
                masks.setdefault(match["stem"], []).append(f"{label}/{name}")
        for stem in sorted(masks.keys() - images.keys()):
            problems.append(
                Problem("error", "mask without image", masks[stem][0], f"no image {stem}.png", "add it, or remove the mask")
            )
        for stem, name in sorted(images.items()):
            if stem not in masks:
                expected = f"{label}/{stem}_mask.png"
                problems.append(
                    Problem("error", "no mask", f"{label}/{name}", f"{expected} is missing", "add it, or remove the image")
                )
                continue
            cases.append(Case(case=stem, image=f"{label}/{name}", masks=tuple(masks[stem]), label=label))
    return cases, problems
