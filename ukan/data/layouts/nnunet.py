"""nnU-Net's raw datasets (version 2, and 1): a file for each channel, label maps of 0 to K, dataset.json.

A labelled test part (imagesTs with labelsTs) is the official test part. Labels of regions and an ignore label are refused:
they would be trained on as classes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ukan.data.layouts.pairing import (
    Found,
    below,
    inside,
    mask_without_image,
    no_mask,
    part_without_masks,
    tell_apart,
    without_lone_split,
)
from ukan.data.problems import Problem
from ukan.errors import DataError
from ukan.imaging import find_images, image_suffix, is_volume, stem_of
from ukan.plan import Case, MaskRule, Modality

TREE = """imagesTr/  CASE_0000.nii.gz  [CASE_0001.nii.gz ...]     (or .png, .tif ...; a file for each channel)
labelsTr/  CASE.nii.gz ...
dataset.json
[imagesTs/ CASE_0000.nii.gz ...  labelsTs/ CASE.nii.gz ...]"""
DATASET = ""
EMPTY_CASES = ("keep", "cases without an object are part of the dataset")
MODALITY: Modality = "unknown"
RULE: MaskRule | None = None
NEEDS = (("imagesTr",), ("labelsTr",))

_FILE = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def recognises(root: Path) -> bool:
    return inside(root, "imagestr") is not None and inside(root, "labelstr") is not None


def label_names(root: Path) -> dict[int, str]:
    return {value: name for name, value in _labels(_read_json(root)).items() if isinstance(value, int) and value > 0}


def find_cases(root: Path) -> Found:
    content = _read_json(root)
    cases, problems = [], _problems_of(content)
    channels = len(content.get("channel_names") or content.get("modality") or {})
    for split, ending in (("train", "tr"), ("test", "ts")):
        images, labels = inside(root, f"images{ending}"), inside(root, f"labels{ending}")
        if images and labels:
            found, wrong = _part(root, images, labels, channels)
            cases += [case._replace(split=split) for case in found]
            problems += wrong
        elif images:
            problems.append(part_without_masks(f"{images.name}/"))
    return without_lone_split(tell_apart(cases)), problems


def _part(root: Path, images: Path, labels: Path, channels: int) -> Found:
    """The cases of one part; `channels` a case, or as many as most have where that is 0."""
    problems = []
    files: dict[str, dict[int, str]] = {}
    endings = {}
    for path in find_images(images):
        match = _FILE.fullmatch(stem_of(path))
        if match is None:
            what = "its name does not end with a channel's number"
            do = f"name it {stem_of(path)}_0000{image_suffix(path.name)}, one file a channel"
            problems.append(Problem("error", "no channel number", below(root, path), what, do))
        else:
            files.setdefault(match["case"], {})[int(match["channel"])] = below(root, path)
            endings[match["case"]] = image_suffix(path.name)
    masks = {stem_of(path): below(root, path) for path in find_images(labels)}
    problems += [mask_without_image(masks[case], f"{case}_0000") for case in sorted(masks.keys() - files.keys())]
    if channels == 3 and all(set(found) == {0} and not is_volume(Path(found[0])) for found in files.values()):
        channels = 1  # a colour picture holds its three channels in one file
    expected = range(channels or max((len(found) for found in files.values()), default=0))
    cases = []
    for case, found in files.items():
        ending = endings[case]
        if case not in masks:
            problems.append(no_mask(found[min(found)], f"{labels.name}/{case}{ending}"))
        elif sorted(found) != list(expected):
            missing = [f"{images.name}/{case}_{k:04}{ending}" for k in expected if k not in found]
            what = f"{missing[0]} is missing" if missing else f"{len(found)} channels, dataset.json names {channels}"
            problems.append(
                Problem("error", "channels differ", found[min(found)], what, "give every case the same channels")
            )
        else:
            cases.append(Case(case, found[0], (masks[case],), channels=tuple(found[k] for k in expected[1:])))
    return cases, problems


def _problems_of(content: Mapping[str, Any]) -> list[Problem]:
    if not content:
        return [Problem("warning", "no dataset.json", "dataset.json", "classes have no names", "add it to name them")]
    labels = _labels(content)
    problems = []
    if regions := [name for name, value in labels.items() if not isinstance(value, int)]:
        what = f"labels of regions ({', '.join(regions)}) are not read"
        problems.append(Problem("error", "labels of regions", "dataset.json", what, "give each value a name of its own"))
    if "ignore" in labels:
        what = "an ignore label is not read: it would become a class"
        problems.append(Problem("error", "ignore label", "dataset.json", what, "map it to a class or to 0"))
    return problems


def _labels(content: Mapping[str, Any]) -> dict[str, Any]:
    """Name to value; version 1 has them the other way round."""
    labels = content.get("labels") or {}
    return {name: int(value) for value, name in labels.items()} if all(map(str.isdigit, labels)) else dict(labels)


def _read_json(root: Path) -> dict[str, Any]:
    path = root / "dataset.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON ({error}); repair it") from error
