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
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out cases that have errors, and record them.")]
GroupRegex = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN", help="What its first bracket finds in a case's name or path is the case's group, e.g. '^(.+)_'."
    ),
]
Groups = Annotated[Path | None, typer.Option(metavar="FILE", help="A CSV file with the columns case and group.")]


def check(
    folder: Folder,
    layout: Layout = None,
    dataset: Dataset = None,
    skip_bad: SkipBad = False,
    group_regex: GroupRegex = None,
    groups: Groups = None,
) -> None:
    """What is in a folder, and everything wrong with it, in one table and on one page with pictures.

    Exits with 4 where files cannot be used.
    """
    from ukan.report.check_page import write_check_page
    from ukan.stage.prepare import check_folder

    with show.bar("reading") as tell:
        index, place = check_folder(
            folder,
            layout=layout,
            dataset=dataset,
            skip_bad=skip_bad,
            group_regex=group_regex,
            groups=groups,
            on_progress=tell,
        )
    write_check_page(index, place.check_page)
    print_found(index)
    print_problems(index)
    print(f"\nwritten: {place.check_page}, {place.problems}, {place.index}")
    if index.errors:
        raise typer.Exit(4)
    given = {"--layout": layout, "--dataset": dataset, "--group-regex": group_regex, "--groups": groups}
    same = "".join(f" {option} {shell_word(value)}" for option, value in given.items() if value is not None)
    same += " --skip-bad" * skip_bad
    masked = index.fingerprint is None or index.fingerprint.mask_values
    print(f"next: ukan plan {shell_word(folder)}{same}{'' if masked else ' --task diffuse'}")


def print_found(index: "Index") -> None:
    f = index.fingerprint
    print(f"{index.root}: layout {index.layout}, dataset {index.dataset}")
    if f is None:
        print("no usable case")
        return
    labels = ", ".join(f"{count} {label}" for label, count in f.labels.items() if label)
    test = f", {f.test} more in the official test part" if f.test else ""
    masks = f"{f.empty} with an empty mask" if f.mask_values else "no masks"
    print(f"  {f.cases - f.test} cases{test}{f' ({labels})' if labels else ''}; {masks}")
    print(f"  {f.groups} groups, by {f.grouped_by}" if f.groups < f.cases - f.test else "  every case is a group of its own")
    width, height = (
        f"{low} to {high} (median {middle})" if low < high else f"{low}" for low, middle, high in (f.width, f.height)
    )
    print(f"  width {width}, height {height}, {f.channels} channels; {f.colour} in colour, {f.deep} of more than 8 bits")
    if f.slices > 1 or f.spacing_mm:
        spacing = " x ".join(f"{side:g}" for side in f.spacing_mm) + " mm" if f.spacing_mm else "unknown"
        print(f"  up to {f.slices} slices; median spacing (slices, rows, columns) {spacing}")
    if f.mask_values:
        print(f"  objects cover {f.lesion_share[1]:.1%} of the image (median)")
        print(f"  masks: rule {f.mask_rule}, {index.mask_rule_because}")
    if f.classes != ("foreground",):
        named = zip(f.classes, f.label_values, strict=True) if f.label_values else ((name, "") for name in f.classes)
        shown = ", ".join(f"{name} ({value})" if value else name for name, value in named)
        print(f"  {f.target}: {shown}")
    if index.left_out:
        print(f"  left out: {len(index.left_out)} files with errors (--skip-bad)")


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


def shell_word(word: Path | str) -> str:
    import shlex

    return shlex.quote(str(word))
