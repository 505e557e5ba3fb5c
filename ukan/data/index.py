"""The index: every case of a raw folder with its facts, and everything wrong with the folder, found in one pass."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ukan.data import duplicates
from ukan.data.layouts import LAYOUTS, find_layout
from ukan.data.masks import MaskRule, choose_rule, fit_mask, foreground
from ukan.data.problems import Problem
from ukan.errors import DataError
from ukan.imaging import read_image, read_mask
from ukan.paths import slug, write_text
from ukan.plan import Case, Fingerprint
from ukan.runtime import usable_cores

_COLUMNS = ("case", "image", "masks", "group", "label", "split", "width", "height", "foreground", "hash")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Index:
    """What is in a folder. `cases` holds the usable ones, sorted by name; `problems` everything to know."""

    root: Path
    dataset: str
    layout: str
    cases: list[Case]
    problems: list[Problem]
    fingerprint: Fingerprint | None
    """None where no case is usable."""
    mask_rule_because: str

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == "error"]


@dataclass(frozen=True)
class _Facts:
    """What reading one case's files gives."""

    case: Case
    problems: list[Problem]
    values: list[tuple[int, ...]]  # grey values of each mask
    shares: dict[MaskRule, float]  # foreground of the united mask by either rule
    colour: bool
    pixels: str
    thumbnail: NDArray[np.float32]


def index_folder(
    folder: Path, *, layout: str | None = None, dataset: str | None = None, on_progress: Progress | None = None
) -> Index:
    """Read every case of a raw dataset once. Raises DataError only where no layout fits; all else is in `problems`."""
    layout, root = find_layout(folder, layout)
    cases, problems = LAYOUTS[layout].find_cases(root)
    name = slug(dataset or LAYOUTS[layout].DATASET or folder.resolve().name)
    twice = {case for case, count in Counter(case.case for case in cases).items() if count > 1}
    for case in (case for case in cases if case.case in twice):
        problems.append(Problem("error", "two cases of one name", case.image, case.case, "rename one of the files"))
    cases = sorted((case for case in cases if case.case not in twice), key=lambda case: case.case)

    facts: list[_Facts] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, result in enumerate(pool.map(lambda case: _read(root, case), cases), start=1):
            if isinstance(result, _Facts):
                facts.append(result)
                problems += result.problems
            else:
                problems += result
            if on_progress:
                on_progress(done, len(cases))
    if not facts:
        if not problems:
            problems.append(Problem("error", "no image", str(root), "no image in this folder", LAYOUTS[layout].TREE))
        return Index(root, name, layout, [], _sorted(problems), None, "")

    rule, because = choose_rule([values for fact in facts for values in fact.values] or [(0,)])
    problems += _mask_problems(facts, rule, because)
    unfit = {p.where for p in problems if p.kind == "mask values fit no rule"}
    facts = [fact for fact in facts if not unfit.intersection(fact.case.masks)]
    pairs = duplicates.find_pairs(np.stack([f.thumbnail for f in facts]), [f.pixels for f in facts]) if facts else []
    problems += _duplicate_problems(facts, pairs)
    groups = duplicates.chain(len(facts), [(a, b) for a, b, _ in pairs], [fact.case.group for fact in facts])
    done_cases = [
        fact.case._replace(group=facts[first].case.case, foreground=fact.shares[rule])
        for fact, first in zip(facts, groups, strict=True)
    ]
    fingerprint = _fingerprint(name, layout, done_cases, facts, rule, len(pairs)) if done_cases else None
    return Index(root, name, layout, done_cases, _sorted(problems), fingerprint, because)


def dump_index(cases: Sequence[Case]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for case in cases:
        row = case._replace(masks=json.dumps(case.masks, ensure_ascii=False), foreground=f"{case.foreground:.9g}")  # type: ignore[arg-type]
        writer.writerow(row)
    return text.getvalue()


def index_sha256(cases: Sequence[Case]) -> str:
    return hashlib.sha256(dump_index(cases).encode()).hexdigest()


def save_index(path: Path, cases: Sequence[Case]) -> None:
    write_text(path, dump_index(cases))


def load_index(path: Path) -> list[Case]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
        return [
            Case(
                case=row["case"],
                image=row["image"],
                masks=tuple(json.loads(row["masks"])),
                group=row["group"],
                label=row["label"],
                split=row["split"],
                width=int(row["width"]),
                height=int(row["height"]),
                foreground=float(row["foreground"]),
                hash=row["hash"],
            )
            for row in reader
        ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable index ({error}); run `ukan plan` again") from error


def case_hash(root: Path, case: Case) -> str:
    """sha256 over the bytes of a case's files. Raises DataError where one cannot be read."""
    digest = hashlib.sha256()
    for name in (case.image, *case.masks):
        try:
            digest.update((root / name).read_bytes())
        except OSError as error:
            raise DataError(f"{root / name}: {error.strerror}") from error
    return digest.hexdigest()


def _read(root: Path, case: Case) -> _Facts | list[Problem]:
    """Everything one case's files tell, or what is wrong with them."""
    problems: list[Problem] = []
    try:
        image = read_image(root / case.image)
    except DataError as error:
        return [_unreadable("image", case.image, error, root)]
    height, width = image.shape[:2]
    values: list[tuple[int, ...]] = []
    united: dict[MaskRule, NDArray[np.bool_]] = {r: np.zeros((height, width), bool) for r in ("nonzero", "half")}
    for name in case.masks:
        try:
            mask = read_mask(root / name)
        except DataError as error:
            problems.append(_unreadable("mask", name, error, root))
            continue
        counts = np.bincount(mask.ravel(), minlength=256)
        values.append(tuple(int(v) for v in np.flatnonzero(counts)))
        try:
            for rule, whole in united.items():
                whole |= fit_mask(foreground(mask, rule), height, width, name)
        except DataError as error:
            what = str(error).partition(": ")[2]
            problems.append(Problem("error", "mask and image differ in shape", name, what, "give the mask of this image"))
            continue
        if mask.shape != (height, width):
            what = f"mask {mask.shape[1]}x{mask.shape[0]}, image {width}x{height}"
            problems.append(
                Problem("warning", "mask of another size", name, what, "resized by nearest value; check that they fit")
            )
        with Image.open(root / name) as file:
            if "A" in file.getbands():
                problems.append(Problem("note", "mask with alpha", name, f"mode {file.mode}", "alpha is left out"))
    if any(problem.level == "error" for problem in problems):
        return problems
    if len(case.masks) > 1:
        problems.append(Problem("note", "several masks", case.case, f"{len(case.masks)} masks", "united"))
    if min(height, width) < 16:
        problems.append(Problem("warning", "tiny image", case.image, f"{width}x{height}", "check that it is an image"))
    spread = image.max(axis=2).astype(np.int16) - image.min(axis=2)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _Facts(
        case=case._replace(width=width, height=height, hash=case_hash(root, case)),
        problems=problems,
        values=values,
        shares={rule: float(whole.mean()) for rule, whole in united.items()},
        colour=bool((spread > 16).mean() > 0.001),
        pixels=hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
        thumbnail=duplicates.thumbnail(grey),
    )


def _unreadable(kind: str, name: str, error: DataError, root: Path) -> Problem:
    what = str(error).removeprefix(f"{root / name}: ")
    return Problem("error", f"unreadable {kind}", name, what, "replace the file, or remove the case")


def _mask_problems(facts: Iterable[_Facts], rule: MaskRule, because: str) -> list[Problem]:
    problems = []
    for fact in facts:
        for name, values in zip(fact.case.masks, fact.values, strict=True):
            if rule == "half" and 0 < max(values) < 128:
                what = f"values up to {max(values)} where others reach white: it would come out empty"
                problems.append(Problem("error", "mask values fit no rule", name, what, "store it as 0 and 255"))
            elif len(values) > 2 and rule == "half":
                problems.append(Problem("note", "mask with greys", name, f"{len(values)} values", "cut at 128"))
            elif len(values) > 2:
                problems.append(Problem("warning", "mask with several labels", name, because, "united into one foreground"))
        if fact.shares[rule] == 0:
            problems.append(
                Problem("note", "empty mask", fact.case.case, "no foreground", "kept or left out by data.empty_cases")
            )
        elif fact.shares[rule] > 0.95:
            what = f"{fact.shares[rule]:.0%} of the image is foreground"
            problems.append(
                Problem("warning", "mask covers the image", fact.case.case, what, "check that it is not inverted")
            )
    return problems


def _duplicate_problems(facts: Sequence[_Facts], pairs: Sequence[tuple[int, int, float]]) -> list[Problem]:
    problems = []
    for a, b, likeness in pairs:
        one, other = facts[a].case, facts[b].case
        same = facts[a].pixels == facts[b].pixels
        kind = "same picture twice" if same else "near-duplicates"
        if one.label != other.label:
            kind += " under two classes"
        what = f"likeness {likeness:.4f}"
        problems.append(
            Problem("warning", kind, f"{one.case} | {other.case}", what, "kept in one group, on one side of every fold")
        )
    return problems


def _fingerprint(
    dataset: str, layout: str, cases: Sequence[Case], facts: Sequence[_Facts], rule: MaskRule, near: int
) -> Fingerprint:
    heights, widths = ([getattr(case, side) for case in cases] for side in ("height", "width"))
    shares = np.array([case.foreground for case in cases if case.foreground > 0] or [0.0])
    sides = np.sqrt([c.foreground * c.width * c.height for c in cases if c.foreground > 0] or [0.0])
    counts = Counter(value for fact in facts for values in fact.values for value in values)
    return Fingerprint(
        dataset=dataset,
        layout=layout,
        index_sha256=index_sha256(cases),
        cases=len(cases),
        empty=sum(case.foreground == 0 for case in cases),
        groups=len({case.group for case in cases}),
        labels=dict(sorted(Counter(case.label for case in cases).items())),
        height=_min_median_max(heights),
        width=_min_median_max(widths),
        colour=sum(fact.colour for fact in facts),
        lesion_share=_quantiles(shares, 6),
        lesion_side_px=_quantiles(sides, 1),
        mask_values={str(value): count for value, count in counts.most_common(16)},
        mask_rule=rule,
        near_duplicates=near,
    )


def _min_median_max(values: Sequence[int]) -> tuple[int, int, int]:
    return min(values), int(np.median(values)), max(values)


def _quantiles(values: NDArray[np.float64], digits: int) -> tuple[float, float, float]:
    low, middle, high = (round(float(q), digits) for q in np.quantile(values, (0.05, 0.5, 0.95)))
    return low, middle, high


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(problems, key=lambda p: (order[p.level], p.kind, p.where))
