"""`ukan doctor` recognises what keeps training from starting, and says what to type."""

import importlib
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan import doctor, runtime


def found(what: str, device: str | None = None) -> doctor.Finding:
    return next(finding for finding in doctor.examine(device) if finding.what.startswith(what))


def test_a_machine_that_runs_the_tests_can_train() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0 and "training can start" in result.output


def test_torch_and_torchvision_of_different_origin_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def mismatched(name: str, *rest: str):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", mismatched)
    finding = found("torchvision")
    assert finding.state == "missing" and "is no match for torch" in finding.found
    assert finding.do == "pip install --force-reinstall torch torchvision"
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2 and "training cannot start" in result.output


def test_an_absent_torch_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def absent(name: str, *rest: str):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    assert found("torch") == doctor.Finding("missing", "torch", "No module named 'torch'", "pip install torch torchvision")


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "monai" else "1.0")
    assert found("packages") == doctor.Finding("missing", "packages", "not installed: monai", "pip install monai")


def test_a_device_that_is_not_there_is_no_ok() -> None:
    assert found("device", "cuda:97").state == "missing"
    assert found("device", "cpu").state == "ok"


def test_cores_are_those_the_cgroup_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(runtime, "_read", lambda path: "400000 100000" if path.endswith("cpu.max") else "")
    assert runtime.usable_cores() == 4
    monkeypatch.setattr(runtime, "_read", lambda path: "max 100000" if path.endswith("cpu.max") else "")
    assert runtime.usable_cores() == 16
    monkeypatch.setattr(
        runtime,
        "_read",
        lambda path: {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}.get(path.rsplit("/", 1)[-1], ""),
    )
    assert runtime.usable_cores() == 1, "half a core is still one thread"


def test_memory_is_what_the_cgroup_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 2**30))
    limits = {"memory.max": str(8 * 2**30), "memory.current": str(3 * 2**30)}
    monkeypatch.setattr(runtime, "_read", lambda path: limits.get(path.rsplit("/", 1)[-1], ""))
    assert runtime.usable_memory_gib() == pytest.approx(5)


def test_precision_is_decided_by_the_device() -> None:
    import torch

    from ukan.errors import UserError

    assert runtime.resolve_precision("auto", torch.device("cpu")) == "fp32"
    assert runtime.resolve_precision("bf16", torch.device("cpu")) == "bf16"
    with pytest.raises(UserError, match="needs a CUDA device"):
        runtime.resolve_precision("fp16", torch.device("cpu"))
