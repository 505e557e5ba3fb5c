"""Prediction: any names, any tree, original sizes, nothing lost, nothing mixed, memory that does not grow."""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ukan.errors import DataError, UserError
from ukan.imaging import read_labels
from ukan.imaging.draw import draw_outline
from ukan.plan import DataPlan, InferPlan, ModelPlan, Plan
from ukan.segment.predict import Done, Job, Wanted, find_jobs, run_jobs

PLAN = Plan(
    name="stand-in",
    data=DataPlan(dataset="x", layout="folders", index_sha256="0", channels=1, input_size=(32, 32)),
    model=ModelPlan(name="ukan"),
    infer=InferPlan(batch_size=3),
)


class Bright(nn.Module):
    """Says foreground where the image is brighter than ImageNet's mean."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 10


def picture(path: Path, height: int, width: int, bright: bool = True) -> np.ndarray:
    """Dark, with a bright left half."""
    array = np.full((height, width), 20, np.uint8)
    if bright:
        array[:, : width // 2] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array


def jobs_of(source: Path, output: Path, plan: Plan = PLAN) -> list[Job]:
    return find_jobs([source], output, plan)


def run(source: Path, output: Path, networks: Sequence[nn.Module] = (), plan: Plan = PLAN, **options: Any) -> Done:
    networks = networks or [Bright()]
    return run_jobs(jobs_of(source, output), Wanted(output, **options), networks, plan, torch.device("cpu"), "fp32")


def test_masks_have_the_original_size_and_the_inputs_names(tmp_path: Path) -> None:
    picture(tmp_path / "in/Patient 1/Müller (1).png", 50, 81)
    picture(tmp_path / "in/b.x.bmp", 64, 32)
    assert run(tmp_path / "in", tmp_path / "out").written == 2
    for name, size in (("Patient 1/Müller (1).png", (81, 50)), ("b.x.png", (32, 64))):
        mask = Image.open(tmp_path / "out" / name)
        assert mask.size == size and mask.mode == "L"
        values = np.asarray(mask)
        assert set(np.unique(values)) == {0, 255}
        left = values[:, : size[0] // 2 - 2]
        assert (left == 255).all() and (values[:, size[0] // 2 + 2 :] == 0).all()


def test_names_that_differ_in_type_alone_keep_it(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        picture(tmp_path / "in" / name, 32, 32)
    run(tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["a_jpg.png", "a_png.png", "b.png"]


def test_what_is_written_is_skipped_and_what_is_missing_is_made(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"in/{i}.png", 32, 32)
    run(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out/2.png").unlink()
    done = run(tmp_path / "in", tmp_path / "out")
    assert (done.written, done.skipped) == (1, 3)
    assert run(tmp_path / "in", tmp_path / "out", overlay=True).written == 4, "overlays asked for later are made"
    with Image.open(tmp_path / "out/overlays/2.jpg") as overlay:
        assert overlay.size == (32, 32) and overlay.mode == "RGB"


def test_a_bad_file_is_told_by_name_and_the_rest_is_done(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"in/{i}.png", 32, 32)
    (tmp_path / "in/2.png").write_bytes((tmp_path / "in/3.png").read_bytes()[:40])
    (tmp_path / "in/._4.png").write_bytes(b"finder")
    (tmp_path / "in/notes.txt").write_text("no image")
    done = run(tmp_path / "in", tmp_path / "out")
    assert done.written == 4 and len(done.failed) == 1 and "2.png" in done.failed[0]


def test_no_image_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="no image in it"):
        jobs_of(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="no such file or folder"):
        jobs_of(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "x.pdf").write_text("x")
    with pytest.raises(DataError, match="not an image"):
        jobs_of(tmp_path / "x.pdf", tmp_path / "out")


def test_a_text_file_lists_images_relative_to_itself(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.png", "c.png"):
        picture(tmp_path / "in" / name, 32, 32)
    (tmp_path / "in/list.txt").write_text("a.png\n# a comment\n\ndeep/b.png\n")
    assert [job.name for job in jobs_of(tmp_path / "in/list.txt", tmp_path / "out")] == ["a", "b"]
    several = find_jobs([tmp_path / "in/deep", tmp_path / "in/c.png"], tmp_path / "out", PLAN)
    assert [job.name for job in several] == ["b", "c"]
    (tmp_path / "in/list.txt").write_text("a.png\ngone.png\nalso.png")
    with pytest.raises(DataError, match="2 of its 3 paths do not exist"):
        jobs_of(tmp_path / "in/list.txt", tmp_path / "out")


def test_equal_names_of_several_inputs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        picture(tmp_path / folder / "a.png", 32, 32)
    with pytest.raises(UserError, match="1 names occur in several inputs"):
        find_jobs([tmp_path / "one", tmp_path / "two"], tmp_path / "out", PLAN)


def test_masks_never_overwrite_images_and_are_no_input_next_time(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 32, 32)
    before = (tmp_path / "in/a.png").read_bytes()
    with pytest.raises(UserError, match="overwrite"):
        run(tmp_path / "in", tmp_path / "in")
    with pytest.raises(UserError, match="overwrite"):
        run(tmp_path / "in/a.png", tmp_path / "in")
    assert len(jobs_of(tmp_path / "in", tmp_path)) == 1, "an output folder above the input hides nothing"
    run(tmp_path / "in", tmp_path / "in/masks")
    assert (tmp_path / "in/a.png").read_bytes() == before
    assert len(jobs_of(tmp_path / "in", tmp_path / "in/masks")) == 1


def test_probabilities_are_16_bit(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 40, 40)
    run(tmp_path / "in", tmp_path / "out", probabilities="image")
    values = np.asarray(Image.open(tmp_path / "out/probabilities/a.png"))
    assert values.shape == (40, 40) and values[:, :15].min() > 65000 and values[:, 25:].max() < 500
    run(tmp_path / "in", tmp_path / "out", probabilities="npz")
    stored = np.load(tmp_path / "out/probabilities/a.npz")
    assert stored["probabilities"].shape == (1, 40, 40) and stored["classes"].tolist() == ["foreground"]
    assert np.abs(stored["probabilities"][0] - values / 65535).max() < 1e-3


def test_several_networks_are_averaged_in_probability(tmp_path: Path) -> None:
    class Never(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, -100.0)

    picture(tmp_path / "in/a.png", 40, 40)
    run(tmp_path / "in", tmp_path / "out", [Bright(), Never()], probabilities="image")
    values = np.asarray(Image.open(tmp_path / "out/probabilities/a.png"))
    assert abs(int(values[20, 5]) - 32768) < 200


def test_a_stand_in_of_one_convolution_takes_the_same_memory_for_many_images_as_for_few(tmp_path: Path) -> None:
    """The small form of benchmarks/predict_memory.py (10,000 images): what a further image keeps is under 5 kB."""
    import tracemalloc

    for i in range(240):
        picture(tmp_path / f"in/{i}.png", 32, 32)
    network = nn.Conv2d(1, 1, 3, padding=1)
    jobs = jobs_of(tmp_path / "in", tmp_path / "out")
    tracemalloc.start()
    wanted = Wanted(tmp_path / "out")
    run_jobs(jobs[:40], wanted, [network], PLAN, torch.device("cpu"), "fp32")
    few = tracemalloc.get_traced_memory()[0]
    run_jobs(jobs[40:], wanted, [network], PLAN, torch.device("cpu"), "fp32")
    many = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert many - few < 200 * 5_000


def test_the_table_has_a_line_a_case_whatever_was_killed_between(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"in/{i}.png", 32, 40, bright=i != 3)
    run(tmp_path / "in", tmp_path / "out")
    table = tmp_path / "out/predictions.csv"
    (tmp_path / "out/2.png").unlink()  # a kill between the line and the mask
    with table.open("a") as file:
        file.write("4,half a li")
    run(tmp_path / "in", tmp_path / "out")
    rows = list(csv.DictReader(table.open()))
    assert [row["case"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [int(row["area_foreground"]) for row in rows] == [32 * 20, 32 * 20, 32 * 20, 0, 32 * 20]
    assert float(rows[0]["largest_probability"]) > 0.99 and rows[0]["predicted_dice"] == ""


def test_processes_share_a_folder_without_harm(tmp_path: Path) -> None:
    """Several at once, as threads: every mask is there once and whole, and every case has its line."""
    for i in range(40):
        picture(tmp_path / f"in/{i}.png", 32, 32)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: run(tmp_path / "in", tmp_path / "out"), range(4)))
    assert sum(one.written for one in done) >= 40 and not any(one.failed for one in done)
    assert all(np.asarray(Image.open(tmp_path / f"out/{i}.png"))[5, 5] == 255 for i in range(40))
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").open()))
    assert sorted(int(row["case"]) for row in rows) == list(range(40))
    assert not list((tmp_path / "out").glob(".writing-*"))


def test_classes_that_exclude_one_another_are_one_file_of_their_numbers(tmp_path: Path) -> None:
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(x), x * 10, -x * 10], 1)

    data = PLAN.data.model_copy(
        update={"target": "multiclass", "mask_rule": "labels", "classes": ("a", "b"), "label_values": (3, 7)}
    )
    picture(tmp_path / "in/x.png", 48, 48)
    run(tmp_path / "in", tmp_path / "out", [Halves()], PLAN.model_copy(update={"data": data}), overlay=True)
    values = read_labels(tmp_path / "out/x.png").values[0]
    assert set(np.unique(values[:, :20])) == {1} and set(np.unique(values[:, 28:])) == {2}
    row = next(csv.DictReader((tmp_path / "out/predictions.csv").open()))
    assert int(row["area_a"]) + int(row["area_b"]) == 48 * 48


def test_classes_that_may_overlap_are_a_folder_each(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x * 10, torch.full_like(x, 9.0)], 1)

    plan = PLAN.model_copy(
        update={"data": PLAN.data.model_copy(update={"target": "multilabel", "classes": ("left", "all")})}
    )
    picture(tmp_path / "in/deep/x.png", 48, 48)
    run(tmp_path / "in", tmp_path / "out", [Twice()], plan, probabilities="image")
    for name, share in (("left", 0.5), ("all", 1.0)):
        assert (np.asarray(Image.open(tmp_path / f"out/deep/{name}/x.png")) == 255).mean() == pytest.approx(share, abs=0.03)
        assert (tmp_path / f"out/probabilities/deep/{name}/x.png").exists()
    again = run_jobs(
        jobs_of(tmp_path / "in", tmp_path / "out", plan),
        Wanted(tmp_path / "out"),
        [Twice()],
        plan,
        torch.device("cpu"),
        "fp32",
    )
    assert again.skipped == 1


def test_the_outline_lies_on_the_mask_and_the_image_is_not_changed() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    drawn = draw_outline(image, mask)
    assert not image.any() and drawn[10, 10].tolist() == [255, 220, 0] and not drawn[~mask].any()
