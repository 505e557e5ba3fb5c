"""Prediction: any names, any tree, original sizes, nothing lost, nothing mixed, memory that does not grow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ukan.errors import DataError, UserError
from ukan.imaging.draw import draw_outline
from ukan.plan import DataPlan, InferPlan, ModelPlan, Plan
from ukan.segment.predict import Predicted, find_jobs, run_jobs

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


def run(source: Path, output: Path, **options: bool) -> Predicted:
    return run_jobs(find_jobs(source, output, **options), [Bright()], PLAN, torch.device("cpu"), "fp32")


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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_jpg.png", "a_png.png", "b.png"]


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
        find_jobs(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="no such file or folder"):
        find_jobs(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="not an image"):
        find_jobs(tmp_path / "x.txt", tmp_path / "out")


def test_masks_never_overwrite_images_and_are_no_input_next_time(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 32, 32)
    before = (tmp_path / "in/a.png").read_bytes()
    with pytest.raises(UserError, match="overwrite"):
        run(tmp_path / "in", tmp_path / "in")
    with pytest.raises(UserError, match="overwrite"):
        run(tmp_path / "in/a.png", tmp_path / "in")
    assert len(find_jobs(tmp_path / "in", tmp_path)) == 1, "an output folder above the input hides nothing"
    run(tmp_path / "in", tmp_path / "in/masks")
    assert (tmp_path / "in/a.png").read_bytes() == before
    assert len(find_jobs(tmp_path / "in", tmp_path / "in/masks")) == 1


def test_probabilities_are_16_bit(tmp_path: Path) -> None:
    picture(tmp_path / "in/a.png", 40, 40)
    run(tmp_path / "in", tmp_path / "out", probabilities=True)
    values = np.asarray(Image.open(tmp_path / "out/probabilities/a.png"))
    assert values.shape == (40, 40) and values[:, :15].min() > 65000 and values[:, 25:].max() < 500


def test_several_networks_are_averaged_in_probability(tmp_path: Path) -> None:
    class Never(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, -100.0)

    picture(tmp_path / "in/a.png", 40, 40)
    jobs = find_jobs(tmp_path / "in", tmp_path / "out", probabilities=True)
    run_jobs(jobs, [Bright(), Never()], PLAN, torch.device("cpu"), "fp32")
    values = np.asarray(Image.open(tmp_path / "out/probabilities/a.png"))
    assert abs(int(values[20, 5]) - 32768) < 200


def test_a_stand_in_of_one_convolution_takes_the_same_memory_for_many_images_as_for_few(tmp_path: Path) -> None:
    """The small form of benchmarks/predict_memory.py (10,000 images): what a further image keeps is under 5 kB."""
    import tracemalloc

    for i in range(240):
        picture(tmp_path / f"in/{i}.png", 32, 32)
    network = nn.Conv2d(1, 1, 3, padding=1)
    jobs = find_jobs(tmp_path / "in", tmp_path / "out")
    tracemalloc.start()
    run_jobs(jobs[:40], [network], PLAN, torch.device("cpu"), "fp32")
    few = tracemalloc.get_traced_memory()[0]
    run_jobs(jobs[40:], [network], PLAN, torch.device("cpu"), "fp32")
    many = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert many - few < 200 * 5_000


def test_the_outline_lies_on_the_mask_and_the_image_is_not_changed() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    drawn = draw_outline(image, mask)
    assert not image.any() and drawn[10, 10].tolist() == [255, 220, 0] and not drawn[~mask].any()
