"""The index: every case of a raw folder with its facts, and everything wrong with the folder, found in one pass."""

import csv
import hashlib
import io
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypedDict, get_args

import cv2
import numpy as np

from ukan.data import check
from ukan.data.crops import MOST
from ukan.data.duplicates import SIDE, Thumbnails, chain, find_pairs
from ukan.data.facts import Facts, read_facts
from ukan.data.fingerprint import make_fingerprint
from ukan.data.groups import groups_by_regex, groups_by_table
from ukan.data.layouts import LAYOUTS, Layout, find_layout
from ukan.data.masks import MEANING, Rule, choose_rule
from ukan.data.problems import Problem, by_gravity
from ukan.errors import DataError, UserError, nearest
from ukan.paths import slug, write_text
from ukan.plan import Case, Fingerprint, MaskRule
from ukan.runtime import usable_cores

_COLUMNS = Case._fields
_LISTS = ("masks", "classes", "channels")
_SINCE_2 = ("classes", "channels", "slices", "grade")  # columns that the first indexes do not have
_MANY = 500  # from here on processes pay: threads wait for one another where Python itself works
Progress = Callable[[int, int], None]


class Reading(TypedDict, total=False):
    """How a folder is read, as `index_folder` takes it."""

    layout: str | None
    """Read it as this layout instead of recognising it."""
    without_masks: bool
    """Where no layout with masks fits, read it as images alone."""
    dataset: str | None
    """The dataset's name here; the layout's or the folder's by default."""
    mask_rule: MaskRule | None
    """Read masks by this rule instead of the one that their values suggest."""
    label_values: Sequence[int]
    """The values that are classes (mask_rule: labels)."""
    skip_bad: bool
    """Leave out cases that have errors."""
    group_regex: str | None
    """Its first group in a case's name or path is the case's group."""
    groups: Path | None
    """A CSV file with the columns case and group."""


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
    pairs: list[check.Pair] = field(default_factory=list)
    """Alike pictures worth a look, worst first."""
    left_out: tuple[str, ...] = ()
    """Files with errors that were left out on demand."""
    thumbnails: Thumbnails = field(
        default=Thumbnails((), (), np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, 2), np.int64)), compare=False
    )
    """Of `cases`, in their order."""

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == "error"]


def index_folder(
    folder: Path,
    *,
    layout: str | None = None,
    without_masks: bool = False,
    dataset: str | None = None,
    mask_rule: MaskRule | None = None,
    label_values: Sequence[int] = (),
    skip_bad: bool = False,
    group_regex: str | None = None,
    groups: Path | None = None,
    on_progress: Progress | None = None,
) -> Index:
    """Read every case of a raw dataset once; the options are those of `Reading`.

    Raises DataError where no layout fits or the table of groups does not, UserError for impossible options; all else is in
    `problems`.
    """
    if mask_rule is not None and mask_rule not in get_args(MaskRule):
        raise UserError(f"data.mask_rule={mask_rule}: unknown. {nearest(str(mask_rule), list(get_args(MaskRule)))}")
    layout, root = find_layout(folder, layout, without_masks=without_masks)
    known = LAYOUTS[layout]
    cases, problems = known.find_cases(root)
    name = slug(dataset or known.DATASET or root.resolve().name)
    problems = [problem._replace(where=_printable(problem.where), what=_printable(problem.what)) for problem in problems]
    for case in cases:
        if (shown := _printable(case.image)) != case.image:
            problems.append(Problem("error", "name is not UTF-8", shown, "bytes of another encoding", "rename the file"))
    cases = [case for case in cases if _printable(case.image) == case.image]
    twice = {case for case, count in Counter(case.case for case in cases).items() if count > 1}
    for case in (case for case in cases if case.case in twice):
        problems.append(Problem("error", "two cases of one name", case.image, case.case, "rename one of the files"))
    cases = sorted((case for case in cases if case.case not in twice), key=lambda case: case.case)
    namings = {f"layout {layout}": {case.case: case.group for case in cases if case.group}}
    if group_regex is not None:
        namings[f"--group-regex {group_regex}"] = groups_by_regex(group_regex, cases)
    if groups is not None:
        namings[f"--groups {groups.name}"] = groups_by_table(groups, cases, [problem.where for problem in problems])

    facts = []
    for done, found in enumerate(_read_all(root, cases), start=1):
        if isinstance(found, Facts):
            facts.append(found)
        else:
            problems += found
        if on_progress:
            on_progress(done, len(cases))
    rule = _rule(known, root, facts, mask_rule, label_values)
    unfit = check.unusable(facts, rule) if facts else {}
    problems += [problem for errors in unfit.values() for problem in errors]
    facts = [fact for fact in facts if fact.case.case not in unfit]
    problems += [problem for fact in facts for problem in fact.problems]
    if not facts:
        if not problems:
            problems.append(Problem("error", "no image", str(root), "no image in this folder", known.TREE))
        return Index(root, name, layout, [], by_gravity(problems), None, rule.because)

    names = [fact.case.case for fact in facts]
    thumbnails = Thumbnails(
        names,
        [fact.digest for fact in facts],
        np.stack([fact.thumbnail for fact in facts]),
        np.array([(fact.case.height, fact.case.width) for fact in facts], np.int64),
    )
    pairs = find_pairs(thumbnails)
    if len(facts) > MOST:
        what = f"{len(facts)} pictures, more than {MOST}: only whole pictures were compared"
        do = "name the patients by --groups or --group-regex where there may be crops of one another"
        problems.append(Problem("note", "crops not looked for", "all cases", what, do))
    given_names = [[naming.get(name, "") for name in names] for naming in namings.values()]
    given = chain(len(facts), np.zeros((0, 2), np.intp), *given_names)
    chained = chain(len(facts), np.column_stack([pairs.first, pairs.second]), *given_names)
    alike, listed = check.likeness_problems(facts, pairs, given)
    problems += [*check.doubts(facts, rule, chained), *alike, *check.group_problems(facts, given, chained)]
    share: MaskRule = "half" if rule.rule == "half" else "nonzero"
    done_cases = [
        fact.case._replace(group=names[first], foreground=fact.shares[share])
        for fact, first in zip(facts, chained, strict=True)
    ]
    sources = [source for source, naming in namings.items() if naming] + ["near-duplicates"] * bool(len(pairs.first))
    fingerprint = make_fingerprint(
        done_cases,
        facts,
        rule,
        _class_names(known, root, done_cases, rule),
        dataset=name,
        layout=layout,
        modality=known.MODALITY,
        index_sha256=index_sha256(done_cases),
        grouped_by=", ".join(sources) or "nothing: every case is a group of its own",
        near_duplicates=len(pairs.first),
    )
    left_out: tuple[str, ...] = ()
    if skip_bad:
        problems, left_out = _without_bad(problems)
    return Index(
        root, name, layout, done_cases, by_gravity(problems), fingerprint, rule.because, listed, left_out, thumbnails
    )


def _read_all(root: Path, cases: Sequence[Case]) -> Iterator[Facts | list[Problem]]:
    """In the order of the cases, on all cores."""
    pool: Executor
    if len(cases) >= _MANY and sys.platform == "linux":  # elsewhere new processes would begin by running the user's script
        pool = ProcessPoolExecutor(usable_cores(), get_context("fork"), _begin_worker)
    else:
        pool = ThreadPoolExecutor(usable_cores())
    with pool:
        yield from pool.map(partial(_read, root), cases, chunksize=16)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    cv2.setNumThreads(0)  # its threads do not survive a fork


def _read(root: Path, case: Case) -> Facts | list[Problem]:
    found = read_facts(root, case)
    if isinstance(found, Facts):
        found.case = found.case._replace(hash=case_hash(root, case))
    return found


def _rule(layout: Layout, root: Path, facts: Sequence[Facts], by_hand: MaskRule | None, label_values: Sequence[int]) -> Rule:
    """The rule of the masks: by hand, as the layout knows it, as the dataset names its labels, or as the values suggest."""
    masks = [values for fact in facts for values in fact.mask_values]
    if facts and not masks:
        return Rule("nonzero", (), "there are no masks")
    found = tuple(sorted({value for values in masks for value in values if value > 0}))
    named = layout.label_names(root)
    classes_apart = any(fact.case.classes for fact in facts)
    if by_hand or label_values:
        values = tuple(label_values) or tuple(named) or found
        rule = by_hand or "labels"
        if rule == "labels" and classes_apart:
            raise UserError("data.mask_rule=labels: here each class has masks of its own, which hold no other classes")
        return Rule(rule, values if rule == "labels" else (), f"set by hand: {MEANING[rule]}", lenient=True)
    if layout.RULE:
        known = f"known of this dataset: {MEANING[layout.RULE]}"
        return Rule(layout.RULE, (tuple(named) or found) if layout.RULE == "labels" else (), known, lenient=True)
    if len(named) > 1:
        return Rule("labels", tuple(sorted(named)), f"the dataset names {len(named)} labels: each value a class")
    return choose_rule(masks, may_be_labels=not classes_apart)


def _class_names(layout: Layout, root: Path, cases: Sequence[Case], rule: Rule) -> tuple[str, ...]:
    named = layout.label_names(root)
    if rule.rule == "labels":
        return tuple(named.get(value, f"class_{value}") for value in rule.label_values)
    apart = sorted({name for case in cases for name in case.classes}, key=lambda name: (not name.isdigit(), name.zfill(9)))
    return tuple(apart) or (tuple(named.values()) if len(named) == 1 else ("foreground",))


def _without_bad(problems: Sequence[Problem]) -> tuple[list[Problem], tuple[str, ...]]:
    """Errors of single files become warnings that these are left out; those of files that describe the dataset stay."""
    bad = [p for p in problems if p.level == "error" and Path(p.where).suffix.lower() not in (".json", ".csv")]
    told = [p._replace(level="warning", do=f"left out (--skip-bad); {p.do}") if p in bad else p for p in problems]
    return told, tuple(sorted({problem.where for problem in bad}))


def _printable(name: str) -> str:
    """A file's name in characters that any file can hold: bytes that are no UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def dump_index(cases: Sequence[Case]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for case in cases:
        row: dict[str, Any] = case._asdict()
        row |= {key: json.dumps(row[key], ensure_ascii=False) for key in _LISTS}
        writer.writerow((row | {"foreground": f"{case.foreground:.9g}"}).values())
    return text.getvalue()


def index_sha256(cases: Sequence[Case]) -> str:
    """The hash of the file that `save_index` writes."""
    return hashlib.sha256(dump_index(cases).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Raises DataError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def save_index(path: Path, cases: Sequence[Case]) -> None:
    write_text(path, dump_index(cases))


def load_index(path: Path) -> list[Case]:
    """The cases of an index.csv, of older ones too. Raises DataError where it is none."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        columns = tuple(reader.fieldnames or ())
        if columns not in (_COLUMNS, tuple(column for column in _COLUMNS if column not in _SINCE_2)):
            raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
        numbers = {"width": int, "height": int, "slices": int, "foreground": float}
        cases = []
        for row in reader:
            fields: dict[str, Any] = dict(row)
            fields |= {key: tuple(json.loads(row[key])) for key in _LISTS if key in columns}
            fields |= {key: number(row[key]) for key, number in numbers.items() if key in columns}
            cases.append(Case(**fields))
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable index ({error}); run `ukan plan` again") from error
    return cases


def case_hash(root: Path, case: Case) -> str:
    """sha256 over the bytes of a case's files: image, masks, further channels; of a folder every file in the order of names.

    Raises DataError where one cannot be read.
    """
    digest = hashlib.sha256()
    for name in (case.image, *case.masks, *case.channels):
        try:
            for path in _files_of(root / name):
                digest.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"{root / name}: {error.strerror}") from error
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    if path.name.lower().endswith(".mhd"):  # its voxels are in a file beside it
        return [path, *(beside for suffix in (".raw", ".zraw") if (beside := path.with_suffix(suffix)).is_file())]
    return [path]
