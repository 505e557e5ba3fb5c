"""What commands print: bars, tables, scores."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that draws a bar on a terminal, and elsewhere says one line now and then."""
    if not sys.stderr.isatty():
        import time

        said_at = time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at > 15:
                said_at = time.monotonic()
                print(f"{title}: {done}/{total}", file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    progress, tasks = Progress(console=Console(stderr=True), transient=True), list[TaskID]()

    def draw(done: int, total: int) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task(title, total=total))
        progress.update(tasks[0], completed=done, total=total)
        if done >= total:  # what comes after may draw a bar of its own
            progress.stop()

    try:
        yield draw
    finally:
        progress.stop()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table as wide as the terminal; its full width where there is none, so that nothing is cut from a log."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def scores(summary: dict[str, Any]) -> None:
    """The table of an evaluation, a column a class where there are several, and a line for each further look."""
    by_class: dict[str, Any] = summary.get("by_class", {})
    unit = dict.fromkeys(("hd95", "assd", "hd95_penalised", "assd_penalised"), summary["unit"]) | {"object_hausdorff": "px"}
    rows = [
        (
            f"{name}, {unit[name]}" if name in unit else name,
            _number(score["mean"]),
            _interval(score["interval95"]),
            score["undefined"] or "",
            *(_number(scores[name]["mean"]) for scores in by_class.values()),
        )
        for name, score in summary["scores"].items()
    ]
    table(("score", "mean over cases", "95 % interval (groups)", "undefined", *by_class), rows)
    found, images, calibration = summary["lesions"], summary["images"], summary["calibration"]
    counts = found["counts"]
    print(
        f"lesions: {counts['found']} of {counts['present']} found, sensitivity {_with_interval(found, 'sensitivity')}; "
        f"false positives per image {_with_interval(found, 'false_positives_per_image')}"
    )
    print(
        f"images: {images['true_positives']} of {images['with_object']} with an object called, "
        f"{images['true_negatives']} of {images['without_object']} without one left empty, AUROC {_number(images['auroc'])}"
    )
    print(
        f"calibration: ECE {_with_interval(calibration, 'ece_near_objects')} near objects, "
        f"{_with_interval(calibration, 'ece')} over all pixels"
    )
    if objects := summary.get("objects"):
        said = (f"{name} {_number(score['all'])} ({_interval(score['interval95'])})" for name, score in objects.items())
        print(f"objects of all images together: {', '.join(said)}")
    if without := summary.get("scores_without_twins"):
        dice = without["dice"]
        print(f"without cases that have a twin in training: dice {_number(dice['mean'])} ({_interval(dice['interval95'])})")
    if (quality := summary.get("quality", {})).get("points"):
        print(
            f"predicted Dice: mean absolute error {_number(quality['mean_absolute_error'])}, Spearman "
            f"{_number(quality['spearman'])}, failures caught {_number(quality['caught'])} of {quality['failures']}; "
            f"unlike the training images: {quality['unfamiliar']['cases']} of {quality['cases']}"
        )
    if published := summary.get("as_published"):
        print(published["what"] + ":")
        print("  " + ", ".join(f"{key} {value:.4f}" for key, value in published["mean"].items()))
        if published["paper"]:
            print("  the paper reports: " + ", ".join(f"{k} {v}" for k, v in published["paper"].items()))


def denoising(summary: dict[str, Any]) -> None:
    """How well a network of diffusion predicts, on images held out and trained on."""
    error = summary["error"]
    rows = [
        (f"{part['from']} to {part['to']}", _number(part["held_out"]), _number(part["training"]))
        for part in summary["by_time"]
    ]
    table(("timesteps", "held-out images", "training images"), rows, summary["what"])
    print(
        f"{summary['cases']} held-out cases in {summary['groups']} groups: {_number(error['held_out'])} "
        f"({_interval(error['interval95'])}); training images {_number(error['training'])}; "
        f"learned by heart: {_number(error['gap'])} ({_interval(error['gap_interval95'])})"
    )


def plausibility(about: dict[str, Any]) -> None:
    """Where the stages of a network are active against the masks, a line a stage."""
    columns = ["stage", "map", "IoU", "95 % interval (groups)", "inverted", "by chance", "AUROC"]
    columns += ["twin's IoU", "difference", "95 % interval (groups)"] if about["twin"] else []
    rows = []
    for stage, scores in about["stages"].items():
        row = [
            stage,
            "x".join(map(str, scores["side"])),
            _number(scores["iou"]["mean"]),
            _interval(scores["iou"]["interval95"]),
        ]
        row += [_number(scores[name]["mean"]) for name in ("iou_inverted", "iou_by_chance", "auroc")]
        if "twin" in scores:
            apart = scores["difference"]["iou"]
            row += [_number(scores["twin"]["iou"]["mean"]), _number(apart["mean"]), _interval(apart["interval95"])]
        rows.append(row)
    table(columns, [row + ["-"] * (len(columns) - len(row)) for row in rows], "plausibility of the activation maps")


def inputs(about: dict[str, Any]) -> None:
    """How well the grid of the KAN layers fits what enters them."""
    layers = about["layers"]
    for key, where in (("outside_grid", "the grid"), ("outside_knots", "the outermost knots")):
        shares = {name: 100 * layer[key] for name, layer in layers.items()}
        most = max(shares, key=lambda name: shares[name])
        print(f"inputs outside {where}: {min(shares.values()):.1f} to {shares[most]:.1f} % of a layer's, most in {most}")


def fidelity(record: dict[str, Any]) -> None:
    """What a comparison of generated with real images says: a table for each network and protocol, never mixed."""
    print(f"images: {record['pipeline']}")
    for about in record["features"]:
        kernel, frechet = about["kernel_name"], about["frechet_name"]
        print(f"features: {about['label']}")
        if honest := about["honest"]:
            subsets, same = honest["kernel"], honest["frechet"]["same_n"]
            both = f"{honest['n_real']} real, {honest['n_generated']} generated"
            rows: list[tuple[str, ...]] = [
                (name, f"{part['mean']:.4g}", _small_interval(part), n, f"{floor['mean']:.4g}", _small_interval(floor))
                for name, part, n, floor in (
                    (kernel, subsets, f"{subsets['subset_size']} a side, {subsets['subsets']} times", subsets["floor"]),
                    (f"{frechet} at equal n", same, f"{same['n']} a side, {same['repeats']} times", same["floor"]),
                )
            ]
            rows.append((frechet, f"{honest['frechet']['value']:.4g}", "-", both, "-", "-"))
            neighbours = f"(k={honest['neighbours']}, of these features)"
            rows += [
                (f"{name} {neighbours}", f"{honest[name]:.4f}", "-", both, "-", "-") for name in ("precision", "recall")
            ]
            rows += [_inception_score(honest["inception_score"])] if honest["inception_score"] else []
            title = "protocol honest: against real images the generator never saw; floor: real against real"
            table(("score", "value", "95 % of draws", "images", "floor", "95 % of draws"), rows, title)
        if paper := about["paper"]:
            both = f"{paper['n_real']} training, {paper['n_generated']} generated"
            rows = [(frechet, f"{paper['frechet']['value']:.4g}", "-", both)]
            rows += [_inception_score(paper["inception_score"])[:4]] if paper["inception_score"] else []
            title = "protocol paper: all generated against all training images; rewards memorising, falls with n"
            table(("score", "value", "95 % of draws", "images"), rows, title)
        if any((about[name] or {}).get("inception_score") for name in ("honest", "paper")):
            print("the Inception score is of ImageNet's classes and of no real image: not comparable across datasets")
    if about := record["memorisation"]:
        for kind in ("pixels", "features"):
            part = about[kind]
            close = (
                "no threshold (fewer than 19 held-out images)" if part["share"] is None else f"{100 * part['share']:.1f} %"
            )
            expected = (
                "" if part["share"] is None else f" ({100 * part['expected_share']:.0f} % of unseen real ones would be)"
            )
            print(f"memorised, by {kind}: suspiciously close to a training image {close}{expected}; copies {part['copies']}")


def _inception_score(score: dict[str, Any]) -> tuple[str, ...]:
    value = f"{score['mean']:.4f} \u00b1 {score['deviation']:.4f}"
    return "Inception score", value, "-", f"{score['n']} generated, {score['splits']} part(s)", "-", "-"


def _small_interval(part: dict[str, Any]) -> str:
    low, high = part["interval95"]
    return f"{low:.4g} to {high:.4g}"


def _with_interval(scores: dict[str, Any], name: str) -> str:
    return f"{_number(scores[name])} ({_interval(scores[f'{name}_interval95'])})"


def _number(value: float | None) -> str:
    return "undefined" if value is None or value != value else f"{value:.4f}"


def _interval(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "-"
