"""`ukan compare`: the record of a comparison -> compare.html, one page that opens offline: no script, nothing fetched."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ukan import __version__
from ukan.paths import write_text
from ukan.report import plots
from ukan.report.page import template
from ukan.report.tables import Table, is_length, score_name

Line = Mapping[str, Any]


def write_compare_page(record: Mapping[str, Any], path: Path) -> None:
    """Write the page of what `ukan compare` found."""
    page = {
        "record": record,
        "metric": _metric(record),
        "tables": [_shown(table, record, f"table-{number}") for number, table in enumerate(record["tables"])],
        "plots": _against_cost(record),
        "colours": [
            plots.Entry(symbol, "inherit", table["title"])
            for table, (_, symbol) in zip(record["tables"], plots.MARKERS, strict=False)
            if len(record["tables"]) > 1
        ],
        "version": __version__,
    }
    write_text(path, template("compare.html.j2").render(page))


def _shown(table: Mapping[str, Any], record: Mapping[str, Any], anchor: str) -> dict[str, Any]:
    runs, metric = table["runs"], record["metric"]
    return {
        "title": table["title"],
        "anchor": anchor,
        "reference": table["reference"],
        "scores": _scores(runs, record),
        "classes": _classes(runs, record),
        "differences": _differences(runs[1:], metric),
        "detectable": _detectable(runs[1:], metric),
        "costs": _costs(runs),
        "pairs": _pairs(table, metric) if len(runs) > 2 else None,
        "plot": _by_case(table, record, anchor) if len(runs) > 1 else None,
    }


def _scores(runs: Sequence[Line], record: Mapping[str, Any]) -> Table:
    names = list(runs[0]["scores"])
    columns = ["run", "model"]
    for name in names:
        columns += [score_name(name, record["unit"]), "95 % interval"]
    rows = []
    for line in runs:
        row = [line["run"], line["model"]]
        for name, score in line["scores"].items():
            row += [_number(score["mean"], name), _interval(score["interval95"], name)]
        rows.append(row)
    return Table(columns, rows, numbers=True)


def _classes(runs: Sequence[Line], record: Mapping[str, Any]) -> Table | None:
    """Each class' mean, where there are several."""
    if len(record["classes"]) < 2:
        return None
    columns = [f"{score_name(name, record['unit'])}, {of}" for name in runs[0]["scores"] for of in record["classes"]]
    rows = [
        [
            line["run"],
            *(_number(score["by_class"][of], name) for name, score in line["scores"].items() for of in score["by_class"]),
        ]
        for line in runs
    ]
    return Table(["run", *columns], rows, numbers=True)


def _differences(runs: Sequence[Line], metric: str) -> Table | None:
    columns = ["run", "difference", "95 % interval", "p", "p, Holm", "smallest difference", "after Holm", "so"]
    rows = []
    for line in runs:
        d = line["against"]
        rows.append(
            [
                line["run"],
                _number(d["difference"], metric, "+"),
                _interval(d["interval95"], metric, "+"),
                p_text(d["p"]),
                p_text(d["p_holm"]),
                _number(d["detectable"], metric),
                _number(d["detectable_holm"], metric),
                d["verdict"],
            ]
        )
    return Table(columns, rows, numbers=True) if rows else None


def _detectable(runs: Sequence[Line], metric: str) -> str:
    """The smallest difference these data could have shown, in a sentence."""
    known = [line["against"]["detectable"] for line in runs if line["against"]["detectable"] is not None]
    if not known:
        return ""
    low, high = _number(min(known), metric), _number(max(known), metric)
    return low if low == high else f"{low} to {high}, by run"


def _costs(runs: Sequence[Line]) -> Table:
    columns = {
        "parameters": [f"{line['parameters']:,}" for line in runs],
        "GFLOPs": [f"{line['gflops']:.3f}" for line in runs],
        "input": [line["input_size"] for line in runs],
        "images a second": [_or_dash(line["images_per_second"], ".3g") for line in runs],
        "time, of the reference's": [_ratio(line) for line in runs],
        "peak, MiB": [_or_dash(line["peak_mib"], ".0f") for line in runs],
        "training memory, MiB": [f"{line['activations_mib']:,.0f} (batch {line['batch_size']})" for line in runs],
        "steps": [_or_dash(line["steps"], ",") for line in runs],
        "seconds a step": [_or_dash(line["seconds_per_step"], ".3g") for line in runs],
        "pretrained": ["" if line["weights"] == "none" else line["weights"] for line in runs],
    }
    known = {name: cells for name, cells in columns.items() if not {*cells} <= {"-", ""}}
    rows = [[line["run"], *cells] for line, cells in zip(runs, zip(*known.values(), strict=True), strict=True)]
    return Table(["run", *known], rows, numbers=True)


def _ratio(line: Line) -> str:
    if line["time_ratio"] is None:
        return "-"
    low, high = line["time_ratio_range"]
    return f"{line['time_ratio']:.2f} ({low:.2f} to {high:.2f})"


def _pairs(table: Mapping[str, Any], metric: str) -> Table:
    """Each run less each run before it."""
    names = [line["run"] for line in table["runs"]]
    found = {(pair["run"], pair["against"]): pair for pair in table["pairs"]}
    rows = []
    for name in names[1:]:
        row: list[Any] = [name]
        for other in names[:-1]:
            d = found.get((name, other))
            if d is None:
                row.append("")
                continue
            ends, p = _interval(d["interval95"], metric, "+"), p_text(d["p_holm"])
            row.append(
                Markup("{}<br><small>{}<br>p {}: {}</small>").format(
                    _number(d["difference"], metric, "+"), ends, p, d["verdict"]
                )
            )
        rows.append(row)
    return Table(["run less ...", *names[:-1]], rows, numbers=True)


def _by_case(table: Mapping[str, Any], record: Mapping[str, Any], anchor: str) -> Markup:
    scores = table["by_case"][record["metric"]]
    first = scores[table["reference"]]
    rows = [
        (
            line["run"],
            [mine - its for mine, its in zip(scores[line["run"]], first, strict=True)],
            line["against"]["difference"],
            line["against"]["interval95"],
        )
        for line in table["runs"][1:]
    ]
    return plots.differences(rows, _metric(record), table["reference"], f"{anchor}-cases")


def _against_cost(record: Mapping[str, Any]) -> list[Markup]:
    metric = record["metric"]
    drawn = []
    for key, scale, label in (("gflops", 1, "GFLOPs of one image"), ("parameters", 1e-6, "million parameters")):
        groups = [
            [
                plots.Point(line["run"], line[key] * scale, score["mean"], score["interval95"])
                for line in table["runs"]
                if (score := line["scores"][metric])["mean"] is not None
            ]
            for table in record["tables"]
        ]
        drawn.append(plots.score_against_cost(groups, label, _metric(record), f"against-{key}"))
    return drawn


def _metric(record: Mapping[str, Any]) -> str:
    """The score that is compared, without the arrow that says which way is better: a difference has none."""
    return score_name(record["metric"], record["unit"]).rstrip(" ↑↓")


def p_text(p: float) -> str:
    """A p for people: three decimals, and no zeros where there is less."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None, metric: str, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{2 if is_length(metric) else 4}f}"


def _interval(ends: Sequence[float] | None, metric: str, sign: str = "") -> str:
    return f"{_number(ends[0], metric, sign)} to {_number(ends[1], metric, sign)}" if ends else "-"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
