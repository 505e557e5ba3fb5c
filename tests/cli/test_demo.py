"""The demo ends with a report; an unknown kind is answered."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from ukan_cli import demo
from ukan_cli.main import app

from ukan.data.phantoms import PHANTOMS
from ukan.errors import UserError


@pytest.mark.parametrize("kind", ["histology", "endoscopy"])  # with a test part; with groups by a pattern
def test_a_tiny_demo_shows_every_command_and_ends_with_a_report(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ("data.input_size=[32,32]", "model.widths=[8,8,8]", "split.folds=2", "train.epochs=1", "train.batch_size=4")
    for name, value in (("IMAGES", 24), ("NEW_IMAGES", 1), ("SETTINGS", tiny)):
        monkeypatch.setattr(demo, name, value)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["demo", "here", "--kind", kind])
    assert result.exit_code == 0, result.output
    shown = [line.split()[2] for line in result.output.splitlines() if line.startswith("$ ukan ")]
    tests = ["evaluate"] if PHANTOMS[kind].has_test else []
    assert shown == ["check", "plan", "train", "evaluate", *tests, "predict", "report"]

    (run,) = (tmp_path / "here" / "runs").iterdir()
    assert (run / "report.html").is_file()
    assert json.loads((run / "fingerprint.json").read_text(encoding="utf-8"))["groups"] <= 6
    assert len(list((tmp_path / "here" / "masks").rglob("scan 0*.png"))) > 0


def test_an_unknown_kind_is_answered_with_the_nearest(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", str(tmp_path), "--kind", "dermatoscopy"])
    assert isinstance(result.exception, UserError) and "'dermoscopy'" in str(result.exception)
    assert not list(tmp_path.iterdir())
