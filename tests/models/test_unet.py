"""The U-Net is the paper's: its parameters counted from the drawing, its levels, its start. What every model keeps is in
test_contract.py."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ukan.errors import UserError
from ukan.models import build_model, check_trainable
from ukan.models.unet import UNet

PAPER = (64, 128, 256, 512, 1024)


def parameters(widths: tuple[int, ...], in_channels: int, num_classes: int) -> int:
    """From the paper's Fig. 1: weights of all convolutions; a scale and a shift for each after which BatchNorm comes."""
    count = 0
    for inside, outside in pairwise((in_channels, *widths)):  # down, and the bottom
        count += 9 * inside * outside + 9 * outside**2 + 4 * outside
    for outside, below in pairwise(widths):  # up: 2x2, then two 3x3 on twice the channels
        count += 4 * below * outside + outside + 9 * 2 * outside**2 + 9 * outside**2 + 4 * outside
    return count + widths[0] * num_classes + num_classes


@pytest.mark.parametrize("widths", [(15, 30, 60, 120, 240), (32, 64, 128, 256, 512), PAPER])
def test_parameters_are_those_of_the_drawing(widths: tuple[int, ...]) -> None:
    with torch.device("meta"):
        made = [sum(p.numel() for p in UNet(c, k, widths=widths).parameters()) for c, k in ((1, 2), (3, 1))]
    assert made == [parameters(widths, 1, 2), parameters(widths, 3, 1)]


def test_the_size_called_the_paper_s_is_that_of_its_figure_1() -> None:
    assert UNet.named_sizes["paper"] == {"widths": PAPER}
    with torch.device("meta"):
        paper = sum(p.numel() for p in UNet(1, 2, widths=PAPER).parameters())
    assert round(paper / 1e6, 1) == 31.0


def test_five_levels_of_halved_maps_meet_again_at_their_own_size() -> None:
    widths = (2, 3, 4, 5, 6)
    model = UNet(1, 1, widths=widths).eval()
    seen: dict[str, list[tuple[int, ...]]] = {"down": [], "bottom": [], "merge": []}
    entered: list[int] = []

    def watch(kind: str):
        def hook(_: nn.Module, x: tuple[Tensor], y: Tensor) -> None:
            seen[kind].append(tuple(y.shape[1:]))
            entered.append(x[0].shape[1])

        return hook

    for kind in ("down", "merge"):
        for part in getattr(model, kind):
            part.register_forward_hook(watch(kind))
    model.get_submodule(UNet.deepest).register_forward_hook(watch("bottom"))
    with torch.no_grad():
        model(torch.zeros(1, 1, 32, 48))
    sizes = [(width, 32 // 2**level, 48 // 2**level) for level, width in enumerate(widths)]
    assert seen == {"down": sizes[:4], "bottom": sizes[4:], "merge": sizes[3::-1]}
    assert entered == [1, 2, 3, 4, 5, 10, 8, 6, 4], "a skip doubles the channels, by concatenation"


def test_an_impulse_reaches_as_far_as_the_deepest_level_sees_and_no_further() -> None:
    """The sizes of kernels and strides bound it, whatever the code's form."""
    torch.manual_seed(0)
    model = UNet(1, 1, widths=(2, 2, 2, 2, 2)).eval().double()
    image = torch.zeros(1, 1, 16, 512, dtype=torch.double)
    struck = image.clone()
    struck[..., 8, 256] = 100
    with torch.no_grad():
        changed = (model(struck) - model(image)).abs().amax((0, 1, 2)).nonzero().flatten()
    # Down to a level two convolutions widen what is seen by 2 of its pixels a side, pooling never moves it: 2 * (1 + 2 + 4 +
    # 8) before the bottom, 2 * 16 there, 2 * (8 + 4 + 2 + 1) on the way up, and at most a pixel of the bottom's raster.
    assert 64 < max(256 - int(changed.min()), int(changed.max()) - 256) <= 30 + 32 + 30 + 15


def test_weights_start_with_the_deviation_that_the_paper_gives() -> None:
    torch.manual_seed(0)
    model = UNet(3, 2)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            met = module.in_channels * (module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1)
            if module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx((2 / met) ** 0.5, rel=0.05)
            assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("widths", [[64, 128, 256, 512], [8, 8, 8, 8, 0], [1] * 6])
def test_other_than_five_positive_widths_are_refused(widths: list[int]) -> None:
    with pytest.raises(UserError, match="model: widths takes five positive numbers, got "):
        build_model("unet", 3, 1, {"widths": widths})


def test_a_single_image_with_a_bottom_of_one_pixel_cannot_be_trained_on() -> None:
    model = build_model("unet", 3, 1, {"widths": [4] * 5})
    with pytest.raises(UserError, match=r"train.batch_size=1 .*data.input_size=\[16, 16\].*larger"):
        check_trainable(model, 1, 3, (16, 16))
    check_trainable(model, 2, 3, (16, 16))
