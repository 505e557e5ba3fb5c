"""nnU-Net's raw datasets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ukan.data.layouts.nnunet import find_cases, label_names
from ukan.errors import DataError

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]


def describe(root: Path, **content: Any) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_channels_of_a_case_follow_one_another_and_labels_are_its_mask(touch: Touch) -> None:
    root = touch(*(f"imagesTr/{case}_000{k}.nii.gz" for case in ("la_1", "la_2") for k in range(3)))
    root = touch("labelsTr/la_1.nii.gz", "labelsTr/la_2.nii.gz")
    describe(root, channel_names={"0": "T1", "1": "T2", "2": "ADC"}, labels={"background": 0, "PZ": 1, "TZ": 2})
    cases, problems = find_cases(root)
    assert problems == []
    assert cases[0].case == "la_1" and cases[0].image == "imagesTr/la_1_0000.nii.gz"
    assert cases[0].channels == ("imagesTr/la_1_0001.nii.gz", "imagesTr/la_1_0002.nii.gz")
    assert cases[0].masks == ("labelsTr/la_1.nii.gz",) and cases[0].classes == () and cases[0].split == ""
    assert label_names(root) == {1: "PZ", 2: "TZ"}


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".mha"])
def test_every_file_type_is_read(touch: Touch, ending: str) -> None:
    cases, problems = find_cases(touch(f"imagesTr/x_0000{ending}", f"labelsTr/x{ending}", "dataset.json"))
    assert problems == [] and [(case.case, case.channels) for case in cases] == [("x", ())]


@pytest.mark.parametrize(("ending", "cases"), [(".png", ["x"]), (".nii.gz", [])])
def test_a_colour_picture_holds_its_three_channels_in_one_file_a_volume_does_not(
    touch: Touch, ending: str, cases: list[str]
) -> None:
    root = touch(f"imagesTr/x_0000{ending}", f"labelsTr/x{ending}")
    describe(root, channel_names={"0": "R", "1": "G", "2": "B"}, labels={"background": 0, "x": 1})
    found, problems = find_cases(root)
    assert [case.case for case in found] == cases and [p.kind for p in problems] == ["channels differ"] * (not cases)


def test_a_labelled_test_part_is_the_official_test_part(touch: Touch, trees: Trees) -> None:
    cases, problems = find_cases(touch(*trees["nnunet"]))
    assert problems == []
    assert {case.case: case.split for case in cases} == {"a": "train", "b": "test"}


def test_a_test_part_without_labels_is_left_out_with_a_word(touch: Touch) -> None:
    cases, problems = find_cases(touch("imagesTr/a_0000.png", "labelsTr/a.png", "imagesTs/b_0000.png", "dataset.json"))
    assert [(case.case, case.split) for case in cases] == [("a", "")]
    assert [(p.level, p.kind, p.where) for p in problems] == [("warning", "part without masks", "imagesTs/")]


def test_labels_of_version_1_are_the_other_way_round(touch: Touch, trees: Trees) -> None:
    root = describe(touch(*trees["nnunet"]), modality={"0": "CT"}, labels={"0": "background", "1": "liver", "2": "tumour"})
    assert label_names(root) == {1: "liver", 2: "tumour"}
    assert find_cases(root)[1] == []


def test_missing_files_missing_channels_and_names_without_a_channel_are_told_at_once(touch: Touch) -> None:
    root = touch("imagesTr/a_0000.png", "imagesTr/a_0001.png", "labelsTr/a.png")
    root = touch("imagesTr/b_0000.png", "labelsTr/b.png")
    root = touch("imagesTr/c_0000.png", "imagesTr/c_0001.png", "labelsTr/d.png", "imagesTr/e.png", "labelsTr/e.png")
    describe(root, channel_names={"0": "R", "1": "G"}, labels={"background": 0, "x": 1})
    cases, problems = find_cases(root)
    assert [case.case for case in cases] == ["a"]
    assert {(p.level, p.kind, p.where, p.what) for p in problems} == {
        ("error", "channels differ", "imagesTr/b_0000.png", "imagesTr/b_0001.png is missing"),
        ("error", "no mask", "imagesTr/c_0000.png", "labelsTr/c.png is missing"),
        ("error", "mask without image", "labelsTr/d.png", "no image named d_0000"),
        ("error", "mask without image", "labelsTr/e.png", "no image named e_0000"),
        ("error", "no channel number", "imagesTr/e.png", "its name does not end with a channel's number"),
    }


def test_a_channel_too_many_is_told(touch: Touch) -> None:
    root = touch("imagesTr/a_0000.png", "imagesTr/a_0001.png", "labelsTr/a.png", "dataset.json")
    cases, problems = find_cases(root)
    assert cases == []
    assert [(p.kind, p.what) for p in problems] == [("channels differ", "2 channels, dataset.json names 1")]


def test_without_dataset_json_the_channels_are_counted_and_a_word_is_said(touch: Touch) -> None:
    root = touch("imagesTr/a_0000.png", "imagesTr/a_0001.png", "labelsTr/a.png")
    cases, problems = find_cases(root)
    assert cases[0].channels == ("imagesTr/a_0001.png",)
    assert [(p.level, p.kind) for p in problems] == [("warning", "no dataset.json")]
    assert label_names(root) == {}


def test_labels_that_would_change_their_meaning_are_refused(touch: Touch, trees: Trees) -> None:
    root = describe(touch(*trees["nnunet"]), labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3})
    kinds = {(p.level, p.kind, p.where) for p in find_cases(root)[1]}
    assert kinds == {("error", "labels of regions", "dataset.json"), ("error", "ignore label", "dataset.json")}


def test_a_damaged_dataset_json_is_one_line(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["nnunet"])
    (root / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="dataset.json: not readable as JSON"):
        find_cases(root)
