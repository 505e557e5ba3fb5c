"""Plots for the page, as SVG that takes the page's text colour and fonts. No text of a user's gets into them: legends
are written by the page."""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

_INK = "#010203"  # stands for the colour of the page's text
_STYLE: Any = {
    **{f"{key}.color": _INK for key in ("text", "xtick", "ytick")},
    **{f"axes.{key}": _INK for key in ("edgecolor", "labelcolor", "titlecolor")},
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ukan",  # the same plot gives the same bytes
}
BLUE, ORANGE, GREEN = "#3f7fcf", "#d97a1e", "#2a9d6f"
_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))
_COLOURS = (BLUE, ORANGE, GREEN, "#b5509c", "#8a7a2f", "#7a7f87")
_MOST_POINTS = 2000


class Entry(NamedTuple):
    """A line of a legend."""

    symbol: str
    colour: str
    text: str


@matplotlib.rc_context(_STYLE)
def histogram(dices: Sequence[float], mean: float) -> Markup:
    """How many cases have which Dice."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(dices, bins=[k / 20 for k in range(21)], color=BLUE, alpha=0.85, rwidth=0.92)
    median = float(np.median(dices))
    axes.axvline(mean, color=_INK, linewidth=1.2)
    axes.axvline(median, color=_INK, linewidth=1.2, linestyle=(0, (2, 2)))
    axes.set(xlim=(0, 1), xlabel="Dice", ylabel="cases", title="Dice of the cases")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    text = f"Histogram of Dice over {len(dices)} scores: mean {mean:.3f}, median {median:.3f}"
    return _svg(figure, "histogram", text)


@matplotlib.rc_context(_STYLE)
def dice_by_size(
    sizes_percent: Sequence[float], dices: Sequence[float], labels: Sequence[str]
) -> tuple[Markup, list[Entry]]:
    """Dice against the share of the image inside the true mask (above 0), coloured by class where there are a few."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    kinds = sorted(set(labels))
    told = 1 < len(kinds) <= len(_MARKERS)
    legend = []
    for number, kind in enumerate(kinds if told else [None]):
        points = [(s, d) for s, d, label in zip(sizes_percent, dices, labels, strict=True) if kind in (None, label)]
        (marker, symbol), colour = _MARKERS[number], _COLOURS[number]
        axes.scatter(
            [size for size, _ in points],
            [dice for _, dice in points],
            s=18,
            marker=marker,
            color=colour,
            alpha=0.75,
            linewidths=0,
            rasterized=len(dices) > _MOST_POINTS,
        )
        if told:
            legend.append(Entry(symbol, colour, kind or "no class"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(ylim=(-0.03, 1.03), xlabel="true mask, % of the image", ylabel="Dice", title="Dice by size of the lesion")
    low, high = min(sizes_percent), max(sizes_percent)
    text = f"Scatter plot of Dice against the size of the true mask, {low:.2g} to {high:.2g} % of the image"
    return _svg(figure, "by-size", text), legend


CURVES = (Entry("—", BLUE, "training loss"), Entry("—", ORANGE, "held-out loss"), Entry("—", GREEN, "held-out Dice"))


@matplotlib.rc_context(_STYLE)
def learning_curves(fold: int, rows: Sequence[dict[str, str]], highest_loss: float) -> Markup:
    """Losses of a fold over its epochs, and the Dice of its held-out cases below."""
    figure = Figure(figsize=(4, 3.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _curve(top, rows, "loss", BLUE)
    _curve(top, rows, "val_loss", ORANGE)
    _curve(bottom, rows, "val_dice", GREEN)
    top.set(ylabel="loss", ylim=(0, 1.05 * highest_loss), title=f"Fold {fold}")
    bottom.set(ylabel="Dice", ylim=(-0.03, 1.03), xlabel="epoch")
    bottom.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    text = f"Learning curves of fold {fold}: {rows[-1]['epoch']} epochs, last training loss {float(rows[-1]['loss']):.3f}"
    return _svg(figure, f"curves-{fold}", text)


def _curve(axes: Axes, rows: Sequence[dict[str, str]], key: str, colour: str) -> None:
    points = [(int(row["epoch"]), float(row[key])) for row in rows if row[key]]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, marker="o" if len(points) < 3 else None)


def _svg(figure: Figure, name: str, text: str) -> Markup:
    """The figure as an <svg> element among others on a page: no prologue, names of its own, as wide as there is room."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, dpi=150)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    for clutter in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r' xmlns(:xlink)?="[^"]*"'):
        svg = re.sub(clutter, "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    head, _, body = svg.partition(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return Markup(f'{head} role="img" aria-label="{escape(text)}">{body}'.replace(_INK, "currentColor"))
