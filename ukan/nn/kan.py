"""The Kolmogorov-Arnold layer: every edge from an input to an output carries its own learned univariate function.

    y_o = sum_i [ base_weight_oi * act(x_i) + spline_scaler_oi * sum_m spline_weight_oim * B_m(x_i) ]

after Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks" (Eq. 2.10-2.12), in the form of the published U-KAN: B-splines of
order k over knots that reach k spans beyond the grid on either side, and a base activation beside the spline.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: ... any leading dimensions, I inputs, O outputs, M basis functions (grid_size + spline_order), T knots


def bspline_basis(x_I: Tensor, knots_IT: Tensor, order: int) -> Tensor:
    """The B-spline basis functions of every input by the Cox-de Boor recursion.

    x_I (..., I), knots_IT (I, T) ascending; returns (..., I, T - order - 1). Spans are half-open, so a value outside the
    outermost knots gets zeros everywhere. A span of no width contributes nothing (0 / 0 counts as 0).
    """
    x = x_I.unsqueeze(-1)
    basis = ((x >= knots_IT[:, :-1]) & (x < knots_IT[:, 1:])).to(x.dtype)
    for k in range(1, order + 1):
        left, right = knots_IT[:, : -(k + 1)], knots_IT[:, k + 1 :]
        rising = (x - left) * _reciprocal(knots_IT[:, k:-1] - left)
        falling = (right - x) * _reciprocal(right - knots_IT[:, 1:-k])
        basis = rising * basis[..., :-1] + falling * basis[..., 1:]
    return basis


def _reciprocal(width: Tensor) -> Tensor:
    return torch.where(width > 0, 1 / width, torch.zeros_like(width))


class KANLinear(nn.Module):
    """A linear layer whose every weight is a function of its input.

    Takes (..., in_features), gives (..., out_features). Parameters, their names and their initialisation are those of the
    published U-KAN (its checkpoints fit): base_weight (O, I), spline_weight (O, I, M), spline_scaler (O, I) and the buffer
    grid (I, T). Inputs outside the outermost knots pass through the base activation alone.
    """

    grid: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        if grid_size < 1 or spline_order < 1 or not grid_range[0] < grid_range[1]:
            raise ValueError(
                f"KANLinear needs grid_size >= 1, spline_order >= 1 and an ascending grid_range, "
                f"got {grid_size}, {spline_order}, {grid_range}"
            )
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order

        low, high = grid_range
        positions = torch.arange(-spline_order, grid_size + spline_order + 1, dtype=torch.float64)
        knots_T = (low + positions * (high - low) / grid_size).to(torch.get_default_dtype())
        self.register_buffer("grid", knots_T.expand(in_features, -1).contiguous())
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, noise: float = 0.1) -> None:
        """The published start: uniform base weights and scalers; splines that run through small noise at the grid points."""
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        if self.grid.is_meta:
            return
        points_P = self.grid[0, self.spline_order : self.spline_order + self.grid_size + 1].double()
        basis_PM = bspline_basis(points_P[:, None], self.grid[:1].double(), self.spline_order).squeeze(1)
        values_POI = (torch.rand(len(points_P), *self.base_weight.shape) - 0.5) * noise / self.grid_size
        # Fewer points than coefficients: of all splines through the points, the one with the smallest coefficients.
        fit_MP = torch.linalg.pinv(basis_PM).to(values_POI.dtype)
        self.spline_weight.copy_(torch.einsum("mp,poi->oim", fit_MP, values_POI))

    def forward(self, x: Tensor) -> Tensor:
        basis = bspline_basis(x, self.grid, self.spline_order).flatten(-2)  # (..., I * M)
        weight = (self.spline_weight * self.spline_scaler.unsqueeze(-1)).flatten(1)  # (O, I * M)
        return F.linear(F.silu(x), self.base_weight) + F.linear(basis, weight)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, grid_size={self.grid_size}, spline_order={self.spline_order}"
