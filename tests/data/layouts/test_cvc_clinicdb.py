"""CVC-ClinicDB in the shapes it comes in; a video sequence is a group."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ukan.data.layouts import find_layout
from ukan.data.layouts.cvc_clinicdb import find_cases

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]

# As the dataset's own table has them: first and last frame of each of the 29 sequences.
SEQUENCES = """1-25 26-50 51-67 68-78 79-103 104-126 127-151 152-177 178-199 200-205 206-227 228-252 253-277 278-297 298-317
318-342 343-363 364-383 384-408 409-428 429-447 448-466 467-478 479-503 504-528 529-546 547-571 572-591 592-612"""


def test_each_of_the_612_frames_is_in_the_group_of_its_video_sequence(touch: Touch) -> None:
    root = touch(*(f"{folder}/{k}.png" for folder in ("Original", "Ground Truth") for k in range(1, 613)))
    cases, problems = find_cases(root)
    assert problems == [] and len(cases) == 612
    groups = {int(case.case): case.group for case in cases}
    ranges = [tuple(map(int, words.split("-"))) for words in SEQUENCES.split()]
    assert len(ranges) == 29
    for number, (first, last) in enumerate(ranges, start=1):
        assert {groups[frame] for frame in range(first, last + 1)} == {f"sequence {number:02}"}


@pytest.mark.parametrize(
    ("shape", "ending"),
    [
        ("{}/{}.png", "png"),
        ("{}/{}.tif", "tif"),
        ("PNG/{}/{}.png", "png"),
        ("TIF/{}/{}.tif", "tif"),
    ],
)
def test_every_released_shape_is_read(touch: Touch, shape: str, ending: str) -> None:
    root = touch(*(shape.format(folder, k) for folder in ("Original", "Ground Truth") for k in (1, 2)), "metadata.csv")
    assert find_layout(root) == ("cvc-clinicdb", root)
    cases, problems = find_cases(root)
    assert problems == []
    assert [case.image for case in cases] == [shape.format("Original", k) for k in (1, 2)]
    assert cases[0].masks == (shape.format("Ground Truth", 1),)


def test_png_is_read_where_tif_lies_beside(touch: Touch) -> None:
    kinds = [("PNG", "png"), ("TIF", "tif")]
    root = touch(*(f"{kind}/{folder}/1.{end}" for kind, end in kinds for folder in ("Original", "Ground Truth")))
    assert [(case.image, case.masks) for case in find_cases(root)[0]] == [
        ("PNG/Original/1.png", ("PNG/Ground Truth/1.png",))
    ]
    assert find_layout(root / "TIF") == ("cvc-clinicdb", root / "TIF")


def test_png_is_read_where_tif_lies_in_the_same_folder(touch: Touch) -> None:
    root = touch(*(f"{folder}/1.{end}" for folder in ("Original", "Ground Truth") for end in ("png", "tif")))
    cases, problems = find_cases(root)
    assert problems == []
    assert [(case.image, case.masks) for case in cases] == [("Original/1.png", ("Ground Truth/1.png",))]


def test_missing_files_and_strange_names_are_told_at_once(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["cvc-clinicdb"], "Original/2.png", "Ground Truth/3.png", "Original/x.png", "Ground Truth/x.png")
    cases, problems = find_cases(root)
    assert {(p.level, p.kind, p.where) for p in problems} == {
        ("error", "no mask", "Original/2.png"),
        ("error", "mask without image", "Ground Truth/3.png"),
        ("warning", "no video sequence", "Original/x.png"),
    }
    assert {case.case: case.group for case in cases}["x"] == ""


def test_the_same_folders_with_other_names_inside_are_anyones(touch: Touch) -> None:
    assert find_layout(touch("Original/a.png", "Ground Truth/a.png"))[0] == "folders"
    assert find_layout(touch("Original/613.png", "Ground Truth/613.png"))[0] == "folders"
