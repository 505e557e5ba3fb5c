"""The Kolmogorov-Arnold layer: every edge from an input to an output carries its own learned univariate function.

    y_o = sum_i [ base_weight_oi * act(x_i) + spline_scaler_oi * sum_m spline_weight_oim * B_m(x_i) ]

after Liu et al. 2024, "KAN: Kolmogorov-Arnold Networks" (Eq. 2.10-2.12), in the form of the published U-KAN: B-splines of
order k over knots that reach k spans beyond the grid on either side, and a base activation beside the spline.

All edges together are one matrix product, of features (act(x), B_0(x), ..., B_M-1(x)) with weights. The features take M + 1
times the room of x, so they are made in blocks of rows, multiplied while they lie in the cache, and made again for the
gradient: of the layer's work only x and the weights are kept.
"""

import copy
import functools
import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shapes: ... any leading dimensions, R rows, I inputs, O outputs, T knots,
# M basis functions (grid_size + spline_order), F = M * I features

Activation = Literal["silu", "relu", "gelu"]
Beyond = Literal["zero", "linear"]
_ROUNDINGS, _OFF, _SPANS = 8.0, 0.05, 64
"""Knots count as evenly spaced where none is further from its even place than so many roundings of the outermost knot, nor
than this share of a span, and where there are no more spans: float32 counts more of them too coarsely."""
_BLOCK_BYTES = {"cpu": 5 << 17, "cuda": 1 << 27}
"""Room of a block's features, beside which steps on the way to them take several times as much: all that fits a cache, or
fills a GPU. Compiled there are no such steps, and blocks are four times as large."""
_SHARES = {k: [(-1) ** j * math.comb(k + 1, j) for j in range(k // 2 + 1)] for k in (1, 2, 3, 4, 5)}
_UNIT = {k: math.factorial(k) ** (-1 / k) for k in (1, 2, 3, 4, 5)}
"""Of the cardinal B-spline of an order, see `_even_basis`."""


_OPTIONS: dict[str, Any] = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 1000}
"""Of the compiler: however long an expression is and however often it is read, computing it again beats a plane in
memory."""


class Spline(NamedTuple):
    """What the formulas need to know beside the knots."""

    order: int
    spans: int
    uniform: bool
    beyond: Beyond
    activation: Activation


class KANLinear(nn.Module):
    """A linear layer whose every weight is a function of its input.

    Takes (..., in_features), gives (..., out_features). Parameters, their names and their initialisation are those of the
    published U-KAN (its checkpoints fit): base_weight (O, I), spline_weight (O, I, M), spline_scaler (O, I) and the buffer
    grid (I, T), the knots of every input. Knots are changed with `set_knots` or by loading a state; what is computed with is
    derived from them then, in float64: up to 64 evenly spaced spans take a shorter formula. Even are knots of which none is
    further from its even place than 8 roundings of the outermost, or a twentieth of a span.

    base_activation: "silu" as published, "relu" or "gelu". spline_scaler=False leaves that parameter out. beyond: outside
    the outermost knots every spline is "zero", as published, and no gradient comes back but the base activation's; with
    "linear" each goes on beyond the grid (not the outermost knots) as the straight line it ends in.

    Features are computed in float32, or in float64 where the knots are, products in the type of the weights, or autocast's.
    Second derivatives are exact; forward-mode derivatives are not there. `compiled` (see `compile_layers`) is faster.
    """

    grid: Tensor
    _places: Tensor
    _rates: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-1.0, 1.0),
        base_activation: Activation = "silu",
        spline_scaler: bool = True,
        beyond: Beyond = "zero",
    ) -> None:
        super().__init__()
        if grid_size < 1 or not 1 <= spline_order <= 5 or not grid_range[0] < grid_range[1]:
            raise ValueError(
                f"KANLinear needs grid_size >= 1, spline_order 1 to 5 and an ascending grid_range, "
                f"got {grid_size}, {spline_order}, {grid_range}"
            )
        for name, given, known in (("base_activation", base_activation, Activation), ("beyond", beyond, Beyond)):
            if given not in get_args(known):
                raise ValueError(f"{name} is one of {', '.join(get_args(known))}, got {given!r}")
        self.in_features, self.out_features = in_features, out_features
        self.grid_size, self.spline_order = grid_size, spline_order
        self.base_activation, self.beyond = base_activation, beyond
        self.compiled = False

        low, high = grid_range
        positions = torch.arange(-spline_order, grid_size + spline_order + 1, dtype=torch.float64)
        knots_T = (low + positions * (high - low) / grid_size).to(torch.get_default_dtype())
        self.register_buffer("grid", knots_T.expand(in_features, -1).contiguous())
        for derived in ("_places", "_rates"):
            self.register_buffer(derived, None, persistent=False)
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, grid_size + spline_order))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features)) if spline_scaler else None
        self._derive()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, noise: float = 0.1) -> None:
        """The published start: uniform base weights and scalers; splines that run through small noise at the grid points."""
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))
        if self.spline_scaler is not None:
            nn.init.kaiming_uniform_(self.spline_scaler, a=math.sqrt(5))
        if self.grid.is_meta:
            return
        points_P = self.grid[0, self.spline_order : self.spline_order + self.grid_size + 1].double()
        basis_PM = bspline_basis(points_P[:, None], self.grid[:1].double(), self.spline_order).squeeze(1)
        values_POI = (torch.rand(len(points_P), *self.base_weight.shape) - 0.5) * noise / self.grid_size
        # Fewer points than coefficients: of all splines through the points, the one with the smallest coefficients.
        fit_MP = torch.linalg.pinv(basis_PM).to(values_POI.dtype)
        self.spline_weight.copy_(torch.einsum("mp,poi->oim", fit_MP, values_POI))

    @torch.no_grad()
    def set_knots(self, knots_IT: Tensor) -> None:
        """Take other knots, ascending for each input; functions change unless refitted (`ukan.nn.knots` does it)."""
        if knots_IT.shape != self.grid.shape or not (knots_IT.diff(dim=1) >= 0).all():
            raise ValueError(f"knots must ascend and have shape {tuple(self.grid.shape)}, got {tuple(knots_IT.shape)}")
        self.grid.copy_(knots_IT)
        self._derive()

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"KANLinear takes (..., {self.in_features}), got {tuple(x.shape)}")
        rows, kind = x.reshape(-1, self.in_features), x.device.type
        weight_OI: Tensor = self.base_weight
        spline_OF = self._spline_weight()
        if _autocasts(kind):
            dtype = torch.get_autocast_dtype(kind)
            weight_OI, spline_OF = weight_OI.to(dtype), spline_OF.to(dtype)
        with _types_as_given(kind):
            if torch.compiler.is_compiling() or torch.jit.is_tracing():  # others fuse, or write down, plain steps
                y = _plain(rows, weight_OI, spline_OF, self._places, self._rates, self._spline())
            else:
                y = _KAN.apply(rows, weight_OI, spline_OF, self._places, self._rates, self._spline(), self.compiled)
        return y.view(*x.shape[:-1], self.out_features)

    def features(self, x_RI: Tensor) -> tuple[Tensor, Tensor]:
        """What the weights are multiplied with: the base activation (R, I) and every basis function (R, M, I)."""
        return _features(x_RI, self._places, self._rates, self._spline())

    def _spline(self) -> Spline:
        return Spline(self.spline_order, self.grid_size, self.uniform, self.beyond, self.base_activation)

    def _spline_weight(self) -> Tensor:
        """(O, M * I), as the basis functions lie: those of one m together."""
        weight_OMI = self.spline_weight.transpose(1, 2).contiguous()
        if self.spline_scaler is not None:
            weight_OMI = weight_OMI * self.spline_scaler.unsqueeze(1)
        return weight_OMI.flatten(1)

    @torch.inference_mode(False)
    def _derive(self) -> None:
        """What the formulas compute with, from the knots: in float64 on the CPU, then kept in the type of the features."""
        grid, order = self.grid.detach(), self.spline_order
        knots_TI = (grid if grid.is_meta else grid.cpu()).double().T
        kept = torch.float64 if grid.dtype == torch.float64 else torch.float32
        spans = len(knots_TI) - 1
        width = (knots_TI[-1] - knots_TI[0]) / spans
        even = knots_TI[0] + width * torch.arange(spans + 1, device=knots_TI.device).unsqueeze(1)
        allowed = torch.minimum(_ROUNDINGS * torch.finfo(grid.dtype).eps * knots_TI.abs().amax(0), _OFF * width)
        # Tensors without values are of a network that is only being measured.
        near = grid.is_meta or bool(((even - knots_TI).abs() <= allowed).all() and (width > 0).all())
        self.uniform: bool = near and spans <= _SPANS
        if self.uniform:
            centre = ((knots_TI[0] + knots_TI[-1]) / 2).to(kept).double()  # inputs are measured from where it can be kept
            rates = torch.stack((_UNIT[order] / width, centre))
            middles = torch.arange(spans - order, device=knots_TI.device).unsqueeze(1) + (order + 1) / 2
            places = (knots_TI[0] + width * middles - centre) * rates[0]
        else:
            places = knots_TI
            rates = torch.cat([_reciprocal(knots_TI[k:] - knots_TI[:-k]) for k in range(1, order + 1)])
        self._places, self._rates = places.to(grid.device, kept), rates.to(grid.device, kept)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "KANLinear":
        super()._apply(fn, recurse)
        self._derive()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._derive()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, grid_size={self.grid_size}, spline_order={self.spline_order}"


def in_place_of_kan(layer: nn.Module) -> nn.Module:
    """Mark a layer as a KAN layer's stand-in in a comparison, which is trained at the same rate."""
    layer.in_place_of_kan = True  # type: ignore[assignment]
    return layer


def kan_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all KAN layers and of what stands in their place."""
    there = [layer for layer in model.modules() if isinstance(layer, KANLinear) or hasattr(layer, "in_place_of_kan")]
    return [parameter for layer in there for parameter in layer.parameters()]


def compile_layers(model: nn.Module, on: bool = True) -> None:
    """Let every KAN layer of a network make its features by torch's compiler: C++ on a CPU, Triton on a GPU.

    The first step then waits some seconds, once on a machine. Results agree to rounding.
    """
    for layer in model.modules():
        if isinstance(layer, KANLinear):
            layer.compiled = on


def compiler_problem(layer: KANLinear) -> str | None:
    """Why torch's compiler cannot serve a layer on its device, or None where it can; it is tried, and takes its seconds."""
    small, problem = copy.deepcopy(layer), None
    small.compiled = True
    # To ask the compiler for every instruction set the processor has takes half of all the time; it rarely has to be.
    for _OPTIONS["cpp.vec_isa_ok"] in (True, None):
        _maker.cache_clear()
        try:
            with torch.enable_grad():
                x = torch.zeros(3, layer.in_features, device=layer.grid.device, requires_grad=True)
                torch.autograd.grad(small(x).sum(), x)
            return None
        except Exception as error:  # whatever a tool chain can lack
            problem = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return problem


class _KAN(torch.autograd.Function):
    """act(x) @ weight.T + basis(x) @ spline.T by blocks of rows; keeps x and the weights only."""

    @staticmethod
    def forward(
        ctx: Any,
        x_RI: Tensor,
        weight_OI: Tensor,
        spline_OF: Tensor,
        places: Tensor,
        rates: Tensor,
        spline: Spline,
        compiled: bool,
    ) -> Tensor:
        ctx.spline, ctx.compiled = spline, compiled
        ctx.save_for_backward(x_RI, weight_OI, spline_OF, places, rates)
        x_RI, make = x_RI.detach(), _maker(_features, spline, compiled)
        ctx.alive = _alive(x_RI, places, rates, spline)
        places, used_OF = _places_of(ctx.alive, places, spline), _columns(spline_OF, ctx.alive, x_RI.shape[1])
        y_RO = weight_OI.new_empty(len(x_RI), len(weight_OI))
        for x, y in zip(*_blocks(spline_OF, compiled, x_RI, y_RO), strict=True):
            active, basis = make(x, places, rates)
            torch.mm(basis.flatten(1).to(y.dtype), used_OF.T, out=y)
            torch.addmm(y, active.to(y.dtype), weight_OI.T, out=y)
        return y_RO

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with _types_as_given(grads[0].device.type):
            return _KAN._backward(ctx, *grads)

    @staticmethod
    def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_RI, weight_OI, spline_OF, places, rates = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative that will be derived again: left to autograd
            wanted = ctx.needs_input_grad[:3]
            given = [tensor for tensor, want in zip((x_RI, weight_OI, spline_OF), wanted, strict=True) if want]
            y = _plain(x_RI, weight_OI, spline_OF, places, rates, ctx.spline)
            found = iter(torch.autograd.grad(y, given, grads[0], create_graph=True))
            return *(next(found) if want else None for want in wanted), None, None, None, None
        x_RI, make = x_RI.detach(), _maker(_features_and_gradient, ctx.spline, ctx.compiled)
        places, inputs = _places_of(ctx.alive, places, ctx.spline), x_RI.shape[1]
        grad_RO, grad_x = grads[0].to(weight_OI.dtype), torch.empty_like(x_RI)
        # Halves would lose what each block adds.
        summed = torch.float32 if weight_OI.dtype in (torch.bfloat16, torch.float16) else weight_OI.dtype
        grad_weight = torch.empty_like(weight_OI, dtype=summed)
        grad_spline = torch.empty_like(spline_OF, dtype=summed)
        used_OF, grad_used = _columns(spline_OF, ctx.alive, inputs), _columns(grad_spline, ctx.alive, inputs)
        for number, (x, grad, grad_in) in enumerate(
            zip(*_blocks(spline_OF, ctx.compiled, x_RI, grad_RO, grad_x), strict=True)
        ):
            grad_basis = (grad @ used_OF).unflatten(1, (-1, inputs))
            active, basis, gradient = make(x, grad @ weight_OI, grad_basis, places, rates)
            grad_in.copy_(gradient)
            for total, features in ((grad_weight, active), (grad_used, basis.flatten(1))):
                if total.dtype == grad.dtype:
                    torch.addmm(total, grad.T, features, beta=min(number, 1), out=total)
                elif number:
                    total += grad.T @ features.to(grad.dtype)
                else:
                    total.copy_(grad.T @ features.to(grad.dtype))
        for unused in (slice(0, ctx.alive.start), slice(ctx.alive.stop, None)):
            _columns(grad_spline, unused, inputs).zero_()
        return grad_x, grad_weight.to(weight_OI.dtype), grad_spline.to(spline_OF.dtype), None, None, None, None


def _autocasts(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _types_as_given(device: str) -> AbstractContextManager[Any]:
    """Autocast off: what is inside chooses its types itself."""
    return torch.autocast(device, enabled=False) if _autocasts(device) else nullcontext()


def _blocks(spline_OF: Tensor, compiled: bool, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Tensors of rows in blocks whose features fit; one block at least."""
    room = _BLOCK_BYTES["cpu" if spline_OF.device.type == "cpu" else "cuda"]
    count = max(32, room * (4 if compiled else 1) // (spline_OF.shape[1] * 4))
    return [tensor.split(count) for tensor in rows]


def _alive(x_RI: Tensor, middles_MI: Tensor, rates: Tensor, spline: Spline) -> slice:
    """The basis functions that any of the inputs meets: behind a ReLU, the first two of eight meet none.

    Elsewhere than on a CPU one would have to wait for the answer, and all count.
    """
    count = spline.spans + spline.order
    if not spline.uniform or spline.beyond != "zero" or x_RI.device.type != "cpu" or not len(x_RI):
        return slice(0, count)
    reach = (spline.order + 1) / 2 * _UNIT[spline.order]
    low, high = torch.aminmax(x_RI)
    before = ((low - rates[1]) * rates[0] - middles_MI >= reach).all(1)
    after = ((high - rates[1]) * rates[0] - middles_MI <= -reach).all(1)
    first, last = int(before.sum()), count - int(after.sum())
    return slice(first, last) if first < last else slice(0, 1)


def _places_of(functions: slice, places: Tensor, spline: Spline) -> Tensor:
    return places[functions].clone() if spline.uniform else places  # a view would be compiled for anew


def _columns(weight_OF: Tensor, functions: slice, inputs: int) -> Tensor:
    """The columns of some basis functions, not copied."""
    return weight_OF.unflatten(1, (-1, inputs))[:, functions].flatten(1)


def _plain(x_RI: Tensor, weight_OI: Tensor, spline_OF: Tensor, places: Tensor, rates: Tensor, spline: Spline) -> Tensor:
    """The layer in one expression that autograd, compilers and exporters can follow."""
    active, basis = _features(x_RI, places, rates, spline)
    dtype = weight_OI.dtype
    return F.linear(active.to(dtype), weight_OI) + F.linear(basis.flatten(1).to(dtype), spline_OF)


def _features(x_RI: Tensor, places: Tensor, rates: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """The base activation (R, I) and every basis function (R, M, I)."""
    x = x_RI.to(places.dtype)
    basis, _ = _basis(x, places, rates, spline, slopes=False)
    return getattr(F, spline.activation)(x), basis


def _features_and_gradient(
    x_RI: Tensor, grad_RI: Tensor, grad_RMI: Tensor, places: Tensor, rates: Tensor, spline: Spline
) -> tuple[Tensor, Tensor, Tensor]:
    """The features and, from their gradients, the gradient of x."""
    x = x_RI.to(places.dtype)
    basis, slopes = _basis(x, places, rates, spline, slopes=True)
    active, slope = _activation(x, spline.activation)
    return active, basis, torch.addcmul((slopes * grad_RMI).sum(1), slope, grad_RI.to(x.dtype))


def _activation(x: Tensor, name: Activation) -> tuple[Tensor, Tensor]:
    """A base activation and its slope."""
    if name == "relu":
        return F.relu(x), (x > 0).to(x.dtype)
    if name == "silu":
        share = torch.sigmoid(x)
        active = x * share
        return active, torch.addcmul(share, active, 1 - share)
    share = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    return x * share, share + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _basis(x: Tensor, places: Tensor, rates: Tensor, spline: Spline, slopes: bool) -> tuple[Tensor, Tensor]:
    """The basis functions (R, M, I) and, where wanted, their slopes in x."""
    formula = _even_basis if spline.uniform else _any_basis
    if spline.beyond == "zero":
        return formula(x, places, rates, spline, slopes)
    order = spline.order
    if spline.uniform:  # the grid ends (order - 1) / 2 spans within the middles of the first and the last bump
        edge, half = (order - 1) / 2 * _UNIT[order], 0.5 * _UNIT[order] / rates[0]
        low, high = rates[1] + (places[0] + edge) / rates[0], rates[1] + (places[-1] - edge) / rates[0]
        halves = half, half
    else:
        low, high = places[order], places[-1 - order]
        halves = (places[order + 1] - low) / 2, (high - places[-2 - order]) / 2
    inside = torch.minimum(torch.maximum(x, low), high)
    basis, tilts = formula(inside, places, rates, spline, True)
    if order == 1:  # at a knot there are two slopes: that of the grid's own span is meant
        _, tilts = formula(torch.minimum(torch.maximum(x, low + halves[0]), high - halves[1]), places, rates, spline, True)
    return torch.addcmul(basis, (x - inside).unsqueeze(1), tilts), tilts


def _even_basis(x: Tensor, middles_MI: Tensor, rates: Tensor, spline: Spline, slopes: bool) -> tuple[Tensor, Tensor]:
    """Cardinal B-splines: one bump, moved. With d the distance to its middle in spans, and h = (order + 1) / 2,

    B = sum_j (-1)^j C(order + 1, j) max(0, h - j - d)^order / order!      (Schoenberg 1946; only j <= order / 2 count)

    Nothing is divided and little cancels; outside its support every term is zero. Lengths are measured in such a unit that
    the factorial goes away.
    """
    order, unit = spline.order, _UNIT[spline.order]
    per_span_I, centre_I = rates
    from_middle = ((x - centre_I) * per_span_I).unsqueeze(1) - middles_MI
    d = from_middle.abs()
    basis = tilts = x
    for j, share in enumerate(_SHARES[order]):
        a = (((order + 1) / 2 - j) * unit - d).relu_()
        power = a ** (order - 1) if order > 1 else (a > 0).to(a.dtype)
        basis = power * a if j == 0 else basis.add_(power * a, alpha=share)
        if slopes:
            tilts = power if j == 0 else torch.add(tilts, power, alpha=share)
    return basis, tilts * from_middle.sign() * (-order * per_span_I) if slopes else basis


def _any_basis(x: Tensor, knots_TI: Tensor, rates: Tensor, spline: Spline, slopes: bool) -> tuple[Tensor, Tensor]:
    """The Cox-de Boor recursion, with the reciprocals of all widths at hand (`KANLinear._derive`).

    A plane (R, I) a function, which keeps the steps of the recursion in the cache.
    """
    order, spans, start, shared = spline.order, len(knots_TI) - 1, 0, list[Tensor]()
    from_knot = [x - knot for knot in knots_TI]
    above = [(distance >= 0).to(x.dtype) for distance in from_knot]
    planes = [above[i] - above[i + 1] for i in range(spans)]
    for k in range(1, order + 1):
        shared = [plane * rate for plane, rate in zip(planes, rates[start : start + len(planes)], strict=True)]
        start += len(planes)
        planes = [
            torch.addcmul(from_knot[i] * shared[i], from_knot[i + k + 1], shared[i + 1], value=-1)
            for i in range(len(planes) - 1)
        ]
    basis = torch.stack(planes, 1)
    return basis, order * torch.stack([a - b for a, b in itertools.pairwise(shared)], 1) if slopes else basis


@functools.cache
def _maker(function: Callable[..., Any], spline: Spline, compiled: bool) -> Callable[..., Any]:
    """A function of tensors alone, for one form of spline."""

    def make(*tensors: Tensor) -> Any:
        return function(*tensors, spline)

    if not compiled:
        return make
    make.__code__ = make.__code__.replace()  # the compiler counts, and limits, its versions of one piece of code
    return torch.compile(make, dynamic=True, options=dict(_OPTIONS))


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
