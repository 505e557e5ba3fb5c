"""Pictures seen before are found: exactly those that comparing every pair with every other finds, however many there are."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ukan.data import duplicates
from ukan.data.duplicates import (
    DETAIL,
    Thumbnails,
    chain,
    find_pairs,
    find_twins,
    load_thumbnails,
    save_thumbnails,
)
from ukan.data.likeness import LIKENESS
from ukan.errors import DataError


def picture(seed: int, size: tuple[int, int] = (90, 120)) -> np.ndarray:
    """Clouds with fine texture, (H, W)."""
    rng = np.random.default_rng(seed)
    coarse, fine = (
        cv2.resize(rng.random(n).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC) for n in ((5, 6), (30, 40))
    )
    return np.clip(170 * coarse + 70 * fine, 0, 255).astype(np.uint8)


def of(pictures: list[np.ndarray], digests: list[str] | None = None) -> Thumbnails:
    names = [f"p{i}" for i in range(len(pictures))]
    return Thumbnails(names, digests or names, *frames(pictures))


def frames(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([duplicates.thumbnail(p) for p in pictures]), np.array([p.shape for p in pictures])


def pairs_of(thumbnails: Thumbnails) -> set[tuple[int, int]]:
    found = find_pairs(thumbnails)
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def brute_force(thumbnails: Thumbnails) -> dict[tuple[int, int], float]:
    """Every pair of whole pictures, by the definition, one after the other."""
    middle = np.hanning(34)[1:-1]
    greys = [cv2.resize(g.astype(float), (32, 32), interpolation=cv2.INTER_AREA) for g in thumbnails.greys_NHW]
    details = [(g - gaussian_filter(g, 1, mode="reflect", truncate=4)) * np.outer(middle, middle) for g in greys]
    flat = [np.linalg.norm(g - g.mean()) <= 16 for g in greys]
    plain = [np.linalg.norm(d - d.mean()) <= 8 for d in details]
    found = {}
    for a in range(len(greys)):
        for b in range(a + 1, len(greys)):
            same = thumbnails.digests[a] == thumbnails.digests[b]
            if flat[a] or flat[b]:
                if same:
                    found[a, b] = 1.0
                continue
            likeness = np.corrcoef(greys[a].ravel(), greys[b].ravel())[0, 1]
            detail = np.corrcoef(details[a].ravel(), details[b].ravel())[0, 1]
            if likeness >= LIKENESS and (detail >= DETAIL or plain[a] or plain[b]):
                found[a, b] = 1.0 if same else likeness
    return found


@pytest.mark.parametrize("tile", [3, 1024])
def test_the_pairs_are_those_of_brute_force(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_TILE", tile)
    rng = np.random.default_rng(0)
    pictures = []
    for seed in range(12):
        first = picture(seed)
        pictures += [
            first,
            np.clip(first * rng.uniform(0.5, 1) + rng.normal(0, 1 + 3 * seed, first.shape), 0, 255).astype(np.uint8),
        ]
        pictures.append((first * 0.7 + picture(seed + 1) * 0.3).astype(np.uint8))  # near the border of LIKENESS
    pictures += [np.full((90, 120), 80, np.uint8)] * 3 + [pictures[0]]
    digests = [f"{i}" for i in range(len(pictures))]
    digests[-1], digests[-2] = digests[0], digests[-4]
    thumbnails = of(pictures, digests)
    expected = brute_force(thumbnails)
    found = find_pairs(thumbnails)
    whole = found.shared == 1
    assert len(expected) > 12
    assert list(zip(found.first[whole].tolist(), found.second[whole].tolist(), strict=True)) == sorted(expected)
    assert found.likeness[whole].tolist() == pytest.approx([expected[pair] for pair in sorted(expected)], abs=1e-5)


def test_brightness_contrast_size_file_type_and_noise_hide_no_picture() -> None:
    first = picture(1)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", first, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
    noisy = np.clip(first + np.random.default_rng(0).normal(0, 5, first.shape), 0, 255).astype(np.uint8)
    changed = [first // 2 + 60, cv2.resize(first, (400, 300)), cv2.resize(first, (61, 45)), jpeg, noisy]
    assert pairs_of(of([first, *changed])) == {(a, b) for a in range(6) for b in range(a + 1, 6)}
    assert pairs_of(of([picture(seed) for seed in range(20)])) == set()


def test_different_things_in_one_frame_are_not_one_picture() -> None:
    """As under a dermoscope: the dark rim and the blob in the middle alone make thumbnails correlate."""
    y, x = np.mgrid[-1:1:180j, -1.3:1.3:240j]
    rim, blob = np.where(x**2 + y**2 > 1.2, 120.0, 0.0), 60 * np.exp(-6 * (x**2 + y**2))
    pictures = []
    for seed in range(6):
        texture = cv2.resize(np.random.default_rng(seed).normal(0, 1, (45, 60)), (240, 180), interpolation=cv2.INTER_CUBIC)
        pictures.append(np.clip(200 - rim - blob + 8 * texture, 0, 255).astype(np.uint8))
    greys = [duplicates.thumbnail(p).astype(float).ravel() for p in pictures]
    assert np.corrcoef(greys)[np.triu_indices(6, 1)].min() > LIKENESS
    assert pairs_of(of(pictures)) == set()
    assert pairs_of(of([pictures[0], pictures[0] // 2, *pictures[1:]])) == {(0, 1)}


def test_pictures_of_one_grey_are_like_nothing_unless_they_are_the_same() -> None:
    flat = np.full((48, 64), 100, np.uint8)
    assert pairs_of(of([flat, flat + 1, flat, flat], ["a", "b", "a", "a"])) == {(0, 2), (0, 3)}


def test_values_of_more_than_8_bits_are_stretched_and_alike_to_their_8_bit_copy() -> None:
    first = picture(3)
    deep = first.astype(np.float32) * 12.5 - 1000
    assert pairs_of(of([first, deep])) == {(0, 1)}
    assert not duplicates.thumbnail(np.full((9, 9), 3.5, np.float32)).any()


def test_a_picture_of_another_dataset_finds_its_twin_there_and_only_that() -> None:
    here = of([picture(seed) for seed in range(8)])
    there = [picture(seed) for seed in range(20, 26)] + [picture(5) // 2 + 20, np.full((9, 9), 7, np.uint8)]
    names = [f"other {i}" for i in range(8)]
    that = Thumbnails(names, [*names[:7], "flat"], *frames(there))
    assert find_twins(here, that) == {"p5": "other 6"}
    assert find_twins(that, here) == {"other 6": "p5"}
    flat = Thumbnails(["f", "g"], ["flat", "flit"], *frames([np.full((9, 9), 7, np.uint8)] * 2))
    assert find_twins(flat, that) == {"f": "other 7"}


def test_groups_are_joined_transitively_by_pairs_and_by_several_namings() -> None:
    pairs = np.array([(1, 2), (4, 5)])
    assert chain(7, pairs, ["", "p", "", "q", "p", "", "q"]) == [0, 1, 1, 3, 1, 1, 3]
    assert chain(7, pairs, ["", "p", "", "q", "p", "", "q"], ["u", "", "", "u", "", "", "v"]) == [0, 1, 1, 0, 1, 1, 0]
    assert chain(3, np.zeros((0, 2), np.intp), ["p", "", "p"]) == [0, 1, 0]
    assert chain(2, np.zeros((0, 2), np.intp)) == [0, 1]


def test_thumbnails_come_back_from_their_file_and_a_damaged_one_says_what_to_run() -> None:
    thumbnails = of([picture(seed) for seed in range(3)])._replace(names=["ü (1)", "a,b", "c"])
    path = Path("plans/thumbnails.npz")
    save_thumbnails(path, thumbnails)
    again = load_thumbnails(path)
    assert again[:2] == (list(thumbnails.names), list(thumbnails.digests))
    assert np.array_equal(again.greys_NHW, thumbnails.greys_NHW) and np.array_equal(again.sizes_N2, thumbnails.sizes_N2)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:200], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"thumbnails\.npz.*ukan plan"):
            load_thumbnails(path)
    with pytest.raises(DataError, match=r"nowhere\.npz"):
        load_thumbnails(Path("nowhere.npz"))
