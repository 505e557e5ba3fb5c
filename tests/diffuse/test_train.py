"""Training a network of diffusion: its errors are the published ones, and a run is the same however it came about."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from ukan.data.batches import NoisyBatch
from ukan.data.cache import Prepared
from ukan.diffuse.train import denoising_error, make_fold, min_snr_weights, noise_scheduler, train
from ukan.errors import UserError
from ukan.plan import Case, DataPlan, DiffusePlan, ModelPlan, Plan, TrainPlan
from ukan.stage.prepare import plan_folder
from ukan.stage.train import Material
from ukan.training.loop import accumulate
from ukan.training.optim import learning_rate

PREDICTIONS = ("epsilon", "sample", "v_prediction")
SETTINGS = (
    *("data.input_size=[32,32]", "split.folds=2", "train.batch_size=2", "train.epochs=3", "train.validate_every=1"),
    *("model.channels=8", "model.multipliers=[1,1]", "model.blocks=1", "diffuse.timesteps=20", "diffuse.steps=2"),
    *("diffuse.preview=3", "diffuse.scheduler=DDPM", "infer.batch_size=2"),
)


def planned(folder: Path, *settings: str, **options: Any) -> Path:
    """The plan of a folder, small."""
    given = {setting.partition("=")[0] for setting in settings}
    kept = [setting for setting in SETTINGS if setting.partition("=")[0] not in given]
    return plan_folder(folder, task="diffuse", settings=[*kept, *settings], **options)[1]


def trained(plan: Path, name: str = "run", **options: Any) -> Path:
    """The folder of fold 0, trained to its end."""
    outcome = train(plan, run=Path(name), device="cpu", **options)
    assert outcome.outcomes.keys() == {0} and outcome.outcomes[0].finished
    return Path(name) / "fold_0"


def weights(fold: Path) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in load_file(fold / "model.safetensors").items()}


def pictures(fold: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((fold / "samples").iterdir())}


def logged(fold: Path) -> list[dict[str, str]]:
    with (fold / "log.csv").open(encoding="utf-8") as opened:
        return [{key: value for key, value in row.items() if key != "elapsed_s"} for row in csv.DictReader(opened)]


# The error


def noise_of(count: int = 3, seed: int = 0, size: tuple[int, ...] = (2, 4, 6)) -> Tensor:
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Knows(nn.Module):
    """Says what is right of images it knows, as if the image it thinks of were off by so much."""

    def __init__(self, images: Tensor, noise: Tensor, kind: str, off: Tensor | float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, 1))
        self.images, self.noise, self.kind, self.off = images, noise, kind, off
        self.abar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
        self.told: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, times: Tensor, **told: Tensor) -> SimpleNamespace:
        self.told.append(told)
        a = self.abar[times].view(-1, 1, 1, 1)
        torch.testing.assert_close(x.double(), a.sqrt() * self.images + (1 - a).sqrt() * self.noise, rtol=1e-4, atol=1e-5)
        image = self.images + self.off
        noise = (a.sqrt() * self.images + (1 - a).sqrt() * self.noise - a.sqrt() * image) / (1 - a).sqrt()
        said = {"epsilon": noise, "sample": image, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * image}[self.kind]
        return SimpleNamespace(sample=said)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_who_predicts_the_truth_has_no_error_and_who_says_nothing_has_all_of_it(kind: str) -> None:
    images, noise, times = noise_of(seed=1).clamp(-1, 1), noise_of(), torch.tensor([0, 500, 999])
    scheduler = noise_scheduler(DiffusePlan(prediction=kind))
    knows = Knows(images, noise, kind)
    errors = denoising_error(knows, scheduler, images, noise, times)
    assert errors.shape == (3,) and errors.max() < 1e-5

    a = knows.abar[times].view(-1, 1, 1, 1)
    wanted = {"epsilon": noise, "sample": images, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * images}[kind]
    knows.forward = lambda x, times: SimpleNamespace(sample=torch.zeros_like(x))  # type: ignore[method-assign]
    nothing = denoising_error(knows, scheduler, images, noise, times)
    torch.testing.assert_close(nothing, wanted.square().mean((1, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("betas", ["linear", "cosine"])
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weights_are_those_of_the_paper_for_each_prediction(betas: str, gamma: float) -> None:
    schedulers = {kind: noise_scheduler(DiffusePlan(prediction=kind, betas=betas)) for kind in PREDICTIONS}
    abar = schedulers["sample"].alphas_cumprod.double()
    snr = abar / (1 - abar)
    wanted = {"sample": snr.clamp(max=gamma), "epsilon": (gamma / snr).clamp(max=1)}
    wanted["v_prediction"] = snr.clamp(max=gamma) / (snr + 1)
    for kind, scheduler in schedulers.items():
        torch.testing.assert_close(min_snr_weights(scheduler, gamma).double(), wanted[kind], rtol=1e-5, atol=1e-12)
        assert torch.equal(min_snr_weights(scheduler, None), torch.ones(1000))


def test_weighted_the_three_predictions_punish_an_image_that_is_off_alike() -> None:
    images, noise, times = noise_of(4, 1).clamp(-1, 1), noise_of(4), torch.tensor([40, 200, 500, 980])
    off = 0.1 * noise_of(4, 2)
    found = []
    for kind in PREDICTIONS:
        scheduler = noise_scheduler(DiffusePlan(prediction=kind))
        errors = denoising_error(Knows(images, noise, kind, off), scheduler, images, noise, times)
        found.append(errors * min_snr_weights(scheduler, 5.0)[times])
    abar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[times]
    wanted = (abar / (1 - abar)).clamp(max=5.0) * off.square().mean((1, 2, 3))
    for errors in found:
        torch.testing.assert_close(errors, wanted, rtol=2e-3, atol=1e-7)


# The loss of a batch


def material(batch_size: int = 4, **diffuse: Any) -> Material:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 32, 32, 1), dtype=np.uint8)
    masks = np.zeros_like(images)
    masks[:, 8:20, 10:] = 1
    names = [f"c{i}" for i in range(6)]
    cases = {name: Case(name, f"{name}.png", (), label="ab"[i % 2]) for i, name in enumerate(names)}
    plan = Plan(
        name="x",
        task="diffuse",
        data=DataPlan(dataset="x", layout="images", index_sha256="0", channels=1, input_size=(32, 32)),
        model=ModelPlan(name="diffusion-ukan", channels=8, multipliers=[1, 1], blocks=1, dropout=0.0),
        train=TrainPlan(batch_size=batch_size, precision="fp32"),
        diffuse=DiffusePlan(preview=0, **diffuse),
    )
    return Material(plan, cases, [{"train": names[:4], "val": names[4:]}], Prepared(names, [1] * 6, images, masks))


def first_batch(fold: Any) -> NoisyBatch:
    images, targets, noise, times, told, names = zip(*(fold.samples[0, position] for position in range(4)), strict=True)
    tensors = (torch.stack(kind) for kind in (images, targets, noise))
    return NoisyBatch(*tensors, torch.tensor(times), torch.tensor(told), list(names))


@pytest.mark.parametrize("micro_batch", [None, 3, 1])
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_the_loss_is_the_published_formula_whatever_the_micro_batch(loss: str, micro_batch: int | None) -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    fold = make_fold(material(loss=loss), 0, accelerator)
    fold.model.tail[2].weight.data.mul_(1e5)  # it starts as nothing
    batch = first_batch(fold)
    a = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[batch.times_B].float().view(-1, 1, 1, 1)
    x = batch.images_BHWC.permute(0, 3, 1, 2) / 255 * 2 - 1
    out = fold.model(a.sqrt() * x + (1 - a).sqrt() * batch.noise_BCHW, batch.times_B).sample
    squares = (out - batch.noise_BCHW) ** 2
    wanted = squares.sum() / 1000 if loss == "sum" else squares.mean()
    gradients = torch.autograd.grad(wanted, list(fold.model.parameters()))

    optimizer = torch.optim.SGD(fold.model.parameters())
    found = accumulate(fold.model, optimizer, batch, fold.losses(fold.model), accelerator, micro_batch)
    assert found == pytest.approx(wanted.item(), rel=1e-4)
    for parameter, gradient in zip(fold.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-7)


@pytest.mark.parametrize("condition", ["class", "mask"])
def test_the_network_is_told_the_class_or_mask_of_its_own_image_unless_it_is_dropped(condition: str) -> None:
    classes = {"classes": ("a", "b")} if condition == "class" else {}
    made = material(condition=condition, drop_condition=0.5, **classes)
    fold = make_fold(made, 0, Accelerator(cpu=True))
    batch = first_batch(fold)._replace(told_B=torch.tensor([True, False, True, True]))
    images = batch.images_BHWC.permute(0, 3, 1, 2) / 127.5 - 1
    knows = Knows(images, batch.noise_BCHW, "epsilon")
    fold.losses(knows)(batch)
    (told,) = knows.told
    if condition == "class":
        assert told.keys() == {"class_labels"} and told["class_labels"].tolist() == [0, 2, 0, 1]
    else:
        assert told.keys() == {"condition"}
        masks = torch.from_numpy(made.prepared.targets_NHWM[:4]).permute(0, 3, 1, 2) * 2.0 - 1
        masks[1] = 0
        assert torch.equal(told["condition"], masks)


def test_the_look_at_held_out_images_is_always_the_same_and_leaves_training_as_it_was() -> None:
    torch.manual_seed(0)
    fold = make_fold(material(), 0, Accelerator(cpu=True))
    fold.model.train()
    before = torch.get_rng_state()
    look, again = fold.validation(["c4", "c5"])(fold.model), fold.validation(["c4", "c5"])(fold.model)
    assert look == again and look["val_loss"] == pytest.approx(1, rel=0.1)  # a fresh network says nothing
    assert fold.model.training and torch.equal(torch.get_rng_state(), before)
    assert fold.validation([])(fold.model) == {}


def test_gradual_warmup_is_the_published_codes_trace() -> None:
    path = Path(__file__).resolve().parents[3] / "shared" / "golden.json"
    if not path.is_file():
        pytest.skip(f"published answers not beside the checkout ({path})")
    trace = json.loads(path.read_text(encoding="utf-8"))["diffusion_lr_trace_x1e-4"]
    plan = TrainPlan(schedule="gradual_warmup", epochs=1000, warmup_epochs=100, lr=4e-4)
    assert len(trace) > 5
    for epoch, rate in trace.items():
        for step in (0, 6):
            assert learning_rate(4e-4, int(epoch) * 7 + step, 7, plan) == pytest.approx(rate * 1e-4, rel=1e-3)


# Runs


@pytest.fixture
def folder(write_dataset: Callable[..., Path]) -> Path:
    return write_dataset(Path("data"), count=10, size=(40, 48))


@pytest.mark.parametrize(
    ("epochs", "settings"), [(2, ()), (1, ("train.ema_decay=null", "train.kan_update_every=1", "train.kan_update_until=1"))]
)
def test_a_run_stopped_after_every_step_ends_with_the_same_weights_and_pictures_to_the_bit(
    folder: Path, epochs: int, settings: tuple[str, ...]
) -> None:
    plan = planned(folder, f"train.epochs={epochs}", *settings)
    whole, broken = trained(plan, "whole"), Path("broken") / "fold_0"
    sessions = 0
    while not (broken / "model.safetensors").exists():
        train(plan, run=Path("broken"), device="cpu", max_time_s=1e-6)
        sessions += 1
        assert sessions <= 2 * epochs
    assert sessions == 2 * epochs, "two steps an epoch, a session each"
    assert weights(whole) == weights(broken)
    assert logged(whole) == logged(broken) and [row["epoch"] for row in logged(whole)] == ["1", "2"][:epochs]
    assert pictures(whole) == pictures(broken)
    assert list(pictures(whole)) == ["epoch_00001.png", "epoch_00002.png"][:epochs]
    assert len(set(pictures(whole).values())) == epochs, "the same seeds, another network"


def test_neither_workers_nor_pictures_nor_looks_change_what_is_learned(folder: Path) -> None:
    plain = trained(planned(folder, "train.epochs=2"), "plain")
    workers = trained(planned(folder, "train.epochs=2"), "workers", workers=2)
    assert weights(workers) == weights(plain) and pictures(workers) == pictures(plain)
    unseen = trained(planned(folder, "train.epochs=2", "diffuse.preview=0", "train.validate_every=2"), "unseen")
    assert weights(unseen) == weights(plain) and not (unseen / "samples").exists()
    other = trained(planned(folder, "train.epochs=2", "train.seed=1"), "other")
    assert weights(other) != weights(plain)


def test_the_run_says_what_it_did(folder: Path) -> None:
    fold = trained(planned(folder))
    rows = logged(fold)
    assert {"epoch", "step", "loss", "lr", "lr_kan", "val_loss"} <= rows[0].keys()
    assert all(0 < float(row["loss"]) < 10 and 0 < float(row["val_loss"]) < 10 for row in rows)
    with Image.open(fold / "samples" / "epoch_00003.png") as grid:
        assert grid.size == (2 * 34 + 2, 2 * 34 + 2)  # three images of 32x32 in two rows


def test_class_conditioned_training_without_masks(folder: Path) -> None:
    images = sorted((folder / "images").iterdir())
    for number, path in enumerate(images):
        place = Path("classes") / ("round", "square")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / path.name)
    plan = planned(Path("classes"), "diffuse.condition=class", "diffuse.guidance=2")
    assert Plan.load(plan).diffuse.classes == ("round", "square")
    fold = trained(plan)
    assert load_file(fold / "model.safetensors")["classes.weight"].shape[0] == 3
    assert pictures(fold)


def test_mask_conditioned_training_shows_masks_beside_images(folder: Path) -> None:
    fold = trained(planned(folder, "diffuse.condition=mask", "diffuse.prediction=v_prediction", "diffuse.scheduler=UniPC"))
    assert load_file(fold / "model.safetensors")["head.weight"].shape[1] == 2
    with Image.open(fold / "samples" / "epoch_00003.png") as grid:
        pixels = np.asarray(grid.convert("L"))
    mask = pixels[2:34, 2:34]
    assert set(np.unique(mask)) == {0, 255}, "first the mask, then the image drawn for it"


@pytest.mark.parametrize(("options", "settings"), [({}, ()), ({"layout": "images"}, ("split.kind=all",))])
def test_images_without_masks_are_trained_on_and_all_of_them_if_so_asked(
    folder: Path, options: dict[str, Any], settings: tuple[str, ...]
) -> None:
    (folder / "images").rename("alone")
    plan = planned(Path("alone"), *settings, **options)
    fold = trained(plan)
    rows = logged(fold)
    if settings:
        assert rows[-1]["step"] == "15" and not rows[-1].get("val_loss"), "ten images, five steps an epoch, none held out"
    else:
        assert rows[-1]["step"] == "6" and float(rows[-1]["val_loss"]) > 0
    assert len(pictures(fold)) == 3


def test_as_written_trains_too(folder: Path) -> None:
    kept = [s for s in SETTINGS if not s.startswith("model.")]
    settings = [*kept, "model.widths=[8,8,8]", "diffuse.prediction=sample"]
    _, plan, _ = plan_folder(folder, task="diffuse", model="diffusion-ukan-as-written", settings=settings)
    assert pictures(trained(plan))


def test_a_scheduler_that_cannot_draw_is_refused_before_any_step() -> None:
    made = material(scheduler="EulerAncestralDiscrete", prediction="sample")
    with pytest.raises(UserError, match="scheduler EulerAncestralDiscrete.*sample"):
        make_fold(made, 0, Accelerator(cpu=True))


# Plans of another task


@pytest.mark.parametrize(
    ("task", "setting"),
    [
        ("segment", "diffuse.steps=3"),
        ("segment", "data.random_windows=3"),
        ("segment", "split.kind=all"),
        ("diffuse", "train.dice_weight=1"),
        ("diffuse", "infer.threshold=0.4"),
        ("diffuse", "data.normalization=image"),
        ("diffuse", "diffuse.classes=[a,b]"),
    ],
)
def test_what_another_task_reads_is_refused_in_one_line_that_says_so(folder: Path, task: Any, setting: str) -> None:
    with pytest.raises(UserError) as error:
        plan_folder(folder, task=task, settings=[setting])
    said = str(error.value)
    assert "\n" not in said and setting.partition("=")[0] in said
    if "classes" not in setting:
        other = {"segment": "diffuse", "diffuse": "segment"}[task]
        assert f"task {other}" in said or f"task is {other}" in said
