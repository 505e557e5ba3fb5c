from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from ukan.data.index import index_folder
from ukan.data.masks import united_mask
from ukan.data.phantoms import Label, make_ultrasound, write_ultrasound
from ukan.imaging import read_image, read_mask

Made = tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]


def _make(seed: int, label: Label | None = None, height: int = 96, width: int = 120) -> Made:
    return make_ultrasound(np.random.default_rng(seed), height, width, label)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_ultrasound(folder, 36, seed=0)
    return folder


def test_same_seed_gives_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        write_ultrasound(tmp_path / name, 4, seed)
    one, other = _bytes(tmp_path / "one"), _bytes(tmp_path / "other")
    assert one == _bytes(tmp_path / "again")
    assert all(one[name] != other[name] for name in one.keys() & other.keys() if "mask" not in name)


def test_a_picture_does_not_depend_on_the_count(written: Path, tmp_path: Path) -> None:
    write_ultrasound(tmp_path, 13, seed=0)
    few, many = _bytes(tmp_path), _bytes(written)
    assert len([name for name in few if "mask" not in name]) == 13
    assert few.items() <= many.items()


def test_a_second_lesion_has_a_mask_file_of_its_own(written: Path) -> None:
    second = sorted(written.glob("*/*_mask_1.png"))
    assert second
    for path in second:
        first = path.with_name(path.name.replace("_mask_1", "_mask"))
        assert not (read_mask(path) & read_mask(first)).any()
        assert set(np.unique(read_mask(path)).tolist()) == {0, 255}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_written_folder_is_indexed_without_an_error_or_a_duplicate(tmp_path: Path, seed: int) -> None:
    write_ultrasound(tmp_path, 36, seed)
    index = index_folder(tmp_path)
    assert index.layout == "busi"
    assert {problem.kind for problem in index.problems} <= {"empty mask", "several masks"}
    assert index.fingerprint is not None
    assert index.fingerprint.labels == {"benign": 21, "malignant": 12, "normal": 3}
    assert index.fingerprint.empty == 3
    assert index.fingerprint.near_duplicates == 0
    assert len({(case.height, case.width) for case in index.cases}) > 30


def test_no_threshold_on_the_grey_value_solves_them(written: Path) -> None:
    cases = [case for case in index_folder(written).cases if case.foreground > 0]
    images = [read_image(written / case.image)[..., 0].astype(np.float32) for case in cases]
    masks = [united_mask(written, case.masks, case.height, case.width, "nonzero") for case in cases]
    for sigma_px in (0.0, 1.5, 3.0):
        smooth = [gaussian_filter(image, sigma_px) for image in images]
        for threshold in range(2, 255, 4):
            dice = [
                2 * np.sum((s < threshold) & m) / (np.sum(s < threshold) + m.sum())
                for s, m in zip(smooth, masks, strict=True)
            ]
            assert np.mean(dice) < 0.5


@pytest.mark.parametrize(("height", "width"), [(96, 120), (140, 70), (32, 32)])
@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_every_lesion_lies_whole_within_the_image_and_apart_from_others(label: Label, height: int, width: int) -> None:
    for seed in range(20):
        image_HW, masks = _make(seed, label, height, width)
        assert image_HW.shape == (height, width)
        assert image_HW.dtype == np.uint8
        assert 1 <= len(masks) <= 2
        for mask_HW in masks:
            assert mask_HW.shape == image_HW.shape
            assert mask_HW.dtype == np.bool_
            assert mask_HW.any()
            assert not (mask_HW[[0, -1]].any() or mask_HW[:, [0, -1]].any())
        if len(masks) == 2:
            assert not (binary_dilation(masks[0]) & masks[1]).any()


def test_normal_pictures_have_no_lesion_and_unlabelled_ones_are_mixed() -> None:
    assert all(_make(seed, "normal")[1] == [] for seed in range(3))
    assert {len(_make(seed, height=40, width=48)[1]) for seed in range(60)} == {0, 1, 2}


def test_lesions_are_darker_than_their_surroundings_on_average() -> None:
    darker_by = []
    for seed in range(40):
        image_HW, masks = _make(seed, "malignant" if seed % 2 else "benign")
        for mask_HW in masks:
            ring_HW = binary_dilation(mask_HW, iterations=6) & ~binary_dilation(mask_HW)
            darker_by.append(image_HW[ring_HW].mean() - image_HW[mask_HW].mean())
    assert np.mean(darker_by) > 30
    assert np.mean(np.array(darker_by) > 0) > 0.95


def test_tissue_behind_a_benign_lesion_is_brighter_than_behind_a_malignant_one() -> None:
    def behind(label: Label) -> float:
        differences = []
        for seed in range(40):
            image_HW, masks = _make(seed, label)
            rows, columns = np.nonzero(masks[0])
            below = image_HW[rows.max() + 3 : rows.max() + 20]
            column = np.arange(image_HW.shape[1])
            over = np.abs(column - columns.mean()) < 0.3 * np.ptp(columns)
            beside = np.abs(column - columns.mean()) > 0.8 * np.ptp(columns)
            differences.append(below[:, over].mean() - below[:, beside].mean())
        return float(np.mean(differences))

    assert behind("benign") > 5
    assert behind("malignant") < -5


def test_too_small_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="sides of 32 px or more"):
        _make(0, None, 31, 200)
