"""From file to network input: what is prepared is right, kept, and never taken from files that are not the index's."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ukan.data.cache
from ukan.data.cache import cache_root, prepare_cases, read_case
from ukan.data.index import case_hash, index_folder
from ukan.data.preprocess import at_size, prepare_stack, prepare_truth, read_stack, to_input
from ukan.data.windows import cut, windows
from ukan.errors import DataError
from ukan.imaging import read_image, read_mask
from ukan.plan import Case, DataPlan, sha256_of


def data_plan(**changes: Any) -> DataPlan:
    base = {"dataset": "raw", "layout": "folders", "index_sha256": "0" * 64, "channels": 1, "input_size": (24, 32)}
    return DataPlan(**{**base, **changes})


@pytest.fixture
def raw(write_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[Case]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_dataset(Path("raw"), count=8)
    return folder, index_folder(folder).cases


def prepare_image(image_HWC: np.ndarray, data: DataPlan) -> np.ndarray:
    return prepare_stack(image_HWC[None], data)[0]


def prepare_mask(mask_HW: np.ndarray, data: DataPlan) -> np.ndarray:
    return prepare_truth(mask_HW[None, None], data)[0, ..., 0]


def cached() -> set[str]:
    return {path.name for path in cache_root().iterdir()} if cache_root().exists() else set()


# The cache


def test_prepared_cases_are_the_files_prepared(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    data = data_plan()
    prepared = prepare_cases(root, cases, data)
    assert prepared.names == [case.case for case in cases]
    assert prepared.images_NHWC.shape == (8, 24, 32, 1) and prepared.targets_NHWM.shape == (8, 24, 32, 1)
    for row, case in enumerate(cases):
        assert np.array_equal(prepared.images_NHWC[row], prepare_image(read_image(root / case.image), data))
        mask = read_mask(root / case.masks[0]) > 0
        assert np.array_equal(prepared.targets_NHWM[row, ..., 0], prepare_mask(mask, data))
    assert set(np.unique(prepared.targets_NHWM)) == {0, 1}


def test_a_second_call_reads_the_cache_and_no_image(raw: tuple[Path, list[Case]], monkeypatch: pytest.MonkeyPatch) -> None:
    root, cases = raw
    first = prepare_cases(root, cases, data_plan())

    def read(*_: object) -> None:
        raise AssertionError("an image is read again")

    monkeypatch.setattr(ukan.data.cache, "read_case", read)
    again = prepare_cases(root, cases[::-1], data_plan())  # in whatever order
    assert again.names == first.names and np.array_equal(again.images_NHWC, first.images_NHWC)
    assert len(cached()) == 1


def test_a_cache_may_be_deleted_at_any_time(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    first = prepare_cases(root, cases, data_plan())
    images = np.array(first.images_NHWC)
    for gone in ("names.json", "images.npy", "targets.npy"):
        (next(cache_root().iterdir()) / gone).unlink()
        assert np.array_equal(prepare_cases(root, cases, data_plan()).images_NHWC, images), f"without {gone}"


@pytest.mark.parametrize("name", ["names.json", "images.npy", "targets.npy"])
def test_a_damaged_cache_is_made_anew(raw: tuple[Path, list[Case]], name: str) -> None:
    root, cases = raw
    images = np.array(prepare_cases(root, cases, data_plan()).images_NHWC)
    path = next(cache_root().iterdir()) / name
    for size in (0, 10, path.stat().st_size // 2):
        content = path.read_bytes()
        path.unlink()  # what is mapped from it stays
        path.write_bytes(content[:size])
        assert np.array_equal(prepare_cases(root, cases, data_plan()).images_NHWC, images), f"{size} bytes of {name}"


def test_no_room_for_the_cache_is_told_with_what_it_takes_and_nothing_is_kept(
    raw: tuple[Path, list[Case]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device; preparing the cases needs 0.0 GiB"):
        prepare_cases(*raw, data_plan())
    assert cached() == set()


def test_what_a_killed_start_left_is_removed_when_it_is_old(raw: tuple[Path, list[Case]]) -> None:
    old, young = (cache_root() / name for name in (".making-old", ".making-young"))
    for left in (old, young):
        left.mkdir(parents=True)
    os.utime(old, (0, 0))
    prepare_cases(*raw, data_plan())
    assert young.exists() and not old.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": (32, 24)},
        {"channels": 3},
        {"mask_rule": "half"},
        {"interpolation": "linear"},
        {"colour_order": "bgr"},
        {"dataset": "other"},
        {"resize": "letterbox"},
        {"window": (0.0, 9.0)},
        {"classes": ("lesion",)},
        {"crop": "square"},
        {"crop": (40, 40), "random_windows": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_preparing_depends_on_has_a_folder_of_its_own(raw: tuple[Path, list[Case]], change: dict[str, Any]) -> None:
    root, cases = raw
    prepare_cases(root, cases, data_plan())
    prepared = prepare_cases(root, cases, data_plan(**change))
    assert len(cached()) == 2
    if "input_size" in change:
        assert prepared.images_NHWC.shape[1:3] == (32, 24)


def test_what_preparing_does_not_depend_on_shares_a_folder(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    for data in (data_plan(), data_plan(normalization="image"), data_plan(index_sha256="1" * 64)):
        prepare_cases(root, cases, data)
    assert len(cached()) == 1


def test_whole_images_keep_the_folder_they_had_before_windows_came(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    data = data_plan()
    prepare_cases(root, cases, data)
    names = ["channels", "colour_order", "window", "input_size", "resize", "interpolation"]
    names += ["mask_rule", "target", "classes", "label_values"]
    key = {"format": 2, "cases": [(case.case, case.hash) for case in cases]}
    key |= {name: getattr(data, name) for name in names}
    assert cached() == {f"raw-{sha256_of(key)[:16]}"}


# Windows


@pytest.mark.parametrize("crop", ["square", (40, 30), (60, 80)])
def test_a_window_is_cut_from_image_and_truth_alike_before_they_are_resized(raw: tuple[Path, list[Case]], crop: Any) -> None:
    root, cases = raw
    data = data_plan(crop=crop)
    prepared = prepare_cases(root, cases, data)
    assert prepared.slices == [1] * 8
    for row, case in enumerate(cases):
        image, mask = read_image(root / case.image), read_mask(root / case.masks[0]) > 0
        (window,) = windows(image.shape[:2], crop, 0, case.case)
        assert np.array_equal(prepared.images_NHWC[row], prepare_image(cut(image, window), data))
        assert np.array_equal(prepared.targets_NHWM[row, ..., 0], prepare_mask(cut(mask, window), data))


def test_every_random_window_is_a_row_of_its_case_and_shows_image_and_truth_of_one_place(
    raw: tuple[Path, list[Case]],
) -> None:
    root, cases = raw
    data = data_plan(crop=(20, 16), random_windows=3, input_size=(20, 16))  # so nothing is resized
    prepared = prepare_cases(root, cases, data)
    assert prepared.slices == [3] * 8 and len(prepared.images_NHWC) == 24
    places = set()
    for case in cases:
        image, mask = read_image(root / case.image)[..., 0], read_mask(root / case.masks[0]) > 0
        for row in prepared.rows(case.case):
            top, left = next(
                (y, x)
                for y in range(29)
                for x in range(49)
                if np.array_equal(image[y : y + 20, x : x + 16], prepared.images_NHWC[row, ..., 0])
            )
            assert np.array_equal(mask[top : top + 20, left : left + 16], prepared.targets_NHWM[row, ..., 0])
            places.add((case.case, top, left))
    assert len(places) == 24
    again = prepare_cases(root, cases[2:5], data)  # whatever other cases there are
    for case in cases[2:5]:
        assert all(
            np.array_equal(again.images_NHWC[a], prepared.images_NHWC[b])
            for a, b in zip(again.rows(case.case), prepared.rows(case.case), strict=True)
        )


def test_of_a_volume_every_slice_is_cut_at_the_same_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nibabel

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(2):
        scan = rng.integers(0, 200, (24, 20, 5)).astype(np.uint8)
        for folder, values in (("images", scan), ("masks", (scan > 100).astype(np.uint8))):
            (tmp_path / "raw" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "raw" / folder / f"v{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 3, 1.0])), path)
    root, cases = tmp_path / "raw", index_folder(tmp_path / "raw").cases
    data = data_plan(crop=(12, 10), random_windows=2, input_size=(12, 10))
    prepared = prepare_cases(root, cases, data)
    assert prepared.slices == [10, 10] and prepared.images_NHWC.shape == (20, 12, 10, 1)
    for case in cases:
        opened = read_case(root, case, data)
        places = windows(opened.image_DHWC.shape[1:3], (12, 10), 2, case.case)
        expected = [cut(image, window) for window in places for image in opened.image_DHWC]
        truth = [cut(mask, window) for window in places for mask in opened.truth_KDHW[0]]
        rows = slice(prepared.rows(case.case)[0], prepared.rows(case.case)[-1] + 1)
        assert np.array_equal(prepared.images_NHWC[rows], expected)
        assert np.array_equal(prepared.targets_NHWM[rows, ..., 0], truth)


def test_other_cases_have_another_folder(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    prepare_cases(root, cases, data_plan())
    assert prepare_cases(root, cases[:3], data_plan()).names == ["c000", "c001", "c002"] and len(cached()) == 2


def test_changed_and_missing_files_are_refused_by_name_and_nothing_is_kept(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    with Image.open(root / "masks/c003.png") as mask:
        changed = np.asarray(mask).copy()
    changed[0, 0] ^= 255
    Image.fromarray(changed).save(root / "masks/c003.png")
    (root / "images/c005.png").unlink()
    with pytest.raises(DataError, match="c003: its files have changed since the plan was made") as error:
        prepare_cases(root, cases, data_plan())
    assert "c005" in str(error.value) and "c001" not in str(error.value) and "ukan plan" in str(error.value)
    assert cached() == set()


def test_many_changed_files_are_counted_and_not_all_listed(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    with pytest.raises(DataError, match="and 3 more"):
        prepare_cases(root, [case._replace(hash="0") for case in cases], data_plan())


def test_progress_counts_every_case(raw: tuple[Path, list[Case]]) -> None:
    seen: list[tuple[int, int]] = []
    prepare_cases(*raw, data_plan(), lambda *at: seen.append(at))
    assert seen == [(i, 8) for i in range(1, 9)]


def test_a_mask_of_another_size_than_its_image_is_brought_to_it(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    before = read_case(root, cases[2], data_plan()).truth_KDHW
    with Image.open(root / "masks/c002.png") as mask:
        Image.fromarray(np.kron(np.asarray(mask), np.ones((3, 3), np.uint8))).save(root / "masks/c002.png")
    cases = index_folder(root).cases
    opened = read_case(root, cases[2], data_plan())
    assert opened.image_DHWC.shape == (1, 48, 64, 3) and np.array_equal(opened.truth_KDHW, before)
    prepared = prepare_cases(root, cases, data_plan(input_size=(48, 64)))
    assert np.array_equal(prepared.targets_NHWM[2, ..., 0], before[0, 0])


def test_a_case_without_masks_shows_nothing(raw: tuple[Path, list[Case]]) -> None:
    root, cases = raw
    case = cases[0]._replace(masks=())
    opened = read_case(root, case._replace(hash=case_hash(root, case)), data_plan())
    assert opened.truth_KDHW.shape == (1, *opened.image_DHWC.shape[:3]) and not opened.truth_KDHW.any()


# Preparing one picture


RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def test_shrinking_by_area_is_the_mean_of_what_falls_together() -> None:
    means = RGB.reshape(6, 2, 8, 2, 3).mean((1, 3))
    small = prepare_image(RGB, data_plan(channels=3, input_size=(6, 8)))
    assert np.abs(small - means).max() <= 0.5 + 1e-6
    third = prepare_image(RGB, data_plan(channels=3, input_size=(3, 4)))
    assert np.abs(third - RGB.reshape(3, 4, 4, 4, 3).mean((1, 3))).max() <= 0.5 + 1e-6
    skipping = prepare_image(RGB, data_plan(channels=3, input_size=(3, 4), interpolation="linear"))
    assert np.abs(skipping.astype(int) - third).max() > 10


@pytest.mark.parametrize("interpolation", ["area", "linear"])
def test_enlarging_blends_and_a_picture_of_the_right_size_stays(interpolation: str) -> None:
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None], 12, 0)
    ramp = np.repeat(ramp[..., None], 3, 2)
    large = prepare_image(ramp, data_plan(channels=1, input_size=(24, 32), interpolation=interpolation))
    assert np.abs(np.diff(large[0, 2:-2, 0].astype(int)) - 5).max() <= 1  # no steps of 10
    same = prepare_image(RGB, data_plan(channels=3, input_size=(12, 16), interpolation=interpolation))
    assert np.array_equal(same, RGB)


def test_channels_are_grey_or_in_the_order_asked() -> None:
    grey = prepare_image(RGB, data_plan(channels=1, input_size=(12, 16)))
    assert grey.shape == (12, 16, 1)
    assert np.abs(grey[..., 0] - RGB @ np.array([0.299, 0.587, 0.114])).max() <= 1
    bgr = prepare_image(RGB, data_plan(channels=3, colour_order="bgr", input_size=(12, 16)))
    assert np.array_equal(bgr, RGB[..., ::-1])
    of_grey = prepare_image(np.repeat(RGB[..., :1], 3, 2), data_plan(channels=1, input_size=(12, 16)))
    assert np.array_equal(of_grey[..., 0], RGB[..., 0])  # a grey picture stays what it is


def test_masks_take_the_nearest_value() -> None:
    mask = np.random.default_rng(1).random((12, 16)) < 0.5
    large = prepare_mask(mask, data_plan(input_size=(24, 48)))
    assert large.dtype == np.uint8 and np.array_equal(large, np.kron(mask, np.ones((2, 3), np.uint8)))
    assert set(np.unique(prepare_mask(mask, data_plan(input_size=(7, 9))))) == {0, 1}


def test_a_letterbox_keeps_the_shape_and_is_undone_by_at_size() -> None:
    data = data_plan(channels=3, input_size=(32, 32), resize="letterbox")
    wide = np.full((10, 40, 3), 200, np.uint8)
    framed = prepare_image(wide, data)
    assert (framed[12:20] == 200).all() and not framed[:12].any() and not framed[20:].any()
    mask = np.zeros((10, 40), bool)
    mask[2:9, 5:30] = True
    prepared = prepare_mask(mask, data_plan(input_size=(40, 40), resize="letterbox"))
    assert np.array_equal(prepared[15:25], mask) and not prepared[:15].any() and not prepared[25:].any()
    back = at_size(prepared[None].astype(np.float32), (10, 40), data_plan(input_size=(40, 40), resize="letterbox"))
    assert np.array_equal(back[0] > 0.5, mask)


@pytest.mark.parametrize("size", [(31, 77), (200, 9), (64, 64), (1, 300)])
def test_a_letterbox_takes_every_shape_and_gives_it_back(size: tuple[int, int]) -> None:
    data = data_plan(channels=1, input_size=(32, 64), resize="letterbox")
    assert prepare_image(np.full((*size, 3), 9, np.uint8), data).shape == (32, 64, 1)
    assert at_size(np.ones((2, 32, 64), np.float32), size, data).shape == (2, *size)


def test_classes_that_exclude_one_another_become_numbers_and_others_channels() -> None:
    truth = np.zeros((2, 3, 4, 4), bool)
    truth[0, 0, 1], truth[1, 2, :, 3] = True, True
    classes = {"classes": ("a", "b"), "input_size": (4, 4)}
    labels = prepare_truth(truth, data_plan(target="multiclass", mask_rule="labels", label_values=(7, 9), **classes))
    assert labels.shape == (3, 4, 4, 1) and np.array_equal(labels[..., 0], truth[0] + 2 * truth[1])
    channels = prepare_truth(truth, data_plan(target="multilabel", **classes))
    assert channels.shape == (3, 4, 4, 2) and np.array_equal(np.moveaxis(channels, -1, 0), truth)


def test_channels_of_further_files_follow_and_files_of_other_sizes_are_refused(tmp_path: Path) -> None:
    for number, size in enumerate([(6, 5), (6, 5), (7, 5)]):
        Image.fromarray(np.full(size, 50 * number, np.uint8)).save(tmp_path / f"x_000{number}.png")
    names = [tmp_path / f"x_000{number}.png" for number in range(3)]
    stack, geometry = read_stack(names[:2], data_plan(channels=2, normalization="image"))
    assert stack.shape == (1, 6, 5, 2) and geometry is None and stack[0, 0, 0].tolist() == [0, 50]
    with pytest.raises(DataError, match=r"x_0002.png: not of the size of x_0000.png"):
        read_stack(names, data_plan(channels=3))
    with pytest.raises(DataError, match="an image of 2 channels for a network of 3"):
        prepare_stack(stack, data_plan(channels=3))


# The network's input


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def network_input(channels: int, **plan: str) -> np.ndarray:
    images = RGB[None, ..., :channels]
    x = to_input(torch.from_numpy(images.copy()), data_plan(channels=channels, **plan))
    assert x.dtype == torch.float32 and x.shape == (1, channels, 12, 16)
    return x[0].permute(1, 2, 0).double().numpy()


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_imagenet_is_its_mean_and_deviation_in_rgb_order_and_published_once_more_by_255(order: str) -> None:
    expected = (RGB / 255 - MEAN) / STD
    assert np.abs(network_input(3, colour_order=order) - expected).max() < 1e-5
    published = network_input(3, colour_order=order, normalization="published")
    assert np.abs(published - expected / 255).max() < 1e-7


def test_one_channel_is_normalised_as_three_equal_ones_are_on_the_whole() -> None:
    grey = np.array([0.299, 0.587, 0.114])
    expected = (RGB[..., :1] / 255 - grey @ MEAN) / (grey @ STD)
    assert np.abs(network_input(1) - expected).max() < 1e-5


@pytest.mark.parametrize("channels", [1, 3])
def test_image_normalisation_gives_every_image_mean_0_and_deviation_1(channels: int) -> None:
    x = network_input(channels, normalization="image")
    assert np.abs(x.mean((0, 1))).max() < 1e-5 and np.abs(x.std((0, 1), ddof=1) - 1).max() < 1e-5
    flat = to_input(
        torch.full((1, 8, 8, channels), 7, dtype=torch.uint8), data_plan(channels=channels, normalization="image")
    )
    assert flat.isfinite().all() and flat.abs().max() < 1e-3
