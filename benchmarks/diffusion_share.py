"""What sampling and training of diffusion cost beside the network alone, as ratios.

    python benchmarks/diffusion_share.py [--channels 64] [--side 64] [--steps 50] [--rounds 5] [--device cuda]

Diffusion U-KAN, made-up ultrasound. Sampling: `draw_images` against as many evaluations of the network on the very inputs it
met there. A training step: the loader's samples, noise, loss, backward pass, clipping, optimiser and moving
average against the network's own forward and backward pass and the optimiser, on the same images and timesteps. Each pair is
timed in turn in one process, on one core (or a GPU); medians over the rounds, and of their ratios. The process itself makes
the samples: with workers they cost the step nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator

from ukan.data.batches import StepSampler, training_batches
from ukan.data.cache import Prepared
from ukan.data.phantoms import make_ultrasound
from ukan.data.preprocess import prepare_stack, to_signed
from ukan.diffuse.train import make_fold
from ukan.plan import AugmentPlan, Case, DataPlan, DiffusePlan, ModelPlan, Plan, TrainPlan
from ukan.sampling import draw_images
from ukan.stage.train import Material
from ukan.training.ema import EMA
from ukan.training.loop import train_step
from ukan.training.optim import make_optimizer


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds: of the processor on a CPU, where others may be busy too, and of the clock on a GPU."""
    if device.type != "cuda":
        began = time.process_time()
        function()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def in_turn(ours: Callable[[], object], bare: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    """Medians of the seconds of both, then median, smallest and largest of their ratios. A first round is not counted."""
    pairs = []
    for number in range(rounds + 1):
        order = (ours, bare) if number % 2 else (bare, ours)
        took = {function: timed(function, device) for function in order}
        pairs.append((took[ours], took[bare]))
    seconds = [statistics.median(column) for column in zip(*pairs[1:], strict=True)]
    ratios = [one / other for one, other in pairs[1:]]
    return [*seconds, statistics.median(ratios), min(ratios), max(ratios)]


def made_up(channels: int, side: int, batch: int, steps: int) -> Material:
    data = DataPlan(dataset="x", layout="x", index_sha256="0", channels=1, input_size=(side, side), crop="square")
    plan = Plan(
        name="x",
        task="diffuse",
        data=data,
        model=ModelPlan(name="diffusion-ukan", channels=channels),
        train=TrainPlan(
            batch_size=batch, optimizer="adamw", clip_norm=1.0, ema_decay=0.999, augment=AugmentPlan(hflip=0.5, vflip=0.5)
        ),
        diffuse=DiffusePlan(steps=steps, snr_gamma=5.0, preview=0),
    )
    names = [f"c{i}" for i in range(2 * batch)]
    drawn = [make_ultrasound(np.random.default_rng([0, i]), 440, 440)[0] for i in range(len(names))]
    images = np.concatenate([prepare_stack(image[None, ..., None], data) for image in drawn])
    prepared = Prepared(names, [1] * len(names), images, np.zeros_like(images))
    cases = {name: Case(name, f"{name}.png", ()) for name in names}
    return Material(plan, cases, [{"train": names, "val": []}], prepared)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sampling-batch", type=int, default=16)
    parser.add_argument("--training-batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="training takes five times as many")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=arguments.device == "cpu")
    device = accelerator.device
    material = made_up(arguments.channels, arguments.side, arguments.training_batch, arguments.steps)
    plan = material.plan
    assert plan.diffuse

    torch.manual_seed(0)
    fold = make_fold(material, 0, accelerator)
    model = fold.model.to(device).to(memory_format=torch.channels_last).eval()
    seeds = range(arguments.sampling_batch)
    inputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = model.register_forward_pre_hook(lambda _, given: inputs.append((given[0].clone(), given[1])))
    draw_images(model, plan, seeds, device)
    hook.remove()

    def evaluations() -> None:
        with torch.inference_mode():
            for x, t in inputs:
                model(x, t)

    sampling = in_turn(lambda: draw_images(model, plan, seeds, device), evaluations, arguments.rounds, device)

    model, optimizer = accelerator.prepare(model.train(), make_optimizer(model, plan.train))
    ema, compute_loss = EMA(accelerator.unwrap_model(model), plan.train.ema_decay or 0.0), fold.losses(model)
    rounds = 5 * arguments.rounds
    sampler = StepSampler(len(fold.samples), arguments.training_batch, 0, 0, rounds + 1)
    batches = training_batches(fold.samples, sampler, 0, device.type == "cuda")
    few = list(material.prepared.images_NHWC[: arguments.training_batch])
    noisy = to_signed(torch.from_numpy(np.stack(few))).to(device).contiguous(memory_format=torch.channels_last)
    wanted, times = torch.randn_like(noisy), torch.randint(1000, (len(few),), device=device)

    def whole_step() -> None:
        train_step(model, optimizer, next(batches), compute_loss, accelerator, plan.train.clip_norm, None)
        ema.update(accelerator.unwrap_model(model))

    def own_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (model(noisy, times).sample - wanted).square().mean().backward()
        optimizer.step()

    training = in_turn(whole_step, own_step, rounds, device)

    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"Diffusion U-KAN, {arguments.channels} channels ({count:,} parameters), {arguments.side}x{arguments.side}, {device}"
    )
    print(f"{'':58}{'ours s':>9}{'bare s':>9}{'ratio':>8}   {'smallest, largest'}")
    for name, (ours, bare, ratio, low, high) in (
        (f"{arguments.steps} steps of DDIM, batch {arguments.sampling_batch}, against bare evaluations", sampling),
        (f"a training step, batch {arguments.training_batch}, against the network's own", training),
    ):
        print(f"{name:58}{ours:9.3f}{bare:9.3f}{ratio:8.3f}   {low:.3f}, {high:.3f}")


if __name__ == "__main__":
    main()
