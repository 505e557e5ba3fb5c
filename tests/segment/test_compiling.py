"""When KAN layers are compiled: where it pays, never against the plan, and never in silence."""

from types import SimpleNamespace

import pytest
import torch

from ukan.errors import UserError
from ukan.plan import DataPlan, Plan, TrainPlan
from ukan.segment import train as stage


def compiles(choice: str, steps: int, said: list[str] | None = None) -> bool:
    plan = Plan(
        name="made",
        data=DataPlan(dataset="made", layout="folders", index_sha256=""),
        train=TrainPlan(epochs=steps // 10, batch_size=8, compile=choice),
    )
    accelerator = SimpleNamespace(device=torch.device("cpu"), print=(said if said is not None else []).append)
    return stage._compiles(plan, 80, accelerator)


@pytest.mark.parametrize(
    ("choice", "steps", "wanted"), [("auto", 990, False), ("auto", 1000, True), ("on", 10, True), ("off", 9000, False)]
)
def test_long_trainings_compile_and_short_ones_need_not_wait(
    monkeypatch: pytest.MonkeyPatch, choice: str, steps: int, wanted: bool
) -> None:
    monkeypatch.setattr(stage, "find_compiler", lambda device: True)
    assert compiles(choice, steps) == wanted


def test_without_a_compiler_auto_says_so_and_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "find_compiler", lambda device: False)
    said: list[str] = []
    assert not compiles("auto", 1000, said)
    assert "no compiler for cpu" in said[0] and "same result" in said[0]
    with pytest.raises(UserError, match="train.compile=on: no compiler for cpu .*set train.compile=off"):
        compiles("on", 10)
