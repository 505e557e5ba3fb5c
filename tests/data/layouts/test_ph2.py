"""PH2 as published: a folder for each case, diagnoses in a table of its own kind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ukan.data.layouts import find_layout
from ukan.data.layouts.ph2 import find_cases

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]

TABLE = """|| Name   || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules ||
|| IMD002 ||                        ||                  1 ||         0 |               T |             A ||
|| IMD078 ||               Melanoma ||                  2 ||         2 |              AT |             P ||

Legends:
Clinical Diagnosis:
    0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma.
"""


def test_image_and_lesion_of_each_folder_are_a_case_and_colour_regions_are_left_alone(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["ph2"], "PH2 Dataset images/rename.sh")
    assert find_layout(root) == ("ph2", root)
    cases, problems = find_cases(root)
    assert problems == []
    folder = "PH2 Dataset images/IMD002"
    assert [case.case for case in cases] == ["IMD002", "IMD078"]
    assert cases[0].image == f"{folder}/IMD002_Dermoscopic_Image/IMD002.bmp"
    assert cases[0].masks == (f"{folder}/IMD002_lesion/IMD002_lesion.bmp",)
    assert {case.label for case in cases} == {""}


@pytest.mark.parametrize("start", ["raw", "raw/PH2 Dataset images"])
def test_the_diagnosis_comes_from_the_text_table(touch: Touch, trees: Trees, start: str) -> None:
    root = touch(*trees["ph2"])
    (root / "PH2_dataset.txt").write_text(TABLE)
    assert [case.label for case in find_cases(Path(start))[0]] == ["atypical nevus", "melanoma"]


def test_cases_with_missing_files_are_named(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["ph2"], "PH2 Dataset images/IMD100/IMD100_lesion/IMD100_lesion.bmp")
    (root / "PH2 Dataset images/IMD078/IMD078_lesion/IMD078_lesion.bmp").unlink()
    cases, problems = find_cases(root)
    assert [case.case for case in cases] == ["IMD002"]
    assert {(p.level, p.kind, p.where) for p in problems} == {
        ("error", "no mask", "PH2 Dataset images/IMD078/IMD078_Dermoscopic_Image/IMD078.bmp"),
        ("error", "not one image", "PH2 Dataset images/IMD100"),
    }
