"""Every file name the project writes is spelled here, once, and every file is written whole."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ukan.errors import DataError, UserError

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
    def thumbnails(self) -> Path:
        """What tells whether a picture is among the cases."""
        return self.root / "thumbnails.npz"

    @property
    def check_page(self) -> Path:
        return self.root / "check.html"

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
        """What the network drew while it was trained."""
        return self.root / "samples"

    def sample(self, epoch: int) -> Path:
        return self.samples / f"epoch_{epoch:05}.png"


@dataclass(frozen=True)
class ScoreFolder:
    """Scores and what they were made of: a run's own, those of an official test part, or of another dataset."""

    root: Path

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics_per_case.csv"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    def prediction(self, part: str, case: str) -> Path:
        """The path of a case's mask without its suffix; `part` is fold_k, or all."""
        return self.predictions / part / case


@dataclass(frozen=True)
class ExplainFolder:
    """runs/<run>/explain/: what was seen inside its networks."""

    root: Path

    @property
    def record(self) -> Path:
        """All numbers, and of which weights they are. Written last: its presence says that the rest is whole."""
        return self.root / "explain.json"

    @property
    def functions(self) -> Path:
        return self.root / "functions.png"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs.png"

    @property
    def plausibility(self) -> Path:
        return self.root / "plausibility.csv"

    @property
    def maps(self) -> Path:
        return self.root / "maps"

    def map(self, case: str) -> Path:
        return self.maps / f"{case}.png"


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
    def scores(self) -> ScoreFolder:
        """Out-of-fold scores."""
        return ScoreFolder(self.root)

    @property
    def test_scores(self) -> ScoreFolder:
        return ScoreFolder(self.root / "test")

    def external_scores(self, dataset: str) -> ScoreFolder:
        return ScoreFolder(self.root / "external" / dataset)

    @property
    def thumbnails(self) -> Path:
        """What tells whether a picture was among the cases."""
        return self.root / "thumbnails.npz"

    @property
    def quality(self) -> Path:
        """What predicts a prediction's quality."""
        return self.root / "quality.npz"

    @property
    def explain(self) -> ExplainFolder:
        return ExplainFolder(self.root / "explain")

    def fid(self, name: str) -> "FidFolder":
        """How images drawn by its networks compare with real ones."""
        return FidFolder(self.root / "fid" / name)

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def fold(self, k: int) -> FoldFolder:
        return FoldFolder(self.root / f"fold_{k}")


@dataclass(frozen=True)
class AblationFolder:
    """runs/<dataset>-<set>/: the table of a set of recipes; its runs lie beside this folder."""

    root: Path

    @property
    def table(self) -> Path:
        return self.root / "table.csv"

    @property
    def page(self) -> Path:
        return self.root / "table.html"


@dataclass(frozen=True)
class CompareFolder:
    """runs/compare-<names>/: what `ukan compare` says of several runs."""

    root: Path

    @property
    def record(self) -> Path:
        """All numbers and notes, each case's scores among them."""
        return self.root / "compare.json"

    @property
    def table(self) -> Path:
        """A line a run."""
        return self.root / "compare.csv"

    @property
    def pairs(self) -> Path:
        """A line for each two runs."""
        return self.root / "pairs.csv"

    @property
    def page(self) -> Path:
        return self.root / "compare.html"


@dataclass(frozen=True)
class SampleFolder:
    """A folder that `ukan sample` fills."""

    root: Path

    @property
    def record(self) -> Path:
        """By what network and how the images are drawn."""
        return self.root / "sample.json"

    @property
    def images(self) -> Path:
        return self.root / "images"

    def image(self, number: int, suffix: str) -> Path:
        return self.images / f"{number:06}{suffix}"

    def mask(self, number: int) -> Path:
        """The mask an image is drawn for, without its suffix."""
        return self.root / "masks" / f"{number:06}"

    @property
    def table(self) -> Path:
        """Each image's seed, class and mask."""
        return self.root / "samples.csv"

    @property
    def grid(self) -> Path:
        return self.root / "grid.png"


@dataclass(frozen=True)
class FidFolder:
    """Where `ukan fid` writes; by default the folder of the generated images."""

    root: Path

    @property
    def record(self) -> Path:
        """All numbers, and of which images. Written last: its presence says that the rest is whole."""
        return self.root / "fid.json"

    @property
    def nearest(self) -> Path:
        """Generated images beside their nearest training images."""
        return self.root / "nearest.png"

    @property
    def page(self) -> Path:
        return self.root / "fid.html"


def slug(name: str) -> str:
    """A file name for a dataset or plan: lower case, words joined by dashes."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not made:
        raise UserError(f"no name can be made of {name!r}; give one of letters and digits (--dataset, --name)")
    return made


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well and vanishes when it does not.

    Raises DataError where the system does not let it be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".writing-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary, os.O_RDWR)  # the content reaches the disk before the name does
        temporary.chmod(0o666 & ~_UMASK)  # mkstemp makes files that only the owner may read
        temporary.replace(path)
        if hasattr(os, "O_DIRECTORY"):  # Windows opens no folders
            _flush(path.parent, os.O_RDONLY)
    except OSError as error:
        # Errors of a class of their own (permission, not a folder) have nothing to do with room.
        room = _room(path.parent) if type(error) is OSError else ""
        raise DataError(f"{path}: cannot be written: {error.strerror or error}{room}") from error
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 40) : error.end + 40]
        raise DataError(f"{path}: cannot be written: {text!r} is no valid text; rename the file it names") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _room(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**30:.1f} GiB free there)"
    except OSError:
        return ""


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Whether this process has the lock of a file, which is held until the block ends; by default one waits for it.

    Windows has no such lock here: there everybody has it.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
