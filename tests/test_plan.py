"""The plan: read, written, changed and compared without loss; every mistake is answered with its place."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from ukan.errors import UserError
from ukan.plan import VERSION, Plan, flatten, parse_settings, settable_keys, unflatten

CONTENT = {
    "name": "ukan",
    "data": {"dataset": "bumps", "layout": "folders", "index_sha256": "0" * 64, "input_size": [64, 96]},
    "model": {"name": "ukan", "widths": [8, 16, 24], "kan_layers": ["kan", "mlp"], "skip": "add"},
    "train": {"lr": 3e-4, "augment": {"hflip": 0.5}},
    "published": {"iou": 63.38},
    "reasons": {"train.lr": "because: 3e-4 & 'quotes' – and a dash"},
}


def make_plan(**changes: object) -> Plan:
    """The plan of CONTENT with dotted keys (dots written as __) changed."""
    flat = flatten({k: v for k, v in CONTENT.items() if k != "reasons"})
    flat |= {key.replace("__", "."): value for key, value in changes.items()}
    return Plan.parse({**unflatten(flat), "reasons": CONTENT["reasons"]}, "test")


def written(tree: dict, name: str = "plan.yaml") -> Path:
    path = Path(name)
    path.write_text(yaml.safe_dump(tree))
    return path


# Files


def test_a_plan_comes_back_from_its_file_and_gives_the_same_bytes() -> None:
    plan = make_plan()
    plan.save(Path("plan.yaml"))
    again = Plan.load(Path("plan.yaml"))
    assert again == plan
    again.save(Path("again.yaml"))
    assert Path("again.yaml").read_bytes() == Path("plan.yaml").read_bytes()


def test_none_survives_the_file() -> None:
    plan = make_plan(train__clip_norm=None, train__ema_decay=None, recipe=None)
    plan.save(Path("plan.yaml"))
    assert Plan.load(Path("plan.yaml")).train.clip_norm is None


@pytest.mark.parametrize("name", ["2018", "1e5", "no", "true", "null", "0x10", "1.5"])
def test_a_dataset_whose_name_looks_like_something_else_survives_the_file(name: str) -> None:
    plan = make_plan(data__dataset=name)
    plan.save(Path("plan.yaml"))
    assert Plan.load(Path("plan.yaml")) == plan


def test_sizes_of_a_model_that_the_plan_does_not_know_survive() -> None:
    plan = make_plan(model__depth=4)
    assert plan.model.sizes == {"widths": [8, 16, 24], "kan_layers": ["kan", "mlp"], "skip": "add", "depth": 4}
    plan.save(Path("plan.yaml"))
    assert Plan.load(Path("plan.yaml")).model.sizes == plan.model.sizes


@pytest.mark.parametrize(
    ("change", "place", "answer"),
    [
        ({"data.input_siz": [64, 64]}, "data.input_siz", "data.input_size"),
        ({"train.augment.hflipp": 0.5}, "train.augment.hflipp", "train.augment.hflip"),
        ({"budget": 4}, "budget", "budget_gib"),
        ({"train.threshold": 0.4}, "train.threshold", "infer.threshold"),
    ],
)
def test_an_unknown_key_is_refused_with_its_place_and_the_nearest(change: dict, place: str, answer: str) -> None:
    path = written(unflatten({**make_plan().flat(), **change}))
    with pytest.raises(UserError) as error:
        Plan.load(path)
    assert str(path) in str(error.value) and f"{place}: no such field" in str(error.value)
    assert repr(answer) in str(error.value)


def test_all_mistakes_of_a_plan_are_told_at_once() -> None:
    flat = make_plan().flat()
    del flat["data.index_sha256"]
    path = written(unflatten({**flat, "train.epochs": 0, "infer.threshold": 2.0, "data.normalization": "imagnet"}))
    with pytest.raises(UserError) as error:
        Plan.load(path)
    for place in ("data.index_sha256: missing", "train.epochs", "infer.threshold", "data.normalization"):
        assert place in str(error.value)
    assert "got 'imagnet'" in str(error.value) and "'published'" in str(error.value)


def load_with(version: object) -> Plan:
    return Plan.load(written({**make_plan().model_dump(mode="json"), "version": version}))


@pytest.mark.parametrize(
    ("version", "do"),
    [(VERSION + 1, "install a newer ukan"), (0, "run `ukan plan` again"), (None, "`ukan plan`"), ("1", "`ukan plan`")],
)
def test_a_version_that_cannot_be_read_is_refused_with_what_to_do(version: object, do: str) -> None:
    with pytest.raises(UserError, match=f"this ukan reads 1 to {VERSION}; .*{do}"):
        load_with(version)


def test_a_plan_of_version_1_is_read_and_means_what_it_meant() -> None:
    plan = load_with(1)
    assert plan.version == VERSION
    data = plan.data
    assert (data.target, data.mask_rule, data.window, data.resize) == ("binary", "nonzero", "none", "stretch")


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n", "a: [1, 2\n", "a: b: c\n", "\x00", "train: {lr: 1.2.3e4}"])
def test_a_file_that_is_no_plan_is_a_user_error_with_its_path(text: str) -> None:
    Path("odd.yaml").write_text(text)
    with pytest.raises(UserError, match=r"odd\.yaml"):
        Plan.load(Path("odd.yaml"))


def test_a_missing_plan_and_a_folder_are_answered_with_what_to_do() -> None:
    with pytest.raises(UserError, match="no such plan.*ukan plan FOLDER"):
        Plan.load(Path("nowhere.yaml"))
    with pytest.raises(UserError, match="is a folder"):
        Plan.load(Path())


# Rules inside the plan


@pytest.mark.parametrize("part", ["", "data", "split", "model", "train", "train.augment", "infer"])
def test_every_part_of_a_plan_is_frozen(part: str) -> None:
    place = plan = make_plan()
    for name in filter(None, part.split(".")):
        place = getattr(place, name)
    field = next(iter(type(place).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(place, field, getattr(place, field))
    assert plan == make_plan()


@pytest.mark.parametrize(("kind", "seeds"), [("folds", [0, 1]), ("folds", []), ("published", [])])
def test_folds_take_one_seed_and_published_splits_at_least_one(kind: str, seeds: list[int]) -> None:
    with pytest.raises(UserError, match="seed"):
        make_plan(split__kind=kind, split__seeds=seeds)


def test_the_number_of_splits_is_folds_or_seeds() -> None:
    assert make_plan(split__folds=3).split.count == 3
    assert make_plan(split__kind="published", split__seeds=[1, 2]).split.count == 2


@pytest.mark.parametrize("size", [[0, 64], [-32, 64], [64], [64, 64, 64], 64, "64x64"])
def test_an_impossible_input_size_is_refused(size: object) -> None:
    with pytest.raises(UserError, match=r"data"):
        make_plan(data__input_size=size)


# --set


def settings(*given: str) -> dict[str, object]:
    return parse_settings(given, settable_keys(["widths", "kan_layers"]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.lr=1e-4", 1e-4),
        ("train.lr=5E-3", 5e-3),
        ("train.lr=1.0e-4", 1e-4),
        ("train.epochs=5", 5),
        ("data.input_size=[64, 96]", [64, 96]),
        ("model.kan_layers=[kan,mlp]", ["kan", "mlp"]),
        ("train.channels_last=false", False),
        ("train.channels_last=True", True),
        ("train.clip_norm=null", None),
        ("data.empty_cases=drop", "drop"),
        (" train.seed = 3", 3),
        ("train.augment.hflip=0.25", 0.25),
        ("budget_gib=4", 4),
    ],
)
def test_a_setting_is_read_as_what_a_person_means(text: str, value: object) -> None:
    (found,) = settings(text).values()
    assert found == value and type(found) is type(value)


def test_words_that_yaml_takes_for_truth_stay_words() -> None:
    assert settings("model.kan_layers=[no, yes, on]") == {"model.kan_layers": ["no", "yes", "on"]}


def test_the_last_of_two_settings_of_one_key_holds() -> None:
    assert settings("train.epochs=5", "train.epochs=6") == {"train.epochs": 6}


@pytest.mark.parametrize("key", sorted(Plan.DERIVED))
def test_a_derived_key_cannot_be_set(key: str) -> None:
    with pytest.raises(UserError, match=f"--set {key}: .*not to be set"):
        settings(f"{key}=1")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("train.epoch=5", "'train.epochs'"),
        ("train.threshold=0.4", "'infer.threshold'"),
        ("model.width=[1,2,3]", "'model.widths'"),
        ("epochs=5", "'train.epochs'"),
        ("hflip=1", "train.augment.hflip"),
        ("train=1", "train"),
        ("train.epochs", "key=value"),
        ("train.epochs=[1", "cannot read"),
    ],
)
def test_a_setting_that_cannot_be_is_answered_with_the_nearest_or_the_form(text: str, answer: str) -> None:
    with pytest.raises(UserError, match="--set") as error:
        settings(text)
    assert answer in str(error.value)


def test_every_field_of_the_plan_is_either_settable_or_derived() -> None:
    keys = {key for key in make_plan().flat() if not key.startswith("model.") or key == "model.name"}
    assert keys | {"reasons", "diffuse.classes"} == set(settable_keys()) | Plan.DERIVED


def test_flatten_and_unflatten_are_inverse() -> None:
    tree = make_plan().model_dump(mode="json", exclude={"reasons"})
    assert unflatten(flatten(tree)) == tree


# Comparing


def test_plans_differ_by_what_was_changed_and_not_by_reasons() -> None:
    plan, other = make_plan(), make_plan(train__lr=1e-3, model__skip="cat", model__depth=2)
    assert plan.difference(other) == ["model.skip: add -> cat", "train.lr: 0.0003 -> 0.001", "model.depth: None -> 2"]
    assert plan.difference(plan.model_copy(update={"reasons": {"train.lr": "another"}})) == []


def test_the_same_data_gives_the_same_bytes_anywhere(
    write_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ukan.stage.prepare import plan_folder

    made = []
    for place in ("here", "deep/down/there"):
        (tmp_path / place).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        folder = write_dataset(Path("raw/bumps"), count=6)
        _, path, _ = plan_folder(folder, settings=["split.folds=2", "model.widths=[8,8,8]"])
        made.append({p.name: p.read_bytes() for p in path.parent.iterdir() if p.name != "source.json"})
    assert made[0] == made[1]
    assert {"ukan.yaml", "ukan.splits.json", "index.csv", "fingerprint.json"} <= made[0].keys()
