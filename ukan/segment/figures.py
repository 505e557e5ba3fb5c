"""Pictures of what is inside a network: functions of edges, what enters layers, activation maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ukan.imaging import Geometry
from ukan.metrics.plausibility import active
from ukan.nn.edges import Edge
from ukan.paths import written_whole

BLUE, ORANGE, GREY, SHADE = "#1f5fa8", "#d97a1e", "#9aa5b0", "#e4eef8"
TRUTH, ACTIVE, FOUND = "white", "#ff4fa3", "#ffd000"  # told apart on dark, bright and every colour of the map
COLOURS = "viridis"  # even steps look even, to the colour-blind as well
_STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLUMNS = 4
_WIDTH_IN = 2.3  # of a map
_DPI = 110


class Function(NamedTuple):
    """An edge's function at POINTS points x, over its grid and all that enters."""

    layer: str
    edge: Edge
    x: NDArray[np.float64]
    base: NDArray[np.float64]
    phi: NDArray[np.float64]
    """Base and spline together."""
    knots: NDArray[np.float64]
    grid: tuple[float, float]
    inputs: NDArray[np.float64]


class Maps(NamedTuple):
    """A case with the maps of its stages, 0 to 255."""

    image_DHWC: NDArray[np.uint8]
    truth_DHW: NDArray[np.bool_] | None
    found_DHW: NDArray[np.bool_]
    by_stage: dict[str, NDArray[np.uint8]]
    scores: dict[str, dict[str, float]]
    """By stage, where the truth is known."""
    geometry: Geometry | None


@matplotlib.rc_context(_STYLE)
def draw_functions(path: Path, functions: Sequence[Function]) -> None:
    """The functions of edges, four in a row, each with the histogram of what enters it below."""
    rows = -(-len(functions) // _COLUMNS)
    figure = Figure(figsize=(3.1 * _COLUMNS, 2.5 * rows + 0.5), layout="constrained")
    places = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, function in zip(places, functions, strict=False):
        _draw_function(axes, function)
    for axes in places[len(functions) :]:
        axes.axis("off")
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, linewidth=1.8, label="φ = base + spline, where inputs are"),
            Line2D([], [], color=BLUE, linewidth=0.9, alpha=0.5, label="where none are"),
            Line2D([], [], color=ORANGE, linestyle="--", linewidth=1.2, label="base part"),
            Patch(color=SHADE, label="grid"),
            Line2D([], [], color="black", marker="|", linestyle="", markersize=7, label="knots"),
            Patch(color=GREY, label="inputs that enter"),
        ],
        loc="outside upper center",
        ncols=6,
        frameon=False,
    )
    _save(figure, path)


def _draw_function(axes: Axes, function: Function) -> None:
    x, edge = function.x, function.edge
    inside = (x >= function.inputs.min()) & (x <= function.inputs.max())
    axes.axvspan(*function.grid, color=SHADE, linewidth=0, zorder=0)
    axes.axhline(0, color="black", linewidth=0.5, alpha=0.4)
    axes.plot(x, function.base, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.plot(x, function.phi, color=BLUE, linewidth=0.9, alpha=0.5)
    axes.plot(np.where(inside, x, np.nan), function.phi, color=BLUE, linewidth=1.8)
    low, high = (float(f(np.concatenate([function.base, function.phi, [0.0]]))) for f in (np.min, np.max))
    room = (high - low) or 1.0
    axes.set(xlim=(x[0], x[-1]), ylim=(low - 0.55 * room, high + 0.08 * room))  # the histogram stands below the curves
    shown = function.knots[(function.knots >= x[0]) & (function.knots <= x[-1])]
    bottom = axes.get_xaxis_transform()  # x as plotted, y from 0 to 1
    axes.plot(shown, np.zeros_like(shown), "|", color="black", markersize=6, transform=bottom, clip_on=False)
    counts, edges = np.histogram(function.inputs, bins=60, range=(x[0], x[-1]))
    heights = 0.27 * counts / max(1, counts.max())
    axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=GREY, transform=bottom, zorder=0.5)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    stage, _, layer = function.layer.partition(".")
    axes.set_title(
        f"{stage} {layer.rpartition('.')[2]}: {edge.input} → {edge.output}\n"
        f"mean |φ| {edge.strength:.2g}, {100 * edge.spline_share:.0f} % spline"
    )


@matplotlib.rc_context(_STYLE)
def draw_inputs(path: Path, layers: dict[str, dict[str, Any]]) -> None:
    """For each KAN layer the spread of its inputs against its grid, the shares outside, and how much its splines make."""
    figure = Figure(figsize=(11, 1.3 + 0.34 * len(layers)), layout="constrained")
    left, right, made = figure.subplots(1, 3, sharey=True, width_ratios=(5, 3, 2))
    for row, about in enumerate(layers.values()):
        low, high = about["grid"]
        left.barh(row, high - low, 0.86, low, color=SHADE)
        for knot in about["knots"]:
            left.plot((knot, knot), (row - 0.43, row + 0.43), color=BLUE, linewidth=0.8, linestyle=":")
        least, q5, q25, middle, q75, q95, most = about["quantiles"].values()
        left.plot((least, most), (row, row), color="black", linewidth=0.8)
        left.plot((q5, q95), (row, row), color="black", linewidth=2.6)
        left.barh(row, q75 - q25, 0.42, q25, color=GREY, edgecolor="black", linewidth=0.6, zorder=3)
        left.plot((middle, middle), (row - 0.21, row + 0.21), color="black", linewidth=1.4, zorder=4)
        between, beyond = about["outside_grid"] - about["outside_knots"], about["outside_knots"]
        right.barh(row, 100 * between, 0.6, color=ORANGE, alpha=0.55)
        right.barh(row, 100 * beyond, 0.6, 100 * between, color="#a83232")
        right.text(100 * about["outside_grid"] + 1, row, f"{_percent(between)} + {_percent(beyond)}", va="center")
        made.barh(row, 100 * (about["spline_share"] or 0), 0.6, color=BLUE)
        made.text(100 * (about["spline_share"] or 0) + 2, row, _percent(about["spline_share"] or 0), va="center")
    left.set_yticks(range(len(layers)), [name.replace(".0.layer.", " ") for name in layers])
    left.invert_yaxis()
    left.set(xlabel="input", title="Inputs of each layer: 0.1, 5, 25, 50, 75, 95, 99.9 % of them are below")
    made.set(xlabel="% of |φ|", title="Made by splines", xlim=(0, 118), xticks=(0, 50, 100))
    right.set(xlabel="% of the inputs", title="Outside the grid + outside the outermost knots")
    right.set_xlim(0, 1.45 * max(5.0, *(100 * about["outside_grid"] for about in layers.values())))
    handles = [
        Patch(color=SHADE, label="grid"),
        Line2D([], [], color=BLUE, linestyle=":", linewidth=0.8, label="outermost knots"),
        Patch(color=ORANGE, alpha=0.55, label="outside the grid, within the knots"),
        Patch(color="#a83232", label="outside the outermost knots"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    _save(figure, path)


@matplotlib.rc_context(_STYLE)
def draw_maps(path: Path, case: str, beside: Sequence[tuple[str, Maps]]) -> None:
    """A case's image and its stages' maps over it; a row for each of the runs (name, maps).

    Of a volume the slice with the largest true area; where there is no truth, or none in it, the largest predicted one.
    """
    first = beside[0][1]
    depth, height, width = first.found_DHW.shape
    known = [masks for masks in (first.truth_DHW, first.found_DHW) if masks is not None and masks.any()]
    shown = int(known[0].sum((1, 2)).argmax()) if known else depth // 2
    pixel = first.geometry.spacing_mm[1] / first.geometry.spacing_mm[2] if first.geometry else 1.0
    columns = 1 + len(first.by_stage)
    tall = min(2.2, max(0.45, height * pixel / width))
    size = (_WIDTH_IN * columns + 0.6, (_WIDTH_IN * tall + 0.28) * len(beside) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(len(beside), columns, squeeze=False)
    for row, (run, maps) in zip(places, beside, strict=True):
        image = maps.image_DHWC[shown]
        truth = None if maps.truth_DHW is None else maps.truth_DHW[shown]
        row[0].imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255, aspect=pixel)
        _outline(row[0], maps.found_DHW[shown], FOUND, 1.3)
        _outline(row[0], truth, TRUTH, 1.3)
        found = maps.found_DHW[shown]
        said = ", predicted everywhere" if found.all() else "" if found.any() else ", nothing predicted"
        row[0].set_title((run or "image") + said, parse_math=False)
        for axes, (stage, values) in zip(row[1:], maps.by_stage.items(), strict=True):
            grey = image.mean(2) if image.shape[2] == 3 else image[..., 0]
            axes.imshow(grey, cmap="gray", vmin=0, vmax=255, aspect=pixel)
            drawn = axes.imshow(values[shown] / 255, cmap=COLOURS, vmin=0, vmax=1, alpha=0.62, aspect=pixel)
            _outline(axes, active(values)[shown], ACTIVE, 1.1)
            _outline(axes, truth, TRUTH, 1.3)
            scores = maps.scores.get(stage, {"iou": np.nan})
            said = "" if np.isnan(scores["iou"]) else f": IoU {scores['iou']:.2f}, AUROC {scores['auroc']:.2f}"
            axes.set_title(stage + said)
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(drawn.norm, drawn.cmap), ax=places, shrink=0.8, pad=0.01, aspect=30)
    bar.set_label("activation")
    of_volume = f", slice {shown + 1} of {depth}" if depth > 1 else ""
    figure.suptitle(case + of_volume, fontsize=9.5, x=0.01, ha="left", parse_math=False)
    lines = [(TRUTH, "true outline")] if first.truth_DHW is not None else []
    lines += [(FOUND, "predicted outline"), (ACTIVE, "active: above the map's threshold")]
    handles = [Line2D([], [], color=colour, linewidth=2, label=label) for colour, label in lines]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, facecolor="#8a929b", framealpha=1, edgecolor="none")
    _save(figure, path)


def _outline(axes: Axes, mask: NDArray[np.bool_] | None, colour: str, width: float) -> None:
    if mask is not None and mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=width)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.1f}"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
