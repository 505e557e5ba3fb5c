"""The training loop, blind to the task: batches in, a finished network out, and a run that can be killed at any moment."""

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
from ukan.training.checkpoint import TrainingState, load_resume, save_resume
from ukan.training.ema import EMA
from ukan.training.interrupt import Stop
from ukan.training.log import Log, Progress
from ukan.training.optim import set_learning_rates

BatchT = TypeVar("BatchT", bound=tuple[Any, ...])
_SAVE_EVERY_S = 60.0
_SAVE_SHARE = 0.05  # saving takes at most this share of the time


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
    validate: Callable[[nn.Module], dict[str, float]],
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
    mean loss. validate(network) gives scores to watch: nothing is chosen by them.
    """
    network = accelerator.unwrap_model(model)
    ema = EMA(network, plan.ema_decay) if plan.ema_decay else None
    last_step = plan.epochs * steps_per_epoch

    # Resume.
    parts = {"model": network, "optimizer": optimizer}
    parts |= {"ema": ema.network} if ema else {}
    parts |= {"scaler": accelerator.scaler} if accelerator.scaler else {}
    state = load_resume(folder.state, parts) if folder.state.exists() else TrainingState()
    if ema:
        ema.updates = state.step
    log = Log(folder.log, folder.progress, state.step)
    progress = Progress(title, last_step, state.step, visible=accelerator.is_main_process)
    session_began_s, saved_at, save_cost_s = time.monotonic() - state.elapsed_s, time.monotonic(), 0.0

    try:
        for batch in make_batches(state.step):
            # One optimiser step, in as many micro-batches as memory asks for.
            rates = set_learning_rates(optimizer, state.step, steps_per_epoch, plan)
            loss, state.micro_batch = train_step(
                model, optimizer, batch, compute_loss, accelerator, plan.clip_norm, state.micro_batch
            )
            if ema:
                ema.update(network)
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
                    scores = validate(ema.network if ema else network)
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
                save_resume(folder.state, parts, state)
                saved_at = time.monotonic()
                save_cost_s = saved_at - began
            if stopped_by and state.step < last_step:
                log.draw()
                return Outcome(False, stopped_by, state.step, state.micro_batch, state.elapsed_s)
    finally:
        progress.close()

    # Finished: the weights' presence says so, and nothing is left to resume.
    if accelerator.is_main_process:
        log.draw()
        about = {"step": state.step, "averaged": bool(ema), "micro_batch": state.micro_batch}
        save_weights(folder.weights, ema.network if ema else network, about)
        folder.state.unlink(missing_ok=True)
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

    Where memory runs out the micro-batch is halved and the step made again. BatchNorm then sees smaller batches.
    """
    while True:
        try:
            loss = accumulate(model, optimizer, batch, compute_loss, accelerator, micro_batch)
            break
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block, so that the traceback no longer holds the tensors of the failed try.
        size = micro_batch or len(batch[-1])
        optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1:
            raise OutOfMemory("out of memory with a single image; use a smaller data.input_size or smaller model.widths")
        micro_batch = size // 2
        accelerator.print(
            f"out of memory: going on with micro-batches of {micro_batch}, the step stays {len(batch[-1])} images"
        )
    if clip_norm:
        accelerator.clip_grad_norm_(model.parameters(), clip_norm)
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
            if value != value or value in (float("inf"), float("-inf")):
                raise UserError(
                    f"the loss is {value} for the cases {', '.join(map(str, piece[-1]))}: look at their images and masks, "
                    "or lower train.lr_kan and train.lr"
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


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA says so by type, the CPU's allocator in words."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def agree(reason: str | None, accelerator: Any) -> str | None:
    """One process's reason to stop is everyone's."""
    if accelerator.num_processes == 1:
        return reason
    flag = torch.tensor([1.0 if reason else 0.0], device=accelerator.device)
    stopping = accelerator.reduce(flag, reduction="sum").item() > 0
    return (reason or "another process") if stopping else None
