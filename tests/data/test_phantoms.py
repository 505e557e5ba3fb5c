import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter
from scipy.ndimage import label as number_parts
from scipy.stats import rankdata

from ukan.data.index import index_folder
from ukan.data.masks import read_truth
from ukan.data.phantoms import PHANTOMS, Label, make_ultrasound, write_ultrasound
from ukan.data.phantoms.endoscopy import PER_SEQUENCE, draw_scene, make_frame
from ukan.data.phantoms.fields import clouds, make_grid, sprinkle
from ukan.data.phantoms.histology import PER_PATIENT, Grade, make_histology
from ukan.imaging import read_image, read_mask

Bools = NDArray[np.bool_]
Made = tuple[NDArray[np.uint8], list[Bools]]
Pictures = dict[str, list[tuple[NDArray[np.uint8], Bools]]]
COLOURED = ("histology", "endoscopy", "dermoscopy")


def _make(seed: int, label: Label | None = None, height: int = 96, width: int = 120) -> Made:
    return make_ultrasound(np.random.default_rng(seed), height, width, label)


def _bytes(folder: Path) -> dict[str, bytes]:
    """Pictures and masks by name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".png", ".jpg", ".bmp")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _dice(one_HW: Bools, other_HW: Bools) -> float:
    return float(2 * np.sum(one_HW & other_HW) / (one_HW.sum() + other_HW.sum()))


def _rims(mask_HW: Bools, wide_px: float) -> tuple[Bools, Bools]:
    """What lies just inside and just outside an outline."""
    inside_HW, outside_HW = distance_transform_edt(mask_HW), distance_transform_edt(~mask_HW)
    return (inside_HW > 0) & (inside_HW <= wide_px), (outside_HW > 0) & (outside_HW <= wide_px)


def _is_mask(name: str) -> bool:
    return any(word in name for word in ("mask", "anno", "segmentation"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_ultrasound(folder, 36, seed=0)
    return folder


@pytest.fixture(scope="module")
def made() -> Pictures:
    """Thirty-two pictures (H, W, 3) of each coloured kind, and where their objects are (H, W)."""
    pictures = {
        kind: [PHANTOMS[kind].make(np.random.default_rng([7, seed]), 96, 120) for seed in range(32)] for kind in COLOURED
    }
    return {kind: [(image, np.any(masks, axis=0)) for image, masks in found] for kind, found in pictures.items()}


@pytest.mark.parametrize("kind", PHANTOMS)
def test_same_seed_gives_same_bytes_and_another_seed_others(kind: str, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        PHANTOMS[kind].write(tmp_path / name, 4, seed)
    one, other = _bytes(tmp_path / "one"), _bytes(tmp_path / "other")
    assert one == _bytes(tmp_path / "again")
    assert all(one[name] != other[name] for name in one.keys() & other.keys() if not _is_mask(name))


@pytest.mark.parametrize("kind", PHANTOMS)
def test_a_picture_does_not_depend_on_the_count(kind: str, tmp_path: Path) -> None:
    for count in (5, 9):
        PHANTOMS[kind].write(tmp_path / str(count), count, 0)
    few, many = _bytes(tmp_path / "5"), _bytes(tmp_path / "9")
    assert len([name for name in few if not _is_mask(name)]) == 5
    assert few.items() <= many.items()


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize(("height", "width"), [(96, 120), (150, 70), (32, 32)])
def test_a_picture_is_8_bit_and_of_the_size_asked_with_a_mask_for_each_object(kind: str, height: int, width: int) -> None:
    for seed in range(4):
        image, masks = PHANTOMS[kind].make(np.random.default_rng(seed), height, width)
        assert image.shape == ((height, width) if kind == "ultrasound" else (height, width, 3))
        assert image.dtype == np.uint8 and image.std() > 5
        assert all(mask_HW.shape == (height, width) and mask_HW.dtype == np.bool_ and mask_HW.any() for mask_HW in masks)
        assert masks or kind == "ultrasound"
        assert not masks or np.sum(masks, axis=0).max() == 1  # no two objects share a pixel


@pytest.mark.parametrize("kind", PHANTOMS)
def test_too_small_a_picture_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="sides of 32 px or more"):
        PHANTOMS[kind].make(np.random.default_rng(0), 31, 200)


@pytest.mark.parametrize("kind", COLOURED)
def test_no_colour_tells_the_object(kind: str, made: Pictures) -> None:
    """Of any 16x16x16 colours, learnt as objects' from half of the pictures, asked in the other half."""
    colours = [(image_HWC // 16) @ np.array([256, 16, 1]) for image_HWC, _ in made[kind]]
    masks = [mask_HW for _, mask_HW in made[kind]]
    for learnt, asked in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        seen, of_objects = np.ravel(colours[learnt]), np.ravel(masks[learnt])
        share = (np.bincount(seen, of_objects, 4096) + of_objects.mean()) / (np.bincount(seen, minlength=4096) + 1)
        rank, truth = rankdata(share[np.ravel(colours[asked])]), np.ravel(masks[asked])
        auc = (rank[truth].mean() - (truth.sum() + 1) / 2) / (~truth).sum()  # Mann and Whitney
        assert auc < 0.8


@pytest.mark.parametrize("kind", COLOURED)
def test_no_threshold_on_a_channel_solves_them(kind: str, made: Pictures) -> None:
    best = 0.65 if kind == "histology" else 0.5  # in histology, glands cover 40 %: everything as gland gets 0.57
    for channel in range(3):
        pairs = [(gaussian_filter(image[..., channel].astype(np.float32), 1.5), mask) for image, mask in made[kind]]
        for threshold in range(8, 255, 8):
            for above in (True, False):
                dice = [_dice((image_HW > threshold) == above, mask_HW) for image_HW, mask_HW in pairs]
                assert np.mean(dice) < best


@pytest.mark.parametrize("kind", ["histology", "dermoscopy"])
def test_a_mask_ends_where_the_picture_turns_darker(kind: str, made: Pictures) -> None:
    """Red light: a gland's rim is full of nuclei, a lesion full of melanin."""
    darker_by = []
    for image_HWC, mask_HW in made[kind]:
        inside_HW, outside_HW = _rims(mask_HW, 4)
        darker_by.append(image_HWC[outside_HW, 0].mean() - image_HWC[inside_HW, 0].mean())
    assert np.mean(np.array(darker_by) > 0) > 0.95
    assert np.mean(darker_by) > 15


def test_a_polyps_mask_is_where_the_picture_changes_when_the_polyp_is_taken_away() -> None:
    changes = []
    for seed in range(12):
        scene = draw_scene(np.random.default_rng(seed))
        still = scene._replace(drift=scene.drift._replace(place_3=np.zeros(3, np.float32), turn_3=np.zeros(3, np.float32)))
        nowhere = scene.polyp._replace(foot_3=scene.polyp.foot_3 + 100, head_3=scene.polyp.head_3 + 100)
        (image_HWC, mask_HW), (bare_HWC, none_HW) = (
            make_frame(np.random.default_rng(seed), each, 0.5, 96, 120) for each in (still, still._replace(polyp=nowhere))
        )
        assert not none_HW.any()
        change_HW = np.abs(image_HWC.astype(int) - bare_HWC).max(axis=2)
        changes.append((change_HW[mask_HW].mean(), change_HW[~binary_dilation(mask_HW, iterations=4)].mean()))
    inside, outside = np.mean(changes, axis=0)
    assert inside > 5 * outside


def test_frames_of_a_sequence_show_one_polyp_and_lie_in_one_group(tmp_path: Path) -> None:
    PHANTOMS["endoscopy"].write(tmp_path, 24, 0)
    index = index_folder(tmp_path, group_regex=PHANTOMS["endoscopy"].group_regex)
    assert index.layout == "folders" and not index.errors
    assert set(Counter(case.group for case in index.cases).values()) == {PER_SEQUENCE} and len(index.cases) == 24
    assert all(case.foreground > 0.005 for case in index.cases)
    tiny = [read_image(tmp_path / case.image)[::8, ::8].mean(axis=2)[:9, :11].ravel() for case in index.cases]
    alike = np.corrcoef(tiny)
    same = np.equal.outer([case.group for case in index.cases], [case.group for case in index.cases])
    np.fill_diagonal(alike, np.nan)
    assert np.nanmean(alike[same]) > np.nanmean(alike[~same]) + 0.1
    assert np.nanmax(alike[same]) < 0.9999  # but no frame twice


def test_slides_have_glas_layout_with_patients_grades_an_official_test_part_and_numbered_glands(tmp_path: Path) -> None:
    PHANTOMS["histology"].write(tmp_path, 40, 0)
    index = index_folder(tmp_path)
    assert index.layout == "glas" and not index.errors
    assert index.fingerprint is not None and index.fingerprint.mask_rule == "instances"
    assert Counter(case.split for case in index.cases) == {"train": 32, "test": 8}
    assert set(Counter(case.group for case in index.cases).values()) == {PER_PATIENT}
    with (tmp_path / "Grade.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["grade (GlaS)"] for row in rows) == {"benign": 20, "malignant": 20}
    assert len({(row["patient ID"], row["grade (GlaS)"]) for row in rows}) == 10
    for row in rows[:8]:
        number_HW = read_mask(tmp_path / f"{row['name']}_anno.bmp")
        assert set(np.unique(number_HW)) == set(range(number_HW.max() + 1))
        assert number_parts(number_HW > 0)[1] == number_HW.max()  # no two touch, none is in two parts


def test_pictures_of_one_slide_are_stained_alike(tmp_path: Path) -> None:
    PHANTOMS["histology"].write(tmp_path, 20, 0)
    with (tmp_path / "Grade.csv").open(encoding="utf-8") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    # The colour of the darkest hundredth: nuclei. Contents differ from picture to picture, stains do not.
    nuclei = []
    for name in names:
        pixels = read_image(tmp_path / f"{name}.bmp").reshape(-1, 3).astype(float)
        nuclei.append(pixels[np.argsort(pixels[:, 0])[: len(pixels) // 100]].mean(axis=0))
    by_slide = np.reshape(nuclei, (-1, PER_PATIENT, 3))
    assert by_slide.std(axis=1).mean() < 0.5 * by_slide.mean(axis=1).std(axis=0).mean()


def test_malignant_glands_are_more_ragged_than_benign_ones() -> None:
    def roundness(grade: Grade) -> float:
        shapes = []
        for seed in range(14):
            for mask_HW in make_histology(np.random.default_rng(seed), 160, 200, grade)[1]:
                whole = not (mask_HW[[0, -1]].any() or mask_HW[:, [0, -1]].any())
                if whole and mask_HW.sum() > 300:
                    shapes.append(4 * np.pi * mask_HW.sum() / _rims(mask_HW, 1)[0].sum() ** 2)
        return float(np.mean(shapes))

    assert roundness("benign") > roundness("malignant") + 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_dermoscopies_have_isic_layout_as_jpeg_files(seed: int, tmp_path: Path) -> None:
    PHANTOMS["dermoscopy"].write(tmp_path, 24, seed)
    index = index_folder(tmp_path)
    assert index.layout == "isic-2018" and not index.errors
    assert len(index.cases) == 24 and all(case.image.endswith(".jpg") for case in index.cases)
    assert index.fingerprint is not None and index.fingerprint.near_duplicates == 0
    shares = [case.foreground for case in index.cases]
    assert min(shares) > 0.005 and max(shares) > 4 * min(shares)


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
    masks = [read_truth(written, case, (1, case.height, case.width), "nonzero", ("lesion",))[0, 0] for case in cases]
    for sigma_px in (0.0, 1.5, 3.0):
        smooth = [gaussian_filter(image, sigma_px) for image in images]
        for threshold in range(2, 255, 4):
            assert np.mean([_dice(s < threshold, m) for s, m in zip(smooth, masks, strict=True)]) < 0.5


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


def test_clouds_are_as_smooth_as_noise_blurred_with_their_sigma() -> None:
    sigma_px, lags = 4.0, range(9)
    fields = [clouds(np.random.default_rng(seed), make_grid(96, 200), sigma_px) for seed in range(40)]
    for axis in (0, 1):
        measured = [np.mean([np.mean(f * np.roll(f, lag, axis), where=_kept(f, lag, axis)) for f in fields]) for lag in lags]
        np.testing.assert_allclose(measured, np.exp(-(np.square(lags)) / (4 * sigma_px**2)), atol=0.06)
    np.testing.assert_allclose([(field.mean(), field.std()) for field in fields], [(0, 1)] * 40, atol=1e-9)


def _kept(field_HW: NDArray[np.float64], lag: int, axis: int) -> Bools:
    """Where np.roll brought no value around the edge."""
    kept = np.arange(field_HW.shape[axis]) >= lag
    return np.broadcast_to(kept[:, None] if axis == 0 else kept, field_HW.shape)


def test_sprinkled_ellipses_lie_where_they_are_put_and_are_cut_by_the_edge() -> None:
    grid = make_grid(60, 80)
    centres_N2 = np.array([[20.0, 30.0], [40.5, 60.5], [58.0, -1.0], [-300.0, 9.0]])
    radii_N2 = np.array([[12.0, 3.0], [5.0, 5.0], [6.0, 4.0], [9.0, 9.0]])
    angles_N, levels_N = np.array([0.6, 0.0, 1.2, 0.0]), np.array([1.0, 0.5, 0.8, 1.0])
    field_HW = sprinkle(grid, centres_N2, radii_N2, angles_N, levels_N)
    for row in range(60):
        for column in range(80):
            inside = 0.0
            for centre, (long, short), angle, level in zip(centres_N2, radii_N2, angles_N, levels_N, strict=True):
                turned = (column - centre[1] + 1j * (row - centre[0])) * np.exp(-1j * angle)
                radius = np.hypot(turned.real / long, turned.imag / short)
                if radius < 1 - 0.6 / short:
                    inside = max(inside, level)
                elif radius < 1 + 0.6 / short:
                    inside = np.nan  # on the soft edge
            if not np.isnan(inside):
                assert field_HW[row, column] == pytest.approx(inside)
