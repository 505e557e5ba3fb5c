"""What planning decides alike for every task, and how: what is given first, the rest with a reason."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter, ValidationError

from ukan.errors import DataError, UserError
from ukan.plan import Fingerprint, Modality, Plan, flatten, part_of, unflatten

Size = tuple[int, int]  # height and width, in pixels
PresetName = Literal["smoke", "fast", "full"]
LARGEST_BUDGET_GIB = 1024


TRAINING: dict[str, tuple[Any, str]] = {
    "optimizer": ("adamw", "decoupled weight decay"),
    "schedule": ("cosine", "moves every step"),
    "lr_end": (1e-6, "practically zero"),
    "clip_norm": (1.0, "a bound on the step that single hard cases can cause"),
    "precision": ("auto", "bf16 on GPUs that have it, fp32 elsewhere"),
    "channels_last": (True, "tokens and maps are then views of one another"),
    "compile": ("auto", "KAN layers by the compiler where the training is long enough for it to pay"),
    "kan_update_every": (0, "knots stay, as published; inputs come normalised"),
    "kan_update_until": (0.5, "of no effect while knots stay"),
    "kan_update_adaptive": (0.5, "of no effect while knots stay"),
    "kan_penalty": ("coefficients", "of no effect without weights"),
    "kan_l1": (0.0, "as published for U-KAN: weight decay alone"),
    "kan_entropy": (0.0, "as published for U-KAN: weight decay alone"),
    "seed": (0, "any number will do; it is recorded"),
}
"""Fields of training that no task decides by its cases."""

MODEL_REASONS = {
    "kan_layers": "three KAN layers a block, the best of the paper's Table 4",
    "skip": "skips are added, as in the published code",
    "grid_size": "as published",
    "spline_order": "as published; of even knots the fast formula",
    "base_activation": "as published",
    "spline_scaler": "as published",
    "beyond": "as published: beyond the outermost knots the base activation alone",
    "weights": "fetched once, when a training begins; none trains from scratch",
}


class Decisions:
    """Every field decided so far, with why. What a person sets comes first, what a recipe says second.

    `left_open` are fields of which a recipe is not asked.
    """

    def __init__(self, recipe: Mapping[str, Any], settings: Mapping[str, Any], left_open: Collection[str] = ()) -> None:
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}
        self.rules = {key: recipe[key] for key in ("protocol", "published", "task") if key in recipe}
        """What the recipe says of the whole plan."""
        said = flatten({key: value for key, value in recipe.items() if key != "reasons" and key not in self.rules})
        if left_open:
            self.rules.pop("published", None)  # the scores of another length and size
            said = {key: value for key, value in said.items() if key not in left_open}
        self.given = {key: _typed(key, value, "recipe") for key, value in said.items()}
        """What is not to be decided, by dotted key."""
        self._because = {key: recipe.get("reasons", {}).get(key, "as the recipe says") for key in self.given}
        for key, value in settings.items():
            self.given[key], self._because[key] = _typed(key, value, "--set"), "set by hand (--set)"

    def decide(self, key: str, value: Any, because: str) -> Any:
        """What is given for a field, or else `value`; noted with its reason."""
        known = key in self.given
        self.values[key] = self.given[key] if known else value
        self.reasons[key] = self._because[key] if known else because
        return self.values[key]

    def budget_gib(self) -> float:
        budget = self.decide("budget_gib", 8.0, "memory for a training step that common GPUs have")
        if budget > LARGEST_BUDGET_GIB:
            raise UserError(f"budget_gib={budget:g}: no machine has so much; it is the GiB a training step may take")
        return budget

    def cases(self, f: Fingerprint, empty_cases: tuple[str, str], mask_rule_because: str) -> tuple[Modality, int, int]:
        """Which cases, what they show, and how their files are read; gives modality, channels and outputs of a mask."""
        modality = self.decide("data.modality", f.modality, _modality_because(f))
        self.decide("data.empty_cases", *empty_cases)
        rule = self.decide("data.mask_rule", f.mask_rule, mask_rule_because)
        target = self.decide("data.target", *choose_target(f, rule))
        label_values = self.decide("data.label_values", *_choose_label_values(f, rule))
        classes = self.decide("data.classes", *choose_classes(f, target, label_values))
        channels = self.decide("data.channels", *_choose_channels(f))
        self.decide("data.window", *_choose_window(f))
        self.decide("data.interpolation", "area", "shrinking by averages keeps speckle and thin structures from aliasing")
        _refuse_contradictions(f, self.values)
        return modality, channels, len(classes) + (target == "multiclass")

    def split(self, f: Fingerprint, wanted: int, prefix: str, *, folds_because: str, test_because: str) -> int:
        """The folds; gives how many images one is trained on. test_because: what becomes of an official test part."""
        kind = self.decide("split.kind", "folds", folds_because)
        because = f"{f.test} {test_because}" if f.test else "there is no official test part"
        official_test = self.decide("split.official_test", "hold_out", because)
        cases, groups = _taking_part(f, self.values["data.empty_cases"], official_test)
        if kind == "published":
            held_out = self.decide("split.held_out", 0.2, "as published")
            self.decide("split.seeds", [2981], "the first of the published seeds")
            cases = round(cases * (1 - held_out))
        elif kind != "all":
            folds = self.decide(
                "split.folds", *_choose_folds(f, cases, groups if kind == "folds" else cases, wanted, prefix)
            )
            self.decide("split.seeds", [0], "any number will do; it is recorded")
            cases = cases * (folds - 1) // folds
        return cases * f.slices

    def plan(self, f: Fingerprint, name: str, preset: PresetName) -> Plan:
        """The plan of all that was decided, and of what was given beside it."""
        for key in [key for key in self.given if key not in self.values]:  # fields that have defaults, and need no decision
            self.decide(key, self.given[key], "")
        content = unflatten(self.values) | self.rules
        content["data"] |= {
            "dataset": f.dataset,
            "layout": f.layout,
            "index_sha256": f.index_sha256,
            "grouped_by": f.grouped_by,
        }
        return Plan.parse({"name": name, "preset": preset, **content, "reasons": self.reasons}, "plan")


def plain(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """A network's sizes as a plan writes them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()}


def _refuse_contradictions(f: Fingerprint, values: Mapping[str, Any]) -> None:
    """What was set by hand, against the files and against one another: one line that says what to set instead."""
    rule, classes = values["data.mask_rule"], tuple(values["data.classes"])
    if (target := choose_target(f, rule)[0]) != values["data.target"]:
        raise UserError(f"data.target={values['data.target']}: masks read by the rule {rule!r} make it {target}")
    if rule == "labels" and not values["data.label_values"]:
        raise UserError(
            "data.mask_rule=labels: say which mask value is which class, "
            "for example --set data.label_values=[1,2] --set data.classes=[gland,vessel]"
        )
    if rule == "labels" and len(classes) != len(values["data.label_values"]):
        raise UserError(
            f"data.classes names {len(classes)} classes, data.label_values has {len(values['data.label_values'])} values: "
            "they must be as many, in the same order"
        )
    if rule != "labels" and classes != (known := tuple(choose_classes(f, target, ())[0])):
        raise UserError(
            f"data.classes={list(classes)}: only the classes of a label map can be renamed; "
            f"here the files name them: {', '.join(known)}"
        )
    of_files = (1, 3) if f.channels in (1, 3) else (f.channels,)
    if values["data.channels"] not in of_files:
        raise UserError(
            f"data.channels={values['data.channels']}: the files have {f.channels}; give {' or '.join(map(str, of_files))}"
        )


# The decisions: each gives the value and why


def _typed(key: str, value: Any, source: str) -> Any:
    """A value as its field's own type. Whether it goes with the others is seen when all are decided."""
    part: Any = Plan
    for name in key.split("."):
        if part is None or name not in part.model_fields:  # a size of the model, which the model itself checks
            return value
        field = part.model_fields[name]
        part = part_of(field.annotation)
    hint: Any = Annotated[field.annotation, field]
    adapter = TypeAdapter(hint)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        messages = dict.fromkeys(row["msg"] for row in error.errors())
        raise UserError(f"{source}: {key}: {'; '.join(messages)}, got {value!r}") from error


def _modality_because(f: Fingerprint) -> str:
    if f.modality == "unknown":
        return "nothing tells what these pictures are; augmentation is careful (--set data.modality=... helps it)"
    return f"what the layout {f.layout} holds; augmentation follows it"


def choose_target(f: Fingerprint, rule: str) -> tuple[str, str]:
    if rule == "labels":
        return "multiclass", "a pixel of a label map has one class at most"
    if f.target == "multilabel":
        return "multilabel", "classes with masks of their own may overlap"
    return "binary", "one class"


def _choose_label_values(f: Fingerprint, rule: str) -> tuple[list[int], str]:
    if rule != "labels":
        return [], "no label map"
    return list(f.label_values), "the values above 0 that masks hold"


def choose_classes(f: Fingerprint, target: str, label_values: list[int] | tuple[()]) -> tuple[list[str], str]:
    if target == "multiclass":
        names = dict(zip(f.label_values, f.classes, strict=True)) if f.mask_rule == "labels" else {}
        named = [names.get(value, f"label {value}") for value in label_values]
        return named, "one for each label; --set data.classes=[...] names them"
    if target == f.target:
        return list(f.classes), "as the masks are"
    return ["foreground"], "all labels as one"


def _choose_channels(f: Fingerprint) -> tuple[int, str]:
    if f.channels == 3:
        return 3 if f.colour else 1, f"{f.colour} of {f.cases} images have colour"
    return f.channels, "as many as the files have"


def _choose_window(f: Fingerprint) -> tuple[Any, str]:
    if f.deep == 0:
        return "none", "images of 8 bits"
    if f.hounsfield and f.intensity and f.intensity[0] < f.intensity[1]:
        low, high = math.floor(f.intensity[0]), math.ceil(f.intensity[1])
        return [low, high], "Hounsfield units have a meaning: 0.5th to 99.5th percentile inside all masks, as in nnU-Net"
    return "image", "values of more than 8 bits without a common scale: each image's own range"


def _taking_part(f: Fingerprint, empty_cases: str, official_test: str) -> tuple[int, int]:
    """Cases, and groups, from which the folds are made. A pooled test part's groups are not known: at least the others."""
    cases = f.cases - (f.test if official_test == "hold_out" else 0) - (f.empty if empty_cases == "drop" else 0)
    return cases, f.groups_with_object if empty_cases == "drop" else f.groups


def _choose_folds(f: Fingerprint, cases: int, groups: int, wanted: int, prefix: str) -> tuple[int, str]:
    if groups < 2:
        raise DataError(f"{cases} case(s) in {groups} group: nothing could be held out; add cases")
    if groups < wanted:
        made = f" ({f.grouped_by})" if f.grouped_by else ""
        return groups, f"only {groups}: there are no more groups{made}, and a group is never on both sides"
    if prefix:
        return wanted, f"{prefix}{wanted} folds"
    return wanted, "usual; each trains on 80 % of the cases"


def choose_batch_size(
    size: Size, images: int, budget_gib: float, largest: int, fits: Callable[..., bool]
) -> tuple[int, str]:
    batch = largest
    while not fits(size, batch):
        if batch == 1:
            raise UserError(
                f"budget_gib={budget_gib:g} does not hold a training step of one image of {size[1]}x{size[0]}; "
                "give more (--budget-gib), or a smaller data.input_size or model"
            )
        batch //= 2
    return min(batch, images), f"as published ({largest}), if {budget_gib:g} GiB and {images} training images allow"


def choose_ema_decay(steps: int) -> tuple[float, str]:
    decay = round(max(0.9, min(0.999, 1 - 1 / max(10.0, steps * 0.02))), 4)
    return decay, "an average over the last 2 % of the steps, at most 1000 of them"
