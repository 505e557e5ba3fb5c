"""GlaS, glands in colon histology (Sirinukunwattana et al. 2017), in both published shapes: one folder of train_1.bmp,
train_1_anno.bmp, testA_1.bmp ... with Grade.csv; or Train_Folder/ and Test_Folder/ with img/ and labelcol/.

Masks number the glands. Grade.csv tells each image's patient, which is its group.
"""

import csv
import re
from pathlib import Path

from ukan.data.layouts.pairing import (
    Found,
    below,
    files_in,
    folders_in,
    inside,
    mask_without_image,
    no_mask,
    pair,
    part_without_masks,
    split_of,
    unnamed_part,
)
from ukan.imaging import stem_of
from ukan.plan import Case, MaskRule, Modality

TREE = """train_1.bmp  train_1_anno.bmp  testA_1.bmp  testA_1_anno.bmp  testB_1.bmp ...  Grade.csv
or   Train_Folder/  img/ 1.png ...  labelcol/ 1.png ...
     Test_Folder/   img/ 1.png ...  labelcol/ 1.png ..."""
DATASET = "glas"
EMPTY_CASES = ("keep", "GlaS: every image shows glands")
MODALITY: Modality = "histology"
RULE: MaskRule | None = "instances"
NEEDS = (("Train_Folder/img",), ("Train_Folder/labelcol",))

_FLAT = re.compile(r"(?P<split>train|test)(?:A|B)?_\d+(?P<mask>_anno)?")


def recognises(root: Path) -> bool:
    return _is_flat(root) or any(split and masks for split, _, masks in _parts(root))


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    if _is_flat(root):
        return _flat_cases(root)
    cases, problems = [], []
    for split, images, masks in _parts(root):
        if not split:
            problems.append(unnamed_part(f"{images.parent.name}/"))
            continue
        if masks is None:
            problems.append(part_without_masks(f"{below(root, images)}/"))
            continue
        found, wrong = pair(root, images, {"": masks})
        # Both parts count from 1.
        cases += [case._replace(case=f"{split}_{case.case}", split=split) for case in found]
        problems += wrong
    return cases, problems


def _is_flat(root: Path) -> bool:
    return any((match := _FLAT.fullmatch(stem_of(Path(name)))) and match["mask"] for name in files_in(root))


def _flat_cases(root: Path) -> Found:
    files = {stem_of(Path(name)): name for name in files_in(root)}
    rows = _read_grades(root)
    cases, problems = [], []
    for stem, name in files.items():
        match = _FLAT.fullmatch(stem)
        if match is None:
            continue
        if match["mask"]:
            image = stem.removesuffix("_anno")
            if image not in files:
                problems.append(mask_without_image(name, image))
        elif (mask := files.get(f"{stem}_anno")) is None:
            problems.append(no_mask(name, f"{stem}_anno{Path(name).suffix}"))
        else:
            patient, label, grade = rows.get(stem, ("", "", ""))
            group = f"patient {patient}" if patient else ""
            cases.append(Case(stem, name, (mask,), group=group, label=label, split=match["split"], grade=grade))
    return cases, problems


def _read_grades(root: Path) -> dict[str, tuple[str, str, str]]:
    """Image to (patient, benign or malignant, the finer grade), by Grade.csv; nothing without one."""
    path = next((path for path in root.glob("*.csv") if path.stem.lower() == "grade"), None)
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = [[field.strip() for field in row] for row in csv.reader(file)]
    return {row[0]: (row[1], row[2].lower(), row[3].lower()) for row in rows if len(row) >= 4 and _FLAT.fullmatch(row[0])}


def _parts(root: Path) -> list[tuple[str, Path, Path | None]]:
    """(part or "", folder of images, folder of masks or None). MoNuSeg has such folders, too; GlaS' images are numbers."""
    parts: list[tuple[str, Path, Path | None]] = []
    for folder in folders_in(root):
        images = inside(folder, "img")
        if images and all(stem_of(Path(name)).isdigit() for name in files_in(images)):
            parts.append((split_of(folder.name), images, inside(folder, "labelcol")))
    return parts
