"""Two folders, or a run and a folder: what is compared, what is refused in one line, and what is written."""

import dataclasses
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan.diffuse import fid as module
from ukan.diffuse.features import Features
from ukan.diffuse.fid import compare_images
from ukan.errors import DataError, UserError
from ukan.imaging import read_image
from ukan.metrics.fidelity import honest, paper
from ukan.paths import RunFolder, write_text
from ukan.plan import DataPlan, Plan


class RealImages(NamedTuple):
    held_out_NHWC: np.ndarray
    train_NHWC: np.ndarray
    held_out_names: list[str]
    train_names: list[str]


Extracted = list[tuple[str, int]]


def grid(images_NHWC: np.ndarray) -> np.ndarray:
    """Features (N, 12): the means of quarters in each channel."""
    height, width = (side // 2 for side in images_NHWC.shape[1:3])
    quarters = images_NHWC[:, : 2 * height, : 2 * width].reshape(-1, 2, height, 2, width, 3).mean((2, 4))
    return (quarters.reshape(len(images_NHWC), -1) / 64).astype(np.float32)


@pytest.fixture(autouse=True)
def extracted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Extracted:
    """Inception and encoders replaced by quick ones; gives which network has seen how many images."""
    seen: Extracted = []

    def load(spec: str, weights: Path | None, device: Any) -> Features:
        def batches(images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
            assert images.dtype == np.uint8 and images.shape[3] == 3
            seen.append((spec, len(images)))
            found = grid(images)
            yield found, found[:, :5] if spec == "inception" else None

        names = ("KID", "FID") if spec == "inception" else (f"kernel distance ({spec})", f"Frechet distance ({spec})")
        return Features(spec, f"features of {spec}", names, "0" * 64, spec, batches)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "load_features", load)
    return seen


def pictures(seed: int, count: int, size: tuple[int, int] = (16, 16), brightness: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 150, (count, 4, 4, 3)) + brightness
    rows, columns = (np.arange(side) * 4 // side for side in size)
    return coarse[:, rows][:, :, columns].astype(np.uint8)


def write(folder: Path, images: np.ndarray, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images, start=first):
        Image.fromarray(image).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "real", pictures(0, 30)), write(tmp_path / "fake", pictures(1, 40, brightness=20))


@pytest.fixture
def diffusion_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """diffusion_run(held_out, train): a run folder whose real images these are; asked for a fold it keeps which."""

    def make(held_out: np.ndarray, train: np.ndarray) -> Path:
        def real_images(run: Any, fold: int = 0, data: Path | None = None) -> RealImages:
            asked.append((fold, data))
            return RealImages(held_out, train, [f"h{n}" for n in range(len(held_out))], [f"t{n}" for n in range(len(train))])

        images = types.ModuleType("ukan.diffuse.images")
        images.real_images = real_images  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ukan.diffuse.images", images)
        monkeypatch.setattr(module, "open_run", lambda path, task: fake_run)
        folder = tmp_path / "runs" / "toy"
        write_text(folder / "plan.yaml", "task: diffuse\n")
        return folder

    fake_run = types.SimpleNamespace(
        finished_folds=[1],
        weights_sha256=lambda: {"1": "one", "3": "three"},
        folder=RunFolder(tmp_path / "runs" / "toy"),
        plan=types.SimpleNamespace(
            split=types.SimpleNamespace(kind="folds"), data=types.SimpleNamespace(index_sha256="the same")
        ),
    )
    asked: list[tuple[int, Path | None]] = []
    make.asked = asked  # type: ignore[attr-defined]
    make.run = fake_run  # type: ignore[attr-defined]
    return make


# What is known of who drew them.


def test_images_that_no_fold_owns_up_to_are_not_judged_where_several_could_have_drawn_them(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path]
) -> None:
    run, fake = diffusion_run(pictures(2, 20), pictures(3, 50)), folders[1]
    diffusion_run.run.finished_folds = [1, 3]  # type: ignore[attr-defined]
    assert "which of the 2 trained folds" in refused(run, fake)
    images = fake.rename(fake.with_name("images"))
    write_text(images.parent / "sample.json", json.dumps({"settings": {"fold": 3, "weights_sha256": "three"}}))
    record, place = compare_images(run, images, device="cpu")  # the folder within what `ukan sample` filled
    assert record["fold"] == 3 and json.loads((place / "sample.json").read_text())["settings"]["fold"] == 3


def test_an_encoder_that_saw_the_real_images_is_said_to_have(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, fake = diffusion_run(pictures(2, 20), pictures(3, 50)), folders[1]
    load = module.load_features

    def says(index: str) -> str:
        known = (index, frozenset({"h3", "h4", "t1"}))
        with monkeypatch.context() as patch:
            patch.setattr(module, "load_features", lambda *given: dataclasses.replace(load(*given), trained_on=known))
            return compare_images(run, fake, out=fake, device="cpu")[0]["features"][0]["label"]

    assert says("the same").endswith("; itself trained on 2 of the held-out and 1 of the training images")
    assert "itself" not in says("another dataset's")


def test_masks_among_the_real_images_are_no_real_images(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    for path in list(real.glob("*.png"))[:5]:
        path.with_name(f"{path.stem}_mask.png").write_bytes(path.read_bytes())
    assert "5 of its 35 images are named like masks" in refused(real, fake)


def test_a_comparison_in_the_run_is_not_written_over_by_another_folder_of_the_same_name(
    diffusion_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = diffusion_run(pictures(2, 20), pictures(3, 50))
    first, second = (write(tmp_path / place / "drawn", pictures(seed, 30)) for seed, place in ((4, "a"), (5, "b")))
    record, place = compare_images(run, first, device="cpu")
    with pytest.raises(UserError, match="holds the comparison of .*--out"):
        compare_images(run, second, device="cpu")
    assert json.loads((place / "fid.json").read_text()) == record
    assert compare_images(run, first, device="cpu")[0]["generated"] == record["generated"]


# Folders.


def test_two_folders_are_compared_by_the_honest_protocol_alone(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    record, place = compare_images(real, fake, device="cpu")
    assert place == fake and json.loads((fake / "fid.json").read_text()) == record
    (about,) = record["features"]
    made = grid(pictures(1, 40, brightness=20))
    assert about["honest"] == honest(grid(pictures(0, 30)), made, made[:, :5])
    assert about["paper"] is None and record["protocols"] == ["honest"]
    assert record["memorisation"] is None and record["train"] is None and not (fake / "nearest.png").exists()
    assert record["real"]["images"] == 30 and record["generated"]["images"] == 40 and record["size"] == [16, 16]


def test_the_paper_s_protocol_stands_alone_where_it_is_asked_for(folders: tuple[Path, Path]) -> None:
    record, _ = compare_images(*folders, protocol="paper", device="cpu")
    made = grid(pictures(1, 40, brightness=20))
    assert record["features"][0]["paper"] == paper(grid(pictures(0, 30)), made, made[:, :5])
    assert record["features"][0]["honest"] is None


def test_the_real_side_is_looked_at_once_whatever_its_folder_is_called(
    folders: tuple[Path, Path], extracted: Extracted
) -> None:
    real, fake = folders
    first, _ = compare_images(real, fake, device="cpu")
    real.rename(real.with_name("moved"))
    second, _ = compare_images(real.with_name("moved"), fake, device="cpu")
    assert extracted == [("inception", 40), ("inception", 30), ("inception", 40)]
    assert second["features"] == first["features"] and second["real"]["sha256"] == first["real"]["sha256"]
    Image.fromarray(pictures(9, 1)[0]).save(real.with_name("moved") / "000.png")
    third, _ = compare_images(real.with_name("moved"), fake, device="cpu")
    assert extracted[-1] == ("inception", 30) and third["real"]["sha256"] != first["real"]["sha256"]


def test_several_features_stand_side_by_side_and_only_inception_s_distance_is_a_fid(folders: tuple[Path, Path]) -> None:
    record, _ = compare_images(*folders, features=["inception", "run:a", "run:b", "run:a"], device="cpu")
    assert [about["frechet_name"] for about in record["features"]] == [
        *("FID", "Frechet distance (run:a)", "Frechet distance (run:b)"),
    ]
    scores = [about["honest"]["inception_score"] for about in record["features"]]
    assert scores[0] and scores[1:] == [None, None]


def test_grey_images_are_three_equal_channels_and_subfolders_count(folders: tuple[Path, Path], tmp_path: Path) -> None:
    real, _ = folders
    colour, grey = tmp_path / "colour", tmp_path / "grey"
    for number, image in enumerate(pictures(5, 12)[..., 0]):
        for folder, made in ((colour / "a", np.repeat(image[..., None], 3, 2)), (grey / "b" / "c", image)):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(made).save(folder / f"{number:03}.bmp")
    one, two = (compare_images(real, folder, device="cpu")[0] for folder in (colour, grey))
    assert one["generated"]["sha256"] == two["generated"]["sha256"] and one["features"] == two["features"]


def test_of_a_folder_of_samples_only_its_images_count(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    sampled = fake.with_name("sampled")
    fake.rename(sampled / "images") if sampled.mkdir() is None else None
    write_text(sampled / "sample.json", "{}")
    Image.fromarray(np.zeros((99, 99, 3), np.uint8)).save(sampled / "grid.png")
    record, _ = compare_images(real, sampled, device="cpu")
    assert record["generated"]["images"] == 40


def test_both_sides_are_cut_and_shrunk_alike(tmp_path: Path) -> None:
    wide = pictures(0, 8, (20, 40))
    real, fake = write(tmp_path / "real", wide), write(tmp_path / "fake", pictures(1, 8, (30, 20)))
    record, _ = compare_images(real, fake, size=10, device="cpu")
    assert record["size"] == [10, 10] and "largest centred square" in record["pipeline"]
    expected = wide[:, :, 10:30].reshape(8, 10, 2, 10, 2, 3).mean((2, 4))
    side = module._of_one_size(module._read({real: sorted(real.iterdir())}, 10), 10)[0]
    assert np.abs(side.images_NHWC - expected).max() <= 0.5


def test_progress_is_of_all_images_and_all_features(folders: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    compare_images(*folders, features=["inception", "run:a"], device="cpu", on_progress=lambda d, t: seen.append((d, t)))
    assert seen == [(40, 140), (70, 140), (110, 140), (140, 140)]


# What is refused, in one line and before anything is written.


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as told:
        compare_images(*args, device="cpu", **options)
    assert "\n" not in str(told.value)
    assert not list(args[1].rglob("fid.json"))
    return str(told.value)


def test_all_unreadable_images_of_both_sides_are_named_at_once(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    for path in (real / "003.png", fake / "007.png", fake / "008.png"):
        path.write_bytes(b"broken")
    said = refused(real, fake)
    assert said.startswith("3 image(s) cannot be used: ")
    assert all(str(path) in said for path in (real / "003.png", fake / "007.png", fake / "008.png"))


def test_deep_images_are_refused_by_name(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(fake / "deep.png")
    assert str(fake / "deep.png") in (said := refused(real, fake)) and "8 bits" in said


def test_images_of_different_sizes_are_refused_with_the_sizes_met_and_what_to_give(folders: tuple[Path, Path]) -> None:
    real, fake = folders
    write(fake, pictures(3, 2, (12, 20)), first=90)
    said = refused(real, fake)
    assert "16x16 (70 images), 20x12 (2 images)" in said
    assert "give --size 12: both sides are cut to their largest centred square" in said


def test_an_image_smaller_than_the_size_asked_for_is_refused(folders: tuple[Path, Path]) -> None:
    said = refused(*folders, size=64)
    assert said.startswith("70 image(s) cannot be used") and "give --size 16 or less" in said


@pytest.mark.parametrize(("count", "said"), [(0, "no image (png, jpg"), (1, "1 image(s) in it"), (3, "3 image(s) in it")])
def test_too_few_images_are_refused_before_networks_are_looked_for(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, said: str
) -> None:
    monkeypatch.setattr(module, "load_features", lambda *_: pytest.fail("looked for"))
    few = write(tmp_path / "few", pictures(0, count))
    for pair in ((folders[0], few), (few, folders[1])):
        assert said in (line := refused(*pair)) and str(few) in line and "at least 4 are needed" in line


def test_missing_weights_are_told_before_any_image_is_read(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> Features:
        raise UserError("weights are not here")

    monkeypatch.setattr(module, "load_features", missing)
    monkeypatch.setattr(module, "read_image", lambda path: pytest.fail("read"))
    assert refused(*folders) == "weights are not here"


@pytest.mark.parametrize("varies", [0.0, 1e-7])
def test_a_network_that_tells_no_image_from_another_is_refused_rather_than_called_perfect(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, varies: float
) -> None:
    monkeypatch.setattr(
        sys.modules[__name__], "grid", lambda images: 1 + varies * images.reshape(len(images), -1)[:, :9] / 255
    )
    assert "the same for every image" in refused(*folders)


def test_a_generator_that_draws_one_image_only_is_scored(folders: tuple[Path, Path], tmp_path: Path) -> None:
    fake = write(tmp_path / "one", np.repeat(pictures(1, 1), 20, axis=0))
    about = compare_images(folders[0], fake, device="cpu")[0]["features"][0]["honest"]
    assert about["kernel"]["interval95"][0] > about["kernel"]["floor"]["interval95"][1] and about["recall"] < 0.5


def test_what_does_not_go_together_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    real, fake = folders
    assert "both sides are this folder" in refused(real, real)
    assert "--weights are those of --features inception" in refused(real, fake, features=["run:a"], weights=Path("w.pth"))
    assert "the real side is no run" in refused(real, fake, data=tmp_path)
    assert "gone: No such file" in refused(real, tmp_path / "gone")


# Runs.


def test_a_run_gives_both_protocols_each_against_its_own_images(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path]
) -> None:
    held_out, train = pictures(2, 20), pictures(3, 50)
    run, fake = diffusion_run(held_out, train), folders[1]
    record, _ = compare_images(run, fake, device="cpu")
    made = grid(pictures(1, 40, brightness=20))
    (about,) = record["features"]
    assert about["honest"] == honest(grid(held_out), made, made[:, :5])
    assert about["paper"] == paper(grid(train), made, made[:, :5])
    assert record["protocols"] == ["honest", "paper"]
    assert (record["real"]["images"], record["train"]["images"], record["fold"]) == (20, 50, 1)
    assert compare_images(run, fake, protocol="honest", device="cpu")[0]["features"][0]["paper"] is None


def test_a_segmentation_run_has_no_generated_images_to_hold_out(folders: tuple[Path, Path]) -> None:
    run = Path("runs/toy")
    Plan(name="toy", data=DataPlan(dataset="toy", layout="folders", index_sha256="0" * 64)).save(run / "plan.yaml")
    assert "a run of the task segment, not diffuse" in refused(run, folders[1])


def test_samples_are_held_against_the_fold_that_drew_them(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = diffusion_run(pictures(2, 20), pictures(3, 50))
    sampled = tmp_path / "sampled"
    sampled.mkdir()
    folders[1].rename(sampled / "images")
    write_text(sampled / "sample.json", json.dumps({"settings": {"fold": 3, "run": "toy", "weights_sha256": "one"}}))
    assert "drawn by toy, fold 3, with weights that" in refused(run, sampled)
    write_text(sampled / "sample.json", json.dumps({"settings": {"fold": 3, "run": "toy", "weights_sha256": "three"}}))
    record, _ = compare_images(run, sampled, data=tmp_path, device="cpu")
    assert diffusion_run.asked == [(3, tmp_path)] and record["fold"] == 3  # type: ignore[attr-defined]


def test_copies_of_training_images_are_found_named_and_drawn(diffusion_run: Callable[..., Path], tmp_path: Path) -> None:
    held_out, train = pictures(2, 30), pictures(3, 50)
    copied = np.concatenate([train[20:25, :, ::-1] + 1, pictures(4, 35)])
    fake = write(tmp_path / "fake", copied.astype(np.uint8))
    run = diffusion_run(held_out, train)
    record, place = compare_images(run, fake, device="cpu")
    assert place == run / "fid" / "fake"  # where the run's report finds it
    found = record["memorisation"]
    assert {(row["generated"], row["train"]) for row in found["closest"][:5]} == {
        (f"{n:03}.png", f"t{20 + n}") for n in range(5)
    }
    assert len(found["closest"]) == 16 and found["pixels"]["copies"] == 5 and found["pixels"]["copies_held_out"] == 0
    assert 5 / 40 <= found["pixels"]["share"] < 0.3
    assert len(found["pixels"]["distances"]) == 40 and len(found["pixels"]["held_out_distances"]) == 30
    assert max(found["pixels"]["distances"][:5]) == pytest.approx(1 / 255, abs=1e-4)
    assert found["features"]["unit"] == "cosine distance of inception" and len(found["features"]["distances"]) == 40
    assert min(read_image(place / "nearest.png").shape[:2]) > 300


def test_the_picture_that_was_written_is_no_sample_the_next_time(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path]
) -> None:
    run, fake = diffusion_run(pictures(2, 20), pictures(3, 50)), folders[1]
    first, second = (compare_images(run, fake, out=fake, device="cpu")[0] for _ in range(2))
    assert (fake / "nearest.png").exists() and first["generated"] == second["generated"]


def test_an_image_that_has_the_picture_s_name_is_not_written_over(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run, fake = diffusion_run(pictures(2, 20), pictures(3, 50)), folders[1]
    (fake / "000.png").rename(fake / "nearest.png")
    before = (fake / "nearest.png").read_bytes()
    assert "--out" in refused(run, fake, out=fake)
    record, place = compare_images(run, fake, out=tmp_path / "out", device="cpu")
    assert record["generated"]["images"] == 40 and (fake / "nearest.png").read_bytes() == before
    assert sorted(path.name for path in place.iterdir()) == ["fid.json", "nearest.png"]


def test_grey_runs_and_samples_of_colour_are_of_one_size_and_three_channels(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path]
) -> None:
    grey = [pictures(seed, 20)[..., :1] for seed in (2, 3)]
    one = compare_images(diffusion_run(*grey), folders[1], device="cpu")[0]
    two = compare_images(diffusion_run(*(np.repeat(side, 3, 3) for side in grey)), folders[1], device="cpu")[0]
    assert one["features"] == two["features"]
    other = diffusion_run(pictures(2, 20, (32, 32)), pictures(3, 50, (32, 32)))
    assert "32x32 (70 images), 16x16 (40 images)" in refused_again(other, folders[1])
    assert compare_images(other, folders[1], size=16, device="cpu")[0]["size"] == [16, 16]


def refused_again(*args: Any) -> str:
    with pytest.raises(DataError) as told:
        compare_images(*args, device="cpu")
    return str(told.value)


def test_a_run_that_holds_nothing_out_has_the_paper_s_numbers_only(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path]
) -> None:
    run = diffusion_run(np.zeros((0, 16, 16, 3), np.uint8), pictures(3, 50))
    assert "--protocol paper is possible" in refused(run, folders[1], protocol="honest")
    record, _ = compare_images(run, folders[1], device="cpu")
    assert record["protocols"] == ["paper"] and record["features"][0]["honest"] is None
    assert record["memorisation"]["pixels"]["share"] is None and record["memorisation"]["pixels"]["copies"] == 0
    few = diffusion_run(pictures(2, 3), pictures(3, 50))
    assert "holds 3 image(s) out" in refused_again(few, folders[1])


def test_the_verb_s_page_explains_every_key(diffusion_run: Callable[..., Path], folders: tuple[Path, Path]) -> None:
    record, _ = compare_images(diffusion_run(pictures(2, 20), pictures(3, 50)), folders[1], device="cpu")
    page = Path(__file__).parents[2] / "docs" / "verbs" / "fid.md"
    said = set(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))

    def keys(content: Any) -> set[str]:
        if isinstance(content, list):
            return set().union(*map(keys, content))
        return set(content).union(*map(keys, content.values())) if isinstance(content, dict) else set()

    assert keys(record | {"environment": None}) <= said


# The command.


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    written: list[Path] = []
    page = types.ModuleType("ukan.report.diffusion_page")
    page.write_fid_page = lambda folder: written.append(folder) or folder / "fid.html"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ukan.report.diffusion_page", page)
    return written


def test_the_command_prints_kid_first_and_fid_only_with_its_floor(folders: tuple[Path, Path], pages: list[Path]) -> None:
    real, fake = folders
    done = CliRunner().invoke(app, ["fid", str(real), str(fake), "--device", "cpu", "--features", "inception"])
    assert not done.exit_code, done.output
    lines = done.output.splitlines()
    first, second = (next(n for n, line in enumerate(lines) if line.startswith(word)) for word in ("KID", "FID"))
    assert first < second and "15 a side" in lines[second] and "floor" in done.output
    assert "not comparable across datasets" in done.output and "protocol paper" not in done.output
    assert pages == [fake] and "fid.html" in done.output


def test_the_command_never_mixes_protocols_and_calls_no_encoder_s_distance_a_fid(
    diffusion_run: Callable[..., Path], folders: tuple[Path, Path], pages: list[Path]
) -> None:
    run = diffusion_run(pictures(2, 20), pictures(3, 50))
    done = CliRunner().invoke(app, ["fid", str(run), str(folders[1]), "--features", "run:enc", "--device", "cpu"])
    assert not done.exit_code, done.output
    honest_part, paper_part = done.output.split("protocol paper")
    assert "kernel distance (run:enc)" in honest_part and "kernel" not in paper_part
    assert "20 real, 40 generated" in honest_part and "50 training, 40 generated" in paper_part
    assert "FID" not in done.output and "Inception score" not in done.output
    assert "suspiciously close to a training image" in paper_part and "5 % of unseen real ones" in paper_part
