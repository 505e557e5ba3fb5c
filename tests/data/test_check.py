"""Everything odd about usable cases is told: each fault is made by hand in a folder that is otherwise right."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukan.data import check
from ukan.data.index import Index, index_folder

Write = Callable[..., Path]


@pytest.fixture
def raw(write_dataset: Write) -> Path:
    return write_dataset(Path("raw"), count=12)


def told(index: Index, kind: str) -> list[tuple[str, str, str]]:
    return [(p.level, p.where, p.what) for p in index.problems if p.kind == kind]


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(path) as file:
        array = np.asarray(file)
    Image.fromarray(change(array)).save(path)


def both(raw: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for folder in ("images", "masks"):
        rewrite(raw / folder / name, change)


def test_a_right_folder_has_no_problem(raw: Path) -> None:
    assert index_folder(raw).problems == []


# Masks


def test_one_empty_mask_is_a_note_and_most_of_them_a_warning(raw: Path) -> None:
    rewrite(raw / "masks/c000.png", np.zeros_like)
    index = index_folder(raw)
    assert told(index, "empty mask") == [("note", "c000", "no foreground")] and not told(index, "most masks are empty")
    for i in range(8):
        rewrite(raw / f"masks/c00{i}.png", np.zeros_like)
    assert told(index_folder(raw), "most masks are empty") == [("warning", "all cases", "8 of 12 masks are empty")]


def test_a_mask_that_covers_nearly_all_is_a_warning(raw: Path) -> None:
    rewrite(raw / "masks/c001.png", lambda a: np.where(np.arange(64) < 62, 255, 0).astype(np.uint8) * np.ones_like(a))
    assert told(index_folder(raw), "mask covers the image") == [("warning", "c001", "97% of the image is foreground")]


def test_masks_that_hardly_differ_are_a_warning(raw: Path) -> None:
    disc = np.hypot(*np.mgrid[-24:24, -32:32]) < 15
    for i in range(12):
        rewrite(raw / f"masks/c{i:03}.png", lambda a, i=i: (np.roll(disc, i % 2) * 255).astype(np.uint8))  # type: ignore[misc]
    found = told(index_folder(raw), "masks hardly differ")
    assert len(found) == 1 and found[0][:2] == ("warning", "all cases")


def test_one_mask_file_for_different_pictures_is_a_warning_but_not_for_twins_nor_where_it_is_empty(raw: Path) -> None:
    for to, source in (("c001", "c000"), ("c002", "c000"), ("c004", "c003")):
        shutil.copy(raw / f"masks/{source}.png", raw / f"masks/{to}.png")
    shutil.copy(raw / "images/c003.png", raw / "images/c004.png")
    for i in (5, 6):
        rewrite(raw / f"masks/c00{i}.png", np.zeros_like)
    found = told(index_folder(raw), "one mask for several")
    assert [row[:2] for row in found] == [("warning", "c000 | c001 | c002")] and found[0][2].startswith("3 different")


def test_flat_grey_areas_in_smeared_masks_are_a_warning(raw: Path) -> None:
    for path in sorted((raw / "masks").iterdir()):
        with Image.open(path) as file:
            file.save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    patched = (raw / "masks/c000.jpg", raw / "masks/c000.png")
    with Image.open(patched[0]) as file:
        array = np.array(file)
    array[:20, :20] = 100  # a class of its own, perhaps
    patched[0].unlink()
    Image.fromarray(array).save(patched[1])
    index = index_folder(raw)
    assert [row[:2] for row in told(index, "mask with grey areas")] == [("warning", "masks/c000.png")]
    assert len(told(index, "mask with greys")) == 11


def test_pictures_in_place_of_masks_are_a_warning(raw: Path) -> None:
    for path in (raw / "masks").iterdir():
        shutil.copy(raw / "images" / path.name, path)
    found = told(index_folder(raw), "mask mostly of greys")
    assert len(found) == 12 and all(level == "warning" for level, _, _ in found)


def test_a_value_in_one_label_map_alone_is_a_warning(raw: Path) -> None:
    for i, path in enumerate(sorted((raw / "masks").iterdir())):
        rewrite(
            path, lambda a, third=7 if i == 4 else 2: ((a > 0) * np.where(np.arange(64) < 32, 1, third)).astype(np.uint8)
        )  # type: ignore[misc]
    rewrite(raw / "masks/c004.png", lambda a: np.where(np.arange(64) < 8, 7, a).astype(np.uint8))
    index = index_folder(raw)
    assert told(index, "class in one mask alone") == [("warning", "masks/c004.png", "value 7 is in no other mask")]
    assert index.fingerprint is not None and index.fingerprint.label_values == (1, 2, 7)


# Sizes, depths, channels


def test_sizes_and_shapes_far_from_the_rest_are_warnings(raw: Path) -> None:
    both(raw, "c000.png", lambda a: np.kron(a, np.ones((3, 3), np.uint8)))
    both(raw, "c001.png", lambda a: a.T.copy())  # on its side: 48x64 among 64x48
    both(raw, "c002.png", lambda a: a[:44])  # a little lower, which is nothing
    assert told(index_folder(raw), "size far from the rest") == [
        ("warning", "images/c000.png", "192x144, median 64x48"),
        ("warning", "images/c001.png", "48x64, median 64x48"),
    ]


def test_where_sizes_vary_anyway_no_picture_is_far_from_the_rest(raw: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        height, width = (int(side) for side in rng.integers(40, 160, 2))
        both(raw, f"c{i:03}.png", lambda a, h=height, w=width: a[np.arange(h) * 48 // h][:, np.arange(w) * 64 // w])  # type: ignore[misc]
    assert told(index_folder(raw), "size far from the rest") == []


def test_some_deep_images_among_others_are_a_warning(raw: Path) -> None:
    rewrite(raw / "images/c003.png", lambda a: a.astype(np.uint16) * 257)
    found = told(index_folder(raw), "different depths")
    assert found == [("warning", "images/c003.png", "1 of 12 images have more than 8 bits a value")]
    for i in range(12):
        rewrite(raw / f"images/c{i:03}.png", lambda a: a.astype(np.uint16) * 2)
    assert told(index_folder(raw), "different depths") == []


# Volumes


def write_volume(name: str, seed: int, affine: np.ndarray, mask_affine: np.ndarray | None = None, channels: int = 0) -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(seed)
    shape = (20, 24, 6)
    values = rng.integers(0, 900, (*shape, channels) if channels else shape).astype(np.int16)
    mask = np.zeros(shape, np.uint8)
    mask[5 + seed % 4 : 12, 6 : 14 + seed % 5, 2:4] = 1
    for folder, array, lies in (("images", values, affine), ("masks", mask, affine if mask_affine is None else mask_affine)):
        path = Path("raw", folder, f"{name}.nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, lies), path)


def test_volumes_of_another_spacing_view_or_order_and_masks_elsewhere_are_told() -> None:
    usual = np.diag([0.8, 0.8, 3.0, 1.0])
    for i in range(5):
        write_volume(f"a{i}", i, usual)
    write_volume("b_thick", 5, np.diag([0.8, 0.8, 6.0, 1.0]))
    write_volume("c_flipped", 6, np.diag([-0.8, -0.8, 3.0, 1.0]))
    write_volume("d_sagittal", 7, np.array([[0, 0, 3.0, 0], [0.8, 0, 0, 0], [0, 0.8, 0, 0], [0, 0, 0, 1.0]]))
    elsewhere = usual.copy()
    elsewhere[:3, 3] = (0, 0, 40)
    write_volume("e_shifted", 8, usual, elsewhere)
    index = index_folder(Path("raw"))
    found = {p.kind: (p.level, Path(p.where).name.split(".")[0], p.what) for p in index.problems}
    assert found.keys() == {
        "spacing far from the rest",
        "volume stored another way",
        "volume cut another way",
        "mask lies elsewhere than its image",
    }
    assert (
        found["spacing far from the rest"][:2] == ("warning", "b_thick")
        and "6x0.8x0.8 mm" in found["spacing far from the rest"][2]
    )
    assert found["volume stored another way"] == ("note", "c_flipped", "LPS, most are RAS")
    assert found["volume cut another way"] == ("warning", "d_sagittal", "sagittal slices, most are axial")
    assert (
        found["mask lies elsewhere than its image"][:2] == ("warning", "e_shifted")
        and "40 mm" in found["mask lies elsewhere than its image"][2]
    )
    assert len(index.cases) == 9


def test_a_volume_of_other_channels_cannot_be_used_with_the_rest() -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    for i in range(4):
        write_volume(f"a{i}", i, affine, channels=2)
    write_volume("odd", 4, affine)
    index = index_folder(Path("raw"))
    assert [(p.kind, p.where) for p in index.errors] == [("another number of channels", "images/odd.nii.gz")]
    assert index.fingerprint is not None and index.fingerprint.channels == 2 and len(index.cases) == 4


# Alike pictures, groups and official splits


def official(write_dataset: Write) -> Path:
    for part, seed in (("train", 0), ("test", 1)):
        write_dataset(Path("raw") / part, count=8, seed=seed)
    return Path("raw")


def test_a_leak_across_the_official_split_is_told_first_among_pairs(write_dataset: Write) -> None:
    raw = official(write_dataset)
    shutil.copy(raw / "train/images/c000.png", raw / "test/images/c003.png")
    shutil.copy(raw / "train/images/c001.png", raw / "train/images/c002.png")
    index = index_folder(raw)
    names = {case.image: case.case for case in index.cases}
    assert [pair.kind for pair in index.pairs] == ["same picture twice across the official split", "same picture twice"]
    assert {index.pairs[0].one, index.pairs[0].other} == {names["train/images/c000.png"], names["test/images/c003.png"]}
    assert [p.level for p in index.problems if "across the official split" in p.kind] == ["warning"]


def test_a_known_group_across_the_official_split_is_a_warning(write_dataset: Write) -> None:
    raw = official(write_dataset)
    names = [f"{part}_c{i:03}" for part in ("train", "test") for i in range(8)]
    patients = {"train_c000": "p", "train_c001": "p", "test_c005": "p", "train_c002": "q", "train_c003": "q"}
    Path("groups.csv").write_text("case,group\n" + "".join(f"{name},{patients.get(name, name)}\n" for name in names))
    assert told(index_folder(raw, groups=Path("groups.csv")), "group across the official split") == [
        ("warning", "test_c005 | train_c000 | train_c001", "1 of its 3 cases are in the official test part")
    ]


def test_near_duplicates_within_a_known_group_are_counted_and_not_listed(raw: Path) -> None:
    for i in range(1, 4):
        with Image.open(raw / "images/c000.png") as file:
            noisy = np.asarray(file).astype(int) + np.random.default_rng(i).integers(-2, 3, (48, 64))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(raw / f"images/c00{i}.png")
    listed = told(index_folder(raw), "near-duplicates")
    assert len(listed) == 6
    Path("groups.csv").write_text("case,group\n" + "".join(f"c{i:03},{'video' if i < 4 else i}\n" for i in range(12)))
    index = index_folder(raw, groups=Path("groups.csv"))
    assert told(index, "near-duplicates") == [] and index.pairs == []
    assert told(index, "near-duplicates within groups") == [("note", "all cases", "6 pairs of alike pictures")]
    assert index.fingerprint is not None and (index.fingerprint.groups, index.fingerprint.near_duplicates) == (9, 6)


def test_endless_pairs_are_listed_to_a_limit_the_most_alike_first_and_counted(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MOST_LISTED", 5)
    with Image.open(raw / "images/c000.png") as file:
        first = np.asarray(file).astype(int)
    for i in range(1, 12):
        noise = np.random.default_rng(i).integers(-2 * i, 2 * i + 1, (48, 64))
        Image.fromarray((first + noise).clip(0, 255).astype(np.uint8)).save(raw / f"images/c{i:03}.png")
    index = index_folder(raw)
    found = told(index, "near-duplicates")
    pairs = index.fingerprint.near_duplicates if index.fingerprint else 0
    assert pairs > 20 and len(found) == 6 and len(index.pairs) == 5
    assert ("warning", "further pairs", f"{pairs - 5} more") in found
    likeness = [pair.likeness for pair in index.pairs]
    assert likeness == sorted(likeness, reverse=True) and index.pairs[0].one == "c000"
    assert [row[1] for row in told(index, "very large group of near-duplicates")] == ["all cases"]
