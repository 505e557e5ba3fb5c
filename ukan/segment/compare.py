"""`ukan compare`: evaluated runs on the same cases, side by side; or why they cannot be compared."""

import csv
import json
import math
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.errors import UserError, nearest
from ukan.metrics.comparison import (
    ALPHA,
    Paired,
    compare_pairs,
    holm,
    lower_is_better,
    resampled_means,
    smallest_p,
    verdict,
)
from ukan.metrics.intervals import percentiles
from ukan.models.cost import Cost, model_cost
from ukan.paths import RUNS, CompareFolder, ScoreFolder, slug, write_text, written_whole
from ukan.plan import Plan, load_splits, sha256_of
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device
from ukan.segment import speed as turns
from ukan.segment.summary import OBJECTS, SCORES, without_nan

Key = tuple[str, str, str]
"""Part, case and class: a row of metrics_per_case.csv."""
Progress = Callable[[int, int], None]

SHOWN = ("dice", "iou", "hd95_penalised")
"""Scores of every table; one more where --metric asks for it."""
COSTS = (
    *("parameters", "gflops", "images_per_second", "time_ratio", "time_ratio_range", "peak_mib", "activations_mib"),
    *("batch_size", "input_size", "steps", "seconds_per_step"),
)
"""What a run's network costs, in the order of the columns of compare.csv; measured ones only where speed is measured."""
_PAIRED = (*Paired._fields, "verdict")
TITLES = ("trained from scratch", "began with pretrained weights")
"""The tables that are kept apart."""
HELD_OUT, TEST = "held-out cases", "the official test part"
"""What may be compared."""
TRUTH = ("data.mask_rule", "data.target", "data.classes", "data.label_values", "data.empty_cases")
"""Fields that decide what the truth of a case is, or whether it is one."""


@dataclass(frozen=True)
class Candidate:
    """A run that has scores of its present networks."""

    path: Path
    run: Run
    folds: list[int]
    """Those scored; of a test part, those whose mean is scored."""
    rows: dict[Key, dict[str, str]]

    @property
    def plan(self) -> Plan:
        return self.run.plan

    @property
    def weights(self) -> str:
        """What a network of pretrained weights began with; "none" where training began from scratch."""
        return str(self.plan.model.sizes.get("weights") or "none")


class Scores(NamedTuple):
    """One metric of all runs of a table."""

    values_KN: NDArray[np.float64]
    """Means over classes, a row a run, a column a case that all of them define."""
    compared: NDArray[np.bool_]
    """Which cases those are."""
    by_class: dict[str, NDArray[np.float64]]
    """Each class' means (K,) over its rows that all runs define; nothing where there is one class."""


def compare(
    paths: Sequence[Path],
    *,
    reference: Path | None = None,
    metric: str = "dice",
    folds: Sequence[int] | None = None,
    test: bool = False,
    speed: bool = True,
    device: str | None = None,
    out: Path | None = None,
    on_progress: Progress | None = None,
) -> tuple[dict[str, Any], CompareFolder]:
    """Lay evaluated runs side by side; write compare.json, compare.csv and pairs.csv, and return the first and the folder.

    The reference is the first run, or the one given; networks that began with pretrained weights stand in a table of their
    own, with its first run as reference. metric is what differences are of; folds, all those scored. test: the scores of
    the official test part, by the mean of the finished folds. Raises UserError with everything that keeps the runs from
    being compared.
    """
    if test and folds:
        raise UserError(
            "--fold and --test: one at a time; the official test part is scored by the mean of all finished folds"
        )
    candidates = _in_order(paths, reference, folds, test)
    known = [name for name in (*SCORES, *OBJECTS) if all(name in next(iter(c.rows.values())) for c in candidates)]
    if metric not in known:
        raise UserError(f"--metric {metric}: no score of all these runs. {nearest(metric, known)}")
    folds = sorted(set(folds)) if folds else candidates[0].folds
    chosen = pick_device(device) if speed else None
    names = _names([c.path for c in candidates], candidates[0].plan.data.dataset)
    parted = [[k for k, c in enumerate(candidates) if (c.weights != "none") == began] for began in (False, True)]
    tables, costs = [], _costs(candidates)
    for of, title in zip(parted, TITLES, strict=True):
        if of:
            table = _table([candidates[k] for k in of], [names[k] for k in of], metric)
            for line, k in zip(table["runs"], of, strict=True):
                line |= dict.fromkeys(COSTS) | _cost(candidates[k], costs[k], folds)
            tables.append({"title": title} | table)
    machine = None
    if chosen is not None:
        timed = turns.time_networks([c.run for c in candidates], folds[0], chosen, on_progress=on_progress)
        machine = timed.machine
        for of, table in zip(filter(None, parted), tables, strict=True):
            for line, k in zip(table["runs"], of, strict=True):
                line |= _speed(timed, k, of[0])
    first = candidates[0]
    record = {
        "dataset": first.plan.data.dataset,
        "protocol": first.plan.protocol,
        "what": TEST if test else HELD_OUT,
        "split": first.plan.split.kind,
        "folds": folds,
        "folds_planned": first.plan.split.count,
        "cases": len({case for _, case, _ in first.rows}),
        "scored": len({key[:2] for key in first.rows}),
        "groups": len({row["group"] for row in first.rows.values()}),
        "twins_in_training": len({key[:2] for key, row in first.rows.items() if row["twin_in_training"] == "1"}),
        "unit": next(iter(first.rows.values()))["unit"],
        "classes": list(first.plan.data.classes),
        "metric": metric,
        "lower_is_better": lower_is_better(metric),
        "unequal": _unequal(candidates, names, folds, test),
        "machine": machine,
        "tables": tables,
        "environment": environment_record(sys.argv),
    }
    record["notes"] = _notes(record)
    record = without_nan(record)
    tables = record["tables"]
    default = f"compare-{_folder_name(first.plan.data.dataset, names)}{'-test' if test else ''}"
    place = CompareFolder(out or RUNS / default)
    _write_csv(place.table, [_flat(line, record, table) for table in tables for line in table["runs"]])
    pairs = [{"table": table["title"]} | _intervals_apart(pair) for table in tables for pair in table["pairs"]]
    _write_csv(place.pairs, pairs)
    write_text(place.record, json.dumps(record, indent=1) + "\n")
    return record, place


# Reading, and refusing.


def read_rows(run: Run, folds: Sequence[int], *, test: bool = False) -> dict[Key, dict[str, str]]:
    """Lines of metrics_per_case.csv of these folds, or of the test part by their mean, by part, case and class."""
    parts = {"all"} if test else {f"fold_{k}" for k in folds}
    with _scores_of(run, test).metrics.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] in parts]
    return {(row["part"], row["case"], row["class"]): row for row in rows}


def steps_of(run: Run, folds: Sequence[int]) -> tuple[float | None, int | None]:
    """Seconds a step, looks at the held-out cases included, and the steps of a fold, as far as the run's record tells.

    Where folds take different numbers of steps, their mean.
    """
    recorded = run.environment().get("folds", {})
    found = [recorded[str(k)] for k, steps in zip(folds, _fold_steps(run, folds), strict=True) if steps is not None]
    if not found:
        return None, None
    steps = sum(fold["step"] for fold in found)
    return sum(fold["elapsed_s"] for fold in found) / steps, round(steps / len(found))


def _fold_steps(run: Run, folds: Sequence[int]) -> list[int | None]:
    """Each fold's steps; None where it was killed before they were noted."""
    recorded = run.environment().get("folds", {})
    return [recorded.get(str(k), {}).get("step") for k in folds]


def _scores_of(run: Run, test: bool) -> ScoreFolder:
    return run.folder.test_scores if test else run.folder.scores


def _in_order(paths: Sequence[Path], reference: Path | None, folds: Sequence[int] | None, test: bool) -> list[Candidate]:
    """The runs, the reference first. Raises UserError with everything that keeps them from being compared."""
    problems = []
    if len({path.resolve() for path in paths}) < len(paths):
        problems.append("a run is given twice; give each once")
    if len(paths) < 2:
        problems.append("one run alone compares with nothing; give two or more (`ukan report` shows one)")
    if reference is not None:
        if reference.resolve() not in [path.resolve() for path in paths]:
            problems.append(f"--reference {reference}: none of the runs given; name one of them")
        paths = sorted(paths, key=lambda path: path.resolve() != reference.resolve())
    candidates = []
    for path in paths:
        try:
            candidates.append(_open(path, folds, test))
        except UserError as error:
            problems.append(str(error))
    if candidates and not folds:
        shared = set(candidates[0].folds).intersection(*(c.folds for c in candidates))
        if any(set(c.folds) != shared for c in candidates):
            said = "; ".join(f"{c.path}: {' '.join(map(str, c.folds))}" for c in candidates)
            do = " ".join(f"--fold {k}" for k in sorted(shared))
            do = f"`{do}` compares what all have" if do else "train and evaluate a fold that all have"
            what = "other folds are scored"
            if test:
                do = "train those that are missing and `ukan evaluate RUN --test` again"
                what = "the official test part is scored by the mean of other folds"
            problems.append(f"{what} ({said}); {do}")
            candidates = [_of_folds(c, shared) for c in candidates] if shared else []
    problems += [problem for c in candidates[1:] for problem in _differences(candidates[0], c, test)]
    if problems:
        listed = f" {problems[0]}" if len(problems) == 1 else "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"cannot be compared:{listed}")
    return candidates


def _open(path: Path, folds: Sequence[int] | None, test: bool) -> Candidate:
    """Raises UserError where a folder has no scores of its present networks in these folds, or of its test part."""
    if not (path / "plan.yaml").exists() and (path / "table.csv").exists():
        runs = sorted(p.parent.as_posix() for p in path.parent.glob(f"{path.name}-*/plan.yaml"))
        raise UserError(
            f"{path}: an ablation's table, not a run; give its variants' runs ({', '.join(runs) or 'none here'})"
        )
    run = open_run(path)
    run.need_cases()
    again = f"`ukan evaluate {path}{' --test' if test else ''}`"
    place = _scores_of(run, test)
    try:
        summary = json.loads(place.summary.read_text(encoding="utf-8"))
        scored, tta = list(summary["folds"]), summary["tta"]
        of_weights, count = summary["weights_sha256"], summary["scored"]
        rows = read_rows(run, scored, test=test)
    except FileNotFoundError:
        said = "its official test part is not scored" if test else "not evaluated"
        raise UserError(f"{path}: {said}; run {again} first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its scores cannot be read ({error!r}); run {again} again") from error
    wanted = sorted({*scored, *run.finished_folds}) if test else list(folds or scored)
    if lacking := [k for k in wanted if k not in scored and not test]:
        have = " ".join(map(str, scored))
        raise UserError(f"{path}: fold {' '.join(map(str, lacking))} is not scored (scored: {have}); train it, then {again}")
    if tta:
        raise UserError(f"{path}: scored with --tta, which is another way to predict; run {again} without it")
    now = run.weights_sha256()
    if stale := [k for k in wanted if of_weights.get(str(k)) != now.get(str(k))]:
        said = f"fold {' '.join(map(str, stale))}"
        raise UserError(f"{path}: {said}: the scores are not of the networks that are there now; run {again} again")
    if not rows or len({key[:2] for key in rows}) != count:
        raise UserError(f"{path}: {place.metrics.name} and {place.summary.name} differ in cases; run {again} again")
    return _of_folds(Candidate(path, run, sorted(scored), rows), wanted)


def _of_folds(candidate: Candidate, folds: Sequence[int] | set[int]) -> Candidate:
    parts = {"all", *(f"fold_{k}" for k in folds)}
    rows = {key: row for key, row in candidate.rows.items() if key[0] in parts}
    return Candidate(candidate.path, candidate.run, sorted(folds), rows)


def _differences(first: Candidate, other: Candidate, test: bool) -> list[str]:
    """What keeps a run from being compared with the first, each with what to do."""
    mine, theirs = first.plan, other.plan
    where = f"{other.path} (against {first.path})"
    if mine.protocol != theirs.protocol:
        return [f"{where}: protocol {theirs.protocol}, not {mine.protocol}; tables never mix the two: compare them apart"]
    if mine.data.dataset != theirs.data.dataset:
        return [f"{where}: dataset {theirs.data.dataset}, not {mine.data.dataset}; a comparison is of one dataset"]
    flat, other_flat = mine.flat(), theirs.flat()
    if truth := [f"{key}: {flat[key]} -> {other_flat[key]}" for key in TRUTH if flat[key] != other_flat[key]]:
        return [f"{where}: masks are read otherwise, or other cases take part ({'; '.join(truth)}); plan both alike"]
    if mine.data.index_sha256 != theirs.data.index_sha256:
        return [
            f"{where}: dataset {mine.data.dataset} with other files or groups (index {theirs.data.index_sha256[:8]}, not "
            f"{mine.data.index_sha256[:8]}); run `ukan plan` for both on the same folder with the same options, and train"
        ]
    if problem := _other_folds(first, other):
        return [f"{where}: {problem}"]
    if first.rows.keys() != other.rows.keys():
        apart = sorted(first.rows.keys() ^ other.rows.keys())
        said = f"{len(apart)} scores stand in one of them alone, such as {' / '.join(apart[0])}"
        return [f"{where}: other cases are scored: {said}; run `ukan evaluate{' --test' if test else ''}` for both again"]
    if any(row["group"] != other.rows[key]["group"] for key, row in first.rows.items()):
        return [f"{where}: cases are grouped otherwise; plan both with the same --groups or --group-regex, and train"]
    return []


def _other_folds(first: Candidate, other: Candidate) -> str:
    """How the assignment of cases to folds differs; nothing where it does not."""
    settings = [line for line in first.plan.difference(other.plan) if line.startswith("split.")]
    because = f" ({'; '.join(settings)})" if settings else ""
    mine, theirs = load_splits(first.run.folder.splits), load_splits(other.run.folder.splits)
    for k in first.folds:
        for side, words in (("val", "holds out"), ("train", "trains on")):
            apart = set(mine[k][side]) ^ set(theirs[k][side])
            if apart:
                return (
                    f"fold {k} {words} other cases{because}, {len(apart)} stand in one of them alone, such as "
                    f"{min(apart)}; train both by plans that were made alike"
                )
    return ""


# The table.


def _table(candidates: Sequence[Candidate], names: Sequence[str], metric: str) -> dict[str, Any]:
    """Scores, differences and all pairs of runs that may stand in one table, the first being the reference."""
    keys = list(candidates[0].rows)
    cases = list(dict.fromkeys(key[:2] for key in keys))
    group_of = {key[:2]: row["group"] for key, row in candidates[0].rows.items()}
    groups = [group_of[case] for case in cases]
    shown = [*SHOWN, *([] if metric in SHOWN else [metric])]
    scores = {name: _scores(candidates, keys, cases, name) for name in shown}
    lines: list[dict[str, Any]] = [
        {"run": name, "folder": c.path.as_posix(), "model": c.plan.model.name, "weights": c.weights}
        | {"scores": {}, "against": None}
        for name, c in zip(names, candidates, strict=True)
    ]
    for name, found in scores.items():
        drawn_RK = resampled_means(found.values_KN, _kept(groups, found.compared)) if found.compared.any() else None
        for k, line in enumerate(lines):
            line["scores"][name] = {
                "mean": float(found.values_KN[k].mean()) if found.compared.any() else math.nan,
                "interval95": None if drawn_RK is None else percentiles(drawn_RK[:, k]),
                "by_class": {of: float(means[k]) for of, means in found.by_class.items()},
            }
    main = scores[metric]
    kept = _kept(groups, main.compared)
    if not kept:
        raise UserError(f"--metric {metric}: defined in all runs for no case; take another, such as {metric}_penalised")
    to_first = [(k, 0) for k in range(1, len(lines))]
    for line, paired in zip(lines[1:], compare_pairs(main.values_KN, kept, to_first), strict=True):
        line["against"] = _paired(paired, metric)
    pairs = [(b, a) for a, b in combinations(range(len(lines)), 2)]
    return {
        "reference": names[0],
        "runs": lines,
        "pairs": [
            {"run": names[a], "against": names[b], "metric": metric} | _paired(paired, metric)
            for (a, b), paired in zip(pairs, compare_pairs(main.values_KN, kept, pairs), strict=True)
        ],
        "compared": {name: int(found.compared.sum()) for name, found in scores.items()},
        "groups": len(set(kept)),
        "by_case": {
            "case": [case for (_, case), keep in zip(cases, main.compared, strict=True) if keep],
            "part": [part for (part, _), keep in zip(cases, main.compared, strict=True) if keep],
            "group": kept,
            metric: {name: values.tolist() for name, values in zip(names, main.values_KN, strict=True)},
        },
    }


def _scores(candidates: Sequence[Candidate], keys: Sequence[Key], cases: Sequence[tuple[str, str]], metric: str) -> Scores:
    """A metric on the rows that every run defines, so that all means are of the same."""
    values_KL = np.array([[float(c.rows[key][metric]) for key in keys] for c in candidates])
    defined_L = ~np.isnan(values_KL).any(0)
    place = {case: number for number, case in enumerate(cases)}
    of_case_L = np.array([place[key[:2]] for key in keys])
    count_N = np.bincount(of_case_L[defined_L], minlength=len(cases))
    sums_KN = np.stack([np.bincount(of_case_L[defined_L], row[defined_L], len(cases)) for row in values_KL])
    classes = list(dict.fromkeys(key[2] for key in keys))
    of_class = {of: defined_L & np.array([key[2] == of for key in keys]) for of in classes} if len(classes) > 1 else {}
    return Scores(
        sums_KN[:, count_N > 0] / count_N[count_N > 0],
        count_N > 0,
        {
            of: values_KL[:, of_L].mean(1) if of_L.any() else np.full(len(candidates), math.nan)
            for of, of_L in of_class.items()
        },
    )


def _kept(groups: Sequence[str], keep: NDArray[np.bool_]) -> list[str]:
    return [group for group, kept in zip(groups, keep, strict=True) if kept]


def _paired(paired: Paired, metric: str) -> dict[str, Any]:
    return paired._asdict() | {"verdict": verdict(paired, metric)}


def _costs(candidates: Sequence[Candidate]) -> list[Cost]:
    known: dict[str, Cost] = {}
    costs = []
    for plan in (c.plan for c in candidates):
        data = plan.data
        kind = repr((plan.model, data.channels, data.outputs, data.input_size))
        if kind not in known:
            known[kind] = model_cost(plan.model.name, data.channels, data.outputs, plan.model.sizes, data.input_size)
        costs.append(known[kind])
    return costs


def _cost(candidate: Candidate, cost: Cost, folds: Sequence[int]) -> dict[str, Any]:
    plan = candidate.plan
    seconds, steps = steps_of(candidate.run, folds)
    height, width = plan.data.input_size
    return {
        "parameters": cost.parameters,
        "gflops": cost.flops / 1e9,
        "batch_size": plan.train.batch_size,
        "activations_mib": cost.activation_bytes * plan.train.batch_size / 2**20,
        "steps": steps,
        "seconds_per_step": seconds,
        "input_size": f"{width}x{height}",
    }


def _speed(timed: turns.Timed, k: int, reference: int) -> dict[str, Any]:
    ratios = timed.seconds_RK[:, k] / timed.seconds_RK[:, reference]
    peak = timed.peak_bytes[k]
    return {
        "images_per_second": 1 / float(np.median(timed.seconds_RK[:, k])),
        "time_ratio": float(np.median(ratios)),
        "time_ratio_range": [float(ratios.min()), float(ratios.max())],
        "peak_mib": None if peak is None else peak / 2**20,
    }


# What is to be known.


def _unequal(candidates: Sequence[Candidate], names: Sequence[str], folds: Sequence[int], test: bool) -> list[str]:
    """In what the runs differ beside their networks: a comparison is possible, and not at equal effort."""
    ignored = ("version", "name", "recipe", "published", "budget_gib", "infer.batch_size", "train.compile")
    flats = [c.plan.flat() for c in candidates]
    keys = [key for key in dict.fromkeys(key for flat in flats for key in flat) if key not in ignored]
    said = []
    for key in keys:
        if not key.startswith("model."):
            said += _told(key, ["none" if flat.get(key) is None else flat[key] for flat in flats], names)
    said += _told("steps of a fold", [_fold_by_fold(_fold_steps(c.run, folds)) for c in candidates], names)
    said += _told("weights", [c.weights for c in candidates], names)
    said += _told("recorded training device", [_devices(c.run) for c in candidates], names)
    if imported := [name for name, c in zip(names, candidates, strict=True) if c.run.imported]:
        cases = "held-out cases" if test else "cases they are scored on"
        said.append(f"trained elsewhere, their epoch chosen by {cases}: {', '.join(imported)}")
    return said


def _fold_by_fold(steps: Sequence[int | None]) -> str:
    """One number where all folds have the same, else each fold's."""
    said = ["unknown" if n is None else str(n) for n in steps]
    return said[0] if len(set(said)) == 1 else " ".join(said)


def _told(what: str, values: Sequence[Any], names: Sequence[str]) -> list[str]:
    """'train.lr: 0.001 (a, b), 0.01 (c)', or nothing where all are the same."""
    by_value: dict[Hashable, list[str]] = {}
    for value, name in zip(values, names, strict=True):
        by_value.setdefault("unknown" if value is None else str(value), []).append(name)
    if len(by_value) < 2:
        return []
    return [f"{what}: " + ", ".join(f"{value} ({_some(of)})" for value, of in by_value.items())]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _devices(run: Run) -> str | None:
    sessions = run.environment().get("sessions", [])
    found = sorted({f"{s.get('device')} {s.get('precision', '')}".strip() for s in sessions if s.get("device")})
    return ", ".join(found) or None


def _notes(record: Mapping[str, Any]) -> list[str]:
    """What is to be known of the tables, a sentence or two each."""
    metric, published, folds = record["metric"], record["split"] == "published", record["folds"]
    unit, test = "split" if published else "fold", record["what"] == TEST
    which = f"{unit}{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"
    scored = f", {record['scored']} scores" if record["scored"] != record["cases"] else ""
    cases = f"{record['cases']} held-out cases"
    if test:
        planned = f" (of {record['folds_planned']})" if len(folds) < record["folds_planned"] else ""
        by = f"{'the mean of ' if len(folds) > 1 else ''}the finished {which}{planned}"
        which, cases = f"scores of {TEST} by {by}", f"{record['cases']} cases"
    notes = [
        f"Protocol {record['protocol']}, {which}: {cases} in {record['groups']} groups{scored}.",
        f"Scores are of each case at its own size, {'means over classes, ' if len(record['classes']) > 1 else ''}"
        "averaged over cases; 95 % intervals by resampling groups.",
        f"Differences are of {metric}, paired case by case. p is of Wilcoxon's signed-rank test on the means by group, "
        "two-sided, corrected after Holm over the comparisons of a table (and over all pairs where all pairs stand).",
        "'better' and 'worse' where the interval leaves out 0 and Holm's p is below 0.05; 'unclear' where only the interval "
        "does; where the interval holds 0, no difference is shown, which is not that there is none.",
        f"Each {unit if len(folds) > 1 else 'run'} is one training: chance between trainings is in no interval and no p.",
    ]
    for table in record["tables"]:
        notes += _too_few(table)
        for name, count in table["compared"].items():
            if count < record["scored"]:
                notes.append(
                    f"{name} ({table['title']}): {record['scored'] - count} of {record['scored']} cases are left out, "
                    "undefined in at least one run."
                )
    notes.append(
        "Smallest difference: a true difference of this size, as a mean over groups, is found with 80 % probability by a "
        "two-sided test at 5 % of as many groups that differ as much; after Holm at the strictest of its levels."
    )
    notes.append(
        "GFLOPs: one image forward at the size used, 2 for each multiply-add of convolutions and matrix products, 9 "
        "for each state and step of a scan. Training "
        "memory: what a batch of the plan leaves for the backward pass in float32, counted, weights and optimiser not "
        "among it. Seconds a step: as recorded in training, on the machine of then."
    )
    if record["machine"]:
        notes.append(
            f"Images a second: batch 1, without gradients, on {record['machine']}; the networks take turns, medians of the "
            "rounds, and only the ratios carry over to another hour or machine."
        )
    if test and len(folds) > 1:
        notes.append(f"Costs are of one network, not of the {len(folds)} whose mean is scored.")
    if twins := test and record["twins_in_training"]:
        notes.append(
            f"{twins} of the {record['cases']} test cases are of groups that were trained on, and may score too well."
        )
    if published and not test:
        notes.append("The published split is blind to groups: near-duplicates may be on both sides of it.")
    if record["split"] == "random" and not test:
        notes.append("Folds at random are blind to groups: near-duplicates may be on both sides.")
    return notes


def _too_few(table: Mapping[str, Any]) -> list[str]:
    """Which comparisons with the reference show nothing, whichever way their differences point."""
    groups, others = table["groups"], table["runs"][1:]
    least = min(1.0, smallest_p(groups) * len(others))
    if others and least >= ALPHA:
        return [
            f"With {groups} groups and {len(others)} comparison{'s' if len(others) > 1 else ''} no p of "
            f"this test can be below {least:.3g}: it shows nothing at 5 %, whatever the networks."
        ]
    differing = [line["against"]["differing"] for line in others]
    return [
        f"{line['run']} and {table['reference']} differ in {count} of {groups} groups: no p of this test can be below "
        f"{least:.3g}, and it shows nothing at 5 %."
        for line, count, least in zip(others, differing, holm([smallest_p(count) for count in differing]), strict=True)
        if least >= ALPHA
    ]


# Files.


def _names(paths: Sequence[Path], dataset: str) -> list[str]:
    """Each run's folder, with as many parents as tell all of them apart, or without the dataset that all begin with."""
    parts = [path.resolve().parts for path in paths]
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({p[-n:] for p in parts}) == len(parts))
    names = ["/".join(p[-depth:]) for p in parts]
    short = [name.removeprefix(f"{dataset}-") for name in names]
    return short if all(short) and all(name != full for name, full in zip(short, names, strict=True)) else names


def _folder_name(dataset: str, names: Sequence[str]) -> str:
    joined = slug("-".join([dataset, *names]))
    return joined if len(joined) <= 80 else f"{joined[:40]}-{len(names)}-runs-{sha256_of(list(names))[:8]}"


def _flat(line: Mapping[str, Any], record: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """A line of compare.csv."""
    row: dict[str, Any] = {"table": table["title"]}
    row |= {key: line[key] for key in ("run", "folder", "model", "weights")}
    for name, score in line["scores"].items():
        row |= {name: score["mean"]} | _ends(name, score["interval95"])
        row |= {f"{name}_{of}": mean for of, mean in score["by_class"].items()}
    row |= {"metric": record["metric"], "compared": table["compared"][record["metric"]], "groups": table["groups"]}
    row |= _intervals_apart(line["against"] or dict.fromkeys(_PAIRED))
    for key in COSTS:
        row |= _ends("time_ratio", line[key]) if key == "time_ratio_range" else {key: line[key]}
    return row | {"protocol": record["protocol"], "what": record["what"], "folds": " ".join(map(str, record["folds"]))}


def _intervals_apart(row: Mapping[str, Any]) -> dict[str, Any]:
    """An interval as two columns."""
    made: dict[str, Any] = {}
    for key, value in row.items():
        made |= _ends("difference", value) if key == "interval95" else {key: value}
    return made


def _ends(name: str, interval: Sequence[float] | None) -> dict[str, Any]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:  # a table of one run has no pairs
        path.unlink(missing_ok=True)
        return
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
