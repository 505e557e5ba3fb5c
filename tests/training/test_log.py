"""A log that a crash left in halves breaks neither resuming nor a report."""

import csv
from pathlib import Path

import pytest

from ukan.training.log import COLUMNS, Log, read_log


def write(path: Path, rows: int = 3) -> str:
    log = Log(path, path.with_suffix(".png"), 0)
    log.drawn_at = float("inf")  # nothing to draw
    for epoch in range(1, rows + 1):
        log.add({"epoch": epoch, "step": 10 * epoch, "loss": "0.500000", "lr": "1.000e-03", "elapsed_s": "12.5"})
    return path.read_text(encoding="utf-8")


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    write(tmp_path / "log.csv")
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == ["10", "20", "30"]
    assert read_log(tmp_path / "log.csv")[0].keys() == set(COLUMNS)


def test_a_log_cut_anywhere_can_be_read_and_written_on(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    text = write(path)
    for length in range(len(text)):
        path.write_text(text[:length])
        rows = read_log(path)
        assert [row["step"] for row in rows] == ["10", "20", "30"][: len(rows)]
        assert len(rows) >= text[:length].count("\n") - 1, "whole lines are kept"
        log = Log(path, tmp_path / "log.png", 1000)
        log.drawn_at = float("inf")
        log.add({"epoch": 4, "step": 40})
        with path.open(newline="") as file:
            assert [row["step"] for row in csv.DictReader(file)] == [row["step"] for row in rows] + ["40"]


@pytest.mark.parametrize(
    "damage",
    [b"\0\0\0\0\0\0", b"\xff\xfe\xff", b"4,40,0.5", b"4,4x,0.5,,,1e-3,,12.5", b"4,40,zero,,,1e-3,,12.5", b",,,,,,,,,,,,,,,"],
)
def test_a_line_of_rubbish_is_left_out(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(write(path).encode() + damage + b"\n")
    assert [row["step"] for row in read_log(path)] == ["10", "20", "30"]
    Log(path, tmp_path / "log.png", 20).draw()
    assert (tmp_path / "log.png").stat().st_size
