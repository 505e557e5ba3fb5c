"""The table of augmentations: every modality has its choice, each with a reason, within what the plan allows."""

from typing import get_args

import pytest

from ukan.plan import AugmentPlan, Modality
from ukan.planning.augmentation import BY_MODALITY, choose_augmentation

REACH = {
    "affine": {"scale", "rotate_deg", "shift"},
    "elastic": {"elastic_shift"},
    "colour": {"hue", "saturation"},
    "intensity": {"brightness", "contrast"},
    "gamma": {"gamma_range"},
    "noise": {"noise_std"},
    "blur": {"blur_sigma_px"},
}
STEPS = {"rot90", "hflip", "vflip", "any_flip", *REACH}
MODALITIES = get_args(Modality)


def chosen(modality: Modality, channels: int = 3, size: tuple[int, int] = (256, 256)) -> AugmentPlan:
    return AugmentPlan(**{name: value for name, (value, _) in choose_augmentation(modality, channels, size).items()})


def test_the_steps_and_their_reach_are_all_there_is() -> None:
    assert set(AugmentPlan.model_fields) == STEPS.union(*REACH.values())
    assert set(BY_MODALITY) == set(MODALITIES)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(256, 256), (224, 320)])
def test_every_step_is_decided_and_so_is_the_reach_of_those_that_are_on(
    modality: Modality, channels: int, size: tuple[int, int]
) -> None:
    choice = choose_augmentation(modality, channels, size)
    on = {step for step in STEPS if choice[step][0] > 0}
    assert STEPS <= choice.keys() <= set(AugmentPlan.model_fields)
    assert set().union(*(REACH.get(step, set()) for step in on)) <= choice.keys()
    assert all(len(because) > 5 for _, because in choice.values())
    chosen(modality, channels, size)  # the plan takes the values
    assert sum(choice[step][0] for step in on) > 0.3


def test_what_a_modality_would_never_show_is_off() -> None:
    ultrasound, radiology, unknown = chosen("ultrasound"), chosen("radiology"), chosen("unknown")
    assert ultrasound.vflip == ultrasound.rot90 == ultrasound.any_flip == 0 < ultrasound.hflip
    assert radiology.hflip == radiology.vflip == radiology.rot90 == 0 < radiology.gamma
    assert ultrasound.colour == radiology.colour == unknown.colour == 0
    assert unknown.vflip == unknown.rot90 == 0 and unknown.rotate_deg <= 15
    for free in (chosen("histology"), chosen("endoscopy"), chosen("dermoscopy")):
        assert free.hflip == free.vflip == free.rot90 == 0.5 and free.rotate_deg == 180 and free.colour > 0
    assert chosen("histology").hue > chosen("dermoscopy").hue > chosen("endoscopy").hue
    assert chosen("endoscopy").blur > 0 and chosen("endoscopy").brightness > ultrasound.brightness


@pytest.mark.parametrize("modality", ["histology", "endoscopy", "dermoscopy"])
def test_quarter_turns_need_a_square_and_colours_three_channels(modality: Modality) -> None:
    assert chosen(modality).rot90 > 0 and chosen(modality, size=(224, 320)).rot90 == 0
    assert chosen(modality).colour > 0 and chosen(modality, channels=1).colour == chosen(modality, channels=5).colour == 0
    assert "oblong" in choose_augmentation(modality, 3, (224, 320))["rot90"][1]
    assert "no colour" in choose_augmentation(modality, 1, (256, 256))["colour"][1]
