"""`ukan explain`: inside trained networks: learned functions with what enters them, and where token stages are active.

What is shown is always one network's: of held-out cases that of the fold that never saw them, of other images one fold's.
"""

import csv
import json
import math
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ukan.data.cache import read_case
from ukan.data.layouts import find_layout
from ukan.data.preprocess import at_size, prepare_stack, read_stack
from ukan.errors import DataError, UserError
from ukan.imaging import Geometry
from ukan.inference import decide, full_size, predict_stacks
from ukan.metrics.intervals import cluster_bootstrap
from ukan.metrics.plausibility import SCORES, active, plausibility, to_map
from ukan.models.ukan import KANBlock
from ukan.nn.edges import Outside, count_outside, edge_functions, edge_strengths
from ukan.nn.kan import KANLinear
from ukan.paths import ExplainFolder, write_text, written_whole
from ukan.plan import Case, DataPlan
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device
from ukan.segment import figures
from ukan.segment.evaluate import external, held_out
from ukan.segment.predict import find_jobs
from ukan.segment.summary import without_nan

RULE = "mean over channels of |output of the stage's last block|, resized linearly, from its least to its largest value"
THRESHOLD = "Otsu's, of each map alone"
ROWS = 2048
"""About so many rows of a layer's inputs, drawn evenly from the images, stand for all in strengths and histograms."""
PLOTS = 16
"""Edges drawn, of all chosen layers together."""
POINTS = 400
QUANTILES = (0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999)

Row = dict[str, Any]


class Subject(NamedTuple):
    """An image, or a volume, and the fold whose network looks at it."""

    name: str
    fold: int
    group: str
    files: tuple[Path, ...] = ()
    """The image; none where `case` tells it."""
    case: Case | None = None


class Subjects(NamedTuple):
    what: str
    root: Path
    data: DataPlan
    all: list[Subject]
    masks: bool
    """Whether the truth is known."""
    left_out: list[str] = []
    """Cases that the networks may know."""


class Seen(NamedTuple):
    """A subject, opened."""

    subject: Subject
    image_DHWC: NDArray[np.uint8]
    truth_DHW: NDArray[np.bool_] | None
    """All classes together."""
    geometry: Geometry | None


@dataclass
class Entering:
    """What enters a KAN layer."""

    counts: Outside = Outside(0, 0, 0, 0, 0)
    rows: list[Tensor] = field(default_factory=list)
    """A part of it: (R, I) each, on the CPU."""


@dataclass
class Watched:
    """What the hooks on a network have collected."""

    maps: dict[str, deque[Tensor]]
    """By stage a map (h, w) for each slice, in order, until it is taken."""
    entering: dict[str, Entering]
    """By KAN layer."""


@dataclass
class Looked:
    """What a run's networks make of all subjects."""

    rows: list[Row] = field(default_factory=list)
    """Of plausibility.csv."""
    sides: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Height and width of each stage's map."""
    maps: dict[str, figures.Maps] = field(default_factory=dict)
    """Of the cases to be drawn."""
    entering: dict[str, Entering] = field(default_factory=dict)
    """By KAN layer of the fold whose functions are drawn."""
    failed: list[str] = field(default_factory=list)


def explain(
    run_path: Path,
    images: Path | None = None,
    *,
    twin: Path | None = None,
    layers: Sequence[str] = (),
    fold: int | None = None,
    cases: int = 6,
    layout: str | None = None,
    device: str | None = None,
    data: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], ExplainFolder, list[str]]:
    """Look into a run's networks; write explain/ and return its record, the folder, and a line for each unreadable image.

    Without images: the held-out cases, each by its fold's network (fold: only that fold's). With images (a file, a folder,
    or a raw dataset, whose masks are then used) all are seen by one network. The functions drawn are those of one network as
    well: of `fold`, by default the first that is finished. layers: the KAN layers they are of; by default the first of each
    stage. twin: a second run, whose maps and scores stand beside. cases: how many maps are drawn; scores are over all.

    Raises UserError where a layer, a fold or something to look at is not there, or where the twin's cases are others.
    """
    run, other = open_run(run_path), open_run(twin) if twin else None
    if layout and images is None:
        raise UserError("--layout says how to read a folder of images; give one after the run, or leave it out")
    chosen = pick_device(device)
    network = run.network(_fold(run, fold), chosen)
    kan = {name: module for name, module in network.named_modules() if isinstance(module, KANLinear)}
    asked = _layers(run, kan, layers)
    subjects = _subjects(run, images, layout, data, fold)
    theirs = _subjects(other, images, layout, data, fold) if other else None
    if other and theirs:
        _need_same_cases(run, subjects, other, theirs)
    drawn = _evenly({subject.name for subject in subjects.all}, cases)
    tell = _counter(on_progress, len(subjects.all) * (2 if other else 1))
    ours = _look(run, subjects, _fold(run, fold), drawn, chosen, tell)
    looked = [(run.folder.root.name, ours)]
    if other and theirs:
        looked.append((other.folder.root.name, _look(other, theirs, _fold(other, fold), drawn, chosen, tell)))

    place = run.folder.explain
    _clear(place)
    if subjects.masks:
        _write_rows(place.plausibility, [{"run": name, **row} for name, of_run in looked for row in of_run.rows])
    for name in ours.maps:
        beside = [(of if other else "", of_run.maps[name]) for of, of_run in looked if name in of_run.maps]
        figures.draw_maps(place.map(name), name, beside)
    about: dict[str, Any] = {"what": subjects.what, "masks": subjects.masks, "left_out": subjects.left_out}
    about["held_out"] = images is None
    about |= {"images": len(subjects.all) - len(ours.failed), "groups": len({row["group"] for row in ours.rows})}
    about |= {"folds": sorted({subject.fold for subject in subjects.all}), "fold": _fold(run, fold)}
    about |= {"drawn": sorted(ours.maps), "rule": RULE, "threshold": THRESHOLD}
    about["stages"] = _stages(*(of_run for _, of_run in looked))
    about |= _functions(place, kan, asked, ours.entering) if kan else {"layers": {}, "edges": []}
    about["weights_sha256"] = run.weights_sha256()
    about["twin"] = {"run": other.folder.root.name, "weights_sha256": other.weights_sha256()} if other else None
    about["environment"] = environment_record(sys.argv) | {"device": str(chosen)}
    about = without_nan(about)
    write_text(place.record, json.dumps(about, indent=1) + "\n")
    return about, place, ours.failed


# What to look at.


def _fold(run: Run, asked: int | None) -> int:
    finished = run.finished_folds
    if not finished:
        raise UserError(f"{run.folder.root}: no fold is finished; `ukan train` the plan first")
    if asked is not None and asked not in finished:
        raise UserError(f"--fold {asked}: not finished in {run.folder.root}; finished are {', '.join(map(str, finished))}")
    return finished[0] if asked is None else asked


def _subjects(run: Run, images: Path | None, layout: str | None, data: Path | None, fold: int | None) -> Subjects:
    chosen = _fold(run, fold)
    if images is None:
        task = held_out(run, data)
        parts = [part for part in task.parts if fold is None or part.folds == [fold]]
        found = [Subject(case.case, part.folds[0], case.group, case=case) for part in parts for case in part.cases]
        return Subjects(task.what, task.root, task.data, found, masks=True)
    if layout or _is_dataset(images):
        task = external(run, images, layout)
        found = [Subject(case.case, chosen, case.group, case=case) for part in task.parts for case in part.cases]
        return Subjects(task.what, task.root, task.data, found, masks=True, left_out=task.left_out)
    jobs = find_jobs([images], run.folder.explain.root, run.plan)
    found = [Subject(job.name, chosen, job.name, job.sources) for job in jobs]
    return Subjects("images without masks", images, run.plan.data, found, masks=False)


def _is_dataset(path: Path) -> bool:
    """Whether images and masks lie there in a way that is known."""
    if not path.is_dir():
        return False
    try:
        find_layout(path)
    except DataError:
        return False
    return True


def _need_same_cases(run: Run, ours: Subjects, twin: Run, theirs: Subjects) -> None:
    """A comparison is of the same cases, held out by the same folds."""
    known = [{(s.name, s.group, s.fold, s.case.hash if s.case else "") for s in subjects.all} for subjects in (ours, theirs)]
    if known[0] != known[1]:
        apart = {name for name, *_ in known[0] ^ known[1]}
        raise UserError(
            f"--twin {twin.folder.root}: its cases are not those of {run.folder.root} ({len(apart)} differ: {min(apart)}, "
            "...); give a run of the same dataset, folds and finished folds, or one finished fold with --fold"
        )


def _layers(run: Run, kan: dict[str, KANLinear], asked: Sequence[str]) -> list[str]:
    """The layers whose functions are drawn."""
    for name in asked:
        if not kan:
            raise UserError(f"--layer {name}: the network of {run.folder.root} has no KAN layer; without --layer: its maps")
        if name not in kan:
            raise UserError(f"--layer {name}: no such KAN layer. There are: {', '.join(kan)}")
    firsts = {name.rpartition(".")[0]: name for name in reversed(kan)}
    return list(dict.fromkeys(asked)) or list(reversed(firsts.values()))


def _evenly(names: set[str], count: int) -> list[str]:
    """So many of them, evenly chosen by name: not by how they score."""
    ordered = sorted(names)
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, min(count, len(ordered))).round().astype(int)]


# Looking.


def stage_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The token stages of a network, in order: of each its last block. Of a network without any its deepest map.

    Raises UserError where it names none either.
    """
    stages: dict[str, nn.Module] = {
        name.rpartition(".")[0]: module for name, module in network.named_modules() if isinstance(module, KANBlock)
    }
    deepest = getattr(network, "deepest", None)
    if not stages and isinstance(deepest, str):
        stages = {deepest: network.get_submodule(deepest)}
    if not stages:
        raise UserError(f"{type(network).__name__} has neither token stages nor a deepest map to look at")
    return stages


@contextmanager
def watched(network: nn.Module, rows_per_slice: int = 0) -> Iterator[Watched]:
    """Hooks that collect what passes through a network while the block lasts, and leave it as it was.

    rows_per_slice: so many rows of every KAN layer's input are kept of each slice, chosen at random, and all are counted; 0:
    inputs are not looked at.
    """
    stages = stage_modules(network)
    seen = Watched({stage: deque() for stage in stages}, {})
    chance = torch.Generator().manual_seed(0)

    def keep_map(stage: str, inputs: tuple[Any, ...], output: Tensor) -> None:
        # Tokens (B, L, C) come with the size of their map; the magnitude is taken before the stage's LayerNorm evens it out.
        strength = output.float().abs().mean(1) if output.ndim == 4 else output.float().abs().mean(2).unflatten(1, inputs[1])
        seen.maps[stage].extend(strength.cpu())

    def keep_inputs(name: str, layer: KANLinear, x: Tensor) -> None:
        entering = seen.entering.setdefault(name, Entering())
        for of_slice in x.detach().float().flatten(1, -2):
            counted = zip(entering.counts, count_outside(layer, of_slice), strict=True)
            entering.counts = Outside(*(before + now for before, now in counted))
            chosen = torch.randperm(len(of_slice), generator=chance)[:rows_per_slice]
            entering.rows.append(of_slice[chosen.to(x.device)].cpu())

    handles = [
        module.register_forward_hook(lambda _module, inputs, output, stage=stage: keep_map(stage, inputs, output))
        for stage, module in stages.items()
    ]
    handles += [
        module.register_forward_pre_hook(lambda module, inputs, name=name: keep_inputs(name, module, inputs[0]))
        for name, module in network.named_modules()
        if rows_per_slice and isinstance(module, KANLinear)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _look(
    run: Run, subjects: Subjects, functions_of: int, drawn: Sequence[str], device: torch.device, tell: Callable[[], None]
) -> Looked:
    """Every subject through the network of its fold, in float32."""
    plan = run.plan.model_copy(update={"data": subjects.data})
    looked = Looked()
    for fold, of_fold in groupby(sorted(subjects.all, key=lambda subject: subject.fold), key=lambda subject: subject.fold):
        several, opened = list(of_fold), deque[Seen]()
        network = run.network(fold, device)
        with watched(network, -(-ROWS // len(several)) if fold == functions_of else 0) as seen_inside:
            for said in predict_stacks([network], _stacks(several, subjects, opened, looked.failed, tell), plan, device):
                seen = opened.popleft()
                size, maps, scores = seen.image_DHWC.shape[1:3], {}, {}
                for stage, waiting in seen_inside.maps.items():
                    values = torch.stack([waiting.popleft() for _ in seen.image_DHWC])
                    looked.sides[stage] = (values.shape[1], values.shape[2])
                    maps[stage] = _at_size(values, size, plan.data)
                    if seen.truth_DHW is not None:
                        scores[stage] = plausibility(maps[stage], seen.truth_DHW)
                        looked.rows.append(_row(seen, stage, maps[stage]) | scores[stage])
                name = seen.subject.name
                if name in drawn and name not in looked.maps:
                    found_DHW = np.logical_or.reduce(decide(full_size(said.probabilities_DKhw, size, plan.data), plan))
                    of_case = figures.Maps(seen.image_DHWC, seen.truth_DHW, found_DHW, maps, scores, seen.geometry)
                    looked.maps[name] = of_case
                tell()
        looked.entering |= seen_inside.entering
    if not looked.sides:
        raise DataError(f"no image could be read; the first: {looked.failed[0]}")
    return looked


def _stacks(
    several: Sequence[Subject], subjects: Subjects, opened: deque[Seen], failed: list[str], tell: Callable[[], None]
) -> Iterator[NDArray[np.uint8]]:
    """Prepared stacks, one after the other; images without masks that cannot be used are told in `failed`."""
    data = subjects.data
    for subject in several:
        if subject.case:
            image_DHWC, truth_KDHW, geometry = read_case(subjects.root, subject.case, data)
            opened.append(Seen(subject, image_DHWC, np.logical_or.reduce(truth_KDHW), geometry))
            yield prepare_stack(image_DHWC, data)
            continue
        try:
            image_DHWC, geometry = read_stack(subject.files, data)
            prepared = prepare_stack(image_DHWC, data)
        except DataError as error:
            failed.append(str(error) if str(subject.files[0]) in str(error) else f"{subject.files[0]}: {error}")
            tell()
            continue
        opened.append(Seen(subject, image_DHWC, None, geometry))
        yield prepared


def _at_size(values_Dhw: Tensor, size: Sequence[int], data: DataPlan) -> NDArray[np.uint8]:
    """Maps at a stage's size to (D, H, W) of the image's own, 0 to 255 within the image."""
    at_input = F.interpolate(values_Dhw.unsqueeze(1), tuple(data.input_size), mode="bilinear", align_corners=False)
    return to_map(at_size(at_input.squeeze(1).numpy(), size, data))


def _row(seen: Seen, stage: str, values: NDArray[np.uint8]) -> Row:
    assert seen.truth_DHW is not None
    row: Row = {"case": seen.subject.name, "fold": seen.subject.fold, "group": seen.subject.group, "stage": stage}
    return row | {"object_share": float(seen.truth_DHW.mean()), "active_share": float(active(values).mean())}


def _counter(on_progress: Callable[[int, int], None] | None, total: int) -> Callable[[], None]:
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, total)

    return tell


# What is told of it.


def _stages(ours: Looked, theirs: Looked | None = None) -> dict[str, Any]:
    """For each stage the size of its map and, where the truth is known, its scores, the twin's, and the difference."""
    stages: dict[str, Any] = {}
    for stage, side in ours.sides.items():
        rows = [row for row in ours.rows if row["stage"] == stage]
        stages[stage] = {"side": list(side)}
        if rows:
            stages[stage] |= {"undefined": sum(math.isnan(row["iou"]) for row in rows)} | _means(rows)
        if theirs and (others := {(row["case"], row["fold"]): row for row in theirs.rows if row["stage"] == stage}):
            paired = [(row, others[row["case"], row["fold"]]) for row in rows]
            stages[stage]["twin"] = _means([other for _, other in paired])
            apart = [row | {score: row[score] - other[score] for score in SCORES} for row, other in paired]
            stages[stage]["difference"] = _means(apart)
    return stages


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    about = {}
    for score in SCORES:
        values = np.array([row[score] for row in rows])
        interval = cluster_bootstrap(values, [row["group"] for row in rows])
        about[score] = {"mean": float(np.nanmean(values)) if (~np.isnan(values)).any() else None, "interval95": interval}
    return about


def _functions(
    place: ExplainFolder, kan: dict[str, KANLinear], asked: Sequence[str], entering: dict[str, Entering]
) -> dict[str, Any]:
    """Draw functions and inputs, and say in numbers what is drawn."""
    layers, drawn = {}, []
    for name, layer in kan.items():
        counts, sample_RI = entering[name].counts, torch.cat(entering[name].rows)
        strengths = edge_strengths(layer, sample_RI)
        low, first, last, high = _ends(layer).median(1).values.tolist()
        layers[name] = {
            "values": counts.values,
            "outside_grid": (counts.below_grid + counts.above_grid) / counts.values,
            "outside_knots": (counts.below_knots + counts.above_knots) / counts.values,
            "grid": [first, last],
            "knots": [low, high],
            "quantiles": dict(zip(map(str, QUANTILES), np.quantile(sample_RI.numpy(), QUANTILES).tolist(), strict=True)),
            "spline_share": strengths.spline_share,
        }
        for edge in strengths.strongest(max(1, PLOTS // len(asked)) if name in asked else 0):
            values = sample_RI[:, edge.input].double()
            _, first, last, _ = _ends(layer)[:, edge.input].tolist()
            x = torch.linspace(min(first, float(values.min())), max(last, float(values.max())), POINTS).double()
            base, spline = (part[:, 0].numpy() for part in edge_functions(layer, x[:, None], [edge.input], [edge.output]))
            knots = layer.grid[edge.input].cpu().numpy()
            drawn.append(figures.Function(name, edge, x.numpy(), base, base + spline, knots, (first, last), values.numpy()))
    figures.draw_inputs(place.inputs, layers)
    figures.draw_functions(place.functions, drawn)
    return {"layers": layers, "edges": [{"layer": one.layer, **one.edge._asdict()} for one in drawn]}


def _ends(layer: KANLinear) -> Tensor:
    """(4, I): the outermost knots of every input, and between them where its grid begins and ends."""
    knots_TI, order = layer.grid.detach().cpu().double().T, layer.spline_order
    return knots_TI[[0, order, -1 - order, -1]]


def _clear(place: ExplainFolder) -> None:
    """Nothing of an earlier look stays beside this one; the record, which says that the rest is whole, goes first."""
    for path in (place.record, place.functions, place.inputs, place.plausibility):
        path.unlink(missing_ok=True)
    shutil.rmtree(place.maps, ignore_errors=True)


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()})
