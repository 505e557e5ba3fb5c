"""The loop's promises on a stand-in network: names of bad cases, micro-batches, averages, rates, saving whole."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ukan.errors import DataError, OutOfMemory, UserError
from ukan.models.ukan import UKAN
from ukan.models.weights import load_weights
from ukan.nn.kan import KANLinear
from ukan.nn.penalty import activation_penalty, coefficient_penalty
from ukan.paths import FoldFolder
from ukan.plan import TrainPlan
from ukan.training import loop
from ukan.training.checkpoint import TrainingState
from ukan.training.ema import EMA
from ukan.training.interrupt import Stop, parse_time
from ukan.training.kan import knots_are_due
from ukan.training.log import read_log
from ukan.training.loop import fit, split_batch, train_step
from ukan.training.optim import learning_rate, make_optimizer


class Pairs(NamedTuple):
    x: Tensor
    y: Tensor
    names: list[str]


@pytest.fixture
def accelerator():
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True)


def line_batch(step: int = 0, count: int = 8) -> Pairs:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(step))
    return Pairs(x, x.sum(1, keepdim=True), [f"case {i}" for i in range(count)])


def fit_line(folder: Path, accelerator, plan: TrainPlan, *, validate=None, stop=None, spoil=lambda x: x, model=None):
    torch.manual_seed(0)
    model = model or nn.Linear(3, 1)
    model, optimizer = accelerator.prepare(model, make_optimizer(model, plan))

    def compute_loss(batch: Pairs) -> Tensor:
        return spoil(((model(batch.x) - batch.y) ** 2).mean())

    outcome = fit(
        model=model,
        optimizer=optimizer,
        make_batches=lambda step: (line_batch(s) for s in range(step, plan.epochs * 5)),
        compute_loss=compute_loss,
        validate=validate or (lambda network, epoch: {"val_dice": 0.5}),
        plan=plan,
        steps_per_epoch=5,
        folder=FoldFolder(folder),
        accelerator=accelerator,
        stop=stop or Stop(),
        title="line",
    )
    return outcome, model


def test_a_finished_training_leaves_weights_a_log_and_a_picture_and_nothing_to_resume(tmp_path, accelerator) -> None:
    outcome, _ = fit_line(tmp_path, accelerator, TrainPlan(epochs=4, lr=1e-2))
    assert outcome.finished and outcome.step == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "model.safetensors", "progress.png"]
    assert [row["step"] for row in read_log(tmp_path / "log.csv")] == ["5", "10", "15", "20"]


def test_a_training_stopped_by_time_goes_on_and_ends_the_same(tmp_path, accelerator) -> None:
    plan = TrainPlan(epochs=4, lr=1e-2, ema_decay=0.9)
    _, steady = fit_line(tmp_path / "steady", accelerator, plan)
    stops = 0
    outcome, model = fit_line(tmp_path / "cut", accelerator, plan, stop=Stop(max_time_s=0))
    while not outcome.finished:
        stops += 1
        outcome, model = fit_line(tmp_path / "cut", accelerator, plan, stop=Stop(max_time_s=0))
    assert stops == 19, "each session makes at least one step"
    assert torch.equal(steady.weight, model.weight)
    saved = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("steady", "cut")]
    assert saved[0] == saved[1]
    assert len(read_log(tmp_path / "cut" / "log.csv")) == 4


def test_a_loss_that_is_not_finite_stops_with_the_names_of_the_batch(tmp_path, accelerator) -> None:
    with pytest.raises(UserError, match=r"nan for the cases case 0, case 1.*case 7"):
        fit_line(tmp_path, accelerator, TrainPlan(epochs=1), spoil=lambda loss: loss * float("nan"))
    assert not (tmp_path / "model.safetensors").exists()


def test_running_out_of_memory_halves_the_micro_batch_and_keeps_the_step(accelerator, capsys) -> None:
    def step(limit: int, count: int = 8) -> tuple[Tensor, int | None]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))

        def compute_loss(batch: Pairs) -> Tensor:
            if len(batch.names) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return ((model(batch.x) - batch.y) ** 2).mean()

        batch = line_batch(count=count)
        _, micro_batch = train_step(model, optimizer, batch, compute_loss, accelerator, None, None)
        return model.weight.detach(), micro_batch

    whole, none = step(limit=8)
    quarters, micro_batch = step(limit=3)
    assert none is None and micro_batch == 2
    assert torch.allclose(whole, quarters, atol=1e-6)
    whole, (uneven, micro_batch) = step(limit=7, count=7)[0], step(limit=3, count=7)
    assert micro_batch == 3 and torch.allclose(whole, uneven, atol=1e-6), "3, 3 and 1 weigh as in a mean over 7"
    assert "micro-batches of 4" in capsys.readouterr().out
    with pytest.raises(OutOfMemory, match="single image"):
        step(limit=0)


def test_another_runtime_error_is_not_taken_for_memory(accelerator) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def broken(batch: Pairs) -> Tensor:
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        train_step(model, optimizer, line_batch(), broken, accelerator, None, None)


def test_split_batch_keeps_every_sample_once_and_in_order() -> None:
    pieces = list(split_batch(line_batch(count=7), 3))
    assert [len(piece.names) for piece in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([piece.x for piece in pieces]), line_batch(count=7).x)
    assert [name for piece in pieces for name in piece.names] == line_batch(count=7).names


def test_the_average_warms_up_and_takes_batchnorm_statistics_along() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    ema = EMA(model, 0.99)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[1].running_mean.fill_(5.0)
        model[1].num_batches_tracked.fill_(3)
    before = ema.network[1].running_mean.clone()
    ema.update(model)  # decay (1 + 0) / (10 + 0)
    assert torch.allclose(ema.network[1].running_mean, 0.1 * before + 0.9 * 5.0)
    assert ema.network[1].num_batches_tracked == 3
    for _ in range(3000):
        ema.update(model)
    assert torch.allclose(ema.network[0].weight, torch.ones(2, 2), atol=1e-4)
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())


def test_kan_layers_and_what_stands_for_them_learn_at_one_rate_and_every_parameter_is_in_one_group() -> None:
    model = UKAN(1, 1, widths=(8, 8, 8), kan_layers=("kan", "mlp"))
    optimizer = make_optimizer(model, TrainPlan())
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert sum(p.numel() for p in groups["kan"]["params"]) == 4 * (10 * 64 + 64 + 8)
    assert sum(p.numel() for group in groups.values() for p in group["params"]) == sum(p.numel() for p in model.parameters())


def test_the_published_schedule_is_torchs_cosine_stepped_by_epoch() -> None:
    plan = TrainPlan(epochs=10, schedule="cosine_by_epoch", lr_end=1e-5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-2)
    truth = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10, eta_min=1e-5)
    for epoch in range(10):
        for step in range(7):
            assert learning_rate(1e-2, epoch * 7 + step, 7, plan) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        truth.step()


def test_the_rate_warms_up_and_never_rises_to_its_end() -> None:
    plan = TrainPlan(epochs=10, warmup_epochs=2, lr_end=1e-5)
    rates = [learning_rate(1e-3, step, 10, plan) for step in range(100)]
    assert rates[0] < rates[10] < rates[19] < 1e-3 and rates[20] == pytest.approx(1e-3)
    assert all(a >= b for a, b in zip(rates[20:], rates[21:], strict=False)) and rates[-1] < 2e-5
    assert learning_rate(1e-7, 50, 10, plan) == pytest.approx(1e-7), "lr_end above the peak does not raise it"


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("8h", 28800), ("1h30m", 5400), ("45s", 45), ("20", 20)])
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 days", "-3m"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected a time"):
        parse_time(text)


def test_a_full_disk_stops_the_training_and_the_last_good_checkpoint_goes_on(tmp_path, accelerator, monkeypatch) -> None:
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "_SAVE_SHARE", float("inf"))
    plan = TrainPlan(epochs=4, lr=1e-2)
    save, saved = loop.save_resume, []

    def full(path: Path, parts: dict, state: TrainingState) -> None:
        if state.step > 7:
            raise DataError(f"{path}: cannot be written: No space left on device (0.0 GiB free there)")
        save(path, parts, state)
        saved.append(state.step)

    monkeypatch.setattr(loop, "save_resume", full)
    with pytest.raises(
        DataError, match=r"line, after step 8: .*resume.pt.*No space left.*\(the checkpoint of step 7 is kept\)"
    ):
        fit_line(tmp_path, accelerator, plan)
    assert saved == [1, 2, 3, 4, 5, 6, 7]
    monkeypatch.setattr(loop, "save_resume", save)
    steady = fit_line(tmp_path / "steady", accelerator, plan)[1]
    outcome, model = fit_line(tmp_path, accelerator, plan)
    assert outcome.finished and torch.equal(model.weight, steady.weight)
    assert not list(tmp_path.glob("resume*"))


def test_weights_that_cannot_be_written_leave_the_fold_unfinished_and_resumable(tmp_path, accelerator, monkeypatch) -> None:
    def full(path: Path, *_: object) -> None:
        raise DataError(f"{path}: cannot be written: No space left on device (0.0 GiB free there)")

    plan = TrainPlan(epochs=4)
    fit_line(tmp_path, accelerator, plan, stop=Stop(max_time_s=0))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_weights", full)
        with pytest.raises(DataError, match=r"after step 20: .*model.safetensors.*\(the checkpoint of step \d+ is kept\)"):
            fit_line(tmp_path, accelerator, plan)
    assert not (tmp_path / "model.safetensors").exists()
    assert fit_line(tmp_path, accelerator, plan)[0].finished


def test_weights_that_are_no_longer_finite_are_never_saved(tmp_path, accelerator, monkeypatch) -> None:
    """The step breaks the weights while its own loss is still finite."""
    monkeypatch.setattr(loop, "_SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "_SAVE_SHARE", float("inf"))

    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    calls = []

    def at(step: int):
        def spoil(loss: Tensor) -> Tensor:
            calls.append(step)
            return Breaks.apply(loss) if len(calls) == step else loss

        calls.clear()
        return spoil

    message = r"line, after step 8: .*no longer finite.*train.lr.*precision=fp32.*\(the checkpoint of step 7 is kept\)"
    with pytest.raises(UserError, match=message):
        fit_line(tmp_path / "middle", accelerator, TrainPlan(epochs=4), spoil=at(8))
    assert fit_line(tmp_path / "middle", accelerator, TrainPlan(epochs=4))[0].finished
    for tensor in load_weights(tmp_path / "middle" / "model.safetensors").values():
        assert tensor.isfinite().all()
    for ema_decay in (None, 0.9):
        folder = tmp_path / f"end-{ema_decay}"
        with pytest.raises(UserError, match="line, after step 20: .*no longer finite"):
            fit_line(folder, accelerator, TrainPlan(epochs=4, ema_decay=ema_decay), spoil=at(20))
        assert not (folder / "model.safetensors").exists()


def test_broken_weights_are_not_blamed_on_the_cases_of_the_next_batch(tmp_path, accelerator) -> None:
    model = nn.Linear(3, 1)
    nn.init.constant_(model.weight, float("inf"))
    with pytest.raises(UserError, match="weight is no longer finite") as caught:
        fit_line(tmp_path, accelerator, TrainPlan(epochs=1), model=model)
    assert "case 0" not in str(caught.value)


def test_an_overflow_in_fp16_skips_steps_but_not_for_ever(tmp_path, accelerator) -> None:
    def scaled() -> None:
        accelerator.free_memory()
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)

    class Overflows(torch.autograd.Function):
        """A gradient that is too large for float16, times the loss's scale."""

        @staticmethod
        def forward(ctx, loss, size):
            ctx.size = size
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return (gradient * ctx.size).half().float(), None

    scaled()
    assert fit_line(tmp_path / "few", accelerator, TrainPlan(epochs=8), spoil=lambda x: Overflows.apply(x, 10.0))[0].finished
    scaled()
    with pytest.raises(UserError, match=r"after step 2\d: .*steps in a row.*train.precision=bf16"):
        fit_line(tmp_path / "all", accelerator, TrainPlan(epochs=8), spoil=lambda x: Overflows.apply(x, float("inf")))
    assert not (tmp_path / "all" / "model.safetensors").exists()


def test_out_of_memory_outside_of_the_gradient_says_what_to_lower(tmp_path, accelerator, monkeypatch) -> None:
    def no_memory(*_: object) -> dict[str, float]:
        torch.empty(2**50, dtype=torch.uint8)  # the CPU's own allocator speaks
        return {}

    with pytest.raises(OutOfMemory, match="line, after step 5: out of memory.*infer.batch_size"):
        fit_line(tmp_path / "look", accelerator, TrainPlan(epochs=4), validate=no_memory)
    monkeypatch.setattr(torch.optim.AdamW, "step", no_memory)
    with pytest.raises(OutOfMemory, match="line, after step 0: out of memory.*model"):
        fit_line(tmp_path / "step", accelerator, TrainPlan(epochs=4, optimizer="adamw"))


# KAN layers: knots that follow the data, regularisation


def small_kan() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(KANLinear(3, 4), nn.BatchNorm1d(4), KANLinear(4, 1))


UPDATES = TrainPlan(epochs=4, lr_kan=1e-2, ema_decay=0.9, kan_update_every=3, kan_update_until=0.5)


def test_knots_follow_the_data_as_often_and_as_long_as_the_plan_says(tmp_path, accelerator, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(loop, "update_knots", lambda network, average, optimizer, inputs, plan, gather: seen.append(inputs))
    fit_line(tmp_path, accelerator, UPDATES, model=small_kan())
    assert len(seen) == 3  # after steps 3, 6 and 9 of 20
    assert {name: [x.shape for x in given] for name, given in seen[0].items()} == {"0": [(8, 3)], "2": [(8, 4)]}


def test_the_average_keeps_the_same_knots_and_stays_near_the_network(tmp_path, accelerator) -> None:
    averages = []

    def validate(network: nn.Module, epoch: int) -> dict[str, float]:
        averages.append(network)
        return {"val_dice": 0.5}

    start = small_kan()
    _, model = fit_line(tmp_path, accelerator, UPDATES, model=start, validate=validate)
    network = accelerator.unwrap_model(model)
    fresh = small_kan()
    for k in (0, 2):
        assert torch.equal(averages[-1][k].grid, network[k].grid)
        assert not torch.equal(network[k].grid, fresh[k].grid)
        x = line_batch(99, 200).x if k == 0 else torch.randn(200, 4)
        spread = network[k](x).std()
        assert (averages[-1][k](x) - network[k](x)).abs().mean() < 0.5 * spread


@pytest.mark.parametrize("penalty", ["coefficients", "activations"])
def test_a_training_with_updates_and_regularisation_goes_on_to_the_bit(tmp_path, accelerator, penalty: str) -> None:
    plan = UPDATES.model_copy(update={"kan_l1": 1e-3, "kan_entropy": 1e-3, "kan_penalty": penalty, "kan_update_until": 1.0})
    _, steady = fit_line(tmp_path / "steady", accelerator, plan, model=small_kan())
    outcome, model = fit_line(tmp_path / "cut", accelerator, plan, model=small_kan(), stop=Stop(max_time_s=0))
    while not outcome.finished:
        outcome, model = fit_line(tmp_path / "cut", accelerator, plan, model=small_kan(), stop=Stop(max_time_s=0))
    ours, theirs = (load_weights(tmp_path / name / "model.safetensors") for name in ("steady", "cut"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_regularisation_makes_functions_smaller(tmp_path, accelerator) -> None:
    for name, size in (
        ("coefficients", lambda layer, x: coefficient_penalty(layer, 1.0, 0.0).item()),
        ("activations", lambda layer, x: activation_penalty(layer, x, 1.0, 0.0).item()),
    ):
        sizes = []
        for weight in (0.0, 1.0):
            plan = TrainPlan(epochs=8, lr_kan=1e-2, kan_l1=weight, kan_penalty=name)
            _, model = fit_line(tmp_path / name / str(weight), accelerator, plan, model=small_kan())
            sizes.append(size(accelerator.unwrap_model(model)[0], line_batch(99, 64).x))
        assert sizes[1] < 0.8 * sizes[0], name


def test_a_layer_under_two_names_is_averaged_once() -> None:
    model = nn.Module()
    model.one = model.other = nn.Linear(2, 2)
    average = EMA(model, 0.9)
    start = model.one.weight.detach().clone()
    with torch.no_grad():
        model.one.weight.add_(1)
    average.update(model)
    torch.testing.assert_close(average.network.one.weight, start + 0.9)  # the decay's warm-up begins at 0.1


def test_knots_stay_after_the_last_step() -> None:
    plan = TrainPlan(kan_update_every=5, kan_update_until=1.0)
    assert [step for step in range(1, 21) if knots_are_due(step, 20, plan)] == [5, 10, 15]
