"""The pages of diffusion: complete in themselves, protocols apart, what is missing named, what is stale not shown.

Runs and records are made by hand; one goes through the real training, sampling and comparison.
"""

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ukan.data.index import index_folder, save_index
from ukan.data.problems import write_problems
from ukan.errors import DataError, UserError
from ukan.paths import FidFolder, RunFolder, SampleFolder, write_text
from ukan.plan import DataPlan, DiffusePlan, ModelPlan, Plan, SplitPlan
from ukan.report import plots
from ukan.report.diffusion_page import write_diffusion_report, write_fid_page
from ukan.runs import open_run

NASTY = "<img src=x onerror=alert(1)> & $x^"
LOG = "epoch,step,loss,val_loss,val_dice,lr,lr_kan,elapsed_s\n1,5,0.9,,,1e-3,1e-3,1\n2,10,0.4,0.05,,1e-3,1e-3,2\n"
MakeRun = Callable[..., RunFolder]


class Page(HTMLParser):
    """Tags and text of a page or of one of its sections."""

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

    @property
    def plots(self) -> list[str]:
        return [at.get("aria-label") or "" for tag, at in self.tags if tag == "svg"]

    def table(self, label: str) -> list[list[str]]:
        """The cells of a table, row by row, its head first."""
        found = re.search(f'aria-label="{re.escape(label)}">.*?</table>', self.html, re.DOTALL)
        assert found, f"no table {label!r}"
        rows = re.findall(r"<tr>(.*?)</tr>", found[0], re.DOTALL)
        return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def page_of(path: Path, section: str = "") -> Page:
    return Page(path.read_text(encoding="utf-8"), section)


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def change(path: Path, **changes: Any) -> None:
    write_text(path, json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def honest(kernel: float, score: dict[str, Any] | None = None) -> dict[str, Any]:
    def part(mean: float, **more: Any) -> dict[str, Any]:
        floor = {"mean": 0.001, "interval95": [-0.002, 0.004]}
        return more | {"mean": mean, "interval95": [0.9 * mean, 1.1 * mean], "floor": floor}

    frechet = {"value": 45.67, "same_n": part(90.1, n=15, repeats=20)}
    shares = {"precision": 0.625, "recall": 0.375, "neighbours": 3}
    return {
        **{"n_real": 30, "n_generated": 40, "kernel": part(kernel, subset_size=15, subsets=100), "frechet": frechet},
        **shares,
        "inception_score": score,
    }


def comparison(*, run: bool = True, kernel: float = 0.0523, other: float = 2.5, share: float | None = 0.1) -> dict[str, Any]:
    """A fid.json: Inception and a run's encoder; with a run both protocols and memorisation, else the honest one alone."""
    score = {"mean": 3.21, "deviation": 0.12, "splits": 1, "n": 40}
    papers = score | {"mean": 3.45, "splits": 10}
    of_paper = {"n_real": 96, "n_generated": 40, "frechet": {"value": 12.34}}
    rng = np.random.default_rng(0)
    looked = {
        **{"unit": "units of it", "threshold": None if share is None else 0.05, "share": share, "expected_share": 0.05},
        **{"copies": 3, "copies_held_out": 1},
        "distances": rng.uniform(0.04, 0.2, 40).tolist(),
        "held_out_distances": rng.uniform(0.05, 0.3, 30).tolist(),
    }
    pair = {"generated": f"{NASTY}.png", "train": "case seven", "distance": 0.0411, "second": None}
    counts = (("fake", 40), ("real", 30), ("train", 96))
    sides = [{"path": name, "images": count, "sha256": name * 8} for name, count in counts]
    networks: list[tuple[Any, ...]] = [("inception", "Inception-v3", "KID", "FID", kernel, score, papers)]
    names = ("kernel distance (run:a:0)", "Frechet distance (run:a:0)")
    networks += [("run:a:0", f"features of {NASTY}", *names, other, None, None)]
    memorisation = {"rule": "flagged: too near", "pixels": looked, "features": looked, "closest": [pair]}
    return {
        "protocols": ["honest", "paper"] if run else ["honest"],
        **dict(zip(("generated", "real", "train"), [*sides[:2], sides[2] if run else None], strict=True)),
        "fold": 0 if run else None,
        "size": [16, 24],
        "pipeline": "8-bit RGB, 24x16, no resizing",
        "features": [
            {
                **{"name": name, "label": label, "kernel_name": k, "frechet_name": f, "weights_sha256": "ab" * 32},
                "honest": honest(value, s),
                "paper": of_paper | {"inception_score": p} if run else None,
            }
            for name, label, k, f, value, s, p in networks
        ],
        "memorisation": memorisation if run else None,
        "environment": {"command": ["ukan", "fid", "a b"], "python": "9.9.9", "packages": {"torch": "99"}},
    }


def write_fid(folder: Path, found: dict[str, Any]) -> FidFolder:
    place = FidFolder(folder)
    write_text(place.record, json.dumps(found))
    if found["memorisation"]:
        save(place.nearest, np.full((50, 60, 3), 200))
    return place


def write_samples(folder: Path, **settings: Any) -> SampleFolder:
    place = SampleFolder(folder)
    write_text(place.record, json.dumps({"settings": {"run": "toy", "fold": 0, "steps": 20, "masks": None} | settings}))
    save(place.image(0, ".png"), np.zeros((8, 8, 3)))
    save(place.grid, np.full((40, 40, 3), 77))
    return place


@pytest.fixture
def run(tmp_path: Path, write_dataset: Callable[..., Path]) -> MakeRun:
    """run(...): a run of diffusion with its dataset tmp_path/data, trained by nobody; arguments change its plan."""

    def make(**changes: Any) -> RunFolder:
        root = write_dataset(tmp_path / "data", 12)
        index = index_folder(root, dataset="toy")
        assert index.fingerprint
        read_as = index.fingerprint.model_dump(include={"mask_rule", "index_sha256", "layout"})
        data = DataPlan(dataset="toy", input_size=(32, 32), channels=1, crop="square", **read_as)
        settings: dict[str, Any] = {
            **{"task": "diffuse", "name": "diffusion", "data": data, "model": ModelPlan(name="diffusion-ukan")},
            **{"split": SplitPlan(folds=3), "diffuse": DiffusePlan()},
            "reasons": {"diffuse.steps": "because <b>we</b> said so"},
        }
        folder = RunFolder(tmp_path / "run")
        Plan(**(settings | changes)).save(folder.plan)
        save_index(folder.index, list(index.cases))
        write_text(folder.fingerprint, index.fingerprint.model_dump_json())
        write_problems(folder.problems, [])
        names = [case.case for case in index.cases]
        folds = [{"train": [n for i, n in enumerate(names) if i % 3 != k], "val": names[k::3]} for k in range(3)]
        write_text(folder.splits, json.dumps({"folds": folds}))
        record = {"data_root": str(root), "sessions": [{"command": ["ukan", "train", "a plan.yaml"], "device": "cpu"}]}
        write_text(folder.environment, json.dumps(record))
        begin(folder, 0)
        return folder

    return make


def begin(folder: RunFolder, fold: int, *, finished: bool = True) -> None:
    place = folder.fold(fold)
    write_text(place.log, LOG)
    for epoch in (2, 4, 6, 8, 10):
        save(place.sample(epoch), np.full((20, 20, 3), epoch * 20))
    if finished:
        save_file({"weight": torch.full((2,), float(fold))}, place.weights)


def write_summary(folder: RunFolder, **changes: Any) -> None:
    error = {"held_out": 0.0523, "interval95": [0.04, 0.06], "training": 0.041}
    error |= {"gap": 0.0113, "gap_interval95": [-0.001, 0.02]}
    bins = [{"from": at, "to": at + 500, "held_out": held, "training": held - 0.02} for at, held in ((0, 0.08), (500, 0.03))]
    weights = open_run(folder.root, "diffuse").weights_sha256()
    summary = {
        **{"what": "how it was measured", "folds": [0], "cases": 12, "groups": 11, "error": error, "by_time": bins},
        **{"weights_sha256": weights, "protocol": "honest", "environment": {"python": "8.8.8"}},
    }
    write_text(folder.scores.summary, json.dumps(summary | changes))


def assert_sound(page: Page) -> None:
    """Nothing from outside, all tags closed, pictures with words, links that lead somewhere, nothing undefined a number."""
    assert not page.open
    assert not {tag for tag, _ in page.tags} & {"link", "script", "iframe", "object", "base"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value and value.startswith(("data:", "#")), (name, value)
            assert not name.startswith("on")
        assert tag != "svg" or attributes.get("aria-label")
        assert tag != "img" or attributes["alt"]
    assert not re.search(r"https?://|@import|url\((?!#)", re.sub(r'"data:[^"]*"', "", page.html))
    names = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page.html)
    assert targets and {one or other for one, other in targets} <= set(names)
    assert not set(re.split(r"[\s(),;:]+", page.text)) & {"nan", "inf", "null", "None", "undefined"}


# The page of a comparison.


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a comparison with a run, named toy."""
    return page_of(write_fid_page(write_fid(tmp_path_factory.mktemp("made") / "toy", comparison()).root))


@pytest.mark.parametrize("found", [comparison(), comparison(run=False), comparison(share=None)])
def test_the_page_of_a_comparison_is_complete_and_needs_nothing_from_outside(tmp_path: Path, found: dict[str, Any]) -> None:
    place = write_fid(tmp_path / "fid", found)
    assert write_fid_page(place.root) == place.page
    page = page_of(place.page)
    assert_sound(page)
    assert "<img src=x" not in page.html and f"features of {NASTY}" in page.text


def test_the_kernel_distance_comes_first_with_interval_and_floor_and_n(toy: Page) -> None:
    kernel = toy.table("Kernel distance, toy")
    assert kernel[1] == ["KID", "0.05230", "0.04707 to 0.05753", "0.00100", "-0.00200 to 0.00400", "15, 100 times"]
    assert kernel[2][:2] == ["kernel distance (run:a:0)", "2.500"]
    frechet = toy.table("Frechet distance at equal n, toy")
    assert frechet[1][:3] == ["FID", "90.10", "81.09 to 99.11"]
    assert frechet[1][5:] == ["15, 20 times", "45.67", "40 and 30"]
    assert toy.table("Precision and recall, toy")[1] == ["inception", "0.625", "0.375", "40 and 30"]
    order = [toy.text.index(words) for words in ("KID 0.05230", "KID 0.05230 0.04707", "FID 90.10", "precision recall")]
    assert order == sorted(order)
    assert "KID 0.05230 (95 % of draws 0.04707 to 0.05753); real against real 0.00100" in toy.text


def test_each_network_has_plots_of_points_with_their_floor(toy: Page) -> None:
    said = "Kernel distance, 15 images a side: generated 0.0523 (0.04707 to 0.05753), real 0.001 (-0.002 to 0.004)"
    assert said in toy.plots
    assert sum(label.startswith("Frechet distance, 15 images a side: generated 90.1") for label in toy.plots) == 2


def test_the_protocols_are_never_in_one_table(tmp_path: Path, toy: Page) -> None:
    assert toy.table("Protocol paper, toy")[1] == ["FID", "12.34", "40", "96"]
    assert toy.text.index("protocol: honest") < toy.text.index("90.10") < toy.text.index("protocol: paper")
    tables = re.findall(r"<table.*?</table>", toy.html, re.DOTALL)
    assert not [table for table in tables if "12.34" in table and ("90.10" in table or "45.67" in table)]
    assert toy.text.index("protocol: paper") < toy.text.index("12.34")
    assert "protocol: paper" not in page_of(write_fid_page(write_fid(tmp_path / "two", comparison(run=False)).root)).text


def test_the_inception_score_never_stands_without_its_warning(toy: Page) -> None:
    assert toy.table("Inception score, toy")[1:] == [["inception", "3.210 ± 0.120", "40", "1"]]
    assert toy.table("Inception score as papers report it, toy")[1:] == [["inception", "3.450 ± 0.120", "40", "10"]]
    assert toy.text.count("The Inception score is of ImageNet's classes, which mean nothing") == 2


def test_memorisation_shows_pairs_both_distributions_the_share_the_rule_and_its_limits(toy: Page) -> None:
    assert toy.table("Memorisation, toy")[1] == ["by pixels", "10.0 %", "5 %", "0.05", "3 of 40", "1 of 30"]
    assert sum("held-out, median" in label and "threshold 0.05" in label for label in toy.plots) == 2
    assert "Flagged: too near." in toy.text and "What it cannot show." in toy.text
    assert toy.table("Closest pairs, toy")[1][1:] == ["case seven", "0.0411", "–"]
    pairs = next(image for image in toy.images if "nearest training" in str(image["alt"]))
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(str(pairs["src"]).partition(",")[2]))))
    assert pixels.shape == (50, 60, 3) and (pixels == 200).all()


def test_without_enough_held_out_images_no_share_is_given(tmp_path: Path) -> None:
    page = page_of(write_fid_page(write_fid(tmp_path / "toy", comparison(share=None)).root))
    assert page.table("Memorisation, toy")[1][1:4] == ["no threshold", "–", "–"]
    assert "fewer than 19 held-out images" in page.text and "Dashed" not in page.text


def test_where_nothing_was_held_out_the_paper_s_protocol_stands_alone(tmp_path: Path) -> None:
    found = comparison(share=None) | {"protocols": ["paper"], "real": {"path": "run", "images": 0, "sha256": "x"}}
    for network in found["features"]:
        network["honest"] = None
    for kind in ("pixels", "features"):
        found["memorisation"][kind] = found["memorisation"][kind] | {"held_out_distances": [], "copies_held_out": 0}
    page = page_of(write_fid_page(write_fid(tmp_path / "toy", found).root))
    assert_sound(page)
    assert "protocol: honest" not in page.text and "12.34" in page.text
    assert page.table("Memorisation, toy")[1][4:] == ["3 of 40", "–"]


def test_two_folders_show_images_of_both_sides_and_say_what_was_not_looked_at(tmp_path: Path) -> None:
    for name, count in (("fake", 40), ("real", 30)):
        for k in range(count):
            save(tmp_path / name / f"{k:02}.png", np.full((16, 24, 3), k))
    found = comparison(run=False)
    for key in ("generated", "real"):
        found[key]["path"] = str(tmp_path / {"generated": "fake", "real": "real"}[key])
    page = page_of(write_fid_page(write_fid(tmp_path / "fake", found).root))
    alts = [str(image["alt"]) for image in page.images]
    assert alts == ["Generated images: 32 of 40 generated images", "Real images: 30 of 30 real images"]
    assert "Not looked at: it takes the training images" in page.text
    assert "Which network drew these images is not recorded" in page.text


def test_images_that_are_gone_leave_a_gap_that_is_named(tmp_path: Path) -> None:
    place = write_fid(tmp_path / "toy", comparison())
    place.nearest.unlink()
    page = page_of(write_fid_page(place.root))
    assert not page.images
    assert "The generated images cannot be shown: fake" in page.text and "nearest.png: no such file" in page.text


def test_images_of_a_sample_folder_are_shown_by_its_grid_with_how_they_were_drawn(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "out", scheduler="DDIM", weights_sha256="c0ffee")
    found = comparison()
    found["generated"]["path"] = str(samples.root)
    page = page_of(write_fid_page(write_fid(tmp_path / "elsewhere", found).root))
    assert "Generated images: the first of those drawn" in [image["alt"] for image in page.images]
    rows = page.table("How the images were drawn")
    assert ["scheduler", "DDIM"] in rows and ["weights sha256", "c0ffee"] in rows
    assert "may have been trained on" not in page.text


def test_images_of_another_fold_than_the_one_that_judges_carry_a_warning(tmp_path: Path) -> None:
    write_samples(tmp_path / "out", fold=2)
    page = page_of(write_fid_page(write_fid(tmp_path / "out", comparison()).root))
    assert "Drawn by fold 2, compared with what fold 0 held out." in page.text


def test_a_very_large_grid_is_shown_in_part(tmp_path: Path) -> None:
    save(write_samples(tmp_path / "out").grid, np.zeros((1700, 300, 3)))
    page = page_of(write_fid_page(write_fid(tmp_path / "out", comparison()).root))
    grid = next(image for image in page.images if "upper left part" in str(image["alt"]))
    assert (grid["width"], grid["height"]) == ("300", "1600")


def test_a_folder_without_a_comparison_and_a_damaged_one_are_refused_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no fid\.json to show; `ukan fid REAL FAKE` writes one"):
        write_fid_page(tmp_path)
    place = write_fid(tmp_path / "toy", comparison())
    change(place.record, features=[{"name": "inception"}])
    with pytest.raises(DataError, match=r"fid\.json: not readable .*run `ukan fid` again"):
        write_fid_page(place.root)
    place.record.write_text("{")
    with pytest.raises(DataError, match=r"fid\.json: not readable"):
        write_fid_page(place.root)


def test_the_same_record_gives_the_same_page(tmp_path: Path) -> None:
    place = write_fid(tmp_path / "toy", comparison())
    first = write_fid_page(place.root).read_bytes()
    assert write_fid_page(place.root).read_bytes() == first


# The report of a run.


def compare(folder: RunFolder, name: str, *, fold: int = 0, weights: str | None = None, **numbers: Any) -> FidFolder:
    sha256 = weights or open_run(folder.root, "diffuse").weights_sha256()[str(fold)]
    samples = write_samples(folder.root.parent / f"out-{name}", fold=fold, weights_sha256=sha256)
    found = comparison(**numbers)
    found["generated"]["path"] = str(samples.root)
    return write_fid(folder.fid(name).root, found)


def test_a_run_with_nothing_but_a_fold_gets_its_page_which_names_what_makes_the_rest(run: MakeRun) -> None:
    folder = run()
    assert write_diffusion_report(folder.root) == folder.report
    page = page_of(folder.report)
    assert_sound(page)
    for command in ("ukan evaluate", "ukan sample", "ukan fid"):
        assert f"{command} {folder.root}" in page.text
    assert "fold 0 of 3 · 8 training images, 4 held out" in page.text
    assert "not shown" not in page.text.lower().replace("there, but not shown", "") and "Not finished" not in page.text


def test_a_whole_report_is_complete_and_needs_nothing_from_outside(run: MakeRun) -> None:
    folder = run(published={"fid": 101.93}, protocol="paper", recipe="paper/x")
    write_summary(folder)
    compare(folder, "one")
    compare(folder, "two", kernel=0.04)
    page = page_of(write_diffusion_report(folder.root))
    assert_sound(page)
    assert "Nothing to show yet" not in page.text and "Not measured" not in page.text and 'id="stale"' not in page.html
    assert len(page.html) < 2e6


def test_images_drawn_in_training_are_the_first_a_middle_and_the_last_beside_real_ones(run: MakeRun) -> None:
    page = page_of(write_diffusion_report(run().root), "drawn")
    alts = [str(image["alt"]) for image in page.images]
    assert alts[:3] == [f"Images drawn by fold 0: after epoch {epoch}" for epoch in (2, 6, 10)]
    assert alts[3:] == ["Real images: 8 of 8 training images"]
    for image, value in zip(page.images, (40, 120, 200), strict=False):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2]))))
        assert (pixels == value).all()


def test_real_images_are_those_of_the_training_part_as_prepared(run: MakeRun) -> None:
    from ukan.diffuse.images import real_images

    folder = run()
    page = page_of(write_diffusion_report(folder.root), "drawn")
    src = str(page.images[-1]["src"])
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))).convert("RGB"))
    real = real_images(open_run(folder.root, "diffuse"), 0)
    assert sheet.shape == (36, 8 * 34 + 2, 3)
    for k, image in enumerate(real.train_NHWC):
        assert (sheet[2:34, 2 + 34 * k : 34 + 34 * k] == image).all()


def test_a_fold_on_its_way_is_reported_and_said_to_be(run: MakeRun) -> None:
    folder = run()
    begin(folder, 1, finished=False)
    page = page_of(write_diffusion_report(folder.root))
    assert "Not finished. Fold 1 is still being trained" in page.text and "folds 0, 1 of 3" in page.text
    folder.fold(0).weights.unlink()
    assert "Folds 0, 1 are still being trained" in page_of(write_diffusion_report(folder.root)).text


def test_a_run_of_which_nothing_was_begun_and_one_of_another_task_are_refused(run: MakeRun, tmp_path: Path) -> None:
    folder = run()
    folder.fold(0).root.rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"no fold of it was begun.*`ukan train PLAN`"):
        write_diffusion_report(folder.root)
    segment = Plan(name="ukan", data=DataPlan(dataset="toy", layout="folders", index_sha256="x"))
    segment.save(tmp_path / "other" / "plan.yaml")
    with pytest.raises(UserError, match="of the task segment"):
        write_diffusion_report(tmp_path / "other")


def test_the_error_stands_with_intervals_and_by_timestep(run: MakeRun) -> None:
    folder = run()
    write_summary(folder)
    page = page_of(write_diffusion_report(folder.root), "error")
    assert page.table("Denoising error")[1:] == [
        ["held-out images", "0.05230", "0.04000 to 0.06000"],
        ["training images", "0.04100", "–"],
        ["gap: held-out minus training", "0.01130", "-0.00100 to 0.02000"],
    ]
    assert page.table("Denoising error by timestep")[1] == ["0 to 500", "0.08000", "0.06000"]
    assert "training images: 0.06, 0.01; held-out images: 0.08, 0.03" in page.plots[0]
    assert "never saw (12 cases in 11 groups)" in page.text and "how it was measured" in page.text


def test_a_run_that_holds_nothing_out_says_so_and_names_no_command_in_vain(run: MakeRun) -> None:
    folder = run(split=SplitPlan(kind="all"), protocol="paper", published={"fid": 100.0})
    everyone = json.loads(folder.splits.read_text())["folds"][0]
    write_text(folder.splits, json.dumps({"folds": [{"train": everyone["train"] + everyone["val"], "val": []}]}))
    page = page_of(write_diffusion_report(folder.root))
    assert_sound(page)
    assert "none held out" in page.text and "12 training images, 0 held out" in page.text
    assert "none is left to judge by" in page.text and "ukan evaluate" not in page.text


def test_results_of_other_weights_are_named_and_not_shown(run: MakeRun) -> None:
    folder = run()
    write_summary(folder, weights_sha256={"0": "other"})
    compare(folder, "old", weights="other")
    compare(folder, "new", kernel=0.0777)
    page = page_of(write_diffusion_report(folder.root))
    assert "summary.json: not of the networks that are in the run now; run `ukan evaluate" in page.text
    assert "old/fid.json: its images are not of the networks that are in the run now" in page.text
    assert "Against real images: new" in page.text and "Against real images: old" not in page.text
    assert "0.07770" in page.text and "0.05230" not in page.text and "Not measured, or not of these networks" in page.text


def test_results_that_cannot_be_read_are_named(run: MakeRun) -> None:
    folder = run()
    write_summary(folder)
    folder.scores.summary.write_text("{")
    compare(folder, "broken").record.write_text("[]")
    text = page_of(write_diffusion_report(folder.root), "stale").text
    assert "summary.json: not readable" in text and "broken/fid.json: not readable" in text


def test_every_comparison_has_a_section_and_a_row_in_the_tables_beside(run: MakeRun) -> None:
    folder = run()
    compare(folder, "one", kernel=0.0523, other=2.5)
    compare(folder, "two", kernel=0.0411, other=3.5)
    html = write_diffusion_report(folder.root).read_text(encoding="utf-8")
    for anchor, name, kernel in (("fid-0", "one", "0.05230"), ("fid-1", "two", "0.04110")):
        assert Page(html, anchor).table(f"Kernel distance, {name}")[1][1] == kernel
    beside = Page(html, "beside")
    rows = beside.table("Comparisons side by side, protocol honest")
    assert [row[:3] for row in rows[1:]] == [
        ["one", "inception", "0.05230"],
        ["two", "inception", "0.04110"],
        ["one", "run:a:0", "2.500"],
        ["two", "run:a:0", "3.500"],
    ]
    assert rows[1][-1] == "10.0 %" and "12.34" not in " ".join(sum(rows, []))
    assert beside.table("Comparisons side by side, protocol paper")[1] == ["one", "inception", "12.34", "40", "96", "3.450"]
    assert "do not agree on the order" in beside.text and "run:a:0: one < two" in beside.text


@pytest.mark.parametrize(("other", "said"), [(2.5, "do not agree"), (1.5, "The features agree")])
def test_whether_features_agree_on_the_order_is_said(run: MakeRun, other: float, said: str) -> None:
    folder = run()
    compare(folder, "one", kernel=0.0523, other=2.5)
    compare(folder, "two", kernel=0.0411, other=other)
    text = page_of(write_diffusion_report(folder.root), "beside").text
    assert said in text and ("one = two" in text) == (other == 2.5)


def test_one_comparison_has_nothing_beside_it_and_other_real_images_no_order(run: MakeRun) -> None:
    folder = run()
    compare(folder, "one")
    assert 'id="beside"' not in write_diffusion_report(folder.root).read_text(encoding="utf-8")
    second = compare(folder, "two")
    change(second.record, real={"path": "elsewhere", "images": 30, "sha256": "another"})
    assert "order" not in page_of(write_diffusion_report(folder.root), "beside").text


def test_the_paper_s_scores_have_a_table_of_their_own_with_inception_alone_beside(run: MakeRun) -> None:
    folder = run(published={"fid": 101.93, "inception_score": 2.75}, protocol="paper")
    bare = page_of(write_diffusion_report(folder.root), "published")
    assert bare.table("The paper&#39;s scores")[1:] == [["FID", "101.93"], ["Inception score", "2.75"]]
    assert "There is none of ours yet" in bare.text
    compare(folder, "one")
    page = page_of(write_diffusion_report(folder.root), "published")
    rows = page.table("The paper&#39;s scores")
    assert rows == [
        ["protocol paper", "the paper", "one, 40 images"],
        ["FID", "101.93", "12.34"],
        ["Inception score", "2.75", "3.45"],
    ]
    assert "must not be compared" in page.text and "run:a:0" not in page.text and "90.10" not in page.text


def test_an_honest_run_has_no_published_table(run: MakeRun) -> None:
    assert 'id="published"' not in write_diffusion_report(run().root).read_text(encoding="utf-8")


def test_where_the_images_have_moved_the_rest_is_told_and_the_option_named(run: MakeRun, tmp_path: Path) -> None:
    folder = run()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    page = page_of(write_diffusion_report(folder.root), "drawn")
    assert "the images were not found at" in page.text and f"ukan report {folder.root} --data FOLDER" in page.text
    assert len(page.images) == 3
    assert len(page_of(write_diffusion_report(folder.root, data=tmp_path / "elsewhere"), "drawn").images) == 4
    with pytest.raises(DataError, match="no-such-place"):
        write_diffusion_report(folder.root, data=tmp_path / "no-such-place")


def test_a_run_that_lost_its_records_still_gets_its_page(run: MakeRun) -> None:
    folder = run()
    for path in (folder.environment, folder.fingerprint, folder.problems, folder.splits, folder.fold(0).log):
        path.unlink()
    for path in folder.fold(0).samples.iterdir():
        path.unlink()
    page = page_of(write_diffusion_report(folder.root))
    assert_sound(page)
    assert "No log of the training" in page.text and "Nothing was drawn yet" in page.text


def test_plan_dataset_and_environments_are_told(run: MakeRun) -> None:
    folder = run()
    write_summary(folder)
    compare(folder, "one")
    page = page_of(write_diffusion_report(folder.root))
    assert "because <b>we</b> said so" in page.text and "'a plan.yaml'" in page.text
    assert "scoring: denoising error" in page.text and "8.8.8" in page.text and "9.9.9" in page.text
    for key in Plan.load(folder.plan).flat():
        assert key in page.text
    assert open_run(folder.root, "diffuse").weights_sha256()["0"] in page.text


def test_names_are_text_and_nothing_else(run: MakeRun) -> None:
    folder = run()
    compare(folder, "a <b> & c")
    page = page_of(write_diffusion_report(folder.root))
    assert_sound(page)
    assert "Against real images: a <b> & c" in page.text


# Plots.


def test_losses_stand_on_a_scale_of_ratios_with_numbers() -> None:
    rows = list(csv.DictReader(io.StringIO(LOG)))
    svg = plots.loss_curves(3, rows)
    assert "Losses of fold 3: 2 epochs, last training loss 0.4" in svg and "Dice" not in svg
    assert {"0.05", "0.1", "0.2", "0.5"} <= set(re.findall(r">([\d.]+)</text>", svg))


def test_histograms_of_images_that_are_all_alike_can_be_drawn() -> None:
    svg = plots.nearest_histogram([0.0, 0.0], [], None, "Distance", "x")
    assert "median 0" in svg and "held-out" not in svg


# Through the real functions.


def test_a_run_trained_sampled_and_compared_for_real_is_reported(
    tmp_path: Path, write_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ukan.diffuse import fid
    from ukan.diffuse.evaluate import evaluate
    from ukan.diffuse.features import Features
    from ukan.diffuse.sample import sample
    from ukan.diffuse.train import train
    from ukan.stage.prepare import plan_folder

    def load(spec: str, weights: Path | None, device: Any) -> Features:
        def batches(images_NHWC: np.ndarray) -> Any:
            quarters = images_NHWC.reshape(len(images_NHWC), 2, 16, 2, 16, 3).mean((2, 4)).reshape(len(images_NHWC), -1)
            yield (quarters / 64).astype(np.float32), None

        names = (f"kernel distance ({spec})", f"Frechet distance ({spec})")
        return Features(spec, f"features of {spec}", names, "0", spec, batches)

    monkeypatch.setattr(fid, "load_features", load)
    settings = ["model.channels=8", "train.epochs=2", "diffuse.preview=2", "diffuse.steps=2", "train.batch_size=16"]
    folder = write_dataset(tmp_path / "toy", 24)
    _, plan_path, _ = plan_folder(folder, preset="smoke", task="diffuse", settings=settings, name="tiny")
    train(plan_path, run=tmp_path / "run", device="cpu", workers=0)
    evaluate(tmp_path / "run", device="cpu")
    sample(tmp_path / "run", tmp_path / "out", count=8, device="cpu")
    record, place = fid.compare_images(tmp_path / "run", tmp_path / "out", features=["run:a:0"], device="cpu")
    assert write_fid_page(place).parent == place
    assert_sound(page_of(place / "fid.html"))
    page = page_of(write_diffusion_report(tmp_path / "run"))
    assert_sound(page)
    mean = record["features"][0]["honest"]["kernel"]["mean"]
    lead = re.search(r"Kernel distance \(run:a:0\) ([-\d.]+)", page.text)
    assert lead and float(lead[1]) == pytest.approx(mean, rel=1e-3)
    assert "Against real images: out" in page.text and "gap: held-out minus training" in page.text
    assert 'id="stale"' not in page.html and "Not measured" not in page.text
