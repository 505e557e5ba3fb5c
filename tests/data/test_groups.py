"""Groups as a person gives them: a pattern or a table says them for every case, or is refused with all that is wrong."""

from pathlib import Path

import pytest

from ukan.data.groups import groups_by_regex, groups_by_table
from ukan.errors import DataError, UserError
from ukan.plan import Case

CASES = [Case(f"p{p}_{k}", f"site{p % 2}/images/p{p}_{k}.png", ()) for p in range(3) for k in range(2)]


def table(text: str) -> Path:
    path = Path("groups.csv")
    path.write_text(text, encoding="utf-8")
    return path


def test_the_first_bracket_of_a_pattern_names_the_group() -> None:
    assert groups_by_regex(r"^(p\d)_", CASES) == {case.case: case.case[:2] for case in CASES}
    assert groups_by_regex(r"_(\d)$", CASES) == {case.case: case.case[-1] for case in CASES}


def test_where_the_name_does_not_match_the_path_may() -> None:
    assert groups_by_regex(r"(site\d)/", CASES) == {case.case: case.image[:5] for case in CASES}


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("p(", "not a regular expression"),
        ("p.", "put brackets"),
        (r"(p[01])_", "no match in 2 of 6 cases: p2_0, p2_1"),
        ("(x)", "no match in 6 of 6 cases: p0_0, p0_1, p1_0, p1_1, p2_0, ... 1 more"),
        ("(p)", "all 6 cases are in one group, 'p'"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_with_what_it_does(pattern: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        groups_by_regex(pattern, CASES)
    assert told in str(error.value) and f"--group-regex {pattern}" in str(error.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_names_cases_by_case_file_name_or_path(delimiter: str) -> None:
    names = ["p0_0", "p0_1.png", "site1/images/p1_0.png", "p1_1", "p2_0", "p2_1"]
    rows = [("Case", "sex", "Group"), *((name, "f", f"patient {i // 2}") for i, name in enumerate(names))]
    found = groups_by_table(table("\ufeff" + "\n".join(delimiter.join(row) for row in rows)), CASES)
    assert found == {case.case: f"patient {case.case[1]}" for case in CASES}


def test_all_that_is_wrong_with_a_table_is_told_at_once() -> None:
    twins = [*CASES, Case("a_x", "a/x.png", ()), Case("b_x", "b/x.png", ())]
    text = "case,group\np0_0,a\np0_0,b\np0_1,\nzebra,c\np1_0,a\nx.png,d\n"
    with pytest.raises(DataError) as error:
        groups_by_table(table(text), twins)
    message = str(error.value)
    assert "no group for 6 (p0_1, p1_1, p2_0, p2_1, a_x, ... 1 more)" in message
    assert "no such case: 1 (zebra)" in message
    assert "named twice: 1 (p0_0)" in message
    assert "name of several cases: 1 (x.png)" in message


def test_files_that_cannot_be_used_may_be_in_the_table() -> None:
    text = "case,group\n" + "".join(f"{case.case},g{i}\n" for i, case in enumerate(CASES)) + "broken,g\nlost.png,g\n"
    assert groups_by_table(table(text), CASES, ["images/broken.png", "masks/lost.png"]).keys() == {c.case for c in CASES}


@pytest.mark.parametrize("text", ["", "name,patient\na,b\n", "case\na\n"])
def test_a_file_without_the_two_columns_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(DataError, match="needs the columns case and group"):
        groups_by_table(table(text), CASES)


def test_a_missing_or_unreadable_file_is_refused() -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: cannot be read"):
        groups_by_table(Path("nowhere.csv"), CASES)
    Path("binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"binary\.csv: cannot be read"):
        groups_by_table(Path("binary.csv"), CASES)
