"""Resuming from checkpoints that are damaged, missing or of another version."""

import pickle
import random
from pathlib import Path

import pytest
import torch
from torch import nn

from ukan.errors import DataError, OutOfMemory
from ukan.training.checkpoint import TrainingState, load_resume, remove_resume, save_resume


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "resume.pt"


def save(path: Path, step: int) -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, step)
    save_resume(path, {"model": model}, TrainingState(step=step))


def load(path: Path) -> int:
    """The step resumed from, after a look at whether the weights are that step's."""
    model = nn.Linear(2, 2)
    step = load_resume(path, {"model": model}).step
    assert torch.equal(model.weight, torch.full((2, 2), float(step)))
    return step


def test_where_nothing_was_saved_a_training_starts_at_step_0(path: Path) -> None:
    assert load_resume(path, {"model": nn.Linear(2, 2)}) == TrainingState()


def test_a_truncated_checkpoint_is_refused_in_one_line_that_says_what_to_remove(path: Path) -> None:
    save(path, 3)
    whole = path.read_bytes()
    for length in [*range(12), *range(12, len(whole), 97), len(whole) - 22, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(
            DataError, match=r"resume\.pt: cannot be resumed from \(.+\).* remove .* to begin this fold anew"
        ) as caught:
            load_resume(path, {"model": nn.Linear(2, 2)})
        assert "\n" not in str(caught.value)


def test_a_single_changed_bit_is_refused_or_harmless(path: Path) -> None:
    save(path, 3)
    whole, draw = path.read_bytes(), random.Random(0)
    state = torch.get_rng_state()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        torch.manual_seed(0)
        try:
            assert load(path) == 3 and torch.equal(torch.get_rng_state(), state)
        except DataError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    "content",
    [
        {"state": {"step": 3, "colour": "red"}},
        {"state": {"step": 3}, "parts": {}},
        {"parts": {"model": nn.Linear(3, 3).state_dict()}},
        {"parts": {"model": None}},
        [],
    ],
)
def test_a_checkpoint_of_another_version_is_refused(path: Path, content: object) -> None:
    usual = {"state": {"step": 3}, "parts": {"model": nn.Linear(2, 2).state_dict()}}
    usual |= {"rng_cpu": torch.get_rng_state(), "rng_cuda": []}
    torch.save(usual | content if isinstance(content, dict) else content, path)
    with pytest.raises(DataError, match="resume.pt: cannot be resumed from"):
        load_resume(path, {"model": nn.Linear(2, 2)})


def test_a_checkpoint_that_would_run_code_is_refused(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (path.parent / "ran",))

    torch.save({"state": Evil()}, path)
    with pytest.raises(DataError):
        load_resume(path, {})
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError):
        load_resume(path, {})
    assert not (path.parent / "ran").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(path: Path, capsys) -> None:
    for step in (1, 2, 3):
        save(path, step)
    assert load(path) == 3 and not capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:1000])
    assert load(path) == 2
    told = capsys.readouterr().err
    assert str(path) in told and "step 2" in told and told.count("\n") == 1


def test_a_kill_between_two_checkpoints_leaves_one(path: Path) -> None:
    save(path, 1)
    save(path, 2)
    path.unlink()
    assert load(path) == 1


def test_two_damaged_checkpoints_are_both_named(path: Path) -> None:
    save(path, 1)
    save(path, 2)
    files = sorted(path.parent.iterdir())
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match="remove .* to begin this fold anew") as caught:
        load_resume(path, {"model": nn.Linear(2, 2)})
    assert all(str(file) in str(caught.value) for file in files)
    remove_resume(path)
    assert not list(path.parent.iterdir())


def test_no_memory_to_resume_does_not_blame_the_file(path: Path) -> None:
    class Full(nn.Linear):
        def load_state_dict(self, *_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    save(path, 3)
    with pytest.raises(OutOfMemory, match="free some and run the same command again"):
        load_resume(path, {"model": Full(2, 2)})
