"""Errors come out as one line and the documented exit code; every command has help; mistyped ones are answered."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner
from ukan_cli.main import app


def ukan(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ukan_cli", *words], capture_output=True, text=True)


@pytest.mark.parametrize("command", ["", "doctor", "demo", "check", "plan", "train", "evaluate", "predict", "report"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output and "--help" in result.output


def test_a_mistyped_command_or_option_is_usage_and_names_the_nearest() -> None:
    done = ukan("trian")
    assert done.returncode == 2 and "train" in done.stderr
    done = ukan("train", "x.yaml", "--dryrun")
    assert done.returncode == 2 and "--dry-run" in done.stderr


def test_an_error_for_people_is_one_line_and_debug_shows_where(tmp_path: Path) -> None:
    done = ukan("check", str(tmp_path / "nothing"))
    assert done.returncode == 4
    assert done.stderr.startswith("ukan: ") and done.stderr.count("\n") == 1 and not done.stdout
    assert "Traceback" in ukan("check", str(tmp_path / "nothing"), "--debug").stderr


def test_the_version_is_told() -> None:
    from ukan import __version__

    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"ukan {__version__}"
