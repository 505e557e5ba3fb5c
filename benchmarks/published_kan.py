"""The published KAN layer's recursion in plain words, to measure against; the package does not use it.

It gives what U-KAN's released layer gives, by the way that one takes: Cox-de Boor on a tensor of (rows, inputs, knots), each
level a new one, every step of it kept by autograd (facts: repository of Li et al. 2024, commit b20bf63).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from ukan.nn.kan import KANLinear


class PublishedKAN(nn.Module):
    """Takes the parameters of one of our layers, so that both compute the same."""

    def __init__(self, ours: KANLinear) -> None:
        super().__init__()
        self.order = ours.spline_order
        self.base_weight = nn.Parameter(ours.base_weight.detach().clone())
        self.spline_weight = nn.Parameter(ours.spline_weight.detach().clone())
        self.spline_scaler = nn.Parameter(ours.spline_scaler.detach().clone())
        self.register_buffer("grid", ours.grid.clone())

    def bases(self, x_RI: Tensor) -> Tensor:
        knots, x = self.grid, x_RI.unsqueeze(-1)
        bases = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - knots[:, : -(k + 1)]) / (knots[:, k:-1] - knots[:, : -(k + 1)])
            right = (knots[:, k + 1 :] - x) / (knots[:, k + 1 :] - knots[:, 1:-k])
            bases = left * bases[:, :, :-1] + right * bases[:, :, 1:]
        return bases.contiguous()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scaled = self.spline_weight * self.spline_scaler.unsqueeze(-1)
        spline = F.linear(self.bases(rows).flatten(1), scaled.flatten(1))
        return (F.linear(F.silu(rows), self.base_weight) + spline).unflatten(0, x.shape[:-1])


def with_published_layers(model: nn.Module) -> nn.Module:
    """The same network with every KAN layer exchanged, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, KANLinear):
                setattr(parent, name, PublishedKAN(child))
    return model
