"""Diffusion U-KAN is the published one, its baselines are theirs, and every denoiser keeps one contract.

The published answers lie beside the checkout (shared/golden): a rule fills every parameter, a formula makes the image.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.errors import UserError
from ukan.models import DENOISERS, build_denoiser, find_denoiser, model_sizes
from ukan.models.cost import model_cost
from ukan.models.diffusion import DiffusionUKAN, ResBlock, TimedBlock, TimeEmbedding
from ukan.models.ukan import layer_maker
from ukan.nn.kan import KANLinear

SHARED = Path(__file__).resolve().parents[3] / "shared"
KAN = {"grid_size": 3, "spline_order": 2, "base_activation": "silu", "spline_scaler": True, "beyond": "zero"}
KAN_CHANGES = {
    **{"grid_size": [4], "spline_order": [3], "base_activation": ["relu"], "spline_scaler": [False], "beyond": ["linear"]}
}
SMALL: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "diffusion-ukan": (
        {
            **{"channels": 8, "multipliers": [1, 2, 2], "blocks": 1, "dropout": 0.1, "attention": [], "middle": "kan"},
            **KAN,
        },
        {
            "channels": [10],
            "multipliers": [[1, 2], [1, 2, 3], [2, 2, 2]],
            "blocks": [2],
            "dropout": [0.3],
            "attention": [[0], [1], [2], [3], [2, 3]],
            "middle": ["mlp", "wide-mlp", "resblock", "identity"],
            **KAN_CHANGES,
        },
    ),
    "diffusion-ukan-as-written": (
        {"widths": [16, 12, 20], "kan_layers": ["kan", "mlp"], "skip": "cat", **KAN},
        {
            "widths": [[8, 12, 20], [16, 14, 20], [16, 12, 22]],
            "kan_layers": [["kan"], ["mlp", "kan"], ["wide-mlp", "kan"], ["kan", "mlp", "kan"]],
            "skip": ["add"],
            **KAN_CHANGES,
        },
    ),
}
MIDDLES = ("kan", "mlp", "wide-mlp", "resblock", "identity")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{middle: ("diffusion-ukan", {"middle": middle, "attention": [2]}) for middle in MIDDLES},
    "kan with attention in the middle": ("diffusion-ukan", {"attention": [3]}),
    "resblock with attention in the middle": ("diffusion-ukan", {"middle": "resblock", "attention": [3]}),
    "identity with attention in the middle": ("diffusion-ukan", {"middle": "identity", "attention": [1, 3]}),
    "as written": ("diffusion-ukan-as-written", {}),
    "as written, added": ("diffusion-ukan-as-written", {"kan_layers": ["kan", "wide-mlp"], "skip": "add"}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_network = pytest.mark.parametrize("variant", ["kan", "as written"])


def awake(model: nn.Module) -> nn.Module:
    """Parts that start as nearly nothing as large as all others, so that what they do can be seen."""
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.weight.abs().max() < 1e-3:
            part.weight.data.mul_(1e5)
    return model


def small(variant: str, in_channels: int = 3, classes: int = 0, masks: int = 0, seed: int = 0, **sizes: Any) -> nn.Module:
    name, own = VARIANTS[variant]
    torch.manual_seed(seed)
    model = awake(build_denoiser(name, in_channels, classes, masks, (32, 64), {**SMALL[name][0], **own, **sizes}))
    if name == "diffusion-ukan-as-written":  # running statistics that have seen something, as after training
        for _ in range(3):
            answer(model, noisy(2, in_channels), torch.tensor([10, 900]))
    return model.eval()


def noisy(count: int = 1, channels: int = 3, size: tuple[int, int] = (32, 64), seed: int = 0) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def answer(model: nn.Module, x: Tensor, time: Any = 5, *told: Any, **named: Any) -> Tensor:
    with torch.no_grad():
        return model(x, time, *told, **named).sample


# As published


def golden(file: str) -> Any:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"published answers not beside the checkout ({path})")
    return json.loads(path.read_text(encoding="utf-8"))


def test_names_shapes_and_answers_are_the_published_networks() -> None:
    truth = golden("golden/diffusion_ukan.json")
    with torch.device("meta"):  # every value is filled in below: a start would be wasted
        model = DiffusionUKAN(3)
    model = model.to_empty(device="cpu").double().eval()
    state = {name.removeprefix("bottleneck."): v for name, v in model.state_dict().items() if not name.endswith(".grid")}
    assert sorted((name, list(entry.shape)) for name, entry in state.items()) == [tuple(e) for e in truth["entries"]]
    assert sum(parameter.numel() for parameter in model.parameters()) == truth["trainable"] == 26_807_811

    for k, (name, _) in enumerate(truth["entries"]):
        entry = state[name]
        s = torch.sin(0.7 * torch.arange(entry.numel(), dtype=torch.float64) + k).view(entry.shape)
        if entry.dim() >= 2:
            entry.copy_(s / math.sqrt(entry[0].numel()))
        else:
            entry.copy_(1 + 0.1 * s if name.endswith("weight") else 0.1 * s)
    for module in model.modules():
        if isinstance(module, KANLinear):
            module.set_knots((-1 + 0.4 * torch.arange(-3, 9, dtype=torch.float64)).expand_as(module.grid))
    c, y, x = torch.meshgrid(*(torch.arange(float(n), dtype=torch.float64) for n in (3, 64, 64)), indexing="ij")
    predicted = answer(model, (torch.sin(0.05 * (y + 1) * (c + 1)) * torch.cos(0.07 * (x + 1)))[None], 10)
    assert list(predicted.shape) == truth["output_shape"]
    values = torch.tensor(truth["values"], dtype=torch.float64)
    assert (predicted.flatten()[truth["at"]] - values).abs().max() <= 1e-9
    assert predicted.mean().item() == pytest.approx(truth["mean"], abs=1e-9)
    assert predicted.flatten().std(correction=0).item() == pytest.approx(truth["std"], rel=1e-3)


@pytest.mark.parametrize(
    ("sizes", "parameters", "flops"),
    [
        ({}, 26_807_811, 14_293_991_424),
        ({"middle": "resblock", "attention": [2, 4]}, 20_761_923, 15_113_617_408),  # UNet
        ({"middle": "identity", "attention": [2]}, 18_004_291, 14_773_616_640),  # UNet_Baseline
    ],
)
def test_cost_is_the_published_networks(sizes: dict[str, Any], parameters: int, flops: int) -> None:
    cost = model_cost("diffusion-ukan", 3, 0, sizes, (64, 64))
    assert (cost.parameters, cost.flops) == (parameters, flops)


def test_the_wide_mlp_has_as_many_parameters_as_kan_and_the_plain_one_fewer() -> None:
    with torch.device("meta"):
        networks = [DiffusionUKAN(3, middle=middle) for middle in ("kan", "wide-mlp", "mlp")]
    kan, wide, plain = (sum(parameter.numel() for parameter in network.parameters()) for network in networks)
    assert wide == pytest.approx(kan, rel=1e-3)
    # A KAN layer of width d has 10 d^2 parameters, a linear one in its place d^2 + d.
    assert kan - plain == sum(9 * d * d - d for d in (320, 320, 512))


def test_the_embedding_of_time_is_the_published_table_and_goes_on_between_its_rows() -> None:
    embed = TimeEmbedding(6, 6)
    embed.timembedding = nn.Identity()
    found = embed(torch.tensor([0.0, 7.0, 999.0, 7.5]), torch.float64)
    for time, row in zip((0, 7, 999, 7.5), found.tolist(), strict=True):
        angles = [time / 10000 ** (i / 6) for i in (0, 2, 4)]
        assert row == pytest.approx([f(angle) for angle in angles for f in (math.sin, math.cos)], abs=1e-12)


def test_the_published_start_is_xaviers_and_the_network_begins_as_nothing() -> None:
    torch.manual_seed(0)
    model = DiffusionUKAN(3, channels=32, multipliers=(1, 2))
    assert model.head.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (9 * (3 + 32))), rel=0.01)
    assert not any(p.any() for name, p in model.named_parameters() if name.startswith("head") and name.endswith("bias"))
    assert 0 < answer(model, noisy(), 5).abs().max() < 1e-3


# As written


def test_a_block_as_written_is_the_papers_equation_11() -> None:
    torch.manual_seed(0)
    block = TimedBlock(6, ("kan", "mlp", "kan"), 10, layer_maker(5, 3, "silu", True, "zero")).double()
    for norm in block.norms:
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    tokens, time = torch.randn(2, 8, 6, dtype=torch.float64), torch.randn(2, 10, dtype=torch.float64)
    z = tokens
    for kan, norm, project in zip(block.layers, block.norms, block.times, strict=True):
        y = kan(z)
        centred = y - y.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias
        z = normed + (time @ project.weight.T + project.bias)[:, None]
    torch.testing.assert_close(block(tokens, (2, 4), time), z, rtol=1e-12, atol=1e-12)


def test_as_written_has_no_depthwise_convolution_and_a_block_of_eq_11_in_each_stage() -> None:
    model = small("as written")
    assert not any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in model.modules())
    assert sum(isinstance(part, TimedBlock) for part in model.modules()) == 4


# The contract


def test_there_is_a_small_version_that_names_every_size() -> None:
    assert SMALL.keys() == DENOISERS.keys()
    for name, (sizes, changes) in SMALL.items():
        assert sizes.keys() == changes.keys() == model_sizes(name).keys()


@every_variant
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_predictions_have_the_shape_of_the_images(variant: str, channels: int) -> None:
    model = small(variant, channels)
    for size in ((32, 32), (32, 96), (64, 32)):
        x = noisy(2, channels, size)
        predicted = answer(model, x, torch.tensor([3, 900]))
        assert predicted.shape == x.shape and predicted.isfinite().all()
    assert torch.equal(model(x, 5, return_dict=False)[0], model(x, 5).sample)


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        *((middle, {"channels": channels, "multipliers": [1, 3]}) for middle in MIDDLES for channels in (6, 14)),
        ("as written", {"widths": [24, 9, 35]}),
        ("as written", {"widths": [8, 30, 21]}),
    ],
)
def test_any_width_will_do(variant: str, sizes: dict[str, Any]) -> None:
    model = small(variant, **({"attention": [1]} if "channels" in sizes else {}), **sizes)
    assert answer(model, noisy()).isfinite().all()


@every_variant
def test_a_batch_of_two_is_two_batches_of_one_in_eval(variant: str) -> None:
    model, two, times = small(variant).double(), noisy(2).double(), torch.tensor([7, 420])
    apart = torch.cat([answer(model, x[None], time) for x, time in zip(two, times, strict=True)])
    torch.testing.assert_close(answer(model, two, times), apart, rtol=1e-9, atol=1e-9)


@every_variant
def test_every_trainable_parameter_gets_a_finite_gradient_that_is_not_zero(variant: str) -> None:
    model = small(variant, classes=2, masks=2).double()
    x = noisy(3, size=(64, 96)).double()
    masks = noisy(3, 2, (64, 96), seed=1).sign().double()
    predicted = model(x, torch.tensor([3, 40, 700]), torch.tensor([0, 1, 2]), masks).sample
    (predicted * noisy(3, size=(64, 96), seed=2)).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} gets no gradient"
        assert parameter.grad.isfinite().all(), f"{key}: gradient not finite"
        # What is added to every key alike moves no softmax: the published networks have it all the same.
        if not key.endswith("proj_k.bias"):
            assert parameter.grad.abs().max() > 1e-9, f"{key}: gradient zero everywhere"


@every_variant
def test_the_time_matters_and_parts_of_a_step_lie_between_whole_ones(variant: str) -> None:
    model, x = small(variant).double(), noisy().double()
    at = {time: answer(model, x, time) for time in (10, 10.0, 10.5, 11, 900)}
    assert (at[10] - at[900]).norm() > 1e-6 * at[10].norm()
    before, between, after = at[10], at[10.5], at[11]
    assert (between - before).abs().max() > 1e-9 and (between - after).abs().max() > 1e-9
    assert (between - (before + after) / 2).norm() < 0.35 * (after - before).norm()  # half, were it no step between
    for same in (torch.tensor(10), torch.tensor([10]), torch.tensor(10.0)):
        assert torch.equal(answer(model, x, same), before)


@pytest.mark.parametrize("channels", [2, 8, 16, 32])
def test_narrow_blocks_hear_the_time_too(channels: int) -> None:
    """A norm of single channels would take it away again: it is the same at all places."""
    torch.manual_seed(0)
    block = awake(ResBlock(channels, channels, 12, 0.0, False)).double().eval()
    x, times = torch.randn(1, channels, 8, 8, dtype=torch.float64), torch.randn(2, 1, 12, dtype=torch.float64)
    with torch.no_grad():
        assert (block(x, times[0]) - block(x, times[1])).abs().max() > 1e-3


@every_variant
def test_classes_and_masks_change_the_answer_and_none_told_is_none_given(variant: str) -> None:
    model, x = small(variant, classes=2, masks=1), noisy(2)
    masks = torch.ones(2, 1, 32, 64)
    masks[..., 10:20, 5:40] = -1
    one, other = (answer(model, x, 5, torch.tensor([k, k])) for k in (0, 1))
    none = answer(model, x, 5)
    drawn = answer(model, x, 5, condition=masks)
    for first, second in itertools.combinations((one, other, none, drawn, answer(model, x, 5, condition=-masks)), 2):
        assert (first - second).abs().max() > 1e-4
    assert torch.equal(answer(model, x, 5, torch.tensor([2, 2]), torch.zeros(2, 1, 32, 64)), none)
    mixed = answer(model, x, 5, torch.tensor([0, 2]))
    torch.testing.assert_close(mixed, torch.stack((one[0], none[1])), rtol=1e-4, atol=1e-5)


@every_network
def test_a_network_that_was_not_made_for_a_condition_refuses_it(variant: str) -> None:
    model, x = small(variant), noisy()
    with pytest.raises(ValueError, match="num_classes"):
        model(x, 5, torch.tensor([0]))
    with pytest.raises(ValueError, match="mask_channels"):
        model(x, 5, condition=torch.zeros(1, 1, 32, 64))


@every_variant
@pytest.mark.parametrize("off", [(1, 0), (0, -1), (3, 5)])
def test_a_size_that_is_no_multiple_is_refused_with_the_size_to_use(variant: str, off: tuple[int, int]) -> None:
    model = small(variant)
    height, width = 2 * model.stride + off[0], 3 * model.stride + off[1]
    with pytest.raises(ValueError, match=f"got {height}x{width}; use {2 * model.stride}x{3 * model.stride}"):
        model(torch.zeros(1, 3, height, width), 5)


def test_all_middles_take_the_same_images_in_multiples_of_32() -> None:
    with torch.device("meta"):
        assert {DiffusionUKAN(3, channels=8, middle=middle).stride for middle in MIDDLES} == {32}
    assert find_denoiser("diffusion-ukan-as-written").stride == 32


def overfitted(model: nn.Module, x: Tensor, wanted: Tensor, steps: int) -> float:
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        error = F.mse_loss(model(x, 400).sample, wanted)
        error.backward()
        optimizer.step()
    return error.item() / wanted.square().mean().item()  # answering nothing costs 1


@pytest.mark.parametrize("middle", ["kan", "identity"])
def test_overfits_the_noise_of_one_image(middle: str) -> None:
    image, noise = noisy(1, 1, (32, 32)), noisy(1, 1, (32, 32), seed=1)
    model = small(middle, 1, attention=[], dropout=0.0)
    assert overfitted(model, 0.7 * image + 0.7 * noise, noise, 60) < 0.1


def test_as_written_overfits_an_image_but_never_its_noise() -> None:
    """Its answer is a map of half the side, doubled: three quarters of white noise cannot be said so."""
    noise = noisy(2, 1, (32, 64), seed=1)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    image = torch.stack((torch.sin(y / 8) * torch.cos(x / 9), torch.cos(y / 7 + x / 11)))[:, None]
    model = small("as written", 1, widths=[32, 24, 24], kan_layers=["kan"])
    assert overfitted(model, 0.7 * image + 0.7 * noise, image, 60) < 0.1
    assert overfitted(model, 0.7 * image + 0.7 * noise, noise, 20) > 0.7


@pytest.mark.parametrize("name", DENOISERS)
def test_every_size_changes_the_network(name: str) -> None:
    """Its tensors, or where they stay, its answers in training."""
    sizes, changes = SMALL[name]
    variant = next(key for key, (of, own) in VARIANTS.items() if of == name and (not own or own.get("middle") == "kan"))
    found: list[tuple[list[Any], Tensor]] = []
    for size, values in [("", [None]), *changes.items()]:
        for value in values:
            changed = small(variant, **({**sizes, size: value} if size else sizes)).train()
            torch.manual_seed(0)
            found.append(([(key, tuple(e.shape)) for key, e in changed.state_dict().items()], answer(changed, 3 * noisy(2))))
    for (shapes, one), (others, another) in itertools.combinations(found, 2):
        assert shapes != others or not torch.allclose(one, another, rtol=0, atol=1e-7)


@every_network
def test_channels_classes_and_masks_change_the_network(variant: str) -> None:
    given = ((1, 0, 0), (2, 0, 0), (1, 2, 0), (1, 3, 0), (1, 0, 1))
    counts = [sum(p.numel() for p in small(variant, *numbers).parameters()) for numbers in given]
    assert len(set(counts)) == len(given)


@every_network
def test_the_same_seed_gives_the_same_network(variant: str) -> None:
    one, same, another = (small(variant, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], another[key]) for key in one)


@every_network
def test_channels_last_memory_changes_nothing(variant: str) -> None:
    model, x = small(variant).double(), noisy(2).double()
    plain = answer(model, x)
    other = answer(model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(other, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"channels": 7}, "even"),
        ({"channels": 0}, "even"),
        ({"multipliers": []}, "multipliers"),
        ({"multipliers": [1, 0]}, "multipliers"),
        ({"blocks": 0}, "blocks"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention": [4]}, "attention names levels 0 to 3"),
        ({"middle": "cnn"}, "middle is one of kan, mlp"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        small("kan", **sizes)


def test_a_network_of_segmentation_and_an_unknown_size_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no network of diffusion 'diffusion-ukn'.*'diffusion-ukan'"):
        find_denoiser("diffusion-ukn")
    with pytest.raises(UserError, match="model.channel: .*Did you mean 'channels'"):
        small("kan", channel=1)


# Moved and run by others


def bent(model: nn.Module) -> nn.Module:
    """With knots of its KAN layers that are no longer even."""
    for part in model.modules():
        if isinstance(part, KANLinear):
            part.set_knots(part.grid + 0.1 * torch.sin(9 * part.grid))
    return model


@every_network
def test_a_state_moved_to_another_network_gives_the_same_answers(variant: str, tmp_path: Path) -> None:
    model, other, x = bent(small(variant)), small(variant, seed=1), noisy()
    assert not torch.allclose(answer(model, x), answer(other, x))
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert torch.equal(answer(model, x), answer(other, x))


@every_variant
def test_what_diffusers_saves_and_loads_gives_the_same_answers(variant: str, tmp_path: Path) -> None:
    for number, change in enumerate((lambda model: model, bent)):
        model, x = change(small(variant, 1, classes=2, masks=1)), noisy(1, 1)
        model.save_pretrained(tmp_path / str(number))
        loaded = type(model).from_pretrained(tmp_path / str(number))
        told = (torch.tensor([1]), torch.ones(1, 1, 32, 64))
        torch.testing.assert_close(answer(loaded, x, 5, *told), answer(model, x, 5, *told), rtol=1e-4, atol=1e-5)
        state = loaded.state_dict()
        assert not loaded.training and all(torch.equal(state[key], entry) for key, entry in model.state_dict().items())
        same = {key for key in model.config if not key.startswith("_")}
        assert {key: loaded.config[key] for key in same} == {key: model.config[key] for key in same}


@every_network
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pipeline_of_diffusers_runs_it(variant: str, channels: int) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    pipeline = DDPMPipeline(unet=small(variant, channels), scheduler=DDPMScheduler(num_train_timesteps=10))
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    images = pipeline(batch_size=2, num_inference_steps=2, output_type="np", generator=generator).images
    assert images.shape == (2, 32, 64, channels) and 0 <= images.min() < images.max() <= 1
    pictures = pipeline(num_inference_steps=2, generator=generator).images
    assert pictures[0].size == (64, 32) and pictures[0].mode == ("L" if channels == 1 else "RGB")
