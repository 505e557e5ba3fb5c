"""CVC-ClinicDB, frames of colonoscopy videos (Bernal et al. 2015), as published, with PNG beside TIF, or from Kaggle.

The 612 frames are numbered through 29 video sequences; a sequence is a group.
"""

from bisect import bisect_right
from pathlib import Path

from ukan.data.layouts.pairing import Found, files_in, folders_in, inside, pair, plain
from ukan.data.problems import Problem
from ukan.imaging import stem_of
from ukan.plan import MaskRule, Modality

TREE = """Original/      1.png  2.png ... 612.png     (or .tif)
Ground Truth/  1.png  2.png ... 612.png
or the same in PNG/ and TIF/, of which PNG is read"""
DATASET = "cvc-clinicdb"
EMPTY_CASES = ("keep", "CVC-ClinicDB: every frame shows a polyp")
MODALITY: Modality = "endoscopy"
RULE: MaskRule | None = None
NEEDS = (("Original",), ("Ground Truth",))

FRAMES = 612
# The first frame of each sequence, from the table that comes with the dataset.
STARTS = (
    *(1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384, 409),
    *(429, 448, 467, 479, 504, 529, 547, 572, 592),
)


def recognises(root: Path) -> bool:
    return _two_folders(root) is not None


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    folders = _two_folders(root)
    assert folders is not None, "find_cases is called where recognises() said yes"
    images, masks = folders
    cases, problems = pair(
        root, images, {"": masks}, leave_out=lambda path: _is_tif(path) and path.with_suffix(".png").exists()
    )
    grouped = []
    for case in cases:
        if not _is_frame(case.case):
            what = f"no frame number from 1 to {FRAMES}: its video sequence is unknown"
            problems.append(
                Problem("warning", "no video sequence", case.image, what, "a group of its own; name it --groups")
            )
            grouped.append(case)
        else:
            grouped.append(case._replace(group=f"sequence {bisect_right(STARTS, int(case.case)):02}"))
    return grouped, problems


def _two_folders(root: Path) -> tuple[Path, Path] | None:
    by_name = {plain(path.name): path for path in folders_in(root)}
    for place in (by_name.get("png"), root, by_name.get("tif"), by_name.get("tiff")):
        if place and (images := inside(place, "original")) and (masks := inside(place, "groundtruth")):
            names = files_in(images)
            if 2 * sum(_is_frame(stem_of(Path(name))) for name in names) > len(names):
                return images, masks
    return None


def _is_frame(stem: str) -> bool:
    return stem.isascii() and stem.isdigit() and 1 <= int(stem) <= FRAMES


def _is_tif(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")
