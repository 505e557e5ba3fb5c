"""The selective scan is its recurrence: against a scalar loop in float64, and every backend against that."""

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ukan.nn import scan
from ukan.nn.scan import check_backend, selective_scan

Inputs = tuple[Tensor, ...]


def inputs(steps: int, batch: int = 2, groups: int = 2, channels: int = 3, states: int = 4, seed: int = 0) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u, width = (draw(steps, batch, groups, channels) for _ in range(2))
    A = -torch.exp(draw(groups, channels, states))
    B, C = (draw(steps, batch, groups, states) for _ in range(2))
    return u, F.softplus(width - 1), A, B, C, draw(groups, channels)


def by_scalars(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The formula, number by number."""
    y = torch.zeros_like(u)
    for b, g, d in torch.cartesian_prod(*(torch.arange(n) for n in u.shape[1:])).tolist():
        h = [0.0] * A.shape[-1]
        for t in range(len(u)):
            width, x = delta[t, b, g, d].item(), u[t, b, g, d].item()
            for n in range(len(h)):
                h[n] = torch.exp(width * A[g, d, n]).item() * h[n] + width * x * B[t, b, g, n].item()
            y[t, b, g, d] = sum(h[n] * C[t, b, g, n].item() for n in range(len(h))) + D[g, d].item() * x
    return y


def gradients(given: Inputs, backend: str = "auto", grad: Tensor | None = None) -> list[Tensor]:
    given = tuple(t.detach().clone().requires_grad_() for t in given)
    y = selective_scan(*given, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, given, torch.cos(torch.arange(y.numel()).view(y.shape)).to(y.dtype))]


@pytest.fixture(params=[1, 3, 1 << 19], ids=["blocks of one step", "of three", "one block"])
def blocks(request: Any, monkeypatch: Any) -> None:
    of_a_step = 2 * 2 * 3 * 4 * 4
    monkeypatch.setitem(scan._BLOCK_BYTES, "cpu", request.param * of_a_step)


@pytest.mark.parametrize("backend", ["loop", "torch"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_outputs_are_the_recurrence(backend: str, steps: int, blocks: None) -> None:
    given = inputs(steps)
    torch.testing.assert_close(selective_scan(*given, backend=backend), by_scalars(*given), rtol=1e-12, atol=1e-12)


def test_images_worked_on_apart_are_the_same(monkeypatch: Any) -> None:
    given = inputs(40, 5)
    whole = gradients(given)
    monkeypatch.setitem(scan._BLOCK_BYTES, "cpu", 2 * scan._FEWEST_STEPS * given[2].numel() * 4)
    assert scan._tile(given[0], given[2]) == (2, 16)
    for mine, true in zip(gradients(given), whole, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_gradients_are_those_of_finite_differences(steps: int, blocks: None) -> None:
    given = tuple(t.requires_grad_() for t in inputs(steps))
    assert torch.autograd.gradcheck(lambda *g: selective_scan(*g, backend="torch"), given)


@pytest.mark.parametrize(("batch", "channels", "steps"), [(2, 64, 256), (1, 32, 1024)])
def test_float32_gradients_are_those_of_the_loop_to_two_millionths(batch: int, channels: int, steps: int) -> None:
    given = inputs(steps, batch, 1, channels, 16)
    truth = gradients(given, "loop")
    found = gradients(tuple(t.float() for t in given), "torch")
    for mine, true in zip(found, truth, strict=True):
        assert (mine - true).abs().max() <= 2e-6 * true.abs().max()


def test_any_shape_is_taken_also_one_state_and_one_channel() -> None:
    for shape in ((5, 1, 1, 1, 1), (5, 3, 4, 1, 2), (33, 1, 1, 7, 1)):
        given = inputs(*shape)
        for mine, true in zip(gradients(given), gradients(given, "loop"), strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-10)


def test_sixteen_thousand_steps_of_hard_decay_stay_finite_and_right() -> None:
    """Products of decays underflow here within a few steps."""
    given = list(inputs(16_384, 1, 1, 2, 2))
    given[1] = given[1] * 30
    found = gradients(tuple(t.float() for t in given), "torch")
    for mine, true in zip(found, gradients(tuple(given), "torch"), strict=True):
        assert mine.isfinite().all()
        assert (mine - true).abs().max() <= 1e-5 * true.abs().max()
    tail = tuple(t[-12:] if len(t) == 16_384 else t for t in given)  # the state has forgotten what is further back
    torch.testing.assert_close(selective_scan(*given)[-1], by_scalars(*tail)[-1], rtol=1e-6, atol=1e-6)


def test_autocast_changes_nothing_and_halves_are_computed_in_float32() -> None:
    given = tuple(t.float() for t in inputs(50))
    plain = gradients(given)
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradients(given)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))

    halves = [t.bfloat16() for t in given]
    y = selective_scan(*halves)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, selective_scan(*(t.float() for t in halves)), rtol=0, atol=0)


def test_the_form_for_graphs_is_the_same_sum() -> None:
    for steps in (1, 2, 13, 64):
        given = inputs(steps)[:5]
        torch.testing.assert_close(scan._doubling(*given), selective_scan(*given), rtol=1e-12, atol=1e-12)


def test_torch_export_holds_no_operator_of_ours() -> None:
    class Net(torch.nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            return selective_scan(*given)

    given = inputs(9)
    program = torch.export.export(Net(), given)
    assert "ukan" not in program.graph_module.code
    torch.testing.assert_close(program.module()(*given), selective_scan(*given), rtol=1e-12, atol=1e-12)


def test_flops_are_counted_without_computing_anything() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    steps, batch, groups, channels, states = 16_384, 2, 4, 8, 16
    given = [t.to("meta") for t in inputs(1, batch, groups, channels, states)]
    given = [t.expand(steps, *t.shape[1:]) if t.dim() == 4 else t for t in given]
    counter = FlopCounterMode(display=False)
    with counter:
        assert selective_scan(*given).shape == (steps, batch, groups, channels)
    assert counter.get_total_flops() == 9 * steps * batch * groups * channels * states


@pytest.mark.parametrize(("steps", "batch", "groups", "channels"), [(4096, 1, 1, 32), (256, 8, 4, 64)])
def test_only_what_the_backward_pass_needs_is_kept(steps: int, batch: int, groups: int, channels: int) -> None:
    """Not the states of all steps, which take as much as states times the inputs."""
    given = tuple(t.float().requires_grad_() for t in inputs(steps, batch, groups, channels, 16))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        selective_scan(*given[:5])
    of_all_states = 4 * steps * batch * groups * channels * 16
    assert sum(kept.values()) < 0.3 * of_all_states


def test_second_derivatives_are_refused() -> None:
    given = tuple(t.requires_grad_() for t in inputs(4))
    (grad,) = torch.autograd.grad(selective_scan(*given).sum(), given[0], create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), given[1])


def test_shapes_that_do_not_fit_are_told() -> None:
    u, delta, A, B, C, D = inputs(5)
    with pytest.raises(ValueError, match=r"takes u, delta \(L, B, G, D\)"):
        selective_scan(u, delta[:4], A, B, C, D)


@pytest.mark.parametrize(
    ("backend", "said"), [("mamba_ssm", "pip install mamba-ssm"), ("cuda", "is one of auto, loop, torch")]
)
def test_a_backend_that_is_not_there_is_refused_before_anything_is_built(backend: str, said: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(scan, "_installed", lambda package: False)
    with pytest.raises(ValueError, match=said):
        check_backend(backend)


def test_a_backend_for_gpus_is_refused_without_one(monkeypatch: Any) -> None:
    monkeypatch.setattr(scan, "_installed", lambda package: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for backend in ("triton", "mamba_ssm"):
        with pytest.raises(ValueError, match="there is none here; take auto"):
            check_backend(backend)


@pytest.mark.parametrize("backend", ["loop", "torch", "triton", "mamba_ssm"])
def test_a_network_costs_the_same_by_every_backend(backend: str, monkeypatch: Any) -> None:
    """Measured where no kernel runs: planning for a GPU is planning all the same."""
    from ukan.models.cost import model_cost

    monkeypatch.setattr(scan, "_installed", lambda package: True)
    monkeypatch.setattr(scan, "_compiler", lambda: "cc")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sizes = {"widths": [16, 16, 16]}
    costs = [model_cost("km-unet", 3, 1, sizes | {"scan_backend": b}, (64, 64)) for b in (backend, "auto")]
    assert costs[0] == costs[1]


def test_triton_is_refused_without_the_compiler_it_builds_by(monkeypatch: Any) -> None:
    monkeypatch.setattr(scan, "_installed", lambda package: True)
    monkeypatch.setattr(scan, "_compiler", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="install gcc, or take auto"):
        check_backend("triton")


def test_tensors_on_a_cpu_are_refused_by_kernels_for_gpus() -> None:
    for backend in ("triton", "mamba_ssm"):
        with pytest.raises(ValueError, match="the tensors are on cpu; take auto"):
            selective_scan(*inputs(3), backend=backend)


def test_the_layout_of_mamba_ssm_is_served(monkeypatch: Any) -> None:
    """Its documented call, (B, D, L) and (B, G, N, L), answered by a stand-in that computes it so."""

    def selective_scan_fn(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        batch, channels, steps = u.shape
        groups = B.shape[1]
        h, y = torch.zeros(batch, channels, A.shape[1], dtype=u.dtype), []
        for t in range(steps):
            of_channel = [M[..., t].repeat_interleave(channels // groups, 1) for M in (B, C)]
            h = torch.exp(delta[..., t, None] * A) * h + (delta[..., t] * u[..., t])[..., None] * of_channel[0]
            y.append((h * of_channel[1]).sum(-1))
        return torch.stack(y, -1)

    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["mamba_ssm.ops.selective_scan_interface"].selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
    given = inputs(6)[:5]
    expected = selective_scan(*given, backend="loop")
    torch.testing.assert_close(scan._by_mamba_ssm(*given), expected, rtol=1e-10, atol=1e-10)
