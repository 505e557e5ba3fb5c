"""Images are drawn as their scheduler says, and image i is the same however it is drawn.

The truth is a network that cannot be better: of values that are normally distributed, the noise in a noisy one is known.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ukan.errors import UserError
from ukan.models.diffusion import DiffusionUKAN
from ukan.plan import DataPlan, DiffusePlan, Plan, TrainPlan
from ukan.sampling import draw_images, make_scheduler, scheduler_names

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' ways with numpy, at every step

CPU = torch.device("cpu")
MEAN, STD = -0.2, 0.2
PREDICTIONS = ("epsilon", "sample", "v_prediction")
NO_SAMPLE = ("PNDM", "EulerAncestralDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete")  # diffusers has no x0 for them
TWICE = ("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete")  # evaluations a step, but the last
STOCHASTIC: list[tuple[str, dict[str, Any]]] = [
    ("DDPM", {"variance_type": "fixed_large"}),
    ("EulerAncestralDiscrete", {}),
    ("KDPM2AncestralDiscrete", {}),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++"}),
    ("DPMSolverSinglestep", {"algorithm_type": "sde-dpmsolver++"}),
]


def plan(channels: int = 1, size: tuple[int, int] = (8, 8), **diffuse: Any) -> Plan:
    data = DataPlan(dataset="x", layout="images", index_sha256="0", channels=channels, input_size=size)
    return Plan(name="x", task="diffuse", data=data, diffuse=DiffusePlan(**diffuse))


def abar_of(betas: str, timesteps: int = 1000) -> NDArray[np.float64]:
    """The share of the image's variance that is left at each timestep (Ho et al. 2020; Nichol & Dhariwal 2021)."""
    if betas == "linear":
        return np.cumprod(1 - np.linspace(1e-4, 0.02, timesteps))
    left = np.cos((np.arange(timesteps + 1) / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - left[1:] / left[:-1], 0.999))


class Ideal(nn.Module):
    """What is to be predicted of a noisy x_t, in the mean, where every value of x_0 is N(MEAN, STD^2)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        assert plan.diffuse
        self.kind = plan.diffuse.prediction
        abar = abar_of(plan.diffuse.betas, plan.diffuse.timesteps)
        self.log_sigma = np.log((1 - abar) / abar) / 2
        self.seen: list[Tensor] = []
        self.times: list[float] = []

    def forward(self, x: Tensor, time: Tensor) -> SimpleNamespace:
        self.seen.append(x.clone())
        self.times.append(float(time))
        log_sigma = float(np.interp(float(time), np.arange(len(self.log_sigma)), self.log_sigma))
        a = 1 / (1 + math.exp(2 * log_sigma))
        x, signal, noise = x.double(), math.sqrt(a), math.sqrt(1 - a)
        x_0 = MEAN + signal * STD**2 / (a * STD**2 + 1 - a) * (x - signal * MEAN)
        epsilon = (x - signal * x_0) / noise
        answer = {"epsilon": epsilon, "sample": x_0, "v_prediction": signal * epsilon - noise * x_0}[self.kind]
        return SimpleNamespace(sample=answer.float())


class Says(nn.Module):
    """An image of one value; what it is told decides which."""

    config = {"num_classes": 2}

    def __init__(self, values: tuple[float, ...] = (0.1, 0.3, 0.05), channels: int = 1) -> None:
        super().__init__()
        self.values, self.channels, self.calls = torch.tensor(values), channels, list[int]()

    def forward(self, x: Tensor, time: Tensor, **told: Tensor) -> SimpleNamespace:
        self.calls.append(len(x))
        if "condition" in told:  # the mean of a mask of -1 and 1, 0 where none is given
            value = 0.2 * told["condition"].mean((1, 2, 3))
        else:
            value = self.values[told.get("class_labels", torch.full((len(x),), 2))]
        return SimpleNamespace(sample=torch.ones_like(x) * value.view(-1, 1, 1, 1))


def values(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    return images / 127.5 - 1


# Schedulers


def test_the_schedulers_that_people_ask_for_are_there() -> None:
    assert {"DDPM", "DDIM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete"} <= set(scheduler_names())


@pytest.mark.parametrize("betas", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("scheduler", scheduler_names())
def test_every_scheduler_draws_by_every_prediction_or_says_that_it_cannot(
    scheduler: str, prediction: str, betas: str
) -> None:
    asked = plan(scheduler=scheduler, prediction=prediction, betas=betas, steps=10)
    if prediction == "sample" and scheduler in NO_SAMPLE:
        with pytest.raises(UserError, match=f"^scheduler {scheduler}, 10 steps of sample: .*sample") as error:
            draw_images(Ideal(asked), asked, [0], CPU)
        assert "\n" not in str(error.value)
        return
    network = Ideal(asked)
    drawn = values(draw_images(network, asked, range(4), CPU))
    assert drawn.shape == (4, 8, 8, 1) and drawn.std() > 0.03
    assert drawn.mean() == pytest.approx(MEAN, abs=0.05)
    further = {"PNDM": 1} | dict.fromkeys(TWICE, 9)
    assert len(network.times) == 10 + further.get(scheduler, 0)
    assert network.times[0] == 999, "the first step is the noisiest"


@pytest.mark.parametrize("betas", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("scheduler", "steps"), [("DDIM", 250), ("DDPM", 400), ("dpm-solver++", 50), ("UniPCMultistep", 50), ("euler", 250)]
)
def test_what_an_ideal_network_draws_is_distributed_as_what_it_learned(
    scheduler: str, steps: int, prediction: str, betas: str
) -> None:
    asked = plan(scheduler=scheduler, prediction=prediction, betas=betas, steps=steps, guidance=3)
    drawn = values(draw_images(Ideal(asked), asked, range(100), CPU))
    assert drawn.mean() == pytest.approx(MEAN, abs=0.012)  # 4 deviations of the mean of 6,400 values
    assert drawn.std() == pytest.approx(STD, rel=0.06)
    between = drawn.mean((1, 2, 3)).std()
    assert between == pytest.approx(STD / 8, rel=0.3), "values of an image are independent"


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_takes_the_noise_of_a_seed_along_the_line_of_its_formula(prediction: str) -> None:
    """Of an ideal network every step is affine (Song et al. 2021, Eq. 12, without noise), so the image is known."""
    asked = plan(size=(16, 8), channels=3, scheduler="DDIM", prediction=prediction, steps=8)
    abar = abar_of("linear")
    noise = torch.stack([torch.randn(3, 16, 8, generator=torch.Generator().manual_seed(seed)) for seed in (7, 0)])
    x = noise.double().numpy()
    times = [1000 - 125 * i - 1 for i in range(8)]
    for time, after in zip(times, [*(abar[t] for t in times[1:]), 1.0], strict=True):
        a = abar[time]
        x_0 = MEAN + math.sqrt(a) * STD**2 / (a * STD**2 + 1 - a) * (x - math.sqrt(a) * MEAN)
        x = math.sqrt(after) * x_0 + math.sqrt(1 - after) * (x - math.sqrt(a) * x_0) / math.sqrt(1 - a)
    wanted = (np.clip(x, -1, 1) + 1) * 127.5
    drawn = draw_images(Ideal(asked), asked, [7, 0], CPU)
    assert drawn.dtype == np.uint8 and np.abs(drawn - np.moveaxis(wanted, 1, 3)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ddim", "DDIMScheduler"),
        ("DDIMScheduler", "DDIMScheduler"),
        ("ddpm", "DDPMScheduler"),
        ("dpm-solver++", "DPMSolverMultistepScheduler"),
        ("DPM++", "DPMSolverMultistepScheduler"),
        ("DPMSolverMultistep", "DPMSolverMultistepScheduler"),
        ("unipc", "UniPCMultistepScheduler"),
        ("UniPCMultistepScheduler", "UniPCMultistepScheduler"),
        ("Euler", "EulerDiscreteScheduler"),
        ("euler-a", "EulerAncestralDiscreteScheduler"),
        ("heun", "HeunDiscreteScheduler"),
    ],
)
def test_a_scheduler_is_found_by_the_names_it_has(name: str, found: str) -> None:
    made = make_scheduler(DiffusePlan(scheduler=name, prediction="v_prediction", betas="cosine", timesteps=200))
    assert type(made).__name__ == found
    assert (made.config.prediction_type, len(made.alphas_cumprod)) == ("v_prediction", 200)
    assert made.alphas_cumprod.numpy() == pytest.approx(abar_of("cosine", 200), rel=1e-4)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"scheduler": "DIMM"}, "scheduler 'DIMM': there is none of this name. Did you mean '(?i:ddim)'"),
        ({"scheduler": "UniPCMultistp"}, "Did you mean '(?i:UniPCMultistep)'"),
        ({"scheduler": "DPMSolverSDE"}, "there is none of this name"),
        ({"scheduler_options": {"eta": 1.0}}, "DDIM takes no 'eta'"),
        ({"scheduler_options": {"clip_sampl": False}}, "Did you mean 'clip_sample'"),
        ({"scheduler_options": {"timestep_spacing": "linspac"}}, "linspac"),
        ({"scheduler_options": {"clip_sample_range": "wide"}}, "scheduler DDIM"),
        ({"scheduler_options": {"beta_start": 0.001}}, "beta_start would be another noise than the network learned"),
        ({"scheduler_options": {"num_train_timesteps": 10}}, "num_train_timesteps would be another noise"),
        ({"scheduler_options": {"rescale_betas_zero_snr": True}}, "rescale_betas_zero_snr would be another noise"),
        *(({"scheduler": name, "steps": 1001}, "diffuse.steps=1001.*diffuse.timesteps=1000") for name in scheduler_names()),
        ({"scheduler": "ddpm", "steps": 8, "timesteps": 4}, "diffuse.steps=8.*diffuse.timesteps=4"),
    ],
)
def test_what_cannot_be_drawn_is_answered_in_one_line(asked: dict[str, Any], answer: str) -> None:
    with pytest.raises(UserError, match=answer) as error:
        draw_images(Says(), plan(**asked), [0], CPU)
    assert "\n" not in str(error.value)


def test_images_that_are_no_numbers_are_refused_not_drawn_black() -> None:
    asked = plan(scheduler="KDPM2AncestralDiscrete", betas="cosine", scheduler_options={"use_karras_sigmas": True})
    with pytest.raises(UserError, match="KDPM2AncestralDiscrete: .* 50 steps is not finite"):
        draw_images(Ideal(asked), asked, [0], CPU)


def test_options_of_a_scheduler_are_taken() -> None:
    leading = plan(scheduler_options={"timestep_spacing": "leading"}, steps=10)
    network = Ideal(leading)
    draw_images(network, leading, [0], CPU)
    assert network.times == [900 - 100 * i for i in range(10)]


@pytest.mark.parametrize("scheduler", scheduler_names())
def test_as_many_steps_as_there_are_timesteps_can_be_taken(scheduler: str) -> None:
    asked = plan(scheduler=scheduler, steps=12, timesteps=12)
    assert values(draw_images(Ideal(asked), asked, range(3), CPU)).mean() == pytest.approx(-0.12, abs=0.12)


# Image i


@pytest.mark.parametrize(("scheduler", "options"), [*STOCHASTIC, ("DDIM", {}), ("dpm-solver++", {}), ("UniPC", {})])
def test_all_chance_in_an_image_comes_from_its_seed(scheduler: str, options: dict[str, Any]) -> None:
    """To the bit, where the network is: its batch, order and torch's own generator have no part in it."""
    asked = plan(scheduler=scheduler, scheduler_options=options, steps=6)
    together = Ideal(asked)
    images = draw_images(together, asked, range(5), CPU)
    for seeds in ([3], [4, 0, 3], [3, 3]):
        torch.manual_seed(sum(seeds))
        before, apart = torch.get_rng_state(), Ideal(asked)
        assert np.array_equal(draw_images(apart, asked, seeds, CPU), images[seeds])
        assert all(torch.equal(x[seeds], y) for x, y in zip(together.seen, apart.seen, strict=True))
        assert torch.equal(torch.get_rng_state(), before)
    assert len({image.tobytes() for image in images}) == 5


@pytest.mark.parametrize(("scheduler", "options"), STOCHASTIC)
def test_schedulers_with_chance_use_it_at_later_steps_too(scheduler: str, options: dict[str, Any]) -> None:
    """Otherwise the test above would hold nothing: two images of one first noise must come apart."""
    asked = plan(scheduler=scheduler, scheduler_options=options, steps=6)
    ideal, other = Ideal(asked), Ideal(asked)
    draw_images(ideal, asked, [0], CPU)
    draw_images(other, asked, [0], CPU)
    assert torch.equal(ideal.seen[-1], other.seen[-1])
    plain = plan(scheduler="DDIM", steps=6)
    mean_path = Ideal(plain)
    draw_images(mean_path, plain, [0], CPU)
    first = ideal.seen[0] / ideal.seen[0].std() - mean_path.seen[0] / mean_path.seen[0].std()
    assert first.abs().max() < 1e-4
    noise, path = (seen[-1].double().flatten() for seen in (ideal.seen, mean_path.seen))
    assert np.corrcoef(noise, path)[0, 1] < 0.9


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = DiffusionUKAN(1, 2, 1, channels=8, multipliers=(1, 2), blocks=1).eval()
    made.tail[2].weight.data.mul_(1e5)  # it starts as nothing
    return made


@pytest.mark.parametrize("scheduler", ["DDIM", "DDPM", "EulerAncestralDiscrete", "dpm-solver++", "UniPC", "euler"])
def test_an_image_is_the_same_alone_in_a_batch_and_in_another_order(network: nn.Module, scheduler: str) -> None:
    asked = plan(size=(16, 24), scheduler=scheduler, steps=4, condition="class", classes=("a", "b"), guidance=2)
    labels = [0, 1, 0, 1, 1]
    images = draw_images(network, asked, range(5), CPU, labels=labels).astype(int)
    for seeds in ([2], [4, 2, 0]):
        apart = draw_images(network, asked, seeds, CPU, labels=[labels[seed] for seed in seeds])
        assert np.abs(apart - images[seeds]).max() <= 1  # convolutions of other batches differ in the last bits
    assert np.abs(images[0] - images[2]).max() > 10


# Conditions


@pytest.mark.parametrize(
    ("guidance", "wanted", "calls"), [(1.0, (0.1, 0.3), [2]), (0.0, (0.05, 0.05), [2]), (3.0, (0.2, 0.8), [4])]
)
def test_guidance_goes_so_far_from_the_free_prediction_to_the_conditioned_one(
    guidance: float, wanted: tuple[float, float], calls: list[int]
) -> None:
    says = Says()  # 0.05 of none, 0.1 and 0.3 of the classes
    asked = plan(prediction="sample", steps=1, condition="class", classes=("a", "b"), guidance=guidance)
    drawn = draw_images(says, asked, [0, 1], CPU, labels=[0, 1])
    assert says.calls == calls
    assert [set(image.ravel().tolist()) for image in drawn] == [{round((value + 1) * 127.5)} for value in wanted]


@pytest.mark.parametrize(("guidance", "wanted"), [(1.0, (0.2, -0.2)), (3.0, (0.6, -0.6))])
def test_masks_are_told_as_1_inside_and_minus_1_elsewhere_and_0_is_none(
    guidance: float, wanted: tuple[float, float]
) -> None:
    asked = plan(prediction="sample", steps=1, condition="mask", guidance=guidance)
    targets = np.stack([np.ones((8, 8, 1), np.uint8), np.zeros((8, 8, 1), np.uint8)])
    drawn = draw_images(Says(), asked, [0, 1], CPU, targets_BHWM=targets)
    assert [set(image.ravel().tolist()) for image in drawn] == [{round((value + 1) * 127.5)} for value in wanted]


def test_a_network_told_nothing_is_told_nothing_whatever_the_guidance(network: nn.Module) -> None:
    one, other = (draw_images(network, plan(size=(16, 16), steps=2, guidance=guidance), [0], CPU) for guidance in (1.0, 3.0))
    assert np.array_equal(one, other)


# Values


def test_minus_1_is_black_1_is_white_and_beyond_is_cut() -> None:
    for value, grey in ((-1.7, 0), (-1.0, 0), (0.0, 128), (0.5, 191), (1.0, 255), (2.5, 255)):
        asked = plan(prediction="sample", steps=1, scheduler_options={"clip_sample": False})
        assert set(draw_images(Says((value,) * 3), asked, [0], CPU).ravel().tolist()) == {grey}


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_network_gets_its_memory_format_and_precision_and_the_rest_stays_exact(channels_last: bool) -> None:
    asked = plan(channels=3, size=(16, 24), steps=2)
    asked = asked.model_copy(update={"train": TrainPlan(channels_last=channels_last)})
    torch.manual_seed(0)
    made, found = DiffusionUKAN(3, channels=8, multipliers=(1, 2), blocks=1).eval(), []
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    made.register_forward_pre_hook(
        lambda _, given: found.append((given[0].is_contiguous(memory_format=wanted), given[0].dtype))
    )
    made.head.register_forward_hook(lambda _, given, out: found.append(out.dtype))
    images = draw_images(made, asked, [0, 1], CPU, "bf16")
    assert images.shape == (2, 16, 24, 3)
    assert found == [(True, torch.float32), torch.bfloat16] * 2
    assert not made.training and all(p.grad is None for p in made.parameters())
