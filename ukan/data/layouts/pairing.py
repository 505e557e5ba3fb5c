"""Images and masks that belong together by their names: what most layouts share."""

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ukan.data.problems import Problem
from ukan.imaging import find_images, image_suffix, is_image_name, is_volume, stem_of
from ukan.plan import Case

Found = tuple[list[Case], list[Problem]]

_AFFIX = r"(?:mask|label|segmentation|seg|gt|groundtruth|anno|annotation)"
_SUFFIX = re.compile(rf"[_\- ]{_AFFIX}(?:[_\- ]?\d+)?$", re.IGNORECASE)
_PREFIX = re.compile(rf"^{_AFFIX}[_\- ]", re.IGNORECASE)
_SPLIT = re.compile(r"(?P<split>tr|ts|train|training|val|valid|validation|dev|test|testing)(?:data)?(?:folder|set|part)?$")


def folders_in(folder: Path) -> list[Path]:
    """The folders inside, sorted; hidden ones and what macOS leaves in zip files are left out."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))]
    return [folder / name for name in sorted(names)]


def files_in(folder: Path) -> list[str]:
    """Names of the image files right inside, sorted. Nothing is opened."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image_name(entry.name) and entry.is_file())


def plain(name: str) -> str:
    """A folder's name as people mean it: "Ground Truth" and "ground_truth" are groundtruth."""
    return re.sub(r"[^a-z]", "", name.lower())


def inside(folder: Path, *names: str) -> Path | None:
    """The folder inside that goes by the first of these plain names that is there."""
    by_name = {plain(path.name): path for path in reversed(folders_in(folder))}
    return next((by_name[name] for name in names if name in by_name), None)


def split_of(name: str) -> str:
    """The part of an official split that a folder's name tells ("train", "val", "test"); empty for others."""
    match = _SPLIT.match(plain(name))
    return {"tr": "train", "va": "val", "de": "val", "te": "test", "ts": "test"}[match["split"][:2]] if match else ""


def looks_like_mask(stem: str) -> bool:
    return bool(_SUFFIX.search(stem) or _PREFIX.match(stem))


def pair(
    root: Path, images: Path, masks: Mapping[str, Path], leave_out: Callable[[Path], bool] = lambda path: False
) -> Found:
    """The cases of a folder of images and a folder of masks for each class ({"": folder} for all classes in one).

    A mask belongs to the image at the same place below its folder with the same stem, the usual affixes aside (x_mask.png,
    x_segmentation.png, mask_x.png); several masks of one image (x_mask.png, x_mask_1.png) are united.
    """
    problems: list[Problem] = []
    keys = {path: _key(images, path) for path in _images_in(root, images, leave_out, problems)}
    used = Counter(keys.values())
    short = Counter(_last(key) for key in keys.values())
    found: dict[str, list[tuple[str, str]]] = {}
    for name, folder in masks.items():
        for path in _images_in(root, folder, leave_out, problems):
            # The image of its own full stem comes first: "scan_mask.png" may be the mask of an image "scan_mask.png".
            key = next((key for key in _mask_keys(_key(folder, path)) if key in used), None)
            if key is None:
                problems.append(mask_without_image(below(root, path), stem_of(path)))
            else:
                found.setdefault(key, []).append((name, below(root, path)))

    cases = []
    for path, key in keys.items():
        where = below(root, path)
        if used[key] > 1:
            what = f"{used[key]} images are named {key}"
            problems.append(Problem("error", "two images of one name", where, what, "rename or remove one"))
        elif key not in found:
            folder = next(iter(masks.values()))
            problems.append(no_mask(where, f"{below(root, folder)}/{key}{'.nii.gz' if is_volume(path) else '.png'}"))
        else:
            shown = [name for name, _ in found[key]]
            for name in masks.keys() - set(shown):
                what = f"none in {below(root, masks[name])}/"
                problems.append(Problem("warning", "no mask of one class", where, what, "taken to show nothing of it"))
            cases.append(
                Case(
                    case=_last(key) if short[_last(key)] == 1 else key.replace("/", "_"),
                    image=where,
                    masks=tuple(mask for _, mask in found[key]),
                    classes=tuple(shown) if any(shown) else (),
                )
            )
    return cases, sorted(problems)


def tell_apart(cases: Sequence[Case]) -> list[Case]:
    """Cases of one name in several parts of an official split get the part before it."""
    names = Counter(case.case for case in cases)
    return [case._replace(case=f"{case.split}_{case.case}") if names[case.case] > 1 else case for case in cases]


def without_lone_split(cases: Sequence[Case]) -> list[Case]:
    """A single part is no split."""
    lone = len({case.split for case in cases}) == 1
    return [case._replace(split="") if lone else case for case in cases]


def below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def no_mask(image: str, expected: str) -> Problem:
    return Problem("error", "no mask", image, f"{expected} is missing", "add it, or remove the image")


def mask_without_image(mask: str, stem: str) -> Problem:
    return Problem("error", "mask without image", mask, f"no image named {stem}", "add it, or remove the mask")


def part_without_masks(where: str) -> Problem:
    return Problem("warning", "part without masks", where, "nothing to compare with", "left out; add its masks to use it")


def unnamed_part(where: str) -> Problem:
    what = "it looks like a part of the dataset, but its name says not which"
    return Problem("warning", "folder left aside", where, what, "name it train, val or test to use it")


def _images_in(root: Path, folder: Path, leave_out: Callable[[Path], bool], problems: list[Problem]) -> list[Path]:
    paths = find_images(folder)
    if folder in paths:  # the folder itself is a series, whose name says nothing
        what = "the slices of a DICOM series lie right in it"
        problems.append(
            Problem("error", "series without a name", below(root, folder), what, "give each series a folder there")
        )
    return [path for path in paths if path != folder and not leave_out(path)]


def _key(folder: Path, path: Path) -> str:
    """The path below its folder, without an image's suffix."""
    name = below(folder, path)
    return name[: len(name) - len(image_suffix(path.name))]


def _last(key: str) -> str:
    return key.rpartition("/")[2]


def _mask_keys(key: str) -> list[str]:
    """Keys of the images this mask may belong to, the plainest first."""
    place, slash, stem = key.rpartition("/")
    stems = (stem, _SUFFIX.sub("", stem), _PREFIX.sub("", stem), re.sub(r"_\d+$", "", stem))
    return [place + slash + stem for stem in dict.fromkeys(stems) if stem]
