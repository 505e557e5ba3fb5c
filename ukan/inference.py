"""Networks and whole images to probabilities at the images' own sizes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.preprocess import at_size, to_input
from ukan.plan import DataPlan, Plan
from ukan.runtime import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Predicted(NamedTuple):
    """What networks say of an image, or of the slices of a volume."""

    probabilities_DKhw: NDArray[np.float32]
    """Of each class (background not among them), at the plan's input size; the mean over networks and flips."""
    members_MDKhw: list[NDArray[np.bool_]]
    """The mask of each network alone, the mean over its flips."""
    features_F: list[NDArray[np.float32]]
    """For each network the mean of its deepest map over pixels and slices; empty where the model names none."""


def predict_stacks(
    networks: "Sequence[nn.Module]",
    stacks: Iterable[NDArray[np.uint8]],
    plan: Plan,
    device: "torch.device",
    precision: Precision = "fp32",
    *,
    flips: Sequence[tuple[int, ...]] = ((),),
) -> Iterator[Predicted]:
    """For each prepared stack (D, h, w, C), in order, what the networks say of it.

    Slices of successive stacks share batches of plan.infer.batch_size, so that pictures and volumes alike fill a device;
    stacks are asked for as they are needed. `flips` are axes to flip, of (B, C, H, W), and to flip back.
    """
    waiting: list[int] = []  # slices of each stack begun and not yet given
    done: list[_Slices] = []
    batch: list[NDArray[np.uint8]] = []
    for stack in stacks:
        waiting.append(len(stack))
        for image in stack:
            batch.append(image)
            if len(batch) == plan.infer.batch_size:
                done += _predict_batch(networks, np.stack(batch), plan, device, precision, flips)
                batch = []
        while waiting and len(done) >= waiting[0]:
            yield _together(done[: waiting[0]])
            del done[: waiting.pop(0)]
    if batch:
        done += _predict_batch(networks, np.stack(batch), plan, device, precision, flips)
    for count in waiting:
        yield _together(done[:count])
        del done[:count]


def full_size(probabilities_DKhw: NDArray[np.float32], size: Sequence[int], data: DataPlan) -> NDArray[np.float32]:
    """Probabilities (D, K, h, w) at the input size to (K, D, height, width), `size` being the last two."""
    return np.stack([at_size(p, size, data) for p in probabilities_DKhw], axis=1)


def decide(probabilities: NDArray[np.float32], plan: Plan, axis: int = 0) -> NDArray[np.bool_]:
    """Probabilities of the classes along `axis` to masks of the same shape.

    Classes that exclude one another: the likeliest, background included. Others: whatever is above plan.infer.threshold.
    """
    if plan.data.target != "multiclass":
        return probabilities > plan.infer.threshold
    best = probabilities.max(axis, keepdims=True)
    background = 1 - probabilities.sum(axis, keepdims=True)
    first = np.cumsum(probabilities == best, axis=axis) == 1  # of equals one
    return (probabilities == best) & first & (best > background)


def class_probabilities(logits_BLHW: "Tensor", data: DataPlan) -> "Tensor":
    """Logits to probabilities (B, K, H, W) of the classes, background left out."""
    import torch

    logits = logits_BLHW.float()
    return torch.softmax(logits, 1)[:, 1:] if data.target == "multiclass" else torch.sigmoid(logits)


def training_flips(plan: Plan) -> list[tuple[int, ...]]:
    """The flips the networks were trained with, none first: what --tta averages over."""
    augment = plan.train.augment
    both = augment.any_flip > 0 or augment.rot90 > 0
    vertical, horizontal = augment.vflip > 0 or both, augment.hflip > 0 or both
    flips: list[tuple[int, ...]] = [()]
    flips += [(3,)] if horizontal else []
    flips += [(2,)] if vertical else []
    flips += [(2, 3)] if vertical and horizontal else []
    return flips


class _Slices(NamedTuple):
    probabilities_Khw: NDArray[np.float32]
    members_MKhw: NDArray[np.bool_]
    features_MF: list[NDArray[np.float32]]


def _predict_batch(
    networks: "Sequence[nn.Module]",
    images_BHWC: NDArray[np.uint8],
    plan: Plan,
    device: "torch.device",
    precision: Precision,
    flips: Sequence[tuple[int, ...]],
) -> list[_Slices]:
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    memory_format = torch.channels_last if plan.train.channels_last else torch.contiguous_format
    members, features = [], []
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=precision != "fp32"):
        x = to_input(torch.from_numpy(images_BHWC).to(device), plan.data).contiguous(memory_format=memory_format)
        for network in networks:
            total, found = torch.zeros((), device=device), []
            for flip in flips:
                logits, feature = _forward(network, x.flip(flip).contiguous(memory_format=memory_format) if flip else x)
                total = total + class_probabilities(logits, plan.data).flip(flip)
                found += [feature] if feature is not None and not flip else []
            members.append((total / len(flips)).cpu().numpy())
            features.append(found[0].cpu().numpy() if found else None)
    mean = np.stack(members).mean(0)
    masks = np.stack([decide(member, plan, axis=1) for member in members], axis=1)
    return [
        _Slices(mean[b], masks[b], [feature[b] for feature in features if feature is not None])
        for b in range(len(images_BHWC))
    ]


def _forward(network: "nn.Module", x: "Tensor") -> "tuple[Tensor, Tensor | None]":
    """Logits, and the mean over places (B, F) of what the module named by `deepest` gives."""
    name = getattr(network, "deepest", None)
    if name is None:
        return network(x), None
    seen: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        logits = network(x)
    finally:
        handle.remove()
    feature = seen[-1].float()
    return logits, feature.mean((2, 3)) if feature.ndim == 4 else feature.mean(1)


def _together(slices: list[_Slices]) -> Predicted:
    networks = len(slices[0].features_MF)
    return Predicted(
        np.stack([s.probabilities_Khw for s in slices]),
        list(np.stack([s.members_MKhw for s in slices], axis=1)),
        [np.mean([s.features_MF[n] for s in slices], axis=0) for n in range(networks)],
    )
