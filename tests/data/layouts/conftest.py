"""Made-up trees of every published layout: empty files, because layouts look at names alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

CUID = "cju0qkwl35piu0993l0dewei2"

TREES: dict[str, tuple[str, ...]] = {
    "busi": (
        "benign/benign (1).png",
        "benign/benign (1)_mask.png",
        "benign/benign (10).png",
        "benign/benign (10)_mask.png",
        "benign/benign (10)_mask_1.png",
        "malignant/malignant (1).png",
        "malignant/malignant (1)_mask.png",
        "normal/normal (1).png",
        "normal/normal (1)_mask.png",
    ),
    "cvc-clinicdb": tuple(f"{folder}/{k}.png" for folder in ("Original", "Ground Truth") for k in (1, 25, 26, 612)),
    "glas": tuple(
        f"{part}_Folder/{kind}/{k}.png" for part in ("Train", "Test") for kind in ("img", "labelcol") for k in (1, 2)
    ),
    "isic-2016": (
        "ISBI2016_ISIC_Part1_Training_Data/ISIC_0000000.jpg",
        "ISBI2016_ISIC_Part1_Training_GroundTruth/ISIC_0000000_Segmentation.png",
        "ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg",
        "ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png",
    ),
    "isic-2017": (
        "ISIC-2017_Training_Data/ISIC_0000000.jpg",
        "ISIC-2017_Training_Data/ISIC_0000000_superpixels.png",
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv",
        "ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png",
        "ISIC-2017_Training_Part2_GroundTruth/ISIC_0000000_features.json",
        "ISIC-2017_Validation_Data/ISIC_0001769.jpg",
        "ISIC-2017_Validation_Data/ISIC_0001769_superpixels.png",
        "ISIC-2017_Validation_Part1_GroundTruth/ISIC_0001769_segmentation.png",
        "ISIC-2017_Test_v2_Data/ISIC_0012086.jpg",
        "ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_0012086_segmentation.png",
    ),
    "isic-2018": (
        "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg",
        "ISIC2018_Task1-2_Training_Input/LICENSE.txt",
        "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png",
        "ISIC2018_Task2_Training_GroundTruth_v3/ISIC_0000000_attribute_globules.png",
        "ISIC2018_Task1-2_Validation_Input/ISIC_0012255.jpg",
        "ISIC2018_Task1_Validation_GroundTruth/ISIC_0012255_segmentation.png",
        "ISIC2018_Task1-2_Test_Input/ISIC_0012169.jpg",
        "ISIC2018_Task1_Test_GroundTruth/ISIC_0012169_segmentation.png",
    ),
    "ph2": tuple(
        f"PH2 Dataset images/{case}/{case}_{kind}/{case}{end}.bmp"
        for case in ("IMD002", "IMD078")
        for kind, end in (("Dermoscopic_Image", ""), ("lesion", "_lesion"), ("roi", "_R1_Label6"))
    ),
    "kvasir-seg": (f"images/{CUID}.jpg", f"masks/{CUID}.jpg", "kavsir_bboxes.json"),
    "nnunet": ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b_0000.nii.gz", "labelsTs/b.nii.gz", "dataset.json"),
    "class-folders": ("images/a.png", "masks/0/a.png", "masks/1/a_mask.png"),
    "folders": ("images/a.png", "masks/a.png"),
}


@pytest.fixture
def touch() -> Callable[..., Path]:
    """touch(name, ...): empty files below the folder raw/, which is returned."""

    def make(*names: str) -> Path:
        for name in names:
            path = Path("raw") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name == "dataset.json":
                path.write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}))
            else:
                path.touch()
        return Path("raw")

    return make


@pytest.fixture
def trees() -> dict[str, tuple[str, ...]]:
    """The files of every layout, by its name."""
    return TREES
