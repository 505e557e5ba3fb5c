"""From values to classes: the rule chosen is the right one for masks as people have them, and what does not fit is told."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from ukan.data.masks import FITS_NO_RULE, Counted, Rule, choose_rule, count_values, misfit

Mask = np.ndarray


def discs(count: int, seed: int, size: int = 96) -> Mask:
    """(H, W): discs numbered from 1, none over another."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((size, size), np.uint8)
    for number, cell in enumerate(rng.permutation(9)[:count], start=1):
        y, x = (int(c) * 32 + 16 for c in divmod(cell, 3))
        cv2.circle(mask, (x, y), int(rng.integers(6, 14)), number, -1)
    return mask


def binary(white: int) -> list[Mask]:
    return [(discs(2, seed) > 0).astype(np.uint8) * np.uint8(white) for seed in range(6)]


def jpeg(mask: Mask, quality: int) -> Mask:
    return cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def resized(mask: Mask, factor: float, method: int) -> Mask:
    return cv2.resize(mask, None, fx=factor, fy=factor, interpolation=method)


def rule_of(masks: list[Mask], **options: bool) -> Rule:
    return choose_rule([count_values(mask[None]) for mask in masks], **options)


EMPTY = [np.zeros((96, 96), np.uint8)]


@pytest.mark.parametrize(
    "masks",
    [
        binary(1),
        binary(255),
        binary(7),
        binary(1) + binary(255),
        EMPTY,
        binary(255) + EMPTY,
        [m.astype(bool).astype(np.uint16) * 65535 for m in binary(1)],
    ],
    ids=["0/1", "0/255", "0/7", "0/1 and 0/255", "all empty", "some empty", "16 bit"],
)
def test_two_valued_masks_count_everything_above_0(masks: list[Mask]) -> None:
    assert rule_of(masks)[:2] == ("nonzero", ())


SMEARS: dict[str, Callable[[Mask], Mask]] = {
    **{f"JPEG {quality}": lambda mask, quality=quality: jpeg(mask, quality) for quality in (10, 50, 75, 95)},
    **{
        f"resized by {factor}, method {method}": lambda mask, factor=factor, method=method: resized(mask, factor, method)
        for factor in (0.33, 0.5, 0.7, 1.7, 2, 3.1)
        for method in (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
        if not (method == cv2.INTER_AREA and factor > 1)  # which repeats pixels: nothing is smeared
    },
}


@pytest.mark.parametrize("smear", SMEARS.values(), ids=SMEARS)
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_greys_along_borders_are_cut_at_half_though_only_some_masks_have_them(
    smear: Callable[[Mask], Mask], share: float
) -> None:
    masks = binary(255)
    assert rule_of([smear(mask) if i < share * len(masks) else mask for i, mask in enumerate(masks)]).rule == "half"


def test_masks_that_count_1_to_n_hold_objects() -> None:
    rule = rule_of([discs(count, count) for count in (1, 2, 3, 5, 7, 9)])
    assert rule.rule == "instances" and rule.label_values == ()
    assert "data.mask_rule=labels" in rule.because


def test_so_do_masks_of_hundreds_of_objects_in_16_bits_and_with_gaps() -> None:
    rng = np.random.default_rng(0)
    grids = [
        np.kron(rng.permutation(900).reshape(30, 30) % (300 + 100 * i) * (rng.random((30, 30)) < 0.9), np.ones((6, 6), int))
        for i in range(4)
    ]
    assert rule_of([grid.astype(np.uint16) for grid in grids]).rule == "instances"


@pytest.mark.parametrize("values", [(1, 2, 3), (76, 150, 29), (85, 170, 255), (10, 20, 30), (1, 2, 4)], ids=str)
def test_the_same_few_values_in_all_masks_are_classes(values: tuple[int, ...]) -> None:
    table = np.array([0, *values, *values, *values], np.uint8)
    rule = rule_of([table[discs(9, seed)] for seed in range(4)])
    assert rule.rule == "labels" and rule.label_values == tuple(sorted(values))


def test_classes_of_which_each_mask_shows_some_are_classes() -> None:
    shown = [(1,), (2,), (1, 3), (2, 3), (3,), (1, 2, 3)]
    masks = [
        np.array([0, *values, *values, *values, *values], np.uint8)[discs(4, seed)] for seed, values in enumerate(shown)
    ]
    assert rule_of(masks)[:2] == ("labels", (1, 2, 3))


def test_a_ring_of_127_around_255_is_a_class_and_not_a_smear() -> None:
    masks = [
        cv2.dilate(mask, np.ones((7, 7), np.uint8)) // 255 * np.uint8(127) + mask // 255 * np.uint8(128)
        for mask in binary(255)
    ]
    assert rule_of(masks)[:2] == ("labels", (127, 255))


def test_one_or_two_nested_numbers_are_taken_for_classes_with_the_doubt_told() -> None:
    rule = rule_of([discs(count, seed) for seed, count in enumerate((1, 2, 1, 2))])
    assert rule[:2] == ("labels", (1, 2)) and "data.mask_rule=instances" in rule.because


def test_where_each_class_has_masks_of_its_own_no_label_map_is_seen_in_them() -> None:
    masks = [np.array([0, 1, 2, 3], np.uint8)[discs(3, seed)] for seed in range(4)]
    assert rule_of(masks, may_be_labels=False).rule == "nonzero"


def test_where_most_masks_hold_255_alone_a_stray_number_makes_no_classes_of_them() -> None:
    stray = np.array([0, 255, 2], np.uint8)[discs(2, 0)]
    rule = rule_of([*binary(255), stray])
    assert rule.rule == "nonzero"
    assert told([0, 2, 255], rule) == FITS_NO_RULE and told([0, 255], rule) is None and told([0, 2], rule) is None


# What does not fit


def told(mask: list[int], rule: Rule) -> str | None:
    wrong = misfit({value: Counted(10, 0) for value in mask}, rule)
    return wrong[0] if wrong else None


def test_a_value_of_no_class_is_an_error_that_names_it() -> None:
    rule = Rule("labels", (1, 2, 3), "")
    assert told([0, 1, 3], rule) is None and told([0], rule) is None
    wrong = misfit({0: Counted(10, 0), 7: Counted(5, 0)}, rule)
    assert wrong is not None and wrong[0] == FITS_NO_RULE and "7" in wrong[1] and "1, 2, 3" in wrong[1]
    assert "data.label_values" in wrong[2]


def test_255_beside_small_classes_is_told_apart_with_its_share() -> None:
    masks = [np.array([0, 1, 2, 255], np.uint8)[discs(3, seed)] for seed in range(4)]
    rule = rule_of(masks)
    assert rule[:2] == ("labels", (1, 2))
    values = count_values(masks[0][None])
    wrong = misfit(values, rule)
    assert wrong is not None and wrong[0] == "255 beside small numbers"
    assert f"{values[255].pixels / masks[0].size:.1%}" in wrong[1] and "[1,2,255]" in wrong[2]
    assert misfit(values, Rule("labels", (1, 2, 255), "", lenient=True)) is None


def test_1_and_255_in_one_mask_is_neither_a_mixture_nor_a_class_unless_a_person_says_so() -> None:
    masks = [np.array([0, 1, 255], np.uint8)[discs(2, seed)] for seed in range(4)]
    rule = rule_of(masks)
    assert rule.rule == "nonzero" and told([0, 1, 255], rule) == "255 beside small numbers"
    assert told([0, 1], rule) is None and told([0, 255], rule) is None
    assert told([0, 1, 255], Rule("nonzero", (), "", lenient=True)) is None


def test_a_mask_that_half_would_empty_is_an_error() -> None:
    rule = Rule("half", (), "")
    assert told([0, 1], rule) == FITS_NO_RULE and told([0, 100], rule) == FITS_NO_RULE
    assert told([0, 40, 255], rule) is None and told([0], rule) is None
    assert told([0, 400, 65535], rule) == FITS_NO_RULE  # where half is depends on the depth


def test_negative_values_fit_only_where_they_are_named() -> None:
    assert told([-1, 0, 1], Rule("nonzero", (), "")) == FITS_NO_RULE
    assert told([-1, 0, 1], Rule("labels", (-1, 1), "")) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_values_are_counted_as_they_are_in_any_type(dtype: type) -> None:
    labels = np.stack([discs(5, 0), discs(3, 1)]).astype(dtype)
    if dtype not in (np.uint8, np.uint16):
        labels[0, :2] = -3
    if dtype == np.int64:
        labels[1, 0] = 10**9
    counted = count_values(labels)
    values, counts = np.unique(labels, return_counts=True)
    assert {value: counted[value].pixels for value in counted} == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_pixels_inside_are_those_with_their_value_all_around() -> None:
    mask = discs(4, 3)
    counted = count_values(mask[None])
    for value in np.unique(mask):
        padded = np.pad(mask == value, 1, constant_values=True)
        inside = np.all([padded[y : y + 96, x : x + 96] for y in range(3) for x in range(3)], axis=0)
        assert counted[int(value)].inside == inside.sum()
