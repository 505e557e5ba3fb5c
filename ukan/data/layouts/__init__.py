"""LAYOUTS: how datasets lie on the disk as published. A further one is one file and one line here.

Each is a module (or an object) with
    TREE          the tree it expects, shown when nothing fits
    DATASET       the dataset's name; "" for a layout of any dataset, which then takes the folder's
    EMPTY_CASES   whether cases without an object take part unless the plan says otherwise, with the reason
    MODALITY      what kind of pictures these are
    RULE          the rule its masks follow, or None where the masks' values decide
    NEEDS         the folders without which it is none, each by the names it may go by; for the answer to a near miss
    recognises(root) -> bool, by names alone: nothing is opened, and at most a few folders are listed
    find_cases(root) -> (cases, problems): all of them, files matched by name, unread; paths are relative to root
    label_names(root) -> {mask value: class name} where the dataset says so, else {}
No folder is recognised by two layouts that name their dataset, unless it holds both datasets; layouts of any dataset come
after those. The last one, images without masks, is tried only where it is asked for or allowed.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from ukan.data.layouts import busi, class_folders, cvc_clinicdb, folders, glas, images, isic, kvasir_seg, nnunet, ph2
from ukan.data.layouts.answers import misspelt, no_layout
from ukan.data.layouts.pairing import folders_in
from ukan.data.problems import Problem
from ukan.errors import DataError, UserError, nearest
from ukan.plan import Case, MaskRule, Modality


class Layout(Protocol):
    TREE: str
    DATASET: str
    EMPTY_CASES: tuple[str, str]
    MODALITY: Modality
    RULE: MaskRule | None
    NEEDS: tuple[tuple[str, ...], ...]
    recognises: Callable[[Path], bool]
    find_cases: Callable[[Path], tuple[list[Case], list[Problem]]]
    label_names: Callable[[Path], dict[int, str]]


LAYOUTS: dict[str, Layout] = {
    "busi": cast(Layout, busi),
    "cvc-clinicdb": cast(Layout, cvc_clinicdb),
    "glas": cast(Layout, glas),
    "isic-2016": cast(Layout, isic.ISIC2016),
    "isic-2017": cast(Layout, isic.ISIC2017),
    "isic-2018": cast(Layout, isic.ISIC2018),
    "ph2": cast(Layout, ph2),
    "kvasir-seg": cast(Layout, kvasir_seg),
    "nnunet": cast(Layout, nnunet),
    "class-folders": cast(Layout, class_folders),
    "folders": cast(Layout, folders),
    "images": cast(Layout, images),
}
WITHOUT_MASKS = "images"

_MOST_INSIDE = 50  # more folders than that are cases, not datasets


def find_layout(root: Path, asked: str | None = None, *, without_masks: bool = False) -> tuple[str, Path]:
    """The name of the layout and the folder it starts at.

    That is `root`; or the folder around it, where root is but a part of a dataset; or the one folder inside it that fits.
    without_masks: where none fits that has masks, images alone will do. Raises DataError where none or more than one would
    do, with the trees found and expected, and where images alone are asked for and there are masks.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder" if not root.exists() else f"{root}: a file; give the dataset's folder")
    if asked is not None and asked not in LAYOUTS:
        raise UserError(f"--layout {asked}: unknown. {nearest(asked, list(LAYOUTS))}")
    if asked == WITHOUT_MASKS:
        return _images_alone(root)
    with_masks = [name for name in LAYOUTS if name != WITHOUT_MASKS]
    names = [asked] if asked else with_masks
    named = [name for name in names if LAYOUTS[name].DATASET]
    # Part of a known dataset may look like a dataset of one's own: GlaS' Train_Folder is a folder of images and masks.
    found = _at(root, named) or _around(root, named) or _at(root, names) or _inside(root, names) or _around(root, names)
    if found is None and without_masks and not asked and not misspelt(root, LAYOUTS.values()):
        found = _at(root, [WITHOUT_MASKS])
    if found is None:
        others = _at(root, [name for name in with_masks if name not in names])
        raise DataError(no_layout(root, {name: LAYOUTS[name] for name in names}, fitting=others[0] if others else ""))
    return found


def _images_alone(root: Path) -> tuple[str, Path]:
    with_masks = [name for name in LAYOUTS if name != WITHOUT_MASKS]
    if found := _at(root, with_masks) or _inside(root, with_masks):
        raise DataError(
            f"{found[1]}: it has masks (layout {found[0]}): leave out --layout {WITHOUT_MASKS}, "
            "or give the folder in which the images alone are"
        )
    if alone := _at(root, [WITHOUT_MASKS]):
        return alone
    raise DataError(no_layout(root, {WITHOUT_MASKS: LAYOUTS[WITHOUT_MASKS]}))


def _at(place: Path, names: Sequence[str]) -> tuple[str, Path] | None:
    fitting = [name for name in names if LAYOUTS[name].recognises(place)]
    datasets = [name for name in fitting if LAYOUTS[name].DATASET]
    if len(datasets) > 1:
        raise UserError(f"{place}: holds several datasets; say which with --layout {' or '.join(datasets)}")
    return (fitting[0], place) if fitting else None


def _around(root: Path, names: Sequence[str]) -> tuple[str, Path] | None:
    """The dataset that root is a part of, one or two folders up."""
    for place in root.resolve().parents[:2]:
        part = f"{root.resolve().relative_to(place).as_posix()}/"
        for name in names if os.access(place, os.R_OK) else ():
            if LAYOUTS[name].recognises(place):
                cases, _ = LAYOUTS[name].find_cases(place)
                if any(path.startswith(part) for case in cases for path in (case.image, *case.masks)):
                    return name, place
    return None


def _inside(root: Path, names: Sequence[str]) -> tuple[str, Path] | None:
    """The dataset inside: in the only folder, however deep, or the only known dataset among several folders."""
    level = folders_in(root)
    while level and len(level) <= _MOST_INSIDE:
        found = [fit for place in level if (fit := _at(place, names))]
        if len(found) == 1 and (len(level) == 1 or LAYOUTS[found[0][0]].DATASET):
            return found[0]
        if found:
            listed = ", ".join(f"{place.name}/ (layout {name})" for name, place in found)
            raise DataError(f"{root}: no known dataset layout, but inside: {listed}; give one of these folders")
        level = folders_in(level[0]) if len(level) == 1 else []
    return None
