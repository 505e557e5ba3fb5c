"""Inference: pictures and volumes share batches and nothing else; classes are decided as the plan says."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ukan.inference import decide, full_size, predict_stacks, training_flips
from ukan.plan import AugmentPlan, DataPlan, InferPlan, ModelPlan, Plan, TrainPlan

CPU = torch.device("cpu")


def make_plan(batch_size: int = 4, augment: AugmentPlan | None = None, **data: Any) -> Plan:
    about = {"dataset": "x", "layout": "folders", "index_sha256": "0", "channels": 1, "input_size": (8, 8), **data}
    return Plan(
        name="stand-in",
        data=DataPlan(**about),
        model=ModelPlan(name="ukan"),
        train=TrainPlan(augment=augment or AugmentPlan()),
        infer=InferPlan(batch_size=batch_size),
    )


class Counting(nn.Module):
    """Logits are the input times ten; remembers how many images each call got."""

    deepest = "pool"

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.batches: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        self.pool(x)
        return x * 10


def stacks(depths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (depth, 8, 8, 1), dtype=np.uint8) for depth in depths]


@pytest.mark.parametrize("depths", [[1] * 9, [5], [1, 7, 1, 2], [4, 4], [3, 1, 1]])
def test_slices_share_batches_and_every_stack_gets_its_own_answer(depths: list[int]) -> None:
    network, given = Counting(), stacks(depths)
    plan = make_plan()
    found = list(predict_stacks([network], given, plan, CPU))
    assert network.batches == [4] * (sum(depths) // 4) + ([sum(depths) % 4] if sum(depths) % 4 else [])
    for stack, said in zip(given, found, strict=True):
        (alone,) = predict_stacks([Counting()], [stack], plan, CPU)
        assert said.probabilities_DKhw.shape == (len(stack), 1, 8, 8)
        assert np.allclose(said.probabilities_DKhw, alone.probabilities_DKhw)
        assert np.allclose(said.features_F[0], alone.features_F[0], atol=1e-6)
        assert np.array_equal(said.members_MDKhw[0], said.probabilities_DKhw > 0.5)


def test_stacks_are_asked_for_as_they_are_needed() -> None:
    asked = []

    def one_by_one():
        for number in itertools.count():
            asked.append(number)
            yield stacks([1])[0]

    found = predict_stacks([Counting()], one_by_one(), make_plan(), CPU)
    for _ in range(5):
        next(found)
    assert len(asked) <= 8, "a batch ahead at most"


def test_networks_are_averaged_and_each_keeps_its_own_mask() -> None:
    class Says(nn.Module):
        def __init__(self, logit: float) -> None:
            super().__init__()
            self.logit = logit

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, self.logit)

    (said,) = predict_stacks([Says(4.0), Says(-1.0)], stacks([2]), make_plan(), CPU)
    expected = (1 / (1 + np.exp(-4)) + 1 / (1 + np.exp(1))) / 2
    assert np.allclose(said.probabilities_DKhw, expected)
    assert said.members_MDKhw[0].all() and not said.members_MDKhw[1].any()
    assert said.features_F == [], "a network that names no deepest map has no features"


def test_flips_are_undone_before_they_are_averaged() -> None:
    given = stacks([1])
    flips = training_flips(make_plan(augment=AugmentPlan(any_flip=0.5)))
    assert flips == [(), (3,), (2,), (2, 3)]
    (plain,) = predict_stacks([Counting()], given, make_plan(), CPU)
    (flipped,) = predict_stacks([Counting()], given, make_plan(), CPU, flips=flips)
    assert np.allclose(plain.probabilities_DKhw, flipped.probabilities_DKhw, atol=1e-6)
    assert np.allclose(plain.features_F[0], flipped.features_F[0])
    assert training_flips(make_plan(augment=AugmentPlan(hflip=0.5))) == [(), (3,)]


def test_classes_that_exclude_one_another_take_the_likeliest_and_background_wins_ties() -> None:
    plan = make_plan(target="multiclass", mask_rule="labels", classes=("a", "b"), label_values=(1, 2))
    probabilities = np.array([[0.5, 0.3, 0.35, 0.4, 0.5], [0.2, 0.6, 0.35, 0.4, 0.5]], np.float32)
    found = decide(probabilities, plan)
    assert found[0].tolist() == [True, False, True, True, True]
    assert found[1].tolist() == [False, True, False, False, False], "of equals the first"
    assert not decide(np.array([[0.3], [0.2]], np.float32), plan).any(), "background is the likeliest"
    assert found.sum(0).max() == 1


def test_classes_that_may_overlap_are_decided_one_by_one() -> None:
    plan = make_plan(target="multilabel", classes=("a", "b"))
    found = decide(np.array([[0.6, 0.4], [0.7, 0.9]], np.float32), plan)
    assert found.tolist() == [[True, False], [True, True]]


def test_softmax_leaves_the_background_out() -> None:
    class Three(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 1.0, 2.0])[None, :, None, None].expand(len(x), 3, 8, 8)

    plan = make_plan(target="multiclass", mask_rule="labels", classes=("a", "b"), label_values=(1, 2))
    (said,) = predict_stacks([Three()], stacks([1]), plan, CPU)
    p = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    assert np.allclose(said.probabilities_DKhw[0, :, 0, 0], p[1:])
    assert decide(full_size(said.probabilities_DKhw, (20, 30), plan.data), plan)[1].all()
