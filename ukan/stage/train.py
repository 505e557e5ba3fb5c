"""`ukan train`, for every task: the folds of a plan, one after the other, each resumed where it stands."""

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from ukan.data.batches import StepSampler, TrainingSamples, steps_per_epoch, training_batches
from ukan.data.cache import Prepared, prepare_cases
from ukan.data.index import file_sha256, load_index
from ukan.data.layouts import find_layout
from ukan.errors import DataError, Interrupted, UserError
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
from ukan.stage.prepare import data_root
from ukan.training.interrupt import Stop
from ukan.training.kan import kan_layers
from ukan.training.log import human_time
from ukan.training.loop import Outcome, fit, train_step
from ukan.training.optim import make_optimizer

Progress = Callable[[int, int], None]
ComputeLoss = Callable[[Any], Tensor]
Validate = Callable[[nn.Module], dict[str, float]]
_TRIAL_STEPS = 4
_COMPILED_STEPS = 1000
"""From so many steps on compiling pays for its seconds."""


class Fold(NamedTuple):
    """What a task makes of a fold: all that the loop does not know by itself."""

    model: nn.Module
    samples: TrainingSamples
    losses: Callable[[nn.Module], ComputeLoss]
    """From the model, as accelerate has prepared it, to the mean loss of a batch."""
    validation: Callable[[Sequence[str]], Validate]
    """From cases to scores over them. To watch: no decision looks at them."""
    draw: Callable[[nn.Module, Path], None] | None = None
    """Writes a picture of what the network does, each time the held-out cases are looked at."""
    about: Mapping[str, Any] = {}
    """For the run's record of the fold."""


class Material(NamedTuple):
    """What all folds are made of."""

    plan: Plan
    cases: dict[str, Case]
    splits: list[dict[str, list[str]]]
    prepared: Prepared


MakeFold = Callable[[Material, int, Any], Fold]
"""(material, number of the fold, accelerator) -> what the task makes of it."""


class Options(TypedDict, total=False):
    """Where and how much to train."""

    run: Path | None
    """The run folder; runs/<dataset>-<plan> by default."""
    folds: Sequence[int] | None
    """All of them by default; of diffusion the first."""
    device: str | None
    workers: int | None
    max_time_s: float | None
    fresh: bool
    data: Path | None
    on_progress: Progress | None


@dataclass(frozen=True)
class DryRun:
    """What one fold would take, from real steps."""

    step_s: float
    steps: int
    folds: int
    validation_s: float
    """Looks at the held-out cases, and their pictures."""
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
    make_fold: MakeFold,
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
            material = Material(plan, {case.case: case for case in cases}, splits, prepared)
            outcomes: dict[int, Outcome] = {}
            for fold in folds:
                if folder.fold(fold).weights.exists():
                    accelerator.print(f"fold {fold}: finished")
                    continue
                outcomes[fold] = _train_fold(opened, fold, make_fold, material, accelerator, stop, workers)
                if not outcomes[fold].finished:
                    break
            reason = next((o.stopped_by for o in outcomes.values() if o.stopped_by), None)
    if reason and reason != "--max-time":
        raise Interrupted(f"{reason}: stopped at a safe point and saved; the same command goes on from there")
    return Trained(opened, outcomes)


def _train_fold(
    run: Run,
    number: int,
    make_fold: MakeFold,
    material: Material,
    accelerator: Any,
    stop: Stop,
    workers: int | None,
) -> Outcome:
    plan, place = run.plan, run.folder.fold(number)
    seed_everything(plan.train.seed + number)
    fold = make_fold(material, number, accelerator)
    about = dict(fold.about)
    load_pretrained: Callable[[], dict[str, str]] | None = getattr(fold.model, "load_pretrained", None)
    going_on = place.state.exists()  # with the weights it has
    if load_pretrained and not going_on and (begun_from := _load_pretrained(load_pretrained, accelerator)):
        about["pretrained"] = begun_from
    if accelerator.is_main_process:
        _record_begin(run, number, about)
    samples = fold.samples
    model, optimizer = _prepare(fold.model, plan, len(samples), accelerator)
    per_epoch = steps_per_epoch(len(samples), plan.train.batch_size)
    score = fold.validation(material.splits[number]["val"])

    def batches(first_step: int) -> Iterator[Any]:
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

    def validate(network: nn.Module, epoch: int) -> dict[str, float]:
        if fold.draw and accelerator.is_main_process:
            fold.draw(network, place.sample(epoch))
        return score(network)

    outcome = fit(
        model=model,
        optimizer=optimizer,
        make_batches=batches,
        compute_loss=fold.losses(model),
        validate=validate,
        plan=plan.train,
        steps_per_epoch=per_epoch,
        folder=place,
        accelerator=accelerator,
        stop=stop,
        title=f"fold {number}",
    )
    if accelerator.is_main_process:
        compiled = any(layer.compiled for layer in kan_layers(model).values())
        _record_fold(run, number, outcome, compiled)
    accelerator.free_memory()
    return outcome


def _load_pretrained(load: Callable[[], dict[str, str]], accelerator: Any) -> dict[str, str]:
    """Published weights in every process; where one cannot have them all end, as the others would wait for it for ever."""
    from accelerate.utils import gather_object

    begun_from: dict[str, str] = {}
    failed: Exception | None = None
    with accelerator.local_main_process_first():  # the first of a machine fetches the file, the others find it
        try:
            begun_from = load()
        except Exception as error:  # raised below: nothing may leave this block before its barrier
            failed = error
    problems = gather_object([failed and (str(failed) or type(failed).__name__)])
    if failed:
        raise failed
    if elsewhere := next(filter(None, problems), None):
        raise UserError(f"another process of this training: {elsewhere}")
    return begun_from


def dry_run(
    plan_path: Path,
    make_fold: MakeFold,
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
    material = Material(plan, {case.case: case for case in cases}, splits, prepared)
    fold = make_fold(material, folds[0], accelerator)
    samples = fold.samples
    model, optimizer = _prepare(fold.model, plan, len(samples), accelerator)
    per_epoch = steps_per_epoch(len(samples), plan.train.batch_size)
    count = min(_TRIAL_STEPS, plan.train.epochs * per_epoch)
    sampler = StepSampler(len(samples), plan.train.batch_size, plan.train.seed, 0, count)
    compute_loss = fold.losses(model)
    took: list[float] = []
    began, micro_batch = time.perf_counter(), None
    for batch in training_batches(samples, sampler, _workers(workers, accelerator.device), on_gpu):
        _, micro_batch = train_step(model, optimizer, batch, compute_loss, accelerator, plan.train.clip_norm, micro_batch)
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
    network = accelerator.unwrap_model(model)
    one_look_s = 0.0
    if val := splits[folds[0]]["val"]:
        few = val[: plan.infer.batch_size]
        fold.validation(few)(network)
        slices, few_slices = (sum(len(prepared.rows(name)) for name in names) for names in (val, few))
        one_look_s = (time.perf_counter() - began) * slices / few_slices
    if fold.draw:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as nowhere:
            fold.draw(network, Path(nowhere) / "sample.png")
        one_look_s += time.perf_counter() - began
    return DryRun(
        step_s=float(np.median(took[1:] or took)),  # the first step pays for set-up
        steps=plan.train.epochs * per_epoch,
        folds=len(folds),
        validation_s=one_look_s * (plan.train.epochs // plan.train.validate_every),
        memory_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else peak_memory_gib(),
        where=str(accelerator.device) + (f", micro-batches of {micro_batch}" if micro_batch else ""),
    )


def _prepare(model: nn.Module, plan: Plan, samples: int, accelerator: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    if accelerator.num_processes > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if accelerator.device.type == "cuda" else model
    model = model.to(accelerator.device).to(memory_format=memory_format(plan)).train()
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


def memory_format(plan: Plan) -> torch.memory_format:
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
    every = [0] if plan.task == "diffuse" else range(plan.split.count)
    return sorted(set(folds or every))


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


def _record_begin(run: Run, fold: int, about: Mapping[str, Any]) -> None:
    """Note what a fold is trained with. Raises UserError where it was begun with something else."""
    if not about:
        return
    record = run.environment()
    known = record.setdefault("folds", {}).setdefault(str(fold), {})
    for key, value in about.items():
        if known.get(key, value) != value:
            raise UserError(
                f"{run.folder.root}, fold {fold}: begun with {key} {known[key]}, which is now {value}; restore what it was, "
                "or begin anew with --fresh"
            )
    record["folds"][str(fold)] = known | dict(about)
    write_text(run.folder.environment, json.dumps(record, indent=1) + "\n")


def _record_fold(run: Run, fold: int, outcome: Outcome, compiled: bool) -> None:
    """Beside what was noted when it began."""
    record = run.environment()
    record.setdefault("folds", {}).setdefault(str(fold), {}).update(
        finished=outcome.finished,
        step=outcome.step,
        elapsed_s=round(outcome.elapsed_s, 1),
        micro_batch=outcome.micro_batch,
        compiled=compiled,
    )
    write_text(run.folder.environment, json.dumps(record, indent=1) + "\n")


def describe(trial: DryRun) -> str:
    """A dry run in words."""
    return (
        f"a step takes {trial.step_s:.2f} s on {trial.where}; {trial.steps} steps a fold: {human_time(trial.fold_s)}, "
        f"{trial.folds} fold(s): {human_time(trial.fold_s * trial.folds)}; memory {trial.memory_gib:.1f} GiB"
    )
