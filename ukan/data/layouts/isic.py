"""ISIC challenges of 2016, 2017 and 2018, lesion segmentation in dermoscopies, as published: a folder of images and a folder
of masks for each part, side by side, or below folders for the parts or the challenge.

The years share images, so that each is a dataset of its own. Superpixels are left alone; diagnoses are read where their
table is there (2018 has none for these images).
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ukan.data.layouts.pairing import Found, below, folders_in, inside, pair, part_without_masks, plain, split_of, tell_apart
from ukan.imaging import stem_of
from ukan.plan import MaskRule, Modality

_PART = r"(?P<part>Training|Validation|Test)(?:_v2)?"
_AROUND = re.compile(r"isic|isbi|part.?1|task.?1", re.IGNORECASE)


@dataclass(frozen=True)
class Year:
    """The layout of one year."""

    DATASET: str
    TREE: str
    NEEDS: tuple[tuple[str, ...], ...]
    images: re.Pattern[str]
    masks: re.Pattern[str]
    diagnoses: re.Pattern[str] | None
    EMPTY_CASES: ClassVar = ("keep", "ISIC: every image shows a lesion")
    MODALITY: ClassVar[Modality] = "dermoscopy"
    RULE: ClassVar[MaskRule | None] = None

    def recognises(self, root: Path) -> bool:
        return any(images and masks for images, masks in self._parts(root).values())

    def label_names(self, root: Path) -> dict[int, str]:
        return {}

    def find_cases(self, root: Path) -> Found:
        diagnoses = self._read_diagnoses(root)
        cases, problems = [], []
        for split, (images, masks) in self._parts(root).items():
            if images is None or masks is None:
                lone = images or masks
                assert lone is not None, "a part is there because one of its folders is"
                problems.append(part_without_masks(f"{below(root, lone)}/"))
                continue
            found, wrong = pair(root, images, {"": masks}, leave_out=_is_superpixels)
            cases += [case._replace(split=split, label=diagnoses.get(case.case, "")) for case in found]
            problems += wrong
        return tell_apart(cases), problems

    def _parts(self, root: Path) -> dict[str, tuple[Path | None, Path | None]]:
        """Part to its folders of images and of masks, in the order of the challenge."""
        found: dict[str, dict[str, Path]] = {"train": {}, "val": {}, "test": {}}
        for folder in _walk(root):
            for kind, pattern in (("images", self.images), ("masks", self.masks)):
                if match := pattern.fullmatch(folder.name):
                    # Kaggle's copies hold the folder within a folder of its own name.
                    found[split_of(match["part"])].setdefault(kind, inside(folder, plain(folder.name)) or folder)
        return {split: (at.get("images"), at.get("masks")) for split, at in found.items() if at}

    def _read_diagnoses(self, root: Path) -> dict[str, str]:
        if self.diagnoses is None:
            return {}
        found = {}
        for folder in (root, *_walk(root)):
            for path in sorted(folder.glob("*.csv")):
                if self.diagnoses.fullmatch(path.name):
                    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                        rows = [[field.strip().removesuffix(".0") for field in row] for row in csv.reader(file)]
                    found.update({row[0]: _DIAGNOSES.get(tuple(row[1:]), "") for row in rows if row})
        return found


def _walk(root: Path, depth: int = 2) -> Iterator[Path]:
    """The folders inside, and those inside of folders that may be around a part."""
    for folder in folders_in(root):
        yield folder
        if depth and (_AROUND.match(folder.name) or split_of(folder.name)):
            yield from _walk(folder, depth - 1)


def _is_superpixels(path: Path) -> bool:
    return stem_of(path).lower().endswith("_superpixels")


# 2016: benign or malignant, in the test part 0 or 1. 2017: melanoma 0 or 1, seborrheic keratosis 0 or 1.
_DIAGNOSES = {
    ("benign",): "benign",
    ("malignant",): "malignant",
    ("0",): "benign",
    ("1",): "malignant",
    ("0", "0"): "nevus",
    ("1", "0"): "melanoma",
    ("0", "1"): "seborrheic keratosis",
}


ISIC2016 = Year(
    DATASET="isic-2016",
    TREE="""ISBI2016_ISIC_Part1_Training_Data/         ISIC_0000000.jpg ...
ISBI2016_ISIC_Part1_Training_GroundTruth/  ISIC_0000000_Segmentation.png ...
[ISBI2016_ISIC_Part1_Test_Data/  ISBI2016_ISIC_Part1_Test_GroundTruth/  ISBI2016_ISIC_Part3_Training_GroundTruth.csv ...]""",
    NEEDS=(("ISBI2016_ISIC_Part1_Training_Data",), ("ISBI2016_ISIC_Part1_Training_GroundTruth",)),
    images=re.compile(rf"ISBI2016_ISIC_Part1_{_PART}_Data"),
    masks=re.compile(rf"ISBI2016_ISIC_Part1_{_PART}_GroundTruth"),
    diagnoses=re.compile(rf"ISBI2016_ISIC_Part3B?_{_PART}_GroundTruth\.csv"),
)
ISIC2017 = Year(
    DATASET="isic-2017",
    TREE="""ISIC-2017_Training_Data/               ISIC_0000000.jpg  ISIC_0000000_superpixels.png ...
ISIC-2017_Training_Part1_GroundTruth/  ISIC_0000000_segmentation.png ...
[ISIC-2017_Validation_Data/  ISIC-2017_Validation_Part1_GroundTruth/
 ISIC-2017_Test_v2_Data/     ISIC-2017_Test_v2_Part1_GroundTruth/     ISIC-2017_Training_Part3_GroundTruth.csv ...]""",
    NEEDS=(("ISIC-2017_Training_Data",), ("ISIC-2017_Training_Part1_GroundTruth",)),
    images=re.compile(rf"ISIC-2017_{_PART}_Data"),
    masks=re.compile(rf"ISIC-2017_{_PART}_Part1_GroundTruth"),
    diagnoses=re.compile(rf"ISIC-2017_{_PART}_Part3_GroundTruth\.csv"),
)
ISIC2018 = Year(
    DATASET="isic-2018",
    TREE="""ISIC2018_Task1-2_Training_Input/      ISIC_0000000.jpg ...
ISIC2018_Task1_Training_GroundTruth/  ISIC_0000000_segmentation.png ...
[ISIC2018_Task1-2_Validation_Input/  ISIC2018_Task1_Validation_GroundTruth/
 ISIC2018_Task1-2_Test_Input/        ISIC2018_Task1_Test_GroundTruth/]""",
    NEEDS=(("ISIC2018_Task1-2_Training_Input",), ("ISIC2018_Task1_Training_GroundTruth",)),
    images=re.compile(rf"ISIC2018_Task1-2_{_PART}_Input"),
    masks=re.compile(rf"ISIC2018_Task1_{_PART}_GroundTruth"),
    diagnoses=None,
)
