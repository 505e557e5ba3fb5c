"""A problem found in a dataset: collected, never met one at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ukan.paths import written_whole


class Problem(NamedTuple):
    level: Literal["error", "warning", "note"]
    """An error keeps a case from being used; a warning wants a look; a note says what was done."""
    kind: str
    """A few words, the same for every problem of this kind."""
    where: str
    """Files or cases concerned, relative to the folder."""
    what: str
    do: str


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    import csv

    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Problem._fields)
        writer.writerows(problems)
