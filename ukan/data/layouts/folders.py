"""Anyone's dataset: a folder of images and a folder of masks side by side, matched by name.

Sub-folders, different file types and the usual affixes (x.jpg with x_mask.png, x_segmentation.png, mask_x.png) are met as
they are, and so are NIfTI files and folders of DICOM series; several masks of one image (x_mask.png, x_mask_1.png) are
united. Folders train, val and test inside or around the two are parts of an official split.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ukan.data.layouts.pairing import (
    Found,
    below,
    files_in,
    folders_in,
    inside,
    pair,
    part_without_masks,
    plain,
    split_of,
    tell_apart,
    unnamed_part,
    without_lone_split,
)
from ukan.imaging import stem_of
from ukan.plan import MaskRule, Modality

TREE = """images/  a.jpg  b.png  c.nii.gz  d/ (a DICOM series) ...
masks/   a.png  b_mask.png  c.nii.gz  d.nii.gz ...     (also: labels/, annotations/, groundtruth/ ...; sub-folders are fine)
or the same in train/, val/, test/:   train/images/  train/masks/ ...   or   images/train/  masks/train/ ..."""
DATASET = ""
EMPTY_CASES = ("keep", "images without an object are part of the folder")
MODALITY: Modality = "unknown"
RULE: MaskRule | None = None
NEEDS = (
    ("images", "image", "imgs", "img", "inputs", "original", "originals", "jpegimages"),
    (
        *("masks", "mask", "labels", "label", "annotations", "annotation", "groundtruth", "gt"),
        *("segmentations", "segmentation", "targets", "target", "labelcol"),
    ),
)


def recognises(root: Path) -> bool:
    return any(masks and not class_folders(images, masks) for _, images, masks in parts(root))


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    return cases_of_parts(root, lambda images, masks: {"": masks})


def parts(root: Path) -> list[tuple[str, Path, Path | None]]:
    """(part of the split or "", folder of images, folder of masks or None where that is missing); nothing elsewhere."""
    if here := _two_folders(root):
        images, masks = here
        within = folders_in(images)
        beside = {plain(path.name): path for path in folders_in(masks)}
        split = all(split_of(path.name) for path in within) and any(plain(path.name) in beside for path in within)
        if split and not files_in(images):
            return [(split_of(path.name), path, beside.get(plain(path.name))) for path in within]
        return [("", images, masks)]
    splits = [(split_of(path.name), path) for path in folders_in(root) if split_of(path.name)]
    return [(split, *(_two_folders(path) or (path, None))) for split, path in splits]


def class_folders(images: Path, masks: Path) -> dict[str, Path]:
    """A folder of masks for each class, by its name; nothing where the folders below `masks` mirror those of the images."""
    folders = folders_in(masks)
    mirrored = [path.name for path in folders_in(images)] + [stem_of(images / name) for name in files_in(images)]
    if files_in(masks) or {name.lower() for name in mirrored}.intersection(path.name.lower() for path in folders):
        return {}
    return {path.name: path for path in folders}


def cases_of_parts(root: Path, masks_by_class: Callable[[Path, Path], Mapping[str, Path]]) -> Found:
    """The cases of every part; `masks_by_class` says which folders of masks (images, masks) hold, a class each."""
    cases, problems = [], []
    found_parts = parts(root)
    for split, images, masks in found_parts:
        if masks is None:
            problems.append(part_without_masks(f"{below(root, images)}/"))
            continue
        found, wrong = pair(root, images, masks_by_class(images, masks))
        cases += [case._replace(split=split) for case in found]
        problems += wrong
    if all(split for split, _, _ in found_parts):
        others = (path for path in folders_in(root) if not split_of(path.name) and _two_folders(path))
        problems += [unnamed_part(f"{path.name}/") for path in others]
    return without_lone_split(tell_apart(cases)), problems


def _two_folders(root: Path) -> tuple[Path, Path] | None:
    images, masks = (inside(root, *names) for names in NEEDS)
    return (images, masks) if images and masks else None
