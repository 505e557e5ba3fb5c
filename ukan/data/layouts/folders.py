"""Anyone's dataset: a folder of images and a folder of masks side by side, matched by name.

Sub-folders, different file types and the usual affixes (x.jpg with x_mask.png, x_segmentation.png, mask_x.png) are met as
they are; several masks of one image (x_mask.png, x_mask_1.png) are united.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from ukan.data.problems import Problem
from ukan.imaging import is_image_name
from ukan.plan import Case

TREE = """images/  a.jpg  b.png ...
masks/   a.png  b_mask.png ...     (also: labels/, annotations/, groundtruth/ ...; sub-folders are fine)"""
DATASET = ""
EMPTY_CASES = ("keep", "images without an object are part of the folder")

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "inputs", "original", "originals", "jpegimages")
_MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "groundtruth", "gt"),
    *("segmentations", "segmentation", "targets", "target"),
)
_AFFIX = r"(?:mask|label|segmentation|seg|gt|groundtruth|anno|annotation)"
_SUFFIX = re.compile(rf"[_\- ]{_AFFIX}(?:[_\- ]?\d+)?$", re.IGNORECASE)
_PREFIX = re.compile(rf"^{_AFFIX}[_\- ]", re.IGNORECASE)


def recognises(root: Path) -> bool:
    return _pair(root) is not None


def find_cases(root: Path) -> tuple[list[Case], list[Problem]]:
    pair = _pair(root)
    assert pair is not None, "find_cases is called where recognises() said yes"
    image_folder, mask_folder = pair
    images, masks = _files(image_folder), _files(mask_folder)
    problems = []

    # Masks by the key of the image they belong to: the same relative path and stem, affixes aside. An image's own full stem
    # comes first, so that "scan_mask.png" is the mask of an image "scan_mask.png" where there is one.
    image_keys = {_key(path) for path in images}
    stems_used = Counter(_key(path) for path in images)
    found: dict[str, list[PurePosixPath]] = {}
    for path in masks:
        keys = [key for key in _mask_keys(path) if key in image_keys]
        if keys:
            found.setdefault(keys[0], []).append(path)
        else:
            problems.append(
                Problem(
                    "error",
                    "mask without image",
                    _below(root, mask_folder, path),
                    f"no image named {path.stem}",
                    "add it, or remove the mask",
                )
            )
    cases = []
    short = Counter(path.stem for path in images)
    for path in images:
        key, where = _key(path), _below(root, image_folder, path)
        if stems_used[key] > 1:
            problems.append(
                Problem(
                    "error",
                    "two images of one name",
                    where,
                    f"{stems_used[key]} images are named {key}",
                    "rename or remove one",
                )
            )
        elif key not in found:
            expected = f"{mask_folder.name}/{path.with_suffix('.png')}"
            problems.append(Problem("error", "no mask", where, f"{expected} is missing", "add it, or remove the image"))
        else:
            name = path.stem if short[path.stem] == 1 else "_".join(path.with_suffix("").parts)
            files = tuple(_below(root, mask_folder, mask) for mask in found[key])
            cases.append(Case(case=name, image=where, masks=files, label=""))
    return cases, problems


def _pair(root: Path) -> tuple[Path, Path] | None:
    by_name = {re.sub(r"[^a-z]", "", path.name.lower()): path for path in root.iterdir() if path.is_dir()}
    images = next((by_name[name] for name in _IMAGE_FOLDERS if name in by_name), None)
    masks = next((by_name[name] for name in _MASK_FOLDERS if name in by_name), None)
    return (images, masks) if images and masks else None


def _files(folder: Path) -> list[PurePosixPath]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if is_image_name(path.name) and path.is_file())
    return sorted((PurePosixPath(path.as_posix()) for path in paths), key=str)


def _key(path: PurePosixPath) -> str:
    return str(path.with_suffix(""))


def _mask_keys(path: PurePosixPath) -> list[str]:
    """Image keys this mask may belong to, the plainest first."""
    stems = [path.stem, _SUFFIX.sub("", path.stem), _PREFIX.sub("", path.stem), re.sub(r"_\d+$", "", path.stem)]
    return [str(path.with_name(stem)) for stem in dict.fromkeys(stems) if stem]


def _below(root: Path, folder: Path, path: PurePosixPath) -> str:
    return str(PurePosixPath(folder.relative_to(root).as_posix()) / path)
