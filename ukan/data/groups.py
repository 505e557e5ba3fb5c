"""Groups as a person knows them: from the names of the cases by a pattern, or from a table."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ukan.errors import DataError, UserError
from ukan.imaging import stem_of
from ukan.plan import Case

_SHOWN = 5


def groups_by_regex(pattern: str, cases: Sequence[Case]) -> dict[str, str]:
    """{case: group}: the first group of the pattern's match in a case's name, or else in its image's path.

    Raises UserError where the pattern is none, does not match every case, or gives all of them one group.
    """
    option = f"--group-regex {pattern}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{option}: not a regular expression ({error})") from error
    if not compiled.groups:
        raise UserError(f"{option}: put brackets around the part that names the group, for example '^(.+)_'")
    matches = {case.case: compiled.search(case.case) or compiled.search(case.image) for case in cases}
    if missed := [name for name, match in matches.items() if match is None]:
        raise UserError(f"{option}: no match in {len(missed)} of {len(cases)} cases: {_listed(missed)}")
    groups = {name: match[1] or "" for name, match in matches.items() if match}
    if len(cases) > 1 and len(set(groups.values())) == 1:
        raise UserError(f"{option}: all {len(cases)} cases are in one group, {next(iter(groups.values()))!r}")
    return groups


def groups_by_table(path: Path, cases: Sequence[Case], others: Iterable[str] = ()) -> dict[str, str]:
    """{case: group} from a CSV file with the columns case and group; a case goes by its name or its image's file name.

    `others` are files known not to be usable; the table may name them. Raises DataError where the table is none, or misses
    cases, names unknown ones or one twice: all at once.
    """
    rows = _read_table(path)
    named: dict[str, set[str]] = {}
    for case in cases:
        image = PurePosixPath(case.image)
        for name in {case.case, case.image, image.name, stem_of(Path(image.name))}:
            named.setdefault(name, set()).add(case.case)
    ignored = {name for file in others for name in (file, PurePosixPath(file).name, stem_of(Path(file)))}
    groups: dict[str, str] = {}
    times = Counter[str]()
    unknown, unclear = [], []
    for name, group in rows:
        # A case's own name comes first: "a" is the case a, although there may also be x/a.png, whose case is x_a.
        fitting = {name} if name in named.get(name, ()) else named.get(name, set())
        if len(fitting) == 1:
            case_name = next(iter(fitting))
            times[case_name] += 1
            if group:
                groups[case_name] = group
        elif fitting:
            unclear.append(name)
        elif name not in ignored:
            unknown.append(name)
    missing = [case.case for case in cases if case.case not in groups]
    twice = [name for name, count in times.items() if count > 1]
    wrong = (
        ("no group for", missing),
        ("no such case:", unknown),
        ("named twice:", twice),
        ("name of several cases:", unclear),
    )
    if told := [f"{what} {len(names)} ({_listed(names)})" for what, names in wrong if names]:
        raise DataError(f"{path}: {'; '.join(told)}")
    return groups


def _read_table(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        do = "give a CSV file with the columns case and group"
        raise DataError(f"--groups {path}: cannot be read ({error}); {do}") from error
    head = lines[0] if lines else ""
    reader = csv.DictReader(lines, delimiter=max(",;\t", key=head.count), skipinitialspace=True)
    columns = {column.strip().lower(): column for column in reader.fieldnames or () if column}
    if not {"case", "group"} <= columns.keys():
        found = ", ".join(columns) or "none"
        raise DataError(f"--groups {path}: needs the columns case and group in its first line; found: {found}")
    return [((row[columns["case"]] or "").strip(), (row[columns["group"]] or "").strip()) for row in reader]


def _listed(names: Sequence[str]) -> str:
    more = f", ... {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
