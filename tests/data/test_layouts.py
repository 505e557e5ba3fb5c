"""Layouts: folders as people have them become cases; what fits no layout is answered with the trees found and expected."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukan.data.layouts import LAYOUTS, find_layout
from ukan.data.layouts.busi import find_cases as busi_cases
from ukan.data.layouts.folders import find_cases
from ukan.errors import DataError, UserError


def touch(*names: str) -> Path:
    """Files of one grey pixel: layouts look at names alone."""
    for name in names:
        path = Path("raw") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg", ".bmp", ".tif"):
            Image.fromarray(np.zeros((1, 1), np.uint8)).save(path)
        else:
            path.write_text("x")
    return Path("raw")


def found(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    cases, problems = find_cases(root)
    assert problems == []
    return {case.case: (case.image, case.masks) for case in cases}


# Anyone's folders


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
def test_a_mask_is_matched_by_stem_whatever_its_type_and_usual_affix(mask: str) -> None:
    assert found(touch("images/x.jpg", f"masks/{mask}")) == {"x": ("images/x.jpg", (f"masks/{mask}",))}


@pytest.mark.parametrize(
    ("images", "masks"),
    [("Images", "Ground Truth"), ("img", "labels"), ("imgs", "GT"), ("Original", "annotations"), ("inputs", "targets")],
)
def test_the_two_folders_are_known_by_their_usual_names(images: str, masks: str) -> None:
    root = touch(f"{images}/x.png", f"{masks}/x.png")
    assert find_layout(root)[0] == "folders"
    assert found(root) == {"x": (f"{images}/x.png", (f"{masks}/x.png",))}


def test_several_masks_of_an_image_belong_to_one_case() -> None:
    root = touch(
        "images/x.png", "images/y.png", "masks/x_mask.png", "masks/x_mask_1.png", "masks/x_mask_2.png", "masks/y.png"
    )
    assert found(root)["x"][1] == ("masks/x_mask.png", "masks/x_mask_1.png", "masks/x_mask_2.png")
    assert found(root)["y"][1] == ("masks/y.png",)


def test_an_image_keeps_the_mask_of_its_own_full_name() -> None:
    names = ("x.png", "x_1.png", "x_mask.png", "mask_x.png", "x_2_label.png")
    root = touch(*(f"{folder}/{name}" for name in names for folder in ("images", "masks")))
    assert found(root) == {n[:-4]: (f"images/{n}", (f"masks/{n}",)) for n in names}


def test_sub_folders_are_met_and_name_the_case_where_stems_collide() -> None:
    tree = ("a/x.png", "b/x.png", "b/c/x.png", "b/y.png")
    root = touch(*(f"{folder}/{name}" for name in tree for folder in ("images", "masks")))
    assert {name: image for name, (image, _) in found(root).items()} == {
        "a_x": "images/a/x.png",
        "b_x": "images/b/x.png",
        "b_c_x": "images/b/c/x.png",
        "y": "images/b/y.png",
    }
    assert found(root)["b_c_x"][1] == ("masks/b/c/x.png",)


def test_hidden_files_and_other_kinds_are_left_alone() -> None:
    root = touch("images/x.png", "masks/x.png", "images/._x.png", "images/Thumbs.db", "masks/notes.txt", "readme.md")
    assert found(root).keys() == {"x"}


def test_a_dot_in_a_stem_is_part_of_the_name() -> None:
    root = touch("images/x.1.png", "images/x.2.png", "masks/x.1.png", "masks/x.2_mask.png")
    assert found(root) == {"x.1": ("images/x.1.png", ("masks/x.1.png",)), "x.2": ("images/x.2.png", ("masks/x.2_mask.png",))}


def test_missing_and_extra_masks_and_equal_names_are_each_a_problem_with_its_file() -> None:
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


def test_cases_are_the_same_in_whatever_order_the_disk_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    root = touch(*(f"{folder}/{n}.png" for n in "dbac" for folder in ("images", "masks")))
    first = find_cases(root)
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: reversed(list(listed(path, pattern))))
    assert find_cases(root) == first


# BUSI


def busi_tree() -> Path:
    return touch(
        "benign/benign (1).png",
        "benign/benign (1)_mask.png",
        "benign/benign (10).png",
        "benign/benign (10)_mask.png",
        "benign/benign (10)_mask_1.png",
        "malignant/malignant (1).png",
        "malignant/malignant (1)_mask.png",
        "normal/normal (1).png",
        "normal/normal (1)_mask.png",
    )


def test_busi_is_recognised_and_its_masks_are_gathered_with_their_class() -> None:
    root = busi_tree()
    assert find_layout(root) == ("busi", root)
    cases, problems = busi_cases(root)
    assert problems == []
    assert [(case.case, case.label, case.masks) for case in cases] == [
        ("benign (1)", "benign", ("benign/benign (1)_mask.png",)),
        ("benign (10)", "benign", ("benign/benign (10)_mask.png", "benign/benign (10)_mask_1.png")),
        ("malignant (1)", "malignant", ("malignant/malignant (1)_mask.png",)),
        ("normal (1)", "normal", ("normal/normal (1)_mask.png",)),
    ]
    assert cases[0].image == "benign/benign (1).png"


def test_busi_without_the_normal_class_is_still_busi() -> None:
    root = busi_tree()
    for path in sorted((root / "normal").iterdir()):
        path.unlink()
    (root / "normal").rmdir()
    assert find_layout(root)[0] == "busi" and len(busi_cases(root)[0]) == 3


def test_busi_with_missing_files_says_which() -> None:
    root = busi_tree()
    (root / "benign/benign (1)_mask.png").unlink()
    (root / "malignant/malignant (1).png").unlink()
    cases, problems = busi_cases(root)
    assert [case.case for case in cases] == ["benign (10)", "normal (1)"]
    assert {(p.kind, p.where, p.what) for p in problems} == {
        ("no mask", "benign/benign (1).png", "benign/benign (1)_mask.png is missing"),
        ("mask without image", "malignant/malignant (1)_mask.png", "no image malignant (1).png"),
    }


def test_two_class_folders_without_masks_are_not_busi() -> None:
    with pytest.raises(DataError, match="no known dataset layout"):
        find_layout(touch("benign/a.png", "malignant/b.png"))


# Finding the layout


def test_one_folder_inside_is_entered() -> None:
    root = touch("data/images/x.png", "data/masks/x.png", "__MACOSX/._x", ".cache/y", "readme.txt")
    assert find_layout(root) == ("folders", root / "data")


def test_of_two_folders_inside_none_is_guessed() -> None:
    with pytest.raises(DataError, match="no known dataset layout"):
        find_layout(touch("one/images/x.png", "one/masks/x.png", "two/images/x.png", "two/masks/x.png"))


def test_a_wrong_folder_is_answered_with_the_trees_found_and_expected() -> None:
    root = touch("scans/x.png", "scans/y.png", "scans/z1.png", "scans/z2.png", "notes.txt")
    with pytest.raises(DataError) as error:
        find_layout(root)
    text = str(error.value)
    assert "raw: no known dataset layout" in text
    assert "scans/  (4 entries: x.png, y.png, z1.png, ...)" in text and "notes.txt" in text
    for name, layout in LAYOUTS.items():
        assert f"layout {name}:" in text
        assert all(line.strip() in text for line in layout.TREE.splitlines())
    assert text.index("Found:") < text.index("scans/") < text.index("Expected")


def test_an_empty_folder_is_answered_with_nothing_found() -> None:
    Path("raw").mkdir()
    with pytest.raises(DataError, match=r"\(nothing\)"):
        find_layout(Path("raw"))


def test_a_missing_folder_and_a_file_are_told_apart() -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_layout(Path("nowhere"))
    with pytest.raises(DataError, match="a file; give the dataset's folder"):
        find_layout(touch("a.txt") / "a.txt")


def test_an_asked_layout_is_the_only_one_tried_and_an_unknown_one_is_answered_with_the_nearest() -> None:
    root = touch("images/x.png", "masks/x.png")
    assert find_layout(root, "folders") == ("folders", root)
    with pytest.raises(DataError) as error:
        find_layout(root, "busi")
    assert "layout folders" not in str(error.value)
    with pytest.raises(UserError, match="--layout folder: unknown. Did you mean 'folders'"):
        find_layout(root, "folder")
