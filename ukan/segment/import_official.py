"""`ukan import-official`: a model.pth of the public repository of U-KAN (Seg_UKAN) or KM-UNet (KM_UNet) -> a run folder that
predicts and is scored.

What the network is, its weights tell; how images come to it and which were held out, the config.yml that train.py leaves
beside them. Keys of configs are the arguments of that train.py, which is the same in both but for one augmentation.
"""

import json
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ukan.data.duplicates import save_thumbnails
from ukan.data.index import Index, file_sha256, index_folder, save_index
from ukan.data.layouts import LAYOUTS
from ukan.data.problems import write_problems
from ukan.data.splits import Splits, choose_cases, make_splits
from ukan.errors import DataError, UserError
from ukan.models import build_model, model_sizes, model_stride, named_sizes
from ukan.models.weights import save_weights
from ukan.paths import RUNS, RunFolder, slug, write_text
from ukan.plan import Plan, read_yaml
from ukan.planning.segment import plan_segment
from ukan.runs import IMPORTED, Run
from ukan.runtime import environment_record, is_out_of_memory
from ukan.stage.prepare import load_recipe

Progress = Callable[[int, int], None]
Weights = dict[str, Tensor]
Config = dict[str, Any]


class Official(NamedTuple):
    """A network of a public repository, and what is here for it."""

    model: str  # in MODELS
    title: str
    arch: str  # the published class
    recipe: str
    blocks: tuple[str, ...]  # of tokens
    sizes: dict[str, Any]  # of which the published code knows one value
    dead: tuple[str, ...]  # children that the published code builds and never calls; not built here


UKAN = Official(
    model="ukan",
    title="U-KAN",
    arch="UKAN",
    recipe="paper/ukan-busi",
    blocks=("block1", "block2", "dblock1", "dblock2"),
    sizes={"skip": "add"},
    dead=(),
)
KM_UNET = Official(
    model="km-unet",
    title="KM-UNet",
    arch="KM_UNet",
    recipe="paper/km-unet-busi",
    blocks=("block1", "block2"),
    sizes={"as_published": True},
    dead=("dblock1", "dblock2", "dnorm3", "dnorm4", "cbam", "cbam1", "cbam2"),
)
TITLES = {official.model: official.title for official in (UKAN, KM_UNET)}

# What train.py takes where nothing else is said, and the plan's field of it.
_DEFAULTS: dict[str, int | float] = {"input_h": 256, "input_w": 256, "dataseed": 2981}
_TRAINING: dict[str, tuple[str, int | float]] = {
    "epochs": ("epochs", 400),
    "batch_size": ("batch_size", 8),
    "lr": ("lr", 1e-4),
    "kan_lr": ("lr_kan", 1e-2),
    "weight_decay": ("weight_decay", 1e-4),
    "min_lr": ("lr_end", 1e-5),
}
# The published training, in the recipe's fields; plans have no words for another.
_PUBLISHED = {"optimizer": "Adam", "scheduler": "CosineAnnealingLR", "loss": "BCEDiceLoss"}
_BUFFERS = (".grid", ".running_mean", ".running_var", ".num_batches_tracked")


def import_official(
    file: Path,
    *,
    config: Path | None = None,
    data: Path | None = None,
    run: Path | None = None,
    classes: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Run:
    """A checkpoint of Seg_UKAN or KM_UNet as a run of one fold; what is to be known of it is in environment.json
    ("imported", "notes").

    config: train.py's config.yml; by default the one beside the file, if there is one. data: the raw dataset it was trained
    on, of which the published split of its dataseed is rebuilt, for `evaluate`; without it the run predicts, and can be
    scored on other datasets. run: the folder to make, runs/<name>-official by default. classes: their names.

    Raises DataError where a file is damaged, no weights of these networks, or where weights, config and data do not go
    together; UserError where the run folder is there already. Nothing is written then, and no code in the file is run.
    """
    weights = _read_weights(file)
    official = _recognise(weights, file)
    live = {name: tensor for name, tensor in weights.items() if _child(name) not in official.dead}
    sizes, outputs = _read_sizes(live, official, file)
    network = _network(live, official, sizes, outputs, file)
    said, notes = _read_config(file, config, model_stride(official.model))
    notes += _compare(said, official, sizes, outputs, file, config or _beside(file))
    notes += _about_dead(weights, live, official)
    folder = _new_folder(file, said, run)
    sha256 = file_sha256(file)
    recipe = _recipe(said, official, sizes, f"{file.name}, sha256 {sha256}", config or _beside(file))
    if data is None:
        index, splits = None, None
        plan = _plan_without_data(recipe, said, _class_names(classes, outputs))
        notes.append("without --data it is not known here which images the network was trained on")
    else:
        index, splits, plan = _plan_with_data(recipe, data, classes, outputs, on_progress)
        notes += _about_split(plan, splits[0])
    record: dict[str, Any] = {"data_root": str(index.root.resolve())} if index else {}
    record["imported"] = {"file": file.name, "sha256": sha256, "config": said, "notes": notes}
    record["imported"]["environment"] = environment_record(sys.argv)
    _write(folder, plan, network, record, index, splits)
    return Run(folder, plan)


# The weights.


def _read_weights(file: Path) -> Weights:
    """A state dict, its names as the published network has them; read without running code."""
    if file.is_dir():
        raise DataError(f"{file}: a folder; give the model.pth in it")
    if not file.exists():
        raise DataError(f"{file}: no such file")
    content = _load(file)
    if isinstance(content, dict):
        wrapped = [content[key] for key in ("state_dict", "model_state_dict", "model") if isinstance(content.get(key), dict)]
        content = wrapped[0] if wrapped else content
    named = isinstance(content, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    if not content or not named:
        raise DataError(f"{file}: holds no weights by name; torch.save(model.state_dict(), FILE) writes such a file")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""  # of DataParallel
    weights = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    # What thop leaves where a network was saved after counting it.
    return {name: t for name, t in weights.items() if not name.endswith(("total_ops", "total_params"))}


def _load(file: Path) -> Any:
    from safetensors.torch import load_file

    with file.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if zipped:
            with zipfile.ZipFile(file) as archive:  # torch reads on over changed bits
                if archive.testzip():
                    raise zipfile.BadZipFile("bits have changed")
        with warnings.catch_warnings(action="ignore"):  # of unusual files: they are answered below
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what readers raise at a damaged file has no end
        if is_out_of_memory(error):
            raise
        code = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)|TorchScript", str(error))
        if code:
            raise DataError(
                f"{file}: holds more than weights ({code[1] or 'TorchScript'}), which only running code could read; "
                "where it was made, save the weights alone: torch.save(model.state_dict(), FILE)"
            ) from error
        cut = zipped or file.suffix == ".safetensors" or isinstance(error, EOFError) or "EOF" in str(error)
        what = "damaged, or it ends in its middle" if cut else "no checkpoint (.pth or .safetensors), or a damaged one"
        raise DataError(f"{file}: {what}; copy it again from where it was made") from error


def _recognise(weights: Weights, file: Path) -> Official:
    children = {_child(name) for name in weights}
    if "ss2d_1" not in children:
        return UKAN
    if not any(child.startswith("ema") for child in children):
        raise DataError(
            f"{file}: a KM-UNet without multi-scale attention (no ema1, ema2, ...): that is UKANWithSS2D, the class behind "
            "the repository's own logs of BUSI and CVC; only the released class, KM_UNet, can be imported"
        )
    return KM_UNET


def _child(name: str) -> str:
    return name.partition(".")[0]


def _about_dead(weights: Weights, live: Weights, official: Official) -> list[str]:
    children = {_child(name) for name in weights}
    dead = [child for child in official.dead if child in children]
    if not dead:
        return []
    of_live, of_all = (
        sum(tensor.numel() for name, tensor in some.items() if not name.endswith(_BUFFERS)) for some in (live, weights)
    )
    return [
        f"{of_live:,} of its {of_all:,} parameters are live; the published code never calls the rest, which is left out: "
        + ", ".join(dead)
    ]


def _read_sizes(weights: Weights, official: Official, file: Path) -> tuple[dict[str, Any], int]:
    """The network's sizes as the model takes them, and how many classes it answers."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        if name not in weights or weights[name].ndim != dimensions:
            some = ", ".join(list(weights)[:3])
            what = f"not the weights of a segmentation {official.title}"
            raise DataError(f"{file}: {what}: no {name} among its entries ({some}, ...)")
        return tuple(weights[name].shape)

    d1, c3 = shape("patch_embed3.proj.weight", 4)[:2]
    d2 = shape("patch_embed4.proj.weight", 4)[0]
    by_block = {block: _kinds(weights, f"{block}.0.layer.fc") for block in official.blocks}
    kinds = by_block["block1"]
    if any(found != kinds for found in by_block.values()) or not kinds:
        listed = "; ".join(f"{block}: {', '.join(found) or 'none'}" for block, found in by_block.items())
        raise DataError(f"{file}: its blocks differ in their layers ({listed}); a {official.title} has the same in all")
    sizes = {"widths": [c3, d1, d2], "kan_layers": kinds, **official.sizes}
    if "kan" in kinds:
        first = f"block1.0.layer.fc{kinds.index('kan') + 1}"
        bases, knots = shape(f"{first}.spline_weight", 3)[2], shape(f"{first}.grid", 2)[1]
        order = knots - bases - 1  # G + k bases over G + 2 k + 1 knots
        if not 1 <= order < bases:
            raise DataError(f"{file}: {first}: {bases} basis functions do not go with {knots} knots")
        sizes |= {"grid_size": bases - order, "spline_order": order, "spline_scaler": f"{first}.spline_scaler" in weights}
    if (channels := shape("encoder1.conv.0.weight", 4)[1]) != 3:
        raise DataError(f"{file}: a network for images of {channels} channels; the published code reads 3")
    return sizes, shape("final.weight", 4)[0]


def _kinds(weights: Weights, prefix: str) -> list[str]:
    """kan or mlp for each layer of a block."""
    kinds: list[str] = []
    while True:
        layer = f"{prefix}{len(kinds) + 1}"
        kind = "kan" if f"{layer}.base_weight" in weights else "mlp" if f"{layer}.weight" in weights else ""
        if not kind:
            return kinds
        kinds.append(kind)


def _network(weights: Weights, official: Official, sizes: dict[str, Any], outputs: int, file: Path) -> nn.Module:
    """The network with these weights, each of them where it belongs."""
    refused = f"{file}: not the weights of a segmentation {official.title}"
    try:
        network = build_model(official.model, 3, outputs, sizes)
    except UserError as error:
        raise DataError(f"{refused} ({error})") from error
    expected = network.state_dict()
    for what, names in (
        ("lacks", [name for name in expected if name not in weights]),
        (f"holds what a {official.title} has not:", [name for name in weights if name not in expected]),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise DataError(f"{refused}: {what} {', '.join(names[:3])}{more}")
    for name, tensor in weights.items():
        if _kind(tensor) != _kind(expected[name]):
            raise DataError(f"{file}: {name} is {_kind(tensor)}; its other weights ask for {_kind(expected[name])}")
        if not torch.isfinite(tensor).all():
            raise DataError(f"{file}: {name} holds values that are not finite; the training has failed")
        if name.endswith(".grid") and (tensor.diff(dim=1) < 0).any():
            raise DataError(f"{file}: {name}: the knots do not rise")
    network.load_state_dict(weights)
    return network.eval()


def _kind(tensor: Tensor) -> str:
    """What has to be the same of weights that belong to one place, in words."""
    size = "x".join(map(str, tensor.shape)) or "one"
    kind = "reals" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "whole numbers"
    return f"{size} {kind}" if tensor.layout == torch.strided else f"{size} {kind} ({tensor.layout})"


# What train.py was told.


def _beside(file: Path) -> Path:
    return file.with_name("config.yml")


def _read_config(file: Path, given: Path | None, stride: int) -> tuple[Config, list[str]]:
    """What config.yml says, and what is to be known of what it leaves open."""
    path = given or _beside(file)
    if given is None and not path.exists():
        taken = ", ".join(f"{key} {value}" for key, value in _DEFAULTS.items())
        return {}, [f"no config.yml beside it: train.py's defaults are taken ({taken}); --config FILE gives another"]
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = read_yaml(path)
    except UserError as error:
        raise DataError(f"{error}; the plain file that train.py wrote is expected") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a config.yml of train.py, which holds a line for each of its arguments")
    said = {str(key): value for key, value in content.items()}
    for key, default in (_DEFAULTS | {key: default for key, (_, default) in _TRAINING.items()}).items():
        value = said.get(key, default)
        if type(value) not in ((int,) if isinstance(default, int) else (int, float)) or not 0 <= value < 2**31:
            raise DataError(f"{path}: {key} is {value!r}; a {'whole ' * isinstance(default, int)}number is expected")
        if key in ("input_h", "input_w") and (value % stride or not value):
            raise DataError(f"{path}: {key} is {value}; the network takes multiples of {stride}")
    left_open = [f"{key} {value}" for key, value in _DEFAULTS.items() if key not in said]
    notes = [f"{path.name} does not say all: train.py's defaults are taken ({', '.join(left_open)})"] if left_open else []
    return said, notes


def _compare(said: Config, official: Official, sizes: Mapping[str, Any], outputs: int, file: Path, path: Path) -> list[str]:
    """Refuses a config of other weights; what the published code makes nothing of is told instead."""
    widths = said.get("input_list")
    if isinstance(widths, str):
        widths = [int(number) if number.strip().isdigit() else number for number in widths.split(",")]
    for key, value, of_weights in (
        ("num_classes", said.get("num_classes"), outputs),
        ("input_list", widths, sizes["widths"]),
    ):
        if value is not None and value != of_weights:
            raise DataError(
                f"{path}: {key} is {value}, but {file.name} has {of_weights}: not the config of these weights; "
                "give theirs with --config FILE"
            )
    notes = []
    if said.get("no_kan") is True and "kan" in sizes["kan_layers"]:
        notes.append("no_kan: true does nothing in the published code; the weights hold KAN layers")
    if said.get("input_channels", 3) != 3:
        notes.append(f"input_channels: {said['input_channels']} does nothing in the published code; the weights take 3")
    if said.get("arch", official.arch) != official.arch:
        notes.append(f"arch: {said['arch']} is not the {official.title} that the weights are")
    other = [f"{key} {said[key]}" for key, published in _PUBLISHED.items() if said.get(key, published) != published]
    if other:
        notes.append(f"plans have no words for {', '.join(other)}: its `train` says what is published, and was not done")
    return notes


def _new_folder(file: Path, said: Config, run: Path | None) -> RunFolder:
    if run is None:
        name = str(said.get("name") or file.resolve().parent.name)
        try:
            run = RUNS / f"{slug(name)}-official"
        except UserError:
            raise UserError(f"no name for the run can be made of {name!r}; give its folder with --run FOLDER") from None
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UserError(f"{run} is there already; give another place with --run FOLDER")
    return RunFolder(run)


# The plan.


def _recipe(said: Config, official: Official, sizes: dict[str, Any], origin: str, path: Path) -> dict[str, Any]:
    """The published recipe with what weights and config say of it."""
    recipe = load_recipe(official.recipe)
    del recipe["published"]  # of other networks
    values = _DEFAULTS | {key: default for key, (_, default) in _TRAINING.items()} | said
    because = {key: path.name if key in said else "train.py's default" for key in values}
    del recipe["data"]["empty_cases"], recipe["data"]["mask_rule"]
    recipe["data"]["input_size"] = [values["input_h"], values["input_w"]]
    recipe["split"] |= {"seeds": [values["dataseed"]], "official_test": "pool"}
    recipe["model"] = {"name": official.model, **model_sizes(official.model), **sizes}
    recipe["train"] |= {field: values[key] for key, (field, _) in _TRAINING.items()}
    recipe["reasons"] = {key: why for key, why in recipe["reasons"].items() if key != "data.empty_cases"} | {
        "recipe": f"imported from {origin}",
        "data.input_size": f"input_h and input_w: {because['input_h']}",
        "split.seeds": f"dataseed: {because['dataseed']}",
        "split.official_test": "train.py splits one folder of images",
        **{f"model.{size}": "as the weights are" for size in sizes if f"model.{size}" not in recipe["reasons"]},
        **{f"train.{field}": f"{key}: {because[key]}" for key, (field, _) in _TRAINING.items()},
    }
    return recipe


def _class_names(given: Sequence[str] | None, outputs: int) -> list[str]:
    """As given, or numbers, as the published code names its folders of masks."""
    if given is None:
        return ["foreground"] if outputs == 1 else [str(k) for k in range(outputs)]
    names = [name.strip() for name in given]
    if len(names) != outputs or len(set(names)) != outputs:
        raise UserError(f"--classes {','.join(names)}: {len(set(names))} names for the {outputs} class(es) of the network")
    if any(not name or name.startswith(".") or set(name) & set('/\\:*?"<>|') for name in names):  # they become folders
        raise UserError(f"--classes {','.join(names)}: names that can be names of folders are expected")
    return names


def _plan_without_data(recipe: dict[str, Any], said: Config, classes: list[str]) -> Plan:
    dataset = str(said.get("dataset", ""))
    data = {
        **recipe["data"],
        "dataset": slug(dataset) if re.search("[a-z0-9]", dataset.lower()) else "unknown",
        "layout": "",
        "index_sha256": "",
        "target": "binary" if len(classes) == 1 else "multilabel",
        "classes": classes,
    }
    return Plan.parse({**recipe, "name": "official", "recipe": IMPORTED, "data": data}, "the config")


def _plan_with_data(
    recipe: dict[str, Any], data: Path, classes: Sequence[str] | None, outputs: int, on_progress: Progress | None
) -> tuple[Index, Splits, Plan]:
    index = index_folder(data, on_progress=on_progress)
    if index.errors or index.fingerprint is None:
        first = index.errors[0]
        raise DataError(
            f"{data}: {len(index.errors)} problem(s) keep cases from being used, the first: {first.where}: {first.what} "
            f"({first.do}); `ukan check` lists them"
        )
    found = index.fingerprint
    if found.target == "multiclass" or len(found.classes) != outputs:
        exclusive = ", which exclude one another" if found.target == "multiclass" else ""
        raise DataError(
            f"{data}: its masks show {len(found.classes)} class(es) ({', '.join(found.classes)}){exclusive}; the network "
            f"answers {outputs} that may overlap: not what it was trained on"
        )
    names = tuple(_class_names(classes, outputs)) if classes else found.classes
    if names != found.classes:
        raise UserError(f"--classes {','.join(names)}: the files name them {', '.join(found.classes)}")
    plan = plan_segment(
        found,
        name="official",
        empty_cases=LAYOUTS[index.layout].EMPTY_CASES,
        mask_rule_because=index.mask_rule_because,
        activation_bytes=lambda *_: 0,  # nothing is trained here, so no memory has to hold a step
        model_sizes=model_sizes,
        named_sizes=named_sizes,
        model_stride=model_stride,
        recipe=recipe,
    )
    reasons = plan.reasons | {"recipe": recipe["reasons"]["recipe"]}
    plan = plan.model_copy(update={"recipe": IMPORTED, "reasons": reasons})
    return index, make_splits(choose_cases(index.cases, plan.data.empty_cases), plan.split), plan


def _about_split(plan: Plan, split: dict[str, list[str]]) -> list[str]:
    notes = [
        f"{len(split['train'])} cases it was trained on, {len(split['val'])} held out by dataseed {plan.split.seeds[0]}, "
        "if training saw just these files under these names",
        "the checkpoint is of the epoch that was best on the held-out cases: their scores are somewhat too high",
    ]
    if plan.train.batch_size != 8:
        notes.append(f"its own log pools the metric over batches of {plan.train.batch_size}, `ukan evaluate` over 8")
    return notes


def _write(
    folder: RunFolder,
    plan: Plan,
    network: nn.Module,
    record: dict[str, Any],
    index: Index | None,
    splits: Splits | None,
) -> None:
    if index and index.fingerprint:
        write_problems(folder.problems, index.problems)
        save_index(folder.index, index.cases)
        save_thumbnails(folder.thumbnails, index.thumbnails)
        write_text(folder.fingerprint, index.fingerprint.model_dump_json(indent=2) + "\n")
        write_text(folder.splits, json.dumps({"folds": splits}, indent=1, ensure_ascii=False) + "\n")
    about = {key: record["imported"][key] for key in ("file", "sha256")}
    save_weights(folder.fold(0).weights, network, {"imported": about})
    write_text(folder.environment, json.dumps(record, indent=1, default=str) + "\n")
    plan.save(folder.plan)  # last: its presence says that the folder is a run
