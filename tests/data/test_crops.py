"""Crops of one frame are found wherever they were cut, and so are one group; unrelated pictures are not linked."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ukan.data import duplicates, index
from ukan.data.crops import Frames, find_overlaps
from ukan.data.duplicates import Thumbnails, find_pairs, find_twins, load_thumbnails, save_thumbnails
from ukan.data.index import index_folder
from ukan.data.likeness import LIKENESS
from ukan.data.phantoms.dermoscopy import make_dermoscopy
from ukan.data.phantoms.endoscopy import make_endoscopy
from ukan.data.phantoms.histology import make_histology
from ukan.data.phantoms.ultrasound import make_ultrasound

MAKERS = {
    "dermoscopy": make_dermoscopy,
    "endoscopy": make_endoscopy,
    "histology": make_histology,
    "ultrasound": make_ultrasound,
}


def made(kind: str, count: int, seed: int = 0, height: int = 144, width: int = 192) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    pictures = [np.asarray(MAKERS[kind](rng, height, width)[0]) for _ in range(count)]
    return [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) if p.ndim == 3 else p for p in pictures]


def cut(picture: np.ndarray, top: float, left: float, high: float, wide: float, scale: float = 1.0) -> np.ndarray:
    """A part, given in shares, resized and stored as JPEG."""
    height, width = picture.shape
    y, x = round(top * height), round(left * width)
    part = picture[y : y + round(high * height), x : x + round(wide * width)]
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return cv2.imdecode(cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], cv2.IMREAD_GRAYSCALE)


def frames(pictures: list[np.ndarray]) -> Frames:
    return Frames(np.stack([duplicates.thumbnail(p) for p in pictures]), np.array([p.shape for p in pictures]))


def thumbnails(pictures: list[np.ndarray], prefix: str = "p") -> Thumbnails:
    names = [f"{prefix}{i}" for i in range(len(pictures))]
    return Thumbnails(names, names, *frames(pictures))


@pytest.fixture(scope="module")
def ultrasound() -> list[np.ndarray]:
    return made("ultrasound", 16)


@pytest.mark.parametrize(
    "part",
    [
        (0, 0, 0.7, 0.7),
        (0.3, 0.3, 0.7, 0.7),
        (0.05, 0.25, 0.7, 0.7),
        (0, 0.15, 1, 0.7),
        (0.2, 0, 0.75, 1),
        (0.1, 0.2, 0.6, 0.6),
    ],
)
@pytest.mark.parametrize("scale", [0.6, 1.0, 1.4])
def test_a_crop_is_found_wherever_it_was_cut_with_the_share_of_the_frame_that_it_is(
    ultrasound: list[np.ndarray], part: tuple[float, ...], scale: float
) -> None:
    crop = cut(ultrasound[4], *part, scale)
    small = [cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA).ravel() for p in (ultrasound[4], crop)]
    assert np.corrcoef(small)[0, 1] < LIKENESS  # as whole pictures they are not alike
    pairs = find_pairs(thumbnails([*ultrasound, crop]))
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(4, 16)]
    assert pairs.likeness[0] > 0.97
    assert pairs.shared[0] == pytest.approx(part[2] * part[3], abs=0.05)


def test_two_crops_of_one_frame_are_found_where_neither_holds_the_other(ultrasound: list[np.ndarray]) -> None:
    pictures = [*ultrasound[1:], cut(ultrasound[0], 0, 0, 0.8, 0.8), cut(ultrasound[0], 0.2, 0.2, 0.8, 0.8, 0.7)]
    pairs = find_pairs(thumbnails(pictures))
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(15, 16)]
    assert pairs.shared[0] == pytest.approx((0.6 / 0.8) ** 2, abs=0.05)


@pytest.mark.parametrize("kind", MAKERS)
def test_crops_of_every_kind_of_picture_are_found_and_unrelated_pictures_are_not_linked(kind: str) -> None:
    pictures = made(kind, 16, seed=1, height=108, width=144)
    rng = np.random.default_rng(2)
    crops = [cut(picture, *rng.uniform(0, 0.3, 2), 0.7, 0.7) for picture in pictures[:8]]
    pairs = find_pairs(thumbnails([*pictures, *crops]))
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    right = {(i, 16 + i) for i in range(8)}
    assert found <= right and len(found) >= 7


def test_pictures_of_one_grey_are_part_of_nothing(ultrasound: list[np.ndarray]) -> None:
    flat = np.full((96, 128), 60, np.uint8)
    black = np.zeros((96, 128), np.uint8)
    assert find_overlaps(shown := frames([*ultrasound, flat, flat + 1, black]), shown).first.size == 0


def test_very_long_pictures_are_searched_like_others(ultrasound: list[np.ndarray]) -> None:
    strip = np.hstack(ultrasound[:4])
    pairs = find_pairs(thumbnails([strip, strip[:, 60:600], *ultrasound[8:]]))
    assert (0, 1) in zip(pairs.first, pairs.second, strict=True)
    assert find_pairs(thumbnails([np.hstack([strip] * 8), ultrasound[9]])).first.size == 0


def test_crops_of_another_datasets_pictures_are_its_twins_both_ways(ultrasound: list[np.ndarray]) -> None:
    here = thumbnails(ultrasound[:6])
    there = thumbnails([*ultrasound[8:], cut(ultrasound[3], 0.1, 0.25, 0.7, 0.7)], "q")
    assert find_twins(here, there) == {"p3": "q8"}
    assert find_twins(there, here) == {"q8": "p3"}


def test_twins_of_too_many_pairs_of_pictures_are_whole_ones_only(
    ultrasound: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = thumbnails(ultrasound[:6])
    there = thumbnails([ultrasound[0], cut(ultrasound[3], 0.1, 0.25, 0.7, 0.7)], "q")
    monkeypatch.setattr(duplicates, "MOST", 4)  # 6 * 2 pairs are no more than 4 squared
    assert find_twins(here, there) == {"p0": "q0", "p3": "q1"}
    monkeypatch.setattr(duplicates, "MOST", 3)
    assert find_twins(here, there) == {"p0": "q0"}


def test_files_of_before_crops_were_looked_for_still_tell_whole_pictures(ultrasound: list[np.ndarray]) -> None:
    now = thumbnails([ultrasound[0], cut(ultrasound[1], 0, 0.1, 0.8, 0.8)], "q")
    small = [cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA) for p in ultrasound[:3]]
    np.savez_compressed("old.npz", names=["a", "b", "c"], digests=["a", "b", "c"], greys=np.stack(small))
    old = load_thumbnails(Path("old.npz"))
    assert old.sizes_N2 is None and find_twins(now, old) == {"q0": "a"}
    save_thumbnails(Path("again.npz"), old)
    assert load_thumbnails(Path("again.npz")).sizes_N2 is None


def folder(pictures: dict[str, np.ndarray]) -> Path:
    for name, picture in pictures.items():
        for kind in ("images", "masks"):
            path = Path("raw") / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            mask = np.zeros_like(picture)
            mask[len(name) : 20 + len(pictures), 5 : 9 + 3 * int(name[1:])] = 255
            Image.fromarray(picture if kind == "images" else mask).save(path)
    return Path("raw")


def with_a_crop(ultrasound: list[np.ndarray]) -> Path:
    pictures = [*ultrasound[:6], cut(ultrasound[2], 0.05, 0.28, 0.7, 0.7)]
    return folder({f"c{i}": picture for i, picture in enumerate(pictures)})


def test_a_frame_and_its_crop_are_one_group_and_check_says_how_much_they_share(
    ultrasound: list[np.ndarray],
) -> None:
    found = index_folder(with_a_crop(ultrasound))
    assert {case.case: case.group for case in found.cases} == {f"c{i}": f"c{2 if i == 6 else i}" for i in range(7)}
    (told,) = [problem for problem in found.problems if problem.kind == "near-duplicates"]
    assert told.where == "c2 | c6" and "% that they share" in told.what
    assert found.fingerprint is not None and found.fingerprint.near_duplicates == 1


def test_where_there_are_too_many_pictures_for_the_search_check_says_so(
    ultrasound: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = with_a_crop(ultrasound)
    assert "crops not looked for" not in {problem.kind for problem in index_folder(raw).problems}
    for module in (duplicates, index):
        monkeypatch.setattr(module, "MOST", 6)
    kinds = {problem.kind for problem in index_folder(raw).problems}
    assert "crops not looked for" in kinds and "near-duplicates" not in kinds
