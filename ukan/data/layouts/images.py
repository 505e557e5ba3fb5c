"""Anyone's images without masks: nothing to segment, but images to learn from (`--task diffuse`).

Read only where it is asked for, or allowed, since a folder whose masks were forgotten looks the same. Folders train, val and
test are parts of an official split; where all images lie in several folders (below the parts, if there are any), these are
the classes of the pictures, as in torchvision's ImageFolder.
"""

from collections import Counter
from pathlib import Path

from ukan.data.layouts import folders
from ukan.data.layouts.pairing import (
    Found,
    below,
    files_in,
    folders_in,
    looks_like_mask,
    plain,
    split_of,
    unnamed_part,
    without_lone_split,
)
from ukan.data.problems import Problem
from ukan.imaging import find_images, stem_of
from ukan.plan import Case, MaskRule, Modality

TREE = """a.png  b.jpg  c/d.png ...                     (images alone; sub-folders are fine)
or a folder for each class:   benign/a.png ...  malignant/b.png ...
or the same in train/, val/, test/:   train/benign/a.png ...   test/malignant/b.png ..."""
DATASET = ""
EMPTY_CASES = ("keep", "there are no masks")
MODALITY: Modality = "unknown"
RULE: MaskRule | None = None
NEEDS: tuple[tuple[str, ...], ...] = ()

_MOVE = "masks go to masks/ and their images to images/; or remove them, to learn from the images alone"


def recognises(root: Path) -> bool:
    return bool(files_in(root) or folders_in(root))


def label_names(root: Path) -> dict[int, str]:
    return {}


def find_cases(root: Path) -> Found:
    found, problems = _images_in(root)
    below_lone = _without_lone_folders([path.parts for path in found])
    split_in_parts = any(split_of(parts[0]) for parts in below_lone if len(parts) > 1)
    if split_in_parts:
        aside = sorted({parts[0] + "/" * (len(parts) > 1) for parts in below_lone if not _in_part(parts)})
        problems += [unnamed_part(name) for name in aside]
    taken = [(path, parts) for path, parts in zip(found, below_lone, strict=True) if not split_in_parts or _in_part(parts)]
    depth = int(split_in_parts)
    labels = [parts[depth] if len(parts) > depth + 1 else "" for _, parts in taken]
    several = len({*labels} - {""}) > 1
    in_classes = several and "" not in labels
    if several and not in_classes:
        beside = [path.as_posix() for (path, _), label in zip(taken, labels, strict=True) if not label]
        what = f"{len(beside)} image(s) lie beside the folders: these are read as no classes"
        problems.append(Problem("note", "folders without classes", beside[0], what, "move it into one, if they are"))
    stems = Counter(stem_of(path) for path, _ in taken)
    cases = []
    for (path, parts), label in zip(taken, labels, strict=True):
        stem = stem_of(path)
        cases.append(
            Case(
                case=stem if stems[stem] == 1 else "_".join((*parts[:-1], stem)),
                image=path.as_posix(),
                masks=(),
                label=label if in_classes else "",
                split=split_of(parts[0]) if split_in_parts else "",
            )
        )
    return without_lone_split(cases), problems


def _without_lone_folders(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Paths, in parts, below the folders that hold all of them and so say nothing, as zip files make them."""
    while len({parts[0] for parts in paths}) == 1 and all(len(parts) > 1 for parts in paths) and not split_of(paths[0][0]):
        paths = [parts[1:] for parts in paths]
    return paths


def _in_part(parts: tuple[str, ...]) -> bool:
    return len(parts) > 1 and bool(split_of(parts[0]))


def _images_in(root: Path) -> tuple[list[Path], list[Problem]]:
    """Images, below root, and an error for each file or folder that looks like masks among them."""
    paths, problems = [], []
    folders_of_masks: Counter[str] = Counter()
    for found in find_images(root):
        if found == root:
            what, do = "the slices of a DICOM series lie right in it", "give each series a folder there"
            problems.append(Problem("error", "series without a name", ".", what, do))
            continue
        path = found.relative_to(root)
        masks = next((k for k, name in enumerate(path.parts[:-1], start=1) if _named_like_masks(name)), 0)
        if masks:
            folders_of_masks["/".join(path.parts[:masks])] += 1
        elif looks_like_mask(stem_of(path)) or stem_of(path).endswith("_superpixels"):  # the latter lie among ISIC's images
            what = "named like a mask, and no mask is read here"
            problems.append(Problem("error", "mask among images", below(root, found), what, _MOVE))
        else:
            paths.append(path)
    for name, count in sorted(folders_of_masks.items()):
        what = f"{count} image(s) in a folder named like one of masks"
        problems.append(Problem("error", "masks among images", f"{name}/", what, _MOVE))
    return paths, problems


def among_masks(path: Path) -> bool:
    """Whether a file goes by the name of a mask, or lies in a folder that does."""
    return looks_like_mask(stem_of(path)) or any(_named_like_masks(name) for name in path.parts[:-1])


def _named_like_masks(name: str) -> bool:
    known = folders.NEEDS[1]
    return plain(name) in known or plain(name).endswith(tuple(word for word in known if len(word) > 3))
