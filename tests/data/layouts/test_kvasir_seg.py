"""Kvasir-SEG as published."""

from collections.abc import Callable
from pathlib import Path

from ukan.data.layouts import LAYOUTS, find_layout
from ukan.data.layouts.kvasir_seg import find_cases

Touch = Callable[..., Path]
Trees = dict[str, tuple[str, ...]]


def test_jpeg_images_and_jpeg_masks_of_one_name_are_a_case(touch: Touch, trees: Trees) -> None:
    root = touch(*trees["kvasir-seg"])
    assert find_layout(root) == ("kvasir-seg", root)
    cases, problems = find_cases(root)
    assert problems == []
    image, mask, _ = trees["kvasir-seg"]
    assert [(case.case, case.image, case.masks) for case in cases] == [(Path(image).stem, image, (mask,))]
    assert LAYOUTS["kvasir-seg"].MODALITY == "endoscopy"


def test_without_its_boxes_it_is_anyones_folder(touch: Touch, trees: Trees) -> None:
    assert find_layout(touch(*trees["kvasir-seg"][:2]))[0] == "folders"
