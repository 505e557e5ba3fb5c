"""`ukan sample` and `ukan evaluate` of diffusion runs: what a seed gives, what goes on, what is refused."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ukan.data.layouts import find_layout
from ukan.diffuse import sample as stage
from ukan.diffuse.evaluate import evaluate
from ukan.diffuse.sample import sample
from ukan.diffuse.train import train
from ukan.errors import DataError, Interrupted, UserError
from ukan.imaging import read_image, read_mask, write_mask
from ukan.runs import open_run
from ukan.stage.prepare import plan_folder

SETTINGS = (
    *("data.input_size=[32,32]", "split.folds=2", "train.batch_size=2", "train.epochs=2", "train.validate_every=2"),
    *("model.channels=8", "model.multipliers=[1,1]", "model.blocks=1", "diffuse.timesteps=20", "diffuse.steps=3"),
    *("diffuse.preview=0", "infer.batch_size=3"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """runs/plain, runs/class and runs/mask: fold 0 of three small trainings on the same eight pictures of two classes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("sample")
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for number in range(8):
            label = ("benign", "malignant")[number % 2]
            place = folder / "Dataset_BUSI_with_GT" / label
            place.mkdir(parents=True, exist_ok=True)
            noise = np.kron(rng.integers(0, 200, (8, 10)), np.ones((5, 5), int)).astype(np.uint8)
            mask = np.zeros((40, 50), np.uint8)
            mask[10 : 20 + number, 12:30] = 255
            Image.fromarray(np.stack([noise] * 3, -1)).save(place / f"{label} ({number}).png")
            Image.fromarray(mask).save(place / f"{label} ({number})_mask.png")
        for name, condition in (("plain", "none"), ("class", "class"), ("mask", "mask")):
            settings = [*SETTINGS, f"diffuse.condition={condition}"]
            _, path, _ = plan_folder(folder / "Dataset_BUSI_with_GT", task="diffuse", settings=settings, name=name)
            train(path, run=folder / "runs" / name, device="cpu")
        yield folder / "runs"
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def cache(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(runs.parent / "cache"))


def images(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: read_image(path).astype(int) for path in sorted((folder / "images").iterdir())}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_image_is_its_seed_s_whatever_is_drawn_beside_it(runs: Path) -> None:
    sample(runs / "plain", Path("many"), count=5)
    sample(runs / "plain", Path("later"), count=2, seed=3)
    many, later = images(Path("many")), images(Path("later"))
    assert list(many) == [f"{i:06}.png" for i in range(5)]
    for number, name in enumerate(later):
        assert np.abs(later[name] - many[f"{3 + number:06}.png"]).max() <= 1
    assert np.abs(many["000000.png"] - many["000001.png"]).max() > 1
    assert [row["seed"] for row in rows(Path("later"))] == ["3", "4"]


def test_what_is_there_stays_and_what_is_missing_is_drawn(runs: Path) -> None:
    sample(runs / "plain", Path("out"), count=4)
    first = images(Path("out"))
    kept = Path("out/images/000001.png")
    kept_at = kept.stat().st_mtime_ns
    Path("out/images/000002.png").unlink()
    done = sample(runs / "plain", Path("out"), count=6)
    assert (done.written, done.skipped) == (3, 3)
    assert kept.stat().st_mtime_ns == kept_at
    again = images(Path("out"))
    assert len(again) == 6 and all(np.abs(again[name] - first[name]).max() <= 1 for name in first)


def test_fewer_images_asked_for_later_leave_the_table_of_all(runs: Path) -> None:
    sample(runs / "plain", Path("out"), count=5)
    sample(runs / "plain", Path("out"), count=2)
    assert [row["image"] for row in rows(Path("out"))] == sorted(images(Path("out"))) and len(rows(Path("out"))) == 5
    assert json.loads(Path("out/sample.json").read_text(encoding="utf-8"))["images"] == 5


def test_an_interrupted_sampling_keeps_its_images_and_goes_on(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(stage.Stop):
        @property
        def reason(self) -> str | None:
            return "Ctrl-C" if len(list(Path("out/images").glob("*"))) >= 3 else None

    with monkeypatch.context() as patch:
        patch.setattr(stage, "Stop", Stopped)
        with pytest.raises(Interrupted, match="3 of 7 images"):
            sample(runs / "plain", Path("out"), count=7)
    assert sample(runs / "plain", Path("out"), count=7).skipped == 3
    assert len(images(Path("out"))) == 7


def test_other_settings_never_fill_the_same_folder(runs: Path) -> None:
    sample(runs / "plain", Path("out"), count=2)
    for change in ({"steps": 2}, {"scheduler": "UniPC"}, {"seed": 1}):
        with pytest.raises(UserError, match="drawn otherwise"):
            sample(runs / "plain", Path("out"), count=2, **change)  # type: ignore[arg-type]
    Path("mine").mkdir()
    Path("mine/photo.png").touch()
    with pytest.raises(UserError, match="not empty"):
        sample(runs / "plain", Path("mine"), count=2)


def test_several_processes_share_the_images(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample(runs / "plain", Path("alone"), count=5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        if rank == "1":  # the record is the first one's; here they run one after the other
            shutil.copytree("alone", "out", ignore=shutil.ignore_patterns("images"))
        sample(runs / "plain", Path("out"), count=5)
    alone, shared = images(Path("alone")), images(Path("out"))
    assert alone.keys() == shared.keys()
    assert all(np.abs(alone[name] - shared[name]).max() <= 1 for name in alone)


def test_classes_come_as_often_as_in_training_or_as_asked(runs: Path) -> None:
    sample(runs / "class", Path("any"), count=12)
    sample(runs / "class", Path("one"), count=3, label="malignant", guidance=2.0)
    assert {row["class"] for row in rows(Path("any"))} == {"benign", "malignant"}
    assert {row["class"] for row in rows(Path("one"))} == {"malignant"}


def test_masks_of_a_folder_are_taken_in_turn_and_lie_beside_the_images(runs: Path) -> None:
    for number in range(3):
        mask = np.zeros((64, 64), bool)
        mask[8 : 20 + 10 * number, 8:40] = True
        write_mask(Path(f"masks/m{number}.png"), mask)
    sample(runs / "mask", Path("out"), masks=Path("masks"))
    assert [row["mask"] for row in rows(Path("out"))] == ["m0", "m1", "m2"]
    given, kept = read_mask(Path("masks/m2.png")), read_mask(Path("out/masks/000002.png"))
    np.testing.assert_array_equal(kept, given[::2, ::2])
    sample(runs / "mask", Path("more"), count=5, masks=Path("masks"))
    assert [row["mask"] for row in rows(Path("more"))] == ["m0", "m1", "m2", "m0", "m1"]
    assert find_layout(Path("out"))[0] == "folders"  # a dataset to train on


def test_masks_of_training_cases_are_drawn_where_none_are_given(runs: Path) -> None:
    sample(runs / "mask", Path("out"), count=6)
    trained_on = set(open_run(runs / "mask", "diffuse").splits[0]["train"])
    assert {row["mask"] for row in rows(Path("out"))} <= trained_on


def test_all_masks_that_do_not_match_are_told_at_once_and_nothing_is_written(runs: Path) -> None:
    write_mask(Path("masks/good.png"), np.eye(64, dtype=bool))
    for name in ("a", "b"):
        from ukan.imaging import write_image

        write_image(Path(f"masks/{name}.png"), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    Path("masks/c.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3 do not match.*a\.png.*b\.png.*c\.png"):
        sample(runs / "mask", Path("out"), masks=Path("masks"))
    assert not Path("out").exists()
    Path("empty").mkdir()
    with pytest.raises(DataError, match="no masks in it"):
        sample(runs / "mask", Path("out"), masks=Path("empty"))


@pytest.mark.parametrize(
    ("run", "options", "says"),
    [
        ("plain", {"label": "benign"}, "--class benign: .*condition=none"),
        ("plain", {"masks": Path("masks")}, "--masks masks: .*condition=none"),
        ("plain", {"guidance": 2.0}, "--guidance 2: .*nothing to follow"),
        ("class", {"label": "beningn"}, "Did you mean 'benign'"),
        ("plain", {"scheduler": "DDIMX"}, "Did you mean 'ddim'"),
        ("plain", {"steps": 21}, "--steps 21: .*20 timesteps"),
        ("plain", {"steps": 0}, "--steps 0: at least 1"),
        ("class", {"guidance": -1.0}, "--guidance -1.0: at least 0"),
        ("plain", {"count": 0}, "-n 0: at least one"),
        ("plain", {"fold": 1}, "fold 1 is not trained"),
    ],
)
def test_what_a_run_cannot_do_is_said_before_anything_is_written(
    runs: Path, run: str, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        sample(runs / run, Path("out"), **{"count": 2, **options})  # type: ignore[arg-type]
    assert not Path("out").exists()


def test_evaluation_tells_held_out_from_training_images(runs: Path) -> None:
    summary, place = evaluate(runs / "class")
    error = summary["error"]
    assert summary["cases"] == 4 and summary["protocol"] == "honest" and summary["task"] == "diffuse"
    assert error["gap"] == pytest.approx(error["held_out"] - error["training"])
    low, high = error["interval95"]
    assert low <= error["held_out"] <= high
    assert [part["from"] for part in summary["by_time"]] == list(range(0, 20, 2))
    assert np.mean([part["held_out"] for part in summary["by_time"]]) == pytest.approx(error["held_out"])
    with place.metrics.open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    split = open_run(runs / "class", "diffuse").splits[0]
    assert {row["case"] for row in table if row["part"] == "held_out"} == set(split["val"])
    assert {row["case"] for row in table if row["part"] == "training"} <= set(split["train"])
    assert json.loads(place.summary.read_text(encoding="utf-8"))["error"] == json.loads(json.dumps(error))
    again, _ = evaluate(runs / "class")
    assert again["error"] == error  # always of the same noise


def test_options_of_segmentation_are_refused_of_a_diffusion_run_and_the_reverse(
    runs: Path, write_dataset: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match="--test, --tta: of segmentation"):
        evaluate(runs / "plain", test=True, tta=True)
    from ukan.segment.predict import predict

    with pytest.raises(UserError, match="a run of the task diffuse"):
        predict(runs / "plain", [Path("x")], Path("out"))
    path = runs / "plain" / "plan.yaml"
    other = Path("segment")
    other.mkdir()
    text = path.read_text(encoding="utf-8")
    _, plan, _ = plan_folder(write_dataset(Path("data")), settings=["split.folds=2", "data.input_size=[32,32]"])
    (other / "plan.yaml").write_text(plan.read_text(encoding="utf-8"), encoding="utf-8")
    assert "task: diffuse" in text
    with pytest.raises(UserError, match="a run of the task segment"):
        sample(other, Path("out"))
