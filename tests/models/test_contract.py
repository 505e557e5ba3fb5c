"""The promises every network of MODELS makes, proved on a small version of each.

A new model needs one entry in SMALL: the least sizes that still have every part, and a change of each size.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.errors import UserError
from ukan.models import MODELS, build_model, find_model, model_sizes

SMALL: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "ukan": (
        {
            **{"widths": [16, 20, 24], "kan_layers": ["kan", "mlp"], "skip": "cat"},
            **{"grid_size": 3, "spline_order": 2, "base_activation": "silu", "spline_scaler": True, "beyond": "zero"},
        },
        {
            "widths": [[8, 20, 24], [16, 24, 24], [16, 20, 32]],
            "kan_layers": [["kan"], ["mlp", "mlp"], ["wide-mlp", "kan"], ["kan", "kan"], ["kan", "mlp", "kan"]],
            "skip": ["add"],
            "grid_size": [4],
            "spline_order": [4],
            "base_activation": ["relu", "gelu"],
            "spline_scaler": [False],
            "beyond": ["linear"],
        },
    ),
    "km-unet": (
        {
            **{"widths": [16, 20, 24], "kan_layers": ["kan", "mlp"], "sem": "scan", "scan_order": "raster"},
            **{"scan_backend": "auto", "as_published": False},
            **{"grid_size": 3, "spline_order": 2, "base_activation": "silu", "spline_scaler": True, "beyond": "zero"},
        },
        {
            "widths": [[8, 20, 24], [16, 24, 24], [16, 20, 32]],
            "kan_layers": [["kan"], ["wide-mlp", "kan"]],
            "sem": ["conv"],
            "scan_order": ["spiral"],
            "scan_backend": [],  # the same to rounding: tests/nn/test_scan.py
            "as_published": [True],
            "grid_size": [4],
            "spline_order": [4],
            "base_activation": ["relu", "gelu"],
            "spline_scaler": [False],
            "beyond": ["linear"],
        },
    ),
    "unet": (
        {"widths": [4, 6, 8, 10, 12]},
        {"widths": [[5, 6, 8, 10, 12], [4, 5, 8, 10, 12], [4, 6, 7, 10, 12], [4, 6, 8, 9, 12], [4, 6, 8, 10, 11]]},
    ),
    "attention-unet": (
        {"widths": [4, 6, 8, 10, 12]},
        {"widths": [[6, 6, 8, 10, 12], [4, 8, 8, 10, 12], [4, 6, 10, 10, 12], [4, 6, 8, 8, 12], [4, 6, 8, 10, 11]]},
    ),
    "unetpp": (
        {"widths": [4, 6, 8, 10, 12]},
        {"widths": [[5, 6, 8, 10, 12], [4, 8, 8, 10, 12], [4, 6, 10, 10, 12], [4, 6, 8, 8, 12], [4, 6, 8, 10, 14]]},
    ),
    "convnext-unet": (
        {"encoder": "atto", "decoder": [16, 12, 8, 8, 8], "weights": "none"},
        {
            "encoder": ["pico", "tiny"],
            "decoder": [[12, 12, 8, 8, 8], [16, 10, 8, 8, 8], [16, 12, 6, 8, 8], [16, 12, 8, 6, 8], [16, 12, 8, 8, 6]],
            "weights": [],  # how a training begins: test_pretrained.py
        },
    ),
    "unext": (
        {"widths": [4, 8, 10, 10, 15]},
        {"widths": [[5, 8, 10, 10, 15], [4, 7, 10, 10, 15], [4, 8, 12, 10, 15], [4, 8, 10, 12, 15], [4, 8, 10, 10, 20]]},
    ),
    "rolling-unet": (
        {"widths": [4, 6, 8, 10, 12], "dropout": 0.1},
        {
            "widths": [[6, 6, 8, 10, 12], [4, 7, 8, 10, 12], [4, 6, 9, 10, 12], [4, 6, 8, 11, 12], [4, 6, 8, 10, 13]],
            "dropout": [0.0],
        },
    ),
    "u-mamba": (
        {"widths": [8, 8, 8, 8, 12, 12, 12], "mamba": "bottom", "scan_backend": "auto"},
        {
            "widths": [
                *([6, 8, 8, 8, 12, 12, 12], [8, 6, 8, 8, 12, 12, 12], [8, 8, 6, 8, 12, 12, 12], [8, 8, 8, 6, 12, 12, 12]),
                *([8, 8, 8, 8, 10, 12, 12], [8, 8, 8, 8, 12, 10, 12], [8, 8, 8, 8, 12, 12, 10]),
            ],
            "mamba": ["encoder"],
            "scan_backend": [],  # the same to rounding: tests/nn/test_scan.py
        },
    ),
}

pytestmark = pytest.mark.parametrize("name", MODELS)


def small(name: str, in_channels: int = 3, num_classes: int = 1, seed: int = 0, **sizes: Any) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, in_channels, num_classes, {**SMALL[name][0], **sizes})


def images(name: str, count: int = 1, channels: int = 3, units: tuple[int, int] = (1, 2), seed: int = 0) -> Tensor:
    stride = find_model(name).stride
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, units[0] * stride, units[1] * stride, generator=generator)


def used(model: nn.Module, image: Tensor) -> nn.Module:
    """A model in eval whose running statistics have seen something, as after training."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(image)
    return model.eval()


def test_there_is_a_small_version_that_names_every_size(name: str) -> None:
    sizes, changes = SMALL[name]
    assert sizes.keys() == changes.keys() == model_sizes(name).keys()


@pytest.mark.parametrize("in_channels", [1, 3, 5])
@pytest.mark.parametrize("num_classes", [1, 4])
def test_logits_have_the_size_of_the_image_and_a_channel_a_class(name: str, in_channels: int, num_classes: int) -> None:
    model = small(name, in_channels, num_classes).eval()
    for units in ((1, 1), (1, 3), (2, 1)):
        image = images(name, 2, in_channels, units)
        with torch.no_grad():
            logits = model(image)
        assert logits.shape == (2, num_classes, *image.shape[2:])
        assert logits.isfinite().all()


def test_logits_are_not_probabilities(name: str) -> None:
    with torch.no_grad():
        logits = torch.cat([small(name, seed=seed).train()(images(name, 2)) for seed in range(3)])
    assert logits.min() < 0 and logits.max() > 1


def test_a_batch_of_two_is_two_batches_of_one_in_eval(name: str) -> None:
    two = images(name, 2).double()  # float32 rounds by the batch's shape, in a deep network to 1e-5
    model = used(small(name).double(), two)
    with torch.no_grad():
        apart = torch.cat([model(image[None]) for image in two])
        torch.testing.assert_close(model(two), apart, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(apart[0], apart[1])


def test_eval_is_repeatable_and_leaves_the_state_alone(name: str) -> None:
    image = images(name, 2)
    model = used(small(name), image)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(model(image), model(image))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_every_trainable_parameter_gets_a_finite_gradient_that_is_not_zero(name: str) -> None:
    image = images(name, 2, units=(2, 3))
    model = used(small(name, num_classes=2), image)  # in eval: BatchNorm would cancel the bias before it
    (model(image) * torch.randn(2, 2, *image.shape[2:])).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} gets no gradient"
        assert parameter.grad.isfinite().all(), f"{key}: gradient not finite"
        assert parameter.grad.any(), f"{key}: gradient zero everywhere"


def test_overfits_one_image_in_some_tens_of_steps(name: str) -> None:
    model = small(name).train()
    target = torch.zeros_like(images(name)[:, :1])
    target[..., 6:19, 21:50] = 1
    image = images(name) + 2 * target
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        logits = model(image)
        F.binary_cross_entropy_with_logits(logits, target).backward()
        optimizer.step()
    found = logits > 0
    iou = (found & (target > 0)).sum() / (found | (target > 0)).sum()
    assert iou > 0.95


def test_a_state_moved_to_another_network_gives_the_same_answers(name: str, tmp_path) -> None:
    from safetensors.torch import load_file, save_file

    image = images(name)
    model, other = used(small(name), image), small(name, seed=1).eval()
    with torch.no_grad():
        assert not torch.allclose(model(image), other(image))
        save_file(model.state_dict(), tmp_path / "state.safetensors")
        other.load_state_dict(load_file(tmp_path / "state.safetensors"))
        assert torch.equal(model(image), other(image))


def test_the_same_seed_gives_the_same_network(name: str) -> None:
    one, same, another = (small(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], another[key]) for key in one)


@pytest.mark.parametrize("off", [(1, 0), (0, -1), (3, 5)])
def test_a_size_that_is_no_multiple_is_refused_with_the_size_to_use(name: str, off: tuple[int, int]) -> None:
    stride = find_model(name).stride
    height, width = 2 * stride + off[0], 3 * stride + off[1]
    with pytest.raises(ValueError, match=f"got {height}x{width}; use {2 * stride}x{3 * stride}"):
        small(name).eval()(torch.zeros(1, 3, height, width))


def test_every_size_changes_the_network(name: str) -> None:
    """Its tensors, or where they stay, its answers."""
    sizes, changes = SMALL[name]
    found: list[tuple[list[Any], Tensor]] = []
    image = 3 * images(name)
    for size, values in [("", [None]), *changes.items()]:
        for value in values:
            changed = small(name, **({size: value} if size else {}))
            with torch.no_grad():
                answer = changed(image)
            found.append(([(key, tuple(entry.shape)) for key, entry in changed.state_dict().items()], answer))
    for (shapes, answer), (others, another) in itertools.combinations(found, 2):
        assert shapes != others or not torch.allclose(answer, another, rtol=0, atol=1e-7)


def test_channels_and_classes_change_the_network(name: str) -> None:
    counts = [sum(p.numel() for p in small(name, *given).parameters()) for given in ((1, 1), (2, 1), (1, 2))]
    assert len(set(counts)) == 3


def test_sizes_written_as_a_plan_writes_them_are_the_defaults(name: str) -> None:
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in model_sizes(name).items()}
    with torch.device("meta"):
        ours, plain = build_model(name, 3, 1, defaults), find_model(name)(3, 1)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [(k, v.shape) for k, v in plain.state_dict().items()]


def test_an_unknown_size_is_answered_with_the_nearest(name: str) -> None:
    known = next(iter(model_sizes(name)))
    with pytest.raises(UserError, match=f"model.{known}x: .*Did you mean '{known}'"):
        build_model(name, 3, 1, {f"{known}x": 1})


def test_a_mistyped_model_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}'"):
        find_model(f"{name}s")


def test_channels_last_memory_changes_nothing(name: str) -> None:
    image = images(name, 2).double()
    model = used(small(name).double(), image)
    with torch.no_grad():
        plain = model(image)
        other = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


def test_onnx_gives_the_same_answers(name: str, tmp_path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    image = images(name)
    model = used(small(name), image)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (image,), path, input_names=["image"], output_names=["logits"], verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    another = images(name, seed=1)
    (theirs,) = session.run(["logits"], {"image": another.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(theirs), model(another), rtol=0, atol=1e-4)
