"""`ukan check` and `ukan plan` on folders with faults: what is printed, what is written, what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.data.duplicates import load_thumbnails
from ukan.data.index import file_sha256, load_index
from ukan.errors import UserError
from ukan.plan import Plan

Write = Callable[..., Path]


def ukan(*words: object, code: int = 0) -> str:
    """What a command prints; an error meant for people is given as the line that main() prints."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        assert result.exception.exit_code == code, result.exception
        return str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def raw(write_dataset: Write) -> Path:
    return write_dataset(Path("data"), count=12)


def spoil(raw: Path) -> None:
    (raw / "images/c000.png").write_bytes(b"")
    (raw / "masks/c001.png").unlink()


def test_check_writes_all_it_found_and_says_where(raw: Path) -> None:
    out = ukan("check", raw)
    place = Path("plans/data")
    assert {path.name for path in place.iterdir()} == {
        *("index.csv", "problems.csv", "fingerprint.json", "thumbnails.npz", "check.html", "source.json")
    }
    for told in ("12 cases", "every case is a group of its own", "everything above 0", "check.html", "ukan plan data"):
        assert told in out
    assert [case.case for case in load_index(place / "index.csv")] == load_thumbnails(place / "thumbnails.npz").names
    fingerprint = json.loads((place / "fingerprint.json").read_text(encoding="utf-8"))
    assert fingerprint["index_sha256"] == file_sha256(place / "index.csv")


def test_errors_end_with_4_and_skip_bad_leaves_them_out_and_records_it(raw: Path) -> None:
    spoil(raw)
    out = ukan("check", raw, code=4)
    assert "unreadable image" in out and "no mask" in out and "next:" not in out
    message = ukan("plan", raw, code=4)
    assert "2 problem(s)" in message and "--skip-bad" in message
    assert not Path("plans/data/ukan.yaml").exists()
    assert "left out: 2 files" in ukan("check", raw, "--skip-bad")
    assert "left out: 2 files" in ukan("plan", raw, "--skip-bad", "--preset", "smoke")
    plan = Plan.load(Path("plans/data/ukan.yaml"))
    assert plan.data.left_out == ("images/c000.png", "images/c001.png") and plan.preset == "smoke"
    with Path("plans/data/problems.csv").open(newline="") as file:
        told = {row["where"]: row["do"] for row in csv.DictReader(file)}
    assert told.keys() == set(plan.data.left_out) and all("left out" in do for do in told.values())
    folds = json.loads(Path("plans/data/ukan.splits.json").read_text(encoding="utf-8"))["folds"]
    assert sorted(name for fold in folds for name in fold["val"]) == [f"c{i:03}" for i in range(2, 12)]


def test_groups_by_pattern_or_table_are_kept_together_and_recorded(raw: Path) -> None:
    assert "2 groups, by --group-regex" in ukan("check", raw, "--group-regex", r"c(\d\d)")
    Path("groups.csv").write_text("case;group\n" + "".join(f"c{i:03}.png;patient {i // 3}\n" for i in range(12)))
    out = ukan("plan", raw, "--groups", "groups.csv", "--preset", "smoke")
    assert "4 groups, by --groups groups.csv" in out
    assert Plan.load(Path("plans/data/ukan.yaml")).data.grouped_by == "--groups groups.csv"
    for fold in json.loads(Path("plans/data/ukan.splits.json").read_text(encoding="utf-8"))["folds"]:
        assert not {int(name[1:]) // 3 for name in fold["train"]} & {int(name[1:]) // 3 for name in fold["val"]}
    assert "no match in 12 of 12" in ukan("check", raw, "--group-regex", "(z)", code=2)
    Path("groups.csv").write_text("case,group\nc000,a\nx,b\n")
    message = ukan("check", raw, "--groups", "groups.csv", code=4)
    assert "no group for 11" in message and "no such case: 1 (x)" in message


def test_what_check_was_told_stands_in_the_command_that_comes_next(raw: Path) -> None:
    spoil(raw)
    out = ukan("check", raw, "--dataset", "my set", "--layout", "folders", "--skip-bad", "--group-regex", "^c(...)")
    assert "next: ukan plan data --layout folders --dataset 'my set' --group-regex '^c(...)' --skip-bad" in out


def test_a_mask_rule_set_by_hand_reaches_index_and_plan(raw: Path) -> None:
    ukan("plan", raw, "--preset", "smoke", "--set", "data.label_values=[255]")
    data = Plan.load(Path("plans/data/ukan.yaml")).data
    assert (data.mask_rule, data.target, data.label_values, data.classes) == ("labels", "multiclass", (255,), ("class_255",))
    assert "values 255 where 1 are expected" in ukan("plan", raw, "--set", "data.label_values=[1]", code=4)
    assert "a list of whole numbers" in ukan("plan", raw, "--set", "data.label_values=1", code=2)
    assert "'labels'" in ukan("plan", raw, "--set", "data.mask_rule=label", code=2)


def test_a_folder_that_is_no_dataset_is_answered_with_the_tree_found_and_the_tree_expected() -> None:
    Path("data/stuff").mkdir(parents=True)
    Path("data/stuff/notes.txt").write_text("x")
    message = ukan("check", "data", code=4)
    assert "stuff/" in message and "images/" in message and "masks/" in message and message.count("\n") > 3
