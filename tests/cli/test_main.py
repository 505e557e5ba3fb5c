"""Errors come out as one line and the documented exit code; every command has help; mistyped ones are answered."""

import os
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


def run_main(command: str, *, stdout: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """What main() makes of a command whose body is `command`."""
    body = "".join(f"    {line}\n" for line in command.splitlines())
    code = (
        "import sys, os, errno\nfrom ukan_cli import main\n"
        f"def trial() -> None:\n{body}"
        "main.app.command('trial')(trial)\nsys.argv = ['ukan', 'trial', *sys.argv[1:]]\nmain.main()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("open('nowhere/x.png')", 4, "nowhere/x.png: No such file or directory"),
        ("raise OSError(errno.ENOSPC, 'No space left on device')", 4, "No space left on device"),
        ("raise OSError(errno.EIO, 'Input/output error', 'scan.png')", 4, "scan.png: Input/output error"),
        ("raise OSError('broken data stream when reading image file')", 4, "broken data stream when reading image file"),
        ("os.rename('a', 'b')", 4, "a: No such file or directory"),
        ("bytearray(2**60)", 5, "out of memory"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')", 5, "train.batch_size"),
        ("raise RuntimeError('MPS backend out of memory (MPS allocated: 9.00 GB)')", 5, "infer.batch_size"),
        ("import torch\ntorch.empty(2**50)", 5, "data.input_size"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_what_the_system_says_is_one_line_and_the_documented_exit_code(command: str, code: int, line: str) -> None:
    done = run_main(command)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("ukan: ") and line in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_our_own_mistakes_keep_their_traceback() -> None:
    done = run_main("raise RuntimeError('sizes do not match')")
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252:strict", "ascii:strict", "utf-8:strict"])
def test_any_name_can_be_printed_on_any_console(encoding: str) -> None:
    done = run_main(r"print('图.png', 'scan\udcff.png', '→')" + "\n" + r"open('图\udcff.png')", PYTHONIOENCODING=encoding)
    assert done.returncode == 4, done.stderr
    assert "scan" in done.stdout and "png: No such file" in done.stderr and "Error" not in done.stderr


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_is_no_error(lines: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run_main(f"for i in range({lines}): print(i)", stdout=writing, PYTHONUNBUFFERED="")
    finally:
        os.close(writing)
    assert done.returncode == 0 and not done.stderr
