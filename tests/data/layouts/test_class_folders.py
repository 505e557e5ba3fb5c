"""A folder of masks for each class: the U-KAN repository's own layout, and multi-label folders in general."""

from collections.abc import Callable
from pathlib import Path

from ukan.data.layouts import find_layout
from ukan.data.layouts.class_folders import find_cases

Touch = Callable[..., Path]


def test_the_repositorys_busi_is_binary(touch: Touch) -> None:
    root = touch(*(f"inputs/busi/{name}" for name in ("images/benign (1).png", "masks/0/benign (1)_mask.png")))
    layout, start = find_layout(root / "inputs")
    assert (layout, start) == ("class-folders", root / "inputs/busi")
    cases, problems = find_cases(start)
    assert problems == []
    assert [(c.case, c.image, c.masks, c.classes) for c in cases] == [
        ("benign (1)", "images/benign (1).png", ("masks/0/benign (1)_mask.png",), ())
    ]


def test_several_class_folders_are_classes_each_mask_of_its_own(touch: Touch) -> None:
    root = touch("images/x.jpg", "masks/vessel/x.png", "masks/vessel/x_1.png", "masks/liver/x_mask.png")
    assert find_layout(root) == ("class-folders", root)
    cases, problems = find_cases(root)
    assert problems == []
    assert cases[0].masks == ("masks/liver/x_mask.png", "masks/vessel/x.png", "masks/vessel/x_1.png")
    assert cases[0].classes == ("liver", "vessel", "vessel")


def test_a_mask_missing_in_one_class_is_told_and_taken_as_empty(touch: Touch) -> None:
    cases, problems = find_cases(touch("images/x.png", "images/y.png", "masks/a/x.png", "masks/b/x.png", "masks/b/y.png"))
    assert {case.case: case.classes for case in cases} == {"x": ("a", "b"), "y": ("b",)}
    assert [(p.level, p.kind, p.where, p.what) for p in problems] == [
        ("warning", "no mask of one class", "images/y.png", "none in masks/a/")
    ]


def test_an_image_without_any_mask_and_a_mask_without_image_are_errors(touch: Touch) -> None:
    cases, problems = find_cases(touch("images/x.png", "images/y.png", "masks/a/x.png", "masks/b/x.png", "masks/b/z.png"))
    assert [case.case for case in cases] == ["x"]
    assert {(p.level, p.kind, p.where) for p in problems} == {
        ("error", "no mask", "images/y.png"),
        ("error", "mask without image", "masks/b/z.png"),
    }


def test_classes_and_an_official_split_go_together(touch: Touch) -> None:
    root = touch(*(f"{s}/{f}/{s}.png" for s in ("train", "test") for f in ("images", "masks/a", "masks/b")))
    assert find_layout(root) == ("class-folders", root)
    cases, problems = find_cases(root)
    assert problems == []
    assert [(case.case, case.split, case.classes) for case in cases] == [
        ("test", "test", ("a", "b")),
        ("train", "train", ("a", "b")),
    ]


def test_mask_folders_that_mirror_the_images_are_no_classes(touch: Touch) -> None:
    root = touch("images/p1/x.png", "images/p2/x.png", "masks/P1/x.png", "masks/p2/x.png")
    assert find_layout(root) == ("folders", root)


def test_a_folder_of_masks_for_each_image_is_no_class(touch: Touch) -> None:
    assert find_layout(touch("images/x.png", "masks/x/1.png", "masks/x/2.png"))[0] == "folders"
