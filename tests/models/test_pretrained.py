"""The ConvNeXt U-Net: what is published goes in whole, once, when a training begins, and never when a network is built."""

import json
import sys
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ukan.errors import DataError, UserError
from ukan.models import build_model

PUBLISHED = "convnext_atto.d2_in1k"
SMALL = {"encoder": "atto", "decoder": [8, 8, 8, 8, 8]}


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """timm's own classifier, whose weights are what is published."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(7)
    return timm.create_model("convnext_atto").eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of files, empty, and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / f"{PUBLISHED}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def make(channels: int = 3, **sizes: Any) -> Any:
    torch.manual_seed(0)
    return build_model("convnext-unet", channels, 1, {**SMALL, **sizes}).eval()


def deepest(model: Any, image: Tensor) -> Tensor:
    found: list[Tensor] = []
    handle = model.get_submodule(model.deepest).register_forward_hook(lambda _, __, output: found.append(output))
    with torch.no_grad():
        model(image)
    handle.remove()
    return found[0]


def test_building_asks_no_network_and_the_weights_size_changes_no_fresh_network(hub: Path) -> None:
    with_weights, without = make(weights="imagenet").state_dict(), make(weights="none").state_dict()
    assert all(torch.equal(with_weights[name], without[name]) for name in without)


def test_the_encoder_then_answers_as_the_published_network(hub: Path, theirs: Any) -> None:
    publish(hub, theirs.state_dict())
    model, image = make(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        truth = theirs.stages(theirs.stem(image))
    assert not torch.allclose(deepest(model, image), truth)
    model.load_pretrained()
    torch.testing.assert_close(deepest(model, image), truth)


def test_one_channel_is_read_as_the_same_in_all_three_colours(hub: Path, theirs: Any) -> None:
    publish(hub, theirs.state_dict())
    grey, colour = make(1), make(3)
    grey.load_pretrained(), colour.load_pretrained()
    image = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(deepest(grey, image), deepest(colour, image.expand(1, 3, 64, 64)))


def test_five_channels_that_show_the_same_answer_as_three(hub: Path, theirs: Any) -> None:
    """Repeated weights are scaled: where all colours weigh the same, the first convolution answers what it did."""
    state = theirs.state_dict()
    publish(hub, {**state, "stem.0.weight": state["stem.0.weight"].mean(1, keepdim=True).expand(-1, 3, -1, -1)})
    five, three = make(5), make(3)
    five.load_pretrained(), three.load_pretrained()
    image = torch.randn(1, 1, 64, 64)
    same = deepest(five, image.expand(1, 5, 64, 64)), deepest(three, image.expand(1, 3, 64, 64))
    torch.testing.assert_close(*same, rtol=1e-4, atol=1e-5)


def test_it_says_which_weights_it_took(hub: Path, theirs: Any) -> None:
    import hashlib

    path = publish(hub, theirs.state_dict())
    assert make().load_pretrained() == {"weights": PUBLISHED, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    model = make(weights="none")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert model.load_pretrained() == {}
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_weights_that_cannot_be_fetched_are_told_with_what_to_do(hub: Path) -> None:
    with pytest.raises(UserError, match=f"cannot be fetched .no network here.*timm/{PUBLISHED}") as refused:
        make().load_pretrained()
    assert str(hub / f"{PUBLISHED}.safetensors") in str(refused.value) and "model.weights=none" in str(refused.value)


@pytest.mark.parametrize("wrong", ["missing", "more", "shape", "text"])
def test_a_file_that_holds_something_else_is_refused(hub: Path, theirs: Any, wrong: str) -> None:
    state = dict(theirs.state_dict())
    if wrong == "missing":
        del state["stages.3.blocks.1.norm.bias"]
    elif wrong == "more":
        state["stages.4.blocks.0.norm.bias"] = torch.zeros(3)
    elif wrong == "shape":
        state["stages.3.blocks.1.norm.bias"] = torch.zeros(7)
    path = publish(hub, state)
    if wrong == "text":
        path.write_text("<html>")
    with pytest.raises(DataError, match=f"{PUBLISHED}"):
        make().load_pretrained()


def test_without_the_package_the_answer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'ukan\[pretrained\]'"):
        build_model("convnext-unet", 3, 1, {})


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"encoder": "nano"}, "encoder is one of atto, pico, tiny, got 'nano'"),
        ({"decoder": [8, 8, 8, 8]}, "decoder takes five positive numbers"),
        ({"weights": "in22k"}, "weights is 'imagenet' or 'none'"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_model("convnext-unet", 3, 1, sizes)


def test_a_training_begins_with_them_and_one_that_goes_on_needs_the_file_no_more(
    hub: Path, theirs: Any, write_dataset
) -> None:
    from ukan.runs import open_run
    from ukan.segment.train import train
    from ukan.stage.prepare import plan_folder

    settings = ["train.epochs=3", "data.input_size=[32,32]", "split.folds=2", "train.lr=1e-9", "train.weight_decay=0"]
    settings += ["model.encoder=atto", "model.decoder=[8,8,8,8,8]"]
    folder = write_dataset(Path("data"), count=6, size=(32, 40), colour=True)
    plan, path, _ = plan_folder(folder, model="convnext-unet", settings=settings)
    assert plan.model.sizes["weights"] == "imagenet"
    options: dict[str, Any] = {"folds": [0], "device": "cpu", "workers": 0}
    try:
        with pytest.raises(UserError, match="cannot be fetched"):
            train(path, **options)
        published = publish(hub, theirs.state_dict())
        stopped = train(path, max_time_s=0.0, **options)
        assert not stopped.outcomes[0].finished
        published.unlink()
        done = train(path, **options)
    finally:
        torch.use_deterministic_algorithms(False)
    assert done.outcomes[0].finished
    root = done.run.folder.root
    assert json.loads((root / "environment.json").read_text())["folds"]["0"]["pretrained"]["weights"] == PUBLISHED
    network: Any = open_run(root).network(0, torch.device("cpu"))  # at so small a rate still what it began with
    torch.testing.assert_close(
        network.net.encoder.model.stem_0.weight, theirs.state_dict()["stem.0.weight"], atol=1e-5, rtol=0
    )
