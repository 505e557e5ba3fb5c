"""The house stands: imports point down, nothing heavy is loaded early, the README's map is the disk."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ukan

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    ("errors", "plan", "paths", "runtime", "imaging", "doctor"),
    ("nn",),
    ("models", "data", "planning", "losses", "metrics"),
    ("training", "runs", "inference", "sampling"),
    ("stage",),
    ("segment", "diffuse", "report"),
    ("tasks",),
    ("ukan_cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FOUNDATIONS = {"errors", "paths", "plan", "runtime"}  # what the rooms of the lowest floor share

HEAVY = ("torch", "monai", "pandas", "matplotlib", "cv2", "albumentations", "numpy")

FILES = sorted([*(ROOT / "ukan").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1]  # ukan/<room>... and cli/ukan_cli/...


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at its top, inside functions, and by import_module("...")."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name instead of a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return names


def rooms_used(path: Path) -> set[str]:
    rooms = set()
    for name in imported(path):
        package, _, rest = name.partition(".")
        first = rest.partition(".")[0]
        if package == "ukan_cli":
            rooms.add("ukan_cli")
        elif package == "ukan" and first != "__version__":
            public = ukan._PUBLIC.get(first)  # `from ukan import Plan` stands on the room that Plan lives in
            rooms.add(public.split(".")[1] if public else first)
    return rooms


def allowed(room: str, other: str) -> bool:
    if FLOOR[room] == FLOOR[other] == 0:
        return room == other or other in FOUNDATIONS
    return room == other or FLOOR[other] < FLOOR[room]


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room_of(path) for path in FILES if path != ROOT / "ukan" / "__init__.py"}
    assert rooms <= FLOOR.keys(), f"rooms without a floor: {rooms - FLOOR.keys()}"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_strictly_down(path: Path) -> None:
    if path == ROOT / "ukan" / "__init__.py":
        return
    room = room_of(path)
    upwards = {other for other in rooms_used(path) if not allowed(room, other)}
    assert not upwards, f"{path.relative_to(ROOT)} (floor {FLOOR[room]}) imports {sorted(upwards)}"


def test_the_import_check_sees_what_is_hidden_in_functions(tmp_path: Path) -> None:
    path = tmp_path / "hidden.py"
    path.write_text(
        "def f():\n    from ukan.segment.train import train\n    from ukan import Plan, runs, __version__\n"
        "    import ukan.nn.kan\n    import_module('ukan.report.page')\n    import_module('torch')\n"
    )
    assert rooms_used(path) == {"segment", "plan", "runs", "nn", "report"}
    assert not allowed("data", "models") and not allowed("imaging", "doctor") and allowed("imaging", "errors")


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_no_module_imports_monai_transforms(path: Path) -> None:
    assert not [name for name in imported(path) if name.startswith("monai.transforms")]


def test_importing_ukan_and_its_command_line_loads_nothing_heavy() -> None:
    code = "import sys, json, ukan, ukan_cli.main; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "ukan_cli" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", ukan.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(ukan, name) is not None
    assert name in dir(ukan)


def test_an_unknown_public_name_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"'Ukan'.*UKAN"):
        ukan.Ukan  # noqa: B018


def test_the_map_in_the_readme_is_what_is_on_the_disk() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "<!-- map -->" in lines and "<!-- /map -->" in lines, "README.md has no map"
    between = lines[lines.index("<!-- map -->") + 1 : lines.index("<!-- /map -->")]
    named = [line.split()[0].rstrip("/") for line in between if line.strip() and not line.startswith("```")]
    assert len(named) == len(set(named)), "a path is named twice"
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"named in README.md but not on the disk: {missing}"
    unnamed = [name for name in NAMES if Path(name).name not in ("__init__.py", "__main__.py") and name not in named]
    assert not unnamed, f"on the disk but not named in README.md: {unnamed}"
