"""The index: what is in a folder, and everything wrong with it in one pass, on folders made wrong by hand."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukan.data.index import Index, case_hash, dump_index, file_sha256, index_folder, index_sha256, load_index, save_index
from ukan.data.masks import FITS_NO_RULE
from ukan.data.problems import write_problems
from ukan.errors import DataError, UserError
from ukan.plan import Case

Write = Callable[..., Path]


@pytest.fixture
def raw(write_dataset: Write) -> Path:
    return write_dataset(Path("raw"), count=6)


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], name: str | None = None, **options: object) -> Path:
    """A picture changed, under its own or another name."""
    with Image.open(path) as file:
        array = np.asarray(file)
    target = path.with_name(name) if name else path
    if target != path:
        path.unlink()
    Image.fromarray(change(array)).save(target, **options)
    return target


def test_a_clean_folder_has_no_problems_and_every_fact_is_right(raw: Path) -> None:
    index = index_folder(raw)
    assert index.problems == [] and (index.dataset, index.layout) == ("raw", "folders")
    assert [case.case for case in index.cases] == [f"c00{i}" for i in range(6)]
    for case in index.cases:
        with Image.open(raw / case.masks[0]) as mask:
            assert case.foreground == pytest.approx((np.asarray(mask) > 0).mean())
        assert (case.width, case.height) == (64, 48)
        assert case.group == case.case and case.hash == case_hash(raw, case)


def test_the_fingerprint_counts_what_is_there(raw: Path) -> None:
    rewrite(raw / "masks/c001.png", np.zeros_like)
    rewrite(raw / "images/c002.png", lambda a: np.stack([a, a // 2, a // 3], 2))
    rewrite(raw / "images/c003.png", lambda a: np.stack([a, a, a], 2))  # RGB, and yet grey
    index = index_folder(raw)
    f = index.fingerprint
    assert f is not None
    assert (f.cases, f.empty, f.groups, f.colour, f.near_duplicates) == (6, 1, 6, 1, 0)
    assert f.height == (48, 48, 48) and f.width == (64, 64, 64) and f.labels == {"": 6}
    shares = [case.foreground for case in index.cases if case.foreground]
    assert f.lesion_share == pytest.approx(np.quantile(shares, (0.05, 0.5, 0.95)), abs=1e-6)
    assert f.lesion_side_px == pytest.approx(np.quantile(np.sqrt(np.array(shares) * 48 * 64), (0.05, 0.5, 0.95)), abs=0.1)
    assert f.mask_values == {"0": 6, "255": 5} and f.mask_rule == "nonzero"
    assert f.index_sha256 == index_sha256(index.cases)


def test_the_same_folder_gives_the_same_index_again_and_any_changed_byte_another(raw: Path) -> None:
    first = index_folder(raw)
    assert index_folder(raw) == first
    rewrite(raw / "masks/c003.png", lambda a: a.copy(), compress_level=0)  # the same picture, other bytes
    assert index_sha256(index_folder(raw).cases) != index_sha256(first.cases)


def test_everything_wrong_is_collected_in_one_pass(raw: Path, write_dataset: Write) -> None:
    more = write_dataset(Path("more"), count=12, seed=1)
    for folder in ("images", "masks"):
        for path in sorted((more / folder).iterdir()):
            path.rename(raw / folder / f"m{path.name}")
    (raw / "images/mc000.png").write_text("<html>404</html>")
    (raw / "images/mc001.png").write_bytes(b"")
    (raw / "masks/mc002.png").write_bytes((raw / "masks/mc002.png").read_bytes()[:40])
    (raw / "masks/mc003.png").unlink()
    (raw / "images/mc004.png").unlink()
    rewrite(raw / "masks/mc005.png", lambda a: a[:, :30])
    rewrite(raw / "masks/mc006.png", lambda a: a[::2, ::2])
    (raw / "images/mc007.png").write_bytes((raw / "images/c000.png").read_bytes())
    with Image.open(raw / "images/c001.png") as file:
        noisy = np.asarray(file).astype(int) + np.random.default_rng(0).integers(-3, 4, (48, 64))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(raw / "images/mc008.png")
    rewrite(raw / "masks/mc009.png", np.ones_like)
    rewrite(raw / "masks/mc010.png", np.zeros_like)
    rewrite(raw / "images/mc011.png", lambda a: np.stack([a, a, a, a], 2))
    rewrite(raw / "masks/mc011.png", lambda a: np.stack([a, a, a, 255 - a], 2))
    index = index_folder(raw)
    assert {(p.level, p.kind, p.where) for p in index.problems} == {
        ("error", "unreadable image", "images/mc000.png"),
        ("error", "unreadable image", "images/mc001.png"),
        ("error", "unreadable mask", "masks/mc002.png"),
        ("error", "no mask", "images/mc003.png"),
        ("error", "mask without image", "masks/mc004.png"),
        ("error", "mask and image differ in shape", "masks/mc005.png"),
        ("warning", "mask of another size", "masks/mc006.png"),
        ("warning", "same picture twice", "c000 | mc007"),
        ("warning", "near-duplicates", "c001 | mc008"),
        ("warning", "mask covers the image", "mc009"),
        ("note", "empty mask", "mc010"),
        ("note", "mask with alpha", "masks/mc011.png"),
    }
    what = {problem.where: problem.what for problem in index.problems}
    assert "an empty file" in what["images/mc001.png"] and "30x48" in what["masks/mc005.png"]
    assert all(problem.do for problem in index.problems)
    assert [p.level for p in index.problems] == sorted(
        (p.level for p in index.problems), key=["error", "warning", "note"].index
    )
    usable = {case.case for case in index.cases}
    assert usable == {f"c00{i}" for i in range(6)} | {f"mc{i:03}" for i in (6, 7, 8, 9, 10, 11)}
    write_problems(Path("problems.csv"), index.problems)
    assert len(Path("problems.csv").read_text(encoding="utf-8").splitlines()) == 1 + 12


def test_a_folder_of_which_nothing_is_usable_is_told_and_not_raised(raw: Path) -> None:
    for path in (raw / "images").iterdir():
        path.write_bytes(b"")
    index = index_folder(raw)
    assert index.cases == [] and index.fingerprint is None and len(index.errors) == 6


def test_a_folder_without_images_is_an_error_in_the_table() -> None:
    for name in ("images", "masks"):
        (Path("raw") / name).mkdir(parents=True)
    assert [problem.kind for problem in index_folder(Path("raw")).errors] == ["no image"]


def test_names_that_collide_after_all_are_an_error() -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        for name in ("a/x", "b/x", "a_x"):
            path = Path("raw") / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 2, (32, 32), dtype=np.uint8)).save(path)
    index = index_folder(Path("raw"))
    assert {(p.kind, p.where) for p in index.errors} == {
        ("two cases of one name", "images/a/x.png"),
        ("two cases of one name", "images/a_x.png"),
    }
    assert [case.case for case in index.cases] == ["b_x"]


# Masks


def test_images_and_masks_of_different_types_modes_and_sizes_are_met(raw: Path) -> None:
    expected = {case.case: case.foreground for case in index_folder(raw).cases}
    rewrite(raw / "images/c000.png", lambda a: a, "c000.jpg", quality=95)
    rewrite(raw / "images/c001.png", lambda a: np.stack([a, a, a], 2), "c001.bmp")
    rewrite(raw / "masks/c002.png", lambda a: np.stack([a, a, a], 2), "c002_mask.tif")
    rewrite(raw / "masks/c003.png", lambda a: a > 0, "c003_segmentation.png")
    rewrite(raw / "masks/c004.png", lambda a: a // 255)
    rewrite(raw / "masks/c005.png", lambda a: np.kron(a, np.ones((3, 3), np.uint8)))
    index = index_folder(raw)
    assert [(problem.kind, problem.where) for problem in index.problems] == [("mask of another size", "masks/c005.png")]
    assert {case.case: case.foreground for case in index.cases} == pytest.approx(expected)
    assert index.fingerprint is not None and index.fingerprint.mask_rule == "nonzero"


def test_several_masks_are_united(raw: Path) -> None:
    top, bottom = np.zeros((2, 48, 64), np.uint8)
    top[:20, :32], bottom[16:40, 16:48] = 255, 255
    (raw / "masks/c000.png").unlink()
    for name, part in (("c000_mask", top), ("c000_mask_1", bottom)):
        Image.fromarray(part).save(raw / f"masks/{name}.png")
    index = index_folder(raw)
    assert index.cases[0].foreground == ((top > 0) | (bottom > 0)).mean()
    assert [(p.level, p.kind, p.where) for p in index.problems] == [("note", "several masks", "c000")]


def test_masks_smeared_by_jpeg_are_cut_at_half(raw: Path) -> None:
    before = [case.foreground for case in index_folder(raw).cases]
    for i in range(6):
        rewrite(raw / f"masks/c00{i}.png", lambda a: a, f"c00{i}.jpg", quality=60)
    index = index_folder(raw)
    assert index.fingerprint is not None and index.fingerprint.mask_rule == "half"
    assert "cut at 128" in index.mask_rule_because
    assert {(p.level, p.kind) for p in index.problems} == {("note", "mask with greys")}
    assert [case.foreground for case in index.cases] == pytest.approx(before, rel=0.1)


def test_a_0_1_mask_among_smeared_ones_is_an_error_and_not_an_empty_case(raw: Path) -> None:
    for i in range(5):
        rewrite(raw / f"masks/c00{i}.png", lambda a: a, f"c00{i}.jpg", quality=60)
    rewrite(raw / "masks/c005.png", lambda a: a // 255)
    index = index_folder(raw)
    assert [(p.kind, p.where) for p in index.errors] == [(FITS_NO_RULE, "masks/c005.png")]
    assert [case.case for case in index.cases] == [f"c00{i}" for i in range(5)]


def relabel(raw: Path, values: Callable[[int], np.ndarray]) -> list[float]:
    """Masks whose foreground, in stripes 8 columns wide, holds the values of each case's number; gives the foregrounds."""
    before = [case.foreground for case in index_folder(raw).cases]
    for i in range(6):
        stripes = values(i)[np.arange(64) // 8 % len(values(i))]
        rewrite(raw / f"masks/c00{i}.png", lambda a, stripes=stripes: ((a > 0) * stripes).astype(stripes.dtype))  # type: ignore[misc]
    return before


def test_instance_ids_are_objects_of_one_class(raw: Path) -> None:
    before = [case.foreground for case in index_folder(raw).cases]
    for i in range(6):  # each object cut into 4 to 6 numbered columns

        def numbered(mask: np.ndarray, count: int = 4 + i % 3) -> np.ndarray:
            inside = np.flatnonzero(mask.any(axis=0))
            number = 1 + (np.arange(mask.shape[1]) - inside[0]) * count // len(inside)
            return ((mask > 0) * number).astype(np.uint8)

        rewrite(raw / f"masks/c00{i}.png", numbered)
    index = index_folder(raw)
    f = index.fingerprint
    assert f is not None and (f.mask_rule, f.target, f.classes) == ("instances", "binary", ("foreground",))
    assert [case.foreground for case in index.cases] == before and index.problems == []
    assert "1, 2, ... n" in index.mask_rule_because and "data.mask_rule=labels" in index.mask_rule_because


def test_a_label_map_has_classes_by_value_and_its_foreground_is_all_of_them(raw: Path) -> None:
    before = relabel(raw, lambda i: np.array([10, 20, 30], np.uint8))
    index = index_folder(raw)
    f = index.fingerprint
    assert f is not None and (f.mask_rule, f.label_values, f.target) == ("labels", (10, 20, 30), "multiclass")
    assert f.classes == ("class_10", "class_20", "class_30")
    assert [case.foreground for case in index.cases] == before and index.problems == []
    assert "10, 20, 30" in index.mask_rule_because


def test_a_rule_set_by_hand_goes_before_what_the_masks_suggest_and_what_does_not_fit_is_an_error(raw: Path) -> None:
    relabel(raw, lambda i: np.array([1, 2, 3] if i else [1, 2, 7], np.uint8))
    rules = {}
    for rule in ("nonzero", "instances", "labels"):
        index = index_folder(raw, mask_rule=rule)  # type: ignore[arg-type]
        assert index.fingerprint is not None and "by hand" in index.mask_rule_because
        rules[rule] = (index.fingerprint.mask_rule, index.fingerprint.label_values, len(index.errors))
    assert rules["nonzero"] == ("nonzero", (), 0) and rules["instances"] == ("instances", (), 0)
    assert rules["labels"][0] == "labels" and rules["labels"][2] == 0
    index = index_folder(raw, label_values=[1, 2, 3])
    assert index.fingerprint is not None and index.fingerprint.label_values == (1, 2, 3)
    assert [(p.kind, p.where) for p in index.errors] == [(FITS_NO_RULE, "masks/c000.png")] and "7" in index.errors[0].what
    assert len(index.cases) == 5
    halved = index_folder(raw, mask_rule="half")
    assert [p.kind for p in halved.errors] == [FITS_NO_RULE] * 6 and halved.fingerprint is None


def test_an_unknown_rule_is_refused_before_anything_is_read(raw: Path) -> None:
    with pytest.raises(UserError, match="'labels'"):
        index_folder(raw, mask_rule="label")  # type: ignore[arg-type]


def test_classes_with_masks_of_their_own_may_overlap(raw: Path) -> None:
    expected = [case.foreground for case in index_folder(raw).cases]
    left = np.arange(64) < 32
    for path in list((raw / "masks").iterdir()):
        with Image.open(path) as file:
            mask = np.asarray(file)
        for name, shown in (("whole", mask), ("left", mask * left)):
            (raw / "masks" / name).mkdir(exist_ok=True)
            Image.fromarray(shown).save(raw / "masks" / name / path.name)
        path.unlink()
    index = index_folder(raw)
    f = index.fingerprint
    assert f is not None and (f.target, f.classes, f.mask_rule) == ("multilabel", ("left", "whole"), "nonzero")
    assert all(case.classes == ("left", "whole") and len(case.masks) == 2 for case in index.cases)
    assert [case.foreground for case in index.cases] == expected  # the union of both
    with pytest.raises(UserError, match="masks of its own"):
        index_folder(raw, mask_rule="labels")


def test_the_dataset_may_name_its_labels_itself() -> None:
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (Path("raw") / name).mkdir(parents=True)
    for i in range(4):
        labels = np.repeat(rng.integers(0, 4, (6, 8), dtype=np.uint8) % (3 + i % 2), 8, axis=1).repeat(8, axis=0)
        Image.fromarray(rng.integers(0, 255, (48, 64), dtype=np.uint8)).save(f"raw/imagesTr/a{i}_0000.png")
        Image.fromarray(labels).save(f"raw/labelsTr/a{i}.png")
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "stroma": 1, "gland": 2}, "file_ending": ".png"}
    Path("raw/dataset.json").write_text(json.dumps(content))
    index = index_folder(Path("raw"))
    f = index.fingerprint
    assert f is not None and (f.mask_rule, f.label_values, f.classes) == ("labels", (1, 2), ("stroma", "gland"))
    assert {p.where for p in index.errors} == {"labelsTr/a1.png", "labelsTr/a3.png"}  # hold a value without a name


def test_0_1_masks_0_255_masks_and_empty_ones_may_be_mixed(raw: Path) -> None:
    before = [case.foreground for case in index_folder(raw).cases]
    for i in range(3):
        rewrite(raw / f"masks/c00{i}.png", lambda a: a // 255)
    index = index_folder(raw)
    assert index.problems == [] and [case.foreground for case in index.cases] == before


def test_a_large_folder_of_empty_masks_is_no_reason_to_fail(raw: Path) -> None:
    for i in range(6):
        rewrite(raw / f"masks/c00{i}.png", np.zeros_like)
    index = index_folder(raw)
    assert index.fingerprint is not None and index.fingerprint.empty == 6 and index.errors == []
    assert index.fingerprint.lesion_share == (0, 0, 0)


# Groups


def busi_folder(pictures: dict[str, np.ndarray]) -> Path:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 255
    for name, picture in pictures.items():
        label = name.split()[0]
        (Path("raw") / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(Path("raw") / label / f"{name}.png")
        Image.fromarray(mask).save(Path("raw") / label / f"{name}_mask.png")
    return Path("raw")


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (6, 8), dtype=np.uint8), np.ones((8, 8), np.uint8)) for _ in range(count)]


def test_the_same_picture_under_two_classes_is_a_warning_and_one_group() -> None:
    one, two, three = pictures(3)
    index = index_folder(busi_folder({"benign (1)": one, "benign (2)": two, "malignant (1)": three, "malignant (2)": two}))
    assert index.dataset == "busi" and index.errors == []
    assert [(p.level, p.kind, p.where) for p in index.problems if p.kind != "one mask for several"] == [
        ("warning", "same picture twice under two classes", "benign (2) | malignant (2)")
    ]
    assert [(pair.one, pair.other, pair.likeness) for pair in index.pairs] == [("benign (2)", "malignant (2)", 1.0)]
    assert {case.case: case.group for case in index.cases} == {
        "benign (1)": "benign (1)",
        "benign (2)": "benign (2)",
        "malignant (1)": "malignant (1)",
        "malignant (2)": "benign (2)",
    }
    assert index.fingerprint is not None and (index.fingerprint.groups, index.fingerprint.near_duplicates) == (3, 1)


def test_near_duplicates_are_chained() -> None:
    first, other = pictures(2)
    # Each is like the one before it; the ends are unlike each other.
    steps = [(first * (1 - t) + other * t).astype(np.uint8) for t in np.linspace(0, 1, 9)]
    index = index_folder(
        busi_folder({f"benign ({i})": step for i, step in enumerate(steps)} | {"malignant (1)": pictures(3)[2]})
    )
    pairs = {problem.where for problem in index.problems if problem.kind == "near-duplicates"}
    assert "benign (0) | benign (1)" in pairs and "benign (0) | benign (8)" not in pairs
    assert {case.group for case in index.cases if case.label == "benign"} == {"benign (0)"}
    assert index.cases[-1].group == "malignant (1)"


def groups_of(index: Index) -> set[frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for case in index.cases:
        groups.setdefault(case.group, set()).add(case.case)
    return {frozenset(members) for members in groups.values()}


def test_pattern_table_and_likeness_are_chained_and_recorded(raw: Path) -> None:
    (raw / "images/c003.png").write_bytes((raw / "images/c001.png").read_bytes())
    Path("groups.csv").write_text(
        "case,group\n" + "".join(f"c00{i},{'ab'[i in (4, 5)] if i > 2 else i}\n" for i in range(6))
    )
    expected = {frozenset({"c000"}), frozenset({"c001", "c003"}), frozenset({"c002"}), frozenset({"c004", "c005"})}
    index = index_folder(raw, groups=Path("groups.csv"))
    assert groups_of(index) == expected and index.fingerprint is not None and index.fingerprint.groups == 4
    assert index.fingerprint.grouped_by == "--groups groups.csv, near-duplicates"
    index = index_folder(raw, groups=Path("groups.csv"), group_regex=r"c00(2|\d)")
    assert groups_of(index) == expected
    assert index_folder(raw).fingerprint.grouped_by == "near-duplicates"  # type: ignore[union-attr]


def test_groups_that_do_not_fit_are_refused_before_anything_is_read(raw: Path) -> None:
    for path in (raw / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no match in 6 of 6"):
        index_folder(raw, group_regex="(z)")
    Path("groups.csv").write_text("case,group\nc000,a\n")
    with pytest.raises(DataError, match="no group for 5"):
        index_folder(raw, groups=Path("groups.csv"))


# Left out by hand


def test_cases_with_errors_are_left_out_on_demand_and_recorded(raw: Path) -> None:
    (raw / "images/c000.png").write_bytes(b"")
    (raw / "masks/c001.png").write_bytes(b"nothing")
    (raw / "masks/c002.png").unlink()
    kept = index_folder(raw)
    index = index_folder(raw, skip_bad=True)
    assert index.cases == kept.cases and [case.case for case in index.cases] == ["c003", "c004", "c005"]
    assert len(kept.errors) == 3 and kept.left_out == ()
    assert index.errors == [] and index.left_out == ("images/c000.png", "images/c002.png", "masks/c001.png")
    told = {p.where: p.do for p in index.problems}
    assert all(told[name].startswith("left out (--skip-bad); ") for name in index.left_out)


# An official test part, volumes, depths


def test_what_could_be_tuned_to_is_taken_outside_the_test_part(write_dataset: Write) -> None:
    for part, size, seed in (("train", (48, 64), 0), ("test", (96, 160), 1)):
        write_dataset(Path("raw") / part, count=5, size=size, seed=seed)
    index = index_folder(Path("raw"))
    f = index.fingerprint
    assert f is not None and (f.cases, f.test, f.groups, f.groups_with_object) == (10, 5, 5, 5)
    assert f.height == (48, 48, 48) and f.width == (64, 64, 64)
    shares = [case.foreground for case in index.cases if case.split == "train"]
    assert f.lesion_share == pytest.approx(np.quantile(shares, (0.05, 0.5, 0.95)), abs=1e-6)


def test_volumes_are_stacks_with_spacing_and_intensities_inside_their_masks() -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    inside = []
    for name in ("images", "masks"):
        (Path("raw") / name).mkdir(parents=True)
    for i in range(4):
        values = rng.integers(-1024, 1500, (40, 32, 6 + i)).astype(np.int16)
        values[:8] = -1000
        mask = np.zeros(values.shape, np.uint8)
        mask[12:20, 10:20, 2:4] = 1
        inside.append(values[mask > 0])
        affine = np.diag([0.5, 0.5, 3.0 + i, 1])
        for kind, array in (("images", values), ("masks", mask)):
            nibabel.save(nibabel.Nifti1Image(array, affine), f"raw/{kind}/v{i}.nii.gz")
    index = index_folder(Path("raw"))
    f = index.fingerprint
    assert index.errors == [] and f is not None
    assert [case.slices for case in index.cases] == [6, 7, 8, 9] and f.slices == 9
    assert f.spacing_mm == (4.5, 0.5, 0.5) and f.channels == 1 and f.deep == 4 and f.hounsfield
    assert f.intensity == pytest.approx(np.percentile(np.concatenate(inside), (0.5, 99.5)), abs=0.01)
    assert f.lesion_side_px == pytest.approx([np.sqrt(80)] * 3, abs=0.1)  # 8 x 10 in each of the two slices that show it
    assert f.near_duplicates == 0 and f.groups == 4


def test_whole_numbers_alone_are_no_hounsfield_units(raw: Path) -> None:
    for i in range(6):
        rewrite(raw / f"images/c00{i}.png", lambda a: a.astype(np.uint16) * 16)
    f = index_folder(raw).fingerprint
    assert f is not None and f.deep == 6 and not f.hounsfield and f.intensity is not None


def test_processes_find_what_threads_find(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "masks/c003.png").write_bytes(b"")
    before = index_folder(raw)
    monkeypatch.setattr("ukan.data.index._MANY", 1)
    assert index_folder(raw) == before and len(before.errors) == 1


# The file


def test_an_index_comes_back_from_its_file_whatever_the_names() -> None:
    cases = [
        Case("benign (1)", "a b/c,d.png", ("m/x.png", 'm/"y".png'), "g", "benign", "train", 3, 4, 0.5, "ff"),
        Case("übung", "ü.png", (), "übung", foreground=1 / 3, width=1, height=2),
        Case("1e5", "1e5.png", ("007.png",), "007"),
    ]
    save_index(Path("index.csv"), cases)
    again = load_index(Path("index.csv"))
    assert [case._replace(foreground=0.0) for case in again] == [case._replace(foreground=0.0) for case in cases]
    assert [case.foreground for case in again] == pytest.approx([case.foreground for case in cases], abs=1e-9)
    assert dump_index(again) == dump_index(cases) and index_sha256(again) == index_sha256(cases)


def test_the_hash_of_an_index_is_that_of_its_file() -> None:
    cases = [Case("ü (1)", "ü.png", ("m.png",), "g", classes=("a",), channels=("b.png",), slices=3, grade="moderate")]
    save_index(Path("index.csv"), cases)
    assert file_sha256(Path("index.csv")) == index_sha256(cases)
    with pytest.raises(DataError, match="nowhere"):
        file_sha256(Path("nowhere.csv"))


def test_an_index_of_an_older_version_is_read_and_keeps_its_hash() -> None:
    text = (
        "case,image,masks,group,label,split,width,height,foreground,hash\n"
        'benign (1),benign/benign (1).png,"[""benign/benign (1)_mask.png""]",benign (1),benign,,564,468,0.07,ff\n'
    )
    Path("index.csv").write_text(text, encoding="utf-8")
    assert load_index(Path("index.csv")) == [
        Case(
            "benign (1)",
            "benign/benign (1).png",
            ("benign/benign (1)_mask.png",),
            "benign (1)",
            "benign",
            "",
            564,
            468,
            0.07,
            "ff",
        )
    ]
    assert file_sha256(Path("index.csv")) == hashlib.sha256(text.encode()).hexdigest()


def test_an_index_of_no_case_is_no_case() -> None:
    save_index(Path("index.csv"), [])
    assert load_index(Path("index.csv")) == []


def test_a_damaged_index_is_a_data_error_that_says_what_to_run() -> None:
    whole = dump_index([Case("a", "a.png", ("m.png",), "a")])
    for text in ("", "\x00\x01", "case,image\na,b\n", whole.replace("m.png", 'm"'), whole.replace(",0,0,", ",0,x,")):
        Path("index.csv").write_text(text)
        with pytest.raises(DataError, match=r"index\.csv.*ukan plan"):
            load_index(Path("index.csv"))
    with pytest.raises(DataError, match=r"nowhere\.csv.*ukan plan"):
        load_index(Path("nowhere.csv"))


def test_the_hash_of_a_case_covers_image_and_masks(raw: Path) -> None:
    case = index_folder(raw).cases[0]
    for name in (case.image, case.masks[0]):
        before = case_hash(raw, case)
        with (raw / name).open("ab") as file:
            file.write(b"x")
        assert case_hash(raw, case) != before


def test_the_hash_of_a_case_covers_further_channels_and_every_file_of_a_series() -> None:
    for name in ("series/b.dcm", "series/a.dcm", "extra.png", "mask.png", "v.mhd", "v.raw"):
        Path("raw", name).parent.mkdir(parents=True, exist_ok=True)
        Path("raw", name).write_text(name)
    case = Case("c", "series", ("mask.png",), channels=("extra.png", "v.mhd"))
    content = "series/a.dcmseries/b.dcmmask.pngextra.pngv.mhdv.raw"
    assert case_hash(Path("raw"), case) == hashlib.sha256(content.encode()).hexdigest()
    with pytest.raises(DataError, match="gone"):
        case_hash(Path("raw"), case._replace(image="gone"))


def test_a_name_that_is_not_utf8_is_an_error_and_everything_else_is_read(write_dataset: Callable[..., Path]) -> None:
    folder = write_dataset(Path("raw"), count=4)
    for kind in ("images", "masks"):
        (folder / kind / "c001.png").rename(os.fsdecode(os.fsencode(folder / kind) + b"/caf\xe9.png"))
    index = index_folder(folder)
    assert [(problem.kind, problem.where) for problem in index.errors] == [("name is not UTF-8", "images/caf\\xe9.png")]
    assert [case.case for case in index.cases] == ["c000", "c002", "c003"]


def test_a_mask_stored_in_another_order_of_axes_lies_where_its_image_lies(tmp_path: Path) -> None:
    import nibabel as nib

    for number in range(3):
        rng = np.random.default_rng(number)
        image, affine = rng.integers(0, 900, (6, 8, 4)).astype(np.int16), np.diag([1.0, 1.0, 3.0, 1.0])
        mask = np.zeros((6, 8, 4), np.uint8)
        mask[2:4, 3:6, 1:3] = 1
        moved = nib.Nifti1Image(mask, affine).as_reoriented(np.array([[1, -1], [0, 1], [2, 1]]))
        for kind, volume in (("images", nib.Nifti1Image(image, affine)), ("masks", moved)):
            (tmp_path / "raw" / kind).mkdir(parents=True, exist_ok=True)
            nib.save(volume, tmp_path / "raw" / kind / f"v{number}.nii.gz")
    assert not [p for p in index_folder(tmp_path / "raw").problems if p.kind == "mask lies elsewhere than its image"]
    away = nib.Nifti1Image(mask, affine + np.array([[0, 0, 0, 9.0], [0] * 4, [0] * 4, [0] * 4]))
    nib.save(away, tmp_path / "raw/masks/v2.nii.gz")
    found = [p.where for p in index_folder(tmp_path / "raw").problems if p.kind == "mask lies elsewhere than its image"]
    assert found == ["masks/v2.nii.gz"]
