"""From a raw folder to a report through the command line, and what people get who mistype."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.errors import UserError

SETTINGS = ("data.input_size=[32,32]", "split.folds=2", "model.widths=[8,8,8]", "train.batch_size=4", "train.epochs=2")
SET = [word for setting in SETTINGS for word in ("--set", setting)]


def ukan(*words: object, code: int = 0) -> str:
    """What a command prints; an error meant for people is given as the line that main() prints."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        assert result.exception.exit_code == code, result.exception
        return str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_from_a_raw_folder_to_a_report(write_dataset) -> None:
    write_dataset(Path("data"), count=12, size=(40, 56))
    assert "12 cases" in ukan("check", "data")
    out = ukan("plan", "data", *SET)
    assert "because" in out and "ukan train plans/data/ukan.yaml" in out
    assert "a step takes" in ukan("train", "plans/data/ukan.yaml", "--dry-run")
    assert not Path("runs").exists(), "a dry run leaves nothing behind"
    assert "ukan evaluate runs/data-ukan" in ukan("train", "plans/data/ukan.yaml")
    assert "fold 0: finished" in ukan("train", "plans/data/ukan.yaml"), "the same command again does nothing again"
    assert "12 scores of 12 cases" in ukan("evaluate", "runs/data-ukan")
    assert "12 written" in ukan("predict", "runs/data-ukan", "data/images", "out", "--overlay", "--probabilities", "image")
    assert "report.html" in ukan("report", "runs/data-ukan")

    run = Path("runs/data-ukan")
    rows = list(csv.DictReader((run / "metrics_per_case.csv").open()))
    splits = json.loads((run / "splits.json").read_text(encoding="utf-8"))["folds"]
    assert sorted(row["case"] for row in rows) == sorted(name for fold in splits for name in fold["val"])
    for row in rows:
        fold = splits[int(row["part"].removeprefix("fold_"))]
        assert row["case"] in fold["val"], "each case is scored by the fold that did not see it"
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["scores"]["dice"]["mean"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]), abs=1e-5)
    for name in ("plan.yaml", "environment.json", "index.csv", "report.html", "fold_0/log.csv", "fold_1/progress.png"):
        assert (run / name).exists(), name
    with Image.open(run / "predictions" / rows[0]["part"] / f"{rows[0]['case']}.png") as mask:
        assert mask.size == (56, 40)


def test_a_copied_run_folder_predicts_without_data_or_plans(write_dataset, tmp_path) -> None:
    import shutil

    write_dataset(Path("data"), count=8, size=(40, 56), colour=True)
    assert "8 of 8 images have colour" in ukan("plan", "data", *SET)
    ukan("train", "plans/data/ukan.yaml", "--fold", "1")
    shutil.copytree("runs/data-ukan", "elsewhere/run")
    Image.open("data/images/" + sorted(p.name for p in Path("data/images").iterdir())[0]).save("new.png")
    for name in ("data", "plans", "runs"):
        shutil.rmtree(name)
    assert "1 written" in ukan("predict", "elsewhere/run", "new.png", "out")
    assert "--data FOLDER" in ukan("evaluate", "elsewhere/run", code=4)


def test_inputs_that_fail_are_told_and_the_exit_code_is_3(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    ukan("train", "plans/data/ukan.yaml", "--fold", "0")
    Path("new").mkdir()
    Path("new/bad.png").write_bytes(b"nothing")
    Path("new/good.png").write_bytes(next(Path("data/images").iterdir()).read_bytes())
    out = ukan("predict", "runs/data-ukan", "new", "out", code=3)
    assert "1 written" in out and "bad.png" in out and Path("out/good.png").exists()


def test_empty_cases_are_dropped_or_kept_by_a_plan_field_and_scored() -> None:
    from ukan.data.phantoms import write_ultrasound

    write_ultrasound(Path("phantoms"), 12)  # in BUSI's layout, one of them normal
    ukan("plan", "phantoms", "--dataset", "p", "--name", "dropped", *SET)
    ukan("plan", "phantoms", "--dataset", "p", "--name", "kept", *SET, "--set", "data.empty_cases=keep")
    for name, count in (("dropped", 11), ("kept", 12)):
        ukan("train", f"plans/p/{name}.yaml")
        assert f"{count} scores of {count} cases" in ukan("evaluate", f"runs/p-{name}")
    summary = json.loads(Path("runs/p-kept/summary.json").read_text(encoding="utf-8"))
    assert summary["empty_truth"] == 1 and summary["scores"]["hd95"]["undefined"] >= 1
    assert summary["scores"]["hd95_penalised"]["undefined"] == 0


def test_masks_of_other_networks_are_not_mixed(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    ukan("train", "plans/data/ukan.yaml")
    ukan("predict", "runs/data-ukan", "data/images", "out", "--fold", "0")
    assert "masks made otherwise" in ukan("predict", "runs/data-ukan", "data/images", "out", code=2)


def test_a_changed_plan_is_refused_with_the_difference_and_fresh_sets_the_old_run_aside(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    ukan("train", "plans/data/ukan.yaml", "--fold", "0")
    ukan("plan", "data", *SET, "--set", "train.lr=0.5")
    message = ukan("train", "plans/data/ukan.yaml", code=2)
    assert "train.lr: " in message and "-> 0.5" in message and "--fresh" in message
    ukan("train", "plans/data/ukan.yaml", "--fresh", "--fold", "0")
    assert Path("runs/data-ukan.old-1/fold_0/model.safetensors").exists()
    assert Path("runs/data-ukan/fold_0/model.safetensors").exists()


def test_max_time_stops_in_good_order_and_the_same_command_goes_on(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    out = ukan("train", "plans/data/ukan.yaml", "--fold", "0", "--max-time", "0s")
    assert "stopped by --max-time in fold 0 at step 1" in out
    assert Path("runs/data-ukan/fold_0/resume.pt").exists()
    assert "finished folds: 0 of 2" in ukan("train", "plans/data/ukan.yaml", "--fold", "0")


def test_the_published_metric_stands_apart_under_the_published_split(write_dataset) -> None:
    write_dataset(Path("data"), count=10)
    ukan(
        "plan",
        "data",
        "--recipe",
        "paper/ukan-busi",
        "--name",
        "paper",
        *SET[:2],
        *SET[4:],
        "--set",
        "split.seeds=[2981]",
    )
    ukan("train", "plans/data/paper.yaml")
    out = ukan("evaluate", "runs/data-paper")
    assert "protocol paper" in out and "iou_pooled" in out and "the paper reports: iou 63.38" in out
    summary = json.loads(Path("runs/data-paper/summary.json").read_text(encoding="utf-8"))
    assert "iou_pooled" not in summary["scores"] and summary["scored"] == 2


def test_a_start_killed_while_the_run_folder_was_made_goes_on(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    Path("runs/data-ukan").mkdir(parents=True)
    Path("runs/data-ukan/index.csv").write_text("half of it")
    Path("runs/data-ukan/.writing-x.json").write_text("")
    assert "finished folds: 0" in ukan("train", "plans/data/ukan.yaml", "--fold", "0")
    Path("runs/other").mkdir()
    Path("runs/other/thesis.txt").write_text("mine")
    assert "is no run folder" in ukan("train", "plans/data/ukan.yaml", "--run", "runs/other", code=2)


def test_two_trainings_of_one_run_do_not_meet(write_dataset) -> None:
    import fcntl

    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    Path("runs/data-ukan").mkdir(parents=True)
    with Path("runs/data-ukan/.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another `ukan train`" in ukan("train", "plans/data/ukan.yaml", code=2)


def test_changed_files_and_indexes_are_refused(write_dataset) -> None:
    write_dataset(Path("data"), count=8, seed=123)  # no other test's: nothing is cached
    ukan("plan", "data", *SET)
    victim = sorted(Path("data/images").iterdir())[0]
    before = victim.read_bytes()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(victim)
    assert "have changed since" in ukan("train", "plans/data/ukan.yaml", code=4)
    ukan("check", "data")
    assert "no longer the one" in ukan("train", "plans/data/ukan.yaml", "--run", "runs/other", code=4)
    victim.write_bytes(before)
    ukan("train", "plans/data/ukan.yaml")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(victim)
    assert "have changed since" in ukan("evaluate", "runs/data-ukan", code=4), "scores are of the planned files"


def test_a_run_that_was_begun_ends_though_images_were_added_since(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    ukan("plan", "data", *SET)
    ukan("train", "plans/data/ukan.yaml", "--fold", "0")
    for folder in ("images", "masks"):
        first = sorted(Path("data", folder).iterdir())[0]
        (first.parent / f"new{first.suffix}").write_bytes(first.read_bytes())
    ukan("check", "data")
    assert "finished folds: 0, 1 of 2" in ukan("train", "plans/data/ukan.yaml")


def test_a_part_of_a_dataset_leads_to_the_whole(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    assert "dataset data" in ukan("check", "data/images")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plan", "data", "--set", "train.epoch=3"], 2, "Did you mean 'train.epochs'?"),
        (["plan", "data", "--set", "train.epochs"], 2, "expected key=value"),
        (["plan", "data", "--set", "train.epochs=many"], 2, "train.epochs"),
        (["plan", "data", "--set", "train.epochs=0"], 2, "train.epochs"),
        (["plan", "data", "--set", "model.width=[8,8,8]"], 2, "Did you mean 'model.widths'?"),
        (["plan", "data", "--set", "model.widths=[8,8]"], 2, "three positive numbers"),
        (["plan", "data", "--model", "ucan"], 2, "Did you mean 'ukan'?"),
        (["plan", "data", "--set", "model.name=unet"], 2, "--model"),
        (["plan", "data", "--set", "model.kan_layers=[kan,kam]"], 2, "'kan', 'mlp' and 'wide-mlp'"),
        (["plan", "data", "--set", "data.input_size=[100,100]"], 2, "use 96x96"),
        (["plan", "data", "--set", "train.bce_weight=0", "--set", "train.dice_weight=0"], 2, "are both 0"),
        (["plan", "data", "--set", "data.mask_rule=halves"], 2, "data.mask_rule"),
        (["plan", "data", "--set", "train.seed=-1"], 2, "train.seed"),
        (["plan", "data", "--set", "split.seeds=[5000000000]"], 2, "split.seeds"),
        (["plan", "data", "--set", "data.channels=4"], 2, "data.channels"),
        (["plan", "data", "--recipe", "paper/ukan-bus"], 2, "Did you mean 'paper/ukan-busi'?"),
        (["plan", "data", "--layout", "buzi"], 2, "Did you mean 'busi'?"),
        (["plan", "data", "--set", "split.folds=99"], 4, "cannot make 99 folds"),
        (["plan", "dta"], 4, "no such folder"),
        (["check", "data/images/none"], 4, "no such folder"),
        (["train", "plans/data/ukan.yml"], 2, "no such plan"),
        (["train", "plans"], 2, "is a folder"),
        (["train", "data/images/a.txt"], 2, "no such plan"),
        (["train", "plans/data/ukan.yaml", "--fold", "7"], 2, "folds 0 to 1"),
        (["train", "plans/data/ukan.yaml", "--device", "gpu"], 2, "--device gpu"),
        (["train", "plans/data/ukan.yaml", "--max-time", "soon"], 2, "expected a time"),
        (["evaluate", "runs/nothing"], 2, "not a run folder"),
        (["predict", "runs/nothing", "data/images", "out"], 2, "not a run folder"),
        (["report", "runs/nothing"], 2, "not a run folder"),
    ],
)
def test_a_mistyped_command_is_answered_with_what_would_do(words, code, said, write_dataset) -> None:
    write_dataset(Path("data"), count=6)
    if words[0] == "train":
        ukan("plan", "data", *SET)
    assert said in ukan(*words, code=code)


def test_a_folder_with_bad_files_is_refused_with_all_of_them_in_one_table(write_dataset) -> None:
    write_dataset(Path("data"), count=8)
    images = sorted(Path("data/images").iterdir())
    images[0].write_bytes(b"")
    (Path("data/masks") / images[1].name).unlink()
    Image.fromarray(np.zeros((10, 90), np.uint8)).save(Path("data/masks") / images[2].name)
    out = ukan("check", "data", code=4)
    for kind in ("unreadable image", "no mask", "mask and image differ in shape"):
        assert kind in out
    with Path("plans/data/problems.csv").open() as file:
        problems = list(csv.DictReader(file))
    assert sum(problem["level"] == "error" for problem in problems) == 3
    assert "3 problem(s)" in ukan("plan", "data", code=4)
