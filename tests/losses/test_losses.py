"""The losses are the published formulas, worked out here by hand, and their weighted sum is no more than that."""

import math

import numpy as np
import pytest
import torch

from ukan.losses import LOSSES, combined_loss


def example(batch: int = 3, classes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, 6, 9, generator=generator) * 3
    return logits, (torch.rand(logits.shape, generator=generator) < 0.3).float()


def published_dice(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """1 - mean over images of (2 * sum(p * t) + 1e-5) / (sum(p) + sum(t) + 1e-5), p the sigmoid (U-KAN, losses.py)."""
    scores = []
    for logit, target in zip(logits.double().numpy(), targets.double().numpy(), strict=True):
        p, t = (1 / (1 + np.exp(-logit))).ravel(), target.ravel()
        scores.append((2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5))
    return 1 - sum(scores) / len(scores)


def test_dice_is_the_published_formula_image_by_image() -> None:
    logits, targets = example()
    assert LOSSES["dice"]("binary")(logits, targets).item() == pytest.approx(published_dice(logits, targets), abs=1e-6)
    # ... which pooling the batch would not give.
    pooled = published_dice(logits.reshape(1, 1, 18, 9), targets.reshape(1, 1, 18, 9))
    assert abs(pooled - published_dice(logits, targets)) > 1e-4


def test_dice_of_several_classes_is_the_mean_over_classes() -> None:
    logits, targets = example(2, 3)
    each = [published_dice(logits[:, k : k + 1], targets[:, k : k + 1]) for k in range(3)]
    assert LOSSES["dice"]("binary")(logits, targets).item() == pytest.approx(sum(each) / 3, abs=1e-6)


def test_dice_is_zero_for_the_truth_and_one_for_its_opposite() -> None:
    _, targets = example()
    sure = (targets * 2 - 1) * 30
    assert LOSSES["dice"]("binary")(sure, targets).item() == pytest.approx(0, abs=1e-6)
    assert LOSSES["dice"]("binary")(-sure, targets).item() == pytest.approx(1, abs=1e-4)


def test_dice_of_an_empty_mask_and_an_empty_prediction_is_zero() -> None:
    nothing = torch.zeros(1, 1, 4, 4)
    assert LOSSES["dice"]("binary")(nothing - 60, nothing).item() == pytest.approx(0, abs=1e-6)


def test_bce_is_the_mean_of_minus_log_likelihood() -> None:
    logits, targets = example()
    likelihood = [
        math.log(1 / (1 + math.exp(-x)) if t else 1 / (1 + math.exp(x)))
        for x, t in zip(logits.double().flatten().tolist(), targets.flatten().tolist(), strict=True)
    ]
    assert LOSSES["bce"]("binary")(logits, targets).item() == pytest.approx(-sum(likelihood) / len(likelihood), abs=1e-6)


def test_bce_of_huge_logits_is_finite() -> None:
    assert LOSSES["bce"]("binary")(torch.tensor([[1e4]]), torch.tensor([[0.0]])).item() == pytest.approx(1e4)


@pytest.mark.parametrize("bce", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dice", [1.0, 0.25])
def test_the_combined_loss_is_the_weighted_sum(bce: float, dice: float) -> None:
    logits, targets = example()
    parts = {name: LOSSES[name]("binary")(logits, targets).item() for name in ("bce", "dice")}
    total = combined_loss({"bce": bce, "dice": dice}, "binary")(logits, targets)
    assert total.shape == () and total.item() == pytest.approx(bce * parts["bce"] + dice * parts["dice"], abs=1e-6)


def test_the_combined_loss_is_computed_in_float32() -> None:
    logits, targets = example()
    half = logits.bfloat16()
    loss = combined_loss({"bce": 0.5, "dice": 1.0}, "binary")
    assert loss(half, targets).dtype == torch.float32
    assert loss(half, targets).item() == pytest.approx(loss(half.float(), targets).item(), abs=1e-7)


def test_following_the_gradient_makes_the_loss_smaller() -> None:
    logits, targets = example()
    logits.requires_grad_()
    loss = combined_loss({"bce": 0.5, "dice": 1.0}, "binary")
    before = loss(logits, targets)
    before.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert loss(logits - logits.grad, targets) < before


def test_all_zero_weights_are_refused_with_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"set train\.bce_weight or train\.dice_weight"):
        combined_loss({"bce": 0.0, "dice": 0.0}, "binary")


def test_a_loss_of_weight_zero_is_not_even_called() -> None:
    logits, targets = example()
    logits[0, 0, 0, 0] = torch.inf  # makes BCE infinite and leaves Dice finite
    assert not combined_loss({"bce": 1.0, "dice": 1.0}, "binary")(logits, torch.zeros_like(targets)).isfinite()
    assert combined_loss({"bce": 0.0, "dice": 1.0}, "binary")(logits, torch.zeros_like(targets)).isfinite()


# Classes that exclude one another


def labelled(batch: int = 2, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(batch, classes + 1, 6, 9, generator=generator) * 3
    return logits, torch.randint(0, classes + 1, (batch, 1, 6, 9), generator=generator).float()


def test_cross_entropy_is_the_mean_of_minus_the_log_probability_of_the_true_class() -> None:
    logits, targets = labelled()
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, targets.long().numpy(), 1)).mean()
    assert LOSSES["bce"]("multiclass")(logits, targets).item() == pytest.approx(expected, abs=1e-6)


def test_softmax_dice_is_the_mean_over_images_and_classes_without_the_background() -> None:
    logits, targets = labelled()
    p = np.exp(logits.double().numpy())
    p /= p.sum(1, keepdims=True)
    scores = []
    for image, truth in zip(p, targets[:, 0].numpy(), strict=True):
        for k in range(1, 4):
            t = truth == k
            scores.append((2 * image[k][t].sum() + 1e-5) / (image[k].sum() + t.sum() + 1e-5))
    assert LOSSES["dice"]("multiclass")(logits, targets).item() == pytest.approx(1 - np.mean(scores), abs=1e-5)


def test_the_loss_of_classes_is_lowest_for_the_truth() -> None:
    logits, targets = labelled()
    loss = combined_loss({"bce": 0.5, "dice": 1.0}, "multiclass")
    sure = torch.nn.functional.one_hot(targets[:, 0].long(), 4).permute(0, 3, 1, 2) * 40.0
    assert loss(sure, targets).item() == pytest.approx(0, abs=1e-4) and loss(logits, targets) > 0.5
