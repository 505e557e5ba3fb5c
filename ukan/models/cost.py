"""What a network costs, found without computing anything: on torch's meta device."""

from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ukan.errors import UserError
from ukan.models import build_model


class Cost(NamedTuple):
    parameters: int
    flops: int
    """Of one image forward, 2 per multiply-add, convolutions and matrix products only (torch's FlopCounterMode)."""
    activation_bytes: int
    """What one image leaves in memory for the backward pass, float32."""


def model_cost(name: str, in_channels: int, num_classes: int, sizes: dict[str, Any], input_size: tuple[int, int]) -> Cost:
    """Raises UserError for sizes the network does not take, with those it does."""
    with torch.device("meta"):
        model = build_model(name, in_channels, num_classes, sizes)
        image = torch.empty(2, in_channels, *input_size)
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
            model(image)
        except ValueError as error:  # the network says itself which sizes it takes
            raise UserError(f"data.input_size: {error}") from error
        finally:
            torch.set_deterministic_debug_mode(before)
    activations = sum(storage.nbytes() for address, storage in saved.items() if address not in weights)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, activations // 2)
