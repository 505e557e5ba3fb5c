"""U-KAN is the published U-KAN: names, shapes, counts and answers; its arguments do what the paper says of them.

The published answers lie beside the checkout (shared/golden): a rule fills every parameter, a formula makes the image.
"""

import math
from typing import Any

import pytest
import torch
from torch import nn

from ukan.errors import UserError
from ukan.models import build_model
from ukan.models.cost import model_cost
from ukan.models.ukan import UKAN, WIDTHS, KANBlock
from ukan.nn.kan import KANLinear


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(**sizes: Any) -> UKAN:
    with torch.device("meta"):
        return UKAN(3, 1, **sizes)


@pytest.mark.parametrize(("file", "widths"), [("small", "S"), ("base", "base"), ("large", "L")])
def test_names_shapes_and_answers_are_the_published_networks(
    file: str, widths: str, golden: Any, fill: Any, golden_image: Any
) -> None:
    truth = golden(f"golden/ukan_{file}.json")
    with torch.device("meta"):  # every value is filled in below: a start would be wasted
        model = UKAN(3, 1, widths=WIDTHS[widths])
    model = model.to_empty(device="cpu").double().eval()
    names = [name for name, _ in truth["entries"]]
    floating = {n: list(e.shape) for n, e in model.state_dict().items() if e.is_floating_point() and "grid" not in n}
    assert sorted(floating.items()) == [(name, shape) for name, shape in truth["entries"]]
    assert count(model) == truth["trainable"]

    fill(model, names)
    with torch.no_grad():
        logits = model(golden_image(*truth["input"]))
    assert list(logits.shape) == truth["output_shape"]
    values = torch.tensor(truth["values"], dtype=torch.float64)
    assert (logits.flatten()[truth["at"]] - values).abs().max() <= 1e-9
    assert logits.mean().item() == pytest.approx(truth["mean"], abs=1e-9)
    assert logits.flatten().std(correction=0).item() == pytest.approx(truth["std"], rel=1e-3)


@pytest.mark.parametrize(
    ("widths", "parameters", "flops"),
    [("S", 1_848_633, 1_446_854_656), ("base", 6_356_689, 5_294_587_904), ("L", 25_359_265, 21_036_138_496)],
)
def test_cost_is_the_published_networks(widths: str, parameters: int, flops: int) -> None:
    cost = model_cost("ukan", 3, 1, {"widths": WIDTHS[widths]}, (256, 256))
    assert (cost.parameters, cost.flops) == (parameters, flops)


def test_flops_and_activations_grow_with_the_area() -> None:
    one, two, four = (model_cost("ukan", 1, 1, {"widths": [8, 8, 8]}, size) for size in ((64, 64), (64, 128), (128, 128)))
    assert one.parameters == two.parameters == four.parameters
    assert (two.flops, four.flops) == (2 * one.flops, 4 * one.flops)
    assert four.activation_bytes == 2 * two.activation_bytes == 4 * one.activation_bytes > 0


def test_activation_bytes_are_what_a_real_step_keeps() -> None:
    sizes = {"widths": [16, 24, 32]}
    torch.manual_seed(0)
    model = UKAN(1, 1, **sizes)
    weights = {parameter.data_ptr() for parameter in model.parameters()}

    def kept_by(images: int) -> int:
        kept: dict[int, torch.UntypedStorage] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(torch.randn(images, 1, 64, 96))
        return sum(storage.nbytes() for storage in kept.values())

    real = (kept_by(8) - kept_by(4)) / 4
    assert model_cost("ukan", 1, 1, sizes, (64, 96)).activation_bytes == pytest.approx(real, rel=0.05)


def test_the_mlp_twin_has_the_genuine_count() -> None:
    assert count(on_meta(kan_layers=("mlp",) * 3)) == 2_764_561


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
def test_each_further_layer_adds_its_kan_and_its_convolution_in_every_block(layers: int) -> None:
    # A KAN layer of width d has 10 d^2 parameters; the depthwise convolution and its norm 9 d + d + 2 d.
    layer = sum(10 * d * d + 12 * d for d in (128, 160, 160, 256))
    assert count(on_meta(kan_layers=("kan",) * layers)) == 6_356_689 + (layers - 3) * layer


@pytest.mark.parametrize("mixture", [("kan", "mlp", "mlp"), ("mlp", "kan", "mlp"), ("mlp", "mlp", "kan", "kan")])
def test_mixtures_put_each_kind_where_it_is_named(mixture: tuple[str, ...]) -> None:
    model = on_meta(kan_layers=mixture, widths=(8, 8, 16))
    blocks = [module for module in model.modules() if isinstance(module, KANBlock)]
    assert len(blocks) == 4
    for block in blocks:
        kinds = [block.layer.get_submodule(f"fc{i}") for i in range(1, len(mixture) + 1)]
        assert tuple("kan" if isinstance(kind, KANLinear) else "mlp" for kind in kinds) == mixture


def test_concatenated_skips_add_one_convolution_a_skip_and_nothing_else() -> None:
    added, joined = on_meta(skip="add"), on_meta(skip="cat")
    assert count(joined) - count(added) == sum(2 * c * c + c for c in (160, 128, 32, 16))
    assert {key for key in joined.state_dict() if not key.startswith("fuse")} == set(added.state_dict())


def test_every_layer_is_on_the_way_from_image_to_logits() -> None:
    torch.manual_seed(0)
    model = UKAN(1, 1, widths=(8, 8, 8), kan_layers=("kan",) * 5).double()
    image = torch.randn(2, 1, 32, 64, dtype=torch.float64)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, KANLinear)}
    assert len(layers) == 4 * 5
    with torch.no_grad():
        before = model(image)
        for name, module in layers.items():
            old = module.base_weight.clone()
            module.base_weight.copy_(old.roll(1, 0))
            assert (model(image) - before).abs().max() > 1e-6, f"{name} does nothing"
            module.base_weight.copy_(old)


@pytest.mark.parametrize(
    "sizes",
    [
        {"widths": [12, 16, 16]},
        {"widths": [16, 16]},
        {"widths": [16, 0, 16]},
        {"widths": 16},
        {"kan_layers": []},
        {"kan_layers": ["kan"] * 6},
        {"kan_layers": ["kan", "cnn"]},
        {"kan_layers": "kan"},
        {"kan_layers": 3},
        {"skip": "concat"},
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="model"):
        build_model("ukan", 3, 1, sizes)


def test_the_published_start_of_the_token_stages() -> None:
    torch.manual_seed(0)
    model = UKAN(3, 1, widths=(64, 64, 64), kan_layers=("mlp",))
    layer = model.block1[0].layer
    assert layer.fc1.weight.std().item() == pytest.approx(0.02, rel=0.1) and not layer.fc1.bias.any()
    # normal(0, sqrt(2 / fan_out)), fan_out = 9 outputs / groups, so depthwise ones are sqrt(2 / 9) wide.
    assert layer.dwconv_1.dwconv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.1)
    assert model.patch_embed3.proj.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.1)
    assert not model.patch_embed3.proj.bias.any()
