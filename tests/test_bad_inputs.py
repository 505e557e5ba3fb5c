"""What people really bring, and the one line each gets: every row of docs/bad-inputs.md is made here and run.

`python tests/test_bad_inputs.py --write` runs every row and writes the page anew; read what it changes.
"""

import csv
import gzip
import io
import os
import re
import shlex
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

PAGE = Path(__file__).resolve().parents[1] / "docs" / "bad-inputs.md"


class Row(NamedTuple):
    what: str
    """The input, in words."""
    make: Callable[[], object]
    """Makes it, in a folder with a sound dataset (data/), its plan and run (plans/, runs/) and two new images (photos/)."""
    command: str
    code: int
    says: str
    """Words that have to be in the answer."""
    lines: bool = False
    """Whether the answer may go on after its first line: with trees of folders, or with what differs."""
    unless: bool = False
    """Where this cannot be made."""


# What bad things are made of.

IMAGE, MASK = Path("data/images/c03.png"), Path("data/masks/c03.png")
JPG, TIF, GIF = (IMAGE.with_suffix(suffix) for suffix in (".jpg", ".tif", ".gif"))
PLAN, RUN = Path("plans/data/ukan.yaml"), Path("runs/data-ukan")
SMALL = "--set data.input_size=[32,32] --set split.folds=2 --set model.widths=[8,8,8] --set train.epochs=1"
DRAWN = Path("runs/data-drawn")
BY_RUN = "--features run:runs/data-ukan"
SMALL_DRAWN = (
    "--task diffuse --set data.input_size=[16,16] --set split.folds=2 --set model.channels=4 --set model.multipliers=[1,1] "
    "--set model.blocks=1 --set train.epochs=1 --set train.batch_size=4 --set diffuse.steps=2 --set diffuse.preview=0"
)
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0  # who may read everything


def pixels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy grey picture (48, 64) with a bright box, and its mask of 0 and 255."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((48, 64), np.uint8)
    top, left, height, width = rng.integers((4, 4, 10, 10), (26, 40, 19, 21))
    mask[top : top + height, left : left + width] = 255
    noise = np.kron(rng.integers(0, 100, (12, 16)), np.ones((4, 4), int)) + rng.integers(0, 20, mask.shape)
    return (noise + mask // 2).astype(np.uint8), mask


def dataset(folder: str, count: int = 6, first: int = 100, images: str = "images", masks: str = "masks") -> None:
    for i in range(count):
        image, mask = pixels(first + i)
        save(Path(folder, images, f"c{i:02}.png"), image)
        save(Path(folder, masks, f"c{i:02}.png"), mask)


def save(path: Path | str, array: np.ndarray, mode: str | None = None, **options: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def put(path: Path | str, content: str | bytes = b"") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)


def move(old: Path | str, new: Path | str) -> None:
    Path(new).parent.mkdir(parents=True, exist_ok=True)
    Path(old).rename(new)


def cut(path: Path | str, keep: float) -> None:
    """Only the beginning of a file is left: a share of it, or all but as many bytes as a negative number says."""
    content = Path(path).read_bytes()
    put(path, content[: int(keep if keep < 0 else keep * len(content))])


def spoil(path: Path | str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 2] ^= 0xFF
    put(path, bytes(content))


def again(path: Path, mode: str | None = None, to: Path | None = None, **options: Any) -> None:
    """A picture saved in another mode, or as another type of file."""
    array = load(path)
    path.unlink()
    save(to or path, array, mode, **options)


def alter(path: Path, change: Callable[[np.ndarray], np.ndarray], to: Path | None = None, **options: Any) -> None:
    """A picture of other values."""
    array = change(load(path))
    path.unlink()
    save(to or path, array, **options)


def each(folder: str, do: Callable[[Path], object]) -> None:
    for path in sorted(Path(folder).iterdir()):
        do(path)


def deep(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint16) * 13 + 700


def with_nan(array: np.ndarray) -> np.ndarray:
    values = array.astype(np.float32)
    values[5, 7] = np.nan
    return values


def large(array: np.ndarray) -> np.ndarray:
    return array.repeat(8, 0).repeat(8, 1)


def edit(path: Path | str, old: str, new: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    put(path, text.replace(old, new, 1))


def turned(path: Path, to: Path) -> None:
    """A telephone's picture: stored lying, shown standing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    again(path, to=to, exif=exif, quality=95)


def frames(path: Path, to: Path) -> None:
    first, *others = [Image.fromarray(load(path) // (k + 1)) for k in range(3)]
    path.unlink()
    first.save(to, save_all=True, append_images=others)


def promise(path: Path) -> None:
    """A PNG of a few bytes whose header says 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    made = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    put(path, b"\x89PNG\r\n\x1a\n" + b"".join(made))


def zipped(path: Path | str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(zipfile.ZipInfo("data/readme.txt"), "images")  # the same bytes whenever made


def nifti(path: Path | str, array_DHW: np.ndarray, order: str = "<") -> None:
    import nibabel as nib

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(array_DHW.dtype)
    axes = tuple(range(array_DHW.ndim))[::-1]
    nib.save(nib.Nifti1Image(array_DHW.transpose(axes), np.diag([0.7, 0.7, 3, 1]), header), path)


def volumes(count: int = 4) -> None:
    """A dataset of NIfTI, volumes/, of three slices each."""
    for i in range(count):
        image, mask = (np.stack([array[:32, :40]] * 3) for array in pixels(200 + i))
        nifti(f"volumes/images/v{i}.nii.gz", image.astype(np.int16) * 4)
        nifti(f"volumes/masks/v{i}.nii.gz", (mask > 0).astype(np.uint8))


V0 = Path("volumes/images/v0.nii.gz")
MHD = "ObjectType = Image\nNDims = 3\nDimSize = 40 32 3\nElementType = MET_SHORT\nElementDataFile = v0.raw\n"


def unzip(path: Path, to: Path) -> None:
    put(to, gzip.decompress(path.read_bytes()))
    if to != path:
        path.unlink()


def singular(path: Path) -> None:
    """All voxels at one place, which nibabel itself would not write."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    content[252:256] = struct.pack("<hh", 0, 1)  # qform_code, sform_code
    put(path, gzip.compress(bytes(content)))


def dicom(slices: Sequence[int], series: int = 1, suffix: str = ".dcm") -> None:
    """Slices 2.5 mm apart in volumes/images/v0/."""
    import SimpleITK as sitk

    folder = Path("volumes/images/v0")
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    uid = "1.2.826.0.1.3680043.2.1125"
    for k in slices:
        image = sitk.GetImageFromArray(pixels(300 + k)[0].astype(np.int16)[None])
        image.SetSpacing((0.7, 0.7, 2.5))
        tags = {"0008|0060": "CT", "0020|000d": f"{uid}.9", "0020|000e": f"{uid}.{series}"}
        tags |= {"0008|0018": f"{uid}.{series}.{k}", "0020|0013": str(k + 1)}
        tags |= {"0020|0032": f"0\\0\\{2.5 * k}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        path = folder / f"{series}IM{k:04}"
        writer.SetFileName(f"{path}.dcm")
        writer.Execute(image)
        path.with_suffix(".dcm").rename(f"{path}{suffix}")


def with_dicom(slices: Sequence[int], suffix: str = ".dcm") -> None:
    """The dataset volumes/, its first image a folder of DICOM slices."""
    volumes()
    V0.unlink()
    dicom(slices, suffix=suffix)
    nifti("volumes/masks/v0.nii.gz", np.stack([(pixels(300 + k)[1] > 0).astype(np.uint8) for k in slices]))


def each_case(line: Callable[[str], str]) -> str:
    return "".join(line(f"c{i:02}") for i in range(12))


def labels(folder: str, values: Sequence[int]) -> None:
    """A dataset whose masks hold two numbers, left and right, and in the last case a third where there is one."""
    dataset(folder)
    for i, path in enumerate(sorted(Path(folder, "masks").iterdir())):
        mask = load(path)
        made = np.where(np.arange(64)[None] < 32, np.uint8(values[0]), np.uint8(values[1])) * (mask > 0)
        if i == 5 and len(values) > 2:
            made[:6, :6] = values[2]
        save(path, made.astype(np.uint8))


def other_weights() -> None:
    """The network of one fold stands for both."""
    shutil.copy(RUN / "fold_0/model.safetensors", RUN / "fold_1/model.safetensors")


def other_network() -> bytes:
    """Weights of a network of one number, as torch saves them."""
    import torch

    content = io.BytesIO()
    torch.save({"bias": 1}, content, _use_new_zipfile_serialization=False)  # the same bytes by every version
    return content.getvalue()


def offline() -> None:
    """No network, known at once: its way leads to a port of this machine where nobody listens."""
    os.environ |= {"TORCH_HOME": "torch", "https_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}


def nothing() -> None:
    pass


# fmt: off
TABLE: dict[str, list[Row]] = {
    "Images": [
        Row("a PNG that ends in its middle", lambda: cut(IMAGE, 0.5), "check data", 4, "c03.png: not readable"),
        Row("a PNG of which only the first bytes came", lambda: cut(IMAGE, 0.02), "check data", 4, "c03.png: not readable"),
        Row("a PNG without its last 12 bytes", lambda: cut(IMAGE, -12), "check data", 0, "no problems found"),
        Row("a PNG with one wrong byte", lambda: spoil(IMAGE), "check data", 4, "c03.png: not readable"),
        Row("a JPEG that ends in its middle", lambda: (again(IMAGE, to=JPG), cut(JPG, 0.5)),
            "check data", 4, "c03.jpg: not readable"),
        Row("a JPEG of which only the first bytes came", lambda: (again(IMAGE, to=JPG), cut(JPG, 0.1)),
            "check data", 4, "c03.jpg: not readable"),
        Row("a TIFF that ends in its middle", lambda: (again(IMAGE, to=TIF), cut(TIF, 0.5)),
            "check data", 4, "c03.tif: not readable"),
        Row("an empty file", lambda: put(IMAGE), "check data", 4, "empty file"),
        Row("a web page saved as PNG", lambda: put(IMAGE, "<!DOCTYPE html><title>404</title>"),
            "check data", 4, "c03.png: not readable"),
        Row("a text file renamed to .jpg", lambda: (IMAGE.unlink(), put(JPG, "a scan")),
            "check data", 4, "c03.jpg: not readable"),
        Row("a zip file renamed to .png", lambda: zipped(IMAGE), "check data", 4, "c03.png: not readable"),
        Row("a pointer of Git LFS in place of the image", lambda: put(IMAGE, "version https://git-lfs.github.com/spec/v1\n"),
            "check data", 4, "c03.png: not readable"),
        Row("a PNG of 65 bytes that promises 100,000 x 100,000 pixels", lambda: promise(IMAGE),
            "check data", 4, "c03.png: not readable"),
        Row("an image of a type that is not read, WebP", lambda: again(IMAGE, to=IMAGE.with_suffix(".webp")),
            "check data", 4, "no image named c03"),
        Row("a link to itself", lambda: (IMAGE.unlink(), IMAGE.symlink_to("c03.png")), "check data", 4, "c03.png: "),
        Row("a link to an image that is gone", lambda: (IMAGE.unlink(), IMAGE.symlink_to("gone.png")),
            "check data", 4, "no image named c03"),
        Row("a file that one may not read", lambda: IMAGE.chmod(0), "check data", 4, "c03.png", unless=AS_ROOT),
        Row("a folder called c03.png", lambda: (IMAGE.unlink(), IMAGE.mkdir()), "check data", 4, "no image named c03"),
        Row("an animated GIF", lambda: frames(IMAGE, GIF), "check data", 4, "animation"),
        Row("a TIFF of three pages whose mask has one", lambda: frames(IMAGE, TIF), "check data", 4, "slices"),
        Row("a TIFF of fractions with a NaN", lambda: alter(IMAGE, with_nan, TIF), "check data", 4, "no numbers"),
        Row("a JPEG turned by its EXIF tag, the mask as it is stored", lambda: turned(IMAGE, JPG),
            "check data", 4, "differ in shape"),
        Row("a JPEG turned by its EXIF tag, the mask as it is shown",
            lambda: (turned(IMAGE, JPG), alter(MASK, lambda a: np.rot90(a, -1))),
            "check data", 0, "48x64"),
        Row("an RGBA image among grey ones", lambda: again(IMAGE, "RGBA"), "check data", 0, "no problems found"),
        Row("a CMYK JPEG", lambda: again(IMAGE, "CMYK", JPG), "check data", 0, "no problems found"),
        Row("a palette image", lambda: again(IMAGE, "P"), "check data", 0, "no problems found"),
        Row("an image of 1 bit", lambda: again(IMAGE, "1"), "check data", 0, "no problems found"),
        Row("a JPEG called .png", lambda: again(IMAGE, format="JPEG"), "check data", 0, "no problems found"),
        Row("one image of 16 bits among those of 8", lambda: alter(IMAGE, deep), "check data", 0, "different depths"),
        Row("images of 16 bits", lambda: each("data/images", lambda path: alter(path, deep)),
            "plan data --preset smoke", 0, "data.window"),
        Row("an image of 1 x 1 pixel", lambda: (alter(IMAGE, lambda a: a[:1, :1]), alter(MASK, lambda a: a[:1, :1])),
            "check data", 0, "tiny image"),
        Row("an image eight times as large as the rest", lambda: (alter(IMAGE, large), alter(MASK, large)),
            "check data", 0, "size far from the rest"),
        Row("an image that is all black", lambda: alter(IMAGE, np.zeros_like), "check data", 0, "no problems found"),
        Row("one picture under two names",
            lambda: (shutil.copy(IMAGE, "data/images/z.png"), shutil.copy(MASK, "data/masks/z.png")),
            "check data", 0, "same picture twice"),
    ],
    "Masks": [
        Row("a mask that ends in its middle", lambda: cut(MASK, 0.5), "check data", 4, "masks/c03.png"),
        Row("a mask is missing", MASK.unlink, "check data", 4, "masks/c03.png is missing"),
        Row("the same, left out by hand", MASK.unlink, "check data --skip-bad", 0, "left out"),
        Row("an image is missing", IMAGE.unlink, "check data", 4, "mask without image"),
        Row("a mask of half the size, of the same shape", lambda: alter(MASK, lambda a: a[::2, ::2]),
            "check data", 0, "mask of another size"),
        Row("a mask of another shape", lambda: alter(MASK, lambda a: a[:, :40]), "check data", 4, "differ in shape"),
        Row("masks with alpha", lambda: each("data/masks", lambda path: again(path, "RGBA")),
            "check data", 0, "mask with alpha"),
        Row("masks saved as JPEG, smeared",
            lambda: each("data/masks", lambda path: again(path, to=path.with_suffix(".jpg"), quality=40)),
            "check data", 0, "rule half"),
        Row("masks saved as JPEG, and a dark one among them",
            lambda: (each("data/masks", lambda path: again(path, to=path.with_suffix(".jpg"), quality=40)),
                     alter(MASK.with_suffix(".jpg"), lambda a: a // 3)),
            "check data", 4, "c03.jpg"),
        Row("masks of 1 bit", lambda: each("data/masks", lambda path: again(path, "1")), "check data", 0, "rule nonzero"),
        Row("masks with a palette", lambda: each("data/masks", lambda path: again(path, "P")),
            "check data", 0, "rule nonzero"),
        Row("masks drawn in red",
            lambda: each("data/masks", lambda path: alter(path, lambda a: np.stack([a, a * 0, a * 0], -1))),
            "check data", 0, "rule"),
        Row("a mask of probabilities", lambda: alter(MASK, lambda a: a.astype(np.float32) / 300, MASK.with_suffix(".tif")),
            "check data", 4, "probability"),
        Row("an empty mask", lambda: alter(MASK, np.zeros_like), "check data", 0, "empty mask"),
        Row("every mask empty", lambda: each("data/masks", lambda path: alter(path, np.zeros_like)),
            "check data", 0, "most masks are empty"),
        Row("every mask empty, to be planned", lambda: each("data/masks", lambda path: alter(path, np.zeros_like)),
            "plan data --preset smoke", 0, "12 with an empty mask"),
        Row("every mask full", lambda: each("data/masks", lambda path: alter(path, lambda a: a * 0 + 255)),
            "check data", 0, "mask covers the image"),
        Row("one mask inverted", lambda: alter(MASK, lambda a: 255 - a), "check data", 0, "c03"),
        Row("one mask file for two images", lambda: shutil.copy(MASK, "data/masks/c04.png"),
            "check data", 0, "one mask for several"),
        Row("the images once more in place of the masks",
            lambda: each("data/images", lambda path: shutil.copy(path, f"data/masks/{path.name}")),
            "check data", 0, "grey"),
        Row("labels 1 and 2, and 255 in one mask", lambda: labels("odd", [1, 2, 255]),
            "check odd", 4, "255 beside small numbers"),
        Row("labels 1 and 2, and 7 in one mask", lambda: labels("odd", [1, 2, 7]), "check odd", 0, "classes"),
        Row("0 and 255, and 2 in one mask", lambda: labels("odd", [255, 255, 2]), "check odd", 4, "c05.png"),
        Row("a label that is none of those asked for", lambda: labels("odd", [1, 2, 7]),
            "plan odd --set data.mask_rule=labels --set data.label_values=[1,2]", 4, "7"),
    ],
    "Names": [
        Row("a.png and a.jpg, two images of one name", lambda: save(JPG, load(IMAGE)),
            "check data", 4, "two images of one name"),
        Row("names with spaces, brackets, umlauts and an emoji",
            lambda: [move(f"data/{kind}/c03.png", f"data/{kind}/Fall (3) für Ärzte 🩺.png") for kind in ("images", "masks")],
            "check data", 0, "no problems found"),
        Row("a name with a line break",
            lambda: [move(f"data/{kind}/c03.png", f"data/{kind}/c\n03.png") for kind in ("images", "masks")],
            "check data", 0, "no problems found"),
        Row("suffixes in capitals", lambda: (move(IMAGE, IMAGE.with_suffix(".PNG")), move(MASK, MASK.with_suffix(".Png"))),
            "check data", 0, "no problems found"),
        Row("two names that differ in capitals alone",
            lambda: [shutil.copy(f"data/{kind}/c03.png", f"data/{kind}/C03.png") for kind in ("images", "masks")],
            "check data", 0, "same picture twice"),
        Row("._c03.png, .DS_Store, Thumbs.db and __MACOSX beside the files",
            lambda: [put(f"data/{name}", b"\0\5\x16\7")
                     for name in ("images/._c03.png", "masks/._c03.png", ".DS_Store", "images/Thumbs.db", "__MACOSX/._c")],
            "check data", 0, "no problems found"),
        Row("a folder without a latin letter in its name", lambda: dataset("数据"), "check 数据", 2, "name"),
    ],
    "Folders": [
        Row("a folder that is not there", nothing, "check dta", 4, "no such folder"),
        Row("a file in place of the folder", nothing, "check data/images/c03.png", 4, "a file"),
        Row("the zip file itself", lambda: zipped("data.zip"), "check data.zip", 4, "a file"),
        Row("an empty folder", lambda: Path("empty").mkdir(), "check empty", 4, "no known dataset layout", lines=True),
        Row("images alone", nothing, "check photos", 4, "no masks", lines=True),
        Row("masks alone", lambda: (dataset("odd"), shutil.rmtree("odd/images")),
            "check odd", 4, "images/ is missing", lines=True),
        Row("images and masks in one folder",
            lambda: [shutil.copy(f"data/{kind}s/c0{i}.png", f"photos/c0{i}{end}.png") for i in range(4) for kind,
                     end in (("image", ""), ("mask", "_mask"))],
            "check photos", 4, "together", lines=True),
        Row("folders of other names, image/ and mask/", lambda: dataset("odd", images="image", masks="mask"),
            "check odd", 0, "no problems found"),
        Row("a folder called picture/", lambda: dataset("odd", images="picture"),
            "check odd", 4, "no known dataset layout", lines=True),
        Row("a folder called imagse/", lambda: dataset("odd", images="imagse"), "check odd", 4, "imagse", lines=True),
        Row("a zip file unpacked into a folder of its own name", lambda: dataset("odd/odd/odd"),
            "check odd", 0, "no problems found"),
        Row("only a part of the dataset given", nothing, "check data/images", 0, "no problems found"),
        Row("a folder of two datasets", lambda: (dataset("many/one"), dataset("many/two", first=150)),
            "check many", 4, "one/"),
        Row("images/ and masks/ without a file",
            lambda: [Path("odd", kind).mkdir(parents=True) for kind in ("images", "masks")],
            "check odd", 4, "no image"),
        Row("a folder that is a link to itself", lambda: Path("data/images/loop").symlink_to("."),
            "check data", 0, "no problems found"),
        Row("BUSI without its malignant/", lambda: save("busi/benign/benign (1).png", load(IMAGE)),
            "check busi", 4, "malignant", lines=True),
        Row("nnU-Net's dataset.json that ends in its middle",
            lambda: (dataset("odd", images="imagesTr", masks="labelsTr"), put("odd/dataset.json", '{"channel_names": ')),
            "check odd", 4, "dataset.json"),
        Row("nnU-Net's images without a channel's number",
            lambda: (dataset("odd", images="imagesTr", masks="labelsTr"),
                     put("odd/dataset.json", '{"channel_names": {"0": "grey"}, "labels": {"background": 0, "box": 255}}')),
            "check odd", 4, "channel's number"),
        Row("a layout mistyped", nothing, "check data --layout folder", 2, "Did you mean 'folders'?"),
        Row("a layout that does not fit", nothing, "check data --layout ph2", 4, "leave out --layout", lines=True),
        Row("another folder of the same name", lambda: dataset("elsewhere/data"), "check elsewhere/data", 2, "--dataset"),
    ],
    "Volumes": [
        Row("a NIfTI (.nii.gz) that ends in its middle", lambda: (volumes(), cut(V0, 0.5)), "check volumes", 4, "v0.nii.gz"),
        Row("a NIfTI (.nii) that ends in its middle",
            lambda: (volumes(), unzip(V0, V0.with_suffix("")), cut(V0.with_suffix(""), 0.5)),
            "check volumes", 4, "v0.nii"),
        Row("a .nii that is called .nii.gz", lambda: (volumes(), unzip(V0, V0)), "check volumes", 0, "volumes: layout"),
        Row("a PNG that is called .nii.gz", lambda: (volumes(), shutil.copy(IMAGE, V0)), "check volumes", 4, "v0.nii.gz"),
        Row("an image of 5 slices, a mask of 3", lambda: (volumes(), nifti(V0, np.ones((5, 32, 40), np.int16))),
            "check volumes", 4, "slices"),
        Row("a time series of 20 volumes", lambda: (volumes(), nifti(V0, np.ones((20, 3, 32, 40), np.int16))),
            "check volumes", 4, "time series"),
        Row("a big-endian NIfTI", lambda: (volumes(), nifti(V0, np.stack([pixels(9)[0][:32, :40]] * 3).astype(">i2"), ">")),
            "check volumes", 0, "volumes: layout"),
        Row("a NIfTI whose header places all voxels at one point", lambda: (volumes(), singular(V0)),
            "check volumes", 4, "affine"),
        Row("a .mhd without its .raw",
            lambda: (volumes(), V0.unlink(),
                     put("volumes/images/v0.mhd", MHD)),
            "check volumes", 4, "v0.mhd"),
        Row("DICOM files without an extension", lambda: with_dicom([0, 1, 2], ""), "check volumes", 0, "volumes: layout"),
        Row("two DICOM series in one folder", lambda: (with_dicom([0, 1, 2]), dicom([0, 1, 2], series=2)),
            "check volumes", 4, "series"),
        Row("a DICOM series without one of its slices", lambda: with_dicom([0, 1, 3, 4]), "check volumes", 4, "missing"),
        Row("a DICOM file that ends in its middle",
            lambda: (with_dicom([0, 1, 2]), cut("volumes/images/v0/1IM0001.dcm", 0.5)),
            "check volumes", 4, "1IM0001"),
    ],
    "Groups": [
        Row("a table of groups that is not there", nothing, "check data --groups groups.csv", 4, "groups.csv"),
        Row("a table without the columns", lambda: put("groups.csv", "id,patient\nc00,1\n"),
            "check data --groups groups.csv", 4, "found: id, patient"),
        Row("an Excel file for a table", lambda: zipped("groups.csv"), "check data --groups groups.csv", 4, "groups.csv"),
        Row("a table that misses a case",
            lambda: put("groups.csv", "case,group\n" + each_case(lambda c: f"{c},p{c[1:]}\n" if c != "c03" else "")),
            "check data --groups groups.csv", 4, "no group for 1 (c03)"),
        Row("a table with an unknown case",
            lambda: put("groups.csv", "case,group\nc99,p9\n" + each_case(lambda c: f"{c},p{c[1:]}\n")),
            "check data --groups groups.csv", 4, "no such case: 1 (c99)"),
        Row("a table with a case twice",
            lambda: put("groups.csv", "case,group\nc03,p9\n" + each_case(lambda c: f"{c},p{c[1:]}\n")),
            "check data --groups groups.csv", 4, "c03"),
        Row("a pattern that is none", nothing, "check data --group-regex '^(.+'", 2, "not a regular expression"),
        Row("a pattern without brackets", nothing, "check data --group-regex '^c'", 2, "brackets"),
        Row("a pattern that matches nothing", nothing, "check data --group-regex '^(p.+)_'", 2, "no match in 12 of 12"),
        Row("a pattern that gives one group", nothing, "check data --group-regex '^(c)'", 2, "one group"),
        Row("one case", lambda: dataset("odd", 1), "plan odd", 4, "add cases"),
        Row("two groups where five folds are asked for", nothing,
            "plan data --group-regex '^c(.)' --set split.folds=5", 4, "folds"),
    ],
    "Planning": [
        Row("a recipe mistyped", nothing, "plan data --recipe paper/ukan-bussi", 2, "Did you mean 'paper/ukan-busi'?"),
        Row("a recipe that is no YAML", lambda: put("own.yaml", "train: [1,\n"),
            "plan data --recipe own.yaml", 2, "own.yaml"),
        Row("a recipe with an unknown field", lambda: put("own.yaml", "train:\n  epoch: 5\n"),
            "plan data --recipe own.yaml", 2, "train.epochs"),
        Row("a recipe with a value of the wrong kind", lambda: put("own.yaml", "train:\n  epochs: many\n"),
            "plan data --recipe own.yaml", 2, "train.epochs"),
        Row("a recipe whose section is a number", lambda: put("own.yaml", "model: 3\n"),
            "plan data --recipe own.yaml", 2, "model"),
        Row("a setting without =", nothing, "plan data --set train.epochs", 2, "train.epochs=5"),
        Row("a setting mistyped", nothing, "plan data --set train.epoch=5", 2, "Did you mean 'train.epochs'?"),
        Row("a setting in the wrong section", nothing, "plan data --set data.epochs=5", 2, "Did you mean 'train.epochs'?"),
        Row("a word where a number is expected", nothing, "plan data --set train.epochs=many", 2, "train.epochs"),
        Row("a number below zero", nothing, "plan data --set train.epochs=-1", 2, "train.epochs"),
        Row("a bracket not closed", nothing, "plan data --set data.input_size=[256,256", 2, "data.input_size"),
        Row("one number where two are expected", nothing, "plan data --set data.input_size=256", 2, "data.input_size"),
        Row("an input size that is no multiple of the network's stride", nothing,
            "plan data --set data.input_size=[100,100]", 2, "multiple"),
        Row("a field that planning itself makes", nothing, "plan data --set data.dataset=busi", 2, "not to be set"),
        Row("an unknown model", nothing, "plan data --model ukam", 2, "ukan"),
        Row("a named size that the model does not have", nothing, "plan data --model unet --size papper", 2, "'paper'"),
        Row("a size that the model does not have", nothing, "plan data --set model.depth=4", 2, "model.depth"),
        Row("widths that the model cannot have", nothing, "plan data --set model.widths=[8,8]", 2, "widths"),
        Row("a mask rule mistyped", nothing, "plan data --set data.mask_rule=nonzeros", 2, "Did you mean 'nonzero'?"),
        Row("four channels of images that have three", nothing, "plan data --set data.channels=4", 2, "data.channels"),
        Row("one fold", nothing, "plan data --set split.folds=1", 2, "split.folds"),
        Row("more folds than cases", nothing, "plan data --set split.folds=50", 4, "12 groups"),
        Row("a batch larger than the dataset", nothing,
            "plan data --preset smoke --set train.batch_size=64", 0, "train.batch_size"),
        Row("a budget below zero", nothing, "plan data --budget-gib -1", 2, "budget"),
        Row("a budget that holds no image", nothing, "plan data --budget-gib 0.001", 2, "budget"),
        Row("a budget that no machine has", nothing, "plan data --budget-gib 9999999", 2, "budget"),
        Row("a budget that is no number", nothing, "plan data --budget-gib nan", 2, "budget"),
        Row("a preset mistyped", nothing, "plan data --preset quick", 2, "smoke"),
        Row("a name without letters", nothing, "plan data --name ///", 2, "letters"),
        Row("a folder with a damaged image", lambda: cut(IMAGE, 0.5), "plan data", 4, "--skip-bad"),
        Row("a damaged mask in an official test part",
            lambda: (dataset("odd/train"), dataset("odd/test", 3, 160), spoil("odd/test/masks/c01.png")),
            "plan odd", 4, "test/masks/c01.png"),
    ],
    "Training": [
        Row("a plan that is not there", nothing, "train plans/data/ukam.yaml", 2, "no such plan"),
        Row("the plan's folder in place of the plan", nothing, "train plans/data", 2, ".yaml"),
        Row("the dataset in place of the plan", nothing, "train data", 2, ".yaml"),
        Row("an image in place of the plan", nothing, "train data/images/c03.png", 2, "c03.png"),
        Row("a plan that is no YAML", lambda: edit(PLAN, "data:", "data: ["),
            "train plans/data/ukan.yaml", 2, "not readable as YAML"),
        Row("an empty plan", lambda: put(PLAN), "train plans/data/ukan.yaml", 2, "not a plan"),
        Row("a plan of a future version", lambda: edit(PLAN, "version: 4", "version: 9"),
            "train plans/data/ukan.yaml", 2, "install a newer ukan"),
        Row("a plan with a field mistyped by hand", lambda: edit(PLAN, "  epochs:", "  epoch:"),
            "train plans/data/ukan.yaml", 2, "train.epoch"),
        Row("a plan changed by hand after training began", lambda: edit(PLAN, "  epochs: 1", "  epochs: 2"),
            "train plans/data/ukan.yaml", 2, "begun with another plan", lines=True),
        Row("no index beside the plan", Path("plans/data/index.csv").unlink, "train plans/data/new.yaml", 4, "ukan plan"),
        Row("an index that ends in its middle", lambda: cut("plans/data/index.csv", 0.5),
            "train plans/data/new.yaml", 4, "ukan plan"),
        Row("the index of other images", lambda: edit("plans/data/index.csv", "c03", "c3"),
            "train plans/data/new.yaml", 4, "ukan plan"),
        Row("folds that end in their middle", lambda: cut("plans/data/new.splits.json", 0.5),
            "train plans/data/new.yaml", 4, "ukan plan"),
        Row("an image changed since planning", lambda: alter(IMAGE, lambda a: 255 - a),
            "train plans/data/new.yaml", 4, "c03"),
        Row("a mask deleted since planning", MASK.unlink, "train plans/data/new.yaml", 4, "c03"),
        Row("the dataset moved away", lambda: move("data", "data2"), "train plans/data/new.yaml", 4, "--data"),
        Row("another dataset given with --data", lambda: dataset("odd"),
            "train plans/data/new.yaml --data odd", 4, "ukan plan"),
        Row("a plan of the version before", lambda: edit(PLAN, "version: 4", "version: 3"),
            "train plans/data/ukan.yaml", 0, "finished folds: 0, 1 of 2"),
        Row("what resuming needs, damaged",
            lambda: (move(RUN / "fold_1/model.safetensors", "gone"), put(RUN / "fold_1/resume.pt", "PK")),
            "train plans/data/ukan.yaml", 4, "resume.pt"),
        Row("a device that there is not", nothing, "train plans/data/ukan.yaml --device gpu", 2, "--device gpu"),
        Row("a fold that there is not", nothing, "train plans/data/ukan.yaml --fold 5", 2, "folds 0 to 1"),
        Row("a time in other words", nothing, "train plans/data/ukan.yaml --max-time soon", 2, "--max-time"),
        Row("a run folder that is somebody's own", nothing, "train plans/data/ukan.yaml --run data", 2, "no run folder"),
        Row("a run folder that is a file", lambda: put("run"), "train plans/data/ukan.yaml --run run", 4, "run"),
        Row("fewer than no workers", nothing, "train plans/data/ukan.yaml --workers -1", 2, "workers"),
    ],
    "Evaluating and reporting": [
        Row("a run folder that is not there", nothing, "evaluate runs/data-ukam", 2, "runs/data-ukan"),
        Row("the plan in place of the run", nothing, "evaluate plans/data/ukan.yaml", 2, "not a run folder"),
        Row("evaluated before trained", lambda: [path.unlink() for path in RUN.rglob("*.safetensors")],
            "evaluate runs/data-ukan", 2, "ukan train"),
        Row("weights that end in their middle", lambda: cut(RUN / "fold_1/model.safetensors", 0.5),
            "evaluate runs/data-ukan", 4, "fold_1"),
        Row("weights of another network", lambda: edit(RUN / "plan.yaml", "widths: [8, 8, 8]", "widths: [8, 8, 16]"),
            "evaluate runs/data-ukan", 4, "fold_0"),
        Row("a run without its plan", (RUN / "plan.yaml").unlink, "evaluate runs/data-ukan", 2, "not a run folder"),
        Row("a run whose folds end in their middle", lambda: cut(RUN / "splits.json", 0.5),
            "evaluate runs/data-ukan", 4, "splits.json"),
        Row("a run whose index ends in its middle", lambda: cut(RUN / "index.csv", 0.5),
            "evaluate runs/data-ukan", 4, "index.csv"),
        Row("an image changed since training", lambda: alter(IMAGE, lambda a: 255 - a), "evaluate runs/data-ukan", 4, "c03"),
        Row("an image gone since training", IMAGE.unlink, "evaluate runs/data-ukan", 4, "c03"),
        Row("the dataset moved since training", lambda: move("data", "data2"), "evaluate runs/data-ukan", 4, "--data"),
        Row("a test part asked for where there is none", nothing, "evaluate runs/data-ukan --test", 2, "official test part"),
        Row("--test and --on at once", nothing, "evaluate runs/data-ukan --test --on data", 2, "one at a time"),
        Row("scored on its own training data", nothing,
            "evaluate runs/data-ukan --on data", 4, "every case was in training"),
        Row("another dataset that is not there", nothing, "evaluate runs/data-ukan --on odd", 4, "odd"),
        Row("another dataset of other classes", lambda: labels("odd", [1, 2]),
            "evaluate runs/data-ukan --on odd", 2, "classes"),
        Row("another dataset with a damaged mask", lambda: (dataset("odd"), cut("odd/masks/c01.png", 0.5)),
            "evaluate runs/data-ukan --on odd", 4, "ukan check"),
        Row("reported before evaluated",
            lambda: [path.unlink() for path in (RUN / "summary.json", RUN / "metrics_per_case.csv")],
            "report runs/data-ukan", 2, "ukan evaluate"),
        Row("a summary that ends after its first byte", lambda: put(RUN / "summary.json", "{"),
            "report runs/data-ukan", 4, "ukan evaluate"),
        Row("scores that end in their first line", lambda: put(RUN / "metrics_per_case.csv", "case,dice\nc00\n"),
            "report runs/data-ukan", 4, "ukan evaluate"),
        Row("scores of other weights than the run's", other_weights, "report runs/data-ukan", 4, "ukan evaluate"),
        Row("a run that does not know where its dataset is", lambda: put(RUN / "environment.json", "{"),
            "evaluate runs/data-ukan", 4, "--data"),
        Row("what tells known pictures, damaged", lambda: (dataset("odd"), cut(RUN / "thumbnails.npz", 0.5)),
            "evaluate runs/data-ukan --on odd", 4, "thumbnails.npz"),
        Row("a file for the dataset's folder", nothing, "evaluate runs/data-ukan --data photos/a.png", 4, "photos/a.png"),
    ],
    "Predicting": [
        Row("an image that is not there", nothing, "predict runs/data-ukan photos/z.png out", 4, "no such file"),
        Row("an empty folder of images", lambda: Path("empty").mkdir(), "predict runs/data-ukan empty out", 4, "no image"),
        Row("a folder of other files", lambda: put("texts/a.txt", "a"), "predict runs/data-ukan texts out", 4, "no image"),
        Row("no folder for the masks named", nothing, "predict runs/data-ukan photos", 2, "Missing argument"),
        Row("one bad image among good ones", lambda: cut("photos/a.png", 0.5),
            "predict runs/data-ukan photos out", 3, "photos/a.png"),
        Row("a PDF", lambda: put("scan.pdf", "%PDF-1.7"), "predict runs/data-ukan scan.pdf out", 4, "not an image"),
        Row("the images' own folder for the masks", nothing, "predict runs/data-ukan photos photos", 2, "overwrite"),
        Row("a folder inside the images' folder for the masks, twice",
            lambda: answer("predict runs/data-ukan photos photos/out"),
            "predict runs/data-ukan photos photos/out", 0, "2 already there"),
        Row("a file for the masks' folder", lambda: put("out"), "predict runs/data-ukan photos out", 2, "give a folder"),
        Row("a folder for the masks below a file", nothing,
            "predict runs/data-ukan photos photos/a.png/out", 4, "cannot be written"),
        Row("a folder with the masks of another run", lambda: (answer("predict runs/data-ukan photos out"), other_weights()),
            "predict runs/data-ukan photos out", 2, "give another folder"),
        Row("a list with paths that do not exist", lambda: put("list.txt", "photos/a.png\nphotos/x.png\n"),
            "predict runs/data-ukan list.txt out", 4, "photos/x.png"),
        Row("an empty list", lambda: put("list.txt"), "predict runs/data-ukan list.txt out", 4, "empty"),
        Row("two folders with images of one name", lambda: shutil.copytree("photos", "more"),
            "predict runs/data-ukan photos more out", 2, "separate folders"),
        Row("a fold that is not trained", nothing, "predict runs/data-ukan photos out --fold 7", 2, "finished are 0, 1"),
        Row("probabilities of an unknown kind", nothing, "predict runs/data-ukan photos out --probabilities png", 2, "npz"),
        Row("a picture in colour for a network of grey ones", lambda: again(Path("photos/a.png"), "RGB"),
            "predict runs/data-ukan photos out", 0, "2 written"),
        Row("a picture of 16 bits for a network of 8-bit ones", lambda: alter(Path("photos/a.png"), deep),
            "predict runs/data-ukan photos out", 3, "photos/a.png"),
        Row("a volume for a network of pictures", lambda: (volumes(1), move(V0, "photos/v0.nii.gz")),
            "predict runs/data-ukan photos out", 3, "v0.nii.gz"),
        Row("a picture of 1 x 1 pixel", lambda: alter(Path("photos/a.png"), lambda a: a[:1, :1]),
            "predict runs/data-ukan photos out", 0, "2 written"),
    ],
    "Diffusion": [
        Row("one image to learn from", lambda: dataset("odd", 1), "plan odd --task diffuse", 4, "add cases"),
        Row("a task mistyped", nothing, "plan data --task difuse", 2, "--task"),
        Row("another task than the recipe's", nothing,
            "plan data --task segment --recipe paper/diffusion-busi", 2, "leave one of them out"),
        Row("a field of segmentation in a plan of diffusion", nothing,
            "plan data --task diffuse --set train.dice_weight=1", 2, "train.dice_weight"),
        Row("classes to draw for, where the folder tells none", nothing,
            "plan data --task diffuse --set diffuse.condition=class", 2, "sub-folders"),
        Row("masks to draw for, where there are none", nothing,
            "plan photos --layout images --task diffuse --set diffuse.condition=mask", 2, "no masks"),
        Row("nothing held out of a segmentation", nothing, "plan data --set split.kind=all", 2, "set it to folds"),
        Row("an input size that the network cannot halve so often", nothing,
            "plan data --task diffuse --set data.input_size=[48,48]", 2, "multiple"),
        Row("a level of attention that there is not", nothing,
            "plan data --task diffuse --set model.attention=[7]", 2, "attention"),
        Row("a set of recipes of diffusion",
            lambda: put("middles.yaml", "recipe: paper/diffusion-busi\nvariants:\n  mlp: {model: {middle: mlp}}\n"),
            "ablate data middles.yaml", 2, "ukan fid"),
        Row("a scheduler that does not exist, to be planned", nothing,
            "plan data --task diffuse --set diffuse.scheduler=DDIN", 2, "Did you mean 'ddim'?"),
        Row("an option that a scheduler does not have", nothing,
            "plan data --task diffuse --set 'diffuse.scheduler_options={eta: 1}'", 2, "eta"),
        Row("more steps than timesteps", nothing,
            "plan data --task diffuse --set diffuse.steps=2000", 2, "diffuse.timesteps=1000"),
        Row("a scheduler that does not exist, in a plan",
            lambda: edit("plans/data/drawn.yaml", "scheduler: DDIM", "scheduler: DDIN"),
            "train plans/data/drawn.yaml --run runs/other", 2, "Did you mean 'ddim'?"),
        Row("a scheduler that does not exist", nothing,
            "sample runs/data-drawn out --scheduler dpm-solver", 2, "Did you mean 'dpm-solver++'?"),
        Row("more steps than the network knows", nothing, "sample runs/data-drawn out --steps 2000", 2, "1000 timesteps"),
        Row("no steps", nothing, "sample runs/data-drawn out --steps 0", 2, "at least 1"),
        Row("no images", nothing, "sample runs/data-drawn out -n 0", 2, "at least one"),
        Row("a class of a run that knows none", nothing, "sample runs/data-drawn out --class benign", 2, "leave it out"),
        Row("masks for a run that was not trained with any", nothing,
            "sample runs/data-drawn out --masks data/masks", 2, "leave it out"),
        Row("guidance without anything to follow", nothing, "sample runs/data-drawn out --guidance 3", 2, "leave it out"),
        Row("a folder of masks that is not there", nothing, "sample runs/data-masked out --masks msks", 4, "no such folder"),
        Row("an empty folder of masks", lambda: Path("empty").mkdir(),
            "sample runs/data-masked out --masks empty", 4, "no masks"),
        Row("the images in place of the masks", nothing,
            "sample runs/data-masked out --masks data/images", 4, "do not match"),
        Row("a damaged mask among good ones", lambda: cut(MASK, 0.5),
            "sample runs/data-masked out --masks data/masks", 4, "c03.png"),
        Row("a folder that holds something else", nothing, "sample runs/data-drawn data", 2, "give another folder"),
        Row("a folder with images drawn otherwise", nothing,
            "sample runs/data-drawn drawn --steps 3", 2, "steps: 2 -> 3"),
        Row("the same, in the same way", nothing, "sample runs/data-drawn drawn -n 5", 0, "1 images written"),
        Row("what says how images were drawn, damaged", lambda: cut("drawn/sample.json", 0.5),
            "sample runs/data-drawn drawn", 4, "drawn/sample.json"),
        Row("sampled before trained", (DRAWN / "fold_0/model.safetensors").unlink,
            "sample runs/data-drawn out", 2, "ukan train"),
        Row("a fold that was not trained", nothing, "sample runs/data-drawn out --fold 1", 2, "ukan train"),
        Row("drawn weights that end in their middle", lambda: cut(DRAWN / "fold_0/model.safetensors", 0.5),
            "sample runs/data-drawn out", 4, "fold_0"),
        Row("images from a run of segmentation", nothing, "sample runs/data-ukan out", 2, "a run of the task segment"),
        Row("masks by a run of diffusion", nothing, "predict runs/data-drawn photos out", 2, "a run of the task diffuse"),
        Row("a look inside a run of diffusion", nothing, "explain runs/data-drawn", 2, "a run of the task diffuse"),
        Row("a test part of a run of diffusion", nothing, "evaluate runs/data-drawn --test", 2, "of segmentation"),
        Row("a dataset that moved, of a run that draws for its masks", lambda: move("data", "data2"),
            "sample runs/data-masked out", 4, "--data"),
        Row("one image to compare with", lambda: save("one/a.png", load(IMAGE)),
            f"fid data/images one {BY_RUN}", 4, "at least 4"),
        Row("images of different sizes", nothing, f"fid data/images drawn {BY_RUN}", 4, "--size"),
        Row("a damaged image among those compared", lambda: cut(IMAGE, 0.5),
            f"fid data/images data/masks {BY_RUN}", 4, "c03.png"),
        Row("one folder for both sides", nothing, f"fid drawn drawn {BY_RUN}", 2, "both sides"),
        Row("images that another run drew", nothing,
            f"fid runs/data-masked drawn {BY_RUN}", 2, "give the run that drew them"),
        Row("features of a run of diffusion", nothing,
            "fid data/images data/masks --features run:runs/data-drawn", 2, "a run of the task diffuse"),
        Row("features mistyped", nothing, "fid data/images data/masks --features incption", 2, "inception"),
        Row("Inception's weights neither here nor to be fetched", offline,
            "fid data/images data/masks", 2, "--weights FILE"),
        Row("Inception's weights cut off", lambda: put("weights-inception-2015-12-05-6726825d.pth", b"PK\3\4"),
            "fid data/images data/masks --weights weights-inception-2015-12-05-6726825d.pth", 4, "fetch it again"),
        Row("weights of another network for Inception's", lambda: put("weights-63335802.pth", other_network()),
            "fid data/images data/masks --weights weights-63335802.pth", 4, "Inception-v3"),
        Row("a file for Inception's weights that holds none", lambda: put("weights-c814b209.pth", b"no weights"),
            "fid data/images data/masks --weights weights-c814b209.pth", 4, "fetch it again"),
        Row("Inception's weights without a hash in their name", lambda: put("inception.pth", b"PK\3\4"),
            "fid data/images data/masks --weights inception.pth", 2, "keep the name"),
        Row("images to learn from, drawn by a run that is none", nothing,
            "plan data --set data.synthetic=runs/none", 2, "not a run folder"),
        Row("images to learn from, drawn by a run of segmentation", nothing,
            "plan data --set data.synthetic=runs/data-ukan", 2, "a run of the task segment"),
        Row("images to learn from, drawn without masks", nothing,
            "plan data --set data.synthetic=runs/data-drawn", 2, "drawn without masks"),
        Row("images to learn from, drawn by a network that saw what will be scored",
            lambda: answer(f"plan data {SMALL} --name helped --set data.synthetic=runs/data-masked"),
            "train plans/data/helped.yaml --fold 1", 2, "ukan train PLAN --fold"),
    ],
    "The command line": [
        Row("an unknown command", nothing, "trian plans/data/ukan.yaml", 2, "trian"),
        Row("an unknown option", nothing, "train plans/data/ukan.yaml --epochs 5", 2, "--epochs"),
        Row("an argument forgotten", nothing, "train", 2, "Missing argument"),
        Row("a demonstration of an unknown kind", nothing, "demo --kind knee", 2, "--kind"),
        Row("a kind mistyped", nothing, "demo --kind histolgy", 2, "Did you mean 'histology'?"),
        Row("a device that there is not, asked of the doctor", nothing, "doctor --device gpu", 2, "gpu"),
        Row("a number of a dataset that nnU-Net does not take", nothing, "export-nnunet data out --id 0", 2, "--id 0"),
    ],
}
# fmt: on


# How a row is run, and what its answer is.


class Answer(NamedTuple):
    code: int
    line: str
    """The line that says it."""
    stderr: list[str]
    """All that is said beside results."""


@contextmanager
def written_to(*places: Any) -> Iterator[None]:
    """Stdout and stderr go to two files, from libraries in C too."""
    kept = [os.dup(number) for number in (1, 2)]
    try:
        for number, place in enumerate(places, start=1):
            os.dup2(place.fileno(), number)
        with (
            open(1, "w", encoding="utf-8", closefd=False) as out,
            open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            yield
    finally:
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)


def answer(command: str, says: str = "") -> Answer:
    """Run a command as a shell would. Its line is the first to hold `says`: of stderr, of problems.csv, of stdout."""
    from ukan_cli.main import main

    argv, sys.argv, code = sys.argv, ["ukan", *shlex.split(command)], 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            with written_to(out, err):
                main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = argv
        said, told = ([plain(line) for line in read_again(file).splitlines()] for file in (out, err))
    told = [line for line in told if not re.fullmatch(r"\w+: \d+/\d+", line)]  # what a slow machine says of its progress
    if told and told[0].startswith("Usage: "):  # the command line's own way, which ends with the mistake
        told = [line for line in told if line.startswith("Error: ")]
    lines = [*told, *problems(said), *said]
    return Answer(code, next((line for line in lines if says in line), ""), told)


def read_again(file: Any) -> str:
    file.seek(0)
    return file.read().decode("utf-8")


def plain(line: str) -> str:
    """Without what differs between machines, and without the spaces that align a table."""
    here = str(Path.cwd())
    line = line.replace(here, "~").replace(str(Path(here).resolve()), "~")
    line = re.sub(r"\[Errno \d+\] ", "", line)
    return re.sub(r"\d+\.\d GiB (is |are )?free", "... GiB free", " ".join(line.split()))


def problems(said: Sequence[str]) -> list[str]:
    """The rows of the table that `ukan check` shows, as its file has them."""
    written = [word for line in said if line.startswith("written: ") for word in line.split(", ")]
    path = next((Path(word) for word in written if word.endswith("problems.csv")), None)
    if path is None:
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [plain("{level}: {kind}: {where}: {what}; {do}".format(**row)) for row in csv.DictReader(file)]


def build(base: Path) -> None:
    """The sound world, made in the place where rows will find it: a run notes where its dataset lies."""
    here = base / "here"
    here.mkdir()
    os.chdir(here)
    dataset("data", 12, first=0)
    for name, seed in (("a", 90), ("b", 91)):
        save(f"photos/{name}.png", pixels(seed)[0])
    new = "--set data.input_size=[64,64] --name new"
    drawn, masked = "--name drawn", "--name masked --set diffuse.condition=mask"
    for command in (
        *(f"plan data {SMALL} {new}", f"plan data {SMALL}", f"train {PLAN}", f"evaluate {RUN}"),
        *(f"plan data {SMALL_DRAWN} {drawn}", "train plans/data/drawn.yaml", f"sample {DRAWN} drawn -n 4"),
        *(f"plan data {SMALL_DRAWN} {masked}", "train plans/data/masked.yaml"),
    ):
        done = answer(command)
        assert done.code == 0, (command, done)
    os.chdir(base)
    here.rename(base / "sound")


def play(row: Row, base: Path) -> tuple[Answer, set[str]]:
    """Make and run a row; its answer, and the files that were not there before."""
    here = base / "here"
    os.chdir(base)
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(base / "sound", here)
    os.chdir(here)
    kept = dict(os.environ)
    try:
        row.make()
        before = files(here)
        return answer(row.command, row.says), files(here) - before
    finally:
        os.environ.clear()
        os.environ.update(kept)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def lines_of_page() -> dict[str, str]:
    """What is on the page, by the first cell."""
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in rows}


def line_of_page(row: Row, line: str) -> str:
    cells = (row.what, code(f"ukan {row.command}"), str(row.code), code(line) + " ..." * row.lines)
    return f"| {' | '.join(cells)} |"


def code(text: str) -> str:
    """Code within a table of Markdown."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


INTRODUCTION = """# What bad and odd inputs are answered with

Each row is made and run by `tests/test_bad_inputs.py`; `python tests/test_bad_inputs.py --write` writes this page. At the
start of a row all is well: `data/` is a dataset of 12 small grey pictures (`images/c00.png`, `masks/c00.png`, ...),
`plans/data/ukan.yaml` and `plans/data/new.yaml` are plans, `runs/data-ukan` is a run of the first, trained and evaluated,
and `photos/` holds two new pictures; `runs/data-drawn` and `runs/data-masked` are runs of diffusion, from noise alone and
for masks, with fold 0 of 2 trained, and `drawn/` holds four images by the first. Then one thing is put wrong, or is merely
unusual.

The answer is the line that a person gets. `ukan check` collects everything in one table: there it is a row of this table,
with level, kind, place, what is wrong, and what to do. The exit code is 0 where all is well, 2 for something asked for that
cannot be done, 3 where single inputs failed, and 4 for files that cannot be used. An answer with ... behind it goes on: with
the folders found and expected, or with what differs. None of these leaves a plan, a network or a mask behind that is half
written."""


def page(lines: dict[str, str]) -> str:
    parts = [INTRODUCTION]
    for title, rows in TABLE.items():
        head = f"## {title}\n\n| What | Typed | Exit | Answer |\n|---|---|---|---|"
        parts.append("\n".join([head, *(lines[row.what] for row in rows)]))
    return "\n\n".join(parts) + "\n"


ROWS = [row for rows in TABLE.values() for row in rows]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, cache_home: Path) -> Path:
    made = tmp_path_factory.mktemp("bad-inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        patch.chdir(made)
        build(made)
    return made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_bad_input_gets_the_line_of_the_page_and_leaves_nothing(row: Row, base: Path, cache_home: Path) -> None:
    if row.unless:
        pytest.skip("cannot be made here")
    found, new = play(row, base)
    assert (found.code, row.says in found.line) == (row.code, True), found
    assert all(line.startswith(("ukan: ", "Error: ")) for line in found.stderr[:1]), found.stderr
    if row.code == 0:
        assert not found.stderr
    elif row.code != 3 and not row.lines:
        assert len(found.stderr) <= 1, found.stderr
    left = [*base.rglob(".writing-*"), *cache_home.rglob(".making-*")]
    assert not left
    if row.code in (2, 4):  # what a check notes may stay, and a run that was begun, but no plan, no network and no mask
        kept = re.compile(r"plans/[^/]+/[^/]+(?<!\.yaml)$|runs/[^/]+/[^/]+$")
        assert not [path for path in new if not kept.match(path)]
    assert lines_of_page().get(row.what) == line_of_page(row, found.line)


def test_the_page_holds_these_rows_and_no_others() -> None:
    assert len(ROWS) == len({row.what for row in ROWS}) >= 60
    assert page(lines_of_page()) == PAGE.read_text(encoding="utf-8")


def write_page() -> None:
    lines = lines_of_page()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
        base = Path(folder, "base")
        base.mkdir()
        build(base)
        for row in ROWS:
            if row.unless:
                print(f"kept as it is, cannot be made here: {row.what}")
                continue
            found, _ = play(row, base)
            if found.code != row.code or row.says not in found.line:
                sys.exit(f"nothing written. {row.what}: {row.says!r} and {row.code} expected, got {found}")
            lines[row.what] = line_of_page(row, found.line)
        os.chdir(PAGE.parent)
    PAGE.write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: python {sys.argv[0]} --write")
    write_page()
