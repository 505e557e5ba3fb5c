"""Attention U-Net and U-Net++ are what their papers say, and differ from them where their pages say so. What every model
keeps is in test_contract.py."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ukan.errors import UserError
from ukan.models import build_model
from ukan.models.attention_unet import AttentionUNet
from ukan.models.unetpp import UNetPlusPlus

PAPER = (32, 64, 128, 256, 512)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def nested(widths: tuple[int, ...], in_channels: int, num_classes: int, doubled: int) -> int:
    """U-Net++ counted from the paper's Fig. 1: node (i, j) sees the j maps before it at its level and one from below.

    doubled: channels with which a map enters the top level.
    """

    def twice(a: int, b: int) -> int:
        return 9 * a * b + 9 * b**2 + 4 * b

    count = sum(twice(a, b) for a, b in pairwise((in_channels, *widths)))
    for level, (width, below) in enumerate(pairwise(widths)):
        up = width if level else doubled
        nodes = len(widths) - 1 - level
        count += sum(4 * below * up + up + twice(j * width + up, width) for j in range(1, nodes + 1))
    return count + widths[0] * num_classes + num_classes


def test_unetpp_has_the_nodes_of_the_drawing_and_monai_s_wider_top() -> None:
    with torch.device("meta"):
        ours = parameters(UNetPlusPlus(1, 1, widths=PAPER))
    assert ours == nested(PAPER, 1, 1, doubled=64)
    as_drawn = nested(PAPER, 1, 1, doubled=32)
    assert round(as_drawn / 1e6, 2) in (9.04, 9.05)  # 9.04 million in the paper, which has biases and no BatchNorm
    assert 0.005 < ours / as_drawn - 1 < 0.009


def test_unetpp_answers_with_its_last_node_and_carries_no_other_output() -> None:
    model = UNetPlusPlus(1, 1, widths=(4, 4, 4, 4, 4)).eval()
    heads = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)]
    assert heads == ["net.final_conv_0_4"]
    assert isinstance(model(torch.zeros(1, 1, 32, 32)), Tensor)


def test_a_gate_shut_lets_no_skip_through_and_one_open_all_of_it() -> None:
    """Eq. 1-2: the skip times a map between 0 and 1."""
    model = AttentionUNet(1, 1, widths=(4, 4, 4, 4, 4)).eval()
    gate: Any = model.net.model[1].attention
    seen: dict[str, Tensor] = {}
    gate.register_forward_hook(lambda _, given, output: seen.update(g=given[0], out=output) if given else None)
    gate.register_forward_hook(lambda _, given, named, output: seen.update(named, out=output), with_kwargs=True)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        model(image)
        share = seen["out"] / seen["x"]
        inside = seen["x"].abs() > 1e-6
        assert share[inside].min() > 0 and share[inside].max() < 1
        one = seen["out"].sum(1) / seen["x"].sum(1)
        assert torch.allclose(share[inside], one[:, None].expand_as(share)[inside], atol=1e-3), "the same for all channels"
        for value, expected in ((-100.0, 0.0), (100.0, 1.0)):
            gate.psi[1].weight.zero_()
            gate.psi[1].bias.fill_(value)
            model(image)
            torch.testing.assert_close(seen["out"], expected * seen["x"])


@pytest.mark.parametrize("model", [AttentionUNet, UNetPlusPlus])
def test_the_deepest_map_has_a_sixteenth_of_the_side_and_the_last_width(model: type[Any]) -> None:
    network, found = model(3, 1, widths=(4, 6, 8, 10, 12)).eval(), []
    network.get_submodule(model.deepest).register_forward_hook(lambda _, __, output: found.append(output.shape))
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 96))
    assert found == [(1, 12, 4, 6)]


@pytest.mark.parametrize("name", ["attention-unet", "unetpp"])
@pytest.mark.parametrize("widths", [[8, 8, 8, 8], [8, 8, 8, 8, 0], [0, 8, 8, 8, 8], [8] * 6])
def test_other_than_five_widths_that_can_be_are_refused(name: str, widths: list[int]) -> None:
    with pytest.raises(UserError, match="model: widths takes five "):
        build_model(name, 3, 1, {"widths": widths})
