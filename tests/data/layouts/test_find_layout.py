"""What lies where is found by names alone, never guessed; what fits no layout is answered with what is missing."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ukan.data.layouts import LAYOUTS, WITHOUT_MASKS, find_layout
from ukan.errors import DataError, UserError

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]

WITH_MASKS = [name for name in LAYOUTS if name != WITHOUT_MASKS]  # the other is never recognised; see test_images.py

# These are folders of images and masks as well, and may be read as such when asked for.
ALSO_FOLDERS = {"cvc-clinicdb", "glas", "kvasir-seg"}


def test_every_layout_has_a_made_up_tree(trees: Trees) -> None:
    assert trees.keys() == set(WITH_MASKS)


# Recognising


@pytest.mark.parametrize("layout", WITH_MASKS)
def test_every_dataset_is_recognised_as_what_it_is_and_as_nothing_else(touch: Touch, trees: Trees, layout: str) -> None:
    root = touch(*trees[layout])
    assert find_layout(root) == (layout, root)
    expected = {layout} | ({"folders"} if layout in ALSO_FOLDERS else set())
    assert {name for name in WITH_MASKS if LAYOUTS[name].recognises(root)} == expected
    cases, problems = LAYOUTS[layout].find_cases(root)
    assert cases and problems == []
    for case in cases:
        assert all((root / path).is_file() for path in (case.image, *case.masks, *case.channels))


@pytest.mark.parametrize("layout", WITH_MASKS)
def test_a_dataset_is_found_again_where_it_was_found(touch: Touch, trees: Trees, layout: str) -> None:
    touch(*(f"download/data v2/{name}" for name in trees[layout]), "download/readme.txt")
    name, start = find_layout(Path("raw"))
    assert (name, start) == (layout, Path("raw") / "download" / "data v2")
    assert find_layout(start, name) == (name, start)


@pytest.mark.parametrize("layout", WITH_MASKS)
def test_a_part_of_a_dataset_leads_to_the_whole(touch: Touch, trees: Trees, layout: str) -> None:
    root = touch(*trees[layout])
    cases, _ = LAYOUTS[layout].find_cases(root)
    whole = root / "PH2 Dataset images" if layout == "ph2" else root
    for folder in {(root / path).parent for case in cases for path in (case.image, *case.masks)}:
        name, start = find_layout(folder)
        assert name == layout and start.samefile(whole)


def test_a_folder_beside_a_dataset_is_no_part_of_it(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["busi"], "notes/x.png")
    with pytest.raises(DataError, match="notes: no known dataset layout"):
        find_layout(root / "notes")


def test_one_known_dataset_among_other_folders_is_entered(touch: Touch, trees: Trees) -> None:
    root = touch(*(f"BUSI/{name}" for name in trees["busi"]), "papers/a.pdf", "code/b.py")
    assert find_layout(root) == ("busi", root / "BUSI")


def test_of_several_datasets_inside_none_is_guessed(touch: Touch, trees: Trees) -> None:
    root = touch(*(f"{layout}/{name}" for layout in ("busi", "ph2") for name in trees[layout]))
    with pytest.raises(DataError, match=re.escape("inside: busi/ (layout busi), ph2/ (layout ph2)")):
        find_layout(root)
    assert find_layout(root, "ph2") == ("ph2", root / "ph2")


def test_one_folder_inside_is_entered(touch: Touch) -> None:
    root = touch("data/images/x.png", "data/masks/x.png", "__MACOSX/._x", ".cache/y", "readme.txt")
    assert find_layout(root) == ("folders", root / "data")


def test_of_two_folders_inside_none_is_guessed(touch: Touch) -> None:
    with pytest.raises(DataError, match="no known dataset layout"):
        find_layout(touch("one/images/x.png", "one/masks/x.png", "two/images/x.png", "two/masks/x.png"))


def test_one_of_anyones_folders_among_others_is_not_taken_for_the_whole(touch: Touch) -> None:
    with pytest.raises(DataError, match=re.escape("inside: p1/ (layout folders); give one of these folders")):
        find_layout(touch("p1/images/x.png", "p1/masks/x.png", "p2/images/x.png"))


def test_an_asked_layout_is_the_only_one_tried_and_an_unknown_one_is_answered_with_the_nearest(touch: Touch) -> None:
    root = touch("images/x.png", "masks/x.png")
    assert find_layout(root, "folders") == ("folders", root)
    with pytest.raises(DataError) as error:
        find_layout(root, "busi")
    assert "layout busi:" in str(error.value) and "layout ph2:" not in str(error.value)
    with pytest.raises(UserError, match="--layout folder: unknown. Did you mean 'folders'"):
        find_layout(root, "folder")


def test_a_wrong_layout_is_answered_with_both_trees_and_the_layout_that_fits(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["ph2"])
    with pytest.raises(DataError) as error:
        find_layout(root, "glas")
    text = str(error.value)
    assert "it fits layout ph2: leave out --layout" in text
    assert "PH2 Dataset images/  (2 entries: IMD002, IMD078)" in text
    assert all(line.strip() in text for line in LAYOUTS["glas"].TREE.splitlines())


def test_a_known_dataset_may_be_read_as_anyones_folders_when_asked(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["kvasir-seg"])
    assert find_layout(root, "folders") == ("folders", root)


# Cost


@pytest.mark.parametrize("layout", WITH_MASKS)
def test_recognising_opens_no_file_and_lists_no_more_folders_for_more_images(
    touch: Touch, trees: Trees, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = touch(*trees[layout])
    images = {(root / case.image).parent for case in LAYOUTS[layout].find_cases(root)[0]}
    calls: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*args, **options)

        return call

    for module, name in ((os, "scandir"), (os, "listdir"), (os, "stat"), (os, "open")):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    monkeypatch.setattr("builtins.open", counted("open", open))
    monkeypatch.setattr("io.open", counted("open", open))

    def cost() -> list[str]:
        calls.clear()
        assert find_layout(root) == (layout, root)
        return sorted(calls)

    few = cost()
    for folder in images:
        for number in range(400):
            (folder / f"{number + 100}.png").touch()
    assert cost() == few and "open" not in few


# What fits nothing


def test_a_wrong_folder_is_answered_with_the_trees_found_and_expected(touch: Touch) -> None:
    root = touch("scans/x.png", "scans/y.png", "scans/z1.png", "scans/z2.png", "notes.txt")
    with pytest.raises(DataError) as error:
        find_layout(root)
    text = str(error.value)
    assert "raw: no known dataset layout" in text
    assert "scans/  (4 entries: x.png, y.png, z1.png, ...)" in text and "notes.txt" in text
    for name in WITH_MASKS:
        assert f"layout {name}:" in text
        assert all(line.strip() in text for line in LAYOUTS[name].TREE.splitlines())
    assert text.index("Found:") < text.index("scans/") < text.index("Expected")


def test_an_empty_folder_is_answered_with_nothing_found() -> None:
    Path("raw").mkdir()
    with pytest.raises(DataError, match=r"\(nothing\)"):
        find_layout(Path("raw"))


def test_a_missing_folder_and_a_file_are_told_apart(touch: Touch) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_layout(Path("nowhere"))
    with pytest.raises(DataError, match="a file; give the dataset's folder"):
        find_layout(touch("a.txt") / "a.txt")


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (("images/a.png",), "nearly layout folders: images/ is there, masks/ is missing"),
        (("masks/a.png",), "nearly layout folders: images/ is missing, masks/ is there"),
        (("images/a.png", "maks/a.png"), "images/ is there, masks/ is missing (is it maks/?)"),
        (
            ("imagesTr/a_0000.png", "lablesTr/a.png"),
            "nearly layout nnunet: imagesTr/ is there, labelsTr/ is missing (is it lablesTr/?)",
        ),
        (
            ("benign/a.png", "benign/a_mask.png", "malign/b.png"),
            "nearly layout busi: benign/ is there, malignant/ is missing",
        ),
        (
            ("Original/1.png", "Ground_Thruth/1.png"),
            "nearly layout cvc-clinicdb: Original/ is there, Ground Truth/ is missing (is it Ground_Thruth/?)",
        ),
        (
            ("Train_Folder/img/1.png", "Train_Folder/lablecol/1.png"),
            "glas: Train_Folder/img/ is there, Train_Folder/labelcol/ is missing (is it Train_Folder/lablecol/?)",
        ),
        (
            ("ISIC-2017_Training_Data/ISIC_0000000.jpg",),
            "nearly layout isic-2017: ISIC-2017_Training_Data/ is there, ISIC-2017_Training_Part1_GroundTruth/ is missing",
        ),
        (
            ("a.png", "b.png"),
            "2 images and no masks: move the images to images/ and their masks, by the same names, to masks/",
        ),
        (("a.png", "a_mask.png"), "images and masks lie together (2 files): move them to images/ and masks/"),
    ],
)
def test_a_nearly_right_folder_is_answered_with_what_is_missing(touch: Touch, files: tuple[str, ...], hint: str) -> None:
    with pytest.raises(DataError) as error:
        find_layout(touch(*files))
    assert hint in str(error.value).splitlines()[0]
