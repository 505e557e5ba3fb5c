"""Which image sides a network takes."""

from torch import Tensor


def check_sides(x_BCHW: Tensor, stride: int, network: str) -> None:
    """Raises ValueError for sides that are no multiples of a network's stride, with the nearest that are."""
    height, width = x_BCHW.shape[-2:]
    if height % stride or width % stride:
        fits = tuple(max(1, round(side / stride)) * stride for side in (height, width))
        raise ValueError(
            f"{network} takes sides that are multiples of {stride}, got {height}x{width}; use {fits[0]}x{fits[1]}"
        )
