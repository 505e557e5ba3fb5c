"""A disk that refuses: one line that names the file and the room left; what was there stays, nothing half-written does."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ukan.errors import DataError
from ukan.models.weights import load_weights, save_weights
from ukan.paths import write_text, written_whole
from ukan.training.checkpoint import TrainingState, load_resume, save_resume

SMALL, LARGE = nn.Linear(4, 4), nn.Linear(500, 500)


@pytest.fixture
def full_disk():
    """Files of more than 20 kB are refused by the system itself."""
    resource = pytest.importorskip("resource", reason="needs a system that can limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS: dict[str, Callable[[Path, bool], None]] = {
    "text": lambda path, large: write_text(path, "x" * (10**6 if large else 10)),
    "weights": lambda path, large: save_weights(path, LARGE if large else SMALL, {}),
    "checkpoint": lambda path, large: save_resume(path, {"model": LARGE if large else SMALL}, TrainingState(step=7)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_in_one_line_and_what_was_there_stays(kind: str, tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "file"
    WRITERS[kind](path, False)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"file: cannot be written: File too large \(\d+\.\d GiB free there\)") as caught:
        WRITERS[kind](path, True)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 4
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before_to_resume(tmp_path: Path, full_disk: None) -> None:
    save_resume(tmp_path / "resume.pt", {"model": SMALL}, TrainingState(step=3))
    with pytest.raises(DataError, match="resume.pt: cannot be written"):
        save_resume(tmp_path / "resume.pt", {"model": LARGE}, TrainingState(step=4))
    assert load_resume(tmp_path / "resume.pt", {"model": SMALL}).step == 3


def test_a_folder_that_cannot_be_made_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="runs/a/log.csv: cannot be written: Not a directory$"):
        write_text(tmp_path / "runs" / "a" / "log.csv", "")


def test_a_name_the_system_does_not_take_is_told_in_its_words(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300) / "a.png", tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match="cannot be written: File name too long"):
            write_text(path, "")
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_text_are_refused_with_the_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"scan\xff.png")
    with pytest.raises(DataError, match=r"index.csv: cannot be written: .*scan\\udcff.png.* rename"):
        write_text(tmp_path / "index.csv", f"case,image\nscan,{name}\n")
    assert not list(tmp_path.iterdir())


def test_content_reaches_the_disk_before_the_name_and_the_name_before_the_end(tmp_path: Path, monkeypatch) -> None:
    path, seen = tmp_path / "file", []
    fcntl = pytest.importorskip("fcntl", reason="needs a system whose folders can be flushed")
    really = os.fsync

    def fsync(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        writable = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR  # Windows flushes no other files
        seen.append((kind, writable, path.exists()))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(path, "x")
    assert seen == [("file", True, False), ("folder", False, True)]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_weights_that_share_memory_are_saved_each(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    save_weights(tmp_path / "w", tied, {})
    loaded = load_weights(tmp_path / "w")
    assert torch.equal(loaded["0.weight"], tied[0].weight) and torch.equal(loaded["1.weight"], tied[0].weight)
