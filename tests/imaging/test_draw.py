"""Masks drawn over images: each class in its colour, the rest of the image untouched."""

import numpy as np

from ukan.imaging import PALETTE
from ukan.imaging.draw import YELLOW, draw_classes, draw_outline

IMAGE = np.full((40, 60, 3), 100, np.uint8)


def square(top: int, left: int) -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[top : top + 10, left : left + 10] = True
    return mask


def test_an_outline_is_drawn_on_a_copy_and_nothing_outside_it_changes() -> None:
    drawn = draw_outline(IMAGE, square(10, 10), line_px=1)
    assert (IMAGE == 100).all() and (drawn[10, 10:20] == YELLOW).all()
    assert (drawn[~square(10, 10)] == 100).all() and (drawn[14, 14] == [138, 130, 75]).all()


def test_each_class_has_the_colour_of_its_label() -> None:
    masks = np.stack([square(2, 2), square(2, 22), np.zeros((40, 60), bool), square(22, 2)])
    drawn = draw_classes(IMAGE, masks)
    for k in (0, 1, 3):
        inside = np.argwhere(masks[k])[0]
        assert tuple(drawn[tuple(inside)]) == PALETTE[k]
    assert (drawn[~masks.any(0)] == 100).all() and (IMAGE == 100).all()


def test_no_class_at_all_leaves_the_image_as_it_is() -> None:
    assert np.array_equal(draw_classes(IMAGE, np.zeros((2, 40, 60), bool)), IMAGE)
