"""`ukan check`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ukan_cli import show

if TYPE_CHECKING:
    from ukan.data.index import Index

Folder = Annotated[Path, typer.Argument(help="The dataset as it was downloaded.")]
Layout = Annotated[str | None, typer.Option(help="Read it as this layout instead of recognising it.")]
Dataset = Annotated[str | None, typer.Option(help="Its name here; the folder's name by default.")]


def check(folder: Folder, layout: Layout = None, dataset: Dataset = None) -> None:
    """What is in a folder, and everything wrong with it, in one table.

    Exits with 4 where files cannot be used.
    """
    from ukan.segment.prepare import check_folder

    with show.bar("reading") as tell:
        index, place = check_folder(folder, layout=layout, dataset=dataset, on_progress=tell)
    print_found(index)
    print_problems(index)
    print(f"\nwritten: {place.index}, {place.problems}")
    if index.errors:
        raise typer.Exit(4)
    print(f"next: ukan plan {shell_word(folder)}")


def print_found(index: "Index") -> None:
    f = index.fingerprint
    print(f"{index.root}: layout {index.layout}, dataset {index.dataset}")
    if f is None:
        print("no usable case")
        return
    labels = ", ".join(f"{count} {label}" for label, count in f.labels.items() if label)
    print(f"  {f.cases} cases{f' ({labels})' if labels else ''} in {f.groups} groups, {f.empty} with an empty mask")
    width, height = (f"{low} to {high} (median {middle})" for low, middle, high in (f.width, f.height))
    print(f"  width {width}, height {height}")
    print(f"  {f.colour} in colour; objects cover {f.lesion_share[1]:.1%} of the image (median); {index.mask_rule_because}")


def print_problems(index: "Index", examples: int = 3) -> None:
    """One line a kind of problem, with examples; all of them are in problems.csv."""
    if not index.problems:
        print("  no problems found")
        return
    kinds: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for problem in index.problems:
        kinds.setdefault((problem.level, problem.kind), []).append((problem.where, problem.what, problem.do))
    rows = []
    for (level, kind), found in kinds.items():
        shown = "; ".join(f"{where} ({what})" for where, what, _ in found[:examples])
        more = f"; ... {len(found) - examples} more" if len(found) > examples else ""
        rows.append((level, kind, len(found), shown + more, found[0][2]))
    print()
    show.table(("level", "what", "count", "where", "so"), rows)


def shell_word(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
