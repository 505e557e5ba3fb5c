"""Every order visits every place of a map once; a spiral winds from the outside to the centre."""

import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from ukan.nn.orders import ORDERS, find_order, order_of, raster, sequences, spiral

SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 4), (5, 5), (8, 6)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ORDERS)
def test_every_place_is_visited_once_and_found_again(name: str, size: tuple[int, int]) -> None:
    there, back = order_of(name, size, torch.device("cpu"))
    places = torch.arange(size[0] * size[1])
    assert there.shape == (sequences(name), len(places))
    assert (there.sort(1).values == places).all()
    assert (there.gather(1, back) == places).all()


def test_raster_is_rows_columns_and_both_backwards() -> None:
    rows, columns, rows_back, columns_back = raster(2, 3).tolist()
    assert rows == [0, 1, 2, 3, 4, 5] and columns == [0, 3, 1, 4, 2, 5]
    assert rows_back == rows[::-1] and columns_back == columns[::-1]


def test_a_spiral_winds_round_the_map_as_drawn() -> None:
    clockwise, counter, *backwards = spiral(3, 4).tolist()
    assert clockwise == [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]
    assert counter == [0, 4, 8, 9, 10, 11, 7, 3, 2, 1, 5, 6]
    assert backwards == [clockwise[::-1], counter[::-1]]


@pytest.mark.parametrize("size", [(5, 5), (6, 8), (7, 4)])
def test_a_spiral_steps_to_neighbours_and_never_outwards(size: tuple[int, int]) -> None:
    y, x = np.divmod(spiral(*size)[:2], size[1])
    assert (np.abs(np.diff(y)) + np.abs(np.diff(x)) == 1).all()
    ring = np.minimum.reduce([y, x, size[0] - 1 - y, size[1] - 1 - x])
    assert (np.diff(ring) >= 0).all()


def test_orders_of_other_packages_are_named_by_module_and_function(monkeypatch: Any) -> None:
    module = types.ModuleType("other_orders")
    module.rows = lambda height, width: np.arange(height * width)[None]  # type: ignore[attr-defined]
    module.broken = lambda height, width: np.zeros((2, height * width))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "other_orders", module)
    assert sequences("other_orders:rows") == 1
    with pytest.raises(ValueError, match="other_orders:broken: for a map of 3x5 it must give rows of 0 to 14"):
        find_order("other_orders:broken")
    module.short = lambda height, width: np.arange(3)[None]  # type: ignore[attr-defined]
    module.real = lambda height, width: np.arange(height * width)[None] + 0.4  # type: ignore[attr-defined]
    module.fails = lambda height, width: 1 // 0  # type: ignore[attr-defined]
    for name in ("short", "real"):
        with pytest.raises(ValueError, match=f"other_orders:{name}: for a map of 3x5 it must give rows of 0 to 14"):
            find_order(f"other_orders:{name}")
    with pytest.raises(ValueError, match="other_orders:fails: fails for a map of 3x5"):
        find_order("other_orders:fails")
    with pytest.raises(ValueError, match="one of raster, spiral, or package.module:function, got ':f'"):
        find_order(":f")
    with pytest.raises(ValueError, match="other_orders:none cannot be loaded"):
        find_order("other_orders:none")
    with pytest.raises(ValueError, match="one of raster, spiral, or package.module:function, got 'zigzag'"):
        find_order("zigzag")
