"""Which files are images, what they are called, and how quickly a large folder is looked through."""

import builtins
import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ukan.errors import DataError
from ukan.imaging import find_images, is_image_name, is_volume, stem_of

VOLUMES = ["a.nii", "a.nii.gz", "A.NII.GZ", "a.mha", "a.mhd", "a.nrrd", "a.dcm", "a.DICOM", "a.ima"]
PICTURES = ["a.png", "a.JPG", "a.jpeg", "a.bmp", "a.tif", "a.tiff", "a.gif"]


@pytest.mark.parametrize("name", VOLUMES + PICTURES)
def test_every_kind_is_known_by_its_name(name: str) -> None:
    assert is_image_name(name) and is_volume(Path("x") / name) == (name in VOLUMES)


@pytest.mark.parametrize(
    "name", ["a.gz", ".a.nii.gz", "nii.gz", ".nii.gz", "a.nii.gz.bak", "a.nii.zip", "1.2.840.113", "IM001"]
)
def test_others_are_no_image_names(name: str) -> None:
    assert not is_image_name(name)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii.gz", "a"), ("a.b.NII.GZ", "a.b"), ("x/a.b.png", "a.b"), ("a (1).jpeg", "a (1)"),
        ("IM.0001", "IM.0001"), ("study/patient.01", "patient.01"), ("1.2.840.113", "1.2.840.113"),
    ],
)  # fmt: skip
def test_stems(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem


def test_images_are_found_in_all_folders_in_order_and_what_is_hidden_is_not() -> None:
    wanted = ["b/2.nii.gz", "b/10.png", "a.gif", "b/c/d.e/x.TIF", "b/IM.0001", "b.nrrd"]
    others = [
        ".hidden.png",
        "._a.png",
        ".cache/a.png",
        "b/.ipynb_checkpoints/a.png",
        "notes.txt",
        "b/LICENSE",
        "a.png.bak",
        "c.zip",
    ]
    for name in wanted + others:
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data", name).write_bytes(bytes(128) + b"DICM" if name == "b/IM.0001" else b"x" * 200)
    Path("data/folder.png").mkdir()
    found = find_images(Path("data"))
    assert found == sorted(Path("data", name) for name in wanted)


def test_links_to_files_are_followed_and_folders_that_are_links_are_not() -> None:
    Path("data/sub").mkdir(parents=True)
    Path("data/sub/a.png").touch()
    Path("data/b.png").symlink_to(Path("sub/a.png"))
    Path("data/gone.png").symlink_to("nowhere.png")
    Path("data/sub/loop").symlink_to(Path("..").resolve())
    assert find_images(Path("data")) == [Path("data/b.png"), Path("data/sub/a.png")]


def test_a_folder_that_is_none_is_a_data_error() -> None:
    Path("file").touch()
    for name in ("nowhere", "file"):
        with pytest.raises(DataError, match=rf"^{name}: "):
            find_images(Path(name))


def test_twenty_thousand_pictures_are_found_in_a_second_and_none_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").mkdir()
    picture = Path("data/00000.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture)
    for number in range(1, 20_000):
        os.link(picture, f"data/{number:05}.png")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(io, "open", refuse)
    start = time.process_time()
    found = find_images(Path("data"))
    assert len(found) == 20_000 and time.process_time() - start < 1
