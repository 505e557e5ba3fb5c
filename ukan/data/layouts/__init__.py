"""LAYOUTS: how datasets lie on the disk as published. A further one is one file and one line here.

Each is a module with
    TREE          the tree it expects, shown when nothing fits
    DATASET       the dataset's name, or "" to take the folder's
    EMPTY_CASES   whether cases without a lesion take part unless the plan says otherwise, with the reason
    recognises(root) -> bool
    find_cases(root) -> (cases, problems)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from ukan.data.layouts import busi, folders
from ukan.data.problems import Problem
from ukan.errors import DataError, UserError, nearest
from ukan.plan import Case


class Layout(Protocol):
    TREE: str
    DATASET: str
    EMPTY_CASES: tuple[str, str]
    recognises: Callable[[Path], bool]
    find_cases: Callable[[Path], tuple[list[Case], list[Problem]]]


LAYOUTS: dict[str, Layout] = {"busi": cast(Layout, busi), "folders": cast(Layout, folders)}


def find_layout(root: Path, asked: str | None = None) -> tuple[str, Path]:
    """The name of the layout and the folder it starts at: `root`, or the one folder inside it that fits.

    Raises DataError with the trees expected and the tree found.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder" if not root.exists() else f"{root}: a file; give the dataset's folder")
    if asked is not None and asked not in LAYOUTS:
        raise UserError(f"--layout {asked}: unknown. {nearest(asked, list(LAYOUTS))}")
    names = [asked] if asked else list(LAYOUTS)
    inside = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]
    for start in [root, *(inside if len(inside) == 1 else [])]:
        for name in names:
            if LAYOUTS[name].recognises(start):
                return name, start
    raise DataError(_no_layout(root, names))


def _no_layout(root: Path, names: Sequence[str]) -> str:
    found = [f"  {line}" for line in _tree(root)] or ["  (nothing)"]
    expected = [
        line for name in names for line in (f"  layout {name}:", *(f"    {t}" for t in LAYOUTS[name].TREE.split("\n")))
    ]
    return "\n".join([f"{root}: no known dataset layout. Found:", *found, "Expected one of:", *expected])


def _tree(root: Path, most: int = 6) -> list[str]:
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    lines = []
    for path in entries[:most]:
        if path.is_dir():
            names = sorted(p.name for p in path.iterdir())
            lines.append(f"{path.name}/  ({len(names)} entries: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
        else:
            lines.append(path.name)
    if len(entries) > most:
        lines.append(f"... and {len(entries) - most} more")
    return lines
