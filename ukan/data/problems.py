"""A problem found in a dataset: collected, never met one at a time."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ukan.paths import written_whole

Level = Literal["error", "warning", "note"]


class Problem(NamedTuple):
    level: Level
    """An error keeps a case from being used; a warning wants a look; a note says what was done."""
    kind: str
    """A few words, the same for every problem of this kind."""
    where: str
    """Files or cases concerned, relative to the folder."""
    what: str
    do: str


def by_gravity(problems: Sequence[Problem]) -> list[Problem]:
    """Errors first; those of a kind together."""
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(problems, key=lambda p: (order[p.level], p.kind, p.where))


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Problem._fields)
        writer.writerows(problems)
