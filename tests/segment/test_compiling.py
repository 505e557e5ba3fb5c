"""When KAN layers are compiled: where it pays, never against the plan, and never in silence."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ukan.errors import UserError
from ukan.nn.kan import KANLinear, compiler_problem
from ukan.plan import DataPlan, Plan, TrainPlan
from ukan.stage import train as stage


def make_plan(choice: str, steps: int = 10) -> Plan:
    train = TrainPlan(epochs=steps // 10, batch_size=8, compile=choice)  # type: ignore[arg-type]
    return Plan(name="made", data=DataPlan(dataset="made", layout="folders", index_sha256=""), train=train)


def compiles(choice: str, steps: int, said: list[str], model: nn.Module | None = None) -> bool:
    accelerator = SimpleNamespace(device=torch.device("cpu"), print=said.append)
    return stage._compiles(model or nn.Sequential(KANLinear(2, 2)), make_plan(choice, steps), 80, accelerator)


@pytest.mark.parametrize(
    ("choice", "steps", "wanted"), [("auto", 990, False), ("auto", 1000, True), ("on", 10, True), ("off", 9000, False)]
)
def test_long_trainings_compile_and_short_ones_need_not_wait(
    monkeypatch: pytest.MonkeyPatch, choice: str, steps: int, wanted: bool
) -> None:
    monkeypatch.setattr(stage, "compiler_problem", lambda layer: None)
    assert compiles(choice, steps, []) == wanted
    assert not compiles(choice, steps, [], nn.Sequential(nn.Linear(2, 2)))


def test_where_compiling_fails_auto_says_so_and_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "compiler_problem", lambda layer: "no working C++ compiler")
    said: list[str] = []
    assert not compiles("auto", 1000, said)
    assert said == ["KAN layers are not compiled (no working C++ compiler): slower, with the same result to rounding"]
    with pytest.raises(UserError, match="train.compile=on: it cannot be done on cpu .*set train.compile=off"):
        compiles("on", 10, [])


def test_a_tool_chain_that_does_not_work_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from ukan.nn import kan as room

    def broken(*given: object) -> object:
        raise RuntimeError("\nno compiler here\nand much more")

    broken.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(room, "_maker", broken)
    assert compiler_problem(KANLinear(2, 2)) == "no compiler here"


def test_a_run_may_go_on_where_there_is_no_compiler() -> None:
    assert not make_plan("on").difference(make_plan("off"))
