"""PH2, dermoscopies (Mendonca et al. 2013), as published: a folder for each case.

The diagnosis is read from PH2_dataset.txt where that is there; the same table as a spreadsheet is not.
"""

import re
from pathlib import Path

from ukan.data.layouts.pairing import Found, below, folders_in, inside, no_mask
from ukan.data.problems import Problem
from ukan.imaging import find_images
from ukan.plan import Case, MaskRule, Modality

TREE = """PH2 Dataset images/  IMD002/  IMD002_Dermoscopic_Image/ IMD002.bmp   IMD002_lesion/ IMD002_lesion.bmp
                     IMD003/ ...
[PH2_dataset.txt]"""
DATASET = "ph2"
EMPTY_CASES = ("keep", "PH2: every image shows a lesion")
MODALITY: Modality = "dermoscopy"
RULE: MaskRule | None = None
NEEDS: tuple[tuple[str, ...], ...] = ()

_CASE = re.compile(r"IMD\d+")
_DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}  # the table's own code


def recognises(root: Path) -> bool:
    return any((folder / f"{folder.name}_Dermoscopic_Image").is_dir() for folder in _case_folders(root))


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    diagnoses = _read_diagnoses(root)
    cases, problems = [], []
    for folder in _case_folders(root):
        name = folder.name
        images, masks = (
            [below(root, path) for path in find_images(part)] if part.is_dir() else []
            for part in (folder / f"{name}_Dermoscopic_Image", folder / f"{name}_lesion")
        )
        where = below(root, folder)
        if len(images) != 1:
            what = f"{len(images)} images in {name}_Dermoscopic_Image/"
            problems.append(Problem("error", "not one image", where, what, "a case has one image there"))
        elif not masks:
            problems.append(no_mask(images[0], f"{where}/{name}_lesion/{name}_lesion.bmp"))
        else:
            cases.append(Case(name, images[0], tuple(masks), label=diagnoses.get(name, "")))
    return cases, problems


def _case_folders(root: Path) -> list[Path]:
    return [folder for folder in folders_in(inside(root, "phdatasetimages") or root) if _CASE.fullmatch(folder.name)]


def _read_diagnoses(root: Path) -> dict[str, str]:
    """Case to diagnosis. A row is `|| IMD003 || histological diagnosis || clinical diagnosis as 0, 1, 2 || ...`."""
    path = next((place / "PH2_dataset.txt" for place in (root, root.parent) if (place / "PH2_dataset.txt").is_file()), None)
    if path is None:
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [[field.strip() for field in line.split("||")] for line in lines]
    return {row[1]: _DIAGNOSES[row[3]] for row in rows if len(row) > 3 and row[3] in _DIAGNOSES}
