"""A checkpoint of the public U-KAN or KM-UNet repository becomes a run that answers like it, or is refused in one line.

Published names, shapes and answers lie beside the checkout (shared/golden), as for tests/models/.
"""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from sklearn.model_selection import train_test_split
from typer.testing import CliRunner
from ukan_cli.main import app

from ukan import import_official
from ukan.data.splits import published_split
from ukan.errors import DataError, UserError
from ukan.models.km_unet import KMUNet
from ukan.models.ukan import UKAN
from ukan.nn.kan import KANLinear
from ukan.runs import open_run

SHARED = Path(__file__).resolve().parents[3] / "shared"
# The arguments of the published train.py, as its config.yml holds them.
CONFIG = {
    **{"name": "my_UKAN", "epochs": 400, "batch_size": 8, "dataseed": 6142, "arch": "UKAN", "deep_supervision": False},
    **{"input_channels": 3, "num_classes": 1, "input_w": 32, "input_h": 64, "input_list": [8, 8, 16]},
    **{"loss": "BCEDiceLoss", "dataset": "my", "data_dir": "inputs", "output_dir": "outputs", "optimizer": "Adam"},
    **{"lr": 1e-4, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "kan_lr": 1e-2, "kan_weight_decay": 1e-4},
    **{"scheduler": "CosineAnnealingLR", "min_lr": 1e-5, "factor": 0.1, "patience": 2, "milestones": "1,2", "gamma": 2 / 3},
    **{"early_stopping": -1, "cfg": None, "num_workers": 4, "no_kan": False},
}
FILE = Path("outputs/my_UKAN/model.pth")
RUN = Path("runs/my-ukan-official")
DEAD = ("dblock1", "dblock2", "dnorm3", "dnorm4", "cbam", "cbam1", "cbam2")  # of KM_UNet: built, never called


def ukan(*words: object, code: int = 0) -> str:
    """What a command prints; an error meant for people is given as the line that main() prints."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        assert result.exception.exit_code == code and "\n" not in str(result.exception), result.exception
        return str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def state(outputs: int = 1, **sizes: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = UKAN(3, outputs, **{"widths": (8, 8, 16)} | sizes)
    return dict(network.state_dict())


def km_unet(dead: bool = True, **others: torch.Tensor | None) -> dict[str, Any]:
    """What a small KM_UNet would save; some entries others, or gone (None)."""
    torch.manual_seed(0)
    weights = dict(KMUNet(3, 1, widths=(8, 8, 16), as_published=True).state_dict())
    if dead:
        weights |= {name: tensor for name, tensor in state().items() if name.startswith(("dblock", "dnorm"))}
        for name in ("cbam", "cbam1", "cbam2"):
            weights[f"{name}.channel_attention.shared_MLP.0.weight"] = torch.rand(1, 16, 1, 1)
            weights[f"{name}.spatial_attention.conv2d.bias"] = torch.rand(1)
    weights |= {name.replace("__", "."): tensor for name, tensor in others.items()}  # type: ignore[misc]
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


def without_attention() -> dict[str, Any]:
    return {name: tensor for name, tensor in km_unet().items() if not name.startswith("ema")}


def save(content: Any, config: dict[str, Any] | str | None = CONFIG, file: Path = FILE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    if config is not None:
        text = config if isinstance(config, str) else yaml.dump(config)
        file.with_name("config.yml").write_text(text)
    return file


def published(truth: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The state dict of a golden file: every name that the published network saves, filled by the file's rule."""
    weights: dict[str, torch.Tensor] = {}
    for k, (name, shape) in enumerate(truth["entries"]):
        s = torch.sin(0.7 * torch.arange(math.prod(shape), dtype=torch.float64) + k).view(shape)
        if name.endswith("running_var"):
            s = 1 + 0.1 * s
            weights[name.replace("running_var", "num_batches_tracked")] = torch.tensor(1234)
        elif name.endswith("running_mean"):
            s = 0.1 * s
        elif len(shape) >= 2:
            s = s / math.sqrt(s.numel() / shape[0])
        else:
            s = 1 + 0.1 * s if name.endswith("weight") else 0.1 * s
        weights[name] = s.float()
        if name.endswith("spline_weight"):
            knots = -1 + 0.4 * torch.arange(-3, 9, dtype=torch.float64)
            weights[name.replace("spline_weight", "grid")] = knots.expand(shape[1], -1).float().contiguous()
    return weights


@pytest.mark.parametrize(
    ("file", "wrapped", "widths"),
    [("ukan_small", False, [64, 96, 128]), ("ukan_base", True, [128, 160, 256]), ("km_unet", False, [128, 160, 256])],
)
def test_an_imported_network_answers_as_the_published_one(file: str, wrapped: bool, widths: list[int]) -> None:
    path = SHARED / "golden" / f"{file}.json"
    if not path.is_file():
        pytest.skip(f"published answers not beside the checkout ({path})")
    truth = json.loads(path.read_text(encoding="utf-8"))
    weights = published(truth)
    if wrapped:
        weights = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}  # type: ignore
    run = import_official(save(weights, None))
    assert run.plan.model.sizes["widths"] == widths
    network = open_run(run.folder.root).network(0, torch.device("cpu"))
    height, width = truth["input"]
    c, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (3, height, width)), indexing="ij")
    with torch.no_grad():
        logits = network((torch.sin(0.05 * (y + 1) * (c + 1)) * torch.cos(0.07 * (x + 1)))[None])
    assert (logits.flatten()[truth["at"]] - torch.tensor(truth["values"])).abs().max() <= 1e-5
    assert logits.mean().item() == pytest.approx(truth["mean"], abs=1e-5)
    if file == "km_unet":
        assert sum(parameter.numel() for parameter in network.parameters()) == 5_739_009
        assert "5,739,009 of its 7,012,554 parameters are live" in " ".join(run.environment()["imported"]["notes"])


def test_dead_parts_of_a_km_unet_are_ignored_by_name_and_both_counts_told() -> None:
    live = KMUNet(3, 1, widths=(8, 8, 16), as_published=True).eval()
    live.load_state_dict(km_unet(dead=False))
    spoilt = {name: t * math.nan if name.startswith(DEAD) else t for name, t in km_unet().items()}  # nothing reads them
    out = ukan("import-official", save(spoilt, CONFIG | {"arch": "KM_UNet"}))
    count = sum(parameter.numel() for parameter in live.parameters())
    of_dead = sum(p.numel() for name, p in UKAN(3, 1, widths=(8, 8, 16)).named_parameters() if name.startswith(DEAD))
    assert f"{count:,} of its {count + of_dead + 3 * 17:,} parameters are live" in out and ", ".join(DEAD) in out
    assert "KM-UNet, widths 8, 8, 16, layers kan, kan, kan, at 32x64" in out and "arch" not in out
    network = open_run(RUN).network(0, torch.device("cpu"))
    assert network.state_dict().keys() == km_unet(dead=False).keys()
    image = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(network(image), live(image), rtol=0, atol=1e-6)

    stripped = import_official(save(km_unet(dead=False)), run=Path("stripped"))
    notes = " ".join(stripped.environment()["imported"]["notes"])
    assert "live" not in notes, "nothing was left out"
    assert "arch: UKAN is not the KM-UNet" in notes


def test_a_km_unet_is_planned_by_its_recipe_predicts_and_is_scored_on_the_published_split(write_dataset) -> None:
    write_dataset(Path("data"), 5, colour=True)
    save(km_unet(), CONFIG | {"name": "my_KM_UNet", "arch": "KM_UNet", "epochs": 7})
    out = ukan("import-official", FILE, "--data", "data")
    assert "4 cases it was trained on, 1 held out by dataseed 6142" in out
    run = Path("runs/my-km-unet-official")
    plan = open_run(run).plan
    assert (plan.model.name, plan.model.sizes["as_published"], plan.train.epochs) == ("km-unet", True, 7)
    assert (plan.train.augment.hflip, plan.train.augment.any_flip) == (0.5, 0), "HorizontalFlip in place of Flip"
    assert (plan.protocol, plan.data.colour_order, plan.data.normalization) == ("paper", "bgr", "published")
    assert plan.reasons["train.epochs"] == "epochs: config.yml" and not plan.published
    assert "never calls" in plan.reasons["model.as_published"] and plan.reasons["model.widths"] == "as the weights are"
    assert "1 scores of 1 cases" in ukan("evaluate", run)
    assert "5 written" in ukan("predict", run, "data/images", "out")


def test_predict_reads_stretches_and_normalises_as_published() -> None:
    torch.manual_seed(0)
    network = UKAN(3, 1, widths=(32, 32, 32))
    with torch.no_grad():  # running means and deviations of images so normalised, or they would hardly show in the answer
        for _ in range(20):
            network(torch.randn(2, 3, 64, 32) / 255)
    save(network.eval().state_dict(), CONFIG | {"input_list": [32, 32, 32]})
    ukan("import-official", FILE)
    Path("photos").mkdir()
    picture = np.kron(np.random.default_rng(0).integers(0, 256, (10, 13, 3)), np.ones((10, 7, 1))).astype(np.uint8)
    cv2.imwrite("photos/a.png", picture)
    ukan("predict", RUN, "photos", "out", "--probabilities", "image")

    def restated(flags: int, divisions: int) -> np.ndarray:
        image = cv2.imread("photos/a.png", flags)
        small = cv2.resize(image, (32, 64), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        small = (small - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225]) / 255**divisions
        with torch.no_grad():
            logits = network(torch.from_numpy(np.moveaxis(small, 2, 0)[None]).float())
        found = torch.sigmoid(logits)[0, 0].numpy()
        return cv2.resize(found, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    expected = restated(cv2.IMREAD_COLOR, 1)
    found = cv2.imread("out/probabilities/a.png", cv2.IMREAD_UNCHANGED) / 65535
    assert found.shape == picture.shape[:2]
    assert np.abs(found - expected).max() < 2e-5
    assert (cv2.imread("out/a.png", cv2.IMREAD_UNCHANGED) == 255 * (expected > 0.5)).mean() > 0.999
    for other in (restated(cv2.IMREAD_COLOR_RGB, 1), restated(cv2.IMREAD_COLOR, 0)):
        assert np.abs(found - other).max() > 1e-3, "the comparison would not see another colour order or scale"


@pytest.mark.parametrize(
    "sizes",
    [
        {"widths": (16, 8, 24), "kan_layers": ("mlp", "kan", "mlp", "kan")},
        {"kan_layers": ("mlp",) * 3},
        {"kan_layers": ("kan",), "grid_size": 8, "spline_order": 2},
        {"grid_size": 3, "spline_order": 4, "spline_scaler": False},
    ],
)
def test_sizes_are_told_from_the_weights_and_nothing_is_lost(sizes: dict[str, Any]) -> None:
    torch.manual_seed(1)
    network = UKAN(3, 3, **{"widths": (8, 8, 16)} | sizes).eval()
    for layer in (module for module in network.modules() if isinstance(module, KANLinear)):
        layer.set_knots(layer.grid * 1.5 + torch.rand(layer.in_features, 1))  # knots are weights, too
    run = import_official(save(network.state_dict(), None))
    found = run.plan.model.sizes
    for name, value in sizes.items():
        assert found[name] == (list(value) if isinstance(value, tuple) else value)
    assert run.plan.data.classes == ("0", "1", "2") and run.plan.data.target == "multilabel"
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.allclose(run.network(0, torch.device("cpu"))(image), network(image), rtol=0, atol=1e-5)


def test_the_plan_says_where_all_of_it_came_from() -> None:
    save(state(), CONFIG | {"epochs": 7, "kan_lr": 0.005, "batch_size": 4})
    out = ukan("import-official", FILE)
    assert f"ukan predict {RUN}" in out and f"ukan evaluate {RUN} --on FOLDER" in out
    run = open_run(RUN)
    data, train = run.plan.data, run.plan.train
    assert (run.plan.protocol, data.colour_order, data.normalization) == ("paper", "bgr", "published")
    assert (data.interpolation, data.resize, data.input_size, data.dataset) == ("linear", "stretch", (64, 32), "my")
    assert (train.epochs, train.lr_kan, train.batch_size, run.plan.split.seeds) == (7, 0.005, 4, (6142,))
    sha256 = run.environment()["imported"]["sha256"]
    assert run.plan.reasons["recipe"] == f"imported from model.pth, sha256 {sha256}"
    assert run.environment()["imported"]["config"]["kan_lr"] == 0.005 and not run.plan.published


def test_safetensors_and_a_config_elsewhere_do_as_well(tmp_path: Path) -> None:
    save(state())
    Path("weights").mkdir()
    save_file(state(), "weights/my.safetensors")
    run = import_official(Path("weights/my.safetensors"), config=FILE.with_name("config.yml"), run=Path("here"))
    assert run.folder.root == Path("here") and run.plan.split.seeds == (6142,)
    named = import_official(Path("weights/my.safetensors"))
    assert named.folder.root == Path("runs/weights-official"), "named after the folder where no config names it"


def test_what_config_leaves_open_or_does_not_decide_is_told() -> None:
    save(state(), None)
    out = ukan("import-official", FILE, "--run", "a")
    assert "no config.yml beside it" in out and "input_h 256, input_w 256, dataseed 2981" in out
    odd = {"no_kan": True, "input_channels": 1, "optimizer": "SGD", "arch": "UNext"}
    save(state(), {key: value for key, value in (CONFIG | odd).items() if key != "dataseed"})
    out = ukan("import-official", FILE, "--run", "b")
    for words in ("no_kan", "input_channels", "optimizer SGD", "arch: UNext", "does not say all", "dataseed 2981"):
        assert words in out


def test_a_run_that_is_there_is_not_overwritten() -> None:
    save(state())
    ukan("import-official", FILE)
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*")}
    assert "--run FOLDER" in ukan("import-official", FILE, code=2)
    assert {path: path.stat().st_mtime_ns for path in RUN.rglob("*")} == before


# With and without its dataset.


def test_without_its_dataset_a_run_predicts_is_scored_on_others_and_says_what_it_does_not_know(write_dataset) -> None:
    write_dataset(Path("other"), 4, colour=True)
    save(state())
    assert "not known here which images" in ukan("import-official", FILE)
    assert "4 written" in ukan("predict", RUN, "other/images", "out", "--overlay")
    for command in ("evaluate", "report"):
        said = ukan(command, RUN, code=2)
        assert "imported without the dataset" in said and "--on FOLDER" in said and "--data FOLDER" in said
    assert "imported without the dataset" in ukan("evaluate", RUN, "--test", code=2)
    assert "imported without the dataset" in ukan("evaluate", RUN, "--data", "other", code=2)
    out = ukan("evaluate", RUN, "--on", "other")
    assert "4 scores of 4 cases" in out and "trained on is not known" in out and "ukan report" not in out
    assert json.loads((RUN / "external/other/summary.json").read_text(encoding="utf-8"))["training_known"] is False
    ukan("train", RUN / "plan.yaml", code=4)


def test_with_its_dataset_the_published_split_is_rebuilt_and_only_what_it_holds_out_is_scored(write_dataset) -> None:
    write_dataset(Path("data"), 12, colour=True)
    save(state())
    out = ukan("import-official", FILE, "--data", "data")
    assert "9 cases it was trained on, 3 held out by dataseed 6142" in out and f"ukan evaluate {RUN}\n" in out
    train, val = train_test_split([f"c{k:03}" for k in range(12)], test_size=0.2, random_state=6142)
    assert open_run(RUN).splits == [{"train": train, "val": val}]
    for name in ("index.csv", "problems.csv", "fingerprint.json", "thumbnails.npz"):
        assert (RUN / name).exists(), name
    assert not Path("plans").exists()
    out = ukan("evaluate", RUN)
    assert "3 scores of 3 cases" in out and "epoch was chosen" in out and "iou_pooled" in out
    summary = json.loads((RUN / "summary.json").read_text(encoding="utf-8"))
    assert summary["training_known"] and summary["protocol"] == "paper" and summary["folds"] == [0]
    assert {path.stem for path in (RUN / "predictions/fold_0").iterdir()} == set(val)
    ukan("report", RUN)
    page = (RUN / "report.html").read_text(encoding="utf-8")
    assert "imported from" in page and "epoch that is best" in page and "how it was trained is not known" not in page
    assert "every case was in training" in ukan("evaluate", RUN, "--on", "data", code=4)


def test_the_published_split_sorts_names_of_files_not_of_cases() -> None:
    files = sorted(["a.png", "a-1.png", "a-2.png", "b (1).png", "b (10).png", "b.png"])
    train, val = train_test_split([file.removesuffix(".png") for file in files], test_size=0.2, random_state=1)
    assert published_split(["a", "a-1", "a-2", "b", "b (1)", "b (10)"], 1) == {"train": train, "val": val}


def test_several_classes_are_independent_and_named_by_number_or_by_hand(write_dataset) -> None:
    write_dataset(Path("data"), 6, colour=True)
    Path("data/masks").rename("data/one")
    for name in ("0", "1"):
        Path("data/masks", name).mkdir(parents=True)
        for path in Path("data/one").iterdir():
            Path("data/masks", name, path.name).write_bytes(path.read_bytes())
    for path in Path("data/one").iterdir():
        path.unlink()
    Path("data/one").rmdir()
    save(state(outputs=2), CONFIG | {"num_classes": 2})
    run = import_official(FILE, data=Path("data"), run=Path("a"))
    assert (run.plan.data.target, run.plan.data.classes) == ("multilabel", ("0", "1"))
    assert "2 scores of 2 cases" in ukan("evaluate", "a")
    ukan("import-official", FILE, "--run", "b", "--classes", "gland, vessel")
    ukan("predict", "b", "data/images", "out")
    assert {path.name for path in Path("out").iterdir()} >= {"gland", "vessel"}
    assert "3 names for the 2 class(es)" in ukan("import-official", FILE, "--run", "c", "--classes", "a,b,c", code=2)
    assert "names of folders" in ukan("import-official", FILE, "--run", "c", "--classes", "a/b,c", code=2)
    assert "the files name them 0, 1" in ukan(
        "import-official", FILE, "--run", "c", "--data", "data", "--classes", "a,b", code=2
    )
    save(state(outputs=3), CONFIG | {"num_classes": 3})
    assert "masks show 2 class(es) (0, 1)" in ukan("import-official", FILE, "--run", "c", "--data", "data", code=4)


# What cannot be imported.


def touched() -> None:
    Path("touched").touch()


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return touched, ()


def changed(**entries: Any) -> dict[str, Any]:
    """A state dict in which some entries are others, or gone (None)."""
    weights = state() | {name.replace("__", "."): tensor for name, tensor in entries.items()}
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


def cut() -> None:
    content = save(state()).read_bytes()
    FILE.write_bytes(content[: len(content) // 2])


def spoil() -> None:
    content = bytearray(save(state()).read_bytes())
    content[len(content) // 2] ^= 1
    FILE.write_bytes(content)


def cut_safetensors() -> None:
    save({})
    save_file(state(), FILE)
    FILE.write_bytes(FILE.read_bytes()[:5000])
    FILE.rename(FILE.with_suffix(".safetensors"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: save({}), "no weights by name"),
        (lambda: save([1, 2]), "no weights by name"),
        (lambda: save({"epoch": 3, "optimizer": {}}), "no weights by name"),
        (lambda: save(UKAN(3, 1, widths=(8, 8, 16))), "holds more than weights"),
        (lambda: save({"state_dict": state(), "args": Harmful()}), "holds more than weights"),
        (lambda: torch.save(Harmful(), save({}), _use_new_zipfile_serialization=False), "holds more than weights"),
        (lambda: (save({}), FILE.write_bytes(pickle.dumps(Harmful()))), "no checkpoint"),
        (cut, "ends in its middle"),
        (spoil, "damaged"),
        (lambda: (save({}), FILE.write_bytes(b"")), "ends in its middle"),
        (lambda: (save({}), FILE.write_text("<!DOCTYPE html><title>404</title>")), "no checkpoint"),
        (lambda: (save({}), FILE.write_text("version https://git-lfs.github.com/spec/v1\n")), "no checkpoint"),
        (lambda: (save({}), FILE.unlink(), FILE.mkdir()), "a folder"),
        (lambda: (save({}), FILE.unlink()), "no such file"),
        (lambda: save({"head.weight": torch.zeros(3)}), "not the weights of a segmentation U-KAN: no patch_embed3"),
        (lambda: save(changed(final__bias=None)), "lacks final.bias"),
        (lambda: save(changed(ema__weight=torch.ones(2), ssm=torch.ones(1))), "has not: ema.weight, ssm"),
        (lambda: save(changed(norm3__bias=torch.ones(9))), "norm3.bias is 9 reals; its other weights ask for 8 reals"),
        (lambda: save(changed(norm3__bias=torch.ones(8).int())), "norm3.bias is 8 whole numbers"),
        (lambda: save(changed(norm3__bias=torch.full((8,), math.nan))), "not finite"),
        (
            lambda: save(changed(**{"block1.0.layer.fc1.grid": -torch.arange(12.0).expand(8, -1)})),
            "knots",
        ),
        (lambda: save(changed(**{"block1.0.layer.fc1.grid": torch.zeros(8, 30)})), "do not go with 30 knots"),
        (lambda: save(changed(**{"encoder1.conv.0.weight": torch.zeros(1, 4, 3, 3)})), "images of 4 channels"),
        (lambda: save(changed(**{"dblock2.0.layer.fc3.base_weight": None})), "its blocks differ"),
        (lambda: save(state(skip="cat")), "has not: fuse"),
        (lambda: save(without_attention()), "UKANWithSS2D, the class behind the repository's own logs"),
        (lambda: save(km_unet(ss2d_decoder2__Ds=None)), "of a segmentation KM-UNet: lacks ss2d_decoder2.Ds"),
        (lambda: save(km_unet(ss2d_1__Ds=torch.ones(3))), "ss2d_1.Ds is 3 reals; its other weights ask for 8 reals"),
        (lambda: save(km_unet(cbam3__weight=torch.ones(1))), "holds what a KM-UNet has not: cbam3.weight"),
        (lambda: save(km_unet(block2__0__layer__fc3__base_weight=None)), "its blocks differ"),
        (lambda: save(KMUNet(3, 1, widths=(8, 8, 16)).state_dict()), "of a segmentation KM-UNet: lacks ss2d_decoder1"),
        (lambda: save(km_unet(), CONFIG | {"input_list": [8, 8, 24]}), "input_list is [8, 8, 24]"),
        (lambda: save(state(), CONFIG | {"num_classes": 2}), "num_classes is 2, but model.pth has 1"),
        (lambda: save(state(), CONFIG | {"input_list": [128, 160, 256]}), "input_list is [128, 160, 256]"),
        (lambda: save(state(), CONFIG | {"input_list": "128,160,256"}), "not the config of these weights"),
        (lambda: save(state(), CONFIG | {"input_h": 250}), "multiples of 32"),
        (lambda: save(state(), CONFIG | {"dataseed": "x"}), "dataseed is 'x'; a whole number"),
        (lambda: save(state(), CONFIG | {"dataseed": -1}), "dataseed is -1"),
        (lambda: save(state(), CONFIG | {"lr": math.nan}), "lr is nan"),
        (lambda: save(state(), CONFIG | {"lr": 0}), "train.lr"),
        (lambda: save(state(), CONFIG | {"input_list": (8, 8, 16)}), "python/tuple"),  # type: ignore[dict-item]
        (lambda: save(state(), "a: [1"), "not readable as YAML"),
        (lambda: save(state(), "- 1"), "not a config.yml"),
        (cut_safetensors, "ends in its middle"),
    ],
)
def test_what_cannot_be_imported_is_answered_in_one_line_and_leaves_nothing(make: Callable[[], Any], words: str) -> None:
    make()
    file = FILE.with_suffix(".safetensors") if FILE.with_suffix(".safetensors").exists() else FILE
    with pytest.raises(UserError) as error:
        import_official(file, data=None)
    assert words in str(error.value) and "\n" not in str(error.value), str(error.value)
    assert str(FILE.parent) in str(error.value) or "train.lr" in words
    assert not Path("runs").exists() and not Path("touched").exists()


def test_a_config_that_is_asked_for_and_missing_is_an_error() -> None:
    save(state(), None)
    with pytest.raises(DataError, match=r"other\.yml: no such file"):
        import_official(FILE, config=Path("other.yml"))


def test_a_dataset_with_problems_is_refused_and_nothing_is_written(write_dataset) -> None:
    write_dataset(Path("data"), 4)
    Path("data/masks/c001.png").unlink()
    save(state())
    assert "problem(s) keep cases from being used" in ukan("import-official", FILE, "--data", "data", code=4)
    assert not Path("runs").exists() and not Path("plans").exists()
