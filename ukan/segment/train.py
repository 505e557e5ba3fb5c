"""`ukan train`: the folds of a plan, one after the other, each resumed where it stands."""

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ukan.data.batches import (
    Batch,
    StepSampler,
    TrainingSamples,
    steps_per_epoch,
    training_batches,
    validation_batches,
)
from ukan.data.cache import Prepared, prepare_cases
from ukan.data.index import file_sha256, load_index
from ukan.data.layouts import find_layout
from ukan.data.preprocess import to_input
from ukan.errors import DataError, Interrupted, UserError
from ukan.losses import combined_loss
from ukan.models import build_model, check_trainable
from ukan.nn.kan import compile_layers, compiler_problem
from ukan.paths import RUNS, PlanFolder, RunFolder, locked, write_text, written_whole
from ukan.plan import Case, Plan, load_splits
from ukan.runs import Run
from ukan.runtime import (
    environment_record,
    peak_memory_gib,
    pick_device,
    resolve_precision,
    seed_everything,
    usable_cores,
)
from ukan.segment.prepare import data_root
from ukan.training.interrupt import Stop
from ukan.training.kan import kan_layers
from ukan.training.log import human_time
from ukan.training.loop import Outcome, fit, train_step
from ukan.training.optim import make_optimizer

Progress = Callable[[int, int], None]
_TRIAL_STEPS = 4
_COMPILED_STEPS = 1000
"""From so many steps on compiling pays for its seconds."""


@dataclass(frozen=True)
class DryRun:
    """What one fold would take, from real steps."""

    step_s: float
    steps: int
    folds: int
    validation_s: float
    memory_gib: float
    where: str

    @property
    def fold_s(self) -> float:
        return self.step_s * self.steps + self.validation_s


@dataclass(frozen=True)
class Trained:
    run: Run
    outcomes: dict[int, Outcome]


def train(
    plan_path: Path,
    *,
    run: Path | None = None,
    folds: Sequence[int] | None = None,
    device: str | None = None,
    workers: int | None = None,
    max_time_s: float | None = None,
    fresh: bool = False,
    data: Path | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Train the folds of a plan into a run folder; the same call again goes on where it stopped.

    Raises UserError where the run folder holds another plan's networks, DataError where index or files have changed since
    planning, Interrupted after Ctrl-C or SIGTERM, with everything saved.
    """
    plan, place = Plan.load(plan_path), PlanFolder(plan_path.parent)
    folds = _check_folds(plan, folds)
    folder = RunFolder(run or RUNS / f"{plan.data.dataset}-{plan.name}")
    begun = not fresh and folder.plan.exists() and not Plan.load(folder.plan).difference(plan)
    # A run that was begun goes on with the cases and folds it holds itself, whatever became of the dataset's folder since.
    cases, splits = _open_cases(plan, *((folder.index, folder.splits) if begun else _files(place, plan)))
    root = find_layout(data_root(place, data), plan.data.layout)[1]
    accelerator = _accelerator(plan, device)
    with Stop(max_time_s) as stop:
        if accelerator.is_main_process:
            _open_run(folder, plan, place, plan_path, fresh)
        accelerator.wait_for_everyone()
        with _only_one(folder, accelerator.is_main_process):
            opened = Run(folder, plan)
            if accelerator.is_main_process:
                _record_session(opened, root, accelerator, workers)
                for left in folder.root.glob("fold_*/.writing-*"):  # what a killed session was writing
                    left.unlink(missing_ok=True)
            with accelerator.main_process_first():
                prepared = prepare_cases(root, cases, plan.data, on_progress)
            outcomes: dict[int, Outcome] = {}
            for fold in folds:
                if folder.fold(fold).weights.exists():
                    accelerator.print(f"fold {fold}: finished")
                    continue
                outcomes[fold] = train_fold(opened, fold, prepared, splits[fold], accelerator, stop, workers)
                if not outcomes[fold].finished:
                    break
            reason = next((o.stopped_by for o in outcomes.values() if o.stopped_by), None)
    if reason and reason != "--max-time":
        raise Interrupted(f"{reason}: stopped at a safe point and saved; the same command goes on from there")
    return Trained(opened, outcomes)


def train_fold(
    run: Run,
    fold: int,
    prepared: Prepared,
    split: dict[str, list[str]],
    accelerator: Any,
    stop: Stop,
    workers: int | None,
) -> Outcome:
    """One fold: the recipe of segmentation, on the loop that every task shares."""
    plan = run.plan
    seed_everything(plan.train.seed + fold)
    samples = TrainingSamples(prepared, split["train"], plan.train, plan.data)
    model, optimizer = _model_and_optimizer(plan, len(samples), accelerator)
    per_epoch = steps_per_epoch(len(samples), plan.train.batch_size)
    compute_loss = _compute_loss(model, plan, accelerator.device)

    def batches(first_step: int) -> Iterator[Batch]:
        sampler = StepSampler(
            len(samples),
            plan.train.batch_size,
            plan.train.seed,
            first_step,
            plan.train.epochs * per_epoch,
            accelerator.process_index,
            accelerator.num_processes,
        )
        return training_batches(samples, sampler, _workers(workers, accelerator.device), accelerator.device.type == "cuda")

    outcome = fit(
        model=model,
        optimizer=optimizer,
        make_batches=batches,
        compute_loss=compute_loss,
        validate=_validation(plan, prepared, split["val"], accelerator),
        plan=plan.train,
        steps_per_epoch=per_epoch,
        folder=run.folder.fold(fold),
        accelerator=accelerator,
        stop=stop,
        title=f"fold {fold}",
    )
    if accelerator.is_main_process:
        compiled = any(layer.compiled for layer in kan_layers(model).values())
        _record_fold(run, fold, outcome, compiled)
    accelerator.free_memory()
    return outcome


def dry_run(
    plan_path: Path,
    *,
    folds: Sequence[int] | None = None,
    device: str | None = None,
    workers: int | None = None,
    data: Path | None = None,
    on_progress: Progress | None = None,
) -> DryRun:
    """Take real steps on real cases, change nothing, and say what training would take."""
    plan, place = Plan.load(plan_path), PlanFolder(plan_path.parent)
    folds = _check_folds(plan, folds)
    cases, splits = _open_cases(plan, *_files(place, plan))
    root = find_layout(data_root(place, data), plan.data.layout)[1]
    accelerator = _accelerator(plan, device)
    on_gpu = accelerator.device.type == "cuda"
    prepared = prepare_cases(root, cases, plan.data, on_progress)
    seed_everything(plan.train.seed)
    samples = TrainingSamples(prepared, splits[folds[0]]["train"], plan.train, plan.data)
    model, optimizer = _model_and_optimizer(plan, len(samples), accelerator)
    per_epoch = steps_per_epoch(len(samples), plan.train.batch_size)
    count = min(_TRIAL_STEPS, plan.train.epochs * per_epoch)
    sampler = StepSampler(len(samples), plan.train.batch_size, plan.train.seed, 0, count)
    compute_loss = _compute_loss(model, plan, accelerator.device)
    took: list[float] = []
    began, micro_batch = time.perf_counter(), None
    for batch in training_batches(samples, sampler, _workers(workers, accelerator.device), on_gpu):
        _, micro_batch = train_step(model, optimizer, batch, compute_loss, accelerator, plan.train.clip_norm, micro_batch)
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
    val = splits[folds[0]]["val"]
    few = val[: plan.infer.batch_size]
    _validation(plan, prepared, few, accelerator)(accelerator.unwrap_model(model))
    slices, few_slices = (sum(len(prepared.rows(name)) for name in names) for names in (val, few))
    one_look_s = (time.perf_counter() - began) * slices / few_slices
    return DryRun(
        step_s=float(np.median(took[1:] or took)),  # the first step pays for set-up
        steps=plan.train.epochs * per_epoch,
        folds=len(folds),
        validation_s=one_look_s * (plan.train.epochs // plan.train.validate_every),
        memory_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else peak_memory_gib(),
        where=str(accelerator.device) + (f", micro-batches of {micro_batch}" if micro_batch else ""),
    )


def _compute_loss(model: nn.Module, plan: Plan, device: torch.device) -> Callable[[Batch], Tensor]:
    loss = combined_loss({"bce": plan.train.bce_weight, "dice": plan.train.dice_weight}, plan.data.target)

    def compute_loss(batch: Batch) -> Tensor:
        images = batch.images_BHWC.to(device, non_blocking=True)
        x = to_input(images, plan.data).contiguous(memory_format=_memory_format(plan))
        return loss(model(x), batch.targets_BMHW.to(device, non_blocking=True))

    return compute_loss


def _validation(
    plan: Plan, prepared: Prepared, names: Sequence[str], accelerator: Any
) -> Callable[[nn.Module], dict[str, float]]:
    """Loss and mean Dice over the held-out slices, at the network's size. To watch: no decision looks at it."""
    loss = combined_loss({"bce": plan.train.bce_weight, "dice": plan.train.dice_weight}, plan.data.target)

    @torch.no_grad()
    def validate(network: nn.Module) -> dict[str, float]:
        was_training = network.training
        network.eval()
        losses, dices, count = 0.0, 0.0, 0
        for batch in validation_batches(prepared, names, plan.infer.batch_size):
            with accelerator.autocast():
                x = to_input(batch.images_BHWC.to(accelerator.device), plan.data)
                logits = network(x.contiguous(memory_format=_memory_format(plan))).float()
            targets = batch.targets_BMHW.to(accelerator.device)
            losses += float(loss(logits, targets)) * len(batch.names)
            found, truth = _found(logits, plan), _per_class(targets, plan)
            both, sizes = (found & truth).sum((2, 3)), found.sum((2, 3)) + truth.sum((2, 3))
            dices += float(torch.where(sizes > 0, 2 * both / sizes.clamp_min(1), 1.0).mean(1).sum())
            count += len(batch.names)
        network.train(was_training)
        return {"val_loss": losses / count, "val_dice": dices / count}

    return validate


def _found(logits_BLHW: Tensor, plan: Plan) -> Tensor:
    """Masks (B, K, H, W) of the classes."""
    if plan.data.target == "multiclass":
        return _one_hot(logits_BLHW.argmax(1), plan)
    return torch.sigmoid(logits_BLHW) > plan.infer.threshold


def _per_class(targets_BMHW: Tensor, plan: Plan) -> Tensor:
    return _one_hot(targets_BMHW[:, 0].long(), plan) if plan.data.target == "multiclass" else targets_BMHW > 0


def _one_hot(labels_BHW: Tensor, plan: Plan) -> Tensor:
    return torch.stack([labels_BHW == k for k in range(1, plan.data.outputs)], 1)


def _model_and_optimizer(plan: Plan, samples: int, accelerator: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = build_model(plan.model.name, plan.data.channels, plan.data.outputs, plan.model.sizes)
    per_process = min(plan.train.batch_size, samples) // accelerator.num_processes
    check_trainable(model, max(1, per_process), plan.data.channels, plan.data.input_size)
    if accelerator.num_processes > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if accelerator.device.type == "cuda" else model
    model = model.to(accelerator.device).to(memory_format=_memory_format(plan)).train()
    compile_layers(model, _compiles(model, plan, samples, accelerator))
    return accelerator.prepare(model, make_optimizer(model, plan.train))


def _compiles(model: nn.Module, plan: Plan, samples: int, accelerator: Any) -> bool:
    """Whether KAN layers are compiled. Raises UserError where the plan insists and it cannot be done."""
    steps = plan.train.epochs * steps_per_epoch(samples, plan.train.batch_size)
    layers = list(kan_layers(model).values())
    if not layers or plan.train.compile == "off" or (plan.train.compile == "auto" and steps < _COMPILED_STEPS):
        return False
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU where none is meant
    problem = compiler_problem(layers[0])
    if problem and plan.train.compile == "on":
        raise UserError(f"train.compile=on: it cannot be done on {accelerator.device} ({problem}); set train.compile=off")
    if problem:
        accelerator.print(f"KAN layers are not compiled ({problem}): slower, with the same result to rounding")
    return not problem


def _memory_format(plan: Plan) -> torch.memory_format:
    return torch.channels_last if plan.train.channels_last else torch.contiguous_format


def _accelerator(plan: Plan, device: str | None) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not launched:  # a launcher assigns the devices itself
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier training in this process may have been another
        chosen = pick_device(device)
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(chosen)
        if chosen.index is not None and chosen.type == "cuda":
            torch.cuda.set_device(chosen)
    else:
        chosen = pick_device(device if device == "cpu" else None)
    precision = resolve_precision(plan.train.precision, chosen)
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))  # not more than a cgroup gives time for
    accelerator = Accelerator(cpu=chosen.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)
    if plan.train.batch_size % accelerator.num_processes:
        raise UserError(
            f"train.batch_size={plan.train.batch_size} does not divide among {accelerator.num_processes} processes"
        )
    return accelerator


def _workers(asked: int | None, device: torch.device) -> int:
    """On a CPU the cores are busy with the network, and a sample costs a hundredth of it."""
    if asked is not None:
        return asked
    return min(8, max(1, usable_cores() - 1)) if device.type == "cuda" else 0


def _files(place: PlanFolder, plan: Plan) -> tuple[Path, Path]:
    return place.index, place.splits(plan.name)


def _open_cases(plan: Plan, index: Path, splits_path: Path) -> tuple[list[Case], list[dict[str, list[str]]]]:
    """The cases that take part, and the folds; refused where they are not those the plan was made from."""
    cases, splits = load_index(index), load_splits(splits_path)
    if file_sha256(index) != plan.data.index_sha256:
        raise DataError(f"{index} is no longer the one the plan was made from; run `ukan plan` again")
    if len(splits) != plan.split.count:
        raise DataError(f"{splits_path} holds {len(splits)} folds, the plan {plan.split.count}; run `ukan plan` again")
    named = {name for split in splits for names in split.values() for name in names}
    if named - {case.case for case in cases}:
        raise DataError(f"{splits_path} names cases that the index has not; run `ukan plan` again")
    return [case for case in cases if case.case in named], splits


def _check_folds(plan: Plan, folds: Sequence[int] | None) -> list[int]:
    for fold in folds or ():
        if not 0 <= fold < plan.split.count:
            raise UserError(f"--fold {fold}: the plan has folds 0 to {plan.split.count - 1}")
    return sorted(set(folds)) if folds else list(range(plan.split.count))


def _open_run(folder: RunFolder, plan: Plan, place: PlanFolder, plan_path: Path, fresh: bool) -> None:
    """A run folder for this plan: new, or one that already holds the same plan; never another's."""
    if fresh and folder.root.exists():
        with _only_one(folder, main_process=True):  # not under the hands of another training
            pass
        aside = next(p for n in range(1, 10_000) if not (p := folder.root.with_name(f"{folder.root.name}.old-{n}")).exists())
        folder.root.rename(aside)
        print(f"set aside: {aside}", file=sys.stderr)
    if folder.plan.exists():
        difference = Plan.load(folder.plan).difference(plan)
        index, splits = _files(place, plan)
        if not difference and splits.exists() and load_splits(folder.splits) != load_splits(splits):
            same_cases = index.exists() and file_sha256(index) == plan.data.index_sha256
            difference = [f"folds: {folder.splits} and {splits} differ"] if same_cases else []
        if difference:
            lines = "".join(f"\n  {line}" for line in difference)
            raise UserError(
                f"{folder.root} was begun with another plan (run -> {plan_path}):{lines}\n"
                "Use --fresh to set the old run aside, --run FOLDER for another place, or undo the change."
            )
        return
    # What a killed start left is ours: the plan is written last.
    copied = (folder.lock, folder.index, folder.problems, folder.fingerprint, folder.splits, folder.thumbnails)
    ours = {path.name for path in copied}
    found = [path.name for path in folder.root.iterdir()] if folder.root.exists() else []
    if any(name not in ours and not name.startswith(".writing-") for name in found):
        raise UserError(f"{folder.root} exists and is no run folder; give another place with --run FOLDER")
    for source, target in (
        (place.index, folder.index),
        (place.problems, folder.problems),
        (place.fingerprint, folder.fingerprint),
        (place.splits(plan.name), folder.splits),
    ):
        if source.exists():
            write_text(target, source.read_text(encoding="utf-8"))
    if place.thumbnails.exists():
        with written_whole(folder.thumbnails) as temporary:
            temporary.write_bytes(place.thumbnails.read_bytes())
    plan.save(folder.plan)  # last: its presence says that the folder is a run


@contextlib.contextmanager
def _only_one(folder: RunFolder, main_process: bool) -> Iterator[None]:
    """Two trainings in one folder would overwrite each other."""
    if not main_process:
        yield
        return
    with locked(folder.lock, wait=False) as alone:
        if not alone:
            raise UserError(f"{folder.root}: another `ukan train` is working on this run; wait for it, or use --run")
        yield


def _record_session(run: Run, root: Path, accelerator: Any, workers: int | None) -> None:
    record = run.environment()
    session = environment_record(sys.argv)
    session |= {
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else str(accelerator.device),
        "processes": accelerator.num_processes,
        "precision": "fp32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision,
        "workers": _workers(workers, accelerator.device),
    }
    record["data_root"] = str(root.resolve())
    record.setdefault("sessions", []).append(session)
    write_text(run.folder.environment, json.dumps(record, indent=1) + "\n")


def _record_fold(run: Run, fold: int, outcome: Outcome, compiled: bool) -> None:
    record = run.environment()
    record.setdefault("folds", {})[str(fold)] = {
        "finished": outcome.finished,
        "step": outcome.step,
        "elapsed_s": round(outcome.elapsed_s, 1),
        "micro_batch": outcome.micro_batch,
        "compiled": compiled,
    }
    write_text(run.folder.environment, json.dumps(record, indent=1) + "\n")


def describe(trial: DryRun) -> str:
    """A dry run in words."""
    return (
        f"a step takes {trial.step_s:.2f} s on {trial.where}; {trial.steps} steps a fold: {human_time(trial.fold_s)}, "
        f"{trial.folds} fold(s): {human_time(trial.fold_s * trial.folds)}; memory {trial.memory_gib:.1f} GiB"
    )
