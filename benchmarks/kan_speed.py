"""KAN layers, and U-KAN with them, against the published recursion: time, memory, error, as ratios.

    python benchmarks/kan_speed.py [--rounds 15] [--only layers|network|memory|error|compile]

All forms take turns in one process on one thread, so that a machine whose speed swings slows all of them; a ratio is the
median over rounds of that round's ratio, times are process time. Where there is no compiler its columns are left out.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import tempfile

import torch
from published_kan import PublishedKAN, with_published_layers
from torch import Tensor, nn
from torch.nn import functional as F
from turns import Step, peak_bytes, ratio, take_turns

from ukan.models.ukan import UKAN
from ukan.nn.kan import KANLinear, compile_layers, compiler_problem

COMPILES = not compiler_problem(KANLinear(8, 8))


def layers(rounds: int) -> None:
    print("KANLinear, forward and backward, float32: times slower than ours, median (ours in ms)")
    for rows, width in ((2048, 256), (8192, 160)):
        torch.manual_seed(0)
        x, grad = torch.randn(rows, width, requires_grad=True), torch.randn(rows, width)
        features, weight = torch.randn(rows, 9 * width), torch.randn(width, 9 * width)
        even = KANLinear(width, width)
        uneven = copy.deepcopy(even)
        uneven.set_knots(even.grid + 0.1 * torch.rand(even.grid.shape[1]))
        published, published_uneven = PublishedKAN(even), PublishedKAN(uneven)

        def run(layer: nn.Module, x: Tensor = x, grad: Tensor = grad) -> Step:
            return lambda: torch.autograd.grad(layer(x), (x, *layer.parameters()), grad)

        def products(features: Tensor = features, weight: Tensor = weight, grad: Tensor = grad) -> None:
            for a, b in ((features, weight.T), (grad, weight), (grad.T, features)):
                torch.mm(a, b)

        steps: dict[str, Step] = {"published": run(published), "three products": products, "eager": run(even)}
        steps |= {"published, these knots": run(published_uneven), "arbitrary knots, eager": run(uneven)}
        if COMPILES:
            steps |= {"compiled": run(compiled(even)), "arbitrary knots, compiled": run(compiled(uneven))}
        found = take_turns(steps, rounds)
        print(f"  {rows} rows, {width} to {width}")
        for name in steps:
            if "published" in name:
                continue
            against = "published, these knots" if "arbitrary" in name else "published"
            over = f", {ratio(found, name, 'three products'):.2f} of the three products" if name != "three products" else ""
            print(f"    {name}: {ratio(found, against, name):.2f} ({1e3 * statistics.median(found[name]):.0f} ms){over}")


def network(rounds: int) -> None:
    print("U-KAN base, training step (forward, loss, backward), 256x256, batch 2: times slower than ours")
    torch.manual_seed(0)
    plain = UKAN(3, 1).train()
    image, truth = torch.randn(2, 3, 256, 256), (torch.rand(2, 1, 256, 256) > 0.5).float()

    def run(model: nn.Module, *, last: bool = True, half: bool = False) -> Step:
        memory_format = torch.channels_last if last else torch.contiguous_format
        model = model.to(memory_format=memory_format)
        x = image.contiguous(memory_format=memory_format)

        def step() -> None:
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model(x)
            F.binary_cross_entropy_with_logits(logits.float(), truth).backward()

        return step

    published = with_published_layers(copy.deepcopy(plain))
    steps = {"published": run(copy.deepcopy(published), last=False)}
    steps |= {"published, channels_last": run(copy.deepcopy(published))}
    steps |= {"published, bf16": run(copy.deepcopy(published), last=False, half=True)}
    steps |= {"eager": run(copy.deepcopy(plain)), "eager, bf16": run(copy.deepcopy(plain), half=True)}
    steps |= {"MLP twin": run(UKAN(3, 1, kan_layers=("mlp",) * 3).train())}
    if COMPILES:
        steps |= {"compiled": run(compiled(plain)), "compiled, bf16": run(compiled(plain), half=True)}
    found = take_turns(steps, rounds)
    for name in steps:
        print(f"    {name}: {ratio(found, 'published', name):.2f} ({1e3 * statistics.median(found[name]):.0f} ms)")


def memory() -> None:
    print("memory")
    rows, width = 2048, 256
    torch.manual_seed(0)
    for name, make in (("published", PublishedKAN), ("eager", copy.deepcopy), ("compiled", compiled)):
        if name == "compiled" and not COMPILES:
            continue
        layer, x = make(KANLinear(width, width)), torch.randn(rows, width, requires_grad=True)
        for _ in range(2):  # the compiler's own needs come first
            torch.autograd.grad(layer(x).sum(), (x, *layer.parameters()))
        print(
            f"    {name}: peak over what was there {peak_bytes(lambda m=layer, x=x: m(x).sum().backward()) / 2**20:.1f} MiB"
        )
    plain = UKAN(3, 1).train()
    published = with_published_layers(copy.deepcopy(plain))
    image = torch.randn(2, 3, 256, 256)
    kept = {name: kept_bytes(model, image) for name, model in (("published", published), ("eager", plain))}
    for name, count in kept.items():
        print(f"    U-KAN base, kept for backward, {name}: {count / 2**21:.1f} MiB an image")
    print(f"    that is {kept['eager'] / kept['published']:.2f} of the published")


def error() -> None:
    print("largest error over the largest output, against a scalar Cox-de Boor recursion in float64")
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        for knots in ("even", "arbitrary"):
            worst = 0.0
            for order in (1, 2, 3, 4, 5):
                for grid in (3, 5, 7):
                    torch.manual_seed(order + 10 * grid)
                    layer = KANLinear(16, 16, grid_size=grid, spline_order=order).to(dtype)
                    nn.init.normal_(layer.spline_weight)
                    if knots == "arbitrary":
                        moves = 0.6 / grid * torch.rand(layer.grid.shape[1], generator=generator)
                        layer.set_knots(layer.grid + moves.to(dtype))
                    x = (4.8 * torch.rand(128, 16, generator=generator, dtype=torch.float64) - 2.4).to(dtype)
                    with torch.no_grad():
                        truth = by_hand(layer, x)
                        worst = max(worst, float((layer(x).double() - truth).abs().max() / truth.abs().max()))
            print(f"    {str(dtype).removeprefix('torch.')}, {knots} knots, orders 1 to 5, grids 3, 5, 7: {worst:.1e}")


def compile_time() -> None:
    """What the first step waits for, in fresh processes: with an empty cache of the compiler, and with a full one."""
    if not COMPILES:
        return
    print("seconds of the first compiled U-KAN step")
    code = (
        "import time; began = time.perf_counter(); import torch; print(time.perf_counter() - began)\n"
        "from ukan.models.ukan import UKAN; from ukan.nn.kan import KANLinear, compile_layers, compiler_problem\n"
        "torch.manual_seed(0); model = UKAN(3, 1).train(); x = torch.randn(2, 3, 128, 128)\n"
        "model(x).sum().backward(); began = time.perf_counter()\n"
        "assert not compiler_problem(next(m for m in model.modules() if isinstance(m, KANLinear)))\n"
        "compile_layers(model); model(x).sum().backward()\n"
        "print(time.perf_counter() - began)"
    )
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
        for name in ("empty cache", "full cache"):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
            of_torch, of_compiling = map(float, done.stdout.split()[-2:])
            print(f"    {name}: {of_compiling:.1f} s, where `import torch` takes {of_torch:.1f} s")


def compiled(layer: nn.Module) -> nn.Module:
    twin = copy.deepcopy(layer)
    compile_layers(twin)
    return twin


def kept_bytes(model: nn.Module, image: Tensor) -> int:
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held.append(storage)  # no address is used twice
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(image)
    return sum(kept.values())


def basis(x: float, knots: list[float], m: int, order: int) -> float:
    if order == 0:
        return float(knots[m] <= x < knots[m + 1])
    rising = (x - knots[m]) / (knots[m + order] - knots[m]) * basis(x, knots, m, order - 1)
    falling = (knots[m + order + 1] - x) / (knots[m + order + 1] - knots[m + 1])
    return rising + falling * basis(x, knots, m + 1, order - 1)


def by_hand(layer: KANLinear, x_NI: Tensor) -> Tensor:
    order, count = layer.spline_order, layer.spline_weight.shape[-1]
    bases = torch.tensor(
        [
            [[basis(x, knots, m, order) for m in range(count)] for x, knots in zip(row, layer.grid.tolist(), strict=True)]
            for row in x_NI.tolist()
        ],
        dtype=torch.float64,
    )
    weight = layer.spline_weight.double() * layer.spline_scaler.double().unsqueeze(-1)
    return F.silu(x_NI.double()) @ layer.base_weight.double().T + torch.einsum("nim,oim->no", bases, weight)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=["layers", "network", "memory", "error", "compile"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name, measure in (
        ("error", error),
        ("memory", memory),
        ("layers", lambda: layers(asked.rounds)),
        ("network", lambda: network(asked.rounds)),
        ("compile", compile_time),
    ):
        if asked.only in (None, name):
            measure()
