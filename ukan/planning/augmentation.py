"""Which random changes a training sample may undergo: one table by modality, each entry with its reason.

A change is allowed where the changed picture could have been taken of a patient, and its mask would still be right.
"""

from typing import Any

from ukan.plan import Modality

Choice = dict[str, tuple[Any, str]]  # a field of AugmentPlan -> its value and why

_OFF = (
    *("rot90", "hflip", "vflip", "any_flip", "affine", "elastic"),
    *("colour", "intensity", "gamma", "noise", "blur"),
)

BY_MODALITY: dict[Modality, Choice] = {
    "ultrasound": {
        "hflip": (0.5, "left and right are alike"),
        "vflip": (0.0, "depth runs down the picture: shadows fall downwards"),
        "rot90": (0.0, "depth runs down the picture"),
        "affine": (0.5, "zoom, small turns and shifts, as between examinations"),
        "scale": ((0.8, 1.25), "the depth a sonographer chooses"),
        "rotate_deg": (20.0, "the probe is tilted, not turned over"),
        "shift": (0.1, "the object is not always in the middle"),
        "intensity": (0.5, "brightness and contrast differ between devices"),
        "brightness": (0.2, "the gain of a device"),
        "contrast": (0.2, "its dynamic range"),
        "gamma": (0.2, "grey curves differ between devices"),
        "gamma_range": ((0.7, 1.4), "about the spread of grey curves"),
        "colour": (0.0, "echoes have no colour"),
        "elastic": (0.0, "zoom and turns are enough"),
        "noise": (0.0, "speckle is no additive noise"),
        "blur": (0.0, "it would take the speckle away"),
    },
    "histology": {
        "rot90": (0.5, "a section has no top: quarter turns cost nothing"),
        "hflip": (0.5, "a section has no sides"),
        "vflip": (0.5, "a section has no top"),
        "affine": (0.5, "zoom, any turn and shifts"),
        "scale": ((0.8, 1.25), "scanners differ in pixel size"),
        "rotate_deg": (180.0, "a section lies on the slide at any angle"),
        "shift": (0.1, "the field of view is chosen at random"),
        "elastic": (0.2, "soft tissue stretches when it is cut"),
        "elastic_shift": (0.02, "well below the size of a gland"),
        "colour": (0.5, "stains differ between laboratories and scanners"),
        "hue": (0.05, "from bluish to reddish, still haematoxylin and eosin"),
        "saturation": (0.3, "strength of the stain"),
        "intensity": (0.5, "thickness of the section, light of the scanner"),
        "brightness": (0.15, "white background stays bright"),
        "contrast": (0.2, "strength of the stain"),
        "blur": (0.1, "sections lie slightly out of focus"),
        "blur_sigma_px": ((0.3, 1.0), "about a pixel"),
    },
    "endoscopy": {
        "rot90": (0.5, "the endoscope rolls: no top"),
        "hflip": (0.5, "the bowel has no sides"),
        "vflip": (0.5, "the endoscope rolls: no top"),
        "affine": (0.5, "zoom, any turn and shifts"),
        "scale": ((0.8, 1.25), "the distance to the wall changes"),
        "rotate_deg": (180.0, "the endoscope rolls freely"),
        "shift": (0.1, "the object is not always in the middle"),
        "intensity": (0.5, "the lamp moves with the tip"),
        "brightness": (0.3, "near walls and highlights are overexposed, far ones dark"),
        "contrast": (0.3, "mist, fluid and highlights"),
        "gamma": (0.2, "automatic exposure"),
        "gamma_range": ((0.7, 1.4), "from underexposed to overexposed"),
        "colour": (0.3, "white balance and blood"),
        "hue": (0.02, "mucosa stays red"),
        "saturation": (0.3, "processors differ in it"),
        "blur": (0.2, "motion and focus"),
        "blur_sigma_px": ((0.3, 1.5), "up to slight motion"),
    },
    "dermoscopy": {
        "rot90": (0.5, "skin has no top: quarter turns cost nothing"),
        "hflip": (0.5, "skin has no sides"),
        "vflip": (0.5, "skin has no top"),
        "affine": (0.5, "zoom, any turn and shifts"),
        "scale": ((0.8, 1.25), "lenses differ in magnification"),
        "rotate_deg": (180.0, "the dermatoscope is held at any angle"),
        "shift": (0.1, "the object is not always in the middle"),
        "colour": (0.5, "skin types, lamps and white balance differ"),
        "hue": (0.03, "skin stays skin"),
        "saturation": (0.25, "lamps and cameras differ in it"),
        "intensity": (0.5, "exposure, with and without polarised light"),
        "brightness": (0.2, "exposure"),
        "contrast": (0.2, "exposure and skin type"),
        "blur": (0.1, "hand-held cameras"),
        "blur_sigma_px": ((0.3, 1.0), "about a pixel"),
    },
    "radiology": {
        "hflip": (0.0, "organs have a side; --set train.augment.hflip=0.5 where yours have none"),
        "vflip": (0.0, "patients lie one way"),
        "rot90": (0.0, "patients lie one way"),
        "affine": (0.5, "zoom, small turns and shifts, as patients and their position differ"),
        "scale": ((0.85, 1.2), "sizes of patients"),
        "rotate_deg": (15.0, "patients lie a little turned"),
        "shift": (0.1, "centring"),
        "elastic": (0.2, "anatomy differs, organs move"),
        "elastic_shift": (0.02, "outlines bend, nothing tears"),
        "intensity": (0.3, "scanners and sequences differ"),
        "brightness": (0.1, "values have a meaning: little"),
        "contrast": (0.2, "sequences and dose"),
        "gamma": (0.3, "grey values of different scanners follow different curves"),
        "gamma_range": ((0.7, 1.4), "about that of nnU-Net (0.7 to 1.5)"),
        "noise": (0.15, "dose and field strength"),
        "noise_std": ((0.01, 0.05), "up to a low-dose scan's"),
        "blur": (0.1, "reconstruction kernels"),
        "blur_sigma_px": ((0.3, 1.0), "about a pixel"),
    },
    "unknown": {
        "hflip": (0.5, "left and right are alike in most pictures; set it to 0 where sides matter"),
        "vflip": (0.0, "most pictures have a top; set data.modality, or this, where yours have none"),
        "rot90": (0.0, "most pictures have a top"),
        "affine": (0.5, "zoom, small turns and shifts harm no kind of picture"),
        "scale": ((0.8, 1.25), "distances and devices differ"),
        "rotate_deg": (15.0, "small, since the kind of picture is not known"),
        "shift": (0.1, "the object is not always in the middle"),
        "intensity": (0.5, "brightness and contrast differ between devices"),
        "brightness": (0.2, "exposure"),
        "contrast": (0.2, "exposure"),
        "gamma": (0.2, "grey curves differ between devices"),
        "gamma_range": ((0.7, 1.4), "about the spread of grey curves"),
        "colour": (0.0, "colour may be what tells an object; set data.modality where it is not"),
    },
}


def choose_augmentation(modality: Modality, channels: int, input_size: tuple[int, int]) -> Choice:
    """Every probability of AugmentPlan, and the range of each change that is on, with its reason."""
    chosen = {name: (0.0, f"not needed for {modality} pictures") for name in _OFF} | BY_MODALITY[modality]
    if channels != 3 and chosen["colour"][0]:
        chosen = {name: choice for name, choice in chosen.items() if name not in ("hue", "saturation")}
        chosen["colour"] = (0.0, f"{channels} channel(s) have no colour")
    if input_size[0] != input_size[1] and chosen["rot90"][0]:
        chosen["rot90"] = (0.0, "the input is oblong, where a quarter turn distorts; affine turns by any angle")
    return chosen
