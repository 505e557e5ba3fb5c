"""What to say where no layout fits: the tree found, what nearly fits and what it lacks, the trees expected."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ukan.data.layouts.pairing import below, files_in, folders_in, inside, looks_like_mask, plain
from ukan.imaging import stem_of

if TYPE_CHECKING:
    from ukan.data.layouts import Layout


def no_layout(root: Path, layouts: Mapping[str, "Layout"], fitting: str = "") -> str:
    """The answer for a folder none of `layouts` fits; `fitting` names one that was not asked for and does."""
    near = {name: lacks for name, layout in layouts.items() if (lacks := _lacks(root, layout.NEEDS))}
    hints = [f"nearly layout {name}: {lacks}" for name, lacks in near.items()]
    if fitting:
        hints = [f"it fits layout {fitting}: leave out --layout"]
    elif not near and (hint := _loose_images(root)):
        hints = [hint]
    wanted = {name: layouts[name] for name in near or layouts}
    expected = [
        line for name, layout in wanted.items() for line in (f"  layout {name}:", *_indented(layout.TREE.split("\n")))
    ]
    found = [f"  {line}" for line in _tree(root)] or ["  (nothing)"]
    head = f"{root}: no known dataset layout{'; ' if hints else '. '}{'; '.join(hints)}{'. ' if hints else ''}Found:"
    return "\n".join([head, *found, "Expected:" if len(wanted) == 1 else "Expected one of:", *expected])


def misspelt(root: Path, layouts: Iterable["Layout"]) -> bool:
    """Whether a folder that a layout lacks may be there under a name slightly wrong: images/ and maks/."""
    inner = folders_in(root)
    if len(inner) == 1 and misspelt(inner[0], layouts := [*layouts]):
        return True
    return any(
        _meant(root, names[0])
        for layout in layouts
        if _lacks(root, layout.NEEDS)
        for names in layout.NEEDS
        if not any(_folder(root, name) for name in names)
    )


def _lacks(root: Path, needs: Sequence[Sequence[str]]) -> str:
    """Which of the folders a layout needs are missing; "" unless some are there."""
    there = [next((folder for name in names if (folder := _folder(root, name))), None) for names in needs]
    if None not in there or not any(there):
        return ""
    pairs = zip(needs, there, strict=True)
    return ", ".join(_there(root, folder) if folder else _missing(root, names[0]) for names, folder in pairs)


def _folder(root: Path, name: str) -> Path | None:
    """A folder below by its plain name, at any depth ("Train_Folder/img")."""
    place: Path | None = root
    for part in name.split("/"):
        place = inside(place, plain(part)) if place else None
    return place


def _there(root: Path, folder: Path) -> str:
    return f"{below(root, folder)}/ is there"


def _missing(root: Path, name: str) -> str:
    meant = _meant(root, name)
    return f"{name}/ is missing" + (f" (is it {meant}/?)" if meant else "")


def _meant(root: Path, name: str) -> str:
    """The folder there whose name is nearly this one; "" where there is none."""
    parent, _, last = name.rpartition("/")
    place = _folder(root, parent) if parent else root
    beside = {plain(path.name): below(root, path) for path in folders_in(place)} if place else {}
    close = get_close_matches(plain(last), beside, n=1, cutoff=0.75)
    return beside[close[0]] if close else ""


def _loose_images(root: Path) -> str:
    names = files_in(root)
    if not names:
        return ""
    if any(looks_like_mask(stem_of(Path(name))) for name in names):
        return f"images and masks lie together ({len(names)} files): move them to images/ and masks/"
    what = f"{len(names)} images and no masks"
    return (
        f"{what}: move the images to images/ and their masks, by the same names, to masks/ (to segment them: ukan predict)"
    )


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


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
