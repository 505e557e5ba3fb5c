"""Features are the networks' own, weights are checked before they are opened, and what is cached is what was made."""

import hashlib
import io
import pickle
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ukan.data.preprocess import prepare_stack, to_input
from ukan.diffuse.features import Features, load_features
from ukan.errors import DataError, UserError
from ukan.models import build_network
from ukan.models.weights import save_weights
from ukan.paths import RunFolder
from ukan.plan import DataPlan, ModelPlan, Plan, SplitPlan

CPU = torch.device("cpu")
Save = Callable[..., Path]


class TinyInception(nn.Module):
    """In the place of torch-fidelity's Inception: the same arguments, the same way to weights, uint8 (B, 3, H, W)."""

    def __init__(self, name: str, layers: list[str], feature_extractor_weights_path: Any) -> None:
        super().__init__()
        assert layers == ["2048", "logits_unbiased"]
        self.mix = nn.Linear(3, 6)
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        features = self.mix(x.float().mean((2, 3)))
        return features, features * 2


@pytest.fixture
def inception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3", TinyInception)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save(content, name=...): a file whose name carries its hash."""

    def write(content: Any, name: str = "weights-{}.pth", raw: bytes | None = None) -> Path:
        buffer = io.BytesIO()
        if raw is None:
            torch.save(content, buffer)
        written = raw if raw is not None else buffer.getvalue()
        path = tmp_path / name.format(hashlib.sha256(written).hexdigest()[:8])
        path.write_bytes(written)
        return path

    return write


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(3, 6).state_dict() | {}


def as_tiny(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"mix.{name}": value for name, value in state.items()}


def pictures(count: int = 70) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


# Inception.


def test_inception_sees_every_image_once_as_8_bit_rgb(inception: None, save: Save) -> None:
    features = load_features("inception", save(as_tiny(weights())), CPU)
    seen: list[tuple[int, int]] = []
    found = features.extract(pictures(), lambda done, total: seen.append((done, total)))
    state = weights()
    expected = pictures().astype(np.float64).mean((1, 2)) @ state["weight"].numpy().T + state["bias"].numpy()
    assert found.features_NF == pytest.approx(expected, rel=1e-4) and found.features_NF.dtype == np.float32
    assert found.logits_NC == pytest.approx(2 * found.features_NF)
    assert seen == [(32, 70), (64, 70), (70, 70)]
    assert features.distances == ("KID", "FID")


def test_the_real_inception_goes_the_same_way(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are no part of the tests: untrained ones, by its own names."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    where = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with monkeypatch.context() as patch:
        patch.setattr(where, lambda *_, **__: {})
        patch.setattr(Inception, "load_state_dict", lambda *_: None)
        network = Inception("untrained", ["2048", "logits_unbiased"])
    features = load_features("inception", save(network.state_dict()), CPU)
    found = features.extract(pictures(2))
    assert found.logits_NC is not None
    assert found.features_NF.shape == (2, 2048) and found.logits_NC.shape == (2, 1008)
    with torch.inference_mode():
        expected, logits = network(torch.from_numpy(pictures(2)).permute(0, 3, 1, 2))
    assert found.features_NF == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-7)
    assert found.logits_NC == pytest.approx(logits.numpy(), rel=1e-4, abs=1e-7)


def test_weights_whose_content_is_not_what_their_name_says_are_never_opened(
    inception: None, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(as_tiny(weights()))
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(DataError, match=r"bytes hash to .*, its name says .*: cut off, or another file"):
        load_features("inception", path, CPU)


def test_weights_without_a_hash_in_their_name_are_refused(save: Save) -> None:
    with pytest.raises(UserError, match=r"no hash in its name.*weights-inception-2015-12-05-6726825d\.pth"):
        load_features("inception", save(as_tiny(weights()), "inception.pth"), CPU)


def test_the_published_name_s_hash_is_the_one_looked_for(save: Save) -> None:
    with pytest.raises(DataError, match="its name says 6726825d"):
        load_features("inception", save(as_tiny(weights()), "weights-inception-2015-12-05-6726825d.pth"), CPU)


@pytest.mark.parametrize("state", [{"other": torch.zeros(3)}, {"mix.weight": torch.zeros(2, 2), "mix.bias": torch.zeros(6)}])
def test_weights_of_another_network_are_refused(inception: None, save: Save, state: dict[str, Tensor]) -> None:
    with pytest.raises(DataError, match=r"not the weights of torch-fidelity's Inception-v3; take weights-inception-2015"):
        load_features("inception", save(state), CPU)


class Runs:
    """Leaves a trace where somebody lets a pickle run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("ran").touch, ()


@pytest.mark.parametrize("raw", [b"", b"no weights at all", pickle.dumps(Runs())])
def test_what_is_no_file_of_weights_is_one_line_and_runs_nothing(save: Save, raw: bytes) -> None:
    with pytest.raises(DataError, match="not a file of weights alone, or damaged"):
        load_features("inception", save(None, raw=raw), CPU)
    assert not Path("ran").exists()


def test_a_checkpoint_with_code_in_it_is_refused_and_runs_nothing(save: Save) -> None:
    with pytest.raises(DataError, match="not a file of weights alone"):
        load_features("inception", save({"mix.weight": Runs()}), CPU)
    assert not Path("ran").exists()


def test_a_file_that_holds_no_names_or_is_not_there_is_refused(save: Save) -> None:
    with pytest.raises(DataError, match="holds no weights by name"):
        load_features("inception", save(torch.zeros(3)), CPU)
    with pytest.raises(DataError, match=r"gone-12345678\.pth: No such file"):
        load_features("inception", Path("gone-12345678.pth"), CPU)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no network"), TimeoutError("timed out"), RuntimeError("invalid hash value")]
)
def test_where_weights_are_nowhere_one_sentence_says_what_to_fetch_and_where_to_put_it(
    hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as told:
        load_features("inception", None, CPU)
    said = str(told.value)
    assert "https://github.com/toshas/torch-fidelity/releases/" in said and "6726825d.pth" in said
    assert str(hub) in said and "--weights FILE" in said and "\n" not in said


def test_downloaded_weights_are_asked_for_by_their_hash_and_checked(
    inception: None, hub: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append(hash_prefix)
        Path(path).write_bytes(save(as_tiny(weights())).read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):  # what lies there is taken, and checked as well
        with pytest.raises(DataError, match="its name says 6726825d"):
            load_features("inception", None, CPU)
    assert asked == ["6726825d"]


# The encoder of a run.


def make_run(root: Path, *, name: str = "ukan", channels: int = 3, finished: tuple[int, ...] = (1,)) -> RunFolder:
    folder = RunFolder(root)
    data = DataPlan(dataset="toy", layout="folders", index_sha256="0" * 64, input_size=(32, 64), channels=channels)
    plan = Plan(
        name="toy",
        data=data,
        model=ModelPlan(name=name, widths=[8, 8, 16], kan_layers=["mlp"] * 3),
        split=SplitPlan(folds=2),
    )
    plan.save(folder.plan)
    for fold in finished:
        torch.manual_seed(fold)
        save_weights(folder.fold(fold).weights, build_network(plan), {})
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_an_encoder_s_features_are_the_mean_of_its_deepest_map(channels: int) -> None:
    folder = make_run(Path("runs/toy"), channels=channels)
    features = load_features("run:runs/toy", None, CPU)
    assert features.name == "run:runs/toy:1" and "ukan, toy" in features.label
    assert features.distances == ("kernel distance (run:runs/toy:1)", "Frechet distance (run:runs/toy:1)")
    images = pictures(11)
    found = features.extract(images)
    assert found.logits_NC is None

    plan = Plan.load(folder.plan)
    network = build_network(plan).eval()
    from ukan.models.weights import load_weights

    network.load_state_dict(load_weights(folder.fold(1).weights))
    seen: list[Tensor] = []
    network.get_submodule(network.deepest).register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.inference_mode():
        network(to_input(torch.from_numpy(prepare_stack(images, plan.data)), plan.data))
    expected = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0].mean(1)
    assert found.features_NF == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_fold_may_be_named_and_an_unfinished_one_is_refused() -> None:
    make_run(Path("runs/toy"), finished=(0, 1))
    first, second = (load_features(spec, None, CPU) for spec in ("run:runs/toy", "run:runs/toy:1"))
    assert (first.name, second.name) == ("run:runs/toy:0", "run:runs/toy:1")
    assert first.identity != second.identity and first.weights_sha256 != second.weights_sha256
    with pytest.raises(UserError, match="fold 7 is not finished; there are: 0, 1"):
        load_features("run:runs/toy:7", None, CPU)


@pytest.mark.parametrize(
    ("spec", "said"),
    [("vgg", "unknown; take inception"), ("run:nowhere", "not a run folder"), ("run:", "not a run folder")],
)
def test_an_unknown_spec_is_answered_in_one_line(spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_features(spec, None, CPU)


def test_a_run_without_a_finished_fold_and_a_network_without_a_deepest_map_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_run(Path("runs/toy"), finished=())
    with pytest.raises(UserError, match="no fold is finished"):
        load_features("run:runs/toy", None, CPU)
    make_run(Path("runs/other"))
    monkeypatch.setattr("ukan.runs.Run.network", lambda *_: nn.Identity())
    with pytest.raises(UserError, match="names no deepest map"):
        load_features("run:runs/other", None, CPU)


# The cache.


def counting(identity: str = "a", value: float = 1.0) -> tuple[Features, list[int]]:
    calls: list[int] = []

    def batches(images: np.ndarray) -> Any:
        calls.append(len(images))
        yield images.reshape(len(images), -1).mean(1, keepdims=True) * value, None

    return Features("x", "x", ("k", "f"), "", identity, batches), calls


def test_features_are_made_once_for_the_same_content_and_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    features, calls = counting()
    first = features.cached(pictures(5), "content")
    assert np.array_equal(features.cached(pictures(5), "content"), first) and calls == [5]
    features.cached(pictures(5), "other")
    other, others = counting("b")
    other.cached(pictures(5), "content")
    assert calls == [5, 5] and others == [5]


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    features, calls = counting()
    first = features.cached(pictures(5), "content")
    (path,) = (tmp_path / "cache").rglob("*.npz")
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    assert np.array_equal(features.cached(pictures(5), "content"), first) and calls == [5, 5]


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="no finite numbers"):
        counting(value=float("nan"))[0].extract(pictures(3))
