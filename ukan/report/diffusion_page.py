"""The pages of diffusion: `ukan fid`'s, and `ukan report` of a run. HTML that opens offline: no script, nothing fetched."""

import base64
import json
import math
import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ukan import __version__
from ukan.errors import DataError, UserError
from ukan.imaging import find_images, read_image
from ukan.paths import FidFolder, SampleFolder, write_text
from ukan.report import pictures, plots, record
from ukan.report.page import find_data, template
from ukan.report.tables import Table, number
from ukan.runs import Run, open_run
from ukan.training.log import read_log

SHOWN, COLUMNS = 32, 8
"""Images of a sheet."""
TILE_PX, LARGEST_PX = 96, 1600
_GAP = 2
_T = TypeVar("_T")


class Comparison(NamedTuple):
    """What `ukan fid` left in a folder."""

    name: str
    anchor: str
    """For links and plots of the page."""
    place: FidFolder
    record: dict[str, Any]
    drawn: dict[str, Any]
    """How `ukan sample` drew the images; empty where it did not."""
    about: dict[str, Any]
    """All that a page tells of it."""


class Sheet(NamedTuple):
    """Images side by side, or why there are none."""

    picture: pictures.Picture | None
    missing: str = ""


def write_fid_page(folder: Path) -> Path:
    """Write fid.html beside the fid.json of a folder and return its path.

    Raises UserError where there is no fid.json, DataError where it cannot be read. Images that have moved only leave gaps.
    """
    place = FidFolder(folder)
    if not place.record.exists():
        raise UserError(f"{folder}: no {place.record.name} to show; `ukan fid REAL FAKE` writes one")
    compared = _read(place, folder.resolve().name, "compared")
    packages = compared.record["environment"].get("packages") or {}
    page = {
        "c": compared.about,
        **record.environments([("comparing", compared.record["environment"])]),
        "packages": Table(["package", "version"], [[name, found or "not installed"] for name, found in packages.items()]),
        "version": __version__,
    }
    write_text(place.page, template("fid.html.j2").render(page))
    return place.page


def write_diffusion_report(run_path: Path, *, data: Path | None = None) -> Path:
    """Write report.html of a run of diffusion, finished or not, and return its path.

    What is not there yet is named with the command that makes it; results of other weights than the run holds now are named
    and not shown. Raises UserError where no fold was begun, DataError where `data` is not its dataset.
    """
    run = open_run(run_path, "diffuse")
    begun = [k for k in range(run.plan.split.count) if _is_begun(run, k)]
    if not begun:
        raise UserError(
            f"{run.folder.root}: no fold of it was begun, so there is nothing to report; `ukan train PLAN` first"
        )
    weights = run.weights_sha256()
    error, stale = _denoising(run, weights)
    compared, stale_too = _comparisons(run, weights)
    named = shlex.quote(str(run.folder.root))
    evaluations = {comparison.name: comparison.record for comparison in compared}
    page = {
        "run": run,
        "plan": run.plan,
        "diffuse": run.plan.diffuse,
        "begun": begun,
        "parts": _parts(run, begun),
        "unfinished": [k for k in begun if k not in run.finished_folds],
        "stale": stale + stale_too,
        "error": error,
        "evaluate": f"ukan evaluate {named}",
        "sample": f"ukan sample {named} OUT -n 2048",
        "fid": f"ukan fid {named} OUT",
        "again": f"ukan report {named} --data FOLDER",
        "drawn": [(k, _previews(run, k)) for k in begun],
        "real": _real(run, data, begun[0]),
        "comparisons": [comparison.about for comparison in compared],
        "beside": _beside(compared),
        "published": _published(run, compared),
        "curves": [plots.loss_curves(k, rows) for k in begun if (rows := read_log(run.folder.fold(k).log))],
        "curve_legend": plots.CURVES[:2],
        "fingerprint": record.fingerprint_table(run),
        "problems": record.problem_kinds(run),
        "plan_tables": record.plan_tables(run),
        **record.origin(run, ({"denoising error": error["summary"]} if error else {}) | evaluations),
        "version": __version__,
    }
    write_text(run.folder.report, template("diffusion.html.j2").render(page))
    return run.folder.report


# A comparison of generated with real images.


def _read(place: FidFolder, name: str, anchor: str) -> Comparison:
    """Raises DataError where fid.json is damaged, or of another version."""
    try:
        found = json.loads(place.record.read_text(encoding="utf-8"))
        compared = Comparison(name, anchor, place, found, _drawn(_sampled(place, found)), {})
        return compared._replace(about=_about(compared))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{place.record}: not readable ({error!r}); run `ukan fid` again") from error


def _sampled(place: FidFolder, found: dict[str, Any]) -> SampleFolder:
    """Where the generated images are; fid.json lies among them, or tells."""
    beside = SampleFolder(place.root)
    return beside if beside.record.exists() else SampleFolder(Path(found["generated"]["path"]))


def _drawn(sampled: SampleFolder) -> dict[str, Any]:
    try:
        settings = json.loads(sampled.record.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _about(compared: Comparison) -> dict[str, Any]:
    found = compared.record
    drawn = {key.replace("_", " "): value for key, value in compared.drawn.items() if value not in (None, "", {}, [])}
    sampled = _sampled(compared.place, found)
    real = Path(found["real"]["path"])
    return {
        "name": compared.name,
        "anchor": compared.anchor,
        "record": found,
        "honest": _honest(found, compared.anchor) if "honest" in found["protocols"] else None,
        "paper": _paper(found) if "paper" in found["protocols"] else None,
        "memory": _memory(compared) if found["memorisation"] else None,
        "generated": _from_file(sampled.grid, "the first of those drawn")
        if compared.drawn and sampled.grid.exists()
        else _some_of(sampled, "generated"),
        "real": None if found["train"] else _some_of(SampleFolder(real), "real"),
        "drawn": Table(["", "drawn"], [[key, _plain(value)] for key, value in drawn.items()]),
        "other_fold": bool(found["train"]) and compared.drawn.get("fold", found["fold"]) != found["fold"],
        "drawn_fold": compared.drawn.get("fold"),
        "networks": Table(
            ["features", "of", "sha256 of the weights"],
            [[f["name"], f["label"], f["weights_sha256"]] for f in found["features"]],
        ),
        "sides": Table(
            ["side", "images", "path", "sha256 of the pixels"],
            [
                [name, side["images"], side["path"], side["sha256"]]
                for name, key in (
                    ("generated", "generated"),
                    ("real, never seen" if found["train"] else "real", "real"),
                    ("training", "train"),
                )
                if (side := found[key]) and side["images"]
            ],
        ),
    }


def _honest(found: dict[str, Any], anchor: str) -> dict[str, Any]:
    networks = found["features"]
    drawn, kernel, frechet, shares = [], [], [], []
    for number_of, network in enumerate(networks):
        numbers = network["honest"]
        subsets, same = numbers["kernel"], numbers["frechet"]["same_n"]
        times = f"{subsets['subset_size']}, {subsets['subsets']} times"
        kernel.append([network["kernel_name"], *_with_floor(subsets), times])
        (value,) = _alike([numbers["frechet"]["value"]])
        both = f"{numbers['n_generated']} and {numbers['n_real']}"
        times = f"{same['n']}, {same['repeats']} times"
        frechet.append([network["frechet_name"], *_with_floor(same), times, value, both])
        shares.append([network["name"], number(numbers["precision"]), number(numbers["recall"]), both])
        titles = (f"Kernel distance, {subsets['subset_size']} images a side", f"Frechet distance, {same['n']} images a side")
        drawn.append(
            (
                network["label"],
                [
                    plots.with_floor(title, _draws(part), _draws(part["floor"]), f"{kind}-{anchor}-{number_of}")
                    for title, part, kind in zip(titles, (subsets, same), ("kernel", "frechet"), strict=True)
                ],
            )
        )
    spread = ["95 % of draws", "floor", "95 % of draws", "images a side"]
    return {
        "kernel": Table(["", "generated", *spread], kernel, numbers=True),
        "frechet": Table(["", "generated", *spread, "of all images", "generated and real"], frechet, numbers=True),
        "shares": Table(["features", "precision", "recall", "generated and real images"], shares, numbers=True),
        "neighbours": networks[0]["honest"]["neighbours"],
        "scores": _inception_scores(networks, "honest"),
        "plots": drawn,
        "lead": kernel,
    }


def _paper(found: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for network in found["features"]:
        numbers = network["paper"]
        (value,) = _alike([numbers["frechet"]["value"]])
        rows.append([network["frechet_name"], value, numbers["n_generated"], numbers["n_real"]])
    columns = ["protocol paper", "value", "generated images", "training images"]
    return {"frechet": Table(columns, rows, numbers=True), "scores": _inception_scores(found["features"], "paper")}


def _inception_scores(networks: Sequence[dict[str, Any]], protocol: str) -> Table | None:
    rows = [
        [network["name"], f"{score['mean']:.3f} ± {score['deviation']:.3f}", score["n"], score["splits"]]
        for network in networks
        if (score := network[protocol]["inception_score"])
    ]
    columns = ["Inception score by", "mean and deviation over parts", "generated images", "parts"]
    return Table(columns, rows, numbers=True) if rows else None


def _memory(compared: Comparison) -> dict[str, Any]:
    found = compared.record["memorisation"]
    rows, drawn = [], []
    for kind, title in (("pixels", "Distance by pixels"), ("features", "Distance by features")):
        part = found[kind]
        share = "no threshold" if part["share"] is None else f"{100 * part['share']:.1f} %"
        expected = "–" if part["share"] is None else f"{100 * part['expected_share']:.0f} %"
        limit = "–" if part["threshold"] is None else f"{part['threshold']:.4g}"
        copies = [
            "–" if count is None or not of else f"{count} of {len(of)}"
            for count, of in (
                (part["copies"], part["distances"]),
                (part["copies_held_out"], part["held_out_distances"]),
            )
        ]
        rows.append([f"by {kind}", share, expected, limit, *copies])
        name = f"nearest-{kind}-{compared.anchor}"
        plot = plots.nearest_histogram(part["distances"], part["held_out_distances"], part["threshold"], title, name)
        drawn.append((plot, part["unit"]))
    columns = ["", "suspiciously close", "at most, of unseen real ones", "threshold", "copies", "copies among held-out"]
    closest = [
        [pair["generated"], pair["train"], f"{pair['distance']:.4f}", _optional(pair["second"])] for pair in found["closest"]
    ]
    return {
        "rule": found["rule"],
        "table": Table(columns, rows, numbers=True),
        "share": rows[0][1],
        "expected": rows[0][2],
        "plots": drawn,
        "legend": plots.NEAREST,
        "uncalibrated": found["pixels"]["share"] is None,
        "pairs": _from_file(compared.place.nearest, "each generated image left of its nearest training image"),
        "closest": Table(["generated", "nearest training image", "distance", "to the second nearest"], closest),
    }


def _draws(part: dict[str, Any]) -> plots.Draws:
    return plots.Draws(part["mean"], tuple(part["interval95"]))


def _with_floor(part: dict[str, Any]) -> list[str]:
    """Mean and interval, and those of the floor, to the same decimals."""
    sides = (part, part["floor"])
    said = _alike([value for side in sides for value in (side["mean"], *side["interval95"])])
    return [said[0], f"{said[1]} to {said[2]}", said[3], f"{said[4]} to {said[5]}"]


def _alike(values: Sequence[float]) -> list[str]:
    """Numbers to lay side by side: as many decimals as give the largest of them four digits."""
    largest = max(map(abs, values))
    decimals = min(9, max(0, 3 - math.floor(math.log10(largest)))) if largest else 3
    return [f"{value:.{decimals}f}" for value in values]


def _optional(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(v)}" for key, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


# A run.


def _is_begun(run: Run, fold: int) -> bool:
    place = run.folder.fold(fold)
    return any(path.exists() for path in (place.weights, place.state, place.log, place.samples))


def _parts(run: Run, folds: Sequence[int]) -> dict[int, tuple[int, int]] | None:
    """How many cases each fold trains on and holds out; None where the run no longer tells."""
    try:
        return {k: (len(run.splits[k]["train"]), len(run.splits[k]["val"])) for k in folds}
    except (DataError, LookupError):
        return None


def _denoising(run: Run, weights: dict[str, str]) -> tuple[dict[str, Any] | None, list[str]]:
    """What `ukan evaluate` left, where it is of these weights; else why it is not shown."""
    path = run.folder.scores.summary
    again = f"run `ukan evaluate {shlex.quote(str(run.folder.root))}` again"
    if not path.exists():
        return None, []
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary["weights_sha256"] != weights:
            return None, [f"{path}: not of the networks that are in the run now; {again}"]
        error, bins = summary["error"], summary["by_time"]
        rows = [
            ("held-out images", error["held_out"], error["interval95"]),
            ("training images", error["training"], None),
            ("gap: held-out minus training", error["gap"], error["gap_interval95"]),
        ]
        by_time = [[f"{b['from']} to {b['to']}", *_alike([b["held_out"], b["training"]])] for b in bins]
        return {
            "summary": summary,
            "table": Table(["mean squared error", "mean", "95 % interval"], _error_rows(rows), numbers=True),
            "plot": plots.error_by_time(bins),
            "legend": plots.ERROR_BY_TIME,
            "by_time": Table(["timesteps", "held-out images", "training images"], by_time, numbers=True),
        }, []
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return None, [f"{path}: not readable ({error!r}); {again}"]


def _error_rows(rows: Sequence[tuple[str, float, Sequence[float] | None]]) -> list[list[str]]:
    """Each value with its interval, all to the same decimals."""
    said = iter(_alike([value for _, mean, interval in rows for value in (mean, *(interval or ()))]))
    return [[title, next(said), f"{next(said)} to {next(said)}" if interval else "–"] for title, _, interval in rows]


def _comparisons(run: Run, weights: dict[str, str]) -> tuple[list[Comparison], list[str]]:
    """What `ukan fid` left in the run, and why some of it is not shown."""
    found: list[Comparison] = []
    stale: list[str] = []
    for folder in sorted(run.folder.fid("").root.glob("*/")):
        place = FidFolder(folder)
        if not place.record.exists():
            continue
        try:
            compared = _read(place, folder.name, f"fid-{len(found)}")
        except DataError as error:
            stale.append(str(error))
            continue
        drawn = compared.drawn
        if drawn and weights.get(str(drawn.get("fold"))) != drawn.get("weights_sha256"):
            stale.append(
                f"{place.record}: its images are not of the networks that are in the run now; draw them again with "
                "`ukan sample` into a new folder and compare them with `ukan fid`"
            )
        else:
            found.append(compared)
    return found, stale


def _beside(compared: Sequence[Comparison]) -> dict[str, Any] | None:
    """Comparisons side by side, protocol by protocol, and whether features agree on their order."""
    if len(compared) < 2:
        return None
    honest, paper = [], []
    for comparison in compared:
        memory = comparison.record["memorisation"]
        share = memory["pixels"]["share"] if memory else None
        for network in comparison.record["features"]:
            if numbers := network["honest"]:
                same, shares = numbers["frechet"]["same_n"], [number(numbers[key]) for key in ("precision", "recall")]
                close = "–" if share is None else f"{100 * share:.1f} %"
                first = [comparison.name, network["name"], *_with_floor(numbers["kernel"])[:3]]
                honest.append([*first, *_with_floor(same)[::2], same["n"], *shares, close])
            if numbers := network["paper"]:
                score = numbers["inception_score"]
                (value,) = _alike([numbers["frechet"]["value"]])
                both = numbers["n_generated"], numbers["n_real"]
                paper.append([comparison.name, network["name"], value, *both, f"{score['mean']:.3f}" if score else "–"])
    columns = ["images", "features", "kernel distance", "95 % of draws", "its floor"]
    columns += ["Frechet distance", "its floor", "images a side", "precision", "recall", "suspiciously close"]
    of_paper = ["images", "features", "Frechet distance", "generated", "training images", "Inception score"]
    return {
        "honest": Table(columns, sorted(honest, key=lambda row: row[1])) if honest else None,
        "paper": Table(of_paper, sorted(paper, key=lambda row: row[1])) if paper else None,
        "orders": _orders(compared),
    }


def _orders(compared: Sequence[Comparison]) -> list[tuple[str, str]]:
    """The comparisons by rising kernel distance, in words, for each network that looked at all of them; none where that
    is no question: fewer than two networks, or different real images."""
    by_network: dict[tuple[str, str], dict[str, float]] = {}
    for comparison in compared:
        for network in comparison.record["features"]:
            if network["honest"]:
                key = network["name"], network["weights_sha256"]
                by_network.setdefault(key, {})[comparison.name] = network["honest"]["kernel"]["mean"]
    orders = [(name, _order(means)) for (name, _), means in by_network.items() if len(means) == len(compared)]
    against = {comparison.record["real"]["sha256"] for comparison in compared}
    return orders if len(orders) > 1 and len(against) == 1 else []


def _order(means: dict[str, float]) -> str:
    rising = sorted(means, key=lambda name: (means[name], name))
    signs = ["", *(" = " if means[a] == means[b] else " < " for a, b in pairwise(rising))]
    return "".join(sign + name for sign, name in zip(signs, rising, strict=True))


def _published(run: Run, compared: Sequence[Comparison]) -> Table | None:
    """The paper's scores, and beside them ours of protocol paper by Inception's features; no others compare with them."""
    if not run.plan.published:
        return None
    ours = [
        (comparison.name, network["paper"])
        for comparison in compared
        for network in comparison.record["features"]
        if network["name"] == "inception" and network["paper"]
    ]
    value_of: dict[str, Callable[[dict[str, Any]], float | None]] = {
        "fid": lambda paper: paper["frechet"]["value"],
        "inception_score": lambda paper: (paper["inception_score"] or {}).get("mean"),
    }
    names = {"fid": "FID", "inception_score": "Inception score"}
    rows = []
    for key, theirs in run.plan.published.items():
        found = [value_of[key](paper) if key in value_of else None for _, paper in ours]
        rows.append([names.get(key, key), f"{theirs:.2f}", *("–" if value is None else f"{value:.2f}" for value in found)])
    counts = [f"{name}, {paper['n_generated']} images" for name, paper in ours]
    return Table(["protocol paper", "the paper", *counts], rows, numbers=True)


# Pictures.


def _previews(run: Run, fold: int) -> list[Sheet]:
    """What a fold drew while it was trained: first, in the middle, last."""
    place = run.folder.fold(fold)
    found = sorted(place.samples.glob("epoch_*.png"))
    chosen = [found[k] for k in sorted({0, (len(found) - 1) // 2, len(found) - 1})] if found else []
    return [_from_file(path, f"after epoch {int(epoch)}") for path in chosen if (epoch := path.stem[6:]).isdecimal()]


def _real(run: Run, data: Path | None, fold: int) -> Sheet:
    """Images that a fold was trained on, as its network sees them. Raises DataError where `data` is not its dataset."""
    root, moved = find_data(run, data)
    if root is None:
        return Sheet(None, f"the images were not found{f' at {moved}' if moved else ''}")
    try:
        prepared = run.prepared(data)
        rows = [row for name in run.splits[fold]["train"] for row in prepared.rows(name)]
    except DataError as error:
        return Sheet(None, str(error))
    images = [pictures.viewable(prepared.images_NHWC[row])[0] for row in _spread(rows)]
    return Sheet(_picture(f"{len(images)} of {len(rows)} training images", _tiled(images)))


def _some_of(folder: SampleFolder, what: str) -> Sheet:
    """Some images of a folder, evenly spread over their names."""
    place = folder.images if folder.record.exists() else folder.root
    try:
        skipped = FidFolder(folder.root).nearest
        found = [path for path in find_images(place) if path != skipped]
        images = [read_image(path) for path in _spread(found)]
    except DataError as error:
        return Sheet(None, str(error))
    if not images:
        return Sheet(None, f"{place}: no images are there any more")
    boxes = [pictures.fit_box(*image.shape[:2]) for image in images]
    scale = TILE_PX / max(max(box) for box in boxes)
    small = [
        pictures.fitted(image, (max(1, round(box[0] * scale)), max(1, round(box[1] * scale))))
        for image, box in zip(images, boxes, strict=True)
    ]
    return Sheet(_picture(f"{len(small)} of {len(found)} {what} images", _tiled(small)))


def _spread(values: Sequence[_T]) -> list[_T]:
    count = min(SHOWN, len(values))
    return [values[k * len(values) // count] for k in range(count)]


def _tiled(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height, width = (max(image.shape[axis] for image in images) + _GAP for axis in (0, 1))
    rows = -(-len(images) // COLUMNS)
    sheet = np.full((rows * height + _GAP, min(COLUMNS, len(images)) * width + _GAP, 3), 255, np.uint8)
    for number_of, image in enumerate(images):
        top, left = number_of // COLUMNS * height + _GAP, number_of % COLUMNS * width + _GAP
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def _from_file(path: Path, title: str) -> Sheet:
    """A picture as it is; of a very large one the upper left part."""
    try:
        image = read_image(path)[..., :3]
    except DataError as error:
        return Sheet(None, str(error))
    cut = image[:LARGEST_PX, :LARGEST_PX]
    return Sheet(_picture(title + (", upper left part" if cut.shape != image.shape else ""), cut))


def _picture(title: str, image_HWC: NDArray[np.uint8]) -> pictures.Picture:
    """Without loss: what compression adds is not to be taken for the network's."""
    import cv2

    done, png = cv2.imencode(".png", np.ascontiguousarray(image_HWC[..., ::-1]))
    assert done
    uri = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()
    return pictures.Picture(title, uri, image_HWC.shape[1], image_HWC.shape[0])
