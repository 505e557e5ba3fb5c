"""The plan: everything that decides an experiment, typed and frozen; nothing that differs between machines.

Defaults live here and nowhere else. A plan is read with `Plan.load`, changed with `Plan.with_settings`, never mutated.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ukan.errors import DataError, UserError, nearest
from ukan.paths import write_text

VERSION = 1

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Case(NamedTuple):
    """One image with its masks, as found in a raw folder; paths are relative to it, with forward slashes."""

    case: str
    """The name: the file's stem, with its folder before it where stems collide."""
    image: str
    masks: tuple[str, ...]
    """Masks to be united; none where a case is known to show nothing."""
    group: str = ""
    """Cases of one group are never on both sides of a split."""
    label: str = ""
    """The class of the whole picture (benign, malignant, ...), empty where there is none."""
    split: str = ""
    """The part of an official split, empty where there is none."""
    width: int = 0
    height: int = 0
    foreground: float = 0.0
    """Share of the image inside the united mask; 0 is an empty mask."""
    hash: str = ""
    """sha256 over the bytes of image and masks."""


class Fingerprint(_Part):
    """What planning needs to know of a dataset: usable cases only, all quantiles over cases."""

    dataset: str
    layout: str
    index_sha256: str
    cases: int
    empty: int
    groups: int
    labels: dict[str, int]
    height: tuple[int, int, int]
    """Smallest, median and largest, in pixels."""
    width: tuple[int, int, int]
    colour: int
    """Images whose channels differ."""
    lesion_share: tuple[float, float, float]
    """5th, 50th and 95th percentile of the share of the image inside the mask, non-empty cases."""
    lesion_side_px: tuple[float, float, float]
    """The same of the square root of the mask's area, in pixels."""
    mask_values: dict[str, int]
    """How many masks hold each grey value; at most the 16 most frequent."""
    mask_rule: Literal["nonzero", "half"]
    near_duplicates: int
    """Pairs of pictures that are the same or nearly so."""


class DataPlan(_Part):
    dataset: str
    layout: str
    index_sha256: str
    """Of the index the plan was made from; training refuses another."""
    empty_cases: Literal["keep", "drop"] = "keep"
    """Whether cases with an empty mask take part."""
    mask_rule: Literal["nonzero", "half"] = "nonzero"
    """Foreground is every value above 0, or every grey of at least 128."""
    classes: tuple[str, ...] = ("foreground",)
    """Names of the mask channels, one network output each."""
    channels: Literal[1, 3] = 3
    """What the network sees: grey or colour."""
    colour_order: Literal["rgb", "bgr"] = "rgb"
    input_size: tuple[int, int] = (256, 256)
    """Height and width of the network's input; images are stretched to it."""
    interpolation: Literal["area", "linear"] = "area"
    """How images shrink; masks always take the nearest value."""
    normalization: Literal["imagenet", "image", "published"] = "imagenet"
    """By ImageNet's mean and deviation; by each image's own; or by ImageNet's and a second time by 255, as published."""

    @model_validator(mode="after")
    def _sizes(self) -> "DataPlan":
        if min(self.input_size) < 1:
            raise ValueError(f"input_size must be positive, got {list(self.input_size)}")
        return self


class SplitPlan(_Part):
    kind: Literal["folds", "published"] = "folds"
    """Grouped stratified folds; or the published random 80/20 split of the sorted names, once for each seed."""
    folds: Annotated[int, Field(ge=2)] = 5
    """How many folds (kind: folds)."""
    seeds: tuple[Seed, ...] = (0,)
    """The seed of the folds, or one seed for each published split."""

    @model_validator(mode="after")
    def _one_seed_for_folds(self) -> "SplitPlan":
        if not self.seeds or (self.kind == "folds" and len(self.seeds) != 1):
            raise ValueError(f"folds take exactly one seed, published splits at least one; got {list(self.seeds)}")
        return self

    @property
    def count(self) -> int:
        return self.folds if self.kind == "folds" else len(self.seeds)


class ModelPlan(_Part):
    """A network's name and its sizes; the sizes are the model's own keyword arguments, all written out."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)
    name: str = "ukan"

    @property
    def sizes(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class AugmentPlan(_Part):
    """Random changes of a training sample, each with its probability; 0 switches one off."""

    rot90: Fraction = 0.0
    """Quarter turns."""
    hflip: Fraction = 0.0
    vflip: Fraction = 0.0
    any_flip: Fraction = 0.0
    """One flip, drawn among horizontal, vertical and both (albumentations' former Flip, as published)."""
    affine: Fraction = 0.0
    scale: tuple[float, float] = (0.8, 1.25)
    """Range of the zoom (affine)."""
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 20.0
    """Largest rotation either way (affine)."""
    shift: Fraction = 0.1
    """Largest shift either way, as a share of the side (affine)."""
    intensity: Fraction = 0.0
    brightness: Fraction = 0.2
    """Largest change either way (intensity)."""
    contrast: Fraction = 0.2
    """Largest change either way (intensity)."""
    gamma: Fraction = 0.0
    noise: Fraction = 0.0
    blur: Fraction = 0.0


class TrainPlan(_Part):
    epochs: Annotated[int, Field(ge=1)] = 400
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images an optimiser step, over all processes and micro-batches."""
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-4
    lr_kan: Positive = 1e-2
    """Learning rate of the KAN layers' parameters."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 in the gradient (adam) or decoupled (adamw)."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear rise of the learning rates from zero."""
    schedule: Literal["cosine", "cosine_by_epoch"] = "cosine"
    """A half cosine down to lr_end, moving each step or each epoch."""
    lr_end: Annotated[float, Field(ge=0)] = 1e-5
    bce_weight: Annotated[float, Field(ge=0)] = 0.5
    dice_weight: Annotated[float, Field(ge=0)] = 1.0
    clip_norm: Positive | None = None
    """Largest norm of the gradient."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the weights' moving average, which is then what is scored and kept."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere."""
    channels_last: bool = True
    seed: Seed = 0
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between looks at the held-out cases; nothing is chosen by them."""
    augment: AugmentPlan = AugmentPlan()

    @model_validator(mode="after")
    def _some_loss(self) -> "TrainPlan":
        if not self.bce_weight and not self.dice_weight:
            raise ValueError("bce_weight and dice_weight are both 0")
        return self


class InferPlan(_Part):
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    batch_size: Annotated[int, Field(ge=1)] = 8


class Plan(_Part):
    """One experiment on one dataset."""

    version: int = VERSION
    task: Literal["segment"] = "segment"
    name: str
    protocol: Literal["honest", "paper"] = "honest"
    """The rules its numbers are made by; tables never mix the two."""
    recipe: str | None = None
    published: dict[str, float] = {}
    """Scores the recipe's paper reports, to lay beside ours."""
    budget_gib: Positive = 8.0
    """Memory a training step may take."""
    data: DataPlan
    split: SplitPlan = SplitPlan()
    model: ModelPlan = ModelPlan()
    train: TrainPlan = TrainPlan()
    infer: InferPlan = InferPlan()
    reasons: dict[str, str] = {}
    """Why each derived value is what it is."""

    # What a person may not set: made by planning from the folder itself.
    DERIVED: ClassVar[frozenset[str]] = frozenset(
        {
            *("version", "task", "name", "protocol", "recipe", "published", "reasons"),
            *("data.dataset", "data.layout", "data.index_sha256", "data.classes"),
        }
    )

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read a plan; every mistake in it is told with its place."""
        try:
            content = read_yaml(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such plan. Make one with: ukan plan FOLDER") from None
        except IsADirectoryError:
            raise UserError(f"{path} is a folder; give the plan's .yaml file") from None
        if not isinstance(content, dict):
            raise UserError(f"{path}: not a plan. Make one with: ukan plan FOLDER")
        if content.get("version") != VERSION:
            raise UserError(
                f"{path}: a plan of version {content.get('version')}, this ukan reads {VERSION}; run `ukan plan` again"
            )
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str) -> "Plan":
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{where}: {'; '.join(_explain(row) for row in error.errors())}") from error

    def dump(self) -> str:
        """The same plan gives the same bytes everywhere."""
        return yaml.dump(
            self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, indent=2
        )

    def save(self, path: Path) -> None:
        write_text(path, self.dump())

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted key, reasons left out."""
        return flatten({k: v for k, v in self.model_dump(mode="json").items() if k != "reasons"})

    def difference(self, other: "Plan") -> list[str]:
        """Lines 'key: mine -> theirs' for every value in which two plans differ; reasons do not count."""
        mine, theirs = self.flat(), other.flat()
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [f"{k}: {mine.get(k)} -> {theirs.get(k)}" for k in keys if mine.get(k) != theirs.get(k)]


def settable_keys(model_sizes: Sequence[str] = ()) -> list[str]:
    """Every key that --set takes."""
    keys = _keys(Plan, "") + [f"model.{size}" for size in model_sizes]
    return [key for key in keys if key not in Plan.DERIVED]


def parse_settings(settings: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """['train.epochs=5'] to {'train.epochs': 5}; an unknown key is refused with the nearest one."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"--set {setting}: expected key=value, for example --set train.epochs=5")
        if key in Plan.DERIVED:
            raise UserError(f"--set {key}: made from the folder or by another option, not to be set")
        if key not in known:
            raise UserError(f"--set {key}: no such field. {nearest(key, list(known))}")
        try:
            values[key] = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--set {key}: cannot read {text!r} ({_first_line(error)})") from error
    return values


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys. `published` stays whole: its keys are names of scores."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and key != "published":
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return tree


def sha256_of(content: Any) -> str:
    """Hash of anything JSON can hold, the same wherever it is made."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_yaml(path: Path) -> Any:
    """YAML with our rules for numbers. Raises UserError where it is none."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML ({_first_line(error)})") from error


def load_splits(path: Path) -> list[dict[str, list[str]]]:
    """[{'train': [case, ...], 'val': [case, ...]}, ...], one entry a fold."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["folds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: the folds cannot be read; run `ukan plan` again") from error


def _keys(part: type[BaseModel], prefix: str) -> list[str]:
    keys = []
    for name, field in part.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _keys(kind, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _explain(row: Any) -> str:
    place = ".".join(str(part) for part in row["loc"]) or "plan"
    if row["type"] == "extra_forbidden":
        return f"{place}: no such field. {nearest(place, _keys(Plan, ''))}"
    if row["type"] == "missing":
        return f"{place}: missing"
    return f"{place}: {row['msg'].removeprefix('Value error, ')}, got {row['input']!r}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


class _Dumper(yaml.SafeDumper):
    """Short lists on one line, everything else in blocks."""


def _short_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _short_list)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-4 for text and `no` for false; people who type a learning rate mean a number."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:bool"]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF"))
for _side in (_Loader, _Dumper):  # what the one would read as a number, the other must quote
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )
