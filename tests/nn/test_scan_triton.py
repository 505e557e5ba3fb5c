"""The scan's GPU kernels: the definition where Triton interprets them, compiled for GPUs and, on one, the same there."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

NAMES = ("y", "u", "delta", "A", "B", "C")
# Steps, batch, groups, channels, states; interpreted in chunks of 4 steps, blocks of 2 channels, 2 chunks carried at once.
CASES = {
    "odd sizes": (6, 1, 4, 3, 2),
    "the states of the papers": (5, 1, 1, 2, 16),
    "whole chunks and blocks": (8, 1, 2, 2, 2),
    "one step": (1, 2, 2, 1, 3),
    "many chunks": (19, 1, 1, 2, 2),
}
# Kernels are interpreted or compiled from the moment triton is imported, hence the process of their own.
INTERPRET = """
import sys, torch
import ukan.nn.scan_triton as scan
scan._STEPS, scan._WIDTH, scan._FLAT = 4, 2, 2
found = {}
for name, (grad, *inputs) in torch.load("cases.pt").items():
    inputs = [tensor.requires_grad_() for tensor in inputs]
    y = scan.scan_by_triton(*inputs)
    found[name] = [y.detach(), *torch.autograd.grad(y, inputs, grad)]
torch.save(found, "found.pt")
"""


def made(steps: int, batch: int, groups: int, channels: int, states: int) -> list[Tensor]:
    """gy, u, delta, A, B, C: steps from a thousandth to some, so that decays are from nearly one to nothing."""
    torch.manual_seed(steps)
    gy, u, widths = torch.randn(3, steps, batch, groups, channels)
    B, C = torch.randn(2, steps, batch, groups, states)
    return [gy, u, 1e-3 + 3 * torch.sigmoid(3 * widths) ** 3, -0.1 - 16 * torch.rand(groups, channels, states), B, C]


def truth(gy: Tensor, *given: Tensor) -> list[Tensor]:
    """The definition, step by step in float64, with autograd's gradients."""
    inputs = [tensor.detach().double().requires_grad_() for tensor in given]
    u, delta, A, B, C = inputs
    state, outputs = torch.zeros(*u.shape[1:], A.shape[-1], dtype=torch.float64), []
    for t in range(len(u)):
        state = torch.exp(delta[t, ..., None] * A) * state + (delta[t] * u[t])[..., None] * B[t, :, :, None]
        outputs.append((state * C[t, :, :, None]).sum(-1))
    y = torch.stack(outputs)
    return [y.detach(), *torch.autograd.grad(y, inputs, gy.double())]


def error(found: Tensor, true: Tensor) -> float:
    """Relative to the truth's norm; absolute where that is nothing."""
    return ((found.double() - true).norm() / (true.norm() or 1)).item()


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Of each case what the kernels answer, interpreted on the CPU, and the truth."""
    folder = tmp_path_factory.mktemp("interpreted")
    cases = {name: made(*sizes) for name, sizes in CASES.items()}
    for dtype in (torch.float16, torch.bfloat16):
        gy, *inputs = made(3, 1, 1, 2, 2)
        cases[str(dtype)] = [gy, *(tensor.to(dtype) for tensor in inputs)]
    # As a network's linear layers hand them over: not contiguous.
    cases["strided"] = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in made(3, 2, 2, 2, 1)]
    torch.save(cases, folder / "cases.pt")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", INTERPRET], cwd=folder, env=environment, check=True, timeout=300)
    found = torch.load(folder / "found.pt")
    return {name: (found[name], truth(*case)) for name, case in cases.items()}


@pytest.mark.parametrize("name", [*CASES, "strided"])
def test_scan_and_all_five_gradients_are_those_of_the_definition(interpreted: Any, name: str) -> None:
    found, true = interpreted[name]
    errors = {of: error(*pair) for of, pair in zip(NAMES, zip(found, true, strict=True), strict=True)}
    assert max(errors.values()) < 2e-6, errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_scanned_in_float32(interpreted: Any, dtype: torch.dtype) -> None:
    found, true = interpreted[str(dtype)]
    assert found[0].dtype == torch.float32 and {tensor.dtype for tensor in found[1:]} == {dtype}
    assert error(found[0], true[0]) < 2e-6, "an output of halves' precision would be off by a thousandth"
    assert all(error(*pair) < torch.finfo(dtype).eps for pair in zip(found[1:], true[1:], strict=True))


def test_float64_is_refused_rather_than_rounded() -> None:
    from ukan.nn.scan_triton import scan_by_triton

    _, *inputs = made(3, 1, 1, 2, 1)
    with pytest.raises(ValueError, match="float32"):
        scan_by_triton(*(tensor.double() for tensor in inputs))


@pytest.mark.parametrize("name", ["_after", "_after_apart"])
def test_stretches_of_steps_can_be_joined_in_any_grouping(name: str) -> None:
    from ukan.nn import scan_triton

    join = getattr(scan_triton, name).fn
    parts = len(inspect.signature(join).parameters) // 2
    torch.manual_seed(0)
    first, second, third = torch.rand(3, parts, 100, dtype=torch.float64).unbind()
    left, right = join(*join(*first, *second), *third), join(*first, *join(*second, *third))
    torch.testing.assert_close(left, right, rtol=1e-14, atol=1e-14)
    decay, state = left[0], left[1] + (left[2] if parts == 3 else 0)
    step = (tensor[1] + (tensor[2] if parts == 3 else 0) for tensor in (first, second, third))
    a, b, c = step
    torch.testing.assert_close(state, (a * second[0] + b) * third[0] + c)
    torch.testing.assert_close(decay, first[0] * second[0] * third[0])


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_for_gpus_without_one(capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ukan.nn import scan_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"STEPS": scan_triton._STEPS, "WIDTH": scan_triton._WIDTH, "FLAT": scan_triton._FLAT, "ADJOINT": True}
    for kernel in (scan_triton._leave, scan_triton._carry, scan_triton._forward, scan_triton._backward):
        names = kernel.arg_names
        types = {name: "constexpr" if name in constants else "i32" if len(name) == 1 else "*fp32" for name in names}
        source = ASTSource(kernel, types, {name: constants[name] for name in names if name in constants})
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"] and compiled.metadata.shared < 48 * 1024


@pytest.mark.gpu
@pytest.mark.parametrize(
    "sizes",
    [*CASES.values(), (256, 2, 4, 320, 16), (1000, 1, 4, 65, 16), (4096, 1, 4, 64, 16), (16_384, 1, 4, 32, 16)],
)
def test_scan_and_gradients_are_the_loops_on_a_gpu_and_the_same_every_time(sizes: tuple[int, int, int, int, int]) -> None:
    from ukan.nn.scan import selective_scan
    from ukan.nn.scan_triton import scan_by_triton

    gy, *given = (tensor.cuda() for tensor in made(*sizes))

    def answers(inputs: list[Tensor], y: Tensor) -> list[Tensor]:
        return [y.detach(), *torch.autograd.grad(y, inputs, gy.to(y.dtype))]

    double = [tensor.double().requires_grad_() for tensor in given]
    true = answers(double, selective_scan(*double, backend="loop"))
    single = [tensor.requires_grad_() for tensor in given]
    found, again = (answers(single, scan_by_triton(*single)) for _ in range(2))
    errors = {of: error(*pair) for of, pair in zip(NAMES, zip(found, true, strict=True), strict=True)}
    assert max(errors.values()) < 5e-6, errors
    assert all(torch.equal(*pair) for pair in zip(found, again, strict=True))
