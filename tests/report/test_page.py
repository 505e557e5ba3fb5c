"""The report: complete in itself, true to the run it is of, and made even where the images have moved.

The runs are made by hand around a network that finds what is bright, and scored by the real `evaluate`.
"""

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from ukan_cli import show

from ukan.data.duplicates import save_thumbnails
from ukan.data.index import index_folder, save_index
from ukan.data.problems import Problem, write_problems
from ukan.errors import DataError, UserError
from ukan.imaging import PALETTE, read_mask, write_mask
from ukan.paths import RunFolder, ScoreFolder, write_text
from ukan.plan import AugmentPlan, DataPlan, ModelPlan, Plan, SplitPlan, TrainPlan
from ukan.report import pictures, plots
from ukan.report.page import worst_middle_best, write_report
from ukan.report.tables import CaseScore
from ukan.runs import Run
from ukan.segment.evaluate import evaluate

LOG = "epoch,step,loss,val_loss,val_dice,lr,lr_kan,elapsed_s\n1,5,0.9,,,1e-3,1e-3,1\n2,10,0.8,0.7,0.5,1e-3,1e-3,2\n"
NASTY = "<img src=x onerror=alert(1)> & $x^"
NASTY_CASE = "c001 <b>&$x^"
KINDS = ("binary", "classes", "volumes", "glands", "published")
SIZE = (48, 64)

MakeRun = Callable[..., RunFolder]
Scored = Callable[[str], RunFolder]
Html = Callable[[str], str]


class Bright(nn.Module):
    """Finds what is bright: where classes exclude one another, class k in channel k."""

    deepest = "features"

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs, self.features, self.smooth = outputs, nn.AvgPool2d(8), nn.AvgPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.features(x)
        x = 4 * (self.smooth(x) - 0.8)
        return x.mean(1, keepdim=True) if self.outputs == 1 else torch.cat([torch.zeros_like(x[:, :1]), x], 1)


def ball(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A full ellipse or ellipsoid somewhere inside."""
    half = [side * rng.uniform(0.12, 0.22) for side in shape]
    centre = [rng.uniform(h, side - 1 - h) for h, side in zip(half, shape, strict=True)]
    return sum(((x - c) / h) ** 2 for x, c, h in zip(np.indices(shape), centre, half, strict=True)) <= 1


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Coarse, so that no two pictures are near-duplicates."""
    coarse = rng.integers(0, 110, (16,) * len(shape))
    return coarse[np.ix_(*(np.arange(side) * 16 // side for side in shape))].astype(np.int16)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def write_binary(root: Path, count: int, seed: int = 0) -> None:
    """Grey pictures; the first shows nothing."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = ball(rng, SIZE) & (number > 0)
        name = NASTY_CASE if number == 1 else f"c{number:03}"
        save(root / "images" / f"{name}.png", noise(rng, SIZE) + 120 * mask)
        save(root / "masks" / f"{name}.png", 255 * mask)


def write_classes(root: Path, count: int) -> None:
    """Three classes, each bright in a channel of its own, in an official training and test part."""
    rng = np.random.default_rng(1)
    for number in range(count):
        labels = np.zeros(SIZE, int)
        image = np.stack([noise(rng, SIZE)] * 3, -1)
        for k in (1, 2, 3):
            mask = ball(rng, SIZE)
            labels[mask] = k
            image[mask] = 90 * (np.arange(3) != k - 1) + 230 * (np.arange(3) == k - 1)
        part = root / ("train" if number < count - 4 else "test")
        save(part / "images" / f"c{number:03}.png", image)
        save(part / "masks" / f"c{number:03}.png", labels)


def write_volumes(root: Path, count: int) -> None:
    """Pixels twice as wide as high, slices of 3 mm."""
    import nibabel

    rng = np.random.default_rng(2)
    for number in range(count):
        mask = ball(rng, (32, 40, 6))
        for folder, values in (("images", noise(rng, mask.shape) + np.int16(400) * mask), ("masks", mask.astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(values, np.diag([1.0, 0.5, 3.0, 1.0]))
            nibabel.save(image, root / folder / f"v{number}.nii.gz")


def write_glands(root: Path, count: int) -> None:
    """As GlaS was first published: masks number the glands; glands are red; a table tells patients and grades."""
    rng = np.random.default_rng(3)
    grades = ["name,patient ID,grade (GlaS),grade (Sirinukunwattana et al. 2015)"]
    for part in ("train", "testA"):
        for number in range(1, count + 1):
            labels = np.zeros(SIZE, int)
            for k in (1, 2, 3):
                labels[ball(rng, SIZE)] = k
            image = np.stack([noise(rng, SIZE)] * 3, -1)
            image[labels > 0] = (250, 200, 150)
            name = f"{part}_{number}"
            save(root / f"{name}.bmp", image)
            save(root / f"{name}_anno.bmp", labels)
            kind = ("benign", "healthy") if number % 2 else ("malignant", "poorly differentiated")
            grades.append(f"{name},{part}{number},{kind[0]},{kind[1]}")
    (root / "Grade.csv").write_text("\n".join(grades))


WRITE: dict[str, Callable[[Path], None]] = {
    "binary": lambda root: write_binary(root, 14),
    "classes": lambda root: write_classes(root, 14),
    "volumes": lambda root: write_volumes(root, 6),
    "glands": lambda root: write_glands(root, 6),
    "published": lambda root: write_binary(root, 14, seed=4),
}
DATA: dict[str, dict[str, Any]] = {
    "volumes": {"channels": 1, "normalization": "image", "window": (0, 500), "resize": "letterbox"},
    "glands": {"colour_order": "bgr"},
}
PLAN: dict[str, dict[str, Any]] = {
    "glands": {"train": TrainPlan()},
    "published": {
        **{"protocol": "paper", "recipe": "paper/x", "published": {"iou": 63.38, "hd95": 9.5}},
        **{"split": SplitPlan(kind="published", seeds=(1, 2))},
    },
}


def make_run(root: Path, kind: str) -> RunFolder:
    """A run of two folds with its dataset root/data, trained by nobody, scored for real; with all there is to score."""
    WRITE[kind](root / "data")
    index = index_folder(root / "data", dataset="toy")
    assert index.fingerprint and not index.errors
    found = index.fingerprint
    read_as = found.model_dump(include={"mask_rule", "target", "classes", "label_values", "index_sha256", "layout"})
    data = DataPlan(dataset="toy", input_size=(32, 40), **(read_as | DATA.get(kind, {})))
    train = TrainPlan(augment=AugmentPlan(hflip=0.5, affine=1, intensity=1))
    settings = {"split": SplitPlan(folds=2), "train": train, "reasons": {"train.lr": "because <b>we</b> said so"}}
    plan = Plan(name="ukan", data=data, model=ModelPlan(name="ukan"), **(settings | PLAN.get(kind, {})))
    cases = list(index.cases)
    if kind == "binary":
        cases = [case._replace(label=("benign", "malignant")[k % 2]) for k, case in enumerate(cases)]
    if kind == "classes":  # the first case of the test part is of a group in training
        first = next(k for k, case in enumerate(cases) if case.split == "test")
        cases[first] = cases[first]._replace(group=cases[0].group)

    folder = RunFolder(root / "run")
    plan.save(folder.plan)
    save_index(folder.index, cases)
    save_thumbnails(folder.thumbnails, index.thumbnails)
    write_text(folder.fingerprint, found.model_dump_json())
    write_problems(folder.problems, [Problem("note", "empty mask", "c000", "no foreground", "kept")] * 7)
    names = [case.case for case in cases if case.split != "test"]
    folds = [{"train": names[1 - k :: 2], "val": names[k::2]} for k in (0, 1)]
    write_text(folder.splits, json.dumps({"folds": folds}))
    session = {"command": ["ukan", "train", "a plan.yaml"], "device": "cpu", "commit": "abc+", "packages": {"torch": "2"}}
    record = {"data_root": str(root / "data"), "sessions": [session], "folds": {"0": {"step": 20, "elapsed_s": 61.0}}}
    write_text(folder.environment, json.dumps(record))
    for fold in (0, 1):
        folder.fold(fold).root.mkdir(parents=True)
        save_file({"weight": torch.full((2,), float(fold))}, folder.fold(fold).weights)
        write_text(folder.fold(fold).log, LOG)

    evaluate(folder.root, device="cpu")
    if kind in ("classes", "glands"):
        evaluate(folder.root, test=True, device="cpu")
    if kind == "binary":
        write_binary(root / "Other Lab", 4, seed=9)
        evaluate(folder.root, on=root / "Other Lab", device="cpu")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> Iterator[Callable[[str], Path]]:
    """made(kind): the folder of a run and its dataset, made once, not to be changed."""
    done: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in done:
            root = tmp_path_factory.mktemp(kind)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(cache_home))
                patch.setattr(Run, "network", lambda run, fold, device: Bright(run.plan.data.outputs).eval())
                make_run(root, kind)
            done[kind] = root
        return done[kind]

    yield make


@pytest.fixture
def run(made: Callable[[str], Path], tmp_path: Path) -> MakeRun:
    """run(kind): a scored run and its dataset, tmp_path/data, of one's own."""

    def copy(kind: str = "binary") -> RunFolder:
        shutil.copytree(made(kind), tmp_path, dirs_exist_ok=True)
        folder = RunFolder(tmp_path / "run")
        change(folder.environment, data_root=str(tmp_path / "data"))
        folder.report.unlink(missing_ok=True)
        return folder

    return copy


@pytest.fixture(scope="module")
def html(made: Callable[[str], Path], cache_home: Path) -> Html:
    """html(kind): the page of a run as it was made."""
    done: dict[str, str] = {}

    def write(kind: str) -> str:
        if kind not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(cache_home))
                done[kind] = write_report(made(kind) / "run").read_text(encoding="utf-8")
        return done[kind]

    return write


@pytest.fixture
def scored(made: Callable[[str], Path]) -> Scored:
    """scored(kind): the run itself, to be read only."""
    return lambda kind: RunFolder(made(kind) / "run")


def change(path: Path, **changes: Any) -> None:
    write_text(path, json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def summary_of(place: ScoreFolder) -> dict[str, Any]:
    return json.loads(place.summary.read_text(encoding="utf-8"))


def rows_of(place: ScoreFolder) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(place.metrics.read_text(encoding="utf-8"))))


class Page(HTMLParser):
    """Tags with their attributes, and the text, of a page or of one of its sections."""

    EMPTY = frozenset({"meta", "img", "br", "path", "use", "rect", "line", "circle", "image"})

    def __init__(self, html: str, section: str = "") -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        found = re.search(f'<section id="{section}">.*?</section>', html, re.DOTALL) if section else None
        assert found or not section, f"no section {section}"
        self.html = found[0] if found else html
        self.feed(self.html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes what is not open"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]

    def pixels(self, alt: str) -> np.ndarray:
        """The first picture with this text, decoded: RGB (H, W, 3)."""
        uri = next(image["src"] for image in self.images if image["alt"] == alt)
        assert uri
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def page_of(folder: RunFolder, section: str = "", **options: Any) -> Page:
    path = write_report(folder.root, **options)
    assert path == folder.report
    return Page(path.read_text(encoding="utf-8"), section)


def shows(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(pixels - colour).max(-1) < 70).any())


# The page itself.


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_needs_nothing_from_outside_and_is_small(html: Html, kind: str) -> None:
    page = Page(html(kind))
    assert not {tag for tag, _ in page.tags} & {"link", "script", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value and value.startswith(("data:", "#")), (name, value)
            assert not name.startswith("on")
    assert not re.search(r"https?://|@import|url\((?!#)", re.sub(r'"data:[^"]*"', "", page.html))
    assert len(page.html) < 3e6


@pytest.mark.parametrize("kind", KINDS)
def test_tags_are_closed_pictures_have_words_and_links_lead_somewhere(html: Html, kind: str) -> None:
    page = Page(html(kind))
    assert not page.open
    assert page.images and all(attributes["alt"] for attributes in page.images)
    for tag, attributes in page.tags:
        assert tag != "svg" or attributes.get("aria-label") or attributes.get("aria-hidden")
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page.html)
    assert targets and {one or other for one, other in targets} <= set(names)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_undefined_becomes_a_number(html: Html, kind: str) -> None:
    words = set(Page(html(kind)).text.lower().replace("(", " ").replace(",", " ").split())
    assert not words & {"nan", "inf", "null"}


def test_names_of_cases_and_classes_are_text_and_nothing_else(run: MakeRun) -> None:
    folder = run()
    folder.scores.metrics.write_text(folder.scores.metrics.read_text(encoding="utf-8").replace(",benign,", f',"{NASTY}",'))
    subgroup = {"by": "class", "value": NASTY, "cases": 3, "groups": 3, "dice": 0.5, "interval95": None}
    change(folder.scores.summary, subgroups=[subgroup, subgroup])
    page = page_of(folder)
    assert page.text.count(NASTY) >= 4 and "<img src=x" not in page.html and not page.open
    assert (
        NASTY_CASE in page.text
        and "because <b>we</b> said so" in page.text
        and "<b>" not in page.html.partition("Decisions")[2]
    )


def test_the_same_run_gives_the_same_page(scored: Scored, html: Html) -> None:
    assert html("classes") == write_report(scored("classes").root).read_text(encoding="utf-8")


# What is refused, and what is said where something is missing.


def test_scores_of_other_weights_are_refused_with_what_to_type(run: MakeRun) -> None:
    folder = run()
    save_file({"weight": torch.ones(3)}, folder.fold(1).weights)
    with pytest.raises(DataError, match=r"ukan evaluate .*run` again"):
        write_report(folder.root)
    assert not folder.report.exists()


def test_cases_that_are_not_those_of_the_summary_are_refused(run: MakeRun) -> None:
    folder = run()
    folder.scores.metrics.write_text(
        "".join(folder.scores.metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:-1])
    )
    with pytest.raises(DataError, match="ukan evaluate"):
        write_report(folder.root)


@pytest.mark.parametrize("missing", ["summary", "metrics"])
def test_a_run_without_scores_is_refused_with_what_to_type(run: MakeRun, missing: str) -> None:
    folder = run()
    getattr(folder.scores, missing).unlink()
    with pytest.raises(UserError, match=r"run `ukan evaluate .*run` first"):
        write_report(folder.root)


def test_where_the_images_have_moved_the_rest_is_told_and_the_option_named(run: MakeRun, tmp_path: Path) -> None:
    folder = run()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    page = page_of(folder)
    assert not page.images and "--data FOLDER" in page.text and "Mean Dice" in page.text
    assert len(page_of(folder, data=tmp_path / "elsewhere").images) == 12 * 4 + 7 * 2
    with pytest.raises(DataError, match="no-such-place"):
        write_report(folder.root, data=tmp_path / "no-such-place")


def test_a_changed_image_and_a_lost_prediction_are_said_not_shown(run: MakeRun, tmp_path: Path) -> None:
    folder = run()
    worst, next_worst = sorted(rows_of(folder.scores), key=lambda row: (float(row["dice"]), row["case"]))[:2]
    write_mask(tmp_path / "data" / "masks" / f"{worst['case']}.png", np.ones(SIZE, bool))
    folder.scores.prediction(next_worst["part"], next_worst["case"]).with_suffix(".png").unlink()
    page = page_of(folder, "cases")
    assert len(page.images) == 10 * 4
    assert f"{worst['case']}: its files have changed" in page.text and f"{next_worst['case']}.png: no such file" in page.text


def test_a_run_that_lost_its_records_still_gets_its_page(run: MakeRun, tmp_path: Path) -> None:
    folder = run()
    for path in (folder.environment, folder.fingerprint, folder.problems, folder.fold(0).log, folder.fold(1).log):
        path.unlink()
    assert "Mean Dice" in page_of(folder, data=tmp_path / "data").text


# Scores.


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_stands_on_the_page_with_its_interval_and_what_is_undefined(
    scored: Scored, html: Html, kind: str
) -> None:
    folder = scored(kind)
    summary = summary_of(folder.scores)
    table = Page(html(kind), "held-out").html.partition("<table")[2].partition("</table>")[0]
    lines = [re.sub(r"<[^>]+>", " ", line).split() for line in table.split("<tr>")[2:]]
    assert len(lines) == len(summary["scores"])
    for line, (name, score) in zip(lines, summary["scores"].items(), strict=True):
        decimals = 2 if name.startswith(("hd95", "assd")) or "hausdorff" in name else 3
        low, high = score["interval95"]
        for said in (
            f"{score['mean']:.{decimals}f}",
            f"{low:.{decimals}f}",
            f"{high:.{decimals}f}",
            str(score["undefined"]),
        ):
            assert said in line, (name, said)


def test_each_class_has_its_scores_and_a_line_of_the_forest_plot(scored: Scored, html: Html) -> None:
    folder = scored("classes")
    by_class = summary_of(folder.scores)["by_class"]
    page = Page(html("classes"), "held-out")
    assert list(by_class) == ["class_1", "class_2", "class_3"]
    for name, scores in by_class.items():
        low, high = scores["dice"]["interval95"]
        assert f"{scores['dice']['mean']:.3f} ({low:.3f} to {high:.3f})" in page.text
        assert re.search(rf'<th scope="row">{name}</th>.*<svg class="forest"', page.html)


def test_a_line_of_a_forest_plot_is_where_its_numbers_are() -> None:
    assert 'd="M25.0 10H165.0M25.0 6V14M165.0 6V14"' in plots.mark(0.5, (0.1, 0.8))
    assert 'd="M105.0 5l' in plots.mark(0.5, None) and "10H" not in plots.mark(0.5, None)
    assert "value" not in plots.mark(None, None)


@pytest.mark.parametrize(("kind", "section"), [("classes", "test"), ("glands", "test"), ("binary", "external-0")])
def test_test_part_and_other_dataset_have_sections_of_their_own(scored: Scored, html: Html, kind: str, section: str) -> None:
    folder = scored(kind)
    place = folder.test_scores if section == "test" else folder.external_scores("other-lab")
    ours, theirs = (f"{summary_of(p)['scores']['dice']['mean']:.3f}" for p in (folder.scores, place))
    assert ours != theirs
    first, other = (Page(html(kind), name).text for name in ("held-out", section))
    assert f"Dice ↑ {ours}" in first and f"Dice ↑ {theirs}" not in first
    assert f"Dice ↑ {theirs}" in other and f"Dice ↑ {ours}" not in other
    assert f"{summary_of(place)['cases']} cases in" in other


def test_scores_of_other_parts_that_are_of_other_weights_are_named_and_not_shown(run: MakeRun) -> None:
    folder = run()
    place = folder.external_scores("other-lab")
    change(place.summary, weights_sha256={"0": "other"})
    page = page_of(folder)
    assert 'id="external-0"' not in page.html and "other-lab/summary.json: not of the networks" in page.text
    assert f"ukan evaluate {folder.root} --on FOLDER` again" in page.text
    place.summary.write_text("{")
    assert "other-lab/summary.json, metrics_per_case.csv: not readable" in page_of(folder).text


def test_cases_left_out_of_another_dataset_are_counted_and_named(run: MakeRun) -> None:
    folder = run()
    change(folder.external_scores("other-lab").summary, left_out=["a & b", "c"])
    text = page_of(folder, "external-0").text
    assert "look nearly like one: 2" in text and "a & b, c" in text


def test_twins_in_an_official_test_part_are_counted_with_the_scores_without_them(scored: Scored, html: Html) -> None:
    folder = scored("classes")
    without = summary_of(folder.test_scores)["scores_without_twins"]["dice"]
    page = Page(html("classes"), "test")
    assert "1 of 4 cases have a twin in training" in page.text and "without twins" in page.text
    assert f"{without['mean']:.3f}" in page.text
    assert "without twins" not in Page(html("classes"), "held-out").text


def test_lesions_images_and_calibration_are_told(scored: Scored, html: Html) -> None:
    folder = scored("binary")
    summary = summary_of(folder.scores)
    text = Page(html("binary"), "held-out").text
    counts, images, calibration = summary["lesions"]["counts"], summary["images"], summary["calibration"]
    assert images["without_object"] == 1
    assert f"Lesions found (sensitivity) {summary['lesions']['sensitivity']:.3f}" in text
    assert f"{counts['found']} of {counts['present']}" in text and f"{counts['false_positives']} in 14 images" in text
    assert f"left empty {images['specificity']:.3f}" in text and f"highest probability {images['auroc']:.3f}" in text
    assert f"ECE near objects {calibration['ece_near_objects']:.3f}" in text
    assert f"ECE over all pixels {calibration['ece']:.3f}" in text


def test_the_reliability_plot_says_its_points_in_words(scored: Scored, html: Html) -> None:
    folder = scored("binary")
    page = Page(html("binary"), "held-out")
    bins = [bin for bin in summary_of(folder.scores)["calibration"]["reliability"] if bin["pixels"]]
    label = next(at["aria-label"] for tag, at in page.tags if tag == "svg" and "Reliability" in (at.get("aria-label") or ""))
    assert label and label.count(":") == len(bins)
    assert f"{bins[-1]['mean_probability']:.2f}: {bins[-1]['foreground_share']:.2f}" in label


def test_objects_are_scored_where_masks_hold_instances(scored: Scored, html: Html) -> None:
    folder = scored("glands")
    for place, section in ((folder.scores, "held-out"), (folder.test_scores, "test")):
        objects = summary_of(place)["objects"]
        text = Page(html("glands"), section).text.partition("Object by object")[2]
        assert f"Object F1 ↑ {objects['object_f1']['all']:.3f}" in text
        assert f"Object Hausdorff distance, px ↓ {objects['object_hausdorff']['all']:.2f}" in text
    assert "Object by object" not in Page(html("volumes")).text


def test_distances_say_their_unit(html: Html) -> None:
    text = Page(html("volumes")).text
    assert (
        "HD95, mm" in text
        and "distances in mm" in text
        and "Surface Dice (NSD) at 2 mm" in text
        and ", px" not in (text.partition("The dataset")[0])
    )
    text = Page(html("binary")).text
    assert "HD95, px" in text and "distances in px" in text


def test_the_published_metric_has_a_table_of_its_own(scored: Scored, html: Html) -> None:
    folder = scored("published")
    published = summary_of(folder.scores)["as_published"]["mean"]
    page = Page(html("published"), "held-out")
    tables = {re.search(r'aria-label="([^"]*)"', region)[1]: region for region in page.html.split('<div class="wide"')[1:]}
    ours, papers = (
        re.sub(r"<[^>]+>", " ", tables[name].partition("</table>")[0]).split()
        for name in ("Scores, held-out cases", "The published metric")
    )
    assert "63.38" not in ours and "pooled" not in ours
    assert "63.38" in papers and f"{100 * published['iou_pooled']:.2f}" in papers and "9.50" in papers
    assert "Not comparable with the tables above" in page.text and "protocol: paper" in Page(html("published")).text


def test_an_honest_run_has_no_published_table(html: Html) -> None:
    page = Page(html("binary"))
    assert "protocol: honest" in page.text and "published metric" not in page.text


def test_random_folds_are_said_to_leak(run: MakeRun) -> None:
    folder = run()
    change(folder.scores.summary, split="random")
    text = page_of(folder).text
    assert "blind to groups" in text and "saw neither it" not in text


def test_scores_of_a_part_of_the_folds_carry_a_warning(run: MakeRun, html: Html, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Only a part is scored" not in html("binary")
    folder = run()
    folder.fold(1).weights.unlink()
    monkeypatch.setattr(Run, "network", lambda run, fold, device: Bright(1).eval())
    evaluate(folder.root, device="cpu")
    text = page_of(folder).text
    assert "Only a part is scored" in text and "7 of 14 held-out cases have no score" in text


# Predicted quality.


def test_predicted_dice_and_unfamiliar_images_are_held_against_the_truth(run: MakeRun) -> None:
    folder = run()
    quality = summary_of(folder.scores)["quality"]
    change(folder.scores.summary, quality=quality | {"unfamiliar": {"cases": 2, "dice": 0.125}})
    page = page_of(folder, "quality")
    assert f"mean absolute error {quality['mean_absolute_error']:.3f} 14 cases" in page.text
    assert f"Spearman's correlation {quality['spearman']:.3f}" in page.text
    assert f"of {quality['failures']}, in the lowest {quality['flagged']}" in page.text
    assert "2 of 14 held-out cases (14.3 %) are flagged; their mean Dice is 0.125" in page.text
    assert f"that of all is {quality['mean_dice']:.3f}" in page.text
    assert any("Scatter plot" in (attributes.get("aria-label") or "") for tag, attributes in page.tags if tag == "svg")


def test_where_quality_could_not_be_tried_that_is_said(run: MakeRun) -> None:
    folder = run()
    change(folder.scores.summary, quality={"cases": 2, "unfamiliar": {"cases": 0, "dice": None}, "mean_dice": 0.5})
    assert "Not tried" in page_of(folder, "quality").text


# Pictures.


def test_worst_cases_come_first_then_middle_then_best_rightly_empty_ones_left_out(scored: Scored, html: Html) -> None:
    folder = scored("binary")
    rows = rows_of(folder.scores)
    rightly_empty = [row["case"] for row in rows if row["truth_empty"] == "1" and row["found_empty"] == "1"]
    assert rightly_empty == ["c000"]
    rising = [
        row["case"] for row in sorted(rows, key=lambda row: (float(row["dice"]), row["case"])) if row["case"] != "c000"
    ]
    page = Page(html("binary"), "cases")
    shown = [alt.partition(":")[0] for attributes in page.images if (alt := attributes["alt"])]
    order = [*rising[:4], *rising[4:8], *rising[:8:-1]]
    assert shown == [name for name in order for _ in range(4)]
    assert "1 rightly left empty is not among them" in page.text
    assert page.text.index("Worst") < page.text.index(rising[0]) < page.text.index("Middle") < page.text.index("Best")


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 50])
def test_no_case_is_shown_twice_and_ties_go_by_name(count: int) -> None:
    scores = [CaseScore(f"c{k:02}", "fold_0", 0.5, False, []) for k in reversed(range(count))]
    chosen = worst_middle_best(scores, 2)
    flat = [score.case for group in chosen.values() for score in group]
    assert len(flat) == len(set(flat)) == min(count, 6)
    assert [score.case for score in chosen["Worst"]] == ["c00", "c01"][:count]


def test_colours_of_errors_are_those_of_the_legend() -> None:
    truth, found = np.array([[True, False, True, False]]), np.array([[True, True, False, False]])
    drawn = pictures.errors(np.zeros((1, 4, 3), np.uint8), truth, found)
    expected = [pictures.FOUND, pictures.INVENTED, pictures.MISSED, (0, 0, 0)]
    assert np.abs(drawn[0] - 0.6 * np.array(expected)).max() < 1


def test_of_several_classes_what_is_missed_is_filled_and_what_is_invented_striped() -> None:
    truth, found = np.zeros((2, 2, 30, 30), bool)
    truth[0, :10], found[1, 20:] = True, True
    truth[1, 10:20] = found[1, 10:20] = True
    drawn = pictures.class_errors(np.zeros((30, 30, 3), np.uint8), truth, found)
    first, second = (0.6 * np.array(colour) for colour in PALETTE[:2])
    assert np.abs(drawn[:10] - first).max() < 1
    assert not drawn[10:20].any(), "what is right stays grey"
    striped = np.abs(drawn[20:] - second).max(-1) < 1
    assert 0.4 < striped.mean() < 0.6 and not drawn[20:][~striped].any()


def test_classes_have_the_colours_of_their_masks(scored: Scored, html: Html) -> None:
    folder = scored("classes")
    page = Page(html("classes"), "cases")
    case = rows_of(folder.scores)[0]["case"]
    truth = page.pixels(next(str(image["alt"]) for image in page.images if str(image["alt"]).endswith(": truth")))
    for k in range(3):
        assert f"color: {pictures.hex_of(PALETTE[k])}" in page.html
        assert shows(truth, PALETTE[k]), (case, k)
    assert "striped" in page.text


def test_of_a_volume_the_slice_with_the_largest_true_area_is_shown(scored: Scored, html: Html) -> None:
    nibabel = pytest.importorskip("nibabel")
    folder = scored("volumes")
    page = Page(html("volumes"), "cases")
    alts = [str(image["alt"]) for image in page.images]
    for case in ("v0", "v3"):
        areas = np.asarray(nibabel.load(folder.root.parent / "data" / "masks" / f"{case}.nii.gz").dataobj).sum((0, 1))
        number = int(re.search(rf"{case}: image, slice (\d+) of 6", "\n".join(alts))[1])
        assert areas[::-1][number - 1] == areas.max() or areas[number - 1] == areas.max()
    picture = next(image for image in page.images if "slice" in str(image["alt"]))
    # Rows of 40 x 0.5 mm, columns of 32 x 1 mm.
    assert int(str(picture["width"])) / int(str(picture["height"])) == pytest.approx(32 / 20, rel=0.02)


def test_a_case_without_an_object_shows_where_one_was_invented() -> None:
    truth, found = np.zeros((2, 1, 5, 4, 4), bool)
    assert pictures.shown_slice(truth, found) == 2
    found[0, 4, 1:3] = found[0, 3, 0, 0] = True
    assert pictures.shown_slice(truth, found) == 4
    truth[0, 1, 0, 0] = True
    assert pictures.shown_slice(truth, found) == 1


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("shape", [(16, 16), (500, 400), (300, 3000), (2000, 10)])
def test_pictures_fit_their_box_and_keep_their_shape(shape: tuple[int, int], pixel: tuple[float, float]) -> None:
    height, width = box = pictures.fit_box(*shape, pixel)
    assert height <= pictures.HEIGHT_PX and width <= pictures.WIDTH_PX
    assert height == pictures.HEIGHT_PX or width == pictures.WIDTH_PX
    assert abs(width - height * shape[1] * pixel[1] / (shape[0] * pixel[0])) <= max(1, width / height)
    assert pictures.fitted(np.zeros((*shape, 3), np.uint8), box).shape == (*box, 3)
    assert pictures.fitted_masks(np.ones((2, *shape), bool), box).shape == (2, *box)


@pytest.mark.parametrize(("channels", "title"), [(1, ""), (3, ""), (5, ", channel 1 of 5")])
def test_images_of_any_number_of_channels_can_be_looked_at(channels: int, title: str) -> None:
    image = np.arange(2 * 2 * channels, dtype=np.uint8).reshape(2, 2, channels)
    seen, said = pictures.viewable(image)
    assert seen.shape == (2, 2, 3) and said == title
    assert (seen[..., 0] == image[..., 0]).all()


def test_training_samples_are_of_the_first_fold_in_pairs(scored: Scored, html: Html) -> None:
    folder = scored("binary")
    page = Page(html("binary"), "samples")
    alts = [str(attributes["alt"]) for attributes in page.images]
    names = [case for case in json.loads(folder.splits.read_text(encoding="utf-8"))["folds"][0]["train"]]
    assert sorted(alts) == sorted(f"{name}: {what}" for name in names for what in ("prepared", "as trained on"))
    name = names[1]
    assert shows(page.pixels(f"{name}: prepared"), pictures.TRUTH) and shows(
        page.pixels(f"{name}: as trained on"), pictures.TRUTH
    )


def test_training_samples_in_bgr_are_shown_in_the_colours_of_their_files(html: Html) -> None:
    page = Page(html("glands"), "samples")
    for image in page.images:
        pixels = page.pixels(str(image["alt"]))
        red, _, blue = pixels[(pixels.max(-1) - pixels.min(-1) > 60) & (pixels[..., 2] > 100)].mean(0)
        assert red > blue + 50


def test_training_samples_of_several_classes_show_each(html: Html) -> None:
    page = Page(html("classes"), "samples")
    assert all(shows(page.pixels(str(page.images[0]["alt"])), PALETTE[k]) for k in range(3))


# The rest.


def test_dataset_plan_and_origin_are_told(scored: Scored, html: Html) -> None:
    folder = scored("binary")
    text = Page(html("binary")).text
    assert "7 notes: empty mask" in text and "and 2 more in problems.csv" in text
    assert "48, 48, 48" in text  # heights
    assert "'a plan.yaml'" in text and "abc+" in text and "1 min 01 s" in text
    for sha256 in Run(folder, Plan.load(folder.plan)).weights_sha256().values():
        assert sha256 in text
    for key in Plan.load(folder.plan).flat():
        assert key in text


def test_the_environments_of_training_and_of_each_scoring_are_told(run: MakeRun) -> None:
    folder = run()
    change(folder.external_scores("other-lab").summary, environment={"python": "9.9.9", "packages": {"torch": "99"}})
    page = page_of(folder, "origin")
    assert "scoring: held-out cases" in page.text and "scoring: other dataset: other-lab" in page.text
    assert "9.9.9" in page.text
    torch_line = next(line for line in page.html.splitlines() if '<th scope="row">torch</th>' in line)
    assert "<td>2</td>" in torch_line and f"{torch.__version__.partition('+')[0]}" in torch_line and "99" in torch_line


def test_predictions_are_those_of_the_folds(scored: Scored) -> None:
    folder = scored("binary")
    row = rows_of(folder.scores)[3]
    truth = read_mask(folder.root.parent / "data" / "masks" / f"{row['case']}.png") > 0
    found = read_mask(folder.scores.prediction(row["part"], row["case"]).with_suffix(".png")) > 0
    dice = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    assert float(row["dice"]) == pytest.approx(dice, abs=1e-6) and dice > 0.5


# The terminal.


@pytest.mark.parametrize("kind", KINDS)
def test_the_terminal_shows_every_score_and_a_line_for_each_further_look(
    scored: Scored, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scored(kind)
    summary = summary_of(folder.scores)
    show.scores(summary)
    lines = capsys.readouterr().out.splitlines()
    for name, score in summary["scores"].items():
        line = next(line for line in lines if line.replace(",", " ").split()[:1] == [name])
        low, high = score["interval95"]
        assert f"{score['mean']:.4f}" in line and f"{low:.4f} to {high:.4f}" in line
    for name in summary.get("by_class", {}):
        assert name in lines[0]
    starts = {line.partition(":")[0] for line in lines}
    assert {"lesions", "images", "calibration", "predicted Dice"} <= starts
    assert ("objects of all images together" in starts) == (kind == "glands")
    assert ("  the paper reports" in starts) == (kind == "published")
    assert not any("nan" in line.split() for line in lines)
