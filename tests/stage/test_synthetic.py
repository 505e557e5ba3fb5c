"""Segmentation trained with drawn images: only by networks that saw nothing of what is scored, and in as many steps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ukan.data.batches import TrainingSamples
from ukan.data.cache import Prepared
from ukan.data.phantoms import make_ultrasound
from ukan.diffuse.train import train as train_diffusion
from ukan.errors import UserError
from ukan.imaging import write_image
from ukan.plan import DataPlan, Plan, TrainPlan
from ukan.runs import Run, open_run
from ukan.segment.train import train as train_segmentation
from ukan.stage.prepare import plan_folder
from ukan.stage.synthetic import synthetic_images, synthetic_run, unspoilt_fold

DIFFUSION = (
    *("data.input_size=[32,32]", "split.folds=2", "train.batch_size=2", "train.epochs=1", "diffuse.preview=0"),
    *("model.channels=8", "model.multipliers=[1,1]", "model.blocks=1", "diffuse.timesteps=20", "diffuse.steps=2"),
    "diffuse.condition=mask",
)
SEGMENTATION = ("data.input_size=[32,64]", "split.folds=2", "model.widths=[8,8,8]", "train.epochs=2", "train.batch_size=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data/, plans/ and two runs conditioned on masks: runs/both of folds 0 and 1, runs/first of fold 0."""
    folder = tmp_path_factory.mktemp("synthetic")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for number in range(8):
            rng, masks = np.random.default_rng(number), []
            while not masks:  # cases without an object would not take part
                image, masks = make_ultrasound(rng, 48, 64)
            write_image(Path(f"data/images/p{number // 2}_{number}.png"), image)
            write_image(Path(f"data/masks/p{number // 2}_{number}.png"), np.any(masks, axis=0).astype(np.uint8) * 255)
        _, plan, _ = plan_folder(Path("data"), task="diffuse", settings=list(DIFFUSION), name="mask", group_regex="^(p.)")
        train_diffusion(plan, run=Path("runs/both"), folds=[0, 1], device="cpu")
        train_diffusion(plan, run=Path("runs/first"), device="cpu")
        yield folder
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))


def planned(*settings: str, name: str, **reading: Any) -> Path:
    reading = {"group_regex": "^(p.)"} | reading
    return plan_folder(Path("data"), settings=[*SEGMENTATION, *settings], name=name, **reading)[1]


def groups(run: Run, names: list[str]) -> set[str]:
    return {run.cases[name].group for name in names}


def test_each_fold_is_trained_with_images_of_a_network_that_saw_only_its_training_part(place: Path) -> None:
    plan = planned("data.synthetic=runs/both", name="drawn")
    run = train_segmentation(plan, run=Path("runs/drawn"), device="cpu").run
    drawn = open_run(Path("runs/both"), "diffuse")
    recorded = json.loads(run.folder.environment.read_text(encoding="utf-8"))["folds"]
    for fold in (0, 1):
        about = recorded[str(fold)]["synthetic"]
        seen = groups(drawn, drawn.splits[about["fold"]]["train"])
        assert not seen & groups(run, run.splits[fold]["val"])
        assert about["weights_sha256"] == drawn.weights_sha256()[str(about["fold"])]
        assert about["images"] == len(run.splits[fold]["train"]) and about["share"] == 0.5
    assert recorded["0"]["synthetic"]["fold"] != recorded["1"]["synthetic"]["fold"]


def test_a_fold_without_an_unspoilt_network_is_refused_before_any_step(place: Path) -> None:
    plan = planned("data.synthetic=runs/first", name="spoilt")
    with pytest.raises(UserError, match=r"every finished fold \(0\) was trained on cases that this fold"):
        train_segmentation(plan, run=Path("runs/spoilt"), folds=[1], device="cpu")
    assert not list(Path("runs/spoilt").glob("fold_*/*"))


def test_a_single_shared_group_is_enough_to_refuse(place: Path) -> None:
    run = open_run(Path("runs/both"), "diffuse")
    split = run.splits[0]
    assert unspoilt_fold(run, run.cases, split) == 0
    for shared in split["train"]:
        moved = {"train": split["train"], "val": [*split["val"], shared]}
        with pytest.raises(UserError, match="was trained on cases"):
            unspoilt_fold(run, run.cases, moved)


def test_the_official_test_part_is_never_shown_by_drawn_images(place: Path) -> None:
    run = open_run(Path("runs/both"), "diffuse")
    cases = {name: case._replace(split="test" if name in run.splits[0]["train"] else "") for name, case in run.cases.items()}
    object.__setattr__(run, "cases", cases)  # as if planning had pooled the test part for the drawing network
    with pytest.raises(UserError, match="was trained on cases"):
        unspoilt_fold(run, cases, {"train": [], "val": []} | run.splits[0])


def test_a_run_that_is_not_of_the_kind_is_refused_in_one_line(place: Path) -> None:
    for value, says in (("runs/none", "not a run folder"), ("runs/drawn-not", "not a run folder")):
        with pytest.raises(UserError, match=says):
            planned(f"data.synthetic={value}", name="wrong")
    assert not Path("plans/data/wrong.yaml").exists()
    _, other, _ = plan_folder(Path("data"), settings=[*SEGMENTATION], name="plain", dataset="regrouped")
    data = Plan.load(other).data
    with pytest.raises(UserError, match="another index"):  # the same folder with other groups
        synthetic_run(data.model_copy(update={"synthetic": "runs/both"}))


def test_drawn_images_come_from_the_cache_the_second_time_and_fit_the_network(place: Path) -> None:
    run = open_run(Path("runs/both"), "diffuse")
    plan = Plan.load(planned("data.synthetic=runs/both", name="cached"))
    data = plan.data
    first = synthetic_images(plan, run.cases, run.splits[0], 5)
    assert first.images_NHWC.shape == (5, 32, 64, data.channels) and first.targets_NHWM.shape == (5, 32, 64, 1)
    assert set(np.unique(first.targets_NHWM)) == {0, 1}
    (kept,) = [path for path in (place / "cache" / "ukan").glob("synthetic-*.npz") if len(np.load(path)["images"]) == 5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ukan.stage.synthetic.draw_images", None)
        again = synthetic_images(plan, run.cases, run.splits[0], 5)
    assert np.array_equal(first.images_NHWC, again.images_NHWC)
    kept.write_bytes(kept.read_bytes()[:100])  # damaged: drawn again
    assert np.array_equal(synthetic_images(plan, run.cases, run.splits[0], 5).images_NHWC, first.images_NHWC)


def test_a_fold_goes_on_only_with_images_of_the_network_it_was_begun_with(place: Path) -> None:
    plan, run = planned("data.synthetic=runs/both", "train.epochs=40", name="begun"), Path("runs/begun")
    begun = train_segmentation(plan, run=run, folds=[0], device="cpu", max_time_s=0.01)
    assert not begun.outcomes[0].finished
    environment = run / "environment.json"
    record = json.loads(environment.read_text(encoding="utf-8"))
    record["folds"]["0"]["synthetic"]["weights_sha256"] = "of a network that was trained again since"
    environment.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match="fold 0: begun with synthetic .*--fresh"):
        train_segmentation(plan, run=run, folds=[0], device="cpu")


def samples(share: float, drawn: bool = True) -> TrainingSamples:
    images, targets = np.zeros((40, 8, 8, 1), np.uint8), np.zeros((40, 8, 8, 1), np.uint8)
    prepared = Prepared([f"c{i}" for i in range(40)], [1] * 40, images, targets)
    pool = (np.full((7, 8, 8, 1), 200, np.uint8), np.ones((7, 8, 8, 1), np.uint8)) if drawn else None
    data = DataPlan(dataset="x", layout="x", index_sha256="", channels=1, input_size=(8, 8), synthetic_share=share)
    return TrainingSamples(prepared, prepared.names, TrainPlan(seed=3), data, pool)


def test_drawn_images_take_the_place_of_real_ones_so_that_steps_stay_the_same() -> None:
    for share in (0.0, 0.3, 1.0):
        some = samples(share)
        assert len(some) == len(samples(share, drawn=False)) == 40
        taken = [some[epoch, i] for epoch in range(25) for i in range(40)]
        drawn = [int(image.max()) == 200 for image, _, _ in taken]
        assert abs(np.mean(drawn) - share) < 0.04
        assert all((name.startswith("drawn image")) == is_drawn for (_, _, name), is_drawn in zip(taken, drawn, strict=True))
        assert all(bool(target.all()) == is_drawn for (_, target, _), is_drawn in zip(taken, drawn, strict=True))


def test_which_samples_are_drawn_follows_from_seed_epoch_and_sample_alone() -> None:
    one, same = samples(0.5), samples(0.5)
    names = [[one[epoch, i][2] for i in range(40)] for epoch in (0, 1)]
    assert names[0] == [same[0, i][2] for i in range(40)] and names[0] != names[1]
