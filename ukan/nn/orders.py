"""Orders in which a scan visits the places of a map: ORDERS by name, or any function of the same kind.

An order is a function of height and width that gives an integer array (G, H * W): for each of G sequences a permutation of
the places, numbered row by row.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Order = Callable[[int, int], NDArray[np.int64]]


def raster(height: int, width: int) -> NDArray[np.int64]:
    """Row by row, column by column, and both backwards: VMamba's four (Liu et al. 2024), and the published KM-UNet's."""
    places = np.arange(height * width).reshape(height, width)
    rows, columns = places.ravel(), places.T.ravel()
    return np.stack([rows, columns, rows[::-1], columns[::-1]])


def spiral(height: int, width: int) -> NDArray[np.int64]:
    """From the outside round to the centre, as KM-UNet's paper describes it, clockwise and counter-clockwise from the upper
    left corner, and both backwards: four sequences too, so that a network's parameters stay the same."""
    places = np.arange(height * width).reshape(height, width)
    inwards = [_peel(places), _peel(places.T)]
    return np.stack([*inwards, *(sequence[::-1] for sequence in inwards)])


ORDERS: dict[str, Order] = {"raster": raster, "spiral": spiral}


def find_order(name: str) -> Order:
    """The function of a name in ORDERS, or of "package.module:function". Raises ValueError where there is none, or it gives
    no permutations."""
    if name in ORDERS:
        return ORDERS[name]
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ValueError(f"scan_order is one of {', '.join(ORDERS)}, or package.module:function, got {name!r}")
    try:
        order: Order = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"scan_order={name} cannot be loaded ({error})") from error
    _checked(name, order, 3, 5)
    return order


def sequences(name: str) -> int:
    """How many sequences an order makes of a map."""
    return len(_indices(name, 3, 5)[0])


def order_of(name: str, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The places in order (G, L), and for each place when it is visited (G, L)."""
    there, back = _indices(name, *size)
    return torch.from_numpy(there).to(device), torch.from_numpy(back).to(device)


@lru_cache(maxsize=64)
def _indices(name: str, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    there = _checked(name, find_order(name), height, width)
    return there, np.ascontiguousarray(there.argsort(1))


def _checked(name: str, order: Order, height: int, width: int) -> NDArray[np.int64]:
    try:
        found = np.ascontiguousarray(order(height, width))
    except Exception as error:  # anything can go wrong in somebody else's function
        raise ValueError(f"scan_order={name}: fails for a map of {height}x{width} ({error})") from error
    whole = found.ndim == 2 and found.shape[1] == height * width and len(found) and np.issubdtype(found.dtype, np.integer)
    if not whole or not (np.sort(found, 1) == np.arange(height * width)).all():
        raise ValueError(f"scan_order={name}: for a map of {height}x{width} it must give rows of 0 to {height * width - 1}")
    return found.astype(np.int64)


def _peel(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The upper row, then that of what is left turned a quarter to the left, and so on to the centre."""
    found = []
    while places.size:
        found.append(places[0])
        places = np.rot90(places[1:])
    return np.concatenate(found)
