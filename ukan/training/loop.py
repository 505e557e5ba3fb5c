"""The training loop, blind to the task: batches in, a finished network out, and a run that can be killed at any moment."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ukan.errors import OutOfMemory, UserError
from ukan.models.weights import save_weights
from ukan.paths import FoldFolder
from ukan.plan import TrainPlan
from ukan.runtime import explain_out_of_memory, is_out_of_memory
from ukan.training.checkpoint import load_resume, remove_resume, save_resume
from ukan.training.ema import EMA
from ukan.training.interrupt import Stop
from ukan.training.kan import entering, knots_are_due, sample, update_knots, with_penalty
from ukan.training.log import Log, Progress
from ukan.training.optim import set_learning_rates

BatchT = TypeVar("BatchT", bound=tuple[Any, ...])
_SAVE_EVERY_S = 60.0
_SAVE_SHARE = 0.05  # saving takes at most this share of the time
_STEADIER = "lower train.lr and train.lr_kan, or use train.precision=fp32"
_SKIPPED_STEPS = 20  # in a row; by then fp16's scale of 65536 has been halved away


@dataclass(frozen=True)
class Outcome:
    finished: bool
    stopped_by: str | None
    step: int
    micro_batch: int | None
    elapsed_s: float


def fit(
    *,
    model: nn.Module,
    optimizer: Optimizer,
    make_batches: Callable[[int], Iterable[BatchT]],
    compute_loss: Callable[[BatchT], Tensor],
    validate: Callable[[nn.Module, int], dict[str, float]],
    plan: TrainPlan,
    steps_per_epoch: int,
    folder: FoldFolder,
    accelerator: Any,
    stop: Stop,
    title: str,
) -> Outcome:
    """Train to plan.epochs, from where `folder` stands, and leave the final weights there.

    model and optimizer are prepared by accelerate. make_batches(step) gives the batches from that step on; a batch is a
    tuple of tensors and lists along the batch, its last field the names of its cases. compute_loss(batch) is the batch's
    mean loss. validate(network, epoch) gives scores to watch: nothing is chosen by them. A UserError on the way says after
    which step, and what was saved; weights that are not finite are never saved.
    """
    network = accelerator.unwrap_model(model)
    ema = EMA(network, plan.ema_decay) if plan.ema_decay else None
    last_step = plan.epochs * steps_per_epoch
    compute_loss = with_penalty(compute_loss, network, plan)

    # Resume.
    parts = {"model": network, "optimizer": optimizer}
    parts |= {"ema": ema.network} if ema else {}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}
    state = load_resume(folder.state, parts)
    saved_step, skipped = state.step, 0
    if ema:
        ema.updates = state.step
    log = Log(folder.log, folder.progress, state.step)
    progress = Progress(title, last_step, state.step, visible=accelerator.is_main_process)
    session_began_s, saved_at, save_cost_s = time.monotonic() - state.elapsed_s, time.monotonic(), 0.0

    try:
        for batch in make_batches(state.step):
            # One optimiser step, in as many micro-batches as memory asks for.
            rates = set_learning_rates(optimizer, state.step, steps_per_epoch, plan)
            due = knots_are_due(state.step + 1, last_step, plan)
            with entering(network, due, sample) as inputs:
                loss, state.micro_batch = train_step(
                    model, optimizer, batch, compute_loss, accelerator, plan.clip_norm, state.micro_batch
                )
            skipped = skipped + 1 if accelerator.optimizer_step_was_skipped else 0
            if skipped > _SKIPPED_STEPS:
                raise UserError(
                    f"{skipped} steps in a row were skipped: gradients overflow; use train.precision=bf16 or fp32"
                )
            if ema:
                ema.update(network)
            if due:
                update_knots(network, ema.network if ema else None, optimizer, inputs, plan, accelerator.gather)
            state.step += 1
            state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
            state.elapsed_s = time.monotonic() - session_began_s

            # The end of an epoch: look at the held-out cases, write a line.
            epoch, within = divmod(state.step, steps_per_epoch)
            if within == 0:
                mean_loss, state.loss_sum, state.loss_count = state.loss_sum / state.loss_count, 0.0, 0
                row = {"epoch": epoch, "step": state.step, "loss": f"{mean_loss:.6f}", "lr": f"{rates['base']:.3e}"}
                row |= {"lr_kan": f"{rates['kan']:.3e}"} if "kan" in rates else {}
                if epoch % plan.validate_every == 0 or state.step == last_step:
                    with explain_out_of_memory("lower infer.batch_size with `ukan plan ... --set`"):
                        scores = validate(ema.network if ema else network, epoch)
                    progress.score({"held-out " + name.removeprefix("val_"): value for name, value in scores.items()})
                    row |= {name: f"{value:.6f}" for name, value in scores.items()}
                if accelerator.is_main_process:
                    log.add(row | {"elapsed_s": f"{state.elapsed_s:.1f}"})
            progress.step(state.step, loss)

            # Save now and then, and before stopping.
            stopped_by = agree(stop.reason, accelerator)
            since_s = time.monotonic() - saved_at
            due = since_s > max(_SAVE_EVERY_S if within else 0.0, save_cost_s / _SAVE_SHARE)
            if (due or stopped_by) and state.step < last_step and accelerator.is_main_process:
                began = time.monotonic()
                check_finite(network)
                save_resume(folder.state, parts, state)
                saved_at, saved_step = time.monotonic(), state.step
                save_cost_s = saved_at - began
            if stopped_by and state.step < last_step:
                log.draw()
                return Outcome(False, stopped_by, state.step, state.micro_batch, state.elapsed_s)

        # Finished: the weights' presence says so, and nothing is left to resume.
        if accelerator.is_main_process:
            log.draw()
            about = {"step": state.step, "averaged": bool(ema), "micro_batch": state.micro_batch}
            check_finite(ema.network if ema else network)
            save_weights(folder.weights, ema.network if ema else network, about)
            remove_resume(folder.state)
    except UserError as error:
        kept = f" (the checkpoint of step {saved_step} is kept)" if saved_step else ""
        raise type(error)(f"{title}, after step {state.step}: {error}{kept}") from error
    finally:
        progress.close()
    accelerator.wait_for_everyone()
    return Outcome(True, None, state.step, state.micro_batch, state.elapsed_s)


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: BatchT,
    compute_loss: Callable[[BatchT], Tensor],
    accelerator: Any,
    clip_norm: float | None,
    micro_batch: int | None,
) -> tuple[float, int | None]:
    """One optimiser step on one batch. Returns its mean loss and the micro-batch that fitted.

    Where memory runs out the micro-batch is halved and the step made again. BatchNorm then sees smaller batches. Raises
    OutOfMemory where a single image does not fit, UserError where the loss is not finite.
    """
    while True:
        try:
            loss = accumulate(model, optimizer, batch, compute_loss, accelerator, micro_batch)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block, so that the traceback no longer holds the tensors of the failed try.
        size = micro_batch or len(batch[-1])
        optimizer.zero_grad(set_to_none=True)
        if accelerator.device.type in ("cuda", "mps"):
            getattr(torch, accelerator.device.type).empty_cache()
        if size == 1:
            raise OutOfMemory("out of memory with a single image; use a smaller data.input_size or a smaller model")
        micro_batch = size // 2
        accelerator.print(
            f"out of memory: going on with micro-batches of {micro_batch}, the step stays {len(batch[-1])} images"
        )
    if clip_norm:
        accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    with explain_out_of_memory("not even the optimiser's state fits; use a smaller model"):
        optimizer.step()
    return loss, micro_batch


def accumulate(
    model: nn.Module,
    optimizer: Optimizer,
    batch: BatchT,
    compute_loss: Callable[[BatchT], Tensor],
    accelerator: Any,
    micro_batch: int | None,
) -> float:
    """The gradient of a batch's mean loss, over its micro-batches. A loss that is not finite stops the run by name."""
    from contextlib import nullcontext

    optimizer.zero_grad(set_to_none=True)
    total, count = 0.0, len(batch[-1])
    pieces = list(split_batch(batch, micro_batch))
    for number, piece in enumerate(pieces, start=1):
        with accelerator.no_sync(model) if number < len(pieces) else nullcontext():
            with accelerator.autocast():
                loss = compute_loss(piece) * (len(piece[-1]) / count)
            value = float(loss.detach())
            if not math.isfinite(value):
                check_finite(model)
                raise UserError(
                    f"the loss is {value} for the cases {', '.join(map(str, piece[-1]))}: look at their images and masks, "
                    f"or {_STEADIER}"
                )
            accelerator.backward(loss)
        total += value
    return total


def split_batch(batch: BatchT, size: int | None) -> Iterator[BatchT]:
    """A batch in pieces of at most `size` samples."""
    count = len(batch[-1])
    for start in range(0, count, size or count):
        fields = (field[start : start + (size or count)] for field in batch)
        yield type(batch)(*fields) if hasattr(batch, "_fields") else type(batch)(fields)


def check_finite(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise UserError(f"{name} is no longer finite: {_STEADIER}")


def agree(reason: str | None, accelerator: Any) -> str | None:
    """One process's reason to stop is everyone's."""
    if accelerator.num_processes == 1:
        return reason
    flag = torch.tensor([1.0 if reason else 0.0], device=accelerator.device)
    stopping = accelerator.reduce(flag, reduction="sum").item() > 0
    return (reason or "another process") if stopping else None
