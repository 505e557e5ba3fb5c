"""`ukan fid`: generated images against real ones, by one stated way from files to features for both sides.

Reads two folders, or a diffusion run and a folder; writes fid.json, and nearest.png where training images are known.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ukan.data.layouts.images import among_masks
from ukan.diffuse.features import Features, load_features
from ukan.errors import DataError, UserError
from ukan.imaging import find_images, read_image, write_image
from ukan.metrics import fidelity, memorisation
from ukan.paths import FidFolder, RunFolder, SampleFolder, slug, write_text, written_whole
from ukan.runs import Run, open_run
from ukan.runtime import environment_record, pick_device, usable_cores

Protocol = Literal["honest", "paper"]
Tell = Callable[[int, int], None]
Images = NDArray[np.uint8]

_ROUNDING = 1e-5
"""Of the largest feature: what differs by less is single precision."""

CLOSEST, RANDOM = 16, 8
"""Pairs of nearest.png."""
RULE = (
    "flagged: nearer to a training image than 95 % of held-out real images are; copy: less than 1/3 as far from the nearest "
    "training image as from the second nearest (Yoon et al. 2023); by pixels a mirrored image is as near as the image itself"
)
_CUT = "both sides are cut to their largest centred square and shrunk by area to"


class Side(NamedTuple):
    """Images of one kind, 8-bit RGB of one size."""

    path: Path
    names: list[str]
    images_NHWC: Images

    @property
    def sha256(self) -> str:
        content = hashlib.sha256(repr(self.images_NHWC.shape).encode())
        content.update(np.ascontiguousarray(self.images_NHWC).data)
        return content.hexdigest()

    def about(self) -> dict[str, Any]:
        return {"path": str(self.path), "images": len(self.names), "sha256": self.sha256}


class Opened(NamedTuple):
    """Images as they come, before it is known whether they are of one size."""

    path: Path
    names: list[str]
    images: list[Images]


def compare_images(
    real: Path,
    fake: Path,
    *,
    features: Sequence[str] = ("inception",),
    weights: Path | None = None,
    protocol: Protocol | None = None,
    size: int | None = None,
    out: Path | None = None,
    device: str | None = None,
    data: Path | None = None,
    on_progress: Tell | None = None,
) -> tuple[dict[str, Any], Path]:
    """Compare generated images with real ones; write fid.json, give it and its folder.

    real: a folder of images, or a diffusion run, whose held-out images are then those of protocol `honest` and whose
    training images those of protocol `paper` and of memorisation; data: its dataset's folder, where that has moved.
    features, weights: see `load_features`. protocol: by default honest, and both where `real` is a run that holds images
    out. out: where to write; by default `fake`, or fid/ in the run, whose report then shows it. size: both sides are cut to
    their largest centred square and shrunk to this side. on_progress: of images looked at.

    Raises UserError or DataError before anything is written: no weights at hand, a folder without images or with too few,
    unreadable images (all are named), images of different sizes.
    """
    specs = list(dict.fromkeys(features))
    if weights and "inception" not in specs:
        raise UserError("--weights are those of --features inception, which is not asked for; leave them out")
    if real.resolve() == fake.resolve():
        raise UserError(f"{real}: both sides are this folder; give the real images first and the generated ones second")
    run = open_run(real, "diffuse") if RunFolder(real).plan.exists() else None
    if data and not run:
        raise UserError("--data says where the dataset of a run is, and the real side is no run; leave it out")
    files = {folder: _files(folder) for folder in ([fake] if run else [fake, real])}
    fold = _fold(fake, run) if run else None
    place = FidFolder(out) if out else run.folder.fid(slug(_sampled(fake).root.resolve().name)) if run else FidFolder(fake)
    other = _said(place.record).get("generated", {}).get("path")
    if not out and run and other and Path(other).resolve() != fake.resolve():
        raise UserError(f"{place.root}: holds the comparison of {other}; give this one another place with --out")
    if run and place.nearest in files[fake]:
        raise UserError(
            f"{place.nearest}: an image, and the name of a picture to be written; give another folder with --out"
        )
    chosen = pick_device(device)
    networks = [load_features(spec, weights, chosen) for spec in specs]

    opened = _read(files, size)
    generated, unseen, *training = _of_one_size(
        [*opened, *(_of_run(run, real, fold, data, size) if run and fold is not None else ())], size
    )
    train = training[0] if training else None
    protocols: list[Protocol] = [protocol] if protocol else ["honest", "paper"] if train else ["honest"]
    if len(unseen.names) < fidelity.MINIMUM and "honest" in protocols:
        if protocol or unseen.names:
            raise DataError(
                f"{real}: holds {len(unseen.names)} image(s) out, and honest numbers take at least {fidelity.MINIMUM}; "
                "--protocol paper is possible"
            )
        protocols = ["paper"]  # a recipe that trains on all

    sides = [generated, unseen, *training]
    part = _counted(on_progress, len(networks) * sum(len(side.names) for side in sides))
    compared: list[dict[str, Any]] = []
    spaces: list[list[NDArray[np.float32]]] = []
    for network in networks:
        made = network.extract(generated.images_NHWC, part(len(generated.names)))
        of_real = [_features(network, side, part(len(side.names))) for side in sides[1:]]
        _need_differences(network, [made.features_NF, *of_real])
        numbers: dict[Protocol, dict[str, Any]] = {}
        if "honest" in protocols:
            numbers["honest"] = fidelity.honest(of_real[0], *made)
        if "paper" in protocols:
            numbers["paper"] = fidelity.paper(of_real[-1], *made)
        compared.append(
            {
                "name": network.name,
                "label": network.label + (_knows(network, run, unseen.names, train.names) if run and train else ""),
                "kernel_name": network.distances[0],
                "frechet_name": network.distances[1],
                "weights_sha256": network.weights_sha256,
                "honest": numbers.get("honest"),
                "paper": numbers.get("paper"),
            }
        )
        spaces.append([made.features_NF, *of_real])

    record: dict[str, Any] = {
        "protocols": protocols,
        "generated": generated.about(),
        "real": unseen.about(),
        "train": train.about() if train else None,
        "fold": fold,
        "split": run.plan.split.kind if run else None,
        "size": list(generated.images_NHWC.shape[1:3]),
        "pipeline": _pipeline(generated, size, run),
        "features": compared,
        "memorisation": None,
        "environment": environment_record(sys.argv),
    }
    if train:
        record["memorisation"] = _memorisation(generated, unseen, train, networks[0].name, spaces[0], place)
    sampled, kept = _sampled(fake), SampleFolder(place.root)
    if place.root.resolve() not in (fake.resolve(), sampled.root.resolve()):  # a run's report outlives the images
        for theirs, ours in ((sampled.record, kept.record), (sampled.grid, kept.grid)):
            if theirs.exists():
                with written_whole(ours) as temporary:
                    temporary.write_bytes(theirs.read_bytes())
            else:
                ours.unlink(missing_ok=True)  # of images that were compared before
    write_text(place.record, json.dumps(record, indent=1) + "\n")
    return record, place.root


def _files(folder: Path) -> list[Path]:
    """The images of a folder; of one that `ukan sample` or this command wrote, those that are samples."""
    sampled = SampleFolder(folder)
    found = find_images(sampled.images if sampled.record.exists() else folder)
    place = FidFolder(folder)
    if place.nearest in found and _said(place.record).get("memorisation"):
        found.remove(place.nearest)
    masks = [path for path in found if among_masks(path.relative_to(folder))]
    if 0 < len(masks) < len(found):
        raise DataError(
            f"{folder}: {len(masks)} of its {len(found)} images are named like masks ({masks[0].relative_to(folder)}); "
            "give the folder of the images alone, or for the real side a run"
        )
    if len(found) < fidelity.MINIMUM:
        count = f"{len(found)} image(s)" if found else "no image (png, jpg, bmp, tif, gif, NIfTI, DICOM, mha)"
        raise DataError(
            f"{folder}: {count} in it; at least {fidelity.MINIMUM} are needed on each side, and hundreds to mean much"
        )
    return found


def _read(files: dict[Path, list[Path]], size: int | None) -> list[Opened]:
    """The images of folders, cut where a size is asked for. Raises DataError that names all that cannot be used."""

    def read(path: Path) -> Images | str:
        try:
            image = read_image(path)
            return _cut(image, size) if size else image
        except DataError as error:
            said = str(error)
            return said if str(path) in said else f"{path}: {said}"

    problems: list[str] = []
    opened = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for folder, paths in files.items():
            images = list(pool.map(read, paths))
            problems += [image for image in images if isinstance(image, str)]
            names = [path.relative_to(folder).as_posix() for path in paths]
            opened.append(Opened(folder, names, [image for image in images if not isinstance(image, str)]))
    if problems:
        raise DataError(f"{len(problems)} image(s) cannot be used: {'; '.join(problems)}")
    return opened


def _of_run(run: Run, path: Path, fold: int, data: Path | None, size: int | None) -> list[Opened]:
    """The images that a fold of a diffusion run held out, and those it was trained on."""
    from ukan.diffuse.images import real_images

    found = real_images(run, fold=fold, data=data)
    sides = []
    for names, images_NHWC in (
        (found.held_out_names, found.held_out_NHWC),
        (found.train_names, found.train_NHWC),
    ):
        if images_NHWC.shape[3] not in (1, 3):
            raise DataError(f"{path}: images of {images_NHWC.shape[3]} channels; 1 or 3 can be compared")
        colours = np.repeat(images_NHWC, 3, axis=3) if images_NHWC.shape[3] == 1 else images_NHWC
        sides.append(Opened(path, list(names), [_cut(image, size) if size else image for image in colours]))
    return sides


def _of_one_size(opened: Sequence[Opened], size: int | None) -> list[Side]:
    sizes = Counter((image.shape[1], image.shape[0]) for side in opened for image in side.images)
    if len(sizes) > 1:
        met = ", ".join(f"{width}x{height} ({count} images)" for (width, height), count in sizes.most_common(5))
        more = f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""
        fits = min(min(one) for one in sizes)
        raise DataError(
            f"{', '.join(dict.fromkeys(str(side.path) for side in opened))}: images of different sizes: {met}{more}; "
            f"give --size {min(64, fits)}: {_CUT} {min(64, fits)}x{min(64, fits)}"
        )
    ((width, height),) = sizes
    return [Side(side.path, side.names, np.array(side.images, np.uint8).reshape(-1, height, width, 3)) for side in opened]


def _cut(image_HWC: Images, size: int) -> Images:
    """The largest centred square, shrunk by area. Raises DataError where it would have to grow."""
    import cv2

    height, width = image_HWC.shape[:2]
    side = min(height, width)
    if side < size:
        raise DataError(f"{width}x{height} pixels, and --size {size} enlarges nothing; give --size {side} or less")
    top, left = (height - side) // 2, (width - side) // 2
    square = image_HWC[top : top + side, left : left + side]
    return np.asarray(cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA))


def _fold(fake: Path, run: Run) -> int:
    """The fold whose network drew the images, as `ukan sample` says; else the only one that is finished.

    Raises UserError where that is not known, or they were drawn by weights that the run does not hold: nobody could say what
    the network that drew them had seen.
    """
    drawn = _said(_sampled(fake).record).get("settings", {})
    if not drawn and len(run.finished_folds) > 1:
        raise UserError(
            f"{fake}: not said which of the {len(run.finished_folds)} trained folds of {run.folder.root} drew these images, "
            "so that no held-out part can judge them; give the folder that `ukan sample` filled, with its sample.json"
        )
    fold = drawn.get("fold", next(iter(run.finished_folds), 0))
    if drawn and drawn.get("weights_sha256") != run.weights_sha256().get(str(fold)):
        raise UserError(
            f"{fake}: drawn by {drawn.get('run')}, fold {fold}, with weights that {run.folder.root} does not hold; give the "
            "run that drew them, or draw them again with `ukan sample` into a new folder"
        )
    return int(fold)


def _sampled(fake: Path) -> SampleFolder:
    """The folder that `ukan sample` filled, also where its images/ alone are given."""
    around = SampleFolder(fake.resolve().parent)
    return around if around.record.exists() and around.images == fake.resolve() else SampleFolder(fake)


def _said(record: Path) -> dict[str, Any]:
    """What a record of ours holds; nothing where it is not there or damaged."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _knows(network: Features, run: Run, held_out: Sequence[str], train: Sequence[str]) -> str:
    """Which of the real images an encoder of ours was trained on itself, where it is of the same dataset."""
    if network.trained_on is None or network.trained_on[0] != run.plan.data.index_sha256:
        return ""
    counts = (sum(case in network.trained_on[1] for case in names) for names in (held_out, train))
    return "; itself trained on {} of the held-out and {} of the training images".format(*counts)


def _features(network: Features, side: Side, on_progress: Tell | None) -> NDArray[np.float32]:
    if not side.names:
        return np.zeros((0, 1), np.float32)
    return network.cached(side.images_NHWC, side.sha256, on_progress)


def _need_differences(network: Features, sides: Sequence[NDArray[np.float32]]) -> None:
    """Raises DataError where all images look the same to a network: every distance would be 0, as if all were well."""
    features = np.concatenate([side for side in sides if len(side)])
    if features.std(axis=0, dtype=np.float64).max() <= _ROUNDING * np.abs(features).max():
        raise DataError(
            f"{network.name}: its features are the same for every image, real or generated, so nothing can be compared; "
            "the network is untrained or collapsed, or all images are equal; take other --features"
        )


def _counted(on_progress: Tell | None, total: int) -> Callable[[int], Tell | None]:
    """Progress of parts, one after another, as progress of the whole."""
    begun = 0

    def part(count: int) -> Tell | None:
        nonlocal begun
        before, begun = begun, begun + count
        return (lambda done, _: on_progress(before + done, total)) if on_progress else None

    return part


def _pipeline(generated: Side, size: int | None, run: Run | None) -> str:
    height, width = generated.images_NHWC.shape[1:3]
    cut = f"{_CUT} {size}x{size}" if size else f"{width}x{height}, no resizing"
    real = "; real images as the run was trained on them, before that" if run else ""
    return f"8-bit RGB, grey as three equal channels; {cut}{real}"


def _memorisation(
    generated: Side,
    unseen: Side,
    train: Side,
    features: str,
    space: Sequence[NDArray[np.float32]],
    place: FidFolder,
) -> dict[str, Any]:
    """How near generated and unseen real images are to training images; draws nearest.png.

    space: features of the three sides, and the name of whose they are.
    """
    generated_NF, unseen_NF, train_NF = space
    distances, indices = memorisation.nearest_images(generated.images_NHWC, train.images_NHWC)
    of_unseen, _ = memorisation.nearest_images(unseen.images_NHWC, train.images_NHWC)
    by_features, _ = memorisation.nearest_features(generated_NF, train_NF)
    unseen_by_features = by_features[:0]
    if unseen.names:
        unseen_by_features, _ = memorisation.nearest_features(unseen_NF, train_NF)

    order = np.argsort(distances[:, 0], kind="stable")
    closest, rest = order[:CLOSEST], order[CLOSEST:]
    drawn = np.sort(np.random.default_rng(fidelity.SEED).permutation(rest)[:RANDOM])
    _draw_pairs(place.nearest, generated, train, distances[:, 0], indices[:, 0], closest, drawn)

    def looked(unit: str, made_NK: NDArray[np.float64], unseen_MK: NDArray[np.float64]) -> dict[str, Any]:
        listed = {"distances": made_NK[:, 0], "held_out_distances": unseen_MK[:, 0]}
        return {
            "unit": unit,
            **memorisation.flagged(made_NK, unseen_MK, squared=unit.startswith("cosine")),
            **{key: values.round(6).tolist() for key, values in listed.items()},
        }

    return {
        "rule": RULE,
        "pixels": looked("root mean square difference at 32x32, white being 1", distances, of_unseen),
        "features": looked(f"cosine distance of {features}", by_features, unseen_by_features),
        "closest": [
            {
                "generated": generated.names[n],
                "train": train.names[indices[n, 0]],
                "distance": round(float(distances[n, 0]), 6),
                "second": round(float(distances[n, 1]), 6) if distances.shape[1] > 1 else None,
            }
            for n in closest
        ],
    }


def _draw_pairs(
    path: Path,
    generated: Side,
    train: Side,
    distances_N: NDArray[np.float64],
    nearest_N: NDArray[np.intp],
    closest: NDArray[np.intp],
    drawn: NDArray[np.intp],
) -> None:
    """Generated images, each left of its nearest training image and over their distance: the closest, then some drawn."""
    from PIL import Image, ImageDraw

    height, width = generated.images_NHWC.shape[1:3]
    scale = 96 / max(height, width)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    columns, gap, line = 4, 12, 16
    cell_width, cell_height = 2 * shown[0] + 2 + gap, shown[1] + line + gap

    parts = [(f"the {len(closest)} closest: generated, nearest training image, distance", closest)]
    parts += [(f"{len(drawn)} of the others, drawn at random", drawn)] if len(drawn) else []
    rows = sum(-(-len(numbers) // columns) for _, numbers in parts)
    sheet = Image.new("RGB", (gap + columns * cell_width, gap + len(parts) * 2 * line + rows * cell_height), "white")
    draw, top = ImageDraw.Draw(sheet), gap
    for title, numbers in parts:
        draw.text((gap, top), title, fill="black")
        top += 2 * line
        for place, n in enumerate(numbers):
            left, y = gap + place % columns * cell_width, top + place // columns * cell_height
            for k, image in enumerate((generated.images_NHWC[n], train.images_NHWC[nearest_N[n]])):
                sheet.paste(Image.fromarray(image).resize(shown, method), (left + k * (shown[0] + 2), y))
            draw.text((left, y + shown[1] + 1), f"{distances_N[n]:.4f}", fill="black")
        top += -(-len(numbers) // columns) * cell_height
    write_image(path, np.asarray(sheet))
