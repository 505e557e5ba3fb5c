"""The thread again, for what people bring beside one grey class: classes, depths, volumes, test parts, other data."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.errors import UserError

SMALL = ("data.input_size=[32,32]", "split.folds=2", "model.widths=[8,8,8]", "train.batch_size=4", "train.epochs=2")
SET = [word for setting in SMALL for word in ("--set", setting)]


def ukan(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        assert result.exception.exit_code == code, result.exception
        return str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def blobs(seed: int, size: tuple[int, ...] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture or volume with two bright boxes, and their labels: 1 (left) and 2 (right)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 90, (*size[:-2], 8, 8))
    image = np.kron(coarse, np.ones((size[-2] // 8, size[-1] // 8), int))
    labels = np.zeros(size, np.uint8)
    top, left = rng.integers(4, size[-2] // 2), rng.integers(2, size[-1] // 4)
    labels[..., top : top + 12, left : left + 10] = 1
    labels[..., top : top + 10, left + size[-1] // 2 : left + size[-1] // 2 + 10] = 2
    return (image + 70 * labels).clip(0, 255).astype(np.uint8), labels


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def summary_of(run: str) -> dict:
    return json.loads((Path("runs") / run / "summary.json").read_text(encoding="utf-8"))


def thread(folder: str = "data", *plan: object) -> str:
    """check, plan, train, evaluate and report; gives what they print."""
    run = f"runs/{folder}-ukan"
    words = (("check", folder), ("plan", folder, *SET, *plan), ("train", f"plans/{folder}/ukan.yaml"), ("evaluate", run))
    return "\n".join(ukan(*w) for w in (*words, ("report", run)))


def test_integer_labels_are_classes_that_exclude_one_another() -> None:
    for i in range(10):
        image, labels = blobs(i)
        save(Path(f"data/images/c{i}.png"), image)
        save(Path(f"data/masks/c{i}.png"), labels)
    out = thread()
    assert "multiclass" in out
    summary = summary_of("data-ukan")
    assert list(summary["by_class"]) == ["class_1", "class_2"]
    rows = table("runs/data-ukan/metrics_per_case.csv")
    assert len(rows) == 20 and {row["class"] for row in rows} == {"class_1", "class_2"}
    means = [scores["dice"]["mean"] for scores in summary["by_class"].values()]
    assert summary["scores"]["dice"]["mean"] == pytest.approx(np.mean(means), abs=1e-6)
    assert "10 written" in ukan("predict", "runs/data-ukan", "data/images", "out", "--overlay", "--tta")
    with Image.open("out/c0.png") as mask:
        assert mask.mode == "P" and mask.size == (64, 48) and set(np.unique(np.asarray(mask))) <= {0, 1, 2}


def test_a_folder_a_class_gives_classes_that_may_overlap() -> None:
    for i in range(10):
        image, labels = blobs(i)
        save(Path(f"data/images/c{i}.png"), np.stack([image] * 3, -1))
        save(Path(f"data/masks/left/c{i}.png"), (labels == 1).astype(np.uint8) * 255)
        save(Path(f"data/masks/any/c{i}.png"), (labels > 0).astype(np.uint8) * 255)
    out = thread()
    assert "multilabel" in out and list(summary_of("data-ukan")["by_class"]) == ["any", "left"]
    ukan("predict", "runs/data-ukan", "data/images/c3.png", "out")
    assert sorted(path.as_posix() for path in Path("out").rglob("*.png")) == ["out/any/c3.png", "out/left/c3.png"]


def test_volumes_are_one_case_each_in_mm_and_predictions_lie_on_the_inputs_grid() -> None:
    import nibabel as nib

    affine = np.array([[0, 0, 3.0, 5], [-0.7, 0, 0, 9], [0, 0.7, 0, -4], [0, 0, 0, 1]])  # slices from left to right
    for i in range(6):
        image, labels = blobs(i, (5, 32, 40))
        labels[0] = 0
        for name, array in (("images", image.astype(np.int16) * 20 - 1000), ("masks", (labels > 0).astype(np.uint8))):
            Path("data", name).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array.transpose(2, 1, 0), affine), f"data/{name}/v{i}.nii.gz")
    out = thread()
    summary = summary_of("data-ukan")
    assert summary["unit"] == "mm" and summary["scored"] == 6 and summary["groups"] == 6, out
    ukan("predict", "runs/data-ukan", "data/images", "out", "--probabilities", "image", "--overlay")
    found, source = nib.load("out/v2.nii.gz"), nib.load("data/images/v2.nii.gz")
    assert found.shape == source.shape and np.allclose(found.affine, source.affine, atol=1e-5)
    row = table("out/predictions.csv")[0]
    assert float(row["area_foreground"]) == pytest.approx(
        np.asarray(nib.load("out/v0.nii.gz").dataobj).sum() * 0.7 * 0.7 * 3 / 1000, abs=1e-3
    )


def test_sixteen_bits_are_read_through_a_window_that_the_plan_states() -> None:
    for i in range(8):
        image, labels = blobs(i)
        save(Path(f"data/images/c{i}.png"), image.astype(np.uint16) * 13 + 700)
        save(Path(f"data/masks/c{i}.png"), (labels > 0).astype(np.uint8))
    assert "data.window" in thread()
    ukan("predict", "runs/data-ukan", "data/images", "out")


def write_parts(root: Path, seed: int, counts: dict[str, int]) -> None:
    for part, count in counts.items():
        for i in range(count):
            image, labels = blobs(seed + 1000 * len(part) + i)
            save(root / part / "images" / f"{part}{i}.png", image)
            save(root / part / "masks" / f"{part}{i}.png", (labels > 0).astype(np.uint8) * 255)


def test_an_official_test_part_stays_outside_the_folds_and_is_scored_once_when_asked() -> None:
    write_parts(Path("data"), 0, {"train": 8, "test": 4})
    thread()
    splits = json.loads(Path("runs/data-ukan/splits.json").read_text(encoding="utf-8"))["folds"]
    assert not any(name.startswith("test") for fold in splits for names in fold.values() for name in names)
    out = ukan("evaluate", "runs/data-ukan", "--test")
    assert "the official test part: 4 scores of 4 cases" in out
    summary = json.loads(Path("runs/data-ukan/test/summary.json").read_text(encoding="utf-8"))
    assert summary["scored"] == 4 and len(list(Path("runs/data-ukan/test/predictions/all").glob("*.png"))) == 4
    assert summary_of("data-ukan")["scored"] == 8, "the held-out scores stand beside it"
    ukan("plan", "data", *SET, "--name", "pooled", "--set", "split.official_test=pool")
    ukan("train", "plans/data/pooled.yaml", "--fold", "0")
    assert "was pooled" in ukan("evaluate", "runs/data-pooled", "--test", code=2)


def test_another_dataset_is_scored_without_the_cases_that_were_in_training(write_dataset) -> None:
    write_dataset(Path("data"), count=10, seed=1)
    thread()
    write_dataset(Path("other"), count=6, seed=2)
    for name in ("c001", "c004"):  # the same pictures under other names, one as JPEG
        for kind in ("images", "masks"):
            Path("other", kind, f"again_{name}.png").write_bytes(Path("data", kind, f"{name}.png").read_bytes())
    with Image.open("data/images/c007.png") as image:
        image.save("other/images/again_c007.jpg", quality=80)
    Path("other/masks/again_c007.png").write_bytes(Path("data/masks/c007.png").read_bytes())
    out = ukan("evaluate", "runs/data-ukan", "--on", "other")
    assert "6 scores of 6 cases" in out and "left out: 3" in out
    summary = json.loads(Path("runs/data-ukan/external/other/summary.json").read_text(encoding="utf-8"))
    assert summary["left_out"] == ["again_c001", "again_c004", "again_c007"]
    rows = table("runs/data-ukan/external/other/metrics_per_case.csv")
    assert {row["twin_in_training"] for row in rows} == {"0"}, "equal names of two datasets are no twins"
    assert "every case was in training" in ukan("evaluate", "runs/data-ukan", "--on", "data", code=4)
    ukan("report", "runs/data-ukan")


def test_a_prediction_says_what_to_expect_of_it_once_the_run_is_evaluated(write_dataset) -> None:
    write_dataset(Path("data"), count=10, seed=1)
    thread()
    quality = summary_of("data-ukan")["quality"]
    assert quality["cases"] == 10 and len(quality["points"]) == 10
    ukan("predict", "runs/data-ukan", "data/images", "out")
    rows = table("out/predictions.csv")
    assert all(0 <= float(row["predicted_dice"]) <= 1 and 0 <= float(row["agreement"]) <= 1 for row in rows)


def test_an_array_is_predicted_in_three_lines(write_dataset) -> None:
    write_dataset(Path("data"), count=8, seed=1)
    ukan("plan", "data", *SET)
    ukan("train", "plans/data/ukan.yaml")
    ukan("predict", "runs/data-ukan", "data/images/c003.png", "out")
    import ukan as library

    predict = library.predictor("runs/data-ukan")
    image = np.asarray(Image.open("data/images/c003.png"))
    mask = predict(image)
    assert mask.dtype == bool and mask.shape == image.shape
    assert np.array_equal(mask, np.asarray(Image.open("out/c003.png")) > 0), "as the command line predicts"
    assert np.array_equal(predict(np.stack([image] * 3, -1)), mask)
    assert predict(np.stack([image] * 2)[..., None]).shape == (2, 48, 64)
