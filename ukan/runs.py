"""A run folder, opened: its plan, cases, folds and networks. Whatever needs another run asks here."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ukan.errors import DataError, UserError
from ukan.paths import RunFolder
from ukan.plan import Case, Plan, Task, load_splits

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ukan.data.cache import Prepared

IMPORTED = "import-official"
"""What stands for the recipe in plans of networks that were trained elsewhere."""


@dataclass(frozen=True)
class Run:
    folder: RunFolder
    plan: Plan

    @property
    def imported(self) -> bool:
        return self.plan.recipe == IMPORTED

    @property
    def knows_cases(self) -> bool:
        """Whether it tells which cases its networks were trained on; a network imported without its dataset does not."""
        return bool(self.plan.data.index_sha256)

    @cached_property
    def splits(self) -> list[dict[str, list[str]]]:
        self.need_cases()
        return load_splits(self.folder.splits)

    @cached_property
    def cases(self) -> dict[str, Case]:
        from ukan.data.index import load_index

        self.need_cases()
        return {case.case: case for case in load_index(self.folder.index)}

    def need_cases(self) -> None:
        """Raises UserError where the run does not know its cases."""
        if not self.knows_cases:
            root = self.folder.root
            raise UserError(
                f"{root}: imported without the dataset it was trained on, so no case is known to be held out; "
                f"score other cases with `ukan evaluate {root} --on FOLDER`, or import again with --data FOLDER"
            )

    @property
    def finished_folds(self) -> list[int]:
        return [k for k in range(self.plan.split.count) if self.folder.fold(k).weights.exists()]

    def data_root(self, given: Path | None) -> Path:
        """Where the raw files are: as given, or where training found them."""
        self.need_cases()
        root = given or Path(str(self.environment().get("data_root", "")))
        if not root.is_dir() or str(root) == ".":
            raise DataError(f"{root}: the dataset of {self.folder.root} is not there; give its folder with --data FOLDER")
        from ukan.data.layouts import find_layout

        return find_layout(root, self.plan.data.layout)[1].resolve()

    def prepared(self, given: Path | None = None) -> "Prepared":
        """All cases that training prepared, from the cache where they still are; `given` as in `data_root`."""
        from ukan.data.cache import prepare_cases

        names = sorted({name for split in self.splits for part in split.values() for name in part})
        return prepare_cases(self.data_root(given), [self.cases[name] for name in names], self.plan.data)

    def need_fold(self, fold: int) -> None:
        """Raises UserError where a fold is none of the run's, or has no finished network."""
        if fold not in self.finished_folds:
            there = ", ".join(map(str, self.finished_folds)) or "none"
            raise UserError(
                f"{self.folder.root}: fold {fold} is not trained (finished: {there}); use `ukan train PLAN --fold {fold}`"
            )

    def environment(self) -> dict[str, Any]:
        try:
            return json.loads(self.folder.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def weights_sha256(self) -> dict[str, str]:
        """{fold: hash of its weights}: what tells whether scores and predictions are of these networks."""
        return {str(k): _sha256(self.folder.fold(k).weights) for k in self.finished_folds}

    def network(self, fold: int, device: "torch.device") -> "nn.Module":
        """The finished network of a fold, ready to predict."""
        import torch

        from ukan.models import build_network
        from ukan.models.weights import load_weights

        plan = self.plan
        if "scan_backend" in plan.model.sizes:  # training asked for it; here it is what this machine has
            plan = plan.model_copy(update={"model": plan.model.model_copy(update={"scan_backend": "auto"})})
        model = build_network(plan)
        path = self.folder.fold(fold).weights
        try:
            model.load_state_dict(load_weights(path))
        except RuntimeError as error:
            raise DataError(f"{path}: not of the network that the run's plan describes; restore one of them") from error
        memory_format = torch.channels_last if plan.train.channels_last else torch.contiguous_format
        return model.eval().to(device).to(memory_format=memory_format)


def open_run(path: Path, task: Task | None = "segment") -> Run:
    """Open a run folder of a task, or of any. Raises UserError where it is none, with the ones there are, or of another."""
    folder = RunFolder(path)
    if not folder.plan.exists():
        near = sorted(p.parent.as_posix() for p in path.parent.glob("*/plan.yaml")) if path.parent.is_dir() else []
        there = f" There are: {', '.join(near)}." if near else " `ukan train PLAN` makes one."
        raise UserError(f"{path}: not a run folder.{there}")
    run = Run(folder, Plan.load(folder.plan))
    if task and run.plan.task != task:
        serve = {"segment": "evaluate, report, predict and explain", "diffuse": "evaluate, report, sample and fid"}[
            run.plan.task
        ]
        raise UserError(f"{path}: a run of the task {run.plan.task}, not {task}; {serve} take it")
    return run


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
