"""What training owes KAN layers beside gradients: knots that follow the data, and regularisation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ukan.nn.kan import KANLinear
from ukan.nn.knots import apply_change, carry_moments, plan_change, some_rows
from ukan.nn.penalty import activation_penalty, coefficient_penalty
from ukan.plan import TrainPlan

BatchT = TypeVar("BatchT")
Inputs = dict[str, list[Tensor]]
_ROWS = 4096
"""Of what enters a layer in a step, so much is kept to choose knots by."""


def kan_layers(network: nn.Module) -> dict[str, KANLinear]:
    return {name: module for name, module in network.named_modules() if isinstance(module, KANLinear)}


@contextmanager
def entering(network: nn.Module, on: bool, keep: Callable[[Tensor], Tensor]) -> Iterator[Inputs]:
    """What enters every KAN layer inside the block, each time it is called, as `keep` makes it; nothing unless `on`."""
    found: Inputs = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: found.setdefault(name, []).append(keep(given[0]))

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in kan_layers(network).items()] if on else []
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def with_penalty(
    compute_loss: Callable[[BatchT], Tensor], network: nn.Module, plan: TrainPlan
) -> Callable[[BatchT], Tensor]:
    """A loss with the plan's regularisation of every KAN layer added."""
    if not (plan.kan_l1 or plan.kan_entropy):
        return compute_loss
    weights = plan.kan_l1, plan.kan_entropy

    def loss_and_penalty(batch: BatchT) -> Tensor:
        with entering(network, plan.kan_penalty == "activations", lambda x: x) as inputs:
            loss = compute_loss(batch)
        for name, layer in kan_layers(network).items():
            if plan.kan_penalty == "coefficients":
                loss = loss + coefficient_penalty(layer, *weights)
            for x in inputs.get(name, []):
                loss = loss + activation_penalty(layer, x, *weights)
        return loss

    return loss_and_penalty


def knots_are_due(step: int, last_step: int, plan: TrainPlan) -> bool:
    """Whether knots follow the data after a step, counted from 1."""
    return (
        plan.kan_update_every > 0
        and step % plan.kan_update_every == 0
        and step <= plan.kan_update_until * last_step
        and step < last_step
    )


def sample(x: Tensor) -> Tensor:
    return some_rows(x.detach(), _ROWS)


def update_knots(
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    plan: TrainPlan,
    gather: Any,
) -> None:
    """Give every KAN layer the knots its inputs ask for; the moving average and the optimiser's moments move along.

    gather joins tensors of all processes, so that all come to the same knots.
    """
    averages = kan_layers(average) if average else {}
    for name, layer in kan_layers(network).items():
        if name in inputs:
            change = plan_change(layer, gather(sample(torch.cat(inputs[name])).float()), plan.kan_update_adaptive)
            apply_change(layer, change)
            carry_moments(layer, change, optimizer)
            if name in averages:
                apply_change(averages[name], change)
