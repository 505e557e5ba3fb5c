"""A set of recipes on a made dataset: planned, trained and scored by one command that may be stopped, then compared."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.data.phantoms import write_ultrasound
from ukan.errors import DataError, UserError
from ukan.metrics.intervals import cluster_bootstrap
from ukan.models.cost import model_cost, paper_gflops
from ukan.plan import Plan
from ukan.segment import ablate as stage
from ukan.segment.ablate import Ablation, ablate
from ukan.segment.ablation_table import describe, shown
from ukan.segment.train import train
from ukan.stage.prepare import plan_folder

SET = """\
about: A made set.
common:
  data: {input_size: [32, 32]}
  split: {kind: published, seeds: [1, 2], held_out: 0.4}
  train: {epochs: 2, batch_size: 2, precision: fp32}
  model: {widths: [8, 8, 8]}
variants:
  kan: {model: {kan_layers: [kan]}, published: {iou: 65.26, dice: 78.75, gflops: 14.02}}
  mlp: {model: {kan_layers: [mlp]}}
"""


@pytest.fixture(scope="module")
def work(cache_home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ablation]:
    """A folder with a dataset, the set, and its two variants trained and scored; and what came of them."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        patch.chdir(folder)
        write_ultrasound(Path("data"), 12)  # one of them without a lesion, which takes no part
        Path("made.yaml").write_text(SET)
        return folder, run()


@pytest.fixture
def finished(work: tuple[Path, Ablation]) -> Ablation:
    """A copy of that folder to work in."""
    shutil.copytree(work[0], ".", dirs_exist_ok=True)
    return work[1]


@pytest.fixture
def fresh(work: tuple[Path, Ablation]) -> None:
    """The dataset and the set alone."""
    shutil.copytree(work[0] / "data", "data")
    Path("made.yaml").write_text(SET)


def run(**options: Any) -> Ablation:
    return ablate(Path("data"), "made.yaml", dataset="d", **options)


def scores(variant: str) -> list[dict[str, str]]:
    with Path(f"runs/d-made-{variant}/metrics_per_case.csv").open() as file:
        return list(csv.DictReader(file))


def sessions(variant: str) -> int:
    path = Path(f"runs/d-made-{variant}/environment.json")
    return len(json.loads(path.read_text(encoding="utf-8"))["sessions"]) if path.exists() else 0


def test_one_command_plans_trains_scores_and_compares(finished: Ablation) -> None:
    kan, mlp = finished.lines
    assert [kan.variant, mlp.variant] == ["kan", "mlp"] and not finished.missing and not finished.stopped
    dice = {name: np.array([float(row["dice"]) for row in scores(name)]) for name in ("kan", "mlp")}
    assert [(r["part"], r["case"]) for r in scores("kan")] == [(r["part"], r["case"]) for r in scores("mlp")]
    assert kan.dice == pytest.approx(dice["kan"].mean()) and mlp.dice == pytest.approx(dice["mlp"].mean())
    assert mlp.difference == pytest.approx((dice["mlp"] - dice["kan"]).mean()) and kan.difference is None
    groups = [row["group"] for row in scores("kan")]
    assert mlp.difference_interval95 == cluster_bootstrap(dice["mlp"] - dice["kan"], groups)
    summary = json.loads(Path("runs/d-made-mlp/summary.json").read_text(encoding="utf-8"))
    assert mlp.dice_interval95 == pytest.approx(summary["scores"]["dice"]["interval95"], abs=1e-5)
    assert mlp.iou_pooled == pytest.approx(summary["as_published"]["mean"]["iou_pooled"])
    assert (kan.cases, kan.scored, kan.groups) == (summary["cases"], summary["scored"], summary["groups"])
    sizes = Plan.load(Path("plans/d/made-kan.yaml")).model.sizes
    cost = model_cost("ukan", 1, 1, sizes, (32, 32))
    assert (kan.parameters, kan.gflops) == (cost.parameters, cost.flops / 1e9)
    assert kan.gflops_by_paper_rule == paper_gflops("ukan", 1, 1, sizes)
    assert (kan.paper_iou, kan.paper_dice, kan.paper_gflops) == (pytest.approx(0.6526), pytest.approx(0.7875), 14.02)
    assert mlp.paper_iou is mlp.paper_dice is mlp.paper_gflops is None
    assert kan.steps == 2 * 3 and kan.seconds_per_step


def test_the_same_command_again_does_nothing_twice(finished: Ablation) -> None:
    files = [path for name in ("kan", "mlp") for path in Path(f"runs/d-made-{name}").rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    table = Path("runs/d-made/table.csv")
    content = table.read_text(encoding="utf-8")
    table.unlink()
    assert run().lines == finished.lines
    assert {path: path.stat().st_mtime_ns for path in files} == before and table.read_text(encoding="utf-8") == content


def test_stopped_at_any_point_it_goes_on_and_ends_with_the_weights_of_single_trainings(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run(max_time_s=0.0)
    assert made.stopped == "before variant kan" and made.missing == ["kan", "mlp"] and not made.lines

    def stopping(plan: Path, **options: Any) -> Any:
        return train(plan, **options | ({"max_time_s": 0.0} if plan.stem == "made-mlp" else {}))

    with monkeypatch.context() as patch:
        patch.setattr(stage, "train", stopping)
        made = run(max_time_s=1000.0, folds=[0])
    assert made.stopped == "in variant mlp, fold 0, at step 1" and [line.variant for line in made.lines] == ["kan"]
    assert any("these splits: mlp" in note for note in made.notes)
    assert not run(folds=[0]).stopped
    assert (sessions("kan"), sessions("mlp")) == (1, 2)
    for variant in ("kan", "mlp"):
        _, path, _ = plan_folder(Path("data"), recipe=f"made.yaml/{variant}", name=f"made-{variant}", dataset="d")
        train(path, run=Path("runs/alone"), folds=[0], fresh=True)
        one, other = (load_file(f"runs/{name}/fold_0/model.safetensors") for name in (f"d-made-{variant}", "alone"))
        assert all(one[name].equal(other[name]) for name in one)


def test_a_fold_more_is_scored_and_compared_with_the_others(finished: Ablation) -> None:
    for variant in ("kan", "mlp"):
        shutil.rmtree(f"runs/d-made-{variant}/fold_1")
    made = run(folds=[0])
    assert json.loads(Path("runs/d-made-kan/summary.json").read_text(encoding="utf-8"))["folds"] == [0], (
        "other networks: scored anew"
    )
    assert made.lines[0].scored == 5 and finished.lines[0].scored == 10
    again = run()
    assert sessions("kan") == 2 and [line._replace(seconds_per_step=None) for line in again.lines] == [
        line._replace(seconds_per_step=None) for line in finished.lines
    ]


def test_a_single_fold_is_compared_by_itself_whatever_else_is_trained(finished: Ablation) -> None:
    line = run(folds=[1], table_only=True).lines[0]
    assert line.scored == 5 and line.folds == (1,)
    assert line.dice == pytest.approx(np.mean([float(row["dice"]) for row in scores("kan") if row["part"] == "fold_1"]))


def test_only_trains_what_it_names_and_the_table_tells_what_is_missing(fresh: None) -> None:
    made = run(only=["mlp"], folds=[0])
    assert (sessions("kan"), sessions("mlp")) == (0, 1)
    assert [line.variant for line in made.lines] == ["mlp"] and made.missing == ["kan"]
    made = run(only=["kan"], folds=[0])
    assert [line.variant for line in made.lines] == ["kan", "mlp"], "what is finished stays in the table, in the set's order"
    with pytest.raises(UserError, match="--only mpl: the set has no such variant. Did you mean 'mlp'"):
        run(only=["mpl"])


def test_other_settings_are_refused_before_anything_is_trained_and_have_room_under_another_name(finished: Ablation) -> None:
    shutil.rmtree("runs/d-made-kan")
    with pytest.raises(UserError, match=r"runs/d-made-mlp was begun with another plan \(then -> now: train.epochs: 2 -> 1;"):
        run(folds=[0], settings=["train.epochs=1"])
    assert not Path("runs/d-made-kan").exists() and Plan.load(Path("plans/d/made-mlp.yaml")).train.epochs == 2
    assert run(table_only=True, folds=[0], settings=["train.epochs=1"]).missing == ["kan", "mlp"]
    made = run(folds=[0], settings=["train.epochs=1"], name="Short one", only=["kan"])
    assert made.place.table == Path("runs/d-short-one/table.csv") and made.lines[0].steps == 3
    assert any("train.epochs=1" in note for note in made.notes)


def test_what_the_variants_differ_in_cannot_be_set(fresh: None) -> None:
    with pytest.raises(UserError, match="--set model.kan_layers: the variants of made.yaml differ in just this"):
        run(settings=["model.kan_layers=[kan]"])


@pytest.mark.parametrize("other", ["split: {seeds: [1, 3]}", "data: {empty_cases: keep}"])
def test_variants_scored_on_other_cases_are_refused_before_anything_is_trained(fresh: None, other: str) -> None:
    Path("made.yaml").write_text(SET + f"  other: {{{other}}}\n")
    with pytest.raises(UserError, match="variants kan and other differ in cases, folds or classes"):
        run()
    assert not Path("runs").exists()


def test_scores_of_other_cases_are_not_compared(finished: Ablation) -> None:
    path = Path("runs/d-made-mlp/metrics_per_case.csv")
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"do not hold the same cases.*`ukan evaluate runs/d-made-mlp`"):
        run()


def test_several_processes_are_told_what_to_do(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process; make each variant's plan with `ukan plan"):
        run()


def ukan(*words: str) -> str:
    result = CliRunner().invoke(app, ["ablate", "data", "made.yaml", "--dataset", "d", *words])
    if result.exception:
        raise result.exception
    return result.output


def test_the_command_prints_the_table_with_its_rules_and_writes_it_and_the_page(finished: Ablation) -> None:
    shutil.rmtree("runs/d-made")
    assert "no variant is finished, so there is no table yet" in ukan("--table", "--name", "other")
    out = ukan("--fold", "1")
    assert "variant 2 of 2: mlp, trained" in out and "written: runs/d-made/table.html, runs/d-made/table.csv" in out
    assert re.search(r"Protocol honest, split 1 of 2: 5 held-out cases in \d groups; 6 steps a split at 32x32\.", out)
    assert "0.6526" in out and "14.02" in out and "A made set." in out
    with Path("runs/d-made/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    page = Path("runs/d-made/table.html").read_text(encoding="utf-8")
    assert [row["variant"] for row in rows] == ["kan", "mlp"] and rows[1]["paper_iou"] == ""
    for row in rows:
        assert f"{float(row['dice']):.4f}" in out and f"{float(row['dice']):.4f}" in page
        assert f"{int(row['parameters']):,}" in page and row["variant"] in page
    assert "<script" not in page and "http:" not in page and "https:" not in page
    said = set(re.findall(r"`([^`\n]+)`", (Path(__file__).parents[2] / "docs/verbs/ablate.md").read_text(encoding="utf-8")))
    assert set(rows[0]) <= said, "the verb's page explains every column"


def test_what_is_not_known_of_any_variant_has_no_column(finished: Ablation) -> None:
    unknown = dict.fromkeys(("iou_pooled", "dice_of_iou_pooled", "paper_iou", "paper_dice", "paper_gflops"))
    columns, rows = shown([line._replace(**unknown) for line in finished.lines])
    assert not any("paper's" in name and "rule" not in name or "pooled" in name for name in columns)
    assert all(len(row) == len(columns) for row in rows) and rows[0][columns.index("Dice, difference\nto the first")] == "-"
    plan = Plan.load(Path("plans/d/made-kan.yaml"))
    notes = describe([line._replace(**unknown) for line in finished.lines], plan, "", [], [])
    assert not any("Pooled" in note or "paper's scores" in note for note in notes)


def test_unequal_effort_is_told(finished: Ablation) -> None:
    kan, mlp = finished.lines
    plan = Plan.load(Path("plans/d/made-kan.yaml"))
    notes = describe([kan, mlp._replace(steps=60)], plan, "", [], [])
    assert "6 or 60 steps a split" in notes[0] and any("no comparison at equal effort" in note for note in notes)
