"""A training killed at any moment ends, by the same command again, with the same weights to the bit.

Real processes, real signals: python -m pytest tests/segment/test_resume.py
"""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SETTINGS = ("train.epochs=60", "data.input_size=[32,32]", "split.folds=2", "model.widths=[8,8,8]", "train.batch_size=2")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ukan_cli", *words]


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def rows_logged(log: Path) -> int:
    try:
        return max(0, len(log.read_text(encoding="utf-8").splitlines()) - 1)
    except FileNotFoundError:
        return 0


def stop_when_logged(process: subprocess.Popen[str], log: Path, rows: int, number: signal.Signals) -> tuple[int, str]:
    until = time.monotonic() + 120
    while rows_logged(log) < rows and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    assert process.poll() is None, f"the training ended before {rows} lines were logged: {process.communicate()[0]}"
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.fixture
def plan(write_dataset) -> Path:
    from ukan.stage.prepare import plan_folder

    folder = write_dataset(Path("data"), count=10, size=(32, 40))
    _, path, _ = plan_folder(folder, settings=SETTINGS)
    return path


def test_a_run_killed_at_several_moments_ends_with_the_same_weights_to_the_bit(plan: Path) -> None:
    steady = start("train", str(plan), "--fold", "0", "--run", "runs/steady")
    output, _ = steady.communicate(timeout=300)
    assert steady.returncode == 0, output

    log = Path("runs/killed/fold_0/log.csv")
    words = ("train", str(plan), "--fold", "0", "--run", "runs/killed")
    for rows, number in ((1, signal.SIGKILL), (12, signal.SIGTERM), (30, signal.SIGKILL)):
        code, output = stop_when_logged(start(*words), log, rows, number)
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
        else:
            assert code == 130 and "the same command goes on" in output
            assert Path("runs/killed/fold_0/resume.pt").exists()
    last = start(*words)
    output, _ = last.communicate(timeout=300)
    assert last.returncode == 0, output

    one, other = (load_file(f"runs/{name}/fold_0/model.safetensors") for name in ("steady", "killed"))
    assert one.keys() == other.keys()
    differing = [name for name in one if one[name].numpy().tobytes() != other[name].numpy().tobytes()]
    assert not differing
    assert not Path("runs/killed/fold_0/resume.pt").exists()

    logs = [
        list(csv.DictReader(io.StringIO(Path(f"runs/{name}/fold_0/log.csv").read_text(encoding="utf-8"))))
        for name in ("steady", "killed")
    ]
    for rows in logs:
        for row in rows:
            del row["elapsed_s"]
    assert logs[0] == logs[1], "the log has every epoch once"
    assert len(json.loads(Path("runs/killed/environment.json").read_text(encoding="utf-8"))["sessions"]) == 4
    assert not list(Path("runs/killed").rglob(".writing-*")), "nothing half-written is left"


@pytest.mark.slow
def test_two_processes_train_one_run(write_dataset) -> None:
    """Over gloo on the CPU, where BatchNorm sees each process's half of the batch: the same steps, not the same bits.

    Knots follow the data, over what entered in both: were they not the same, the next step would differ.
    """
    from ukan.stage.prepare import plan_folder

    folder = write_dataset(Path("data"), count=10, size=(32, 40))
    further = ["train.batch_size=4", "train.epochs=6", "train.kan_update_every=3", "train.kan_update_until=1"]
    kept = [setting for setting in SETTINGS if setting.partition("=")[0] not in {s.partition("=")[0] for s in further}]
    _, plan, _ = plan_folder(folder, settings=[*kept, *further])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "ukan_cli"]
    words = ["train", str(plan), "--fold", "0", "--device", "cpu"]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    run = Path("runs/data-ukan")
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["sessions"][0]["processes"] == 2
    assert rows_logged(run / "fold_0/log.csv") == 6
    weights = load_file(run / "fold_0/model.safetensors")
    knots = [tensor for name, tensor in weights.items() if name.endswith(".grid")]
    assert knots and not any(torch.allclose(tensor.diff(dim=1), tensor.diff(dim=1)[:, :1]) for tensor in knots)
    assert all(tensor.isfinite().all() for tensor in weights.values())
