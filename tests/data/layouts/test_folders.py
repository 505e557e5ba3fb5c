"""Anyone's folders of images and masks become cases."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ukan.data.layouts import find_layout
from ukan.data.layouts.folders import find_cases

Touch = Callable[..., Path]


def found(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    cases, problems = find_cases(root)
    assert problems == []
    return {case.case: (case.image, case.masks) for case in cases}


@pytest.mark.parametrize(
    "mask",
    [
        "x.png",
        "x_mask.png",
        "x_segmentation.png",
        "x_Segmentation.tif",
        "x-label.bmp",
        "x_gt.png",
        "mask_x.png",
        "x_mask_1.png",
        "x_anno.bmp",
    ],
)
def test_a_mask_is_matched_by_stem_whatever_its_type_and_usual_affix(touch: Touch, mask: str) -> None:
    assert found(touch("images/x.jpg", f"masks/{mask}")) == {"x": ("images/x.jpg", (f"masks/{mask}",))}


@pytest.mark.parametrize(
    ("images", "masks"),
    [("Images", "Ground Truth"), ("img", "labels"), ("imgs", "GT"), ("Original", "annotations"), ("inputs", "targets")],
)
def test_the_two_folders_are_known_by_their_usual_names(touch: Touch, images: str, masks: str) -> None:
    root = touch(f"{images}/x.png", f"{masks}/x.png")
    assert find_layout(root)[0] == "folders"
    assert found(root) == {"x": (f"{images}/x.png", (f"{masks}/x.png",))}


def test_several_masks_of_an_image_belong_to_one_case(touch: Touch) -> None:
    root = touch(
        "images/x.png", "images/y.png", "masks/x_mask.png", "masks/x_mask_1.png", "masks/x_mask_2.png", "masks/y.png"
    )
    assert found(root)["x"][1] == ("masks/x_mask.png", "masks/x_mask_1.png", "masks/x_mask_2.png")
    assert found(root)["y"][1] == ("masks/y.png",)


def test_an_image_keeps_the_mask_of_its_own_full_name(touch: Touch) -> None:
    names = ("x.png", "x_1.png", "x_mask.png", "mask_x.png", "x_2_label.png")
    root = touch(*(f"{folder}/{name}" for name in names for folder in ("images", "masks")))
    assert found(root) == {n[:-4]: (f"images/{n}", (f"masks/{n}",)) for n in names}


def test_sub_folders_are_met_and_name_the_case_where_stems_collide(touch: Touch) -> None:
    tree = ("a/x.png", "b/x.png", "b/c/x.png", "b/y.png")
    root = touch(*(f"{folder}/{name}" for name in tree for folder in ("images", "masks")))
    assert {name: image for name, (image, _) in found(root).items()} == {
        "a_x": "images/a/x.png",
        "b_x": "images/b/x.png",
        "b_c_x": "images/b/c/x.png",
        "y": "images/b/y.png",
    }
    assert found(root)["b_c_x"][1] == ("masks/b/c/x.png",)


def test_hidden_files_and_other_kinds_are_left_alone(touch: Touch) -> None:
    root = touch("images/x.png", "masks/x.png", "images/._x.png", "images/Thumbs.db", "masks/notes.txt", "readme.md")
    assert found(root).keys() == {"x"}


def test_a_dot_in_a_stem_is_part_of_the_name(touch: Touch) -> None:
    root = touch("images/x.1.png", "images/x.2.png", "masks/x.1.png", "masks/x.2_mask.png")
    assert found(root) == {"x.1": ("images/x.1.png", ("masks/x.1.png",)), "x.2": ("images/x.2.png", ("masks/x.2_mask.png",))}


def test_missing_and_extra_masks_and_equal_names_are_each_a_problem_with_its_file(touch: Touch) -> None:
    root = touch("images/a.png", "images/b.png", "images/c.png", "images/c.jpg", "masks/a.png", "masks/c.png", "masks/d.png")
    cases, problems = find_cases(root)
    assert [case.case for case in cases] == ["a"]
    assert {(problem.level, problem.kind, problem.where) for problem in problems} == {
        ("error", "no mask", "images/b.png"),
        ("error", "mask without image", "masks/d.png"),
        ("error", "two images of one name", "images/c.jpg"),
        ("error", "two images of one name", "images/c.png"),
    }
    assert next(p.what for p in problems if p.kind == "no mask") == "masks/b.png is missing"
    assert all(problem.do for problem in problems)


class BackToFront:
    """os.scandir, the other way round."""

    def __init__(self, entries: Iterator[os.DirEntry[str]]) -> None:
        self.entries = iter(list(entries)[::-1])

    def __enter__(self) -> "BackToFront":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> "BackToFront":
        return self

    def __next__(self) -> os.DirEntry[str]:
        return next(self.entries)

    def close(self) -> None:
        pass


def test_cases_are_the_same_in_whatever_order_the_disk_lists_them(touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch(*(f"{folder}/{n}.png" for n in ("d", "b/x", "a", "c") for folder in ("images", "masks")))
    first = find_cases(root)
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": BackToFront(listed(path)))
    assert find_cases(root) == first and len(first[0]) == 4


# Volumes


def write_series(folder: Path, slices: int = 2) -> None:
    itk = pytest.importorskip("SimpleITK")
    folder.mkdir(parents=True, exist_ok=True)
    writer = itk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(slices):
        image = itk.GetImageFromArray(np.full((1, 4, 4), k, np.int16))
        for tag, value in (("0008|0060", "CT"), ("0020|000e", "1.2.3"), ("0020|0032", f"0\\0\\{k}")):
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{k}.dcm"))
        writer.Execute(image)


def test_nifti_files_and_dicom_series_are_images_like_any_other(touch: Touch) -> None:
    root = touch("images/v.nii.gz", "masks/v_seg.nii.gz", "masks/1.2.840.7.nii")
    write_series(root / "images" / "1.2.840.7")
    assert found(root) == {
        "1.2.840.7": ("images/1.2.840.7", ("masks/1.2.840.7.nii",)),
        "v": ("images/v.nii.gz", ("masks/v_seg.nii.gz",)),
    }


def test_slices_without_a_folder_of_their_own_are_one_problem(touch: Touch) -> None:
    root = touch("masks/x.nii.gz")
    write_series(root / "images", 3)
    cases, problems = find_cases(root)
    assert cases == []
    assert ("error", "series without a name", "images") in {(p.level, p.kind, p.where) for p in problems}


def test_the_missing_mask_of_a_volume_is_asked_for_as_nifti(touch: Touch) -> None:
    _, problems = find_cases(touch("images/v.nii.gz", "masks/w.nii.gz"))
    assert {p.what for p in problems} == {"masks/v.nii.gz is missing", "no image named w"}


# Official splits


@pytest.mark.parametrize(
    "pattern",
    ["{split}/images/{name}.png {split}/masks/{name}.png", "images/{split}/{name}.png masks/{split}/{name}.png"],
)
@pytest.mark.parametrize(
    "names",
    [
        {"train": "train", "val": "val", "test": "test"},
        {"train": "Training", "val": "Validation", "test": "Testing"},
        {"train": "Train_Folder", "val": "valid", "test": "test_set"},
        {"train": "TrainDataset", "val": "dev", "test": "TestDataset"},
    ],
)
def test_folders_named_after_the_parts_are_an_official_split(touch: Touch, pattern: str, names: dict[str, str]) -> None:
    files = [pattern.format(split=folder, name=f"of {split}").split(".png") for split, folder in names.items()]
    root = touch(*(f"{part.strip()}.png" for row in files for part in row if part))
    assert find_layout(root) == ("folders", root)
    cases, problems = find_cases(root)
    assert problems == []
    assert {case.case: case.split for case in cases} == {f"of {split}": split for split in names}


def test_cases_of_one_name_in_two_parts_get_the_part_before_it(touch: Touch) -> None:
    root = touch(*(f"{s}/{f}/{n}.png" for s in ("train", "test") for f in ("images", "masks") for n in ("1", f"{s}only")))
    cases, _ = find_cases(root)
    assert {case.case for case in cases} == {"train_1", "test_1", "trainonly", "testonly"}


def test_a_part_without_masks_is_left_out_with_a_word_and_the_rest_is_no_split(touch: Touch) -> None:
    root = touch("train/images/x.png", "train/masks/x.png", "test/images/y.png")
    cases, problems = find_cases(root)
    assert [(case.case, case.split) for case in cases] == [("x", "")]
    assert [(p.level, p.kind, p.where) for p in problems] == [("warning", "part without masks", "test/")]


def test_a_part_with_a_misspelt_name_is_not_lost_in_silence(touch: Touch) -> None:
    root = touch("train/images/x.png", "train/masks/x.png", "tset/images/y.png", "tset/masks/y.png", "docs/a.txt")
    cases, problems = find_cases(root)
    assert [case.case for case in cases] == ["x"]
    assert [(p.level, p.kind, p.where) for p in problems] == [("warning", "folder left aside", "tset/")]


def test_an_image_beside_folders_named_after_parts_is_not_lost(touch: Touch) -> None:
    root = touch(*(f"{folder}/{name}.png" for folder in ("images", "masks") for name in ("loose", "train/x")))
    cases, problems = find_cases(root)
    assert problems == [] and {(case.case, case.split) for case in cases} == {("loose", ""), ("x", "")}


def test_sub_folders_that_are_not_all_parts_are_just_sub_folders(touch: Touch) -> None:
    root = touch(*(f"{folder}/{sub}/{sub}.png" for folder in ("images", "masks") for sub in ("train", "other")))
    cases, _ = find_cases(root)
    assert {(case.case, case.split) for case in cases} == {("train", ""), ("other", "")}
