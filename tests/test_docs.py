"""What README and docs/ say is so: commands run, options exist, links lead somewhere, every file and column is explained."""

import csv
import importlib
import json
import re
import shlex
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import ukan_cli.main

from ukan.data.phantoms import make_histology, make_ultrasound
from ukan.imaging import read_image, write_image
from ukan.plan import DiffusePlan

ROOT = Path(__file__).resolve().parents[1]
GUIDE, PYTHON, DIFFUSION = (ROOT / "docs" / name for name in ("guide.md", "python.md", "diffusion.md"))
VERB_PAGES = sorted((ROOT / "docs" / "verbs").glob("*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data_raw/README.md", "plans/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *VERB_PAGES,
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]

COMMANDS = typer.main.get_command(ukan_cli.main.app).commands  # type: ignore[attr-defined]
OPTIONS = {
    verb: {name for parameter in command.params for name in parameter.opts if name.startswith("--")} | {"--help", "--debug"}
    for verb, command in COMMANDS.items()
}
ALL_OPTIONS = {"--version"}.union(*OPTIONS.values())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, kind: str) -> list[str]:
    """The fenced blocks of a page whose first line is ``` and `kind`."""
    found = re.findall(rf"^```{kind}\n(.*?)^```$", text_of(path), re.MULTILINE | re.DOTALL)
    assert found, f"{path.name} has no block {kind!r}"
    return found


def code_of(path: Path) -> Iterator[str]:
    """Every line of a fenced block, continued lines as one, and every word or phrase set as code."""
    text = text_of(path)
    for block in re.findall(r"^```[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.name != "bad-inputs.md"]
)  # its commands are wrong on purpose
def test_every_command_and_option_that_is_named_exists(path: Path) -> None:
    for code in code_of(path):
        line = code.partition(" #")[0]
        if line.startswith("--"):
            assert line.split()[0].rstrip(":") in ALL_OPTIONS, f"{code!r}: no command has it"
        for part in re.split(r"&&|;", line):
            command = re.search(r"(?:^\s*(?:time )?ukan|-m ukan_cli) ([a-z][a-z-]*)(.*)", part)
            if command:
                verb, rest = command.groups()
                assert verb in COMMANDS, f"{code!r}: there is no `ukan {verb}`"
                unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest)) - OPTIONS[verb]
                assert not unknown, f"{code!r}: `ukan {verb}` has no {unknown}"


def test_every_verb_has_a_page_and_every_page_a_verb() -> None:
    assert {path.stem for path in VERB_PAGES} == set(COMMANDS)
    for path in VERB_PAGES:
        assert text_of(path).startswith(f"# ukan {path.stem}\n")


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_a_verb_s_page_names_its_options(verb: str) -> None:
    page = text_of(ROOT / "docs" / "verbs" / f"{verb}.md")
    missing = OPTIONS[verb] - {"--help", "--debug"} - set(re.findall(r"--[a-z][a-z-]*", page))
    assert not missing


def heading_anchors(path: Path) -> set[str]:
    """As GitHub makes them: lower case, spaces to dashes, all else that is no letter, digit, - or _ left out."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text_of(path), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_link_and_picture_is_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in heading_anchors(there), f"{target}: no such heading"


def test_pictures_are_small_all_shown_and_all_made_by_the_script() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").iterdir())
    shown, made = "".join(map(text_of, PAGES)), text_of(ROOT / "docs" / "make_pictures.py")
    for path in pictures:
        assert f"pictures/{path.name})" in shown, f"{path.name} is on no page"
        assert f'"{path.name}"' in made, f"{path.name} is not made by docs/make_pictures.py"
        assert min(read_image(path).shape[:2]) > 100
    assert sum(path.stat().st_size for path in pictures) < 600_000


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, np.ndarray]]:
    """A folder in which the commands of the guide and of the pages on Python and diffusion were run as they stand there, and
    the mask of the Python page."""
    folder = tmp_path_factory.mktemp("guide")
    rng = np.random.default_rng(0)
    for dataset, names in (
        ("polyps", [f"patient{patient}_{k}" for patient in range(3) for k in range(2)]),
        ("other-hospital", [f"scan{k}" for k in range(3)]),
    ):
        for name in names:
            image, masks = make_ultrasound(rng, 48, 64)
            write_image(folder / "data_raw" / dataset / "images" / f"{name}.png", image)
            write_image(
                folder / "data_raw" / dataset / "masks" / f"{name}.png", np.any(masks, axis=0).astype(np.uint8) * 255
            )
    for number in range(30):  # enough for four held-out images
        write_image(folder / "data_raw" / "tissue" / f"t{number}.png", make_histology(rng, 48, 64)[0])
    image, _ = make_ultrasound(rng, 50, 40)
    write_image(folder / "photos" / "new.png", image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        commands = "".join([*blocks(GUIDE, "sh runnable"), *blocks(DIFFUSION, "sh runnable")])
        for command in commands.replace("\\\n", " ").splitlines():
            patch.setattr(sys, "argv", shlex.split(command, comments=True))
            assert sys.argv[0] == "ukan"
            with pytest.raises(SystemExit) as end:
                ukan_cli.main.main()
            assert not end.value.code, command
        for block in blocks(PYTHON, "python runnable"):
            exec(compile(block, PYTHON.name, "exec"), {})
        scope = {"image": image}
        exec(compile(blocks(PYTHON, "python predictor")[0], PYTHON.name, "exec"), scope)
        exec(compile(blocks(DIFFUSION, "python diffusion")[0], DIFFUSION.name, "exec"), scope)
        assert scope["images"].shape == (2, 32, 32, 3)
        yield folder, scope["mask"]
    torch.use_deterministic_algorithms(False)  # training asks for them, and other tests count what networks keep


def test_the_guide_s_commands_lead_to_masks_scores_and_a_report(worked) -> None:
    folder, mask = worked
    assert mask.dtype == bool and mask.shape == (50, 40)
    assert read_image(folder / "masks" / "new.png").shape[:2] == (50, 40)
    for run in ("polyps-ukan", "polyps-python"):
        assert (folder / "runs" / run / "report.html").stat().st_size > 100_000
        summary = json.loads((folder / "runs" / run / "summary.json").read_text(encoding="utf-8"))
        assert summary["cases"] == 6 and summary["groups"] == 3  # the groups are the patients
    external = json.loads((folder / "runs/polyps-ukan/external/other-hospital/summary.json").read_text(encoding="utf-8"))
    assert external["cases"] == 3 and not external["left_out"]


def test_the_guide_says_what_every_file_is(worked) -> None:
    folder, _ = worked
    guide = text_of(GUIDE)
    for path in folder.rglob("*"):
        place = path.relative_to(folder)
        if path.is_dir() or place.parts[0] in ("data_raw", "photos", "cache", "exported"):
            continue
        name = place.name.replace("python.", "ukan.").replace("diffusion-ukan.", "ukan.")  # the plan's own name
        known = f"`{name}`" in guide or f"/{name}`" in guide
        parts = {"predictions", "overlays", "maps", "images", "samples"}.intersection(place.parts) or place.parts[0] in (
            "masks",
            "masks-python",
        )
        assert known or parts, f"{place} is not in docs/guide.md"


def test_the_verbs_pages_explain_every_column_and_key(worked) -> None:
    folder, _ = worked
    said = {word for path in VERB_PAGES for word in re.findall(r"`([^`\n]+)`", text_of(path))}
    tables = {(path.name, "diffusion" in str(path)): path for path in folder.rglob("*.csv")}
    assert {name for name, _ in tables} == {
        "index.csv",
        "problems.csv",
        "log.csv",
        "metrics_per_case.csv",
        "predictions.csv",
        "plausibility.csv",
        "samples.csv",
    }
    for name, path in tables.items():
        with path.open(newline="", encoding="utf-8") as file:
            columns = {column.replace("area_foreground", "area_<class>") for column in csv.DictReader(file).fieldnames or ()}
        assert columns <= said, f"{name}: {columns - said}"
    for name in ("summary.json", "fingerprint.json", "environment.json"):
        path = folder / "runs" / "polyps-ukan" / name
        keys = set(json.loads(path.read_text(encoding="utf-8")))
        assert keys <= said, f"{name}: {keys - said}"
    keys = set(json.loads((folder / "runs/polyps-ukan/explain/explain.json").read_text(encoding="utf-8")))
    assert keys <= said, f"explain.json: {keys - said}"
    keys = set(json.loads((folder / "masks" / "ukan-predict.json").read_text(encoding="utf-8")))
    assert keys <= said, f"ukan-predict.json: {keys - said}"
    for place in (
        "runs/tissue-diffusion-ukan/summary.json",
        "runs/tissue-diffusion-ukan/environment.json",
        "drawn/sample.json",
    ):
        content = json.loads((folder / place).read_text(encoding="utf-8"))
        keys = {*content, *content.get("settings", {}), *content.get("error", {})}
        assert keys <= said, f"{place}: {keys - said}"
    record = json.loads((folder / "runs/tissue-diffusion-ukan/fid/drawn/fid.json").read_text(encoding="utf-8"))
    keys = {*record, *record["features"][0], *record["features"][0]["honest"], *record["memorisation"]}
    assert keys <= said, f"fid.json: {keys - said}"


def test_diffusion_s_commands_lead_to_images_that_are_compared_and_reported(worked) -> None:
    folder, _ = worked
    assert len(list((folder / "drawn" / "images").iterdir())) == 16
    compared = json.loads((folder / "runs/tissue-diffusion-ukan/fid/drawn/fid.json").read_text(encoding="utf-8"))
    assert compared["protocols"] == ["honest", "paper"] and compared["generated"]["images"] == 16
    assert "kernel distance" in (folder / "runs/tissue-diffusion-ukan/report.html").read_text(encoding="utf-8").lower()


def test_the_plan_s_page_names_every_field_of_diffusion() -> None:
    page = text_of(ROOT / "docs" / "verbs" / "plan.md")
    missing = [field for field in DiffusePlan.model_fields if f"`diffuse.{field}`" not in page]
    assert not missing


def test_the_model_of_the_python_page_is_found_through_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ukan.models import build_model, model_sizes

    offered = tomllib.loads(blocks(PYTHON, "toml model")[0])["project"]["entry-points"]["ukan.models"]
    ((name, target),) = offered.items()
    module = tmp_path / "site" / target.partition(":")[0].replace(".", "/")
    about = tmp_path / "site" / "my_package-1.0.dist-info"
    for folder in (module.parent, about):
        folder.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    module.with_suffix(".py").write_text(blocks(PYTHON, "python model")[0])
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[ukan.models]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    assert model_sizes(name) == {"width": 16}
    assert build_model(name, 3, 2, {"width": 4})(torch.zeros(1, 3, 8, 6)).shape == (1, 2, 8, 6)


def test_the_layout_of_the_python_page_reads_its_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_dataset: Callable[..., Path]
) -> None:
    from ukan.data.index import index_folder
    from ukan.data.layouts import LAYOUTS

    layout = types.ModuleType("mine")
    exec(compile(blocks(PYTHON, "python layout")[0], PYTHON.name, "exec"), layout.__dict__)
    monkeypatch.setitem(LAYOUTS, "mine", layout)  # type: ignore[misc]
    made = write_dataset(tmp_path / "made", 3)
    (made / "images").rename(made / "scans")
    (made / "masks").rename(made / "truth")
    for path in (made / "truth").iterdir():
        path.rename(path.with_name(f"{path.stem}_gt.png"))
    index = index_folder(made)
    assert index.layout == index.dataset == "mine" and not index.errors
    assert [case.case for case in index.cases] == ["c000", "c001", "c002"]
