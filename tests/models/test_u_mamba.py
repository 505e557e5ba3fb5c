"""The U-Mamba-like network: its parameters counted from the published code, its Mamba block against the recurrence written
out. What every model keeps is in test_contract.py."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ukan.errors import UserError
from ukan.models import build_model, check_trainable, named_sizes
from ukan.models.cost import model_cost
from ukan.models.u_mamba import STATES, Mamba, Residual, UMamba

PAPER = named_sizes("u-mamba")["paper"]["widths"]
SMALL = [4, 4, 6, 6, 8, 8, 8]


def published(widths: tuple[int, ...], in_channels: int, num_classes: int, mamba: str) -> tuple[int, int]:
    """Parameters of the published network without its outputs for deep supervision, and those of them that are biases before
    InstanceNorm."""
    biases = 0

    def blocks(inside: int, outside: int, count: int) -> int:
        nonlocal biases
        biases += 2 * outside * count
        first = 9 * inside * outside + 9 * outside**2 + inside * outside + outside
        return first + (count - 1) * 18 * outside**2 + count * (2 * outside + 2 * 2 * outside)

    def block_of_mamba(c: int) -> int:
        inner, rank = 2 * c, math.ceil(c / 16)
        chosen = inner * (rank + 32) + rank * inner + inner
        return 2 * c + c * 2 * inner + 5 * inner + chosen + 16 * inner + inner + inner * c

    levels = len(widths)
    down = [2 if level < math.ceil(levels / 2) else 1 for level in range(levels)]
    up = [2 if step < math.ceil(levels / 2) else 1 for step in range(levels - 1)]
    count = blocks(in_channels, widths[0], down[0])
    for level, width in enumerate(widths):
        count += blocks(widths[max(level - 1, 0)], width, down[level])
        if level == levels - 1 or (mamba == "encoder" and (levels - 1 - level) % 2 == 0):
            count += block_of_mamba(width)
    for step in range(levels - 1):
        below, width = widths[levels - 1 - step], widths[levels - 2 - step]
        count += below * width + width
        count += blocks(width if step == levels - 2 else 2 * width, width, up[step])
    return count + widths[0] * num_classes + num_classes, biases


@pytest.mark.parametrize("mamba", ["bottom", "encoder"])
def test_parameters_are_the_published_ones_but_biases_that_a_norm_takes_out(mamba: str) -> None:
    for channels, classes in ((3, 1), (1, 4)):
        with torch.device("meta"):
            model = UMamba(channels, classes, widths=PAPER, mamba=mamba)  # type: ignore[arg-type]
        all_of_it, biases = published(PAPER, channels, classes, mamba)
        assert sum(p.numel() for p in model.parameters()) == all_of_it - biases
    assert published(PAPER, 3, 1, "bottom") == (47_512_545, 10_944)


def test_a_bias_before_the_norm_changes_nothing() -> None:
    torch.manual_seed(0)
    convs, x = Residual(3, 4, 1, True).convs.double(), torch.randn(2, 3, 6, 5, dtype=torch.double)
    with torch.no_grad():
        plain = convs(x)
        for i in (0, 3):
            convs[i].bias = nn.Parameter(torch.randn(4, dtype=torch.double))
        torch.testing.assert_close(convs(x), plain, rtol=1e-10, atol=1e-10)


def test_the_default_costs_what_u_kan_base_costs() -> None:
    ours, theirs = (model_cost(name, 3, 1, {}, (256, 256)).flops for name in ("u-mamba", "ukan"))
    assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize(("mamba", "where"), [("bottom", ["bottom"]), ("encoder", ["down.0", "down.2", "down.4", "bottom"])])
def test_mamba_blocks_stand_at_the_bottom_or_after_every_second_stage(mamba: str, where: list[str]) -> None:
    model = build_model("u-mamba", 3, 1, {"widths": SMALL, "mamba": mamba})
    found = [name.rpartition(".")[0] for name, part in model.named_modules() if isinstance(part, Mamba)]
    assert sorted(found) == sorted(where)


def test_a_mamba_block_is_its_recurrence_step_by_step() -> None:
    """Gu and Dao 2023, Algorithm 2 and Fig. 3, a pixel at a time."""
    torch.manual_seed(0)
    block = Mamba(20).double()
    x = torch.randn(1, 20, 3, 4, dtype=torch.double)
    with torch.no_grad():
        p = {name: value.numpy() for name, value in block.named_parameters()}
        made = block(x).flatten(2)[0].T.numpy()

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    steps = x.flatten(2)[0].T.numpy()  # line after line
    state, window, expected = np.zeros((40, STATES)), [np.zeros(40)] * 3, []
    for step in steps:
        step = (step - step.mean()) / np.sqrt(step.var() + 1e-5) * p["norm.weight"] + p["norm.bias"]
        entering, gate = np.split(p["in_proj.weight"] @ step, 2)
        window = [*window[-3:], entering]
        u = sum(p["conv.weight"][:, 0, i] * window[i] for i in range(4)) + p["conv.bias"]
        u = u * sigmoid(u)
        rank, b, c = np.split(p["x_proj.weight"] @ u, [2, 2 + STATES])
        delta = np.log1p(np.exp(p["dt_proj.weight"] @ rank + p["dt_proj.bias"]))[:, None]
        state = np.exp(-delta * np.exp(p["A_log"])) * state + delta * u[:, None] * b
        y = state @ c + p["D"] * u
        expected.append(p["out_proj.weight"] @ (y * gate * sigmoid(gate)))
    np.testing.assert_allclose(made, expected, rtol=1e-10, atol=1e-12)


def test_step_widths_start_from_a_thousandth_to_a_tenth() -> None:
    torch.manual_seed(0)
    widths = F.softplus(Mamba(256).dt_proj.bias).detach()
    assert widths.min() >= 0.00099 and widths.max() <= 0.101
    assert widths.log().median().exp().item() == pytest.approx(0.01, rel=0.3), "evenly by the logarithm"


def test_doubling_after_the_1x1_convolution_is_doubling_before_it() -> None:
    conv, x = nn.Conv2d(3, 2, 1), torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        after = F.interpolate(conv(x), scale_factor=2, mode="nearest")
        torch.testing.assert_close(after, conv(F.interpolate(x, scale_factor=2, mode="nearest")))


def test_a_bottom_of_one_pixel_is_answered_but_not_trained() -> None:
    model = build_model("u-mamba", 3, 1, {"widths": SMALL})
    with pytest.raises(UserError, match=r"data.input_size=\[64, 64\].*larger"):
        check_trainable(model, 2, 3, (64, 64))
    check_trainable(model, 1, 3, (64, 128))
    norm = next(part for name, part in model.bottom.named_modules() if isinstance(part, nn.InstanceNorm2d))
    nn.init.normal_(norm.bias)
    pixel = norm.eval()(torch.randn(2, 8, 1, 1))
    assert torch.equal(pixel, norm.bias[None, :, None, None].expand(2, -1, -1, -1))


@pytest.mark.parametrize(
    ("sizes", "answer"),
    [
        ({"widths": [32, 64]}, "widths takes three to seven positive numbers, got "),
        ({"mamba": "decoder"}, "mamba is 'bottom' or 'encoder', got 'decoder'"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError, match=f"model: {answer}"):
        build_model("u-mamba", 3, 1, sizes)


@pytest.mark.parametrize("levels", [3, 5, 6])
def test_fewer_levels_take_smaller_images(levels: int) -> None:
    model = build_model("u-mamba", 3, 1, {"widths": SMALL[:levels]})
    side = 2 ** (levels - 1)
    assert model(torch.randn(2, 3, 2 * side, 4 * side)).shape == (2, 1, 2 * side, 4 * side)
    with pytest.raises(ValueError, match=f"multiples of {side}, got"):
        model(torch.randn(1, 3, 2 * side, side + 1))
