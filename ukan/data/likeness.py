"""What makes two small pictures nearly the same: their greys correlate, and so does their detail, towards the middle.

Detail is what is left when a Gaussian of one pixel is taken away. Greys alone take two lesions under one dermoscope, or two
walls of a colon in one black frame, for the same picture.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

SMALL = 32
"""The side that pictures are compared at."""
LIKENESS = 0.95
"""Correlation of greys, from which on they are nearly the same."""


def unit_greys(greys_NHW: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Greys of SMALL x SMALL as vectors (N, SMALL^2) of mean 0 and norm 1; zeros where a picture is of one grey."""
    return _unit(greys_NHW.reshape(len(greys_NHW), -1).astype(np.float32), SMALL * 0.5)


def unit_details(greys_NHW: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """The fine part, fading towards the border, as such vectors; zeros where it is not more than rounding."""
    middle = np.hanning(SMALL + 2)[1:-1].astype(np.float32)
    fine = np.empty(greys_NHW.shape, np.float32)
    for number, grey in enumerate(greys_NHW.astype(np.float32)):
        fine[number] = grey - cv2.GaussianBlur(grey, (0, 0), 1.0, borderType=cv2.BORDER_REFLECT)
    return _unit((fine * np.outer(middle, middle)).reshape(len(fine), SMALL * SMALL), SMALL * 0.25)


def _unit(vectors_NP: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    vectors_NP = vectors_NP - vectors_NP.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(vectors_NP, axis=1, keepdims=True)
    vectors_NP /= np.maximum(norms, 1e-6)
    vectors_NP[norms[:, 0] <= least] = 0
    return vectors_NP
