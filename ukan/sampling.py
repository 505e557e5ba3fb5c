"""Noise + network + one of diffusers' schedulers -> images."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ukan.data.preprocess import to_condition
from ukan.errors import UserError, nearest
from ukan.plan import DiffusePlan, Plan
from ukan.runtime import Precision

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_SHORT = {
    "dpm-solver++": "DPMSolverMultistep",
    "dpm++": "DPMSolverMultistep",
    "unipc": "UniPCMultistep",
    "euler": "EulerDiscrete",
    "euler-a": "EulerAncestralDiscrete",
    "heun": "HeunDiscrete",
}
_NOT_OURS = ("DPMSolverSDEScheduler", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
"""Noise of their own that no seed of a sample decides, or a parametrisation of their own."""
_OURS: dict[str, Any] = {"timestep_spacing": "trailing", "skip_prk_steps": True, "lower_order_final": True}
_OTHER_NOISE = ("trained_betas", "rescale_betas_zero_snr")


def scheduler_names() -> list[str]:
    """Names of diffusers' schedulers that exchange one for another, without the word Scheduler."""
    from diffusers.schedulers import KarrasDiffusionSchedulers

    return [kind.name.removesuffix("Scheduler") for kind in KarrasDiffusionSchedulers if kind.name not in _NOT_OURS]


def make_scheduler(diffuse: DiffusePlan) -> Any:
    """The scheduler a plan draws images by, set to its betas and prediction.

    Where a scheduler has to choose its timesteps they trail, so that the first is the noisiest (Lin et al. 2023); PNDM takes
    no Runge-Kutta steps first, which are more evaluations than asked for and diverge from a start of almost pure noise.
    Raises UserError for a name or an option there is none of, for an option that would be another noise than the network
    learned, and for steps it cannot take: the first one is tried.
    """
    import diffusers.schedulers as schedulers
    import torch

    known = scheduler_names()
    asked = diffuse.scheduler.removesuffix("Scheduler")
    by_name = {name.lower(): name for name in known} | _SHORT
    name = by_name.get(asked.lower())
    if name is None:
        lower = nearest(asked.lower(), list(by_name))
        raise UserError(f"scheduler {diffuse.scheduler!r}: there is none of this name. {lower}")
    kind = getattr(schedulers, f"{name}Scheduler")
    takes = inspect.signature(kind).parameters
    for option in diffuse.scheduler_options:
        if option not in takes:
            raise UserError(f"scheduler_options: {name} takes no {option!r}. {nearest(option, list(takes))}")
        if option in (*schedule(diffuse), *_OTHER_NOISE):
            raise UserError(f"scheduler_options: {option} would be another noise than the network learned; leave it out")
    if diffuse.steps > diffuse.timesteps:
        raise UserError(
            f"diffuse.steps={diffuse.steps}: no more steps can be taken than diffuse.timesteps={diffuse.timesteps}"
        )
    options = {key: value for key, value in _OURS.items() if key in takes} | schedule(diffuse) | diffuse.scheduler_options
    try:
        tried, nothing = kind(**options), torch.zeros(1, 1, 1, 1)
        tried.set_timesteps(diffuse.steps)
        first = tried.timesteps[0]
        with torch.random.fork_rng([]):  # a training's own generator must not move
            tried.step(tried.scale_model_input(nothing, first), first, nothing)
        return kind(**options)
    except (ValueError, TypeError, LookupError, RuntimeError, AssertionError) as error:  # NotImplementedError among them
        raise UserError(f"scheduler {name}, {diffuse.steps} steps of {diffuse.prediction}: {_first_line(error)}") from error


def schedule(diffuse: DiffusePlan) -> dict[str, Any]:
    """How images turn into noise, in the words of diffusers' schedulers."""
    betas = {"linear": "linear", "cosine": "squaredcos_cap_v2"}[diffuse.betas]
    return {
        "num_train_timesteps": diffuse.timesteps,
        "beta_schedule": betas,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "prediction_type": diffuse.prediction,
    }


def draw_images(
    network: "nn.Module",
    plan: Plan,
    seeds: Sequence[int],
    device: "torch.device",
    precision: Precision = "fp32",
    *,
    labels: Sequence[int] | None = None,
    targets_BHWM: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Images (B, H, W, C), one for each seed; `plan.diffuse` says by which scheduler, in how many steps, how guided.

    All that is random in an image comes from a generator of its own on the CPU, so that it is the same whatever the batch
    and the device; networks differ in the last bits between batch sizes and devices, and a grey value may then by one.
    labels: numbers of plan.diffuse.classes; targets_BHWM: masks, as `prepare_truth` makes them. Raises UserError where the
    scheduler cannot do as asked, or what it draws is not finite.
    """
    import torch

    assert plan.diffuse, "a plan of diffusion"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    memory_format = torch.channels_last if plan.train.channels_last else torch.contiguous_format
    scheduler = make_scheduler(plan.diffuse)
    scheduler.set_timesteps(plan.diffuse.steps, device=device)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    beside = {"generator": generators} if takes_generator else {}
    known: dict[str, Tensor] = {}
    if labels is not None:
        known["class_labels"] = torch.tensor(labels, device=device)
    if targets_BHWM is not None:
        targets = torch.from_numpy(targets_BHWM).permute(0, 3, 1, 2)
        known["condition"] = to_condition(targets.to(device), plan.data)
    shape = (plan.data.channels, *plan.data.input_size)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=precision != "fp32"):
        x = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t).contiguous(memory_format=memory_format)
            predicted = _predict(network, scaled, t, known, plan.diffuse.guidance).float()
            x = scheduler.step(predicted, t, x, return_dict=False, **beside)[0]
        if not x.isfinite().all():
            raise UserError(
                f"scheduler {plan.diffuse.scheduler}: what it draws in {plan.diffuse.steps} steps is not finite; take other "
                "steps, another scheduler, or fewer options of it"
            )
        grey = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return grey.permute(0, 2, 3, 1).cpu().numpy()


def drawn_by(seed: int, count: int) -> int:
    """Which of `count` things an image is drawn for (a class, a mask), by its seed alone."""
    return int(np.random.default_rng([seed, 1]).integers(count))


def _predict(network: "nn.Module", x: "Tensor", t: "Tensor", known: "dict[str, Tensor]", guidance: float) -> "Tensor":
    """The prediction; with guidance, the unconditioned one plus so much of its difference from the conditioned one."""
    import torch

    if not known or guidance == 1:
        return network(x, t, **known).sample
    if guidance == 0:
        return network(x, t).sample
    none: int = network.config["num_classes"]  # type: ignore[index, assignment]
    told = {
        "class_labels": lambda v: torch.cat((v, torch.full_like(v, none))),
        "condition": lambda v: torch.cat((v, torch.zeros_like(v))),
    }
    both = network(torch.cat((x, x)), t, **{name: told[name](value) for name, value in known.items()}).sample
    conditioned, free = both.chunk(2)
    return free + guidance * (conditioned - free)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
