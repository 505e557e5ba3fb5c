"""The report: complete in itself, true to the run it is of, and made even where the images have moved."""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ukan.data.index import index_folder, save_index
from ukan.data.problems import Problem, write_problems
from ukan.errors import DataError, UserError
from ukan.imaging import read_mask, write_mask
from ukan.paths import RunFolder, write_text
from ukan.plan import DataPlan, ModelPlan, Plan, SplitPlan
from ukan.report import pictures
from ukan.report.page import worst_middle_best, write_report
from ukan.report.tables import Score
from ukan.runs import Run

COLUMNS = ("case", "fold", "group", "label", "truth_empty", "found_empty", "dice", "hd95_px", "hd95_px_penalised")
LOG = "epoch,step,loss,val_loss,val_dice,lr,lr_kan,elapsed_s\n1,5,0.9,,,1e-3,1e-3,1\n2,10,0.8,0.7,0.5,1e-3,1e-3,2\n"
NASTY = "<img src=x onerror=alert(1)> & $x^"

MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path, write_dataset: Callable[..., Path]) -> MakeRun:
    """make_run(**changes of the plan): an evaluated run of two folds on twelve cases c000 ... c011, made by hand.

    The Dice written for case c00k is k/20, whatever its prediction.
    """

    def make(**changes: Any) -> RunFolder:
        root = write_dataset(tmp_path / "toy", 12)
        index = index_folder(root)
        assert index.fingerprint and not index.errors
        folder = RunFolder(tmp_path / "runs" / "toy")
        data = DataPlan(dataset="toy", layout="folders", index_sha256=index.fingerprint.index_sha256, input_size=(32, 32))
        plan = Plan(
            **{
                **{"name": "ukan", "data": data, "split": SplitPlan(folds=2), "model": ModelPlan(name="ukan")},
                **{"reasons": {"train.lr": "because <b>we</b> said so"}, **changes},
            }
        )
        names = [case.case for case in index.cases]
        plan.save(folder.plan)
        save_index(folder.index, index.cases)
        write_text(folder.fingerprint, index.fingerprint.model_dump_json())
        write_problems(folder.problems, [Problem("note", "empty mask", "c000", "no foreground", "kept")] * 7)
        folds = [{"train": names[6:], "val": names[:6]}, {"train": names[:6], "val": names[6:]}]
        write_text(folder.splits, json.dumps({"folds": folds}))
        session = {
            "command": ["ukan", "train", "a plan.yaml"],
            "device": "cpu",
            "commit": "abc+",
            "packages": {"torch": "2"},
        }
        environment = {"data_root": str(root), "sessions": [session], "folds": {"0": {"step": 20, "elapsed_s": 61.0}}}
        write_text(folder.environment, json.dumps(environment))
        rows = []
        for fold in (0, 1):
            folder.fold(fold).root.mkdir(parents=True)
            save_file({"weight": torch.full((2,), float(fold))}, folder.fold(fold).weights)
            write_text(folder.fold(fold).log, LOG)
            for name in folds[fold]["val"]:
                truth = read_mask(root / "masks" / f"{name}.png") > 0
                write_mask(folder.prediction(fold, name), np.roll(truth, 5, axis=1))
                rows.append([name, fold, name, "", 0, 0, int(name[1:]) / 20, 5.0, 5.0])
        write_scores(folder, plan, rows)
        return folder

    return make


def write_scores(folder: RunFolder, plan: Plan, rows: list[list[Any]], **more: Any) -> None:
    with folder.metrics.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    score = {"mean": 0.275, "interval95": [0.2, 0.35], "undefined": 0, "by_fold": [0.125, 0.425]}
    summary = {
        **{"protocol": plan.protocol, "split": plan.split.kind, "folds": [0, 1], "folds_missing": []},
        **{"scored": len(rows), "cases": len(rows), "groups": len(rows), "empty_truth": 0, "empty_found": 0},
        **{"scores": {"dice": score, "hd95_px": score | {"mean": None, "interval95": None, "by_fold": [None, None]}}},
        **{"weights_sha256": Run(folder, plan).weights_sha256(), **more},
    }
    write_text(folder.summary, json.dumps(summary))


def change_summary(folder: RunFolder, **changes: Any) -> None:
    write_text(folder.summary, json.dumps(json.loads(folder.summary.read_text()) | changes))


class Page(HTMLParser):
    """Tags with their attributes, and the text, of the page or of one of its sections."""

    def __init__(self, folder: RunFolder, section: str = "", **options: Any) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        path = write_report(folder.root, **options)
        assert path == folder.report
        self.html = path.read_text(encoding="utf-8")
        found = re.search(f'<section id="{section}">.*?</section>', self.html, re.DOTALL) if section else None
        self.feed(found[0] if found else self.html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def test_the_page_needs_nothing_from_outside(make_run: MakeRun) -> None:
    page = Page(make_run())
    assert not {tag for tag, _ in page.tags} & {"link", "script", "iframe", "object", "base"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                assert value and value.startswith(("data:", "#")), (name, value)
            assert not name.startswith("on")
    assert not re.search(r"https?://|@import|url\((?!#)", re.sub(r'"data:[^"]*"', "", page.html))
    assert all(attributes["alt"] for attributes in page.images)


def test_links_of_the_page_and_its_plots_lead_somewhere_and_nowhere_twice(make_run: MakeRun) -> None:
    page = Page(make_run())
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page.html)
    assert targets and {one or other for one, other in targets} <= set(names)


def test_names_of_cases_and_classes_are_text_and_nothing_else(make_run: MakeRun) -> None:
    folder = make_run()
    text = folder.metrics.read_text().replace("c001,0,c001,,", f'c001,0,"{NASTY}","{NASTY}",')
    folder.metrics.write_text(text)
    page = Page(folder)
    assert NASTY in page.text and "<img src=x" not in page.html
    assert "because <b>we</b> said so" in page.text and "<b>we" not in page.html


def test_scores_of_other_weights_are_refused_with_what_to_type(make_run: MakeRun) -> None:
    folder = make_run()
    save_file({"weight": torch.ones(3)}, folder.fold(1).weights)
    with pytest.raises(DataError, match=r"ukan evaluate .*toy` again"):
        write_report(folder.root)
    assert not folder.report.exists()


def test_cases_that_are_not_those_of_the_summary_are_refused(make_run: MakeRun) -> None:
    folder = make_run()
    folder.metrics.write_text("".join(folder.metrics.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="ukan evaluate"):
        write_report(folder.root)


@pytest.mark.parametrize("missing", ["summary", "metrics"])
def test_a_run_without_scores_is_refused_with_what_to_type(make_run: MakeRun, missing: str) -> None:
    folder = make_run()
    getattr(folder, missing).unlink()
    with pytest.raises(UserError, match=r"run `ukan evaluate .*toy` first"):
        write_report(folder.root)


def test_the_same_run_gives_the_same_page(make_run: MakeRun) -> None:
    folder = make_run()
    assert Page(folder).html == Page(folder).html


def test_where_the_images_have_moved_the_rest_is_told_and_the_option_named(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    (tmp_path / "toy").rename(tmp_path / "elsewhere")
    page = Page(folder)
    assert not page.images and "--data FOLDER" in page.text and "Mean Dice 0.275" in page.text
    assert len(Page(folder, data=tmp_path / "elsewhere").images) == 12 * 4 + 6 * 2
    with pytest.raises(DataError, match="no-such-place"):
        write_report(folder.root, data=tmp_path / "no-such-place")


def test_a_changed_image_and_a_lost_prediction_are_said_not_shown(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    write_mask(tmp_path / "toy" / "masks" / "c002.png", np.ones((48, 64), bool))
    folder.prediction(0, "c003").unlink()
    page = Page(folder, "cases")
    assert len(page.images) == 10 * 4
    assert "c002: its files have changed" in page.text and "c003.png: no such file" in page.text


def test_worst_cases_come_first_then_middle_then_best(make_run: MakeRun) -> None:
    page = Page(make_run(), "cases")
    shown = [alt.partition(":")[0] for attributes in page.images if (alt := attributes["alt"])]
    order = [0, 1, 2, 3, 4, 5, 6, 7, 11, 10, 9, 8]
    assert shown == [f"c{number:03}" for number in order for _ in range(4)]
    assert page.text.index("Worst c000") < page.text.index("Middle c004") < page.text.index("Best c011")


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 50])
def test_no_case_is_shown_twice_and_ties_go_by_name(count: int) -> None:
    scores = [Score(f"c{k:02}", 0, "g", "", False, 0.5, 1.0) for k in reversed(range(count))]
    chosen = worst_middle_best(scores, 2)
    flat = [score.case for group in chosen.values() for score in group]
    assert len(flat) == len(set(flat)) == min(count, 6)
    assert [score.case for score in chosen["Worst"]] == ["c00", "c01"][:count]


def test_colours_of_errors_are_those_of_the_legend() -> None:
    truth, found = np.array([[True, False, True, False]]), np.array([[True, True, False, False]])
    drawn = pictures.errors(np.zeros((1, 4, 3), np.uint8), truth, found)
    expected = [pictures.FOUND, pictures.INVENTED, pictures.MISSED, (0, 0, 0)]
    assert np.abs(drawn[0] - 0.6 * np.array(expected)).max() < 1


@pytest.mark.parametrize("shape", [(16, 16), (500, 400), (300, 3000), (2000, 10)])
def test_pictures_fit_their_box_and_keep_their_shape(shape: tuple[int, int]) -> None:
    height, width = pictures.fitted(np.zeros((*shape, 3), np.uint8)).shape[:2]
    assert height <= pictures.HEIGHT_PX and width <= pictures.WIDTH_PX
    assert height == pictures.HEIGHT_PX or width == pictures.WIDTH_PX
    assert pictures.fitted_mask(np.ones(shape, bool)).shape == (height, width)


def test_training_samples_are_of_the_first_fold_in_pairs(make_run: MakeRun) -> None:
    page = Page(make_run(), "samples")
    alts = [attributes["alt"] for attributes in page.images]
    assert sorted(alts) == sorted(f"c{k:03}: {what}" for k in range(6, 12) for what in ("prepared", "as trained on"))


def test_the_published_metric_has_a_table_of_its_own(make_run: MakeRun) -> None:
    folder = make_run(
        protocol="paper", split=SplitPlan(kind="published", seeds=(1, 2)), recipe="paper/x", published={"iou": 63.38}
    )
    ours = {"iou_pooled": 0.61234, "dice_of_iou_pooled": 0.7}
    published = {"what": "IoU pooled", "mean": ours, "by_fold": [ours, ours], "paper": {"iou": 63.38, "hd95": 9.5}}
    change_summary(folder, as_published=published)
    page = Page(folder, "scores")
    tables = re.findall(r"<table.*?</table>", page.html, re.DOTALL)
    of_ours, of_paper = (re.sub(r"<[^>]+>", " ", table).split() for table in tables[:2])
    assert "0.275" in of_ours and "63.38" not in of_ours and "pooled" not in of_ours
    assert "63.38" in of_paper and "61.23" in of_paper and "9.50" in of_paper and "0.275" not in of_paper
    assert "Not comparable with the table above" in page.text and "protocol: paper" in page.html


def test_an_honest_run_has_no_published_table(make_run: MakeRun) -> None:
    page = Page(make_run())
    assert "protocol: honest" in page.text and "published metric" not in page.text


def test_scores_of_a_part_of_the_folds_carry_a_warning(make_run: MakeRun) -> None:
    folder = make_run()
    assert "Only a part is scored" not in Page(folder).text
    folder.fold(1).weights.unlink()
    rows = [line.split(",") for line in folder.metrics.read_text().splitlines()[1:7]]
    write_scores(folder, Plan.load(folder.plan), rows, folds=[0], folds_missing=[1])
    text = Page(folder).text
    assert "Only a part is scored" in text and "6 of 12 held-out cases have no score" in text


def test_undefined_is_said_and_never_a_number(make_run: MakeRun) -> None:
    folder = make_run()
    folder.metrics.write_text(folder.metrics.read_text().replace("c000,0,c000,,0,0,0.0,5.0", "c000,0,c000,,1,0,0.0,nan"))
    text = Page(folder).text
    assert "HD95 undefined" in text and "nan" not in text.lower().split()
    assert "1 case has an empty mask" in text


def test_dataset_plan_and_origin_are_told(make_run: MakeRun) -> None:
    folder = make_run()
    text = Page(folder).text
    assert "7 notes: empty mask" in text and "and 2 more in problems.csv" in text
    assert "48, 48, 48" in text  # heights
    assert "'a plan.yaml'" in text and "abc+" in text and "1 min 01 s" in text
    for sha256 in Run(folder, Plan.load(folder.plan)).weights_sha256().values():
        assert sha256 in text
    for key in Plan.load(folder.plan).flat():
        assert key in text


def test_a_run_that_lost_its_records_still_gets_its_page(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run()
    for path in (folder.environment, folder.fingerprint, folder.problems, folder.fold(0).log, folder.fold(1).log):
        path.unlink()
    assert "Mean Dice 0.275" in Page(folder, data=tmp_path / "toy").text
