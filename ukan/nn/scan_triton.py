"""The selective scan (S6; Gu and Dao 2023, "Mamba") as Triton kernels, for GPUs.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = sum_n C_tn h_tn

One sequence after the other would leave a GPU idle: the finest map of KM-UNet has 16,384 steps of 4 x 32 channels. Time is
therefore cut into chunks that work side by side, in three passes:

1. `_leave`: what each chunk leaves behind if it begins at zero, a weighted sum;
2. `_carry`: from that the state in which each chunk truly begins, a scan over chunks;
3. `_forward`: every step of every chunk, an associative scan in registers.

Only the states between chunks are kept. The gradient runs the same passes from the other end with

    g_t = C_t gy_t + exp(delta_{t+1} A) g_{t+1},    d/d log a_t = g_t (a_t h_{t-1})

and makes the states within a chunk again. Nothing is divided by a cumulative product: every exponent is A times a span of
time, hence not positive. Sums over channels, chunks and batch go through buffers, so that results are the same every time.

Run so far: the kernels agree with a float64 loop where Triton interprets them on a CPU, and they compile for GPUs of compute
capability 8.0, 9.0 and 10.0 (tests/nn/test_scan_triton.py); for 8.0 no register is spilled. Not run so far: anything on a
GPU. Results there (the test marked gpu), speed, and the choice of tiles wait for one.

This module imports triton: import it where a scan runs on a GPU.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Shapes: L steps, B batch, G sequences with their own A, D channels, N states, S = B * G rows, K chunks,
# W blocks of channels

_STEPS, _WIDTH = 32, 32
"""Steps of a chunk and channels of a block, powers of two: a tile of them lies in the registers of a program."""
_FLAT = 32
"""Chunks, and states, that `_carry` takes at once."""


def scan_by_triton(u_LBGD: Tensor, delta_LBGD: Tensor, A_GDN: Tensor, B_LBGN: Tensor, C_LBGN: Tensor) -> Tensor:
    """y_LBGD in float32, differentiable once in all five; delta is positive (after its softplus), A negative.

    Inputs are float32, float16 or bfloat16, all on one CUDA device; states and sums are float32. Raises ValueError for
    float64, which would lose half of its digits unseen.
    """
    given = (u_LBGD, delta_LBGD, A_GDN, B_LBGN, C_LBGN)
    if any(tensor.dtype == torch.float64 for tensor in given):
        raise ValueError("the scan by Triton computes in float32; give it float32, or take another backend for float64")
    return _Scan.apply(*given)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        u, delta, A, B, C = (tensor.contiguous() for tensor in (u, delta, A, B, C))
        sizes, tile, grid = _layout(u, A)
        y = torch.empty_like(u, dtype=torch.float32)
        with torch.cuda.device_of(u):
            spans_KSD = u.new_empty(grid[0], grid[1], u.shape[-1], dtype=torch.float32)
            states_KSND = _arriving(u, delta, A, B, spans_KSD, adjoint=False)
            _forward[grid](u, delta, A, B, C, states_KSND, y, *sizes, *tile)
        ctx.save_for_backward(u, delta, A, B, C, states_KSND, spans_KSD)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, states_KSND, spans_KSD = ctx.saved_tensors
        sizes, tile, grid = _layout(u, A)
        grad_y = grad_y.contiguous()
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        with torch.cuda.device_of(u):
            grads_KSND = _arriving(grad_y, delta, A, C, spans_KSD, adjoint=True)
            shares_A = torch.empty_like(states_KSND)
            shares_B, shares_C = (B.new_empty(grid[2], *B.shape, dtype=torch.float32) for _ in "BC")
            _backward[grid](
                *(u, delta, A, B, C, states_KSND, grad_y, grads_KSND, grad_u, grad_delta, shares_A, shares_B, shares_C),
                *sizes,
                *tile,
            )
        grad_A = shares_A.view(-1, len(A), *shares_A.shape[2:]).sum(0).transpose(1, 2)
        return grad_u, grad_delta, grad_A.to(A.dtype), shares_B.sum(0).to(B.dtype), shares_C.sum(0).to(C.dtype)


def _layout(u: Tensor, A: Tensor) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int, int]]:
    """The kernels' sizes (L, S, G, D, N) and tile, and their grid: chunks, rows, blocks of channels."""
    steps, batch, groups, channels = u.shape
    tile = _STEPS, min(_WIDTH, triton.next_power_of_2(channels))
    grid = triton.cdiv(steps, tile[0]), batch * groups, triton.cdiv(channels, tile[1])
    return (steps, batch * groups, groups, channels, A.shape[-1]), tile, grid


def _arriving(x: Tensor, delta: Tensor, A: Tensor, weights: Tensor, spans_KSD: Tensor, *, adjoint: bool) -> Tensor:
    """(K, S, N, D): the state in which each chunk begins or, of the adjoint, what comes to it from the chunk after.

    Forward, `spans_KSD` is filled with the time that each chunk takes; the adjoint reads it.
    """
    sizes, tile, grid = _layout(x, A)
    chunks, rows = grid[:2]
    left = x.new_empty(chunks, rows, A.shape[-1], x.shape[-1], dtype=torch.float32)
    _leave[grid](x, delta, A, weights, left, spans_KSD, *sizes, *tile, adjoint)
    arriving = torch.zeros_like(left)
    blocks = triton.cdiv(left[0].numel(), _FLAT)
    _carry[(blocks,)](left, spans_KSD, A, arriving, chunks, *sizes[1:], _FLAT, adjoint)
    return arriving


@triton.jit
def _after(decay_1, state_1, decay_2, state_2):  # type: ignore[no-untyped-def]
    """Stretch 1 of steps followed by stretch 2; a stretch is its decay and the state that it leaves behind."""
    return decay_1 * decay_2, decay_2 * state_1 + state_2


@triton.jit
def _after_apart(decay_1, state_1, own_1, decay_2, state_2, own_2):  # type: ignore[no-untyped-def]
    """The same with the last step's own input kept apart from the state.

    The gradient wants a_t h_{t-1}: here it is there without a difference of h_t and the input.
    """
    return decay_1 * decay_2, decay_2 * (state_1 + own_1) + state_2, own_2


@triton.jit
def _leave(  # type: ignore[no-untyped-def]
    x_LSD, delta_LSD, A_GDN, weights_LSN, left_KSND, spans_KSD, L, S, G, D, N,
    STEPS: tl.constexpr, WIDTH: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """sum_t exp(A (time from t to the chunk's end)) delta_t u_t B_t; of the adjoint, to its beginning, of gy_t C_t."""
    chunk, row = tl.program_id(0), tl.program_id(1)
    d = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, STEPS)
    first = chunk.to(tl.int64) * STEPS
    start = first * S + row
    alive = first + t < L
    inside = alive[:, None] & (d < D)[None, :]
    at = t[:, None] * (S * D) + d[None, :]
    delta = tl.load(delta_LSD + start * D + at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_LSD + start * D + at, mask=inside, other=0.0).to(tl.float32)
    place = chunk.to(tl.int64) * S + row
    if ADJOINT:
        time = tl.cumsum(delta, 0)
    else:
        x *= delta
        tl.store(spans_KSD + place * D + d, tl.sum(delta, 0), mask=d < D)
        later = inside & (t + 1 < STEPS)[:, None] & (first + t + 1 < L)[:, None]
        time = tl.cumsum(tl.load(delta_LSD + (start + S) * D + at, mask=later, other=0.0).to(tl.float32), 0, reverse=True)
    for n in range(N):
        A = tl.load(A_GDN + ((row % G) * D + d) * N + n, mask=d < D, other=0.0).to(tl.float32)
        weight = tl.load(weights_LSN + start * N + t * (S * N) + n, mask=alive, other=0.0).to(tl.float32)
        left = tl.sum(tl.exp(time * A[None, :]) * x * weight[:, None], 0)
        tl.store(left_KSND + (place * N + n) * D + d, left, mask=d < D)


@triton.jit
def _carry(  # type: ignore[no-untyped-def]
    left_KSND, spans_KSD, A_GDN, arriving_KSND, K, S, G, D, N,
    FLAT: tl.constexpr, ADJOINT: tl.constexpr,
):  # fmt: skip
    """From chunk to chunk, or back: what has arrived decays over a chunk and takes along what the chunk leaves."""
    e = tl.program_id(0) * FLAT + tl.arange(0, FLAT)
    states = S * N * D
    inside = e < states
    d, n, row = e % D, e // D % N, e // (D * N)
    A = tl.load(A_GDN + ((row % G) * D + d) * N + n, mask=inside, other=0.0).to(tl.float32)
    turn = tl.arange(0, FLAT)
    carried = tl.zeros([FLAT], tl.float32)
    for begun in range(0, K, FLAT):
        if ADJOINT:
            chunk = (K - 1 - begun - turn).to(tl.int64)
            to = chunk - 1
        else:
            chunk = (begun + turn).to(tl.int64)
            to = chunk + 1
        there = (begun + turn < K)[:, None] & inside[None, :]
        span = tl.load(spans_KSD + chunk[:, None] * (S * D) + (row * D + d)[None, :], mask=there, other=0.0)
        left = tl.load(left_KSND + chunk[:, None] * states + e[None, :], mask=there, other=0.0)
        decay, state = tl.associative_scan((tl.exp(span * A[None, :]), left), 0, _after)
        state += decay * carried[None, :]
        tl.store(arriving_KSND + to[:, None] * states + e[None, :], state, mask=there & (begun + turn + 1 < K)[:, None])
        carried = tl.sum(tl.where(turn[:, None] == FLAT - 1, state, 0.0), 0)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    u_LSD, delta_LSD, A_GDN, B_LSN, C_LSN, states_KSND, y_LSD, L, S, G, D, N,
    STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Every y of a chunk, from the state in which it begins."""
    chunk, row = tl.program_id(0), tl.program_id(1)
    d = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, STEPS)
    first = chunk.to(tl.int64) * STEPS
    start = first * S + row
    alive = first + t < L
    inside = alive[:, None] & (d < D)[None, :]
    at = start * D + t[:, None] * (S * D) + d[None, :]
    delta = tl.load(delta_LSD + at, mask=inside, other=0.0).to(tl.float32)
    x = delta * tl.load(u_LSD + at, mask=inside, other=0.0).to(tl.float32)
    place = chunk.to(tl.int64) * S + row
    y = tl.zeros([STEPS, WIDTH], tl.float32)
    for n in range(N):
        A = tl.load(A_GDN + ((row % G) * D + d) * N + n, mask=d < D, other=0.0).to(tl.float32)
        B = tl.load(B_LSN + start * N + t * (S * N) + n, mask=alive, other=0.0).to(tl.float32)
        C = tl.load(C_LSN + start * N + t * (S * N) + n, mask=alive, other=0.0).to(tl.float32)
        begun = tl.load(states_KSND + (place * N + n) * D + d, mask=d < D, other=0.0)
        decay, state = tl.associative_scan((tl.exp(delta * A[None, :]), x * B[:, None]), 0, _after)
        y += C[:, None] * (state + decay * begun[None, :])
    tl.store(y_LSD + at, y, mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    u_LSD, delta_LSD, A_GDN, B_LSN, C_LSN, states_KSND, grad_y_LSD, grads_KSND,
    grad_u_LSD, grad_delta_LSD, shares_A_KSND, shares_B_WLSN, shares_C_WLSN, L, S, G, D, N,
    STEPS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Every gradient of a chunk, from the state in which it begins and the gradient that comes from the chunk after."""
    chunk, row, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    d = block * WIDTH + tl.arange(0, WIDTH)
    t = tl.arange(0, STEPS)
    first = chunk.to(tl.int64) * STEPS
    start = first * S + row
    alive = first + t < L
    inside = alive[:, None] & (d < D)[None, :]
    at = start * D + t[:, None] * (S * D) + d[None, :]
    delta = tl.load(delta_LSD + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_LSD + at, mask=inside, other=0.0).to(tl.float32)
    grad_y = tl.load(grad_y_LSD + at, mask=inside, other=0.0).to(tl.float32)
    later = inside & (t + 1 < STEPS)[:, None] & (first + t + 1 < L)[:, None]
    next_delta = tl.load(delta_LSD + at + S * D, mask=later, other=0.0).to(tl.float32)
    place = chunk.to(tl.int64) * S + row
    share = (block.to(tl.int64) * L * S + start) * N
    nothing = tl.zeros([STEPS, WIDTH], tl.float32)
    by_input = tl.zeros([STEPS, WIDTH], tl.float32)
    by_decay = tl.zeros([STEPS, WIDTH], tl.float32)
    for n in range(N):
        here = (place * N + n) * D + d
        A = tl.load(A_GDN + ((row % G) * D + d) * N + n, mask=d < D, other=0.0).to(tl.float32)
        B = tl.load(B_LSN + start * N + t * (S * N) + n, mask=alive, other=0.0).to(tl.float32)
        C = tl.load(C_LSN + start * N + t * (S * N) + n, mask=alive, other=0.0).to(tl.float32)
        begun = tl.load(states_KSND + here, mask=d < D, other=0.0)
        own = delta * u * B[:, None]
        decay, state, own = tl.associative_scan((tl.exp(delta * A[None, :]), nothing, own), 0, _after_apart)
        state += decay * begun[None, :]
        grad_C = tl.sum(grad_y * (state + own), 1)
        tl.store(shares_C_WLSN + share + t * (S * N) + n, grad_C, mask=alive)
        come = tl.load(grads_KSND + here, mask=d < D, other=0.0)
        decays = tl.exp(next_delta * A[None, :])
        decay, grad = tl.associative_scan((decays, grad_y * C[:, None]), 0, _after, reverse=True)
        grad += decay * come[None, :]
        tl.store(shares_B_WLSN + share + t * (S * N) + n, tl.sum(grad * delta * u, 1), mask=alive)
        by_input += grad * B[:, None]
        grad_log = grad * state
        by_decay += grad_log * A[None, :]
        tl.store(shares_A_KSND + here, tl.sum(grad_log * delta, 0), mask=d < D)
    tl.store(grad_u_LSD + at, delta * by_input, mask=inside)
    tl.store(grad_delta_LSD + at, by_decay + u * by_input, mask=inside)
