"""ISIC 2016, 2017 and 2018 as published."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ukan.data.layouts import LAYOUTS, find_layout
from ukan.errors import UserError

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]
YEARS = ("isic-2016", "isic-2017", "isic-2018")


@pytest.mark.parametrize("year", YEARS)
def test_the_parts_of_the_challenge_are_the_official_split_and_superpixels_are_no_images(
    touch: Touch, trees: Trees, year: str
) -> None:
    root = touch(*trees[year])
    cases, problems = LAYOUTS[year].find_cases(root)
    assert problems == []
    images = [name for name in trees[year] if name.endswith(".jpg")]
    assert [case.image for case in cases] == images
    assert [case.case for case in cases] == [Path(name).stem for name in images]
    assert [case.split for case in cases] == (["train", "test"] if year == "isic-2016" else ["train", "val", "test"])
    assert all(len(case.masks) == 1 and f"{case.case}_" in case.masks[0] for case in cases)


def test_diagnoses_are_read_where_their_tables_are(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["isic-2017"])
    header = "image_id,melanoma,seborrheic_keratosis\n"
    for part, row in (
        ("Training", "ISIC_0000000,0.0,0.0"),
        ("Validation", "ISIC_0001769,1.0,0.0"),
        ("Test_v2", "ISIC_0012086,0.0,1.0"),
    ):
        (root / f"ISIC-2017_{part}_Part3_GroundTruth.csv").write_text(f"{header}{row}\n")
    cases, _ = LAYOUTS["isic-2017"].find_cases(root)
    assert [case.label for case in cases] == ["nevus", "melanoma", "seborrheic keratosis"]


def test_the_tables_of_2016_come_in_words_and_in_numbers(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["isic-2016"])
    (root / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv").write_text("ISIC_0000000,benign\n")
    (root / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv").write_text("ISIC_0000003,1.0\n")
    cases, _ = LAYOUTS["isic-2016"].find_cases(root)
    assert [case.label for case in cases] == ["benign", "malignant"]


@pytest.mark.parametrize("pattern", ["{part}/{name}", "ISIC 2017/{part}/{name}", "{name}"])
def test_parts_below_folders_of_their_own_are_found(touch: Touch, trees: Trees, pattern: str) -> None:
    names = [pattern.format(part=name.split("_")[1], name=name) for name in trees["isic-2017"]]
    root = touch(*names)
    assert find_layout(root) == ("isic-2017", root)
    cases, problems = LAYOUTS["isic-2017"].find_cases(root)
    assert problems == [] and [case.split for case in cases] == ["train", "val", "test"]


def test_a_folder_within_a_folder_of_its_own_name_is_entered(touch: Touch, trees: Trees) -> None:
    root = touch(*(f"{name.split('/')[0]}/{name}" for name in trees["isic-2018"]))
    cases, problems = LAYOUTS["isic-2018"].find_cases(root)
    assert problems == [] and len(cases) == 3
    folder = "ISIC2018_Task1-2_Training_Input"
    assert cases[0].image == f"{folder}/{folder}/ISIC_0000000.jpg"


def test_a_part_without_masks_and_missing_files_are_told_at_once(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["isic-2018"], "ISIC2018_Task1-2_Training_Input/ISIC_0000001.jpg")
    (root / "ISIC2018_Task1_Test_GroundTruth/ISIC_0012169_segmentation.png").unlink()
    (root / "ISIC2018_Task1_Test_GroundTruth").rmdir()
    cases, problems = LAYOUTS["isic-2018"].find_cases(root)
    assert [case.case for case in cases] == ["ISIC_0000000", "ISIC_0012255"]
    assert {(p.level, p.kind, p.where) for p in problems} == {
        ("error", "no mask", "ISIC2018_Task1-2_Training_Input/ISIC_0000001.jpg"),
        ("warning", "part without masks", "ISIC2018_Task1-2_Test_Input/"),
    }


def test_several_years_in_one_folder_are_never_mixed(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["isic-2016"], *trees["isic-2017"])
    with pytest.raises(UserError, match="several datasets; say which with --layout isic-2016 or isic-2017"):
        find_layout(root)
    assert find_layout(root, "isic-2017") == ("isic-2017", root)
    assert all("2017" in case.image for case in LAYOUTS["isic-2017"].find_cases(root)[0])
