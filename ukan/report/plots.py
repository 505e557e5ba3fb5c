"""Plots for the page, as SVG that takes the page's text colour and fonts. No text of a user's gets into them: legends
are written by the page."""

import io
import re
from collections.abc import Sequence
from itertools import cycle
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
MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))
_COLOURS = (BLUE, ORANGE, GREEN, "#b5509c", "#8a7a2f", "#7a7f87")
_MOST_POINTS = 2000
_POINT = 0.72
"""Typographic points of a pixel, at matplotlib's 100 dpi."""


class Entry(NamedTuple):
    """A line of a legend."""

    symbol: str
    colour: str
    text: str


@matplotlib.rc_context(_STYLE)
def histogram(dices: Sequence[float], mean: float, counted: str) -> Markup:
    """How many cases, or masks, have which Dice."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.hist(dices, bins=[k / 20 for k in range(21)], color=BLUE, alpha=0.85, rwidth=0.92)
    median = float(np.median(dices))
    axes.axvline(mean, color=_INK, linewidth=1.2)
    axes.axvline(median, color=_INK, linewidth=1.2, linestyle=(0, (2, 2)))
    axes.set(xlim=(0, 1), xlabel="Dice", ylabel=counted, title=f"Dice of the {counted}")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    text = f"Histogram of Dice over {len(dices)} {counted}: mean {mean:.3f}, median {median:.3f}"
    return _svg(figure, "histogram", text)


@matplotlib.rc_context(_STYLE)
def dice_by_size(
    sizes_percent: Sequence[float], dices: Sequence[float], labels: Sequence[str]
) -> tuple[Markup, list[Entry]]:
    """Dice against the share of the image inside the true mask (above 0), coloured by class where there are a few."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    kinds = sorted(set(labels))
    told = 1 < len(kinds) <= len(MARKERS)
    legend = []
    for number, kind in enumerate(kinds if told else [None]):
        points = [(s, d) for s, d, label in zip(sizes_percent, dices, labels, strict=True) if kind in (None, label)]
        (marker, symbol), colour = MARKERS[number], _COLOURS[number]
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
            legend.append(Entry(symbol, colour, kind or "of none"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(ylim=(-0.03, 1.03), xlabel="true mask, % of the image", ylabel="Dice", title="Dice by size of the object")
    low, high = min(sizes_percent), max(sizes_percent)
    text = f"Scatter plot of Dice against the size of the true mask, {low:.2g} to {high:.2g} % of the image"
    return _svg(figure, "by-size", text), legend


@matplotlib.rc_context(_STYLE)
def predicted_dice(points: Sequence[tuple[float, float]]) -> Markup:
    """Points of (predicted, true) Dice, with the line on which they agree."""
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color=_INK, linewidth=1, linestyle=(0, (2, 2)))
    predicted, true = zip(*points, strict=True)
    axes.scatter(predicted, true, s=18, color=BLUE, alpha=0.6, linewidths=0, rasterized=len(points) > _MOST_POINTS)
    axes.set(
        xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="predicted Dice", ylabel="true Dice", title="Predicted and true Dice"
    )
    return _svg(figure, "predicted", f"Scatter plot of the true against the predicted Dice of {len(points)} held-out cases")


@matplotlib.rc_context(_STYLE)
def reliability(bins: Sequence[dict[str, Any]], name: str) -> Markup:
    """The share of foreground among pixels of like probability against that probability; below, how many pixels there are.

    bins: rows of `metrics.calibration.reliability`. name: part of the plot's own names, one for each plot of a page.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot((0, 1), (0, 1), color=_INK, linewidth=1, linestyle=(0, (2, 2)))
    filled = [bin for bin in bins if bin["pixels"]]
    top.plot(
        [bin["mean_probability"] for bin in filled],
        [bin["foreground_share"] for bin in filled],
        color=BLUE,
        marker="o",
        markersize=4,
    )
    top.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel="share of foreground", title="Reliability")
    left, width = [bin["low"] for bin in filled], [0.92 * (bin["high"] - bin["low"]) for bin in filled]
    bottom.bar(left, [bin["pixels"] for bin in filled], width, align="edge", color=BLUE, alpha=0.85)
    bottom.set(yscale="log", ylim=(0.8, None), xlabel="probability of foreground", ylabel="pixels")
    bottom.yaxis.set_major_locator(LogLocator(numticks=4))
    bottom.yaxis.set_minor_formatter(NullFormatter())
    pairs = "; ".join(f"{bin['mean_probability']:.2f}: {bin['foreground_share']:.2f}" for bin in filled)
    return _svg(figure, f"reliability-{name}", f"Reliability plot, mean probability and share of foreground. {pairs}")


def mark(value: float | None, interval: Sequence[float] | None) -> Markup:
    """A line of a forest plot over 0 to 1: the interval as a bar, the value as a diamond. The numbers stand beside it."""
    drawn = [f'<path class="grid" d="M{x} 0V20"/>' for x in (5, 105, 205)]
    if interval:
        low, high = (5 + 200 * end for end in interval)
        drawn.append(f'<path d="M{low:.1f} 10H{high:.1f}M{low:.1f} 6V14M{high:.1f} 6V14"/>')
    if value is not None:
        drawn.append(f'<path class="value" d="M{5 + 200 * value:.1f} 5l5 5l-5 5l-5-5z"/>')
    return Markup(f'<svg class="forest" viewBox="0 0 210 20" aria-hidden="true">{"".join(drawn)}</svg>')


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


@matplotlib.rc_context(_STYLE)
def loss_curves(fold: int, rows: Sequence[dict[str, str]]) -> Markup:
    """Losses of a fold over its epochs, on a scale of ratios: they fall by orders, and may be of different units."""
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    _curve(axes, rows, "loss", BLUE)
    _curve(axes, rows, "val_loss", ORANGE)
    axes.set(ylabel="loss", xlabel="epoch", title=f"Fold {fold}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _ratios(axes)
    text = f"Losses of fold {fold}: {rows[-1]['epoch']} epochs, last training loss {float(rows[-1]['loss']):.3g}"
    return _svg(figure, f"curves-{fold}", text)


ERROR_BY_TIME = (Entry("●", BLUE, "training images"), Entry("■", ORANGE, "held-out images"))


@matplotlib.rc_context(_STYLE)
def error_by_time(bins: Sequence[dict[str, Any]]) -> Markup:
    """The error of what is predicted of noisy images in ranges of timesteps: {from, to, training, held_out}."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    said = []
    for key, (_, colour, text), marker in zip(("training", "held_out"), ERROR_BY_TIME, "os", strict=True):
        times, errors = [(b["from"] + b["to"]) / 2 for b in bins], [b[key] for b in bins]
        axes.plot(times, errors, color=colour, marker=marker, markersize=4, linewidth=1.4)
        said.append(f"{text}: {', '.join(f'{error:.3g}' for error in errors)}")
    axes.set(xlabel="timestep (0: hardly any noise)", ylabel="squared error", title="Error by timestep")
    _ratios(axes)
    return _svg(figure, "error-by-time", f"Mean squared error by timestep, from little noise to much. {'; '.join(said)}")


class Draws(NamedTuple):
    """What a distance is over repeated draws of images."""

    mean: float
    interval: tuple[float, float]


@matplotlib.rc_context(_STYLE)
def with_floor(title: str, generated: Draws, floor: Draws, name: str) -> Markup:
    """A distance of generated images and, below, of real images among themselves: points with intervals.

    name: part of the plot's own names, one for each plot of a page.
    """
    figure = Figure(figsize=(4.6, 1.7), layout="constrained")
    axes = figure.subplots()
    for y, draws, colour, marker in ((1, generated, BLUE, "o"), (0, floor, ORANGE, "s")):
        axes.plot(draws.interval, (y, y), color=colour, linewidth=2, marker="|", markersize=9, solid_capstyle="butt")
        axes.plot(draws.mean, y, color=colour, marker=marker, markersize=6)
    axes.set(ylim=(-0.6, 1.6), title=title)
    axes.set_yticks((1, 0), ("generated", "real: the floor"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines["left"].set_visible(False)
    axes.tick_params("y", length=0)
    (low, high), (floor_low, floor_high) = generated.interval, floor.interval
    text = f"{title}: generated {generated.mean:.4g} ({low:.4g} to {high:.4g}), "
    return _svg(figure, name, text + f"real {floor.mean:.4g} ({floor_low:.4g} to {floor_high:.4g})")


NEAREST = (Entry("■", BLUE, "generated images"), Entry("■", ORANGE, "held-out real images"))


@matplotlib.rc_context(_STYLE)
def nearest_histogram(
    generated: Sequence[float], held_out: Sequence[float], threshold: float | None, title: str, name: str
) -> Markup:
    """Two histograms in one: the distance to the nearest training image, in shares of the images; dashed: the threshold."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    both = [*generated, *held_out]
    edges = np.linspace(min(both), max(both) + 1e-9, 31)
    for distances, (_, colour, _) in zip((generated, held_out), NEAREST, strict=True):
        if len(distances):
            shares = np.full(len(distances), 100 / len(distances))
            axes.hist(distances, bins=edges.tolist(), weights=shares, color=colour, alpha=0.45)
            axes.hist(distances, bins=edges.tolist(), weights=shares, color=colour, histtype="step", linewidth=1.4)
    said = f"Histograms of {title}: generated, median {np.median(generated):.3g}"
    said += f"; held-out, median {np.median(held_out):.3g}" if len(held_out) else ""
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (2, 2)))
        said += f"; threshold {threshold:.3g}"
    axes.set(xlabel="distance to the nearest training image", ylabel="% of the images", title=title)
    return _svg(figure, name, said)


class Point(NamedTuple):
    """A network in a plot of score against cost."""

    name: str
    cost: float
    score: float
    interval: Sequence[float] | None


@matplotlib.rc_context(_STYLE)
def score_against_cost(groups: Sequence[Sequence[Point]], cost: str, score: str, name: str) -> Markup:
    """Scores with their intervals against a cost on a scale of ratios, the name of each beside it; a marker for each group.

    name: part of the plot's own names, one for each plot of a page.
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    points = [point for group in groups for point in group]
    colours = cycle(_COLOURS)  # intervals of networks of one cost lie over one another
    for group, (marker, _) in zip(groups, MARKERS, strict=False):
        for point, colour in zip(group, colours, strict=False):
            low, high = point.interval or (point.score, point.score)
            axes.plot((point.cost, point.cost), (low, high), color=colour, linewidth=1.4, alpha=0.7, marker="_")
            axes.plot(point.cost, point.score, color=colour, marker=marker, markersize=6)
    axes.set_xscale("log")
    axes.set_xlim(0.5 * min(p.cost for p in points), 2 * max(p.cost for p in points))  # with room for names
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=cost, ylabel=score, title=f"{score} against {cost}")
    _label(axes, points)
    said = "; ".join(f"{p.name}: {p.score:.4g} at {p.cost:.4g}" for p in points)
    return _svg(figure, name, f"{score} against {cost}. {said}")


def _label(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside their points, each where it covers no other name or point, where there is such a place."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # the layout decides where points lie
    height, width = 13.0, 6.4  # of a line and of a letter, in pixels at 100 dpi
    places = axes.transData.transform([(point.cost, point.score) for point in points])
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for point, (x, y) in zip(points, places, strict=True):
        text = point.name if len(point.name) <= 28 else f"{point.name[:13]}…{point.name[-13:]}"
        boxes = {}
        for dy in sorted(range(-143, 144, 13), key=abs):
            for side, left in (("left", x + 8), ("right", x - 8 - width * len(text))):
                boxes[side, dy] = (left, y + dy - height / 2, left + width * len(text), y + dy + height / 2)
        inside = [at for at, box in boxes.items() if box[0] > axes.bbox.x0 and box[2] < axes.bbox.x1]
        free = [at for at in inside if not any(_overlap(boxes[at], other) for other in taken)]
        side, dy = (free or inside or list(boxes))[0]
        taken.append(boxes[side, dy])
        drawn = axes.annotate(
            text,
            (point.cost, point.score),
            (8 * _POINT if side == "left" else -8 * _POINT, dy * _POINT),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=8,
            parse_math=False,  # names are the user's
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": _INK, "alpha": 0.5, "shrinkB": 3} if dy else None,
        )
        drawn.set_in_layout(False)  # or the points would move once more


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (left, bottom, right, top) do."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@matplotlib.rc_context(_STYLE)
def differences(
    rows: Sequence[tuple[str, Sequence[float], float, Sequence[float] | None]], score: str, reference: str, name: str
) -> Markup:
    """A line for each network: every case's difference to the reference as a point, their mean and its interval above them.

    rows: name, differences, their mean, its interval. name: part of the plot's own names, one for each plot of a page.
    """
    figure = Figure(figsize=(9, 1.1 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    many = sum(len(values) for _, values, _, _ in rows) > _MOST_POINTS
    axes.axvline(0, color=_INK, linewidth=1, linestyle=(0, (2, 2)))
    for y, (_, values, mean, interval) in enumerate(rows):
        spread = rng.uniform(-0.16, 0.16, len(values))
        axes.scatter(values, y + 0.1 + spread, s=9, color=BLUE, alpha=0.35, linewidths=0, rasterized=many)
        if interval:
            axes.plot(interval, (y - 0.25, y - 0.25), color=ORANGE, linewidth=2.2, marker="|", markersize=7)
        axes.plot(mean, y - 0.25, color=ORANGE, marker="D", markersize=5)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_yticks(
        range(len(rows)), [text if len(text) <= 32 else f"{text[:15]}…{text[-15:]}" for text, *_ in rows], parse_math=False
    )
    axes.tick_params("y", length=0)
    axes.set_xlabel(f"{score}: difference to {reference}, case by case", parse_math=False)
    said = "; ".join(
        f"{text}: mean {mean:+.4g}" + (f" ({ends[0]:+.4g} to {ends[1]:+.4g})" if ends else "")
        for text, _, mean, ends in rows
    )
    return _svg(figure, name, f"Differences of {score} to {reference} by case. {said}")


def _ratios(axes: Axes) -> None:
    """Values on a scale of ratios, with numbers also where they span less than tenfold."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


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
