"""A package adds a network through the entry point ukan.models, without forking; a broken one is told in one line."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ukan.errors import UserError
from ukan.models import build_model, find_model, model_sizes
from ukan.plan import Plan

TINY = """
from torch import nn

class Tiny(nn.Module):
    stride = 2

    def __init__(self, in_channels, num_classes, *, width=4, norm=True):
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be positive, got {width}")
        middle = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 2, 1), middle, nn.ReLU(), nn.ConvTranspose2d(width, num_classes, 2, 2)
        )

    def forward(self, x_BCHW):
        return self.net(x_BCHW)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """install(code): a package `theirs` with that code, installed as far as Python is concerned; its network is `tiny`."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def write(code: str, target: str = "theirs:Tiny") -> None:
        about = site / "theirs_nets-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-nets\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[ukan.models]\ntiny = {target}\n")
        (site / "theirs.py").write_text(code)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("theirs", None)


def test_a_network_of_another_package_is_found_by_name_with_its_sizes(install) -> None:
    install(TINY)
    assert model_sizes("tiny") == {"width": 4, "norm": True}
    model = build_model("tiny", 1, 2, {"width": 3})
    assert model(torch.zeros(2, 1, 8, 6)).shape == (2, 2, 8, 6)
    with pytest.raises(UserError, match="Did you mean 'tiny'"):
        find_model("tiiny")
    with pytest.raises(UserError, match="model.widht: tiny takes no such size. Did you mean 'width'"):
        build_model("tiny", 1, 2, {"widht": 3})
    with pytest.raises(UserError, match="model: width must be positive, got 0"):
        build_model("tiny", 1, 2, {"width": 0})


def test_it_learns(install) -> None:
    install(TINY)
    torch.manual_seed(0)
    model = build_model("tiny", 1, 1, {})
    image = torch.zeros(1, 1, 16, 16)
    image[..., 4:12, 4:12] = 1
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        loss = F.binary_cross_entropy_with_logits(model(image), image)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        optimizer.step()
    assert ((model.eval()(image) > 0) == (image > 0)).float().mean() > 0.95


def test_it_is_planned_trained_and_read_back_like_our_own(install, write_dataset) -> None:
    from ukan.runs import open_run
    from ukan.segment.train import train
    from ukan.stage.prepare import plan_folder

    install(TINY)
    settings = ["model.width=5", "train.epochs=1", "data.input_size=[32,32]", "split.folds=2"]
    plan, path, _ = plan_folder(write_dataset(Path("data"), count=6, size=(32, 40)), model="tiny", settings=settings)
    assert plan.model.sizes == {"width": 5, "norm": True} and Plan.load(path) == plan
    try:
        done = train(path, folds=[0], device="cpu", workers=0)
    finally:
        torch.use_deterministic_algorithms(False)  # training asks for them, and other tests count what networks keep
    assert done.outcomes[0].finished
    network = open_run(done.run.folder.root).network(0, torch.device("cpu"))
    assert type(network).__name__ == "Tiny" and not network.training


@pytest.mark.parametrize(
    ("code", "target", "message"),
    [
        ("import a_package_that_is_missing", "theirs:Tiny", "No module named 'a_package_that_is_missing'"),
        ("raise RuntimeError('built for\\nanother CUDA')", "theirs:Tiny", "built for"),
        ("def (", "theirs:Tiny", "invalid syntax"),
        (TINY, "theirs:Tony", "has no attribute 'Tony'"),
        (TINY, "their:Tiny", "No module named 'their'"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named_in_one_line(install, code: str, target: str, message: str) -> None:
    install(code, target)
    with pytest.raises(
        UserError, match=f"model.name: tiny of the package theirs-nets cannot be loaded.*{message}"
    ) as caught:
        find_model("tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("stride = 2", ""), "no `stride`"),
        (("stride = 2", "stride = 'two'"), "no `stride`"),
        (
            ("in_channels, num_classes, *, width=4, norm=True", "channels, *, width=4, norm=True"),
            "Model(in_channels, num_classes",
        ),
        (("*, width=4, norm=True", "width, norm=True"), "Model(in_channels, num_classes"),
        (("*, width=4, norm=True", "width=4, norm=True"), "Model(in_channels, num_classes"),
        (("*, width=4, norm=True", "*, width, norm=True"), "Model(in_channels, num_classes"),
        (("class Tiny(nn.Module)", "class Tiny"), "no torch.nn.Module"),
        (("class Tiny(nn.Module)", "Tiny = 3\nclass Other"), "no torch.nn.Module"),
    ],
)
def test_a_class_that_breaks_the_contract_is_told_which_part(install, change: tuple[str, str], message: str) -> None:
    assert change[0] in TINY
    install(TINY.replace(*change))
    with pytest.raises(UserError) as caught:
        find_model("tiny")
    assert message in str(caught.value) and "theirs-nets" in str(caught.value) and "\n" not in str(caught.value)
