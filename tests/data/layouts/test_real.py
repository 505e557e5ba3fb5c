"""The real datasets, by the names of their files: every one is recognised, and nothing is lost."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ukan.data.layouts import LAYOUTS, find_layout

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.mark.parametrize(
    ("archive", "layout", "cases", "masks", "groups", "splits"),
    [
        ("busi", "busi", 671, 689, 0, {"": 671}),
        ("cvc-clinicdb", "cvc-clinicdb", 612, 612, 29, {"": 612}),
        ("glas", "glas", 165, 165, 0, {"train": 85, "test": 80}),
        ("ph2", "ph2", 200, 200, 0, {"": 200}),
    ],
)
def test_real_datasets_are_recognised_and_complete(
    touch: Callable[..., Path], archive: str, layout: str, cases: int, masks: int, groups: int, splits: dict[str, int]
) -> None:
    path = DATA / f"{archive}.zip"
    if not path.is_file():
        pytest.skip("real datasets not beside the checkout")
    with zipfile.ZipFile(path) as source:
        root = touch(*(name for name, _, _ in json.loads(source.read("MANIFEST.json"))))
    name, start = find_layout(root)
    assert name == layout
    found, problems = LAYOUTS[name].find_cases(start)
    assert problems == []
    assert (len(found), sum(len(case.masks) for case in found)) == (cases, masks)
    assert len({case.case for case in found}) == cases
    assert len({case.group for case in found} - {""}) == groups
    assert Counter(case.split for case in found) == splits
