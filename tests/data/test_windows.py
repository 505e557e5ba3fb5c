"""Windows are torchvision's in the middle, the name's own elsewhere, and what lies beyond an image is black."""

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import center_crop

from ukan.data.windows import Window, cut, windows
from ukan.errors import UserError


def picture(*shape: int) -> np.ndarray:
    """No pixel is 0."""
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("height", [6, 7, 9, 10, 11, 12, 13, 16, 17])
@pytest.mark.parametrize("width", [7, 8, 10, 13, 18])
@pytest.mark.parametrize("crop", [(10, 10), (9, 12), (11, 8)])
def test_the_middle_is_torchvision_s_also_beyond_the_image(height: int, width: int, crop: tuple[int, int]) -> None:
    image = picture(height, width, 3)
    (window,) = windows((height, width), crop, 0, "x")
    theirs = center_crop(torch.from_numpy(image).permute(2, 0, 1), list(crop)).permute(1, 2, 0)
    assert np.array_equal(cut(image, window), theirs)


def test_none_is_the_whole_image_and_square_its_largest_square_in_the_middle() -> None:
    image = picture(5, 9)
    assert windows((5, 9), "none", 0, "x") == [(0, 0, 5, 9)]
    assert np.array_equal(cut(image, (0, 0, 5, 9)), image)
    assert windows((5, 9), "square", 0, "x") == [(0, 2, 5, 5)]
    assert windows((12, 5), "square", 0, "x") == [(4, 0, 5, 5)]  # 3.5, to the even side


@pytest.mark.parametrize("window", [(-3, -2, 12, 12), (-3, 4, 6, 8), (2, -9, 3, 5), (8, 8, 4, 4), (0, 0, 0, 3)])
def test_what_is_beyond_the_border_is_0_and_the_rest_is_the_image(window: Window) -> None:
    image = picture(6, 7, 2, 3)  # whatever comes after height and width
    top, left, height, width = window
    shown = cut(image, window)
    assert shown.shape == (height, width, 2, 3) and shown.dtype == image.dtype
    for y in range(height):
        for x in range(width):
            within = 0 <= top + y < 6 and 0 <= left + x < 7
            assert np.array_equal(shown[y, x], image[top + y, left + x] if within else np.zeros((2, 3)))


def test_random_places_follow_the_name_alone_and_more_windows_begin_with_the_same() -> None:
    five = windows((100, 200), (64, 64), 5, "benign (1)")
    assert five == windows((100, 200), (64, 64), 5, "benign (1)") == windows((100, 200), (64, 64), 9, "benign (1)")[:5]
    assert five != windows((100, 200), (64, 64), 5, "benign (2)")
    assert len(set(five)) == 5
    # Another release of numpy, or another machine, must not move them: prepared images would no longer be those of the runs.
    assert [window[:2] for window in five] == [(11, 19), (28, 103), (24, 1), (30, 74), (6, 41)]


def test_random_windows_reach_every_place_within_the_image_and_none_beyond() -> None:
    found = {window[:2] for k in range(400) for window in windows((12, 9), (8, 8), 2, f"case {k}")}
    assert found == {(top, left) for top in range(5) for left in range(2)}


def test_random_windows_are_in_the_middle_of_a_side_that_is_too_short() -> None:
    found = windows((30, 90), (65, 64), 20, "x")
    assert {top for top, *_ in found} == {-17}  # 35 pixels too few: 17 above, 18 below, as in the middle
    assert windows((30, 90), (65, 64), 0, "x")[0][0] == -17
    assert len({left for _, left, *_ in found}) > 5 and all(0 <= left <= 26 for _, left, *_ in found)
    assert set(windows((64, 64), (64, 64), 3, "x")) == {(0, 0, 64, 64)}
    assert {window[1:] for window in windows((80, 40), "square", 3, "x")} == {(0, 40, 40)}


def test_random_windows_without_a_size_are_refused_with_what_to_give() -> None:
    with pytest.raises(UserError, match=r"data.random_windows=5: .*give it as square or \[height, width\]"):
        windows((8, 8), "none", 5, "x")
