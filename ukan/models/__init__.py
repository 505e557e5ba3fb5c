"""MODELS: every segmentation network by name, DENOISERS: every network of diffusion.

A segmentation network keeps one contract: Model(in_channels, num_classes, **sizes), a `stride`, logits out. It may name some
of its sizes (`named_sizes`), and put published weights in where a training begins (`load_pretrained`). Another package
adds one through the entry point group "ukan.models". A denoiser is called as diffusers' networks are, see
`ukan.models.diffusion`.
"""

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ukan.errors import UserError, nearest
from ukan.plan import Plan

MODELS = {
    "ukan": "ukan.models.ukan:UKAN",
    "km-unet": "ukan.models.km_unet:KMUNet",
    "unet": "ukan.models.unet:UNet",
    "attention-unet": "ukan.models.attention_unet:AttentionUNet",
    "unetpp": "ukan.models.unetpp:UNetPlusPlus",
    "unext": "ukan.models.unext:UNeXt",
    "rolling-unet": "ukan.models.rolling_unet:RollingUNet",
    "u-mamba": "ukan.models.u_mamba:UMamba",
    "convnext-unet": "ukan.models.pretrained:ConvNeXtUNet",
}
DENOISERS = {
    "diffusion-ukan": "ukan.models.diffusion:DiffusionUKAN",
    "diffusion-ukan-as-written": "ukan.models.diffusion:DiffusionUKANAsWritten",
}
"""Module and class; a module is imported when its network is asked for: diffusers alone takes seconds to load."""


def find_model(name: str) -> type[nn.Module]:
    """The class behind a name: one of MODELS, or one that an installed package offers."""
    if name in MODELS:
        return _load(MODELS[name])
    offered = {entry.name: entry for entry in entry_points(group="ukan.models")}
    if name not in offered:
        if name in DENOISERS:
            raise UserError(f"model.name: {name} is a network of diffusion (ukan plan --task diffuse)")
        raise UserError(f"model.name: no model {name!r}. {nearest(name, [*MODELS, *offered])}")
    entry = offered[name]
    package = entry.dist.name if entry.dist else entry.module
    try:
        model = entry.load()
    except Exception as error:  # anything can go wrong in somebody else's module
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"model.name: {name} of the package {package} cannot be loaded ({why})") from error
    if broken := _broken_promise(model):
        raise UserError(f"model.name: {name} of the package {package} cannot be used: {broken}")
    return model


def find_denoiser(name: str) -> type[nn.Module]:
    """The class behind a name of DENOISERS."""
    if name not in DENOISERS:
        raise UserError(f"model.name: no network of diffusion {name!r}. {nearest(name, list(DENOISERS))}")
    return _load(DENOISERS[name])


def _load(target: str) -> type[nn.Module]:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def _broken_promise(model: Any) -> str | None:
    """What the contract asks for and a class does not give."""
    if not (isinstance(model, type) and issubclass(model, nn.Module)):
        return f"{model!r} is no torch.nn.Module class"
    if not isinstance(getattr(model, "stride", None), int):
        return "the class has no `stride`, the number that the image's sides must be multiples of"
    parameters = list(inspect.signature(model).parameters.values())
    sizes = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    rest = [p.name for p in parameters if p not in sizes and p.kind is not inspect.Parameter.VAR_KEYWORD]
    if rest != ["in_channels", "num_classes"] or any(p.default is inspect.Parameter.empty for p in sizes):
        return (
            f"it must be called as Model(in_channels, num_classes, *, sizes with defaults), it is {inspect.signature(model)}"
        )
    return None


def model_sizes(name: str) -> dict[str, Any]:
    """The named sizes a model takes, with their defaults."""
    model = find_denoiser(name) if name in DENOISERS else find_model(name)
    parameters = inspect.signature(model).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def named_sizes(name: str) -> dict[str, dict[str, Any]]:
    """The sizes of a network that have a name: what each sets; none where the network names none."""
    return getattr(find_denoiser(name) if name in DENOISERS else find_model(name), "named_sizes", {})


def model_stride(name: str) -> int:
    """What the sides of a segmentation network's images are multiples of."""
    return find_model(name).stride  # type: ignore[attr-defined]


def build_model(name: str, in_channels: int, num_classes: int, sizes: dict[str, Any]) -> nn.Module:
    """A segmentation network with fresh weights; an unknown or impossible size is answered with what would do."""
    return _build(find_model(name), name, (in_channels, num_classes), sizes)


def build_denoiser(
    name: str, channels: int, num_classes: int, mask_channels: int, input_size: tuple[int, int], sizes: dict[str, Any]
) -> nn.Module:
    """A network of diffusion with fresh weights; errors as of `build_model`."""
    return _build(find_denoiser(name), name, (channels, num_classes, mask_channels, list(input_size)), sizes)


def build_network(plan: Plan) -> nn.Module:
    """The network of a plan of any task, with fresh weights."""
    data, model = plan.data, plan.model
    if plan.diffuse is None:
        return build_model(model.name, data.channels, data.outputs, model.sizes)
    masks = len(data.classes) if plan.diffuse.condition == "mask" else 0
    return build_denoiser(model.name, data.channels, len(plan.diffuse.classes), masks, data.input_size, model.sizes)


def _build(model: type[nn.Module], name: str, given: tuple[Any, ...], sizes: dict[str, Any]) -> nn.Module:
    known = model_sizes(name)
    for size in sizes:
        if size not in known:
            raise UserError(f"model.{size}: {name} takes no such size. {nearest(size, list(known))}")
    try:
        return model(*given, **sizes)
    except (ValueError, TypeError) as error:
        raise UserError(f"model: {error}") from error


def check_trainable(
    model: nn.Module, batch_size: int, in_channels: int, input_size: tuple[int, int], *given: torch.Tensor
) -> None:
    """Refuse, before any work, a batch that a fresh network cannot be trained on; computes nothing (torch's meta device).

    given: what the network takes beside an image (a timestep). Normalisation needs more than one value a channel: a single
    image whose deepest map is one pixel has no deviation.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    image = torch.empty(batch_size, in_channels, *input_size, device="meta")
    try:
        functional_call(model, {name: tensor.to("meta") for name, tensor in tensors.items()}, (image, *given))
    except ValueError as error:
        raise UserError(
            f"train.batch_size={batch_size} with data.input_size={list(input_size)} cannot be trained on ({error}); "
            "make one of them larger"
        ) from error
