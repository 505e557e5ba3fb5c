"""What a network costs, found without computing anything: on torch's meta device."""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ukan.errors import UserError
from ukan.models import DENOISERS, build_denoiser, build_model


class Cost(NamedTuple):
    parameters: int
    flops: int
    """Of one image forward: 2 per multiply-add of convolutions and matrix products, 9 per state and step of scans; all else
    is left out (torch's FlopCounterMode)."""
    activation_bytes: int
    """What one image leaves in memory for the backward pass, float32."""


def model_cost(name: str, in_channels: int, num_classes: int, sizes: dict[str, Any], input_size: tuple[int, int]) -> Cost:
    """A network of diffusion is asked for one step without guidance.

    Raises UserError for sizes the network does not take, with those it does.
    """
    with torch.device("meta"):
        if name in DENOISERS:
            model = build_denoiser(name, in_channels, num_classes, 0, input_size, sizes)
            return _cost(model, (in_channels, *input_size), torch.zeros(()))
        return _cost(build_model(name, in_channels, num_classes, sizes), (in_channels, *input_size))


def _cost(model: nn.Module, shape: tuple[int, ...], *given: torch.Tensor) -> Cost:
    images = (torch.empty(count, *shape, device="meta") for count in (2, 4))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    (flops, kept), (_, kept_of_four) = (_measure(model, image, *given) for image in images)
    # The difference leaves out what is kept once, whatever the batch: products of weights.
    return Cost(parameters, flops // 2, (kept_of_four - kept) // 2)


def paper_gflops(name: str, in_channels: int, num_classes: int, sizes: dict[str, Any]) -> float:
    """GFLOPs as the U-KAN paper counts them (Tables 4 to 6), to lay beside its numbers: no measure of the work.

    They are eight times the multiply-adds that thop finds at 256x256, that is twice those at 512x512. thop counts module by
    module and knows convolutions, linear layers and norms; a KAN layer is none of these and counts as nothing.
    """
    with torch.device("meta"):
        model = build_model(name, in_channels, num_classes, sizes).eval()
        image = torch.empty(1, in_channels, 256, 256)
    macs = 0

    def count(module: nn.Module, _: Any, y: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Conv2d):
            macs += y.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            macs += y.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            macs += 4 * y.numel()

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model(image)
    return macs * 8 / 1e9


def _measure(model: nn.Module, *given: torch.Tensor) -> tuple[int, int]:
    """FLOPs of a forward pass and the bytes it keeps, parameters not among them."""
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage())
        return tensor

    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    counter = FlopCounterMode(display=False)
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0)  # fills that an earlier training asked for would be counted
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        try:
            model(*given)
        except ValueError as error:  # the network says itself which sizes it takes
            raise UserError(f"data.input_size: {error}") from error
        finally:
            torch.set_deterministic_debug_mode(before)
    return counter.get_total_flops(), sum(storage.nbytes() for address, storage in saved.items() if address not in weights)
