"""Every file name the project writes is spelled here, once, and every file is written whole."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ukan.errors import UserError

PLANS = Path("plans")
RUNS = Path("runs")


@dataclass(frozen=True)
class PlanFolder:
    """plans/<dataset>/: what is known of a dataset, and the plans made for it."""

    root: Path

    @property
    def index(self) -> Path:
        return self.root / "index.csv"

    @property
    def problems(self) -> Path:
        return self.root / "problems.csv"

    @property
    def fingerprint(self) -> Path:
        return self.root / "fingerprint.json"

    @property
    def source(self) -> Path:
        """Where the raw folder is, relative to this folder: the one thing here that differs between machines."""
        return self.root / "source.json"

    def plan(self, name: str) -> Path:
        return self.root / f"{name}.yaml"

    def splits(self, name: str) -> Path:
        return self.root / f"{name}.splits.json"


@dataclass(frozen=True)
class FoldFolder:
    """runs/<run>/fold_k/: one network and how it came to be."""

    root: Path

    @property
    def weights(self) -> Path:
        """The final weights; their presence says that the fold is finished."""
        return self.root / "model.safetensors"

    @property
    def state(self) -> Path:
        """What resuming needs; gone when the fold is finished."""
        return self.root / "resume.pt"

    @property
    def log(self) -> Path:
        return self.root / "log.csv"

    @property
    def progress(self) -> Path:
        return self.root / "progress.png"

    @property
    def samples(self) -> Path:
        return self.root / "samples.png"


@dataclass(frozen=True)
class RunFolder:
    """runs/<dataset>-<plan>/: complete in itself; `predict` needs nothing else."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def splits(self) -> Path:
        return self.root / "splits.json"

    @property
    def index(self) -> Path:
        return self.root / "index.csv"

    @property
    def problems(self) -> Path:
        return self.root / "problems.csv"

    @property
    def fingerprint(self) -> Path:
        return self.root / "fingerprint.json"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics_per_case.csv"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def fold(self, k: int) -> FoldFolder:
        return FoldFolder(self.root / f"fold_{k}")

    def prediction(self, fold: int, case: str) -> Path:
        return self.predictions / f"fold_{fold}" / f"{case}.png"


def slug(name: str) -> str:
    """A file name for a dataset or plan: lower case, words joined by dashes."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not made:
        raise UserError(f"no name can be made of {name!r}; give one of letters and digits")
    return made


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".writing-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # the content reaches the disk before the name does
        temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes files that only the owner may read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()
