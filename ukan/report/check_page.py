"""`ukan check`: what was found in a folder, on one HTML page that opens offline: no script, nothing fetched."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ukan import __version__
from ukan.data.check import Pair
from ukan.data.index import Index
from ukan.data.masks import read_truth
from ukan.data.problems import Level, Problem
from ukan.errors import DataError
from ukan.imaging import read_picture, to_8bit
from ukan.paths import write_text
from ukan.plan import Case, Fingerprint
from ukan.report import pictures
from ukan.report.pictures import Picture

PAIRS = 60
EXAMPLES = 12
LISTED = 200
"""Problems of a kind; all of them are in problems.csv."""
PLOT_PX = 320


class Kind(NamedTuple):
    """All problems of one kind."""

    level: Level
    name: str
    total: int
    listed: list[Problem]


class Dot(NamedTuple):
    """Images of one size, in the plot's own pixels from its lower left corner."""

    x: float
    y: float
    radius: float
    odd: bool
    text: str


class Plot(NamedTuple):
    dots: list[Dot]
    across: list[tuple[float, int]]
    """Places and labels along the axis of widths."""
    up: list[tuple[float, int]]


class Shown(NamedTuple):
    """Pictures that belong together; or why there are none."""

    title: str
    pictures: list[Picture]
    missing: str


def write_check_page(index: Index, path: Path) -> None:
    """Write the page. Images that can no longer be read leave gaps with the reason."""
    cases = {case.case: case for case in index.cases}
    f = index.fingerprint
    page = {
        "index": index,
        "f": f,
        "masked": f is None or bool(f.mask_values),
        "kinds": _kinds(index.problems),
        "levels": Counter(problem.level for problem in index.problems),
        "pairs": [_show_pair(index.root, pair, cases) for pair in index.pairs[:PAIRS]],
        "examples": [_show_case(index.root, case, f) for case in _spread(index.cases)] if f else [],
        "legend": _legend(f) if f else [],
        "plot": _plot(index) if f else None,
        "plot_px": PLOT_PX,
        "version": __version__,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of files, cases and classes are the user's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template("check.html.j2").render(page))


def _kinds(problems: Sequence[Problem]) -> list[Kind]:
    found: dict[tuple[Level, str], list[Problem]] = {}
    for problem in problems:
        found.setdefault((problem.level, problem.kind), []).append(problem)
    return [Kind(level, name, len(rows), rows[:LISTED]) for (level, name), rows in found.items()]


def _spread(cases: Sequence[Case]) -> list[Case]:
    """Some cases from the smallest object to the largest, evenly among all."""
    rising = sorted(cases, key=lambda case: (case.foreground, case.case))
    chosen = np.linspace(0, len(rising) - 1, min(EXAMPLES, len(rising))).round().astype(int)
    return [rising[i] for i in chosen]


def _show_case(root: Path, case: Case, f: Fingerprint) -> Shown:
    try:
        return Shown("", [_picture(root, case, f)], "")
    except DataError as error:
        return Shown(case.case, [], str(error))


def _show_pair(root: Path, pair: Pair, cases: dict[str, Case]) -> Shown:
    title = f"{pair.kind}, likeness {pair.likeness:.3f}"
    try:
        return Shown(title, [_picture(root, cases[name]) for name in (pair.one, pair.other)], "")
    except DataError as error:
        return Shown(title, [], str(error))


def _picture(root: Path, case: Case, f: Fingerprint | None = None) -> Picture:
    """An image, of a volume the slice that shows most; with the outlines of its masks where `f` says how they are read."""
    values, geometry = read_picture(root / case.image)
    shown, truth = len(values) // 2, None
    if f:
        truth = read_truth(root, case, values.shape[:3], f.mask_rule, f.classes, f.label_values)
        shown = pictures.shown_slice(truth, truth)
    image, _ = pictures.viewable(to_8bit(values[shown : shown + 1], "image")[0])
    box = pictures.fit_box(image.shape[0], image.shape[1], geometry.spacing_mm[1:] if geometry else (1.0, 1.0))
    drawn = pictures.fitted(image, box)
    if truth is not None:
        drawn = pictures.outlined(drawn, pictures.fitted_masks(truth[:, shown], box), pictures.TRUTH)
    told = ", ".join(word for word in (case.label, case.split) if word)
    title = case.case + (f" ({told})" if told else "")
    title += f", slice {shown + 1} of {len(values)}" if len(values) > 1 else ""
    return pictures.picture(title + (f", {case.foreground:.1%} inside" if f and f.mask_values else ""), drawn)


def _legend(f: Fingerprint) -> list[tuple[str, str]]:
    """Colour and name of each class, where there are several."""
    if len(f.classes) < 2:
        return []
    return list(zip(map(pictures.hex_of, pictures.class_colours(len(f.classes))), f.classes, strict=True))


def _plot(index: Index) -> Plot:
    """Width and height of all images, one dot a size, its area by their number."""
    odd = {problem.where for problem in index.problems if problem.kind == "size far from the rest"}
    sizes = Counter((case.width, case.height, case.image in odd) for case in index.cases)
    scale = PLOT_PX / max(max(width, height) for width, height, _ in sizes)
    most = max(sizes.values())
    dots = [
        Dot(width * scale, height * scale, 2.5 + 6 * (count / most) ** 0.5, far, f"{width}x{height}: {count}")
        for (width, height, far), count in sorted(sizes.items())
    ]
    return Plot(
        dots,
        _ticks([case.width for case in index.cases], scale),
        _ticks([case.height for case in index.cases], scale),
    )


def _ticks(sides: Sequence[int], scale: float) -> list[tuple[float, int]]:
    """Places and labels of the smallest, the median and the largest side, where they are far enough apart to be read."""
    ticks = [(max(sides) * scale, max(sides))]
    for side in (min(sides), int(np.median(sides))):
        if all(abs(side * scale - place) >= 30 for place, _ in ticks):
            ticks.append((side * scale, side))
    return ticks
