"""Evaluated runs side by side: numbers against independent ones, and everything that must not be compared refused."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import wilcoxon
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.errors import UserError
from ukan.metrics.intervals import cluster_bootstrap
from ukan.models.cost import Cost, model_cost
from ukan.paths import RunFolder
from ukan.plan import Plan
from ukan.runs import open_run
from ukan.segment import compare as stage
from ukan.segment import speed
from ukan.segment.compare import compare
from ukan.segment.evaluate import evaluate
from ukan.segment.train import train
from ukan.stage.prepare import plan_folder

PAGE = Path(__file__).parents[2] / "docs" / "verbs" / "compare.md"
COMMON = ["data.input_size=[32,32]", "split.folds=2", "train.epochs=1", "train.batch_size=4", "train.precision=fp32"]
RUNS = {
    "kan": ["model.widths=[8,8,8]"],
    "wide": ["model.widths=[8,8,16]"],
    "unet": ["model.widths=[4,4,4,4,4]", "train.lr=0.01"],
}
KAN, WIDE, UNET = (Path("runs") / f"d-{name}" for name in RUNS)
ALL = [KAN, WIDE, UNET]


@pytest.fixture(scope="module")
def made(cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one dataset, trained for a moment and scored; one of its test part's patients is trained on."""
    folder = tmp_path_factory.mktemp("compared")
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        patch.chdir(folder)
        names = [("train", f"p{number // 2}_{number % 2}") for number in range(20)]  # ten patients of two pictures each
        names += [("test", f"q{number // 2}_{number % 2}") for number in range(13)] + [("test", "p3_2")]
        for number, (part, name) in enumerate(names):
            for kind, values in (("images", rng.integers(0, 120, (6, 8))), ("masks", np.zeros((6, 8)))):
                values = np.kron(values, np.ones((8, 8)))
                top, left = 8 + number % 5, 10 + number % 7
                values[top : top + 20, left : left + 24] += 130 if kind == "images" else 255
                path = Path("data") / part / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(path)
        for name, settings in RUNS.items():
            _, plan, _ = plan_folder(
                Path("data"),
                settings=[*COMMON, *settings],
                name=name,
                model="unet" if name == "unet" else "ukan",
                dataset="d",
                group_regex=r"(?:^|/)([pq]\d+)_",
            )
            train(plan, device="cpu", workers=0)
            for test in (False, True):  # a network trained so shortly finds next to nothing
                _, scores = evaluate(Path("runs") / f"d-{name}", test=test, device="cpu")
                rescore(scores.root, lambda row: row)
    return folder


@pytest.fixture(autouse=True)
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the runs to work in, and quick turns."""
    shutil.copytree(made / "runs", "runs")
    monkeypatch.setattr(speed, "time_networks", partial(speed.time_networks, rounds=3, round_s=0.01))
    monkeypatch.setattr(stage, "model_cost", cost_once)


COSTS: dict[str, Cost] = {}


def cost_once(*of: Any) -> Cost:
    """Counting takes a second for each network."""
    return COSTS.setdefault(repr(of), COSTS.get(repr(of)) or model_cost(*of))


def rescore(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Scores as of networks that find something, different for each run, changed by hand."""
    table = path / "metrics_per_case.csv"
    run = path.parent if path.name == "test" else path
    rng = np.random.default_rng(list(RUNS).index(run.name[2:]))
    rows = list(csv.DictReader(table.open()))
    if {row["dice"] for row in rows} & {"0.000000"} or all(row["hd95"] == "nan" for row in rows):
        for number, row in enumerate(rows):
            dice = float(np.clip(0.5 + 0.02 * number + rng.normal(0, 0.04) + 0.1 * (run == UNET), 0, 1))
            row |= {"dice": f"{dice:.6f}", "iou": f"{dice / (2 - dice):.6f}", "hd95": f"{30 * (1 - dice):.6f}"}
            row |= {"hd95_penalised": row["hd95"]}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(change(row) for row in rows)


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def change_plan(path: Path, **settings: Any) -> None:
    plan = Plan.load(path / "plan.yaml")
    content = plan.content()
    for key, value in settings.items():
        *parts, leaf = key.split("__")
        place = content
        for part in parts:
            place = place[part]
        place[leaf] = value
    Plan.parse(content, "changed").save(path / "plan.yaml")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((path / "metrics_per_case.csv").open()))


def column(path: Path, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows_of(path)])


def refusal(paths: list[Path], **options: Any) -> str:
    with pytest.raises(UserError) as refused:
        compare(paths, speed=False, out=Path("refused"), **options)
    assert not Path("refused").exists(), "nothing is written"
    return str(refused.value)


# The numbers.


def test_every_number_is_what_another_way_gives() -> None:
    record, _ = compare(ALL, speed=False)
    (table,) = record["tables"]
    groups = [row["group"] for row in rows_of(KAN)]
    assert record["cases"] == record["scored"] == 20 and record["groups"] == table["groups"] == len(set(groups)) == 10
    for path, line in zip(ALL, table["runs"], strict=True):
        assert line["folder"] == path.as_posix() and line["run"] == path.name[2:]
        for score in ("dice", "iou", "hd95_penalised"):
            values = column(path, score)
            assert line["scores"][score]["mean"] == pytest.approx(values.mean())
            assert line["scores"][score]["interval95"] == pytest.approx(cluster_bootstrap(values, groups))
        plan = Plan.load(path / "plan.yaml")
        cost = model_cost(plan.model.name, plan.data.channels, 1, plan.model.sizes, (32, 32))
        assert (line["parameters"], line["gflops"]) == (cost.parameters, cost.flops / 1e9)
        assert line["activations_mib"] == pytest.approx(4 * cost.activation_bytes / 2**20)
        made = open_run(path).environment()["folds"]
        assert line["steps"] == made["0"]["step"] == made["1"]["step"] and line["images_per_second"] is None
        assert line["seconds_per_step"] == pytest.approx(
            sum(fold["elapsed_s"] for fold in made.values()) / sum(fold["step"] for fold in made.values())
        )
    p = []
    for path, line in zip(ALL[1:], table["runs"][1:], strict=True):
        apart = column(path, "dice") - column(KAN, "dice")
        assert line["against"]["difference"] == pytest.approx(apart.mean())
        assert line["against"]["interval95"] == pytest.approx(cluster_bootstrap(apart, groups))
        means = [apart[np.array(groups) == group].mean() for group in sorted(set(groups))]
        p.append(wilcoxon(means).pvalue)
        assert line["against"]["p"] == pytest.approx(p[-1])
    assert [line["against"]["p_holm"] for line in table["runs"][1:]] == pytest.approx(
        [min(1, max(2 * q if q == min(p) else q, 2 * min(p))) for q in p]
    )
    assert table["runs"][2]["against"]["verdict"] == "better" and table["runs"][0]["against"] is None
    assert [(pair["run"], pair["against"]) for pair in table["pairs"]] == [
        ("wide", "kan"),
        ("unet", "kan"),
        ("unet", "wide"),
    ]


def test_another_reference_comes_first_and_turns_the_sign() -> None:
    record, _ = compare([KAN, UNET], speed=False)
    turned, _ = compare([KAN, UNET], reference=UNET, speed=False)
    assert turned["tables"][0]["reference"] == "unet" and [r["run"] for r in turned["tables"][0]["runs"]] == ["unet", "kan"]
    there, back = (found["tables"][0]["runs"][1]["against"] for found in (record, turned))
    assert back["difference"] == pytest.approx(-there["difference"]) and back["p"] == there["p"]
    assert (there["verdict"], back["verdict"]) == ("better", "worse")


def test_of_distances_the_smaller_is_the_better() -> None:
    record, _ = compare([KAN, UNET], metric="hd95", speed=False)
    line = record["tables"][0]["runs"][1]
    assert record["lower_is_better"] and line["against"]["difference"] < 0 and line["against"]["verdict"] == "better"
    assert set(line["scores"]) == {"dice", "iou", "hd95_penalised", "hd95"}


def test_what_one_run_leaves_undefined_is_compared_in_none_and_counted() -> None:
    gone = {rows_of(UNET)[k]["case"] for k in (2, 7, 11)}
    rescore(UNET, lambda row: row | ({"hd95": "nan"} if row["case"] in gone else {}))
    record, _ = compare(ALL, metric="hd95", speed=False)
    (table,) = record["tables"]
    keep = [row["case"] not in gone for row in rows_of(KAN)]
    assert table["compared"] == {"dice": 20, "iou": 20, "hd95_penalised": 20, "hd95": 17}
    for path, line in zip(ALL, table["runs"], strict=True):
        assert line["scores"]["hd95"]["mean"] == pytest.approx(column(path, "hd95")[keep].mean())
    assert len(table["by_case"]["hd95"]["kan"]) == 17
    assert any("hd95 (trained from scratch): 3 of 20 cases are left out" in note for note in record["notes"])
    rescore(KAN, lambda row: row | {"hd95": "nan"})
    assert "hd95: defined in all runs for no case" in refusal(ALL, metric="hd95")


def test_several_classes_are_averaged_within_cases_and_stand_in_the_csv() -> None:
    for path in (KAN, UNET):
        change_plan(path, data__target="multilabel", data__classes=["a", "b"])
        rows = rows_of(path)
        for row in rows:
            row["class"] = "a"
        twice = rows + [
            row | {"class": "b", "dice": f"{float(row['dice']) / 2:.6f}", "hd95": "nan" if k % 2 else "7.0"}
            for k, row in enumerate(rows)
        ]
        with (path / "metrics_per_case.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(sorted(twice, key=lambda row: (row["part"], row["case"], row["class"])))
    record, place = compare([KAN, UNET], speed=False, metric="hd95")
    first = record["tables"][0]["runs"][0]
    of = {name: [row for row in rows_of(KAN) if row["class"] == name] for name in ("a", "b")}
    dice = {name: np.array([float(row["dice"]) for row in rows]) for name, rows in of.items()}
    assert record["classes"] == ["a", "b"] and record["scored"] == 20
    assert first["scores"]["dice"]["mean"] == pytest.approx((dice["a"].mean() + dice["b"].mean()) / 2)
    assert first["scores"]["dice"]["by_class"] == pytest.approx({name: values.mean() for name, values in dice.items()})
    hd95 = [np.nanmean([float(a["hd95"]), float(b["hd95"])]) for a, b in zip(of["a"], of["b"], strict=True)]
    assert first["scores"]["hd95"]["mean"] == pytest.approx(np.mean(hd95)), "a class undefined leaves the other"
    line = next(csv.DictReader(place.table.open()))
    assert float(line["dice_b"]) == pytest.approx(dice["b"].mean(), rel=1e-5)


def test_one_fold_alone_is_compared() -> None:
    record, _ = compare(ALL, folds=[1], speed=False)
    values = [float(row["dice"]) for row in rows_of(KAN) if row["part"] == "fold_1"]
    assert record["folds"] == [1] and record["scored"] == len(values) == 10
    assert record["tables"][0]["runs"][0]["scores"]["dice"]["mean"] == pytest.approx(np.mean(values))


def test_few_groups_are_told_to_show_nothing() -> None:
    record, _ = compare(ALL, folds=[0], speed=False)
    (table,) = record["tables"]
    assert table["groups"] == 5 and all(pair["detectable"] is None for pair in table["pairs"])
    assert any("With 5 groups and 2 comparisons no p of this test can be below 0.125" in note for note in record["notes"])
    assert not any("no p of this test" in note for note in compare(ALL, speed=False)[0]["notes"])


def test_groups_that_do_not_differ_are_told_not_to_count_in_the_test() -> None:
    dice = {row["case"]: row["dice"] for row in rows_of(KAN)}
    apart = set([row["case"] for row in rows_of(KAN)][:2])
    rescore(WIDE, lambda row: row | ({} if row["case"] in apart else {"dice": dice[row["case"]]}))
    record, _ = compare(ALL, speed=False)
    against = record["tables"][0]["runs"][1]["against"]
    groups = {row["group"] for row in rows_of(KAN) if row["case"] in apart}
    assert against["differing"] == len(groups) and against["p"] == 1 and against["detectable"] is None
    said = [note for note in record["notes"] if "no p of this test" in note]
    assert said == [
        f"wide and kan differ in {len(groups)} of 10 groups: no p of this test can be below 1, and it shows nothing at 5 %."
    ], "unet differs from kan in all"


def test_what_one_training_is_is_told_by_the_folds_that_are_compared() -> None:
    assert any(note.startswith("Each fold is one training") for note in compare(ALL, speed=False)[0]["notes"])
    assert any(note.startswith("Each run is one training") for note in compare(ALL, folds=[1], speed=False)[0]["notes"])


def test_pretrained_networks_stand_in_a_table_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    began = property(lambda c: "imagenet" if c.path in (UNET, WIDE) else "none")
    monkeypatch.setattr(stage.Candidate, "weights", began)
    record, place = compare([KAN, UNET, WIDE], speed=False)
    scratch, pretrained = record["tables"]
    assert [line["run"] for line in scratch["runs"]] == ["kan"] and not scratch["pairs"]
    assert [line["run"] for line in pretrained["runs"]] == ["unet", "wide"] and pretrained["reference"] == "unet"
    assert pretrained["runs"][1]["against"] and not pretrained["runs"][0]["against"]
    assert [row["table"] for row in csv.DictReader(place.pairs.open())] == ["began with pretrained weights"]
    assert any("weights: none (kan), imagenet (unet, wide)" in line for line in record["unequal"])


# Effort.


def test_what_makes_runs_unequal_is_told_and_nothing_else() -> None:
    assert not compare([KAN, WIDE], speed=False)[0]["unequal"], "the network's own sizes are what is compared"
    change_plan(
        WIDE, train__seed=7, train__augment__hflip=0.123, preset="fast", infer__batch_size=3, data__input_size=[32, 64]
    )
    record = json.loads((WIDE / "environment.json").read_text(encoding="utf-8"))
    for fold in record["folds"].values():
        fold["step"] = 999
    change_json(WIDE / "environment.json", folds=record["folds"])
    said = "\n".join(compare(ALL, speed=False)[0]["unequal"])
    assert re.search(r"train\.lr: 0\.\d+ \(kan, wide\), 0\.01 \(unet\)", said)
    for what in ("train.seed: 0 (kan, unet), 7 (wide)", "train.augment.hflip", "preset: ", "data.input_size: [32, 32]"):
        assert what in said
    assert re.search(r"steps of a fold: \d+ \(kan, unet\), 999 \(wide\)", said)
    assert "infer.batch_size" not in said and "model" not in said and "reasons" not in said


def test_steps_of_all_folds_are_held_against_one_another() -> None:
    for path, steps in ((KAN, (6, 6)), (WIDE, (6, 10)), (UNET, (6, None))):
        record = json.loads((path / "environment.json").read_text(encoding="utf-8"))
        for number, fold in enumerate(steps):
            record["folds"][str(number)] = {} if fold is None else record["folds"][str(number)] | {"step": fold}
        change_json(path / "environment.json", folds=record["folds"])
    record, _ = compare(ALL, speed=False)
    assert "steps of a fold: 6 (kan), 6 10 (wide), 6 unknown (unet)" in record["unequal"]
    assert [line["steps"] for line in record["tables"][0]["runs"]] == [6, 8, 6], "the mean of those known"


# Refusals.


def test_scores_that_are_not_of_the_present_networks_are_refused() -> None:
    weights = RunFolder(WIDE).fold(1).weights
    shutil.copy(RunFolder(WIDE).fold(0).weights, weights)
    assert "d-wide: fold 1: the scores are not of the networks that are there now; run `ukan evaluate" in refusal(ALL)
    assert compare(ALL, folds=[0], speed=False), "the other fold is as it was"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: (WIDE / "summary.json").unlink(), "not evaluated; run `ukan evaluate runs/d-wide` first"),
        (lambda: (WIDE / "summary.json").write_text("{"), "its scores cannot be read"),
        (lambda: change_json(WIDE / "summary.json", tta=True), "scored with --tta"),
        (lambda: change_json(WIDE / "summary.json", scored=21), "differ in cases; run `ukan evaluate"),
        (lambda: change_plan(WIDE, protocol="paper"), "protocol paper, not honest"),
        (lambda: change_plan(WIDE, data__dataset="e"), "dataset e, not d"),
        (lambda: change_plan(WIDE, data__index_sha256="0" * 64), "with other files or groups (index 00000000, not"),
        (lambda: change_plan(WIDE, data__mask_rule="half"), "masks are read otherwise"),
        (lambda: change_plan(WIDE, data__index_sha256=""), "imported without the dataset it was trained on"),
        (lambda: rescore(WIDE, lambda row: row | {"group": "g" + row["case"]}), "cases are grouped otherwise"),
        (lambda: rescore(WIDE, lambda row: row | {"class": "other"}), "other cases are scored: 40 scores stand in one"),
        (lambda: (WIDE / "plan.yaml").unlink(), "not a run folder"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_what_differs_and_what_to_do(
    change: Callable[[], Any], said: str
) -> None:
    change()
    assert said in refusal(ALL) and "d-wide" in refusal(ALL)


@pytest.mark.parametrize("side", ["val", "train"])
def test_other_folds_are_refused(side: str) -> None:
    path = UNET / "splits.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["folds"][1][side].pop()
    path.write_text(json.dumps(content))
    change_plan(UNET, split__seeds=[3])
    words = {"val": "holds out", "train": "trains on"}[side]
    assert f"fold 1 {words} other cases (split.seeds: [0] -> [3]), 1 stand in one of them alone" in refusal(ALL)
    assert compare(ALL, folds=[0], speed=False)


def test_folds_that_are_not_scored_everywhere_are_told_with_those_that_are() -> None:
    shutil.rmtree(UNET / "fold_1")
    rows = [row for row in rows_of(UNET) if row["part"] == "fold_0"]
    with (UNET / "metrics_per_case.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    change_json(UNET / "summary.json", folds=[0], scored=len(rows))
    said = refusal(ALL)
    assert "runs/d-kan: 0 1; runs/d-wide: 0 1; runs/d-unet: 0" in said and "`--fold 0` compares what all have" in said
    assert "fold 1 is not scored (scored: 0)" in refusal(ALL, folds=[1])
    assert compare(ALL, folds=[0], speed=False)


def test_an_ablation_s_folder_is_answered_with_its_runs() -> None:
    table = Path("runs/d/table.csv")
    table.parent.mkdir()
    table.write_text("variant\n")
    assert "an ablation's table, not a run; give its variants' runs (runs/d-kan, runs/d-unet, runs/d-wide)" in refusal(
        [KAN, table.parent]
    )


def test_all_that_is_wrong_with_all_runs_is_told_at_once() -> None:
    change_json(WIDE / "summary.json", tta=True)
    change_plan(UNET, protocol="paper")
    said = refusal([*ALL, Path("nowhere")])
    assert said.count("\n") == 3
    assert all(what in said for what in ("--tta", "protocol paper", "nowhere: not a run folder"))


def test_requests_that_make_no_comparison_are_refused() -> None:
    assert "one run alone compares with nothing" in refusal([KAN])
    assert "a run is given twice" in refusal([KAN, Path("runs/../runs/d-kan")])
    assert "--reference runs/x: none of the runs given" in refusal(ALL, reference=Path("runs/x"))
    assert "--metric dise: no score of all these runs" in refusal(ALL, metric="dise")
    assert "--metric object_f1: no score of all these runs" in refusal(ALL, metric="object_f1")


def test_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    shutil.copytree(KAN, "again/d-kan")
    record, _ = compare([KAN, Path("again/d-kan")], speed=False)
    assert [line["run"] for line in record["tables"][0]["runs"]] == ["runs/d-kan", "again/d-kan"]
    against = record["tables"][0]["runs"][1]["against"]
    assert against["verdict"] == "no difference shown" and against["p"] == 1 and against["detectable"] is None


# The official test part.


def test_the_official_test_part_is_compared_apart_from_the_held_out_cases() -> None:
    record, place = compare(ALL, test=True, speed=False)
    held_out, other_place = compare(ALL, speed=False)
    (table,) = record["tables"]
    groups = [row["group"] for row in rows_of(KAN / "test")]
    assert (record["what"], held_out["what"]) == ("the official test part", "held-out cases")
    assert record["cases"] == record["scored"] == 14 and record["groups"] == table["groups"] == len(set(groups)) == 8
    assert not set(table["by_case"]["case"]) & set(held_out["tables"][0]["by_case"]["case"])
    assert set(table["by_case"]["part"]) == {"all"} and record["folds"] == [0, 1]
    for path, line in zip(ALL, table["runs"], strict=True):
        values = column(path / "test", "dice")
        assert line["scores"]["dice"]["mean"] == pytest.approx(values.mean())
        assert line["scores"]["dice"]["interval95"] == pytest.approx(cluster_bootstrap(values, groups))
    for path, line in zip(ALL[1:], table["runs"][1:], strict=True):
        apart = column(path / "test", "dice") - column(KAN / "test", "dice")
        means = [apart[np.array(groups) == group].mean() for group in sorted(set(groups))]
        assert line["against"]["difference"] == pytest.approx(apart.mean())
        assert line["against"]["p"] == pytest.approx(wilcoxon(means).pvalue)
    assert place.root.as_posix() == f"{other_place.root.as_posix()}-test", "neither overwrites the other"
    for made, what in ((place, "the official test part"), (other_place, "held-out cases")):
        assert {row["what"] for row in csv.DictReader(made.table.open())} == {what}


def test_cases_of_the_test_part_whose_patients_were_trained_on_are_counted() -> None:
    record, _ = compare(ALL, test=True, speed=False)
    assert record["twins_in_training"] == 1
    assert any("1 of the 14 test cases are of groups that were trained on" in note for note in record["notes"])
    record, _ = compare(ALL, speed=False)
    assert record["twins_in_training"] == 0 and not any("trained on" in note for note in record["notes"])


def test_page_and_terminal_say_by_which_networks_the_test_part_is_scored() -> None:
    out = ukan(*map(str, ALL), "--test", "--no-speed")
    said = "Protocol honest, scores of the official test part by the mean of the finished folds 0, 1: 14 cases in 8 groups."
    page = Path("runs/compare-d-kan-wide-unet-test/compare.html").read_text(encoding="utf-8")
    assert "d, the official test part, runs trained from scratch" in out and "held-out" not in out
    assert said in out and said in page and "3 runs compared by the official test part</h1>" in page
    assert "not of the 2 whose mean is scored" in out and "held-out" not in page
    for path in ALL:  # as where the other fold is yet to be trained
        shutil.rmtree(path / "fold_1")
        change_json(path / "test/summary.json", folds=[0], weights_sha256=open_run(path).weights_sha256())
    out = ukan(*map(str, ALL), "--test", "--no-speed")
    assert "by the finished fold 0 (of 2): 14 cases" in out and "whose mean" not in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: shutil.rmtree(WIDE / "test"), "test part is not scored; run `ukan evaluate runs/d-wide --test` first"),
        (
            lambda: (WIDE / "test/summary.json").write_text("{"),
            "its scores cannot be read (JSONDecodeError",
        ),
        (lambda: change_json(WIDE / "test/summary.json", tta=True), "scored with --tta"),
        (
            lambda: change_json(WIDE / "test/summary.json", scored=15),
            "differ in cases; run `ukan evaluate runs/d-wide --test`",
        ),
        (lambda: change_plan(WIDE, data__index_sha256="0" * 64), "with other files or groups"),
        (lambda: rescore(WIDE / "test", lambda row: row | {"group": "g"}), "cases are grouped otherwise"),
        (
            lambda: rescore(WIDE / "test", lambda row: row | {"case": "x" + row["case"]}),
            "other cases are scored: 28 scores stand in one of them alone",
        ),
        (
            lambda: shutil.copy(RunFolder(WIDE).fold(0).weights, RunFolder(WIDE).fold(1).weights),
            "fold 1: the scores are not of the networks that are there now; run `ukan evaluate runs/d-wide --test` again",
        ),
        (lambda: shutil.rmtree(WIDE / "fold_1"), "fold 1: the scores are not of the networks that are there now"),
        (
            lambda: change_json(
                WIDE / "test/summary.json", folds=[0], weights_sha256={"0": open_run(WIDE).weights_sha256()["0"]}
            ),
            "fold 1: the scores are not of the networks that are there now",  # it was finished after
        ),
    ],
)
def test_test_parts_that_cannot_be_compared_are_refused_with_what_to_do(change: Callable[[], Any], said: str) -> None:
    change()
    assert said in refusal(ALL, test=True) and "d-wide" in refusal(ALL, test=True)


def test_test_parts_scored_by_means_of_other_folds_are_refused() -> None:
    shutil.rmtree(UNET / "fold_1")
    change_json(UNET / "test/summary.json", folds=[0], weights_sha256=open_run(UNET).weights_sha256())
    said = refusal(ALL, test=True)
    assert "by the mean of other folds (runs/d-kan: 0 1; runs/d-wide: 0 1; runs/d-unet: 0)" in said
    assert "train those that are missing and `ukan evaluate RUN --test` again" in said and "--fold" not in said


def test_one_fold_of_a_test_part_is_refused() -> None:
    assert refusal(ALL, test=True, folds=[0]).startswith("--fold and --test: one at a time")


# Speed, files, the command.


def test_networks_take_turns_and_like_ones_are_measured_once() -> None:
    shutil.copytree(KAN, "runs/d-twin")
    runs = [open_run(path) for path in (KAN, UNET, Path("runs/d-twin"))]
    told: list[tuple[int, int]] = []
    timed = speed.time_networks(runs, 0, torch.device("cpu"), on_progress=lambda *done: told.append(done))
    assert timed.seconds_RK.shape == (3, 3) and (timed.seconds_RK > 0).all() and told == [(1, 3), (2, 3), (3, 3)]
    assert (timed.seconds_RK[:, 0] == timed.seconds_RK[:, 2]).all() and timed.peak_bytes == [None] * 3
    assert "thread" in timed.machine


def ukan(*words: str) -> str:
    result = CliRunner().invoke(app, ["compare", *words])
    if result.exception:
        raise result.exception
    return result.output


def test_the_command_prints_narrow_tables_and_writes_files_that_the_verb_s_page_explains() -> None:
    dice = {row["case"]: row["dice"] for row in rows_of(KAN)}
    rescore(WIDE, lambda row: row | {"dice": dice[row["case"]]})
    out = ukan(*map(str, ALL), "--out", "cmp", "--device", "cpu")
    lines = out[: out.index("Protocol honest")].splitlines()
    tables = lines[next(k for k, line in enumerate(lines) if line.startswith("d, held-out cases, runs")) :]
    assert max(len(line.rstrip()) for line in tables) <= 100
    assert "no difference shown" in out and "better" in out and "written: cmp/compare.html, cmp/compare.csv" in out
    assert "equal" not in "\n".join(tables) and "significant" not in out
    with Path("cmp/compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["kan", "wide", "unet"]
    assert float(rows[0]["time_ratio"]) == 1 and all(float(row["images_per_second"]) > 0 for row in rows)
    assert rows[0]["difference"] == "" and rows[2]["peak_mib"] == ""
    page = Path("cmp/compare.html").read_text(encoding="utf-8")
    for row in rows:
        assert (
            f"{float(row['dice']):.4f}" in page
            and f"{float(row['dice']):.4f}" in out
            and f"{int(row['parameters']):,}" in page
        )
    with Path("cmp/pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    assert len(pairs) == 3 and pairs[0]["verdict"] == "no difference shown"
    said = set(re.findall(r"`([^`\n]+)`", PAGE.read_text(encoding="utf-8")))
    record = json.loads(Path("cmp/compare.json").read_text(encoding="utf-8"))
    keys = {*record, *record["tables"][0]}
    assert {*rows[0], *pairs[0], *keys} <= said, {*rows[0], *pairs[0], *keys} - said


def test_without_speed_nothing_is_measured_and_no_network_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(stage.Run, "network", opened)
    out = ukan(str(KAN), str(WIDE), "--no-speed")
    assert "images" not in out and Path("runs/compare-d-kan-wide/compare.html").exists()
