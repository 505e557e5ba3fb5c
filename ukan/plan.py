"""The plan: everything that decides an experiment, typed and frozen; nothing that differs between machines.

Defaults live here and nowhere else. A plan is read with `Plan.load`, changed with `Plan.with_settings`, never mutated.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ukan.errors import DataError, UserError, nearest
from ukan.paths import write_text

VERSION = 4
MaskRule = Literal["nonzero", "half", "instances", "labels"]
Target = Literal["binary", "multiclass", "multilabel"]
Task = Literal["segment", "diffuse"]
Modality = Literal["ultrasound", "histology", "endoscopy", "dermoscopy", "radiology", "unknown"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Side = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Case(NamedTuple):
    """One image, or one volume, with its masks, as found in a raw folder; paths are relative to it, with forward slashes."""

    case: str
    """The name: the file's stem, with its folder before it where stems collide."""
    image: str
    """A file, or the folder of a DICOM series."""
    masks: tuple[str, ...]
    """Masks to be united, class by class; none where a case is known to show nothing."""
    group: str = ""
    """Cases of one group are never on both sides of a split."""
    label: str = ""
    """The class of the whole picture (benign, malignant, ...), empty where there is none."""
    split: str = ""
    """The part of an official split ("train", "val", "test"), empty where there is none."""
    width: int = 0
    height: int = 0
    foreground: float = 0.0
    """Share of the image inside the united mask; 0 is an empty mask."""
    hash: str = ""
    """sha256 over the bytes of image, masks and further channels."""
    classes: tuple[str, ...] = ()
    """For each of `masks` the class it shows, where classes have masks of their own; otherwise empty."""
    channels: tuple[str, ...] = ()
    """Further files whose channels follow those of `image`."""
    slices: int = 1
    """How many slices a volume has; 1 for a picture."""
    grade: str = ""
    """A finer class of the whole picture (a tumour's grade), for tables only."""


class Fingerprint(_Part):
    """What planning needs to know of a dataset: usable cases only, all quantiles over cases."""

    dataset: str
    layout: str
    modality: Modality = "unknown"
    index_sha256: str
    cases: int
    """All of them, an official test part included."""
    test: int = 0
    """Cases of an official test part."""
    empty: int
    """Cases outside the test part whose mask is empty."""
    groups: int
    """Groups of the cases outside the test part."""
    groups_with_object: int = 0
    """The same of those whose mask is not empty."""
    grouped_by: str = ""
    """What made the groups, in words."""
    labels: dict[str, int]
    slices: int = 1
    """The most slices of a case: 1 where there are no volumes."""
    spacing_mm: tuple[float, float, float] | None = None
    """Median distance between slices, rows and columns, where the files tell it."""
    height: tuple[int, int, int]
    """Smallest, median and largest, in pixels."""
    width: tuple[int, int, int]
    channels: int = 3
    """Channels of an image as read: 3 for ordinary pictures, also grey ones."""
    colour: int
    """Images whose channels differ."""
    deep: int = 0
    """Images of more than 8 bits."""
    intensity: tuple[float, float] | None = None
    """0.5th and 99.5th percentile of the deep images' values inside the masks, over all cases."""
    hounsfield: bool = False
    """Whether the deep images' values look like computed tomography's: whole numbers, air near -1000."""
    lesion_share: tuple[float, float, float]
    """5th, 50th and 95th percentile of the share of the image inside the mask, non-empty cases."""
    lesion_side_px: tuple[float, float, float]
    """The same of the square root of the mask's area (of a slice that shows it), in pixels."""
    mask_values: dict[str, int]
    """How many masks hold each value; at most the 16 most frequent."""
    mask_rule: MaskRule
    label_values: tuple[int, ...] = ()
    """The values that stand for classes (mask_rule: labels)."""
    classes: tuple[str, ...] = ("foreground",)
    target: Target = "binary"
    near_duplicates: int
    """Pairs of pictures that are the same or nearly so."""


class DataPlan(_Part):
    dataset: str
    layout: str
    modality: Modality = "unknown"
    """What kind of pictures these are; augmentation follows it."""
    index_sha256: str
    """Of the index the plan was made from; training refuses another."""
    grouped_by: str = ""
    """What made the groups, in words."""
    left_out: tuple[str, ...] = ()
    """Files of the folder left out by hand (--skip-bad)."""
    empty_cases: Literal["keep", "drop"] = "keep"
    """Whether cases with an empty mask take part."""
    mask_rule: MaskRule = "nonzero"
    """Foreground is every value above 0, or every grey of at least 128; instances: every value above 0, each an object of
    its own; labels: each of `label_values` is a class."""
    target: Target = "binary"
    """One class; classes of which each pixel has at most one (softmax); or classes that may overlap (sigmoids)."""
    classes: tuple[str, ...] = ("foreground",)
    """Names of the classes, background not among them."""
    label_values: tuple[int, ...] = ()
    """The mask value of each class (mask_rule: labels)."""
    channels: Annotated[int, Field(ge=1, le=16)] = 3
    """What the network sees: 1 grey, 3 colour, or as many as the files have."""
    colour_order: Literal["rgb", "bgr"] = "rgb"
    window: Literal["none", "image"] | tuple[float, float] = "none"
    """How values of more than 8 bits become 8: from each image's (volume's) own 0.5th to 99.5th percentile, or between two
    fixed values. Images of 8 bits stay as they are."""
    input_size: tuple[int, int] = (256, 256)
    """Height and width of the network's input."""
    resize: Literal["stretch", "letterbox"] = "stretch"
    """Images are stretched to the input size, or keep their shape and are padded with black."""
    crop: Literal["none", "square"] | tuple[Side, Side] = "none"
    """What is cut from an image before it is resized: nothing, its largest centred square, or a window of this height and
    width in pixels of the file, black where the image ends (task: diffuse)."""
    random_windows: Annotated[int, Field(ge=0)] = 0
    """0 takes the window in the middle; n takes n windows of each image, at places drawn by its name (task: diffuse)."""
    interpolation: Literal["area", "linear"] = "area"
    """How images shrink; masks always take the nearest value."""
    normalization: Literal["imagenet", "image", "published"] = "imagenet"
    """By ImageNet's mean and deviation; by each image's own; or by ImageNet's and a second time by 255, as published."""
    empty_slices: Literal["keep", "balance"] = "keep"
    """Of volumes: train on every slice, or on no more empty ones than ones with an object."""

    synthetic: str | None = None
    """The folder of a diffusion run conditioned on masks, whose images take the place of real ones in training."""
    synthetic_share: Fraction = 0.5
    """How often an image drawn takes a training image's place (synthetic)."""

    @property
    def outputs(self) -> int:
        """Channels of the network's logits: one a class, and the background's where classes exclude one another."""
        return len(self.classes) + (self.target == "multiclass")

    @model_validator(mode="after")
    def _sizes(self) -> "DataPlan":
        if min(self.input_size) < 1:
            raise ValueError(f"input_size must be positive, got {list(self.input_size)}")
        if isinstance(self.window, tuple) and not self.window[0] < self.window[1]:
            raise ValueError(f"window must rise, got {list(self.window)}")
        if (self.target == "multiclass") != (self.mask_rule == "labels"):
            raise ValueError(f"target={self.target} does not go with mask_rule={self.mask_rule}")
        if self.mask_rule == "labels" and len(self.label_values) != len(self.classes):
            raise ValueError(f"label_values {list(self.label_values)} do not fit classes {list(self.classes)}")
        if self.mask_rule != "labels" and self.label_values:
            raise ValueError(f"label_values go with mask_rule=labels, not {self.mask_rule}")
        if self.random_windows and self.crop == "none":
            raise ValueError("random_windows: whole images have no windows to draw; set crop to square or to a size")
        if self.target == "binary" and len(self.classes) != 1:
            raise ValueError(f"target=binary takes one class, got {list(self.classes)}")
        return self


class SplitPlan(_Part):
    kind: Literal["folds", "random", "published", "all"] = "folds"
    """Grouped stratified folds; folds at random, blind to groups, to show what leakage is worth; the published random
    split of the sorted names, once for each seed; or every case trained on and none held out (task: diffuse)."""
    folds: Annotated[int, Field(ge=2)] = 5
    """How many folds (kind: folds, random)."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share held out (kind: published)."""
    official_test: Literal["hold_out", "pool"] = "hold_out"
    """An official test part stays outside the folds, or is pooled with the rest, as papers do."""
    seeds: tuple[Seed, ...] = (0,)
    """The seed of the folds, or one seed for each published split."""

    @model_validator(mode="after")
    def _one_seed_for_folds(self) -> "SplitPlan":
        if not self.seeds or (self.kind != "published" and len(self.seeds) != 1):
            raise ValueError(f"seeds: folds take exactly one, published splits at least one; got {list(self.seeds)}")
        return self

    @property
    def count(self) -> int:
        return {"published": len(self.seeds), "all": 1}.get(self.kind, self.folds)


class ModelPlan(_Part):
    """A network's name and its sizes; the sizes are the model's own keyword arguments, all written out."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)
    name: str = "ukan"

    @property
    def sizes(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class AugmentPlan(_Part):
    """Random changes of a training sample, each with its probability, 0 switching it off, and how far it reaches."""

    rot90: Fraction = 0.0
    """Quarter turns."""
    hflip: Fraction = 0.0
    vflip: Fraction = 0.0
    any_flip: Fraction = 0.0
    """One flip, drawn among horizontal, vertical and both (albumentations' former Flip, as published)."""
    affine: Fraction = 0.0
    scale: tuple[Positive, Positive] = (0.8, 1.25)
    """Range of the zoom (affine)."""
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 20.0
    """Largest rotation either way (affine)."""
    shift: Fraction = 0.1
    """Largest shift either way, as a share of the side (affine)."""
    elastic: Fraction = 0.0
    """A smooth random deformation."""
    elastic_shift: Annotated[float, Field(ge=0, le=0.1)] = 0.02
    """Deviation of the displacements along an axis, as a share of the shorter side (elastic)."""
    colour: Fraction = 0.0
    """A change of hue and saturation; pictures of three channels only."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """Largest turn of the colour circle either way, 1 being the whole circle (colour)."""
    saturation: Fraction = 0.2
    """Largest change either way (colour)."""
    intensity: Fraction = 0.0
    brightness: Fraction = 0.2
    """Largest change either way, as a share of white (intensity)."""
    contrast: Fraction = 0.2
    """Largest change either way (intensity)."""
    gamma: Fraction = 0.0
    gamma_range: tuple[Positive, Positive] = (0.7, 1.4)
    """Range of the exponent; below 1 brightens (gamma)."""
    noise: Fraction = 0.0
    noise_std: tuple[Fraction, Fraction] = (0.01, 0.06)
    """Range of the deviation, as a share of white (noise)."""
    blur: Fraction = 0.0
    blur_sigma_px: tuple[Positive, Positive] = (0.3, 1.0)
    """Range of the deviation, in pixels of the network's input (blur)."""

    @model_validator(mode="after")
    def _ranges(self) -> "AugmentPlan":
        for name in ("scale", "gamma_range", "noise_std", "blur_sigma_px"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise, got [{low:g}, {high:g}]")
        return self


class TrainPlan(_Part):
    epochs: Annotated[int, Field(ge=1)] = 400
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Images an optimiser step, over all processes and micro-batches."""
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-4
    lr_kan: Positive = 1e-2
    """Learning rate of the KAN layers' parameters, and of those of layers in their place."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """L2 in the gradient (adam) or decoupled (adamw)."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear rise of the learning rates from zero."""
    schedule: Literal["cosine", "cosine_by_epoch", "gradual_warmup"] = "cosine"
    """A half cosine down to lr_end, moving each step or each epoch; or as in Diffusion U-KAN's code, by epoch from half the
    rate up to it over warmup_epochs, then along a half cosine that is as long as all epochs and so ends early."""
    lr_end: Annotated[float, Field(ge=0)] = 1e-5
    bce_weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the cross-entropy: binary for each class, or over classes that exclude one another."""
    dice_weight: Annotated[float, Field(ge=0)] = 1.0
    clip_norm: Positive | None = None
    """Largest norm of the gradient."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of the weights' moving average, which is then what is scored and kept."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere."""
    channels_last: bool = True
    compile: Literal["auto", "on", "off"] = "auto"
    """Whether KAN layers make their features by torch's compiler: faster from the first minutes on, equal to rounding. auto:
    for trainings of at least 1,000 steps, where there is a compiler."""
    kan_update_every: Annotated[int, Field(ge=0)] = 0
    """Steps after which the knots of the KAN layers follow the data; 0 never, as published for U-KAN."""
    kan_update_until: Fraction = 0.5
    """The share of the steps after which knots stay."""
    kan_update_adaptive: Fraction = 0.5
    """The new grid's mixture: this share of quantiles of the inputs, the rest evenly spaced. Behind a ReLU many inputs are
    0, and quantiles fall together."""
    kan_penalty: Literal["coefficients", "activations"] = "coefficients"
    """What the regularisation of the KAN layers takes for the size of an edge's function: the mean of its |coefficients|, or
    of its |values| at what enters."""
    kan_l1: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the functions' size in the loss."""
    kan_entropy: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy of its spread over the edges, added as published: less of it leaves fewer edges."""
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


class DiffusePlan(_Part):
    """What is learned of noise, and how images are drawn from it (task: diffuse)."""

    prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    """What the network predicts: the noise, the image, or v (Salimans & Ho 2022)."""
    betas: Literal["linear", "cosine"] = "linear"
    """From 1e-4 to 0.02 (Ho et al. 2020), or Nichol & Dhariwal's."""
    timesteps: Annotated[int, Field(ge=2)] = 1000
    snr_gamma: Positive | None = None
    """Min-SNR weighting (Hang et al. 2023): no timestep weighs more than by this signal-to-noise ratio."""
    loss: Literal["mean", "sum"] = "mean"
    """The mean squared error, or its sum over the batch divided by 1000, as published: clip_norm then bounds most steps."""
    condition: Literal["none", "class", "mask"] = "none"
    """What an image is drawn for: nothing, the class of the picture, or its mask."""
    classes: tuple[str, ...] = ()
    """The classes of pictures (condition: class)."""
    drop_condition: Fraction = 0.1
    """The share of training samples that are shown without their condition, for guidance."""
    scheduler: str = "DDIM"
    """One of diffusers' schedulers, by which images are drawn."""
    steps: Annotated[int, Field(ge=1)] = 50
    """Steps of the scheduler an image; in each the network is evaluated once, by Heun and KDPM2 twice."""
    scheduler_options: dict[str, bool | int | float | str] = {}
    """Further arguments of that scheduler."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """How far beyond the unconditioned prediction the conditioned one is followed (Ho & Salimans 2022); 1 as it is."""
    preview: Annotated[int, Field(ge=0, le=256)] = 16
    """How many images are drawn, always of the same seeds, each time the held-out cases are looked at."""


class Plan(_Part):
    """One experiment on one dataset."""

    version: int = VERSION
    task: Task = "segment"
    name: str
    protocol: Literal["honest", "paper"] = "honest"
    """The rules its numbers are made by; tables never mix the two."""
    recipe: str | None = None
    published: dict[str, float] = {}
    """Scores the recipe's paper reports, to lay beside ours."""
    preset: Literal["smoke", "fast", "full"] = "full"
    """How much training the planner aimed at."""
    budget_gib: Positive = 8.0
    """Memory a training step may take."""
    data: DataPlan
    split: SplitPlan = SplitPlan()
    model: ModelPlan = ModelPlan()
    train: TrainPlan = TrainPlan()
    infer: InferPlan = InferPlan()
    diffuse: DiffusePlan | None = None
    reasons: dict[str, str] = {}
    """Why each derived value is what it is."""

    @model_validator(mode="before")
    @classmethod
    def _of_its_task(cls, content: Any) -> Any:
        """What another task reads is refused: it would have no effect."""
        if isinstance(content, Mapping) and content.get("task", "segment") in _OF_TASK:
            task = content.get("task", "segment")
            for key, value in flatten({k: v for k, v in content.items() if isinstance(v, Mapping)}).items():
                if not of_task(key, task) and value != _default(key):
                    raise ValueError(f"{key}: of no effect in a plan whose task is {task}; remove it")
        return content

    @model_validator(mode="after")
    def _task(self) -> "Plan":
        if (self.task == "diffuse") != (self.diffuse is not None):
            raise ValueError(f"task={self.task} does not go with diffuse={self.diffuse}")
        if self.diffuse and (self.diffuse.condition == "class") != bool(self.diffuse.classes):
            raise ValueError(
                f"diffuse.classes {list(self.diffuse.classes)} do not go with condition={self.diffuse.condition}"
            )
        data = self.data
        if self.task == "segment" and data.normalization != "image" and data.channels not in (1, 3):
            said = f"data.normalization={data.normalization} knows 1 or 3 channels, not {data.channels}"
            raise ValueError(f"{said}; use image")
        if self.diffuse and self.diffuse.guidance != 1 and not self.diffuse.drop_condition:
            raise ValueError("diffuse.guidance: nothing is learned without the condition while drop_condition is 0")
        if self.task == "segment" and self.split.kind == "all":
            raise ValueError("split.kind=all holds nothing out, which only the task diffuse can do; set it to folds")
        return self

    @model_validator(mode="after")
    def _colour(self) -> "Plan":
        if self.train.augment.colour and self.data.channels != 3:
            raise ValueError(f"train.augment.colour is for images of 3 channels, not {self.data.channels}; set it to 0")
        return self

    # What a person may not set: made by planning from the folder itself.
    DERIVED: ClassVar[frozenset[str]] = frozenset(
        {
            *("version", "task", "name", "protocol", "recipe", "published", "preset", "reasons"),
            *("data.dataset", "data.layout", "data.index_sha256", "data.grouped_by", "data.left_out"),
            "diffuse.classes",
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
        return cls.parse(_upgraded(content, path), str(path))

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str) -> "Plan":
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{where}: {'; '.join(_explain(row) for row in error.errors())}") from error

    def content(self) -> dict[str, Any]:
        """What its task reads, as plain values: fields of other tasks are left out."""
        content = self.model_dump(mode="json")
        return {
            name: {k: v for k, v in part.items() if of_task(f"{name}.{k}", self.task)} if isinstance(part, dict) else part
            for name, part in content.items()
            if part is not None or of_task(f"{name}.", self.task)
        }

    def dump(self) -> str:
        """The same plan gives the same bytes everywhere."""
        return yaml.dump(self.content(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, indent=2)

    def save(self, path: Path) -> None:
        write_text(path, self.dump())

    def flat(self) -> dict[str, Any]:
        """Every value by its dotted key, reasons left out."""
        return flatten({k: v for k, v in self.content().items() if k != "reasons"})

    def difference(self, other: "Plan") -> list[str]:
        """Lines 'key: mine -> theirs' for every value in which two plans differ; what changes no result does not count."""
        mine, theirs = self.flat(), other.flat()
        keys = [key for key in [*mine, *(key for key in theirs if key not in mine)] if key not in _NO_RESULT]
        return [f"{k}: {mine.get(k)} -> {theirs.get(k)}" for k in keys if mine.get(k) != theirs.get(k)]


_NO_RESULT = ("infer.batch_size", "train.compile", "model.scan_backend")
_OF_TASK: dict[Task, tuple[str, ...]] = {
    "segment": (
        *("data.colour_order", "data.normalization", "data.empty_slices", "data.resize", "data.synthetic"),
        *("train.bce_weight", "train.dice_weight", "infer.threshold"),
    ),
    "diffuse": ("data.crop", "data.random_windows", "diffuse."),
}
"""Fields, and parts, that one task alone reads."""


def of_task(key: str, task: Task) -> bool:
    """Whether a task reads a field."""
    return not any(key.startswith(name) for other, names in _OF_TASK.items() if other != task for name in names)


def _default(key: str) -> Any:
    part: type[BaseModel] | None = Plan
    field = None
    for name in key.split("."):
        if part is None or name not in part.model_fields:
            return None
        field = part.model_fields[name]
        part = part_of(field.annotation)
    return field.get_default(call_default_factory=True) if field else None


def _upgraded(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """A plan of an older version as one of this version."""
    version = content.get("version")
    if version in range(1, VERSION):  # later ones only added fields, whose defaults are what these did
        return content | {"version": VERSION}
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        do = "install a newer ukan" if newer else "run `ukan plan` again"
        raise UserError(f"{path}: a plan of version {version}, this ukan reads 1 to {VERSION}; {do}")
    return content


def settable_keys(model_sizes: Sequence[str] = (), task: Task = "segment") -> list[str]:
    """Every key that --set takes for a task."""
    keys = _keys(Plan, "") + [f"model.{size}" for size in model_sizes]
    return [key for key in keys if key not in Plan.DERIVED and of_task(key, task)]


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
            for task in get_args(Task):
                if key in settable_keys(task=task):
                    raise UserError(f"--set {key}: of no effect here: a field of plans whose task is {task} (--task {task})")
            raise UserError(f"--set {key}: no such field. {nearest(key, list(known))}")
        try:
            values[key] = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            raise UserError(f"--set {key}: cannot read {text!r} ({_first_line(error)})") from error
    return values


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted keys. `published` and `scheduler_options` stay whole: their keys are no fields of ours."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and key not in ("published", "scheduler_options"):
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
        inner = part_of(field.annotation)
        keys += _keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return keys


def part_of(annotation: Any) -> type[BaseModel] | None:
    """The part of a plan that a field holds, also where it may be missing; None for a plain value."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return kinds[0] if kinds else None


def _explain(row: Any) -> str:
    place = ".".join(str(part) for part in row["loc"]) or "plan"
    if row["type"] == "extra_forbidden":
        return f"{place}: no such field. {nearest(place, _keys(Plan, ''))}"
    if row["type"] == "missing":
        return f"{place}: missing"
    said = f"{place}: {row['msg'].removeprefix('Value error, ')}"
    return said if isinstance(row["input"], dict) else f"{said}, got {row['input']!r}"


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
