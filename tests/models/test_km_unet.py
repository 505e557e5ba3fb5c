"""KM-UNet as published is the published network; the default is what the paper says, and all of it learns."""

from typing import Any

import pytest
import torch
from torch import nn

from ukan.errors import UserError
from ukan.models import build_model
from ukan.models.cost import model_cost
from ukan.models.km_unet import KMUNet
from ukan.nn.kan import KANLinear
from ukan.nn.sem import SS2D


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(**sizes: Any) -> KMUNet:
    with torch.device("meta"):
        return KMUNet(3, 1, **sizes)


def test_live_names_shapes_and_answers_are_the_published_networks(golden: Any, fill: Any, golden_image: Any) -> None:
    truth = golden("golden/km_unet.json")
    model = on_meta(as_published=True).to_empty(device="cpu").double().eval()
    published = dict(truth["entries"])
    floating = {n: list(e.shape) for n, e in model.state_dict().items() if e.is_floating_point() and "grid" not in n}
    assert floating == {name: published[name] for name in floating}
    dead = {name.split(".")[0] for name in published.keys() - floating.keys()}
    assert dead == {"dblock1", "dblock2", "dnorm3", "dnorm4", "cbam", "cbam1", "cbam2"}
    assert count(model) == 5_739_009 and truth["trainable"] == 7_012_554

    fill(model, list(published))
    values = torch.tensor(truth["values"], dtype=torch.float64)
    image = golden_image(*truth["input"])
    for dtype in (torch.float64, torch.float32):
        with torch.no_grad():
            logits = model.to(dtype)(image.to(dtype)).double()
        assert list(logits.shape) == truth["output_shape"]
        assert (logits.flatten()[truth["at"]] - values).abs().max() <= 1e-5
        assert logits.mean().item() == pytest.approx(truth["mean"], abs=1e-5)


def test_cost_as_published_is_the_published_networks(golden: Any) -> None:
    """Products and convolutions, and nine operations for each step and state of the scans."""
    truth = golden("golden.json")["km_unet"]
    scans = sum(
        9 * batch * channels * steps * states for batch, channels, steps, states, _ in truth["scan_calls(b,d,l,n,g)"]
    )
    cost = model_cost("km-unet", 3, 1, {"as_published": True}, (256, 256))
    assert (cost.parameters, cost.flops) == (truth["params_live"], truth["torch_flopcounter_flops_256"] + scans)


def test_published_modules_have_the_published_counts(golden: Any) -> None:
    truth = golden("golden.json")["km_unet"]
    found = {name: count(child) for name, child in on_meta(as_published=True).named_children()}
    assert found == {name: number for name, number in truth["by_child"].items() if number and name not in truth["dead"]}


def test_the_default_scans_in_the_encoder_and_has_kan_blocks_in_the_decoder() -> None:
    model = on_meta()
    assert [name for name, module in model.named_modules() if isinstance(module, SS2D)] == ["ss2d_1", "ss2d_2", "ss2d_3"]
    kan = {name.split(".")[0] for name, module in model.named_modules() if isinstance(module, KANLinear)}
    assert kan == {"block1", "block2", "dblock1", "dblock2"}
    assert count(model) == 6_558_161


def test_the_encoder_is_mixed_on_its_way_down() -> None:
    """As published only the skips are: what is scanned at the first stage never reaches the bottom."""

    def reaches(as_published: bool) -> bool:
        torch.manual_seed(0)
        model = KMUNet(3, 1, widths=(16, 16, 16), as_published=as_published).eval()
        bottoms = []
        model.norm4.register_forward_hook(lambda *given: bottoms.append(given[-1]))
        image = torch.randn(1, 3, 32, 64)
        with torch.no_grad():
            model(image)
            model.get_submodule("ss2d_1.conv2d").weight.mul_(-2)
            model(image)
        return not torch.equal(*bottoms)

    assert reaches(as_published=False) and not reaches(as_published=True)


def test_the_papers_three_experiments_change_what_they_name() -> None:
    plain = on_meta()
    conv, mlp, spiral = on_meta(sem="conv"), on_meta(kan_layers=["mlp"] * 3), on_meta(scan_order="spiral")
    assert not any(isinstance(module, SS2D) for module in conv.modules())
    assert not any(isinstance(module, KANLinear) for module in mlp.modules())
    shapes = [[(name, entry.shape) for name, entry in model.state_dict().items()] for model in (plain, spiral)]
    assert shapes[0] == shapes[1]
    assert (count(conv), count(mlp)) == (6_516_369, 2_966_033)


def test_the_matched_size_costs_what_ukan_base_costs() -> None:
    ours, theirs = (
        model_cost(name, 3, 1, sizes, (256, 256)).flops
        for name, sizes in (("km-unet", KMUNet.named_sizes["matched"]), ("ukan", {}))
    )
    assert ours == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize("widths", [(24, 20, 28), (40, 30, 50)])
def test_any_widths_are_taken(widths: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    assert KMUNet(1, 2, widths=widths)(torch.randn(2, 1, 32, 64)).shape == (2, 2, 32, 64)
    assert KMUNet(1, 2, widths=widths, as_published=True)(torch.randn(2, 1, 64, 32)).shape == (2, 2, 64, 32)


def test_a_published_network_can_be_had_without_its_scans() -> None:
    model = KMUNet(3, 1, widths=(16, 20, 24), as_published=True, sem="conv")
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"sem": "scans"}, "sem is 'scan' or 'conv', got 'scans'"),
        ({"scan_order": "zigzag"}, "scan_order is one of raster, spiral"),
        ({"scan_backend": "cuda"}, "scan_backend is one of auto, loop"),
        ({"widths": [12, 20, 24]}, "the first a multiple of 8"),
    ],
)
def test_impossible_sizes_are_refused_when_built(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_model("km-unet", 3, 1, sizes)
