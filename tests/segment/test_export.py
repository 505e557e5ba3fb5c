"""What `ukan export-nnunet` writes is what nnU-Net's own rules ask for, and reads back as the same cases and truths."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner
from ukan_cli.export_nnunet import export_nnunet as command

from ukan.data.index import Index, index_folder
from ukan.data.layouts import find_layout
from ukan.data.masks import read_truth
from ukan.errors import DataError, UserError
from ukan.imaging import read_labels, read_picture
from ukan.segment.export import export_nnunet
from ukan.stage.prepare import plan_folder

SMALL = ["split.folds=2", "data.input_size=[32,32]", "model.widths=[8,8,8]", "train.batch_size=2"]


def noise(seed: int, size: tuple[int, ...] = (32, 40), most: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Coarse noise, so that no two pictures are near-duplicates."""
    coarse = np.random.default_rng(seed).integers(0, most, (*size[:-2], 8, 8))
    return np.kron(coarse, np.ones((size[-2] // 8, size[-1] // 8), int)).astype(dtype)


def box(seed: int, size: tuple[int, int] = (32, 40), side: int = 9) -> np.ndarray:
    top, left = np.random.default_rng(seed).integers(0, 20, 2)
    mask = np.zeros(size, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_nifti(path: Path, values_ijk: np.ndarray, affine: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values_ijk, affine).to_filename(path)


def truth(index: Index, name: str) -> np.ndarray:
    """(K, D, H, W)"""
    case, f = next(case for case in index.cases if case.case == name), index.fingerprint
    assert f is not None
    shape = read_picture(index.root / case.image).values.shape[:3]
    return read_truth(index.root, case, shape, f.mask_rule, f.classes, f.label_values)


def assert_obeys_nnunet(folder: Path) -> dict:
    """The rules of nnU-Net's documentation/dataset_format.md and of its verify_dataset_integrity."""
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert re.fullmatch(r"Dataset\d{3}_.+", folder.name)
    ending, labels, channels = content["file_ending"], content["labels"], content["channel_names"]
    assert labels["background"] == 0 and sorted(labels.values()) == list(range(len(labels)))
    assert list(channels) == [str(k) for k in range(len(channels))]
    for part in ("Tr", "Ts"):
        if not (folder / f"labels{part}").exists():
            assert part == "Ts" and not (folder / "imagesTs").exists()
            continue
        names = sorted(path.name.removesuffix(ending) for path in (folder / f"labels{part}").iterdir())
        assert len(names) == content["numTraining"] or part == "Ts"
        rgb = list(channels.values()) == ["R", "G", "B"]
        files = {f"{name}_{k:04}{ending}" for name in names for k in range(1 if rgb else len(channels))}
        assert {path.name for path in (folder / f"images{part}").iterdir()} == files
        for name in names:
            found = read_labels(folder / f"labels{part}" / f"{name}{ending}").values
            assert set(np.unique(found)) <= set(labels.values())
            assert found.shape == read_picture(folder / f"images{part}" / f"{name}_0000{ending}").values.shape[:3]
    return content


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Colour pictures with an official test part; masks of 0 and 255; a name that holds blanks and a bracket."""
    folder = tmp_path / "my set"
    for number, name in enumerate(("a (1)", "b", "c", "d", "e", "f")):
        part = "test" if name in "ef" else "train"
        save(folder / part / "images" / f"{name}.png", np.stack([noise(number), noise(number + 50), noise(number + 90)], -1))
        save(folder / part / "masks" / f"{name}.png", box(number) * 255)
    return folder


def test_pictures_come_back_as_the_same_cases_splits_values_and_truths(pictures: Path, tmp_path: Path) -> None:
    done = export_nnunet(pictures, tmp_path / "raw", number=7)
    assert done.folder == tmp_path / "raw" / "Dataset007_my-set" and (done.train, done.test, done.splits) == (4, 2, False)
    content = assert_obeys_nnunet(done.folder)
    assert content == {
        "name": "my-set",
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": 4,
        "file_ending": ".png",
    }
    assert np.array_equal(cv2.imread(str(done.folder / "labelsTr" / "a (1).png"), cv2.IMREAD_UNCHANGED), box(0))
    assert find_layout(done.folder) == ("nnunet", done.folder)
    before, after = index_folder(pictures), index_folder(done.folder)
    assert after.errors == []
    assert [(case.case, case.split) for case in after.cases] == [(case.case, case.split) for case in before.cases]
    for old, new in zip(before.cases, after.cases, strict=True):
        assert np.array_equal(truth(before, old.case), truth(after, new.case))
        images = [read_picture(index.root / case.image).values for index, case in ((before, old), (after, new))]
        assert np.array_equal(*images)


def test_label_values_are_counted_through_from_one(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "set" / "images" / f"{number}.png", noise(number))
        labels = np.zeros((32, 40), np.uint8)
        labels[4:20, 3:20], labels[5:25, 24:38] = 3, 7
        save(tmp_path / "set" / "masks" / f"{number}.png", labels)
    done = export_nnunet(tmp_path / "set", tmp_path / "raw")
    assert assert_obeys_nnunet(done.folder)["labels"] == {"background": 0, "class_3": 1, "class_7": 2}
    before, after = index_folder(tmp_path / "set"), index_folder(done.folder)
    assert after.fingerprint and after.fingerprint.classes == ("class_3", "class_7")
    assert all(np.array_equal(truth(before, case.case), truth(after, case.case)) for case in before.cases)


def test_folders_of_classes_become_one_map_and_overlap_is_refused(tmp_path: Path) -> None:
    folder, out = tmp_path / "set", tmp_path / "raw"
    for number in range(3):
        save(folder / "images" / f"{number}.png", noise(number))
        mask = np.zeros((32, 40), np.uint8)
        mask[:, :10] = 255
        save(folder / "masks" / "left" / f"{number}.png", mask)
        save(folder / "masks" / "right" / f"{number}.png", mask[:, ::-1].copy())
    done = export_nnunet(folder, out)
    assert assert_obeys_nnunet(done.folder)["labels"] == {"background": 0, "left": 1, "right": 2}
    before, after = index_folder(folder), index_folder(done.folder)
    assert all(np.array_equal(truth(before, case.case), truth(after, case.case)) for case in before.cases)
    save(folder / "masks" / "right" / "1.png", np.full((32, 40), 255, np.uint8))
    with pytest.raises(DataError, match="^1: its classes overlap"):
        export_nnunet(folder, out, number=502)
    assert [path.name for path in out.iterdir()] == [done.folder.name]


def test_volumes_keep_their_values_channels_and_place(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    folder = tmp_path / "set"
    turn = np.deg2rad(10)
    affine = np.array(
        [
            [-0.7, 0, 0, 90],
            [0, 0.7 * np.cos(turn), -3 * np.sin(turn), -80],
            [0, 0.7 * np.sin(turn), 3 * np.cos(turn), 5],
            [0, 0, 0, 1],
        ]
    )
    for number in range(3):
        volume = noise(number, (5, 32, 40), 4000, np.int16).transpose(2, 1, 0) - 1000
        labels = np.stack([box(number)] * 5).transpose(2, 1, 0)
        save_nifti(folder / "imagesTr" / f"v{number}_0000.nii.gz", volume, affine)
        save_nifti(folder / "imagesTr" / f"v{number}_0001.nii.gz", volume[::-1].copy(), affine)
        save_nifti(folder / "labelsTr" / f"v{number}.nii.gz", labels, affine)
    describe = {"channel_names": {"0": "a", "1": "b"}, "labels": {"background": 0, "liver": 1}}
    (folder / "dataset.json").write_text(json.dumps(describe))
    done = export_nnunet(folder, tmp_path / "raw")
    content = assert_obeys_nnunet(done.folder)
    assert content["file_ending"] == ".nii.gz" and content["labels"] == {"background": 0, "liver": 1}
    for path in sorted(folder.rglob("*.nii.gz")):
        old, new = nibabel.load(path), nibabel.load(done.folder / path.relative_to(folder))
        assert np.array_equal(np.asanyarray(old.dataobj), np.asanyarray(new.dataobj))
        assert np.allclose(old.affine, new.affine, atol=1e-5)
    before, after = index_folder(folder), index_folder(done.folder)
    assert [case.channels for case in after.cases] == [case.channels for case in before.cases]


def test_a_stack_without_a_place_comes_back_as_it_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number in range(2):
        pages = [Image.fromarray(page) for page in noise(number, (3, 32, 40))]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        pages[0].save(folder / "images" / f"{number}.tif", save_all=True, append_images=pages[1:])
        (folder / "masks").mkdir(exist_ok=True)
        masks = [Image.fromarray(box(number + k)) for k in range(3)]
        masks[0].save(folder / "masks" / f"{number}.tif", save_all=True, append_images=masks[1:])
    done = export_nnunet(folder, tmp_path / "raw")
    before, after = index_folder(folder), index_folder(done.folder)
    for case in before.cases:
        assert np.array_equal(truth(before, case.case), truth(after, case.case))
        grey = read_picture(folder / case.image).values[..., 0]
        assert np.array_equal(read_picture(done.folder / "imagesTr" / f"{case.case}_0000.nii.gz").values[..., 0], grey)


def test_deep_greys_are_kept_in_tiff(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "set" / "images" / f"{number}.png", noise(number, most=40000, dtype=np.uint16))
        save(tmp_path / "set" / "masks" / f"{number}.png", box(number) * 255)
    done = export_nnunet(tmp_path / "set", tmp_path / "raw")
    assert assert_obeys_nnunet(done.folder)["file_ending"] == ".tif"
    found = np.asarray(Image.open(done.folder / "imagesTr" / "1_0000.tif"))
    assert found.dtype == np.uint16 and np.array_equal(found, noise(1, most=40000, dtype=np.uint16))


# With a plan


def test_a_plan_gives_its_cases_classes_and_folds(pictures: Path, tmp_path: Path) -> None:
    save(pictures / "train" / "masks" / "d.png", np.zeros((32, 40), np.uint8))
    _, path, _ = plan_folder(pictures, settings=[*SMALL, "data.empty_cases=drop"])
    done = export_nnunet(pictures, tmp_path / "raw", plan=path)
    assert (done.train, done.test, done.splits) == (3, 2, True)
    assert_obeys_nnunet(done.folder)
    folds = json.loads((done.folder / "splits_final.json").read_text(encoding="utf-8"))
    assert folds == json.loads(path.with_suffix(".splits.json").read_text(encoding="utf-8"))["folds"] and len(folds) == 2
    assert all(set(fold["train"]) | set(fold["val"]) == {"a (1)", "b", "c"} for fold in folds)


def test_files_that_changed_since_the_plan_are_refused(pictures: Path, tmp_path: Path) -> None:
    _, path, _ = plan_folder(pictures, settings=SMALL)
    save(pictures / "train" / "masks" / "b.png", box(9) * 255)
    with pytest.raises(DataError, match="b: its files have changed since the plan was made"):
        export_nnunet(pictures, tmp_path / "raw", plan=path)
    path.with_name("index.csv").write_text("")
    with pytest.raises(DataError, match="run `ukan plan` again"):
        export_nnunet(pictures, tmp_path / "raw", plan=path)


# Refusals


def test_a_number_that_is_taken_or_none_is_refused(pictures: Path, tmp_path: Path) -> None:
    export_nnunet(pictures, tmp_path / "raw")
    with pytest.raises(UserError, match="Dataset501_my-set is there already; remove it, or give another number with --id"):
        export_nnunet(pictures, tmp_path / "raw")
    with pytest.raises(UserError, match="--id 1000: nnU-Net's datasets are numbered from 1 to 999"):
        export_nnunet(pictures, tmp_path / "raw", number=1000)


def test_a_folder_with_problems_is_refused_with_their_number_and_the_first(pictures: Path, tmp_path: Path) -> None:
    (pictures / "train" / "masks" / "b.png").unlink()
    with pytest.raises(
        DataError, match=r"1 problem\(s\) keep cases.*`ukan check` lists them; the first: train/images/b.png"
    ):
        export_nnunet(pictures, tmp_path / "raw")


def test_pictures_and_volumes_together_are_refused(pictures: Path, tmp_path: Path) -> None:
    save_nifti(pictures / "train" / "images" / "v.nii.gz", noise(5, (3, 32, 40)), np.eye(4))
    save_nifti(pictures / "train" / "masks" / "v.nii.gz", np.stack([box(5)] * 3), np.eye(4))
    with pytest.raises(DataError, match="6 pictures and 1 volumes; nnU-Net takes one kind a dataset"):
        export_nnunet(pictures, tmp_path / "raw")
    assert list(tmp_path.glob("raw/*")) == []


def test_cases_of_different_channels_are_refused(pictures: Path, tmp_path: Path) -> None:
    save(pictures / "train" / "images" / "b.png", noise(3, most=40000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"b: 1 channel\(s\), a \(1\) has 3; nnU-Net takes the same for all cases"):
        export_nnunet(pictures, tmp_path / "raw")


def test_the_command_says_what_was_written_and_what_to_type_next(pictures: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(pictures), str(tmp_path / "raw"), "--id", "12"])
    assert result.exit_code == 0, result.output
    assert f"written: {tmp_path}/raw/Dataset012_my-set  (4 cases, 2 of the official test part)" in result.output
    assert "nnUNetv2_plan_and_preprocess -d 12" in result.output
    assert "blind to patients and sequences; --plan" in result.output
