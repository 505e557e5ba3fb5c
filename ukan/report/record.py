"""Tables of what a run folder records beside scores: the dataset, its problems, the plan, and how all of it was made."""

import csv
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ukan.report.tables import Table
from ukan.runs import Run
from ukan.training.log import human_time

_EXAMPLES = 5


def fingerprint_table(run: Run) -> Table | None:
    try:
        found = json.loads(run.folder.fingerprint.read_text(encoding="utf-8"))
        del found["index_sha256"]  # told with the other hashes
    except (OSError, ValueError, KeyError):
        return None
    rows = []
    for key, value in found.items():
        if value is None or value is False or value in ("", []):
            continue
        name, write = _FINGERPRINT.get(key, (key.replace("_", " "), _plain))
        rows.append([name, write(value)])
    return Table(["property", "value"], rows)


def problem_kinds(run: Run) -> list[dict[str, Any]] | None:
    """Problems of the raw folder by kind, in the order of the file: errors, warnings, notes."""
    if not run.folder.problems.exists():
        return None
    with run.folder.problems.open(newline="", encoding="utf-8") as file:
        problems = list(csv.DictReader(file))
    counts = Counter((problem["level"], problem["kind"]) for problem in problems)
    kinds = []
    for (level, kind), count in counts.items():
        examples = [p for p in problems if (p["level"], p["kind"]) == (level, kind)][:_EXAMPLES]
        kinds.append({"level": level, "kind": kind, "count": count, "do": examples[0]["do"], "examples": examples})
    return kinds


def plan_tables(run: Run) -> tuple[Table, Table]:
    """The plan's fields that have a reason, and the others."""
    flat, reasons = run.plan.flat(), run.plan.reasons
    decided = [[key, _plain(value), reasons[key]] for key, value in flat.items() if key in reasons]
    others = [[key, _plain(value)] for key, value in flat.items() if key not in reasons]
    return Table(["field", "value", "because"], decided), Table(["field", "value"], others)


def origin(run: Run, evaluations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Where networks and scores come from: environment.json, and the environments of summaries by the name of their part.

    Tables are empty where a record is missing.
    """
    record = run.environment()
    trained: list[dict[str, Any]] = record.get("sessions", [])
    sessions = [("training", session) for session in trained]
    sessions += [(f"scoring: {name}", summary.get("environment", {})) for name, summary in evaluations.items()]
    folds = []
    for fold, sha256 in run.weights_sha256().items():
        made = record.get("folds", {}).get(fold, {})
        time = human_time(made["elapsed_s"]) if "elapsed_s" in made else "–"
        folds.append([fold, made.get("step", "–"), time, made.get("micro_batch") or "whole", sha256])
    return {
        "trained": bool(trained),
        "imported": record.get("imported"),
        **environments(sessions),
        "fold_table": Table(["fold", "steps", "time", "micro-batch", "sha256 of the weights"], folds),
        "data_root": record.get("data_root", "not recorded"),
    }


def environments(sessions: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Where and by which commands things were made: environments by what was made, training being one of them."""
    keys = ("started_at", "device", "processes", "precision", "workers", "cores", "python", "platform", "commit")
    packages: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for what, session in sessions:
        for name, version in (session.get("packages") or {}).items():
            packages.setdefault(name, ({}, {}))[what != "training"][version or "not installed"] = None
    return {
        "sessions": Table(
            ["what", *(key.replace("_", " ") for key in keys)],
            [[what, *("–" if session.get(key) is None else session[key] for key in keys)] for what, session in sessions],
        ),
        "commands": list(dict.fromkeys(shlex.join(map(str, s["command"])) for _, s in sessions if "command" in s)),
        "packages": Table(
            ["package", "training", "scoring"],
            [[name, *(", ".join(versions) or "–" for versions in found)] for name, found in packages.items()],
        ),
    }


def _format(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(map(_format, values))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(v)}" for key, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


_FINGERPRINT: dict[str, tuple[str, Callable[[Any], str]]] = {
    "test": ("cases of the official test part", str),
    "empty": ("cases with an empty mask", str),
    "groups": ("groups (never on both sides of a split)", str),
    "groups_with_object": ("groups whose mask is not empty", str),
    "grouped_by": ("groups are made by", str),
    "labels": (
        "classes of pictures",
        lambda v: ", ".join(f"{name}: {count}" for name, count in v.items() if name) or "none",
    ),
    "slices": ("most slices of a case", str),
    "spacing_mm": ("median distance of slices, rows, columns, mm", _list),
    "height": ("height, px (smallest, median, largest)", _list),
    "width": ("width, px (smallest, median, largest)", _list),
    "channels": ("channels", str),
    "colour": ("images in colour", str),
    "deep": ("images of more than 8 bits", str),
    "intensity": ("values inside the masks (0.5th, 99.5th percentile)", _list),
    "hounsfield": ("values look like", lambda _: "computed tomography's, in Hounsfield units"),
    "lesion_share": ("mask, % of the image (5th, 50th, 95th percentile)", lambda v: _list([100 * x for x in v])),
    "lesion_side_px": ("square root of the mask's area, px (5th, 50th, 95th percentile)", _list),
    "mask_values": ("values in masks", lambda v: ", ".join(f"{value} in {count}" for value, count in v.items())),
    "mask_rule": ("foreground is", lambda v: _RULES.get(v, v)),
    "label_values": ("values of the classes", _plain),
    "classes": ("classes of masks", _plain),
    "near_duplicates": ("pairs of the same or nearly the same picture", str),
}
_RULES: dict[str, str] = {
    "nonzero": "every value above 0",
    "half": "128 and above",
    "instances": "every value above 0, each an object of its own",
    "labels": "each value a class of its own",
}
