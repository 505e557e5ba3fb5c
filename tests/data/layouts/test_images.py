"""Images without masks are read where that is asked for or allowed, and never where masks may have been meant."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.data.index import index_folder, load_index
from ukan.data.layouts import LAYOUTS, WITHOUT_MASKS, find_layout
from ukan.data.layouts.images import find_cases
from ukan.data.problems import Problem
from ukan.data.splits import grouped_folds
from ukan.errors import DataError, UserError
from ukan.plan import Case

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]


def found(root: Path) -> dict[str, Case]:
    cases, problems = find_cases(root)
    assert problems == [] and all(case.masks == () for case in cases)
    return {case.case: case for case in cases}


def wrong(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Names of the cases, and level and place of the problems."""
    cases, problems = find_cases(root)
    return [case.case for case in cases], [(problem.level, problem.where) for problem in problems]


# What becomes of a tree


def test_every_image_is_a_case_however_deep_and_whatever_its_type(touch: Touch) -> None:
    cases = found(touch("a.png", "b.JPG", "c/d.tif", "c/e/f.nii.gz", "notes.txt", "c/._d.tif", ".g.png"))
    assert {name: case.image for name, case in cases.items()} == {
        "a": "a.png",
        "b": "b.JPG",
        "d": "c/d.tif",
        "f": "c/e/f.nii.gz",
    }


def test_folders_that_hold_all_images_are_their_classes(touch: Touch) -> None:
    cases = found(touch("benign/a.png", "benign/more/b.png", "malignant/c.png", "readme.txt"))
    assert {name: case.label for name, case in cases.items()} == {"a": "benign", "b": "benign", "c": "malignant"}
    assert {case.split for case in cases.values()} == {""}


def test_an_image_beside_the_folders_makes_them_no_classes_and_that_is_told(touch: Touch) -> None:
    cases, problems = find_cases(touch("benign/a.png", "malignant/b.png", "c.png", "d.png"))
    assert {(case.case, case.label) for case in cases} == {("a", ""), ("b", ""), ("c", ""), ("d", "")}
    ((level, kind, where, what, _),) = problems
    assert (level, kind, where) == ("note", "folders without classes", "c.png") and "2 image(s)" in what


@pytest.mark.parametrize("tree", ["{}", "images/{}", "download/data v2/{}"])
def test_folders_around_all_images_say_nothing(touch: Touch, tree: str) -> None:
    one = found(touch(*(tree.format(name) for name in ("a.png", "b.png"))))
    assert [(case.case, case.label, case.split) for case in one.values()] == [("a", "", ""), ("b", "", "")]


@pytest.mark.parametrize("tree", ["{}", "download/{}"])
def test_parts_are_the_first_level_and_classes_the_second(touch: Touch, tree: str) -> None:
    names = ("train/benign/a.png", "train/malignant/b.png", "Test_Folder/benign/a.png", "validation/benign/d.png")
    cases = found(touch(*map(tree.format, names)))
    assert {name: (case.split, case.label) for name, case in cases.items()} == {
        "train_benign_a": ("train", "benign"),
        "b": ("train", "malignant"),
        "Test_Folder_benign_a": ("test", "benign"),
        "d": ("val", "benign"),
    }


def test_parts_without_classes_and_a_lone_part(touch: Touch) -> None:
    cases = found(touch("train/images/a.png", "test/images/b.png"))
    assert {name: (case.split, case.label) for name, case in cases.items()} == {"a": ("train", ""), "b": ("test", "")}
    (lone,) = found(touch("../lone/train/a.png").parent / "lone").values()
    assert (lone.case, lone.split, lone.label) == ("a", "", "")


def test_what_lies_beside_the_parts_is_left_aside_and_told(touch: Touch) -> None:
    names, problems = wrong(touch("train/a.png", "test/b.png", "extra/c.png", "extra/d.png", "e.png"))
    assert names == ["b", "a"] and problems == [("warning", "e.png"), ("warning", "extra/")]


def test_stems_that_collide_get_their_folder_before_them(touch: Touch) -> None:
    assert found(touch("data/benign/1.png", "data/malignant/1.png", "data/malignant/2.png")).keys() == {
        "benign_1",
        "malignant_1",
        "2",
    }


# Masks among images


@pytest.mark.parametrize(
    ("mask", "where"),
    [
        ("a_mask.png", "a_mask.png"),
        ("b/x_segmentation.png", "b/x_segmentation.png"),
        ("mask_a.png", "mask_a.png"),
        ("a_superpixels.png", "a_superpixels.png"),
        ("masks/a.png", "masks/"),
        ("Ground Truth/a.png", "Ground Truth/"),
        ("b/Lesion_Masks/1/a.png", "b/Lesion_Masks/"),
        ("gt/a.png", "gt/"),
    ],
)
def test_what_looks_like_a_mask_is_an_error_that_says_what_to_do(touch: Touch, mask: str, where: str) -> None:
    root = touch("scans/a.png", "weights/a2.png", mask)
    cases, problems = find_cases(root)
    assert [case.case for case in cases] == ["a", "a2"]
    assert [(problem.level, problem.where) for problem in problems if problem.level == "error"] == [("error", where)]
    assert problems[0].do.startswith("masks go to masks/ and their images to images/")


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {WITHOUT_MASKS}))
def test_a_dataset_with_masks_is_not_read_without_them(touch: Touch, trees: Trees, layout: str) -> None:
    root = touch(*(f"download/{name}" for name in trees[layout]))
    for folder in (root, root / "download"):
        with pytest.raises(DataError, match=f"has masks .layout {layout}.: leave out --layout images") as error:
            find_layout(folder, "images")
        assert "\n" not in str(error.value)


# Where it is tried


def test_it_is_recognised_only_where_it_is_asked_for_or_allowed(touch: Touch) -> None:
    root = touch("a.png", "b.png")
    with pytest.raises(DataError, match="2 images and no masks: move the images to images/") as error:
        find_layout(root)
    assert "layout images:" not in str(error.value)
    assert find_layout(root, "images") == find_layout(root, without_masks=True) == ("images", root)
    with pytest.raises(DataError, match="no known dataset layout"):
        find_layout(root, "folders", without_masks=True)


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {WITHOUT_MASKS}))
def test_where_it_is_allowed_a_dataset_with_masks_keeps_them(touch: Touch, trees: Trees, layout: str) -> None:
    root = touch(*trees[layout])
    assert find_layout(root, without_masks=True) == find_layout(root) == (layout, root)


@pytest.mark.parametrize("files", [("images/a.png", "maks/a.png"), ("data/images/a.png", "data/maks/a.png")])
def test_a_folder_of_masks_with_a_name_mistyped_is_not_taken_for_images(touch: Touch, files: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="no known dataset layout"):
        find_layout(touch(*files), without_masks=True)
    alone = touch("other/images/a.png") / "other"
    assert find_layout(alone, without_masks=True) == ("images", alone)


def test_images_beside_a_dataset_lead_to_no_other_folder(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["busi"], "notes/x.png", "empty/readme.txt")
    assert find_layout(root / "notes", "images") == ("images", root / "notes")
    with pytest.raises(DataError, match=re.escape("empty: no known dataset layout. Found:")) as error:
        find_layout(root / "empty", "images")
    assert "layout images:" in str(error.value) and "layout busi:" not in str(error.value)


# The index, check and plan


@pytest.fixture
def photos() -> Path:
    """Twelve pictures in two classes, of which two are the same, one is large, and one is no image."""
    rng = np.random.default_rng(0)
    for number in range(12):
        path = Path("photos") / ("benign" if number % 2 else "malignant") / f"p{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (12, 16), dtype=np.uint8)
        Image.fromarray(np.kron(coarse, np.ones((4, 4) if number != 7 else (40, 40), np.uint8))).save(path)
    (Path("photos") / "malignant" / "again.png").write_bytes((Path("photos") / "malignant" / "p00.png").read_bytes())
    (Path("photos") / "benign" / "broken.png").write_bytes(b"")
    return Path("photos")


def test_the_index_knows_of_images_what_it_can_and_says_nothing_of_masks(photos: Path) -> None:
    index = index_folder(photos, without_masks=True)
    assert index == index_folder(photos, layout="images") and index.layout == "images" and index.dataset == "photos"
    assert {(p.level, p.kind, p.where) for p in index.problems} == {
        ("error", "unreadable image", "benign/broken.png"),
        ("warning", "same picture twice", "again | p00"),
        ("warning", "size far from the rest", "benign/p07.png"),
    }
    f = index.fingerprint
    assert f is not None and (f.cases, f.empty, f.groups, f.groups_with_object, f.near_duplicates) == (13, 0, 12, 0, 1)
    assert f.labels == {"benign": 6, "malignant": 7}
    assert f.lesion_share == f.lesion_side_px == (0, 0, 0) and f.intensity is None
    assert (f.mask_values, f.mask_rule, f.classes, f.target) == ({}, "nonzero", ("foreground",), "binary")
    assert index.mask_rule_because == "there are no masks"
    assert {case.group for case in index.cases if case.case in ("again", "p00")} == {"again"}
    assert all(case.masks == () and case.foreground == 0 and case.hash for case in index.cases)


def test_folds_keep_twins_together_and_spread_classes(photos: Path) -> None:
    cases = index_folder(photos, layout="images").cases
    label = {case.case: case.label for case in cases}
    for fold in grouped_folds(cases, 3, 0):
        assert ("again" in fold["val"]) == ("p00" in fold["val"])
        assert sum(label[name] == "benign" for name in fold["val"]) == 2


def test_many_images_are_no_reason_for_a_warning_about_masks() -> None:
    rng = np.random.default_rng(0)
    for number in range(30):
        path = Path("raw") / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.kron(rng.integers(0, 255, (12, 16), dtype=np.uint8), np.ones((4, 4), np.uint8))).save(path)
    assert index_folder(Path("raw"), layout="images").problems == []


def test_masks_among_images_are_left_out_only_on_demand(photos: Path) -> None:
    (photos / "malignant" / "p02_mask.png").write_bytes((photos / "malignant" / "p02.png").read_bytes())
    asked = index_folder(photos, without_masks=True)
    assert Problem("error", "mask among images", "malignant/p02_mask.png", *MASK) in asked.errors
    index = index_folder(photos, without_masks=True, skip_bad=True)
    assert index.errors == [] and index.left_out == ("benign/broken.png", "malignant/p02_mask.png")
    assert "p02_mask" not in {case.case for case in index.cases}


MASK = (
    "named like a mask, and no mask is read here",
    "masks go to masks/ and their images to images/; or remove them, to learn from the images alone",
)


def test_check_shows_images_without_masks_and_leads_to_the_task_they_are_for(photos: Path) -> None:
    (photos / "benign" / "broken.png").unlink()
    result = CliRunner().invoke(app, ["check", "photos", "--layout", "images"])
    assert result.exit_code == 0, result.output
    assert "13 cases (6 benign, 7 malignant); no masks" in result.output
    assert "objects cover" not in result.output and "masks: rule" not in result.output
    assert result.output.rstrip().endswith("next: ukan plan photos --layout images --task diffuse")
    page = Path("plans/photos/check.html").read_text(encoding="utf-8")
    assert "no masks. " in page and "Masks by the rule" not in page and "inside</figcaption>" not in page
    assert page.count("<figure>") == 2 + 12  # the two that are the same, and twelve examples
    cases = load_index(Path("plans/photos/index.csv"))
    assert len(cases) == 13 and {case.masks for case in cases} == {()}


def test_a_segmentation_of_images_without_masks_is_refused_in_one_line(photos: Path) -> None:
    (photos / "benign" / "broken.png").unlink()
    result = CliRunner().invoke(app, ["plan", "photos", "--layout", "images"])
    assert isinstance(result.exception, UserError) and result.exception.exit_code == 4
    said = str(result.exception)
    assert "\n" not in said and "images without masks" in said and "ukan plan --task diffuse" in said
    assert not list(Path("plans/photos").glob("*.yaml"))


def test_an_export_of_images_without_masks_is_refused(photos: Path) -> None:
    (photos / "benign" / "broken.png").unlink()
    result = CliRunner().invoke(app, ["export-nnunet", "photos", "out", "--layout", "images"])
    assert isinstance(result.exception, UserError) and "images without masks" in str(result.exception)
    assert not Path("out").exists()
