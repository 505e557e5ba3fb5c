"""`ukan compare`"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ukan_cli import show
from ukan_cli.train import Device


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Evaluated runs on the same cases.")],
    reference: Annotated[
        Path | None, typer.Option(metavar="RUN", help="What the others are compared with; the first by default.")
    ] = None,
    metric: Annotated[str, typer.Option(help="The score that differences and tests are of: dice, iou, hd95, ...")] = "dice",
    fold: Annotated[
        list[int] | None, typer.Option(help="Compare only this fold; may be given several times. All by default.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Compare the scores of the official test part, not those of held-out cases.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to write; runs/compare-... by default.")] = None,
    no_speed: Annotated[bool, typer.Option("--no-speed", help="Do not measure images a second and memory.")] = False,
    device: Device = None,
) -> None:
    """Lay evaluated runs side by side: scores, paired differences with tests, and what the networks cost."""
    from ukan.report.compare_page import write_compare_page
    from ukan.segment.compare import compare as stage

    with show.bar("timing the networks") as tell:
        record, place = stage(
            runs,
            reference=reference,
            metric=metric,
            folds=fold,
            test=test,
            speed=not no_speed,
            device=device,
            out=out,
            on_progress=tell,
        )
    write_compare_page(record, place.page)
    _print(record)
    pairs = f", {place.pairs}" if place.pairs.exists() else ""
    print(f"written: {place.page}, {place.table}{pairs}, {place.record}")


def _print(record: Mapping[str, Any]) -> None:
    if record["unequal"]:
        print("not at equal effort; beside their networks, the runs differ in:")
        for line in record["unequal"]:
            print(f"  {line}")
        print()
    for table in record["tables"]:
        print(f"{record['dataset']}, {record['what']}, runs {table['title']}")
        for lines in (_scores(table["runs"]), _differences(table["runs"], record["metric"]), _costs(table["runs"])):
            if lines:
                columns, *rows = lines
                show.table(columns, rows)
                print()
    for note in record["notes"]:
        print(note)


def _scores(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    lines = [["run", "model", *(f"{name},\n95 % interval" for name in runs[0]["scores"])]]
    for run in runs:
        cells = (_with_ends(score["mean"], score["interval95"], name) for name, score in run["scores"].items())
        lines.append([_name(run["run"]), textwrap.fill(run["model"], 12), *cells])
    return lines


def _differences(runs: Sequence[Mapping[str, Any]], metric: str) -> list[list[str]]:
    first = _name(runs[0]["run"])
    lines = [["run", f"{metric} less that of\n{first}", "p", "p,\nHolm", "smallest\nto show", "after\nHolm", "so"]]
    for run in runs[1:]:
        d = run["against"]
        line = [_name(run["run"]), _with_ends(d["difference"], d["interval95"], metric, "+")]
        line += ["<.001" if p < 0.001 else f"{p:.3f}" for p in (d["p"], d["p_holm"])]
        line += [_number(d["detectable"], metric), _number(d["detectable_holm"], metric), d["verdict"]]
        lines.append(line)
    return lines if len(lines) > 1 else []


def _costs(runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    columns = {
        "run": [_name(run["run"]) for run in runs],
        "parameters": [f"{run['parameters']:,}" for run in runs],
        "GFLOPs": [f"{run['gflops']:.3f}" for run in runs],
        "images\na second": [_or_dash(run["images_per_second"], ".3g") for run in runs],
        "time,\nratio": [_or_dash(run["time_ratio"], ".2f") for run in runs],
        "peak,\nMiB": [_or_dash(run["peak_mib"], ".0f") for run in runs],
        "training\nmemory, MiB": [f"{run['activations_mib']:,.0f}" for run in runs],
        "steps": [_or_dash(run["steps"], ",") for run in runs],
        "seconds\na step": [_or_dash(run["seconds_per_step"], ".3g") for run in runs],
    }
    known = {name: cells for name, cells in columns.items() if {*cells} != {"-"}}
    return [list(known), *(list(cells) for cells in zip(*known.values(), strict=True))]


def _name(name: str) -> str:
    return textwrap.fill(name, 18)


def _number(value: float | None, metric: str, sign: str = "") -> str:
    from ukan.report.tables import is_length

    return "-" if value is None else f"{value:{sign}.{1 if is_length(metric) else 4}f}"


def _with_ends(value: float | None, ends: Sequence[float] | None, metric: str, sign: str = "") -> str:
    return _number(value, metric, sign) + (
        f"\n{_number(ends[0], metric, sign)} to {_number(ends[1], metric, sign)}" if ends else ""
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
