"""GlaS in both published shapes, with its official test part."""

from collections.abc import Callable
from pathlib import Path

from ukan.data.layouts import LAYOUTS, find_layout
from ukan.data.layouts.glas import find_cases

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]

GRADES = """name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)
testA_1, 4, benign, adenomatous
testB_12, 11, malignant, moderately-to-poorly differentated
train_1, 1, malignant, moderately differentiated
train_2, 4, benign, healthy
"""


def flat(touch: Touch) -> Path:
    return touch(*(f"{stem}{end}.bmp" for stem in ("train_1", "train_2", "testA_1", "testB_12") for end in ("", "_anno")))


def test_the_two_folders_are_the_official_split_and_name_the_cases(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["glas"])
    cases, problems = find_cases(root)
    assert problems == []
    assert sorted((case.case, case.split, case.image, case.masks) for case in cases) == [
        (f"{s}_{k}", s, f"{s.title()}_Folder/img/{k}.png", (f"{s.title()}_Folder/labelcol/{k}.png",))
        for s in ("test", "train")
        for k in (1, 2)
    ]
    assert LAYOUTS["glas"].RULE == "instances"


def test_the_flat_folder_keeps_its_names_and_split(touch: Touch) -> None:
    root = flat(touch)
    assert find_layout(root) == ("glas", root)
    cases, problems = find_cases(root)
    assert problems == []
    assert {case.case: (case.split, case.image, case.masks) for case in cases} == {
        "testA_1": ("test", "testA_1.bmp", ("testA_1_anno.bmp",)),
        "testB_12": ("test", "testB_12.bmp", ("testB_12_anno.bmp",)),
        "train_1": ("train", "train_1.bmp", ("train_1_anno.bmp",)),
        "train_2": ("train", "train_2.bmp", ("train_2_anno.bmp",)),
    }
    assert {(case.label, case.grade, case.group) for case in cases} == {("", "", "")}


def test_the_table_of_grades_gives_class_grade_and_patient(touch: Touch) -> None:
    root = flat(touch)
    (root / "Grade.csv").write_text(GRADES)
    assert {case.case: (case.label, case.grade, case.group) for case in find_cases(root)[0]} == {
        "testA_1": ("benign", "adenomatous", "patient 4"),
        "testB_12": ("malignant", "moderately-to-poorly differentated", "patient 11"),
        "train_1": ("malignant", "moderately differentiated", "patient 1"),
        "train_2": ("benign", "healthy", "patient 4"),
    }


def test_missing_files_are_told_at_once_in_both_shapes(touch: Touch, trees: Trees) -> None:
    root = flat(touch)
    (root / "train_1_anno.bmp").unlink()
    (root / "testA_1.bmp").unlink()
    cases, problems = find_cases(root)
    assert {case.case for case in cases} == {"train_2", "testB_12"}
    assert {(p.kind, p.where) for p in problems} == {("no mask", "train_1.bmp"), ("mask without image", "testA_1_anno.bmp")}


def test_the_folders_with_missing_and_misnamed_parts_say_so(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["glas"], "Val_Folder/img/1.png", "Tset_Folder/img/1.png", "Tset_Folder/labelcol/1.png")
    (root / "Train_Folder/labelcol/2.png").unlink()
    cases, problems = find_cases(root)
    assert sorted(case.case for case in cases) == ["test_1", "test_2", "train_1"]
    assert {(p.kind, p.where) for p in problems} == {
        ("no mask", "Train_Folder/img/2.png"),
        ("part without masks", "Val_Folder/img/"),
        ("folder left aside", "Tset_Folder/"),
    }


def test_the_same_folders_with_other_names_inside_are_anyones(touch: Touch) -> None:
    """MoNuSeg comes so, too."""
    root = touch(*(f"{s}_Folder/{kind}/TCGA-{s}.png" for s in ("Train", "Test") for kind in ("img", "labelcol")))
    assert find_layout(root) == ("folders", root)
