"""The selective scan (S6; Gu & Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", Algorithm 2).

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = sum_n C_tn h_tn + D u_t

A state of N numbers for every channel, whose decay and input are chosen step by step. `selective_scan` is the one door; what
it may run by is a `Backend`: a plain loop, which is the truth and slow; our own function for any device; a Triton kernel for
CUDA; the package mamba_ssm's kernel where it is installed. Nothing has to be built.

Our function works on blocks of steps whose states fit a cache: decays and inputs of a block are made at once, the steps run
over them in place, and outputs are one batched product. For the gradient only the state before each block is kept, the
block's states are made again, and the adjoint runs backwards the same way:

    g_t = C_t gy_t + a_{t+1} g_{t+1}  with  a_t = exp(delta_t A)

from which every gradient is a sum over a block. No division by products of decays, which underflow, takes place anywhere.
"""

import importlib.util
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# Shapes: L steps, B batch, G sequences that share an input (directions), D channels, N states, T steps of a block, K blocks.
# States lie as (..., N, D): channels are many, and neighbours in memory make all of the work run over vectors.

Backend = Literal["auto", "loop", "torch", "triton", "mamba_ssm"]
_BLOCK_BYTES = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Room of a block's states, of which the backward pass holds four kinds at a time."""
_FEWEST_STEPS = 16  # of a block, unless one image alone takes more room


def check_backend(backend: str) -> None:
    """Raises ValueError, with what to install, for a backend that this machine does not have."""
    if backend not in get_args(Backend):
        raise ValueError(f"scan_backend is one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "mamba_ssm" and not _installed("mamba_ssm"):
        raise ValueError("scan_backend=mamba_ssm: the package is not installed; pip install mamba-ssm, or take auto")
    if backend == "triton" and not _installed("triton"):
        raise ValueError("scan_backend=triton: the package is not installed; pip install triton, or take auto")
    if backend in ("triton", "mamba_ssm") and not torch.cuda.is_available():
        raise ValueError(f"scan_backend={backend} runs on CUDA GPUs, and there is none here; take auto")
    if backend == "triton" and not _compiler():
        raise ValueError(
            "scan_backend=triton: its kernels are built by a C compiler, and there is none; install gcc, or take auto"
        )


def selective_scan(
    u_LBGD: Tensor,
    delta_LBGD: Tensor,
    A_GDN: Tensor,
    B_LBGN: Tensor,
    C_LBGN: Tensor,
    D_GD: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """y_LBGD of the scan over the first dimension, from a state of zeros.

    delta: the step widths, positive. A: negative, so that states decay. D: what of the input goes straight to the output,
    None for nothing. Computed in float32, or in float64 where an input is; autocast changes nothing. Any number of steps.
    First derivatives only. backend: "auto" takes Triton's kernels for tensors on CUDA where they can be had, our function
    elsewhere; ONNX and `torch.export` get the same sums in a form that graphs can hold, whatever the backend.
    """
    shape, states = u_LBGD.shape, A_GDN.shape[-1]
    given = tuple(tuple(t.shape) for t in (delta_LBGD, A_GDN, B_LBGN, C_LBGN))
    sequences = (*shape[:3], states)
    if len(shape) != 4 or given != (tuple(shape), (*shape[2:], states), sequences, sequences):
        raise ValueError(
            f"selective_scan takes u, delta (L, B, G, D), A (G, D, N), B, C (L, B, G, N); got {tuple(shape)}, {given}"
        )
    if not len(u_LBGD):
        raise ValueError("selective_scan: no steps to go")
    kind = u_LBGD.device.type
    inputs = (u_LBGD, delta_LBGD, A_GDN, B_LBGN, C_LBGN)
    dtype = torch.float64 if torch.float64 in {t.dtype for t in inputs} else torch.float32
    with _types_as_given(kind):
        u, delta, A, B, C = (t.to(dtype) for t in inputs)
        if backend == "auto":
            backend = "triton" if dtype == torch.float32 and _triton_serves(u.device) else "torch"
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            y = _doubling(u, delta, A, B, C)
        elif kind == "meta":  # a network that is only being measured costs the same by every backend
            y, _ = _scan(u, delta, A, B, C)
        elif backend in ("triton", "mamba_ssm") and kind != "cuda":
            raise ValueError(f"scan_backend={backend} runs on CUDA GPUs, and the tensors are on {kind}; take auto")
        elif backend == "loop":
            y = _loop(u, delta, A, B, C)
        elif backend == "triton":
            from ukan.nn.scan_triton import scan_by_triton

            y = scan_by_triton(u, delta, A, B, C)
        elif backend == "mamba_ssm":
            y = _by_mamba_ssm(u, delta, A, B, C)
        else:
            y, _ = _scan(u, delta, A, B, C)
        return y if D_GD is None else torch.addcmul(y, u, D_GD.to(dtype))


def _loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The definition, step by step."""
    h_BGDN = u.new_zeros(*u.shape[1:], A.shape[-1])
    outputs = []
    for u_t, delta_t, B_t, C_t in zip(u.unbind(0), delta.unbind(0), B.unbind(0), C.unbind(0), strict=True):
        decay = torch.exp(delta_t.unsqueeze(-1) * A)
        h_BGDN = decay * h_BGDN + (delta_t * u_t).unsqueeze(-1) * B_t.unsqueeze(-2)
        outputs.append((h_BGDN * C_t.unsqueeze(-2)).sum(-1))
    return torch.stack(outputs)


def _doubling(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The same in log2(L) steps over whole tensors (Hillis & Steele 1986): each time decays and inputs of twice as many."""
    decay = torch.exp(delta.unsqueeze(-1) * A)
    h = (delta * u).unsqueeze(-1) * B.unsqueeze(-2)
    reach = 1
    while reach < len(u):
        h = torch.cat((h[:reach], h[reach:] + decay[reach:] * h[:-reach]))
        decay = torch.cat((decay[:reach], decay[reach:] * decay[:-reach]))
        reach *= 2
    return (h * C.unsqueeze(-2)).sum(-1)


def _by_mamba_ssm(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Its layout is (B, G * D, L) and (B, G, N, L)."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    sequences = (t.flatten(2).permute(1, 2, 0).contiguous() for t in (u, delta))
    choices = (t.permute(1, 2, 3, 0).contiguous() for t in (B, C))
    y = selective_scan_fn(*sequences, A.flatten(0, 1).contiguous(), *choices)
    return y.permute(2, 0, 1).unflatten(2, u.shape[2:])


@torch.library.custom_op("ukan::selective_scan", mutates_args=())
def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """y, and the state before each block (K, B, G, N, D)."""
    A_GND, (images, steps) = A.transpose(1, 2).contiguous(), _tile(u, A)
    tiles = zip(*(t.split(images, 1) for t in (u, delta, B, C)), strict=True)
    y, before_KBGND = _together([_forward(tile, A_GND, steps) for tile in tiles])
    return y, before_KBGND


@torch.library.custom_op("ukan::selective_scan_backward", mutates_args=())
def _scan_backward(
    gy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, before_KBGND: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    A_GND, (images, steps) = A.transpose(1, 2).contiguous(), _tile(u, A)
    gA_GND = torch.zeros_like(A_GND)
    tiles = zip(*(t.split(images, 1) for t in (gy, u, delta, B, C, before_KBGND)), strict=True)
    gu, gdelta, gB, gC = _together([_adjoint(tile, A_GND, gA_GND, steps) for tile in tiles])
    return gu, gdelta, gA_GND.transpose(1, 2).contiguous(), gB, gC


def _forward(tile: tuple[Tensor, ...], A_GND: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Of some images: y, and the state before each block of so many steps."""
    u, delta, B, C = (t.contiguous() for t in tile)
    inputs, y = delta * u, torch.empty_like(u)
    h_BGND = u.new_zeros(*u.shape[1:3], *A_GND.shape[1:])
    before_KBGND = u.new_empty(-(-len(u) // block), *h_BGND.shape)
    decay, states = (u.new_empty(block, *h_BGND.shape) for _ in range(2))
    decay_t, states_t = decay.unbind(0), states.unbind(0)
    for k, (x, d, b, c, out) in enumerate(zip(*(t.split(block) for t in (inputs, delta, B, C, y)), strict=True)):
        before_KBGND[k] = h_BGND
        steps = len(x)
        _decays(d, A_GND, decay[:steps])
        torch.mul(b.unsqueeze(-1), x.unsqueeze(-2), out=states[:steps])
        h_BGND = _run(states_t[:steps], decay_t[:steps], before_KBGND[k])
        _product(c.unsqueeze(-2), states[:steps], out.unsqueeze(-2))
    return y, before_KBGND


def _adjoint(tile: tuple[Tensor, ...], A_GND: Tensor, gA_GND: Tensor, block: int) -> tuple[Tensor, ...]:
    """Of some images: the gradients of u, delta, B and C; that of A is added to what is there."""
    gy, u, delta, B, C, before_KBGND = (t.contiguous() for t in tile)
    room = block, *before_KBGND.shape[1:]
    inputs = delta * u
    gu, gdelta, gB, gC = (torch.empty_like(t) for t in (u, delta, B, C))
    decay, adjoint, scratch = (u.new_empty(room) for _ in range(3))
    states = u.new_empty(block + 1, *room[1:])  # the first is the one before the block
    later = torch.zeros_like(states[0])  # a_{t+1} g_{t+1}, from the block behind
    decay_t, adjoint_t, states_t = decay.unbind(0), adjoint.unbind(0), states.unbind(0)
    blocks = [t.split(block) for t in (u, inputs, delta, B, C, gy, gu, gdelta, gB, gC)]
    for k in reversed(range(len(before_KBGND))):
        u_k, x, d, b, c, gy_k, gu_k, gd_k, gb_k, gc_k = (parts[k] for parts in blocks)
        steps = len(x)
        a, g, spare, h = decay[:steps], adjoint[:steps], scratch[:steps], states[1 : steps + 1]
        _decays(d, A_GND, a)
        torch.mul(b.unsqueeze(-1), x.unsqueeze(-2), out=h)
        states[0] = before_KBGND[k]
        _run(states_t[1 : steps + 1], decay_t[:steps], states_t[0])
        torch.mul(c.unsqueeze(-1), gy_k.unsqueeze(-2), out=g)
        g[-1] += later
        _run(adjoint_t[: steps - 1][::-1], decay_t[1:steps][::-1], adjoint_t[steps - 1])
        later = a[0] * g[0]

        _product(h, gy_k.unsqueeze(-1), gc_k.unsqueeze(-1))
        _product(g, x.unsqueeze(-1), gb_k.unsqueeze(-1))
        into = torch.empty_like(x)  # the gradient of delta_t u_t
        _product(b.unsqueeze(-2), g, into.unsqueeze(-2))
        torch.mul(d, into, out=gu_k)
        a.mul_(g).mul_(states[:steps])  # the gradient of log a_t = delta_t A
        torch.addcmul(torch.mul(a, A_GND, out=spare).sum(-2), u_k, into, out=gd_k)
        gA_GND += torch.mul(a, d.unsqueeze(-2), out=spare).sum((0, 1))
    return gu, gdelta, gB, gC


def _tile(u: Tensor, A: Tensor) -> tuple[int, int]:
    """How many images and how many steps are worked on at once.

    Their states fill the room. Images give way to steps, as one state is kept for each block of steps.
    """
    room = _BLOCK_BYTES["cuda" if u.device.type == "cuda" else "cpu"] // (A.numel() * 4)
    images = max(1, min(u.shape[1], room // _FEWEST_STEPS))
    return images, max(1, min(len(u), room // images))


def _together(tiles: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Results of tiles of images as those of all."""
    return tiles[0] if len(tiles) == 1 else tuple(torch.cat(parts, 1) for parts in zip(*tiles, strict=True))


def _run(values: tuple[Tensor, ...], decays: tuple[Tensor, ...], start: Tensor) -> Tensor:
    """values_t += decays_t * values_{t-1}, in place; gives the last."""
    for value, decay in zip(values, decays, strict=True):
        start = value.addcmul_(decay, start)
    return start


def _decays(delta_TBGD: Tensor, A_GND: Tensor, out: Tensor) -> None:
    torch.mul(delta_TBGD.unsqueeze(-2), A_GND, out=out).exp_()


def _product(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Matrix products over all leading dimensions."""
    torch.bmm(left.flatten(0, -3), right.flatten(0, -3), out=out.flatten(0, -3))


@_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    groups, channels, states = A.shape
    return torch.empty_like(u), u.new_empty(-(-len(u) // _tile(u, A)[1]), u.shape[1], groups, states, channels)


@_scan_backward.register_fake
def _(gy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, before: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t) for t in (u, delta, A, B, C))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros as many as the states that are kept


def _backward(ctx: Any, gy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    return (None,) * 5 if gy is None else _scan_backward(gy, *ctx.saved_tensors)


_scan.register_autograd(_backward, setup_context=_keep)


def _scan_flops(u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    """9 for each state and step: the decay's product and exponential, the input's, the step's and the output's product and
    sum, as VMamba counts them."""
    steps, batch, groups, channels = u
    return 9 * steps * batch * groups * channels * A[-1]


register_flop_formula(torch.ops.ukan.selective_scan)(_scan_flops)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _compiler() -> str | None:
    """The C compiler with which Triton builds what starts its kernels."""
    return next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)


@lru_cache
def _triton_serves(device: torch.device) -> bool:
    """Whether a GPU is there that the kernels were compiled for, and what they are built by."""
    if device.type != "cuda" or not _installed("triton") or not _compiler():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _types_as_given(device: str) -> AbstractContextManager[Any]:
    """Autocast off: halves would lose the state."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
